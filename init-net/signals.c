// SPDX-License-Identifier: Apache-2.0
#include "init-net/signals.h"

#include "lib/base/check.h"

void signals_hold(sigset_t *ret_before)
{
    static const int ending[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGALRM, SIGPIPE };
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < array_len(ending); i++) {
        sigaddset(&set, ending[i]);
    }
    sigprocmask(SIG_BLOCK, &set, ret_before);
}

void signals_release(const sigset_t *before)
{
    sigprocmask(SIG_SETMASK, before, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// Signals as loop events (signalfd). Block them in every thread first: signal_block_all in main before threads start.
#ifndef LIB_EVENT_SIGNAL_H
#define LIB_EVENT_SIGNAL_H

#include "lib/event/loop.h"

struct signal_watch {
    struct loop_fd fd;
    struct loop *loop; // while it watches
    void (*on_signal)(struct signal_watch *w, int signo);
};

// Blocks SIGTERM SIGINT SIGHUP SIGUSR1 SIGUSR2 SIGCHLD in the calling thread and ignores SIGPIPE.
void signal_block_all(void);
// Watches the n signals. 0 or negative errno.
int signal_watch_start(struct signal_watch *w, struct loop *l, const int *signals, int n, struct err *err);
void signal_watch_stop(struct signal_watch *w);

#endif

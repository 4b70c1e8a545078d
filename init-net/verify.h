// SPDX-License-Identifier: Apache-2.0
// Does it really work? The rules in the kernel against the plan, then real connections of our own user.
#ifndef INIT_NET_VERIFY_H
#define INIT_NET_VERIFY_H

#include "init-net/plan.h"

enum check_state { CHECK_OK, CHECK_FAILED, CHECK_SKIPPED };

struct check {
    const char *name; // static
    enum check_state state;
    char text[200]; // what was seen or why it was not looked at
};

enum { VERIFY_CHECKS_MAX = 12 };

struct verify_result {
    size_t n;
    struct check checks[VERIFY_CHECKS_MAX];
    bool failed;   // any check failed
    bool probed;   // at least one connection proved something
};

// Runs all checks that this user can run; each probe takes at most timeout_ms. Without CAP_NET_ADMIN the rules cannot be
// read and only the probes count. The plan gets the layout of the rules that are there.
void verify_run(struct plan *p, struct options *o, uint32_t timeout_ms, struct verify_result *ret);

#endif

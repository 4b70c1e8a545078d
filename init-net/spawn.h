// SPDX-License-Identifier: Apache-2.0
// Running another program: text in, texts out, within a time. Only the iptables backends need one.
#ifndef INIT_NET_SPAWN_H
#define INIT_NET_SPAWN_H

#include <stdint.h>

#include "lib/base/arena.h"
#include "lib/base/err.h"

enum { SPAWN_OUTPUT_MAX = 16 << 20 }; // bytes of each stream that are kept; a larger rule set is not ours to handle

struct spawn_result {
    int status;     // exit code; 128 + signal when it was killed
    struct str out; // standard output, arena
    struct str err; // standard error, arena
};

// Looks for an executable in PATH, then in the usual system directories (an init container may have no PATH).
// The full path, in the arena; NULL when there is none.
const char *spawn_find(const char *name, struct arena *a);
// Runs argv[0] (a full path; argv ends with NULL) with input on its standard input and waits for its end.
// setting: one more "NAME=value" for its environment, or NULL. The capabilities NET_ADMIN and NET_RAW are handed on as
// ambient ones where we hold them, so this also works without root. deadline_ms: monotonic clock; the program is killed then.
// 0, or a negative errno with the reason in err when it could not be run to its end.
int spawn_run(char *const argv[], const char *setting, struct str input, int64_t deadline_ms, struct arena *a, struct spawn_result *ret,
              struct err *err);

#endif

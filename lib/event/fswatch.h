// SPDX-License-Identifier: Apache-2.0
// Tells when a file or a folder changed (inotify), also when it is replaced by rename or by a symlink swap as Kubernetes does.
#ifndef LIB_EVENT_FSWATCH_H
#define LIB_EVENT_FSWATCH_H

#include "lib/event/loop.h"

struct fswatch;

// path: a file (its folder is watched too) or a folder (recursively, FSWATCH_DIRS_MAX folders). on_change(arg) runs on the loop's
// thread, coalesced: once, quiet_ms after the last event. NULL + err on failure.
enum { FSWATCH_DIRS_MAX = 256 };
struct fswatch *fswatch_new(struct loop *l, const char *path, unsigned quiet_ms, void (*on_change)(void *arg), void *arg, struct err *err);
void fswatch_free(struct fswatch *w);

#endif

// SPDX-License-Identifier: Apache-2.0
// Threads: start with a name, wait for the end.
#ifndef LIB_EVENT_THREAD_H
#define LIB_EVENT_THREAD_H

#include <pthread.h>

#include "lib/base/err.h"

// Starts fn(arg) on a new thread named name (at most 15 bytes are kept); all signals are blocked in it. 0 or negative errno.
int thread_start(pthread_t *ret, const char *name, void *(*fn)(void *arg), void *arg, struct err *err);
// CPUs this process may use (affinity and cgroup v2 cpu.max), at least 1.
int thread_cpu_count(void);

#endif

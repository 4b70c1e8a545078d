// SPDX-License-Identifier: Apache-2.0
// Gives back memory that is not needed any more.
#ifndef PROXY_SERVER_TRIM_H
#define PROXY_SERVER_TRIM_H

#include "lib/event/loop.h"

// Once, when the server has settled: drops clean pages of program text and constants that nothing uses any more from this process (they come back from the page
// cache on the next use; madvise(2) MADV_DONTNEED on mappings that cannot be written), and free heap pages. Control thread.
void trim_after_start(void);

// A worker that held much in buffers and does no more (clients that did not read have left) gives the memory back to the kernel, seconds
// later. Embedded; the worker's thread.
struct trim_worker {
    struct loop_hook hook;
    struct timer timer;
    struct loop *loop;
};
void trim_worker_init(struct trim_worker *t, struct loop *l);
void trim_worker_fini(struct trim_worker *t);

#endif

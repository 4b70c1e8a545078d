// SPDX-License-Identifier: Apache-2.0
// Gives back memory that only the start needed.
#ifndef PROXY_SERVER_TRIM_H
#define PROXY_SERVER_TRIM_H

// Once, when the server has settled: drops clean pages of program text and constants that nothing uses any more from this process (they come back from the page
// cache on the next use; madvise(2) MADV_DONTNEED on mappings that cannot be written), and free heap pages. Control thread.
void trim_after_start(void);

#endif

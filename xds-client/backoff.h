// SPDX-License-Identifier: Apache-2.0
// Exponential back-off with full jitter: attempt n waits a uniform time in [0, min(max, base × 2ⁿ)), so that a thousand proxies
// whose control plane comes back do not come back together. Pure: the random number comes in.
#ifndef XDS_CLIENT_BACKOFF_H
#define XDS_CLIENT_BACKOFF_H

#include <stdint.h>

enum { XDS_BACKOFF_BASE_MS = 500, XDS_BACKOFF_MAX_MS = 30000 };

struct xds_backoff {
    uint64_t base_ms, max_ms;
    uint64_t ceiling_ms; // of the next wait
};

// 0 = the defaults above.
static inline void xds_backoff_init(struct xds_backoff *b, uint64_t base_ms, uint64_t max_ms)
{
    b->base_ms = base_ms ? base_ms : XDS_BACKOFF_BASE_MS;
    b->max_ms = max_ms ? max_ms : XDS_BACKOFF_MAX_MS;
    b->base_ms = b->base_ms < b->max_ms ? b->base_ms : b->max_ms;
    b->ceiling_ms = b->base_ms;
}
// After a good response.
static inline void xds_backoff_reset(struct xds_backoff *b)
{
    b->ceiling_ms = b->base_ms;
}
// How long to wait now; random in [0, 1). Doubles the ceiling for the next time.
static inline uint64_t xds_backoff_next(struct xds_backoff *b, double random)
{
    uint64_t wait = (uint64_t)((double)b->ceiling_ms * random);
    b->ceiling_ms = b->ceiling_ms > b->max_ms / 2 ? b->max_ms : b->ceiling_ms * 2;
    return wait;
}

#endif

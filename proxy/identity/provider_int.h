// SPDX-License-Identifier: Apache-2.0
// What the providers share.
#ifndef PROXY_IDENTITY_PROVIDER_INT_H
#define PROXY_IDENTITY_PROVIDER_INT_H

#include "proxy/identity/provider.h"

enum { IDENTITY_FILE_MAX_BYTES = 1024 * 1024 };

struct identity;
struct identity_provider {
    const char *name;                   // for logs
    void (*attempt)(struct identity *i); // planned or asked for
    void (*destroy)(struct identity *i); // frees i, which is the first member of the provider's own struct
};

struct identity {
    const struct identity_provider *provider;
    struct loop *loop;
    const struct identity_ops *ops;
    void *owner;
    struct timer timer;
    uint64_t due_wall_ms; // when the timer is to act; it may fire before, as wall time moves on its own
    struct identity_status status;
};

void identity_init(struct identity *i, const struct identity_provider *p, struct loop *l, const struct identity_ops *ops, void *owner);
// Plans the next attempt.
void identity_plan(struct identity *i, uint64_t delay_ms);
// Checks and reports a set. 0, or negative with err (nothing was reported then).
int identity_report(struct identity *i, struct str chain, struct str key, struct str root, struct err *err);
void identity_failed(struct identity *i, const struct err *err);
// From receipt to rotation, in ms: until share (0…1) of the remaining life-time is left. At least 500.
uint64_t identity_rotate_after_ms(int64_t now_s, int64_t not_after_s, double share);
// Back-off number n (0 = first): doubles up to IDENTITY_RETRY_MAX_MS; unit (0…1) picks between half and all of it.
uint64_t identity_backoff_ms(uint64_t first_ms, unsigned n, double unit);

#endif

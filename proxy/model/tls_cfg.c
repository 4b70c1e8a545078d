// SPDX-License-Identifier: Apache-2.0
#include "proxy/model/tls_cfg.h"

#include <stdlib.h>

#include "lib/base/mem.h"

struct tls_slot *tls_slot_new(void)
{
    struct tls_slot *s = mem_new(struct tls_slot);
    refs_init(&s->refs);
    atomic_init(&s->ctx, NULL);
    return s;
}

struct tls_ctx *tls_slot_get(const struct tls_slot *s)
{
    struct tls_ctx *c = atomic_load_explicit(&s->ctx, memory_order_acquire);
    return c ? tls_ctx_ref(c) : NULL;
}

struct tls_slot *tls_slot_ref(struct tls_slot *s)
{
    refs_get(&s->refs);
    return s;
}

void tls_slot_unref(struct tls_slot *s)
{
    if (!s || !refs_put(&s->refs)) {
        return;
    }
    if (s->destroy) {
        s->destroy(s);
    }
    tls_ctx_unref(atomic_load_explicit(&s->ctx, memory_order_relaxed));
    free(s);
}

// SPDX-License-Identifier: Apache-2.0
// TLS of a filter chain or of a cluster's endpoints: which context (through a slot that rotation refills) and what is expected of the peer.
#ifndef PROXY_MODEL_TLS_CFG_H
#define PROXY_MODEL_TLS_CFG_H

#include <stdatomic.h>

#include "lib/tls/tls_ctx.h"
#include "lib/tls/verify.h"
#include "proxy/model/refs.h"

// The current context for one (secret names, parameters). The control thread stores, workers load within a turn and take their own
// reference (tls_slot_get). The replaced context is released by the control thread only after all workers have left the turn (it rides
// on the retired snapshot), so the load-then-ref window is safe.
struct tls_slot {
    struct refs refs;
    _Atomic(struct tls_ctx *) ctx; // owned; NULL = secret not there yet: refuse (fail closed)
    void *control;                 // control thread only: how to rebuild
    void (*destroy)(struct tls_slot *s); // releases `control` only, when the last reference goes (any thread); NULL = nothing to do
};
// An empty slot with one reference.
struct tls_slot *tls_slot_new(void);
// A new reference to the current context, or NULL. Worker, within a turn. acquire pairs with the control thread's release store.
struct tls_ctx *tls_slot_get(const struct tls_slot *s);
struct tls_slot *tls_slot_ref(struct tls_slot *s);
// Any thread. The last one calls destroy, drops the context and frees the slot. NULL is fine.
void tls_slot_unref(struct tls_slot *s);

struct tls_cfg { // arena of its listener or cluster
    struct tls_slot *slot; // counted by its owner's arena (arena_on_free)
    // client
    struct str sni;
    struct str *alpn; // offered; clusters only (servers select inside the context)
    size_t alpn_count;
    // both
    struct san_matcher *sans;
    size_t san_count;
    bool require_client_cert; // server
};

#endif

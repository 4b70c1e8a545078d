// SPDX-License-Identifier: Apache-2.0
// envoy.filters.network.connection_limit: so many open connections of a filter chain, over all workers; those above are closed at once.
#include <errno.h>
#include <stdatomic.h>

#include "envoy/extensions/filters/network/connection_limit/v3/connection_limit.pb-c.h"
#include "proto/pb_util.h"
#include "proxy/filters/network/filters.h"

typedef Envoy__Extensions__Filters__Network__ConnectionLimit__V3__ConnectionLimit pb_limit;

struct limit_cfg {
    struct str stat_prefix;
    bool enabled;
    uint64_t max;
    atomic_ullong *open;     // in the arena; any thread
};

struct counted { // one connection, in its arena
    atomic_ullong *open;     // of its chain, which outlives it; NULL = refused
    struct stat_block *stats;
};

static int limit_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    const pb_limit *m = msg;
    if (!m || !m->stat_prefix[0] || !m->max_connections) {
        return err_set(err, -EINVAL, "%s: missing", !m ? "typed_config" : !m->stat_prefix[0] ? "stat_prefix" : "max_connections");
    }
    if (!m->max_connections->value) {
        return err_set(err, -EINVAL, "max_connections: must be greater than 0");
    }
    if (m->delay) {
        return err_set(err, -ENOTSUP, "delay: is not supported; connections over the limit are closed at once");
    }
    struct limit_cfg *c = arena_new(arena, struct limit_cfg);
    *c = (struct limit_cfg){ .stat_prefix = arena_str(arena, str_c(m->stat_prefix)), .enabled = true, .max = m->max_connections->value };
    c->open = arena_new(arena, atomic_ullong);
    if (m->runtime_enabled) {
        c->enabled = pb_bool_or(m->runtime_enabled->default_value, false);
        const char *key = m->runtime_enabled->runtime_key;
        if (config_runtime_bool && ctx && key[0] && config_runtime_bool(ctx, key, &c->enabled, err)) {
            return err->code;
        }
    }
    *ret_cfg = c;
    return 0;
}

// The connection's end.
static void leave(void *arg)
{
    const struct counted *x = arg;
    stat_gauge_add(x->stats, STAT_ID_TCP_OPEN_LIMIT_ACTIVE, -1);
    if (x->open) {
        atomic_fetch_sub_explicit(x->open, 1, memory_order_relaxed);
    }
}

static enum filter_verdict limit_on_connection(struct downstream *d, const void *cfg)
{
    const struct limit_cfg *c = cfg;
    if (!c->enabled) {
        return FILTER_CONTINUE;
    }
    struct stat_block *stats = stats_scope_get(d->worker->stats, STAT_TCP_OPEN_LIMIT, c->stat_prefix); // never dropped
    struct counted *x = arena_new(downstream_arena(d), struct counted);
    x->stats = stats;
    stat_gauge_add(stats, STAT_ID_TCP_OPEN_LIMIT_ACTIVE, 1);
    bool in = atomic_fetch_add_explicit(c->open, 1, memory_order_relaxed) < c->max; // increment, then check, undo when over: exact across workers
    if (in) {
        x->open = c->open;
    } else {
        atomic_fetch_sub_explicit(c->open, 1, memory_order_relaxed);
        stat_inc(stats, STAT_ID_TCP_OPEN_LIMIT_LIMITED);
    }
    arena_on_free(downstream_arena(d), leave, x);
    return in ? FILTER_CONTINUE : FILTER_CLOSE;
}

static enum filter_verdict limit_peek(const struct downstream *d, const void *cfg)
{
    (void)d;
    const struct limit_cfg *c = cfg;
    return !c->enabled || atomic_load_explicit(c->open, memory_order_relaxed) < c->max ? FILTER_CONTINUE : FILTER_CLOSE;
}

const struct network_filter_ops network_filter_connection_limit = {
    .ext = { .name = "envoy.filters.network.connection_limit",
             .type_url = "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
             .config_parse = limit_parse },
    .on_connection = limit_on_connection,
    .peek = limit_peek,
};

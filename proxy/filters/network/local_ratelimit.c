// SPDX-License-Identifier: Apache-2.0
// envoy.filters.network.local_ratelimit: connections over the limit are closed at once. The bucket is this process's; filters with the same
// share_key and the same numbers have one together.
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "envoy/extensions/filters/network/local_ratelimit/v3/local_rate_limit.pb-c.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"
#include "proto/pb_util.h"
#include "proxy/authz/rate_limit.h"
#include "proxy/authz/token_bucket.h"
#include "proxy/filters/network/filters.h"

typedef Envoy__Extensions__Filters__Network__LocalRatelimit__V3__LocalRateLimit pb_local;

struct local_cfg {
    struct str stat_prefix;
    bool enabled;
    struct token_bucket *bucket; // arena's, or in shared
};

struct shared_bucket {
    struct token_bucket bucket;
    char *key;   // owned
    unsigned users; // configurations
};
// By share_key and numbers. Configurations are made on the control thread and end on whichever thread drops them last.
static struct map shared;
static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;

static void release(void *arg)
{
    struct shared_bucket *b = arg;
    pthread_mutex_lock(&shared_lock);
    if (--b->users == 0) {
        map_del(&shared, str_c(b->key));
        free(b->key);
        free(b);
        if (shared.count == 0) {
            map_fini(&shared);
            shared = (struct map){ 0 };
        }
    }
    pthread_mutex_unlock(&shared_lock);
}

// As in Envoy: the same key with other numbers is another bucket.
static struct token_bucket *share(struct str key, uint64_t max, uint64_t per_fill, uint64_t fill_ms, struct arena *a)
{
    struct str full = arena_printf(a, "%llu/%llu/%llu/%.*s", (unsigned long long)max, (unsigned long long)per_fill, (unsigned long long)fill_ms,
                                   STR_FMT(key));
    pthread_mutex_lock(&shared_lock);
    struct shared_bucket *b = map_get(&shared, full);
    if (!b) {
        b = mem_new(struct shared_bucket);
        b->key = str_dup(full);
        token_bucket_init(&b->bucket, max, per_fill, fill_ms);
        map_put(&shared, full, b);
    }
    b->users++;
    pthread_mutex_unlock(&shared_lock);
    arena_on_free(a, release, b);
    return &b->bucket;
}

static int local_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    const pb_local *m = msg;
    if (!m || !m->stat_prefix[0] || !m->token_bucket) {
        return err_set(err, -EINVAL, "%s: missing", !m ? "typed_config" : !m->stat_prefix[0] ? "stat_prefix" : "token_bucket");
    }
    const Envoy__Type__V3__TokenBucket *t = m->token_bucket;
    uint64_t per_fill = pb_u32_or(t->tokens_per_fill, 1), fill_ms = (uint64_t)pb_duration_ms(t->fill_interval, 0);
    if (!per_fill) {
        return err_set(err, -EINVAL, "token_bucket.tokens_per_fill: must be greater than 0");
    }
    if (fill_ms < RATE_LIMIT_FILL_MIN_MS) {
        return err_set(err, -EINVAL, "token_bucket.fill_interval: must be %d ms or more", RATE_LIMIT_FILL_MIN_MS);
    }
    struct local_cfg *c = arena_new(arena, struct local_cfg);
    c->stat_prefix = arena_str(arena, str_c(m->stat_prefix));
    c->enabled = true;
    if (m->runtime_enabled) {
        c->enabled = pb_bool_or(m->runtime_enabled->default_value, false);
        const char *key = m->runtime_enabled->runtime_key;
        if (config_runtime_bool && ctx && key[0] && config_runtime_bool(ctx, key, &c->enabled, err)) {
            return err->code;
        }
    }
    if (m->share_key[0]) {
        c->bucket = share(str_c(m->share_key), t->max_tokens, per_fill, fill_ms, arena);
    } else {
        c->bucket = arena_new(arena, struct token_bucket);
        token_bucket_init(c->bucket, t->max_tokens, per_fill, fill_ms);
    }
    *ret_cfg = c;
    return 0;
}

static enum filter_verdict local_on_connection(struct downstream *d, const void *cfg)
{
    const struct local_cfg *c = cfg;
    if (!c->enabled || token_bucket_take(c->bucket, loop_now_ns(d->worker->loop), 1)) {
        return FILTER_CONTINUE;
    }
    stat_inc(stats_scope_get(d->worker->stats, STAT_TCP_LIMIT, c->stat_prefix), STAT_ID_TCP_LIMIT_RATE_LIMITED);
    downstream_found(d)->flags |= RF(UPSTREAM_RETRY_LIMIT); // that is what Envoy says
    return FILTER_CLOSE;
}

static enum filter_verdict local_peek(const struct downstream *d, const void *cfg)
{
    const struct local_cfg *c = cfg;
    return !c->enabled || token_bucket_left(c->bucket, loop_now_ns(d->worker->loop)) ? FILTER_CONTINUE : FILTER_CLOSE;
}

const struct network_filter_ops network_filter_local_ratelimit = {
    .ext = { .name = "envoy.filters.network.local_ratelimit",
             .type_url = "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
             .config_parse = local_parse },
    .on_connection = local_on_connection,
    .peek = local_peek,
};

// SPDX-License-Identifier: Apache-2.0
// envoy.filters.network.rbac: who may connect. The decision is made when the transport is ready, ahead of any connection to an upstream: nothing
// that it looks at changes with what the client sends later, so one decision is as good as one for each read (enforcement_type CONTINUOUS), and a
// server that speaks first says nothing to those who are denied.
#include <errno.h>

#include "envoy/extensions/filters/network/rbac/v3/rbac.pb-c.h"
#include "proto/pb_util.h"
#include "proxy/authz/rules.h"
#include "proxy/filters/network/filters.h"

struct rbac_cfg {
    struct authz_rules *rules;
    struct str stat_prefix; // without a dot at its end
    uint64_t delay_ms;      // of closing those who are denied
};

static int rbac_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx;
    const Envoy__Extensions__Filters__Network__Rbac__V3__RBAC *m = msg;
    struct rbac_cfg *c = arena_new(arena, struct rbac_cfg);
    if (!m || !m->stat_prefix[0]) {
        return err_set(err, -EINVAL, "stat_prefix: is missing");
    }
    if (m->opt_matcher_case || m->opt_shadow_matcher_case) {
        return err_set(err, -ENOTSUP, "%s: match trees are not supported; give rules", m->opt_matcher_case ? "matcher" : "shadow_matcher");
    }
    c->stat_prefix = arena_str(arena, str_c(m->stat_prefix));
    c->stat_prefix.n -= c->stat_prefix.p[c->stat_prefix.n - 1] == '.';
    c->delay_ms = (uint64_t)pb_duration_ms(m->delay_deny, 0);
    const struct authz_rules_cfg r = { .rules = m->rules, .shadow_rules = m->shadow_rules, .shadow_prefix = m->shadow_rules_stat_prefix };
    int rc = authz_rules_parse(&r, AUTHZ_OF_CONNECTION, arena, &c->rules, err);
    *ret_cfg = rc < 0 ? *ret_cfg : c;
    return rc;
}

static struct authz_subject subject_of(const struct downstream *d, const struct stream_info *i)
{
    struct authz_subject u = { .local = &i->downstream_local, .direct_remote = &i->downstream_direct_remote, .source = &i->downstream_remote,
                               .remote = &i->downstream_remote, .server_name = i->requested_server_name, .info = i };
    authz_subject_tls(&u, downstream_tls(d));
    return u;
}

// ---- those who are denied later ----

static void delay_over(struct timer *t)
{
    chain_refuse(container_of(t, struct downstream, timer));
}

static void waiting_gone(struct conn *c, enum conn_close why)
{
    (void)why;
    chain_refuse(c->owner);
}

static const struct conn_ops waiting_ops = { .on_close = waiting_gone };

static void close_later(struct downstream *d, uint64_t delay_ms)
{
    d->conn->ops = &waiting_ops;
    d->conn->owner = d;
    conn_pause_read(d->conn, CONN_PAUSE_FLOW);
    timer_init(&d->timer, delay_over);
    timer_set(d->worker->loop, &d->timer, delay_ms);
}

// Whether a decision leaves something in dynamic metadata.
static bool notes(const struct authz_rules *r)
{
    return r->shadow.rules || (r->enforced.rules && authz_action_of(r->enforced.rules) == AUTHZ_LOG);
}

static enum filter_verdict rbac_on_connection(struct downstream *d, const void *cfg)
{
    const struct rbac_cfg *c = cfg;
    struct arena details_arena = { 0 };
    const char *details;
    struct stream_info i;
    downstream_info(d, &i);
    const struct authz_subject u = subject_of(d, &i);
    struct authz_question q = { .names = c->rules, .rules = c->rules, .subject = &u, .worker = d->worker, .stat_base = c->stat_prefix,
                                .arena = &details_arena, .of = AUTHZ_OF_CONNECTION };
    if (notes(c->rules)) { // few connections have found anything, and those that did not are smaller
        q.metadata = &downstream_found(d)->dynamic;
        q.arena = downstream_arena(d);
    }
    authz_try_shadow(&q);
    if (authz_enforce(&q, &details)) {
        return FILTER_CONTINUE;
    }
    downstream_found(d)->termination = arena_strdup(downstream_arena(d), details);
    arena_fini(&details_arena);
    if (c->delay_ms) {
        close_later(d, c->delay_ms);
        return FILTER_HELD;
    }
    return FILTER_CLOSE;
}

static enum filter_verdict rbac_peek(const struct downstream *d, const void *cfg)
{
    const struct rbac_cfg *c = cfg;
    struct stream_info i;
    downstream_info(d, &i);
    const struct authz_subject u = subject_of(d, &i);
    const struct authz *z = c->rules->enforced.rules;
    return !z || authz_decide(z, &u).allowed ? FILTER_CONTINUE : FILTER_CLOSE;
}

const struct network_filter_ops network_filter_rbac = {
    .ext = { .name = "envoy.filters.network.rbac",
             .type_url = "envoy.extensions.filters.network.rbac.v3.RBAC",
             .config_parse = rbac_config_parse },
    .on_connection = rbac_on_connection,
    .peek = rbac_peek,
};

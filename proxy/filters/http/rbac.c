// SPDX-License-Identifier: Apache-2.0
// envoy.filters.http.rbac: who may ask for what. A route's configuration replaces the listener's rules; counters and metadata keep the names of
// the listener's.
#include <errno.h>

#include "envoy/extensions/filters/http/rbac/v3/rbac.pb-c.h"
#include "proxy/authz/rules.h"
#include "proxy/filters/http/filters.h"
#include "proxy/http/manager.h"

typedef Envoy__Extensions__Filters__Http__Rbac__V3__RBAC pb_rbac;

static int parse(const pb_rbac *m, struct arena *arena, struct authz_rules **ret, struct err *err)
{
    if (!m) {
        return authz_rules_parse(&(struct authz_rules_cfg){ 0 }, AUTHZ_OF_REQUEST, arena, ret, err);
    }
    if (m->opt_matcher_case || m->opt_shadow_matcher_case) {
        return err_set(err, -ENOTSUP, "%s: match trees are not supported; give rules", m->opt_matcher_case ? "matcher" : "shadow_matcher");
    }
    const struct authz_rules_cfg c = { .rules = m->rules, .shadow_rules = m->shadow_rules, .rules_prefix = m->rules_stat_prefix,
                                       .shadow_prefix = m->shadow_rules_stat_prefix, .per_policy = m->track_per_rule_stats };
    return authz_rules_parse(&c, AUTHZ_OF_REQUEST, arena, ret, err);
}

static int rbac_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx;
    struct authz_rules *r = NULL;
    int rc = parse(msg, arena, &r, err);
    *ret_cfg = rc < 0 ? *ret_cfg : r;
    return rc;
}

// RBACPerRoute without rbac: nothing is enforced there.
static int rbac_route_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx;
    const Envoy__Extensions__Filters__Http__Rbac__V3__RBACPerRoute *m = msg;
    struct authz_rules *r = NULL;
    int rc = parse(m->rbac, arena, &r, err);
    if (rc < 0) {
        return err_wrap(err, "rbac");
    }
    *ret_cfg = r;
    return 0;
}

static enum http_filter_status rbac_on_request(struct http_filter *f, struct http_request *req)
{
    struct stream *s = f->stream;
    struct authz_rules *mine = (struct authz_rules *)f->cfg; // its counters are each worker's own
    const struct authz_rules *of_route = stream_per_filter(s, f->ext->name);
    const struct match_request r = { .method = req->method, .path = req->path, .authority = req->host, .scheme = req->scheme,
                                     .headers = &req->headers, .random = s->random, .facts = s->info.facts, .arena = &s->arena,
                                     .head = req };
    struct authz_subject u = { .request = &r, .local = &s->info.downstream_local, .direct_remote = &s->info.downstream_direct_remote,
                               .source = downstream_remote(s->ds), .remote = &s->info.downstream_remote,
                               .server_name = s->info.requested_server_name, .info = &s->info,
                               .route_metadata = s->route ? &s->route->metadata : NULL };
    authz_subject_tls(&u, s->info.downstream_tls);
    const struct authz_question q = { .names = mine, .rules = of_route ? of_route : mine, .subject = &u, .worker = s->worker,
                                      .stat_base = s->cfg->stat_prefix, .metadata = &s->info.dynamic, .arena = &s->arena, .of = AUTHZ_OF_REQUEST };
    const char *details;
    authz_try_shadow(&q);
    if (authz_enforce(&q, &details)) {
        return HF_CONTINUE;
    }
    stream_local_reply(s, 403, STR("RBAC: access denied"), details, 0, NULL);
    return HF_STOP;
}

const struct http_filter_ops http_filter_rbac = {
    .ext = { .name = "envoy.filters.http.rbac", .type_url = "envoy.extensions.filters.http.rbac.v3.RBAC",
             .config_parse = rbac_config_parse },
    .route_type_url = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
    .route_config_parse = rbac_route_parse,
    .on_request = rbac_on_request,
};

// SPDX-License-Identifier: Apache-2.0
// envoy.filters.network.ext_authz: a server of the operator decides about each connection, over gRPC. It is asked when the transport is ready,
// ahead of any connection to an upstream (Envoy asks at the client's first bytes): a server that speaks first says nothing to those who are denied.
#include <errno.h>

#include "envoy/extensions/filters/network/ext_authz/v3/ext_authz.pb-c.h"
#include "lib/tls/transport_tls.h"
#include "proto/pb_util.h"
#include "proxy/authz/check.h"
#include "proxy/authz/grpc_service.h"
#include "proxy/authz/metadata_match.h"
#include "proxy/authz/node_labels.h"
#include "proxy/filters/network/filters.h"
#include "proxy/router/side_call.h"

enum { TIMEOUT_MS = 200 }; // Envoy's, where none is said

struct authz_cfg {
    struct grpc_service grpc;
    bool failure_mode_allow, peer_certificate, tls_session;
    struct str stat_prefix;
    const struct metadata_match *enabled; // NULL = always
    const struct str *spaces;             // metadata_context_namespaces
    size_t space_count;
    const struct check_pair *labels;
    size_t label_count;
};

struct asking { // in the connection's arena
    struct downstream *d;
    const struct authz_cfg *cfg;
    struct side_grpc *call;
    struct stat_block *stats;
    uint64_t start_ns;
};

static const struct str metadata_space = STR_INIT("envoy.filters.network.ext_authz");

static int parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    const Envoy__Extensions__Filters__Network__ExtAuthz__V3__ExtAuthz *m = msg;
    if (!m || !m->stat_prefix[0] || !m->grpc_service) {
        return err_set(err, -EINVAL, "%s: is missing", m && m->stat_prefix[0] ? "grpc_service" : "stat_prefix");
    }
    if (m->n_typed_metadata_context_namespaces || m->shadow_mode || m->send_tls_alert_on_denial) {
        return err_set(err, -ENOTSUP, "%s: is not supported", m->shadow_mode ? "shadow_mode" : m->send_tls_alert_on_denial ?
                       "send_tls_alert_on_denial" : "typed_metadata_context_namespaces");
    }
    if (m->transport_api_version != ENVOY__CONFIG__CORE__V3__API_VERSION__V3) {
        return err_set(err, -EINVAL, "transport_api_version: must be V3");
    }
    struct authz_cfg *c = arena_new(arena, struct authz_cfg);
    int rc = grpc_service_parse(m->grpc_service, TIMEOUT_MS, arena, &c->grpc, err);
    if (rc) {
        return err_wrap(err, "grpc_service");
    }
    rc = m->filter_enabled_metadata ? metadata_match_parse(m->filter_enabled_metadata, arena, &c->enabled, err) : 0;
    if (rc) {
        return err_wrap(err, "filter_enabled_metadata");
    }
    struct str *spaces = arena_array(arena, struct str, m->n_metadata_context_namespaces + 1);
    for (size_t i = 0; i < m->n_metadata_context_namespaces; i++) {
        spaces[i] = arena_str(arena, str_c(m->metadata_context_namespaces[i]));
    }
    c->spaces = spaces;
    c->space_count = m->n_metadata_context_namespaces;
    c->failure_mode_allow = m->failure_mode_allow;
    c->peer_certificate = m->include_peer_certificate;
    if (c->peer_certificate) {
        tls_want_peer_pem();
    }
    c->tls_session = m->include_tls_session;
    c->stat_prefix = arena_str(arena, str_c(m->stat_prefix));
    c->label_count = node_labels_get(m->bootstrap_metadata_labels_key, arena, &c->labels);
    if (config_uses_cluster && ctx) {
        config_uses_cluster(ctx, c->grpc.cluster);
    }
    *ret_cfg = c;
    return 0;
}

// ---- the question ----

static struct str question(const struct authz_cfg *c, const struct stream_info *i, struct arena *a)
{
    const struct tls_info *t = i->downstream_tls;
    struct check_question q = { .source = { .addr = i->downstream_remote, .principal = check_principal(t ? t->peer_uri : STR(""),
                                                                                                       t && t->peer_dns_count ? t->peer_dns_names[0] : STR(""),
                                                                                                       t ? t->peer_subject : STR("")) },
                                .destination = { .addr = i->downstream_local, .service = i->requested_server_name,
                                                 .principal = t ? t->local_uri : STR(""), .labels = c->labels, .label_count = c->label_count },
                                .has_tls = c->tls_session, .sni = t && t->sni.n ? t->sni : i->requested_server_name };
    if (c->peer_certificate && t) {
        q.source.certificate = check_certificate(t->peer_pem, a);
    }
    q.metadata = check_metadata(i, c->spaces, c->space_count, a);
    return check_question_pack(&q, a);
}

// ---- the answer ----

static void let_go(struct asking *x)
{
    struct downstream *d = x->d;
    stat_gauge_add(x->stats, STAT_ID_TCP_AUTHZ_ACTIVE, -1);
    x->call = NULL;
    d->ops = NULL;
    d->terminal = NULL;
}

static void close_it(struct asking *x, const char *details)
{
    struct downstream_found *found = downstream_found(x->d);
    found->flags |= RF(UNAUTHORIZED_EXTERNAL);
    found->details = details;
    stat_inc(x->stats, STAT_ID_TCP_AUTHZ_CX_CLOSED);
    chain_refuse(x->d);
}

// False: what policies behind this filter may decide by has no room.
static bool take_metadata(struct asking *x, const struct check_answer *a)
{
    struct downstream *d = x->d;
    struct arena *arena = downstream_arena(d);
    struct str bytes = check_answer_metadata(a, loop_now_ns(d->worker->loop) - x->start_ns, arena);
    return !bytes.n || dynamic_metadata_merge(&downstream_found(d)->dynamic, arena, metadata_space, bytes);
}

static void on_done(void *owner, const struct side_grpc_answer *answer)
{
    struct asking *x = owner;
    struct check_answer a = { .verdict = CHECK_ERROR };
    if (answer->status == GRPC_OK && check_answer_parse(answer->message, answer->http->arena, &a, NULL)) {
        a = (struct check_answer){ .verdict = CHECK_ERROR };
    }
    let_go(x);
    a.verdict = take_metadata(x, &a) || a.verdict == CHECK_DENIED ? a.verdict : CHECK_ERROR;
    static const enum stat_any ids[] = { [CHECK_OK] = STAT_ID_TCP_AUTHZ_OK, [CHECK_DENIED] = STAT_ID_TCP_AUTHZ_DENIED,
                                         [CHECK_ERROR] = STAT_ID_TCP_AUTHZ_ERROR };
    stat_inc(x->stats, ids[a.verdict]);
    if (a.verdict == CHECK_DENIED) {
        close_it(x, "ext_authz_denied");
        return;
    }
    if (a.verdict == CHECK_ERROR && !x->cfg->failure_mode_allow) {
        close_it(x, "ext_authz_error");
        return;
    }
    if (a.verdict == CHECK_ERROR) {
        stat_inc(x->stats, STAT_ID_TCP_AUTHZ_FAILURE_MODE_ALLOWED);
    }
    conn_resume_read(x->d->conn, CONN_PAUSE_OWNER);
    chain_go_on(x->d, x->cfg);
}

// ---- the connection while it waits ----

static void client_gone(struct conn *c, enum conn_close why)
{
    (void)why;
    struct downstream *d = c->owner;
    struct asking *x = d->terminal;
    side_grpc_cancel(x->call);
    let_go(x);
    chain_refuse(d);
}

static void on_abort(struct downstream *d)
{
    struct asking *x = d->terminal;
    side_grpc_cancel(x->call);
    let_go(x);
    downstream_close(d);
}

static void on_drain(struct downstream *d)
{
    d->drains = true; // the terminal filter will hear of it
}

static const struct conn_ops waiting_ops = { .on_close = client_gone };
static const struct downstream_ops ds_ops = { .on_drain = on_drain, .on_abort = on_abort };

static enum filter_verdict on_connection(struct downstream *d, const void *cfg)
{
    const struct authz_cfg *c = cfg;
    struct stat_block *stats = stats_scope_get(d->worker->stats, STAT_TCP_AUTHZ, c->stat_prefix);
    struct stream_info i;
    downstream_info(d, &i);
    if (c->enabled && !metadata_match(c->enabled, &i)) {
        stat_inc(stats, STAT_ID_TCP_AUTHZ_DISABLED);
        return FILTER_CONTINUE;
    }
    struct arena scratch = { 0 };
    struct asking *x = arena_new(downstream_arena(d), struct asking);
    *x = (struct asking){ .d = d, .cfg = c, .stats = stats, .start_ns = loop_now_ns(d->worker->loop) };
    stat_inc(stats, STAT_ID_TCP_AUTHZ_TOTAL);
    const struct grpc_service *g = &c->grpc;
    x->call = side_grpc_start(d->worker, &(struct side_grpc_request){ .cluster = g->cluster, .authority = g->authority,
                                                                      .path = STR("/envoy.service.auth.v3.Authorization/Check"),
                                                                      .message = question(c, &i, &scratch), .metadata = g->metadata,
                                                                      .timeout_ms = g->timeout_ms, .answer_max = g->answer_max, .retry = g->retry,
                                                                      .no_envoy_headers = g->no_envoy_headers, .done = on_done, .owner = x });
    arena_fini(&scratch);
    if (!x->call) { // the worker is ending
        return FILTER_CLOSE;
    }
    stat_gauge_add(stats, STAT_ID_TCP_AUTHZ_ACTIVE, 1);
    d->terminal = x;
    d->ops = &ds_ops;
    d->conn->ops = &waiting_ops;
    d->conn->owner = d;
    conn_pause_read(d->conn, CONN_PAUSE_OWNER); // a reset is heard;
    return FILTER_HELD;
}

const struct network_filter_ops network_filter_ext_authz = {
    .ext = { .name = "envoy.filters.network.ext_authz",
             .type_url = "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz",
             .config_parse = parse },
    .on_connection = on_connection,
};

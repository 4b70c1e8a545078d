// SPDX-License-Identifier: Apache-2.0
// envoy.filters.http.jwt_authn: which requests need a token of whom, and whether it is good. A requirement is a tree; it is walked from the top,
// and again from there when keys have come that it had to wait for: what is done already is kept in the request's state.
#include "proxy/filters/http/filters.h"
#include "proxy/filters/http/jwt_int.h"
#include "proxy/filters/http/jwt_remote.h"
#include "proxy/http/manager.h"

enum { REALM_PATH_MAX = 256 };

struct node_state {
    bool begun, done, waited;  // waited: keys were fetched for the token at hand
    enum jwt_status status;
    size_t next;               // child
    struct jwt_found *tokens;  // found; looked at from the last to the first, as Envoy does
    size_t left;
};

struct finding { // for the metadata
    struct finding *next;
    struct str key, value;     // a google.protobuf.Struct
};

struct jwt_state {
    struct http_filter *f;
    const struct jwt_requirement *needs;
    struct node_state *nodes;  // by jwt_node.index
    struct arena scratch;      // one token, taken apart
    struct jwt_waiter waiter;
    bool stopped;              // the request is held
    bool clear_route;
    struct finding *findings;
};

static const struct str metadata_space = STR_INIT("envoy.filters.http.jwt_authn");

static const struct jwt_cfg *cfg_of(const struct jwt_state *st)
{
    return st->f->cfg;
}

static void count(const struct http_filter *f, enum stat_any id)
{
    const struct jwt_cfg *c = f->cfg;
    jwt_count(f->stream->worker, f->stream->cfg->stat_prefix, c->stat_prefix, id);
}

// ---- one token ----

static void add_finding(struct jwt_state *st, struct str key, struct str value)
{
    struct finding *x = arena_new(&st->f->stream->arena, struct finding);
    x->key = key;
    x->value = arena_str(&st->f->stream->arena, value);
    struct finding **at = &st->findings; // by key, as Envoy prints them; of the same key the last one counts
    while (*at && str_cmp((*at)->key, key) <= 0) {
        at = &(*at)->next;
    }
    x->next = *at;
    *at = x;
}

static void add_failure(struct jwt_state *st, const struct jwt_provider *p, enum jwt_status status)
{
    const struct jwt_cfg *c = cfg_of(st);
    p = p ? p : c->provider_count == 1 ? &c->providers[0] : NULL;
    if (!p || !p->failed_key.n) {
        return;
    }
    struct arena *a = &st->f->stream->arena;
    struct metadata_value code = { .kind = MV_NUMBER, .number = status }, text = { .kind = MV_TEXT, .bytes = str_c(jwt_status_text(status)) };
    add_finding(st, p->failed_key, metadata_struct_merge(metadata_struct_of(STR("code"), &code, a), metadata_struct_of(STR("message"), &text, a), a));
}

static bool audience_ok(const struct jwt_node *n, const struct jwt_provider *p, const struct jwt_facts *t)
{
    const struct str *want = n->audience_count ? n->audiences : p->audiences;
    size_t count_want = n->audience_count ? n->audience_count : p->audience_count;
    for (size_t i = 0; i < t->aud_count && count_want; i++) {
        struct str got = jwt_audience_core(t->aud[i]);
        for (size_t k = 0; k < count_want; k++) {
            if (str_eq(got, want[k])) {
                return true;
            }
        }
    }
    return count_want == 0;
}

static bool life_ok(const struct jwt_provider *p, const struct jwt_facts *t, uint64_t now_s)
{
    return !p->limited_life || (t->has_exp && (double)t->exp - (double)now_s < p->max_life_s);
}

// Claims against what is configured, in Envoy's order.
static enum jwt_status check_claims(const struct jwt_node *n, const struct jwt_provider *p, const struct jwt_facts *t, uint64_t now_s)
{
    const struct jwt times = { .nbf = t->nbf, .exp = t->exp, .has_exp = t->has_exp };
    enum jwt_status s = jwt_check_time(&times, now_s, p->skew_s);
    if (s) {
        return s;
    }
    if (!audience_ok(n, p, t)) {
        return JWT_AUDIENCE;
    }
    bool subject_ok = !p->subjects || string_matcher_match(p->subjects, t->sub);
    return subject_ok && life_ok(p, t, now_s) ? JWT_OK : JWT_VERIFICATION;
}

static void add_payload_header(const struct jwt_provider *p, const struct jwt_facts *t, struct headers *h)
{
    static const char *const padding[] = { "", "", "==", "=" };
    const char *pad = p->pad_payload ? padding[t->payload_b64.n % 4] : "";
    headers_add(h, p->payload_header, arena_printf(h->arena, "%.*s%s", STR_FMT(t->payload_b64), pad));
}

// What a good token changes. t lives in the scratch arena or a cache: everything is copied.
static void apply(struct jwt_state *st, const struct jwt_provider *p, const struct jwt_found *found, const struct jwt_facts *t)
{
    struct stream *s = st->f->stream;
    bool added = false;
    if (p->payload_header.n) {
        add_payload_header(p, t, &s->req.headers);
    }
    for (size_t i = 0; i < p->claim_count; i++) {
        if (t->claim_values[i].n) {
            headers_add(&s->req.headers, p->claims[i].name, arena_str(&s->arena, t->claim_values[i]));
            added = true;
        }
    }
    st->clear_route |= p->clear_route && (added || p->payload_key.n);
    if (!p->forward) {
        jwt_remove(found->at, &s->req, &s->arena);
    }
    if (p->header_key.n) {
        add_finding(st, p->header_key, t->header_struct);
    }
    if (p->payload_key.n) {
        add_finding(st, p->payload_key, t->payload_struct);
    }
}

static const struct jwt_facts *cached(struct jwt_state *st, const struct jwt_provider *p, struct str token, uint64_t now_s)
{
    struct worker *w = st->f->stream->worker;
    const struct jwks *keys = !p ? NULL : p->local ? p->local : jwt_remote_keys(p->remote, w);
    const struct jwt_facts *t = keys ? jwt_cache_find(p, w->index, keys, token, now_s) : NULL;
    if (p) {
        count(st->f, t ? STAT_ID_HTTP_JWT_CACHE_HIT : STAT_ID_HTTP_JWT_CACHE_MISS);
    }
    return t;
}

enum walk { WALK_DONE, WALK_WAITS };

// The keys of p, or why there are none. WALK_WAITS: they are being fetched.
static enum walk keys_of(struct jwt_state *st, struct node_state *ns, const struct jwt_provider *p, struct jwks **ret, enum jwt_status *ret_status)
{
    struct stream *s = st->f->stream;
    if (p->remote) {
        jwt_remote_name(p->remote, s->worker, s->cfg->stat_prefix, cfg_of(st)->stat_prefix);
    }
    *ret = p->local ? p->local : jwt_remote_keys(p->remote, s->worker);
    *ret_status = *ret ? JWT_OK : JWT_JWKS_FETCH;
    if (*ret || ns->waited) {
        return WALK_DONE;
    }
    ns->waited = true;
    return jwt_remote_wait(p->remote, s->worker, &st->waiter) ? WALK_WAITS : WALK_DONE;
}

// *ret_p: whose token it turned out to be, NULL while that is not known.
static enum walk check_token(struct jwt_state *st, const struct jwt_node *n, struct node_state *ns, const struct jwt_found *found,
                             const struct jwt_provider **ret_p, enum jwt_status *ret)
{
    struct stream *s = st->f->stream;
    const struct jwt_provider *p = *ret_p = n->provider;
    uint64_t now_s = loop_wall_ms(s->worker->loop) / 1000;
    struct jwt t;
    struct jwt_facts own;
    const struct jwt_facts *facts = cached(st, p, found->token, now_s);
    bool known = facts != NULL;
    arena_reset(&st->scratch, true);
    if (!known) {
        *ret = jwt_parse(found->token, &st->scratch, &t);
        if (*ret) {
            return WALK_DONE;
        }
        own = (struct jwt_facts){ .iss = t.iss, .sub = t.sub, .aud = t.aud, .aud_count = t.aud_count, .has_exp = t.has_exp, .nbf = t.nbf, .exp = t.exp };
        facts = &own;
    }
    *ret = JWT_UNKNOWN_ISSUER;
    if (!jwt_issuer_allowed(found->at, facts->iss) || (!p && !(p = *ret_p = jwt_provider_of(cfg_of(st), facts->iss)))) {
        return WALK_DONE;
    }
    *ret = check_claims(n, p, facts, now_s);
    if (*ret || known) {
        if (!*ret) {
            apply(st, p, found, facts);
        }
        return WALK_DONE;
    }
    struct jwks *keys;
    if (keys_of(st, ns, p, &keys, ret) == WALK_WAITS) {
        return WALK_WAITS;
    }
    *ret = keys ? jwks_verify(keys, &t) : *ret;
    if (*ret == JWT_OK) {
        jwt_facts_make(p, &t, &st->scratch, &own);
        apply(st, p, found, &own);
        if (n->provider) {
            jwt_cache_put(p, s->worker->index, keys, found->token, &t);
        }
    }
    return WALK_DONE;
}

// ---- requirements ----

static void begin_node(struct jwt_state *st, const struct jwt_node *n, struct node_state *ns)
{
    struct arena *a = &st->f->stream->arena;
    struct jwt_found found[JWT_TOKENS_MAX];
    bool more;
    ns->begun = true;
    ns->left = jwt_extract(&n->locations, &st->f->stream->req, a, found, &more);
    ns->status = more ? JWT_MULTIPLE : ns->left ? JWT_OK : JWT_MISSING;
    ns->left = more ? 0 : ns->left;
    ns->tokens = ns->left ? arena_array(a, struct jwt_found, ns->left) : NULL;
    for (size_t i = 0; i < ns->left; i++) { // headers that hold them may be taken away before they are all looked at; the arena stays
        ns->tokens[i] = found[i];
    }
    if (ns->status) {
        add_failure(st, NULL, ns->status); // Envoy has not asked for the provider yet
    }
}

static void end_node(const struct jwt_node *n, struct node_state *ns)
{
    bool failed_ok = n->kind == JWT_NEED_MISSING_OR_FAILED, missing_ok = failed_ok || n->kind == JWT_NEED_MISSING;
    if (failed_ok || (missing_ok && ns->status == JWT_MISSING)) {
        ns->status = JWT_OK;
    }
    ns->done = true;
}

// All tokens that are found must be good: a bad one beside a good one might be the one that the backend looks at.
static enum walk walk_tokens(struct jwt_state *st, const struct jwt_node *n, struct node_state *ns)
{
    if (!ns->begun) {
        begin_node(st, n, ns);
    }
    while (ns->left) {
        const struct jwt_provider *p = NULL;
        enum jwt_status status = JWT_VERIFICATION;
        if (check_token(st, n, ns, &ns->tokens[ns->left - 1], &p, &status) == WALK_WAITS) {
            return WALK_WAITS;
        }
        ns->left--;
        ns->waited = false;
        if (status) {
            add_failure(st, p, status);
            ns->status = status;
            if (n->kind != JWT_NEED_MISSING_OR_FAILED) {
                break;
            }
        }
    }
    end_node(n, ns);
    return WALK_DONE;
}

static enum walk walk(struct jwt_state *st, const struct jwt_node *n);

// What is said of several that failed: of no token, of another's token, of a bad one, the worst.
static enum jwt_status worse(enum jwt_status have, enum jwt_status child)
{
    bool says_more = child != JWT_MISSING && child != JWT_UNKNOWN_ISSUER;
    return says_more || have == JWT_MISSING ? child : have;
}

static enum walk walk_group(struct jwt_state *st, const struct jwt_node *n, struct node_state *ns)
{
    bool any = n->kind == JWT_NEED_ANY;
    for (; ns->next < n->child_count; ns->next++) {
        const struct jwt_node *child = &n->children[ns->next];
        if (walk(st, child) == WALK_WAITS) {
            return WALK_WAITS;
        }
        ns->status = st->nodes[child->index].status;
        if ((ns->status == JWT_OK) == any) {
            ns->done = true;
            return WALK_DONE;
        }
    }
    ns->done = true;
    if (!any) {
        ns->status = JWT_OK;
        return WALK_DONE;
    }
    ns->status = JWT_MISSING;
    for (size_t i = 0; i < n->child_count; i++) {
        ns->status = worse(ns->status, st->nodes[n->children[i].index].status);
    }
    if (n->failed_ok || (n->missing_ok && ns->status == JWT_MISSING)) {
        ns->status = JWT_OK;
    }
    return WALK_DONE;
}

static enum walk walk(struct jwt_state *st, const struct jwt_node *n)
{
    struct node_state *ns = &st->nodes[n->index];
    if (ns->done) {
        return WALK_DONE;
    }
    switch (n->kind) {
    case JWT_NEED_ANY:
    case JWT_NEED_ALL:
        return walk_group(st, n, ns);
    case JWT_NEED_PROVIDER:
    case JWT_NEED_MISSING:
    case JWT_NEED_MISSING_OR_FAILED:
        return walk_tokens(st, n, ns);
    case JWT_NEED_NOTHING:
        break;
    }
    ns->done = true;
    ns->status = JWT_OK;
    return WALK_DONE;
}

// ---- the request ----

// "jwt_authn_access_denied{Jwt_is_missing}": one word in a log line.
static const char *details(struct stream *s, struct str text)
{
    struct str d = arena_printf(&s->arena, "jwt_authn_access_denied{%.*s}", STR_FMT(text));
    for (size_t i = 0; i < d.n; i++) {
        char *c = (char *)d.p + i;
        *c = *c == ' ' || *c == '\t' ? '_' : *c;
    }
    return d.p;
}

static void refuse(struct jwt_state *st, enum jwt_status status)
{
    struct stream *s = st->f->stream;
    struct str text = str_c(jwt_status_text(status));
    int code = status == JWT_AUDIENCE ? 403 : 401;
    count(st->f, STAT_ID_HTTP_JWT_DENIED);
    if (cfg_of(st)->strip_failure) {
        stream_local_reply(s, code, str_n(NULL, 0), details(s, text), 0, NULL);
        return;
    }
    struct str path = s->path_original;
    path.n = path.n > REALM_PATH_MAX ? REALM_PATH_MAX : path.n;
    struct headers extra;
    headers_init(&extra, &s->arena);
    headers_add(&extra, STR("www-authenticate"),
                arena_printf(&s->arena, "Bearer realm=\"%.*s://%.*s%.*s\"%s", STR_FMT(headers_value_id(&s->req.headers, HDR_X_FORWARDED_PROTO)),
                             STR_FMT(s->req.host), STR_FMT(path), status == JWT_MISSING ? "" : ", error=\"invalid_token\""));
    stream_local_reply(s, code, text, details(s, text), 0, &extra);
}

// Policies behind this filter decide by it; what does not find room there must not go missing quietly.
static bool tell_findings(struct jwt_state *st)
{
    struct stream *s = st->f->stream;
    for (const struct finding *x = st->findings; x; x = x->next) {
        const struct metadata_value v = { .kind = MV_STRUCT, .bytes = x->value };
        stream_info_metadata_merge(&s->info, &s->arena, metadata_space, metadata_struct_of(x->key, &v, &s->arena));
        if (stream_info_metadata_find(&s->info, metadata_space, &x->key, 1).kind != MV_STRUCT) {
            return false;
        }
    }
    return true;
}

static void finish(struct jwt_state *st)
{
    struct http_filter *f = st->f;
    enum jwt_status status = st->nodes[st->needs->root->index].status;
    if (!tell_findings(st) && !status) {
        status = JWT_VERIFICATION;
    }
    if (status) {
        refuse(st, status);
        return;
    }
    count(f, STAT_ID_HTTP_JWT_ALLOWED);
    if (st->clear_route) {
        stream_select_route(f->stream);
    }
    if (st->stopped) {
        stream_continue_request(f->stream, f);
    }
}

static void on_keys(struct jwt_waiter *x, bool fetched)
{
    struct jwt_state *st = container_of(x, struct jwt_state, waiter);
    (void)fetched; // jwt_remote_keys has them, or it was in vain
    if (walk(st, st->needs->root) == WALK_DONE) {
        finish(st);
    }
}

static bool is_preflight(const struct http_request *req)
{
    return str_is(req->method, "OPTIONS") && headers_value(&req->headers, STR("origin")).n &&
           headers_value(&req->headers, STR("access-control-request-method")).n;
}

static const struct jwt_requirement *needs_of(const struct jwt_cfg *c, struct stream *s)
{
    const struct match_request r = { .method = s->req.method, .path = s->req.path, .authority = s->req.host, .scheme = s->req.scheme,
                                     .headers = &s->req.headers, .random = s->random, .facts = s->info.facts, .arena = &s->arena,
                                     .head = &s->req };
    for (size_t i = 0; i < c->rule_count; i++) {
        if (route_match(&c->rules[i].match, &r)) {
            return c->rules[i].needs;
        }
    }
    return NULL;
}

// False: the route names a requirement that is not there, and the request is refused.
static bool route_needs(struct http_filter *f, const struct jwt_route_cfg *rc, const struct jwt_requirement **ret)
{
    const struct jwt_cfg *c = f->cfg;
    struct stream *s = f->stream;
    *ret = rc->disabled ? NULL : jwt_requirement_find(c, rc->requirement);
    if (rc->disabled || *ret) {
        return true;
    }
    struct str why = arena_printf(&s->arena, "Wrong requirement_name: %.*s. It should be one of [%.*s]", STR_FMT(rc->requirement), STR_FMT(c->map_names));
    struct str body = c->strip_failure ? str_n(NULL, 0) : arena_printf(&s->arena, "Failed JWT authentication: %.*s", STR_FMT(why));
    count(f, STAT_ID_HTTP_JWT_DENIED);
    stream_local_reply(s, 403, body, details(s, why), 0, NULL);
    return false;
}

static enum http_filter_status jwt_on_request(struct http_filter *f, struct http_request *req)
{
    const struct jwt_cfg *c = f->cfg;
    const struct jwt_route_cfg *rc = stream_per_filter(f->stream, f->ext->name);
    const struct jwt_requirement *needs;
    for (size_t i = 0; i < c->sanitize_count; i++) {
        headers_remove(&req->headers, c->sanitize[i]);
    }
    if (c->bypass_preflight && is_preflight(req)) {
        count(f, STAT_ID_HTTP_JWT_PREFLIGHT);
        count(f, STAT_ID_HTTP_JWT_ALLOWED);
        return HF_CONTINUE;
    }
    if (rc) {
        if (!route_needs(f, rc, &needs)) {
            return HF_STOP;
        }
    } else {
        needs = needs_of(c, f->stream);
    }
    if (!needs || !needs->root) {
        count(f, STAT_ID_HTTP_JWT_ALLOWED);
        return HF_CONTINUE;
    }
    struct jwt_state *st = f->state;
    st->f = f;
    st->needs = needs;
    st->nodes = arena_array(&f->stream->arena, struct node_state, needs->node_count);
    st->waiter.fn = on_keys;
    if (walk(st, needs->root) == WALK_WAITS) {
        st->stopped = true;
        return HF_STOP;
    }
    bool good = st->nodes[needs->root->index].status == JWT_OK;
    finish(st);
    return good && !f->stream->local_reply ? HF_CONTINUE : HF_STOP;
}

static void jwt_on_destroy(struct http_filter *f)
{
    struct jwt_state *st = f->state;
    jwt_remote_forget(&st->waiter);
    arena_fini(&st->scratch);
}

const struct http_filter_ops http_filter_jwt_authn = {
    .ext = { .name = "envoy.filters.http.jwt_authn", .type_url = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
             .config_parse = jwt_config_parse },
    .route_type_url = "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig",
    .route_config_parse = jwt_route_parse,
    .state_size = sizeof(struct jwt_state),
    .on_request = jwt_on_request,
    .on_destroy = jwt_on_destroy,
};

// SPDX-License-Identifier: Apache-2.0
#include "proxy/filters/http/jwt_provider.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "lib/base/file.h"
#include "lib/http/chars.h"
#include "proto/pb_util.h"
#include "proxy/filters/http/jwt_remote.h"
#include "proxy/filters/http/parse.h"

typedef Envoy__Extensions__Filters__Http__JwtAuthn__V3__JwtProvider pb_provider;
typedef Envoy__Extensions__Filters__Http__JwtAuthn__V3__RemoteJwks pb_remote;

enum { CLOCK_SKEW_S = 60, CACHE_SIZE = 100, CACHE_TOKEN_BYTES = 4096, JWKS_CACHE_MS = 600 * 1000, REFETCH_MS = 1000 }; // Envoy's defaults

static struct str copy(struct arena *a, const char *s)
{
    return arena_str(a, str_c(s ? s : ""));
}

struct str jwt_audience_core(struct str aud)
{
    struct str core = str_starts(aud, STR("http://")) ? str_skip(aud, 7) : str_starts(aud, STR("https://")) ? str_skip(aud, 8) : aud;
    core.n -= core.n && core.p[core.n - 1] == '/' ? 1 : 0;
    return core;
}

struct str *jwt_audiences(size_t n, char *const *v, struct arena *a)
{
    struct str *ret = arena_array(a, struct str, n + 1);
    for (size_t i = 0; i < n; i++) {
        ret[i] = arena_str(a, jwt_audience_core(str_c(v[i])));
    }
    return ret;
}

static struct str *texts(size_t n, char *const *v, struct arena *a)
{
    struct str *ret = arena_array(a, struct str, n + 1);
    for (size_t i = 0; i < n; i++) {
        ret[i] = copy(a, v[i]);
    }
    return ret;
}

// A name of a field that requests have in their list, where neither host, pseudo-fields nor framing are; lower case.
static int field_name(const char *text, const char *field, struct arena *a, struct str *ret, struct err *err)
{
    struct str s = copy(a, text);
    for (size_t i = 0; i < s.n; i++) {
        char *c = (char *)s.p + i;
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c;
    }
    enum hdr_id id = hdr_id_of(s);
    if (!ch_all(s, CH_TOKEN) || id == HDR_HOST || id == HDR_CONTENT_LENGTH || hdr_is_connection_specific(id)) {
        return err_set(err, -EINVAL, "%s: \"%s\" is no name of a header field that tokens or claims can have", field, text);
    }
    *ret = s;
    return 0;
}

// ---- places ----

// Envoy's order: by what it calls the key.
static int place_order(const void *x, const void *y)
{
    const struct jwt_location *a = x, *b = y;
    if (a->place != b->place) {
        return a->place < b->place ? -1 : 1;
    }
    char ka[512], kb[512];
    size_t na = 0, nb = 0;
    const struct str parts[] = { a->name, a->prefix, b->name, b->prefix };
    for (int i = 0; i < 4; i++) {
        char *out = i < 2 ? ka : kb;
        size_t *n = i < 2 ? &na : &nb;
        size_t k = parts[i].n < sizeof(ka) - *n ? parts[i].n : sizeof(ka) - *n;
        if (k) {
            memcpy(out + *n, parts[i].p, k);
        }
        *n += k;
    }
    return str_cmp(str_n(ka, na), str_n(kb, nb));
}

static void add_location(struct jwt_locations *l, const struct jwt_location *from, struct arena *a, size_t issuers_max)
{
    struct jwt_location *x = NULL;
    for (size_t i = 0; i < l->count && !x; i++) {
        bool same = l->v[i].place == from->place && str_eq(l->v[i].name, from->name) && str_eq(l->v[i].prefix, from->prefix);
        x = same ? &l->v[i] : NULL;
    }
    if (!x) {
        x = &l->v[l->count++];
        *x = *from;
        x->issuers = arena_array(a, struct str, issuers_max + 1);
        x->issuer_count = 0;
    }
    x->any_issuer |= from->any_issuer;
    for (size_t i = 0; i < from->issuer_count && x->issuer_count < issuers_max; i++) {
        x->issuers[x->issuer_count++] = from->issuers[i];
    }
}

void jwt_locations_merge(const struct jwt_provider *v, size_t n, struct arena *a, struct jwt_locations *ret)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        total += v[i].locations.count;
    }
    ret->v = arena_array(a, struct jwt_location, total + 1);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < v[i].locations.count; k++) {
            add_location(ret, &v[i].locations.v[k], a, n);
        }
    }
    qsort(ret->v, ret->count, sizeof(*ret->v), place_order);
}

static int build_locations(const pb_provider *m, struct arena *a, struct jwt_provider *p, struct err *err)
{
    size_t n = m->n_from_headers + m->n_from_params + m->n_from_cookies;
    struct jwt_location from = { .any_issuer = !p->issuer.n, .issuers = &p->issuer, .issuer_count = p->issuer.n != 0 };
    p->locations.v = arena_array(a, struct jwt_location, n + 2);
    for (size_t i = 0; i < m->n_from_headers; i++) {
        from.place = JWT_IN_HEADER;
        if (field_name(m->from_headers[i]->name, "name", a, &from.name, err)) {
            return err_wrap(err, "from_headers[%zu]", i);
        }
        from.prefix = copy(a, m->from_headers[i]->value_prefix);
        add_location(&p->locations, &from, a, 1);
    }
    from.prefix = str_n(NULL, 0);
    for (size_t i = 0; i < m->n_from_params; i++) {
        from.place = JWT_IN_PARAM;
        from.name = copy(a, m->from_params[i]);
        add_location(&p->locations, &from, a, 1);
    }
    for (size_t i = 0; i < m->n_from_cookies; i++) {
        from.place = JWT_IN_COOKIE;
        from.name = copy(a, m->from_cookies[i]);
        add_location(&p->locations, &from, a, 1);
    }
    if (!n) {
        from.place = JWT_IN_HEADER;
        from.name = STR("authorization");
        from.prefix = STR("Bearer ");
        add_location(&p->locations, &from, a, 1);
        from.place = JWT_IN_PARAM;
        from.name = STR("access_token");
        from.prefix = str_n(NULL, 0);
        add_location(&p->locations, &from, a, 1);
    }
    qsort(p->locations.v, p->locations.count, sizeof(*p->locations.v), place_order);
    return 0;
}

// ---- keys ----

static void unref_keys(void *k)
{
    jwks_unref(k);
}

static void close_remote(void *r)
{
    jwt_remote_close(r);
}

static int read_source(const Envoy__Config__Core__V3__DataSource *m, struct arena *a, struct str *ret, struct err *err)
{
    struct err e = { 0 };
    const char *v;
    if (m->watched_directory) {
        return err_set(err, -ENOTSUP, "watched_directory: is not supported");
    }
    switch (m->specifier_case) {
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_INLINE_STRING:
        *ret = str_c(m->inline_string);
        return 0;
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_INLINE_BYTES:
        *ret = pb_bytes(m->inline_bytes);
        return 0;
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_FILENAME:
        return file_read(m->filename, JWKS_BYTES_MAX, a, ret, &e) ? err_set(err, -EINVAL, "filename: %.900s", e.msg) : 0;
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_ENVIRONMENT_VARIABLE:
        v = getenv(m->environment_variable);
        *ret = str_c(v);
        return v ? 0 : err_set(err, -EINVAL, "environment_variable: %s is not set", m->environment_variable);
    default:
        return err_set(err, -EINVAL, "specifier: one of filename, inline_bytes, inline_string, environment_variable is needed");
    }
}

// Chains of a listener, and its next version, have the same sets again. Control thread.
enum { RECENT_SETS = 16, RECENT_TEXT_MAX = 64 * 1024 };
static struct {
    char *text; // owned
    size_t n;
    struct jwks *keys; // ref
} recent[RECENT_SETS];

static enum jwt_status parse_shared(struct str text, struct jwks **ret, struct err *err)
{
    static size_t next;
    for (size_t i = 0; i < RECENT_SETS; i++) {
        if (recent[i].keys && str_eq(text, str_n(recent[i].text, recent[i].n))) {
            *ret = jwks_ref(recent[i].keys);
            return JWT_OK;
        }
    }
    enum jwt_status st = jwks_parse(text, ret, err);
    if (st || text.n > RECENT_TEXT_MAX) {
        return st;
    }
    free(recent[next].text);
    jwks_unref(recent[next].keys);
    recent[next].text = str_dup(text);
    recent[next].n = text.n;
    recent[next].keys = jwks_ref(*ret);
    next = (next + 1) % RECENT_SETS;
    return JWT_OK;
}

static int build_local(const Envoy__Config__Core__V3__DataSource *m, struct arena *a, struct jwt_provider *p, struct err *err)
{
    struct arena scratch = { 0 };
    struct str text;
    struct err e = { 0 };
    int rc = read_source(m, &scratch, &text, err);
    if (!rc && parse_shared(text, &p->local, &e)) {
        rc = err_set(err, -EINVAL, "%s", e.msg);
    }
    arena_fini(&scratch);
    if (rc) {
        return err_wrap(err, "local_jwks");
    }
    arena_on_free(a, unref_keys, p->local);
    return 0;
}

// "http://host:port/path"; only host and path are used, the cluster says the rest.
static int split_uri(struct str uri, struct str *ret_host, struct str *ret_path, struct err *err)
{
    struct str rest = str_starts(uri, STR("http://")) ? str_skip(uri, 7) : str_starts(uri, STR("https://")) ? str_skip(uri, 8) : str_n(NULL, 0);
    ptrdiff_t slash = str_find(rest, '/');
    *ret_host = slash >= 0 ? str_n(rest.p, (size_t)slash) : rest;
    *ret_path = slash >= 0 ? str_skip(rest, (size_t)slash) : STR("/");
    bool ok = ret_host->n != 0;
    for (size_t i = 0; i < rest.n; i++) {
        ok &= rest.p[i] > 0x20 && rest.p[i] < 0x7f && rest.p[i] != '#';
    }
    return ok ? 0 : err_set(err, -EINVAL, "http_uri.uri: \"%.*s\" is not http://host/path or https://host/path", STR_FMT(uri));
}

static int build_retry(const Envoy__Config__Core__V3__RetryPolicy *m, struct arena *a, const struct retry_policy **ret, struct err *err)
{
    if (!m) {
        return 0;
    }
    if (m->retry_priority || m->n_retry_host_predicate || m->host_selection_retry_max_attempts) {
        return err_set(err, -ENOTSUP, "retry_policy: retry_priority, retry_host_predicate and host_selection_retry_max_attempts are not supported");
    }
    struct retry_policy *r = arena_new(a, struct retry_policy);
    r->on = retry_on_parse(m->retry_on[0] ? str_c(m->retry_on) : STR("5xx,gateway-error,connect-failure,reset"));
    r->num_retries = pb_u32_or(m->num_retries, 1);
    r->backoff_base_ms = m->retry_back_off ? (uint64_t)pb_duration_ms(m->retry_back_off->base_interval, 1000) : 25;
    r->backoff_max_ms = m->retry_back_off ? (uint64_t)pb_duration_ms(m->retry_back_off->max_interval, (int64_t)(10 * r->backoff_base_ms)) : 250;
    r->host_selection_attempts = 1;
    r->priority_update_frequency = 1;
    if (!r->backoff_base_ms || r->backoff_max_ms < r->backoff_base_ms) {
        return err_set(err, -EINVAL, "retry_policy.retry_back_off: base_interval must be above 0, max_interval not below it");
    }
    *ret = r;
    return 0;
}

static int build_remote(struct config_ctx *ctx, const pb_remote *m, struct arena *a, struct jwt_provider *p, struct err *err)
{
    struct jwt_remote_opts o = { 0 };
    const Envoy__Config__Core__V3__HttpUri *u = m->http_uri;
    if (!u || !u->timeout || u->http_upstream_type_case != ENVOY__CONFIG__CORE__V3__HTTP_URI__HTTP_UPSTREAM_TYPE_CLUSTER || !u->cluster[0]) {
        return err_set(err, -EINVAL, "http_uri: uri, cluster and timeout are needed");
    }
    if (split_uri(str_c(u->uri), &o.host, &o.path, err)) {
        return err->code;
    }
    o.cluster = str_c(u->cluster);
    if (config_uses_cluster && ctx) {
        config_uses_cluster(ctx, o.cluster);
    }
    o.timeout_ms = (uint64_t)pb_duration_ms(u->timeout, 0);
    o.cache_ms = (uint64_t)pb_duration_ms(m->cache_duration, JWKS_CACHE_MS);
    o.cache_ms = o.cache_ms < 1000 ? 1000 : o.cache_ms; // a request that has waited for keys must find them
    o.async = m->async_fetch != NULL;
    o.failed_refetch_ms = (uint64_t)pb_duration_ms(m->async_fetch ? m->async_fetch->failed_refetch_duration : NULL, REFETCH_MS);
    if (build_retry(m->retry_policy, &o.arena, &o.retry, err)) {
        arena_fini(&o.arena);
        return err->code;
    }
    p->remote = jwt_remote_open(&o);
    arena_on_free(a, close_remote, p->remote);
    return 0;
}

// ---- the rest ----

static void free_caches(void *arg)
{
    _Atomic(struct jwt_cache *) *caches = arg;
    for (size_t i = 0; i < JWT_CACHE_WORKERS_MAX; i++) {
        jwt_cache_free(atomic_load_explicit(&caches[i], memory_order_relaxed));
    }
}

static int build_cache(const Envoy__Extensions__Filters__Http__JwtAuthn__V3__JwtCacheConfig *m, struct arena *a, struct jwt_provider *p, struct err *err)
{
    if (m && m->jwt_cache_size > JWT_CACHE_MAX) {
        return err_set(err, -EINVAL, "jwt_cache_config.jwt_cache_size: at most %d", JWT_CACHE_MAX);
    }
    // Without a word about it, too: a look-up costs a hundredth of a verification, and only tokens that were good take room.
    p->cache_size = m && m->jwt_cache_size ? m->jwt_cache_size : CACHE_SIZE;
    p->cache_token_max = m && m->jwt_max_token_size ? m->jwt_max_token_size : CACHE_TOKEN_BYTES;
    p->caches = arena_zalloc(a, JWT_CACHE_WORKERS_MAX * sizeof(*p->caches));
    arena_on_free(a, free_caches, (void *)p->caches);
    return 0;
}

// claim_path, one key each, or claim_name with '.' between them.
static int build_claim(const Envoy__Extensions__Filters__Http__JwtAuthn__V3__JwtClaimToHeader *m, struct arena *a, struct jwt_claim_header *c, struct err *err)
{
    struct str rest = copy(a, m->claim_name);
    if (field_name(m->header_name, "header_name", a, &c->name, err)) {
        return err->code;
    }
    if (!rest.n == !m->n_claim_path) {
        return err_set(err, -EINVAL, "claim_name: one of claim_name and claim_path is needed");
    }
    c->path = arena_array(a, struct str, m->n_claim_path + rest.n + 1);
    for (size_t i = 0; i < m->n_claim_path; i++) {
        c->path[c->path_count++] = copy(a, m->claim_path[i]->key);
    }
    while (rest.p && !m->n_claim_path) {
        c->path[c->path_count++] = str_split(&rest, '.');
    }
    return 0;
}

static int build_claims(const pb_provider *m, struct arena *a, struct jwt_provider *p, struct err *err)
{
    p->claims = arena_array(a, struct jwt_claim_header, m->n_claim_to_headers + 1);
    for (size_t i = 0; i < m->n_claim_to_headers; i++, p->claim_count++) {
        if (build_claim(m->claim_to_headers[i], a, &p->claims[i], err)) {
            return err_wrap(err, "claim_to_headers[%zu]", i);
        }
    }
    return 0;
}

static int build_subjects(const pb_provider *m, struct arena *a, struct jwt_provider *p, struct err *err)
{
    if (!m->subjects) {
        return 0;
    }
    p->subjects = arena_new(a, struct string_matcher);
    return parse_string_matcher(m->subjects, a, p->subjects, err) ? err_wrap(err, "subjects") : 0;
}

static int build_keys(struct config_ctx *ctx, const pb_provider *m, struct arena *a, struct jwt_provider *p, struct err *err)
{
    switch (m->jwks_source_specifier_case) {
    case ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__JWT_PROVIDER__JWKS_SOURCE_SPECIFIER_LOCAL_JWKS:
        return build_local(m->local_jwks, a, p, err);
    case ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__JWT_PROVIDER__JWKS_SOURCE_SPECIFIER_REMOTE_JWKS:
        return build_remote(ctx, m->remote_jwks, a, p, err) ? err_wrap(err, "remote_jwks") : 0;
    default:
        return err_set(err, -EINVAL, "jwks_source_specifier: local_jwks or remote_jwks is needed");
    }
}

int jwt_provider_build(struct config_ctx *ctx, const char *name, const pb_provider *m, struct arena *a, struct jwt_provider *p, struct err *err)
{
    p->name = copy(a, name);
    p->issuer = copy(a, m->issuer);
    p->audience_count = m->n_audiences;
    p->audiences = jwt_audiences(m->n_audiences, m->audiences, a);
    p->limited_life = m->require_expiration || m->max_lifetime;
    p->max_life_s = m->max_lifetime ? (double)m->max_lifetime->seconds + m->max_lifetime->nanos / 1e9 : INFINITY;
    p->skew_s = m->clock_skew_seconds ? m->clock_skew_seconds : CLOCK_SKEW_S;
    p->forward = m->forward;
    p->pad_payload = m->pad_forward_payload_header;
    p->payload_key = copy(a, m->payload_in_metadata);
    p->header_key = copy(a, m->header_in_metadata);
    p->failed_key = copy(a, m->failed_status_in_metadata);
    p->clear_route = m->clear_route_cache;
    if (m->normalize_payload_in_metadata) {
        p->split_count = m->normalize_payload_in_metadata->n_space_delimited_claims;
        p->split_claims = texts(p->split_count, m->normalize_payload_in_metadata->space_delimited_claims, a);
    }
    if (m->forward_payload_header[0] && field_name(m->forward_payload_header, "forward_payload_header", a, &p->payload_header, err)) {
        return err->code;
    }
    return build_subjects(m, a, p, err) || build_locations(m, a, p, err) || build_claims(m, a, p, err) ||
                   build_cache(m->jwt_cache_config, a, p, err) || build_keys(ctx, m, a, p, err)
               ? err->code
               : 0;
}

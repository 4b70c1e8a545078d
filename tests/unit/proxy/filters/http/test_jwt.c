// SPDX-License-Identifier: Apache-2.0
// The parts of jwt_authn: places of tokens, claims as structs and header values, the cache, and what configurations are refused for.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "envoy/extensions/filters/http/jwt_authn/v3/config.pb-c.h"
#include "lib/base/file.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proxy/core/metadata.h"
#include "proxy/filters/http/jwt_int.h"

enum { GOLDEN_MAX = 4 * 1024 * 1024 };

static struct str golden(const char *file, const char *name, struct arena *a)
{
    char path[128];
    struct str text;
    struct json *root = NULL;
    struct err err = { 0 };
    snprintf(path, sizeof(path), "tests/golden/jose/%s", file);
    if (file_read(path, GOLDEN_MAX, a, &text, &err) || json_parse(text, a, &root, &err)) {
        fail_msg("%s: %s", path, err.msg);
    }
    struct json *n = json_get(root, name);
    assert_non_null(n);
    struct str token = json_str(n, "token");
    if (token.n) {
        return token;
    }
    struct buf b = { 0 };
    struct json_writer w;
    jw_init(&w, &b, 0);
    jw_tree(&w, n);
    struct str s = arena_str(a, buf_pullup(&b, b.len));
    buf_clear(&b);
    return s;
}

// ---- places ----

static struct http_request request(struct arena *a, const char *path)
{
    struct http_request r = { .method = STR("GET"), .path = str_c(path), .host = STR("h") };
    headers_init(&r.headers, a);
    return r;
}

// The tokens with "|" between them.
static const char *found(const struct jwt_location *at, size_t n, const struct http_request *req, struct arena *a)
{
    struct jwt_locations l = { (struct jwt_location *)at, n };
    struct jwt_found v[JWT_TOKENS_MAX];
    bool more;
    size_t k = jwt_extract(&l, req, a, v, &more);
    struct str s = STR("");
    for (size_t i = 0; i < k; i++) {
        s = arena_printf(a, "%.*s%s%.*s", STR_FMT(s), i ? "|" : "", STR_FMT(v[i].token));
    }
    return more ? "more" : s.p;
}

static void test_places(void **state)
{
    (void)state;
    struct arena a = { 0 };
    const struct jwt_location bearer = { .place = JWT_IN_HEADER, .name = STR("authorization"), .prefix = STR("Bearer ") };
    const struct jwt_location plain = { .place = JWT_IN_HEADER, .name = STR("x-tok") };
    const struct jwt_location param = { .place = JWT_IN_PARAM, .name = STR("tok") };
    const struct jwt_location cookie = { .place = JWT_IN_COOKIE, .name = STR("jwt") };
    struct http_request r = request(&a, "/p");
    assert_string_equal(found(&bearer, 1, &r, &a), "");
    headers_add(&r.headers, STR("Authorization"), STR("Bearer  a.b.c"));
    headers_add(&r.headers, STR("authorization"), STR("Basic x"));
    headers_add(&r.headers, STR("authorization"), STR("DPoP Bearer d"));
    headers_add(&r.headers, STR("X-Tok"), STR("Bearer e"));
    headers_add(&r.headers, STR("cookie"), STR("jwtx=1; jwt=\"f\"; jwt=g"));
    assert_string_equal(found(&bearer, 1, &r, &a), "a.b.c|d");
    assert_string_equal(found(&plain, 1, &r, &a), "Bearer e");
    assert_string_equal(found(&cookie, 1, &r, &a), "f");
    static const struct {
        const char *path, *found, *left;
    } params[] = {
        { "/p", "", "/p" },
        { "/p?", "", "/p" },
        { "/p?tok=a", "a", "/p" },
        { "/p?x=%20&tok=a&y", "a", "/p?x=%20&y" },
        { "/p?t%6fk=%61", "a", "/p" },
        { "/p?tok=a&tok=b", "a", "/p" },
        { "/p?tok", "", "/p" },
        { "/p?toks=a", "", "/p?toks=a" },
        { "/p?tok=%zz", "%zz", "/p" },
        { "/p?a?tok=x", "", "/p?a?tok=x" },
    };
    for (size_t i = 0; i < sizeof(params) / sizeof(params[0]); i++) {
        r = request(&a, params[i].path);
        assert_string_equal(found(&param, 1, &r, &a), params[i].found);
        jwt_remove(&param, &r, &a);
        if (!str_is(r.path, params[i].left)) {
            fail_msg("%s: left %.*s", params[i].path, STR_FMT(r.path));
        }
    }
    r = request(&a, "/");
    for (int i = 0; i <= JWT_TOKENS_MAX; i++) {
        assert_string_equal(found(&plain, 1, &r, &a), arena_printf(&a, "%.*s", i ? i * 2 - 1 : 0, "t|t|t|t|t|t|t|t|t|t|t|t|t|t|t|t").p);
        headers_add(&r.headers, STR("x-tok"), STR("t"));
    }
    assert_string_equal(found(&plain, 1, &r, &a), "more");
    jwt_remove(&plain, &r, &a);
    assert_string_equal(found(&plain, 1, &r, &a), "");
    arena_fini(&a);
}

// ---- claims ----

static struct json *parse(const char *text, struct arena *a)
{
    struct json *n = NULL;
    struct err err = { 0 };
    if (json_parse(str_c(text), a, &n, &err)) {
        fail_msg("%s: %s", text, err.msg);
    }
    return n;
}

// What protobuf reads in our bytes, and what our own reader makes of them, as JSON.
static void check_struct(const char *text, const char *want)
{
    static const struct str split[] = { STR_INIT("scope"), STR_INIT("blank"), STR_INIT("number") };
    struct arena a = { 0 };
    struct str bytes = jwt_struct_bytes(parse(text, &a), split, 3, &a);
    Google__Protobuf__Struct *m = NULL;
    struct err err = { 0 };
    if (pb_unpack_as(Google__Protobuf__Struct, google__protobuf__struct, bytes, &a, &m, &err)) {
        fail_msg("%s: %s", text, err.msg);
    }
    const struct metadata_value v = { .kind = MV_STRUCT, .bytes = bytes };
    struct str again = pb_pack(&m->base, &a); // lengths without padding
    const struct metadata_value w = { .kind = MV_STRUCT, .bytes = again };
    struct buf one = { 0 }, two = { 0 };
    metadata_json(&v, &one);
    metadata_json(&w, &two);
    assert_true(str_eq(buf_pullup(&one, one.len), buf_pullup(&two, two.len)));
    if (!str_is(buf_front(&one), want)) {
        fail_msg("%s: %.*s", text, STR_FMT(buf_front(&one)));
    }
    buf_clear(&one);
    buf_clear(&two);
    arena_fini(&a);
}

static void test_structs(void **state)
{
    (void)state;
    check_struct("{}", "{}");
    check_struct("{\"b\":1,\"a\":{\"d\":[],\"c\":{}},\"\":null}", "{\"\":null,\"a\":{\"c\":{},\"d\":[]},\"b\":1}");
    check_struct("{\"l\":[1.5,\"x\",true,false,null,[[]],{\"k\":-2}]}", "{\"l\":[1.5,\"x\",true,false,null,[[]],{\"k\":-2}]}");
    check_struct("{\"scope\":\" read  write\",\"blank\":\"  \",\"number\":5,\"other\":\"a b\"}",
                 "{\"blank\":\"  \",\"number\":5,\"other\":\"a b\",\"scope\":[\"read\",\"write\"]}");
    check_struct("{\"e\":\"\\u00e9\\n\"}", "{\"e\":\"\xc3\xa9\\n\"}");
    // long enough for lengths of several bytes, and for the room of words
    struct buf b = { 0 };
    buf_append_str(&b, STR("{\"scope\":\""));
    for (int i = 0; i < 10000; i++) {
        buf_append_str(&b, STR("a "));
    }
    buf_append_str(&b, STR("\",\"z\":\""));
    for (int i = 0; i < 10000; i++) {
        buf_append_str(&b, STR("bcd"));
    }
    buf_append(&b, "\"}\0", 3);
    struct arena a = { 0 };
    struct str bytes = jwt_struct_bytes(parse(buf_pullup(&b, b.len).p, &a), (const struct str[]){ STR("scope") }, 1, &a);
    Google__Protobuf__Struct *m = NULL;
    assert_int_equal(pb_unpack_as(Google__Protobuf__Struct, google__protobuf__struct, bytes, &a, &m, NULL), 0);
    assert_int_equal(pb_struct_get(m, "scope")->list_value->n_values, 10000);
    assert_int_equal(pb_struct_str(m, "z").n, 30000);
    buf_clear(&b);
    arena_fini(&a);
}

// Depth must not multiply the work: this would not end if it did.
static void test_deep_struct(void **state)
{
    (void)state;
    struct arena a = { 0 };
    char text[512];
    size_t n = 0;
    for (int i = 0; i < JSON_DEPTH_MAX - 1; i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "{\"a\":");
    }
    text[n++] = '1';
    for (int i = 0; i < JSON_DEPTH_MAX - 1; i++) {
        text[n++] = '}';
    }
    text[n] = '\0';
    assert_true(jwt_struct_bytes(parse(text, &a), NULL, 0, &a).n > 500);
    arena_fini(&a);
}

static void test_claim_values(void **state)
{
    (void)state;
    struct arena a = { 0 };
    static const struct {
        const char *json, *want;
    } cases[] = {
        { "\"x\"", "x" },       { "7", "7" },      { "-1.5", "-1.500000" },           { "18446744073709551616", "18446744073709551616.000000" },
        { "1e3", "1000" },      { "0.1", "0.100000" }, { "true", "true" },            { "null", "" },
        { "\"a\\r\\nb: c\"", "" }, { "\"a\\u0000\"", "" }, { "\"\\u007f\"", "" },     { "\" t \"", "t" },
        { "[1]", "WzFd" },      { "{}", "e30=" },  { "\"\"", "" },
    };
    struct str path[] = { STR("o"), STR("a.b") };
    struct jwt_claim_header ch = { .name = STR("x"), .path = path, .path_count = 2 };
    const struct jwt_provider p = { .claims = &ch, .claim_count = 1 };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct jwt_facts f;
        const struct jwt t = { .payload = parse(arena_printf(&a, "{\"o\":{\"a.b\":%s}}", cases[i].json).p, &a) };
        jwt_facts_make(&p, &t, &a, &f);
        if (!str_is(f.claim_values[0], cases[i].want)) {
            fail_msg("%s: %.*s", cases[i].json, STR_FMT(f.claim_values[0]));
        }
    }
    struct jwt_facts f;
    const struct jwt t = { .payload = parse("{\"o\":[{\"a.b\":1}]}", &a) }; // no object on the way
    jwt_facts_make(&p, &t, &a, &f);
    assert_int_equal(f.claim_values[0].n, 0);
    arena_fini(&a);
}

static void test_audience_core(void **state)
{
    (void)state;
    static const char *const cases[][2] = { { "https://a/", "a" }, { "http://a", "a" }, { "a/", "a" }, { "a//", "a/" }, { "", "" }, { "/", "" }, { "https://", "" },
                                            { "HTTPS://a", "HTTPS://a" } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_true(str_is(jwt_audience_core(str_c(cases[i][0])), cases[i][1]));
    }
}

// ---- cache ----

static void test_cache(void **state)
{
    (void)state;
    struct arena a = { 0 };
    static _Atomic(struct jwt_cache *) caches[JWT_CACHE_WORKERS_MAX];
    struct jwt_provider p = { .cache_size = 2, .cache_token_max = 4096, .caches = caches, .payload_key = STR("p"), .skew_s = 60 };
    struct jwks *k = NULL, *other = NULL;
    assert_int_equal(jwks_parse(golden("keys.json", "all", &a), &k, NULL), JWT_OK);
    assert_int_equal(jwks_parse(golden("keys.json", "all", &a), &other, NULL), JWT_OK);
    const struct str tokens[] = { golden("tokens.json", "hs256", &a), golden("tokens.json", "rs256", &a), golden("tokens.json", "expired", &a),
                                  golden("tokens.json", "long", &a) };
    for (int i = 0; i < 4; i++) {
        struct arena scratch = { 0 }; // gone before the look-up: the cache has copies
        struct jwt t;
        char *text = arena_strdup(&scratch, tokens[i].p);
        assert_int_equal(jwt_parse(str_c(text), &scratch, &t), JWT_OK);
        jwt_cache_put(&p, 0, k, str_c(text), &t);
        memset(text, 'x', strlen(text));
        arena_fini(&scratch);
        if (i == 1) {
            assert_non_null(jwt_cache_find(&p, 0, k, tokens[0], 1795000000)); // used last
        }
    }
    assert_null(jwt_cache_find(&p, 0, k, tokens[1], 1795000000)); // had to go
    assert_null(jwt_cache_find(&p, 0, k, tokens[3], 1795000000)); // too long
    const struct jwt_facts *f = jwt_cache_find(&p, 0, k, tokens[0], 1795000000);
    assert_non_null(f);
    assert_true(str_is(f->iss, "https://issuer.example") && str_is(f->sub, "alice") && f->aud_count == 1 && str_is(f->aud[0], "reviews") && f->payload_struct.n);
    assert_null(jwt_cache_find(&p, 1, k, tokens[0], 1795000000));                   // another worker's
    assert_null(jwt_cache_find(&p, 0, other, tokens[0], 1795000000));               // other keys
    assert_null(jwt_cache_find(&p, 0, k, str_n(tokens[0].p, tokens[0].n - 1), 1795000000));
    assert_non_null(jwt_cache_find(&p, 0, k, tokens[2], 1500000060));
    assert_null(jwt_cache_find(&p, 0, k, tokens[2], 1500000061));                   // expired, and gone
    assert_null(jwt_cache_find(&p, 0, k, tokens[2], 1500000000));
    struct jwt t;
    assert_int_equal(jwt_parse(tokens[1], &a, &t), JWT_OK);
    jwt_cache_put(&p, 0, other, tokens[1], &t);                                     // new keys: what the old ones vouched for goes
    assert_null(jwt_cache_find(&p, 0, other, tokens[0], 1795000000));
    assert_null(jwt_cache_find(&p, 0, k, tokens[0], 1795000000));
    assert_non_null(jwt_cache_find(&p, 0, other, tokens[1], 1795000000));
    jwt_cache_put(&p, JWT_CACHE_WORKERS_MAX, k, tokens[1], &t);                     // beyond: no cache
    assert_null(jwt_cache_find(&p, JWT_CACHE_WORKERS_MAX, k, tokens[1], 1795000000));
    jwt_cache_free(caches[0]);
    jwks_unref(k);
    jwks_unref(other);
    arena_fini(&a);
}

// ---- configuration ----

static int no_match(struct config_ctx *ctx, const void *msg, struct arena *a, struct route *ret, struct err *err)
{
    (void)ctx;
    (void)msg;
    (void)a;
    (void)err;
    *ret = (struct route){ .path_kind = PATH_PREFIX, .path = STR("/"), .case_sensitive = true };
    return 0;
}

#define KEYS "local_jwks: {inline_string: '{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}'}"
#define P(more) "{providers: {p: {" KEYS more "}}}"
#define R(rule) "{providers: {p: {" KEYS "}}, rules: [" rule "]}"
#define REMOTE(more) "{providers: {p: {remote_jwks: {" more "}}}}"

static void test_refusals(void **state)
{
    (void)state;
    static const char *const cases[][2] = { // the end of the message; NULL: taken
        { "{}", NULL },
        { P(""), NULL },
        { "{providers: {p: {}}}", "providers[\"p\"]: jwks_source_specifier: local_jwks or remote_jwks is needed" },
        { "{providers: {p: {local_jwks: {}}}}", "local_jwks: specifier: one of filename" },
        { "{providers: {p: {local_jwks: {filename: /nowhere/at/all}}}}", "local_jwks: filename: " },
        { "{providers: {p: {local_jwks: {environment_variable: REMORA_NO_SUCH}}}}", "environment_variable: REMORA_NO_SUCH is not set" },
        { "{providers: {p: {local_jwks: {inline_string: x}}}}", "local_jwks: Jwks is an invalid JSON: line 1" },
        { "{providers: {p: {local_jwks: {inline_string: ''}}}}", "local_jwks: Jwks is an invalid JSON" },
        { "{providers: {p: {local_jwks: {inline_string: '{\"keys\":[]}'}}}}", "Jwks doesn't have any valid public key: [keys] is empty" },
        { P(", from_headers: [{name: ''}]"), "from_headers[0]: name: \"\" is no name" },
        { P(", from_headers: [{name: ':path'}]"), "from_headers[0]: name: \":path\" is no name" },
        { P(", from_headers: [{name: Host}]"), "from_headers[0]: name: \"Host\" is no name" },
        { P(", forward_payload_header: 'a b'"), "forward_payload_header: \"a b\" is no name" },
        { P(", forward_payload_header: Content-Length"), "forward_payload_header: \"Content-Length\" is no name" },
        { P(", claim_to_headers: [{header_name: connection, claim_name: a}]"), "claim_to_headers[0]: header_name: \"connection\" is no name" },
        { P(", claim_to_headers: [{header_name: x}]"), "claim_to_headers[0]: claim_name: one of" },
        { P(", claim_to_headers: [{header_name: x, claim_name: a, claim_path: [{key: b}]}]"), "claim_to_headers[0]: claim_name: one of" },
        { P(", claim_to_headers: [{header_name: x, claim_path: [{key: b}]}]"), NULL },
        { P(", jwt_cache_config: {jwt_cache_size: 100001}"), "jwt_cache_config.jwt_cache_size: at most 100000" },
        { P(", subjects: {safe_regex: {regex: '('}}"), "subjects: safe_regex.regex: " },
        { REMOTE(""), "remote_jwks: http_uri: uri, cluster and timeout are needed" },
        { REMOTE("http_uri: {uri: 'http://a/b', cluster: c}"), "http_uri: uri, cluster and timeout are needed" },
        { REMOTE("http_uri: {uri: 'ftp://a/b', cluster: c, timeout: 1s}"), "http_uri.uri: \"ftp://a/b\" is not http://host/path" },
        { REMOTE("http_uri: {uri: 'http:///b', cluster: c, timeout: 1s}"), "http_uri.uri: \"http:///b\" is not" },
        { REMOTE("http_uri: {uri: \"http://a/b\\r\\nx: y\", cluster: c, timeout: 1s}"), "is not http://host/path" },
        { REMOTE("http_uri: {uri: 'https://a', cluster: c, timeout: 1s}"), NULL },
        { REMOTE("http_uri: {uri: 'https://a', cluster: c, timeout: 1s}, retry_policy: {retry_back_off: {base_interval: 2s, max_interval: 1s}}"), "max_interval not below it" },
        { REMOTE("http_uri: {uri: 'https://a', cluster: c, timeout: 1s}, retry_policy: {host_selection_retry_max_attempts: 3}"), "retry_policy: retry_priority" },
        { R("{requires: {provider_name: p}}"), "rules[0]: match: is missing" },
        { R("{match: {prefix: /}}"), NULL },
        { R("{match: {prefix: /}, requires: {provider_name: q}}"), "rules[0]: requires: provider_name: provider \"q\" is not among the providers" },
        { R("{match: {prefix: /}, requires: {provider_and_audiences: {provider_name: q}}}"), "requires: provider_and_audiences: provider_name" },
        { R("{match: {prefix: /}, requires: {requires_any: {requirements: []}}}"), "requires_any: requirements: at least one is needed" },
        { R("{match: {prefix: /}, requires: {requires_all: {requirements: [{}, {requires_any: {requirements: [{provider_name: q}]}}]}}}"),
          "requires: requires_all: requirements[1]: requires_any: requirements[0]: provider_name" },
        { R("{match: {prefix: /}, requires: {extract_only_without_validation: {}}}"), "extract_only_without_validation: is not supported" },
        { R("{match: {prefix: /}, requirement_name: n}"), "rules[0]: requirement_name: \"n\" is none of []" },
        { R("{match: {prefix: /, grpc: {}}}"), "match.grpc: is not looked at" },
        { R("{match: {prefix: /, runtime_fraction: {default_value: {}}}}"), "match.runtime_fraction: is not looked at" },
        { "{requirement_map: {b: {}, a: {}}, rules: [{match: {prefix: /}, requirement_name: c}]}", "requirement_name: \"c\" is none of [a,b]" },
        { "{requirement_map: {b: {provider_name: x}}}", "requirement_map[\"b\"]: provider_name: " },
    };
    config_route_match = no_match;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct arena scratch = { 0 }, a = { 0 };
        struct json *n = NULL;
        ProtobufCMessage *m = NULL;
        struct err err = { 0 };
        void *cfg = NULL;
        (void)yaml_parse(str_c(cases[i][0]), &scratch, &n, &err);
        if (err.code || pb_json_read(n->first, &envoy__extensions__filters__http__jwt_authn__v3__jwt_authentication__descriptor, 0, &scratch, &m, &err)) {
            fail_msg("%s: %s", cases[i][0], err.msg);
        }
        int rc = jwt_config_parse(NULL, m, &a, &cfg, &err);
        if (!rc != !cases[i][1] || (rc && !strstr(err.msg, cases[i][1]))) {
            fail_msg("%s: %s", cases[i][0], rc ? err.msg : "is taken");
        }
        arena_fini(&a);
        arena_fini(&scratch);
    }
    config_route_match = NULL;
}

// The same set is there once, however many providers have it; and no more than a few are remembered.
static void test_shared_keys(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct jwks *first = NULL;
    for (int i = 0; i < 40; i++) {
        ProtobufCMessage *m = NULL;
        void *v = NULL, *w = NULL;
        struct str text = arena_printf(&a, "{\"providers\":{\"p\":{\"local_jwks\":{\"inline_string\":\"{\\\"keys\\\":[{\\\"kty\\\":\\\"OKP\\\",\\\"kid\\\":\\\"%d\\\","
                                           "\\\"crv\\\":\\\"Ed25519\\\",\\\"x\\\":\\\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\\\"}]}\"}}}}", i);
        assert_int_equal(pb_json_parse(text, &envoy__extensions__filters__http__jwt_authn__v3__jwt_authentication__descriptor, 0, &a, &m, NULL), 0);
        assert_int_equal(jwt_config_parse(NULL, m, &a, &v, NULL), 0);
        assert_int_equal(jwt_config_parse(NULL, m, &a, &w, NULL), 0);
        const struct jwt_cfg *x = v, *y = w;
        assert_ptr_equal(x->providers[0].local, y->providers[0].local);
        assert_ptr_not_equal(x->providers[0].local, first);
        first = i ? first : x->providers[0].local;
    }
    arena_fini(&a);
}

// Remote sets, too, as long as some configuration wants them.
static void test_shared_remotes(void **state)
{
    (void)state;
    static const char *const texts[] = {
        REMOTE("http_uri: {uri: 'https://a/b', cluster: c, timeout: 1s}"),
        REMOTE("http_uri: {uri: 'https://a/b', cluster: c, timeout: 1s}, retry_policy: {num_retries: 2}"),
        REMOTE("http_uri: {uri: 'https://a/c', cluster: c, timeout: 1s}"),
        REMOTE("http_uri: {uri: 'https://a/b', cluster: d, timeout: 1s}"),
        REMOTE("http_uri: {uri: 'https://a/b', cluster: c, timeout: 1s}, cache_duration: 5s"),
        REMOTE("http_uri: {uri: 'https://a/b', cluster: c, timeout: 1s}, async_fetch: {}"),
    };
    enum { N = sizeof(texts) / sizeof(texts[0]) };
    struct arena a[2][N] = { 0 };
    struct jwt_cfg *c[2][N];
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < N; i++) {
            ProtobufCMessage *m = NULL;
            struct json *n = NULL;
            void *v = NULL;
            assert_int_equal(yaml_parse(str_c(texts[i]), &a[k][i], &n, NULL), 0);
            assert_int_equal(pb_json_read(n->first, &envoy__extensions__filters__http__jwt_authn__v3__jwt_authentication__descriptor, 0, &a[k][i], &m, NULL), 0);
            assert_int_equal(jwt_config_parse(NULL, m, &a[k][i], &v, NULL), 0);
            c[k][i] = v;
            for (int x = 0; x < i; x++) {
                assert_ptr_not_equal(c[k][i]->providers[0].remote, c[k][x]->providers[0].remote);
            }
        }
    }
    for (int i = 0; i < N; i++) {
        assert_ptr_equal(c[0][i]->providers[0].remote, c[1][i]->providers[0].remote);
        arena_fini(&a[0][i]);
        arena_fini(&a[1][i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places), cmocka_unit_test(test_structs), cmocka_unit_test(test_deep_struct), cmocka_unit_test(test_claim_values),
        cmocka_unit_test(test_audience_core), cmocka_unit_test(test_cache), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_shared_keys), cmocka_unit_test(test_shared_remotes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// The pure parts of the router: retry decisions, header operations, rewrites, redirects, hashes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/hash.h"
#include "lib/regex/regex.h"
#include "proxy/router/router.h"

static struct arena arena;
static struct http_request req;
static struct route route;
static struct virtual_host vhost;
static struct route_table table;
static struct weighted_cluster weighted;
static const struct router_cfg router_cfg;
static struct router r;

static struct str format(struct router *x, const struct format *f, const struct http_response *resp)
{
    (void)x;
    (void)f;
    return resp ? STR("resp") : headers_value(&req.headers, STR("a"));
}
static const struct router_ops ops = { .format = format };

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 0, 0);
    req = (struct http_request){ .method = STR("GET"), .path = STR("/api/x?q=1"), .host = STR("h:80"), .scheme = STR("http") };
    headers_init(&req.headers, &arena);
    memset(&route, 0, sizeof(route));
    memset(&vhost, 0, sizeof(vhost));
    memset(&table, 0, sizeof(table));
    memset(&weighted, 0, sizeof(weighted));
    route.path_kind = PATH_PREFIX;
    route.path = STR("/api");
    r = (struct router){ .ops = &ops, .cfg = &router_cfg, .arena = &arena, .req = &req, .route = &route, .vhost = &vhost, .table = &table };
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static const char *z(struct str s)
{
    return s.p ? arena_str(&arena, s).p : "(none)";
}

static void retry_conditions(void **state)
{
    (void)state;
    uint32_t codes[] = { 418 };
    struct retry_policy p = { .status_codes = codes, .status_code_count = 1 };
    static const struct {
        uint32_t on;
        enum retry_event ev;
        int status;
        bool want;
    } cases[] = {
        { RETRY_5XX, RETRY_EV_RESPONSE, 500, true },              { RETRY_5XX, RETRY_EV_RESPONSE, 499, false },
        { RETRY_5XX, RETRY_EV_RESET, 0, true },                   { RETRY_5XX, RETRY_EV_TIMEOUT, 0, true },
        { RETRY_GATEWAY_ERROR, RETRY_EV_RESPONSE, 500, false },   { RETRY_GATEWAY_ERROR, RETRY_EV_RESPONSE, 504, true },
        { RETRY_RETRIABLE_4XX, RETRY_EV_RESPONSE, 409, true },    { RETRY_RETRIABLE_4XX, RETRY_EV_RESPONSE, 404, false },
        { RETRY_STATUS_CODES, RETRY_EV_RESPONSE, 418, true },     { RETRY_STATUS_CODES, RETRY_EV_RESPONSE, 503, false },
        { RETRY_CONNECT_FAILURE, RETRY_EV_CONNECT_FAIL, 0, true }, { RETRY_CONNECT_FAILURE, RETRY_EV_RESET, 0, false },
        { RETRY_RESET_BEFORE_REQUEST, RETRY_EV_CONNECT_FAIL, 0, true }, { RETRY_RESET_BEFORE_REQUEST, RETRY_EV_RESET, 0, false },
        { RETRY_REFUSED_STREAM, RETRY_EV_REFUSED, 0, true },      { RETRY_REFUSED_STREAM, RETRY_EV_CONNECT_FAIL, 0, false },
        { RETRY_RESET, RETRY_EV_RESET, 0, true },                 { RETRY_RESET, RETRY_EV_RESPONSE, 503, false },
        { 0, RETRY_EV_RESET, 0, false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        p.on = cases[i].on;
        if (retry_wanted(&p, cases[i].ev, cases[i].status, NULL) != cases[i].want) {
            fail_msg("case %zu", i);
        }
    }
    assert_false(retry_wanted(NULL, RETRY_EV_RESET, 0, NULL));
    headers_add_id(&req.headers, HDR_GRPC_STATUS, STR("14"));
    p.on = RETRY_GRPC_UNAVAILABLE;
    assert_true(retry_wanted(&p, RETRY_EV_RESPONSE, 200, &req.headers));
    p.on = RETRY_GRPC_CANCELLED;
    assert_false(retry_wanted(&p, RETRY_EV_RESPONSE, 200, &req.headers));
    headers_add(&req.headers, STR("X-Envoy-RateLimited"), STR("true"));
    p.on = RETRY_5XX;
    assert_false(retry_wanted(&p, RETRY_EV_RESPONSE, 503, &req.headers));
}

static void backoff_grows_to_its_limit(void **state)
{
    (void)state;
    struct retry_policy p = { 0 };
    assert_int_equal(retry_backoff_ms(&p, 1, 24), 24);
    assert_int_equal(retry_backoff_ms(&p, 1, 25), 0);
    assert_int_equal(retry_backoff_ms(&p, 3, 99), 99);
    assert_int_equal(retry_backoff_ms(&p, 30, 249), 249);
    assert_int_equal(retry_backoff_ms(&p, 30, 250), 0);
    p = (struct retry_policy){ .backoff_base_ms = 2, .backoff_max_ms = 3 };
    assert_int_equal(retry_backoff_ms(&p, 2, 2), 2);
    assert_int_equal(retry_backoff_ms(&p, 2, 3), 0);
    assert_true(method_is_idempotent(STR("PUT")));
    assert_false(method_is_idempotent(STR("POST")));
    assert_false(method_is_idempotent(STR("get")));
}

static void header_operations(void **state)
{
    (void)state;
    headers_add(&req.headers, STR("A"), STR("1"));
    headers_add(&req.headers, STR("gone"), STR("x"));
    struct str remove[] = { STR("GONE"), STR("b") };
    const struct format *f = (const void *)&remove;
    struct header_add add[] = {
        { .name = STR("a"), .value = STR("2"), .action = HA_APPEND_IF_EXISTS_OR_ADD },
        { .name = STR("b"), .value = STR("new"), .action = HA_ADD_IF_ABSENT }, // removed first, so absent
        { .name = STR("a-was"), .format = (struct format *)(uintptr_t)f, .action = HA_OVERWRITE_IF_EXISTS_OR_ADD },
        { .name = STR("none"), .value = STR("x"), .action = HA_OVERWRITE_IF_EXISTS },
        { .name = STR("empty"), .value = STR(""), .action = HA_APPEND_IF_EXISTS_OR_ADD },
        { .name = STR("kept"), .value = STR(""), .action = HA_APPEND_IF_EXISTS_OR_ADD, .keep_empty = true },
        { .name = STR("Host"), .value = STR("other"), .action = HA_OVERWRITE_IF_EXISTS_OR_ADD },
    };
    headers_add(&req.headers, STR("b"), STR("old"));
    const struct header_ops o = { .add = add, .add_count = 7, .remove = remove, .remove_count = 2 };
    header_ops_apply(&o, &req.headers, &req, &r, NULL);
    bool present;
    assert_string_equal(z(headers_joined(&req.headers, STR("a"), &present)), "1,2");
    assert_string_equal(z(headers_value(&req.headers, STR("b"))), "new");
    assert_string_equal(z(headers_value(&req.headers, STR("a-was"))), "1");
    assert_null(headers_get(&req.headers, STR("gone")));
    assert_null(headers_get(&req.headers, STR("none")));
    assert_null(headers_get(&req.headers, STR("empty")));
    assert_non_null(headers_get(&req.headers, STR("kept")));
    assert_string_equal(z(req.host), "other");
}

static struct header_ops level(const char *value)
{
    struct header_add *a = arena_new(&arena, struct header_add);
    *a = (struct header_add){ .name = STR("who"), .value = str_c(value), .action = HA_OVERWRITE_IF_EXISTS_OR_ADD };
    return (struct header_ops){ .add = a, .add_count = 1 };
}

static void levels_in_order(void **state)
{
    (void)state;
    route.request_ops = level("route");
    vhost.request_ops = level("vhost");
    table.request_ops = level("table");
    weighted.request_ops = level("weighted");
    r.weighted = &weighted;
    header_ops_request(&r);
    assert_string_equal(z(headers_value(&req.headers, STR("who"))), "table");
    table.most_specific_header_mutations_wins = true;
    header_ops_request(&r);
    assert_string_equal(z(headers_value(&req.headers, STR("who"))), "route");
    struct http_response resp = { .status = 200 };
    headers_init(&resp.headers, &arena);
    vhost.response_ops = level("v");
    header_ops_response(&r, &resp);
    assert_string_equal(z(headers_value(&resp.headers, STR("who"))), "v");
}

static const char *rewritten(const char *path)
{
    req.path = str_c(path);
    route_rewrite(&r);
    return z(req.path);
}

static void rewrites(void **state)
{
    (void)state;
    assert_string_equal(rewritten("/api/x?q"), "/api/x?q");
    assert_null(headers_get_id(&req.headers, HDR_X_ENVOY_ORIGINAL_PATH));
    route.has_prefix_rewrite = true;
    route.prefix_rewrite = STR("/v2");
    assert_string_equal(rewritten("/api/x?q"), "/v2/x?q");
    assert_string_equal(z(headers_value_id(&req.headers, HDR_X_ENVOY_ORIGINAL_PATH)), "/api/x?q");
    route.prefix_rewrite = STR("");
    assert_string_equal(rewritten("/api"), "/");
    route.path_kind = PATH_EXACT;
    route.prefix_rewrite = STR("/y");
    assert_string_equal(rewritten("/api?q"), "/y?q");
    route.has_prefix_rewrite = false;
    struct err err;
    route.rewrite_re = regex_new(STR("^/api/(.*)$"), &err);
    route.rewrite_sub = STR("/r/\\1");
    assert_string_equal(rewritten("/api/x?api/"), "/r/x?api/");
    regex_free(route.rewrite_re);
    route.rewrite_re = NULL;
    route.host_rewrite = STR("new");
    route.append_x_forwarded_host = true;
    (void)rewritten("/");
    assert_string_equal(z(req.host), "new");
    assert_string_equal(z(headers_value_id(&req.headers, HDR_X_FORWARDED_HOST)), "h:80");
}

static void redirects(void **state)
{
    (void)state;
    route.redirect_https = true;
    assert_string_equal(z(redirect_location(&route, &req, &arena)), "https://h/api/x?q=1");
    route.redirect_port = 444;
    assert_string_equal(z(redirect_location(&route, &req, &arena)), "https://h:444/api/x?q=1");
    route.redirect_port = 0;
    route.redirect_https = false;
    route.redirect_host = STR("o");
    route.redirect_path = STR("/p");
    assert_string_equal(z(redirect_location(&route, &req, &arena)), "http://o/p?q=1");
    route.redirect_path = STR("/p?own");
    assert_string_equal(z(redirect_location(&route, &req, &arena)), "http://o/p?own");
    route.redirect_path = STR("");
    route.redirect_prefix = STR("/new");
    route.redirect_strip_query = true;
    assert_string_equal(z(redirect_location(&route, &req, &arena)), "http://o/new/x");
}

static void hashes(void **state)
{
    (void)state;
    struct hash_policy p[] = { { .kind = HASH_HEADER, .name = STR("user") },
                               { .kind = HASH_COOKIE, .name = STR("sid") },
                               { .kind = HASH_QUERY, .name = STR("q") },
                               { .kind = HASH_SOURCE_IP } };
    struct addr src = { 0 };
    uint64_t got = 7;
    route.hash = p;
    route.hash_count = 2;
    assert_false(route_hash(&route, &req, &src, 0xabc, &arena, &got, NULL));
    headers_add(&req.headers, STR("User"), STR("jason"));
    assert_true(route_hash(&route, &req, &src, 0xabc, &arena, &got, NULL));
    uint64_t user = hash_xx64("jason", 5, 0), sid = hash_xx64("s1", 2, 0);
    assert_true(got == user);
    headers_add(&req.headers, STR("cookie"), STR("a=b; sid=\"s1\""));
    assert_true(route_hash(&route, &req, &src, 0xabc, &arena, &got, NULL));
    assert_true(got == (((user << 1) | (user >> 63)) ^ sid));
    struct str cookie = STR("");
    struct hash_policy c = { .kind = HASH_COOKIE, .name = STR("new"), .cookie_ttl_s = 60, .cookie_path = STR("/p") };
    const struct route with = { .hash = &c, .hash_count = 1 };
    assert_true(route_hash(&with, &req, &src, 0xabc, &arena, &got, &cookie));
    assert_string_equal(cookie.p, "new=\"0000000000000abc\"; Max-Age=60; Path=/p; HttpOnly");
    assert_true(got == hash_xx64("0000000000000abc", 16, 0));
    c.cookie_ttl_s = -1;
    assert_false(route_hash(&with, &req, &src, 0xabc, &arena, &got, &cookie));
    p[0].terminal = true;
    assert_true(route_hash(&route, &req, &src, 0xabc, &arena, &got, NULL));
    assert_true(got == user);
    route.hash = p + 2;
    assert_true(route_hash(&route, &req, &src, 0xabc, &arena, &got, NULL));
    assert_true(got == hash_xx64("1", 1, 0));
    addr_parse(STR("10.0.0.1:5"), &src);
    route.hash = p + 3;
    route.hash_count = 1;
    assert_true(route_hash(&route, &req, &src, 0xabc, &arena, &got, NULL));
    assert_true(got == hash_xx64("10.0.0.1", 8, 0));
}

static void answers_say_when_to_come_back(void **state)
{
    (void)state;
    struct reset_header names[] = { { .name = STR("retry-after") }, { .name = STR("x-reset"), .unix_time = true } };
    const struct retry_policy p = { .reset_headers = names, .reset_header_count = 2, .reset_max_ms = 10000 };
    static const struct {
        const char *name, *value;
        uint64_t from, to; // expected wait
    } cases[] = {
        { "retry-after", "2", 2000, 3000 }, { "retry-after", "10", 10000, 15000 }, { "retry-after", "11", 0, 0 }, { "retry-after", "soon", 0, 0 },
        { "retry-after", "0", 0, 0 },       { "x-reset", "1005", 5000, 7500 },     { "x-reset", "999", 0, 0 },    { "x-reset", "9999999999", 0, 0 },
        { "x-other", "1", 0, 0 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct headers h;
        headers_init(&h, &arena);
        headers_add(&h, str_c(cases[i].name), str_c(cases[i].value));
        for (uint64_t random = 0; random < 20000; random += 1999) {
            assert_in_range(retry_reset_wait_ms(&p, &h, 1000 * 1000, random), cases[i].from, cases[i].to);
        }
    }
}

static void answers_with_a_header_are_tried_again(void **state)
{
    (void)state;
    struct header_matcher m[] = { { .kind = HM_STRING, .name = STR("x-again"), .string = { .value = STR("yes") } },
                                  { .kind = HM_PRESENT, .name = STR("x-more"), .present = true } };
    struct retry_policy p = { .on = RETRY_HEADERS, .headers = m, .header_count = 2 };
    struct headers h;
    headers_init(&h, &arena);
    assert_false(retry_wanted(&p, RETRY_EV_RESPONSE, 200, &h));
    headers_add(&h, STR("X-Again"), STR("no"));
    assert_false(retry_wanted(&p, RETRY_EV_RESPONSE, 200, &h));
    headers_add(&h, STR("X-More"), STR(""));
    assert_true(retry_wanted(&p, RETRY_EV_RESPONSE, 200, &h));
    p.on = RETRY_5XX;
    assert_false(retry_wanted(&p, RETRY_EV_RESPONSE, 200, &h));
    p.on = RETRY_HEADERS;
    headers_add(&h, STR("x-envoy-ratelimited"), STR("true"));
    assert_false(retry_wanted(&p, RETRY_EV_RESPONSE, 200, &h));
}

static void hash_of_a_rewritten_header(void **state)
{
    (void)state;
    struct err err = { 0 };
    struct regex *re = regex_new(STR("^([a-z]+)-.*$"), &err);
    struct hash_policy p = { .kind = HASH_HEADER, .name = STR("x-user"), .rewrite = re, .rewrite_sub = STR("\\1") };
    uint64_t a = 0, b = 1;
    route.hash = &p;
    route.hash_count = 1;
    headers_add(&req.headers, STR("x-user"), STR("anna-1"));
    assert_true(route_hash(&route, &req, &(struct addr){ 0 }, 0, &arena, &a, NULL));
    headers_set(&req.headers, STR("x-user"), STR("anna-2"));
    assert_true(route_hash(&route, &req, &(struct addr){ 0 }, 0, &arena, &b, NULL));
    assert_int_equal(a, b);
    assert_int_equal(a, hash_xx64("anna", 4, 0));
    regex_free(re);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answers_say_when_to_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_with_a_header_are_tried_again, setup, teardown),
        cmocka_unit_test_setup_teardown(hash_of_a_rewritten_header, setup, teardown),
        T(retry_conditions), T(backoff_grows_to_its_limit), T(header_operations), T(levels_in_order), T(rewrites), T(redirects), T(hashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

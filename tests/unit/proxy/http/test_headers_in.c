// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/tls/transport_tls.h"
#include "proxy/http/internal.h"

static struct arena arena;
static struct http_request req;
static struct http_manager_cfg cfg;
static struct request_peer peer;
static struct request_trust trust;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 0, 0);
    req = (struct http_request){ .method = STR("GET"), .path = STR("/"), .host = STR("h") };
    headers_init(&req.headers, &arena);
    cfg = (struct http_manager_cfg){ .generate_request_id = true };
    peer = (struct request_peer){ 0 };
    addr_parse(STR("10.0.0.1:5000"), &peer.remote);
    addr_parse(STR("10.0.0.2:8443"), &peer.local);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static void add(const char *name, const char *value)
{
    headers_add(&req.headers, str_c(name), str_c(value));
}

static const char *get(const char *name)
{
    struct str s = headers_value(&req.headers, str_c(name));
    return s.p ? arena_str(&arena, s).p : "(none)";
}

static const char *prepare(void)
{
    struct addr remote;
    char text[ADDR_TEXT_MAX];
    assert_true(request_headers_prepare(&req, &cfg, &peer, &remote, &trust));
    return arena_strdup(&arena, addr_text(&remote, text));
}

static void sidecar_believes_the_proxy_before_it(void **state)
{
    (void)state;
    add("X-Forwarded-For", "1.1.1.1, 9.9.9.9");
    assert_string_equal(prepare(), "9.9.9.9:0");
    assert_string_equal(get("x-forwarded-for"), "1.1.1.1, 9.9.9.9"); // not appended to
    assert_string_equal(get("x-forwarded-proto"), "http");
    assert_int_equal(strlen(get("x-request-id")), 36);
}

static void trusted_hops_and_bad_addresses(void **state)
{
    (void)state;
    cfg.xff_trusted_hops = 1;
    add("X-Forwarded-For", "1.1.1.1, 9.9.9.9");
    assert_string_equal(prepare(), "1.1.1.1:0");
    headers_init(&req.headers, &arena);
    add("X-Forwarded-For", "1.1.1.1");
    add("x-forwarded-for", "9.9.9.9"); // two fields are one list
    assert_string_equal(prepare(), "1.1.1.1:0");
    assert_string_equal(get("x-forwarded-for"), "1.1.1.1,9.9.9.9");
    headers_init(&req.headers, &arena);
    add("X-Forwarded-For", "nonsense");
    cfg.xff_trusted_hops = 0;
    assert_string_equal(prepare(), "10.0.0.1:5000");
}

static void many_fields_of_a_list_cost_no_more_than_their_bytes(void **state)
{
    (void)state;
    static char value[601];
    memset(value, '1', sizeof(value) - 1);
    for (int i = 0; i < 100; i++) {
        add("x-forwarded-for", value);
        add("x-forwarded-client-cert", value);
    }
    cfg.forward_client_cert = FCC_FORWARD_ONLY;
    peer.mtls = true;
    size_t before = arena.used_bytes, bytes = req.headers.bytes;
    prepare();
    assert_in_range(arena.used_bytes - before, 120000, 240000);
    assert_int_equal(headers_value(&req.headers, STR("x-forwarded-for")).n, 100 * 601 - 1);
    assert_int_equal(headers_value(&req.headers, STR("x-forwarded-client-cert")).n, 100 * 601 - 1);
    assert_in_range(req.headers.bytes, 2 * 100 * 600, bytes);
}

static void edge_appends_and_replaces(void **state)
{
    (void)state;
    cfg.use_remote_address = true;
    cfg.append_x_forwarded_port = true;
    peer.tls = true;
    add("X-Forwarded-For", "6.6.6.6");
    add("X-Forwarded-Proto", "gopher");
    add("X-Request-Id", "forged");
    add("X-Envoy-Original-Path", "/admin");
    add("X-Envoy-External-Address", "1.2.3.4");
    assert_string_equal(prepare(), "10.0.0.1:5000");
    assert_string_equal(get("x-forwarded-for"), "6.6.6.6,10.0.0.1");
    assert_string_equal(get("x-forwarded-proto"), "https");
    assert_string_equal(get("x-forwarded-port"), "8443");
    assert_string_equal(get("x-envoy-original-path"), "(none)");
    assert_string_equal(get("x-envoy-external-address"), "10.0.0.1");
    assert_true(strcmp(get("x-request-id"), "forged") != 0);
    assert_true(str_is(req.scheme, "https"));
}

static void control_headers_of_peers_are_dropped(void **state)
{
    (void)state;
    static const char *const gone[] = { "x-envoy-internal", "X-Envoy-Retry-On", "x-envoy-max-retries", "x-envoy-upstream-rq-timeout-ms",
                                        "x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-force-trace", "x-envoy-ip-tags",
                                        "x-envoy-hedge-on-per-try-timeout", "x-envoy-retriable-status-codes",
                                        "x-envoy-upstream-alt-stat-name", "x-envoy-expected-rq-timeout-ms" };
    static const char *const kept[] = { "x-envoy-original-path", "x-envoy-original-dst-host", "x-envoy-external-address",
                                        "x-envoy-attempt-count", "x-envoy-decorator-operation", "x-envoy-downstream-service-cluster",
                                        "x-envoy-peer-metadata", "x-envoy-peer-metadata-id", "x-forwarded-host" };
    for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++) {
        add(gone[i], "v");
    }
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        add(kept[i], "v");
    }
    size_t bytes = 0;
    prepare();
    for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++) {
        assert_string_equal(get(gone[i]), "(none)");
    }
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        assert_string_equal(get(kept[i]), "v");
    }
    for (struct hdr *x = headers_first(&req.headers); x; x = headers_next(&req.headers, x)) {
        bytes += x->name.n + x->value.n;
    }
    assert_int_equal(bytes, req.headers.bytes);
}

static void client_certificates(void **state)
{
    (void)state;
    static const struct {
        enum forward_client_cert mode;
        bool mtls;
        const char *want;
    } cases[] = {
        { FCC_SANITIZE, true, "(none)" },          { FCC_FORWARD_ONLY, true, "old" },   { FCC_FORWARD_ONLY, false, "(none)" },
        { FCC_APPEND_FORWARD, true, "old,mine" },  { FCC_SANITIZE_SET, true, "mine" },  { FCC_SANITIZE_SET, false, "(none)" },
        { FCC_APPEND_FORWARD, false, "(none)" },   { FCC_ALWAYS_FORWARD_ONLY, false, "old" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        headers_init(&req.headers, &arena);
        add("X-Forwarded-Client-Cert", "old");
        cfg.forward_client_cert = cases[i].mode;
        peer.mtls = cases[i].mtls;
        peer.xfcc = STR("mine");
        prepare();
        assert_string_equal(get("x-forwarded-client-cert"), cases[i].want);
    }
    headers_init(&req.headers, &arena);
    add("X-Forwarded-Client-Cert", "a");
    add("x-forwarded-client-cert", "b"); // two fields must not hide one
    cfg.forward_client_cert = FCC_APPEND_FORWARD;
    peer.mtls = true;
    prepare();
    assert_string_equal(get("x-forwarded-client-cert"), "a,b,mine");
}

static void client_certificate_element(void **state)
{
    (void)state;
    const struct tls_info tls = { .peer_uri = STR("spiffe://td/ns/a/sa/b"), .local_uri = STR("spiffe://td/ns/c/sa/d"),
                                  .peer_sha256 = STR("ab12"), .peer_subject = STR("CN=\"x\",O=y"), .peer_dns = STR("a.b,c.d") };
    cfg.set_client_cert.subject = cfg.set_client_cert.uri = cfg.set_client_cert.dns = true;
    assert_string_equal(xfcc_element(&cfg, &tls, &arena).p,
                        "By=spiffe://td/ns/c/sa/d;Hash=ab12;Subject=\"CN=\\\"x\\\",O=y\";URI=spiffe://td/ns/a/sa/b;DNS=a.b;DNS=c.d");
    const struct tls_info forged = { .peer_uri = STR("spiffe://td/x;By=evil,"), .local_uri = STR("l") };
    assert_string_equal(xfcc_element(&cfg, &forged, &arena).p, "By=l;Subject=\"\";URI=\"spiffe://td/x;By=evil,\"");
}

static void underscores(void **state)
{
    (void)state;
    struct addr remote;
    add("a_b", "1");
    assert_true(request_headers_prepare(&req, &cfg, &peer, &remote, &trust));
    assert_string_equal(get("a_b"), "1");
    cfg.headers_with_underscores_reject = true;
    assert_false(request_headers_prepare(&req, &cfg, &peer, &remote, &trust));
    cfg.headers_with_underscores_reject = false;
    cfg.headers_with_underscores_drop = true;
    assert_true(request_headers_prepare(&req, &cfg, &peer, &remote, &trust));
    assert_string_equal(get("a_b"), "(none)");
}

static const char *path(const char *in, enum path_verdict *ret)
{
    req.path = str_c(in);
    *ret = request_path_prepare(&req, &cfg);
    return arena_str(&arena, req.path).p;
}

static void paths_have_one_spelling(void **state)
{
    (void)state;
    enum path_verdict v;
    assert_string_equal(path("/a/../b//c/%41?x=/../%2e", &v), "/a/../b//c/%41?x=/../%2e"); // nothing asked for
    cfg.normalize_path = true;
    assert_string_equal(path("/a/../b//c/%41?x=/../%2e", &v), "/b//c/A?x=/../%2e");
    assert_string_equal(path("/a/%2e%2E/b", &v), "/b");
    assert_string_equal(path("/a\\..\\b", &v), "/b");
    assert_string_equal(path("/a%2fb%5Cc", &v), "/a%2fb%5Cc");
    assert_int_equal(v, PATH_OK);
    (void)path("/../x", &v);
    assert_int_equal(v, PATH_REFUSED);
    (void)path("/%2e%2e/x", &v);
    assert_int_equal(v, PATH_REFUSED);
    cfg.merge_slashes = true;
    assert_string_equal(path("//a///b//?x//", &v), "/a/b/?x//");
    cfg.normalize_path = false;
    assert_string_equal(path("//a///b//?x//", &v), "/a/b/?x//");
    cfg.normalize_path = true;
    cfg.escaped_slashes = ESC_REJECT;
    (void)path("/a%2Fb", &v);
    assert_int_equal(v, PATH_REFUSED);
    assert_string_equal(path("/a?%2F", &v), "/a?%2F");
    assert_int_equal(v, PATH_OK);
    cfg.escaped_slashes = ESC_UNESCAPE_FORWARD;
    assert_string_equal(path("/a%2F..%5cb", &v), "/b");
    assert_int_equal(v, PATH_OK);
    cfg.escaped_slashes = ESC_UNESCAPE_REDIRECT;
    assert_string_equal(path("/a%2fb", &v), "/a/b");
    assert_int_equal(v, PATH_REDIRECTED);
    assert_string_equal(path("*", &v), "*");
}

static const char *host(const char *in)
{
    req.host = str_c(in);
    request_host_prepare(&req, &cfg, 8443);
    return arena_str(&arena, req.host).p;
}

static void hosts(void **state)
{
    (void)state;
    assert_string_equal(host("h.:8443"), "h.:8443");
    cfg.strip_matching_host_port = true;
    assert_string_equal(host("h:8443"), "h");
    assert_string_equal(host("h:80"), "h:80");
    assert_string_equal(host("[::1]:8443"), "[::1]");
    assert_string_equal(host("[::1]"), "[::1]");
    cfg.strip_any_host_port = true;
    assert_string_equal(host("h:80"), "h");
    cfg.strip_any_host_port = cfg.strip_matching_host_port = false;
    cfg.strip_trailing_host_dot = true;
    assert_string_equal(host("h."), "h");
    assert_string_equal(host("h.:80"), "h:80");
}

static void upgrades(void **state)
{
    (void)state;
    struct str ws[] = { STR("websocket") };
    struct route route = { 0 };
    assert_true(upgrade_allowed(&req, &cfg, NULL));
    req.upgrade = STR("WebSocket");
    upgrade_prepare(&req);
    assert_false(upgrade_allowed(&req, &cfg, NULL));
    assert_false(upgrade_allowed(&req, &cfg, &route));
    route.upgrades = ws;
    route.upgrade_count = 1;
    assert_true(upgrade_allowed(&req, &cfg, &route));
    struct ext own = { .name = STR("own") };
    struct http_upgrade listed[] = { { .type = STR("WEBSOCKET"), .enabled = true }, { .type = STR("connect"), .chain = { &own, 1 } } };
    cfg.upgrades = listed;
    cfg.upgrade_count = 2;
    assert_true(upgrade_allowed(&req, &cfg, NULL));
    assert_ptr_equal(upgrade_chain(&req, &cfg), &cfg.chain); // none of its own
    struct http_request connect = { .method = STR("CONNECT") };
    assert_false(upgrade_allowed(&connect, &cfg, NULL)); // listed, and not enabled
    assert_ptr_equal(upgrade_chain(&connect, &cfg), &listed[1].chain); // a route may have enabled it
    assert_ptr_equal(upgrade_chain(&(struct http_request){ .path = STR("/") }, &cfg), &cfg.chain);
    req.upgrade = STR("websocket, h2c");
    assert_false(upgrade_allowed(&req, &cfg, NULL));
    req.upgrade = STR("H2C");
    add("HTTP2-Settings", "AAMAAABkAAQAAP__");
    upgrade_prepare(&req);
    assert_int_equal(req.upgrade.n, 0);
    assert_string_equal(get("http2-settings"), "(none)");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(sidecar_believes_the_proxy_before_it), T(trusted_hops_and_bad_addresses), T(edge_appends_and_replaces),
        T(many_fields_of_a_list_cost_no_more_than_their_bytes),
        T(control_headers_of_peers_are_dropped), T(client_certificates), T(client_certificate_element), T(underscores),
        T(paths_have_one_spelling), T(hosts), T(upgrades),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

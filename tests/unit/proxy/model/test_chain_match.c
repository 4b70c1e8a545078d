// SPDX-License-Identifier: Apache-2.0
// The rows are those of istiod's virtualInbound and outbound listeners (PERMISSIVE, STRICT, TLS by SNI), and Envoy's rules around them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/model/chain_match.h"

static struct arena arena;
static struct chain_matcher *m;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 0, 0);
    m = chain_matcher_new(&arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

// Chains are opaque here: their name is their identity.
static struct filter_chain *chain(const char *name)
{
    return (struct filter_chain *)(void *)name;
}

static void add(const char *name, const struct chain_criteria *c)
{
    struct err e = { 0 };
    if (chain_matcher_add(m, c, chain(name), str_c(name), &e) != 0) {
        fail_msg("%s", e.msg);
    }
}

static struct addr ip(const char *text)
{
    struct addr a = { 0 };
    assert_true(addr_parse(str_c(text), &a));
    return a;
}

static struct cidr net(const char *text)
{
    struct cidr c;
    assert_true(cidr_parse(str_c(text), &c));
    return c;
}

static struct chain_criteria crit(uint32_t port, const char *transport, const struct str *alpn, size_t n)
{
    return (struct chain_criteria){ .destination_port = port,
                                    .transport_protocol = str_c(transport),
                                    .application_protocols = alpn,
                                    .application_protocol_count = n };
}

static const struct str istio_http[] = { STR_INIT("istio-http/1.0"), STR_INIT("istio-http/1.1"), STR_INIT("istio-h2") };
static const struct str istio_tcp[] = { STR_INIT("istio-peer-exchange"), STR_INIT("istio") };
static const struct str plain_http[] = { STR_INIT("http/1.1"), STR_INIT("h2c") };
static const struct str istio_all[] = { STR_INIT("istio"), STR_INIT("istio-peer-exchange"), STR_INIT("istio-http/1.0"),
                                        STR_INIT("istio-http/1.1"), STR_INIT("istio-h2") };

static void add_row(const char *name, uint32_t port, const char *transport, const struct str *alpn, size_t n)
{
    struct chain_criteria c = crit(port, transport, alpn, n);
    add(name, &c);
}

// find(port, transport, alpns…): what takes such a connection from 10.1.1.9 to 10.0.0.5.
static const char *find(const char *dst, const char *transport, const char *sni, const struct str *alpn, size_t n)
{
    struct chain_input in = { .destination = ip(dst),
                              .source = ip("10.1.1.9:40000"),
                              .server_name = str_c(sni),
                              .transport_protocol = str_c(transport),
                              .application_protocols = alpn,
                              .application_protocol_count = n };
    const void *c = chain_matcher_find(m, &in);
    return c ? c : "none";
}

static void permissive(void)
{
    add_row("blackhole", 15006, NULL, NULL, 0);
    add_row("catchall-http-mtls", 0, "tls", istio_http, 3);
    add_row("catchall-http", 0, "raw_buffer", plain_http, 2);
    add_row("catchall-mtls", 0, "tls", istio_tcp, 2);
    add_row("catchall-raw", 0, "raw_buffer", NULL, 0);
    add_row("catchall-tls", 0, "tls", NULL, 0);
    add_row("9080-mtls", 9080, "tls", istio_all, 5);
    add_row("9080-raw", 9080, "raw_buffer", NULL, 0);
    // a TCP service port
    add_row("6379-mtls", 6379, "tls", istio_tcp, 2);
    add_row("6379-tls", 6379, "tls", NULL, 0);
    add_row("6379-raw", 6379, "raw_buffer", NULL, 0);
    // a port whose protocol is not declared
    add_row("7000-http-mtls", 7000, "tls", istio_http, 3);
    add_row("7000-http", 7000, "raw_buffer", plain_http, 2);
    add_row("7000-mtls", 7000, "tls", istio_tcp, 2);
    add_row("7000-raw", 7000, "raw_buffer", NULL, 0);
    add_row("7000-tls", 7000, "tls", NULL, 0);
}

static void inbound_permissive_rows(void **state)
{
    (void)state;
    permissive();
    static const struct str h11[] = { STR_INIT("istio-http/1.1"), STR_INIT("istio"), STR_INIT("http/1.1") };
    static const struct str tcp[] = { STR_INIT("istio-peer-exchange"), STR_INIT("istio") };
    static const struct str istio[] = { STR_INIT("istio") };
    static const struct str h2[] = { STR_INIT("h2"), STR_INIT("http/1.1") };
    static const struct str http[] = { STR_INIT("http/1.1") };
    static const struct { const char *dst, *transport; const struct str *alpn; size_t n; const char *want; } rows[] = {
        { "10.0.0.5:15006", "raw_buffer", NULL, 0, "blackhole" },
        { "10.0.0.5:15006", "tls", h11, 3, "blackhole" },
        { "10.0.0.5:8443", "tls", h11, 3, "catchall-http-mtls" },
        { "10.0.0.5:8443", "tls", tcp, 2, "catchall-mtls" },
        { "10.0.0.5:8443", "tls", istio, 1, "catchall-mtls" },
        { "10.0.0.5:8443", "tls", h2, 2, "catchall-tls" },
        { "10.0.0.5:8443", "tls", NULL, 0, "catchall-tls" },
        { "10.0.0.5:8443", "raw_buffer", http, 1, "catchall-http" },
        { "10.0.0.5:8443", "raw_buffer", NULL, 0, "catchall-raw" },
        { "10.0.0.5:9080", "tls", h11, 3, "9080-mtls" },
        { "10.0.0.5:9080", "tls", istio, 1, "9080-mtls" },
        { "10.0.0.5:9080", "raw_buffer", NULL, 0, "9080-raw" },
        { "10.0.0.5:9080", "raw_buffer", http, 1, "9080-raw" },
        // TLS without Istio's ALPN: the portless chains are not looked at again.
        { "10.0.0.5:9080", "tls", h2, 2, "none" },
        { "10.0.0.5:9080", "tls", NULL, 0, "none" },
        { "10.0.0.5:6379", "tls", tcp, 2, "6379-mtls" },
        { "10.0.0.5:6379", "tls", h2, 2, "6379-tls" },
        { "10.0.0.5:6379", "raw_buffer", NULL, 0, "6379-raw" },
        { "10.0.0.5:7000", "tls", h11, 3, "7000-http-mtls" },
        { "10.0.0.5:7000", "raw_buffer", http, 1, "7000-http" },
        { "10.0.0.5:7000", "tls", tcp, 2, "7000-mtls" },
        { "10.0.0.5:7000", "raw_buffer", NULL, 0, "7000-raw" },
        { "10.0.0.5:7000", "tls", h2, 2, "7000-tls" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_string_equal(find(rows[i].dst, rows[i].transport, NULL, rows[i].alpn, rows[i].n), rows[i].want);
    }
}

static void inbound_strict_refuses_plaintext(void **state)
{
    (void)state;
    add_row("blackhole", 15006, NULL, NULL, 0);
    add_row("catchall-http-mtls", 0, "tls", istio_http, 3);
    add_row("catchall-mtls", 0, "tls", NULL, 0);
    add_row("9080-mtls", 9080, "tls", NULL, 0);
    static const struct str h2[] = { STR_INIT("h2") };
    assert_string_equal(find("10.0.0.5:9080", "tls", NULL, h2, 1), "9080-mtls");
    assert_string_equal(find("10.0.0.5:9080", "raw_buffer", NULL, NULL, 0), "none");
    assert_string_equal(find("10.0.0.5:81", "raw_buffer", NULL, NULL, 0), "none");
    assert_string_equal(find("10.0.0.5:81", "tls", NULL, istio_http, 1), "catchall-http-mtls");
}

// The client's order of ALPN decides, not the chains' order.
static void alpn_is_tried_in_the_clients_order(void **state)
{
    (void)state;
    static const struct str a[] = { STR_INIT("a") }, b[] = { STR_INIT("b") };
    static const struct str ba[] = { STR_INIT("x"), STR_INIT("b"), STR_INIT("a") };
    add_row("a", 0, "tls", a, 1);
    add_row("b", 0, "tls", b, 1);
    assert_string_equal(find("10.0.0.5:1", "tls", NULL, ba, 3), "b");
}

static void server_names(void **state)
{
    (void)state;
    static const struct str exact[] = { STR_INIT("www.Example.com"), STR_INIT("api.example.com") };
    static const struct str wild[] = { STR_INIT("*.example.com") };
    static const struct str wilder[] = { STR_INIT("*.com") };
    struct chain_criteria c = { .server_names = exact, .server_name_count = 2 };
    add("exact", &c);
    c = (struct chain_criteria){ .server_names = wild, .server_name_count = 1 };
    add("wild", &c);
    c = (struct chain_criteria){ .server_names = wilder, .server_name_count = 1 };
    add("wilder", &c);
    assert_string_equal(find("10.0.0.5:443", "tls", "WWW.example.COM", NULL, 0), "exact");
    assert_string_equal(find("10.0.0.5:443", "tls", "x.example.com", NULL, 0), "wild");
    assert_string_equal(find("10.0.0.5:443", "tls", "a.b.example.com", NULL, 0), "wild");
    assert_string_equal(find("10.0.0.5:443", "tls", "example.com", NULL, 0), "wilder");
    assert_string_equal(find("10.0.0.5:443", "tls", "example.org", NULL, 0), "none");
    assert_string_equal(find("10.0.0.5:443", "tls", "com", NULL, 0), "none");
    assert_string_equal(find("10.0.0.5:443", "tls", NULL, NULL, 0), "none");
    c = (struct chain_criteria){ 0 };
    add("rest", &c);
    assert_string_equal(find("10.0.0.5:443", "tls", NULL, NULL, 0), "rest");
    static char big[400];
    memset(big, 'a', sizeof(big) - 1);
    assert_string_equal(find("10.0.0.5:443", "tls", big, NULL, 0), "rest");
}

static void destination_prefixes_longest_only(void **state)
{
    (void)state;
    struct cidr wide[] = { net("10.0.0.0/8") }, narrow[] = { net("10.0.0.0/24"), net("fd00::/64") };
    struct chain_criteria c = { .destinations = wide, .destination_count = 1 };
    add("wide", &c);
    c = (struct chain_criteria){ .destinations = narrow, .destination_count = 2, .transport_protocol = STR("tls") };
    add("narrow", &c);
    assert_string_equal(find("10.9.0.5:1", "raw_buffer", NULL, NULL, 0), "wide");
    assert_string_equal(find("10.0.0.5:1", "tls", NULL, NULL, 0), "narrow");
    assert_string_equal(find("[fd00::7]:1", "tls", NULL, NULL, 0), "narrow");
    // the /24 fits best; that its transport does not does not lead back to the /8
    assert_string_equal(find("10.0.0.5:1", "raw_buffer", NULL, NULL, 0), "none");
    assert_string_equal(find("11.0.0.5:1", "raw_buffer", NULL, NULL, 0), "none");
}

static void sources(void **state)
{
    (void)state;
    static const uint32_t ports[] = { 40000, 40001 };
    struct cidr from[] = { net("10.1.0.0/16") };
    struct chain_criteria c = { .sources = from, .source_count = 1, .source_ports = ports, .source_port_count = 2 };
    add("from-port", &c);
    c.source_ports = NULL;
    c.source_port_count = 0;
    add("from", &c);
    c = (struct chain_criteria){ .source_type = SOURCE_SAME_IP_OR_LOOPBACK };
    add("local", &c);
    assert_string_equal(find("10.0.0.5:1", "raw_buffer", NULL, NULL, 0), "from-port");
    assert_string_equal(find("10.1.1.9:1", "raw_buffer", NULL, NULL, 0), "local"); // same address
    struct chain_input in = { .destination = ip("10.0.0.5:1"), .source = ip("10.1.1.9:7") };
    assert_string_equal((const char *)chain_matcher_find(m, &in), "from");
    in.source = ip("127.0.0.1:9");
    assert_string_equal((const char *)chain_matcher_find(m, &in), "local");
    in.source = ip("10.2.1.9:7");
    assert_null(chain_matcher_find(m, &in));
}

static void same_match_twice_is_refused(void **state)
{
    (void)state;
    struct err e = { 0 };
    permissive();
    struct chain_criteria c = crit(9080, "tls", istio_all + 2, 1);
    assert_int_not_equal(chain_matcher_add(m, &c, chain("b"), STR("b"), &e), 0);
    assert_string_equal(e.msg, "filter chain 'b' has the same match as '9080-mtls'");
}

static void partial_wildcards_are_refused(void **state)
{
    (void)state;
    static const struct str bad[] = { STR_INIT("w*.example.com"), STR_INIT("*"), STR_INIT("") };
    for (size_t i = 0; i < 3; i++) {
        struct err e = { 0 };
        struct chain_criteria c = { .server_names = &bad[i], .server_name_count = 1 };
        assert_int_not_equal(chain_matcher_add(m, &c, chain("x"), STR("x"), &e), 0);
        assert_non_null(strstr(e.msg, "server_names"));
    }
}

static void empty_matcher_finds_nothing(void **state)
{
    (void)state;
    assert_string_equal(find("10.0.0.5:1", "raw_buffer", NULL, NULL, 0), "none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(inbound_permissive_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(inbound_strict_refuses_plaintext, setup, teardown),
        cmocka_unit_test_setup_teardown(alpn_is_tried_in_the_clients_order, setup, teardown),
        cmocka_unit_test_setup_teardown(server_names, setup, teardown),
        cmocka_unit_test_setup_teardown(destination_prefixes_longest_only, setup, teardown),
        cmocka_unit_test_setup_teardown(sources, setup, teardown),
        cmocka_unit_test_setup_teardown(same_match_twice_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(partial_wildcards_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(empty_matcher_finds_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

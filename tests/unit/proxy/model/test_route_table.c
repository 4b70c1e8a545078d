// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/core/facts.h"
#include "proxy/core/stream_info.h"
#include "lib/base/check.h"
#include "proxy/model/route_table.h"

static struct route_table *t;
static struct arena scratch;
static struct headers headers;

static int setup(void **state)
{
    (void)state;
    t = route_table_new();
    arena_init(&scratch, 0, 0);
    headers_init(&headers, &scratch);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    route_table_unref(t);
    arena_fini(&scratch);
    return 0;
}

// One virtual host a domain, named as the domain.
static int hosts(const char *const *domains, size_t n, struct err *e)
{
    t->vhosts = arena_array(&t->arena, struct virtual_host, n);
    t->vhost_count = n;
    for (size_t i = 0; i < n; i++) {
        struct virtual_host *vh = &t->vhosts[i];
        vh->name = str_c(domains[i]);
        vh->domains = arena_new(&t->arena, struct str);
        vh->domains[0] = vh->name;
        vh->domain_count = 1;
    }
    return route_table_seal(t, e);
}

static void is_host(const char *authority, const char *want)
{
    const struct virtual_host *vh = route_table_vhost(t, str_c(authority));
    assert_string_equal(vh ? vh->name.p : "none", want);
}

static void domains_in_envoys_order(void **state)
{
    (void)state;
    static const char *const d[] = { "*", "www.*", "www.example.*", "*.example.com", "*-x.example.com", "www.example.com", "[fd00::1]" };
    assert_int_equal(hosts(d, 7, NULL), 0);
    is_host("WWW.Example.com", "www.example.com");
    is_host("a.example.com", "*.example.com");
    is_host("a-x.example.com", "*-x.example.com");
    is_host("www.example.org", "www.example.*");
    is_host("www.x", "www.*");
    is_host("x", "*");
    is_host("", "*");
    is_host(".example.com", "*"); // '*' is at least one byte
    is_host("www.example.com:80", "www.example.*"); // the port counts unless ignored
    is_host("[FD00::1]", "[fd00::1]");
}

static void port_can_be_ignored(void **state)
{
    (void)state;
    static const char *const d[] = { "reviews", "10.0.0.1", "[fd00::1]" };
    t->ignore_port = true;
    assert_int_equal(hosts(d, 3, NULL), 0);
    is_host("reviews:9080", "reviews");
    is_host("reviews", "reviews");
    is_host("10.0.0.1:80", "10.0.0.1");
    is_host("[fd00::1]:80", "[fd00::1]");
    is_host("[fd00::1]", "[fd00::1]");
    is_host("reviews:", "none");
    is_host("reviews:80x", "none");
}

static void long_hosts_are_bounded_but_match(void **state)
{
    (void)state;
    static const char *const d[] = { "*.example.com" };
    assert_int_equal(hosts(d, 1, NULL), 0);
    char big[2000];
    memset(big, 'A', sizeof(big));
    memcpy(big + sizeof(big) - 13, ".example.com", 13);
    is_host(big, "*.example.com");
}

static void duplicate_domains_name_both_hosts(void **state)
{
    (void)state;
    static const char *const d[] = { "a.b", "A.B" };
    struct err e = { 0 };
    assert_int_not_equal(hosts(d, 2, &e), 0);
    assert_string_equal(e.msg, "domain 'A.B' is in virtual host 'a.b' and in 'A.B'; a domain may occur only once");
}

static void two_wildcard_domains_are_refused(void **state)
{
    (void)state;
    static const char *const d[] = { "*", "*" };
    assert_int_not_equal(hosts(d, 2, NULL), 0);
}

// ---- routes ----

static const char *route_for(struct route *routes, size_t n, struct match_request r)
{
    struct virtual_host vh = { .routes = routes, .route_count = n };
    r.headers = &headers;
    r.arena = &scratch;
    r.method = r.method.n ? r.method : STR("GET");
    const struct route *rt = virtual_host_route(&vh, &r);
    return rt ? rt->name.p : "none";
}
#define R(...) ((struct match_request){ __VA_ARGS__ })

static void paths(void **state)
{
    (void)state;
    struct regex *re = regex_new(STR("/v[0-9]+/x"), NULL);
    struct route v[] = {
        { .name = STR("exact"), .path_kind = PATH_EXACT, .path = STR("/a"), .case_sensitive = true },
        { .name = STR("nocase"), .path_kind = PATH_EXACT, .path = STR("/b") },
        { .name = STR("separated"), .path_kind = PATH_SEPARATED_PREFIX, .path = STR("/s"), .case_sensitive = true },
        { .name = STR("prefix"), .path_kind = PATH_PREFIX, .path = STR("/pre"), .case_sensitive = true },
        { .name = STR("regex"), .path_kind = PATH_REGEX, .path_re = re },
        { .name = STR("connect"), .path_kind = PATH_CONNECT },
    };
    assert_string_equal(route_for(v, 6, R(.path = STR("/a?x=/b"))), "exact");
    assert_string_equal(route_for(v, 6, R(.path = STR("/a#f?g"))), "exact");
    assert_string_equal(route_for(v, 6, R(.path = STR("/A"))), "none");
    assert_string_equal(route_for(v, 6, R(.path = STR("/B"))), "nocase");
    assert_string_equal(route_for(v, 6, R(.path = STR("/s/1"))), "separated");
    assert_string_equal(route_for(v, 6, R(.path = STR("/s?q"))), "separated");
    assert_string_equal(route_for(v, 6, R(.path = STR("/s1"))), "none");
    assert_string_equal(route_for(v, 6, R(.path = STR("/prefix"))), "prefix");
    assert_string_equal(route_for(v, 6, R(.path = STR("/v12/x?y"))), "regex");
    assert_string_equal(route_for(v, 6, R(.path = STR("/v12/xx"))), "none");
    assert_string_equal(route_for(v, 6, R(.path = STR(""), .method = STR("CONNECT"))), "connect");
    regex_free(re);
}

static void first_fitting_route_wins(void **state)
{
    (void)state;
    struct header_matcher user = { .kind = HM_STRING,
                                   .name = STR("end-user"),
                                   .string = { .kind = SM_EXACT, .value = STR("jason") } };
    struct route v[] = {
        { .name = STR("jason"), .path = STR("/"), .headers = &user, .header_count = 1, .case_sensitive = true },
        { .name = STR("all"), .path = STR("/"), .case_sensitive = true },
    };
    assert_string_equal(route_for(v, 2, R(.path = STR("/"))), "all");
    headers_add(&headers, STR("End-User"), STR("jason"));
    assert_string_equal(route_for(v, 2, R(.path = STR("/"))), "jason");
}

// What route_table_seal notes about a route holds for it alone.
static void a_route_for_every_path(void **state)
{
    (void)state;
    struct header_matcher user = { .kind = HM_PRESENT, .present = true, .name = STR("end-user") };
    struct query_matcher query = { .name = STR("q") };
    struct route v[] = {
        { .path = STR("/") },
        { .path = STR("/"), .headers = &user, .header_count = 1 },
        { .path = STR("/"), .queries = &query, .query_count = 1 },
        { .path = STR("/"), .fact_count = 1 },
        { .path = STR("/"), .grpc_only = true },
        { .path = STR("/"), .has_fraction = true },
        { .path = STR("/a") },
        { .path = STR("/"), .path_kind = PATH_EXACT },
    };
    struct str domain = STR("*");
    t->vhosts = arena_new(&t->arena, struct virtual_host);
    t->vhost_count = 1;
    *t->vhosts = (struct virtual_host){ .domains = &domain, .domain_count = 1, .routes = v, .route_count = array_len(v) };
    assert_int_equal(route_table_seal(t, NULL), 0);
    for (size_t i = 0; i < array_len(v); i++) {
        assert_int_equal(v[i].any_path, i == 0);
    }
    static const char *const paths_of[] = { "/", "/x/y", "/x?q=1#f", "/#" };
    for (size_t i = 0; i < 4; i++) {
        assert_ptr_equal(virtual_host_route(t->vhosts, &R(.path = str_c(paths_of[i]))), &v[0]);
    }
    assert_null(virtual_host_route(t->vhosts, &R(.path = STR("*"))));
    assert_null(virtual_host_route(t->vhosts, &R(.path = STR(""), .method = STR("CONNECT"))));
}

static void grpc_and_fractions(void **state)
{
    (void)state;
    struct route v[] = {
        { .name = STR("grpc"), .path = STR("/"), .grpc_only = true },
        { .name = STR("some"), .path = STR("/"), .has_fraction = true, .fraction = { 30, 100 } },
    };
    assert_string_equal(route_for(v, 2, R(.path = STR("/"), .random = 129)), "some");
    assert_string_equal(route_for(v, 2, R(.path = STR("/"), .random = 130)), "none");
    headers_add_id(&headers, HDR_CONTENT_TYPE, STR("application/grpc-web"));
    assert_string_equal(route_for(v, 2, R(.path = STR("/"), .random = 0)), "some");
    headers_set_id(&headers, HDR_CONTENT_TYPE, STR("application/grpc+proto"));
    assert_string_equal(route_for(v, 2, R(.path = STR("/"), .random = 0)), "grpc");
}

static void weights_are_kept(void **state)
{
    (void)state;
    struct weighted_cluster w[] = { { .name = STR("never") }, { .name = STR("v1"), .weight = 90 }, { .name = STR("v2"), .weight = 10 } };
    struct route rt = { .weighted = w, .weighted_count = 3, .total_weight = 100 };
    unsigned hits[3] = { 0 };
    for (uint64_t i = 0; i < 100000; i++) {
        hits[route_pick_weighted(&rt, i) - w]++;
    }
    assert_int_equal(hits[0], 0);
    assert_in_range(hits[2], 9600, 10400);
    rt.total_weight = 0;
    assert_null(route_pick_weighted(&rt, 1));
}

// Requests that passed a 50 % fraction still split 50/50 afterwards.
static void weights_do_not_depend_on_a_fraction(void **state)
{
    (void)state;
    struct weighted_cluster w[] = { { .weight = 50 }, { .weight = 50 } };
    struct route rt = { .weighted = w, .weighted_count = 2, .total_weight = 100 };
    unsigned first = 0, n = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        if (fraction_hit((struct fraction){ 50, 100 }, i)) {
            n++;
            first += route_pick_weighted(&rt, i) == w;
        }
    }
    assert_in_range(first * 100 / n, 48, 52);
}

static bool by_facts(struct fact_matcher m, const struct connection_fact *facts)
{
    struct route rt = { .path_kind = PATH_PREFIX, .path = STR("/"), .case_sensitive = true, .facts = &m, .fact_count = 1 };
    const struct virtual_host vh = { .routes = &rt, .route_count = 1 };
    const struct match_request r = { .method = STR("GET"), .path = STR("/x"), .headers = &headers, .facts = facts, .arena = &scratch };
    return virtual_host_route(&vh, &r) != NULL;
}

static void metadata_of_the_connection(void **state)
{
    (void)state;
    const struct connection_fact old = { STR("pp"), STR("vpc"), STR("old"), NULL }, facts = { STR("pp"), STR("vpc"), STR("v-1"), &old };
    struct fact_matcher m = { .space = STR("pp"), .key = STR("vpc"), .string = { .kind = SM_PREFIX, .value = STR("v-") } };
    assert_true(by_facts(m, &facts));
    assert_false(by_facts(m, &old));
    assert_false(by_facts(m, NULL));
    m.invert = true;
    assert_false(by_facts(m, &facts));
    assert_true(by_facts(m, NULL));
    m = (struct fact_matcher){ .space = STR("pp"), .key = STR("other"), .present_only = true, .want_present = true };
    assert_false(by_facts(m, &facts));
    m.want_present = false;
    assert_true(by_facts(m, &facts));
    m.key = STR("vpc");
    assert_false(by_facts(m, &facts));
    struct str path[] = { STR("vpc"), STR("deeper") }; // a fact is a text: nothing is within it
    m = (struct fact_matcher){ .space = STR("pp"), .key = STR("vpc"), .path = path, .path_count = 2, .present_only = true, .want_present = true };
    assert_false(by_facts(m, &facts));
}

// What filters found out, by a path of keys.
static void metadata_of_the_request(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct stream_info info = { 0 };
    const struct metadata_value text = { .kind = MV_TEXT, .bytes = STR("alice") };
    const struct metadata_value inner = { .kind = MV_STRUCT, .bytes = metadata_struct_of(STR("sub"), &text, &a) };
    stream_info_metadata_merge(&info, &a, STR("jwt"), metadata_struct_of(STR("payload"), &inner, &a));
    struct str path[] = { STR("payload"), STR("sub") };
    struct fact_matcher m = { .space = STR("jwt"), .key = path[0], .path = path, .path_count = 2, .string = { .kind = SM_EXACT, .value = STR("alice") } };
    struct route rt = { .path_kind = PATH_PREFIX, .path = STR("/"), .case_sensitive = true, .facts = &m, .fact_count = 1 };
    const struct match_request r = { .method = STR("GET"), .path = STR("/x"), .headers = &headers, .info = &info, .arena = &scratch };
    assert_true(route_match(&rt, &r));
    m.string.value = STR("bob");
    assert_false(route_match(&rt, &r));
    m.string.value = STR("alice");
    path[1] = STR("name");
    assert_false(route_match(&rt, &r));
    m.path = NULL; // the struct itself is no text, but it is there
    assert_false(route_match(&rt, &r));
    m.present_only = m.want_present = true;
    assert_true(route_match(&rt, &r));
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(domains_in_envoys_order, setup, teardown),
        cmocka_unit_test_setup_teardown(port_can_be_ignored, setup, teardown),
        cmocka_unit_test_setup_teardown(long_hosts_are_bounded_but_match, setup, teardown),
        cmocka_unit_test_setup_teardown(duplicate_domains_name_both_hosts, setup, teardown),
        cmocka_unit_test_setup_teardown(two_wildcard_domains_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(paths, setup, teardown),
        cmocka_unit_test_setup_teardown(first_fitting_route_wins, setup, teardown),
        cmocka_unit_test_setup_teardown(metadata_of_the_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(metadata_of_the_request, setup, teardown),
        cmocka_unit_test_setup_teardown(a_route_for_every_path, setup, teardown),
        cmocka_unit_test_setup_teardown(grpc_and_fractions, setup, teardown),
        cmocka_unit_test_setup_teardown(weights_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(weights_do_not_depend_on_a_fraction, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// Warming, make before break, what lingers: updates in, snapshots out.
#include "tests/unit/proxy/config/rig.h"

#include "lib/base/file.h"
#include "lib/event/signal.h"
#include "proxy/config/config.h"

struct fixture {
    struct loop *loop;
    struct stats_store *stats;
    struct config *c;
    struct xds_client *x;
    struct snapshot *snap; // published last; ref
    int published;
    uint64_t now;
    struct arena a;
    struct str refused; // of the last update
};

static void publish(void *arg, struct snapshot *s)
{
    struct fixture *f = arg;
    snapshot_unref(f->snap);
    f->snap = s;
    f->published++;
}

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    signal_block_all();
    f->loop = loop_new(NULL);
    f->stats = stats_store_new(1);
    f->now = 1000000;
    loop_set_fake_time(f->loop, f->now);
    struct config_opts o = { .loop = f->loop, .stats = f->stats, .publish = publish, .arg = f };
    struct xds_node node = { .serialized = STR_INIT("n") };
    f->c = config_new(&o);
    f->x = xds_client_new(f->loop, &node, config_sink, f->c);
    config_set_client(f->c, f->x);
}

static void teardown(struct fixture *f)
{
    config_stop(f->c);
    xds_client_free(f->x);
    snapshot_unref(f->snap);
    config_free(f->c);
    loop_turn(f->loop, 0);
    loop_free(f->loop);
    stats_store_free(f->stats);
    arena_fini(&f->a);
}

static void turns(struct fixture *f)
{
    for (int i = 0; i < 4; i++) {
        loop_turn(f->loop, 0);
    }
}

static void wait_ms(struct fixture *f, uint64_t ms)
{
    for (uint64_t end = f->now + ms; f->now < end;) {
        f->now += end - f->now < 250 ? end - f->now : 250;
        loop_set_fake_time(f->loop, f->now);
        turns(f);
    }
}

// One resource as if a control plane had sent it; yaml NULL removes it.
static void push_only(struct fixture *f, enum xds_type t, const char *name, const char *yaml)
{
    struct arena a = { 0 };
    struct xds_update_item it = { .name = arena_str(&f->a, str_c(name)), .version = STR_INIT("1") };
    struct xds_update u = { .type = t, .items = &it, .count = 1, .arena = &a };
    it.bytes = yaml ? rig_pack(t, yaml, &f->a) : str_n(NULL, 0);
    config_sink(f->c, &u);
    f->refused = it.refused.p ? arena_str(&f->a, it.refused) : it.refused;
    arena_fini(&a);
}

static void push(struct fixture *f, enum xds_type t, const char *name, const char *yaml)
{
    push_only(f, t, name, yaml);
    turns(f);
}

#define EDS_CLUSTER(name) "{name: " name ", type: EDS, eds_cluster_config: {eds_config: {ads: {}}, service_name: s}}"
#define STATIC_CLUSTER(name) "{name: " name ", load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9}}}}]}]}}"
#define ENDPOINT "{cluster_name: s, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 7}}}}]}]}"
#define ROUTES(name, cluster) "{name: " name ", virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: " cluster "}}]}]}"
#define HTTP_LISTENER(name, port, rds)                                                                                 \
    "{name: " name ", address: {socket_address: {address: 10.0.0.1, port_value: " port "}}, bind_to_port: false, filter_chains: [{filters: [{name: hcm, "  \
    "typed_config: {" RIG_ANY "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: s, "                        \
    "rds: {route_config_name: " rds ", config_source: {ads: {}}}, http_filters: [" RIG_ROUTER "]}}]}]}"

static struct cluster_snap *cluster(const struct fixture *f, const char *name)
{
    return f->snap ? snapshot_cluster(f->snap, str_c(name)) : NULL;
}

static struct route_table *routes(const struct fixture *f, const char *name)
{
    return f->snap ? snapshot_route(f->snap, str_c(name)) : NULL;
}

static void a_cluster_waits_for_its_endpoints(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    push(&f, XDS_CLUSTER, "a", EDS_CLUSTER("a"));
    push(&f, XDS_CLUSTER, "b", EDS_CLUSTER("b")); // the same assignment
    assert_null(cluster(&f, "a"));
    assert_true(config_cluster_warming(f.c, STR("a")));
    push(&f, XDS_ENDPOINT, "s", ENDPOINT);
    assert_int_equal(cluster(&f, "a")->endpoints->count, 1);
    assert_int_equal(cluster(&f, "b")->endpoints->count, 1);
    // An assignment that cannot be taken leaves the old one.
    push(&f, XDS_ENDPOINT, "s", "{cluster_name: s, endpoints: [{priority: 500}]}");
    assert_true(str_is(f.refused, "endpoints[0].priority: 500 is above 128"));
    assert_int_equal(cluster(&f, "a")->endpoints->count, 1);
    // A removed assignment too: the cluster goes in its own time.
    push(&f, XDS_ENDPOINT, "s", NULL);
    assert_int_equal(cluster(&f, "a")->endpoints->count, 1);
    push(&f, XDS_ENDPOINT, "s", "{cluster_name: s}");
    assert_int_equal(cluster(&f, "a")->endpoints->count, 0);
    teardown(&f);
}

static void waiting_has_an_end(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    push(&f, XDS_CLUSTER, "a", EDS_CLUSTER("a"));
    wait_ms(&f, 14000);
    assert_null(cluster(&f, "a"));
    wait_ms(&f, 1500);
    assert_int_equal(cluster(&f, "a")->endpoints->count, 0);
    // A server that says so ends the waiting of one that comes later.
    push(&f, XDS_CLUSTER, "b", "{name: b, type: EDS, eds_cluster_config: {eds_config: {ads: {}}, service_name: t}}");
    push(&f, XDS_ENDPOINT, "t", NULL);
    assert_int_equal(cluster(&f, "b")->endpoints->count, 0);
    teardown(&f);
}

static void a_new_type_waits_beside_the_old_one(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    push(&f, XDS_CLUSTER, "a", STATIC_CLUSTER("a"));
    assert_int_equal(cluster(&f, "a")->cfg->type, CLUSTER_STATIC);
    push(&f, XDS_CLUSTER, "a", EDS_CLUSTER("a"));
    assert_int_equal(cluster(&f, "a")->cfg->type, CLUSTER_STATIC); // still
    push(&f, XDS_ENDPOINT, "s", ENDPOINT);
    assert_int_equal(cluster(&f, "a")->cfg->type, CLUSTER_EDS);
    push(&f, XDS_CLUSTER, "a", "{name: a, type: EDS, lb_policy: CLUSTER_PROVIDED}");
    assert_true(f.refused.n > 0);
    assert_int_equal(cluster(&f, "a")->cfg->lb, LB_ROUND_ROBIN);
    teardown(&f);
}

static void a_removed_cluster_lingers(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    push(&f, XDS_CLUSTER, "a", STATIC_CLUSTER("a"));
    push(&f, XDS_CLUSTER, "a", NULL);
    wait_ms(&f, 1500);
    assert_non_null(cluster(&f, "a"));
    wait_ms(&f, 1000);
    assert_null(cluster(&f, "a"));
    // Back in time: nothing was broken, and the lingering is forgotten.
    push(&f, XDS_CLUSTER, "a", STATIC_CLUSTER("a"));
    push(&f, XDS_CLUSTER, "a", NULL);
    push(&f, XDS_CLUSTER, "a", STATIC_CLUSTER("a"));
    wait_ms(&f, 5000);
    assert_non_null(cluster(&f, "a"));
    teardown(&f);
}

static void a_listener_waits_for_routes_and_keeps_its_old_ones(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    push(&f, XDS_LISTENER, "l", HTTP_LISTENER("l", "80", "r1"));
    assert_true(config_listener_warming(f.c, STR("l")));
    push(&f, XDS_ROUTE, "r1", ROUTES("r1", "c"));
    assert_int_equal(f.snap->listener_count, 1);
    struct listener_cfg *old = f.snap->listeners[0];
    push(&f, XDS_LISTENER, "l", HTTP_LISTENER("l", "80", "r2"));
    assert_ptr_equal(f.snap->listeners[0], old);
    assert_non_null(routes(&f, "r1")); // what serves is not taken away
    push(&f, XDS_ROUTE, "r2", ROUTES("r2", "c"));
    assert_ptr_not_equal(f.snap->listeners[0], old);
    assert_non_null(routes(&f, "r2"));
    assert_non_null(routes(&f, "r1")); // connections of the old listener are being drained
    wait_ms(&f, 11000);
    assert_null(routes(&f, "r1"));
    assert_non_null(routes(&f, "r2"));
    // Routes that the server removes stay as long as they are used.
    push(&f, XDS_ROUTE, "r2", NULL);
    assert_non_null(routes(&f, "r2"));
    // A listener that goes takes them along, after a while.
    push(&f, XDS_LISTENER, "l", NULL);
    assert_int_equal(f.snap->listener_count, 0);
    assert_non_null(routes(&f, "r2"));
    wait_ms(&f, 11000);
    assert_null(routes(&f, "r2"));
    teardown(&f);
}

static void listeners_share_routes(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    push(&f, XDS_LISTENER, "a", HTTP_LISTENER("a", "80", "r"));
    push(&f, XDS_LISTENER, "b", HTTP_LISTENER("b", "81", "r"));
    push(&f, XDS_ROUTE, "r", ROUTES("r", "c"));
    assert_int_equal(f.snap->listener_count, 2);
    push(&f, XDS_LISTENER, "a", NULL);
    wait_ms(&f, 12000);
    assert_non_null(routes(&f, "r"));
    teardown(&f);
}

static void routes_wait_for_new_clusters(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    push(&f, XDS_CLUSTER, "old", STATIC_CLUSTER("old"));
    push(&f, XDS_LISTENER, "l", HTTP_LISTENER("l", "80", "r"));
    push(&f, XDS_ROUTE, "r", ROUTES("r", "old"));
    struct route_table *t = routes(&f, "r");
    push(&f, XDS_CLUSTER, "a", EDS_CLUSTER("a"));
    push(&f, XDS_CLUSTER, "old", NULL);
    push(&f, XDS_ROUTE, "r", ROUTES("r", "a"));
    assert_ptr_equal(routes(&f, "r"), t);
    wait_ms(&f, 5000); // longer than a removed cluster usually stays
    assert_ptr_equal(routes(&f, "r"), t);
    assert_non_null(cluster(&f, "old"));
    push(&f, XDS_ENDPOINT, "s", ENDPOINT);
    assert_ptr_not_equal(routes(&f, "r"), t);
    assert_non_null(cluster(&f, "a"));
    wait_ms(&f, 3000);
    assert_null(cluster(&f, "old"));
    // A cluster that goes before it came: the routes without it are on their way, but not waited for for ever.
    t = routes(&f, "r");
    push(&f, XDS_CLUSTER, "b", "{name: b, type: EDS, eds_cluster_config: {eds_config: {ads: {}}, service_name: t}}");
    push(&f, XDS_ROUTE, "r", ROUTES("r", "b"));
    push(&f, XDS_CLUSTER, "b", NULL);
    assert_ptr_equal(routes(&f, "r"), t);
    wait_ms(&f, 3000);
    assert_ptr_not_equal(routes(&f, "r"), t);
    // Clusters that nobody announced are not waited for.
    push(&f, XDS_ROUTE, "r", ROUTES("r", "unknown"));
    assert_true(str_is(routes(&f, "r")->vhosts[0].routes[0].cluster, "unknown"));
    teardown(&f);
}

static void a_listener_waits_for_the_clusters_of_its_tcp_proxies(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    push(&f, XDS_CLUSTER, "c", "{name: c, type: EDS, eds_cluster_config: {eds_config: {ads: {}}, service_name: s}}");
    push(&f, XDS_LISTENER, "l", "{name: l, address: {socket_address: {address: 10.0.0.1, port_value: 80}}, bind_to_port: false, filter_chains: [{filters: [" RIG_TCP "]}]}");
    assert_true(config_listener_warming(f.c, STR("l")));
    push(&f, XDS_ENDPOINT, "s", ENDPOINT);
    assert_int_equal(f.snap->listener_count, 1);
    teardown(&f);
}

static void one_address_belongs_to_one_listener(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    push(&f, XDS_ROUTE, "r", ROUTES("r", "c"));
    push(&f, XDS_LISTENER, "a", HTTP_LISTENER("a", "80", "r"));
    push(&f, XDS_LISTENER, "b", HTTP_LISTENER("b", "80", "r"));
    assert_true(str_is(f.refused, "address: 10.0.0.1:80 is the address of listener \"a\""));
    push(&f, XDS_LISTENER, "a", HTTP_LISTENER("a", "80", "r")); // itself
    assert_null(f.refused.p);
    // It passes on within one response, in whatever order.
    struct xds_update_item v[] = { { .name = STR_INIT("b"), .bytes = rig_pack(XDS_LISTENER, HTTP_LISTENER("b", "80", "r"), &f.a) },
                                   { .name = STR_INIT("a") } };
    struct arena a = { 0 };
    struct xds_update u = { .type = XDS_LISTENER, .items = v, .count = 2, .arena = &a };
    config_sink(f.c, &u);
    assert_null(v[0].refused.p);
    arena_fini(&a);
    teardown(&f);
}

static void tls_waits_for_secrets(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = { 0 };
    setup(&f);
    struct rig_certs c = rig_certs(&f.a, "spiffe://td/ns/a/sa/b");
    push(&f, XDS_CLUSTER, "a", "{name: a, transport_socket: {name: t, typed_config: {" RIG_ANY "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, "
         "common_tls_context: {tls_certificate_sds_secret_configs: [{name: default, sds_config: {api_config_source: {api_type: GRPC}}}]}}}}");
    assert_null(cluster(&f, "a"));
    assert_int_equal(config_set_secret(f.c, STR("default"), c.chain, c.key, &err), 0);
    turns(&f);
    assert_non_null(cluster(&f, "a"));
    // Rotation is a snapshot of its own, so that the old context can be retired; the cluster is the same.
    struct cluster_snap *before = cluster(&f, "a");
    int published = f.published;
    struct rig_certs d = rig_certs(&f.a, "spiffe://td/ns/a/sa/b");
    assert_int_equal(config_set_secret(f.c, STR("default"), d.chain, d.key, &err), 0);
    turns(&f);
    assert_int_equal(f.published, published + 1);
    assert_ptr_equal(cluster(&f, "a"), before);
    assert_int_not_equal(config_set_secret(f.c, STR("default"), d.chain, c.key, &err), 0);
    // Over SDS: names of fields that would be skipped are refused.
    push(&f, XDS_SECRET, "x", "{name: x, validation_context: {trusted_ca: {inline_string: a}, match_subject_alt_names: [{exact: a}]}}");
    assert_true(str_is(f.refused, "validation_context.match_subject_alt_names: not supported yet"));
    push(&f, XDS_SECRET, "x", "{name: x, tls_certificate: {certificate_chain: {inline_string: a}}}");
    assert_true(str_is(f.refused, "tls_certificate.private_key: missing"));
    teardown(&f);
}

static void nothing_new_is_not_published(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    push(&f, XDS_CLUSTER, "a", STATIC_CLUSTER("a"));
    int published = f.published;
    wait_ms(&f, 3000);
    push(&f, XDS_CLUSTER, "b", "{name: b, type: ORIGINAL_DST}"); // refused
    assert_int_equal(f.published, published);
    // One turn, one snapshot.
    push_only(&f, XDS_CLUSTER, "b", STATIC_CLUSTER("b"));
    push_only(&f, XDS_CLUSTER, "c", STATIC_CLUSTER("c"));
    push(&f, XDS_CLUSTER, "d", STATIC_CLUSTER("d"));
    assert_int_equal(f.published, published + 1);
    config_stop(f.c);
    push(&f, XDS_CLUSTER, "e", STATIC_CLUSTER("e"));
    assert_int_equal(f.published, published + 1);
    teardown(&f);
}

static void endpoints_from_a_file(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = { 0 };
    char dir[] = "/tmp/remora-test-XXXXXX", path[64], yaml[256];
    setup(&f);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/eds.yaml", dir);
    snprintf(yaml, sizeof(yaml), "{name: a, type: EDS, eds_cluster_config: {eds_config: {path_config_source: {path: %s}}, service_name: s}}", path);
    push(&f, XDS_CLUSTER, "a", yaml);
    assert_non_null(strstr(f.refused.p, "eds_cluster_config.eds_config.path_config_source.path: "));
    assert_int_equal(file_write_atomic(path, STR("resources:\n- {cluster_name: s, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: "
                                                 "{address: 127.0.0.1, port_value: 7}}}}]}]}\n"), 0600, &err), 0);
    push(&f, XDS_CLUSTER, "a", yaml);
    assert_null(f.refused.p);
    turns(&f);
    assert_non_null(cluster(&f, "a"));
    assert_int_equal(cluster(&f, "a")->endpoints->count, 1);
    // One type has one kind of source.
    push(&f, XDS_CLUSTER, "b", EDS_CLUSTER("b"));
    assert_true(str_is(f.refused, "eds_cluster_config.eds_config.ads: EDS comes from files here, which another resource names"));
    remove(path);
    remove(dir);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cluster_waits_for_its_endpoints),
        cmocka_unit_test(waiting_has_an_end),
        cmocka_unit_test(a_new_type_waits_beside_the_old_one),
        cmocka_unit_test(a_removed_cluster_lingers),
        cmocka_unit_test(a_listener_waits_for_routes_and_keeps_its_old_ones),
        cmocka_unit_test(listeners_share_routes),
        cmocka_unit_test(routes_wait_for_new_clusters),
        cmocka_unit_test(a_listener_waits_for_the_clusters_of_its_tcp_proxies),
        cmocka_unit_test(one_address_belongs_to_one_listener),
        cmocka_unit_test(tls_waits_for_secrets),
        cmocka_unit_test(nothing_new_is_not_published),
        cmocka_unit_test(endpoints_from_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

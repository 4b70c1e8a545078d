// SPDX-License-Identifier: Apache-2.0
// The admin pages over a fake server: shapes, masks, statuses, and what must never be seen.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "lib/base/base64.h"
#include "lib/base/json.h"
#include "lib/event/signal.h"
#include "lib/tls/cert.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proto/types.h"
#include "proxy/admin/admin.h"
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/discovery.h"

#define ANY "'@type': type.googleapis.com/"

struct fixture {
    struct loop *loop;
    struct stats_store *stats;
    struct xds_client *x;
    struct admin *ad;
    struct snapshot *snap;
    struct arena a;
    struct str key, cert, root;
    enum server_state state;
    int drained, quit;
    bool inbound_only, unhealthy, warming;
    struct json *json; // of the last page
};

static struct str pack(struct fixture *f, enum xds_type t, const char *yaml)
{
    ProtobufCMessage *m = NULL;
    struct json *docs = NULL;
    struct err err = { 0 };
    if (yaml_parse(str_c(yaml), &f->a, &docs, &err) || pb_json_read(docs->first, types_find(xds_type_url(t)), 0, &f->a, &m, &err)) {
        fail_msg("%s", err.msg);
    }
    return pb_pack(m, &f->a);
}

// Refuses what is called "bad".
static void sink(void *arg, struct xds_update *u)
{
    (void)arg;
    for (size_t i = 0; i < u->count; i++) {
        if (str_starts(u->items[i].name, STR("bad"))) {
            u->items[i].refused = STR("some.field: not good");
        }
    }
}

static enum server_state get_state(void *arg)
{
    return ((struct fixture *)arg)->state;
}

static struct snapshot *get_snapshot(void *arg)
{
    return ((struct fixture *)arg)->snap;
}

static void each_secret(void *arg, void (*fn)(void *a, const struct admin_secret *s), void *a)
{
    struct fixture *f = arg;
    const struct admin_secret v[] = {
        { .name = STR_INIT("default"), .pem = f->cert, .version = STR_INIT("3"), .updated_ms = 1700000000000 },
        { .name = STR_INIT("ROOTCA"), .pem = f->root, .is_root = true },
        { .name = STR_INIT("fixed"), .pem = f->cert, .is_static = true },
        { .name = STR_INIT("awaited"), .warming = true },
    };
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
        fn(a, &v[i]);
    }
}

static bool is_warming(void *arg, struct str name)
{
    return ((struct fixture *)arg)->warming && str_is(name, "c");
}

static void drain(void *arg, bool inbound_only, bool graceful, bool skip_exit)
{
    (void)graceful;
    (void)skip_exit;
    ((struct fixture *)arg)->drained++;
    ((struct fixture *)arg)->inbound_only = inbound_only;
}

static void health(void *arg, bool fail)
{
    ((struct fixture *)arg)->unhealthy = fail;
}

static void quit(void *arg)
{
    ((struct fixture *)arg)->quit++;
}

static Envoy__Config__Bootstrap__V3__Bootstrap *bootstrap(struct fixture *f)
{
    struct str text = arena_printf(&f->a, "node:\n  id: n\n  metadata:\n    PROXY_CONFIG: {tracing: {lightstep: {accessToken: aSecretOfTheNode}}}\n"
                                   "static_resources:\n  secrets:\n  - name: s\n    tls_certificate:\n      private_key:\n"
                                          "        inline_bytes: %.*s\n", STR_FMT(base64_encode(&f->a, f->key)));
    ProtobufCMessage *m = NULL;
    struct err err = { 0 };
    if (pb_json_parse(text, &envoy__config__bootstrap__v3__bootstrap__descriptor, 0, &f->a, &m, &err)) {
        fail_msg("%s", err.msg);
    }
    return (void *)m;
}

static void fill(struct fixture *f)
{
    // A listener with a private key in its text, as one without SDS would have it.
    struct str tls = arena_printf(&f->a,
        "{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [{transport_socket: {name: t, typed_config: {" ANY
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {tls_certificates: [{private_key: {inline_bytes: '%.*s'}}]}}}, "
        "filters: [{name: hcm, typed_config: {" ANY "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, "
        "route_config: {name: inner, virtual_hosts: []}}}]}]}", STR_FMT(base64_encode(&f->a, f->key)));
    struct err err = { 0 };
    xds_mem_put(f->x, XDS_CLUSTER, STR("c"), pack(f, XDS_CLUSTER, "{name: c, connect_timeout: 1s}"));
    xds_mem_put(f->x, XDS_CLUSTER, STR("d"), pack(f, XDS_CLUSTER, "{name: d, load_assignment: {endpoints: [{lb_endpoints: [{endpoint: "
                                                                   "{address: {socket_address: {address: 1.2.3.4, port_value: 5}}}}]}]}}"));
    xds_mem_put(f->x, XDS_LISTENER, STR("l"), pack(f, XDS_LISTENER, tls.p));
    xds_mem_put(f->x, XDS_ROUTE, STR("r"), pack(f, XDS_ROUTE, "{name: r}"));
    xds_mem_put(f->x, XDS_ENDPOINT, STR("e"), pack(f, XDS_ENDPOINT, "{cluster_name: e}"));
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        assert_int_equal(xds_mem_commit(f->x, (enum xds_type)t, &err), 0);
    }
}

static void publish_cluster(struct fixture *f)
{
    struct cluster_cfg *c = cluster_cfg_new();
    struct host_table *t = host_table_new();
    struct lb_endpoint_cfg e = { .weight = 3, .region = STR_INIT("eu"), .host_name = STR_INIT("h\"1") };
    assert_true(addr_parse_ip(STR("10.0.0.1"), 80, &e.addr));
    c->name = c->stat_name = STR("c");
    struct endpoint_set *set = endpoint_set_build(t, c, &e, 1);
    struct cluster_snap *cs = cluster_snap_new(c, set, cluster_shared_new(), cluster_shared_unref);
    f->snap = snapshot_clone(NULL);
    snapshot_put_cluster(f->snap, cs);
    struct listener_cfg *l = listener_cfg_new();
    l->name = STR("l");
    l->address_count = 1;
    l->addresses = arena_new(&l->arena, struct addr);
    l->addresses[0] = e.addr;
    snapshot_set_listeners(f->snap, &l, 1);
    listener_cfg_unref(l);
    cluster_snap_unref(cs);
    endpoint_set_unref(set);
    cluster_cfg_unref(c);
    host_table_free(t);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct xds_node node = { 0 };
    struct err err = { 0 };
    struct addr any;
    signal_block_all();
    *state = f;
    f->loop = loop_new(NULL);
    f->stats = stats_store_new(1);
    f->x = xds_client_new(f->loop, &node, sink, f);
    assert_int_equal(cert_new_key(KEY_ECDSA_P256, &f->a, &f->key, &err), 0);
    assert_int_equal(cert_new_ca(f->key, STR("t"), 86400 * 4 + 43200, &f->a, &f->cert, &err), 0);
    f->root = f->cert;
    fill(f);
    publish_cluster(f);
    Envoy__Config__Bootstrap__V3__Bootstrap *b = bootstrap(f);
    struct admin_deps d = { .loop = f->loop, .stats = f->stats, .xds = f->x, .bootstrap = b, .node = b->node, .config_path = "boot.yaml", .concurrency = 2,
                            .start_wall_ms = 1700000000000, .arg = f, .state = get_state, .snapshot = get_snapshot, .each_secret = each_secret,
                            .cluster_warming = is_warming, .listener_warming = is_warming, .drain = drain, .healthcheck_fail = health, .quit = quit };
    assert_true(addr_parse_ip(STR("127.0.0.1"), 0, &any));
    f->ad = admin_new(&any, &d, &err);
    assert_non_null(f->ad);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    admin_free(f->ad);
    xds_client_free(f->x);
    snapshot_unref(f->snap);
    loop_turn(f->loop, 0);
    loop_free(f->loop);
    stats_store_free(f->stats);
    arena_fini(&f->a);
    free(f);
    return 0;
}

// The page's text; *ret_status its status. JSON pages must parse, and no page may hold the private key in any form.
static const char *page_by(struct fixture *f, const char *method, const char *target, int *ret_status)
{
    struct http_request req = { .method = str_c(method) };
    struct str rest = str_c(target);
    struct http_server_req q = { .req = &req, .arena = &f->a };
    struct http_server_resp r = { .status = 200 };
    struct buf body = { 0 };
    q.path = str_split(&rest, '?');
    q.query = rest;
    q.body = &body;
    headers_init(&r.headers, &f->a);
    admin_handle(f->ad, &q, &r);
    *ret_status = r.status;
    const char *text = arena_str(&f->a, buf_pullup(&r.body, buf_len(&r.body))).p;
    buf_clear(&r.body);
    if (r.after) {
        r.after(r.after_arg);
    }
    f->json = NULL;
    if (r.status == 200 && r.content_type && !strcmp(r.content_type, "application/json")) {
        struct err err = { 0 };
        if (json_parse(str_c(text), &f->a, &f->json, &err)) {
            fail_msg("%s: %s in %s", target, err.msg, text);
        }
    }
    assert_null(strstr(text, "PRIVATE KEY"));
    assert_null(strstr(text, "aSecretOfTheNode"));
    // The middle of the key's base64 lines, and base64 of the PEM text as bytes fields have it.
    assert_null(strstr(text, arena_printf(&f->a, "%.*s", 40, strstr(f->key.p, "\n") + 8).p));
    assert_null(strstr(text, arena_printf(&f->a, "%.*s", 40, base64_encode(&f->a, f->key).p + 60).p));
    return text;
}

static const char *page(struct fixture *f, const char *target)
{
    int status;
    const char *text = page_by(f, "GET", target, &status);
    if (status != 200) {
        fail_msg("%s: status %d: %s", target, status, text);
    }
    return text;
}

static void every_page_answers_and_json_parses(void **state)
{
    struct fixture *f = *state;
    static const char *const json[] = { "/config_dump", "/config_dump?include_eds", "/clusters?format=json", "/listeners?format=json", "/certs", "/server_info",
                                        "/memory", "/init_dump", "/stats?format=json", "/stats?format=json&usedonly" };
    static const char *const text[] = { "/", "/help", "/clusters", "/listeners", "/ready", "/stats", "/stats/prometheus", "/stats?format=prometheus", "/stats?filter=^server" };
    for (size_t i = 0; i < sizeof(json) / sizeof(json[0]); i++) {
        page(f, json[i]);
        assert_non_null(f->json);
    }
    for (size_t i = 0; i < sizeof(text) / sizeof(text[0]); i++) {
        if (!page(f, text[i])[0]) {
            fail_msg("%s is empty", text[i]);
        }
    }
}

// How many elements configs has; the "@type" of the first.
static size_t configs(struct fixture *f, struct str *ret_type)
{
    const struct json *c = json_get(f->json, "configs");
    assert_non_null(c);
    *ret_type = c->first ? json_str(c->first, "@type") : str_n(NULL, 0);
    return c->count;
}

static void masks_of_istioctl(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *query, *type;
        size_t count;
    } v[] = {
        { "mask=dynamic_active_secrets,dynamic_warming_secrets", "SecretsConfigDump", 1 },
        { "mask=dynamic_active_clusters,dynamic_warming_clusters,static_clusters", "ClustersConfigDump", 1 },
        { "mask=dynamic_listeners,static_listeners", "ListenersConfigDump", 1 },
        { "mask=dynamic_route_configs,static_route_configs", "RoutesConfigDump", 1 },
        { "mask=bootstrap", "BootstrapConfigDump", 1 },
        { "include_eds=true", "BootstrapConfigDump", 7 },
        { "", "BootstrapConfigDump", 6 },
        { "resource=static_clusters", "ClustersConfigDump.StaticCluster", 2 },
        { "resource=static_clusters&name_regex=^c$", "ClustersConfigDump.StaticCluster", 1 },
        { "resource=dynamic_active_secrets", "SecretsConfigDump.DynamicSecret", 2 },
        { "resource=dynamic_warming_secrets", "SecretsConfigDump.DynamicSecret", 1 },
        { "resource=static_endpoint_configs&include_eds", "EndpointsConfigDump.StaticEndpointConfig", 2 }, // a resource, a cluster's own
        { "resource=static_endpoint_configs&include_eds&name_regex=^d", "EndpointsConfigDump.StaticEndpointConfig", 1 },
        { "resource=static_secrets", "SecretsConfigDump.StaticSecret", 1 },
        { "resource=static_route_configs", "RoutesConfigDump.StaticRouteConfig", 1 },
    };
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
        struct str type;
        page(f, arena_printf(&f->a, "/config_dump?%s", v[i].query).p);
        size_t n = configs(f, &type);
        if (n != v[i].count || !str_is(type, arena_printf(&f->a, "type.googleapis.com/envoy.admin.v3.%s", v[i].type).p)) {
            fail_msg("%s: %zu configs, the first a %.*s", v[i].query, n, STR_FMT(type));
        }
    }
}

static void mistakes_have_statuses(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *method, *target;
        int status;
    } v[] = {
        { "GET", "/config_dump?mask=bad", 400 },      { "GET", "/config_dump?resource=bad", 404 }, { "GET", "/config_dump?name_regex=(", 400 },
        { "GET", "/stats?filter=(", 400 },            { "GET", "/stats?format=xml", 400 },         { "GET", "/nothing", 404 },
        { "GET", "/quitquitquit", 405 },              { "GET", "/drain_listeners", 405 },          { "GET", "/logging", 405 },
        { "POST", "/logging?nobody=debug", 400 },     { "POST", "/logging?level=loud", 400 },      { "GET", "/healthcheck/fail", 405 },
    };
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
        int status;
        page_by(f, v[i].method, v[i].target, &status);
        if (status != v[i].status) {
            fail_msg("%s %s: %d", v[i].method, v[i].target, status);
        }
    }
    assert_int_equal(f->quit + f->drained, 0);
}

static void what_posts_do(void **state)
{
    struct fixture *f = *state;
    int status;
    page_by(f, "POST", "/drain_listeners?inboundonly&graceful", &status);
    assert_true(f->drained == 1 && f->inbound_only);
    page_by(f, "POST", "/drain_listeners?inboundonly=false", &status);
    assert_true(f->drained == 2 && !f->inbound_only);
    page_by(f, "POST", "/healthcheck/fail", &status);
    assert_true(f->unhealthy);
    page_by(f, "POST", "/healthcheck/ok", &status);
    assert_false(f->unhealthy);
    assert_non_null(strstr(page_by(f, "POST", "/logging?config=debug", &status), "config: debug"));
    page_by(f, "POST", "/logging?level=info", &status);
    assert_string_equal(page_by(f, "POST", "/quitquitquit", &status), "OK\n");
    assert_int_equal(f->quit, 1);
}

static void ready_tells_the_state(void **state)
{
    struct fixture *f = *state;
    int status;
    assert_string_equal(page(f, "/ready"), "LIVE\n");
    f->state = SERVER_DRAINING;
    assert_string_equal(page_by(f, "GET", "/ready", &status), "DRAINING\n");
    assert_int_equal(status, 503);
    f->state = SERVER_INITIALIZING;
    page_by(f, "GET", "/ready", &status);
    assert_int_equal(status, 503);
}

static void clusters_and_certificates(void **state)
{
    struct fixture *f = *state;
    const char *text = page(f, "/clusters");
    assert_non_null(strstr(text, "c::10.0.0.1:80::weight::3\n"));
    assert_non_null(strstr(text, "c::default_priority::max_connections::1024\n"));
    text = page(f, "/clusters?format=json");
    assert_non_null(strstr(text, "\"hostname\": \"h\\\"1\""));
    assert_non_null(strstr(text, "\"region\": \"eu\""));
    page(f, "/certs");
    const struct json *certs = json_get(f->json, "certificates");
    assert_int_equal(certs->count, 3); // one awaited is none
    struct str days = json_str(json_get(certs->first, "cert_chain")->first, "days_until_expiration");
    assert_string_equal(arena_str(&f->a, days).p, "4");
    text = page(f, "/init_dump");
    assert_null(strstr(text, "\"c\""));
    f->warming = true;
    text = page(f, "/init_dump");
    assert_non_null(strstr(text, "\"c\""));
}

// Listeners that were refused on first sight are in no list of accepted ones; people look for them all the same.
static void refused_listeners_are_shown(void **state)
{
    struct fixture *f = *state;
    struct err err = { 0 };
    char path[] = "/tmp/remora-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *file = fdopen(fd, "w");
    fputs("resources:\n- {name: good, address: {socket_address: {address: 127.0.0.1, port_value: 2}}}\n"
          "- {name: bad1, address: {socket_address: {address: 127.0.0.1, port_value: 3}}}\n", file);
    fclose(file);
    assert_int_equal(xds_add_file(f->x, XDS_LISTENER, path, &err), 0);
    xds_subscribe(f->x, XDS_LISTENER, NULL, 0);
    for (int i = 0; i < 3; i++) {
        loop_turn(f->loop, 0);
    }
    remove(path);
    page(f, "/config_dump?resource=dynamic_listeners");
    const struct json *v = json_get(f->json, "configs");
    assert_int_equal(v->count, 2);
    const struct json *good = v->first, *bad = good->next;
    assert_true(str_is(json_str(good, "name"), "good"));
    assert_non_null(json_get(good, "active_state"));
    assert_null(json_get(good, "error_state"));
    assert_true(str_is(json_str(bad, "name"), "bad1"));
    assert_null(json_get(bad, "active_state"));
    const struct json *e = json_get(bad, "error_state");
    assert_true(str_is(json_str(e, "details"), "some.field: not good"));
    assert_true(str_is(json_str(json_get(e, "failed_configuration"), "name"), "bad1"));
    // Statistics tell of it too.
    assert_non_null(strstr(page(f, "/stats?filter=lds"), "listener_manager.lds.update_rejected: 1\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_page_answers_and_json_parses, setup, teardown),
        cmocka_unit_test_setup_teardown(masks_of_istioctl, setup, teardown),
        cmocka_unit_test_setup_teardown(mistakes_have_statuses, setup, teardown),
        cmocka_unit_test_setup_teardown(what_posts_do, setup, teardown),
        cmocka_unit_test_setup_teardown(ready_tells_the_state, setup, teardown),
        cmocka_unit_test_setup_teardown(clusters_and_certificates, setup, teardown),
        cmocka_unit_test_setup_teardown(refused_listeners_are_shown, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

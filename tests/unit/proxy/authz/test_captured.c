// SPDX-License-Identifier: Apache-2.0
// Every authorization filter in what a real istiod sent (tests/golden/istiod, and $REMORA_CAPTURE when set) is taken, and the richest of them decides
// as its AuthorizationPolicy says.
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "envoy/config/listener/v3/listener.pb-c.h"
#include "envoy/extensions/filters/http/rbac/v3/rbac.pb-c.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "envoy/extensions/filters/network/rbac/v3/rbac.pb-c.h"
#include "envoy/service/discovery/v3/discovery.pb-c.h"
#include "lib/base/file.h"
#include "proto/pb_util.h"
#include "proxy/authz/authz.h"
#include "proxy/core/stream_info.h"
#include "proxy/model/matcher.h"

enum { FILE_MAX = 16 * 1024 * 1024 };

static struct arena arena; // of what is kept
static size_t of_requests, of_connections;
static struct authz *reviews; // "reviews-allow", for requests

static struct authz *take(const Envoy__Config__Rbac__V3__RBAC *m, enum authz_of of)
{
    struct authz *z = NULL;
    struct err err = { 0 };
    if (m && authz_parse(m, of, &arena, &z, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return z;
}

#define UNPACK(type, c_name, any, a, ret)                                                                              \
    (!str_is(pb_any_type_name((any), (a)), c_name##__descriptor.name) || pb_any_unpack_as(type, c_name, (any), (a), (ret), NULL))

static void take_http(const Google__Protobuf__Any *any, struct arena *a)
{
    Envoy__Extensions__Filters__Http__Rbac__V3__RBAC *m = NULL;
    if (!any || UNPACK(Envoy__Extensions__Filters__Http__Rbac__V3__RBAC, envoy__extensions__filters__http__rbac__v3__rbac, any, a, &m)) {
        return;
    }
    struct authz *z = take(m->rules, AUTHZ_OF_REQUEST);
    (void)take(m->shadow_rules, AUTHZ_OF_REQUEST);
    reviews = m->rules && m->rules->n_policies && strstr(m->rules->policies[0]->key, "reviews-allow") ? z : reviews;
    of_requests++;
}

static void take_network(const Google__Protobuf__Any *any, struct arena *a)
{
    Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager *h = NULL;
    Envoy__Extensions__Filters__Network__Rbac__V3__RBAC *m = NULL;
    if (any && !UNPACK(Envoy__Extensions__Filters__Network__Rbac__V3__RBAC, envoy__extensions__filters__network__rbac__v3__rbac, any, a, &m)) {
        (void)take(m->rules, AUTHZ_OF_CONNECTION);
        (void)take(m->shadow_rules, AUTHZ_OF_CONNECTION);
        of_connections++;
    } else if (any && !UNPACK(Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager,
                              envoy__extensions__filters__network__http_connection_manager__v3__http_connection_manager, any, a, &h)) {
        for (size_t i = 0; i < h->n_http_filters; i++) {
            take_http(h->http_filters[i]->typed_config, a);
        }
    }
}

static void take_listener(const Google__Protobuf__Any *any, struct arena *a)
{
    Envoy__Config__Listener__V3__Listener *l = NULL;
    if (UNPACK(Envoy__Config__Listener__V3__Listener, envoy__config__listener__v3__listener, any, a, &l)) {
        return;
    }
    for (size_t i = 0; i < l->n_filter_chains; i++) {
        for (size_t k = 0; k < l->filter_chains[i]->n_filters; k++) {
            take_network(l->filter_chains[i]->filters[k]->typed_config, a);
        }
    }
}

static void take_file(const char *path, bool delta)
{
    struct arena a = { 0 };
    struct str bytes;
    assert_int_equal(file_read(path, FILE_MAX, &a, &bytes, NULL), 0);
    if (delta) {
        Envoy__Service__Discovery__V3__DeltaDiscoveryResponse *m = NULL;
        assert_int_equal(pb_unpack_as(Envoy__Service__Discovery__V3__DeltaDiscoveryResponse, envoy__service__discovery__v3__delta_discovery_response,
                                      bytes, &a, &m, NULL), 0);
        for (size_t i = 0; i < m->n_resources; i++) {
            take_listener(m->resources[i]->resource, &a);
        }
    } else {
        Envoy__Service__Discovery__V3__DiscoveryResponse *m = NULL;
        assert_int_equal(pb_unpack_as(Envoy__Service__Discovery__V3__DiscoveryResponse, envoy__service__discovery__v3__discovery_response, bytes, &a, &m, NULL), 0);
        for (size_t i = 0; i < m->n_resources; i++) {
            take_listener(m->resources[i], &a);
        }
    }
    arena_fini(&a);
}

static void walk(const char *folder, bool delta)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[4096];
        struct stat st;
        snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
        if (e->d_name[0] == '.' || stat(path, &st)) {
            continue;
        }
        if (S_ISDIR(st.st_mode)) {
            walk(path, delta || !strcmp(e->d_name, "delta"));
        } else if (strstr(e->d_name, "LDS.response.pb")) {
            take_file(path, delta);
        }
    }
    if (d) {
        closedir(d);
    }
}

static int setup(void **state)
{
    (void)state;
    walk("tests/golden/istiod", false);
    if (getenv("REMORA_CAPTURE")) {
        walk(getenv("REMORA_CAPTURE"), false);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static void all_are_taken(void **state)
{
    (void)state;
    fprintf(stderr, "%zu filters of requests, %zu of connections\n", of_requests, of_connections);
    assert_true(of_requests >= 4);
    assert_true(of_connections >= 4);
    assert_non_null(reviews);
}

// What the policy asks for in all of its conditions; each row takes one thing away.
struct request {
    const char *host, *method, *path, *sni, *uri, *token;
    const char *group, *role, *direct, *remote;
    uint16_t port;
};
static const struct request good = { "Reviews.default", "GET", "/reviews/7?x", "outbound_.9080_._.reviews.default.svc.cluster.local",
                                     "spiffe://cluster.local/ns/default/sa/bookinfo-productpage", "abcdef", "readers", "admin", "10.244.0.7", "203.0.113.9", 9080 };

static bool allowed(struct request q)
{
    struct arena a = { 0 };
    struct headers h;
    headers_init(&h, &a);
    headers_add(&h, STR("x-token"), str_c(q.token));
    struct stream_info info = { 0 };
    const struct metadata_value group = { .kind = MV_TEXT, .bytes = str_c(q.group) }, role = { .kind = MV_TEXT, .bytes = str_c(q.role) };
    const struct metadata_value realm = { .kind = MV_STRUCT, .bytes = metadata_struct_of(STR("role"), &role, &a) };
    struct str claims = metadata_struct_merge(metadata_struct_of(STR("groups"), &group, &a), metadata_struct_of(STR("realm"), &realm, &a), &a);
    const struct metadata_value payload = { .kind = MV_STRUCT, .bytes = claims };
    stream_info_metadata_merge(&info, &a, STR("envoy.filters.http.jwt_authn"), metadata_struct_of(STR("payload"), &payload, &a));
    struct addr local, direct, remote;
    assert_true(addr_parse_ip(STR("10.42.0.21"), q.port, &local) && addr_parse_ip(str_c(q.direct), 1, &direct) && addr_parse_ip(str_c(q.remote), 0, &remote));
    const struct match_request r = { .method = str_c(q.method), .path = str_c(q.path), .authority = str_c(q.host), .scheme = STR("http"), .headers = &h, .arena = &a };
    struct str uri = str_c(q.uri);
    const struct authz_subject s = { .request = &r, .local = &local, .direct_remote = &direct, .source = &direct, .remote = &remote,
                                     .server_name = str_c(q.sni), .tls = true, .uris = &uri, .uri_count = 1, .info = &info };
    bool yes = authz_decide(reviews, &s).allowed;
    arena_fini(&a);
    return yes;
}

#define BUT(field, value) ({ struct request q_ = good; q_.field = (value); allowed(q_); })

static void reviews_are_for_whom_the_policy_says(void **state)
{
    (void)state;
    assert_true(allowed(good));
    assert_true(BUT(path, "/health"));
    assert_true(BUT(path, "/api/v1/items/3/4")); // the second of its permissions
    assert_true(BUT(method, "HEAD"));
    assert_true(BUT(uri, "spiffe://old.cluster/ns/default/sa/bookinfo-productpage"));
    assert_true(BUT(uri, "spiffe://any.domain/ns/default/sa/bookinfo-productpage"));
    assert_false(BUT(host, "ratings"));
    assert_false(BUT(method, "POST"));
    assert_false(BUT(path, "/reviews/secret"));
    assert_false(BUT(path, "/reviews/secret?x"));
    assert_false(BUT(path, "/api/items"));
    assert_false(BUT(port, 9081));
    assert_false(BUT(sni, "reviews.other.svc.cluster.local"));
    assert_false(BUT(uri, "spiffe://cluster.local/ns/other/sa/bookinfo-productpage"));
    assert_false(BUT(group, "writers"));
    assert_false(BUT(role, "user"));
    assert_false(BUT(token, "xabc"));
    assert_false(BUT(token, "abczzz"));
    assert_false(BUT(direct, "192.0.2.1"));
    assert_false(BUT(remote, "203.0.114.9"));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(all_are_taken), cmocka_unit_test(reviews_are_for_whom_the_policy_says) };
    return cmocka_run_group_tests(tests, setup, teardown);
}

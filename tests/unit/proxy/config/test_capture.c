// SPDX-License-Identifier: Apache-2.0
// What a real istiod sent (tests/golden/istiod, and $REMORA_CAPTURE when set): every cluster, assignment, listener and route configuration is
// either accepted or refused with the field and a reason. The refusals of the golden files are written down in expected_refusals.
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "envoy/service/discovery/v3/discovery.pb-c.h"
#include "lib/base/file.h"
#include "lib/base/map.h"
#include "proto/pb_util.h"
#include "proxy/config/build.h"
#include "proxy/config/secrets.h"
#include "xds-client/xds_client.h"

enum { FILE_MAX = 16 * 1024 * 1024 };

struct totals {
    struct secret_store secrets;
    size_t accepted, refused, files;
    struct map reasons; // text → count
};

static int build_one(struct totals *t, enum xds_type type, struct str bytes, struct err *err)
{
    struct arena scratch = { 0 }, model = { 0 };
    struct config_ctx ctx = { .scratch = &scratch, .secrets = &t->secrets };
    struct cluster_cfg *c = NULL;
    struct listener_cfg *l = NULL;
    struct route_table *r = NULL;
    int rc = 0;
    Envoy__Config__Endpoint__V3__ClusterLoadAssignment *m = NULL;
    struct lb_endpoint_cfg *v;
    size_t n;
    switch (type) {
    case XDS_CLUSTER:
        rc = build_cluster(&ctx, bytes, &c, err);
        cluster_cfg_unref(c);
        break;
    case XDS_LISTENER:
        rc = build_listener(&ctx, bytes, &l, err);
        listener_cfg_unref(l);
        break;
    case XDS_ROUTE:
        rc = build_route_table_bytes(&ctx, bytes, &r, err);
        route_table_unref(r);
        break;
    case XDS_ENDPOINT:
        rc = pb_unpack_as(Envoy__Config__Endpoint__V3__ClusterLoadAssignment, envoy__config__endpoint__v3__cluster_load_assignment, bytes, &scratch,
                          &m, err);
        rc = rc ? rc : build_endpoints(m, false, &model, &v, &n, err);
        break;
    default:
        break;
    }
    arena_fini(&model);
    arena_fini(&scratch);
    return rc;
}

static void take(struct totals *t, enum xds_type type, const char *name, struct str bytes)
{
    struct err err = { 0 };
    if (type != XDS_CLUSTER && type != XDS_LISTENER && type != XDS_ROUTE && type != XDS_ENDPOINT) {
        return;
    }
    if (!build_one(t, type, bytes, &err)) {
        t->accepted++;
        return;
    }
    t->refused++;
    assert_non_null(strstr(err.msg, ": ")); // a field and a reason
    char line[ERR_MSG_MAX + 300];
    snprintf(line, sizeof(line), "%s %s: %s", xds_type_short(type), name, err.msg);
    map_put(&t->reasons, str_c(line), t);
}

static void take_file(struct totals *t, const char *path, bool delta)
{
    struct arena a = { 0 };
    struct str bytes;
    struct err err = { 0 };
    assert_int_equal(file_read(path, FILE_MAX, &a, &bytes, &err), 0);
    t->files++;
    if (delta) {
        Envoy__Service__Discovery__V3__DeltaDiscoveryResponse *m = NULL;
        assert_int_equal(pb_unpack_as(Envoy__Service__Discovery__V3__DeltaDiscoveryResponse, envoy__service__discovery__v3__delta_discovery_response,
                                      bytes, &a, &m, &err), 0);
        int type = xds_type_parse(str_c(m->type_url));
        for (size_t i = 0; i < m->n_resources && type >= 0; i++) {
            take(t, (enum xds_type)type, m->resources[i]->name, pb_bytes(m->resources[i]->resource->value));
        }
    } else {
        Envoy__Service__Discovery__V3__DiscoveryResponse *m = NULL;
        assert_int_equal(
            pb_unpack_as(Envoy__Service__Discovery__V3__DiscoveryResponse, envoy__service__discovery__v3__discovery_response, bytes, &a, &m, &err), 0);
        int type = xds_type_parse(str_c(m->type_url));
        for (size_t i = 0; i < m->n_resources && type >= 0; i++) {
            char name[32];
            snprintf(name, sizeof(name), "#%zu", i);
            take(t, (enum xds_type)type, name, pb_bytes(m->resources[i]->value));
        }
    }
    arena_fini(&a);
}

static void walk(struct totals *t, const char *folder, bool delta)
{
    DIR *d = opendir(folder);
    if (!d) {
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        char path[4096];
        struct stat st;
        snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
        if (e->d_name[0] == '.' || stat(path, &st)) {
            continue;
        }
        if (S_ISDIR(st.st_mode)) {
            walk(t, path, delta || !strcmp(e->d_name, "delta"));
        } else if (strlen(e->d_name) > 3 && !strcmp(e->d_name + strlen(e->d_name) - 3, ".pb")) {
            take_file(t, path, delta);
        }
    }
    closedir(d);
}

static void print_reasons(struct totals *t)
{
    struct map_entry **v = map_sorted(&t->reasons);
    for (size_t i = 0; i < t->reasons.count; i++) {
        fprintf(stderr, "refused %.*s\n", STR_FMT(v[i]->key));
    }
    free(v);
}

static void totals_fini(struct totals *t)
{
    secret_store_fini(&t->secrets);
    map_fini(&t->reasons);
}

static void golden_responses_are_accepted_or_refused_by_name(void **state)
{
    (void)state;
    struct totals t = { 0 };
    secret_store_init(&t.secrets);
    walk(&t, "tests/golden/istiod", false);
    fprintf(stderr, "%zu files: %zu accepted, %zu refused\n", t.files, t.accepted, t.refused);
    print_reasons(&t);
    assert_true(t.files >= 8);
    assert_true(t.accepted > 150);
    totals_fini(&t);
}

static void whole_capture(void **state)
{
    (void)state;
    const char *dir = getenv("REMORA_CAPTURE");
    if (!dir) {
        skip();
    }
    struct totals t = { 0 };
    secret_store_init(&t.secrets);
    walk(&t, dir, false);
    fprintf(stderr, "capture: %zu files: %zu accepted, %zu refused\n", t.files, t.accepted, t.refused);
    print_reasons(&t);
    assert_true(t.files > 20);
    totals_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_responses_are_accepted_or_refused_by_name),
        cmocka_unit_test(whole_capture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

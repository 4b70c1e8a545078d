// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "envoy/config/core/v3/base.pb-c.h"
#include "proto/pb_util.h"
#include "xds-client/node.h"

// The files of the pod, by path.
struct fake_file {
    const char *path, *text;
};
static const struct fake_file *files;

static int read_fake(const char *path, size_t max_bytes, struct arena *a, struct str *ret, struct err *err)
{
    (void)max_bytes;
    for (const struct fake_file *f = files; f && f->path; f++) {
        if (strcmp(f->path, path) == 0) {
            *ret = arena_str(a, str_c(f->text));
            return 0;
        }
    }
    return err_set(err, -ENOENT, "%s: no such file", path);
}

static int set_up(void **state)
{
    files = NULL;
    *state = calloc(1, sizeof(struct arena));
    return 0;
}

static int tear_down(void **state)
{
    arena_fini(*state);
    free(*state);
    return 0;
}

static const char *const pod_env[] = {
    "POD_NAME=details-v1-abc",
    "POD_NAMESPACE=default",
    "SERVICE_ACCOUNT=bookinfo-details",
    "INSTANCE_IP=10.244.0.11",
    "ISTIO_META_CLUSTER_ID=east",
    "ISTIO_META_WORKLOAD_NAME=details-v1",
    "ISTIO_META_DNS_CAPTURE=true",
    "ISTIO_METAJSON_LABELS={\"app\":\"env\",\"version\":\"v0\"}",
    "ISTIO_METAJSON_OTHER={\"PLATFORM_METADATA\":{\"n\":1.5,\"l\":[true,null]}}",
    "PROXY_CONFIG={\"concurrency\":3,\"proxyMetadata\":{\"ISTIO_META_HTTP10\":\"1\",\"ISTIO_META_DNS_CAPTURE\":\"false\"}}",
    NULL,
};

static struct node_info make(struct arena *a, const char *const *envp)
{
    struct node_info n = { 0 };
    struct err err = { 0 };
    struct str ips[] = { STR("10.244.0.11"), STR("fd00::1") };
    struct node_in in = { .envp = envp, .read_file = read_fake, .root = "", .ips = ips, .ip_count = 2 };
    if (node_from_env(&in, a, &n, &err)) {
        fail_msg("%s", err.msg);
    }
    return n;
}

static Envoy__Config__Core__V3__Node *unpack(struct arena *a, const struct node_info *n)
{
    Envoy__Config__Core__V3__Node *node = NULL;
    struct err err = { 0 };
    if (pb_unpack_as(Envoy__Config__Core__V3__Node, envoy__config__core__v3__node, n->serialized, a, &node, &err)) {
        fail_msg("%s", err.msg);
    }
    return node;
}

static const char *text(const Envoy__Config__Core__V3__Node *n, const char *key)
{
    return pb_struct_str(n->metadata, key).p;
}

static void pod_gives_id_cluster_and_metadata(void **state)
{
    static const struct fake_file pod[] = {
        { "etc/istio/pod/labels", "app=\"details\"\npod-template-hash=\"5f\"\ntopology.istio.io/locality=\"r1/z1/s1\"\n" },
        { "etc/istio/pod/annotations", "note=\"a \\\"b\\\"\\n\"\n" },
        { NULL, NULL },
    };
    files = pod;
    struct node_info n = make(*state, pod_env);
    Envoy__Config__Core__V3__Node *m = unpack(*state, &n);
    assert_string_equal(m->id, "sidecar~10.244.0.11~details-v1-abc.default~default.svc.cluster.local");
    assert_string_equal(m->cluster, "details.default");
    assert_string_equal(text(m, "NAME"), "details-v1-abc");
    assert_string_equal(text(m, "NAMESPACE"), "default");
    assert_string_equal(text(m, "SERVICE_ACCOUNT"), "bookinfo-details");
    assert_string_equal(text(m, "INSTANCE_IPS"), "10.244.0.11,fd00::1");
    assert_string_equal(text(m, "CLUSTER_ID"), "east");
    assert_string_equal(text(m, "ISTIO_VERSION"), NODE_ISTIO_VERSION);
    assert_string_equal(text(m, "INTERCEPTION_MODE"), "REDIRECT");
    assert_string_equal(text(m, "DNS_CAPTURE"), "true"); // the variable wins over proxyMetadata
    assert_string_equal(text(m, "HTTP10"), "1");
    assert_string_equal(m->locality->region, "r1");
    assert_string_equal(m->locality->zone, "z1");
    assert_string_equal(m->locality->sub_zone, "s1");
    assert_true(pb_struct_get(m->metadata, "ENVOY_STATUS_PORT")->number_value == 15021);
    assert_string_equal(pb_struct_get(m->metadata, "PILOT_SAN")->list_value->values[0]->string_value, "istiod.istio-system.svc");
    const Google__Protobuf__Struct *labels = pb_struct_get(m->metadata, "LABELS")->struct_value;
    assert_string_equal(pb_struct_str(labels, "app").p, "details"); // the file wins over the variable
    assert_string_equal(pb_struct_str(labels, "version").p, "v0");
    assert_null(pb_struct_get(labels, "pod-template-hash"));
    const Google__Protobuf__Struct *notes = pb_struct_get(m->metadata, "ANNOTATIONS")->struct_value;
    assert_string_equal(pb_struct_str(notes, "note").p, "a \"b\"\n");
    const Google__Protobuf__Struct *platform = pb_struct_get(m->metadata, "PLATFORM_METADATA")->struct_value;
    assert_true(pb_struct_get(platform, "n")->number_value == 1.5);
    assert_int_equal(pb_struct_get(platform, "l")->list_value->n_values, 2);
    assert_true(pb_struct_get(platform, "l")->list_value->values[0]->bool_value);
    const Google__Protobuf__Struct *pc = pb_struct_get(m->metadata, "PROXY_CONFIG")->struct_value;
    assert_true(pb_struct_get(pc, "concurrency")->number_value == 3);
    assert_string_equal(pb_struct_str(pc, "discovery_address").p, "istiod.istio-system.svc:15012");
    assert_int_equal(n.proxy->concurrency->value, 3);
}

static void proxy_config_layers(void **state)
{
    static const struct fake_file pod[] = {
        { "etc/istio/config/mesh", "defaultConfig:\n  discoveryAddress: mesh:15012\n  statusPort: 1\n  tracing:\n    sampling: 5\n"
                                   "    zipkin: {address: z:1}\n  serviceCluster: from-mesh\n" },
        { "etc/istio/pod/annotations", "proxy.istio.io/config=\"control_plane_auth_policy: NONE\\ntracing: {lightstep: {address: 'l:1'}}\\n"
                                       "tracingServiceName: CANONICAL_NAME_ONLY\\n\"\nstatus.sidecar.istio.io/port=\"17\"\n" },
        { "etc/istio/pod/labels", "service.istio.io/canonical-name=\"canon\"\nistio-locality=\"r1.z1\"\n" },
        { NULL, NULL },
    };
    static const char *const env[] = { "POD_NAME=p", "POD_NAMESPACE=n", "PROXY_CONFIG=discoveryAddress: localhost:15010", NULL };
    files = pod;
    struct node_info n = make(*state, env);
    assert_string_equal(n.proxy->discovery_address, "localhost:15010"); // the variable over the mesh file
    assert_int_equal(n.proxy->status_port, 17);                         // the annotation over all
    assert_int_equal(n.proxy->control_plane_auth_policy, 0);            // NONE over the default, though it is zero
    assert_non_null(n.proxy->tracing->lightstep);                       // one tracer
    assert_true(n.proxy->tracing->sampling == 5);                       // merged inside
    Envoy__Config__Core__V3__Node *m = unpack(*state, &n);
    assert_string_equal(m->cluster, "canon");
    assert_string_equal(m->locality->zone, "z1");
    assert_string_equal(pb_struct_get(m->metadata, "PILOT_SAN")->list_value->values[0]->string_value, "istiod.istio-system.svc");
    assert_string_equal(text(m, "INSTANCE_IPS"), "10.244.0.11,fd00::1");
}

static void bare_host_has_defaults(void **state)
{
    static const char *const env[] = { NULL };
    struct node_info n = make(*state, env);
    Envoy__Config__Core__V3__Node *m = unpack(*state, &n);
    assert_string_equal(m->cluster, "istio-proxy");
    assert_string_equal(text(m, "CLUSTER_ID"), "Kubernetes");
    assert_null(m->locality);
}

static void expect_error(struct arena *a, const char *const *envp, const char *words)
{
    struct node_info n;
    struct err err = { 0 };
    struct node_in in = { .envp = envp, .read_file = read_fake };
    assert_int_equal(node_from_env(&in, a, &n, &err), -EINVAL);
    if (!strstr(err.msg, words)) {
        fail_msg("\"%s\" does not say \"%s\"", err.msg, words);
    }
}

static void mistakes_are_named(void **state)
{
    expect_error(*state, (const char *const[]){ NULL }, "INSTANCE_IP");
    expect_error(*state, (const char *const[]){ "INSTANCE_IP=1.2.3.4", "PROXY_CONFIG=interceptionMode: BOTH", NULL }, "PROXY_CONFIG");
    expect_error(*state, (const char *const[]){ "INSTANCE_IP=1.2.3.4", "ISTIO_METAJSON_X=[1]", NULL }, "ISTIO_METAJSON_X");
    expect_error(*state, (const char *const[]){ "INSTANCE_IP=1.2.3.4", "ISTIO_METAJSON_X={", NULL }, "ISTIO_METAJSON_X");
    expect_error(*state, (const char *const[]){ "INSTANCE_IP=1.2.3.4", "ENVOY_STATUS_PORT=no", NULL }, "ENVOY_STATUS_PORT");
    static const struct fake_file bad[] = { { "etc/istio/pod/labels", "app=\"a\"\nwhat is this\n" }, { NULL, NULL } };
    files = bad;
    expect_error(*state, (const char *const[]){ "INSTANCE_IP=1.2.3.4", NULL }, "etc/istio/pod/labels: line 2");
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(pod_gives_id_cluster_and_metadata),
        T(proxy_config_layers),
        T(bare_host_has_defaults),
        T(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// Shared by the control-plane tests: cmocka, and one small mesh.
#ifndef TESTS_UNIT_CONTROL_PLANE_COMMON_H
#define TESTS_UNIT_CONTROL_PLANE_COMMON_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "control-plane/compile.h"

static const char mesh_yaml[] =
    "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: reviews}\nspec:\n"
    "  hosts: [reviews.default.svc.cluster.local]\n  addresses: [240.240.0.10]\n  location: MESH_INTERNAL\n  resolution: STATIC\n"
    "  ports: [{number: 9080, name: http, protocol: HTTP}]\n  workloadSelector: {labels: {app: reviews}}\n"
    "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: r1}\nspec:\n  address: 10.7.0.11\n"
    "  labels: {app: reviews, version: v1, security.istio.io/tlsMode: istio}\n  serviceAccount: rev\n"
    "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: r2}\nspec:\n  address: 10.7.0.12\n"
    "  labels: {app: reviews, version: v2}\n  serviceAccount: rev\n"
    "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews}\nspec:\n  host: reviews\n"
    "  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]\n"
    "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec:\n  hosts: [reviews]\n  http:\n"
    "  - match: [{headers: {end-user: {exact: jason}}}]\n    route: [{destination: {host: reviews, subset: v2}}]\n"
    "  - route:\n    - {destination: {host: reviews, subset: v1}, weight: 90}\n    - {destination: {host: reviews, subset: v2}, weight: 10}\n"
    "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: redis}\nspec:\n  hosts: [redis.default.svc.cluster.local]\n"
    "  addresses: [240.240.0.11]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  ports: [{number: 6379, name: tcp, protocol: TCP}]\n"
    "  endpoints: [{address: 10.7.0.14}]\n";

static inline struct cp_config *load_mesh(const char *more)
{
    struct cp_config *c = NULL;
    struct err err = { 0 };
    char text[16384];
    snprintf(text, sizeof(text), "%s%s", mesh_yaml, more);
    if (cp_load_text(str_c(text), "mesh.yaml", &c, &err)) {
        fail_msg("%s", err.msg);
    }
    return c;
}

// What is appended to the mesh, and what the message must say.
struct mistake {
    const char *yaml, *says;
};

static inline void expect_mistakes(const struct mistake *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct cp_config *c = NULL;
        struct err err = { 0 };
        char text[16384];
        snprintf(text, sizeof(text), "%s%s", mesh_yaml, v[i].yaml);
        assert_int_not_equal(cp_load_text(str_c(text), "mesh.yaml", &c, &err), 0);
        assert_null(c);
        if (!strstr(err.msg, v[i].says) || strncmp(err.msg, "mesh.yaml:", 10)) {
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, err.msg, v[i].says);
        }
    }
}

static inline struct cp_node mesh_node(const char *ip)
{
    struct cp_node n = { .id = STR_INIT("sidecar~x~p.default~default.svc.cluster.local"), .ns = STR_INIT("default"), .name = STR_INIT("p") };
    assert_true(addr_parse_ip(str_c(ip), 0, &n.ip));
    return n;
}

static const struct cp_options mesh_options = { .trust_domain = STR_INIT("cluster.local"), .sniff_timeout = STR_INIT("5s") };

#endif

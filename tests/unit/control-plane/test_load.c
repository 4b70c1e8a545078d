// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/control-plane/common.h"

#include "control-plane/model.h"

static void a_mesh_loads(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh("");
    assert_int_equal(c->service_count, 2);
    assert_int_equal(c->services[0].endpoint_count, 2); // by selector
    assert_int_equal(c->services[1].endpoint_count, 1);
    assert_int_equal(c->virtual_services[0].http_count, 2);
    assert_ptr_equal(cp_find_service(c, STR("reviews"), STR("default")), &c->services[0]);
    assert_null(cp_find_service(c, STR("reviews"), STR("other")));
    cp_config_free(c);
}

// Each mistake: what is appended to the mesh, and what the message must say.
static const struct {
    const char *yaml, *says;
} mistakes[] = {
    { "---\nkind: Gateway\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\n", "unknown kind \"Gateway\"" },
    { "---\nkind: VirtualService\napiVersion: v1\nmetadata: {name: g}\n", "VirtualService belongs to networking.istio.io/" },
    { "---\nkind: WorkloadEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {adress: 1.2.3.4}\n", "adress: unknown or unsupported" },
    { "---\nkind: WorkloadEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {address: nowhere}\n", "is not an IP address" },
    { "---\nkind: WorkloadEntry\napiVersion: networking.istio.io/v1\nspec: {address: 1.2.3.4}\n", "metadata: missing" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{fault: {}, route: []}]}\n", "fault: unknown or unsupported" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{route: [{destination: {host: nobody}}]}]}\n", "\"nobody\" is no known service" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{route: [{destination: {host: reviews, subset: v9}}]}]}\n", "a subset \"v9\"" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{timeout: soon, route: [{destination: {host: reviews}}]}]}\n", "\"soon\" is not a duration" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{redirect: {redirectCode: 305}}]}\n", "redirectCode: must be 301" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{match: []}]}\n", "exactly one of route, redirect, directResponse" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {tls: {mode: SIMPLE}}}\n", "\"SIMPLE\" is not supported" },
    { "---\nkind: PeerAuthentication\napiVersion: security.istio.io/v1\nmetadata: {name: g}\nspec: {mtls: {mode: MAYBE}}\n", "\"MAYBE\" is not one of" },
    { "---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [a.b], ports: [{number: 80, protocol: QUIC}]}\n", "\"QUIC\" is not one of" },
    { "---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [redis.default.svc.cluster.local], ports: [{number: 80, protocol: TCP}]}\n", "is also in mesh.yaml" },
    { "---\nkind: ServiceEntry\n  bad: [\n", "mesh.yaml" },
};

static void mistakes_name_file_line_and_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
        struct cp_config *c = NULL;
        struct err err = { 0 };
        char text[16384];
        snprintf(text, sizeof(text), "%s%s", mesh_yaml, mistakes[i].yaml);
        assert_int_not_equal(cp_load_text(str_c(text), "mesh.yaml", &c, &err), 0);
        assert_null(c);
        if (!strstr(err.msg, mistakes[i].says) || strncmp(err.msg, "mesh.yaml:", 10)) {
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, err.msg, mistakes[i].says);
        }
    }
}

static void durations_become_seconds(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh("---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: t}\n"
                                    "spec: {hosts: [x], http: [{timeout: 1500ms, route: [{destination: {host: reviews}}]}]}\n");
    assert_true(str_is(c->virtual_services[1].http[0].timeout, "1.500000s"));
    assert_int_equal(c->virtual_services[1].http[0].routes[0].weight, 100);
    cp_config_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mesh_loads),
        cmocka_unit_test(mistakes_name_file_line_and_field),
        cmocka_unit_test(durations_become_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

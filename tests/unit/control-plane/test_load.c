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

static const struct mistake mistakes[] = {
    { "---\nkind: Gateway\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\n", "unknown kind \"Gateway\"" },
    { "---\nkind: VirtualService\napiVersion: v1\nmetadata: {name: g}\n", "VirtualService belongs to networking.istio.io/" },
    { "---\nkind: WorkloadEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {adress: 1.2.3.4}\n", "adress: unknown or unsupported" },
    { "---\nkind: WorkloadEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {address: nowhere}\n", "is not an IP address" },
    { "---\nkind: WorkloadEntry\napiVersion: networking.istio.io/v1\nspec: {address: 1.2.3.4}\n", "metadata: missing" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{fault: {}, route: []}]}\n", "route: must be a list with at least one" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{route: [{destination: {host: nobody}}]}]}\n", "\"nobody\" is no known service" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{route: [{destination: {host: reviews, subset: v9}}]}]}\n", "a subset \"v9\"" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{timeout: soon, route: [{destination: {host: reviews}}]}]}\n", "\"soon\" is not a duration" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{redirect: {redirectCode: 305}}]}\n", "redirectCode: must be 301" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{match: []}]}\n", "exactly one of route, redirect, directResponse" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {tls: {mode: EASY}}}\n", "\"EASY\" is not one of" },
    { "---\nkind: PeerAuthentication\napiVersion: security.istio.io/v1\nmetadata: {name: g}\nspec: {mtls: {mode: MAYBE}}\n", "\"MAYBE\" is not one of" },
    { "---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [a.b], ports: [{number: 80, protocol: QUIC}]}\n", "\"QUIC\" is not one of" },
    { "---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [redis.default.svc.cluster.local], ports: [{number: 80, protocol: TCP}]}\n", "is also in mesh.yaml" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: reviews}\nspec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}\n", "VirtualService reviews in namespace default is there already: mesh.yaml:" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: reviews}\nspec: {host: x}\n", "DestinationRule reviews in namespace default is there already: mesh.yaml:" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{match: [{uri: {regex: \"(\"}}], route: [{destination: {host: reviews}}]}]}\n", "regex: " },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{match: [{gateways: [\"\"]}], route: [{destination: {host: reviews}}]}]}\n", "gateways: a name is empty" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{headers: {request: {set: {\":path\": a}}}, route: [{destination: {host: reviews}}]}]}\n", "\":path\" cannot be changed this way" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{headers: {response: {remove: [Host]}}, route: [{destination: {host: reviews}}]}]}\n", "\"Host\" cannot be removed" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 0s}}}}\n", "connectTimeout: must be at least 1ms" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, subsets: [{name: a}, {name: a}]}\n", "there is a subset \"a\" already" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, subsets: [{name: \"a b\"}]}\n", "\"a b\" is not a name" },
    { "---\nkind: PeerAuthentication\napiVersion: security.istio.io/v1\nmetadata: {name: g}\nspec: {portLevelMtls: {80: {mode: DISABLE}}}\n", "portLevelMtls: needs a selector" },
    { "---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [\"a b\"], ports: [{number: 80, protocol: TCP}]}\n", "\"a b\" is not a name" },
    { "---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [\"*\"], ports: [{number: 80, protocol: TCP}]}\n", "is not a name" },
    { "---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [\"x|y\"], ports: [{number: 80, protocol: TCP}]}\n", "is not a name" },
    { "---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [a.b], ports: [{number: 80, protocol: TCP}, {number: 80, protocol: HTTP}]}\n", "number or name of another port" },
    { "---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [a.b], ports: [{number: 80, name: a}, {number: 81, name: a}]}\n", "number or name of another port" },
    { "---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [a.b], addresses: [240.240.0.11], ports: [{number: 6379, name: tcp, protocol: TCP}]}\n", "240.240.0.11:6379 is also the address of a TCP port of" },
    { "---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [\"*.b\"], resolution: DNS, ports: [{number: 80, protocol: TCP}]}\n", "a wildcard cannot be resolved" },
    { "---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [a.b], trustNames: [x], ports: [{number: 80, protocol: TCP}]}\n", "trustNames: unknown or unsupported" },
    { "---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [a.b], resolution: DNS, endpoints: [{address: \"x, y\"}], ports: [{number: 80, protocol: TCP}]}\n", "\"x, y\" is not a name" },
    { "---\nkind: WorkloadEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g, namespace: \"a/b\"}\nspec: {address: 1.2.3.4}\n", "namespace: \"a/b\" is not a name" },
    { "---\nkind: WorkloadEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {address: 1.2.3.4, serviceAccount: \"a}]\"}\n", "serviceAccount: \"a}]\" is not a name" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{fault: {}, route: [{destination: {host: reviews}}]}]}\n", "abort or delay is needed" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{fault: {abort: {http2Error: X}}, route: [{destination: {host: reviews}}]}]}\n", "http2Error: unknown or unsupported" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{fault: {abort: {grpcStatus: BAD}}, route: [{destination: {host: reviews}}]}]}\n", "\"BAD\" is not one of: OK CANCELLED" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{fault: {delay: {exponentialDelay: 1s}}, route: [{destination: {host: reviews}}]}]}\n", "exponentialDelay: unknown or unsupported" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{mirror: {host: reviews}, mirrors: [{destination: {host: reviews}}], route: [{destination: {host: reviews}}]}]}\n", "mirror and mirrors exclude each other" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{mirrorPercentage: {value: 101}, route: [{destination: {host: reviews}}]}]}\n", "value: must be a number from 0 to 100" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{mirror: {host: reviews, subset: v9}, route: [{destination: {host: reviews}}]}]}\n", "a subset \"v9\"" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{delegate: {name: d}}]}\n", "delegate default/d is no VirtualService" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{delegate: {name: reviews}}]}\n", "delegate reviews has hosts of its own" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{rewrite: {uri: /a, uriRegexRewrite: {match: a, rewrite: b}}, route: [{destination: {host: reviews}}]}]}\n", "exclude each other" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{redirect: {uri: /a, port: 80, derivePort: FROM_REQUEST_PORT}}]}\n", "port and derivePort exclude each other" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], tls: [{route: [{destination: {host: redis}}]}]}\n", "match: missing" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], tls: [{match: [{port: 443}], route: [{destination: {host: redis}}]}]}\n", "sniHosts: at least one" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], tcp: [{match: [{destinationSubnets: [nowhere]}], route: [{destination: {host: redis}}]}]}\n", "\"nowhere\" is not an address or range" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], tcp: [{match: [{sourceSubnet: 10.0.0.0/8}], route: [{destination: {host: redis}}]}]}\n", "sourceSubnet: unknown or unsupported" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x]}\n", "http, tls or tcp is needed" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {http: [{route: [{destination: {host: reviews}}]}], tcp: [{route: [{destination: {host: redis}}]}]}\n", "hosts: at least one" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x], http: [{match: [{headers: {\"@request.auth.claims.sub\": {exact: a}}}], route: [{destination: {host: reviews}}]}]}\n", "is not supported" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {tls: {mode: MUTUAL}}}\n", "MUTUAL needs clientCertificate" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {tls: {mode: SIMPLE, credentialName: a}}}\n", "credentialName: not supported" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {tunnel: {targetHost: a}}}\n", "targetPort: missing" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {tunnel: {protocol: GET, targetHost: a, targetPort: 1}}}\n", "\"GET\" is not one of: CONNECT POST" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}}\n", "exclude each other" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: a, useSourceIp: true}}}}\n", "exactly one of httpHeaderName" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 100}}}}}\n", "must be a prime" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 50}}]}}}}\n", "must add up to 100, not 50" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}]}}}}\n", "two different regions" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {loadBalancer: {simple: RANDOM, warmup: {duration: 10s}}}}\n", "warmup goes with" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {portLevelSettings: [{loadBalancer: {simple: RANDOM}}]}}\n", "port.number: missing" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {proxyProtocol: {version: V3}}}\n", "\"V3\" is not one of: V1 V2" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, exportTo: [\"a b\"]}\n", "\"a b\" is not a name" },
    { "---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {host: x, trafficPolicy: {loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}], failoverPriority: [topology.kubernetes.io/region]}}}}\n", "says by itself what failover says" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x.y], tls: [{match: [{sniHosts: [z.y]}], route: [{destination: {host: redis}}]}]}\n", "\"z.y\" is none of this VirtualService's hosts" },
    { "---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [a.b], ports: [{number: 80}]}\n", "is no name of a port" },
    { "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: g}\nspec: {hosts: [x.y], http: [{route: [{destination: {host: redis}}], timeout: 0s}]}\n", "timeout: must be at least 1ms" },
    { "---\nkind: ServiceEntry\n  bad: [\n", "mesh.yaml" },
};

static void mistakes_name_file_line_and_field(void **state)
{
    (void)state;
    expect_mistakes(mistakes, sizeof(mistakes) / sizeof(mistakes[0]));
}

static void durations_become_seconds(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh("---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: t}\n"
                                    "spec: {hosts: [x], http: [{timeout: 1500ms, route: [{destination: {host: reviews}}]}]}\n");
    assert_true(str_is(c->virtual_services[1].http[0].timeout, "1.500000s")); // "t" is behind "reviews"
    assert_int_equal(c->virtual_services[1].http[0].routes[0].weight, 100);
    cp_config_free(c);
}

static void a_dns_service_without_endpoints_resolves_its_host(void **state)
{
    (void)state;
    struct cp_config *c = load_mesh("---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: t}\n"
                                    "spec: {hosts: [One.Example, two.example], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}\n");
    assert_int_equal(c->service_count, 4);
    for (size_t i = 2; i < 4; i++) {
        assert_int_equal(c->services[i].endpoint_count, 1);
        assert_true(str_eq(c->services[i].endpoints[0].address, c->services[i].host));
    }
    assert_true(str_is(c->services[2].host, "one.example"));
    cp_config_free(c);
}

static void long_names_are_refused_not_cut(void **state)
{
    (void)state;
    char text[2048], name[600];
    struct cp_config *c = NULL;
    struct err err = { 0 };
    memset(name, 'a', 254);
    name[254] = 0;
    snprintf(text, sizeof(text), "kind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: t}\n"
                                 "spec: {hosts: [%s], ports: [{number: 443, name: tls}]}\n", name);
    assert_int_not_equal(cp_load_text(str_c(text), "long.yaml", &c, &err), 0);
    assert_non_null(strstr(err.msg, "at most 253"));
    assert_null(cp_find_service(&(struct cp_config){ 0 }, str_c(name), str_c(name)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mesh_loads),
        cmocka_unit_test(mistakes_name_file_line_and_field),
        cmocka_unit_test(durations_become_seconds),
        cmocka_unit_test(a_dns_service_without_endpoints_resolves_its_host),
        cmocka_unit_test(long_names_are_refused_not_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

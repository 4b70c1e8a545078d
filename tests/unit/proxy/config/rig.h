// SPDX-License-Identifier: Apache-2.0
// Shared by the tests of proxy/config: resources from YAML, and certificates made on the spot.
#ifndef TESTS_UNIT_PROXY_CONFIG_RIG_H
#define TESTS_UNIT_PROXY_CONFIG_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "envoy/extensions/transport_sockets/tls/v3/secret.pb-c.h"
#include "lib/base/json.h"
#include "lib/tls/cert.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proto/types.h"
#include "proxy/config/build.h"
#include "proxy/config/secrets.h"
#include "xds-client/xds_client.h"

// The packed resource that the YAML text describes.
static inline struct str rig_pack(enum xds_type t, const char *yaml, struct arena *a)
{
    ProtobufCMessage *m = NULL;
    struct json *docs = NULL;
    struct err err = { 0 };
    if (yaml_parse(str_c(yaml), a, &docs, &err) || pb_json_read(docs->first, types_find(xds_type_url(t)), 0, a, &m, &err)) {
        fail_msg("%s; the text was:\n%s", err.msg, yaml);
    }
    return pb_pack(m, a);
}

// A CA and one leaf.
struct rig_certs {
    struct str ca_key, ca, key, chain;
};

static inline struct rig_certs rig_certs(struct arena *a, const char *uri)
{
    struct rig_certs c;
    struct str csr;
    struct err err = { 0 };
    struct cert_sign_opts o = { .uri_san = str_c(uri), .ttl_s = 3600 };
    assert_int_equal(cert_new_key(KEY_ECDSA_P256, a, &c.ca_key, &err), 0);
    assert_int_equal(cert_new_ca(c.ca_key, STR("test"), 3600, a, &c.ca, &err), 0);
    assert_int_equal(cert_new_key(KEY_ECDSA_P256, a, &c.key, &err), 0);
    assert_int_equal(cert_new_csr(c.key, str_c(uri), a, &csr, &err), 0);
    assert_int_equal(cert_sign_csr(csr, c.ca, c.ca_key, &o, a, &c.chain, &err), 0);
    return c;
}

#define RIG_ANY "'@type': type.googleapis.com/"
#define RIG_ROUTER "{name: envoy.filters.http.router, typed_config: {" RIG_ANY "envoy.extensions.filters.http.router.v3.Router}}"
#define RIG_ADDRESS "address: {socket_address: {address: 127.0.0.1, port_value: 0}}"
// A listener with one HTTP connection manager; rest: further members of it, each begun with a comma.
#define RIG_HCM(rest)                                                                                                  \
    "{name: l, " RIG_ADDRESS ", filter_chains: [{filters: [{name: hcm, typed_config: {" RIG_ANY                        \
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: s" rest "}}]}]}"
#define RIG_ROUTES ", route_config: {name: r, virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}"
#define RIG_TCP "{name: tcp, typed_config: {" RIG_ANY "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: c}}"

#endif

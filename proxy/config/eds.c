// SPDX-License-Identifier: Apache-2.0
// endpoint.v3.ClusterLoadAssignment → struct lb_endpoint_cfg[].
#include <string.h>

#include "proto/pb_util.h"
#include "proxy/config/build.h"

enum { ENDPOINTS_MAX = 100000, WEIGHT_MAX = 1u << 20, PRIORITY_MAX = 128, TRANSPORT_MATCH_MAX = 32, MORE_ADDRESSES_MAX = 7, DROPS_MAX = 64 };

typedef Envoy__Config__Endpoint__V3__LbEndpoint lb_endpoint;
typedef Envoy__Config__Endpoint__V3__LocalityLbEndpoints locality;

static void copy_match_metadata(const Envoy__Config__Core__V3__Metadata *md, struct arena *a, struct lb_endpoint_cfg *e)
{
    const Google__Protobuf__Struct *st = pb_metadata_get(md, "envoy.transport_socket_match");
    size_t n = st ? st->n_fields : 0;
    n = n > TRANSPORT_MATCH_MAX ? TRANSPORT_MATCH_MAX : n;
    e->metadata = n ? arena_array(a, struct str_pair, n) : NULL;
    for (size_t i = 0; i < n; i++) {
        struct str v = pb_value_str(st->fields[i]->value);
        if (v.p) {
            e->metadata[e->metadata_count++] = (struct str_pair){ build_str(a, st->fields[i]->key), arena_str(a, v) };
        }
    }
    e->all_metadata = build_metadata_bytes(md, a);
}

// A hash_key of its own for rings and tables, and what subsets look at.
static int copy_lb_metadata(const Envoy__Config__Core__V3__Metadata *md, struct arena *a, struct lb_endpoint_cfg *e, struct err *err)
{
    const Google__Protobuf__Struct *st = pb_metadata_get(md, "envoy.lb");
    struct str key = pb_struct_str(st, "hash_key");
    e->hash_key = key.n ? arena_str(a, key) : str_n(NULL, 0);
    return build_lb_metadata(st, a, &e->lb_metadata, &e->lb_metadata_count, err);
}

static int copy_additional(const Envoy__Config__Endpoint__V3__Endpoint *ep, struct arena *a, struct lb_endpoint_cfg *e, struct err *err)
{
    if (ep->n_additional_addresses > MORE_ADDRESSES_MAX) {
        return cfg_fail(err, "additional_addresses", "%zu addresses, at most %d", ep->n_additional_addresses, MORE_ADDRESSES_MAX);
    }
    e->more = ep->n_additional_addresses ? arena_array(a, struct addr, ep->n_additional_addresses) : NULL;
    for (size_t i = 0; i < ep->n_additional_addresses; i++) {
        if (build_address(ep->additional_addresses[i]->address, a, &e->more[i], err)) {
            return cfg_in(err, "additional_addresses[%zu].address", i);
        }
        if (e->more[i].family == AF_UNIX) {
            return cfg_fail(err, "additional_addresses", "entry %zu: must be an IP address", i);
        }
    }
    e->more_count = ep->n_additional_addresses;
    return 0;
}

static int copy_check(const Envoy__Config__Endpoint__V3__Endpoint__HealthCheckConfig *m, struct arena *a, struct lb_endpoint_cfg *e,
                      struct err *err)
{
    if (!m) {
        return 0;
    }
    if (m->port_value > 65535) {
        return cfg_fail(err, "port_value", "%u is not a port", m->port_value);
    }
    if (m->address && build_address(m->address, a, &e->check_addr, err)) {
        return cfg_in(err, "address");
    }
    if (e->check_addr.family == AF_UNIX) {
        return cfg_fail(err, "address", "must be an IP address");
    }
    e->check_port = (uint16_t)m->port_value;
    e->check_host = build_str(a, m->hostname);
    e->check_off = m->disable_active_health_check;
    return 0;
}

// A DNS name where an IP address would stand.
static int dns_name(const Envoy__Config__Core__V3__Address *m, struct arena *a, struct lb_endpoint_cfg *e, struct err *err)
{
    if (!m || m->address_case != ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_SOCKET_ADDRESS) {
        return cfg_fail(err, "address", "a DNS cluster's endpoints need socket_address");
    }
    const Envoy__Config__Core__V3__SocketAddress *s = m->socket_address;
    size_t n = strlen(s->address);
    if (n == 0 || n > 253 || strchr(s->address, '/') || strchr(s->address, ' ')) {
        return cfg_fail(err, "address.socket_address.address", "\"%.64s\" is not a host name", s->address);
    }
    if (s->port_value > 65535) {
        return cfg_fail(err, "address.socket_address.port_value", "%u is not a port", s->port_value);
    }
    e->host_name = build_str(a, s->address);
    e->port = (uint16_t)s->port_value;
    return 0;
}

static int build_endpoint(const lb_endpoint *m, bool names, struct arena *a, struct lb_endpoint_cfg *e, struct err *err)
{
    if (CFG_KNOWN(m, err, "endpoint", "health_status", "metadata", "load_balancing_weight")) {
        return err->code;
    }
    if (m->host_identifier_case != ENVOY__CONFIG__ENDPOINT__V3__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT) {
        return cfg_fail(err, "endpoint", "missing");
    }
    const Envoy__Config__Endpoint__V3__Endpoint *ep = m->endpoint;
    if (CFG_KNOWN(ep, err, "address", "hostname", "health_check_config", "additional_addresses")) {
        return cfg_in(err, "endpoint");
    }
    struct err e2 = { 0 };
    e->host_name = build_str(a, ep->hostname);
    if (build_address(ep->address, a, &e->addr, names ? &e2 : err)) {
        if (!names) {
            return cfg_in(err, "endpoint.address");
        }
        if (dns_name(ep->address, a, e, err)) {
            return cfg_in(err, "endpoint");
        }
    } else {
        e->port = e->addr.port;
    }
    e->weight = pb_u32_or(m->load_balancing_weight, 1);
    if (e->weight == 0 || e->weight > WEIGHT_MAX) {
        return cfg_fail(err, "load_balancing_weight", "must be 1 to %u", WEIGHT_MAX);
    }
    e->health = (uint8_t)m->health_status; // same numbers as enum eds_health
    copy_match_metadata(m->metadata, a, e);
    if (copy_lb_metadata(m->metadata, a, e, err)) {
        return cfg_in(err, "metadata.filter_metadata[envoy.lb]");
    }
    if (copy_additional(ep, a, e, err)) {
        return cfg_in(err, "endpoint");
    }
    if (copy_check(ep->health_check_config, a, e, err)) {
        return cfg_in(err, "endpoint.health_check_config");
    }
    return 0;
}

static int build_locality(const locality *l, bool names, struct arena *a, struct lb_endpoint_cfg *v, size_t *at, struct err *err)
{
    if (CFG_KNOWN(l, err, "locality", "metadata", "lb_endpoints", "load_balancing_weight", "priority", "proximity")) {
        return err->code;
    }
    if (l->priority > PRIORITY_MAX) {
        return cfg_fail(err, "priority", "%u is above %d", l->priority, PRIORITY_MAX);
    }
    for (size_t i = 0; i < l->n_lb_endpoints; i++) {
        struct lb_endpoint_cfg *e = &v[*at];
        if (build_endpoint(l->lb_endpoints[i], names, a, e, err)) {
            return cfg_in(err, "lb_endpoints[%zu]", i);
        }
        e->priority = l->priority;
        e->locality_weight = pb_u32_or(l->load_balancing_weight, 0);
        if (l->locality) {
            e->region = build_str(a, l->locality->region);
            e->zone = build_str(a, l->locality->zone);
            e->sub_zone = build_str(a, l->locality->sub_zone);
        }
        ++*at;
    }
    return 0;
}

int build_endpoint_policy(const Envoy__Config__Endpoint__V3__ClusterLoadAssignment *m, struct arena *a, struct endpoint_policy *ret,
                          struct err *err)
{
    const Envoy__Config__Endpoint__V3__ClusterLoadAssignment__Policy *p = m->policy;
    *ret = (struct endpoint_policy){ 0 };
    if (!p) {
        return 0;
    }
    if (CFG_KNOWN(p, err, "drop_overloads", "overprovisioning_factor", "endpoint_stale_after", "weighted_priority_health")) {
        return cfg_in(err, "policy");
    }
    if (p->overprovisioning_factor && p->overprovisioning_factor->value == 0) {
        return cfg_fail(err, "policy.overprovisioning_factor", "must be at least 1");
    }
    if (p->endpoint_stale_after && pb_duration_ms(p->endpoint_stale_after, 0) > 0) {
        return cfg_fail(err, "policy.endpoint_stale_after", "not supported; leave it out");
    }
    ret->overprovisioning_pct = pb_u32_or(p->overprovisioning_factor, 0);
    ret->weighted_priority_health = p->weighted_priority_health;
    if (p->n_drop_overloads > DROPS_MAX) {
        return cfg_fail(err, "policy.drop_overloads", "%zu entries, at most %d", p->n_drop_overloads, DROPS_MAX);
    }
    ret->drops = p->n_drop_overloads ? arena_array(a, struct drop_overload, p->n_drop_overloads) : NULL;
    for (size_t i = 0; i < p->n_drop_overloads; i++) {
        struct fraction f = build_fraction(p->drop_overloads[i]->drop_percentage);
        if (!p->drop_overloads[i]->category[0]) {
            return cfg_fail(err, "policy.drop_overloads", "entry %zu: category is missing", i);
        }
        uint64_t n = (uint64_t)f.numerator * 1000000 / (f.denominator ? f.denominator : 1);
        ret->drops[ret->drop_count++] =
            (struct drop_overload){ build_str(a, p->drop_overloads[i]->category), n > 1000000 ? 1000000 : (uint32_t)n };
    }
    return 0;
}

int build_endpoints(const Envoy__Config__Endpoint__V3__ClusterLoadAssignment *m, bool names, struct arena *a, struct lb_endpoint_cfg **ret,
                    size_t *ret_count, struct err *err)
{
    if (pb_whole(&m->base, NULL, NULL, err) || CFG_KNOWN(m, err, "cluster_name", "endpoints", "policy")) {
        return err->code;
    }
    size_t total = 0, at = 0;
    for (size_t i = 0; i < m->n_endpoints; i++) {
        total += m->endpoints[i]->n_lb_endpoints;
    }
    if (total > ENDPOINTS_MAX) {
        return cfg_fail(err, "endpoints", "%zu endpoints, at most %d", total, ENDPOINTS_MAX);
    }
    struct lb_endpoint_cfg *v = arena_array(a, struct lb_endpoint_cfg, total + 1);
    for (size_t i = 0; i < m->n_endpoints; i++) {
        if (build_locality(m->endpoints[i], names, a, v, &at, err)) {
            return cfg_in(err, "endpoints[%zu]", i);
        }
    }
    *ret = v;
    *ret_count = total;
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
#include "control-plane/compile.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control-plane/compile_int.h"
#include "envoy/config/core/v3/base.pb-c.h"
#include "lib/base/check.h"
#include "lib/base/json.h"
#include "lib/base/mem.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proto/types.h"

static const struct {
    const char *url, *short_name;
} types[CP_TYPE_COUNT] = {
    [CP_CDS] = { "type.googleapis.com/envoy.config.cluster.v3.Cluster", "CDS" },
    [CP_EDS] = { "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", "EDS" },
    [CP_LDS] = { "type.googleapis.com/envoy.config.listener.v3.Listener", "LDS" },
    [CP_RDS] = { "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "RDS" },
};

struct str cp_type_url(enum cp_type t)
{
    return str_c(types[t].url);
}

const char *cp_type_short(enum cp_type t)
{
    return types[t].short_name;
}

int cp_type_parse(struct str url)
{
    for (int i = 0; i < CP_TYPE_COUNT; i++) {
        if (str_is(url, types[i].url)) {
            return i;
        }
    }
    return -1;
}

static void take_labels(const Google__Protobuf__Value *v, struct arena *a, struct cp_labels *ret)
{
    if (!v || v->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE) {
        return;
    }
    ret->v = arena_array(a, struct cp_label, v->struct_value->n_fields + 1);
    for (size_t i = 0; i < v->struct_value->n_fields; i++) {
        struct str s = pb_value_str(v->struct_value->fields[i]->value);
        if (s.p) {
            ret->v[ret->n++] = (struct cp_label){ arena_str(a, str_c(v->struct_value->fields[i]->key)), arena_str(a, s) };
        }
    }
}

int cp_node_parse(struct str bytes, struct arena *a, struct cp_node *ret, struct err *err)
{
    Envoy__Config__Core__V3__Node *m = NULL;
    struct cp_node n = { 0 };
    if (pb_unpack_as(Envoy__Config__Core__V3__Node, envoy__config__core__v3__node, bytes, a, &m, err)) {
        return err->code;
    }
    n.id = str_c(m->id);
    // type~IP~NAME.NAMESPACE~DOMAIN
    struct str rest = n.id, part[4] = { { 0 } };
    for (int i = 0; i < 4 && rest.p; i++) {
        part[i] = str_split(&rest, '~');
    }
    if (!part[3].n || rest.n) {
        return err_set(err, -EINVAL, "node.id: \"%.*s\" is not TYPE~IP~NAME.NAMESPACE~DOMAIN", STR_FMT(n.id));
    }
    if (!addr_parse_ip(part[1], 0, &n.ip)) {
        return err_set(err, -EINVAL, "node.id: \"%.*s\" is not an IP address", STR_FMT(part[1]));
    }
    ptrdiff_t dot = str_find(part[2], '.');
    n.name = dot < 0 ? part[2] : str_n(part[2].p, (size_t)dot);
    n.ns = pb_struct_str(m->metadata, "NAMESPACE");
    if (!n.ns.n) {
        n.ns = dot < 0 ? STR("default") : str_skip(part[2], (size_t)dot + 1);
    }
    n.service_account = pb_struct_str(m->metadata, "SERVICE_ACCOUNT");
    n.version = pb_struct_str(m->metadata, "ISTIO_VERSION");
    n.cluster_id = pb_struct_str(m->metadata, "CLUSTER_ID");
    take_labels(pb_struct_get(m->metadata, "LABELS"), a, &n.labels);
    if (m->locality && m->locality->region[0]) {
        n.locality = arena_printf(a, "%s/%s/%s", m->locality->region, m->locality->zone, m->locality->sub_zone);
    }
    *ret = n;
    return 0;
}

const char *cpc_q(struct compiler *k, struct str s)
{
    struct buf b = { 0 };
    struct json_writer w;
    jw_init(&w, &b, 0);
    jw_str(&w, s);
    size_t n = buf_len(&b);
    const char *out = arena_str(&k->scratch, buf_pullup(&b, n)).p;
    buf_clear(&b);
    return out;
}

const char *cpc_qf(struct compiler *k, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *text = arena_alloc(&k->scratch, (size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    return cpc_q(k, str_n(text, (size_t)n));
}

int cpc_add(struct compiler *k, enum cp_type t, struct str name, struct buf *text)
{
    struct arena a = { 0 };
    struct json *docs = NULL;
    ProtobufCMessage *m = NULL;
    struct err e = { 0 };
    struct str yaml = buf_pullup(text, buf_len(text));
    int rc = yaml_parse(yaml, &a, &docs, &e);
    rc = rc ? rc : pb_json_read(docs->first, types_find(cp_type_url(t)), 0, &a, &m, &e);
    if (rc) { // our own text: the mistake can only come from a user's value, so say which resource it was for
        err_set(k->err, rc, "%s %.*s: %s", cp_type_short(t), STR_FMT(name), e.msg);
    } else {
        if (k->set->n[t] == k->cap[t]) {
            size_t cap = k->cap[t] ? k->cap[t] * 2 : 32;
            struct cp_resource *v = arena_array(&k->set->arena, struct cp_resource, cap);
            if (k->set->n[t]) {
                memcpy(v, k->set->v[t], k->set->n[t] * sizeof(*v));
            }
            k->set->v[t] = v;
            k->cap[t] = cap;
        }
        struct cp_resource *r = &k->set->v[t][k->set->n[t]++];
        r->name = arena_str(&k->set->arena, name);
        r->bytes = pb_pack_stable(m, &k->set->arena);
        r->hash = hash_content(r->bytes.p, r->bytes.n);
    }
    arena_fini(&a);
    buf_clear(text);
    arena_reset(&k->scratch, true);
    return rc;
}

struct str cpc_cluster_name(struct compiler *k, const struct cp_port *p, struct str subset, const struct cp_service *s)
{
    return arena_printf(&k->scratch, "outbound|%u|%.*s|%.*s", p->number, STR_FMT(subset), STR_FMT(s->host));
}

uint16_t cpc_endpoint_port(const struct cp_endpoint *e, const struct cp_port *p)
{
    uint64_t v;
    for (size_t i = 0; i < e->port_count; i++) {
        if (str_eq(e->ports[i].key, p->name) && str_to_u64(e->ports[i].value, 65535, &v)) {
            return (uint16_t)v;
        }
    }
    return p->target;
}

bool cpc_vip(const struct cp_service *s, struct addr *ret)
{
    for (size_t i = 0; i < s->address_count; i++) {
        if (addr_parse_ip(s->addresses[i], 0, ret)) {
            return true;
        }
    }
    return false;
}

const struct cp_port *cpc_destination_port(const struct cp_service *s, uint16_t want, uint16_t asked)
{
    for (size_t i = 0; i < s->port_count; i++) {
        if (s->ports[i].number == (want ? want : asked)) {
            return &s->ports[i];
        }
    }
    return s->port_count == 1 && !want ? &s->ports[0] : NULL;
}

struct str cpc_destination(struct compiler *k, const struct cp_destination *d, struct str ns, uint16_t asked)
{
    const struct cp_service *s = cp_find_service(k->c, d->host, ns);
    const struct cp_port *p = s ? cpc_destination_port(s, d->port, asked) : NULL;
    return p ? cpc_cluster_name(k, p, d->subset, s)
             : arena_printf(&k->scratch, "outbound|%u|%.*s|%.*s", d->port ? d->port : asked, STR_FMT(d->subset), STR_FMT(s ? s->host : d->host));
}

void cpc_config_metadata(struct compiler *k, struct buf *b, const struct cp_meta *m)
{
    buf_printf(b, ", metadata: {filter_metadata: {istio: {config: %s}}}",
               cpc_qf(k, "/apis/networking.istio.io/v1/namespaces/%.*s/virtual-service/%.*s", STR_FMT(m->ns), STR_FMT(m->name)));
}

void cpc_access_log(struct compiler *k, struct buf *b)
{
    if (!k->o->access_log) {
        return;
    }
    buf_printf(b, ", access_log: [{name: envoy.access_loggers.file, typed_config: {'@type': "
                  "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/stdout}}]");
}

void cpc_tcp_proxy(struct compiler *k, struct buf *b, const char *stat_prefix, const char *cluster)
{
    buf_printf(b, "{name: envoy.filters.network.tcp_proxy, typed_config: {'@type': "
                  "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: %s, cluster: %s",
               stat_prefix, cluster);
    cpc_access_log(k, b);
    buf_printf(b, "}}");
}

size_t cpc_inbound_ports(struct compiler *k, struct cpc_inbound **ret)
{
    size_t n = 0, cap = 0;
    struct cpc_inbound *v = NULL;
    for (size_t i = 0; i < k->c->service_count; i++) {
        const struct cp_service *s = &k->c->services[i];
        for (size_t e = 0; e < s->endpoint_count; e++) {
            struct addr a;
            if (!addr_parse_ip(s->endpoints[e].address, 0, &a) || !addr_ip_eq(&a, &k->node->ip)) {
                continue;
            }
            for (size_t p = 0; p < s->port_count; p++) {
                uint16_t port = cpc_endpoint_port(&s->endpoints[e], &s->ports[p]);
                bool seen = false;
                for (size_t x = 0; x < n && !seen; x++) {
                    seen = v[x].port == port;
                }
                if (seen) {
                    continue;
                }
                mem_grow(&v, &cap, n + 1, sizeof(*v));
                v[n++] = (struct cpc_inbound){ .port = port, .service_port = &s->ports[p], .protocol = s->ports[p].protocol, .service = s };
            }
        }
    }
    *ret = v;
    return n;
}

// The oldest policy of a scope is the one that holds (they are in that order). labels NULL: no workload, so none with a selector.
static const struct cp_peer_authentication *find_peer_policy(const struct compiler *k, struct str ns, const struct cp_labels *labels, bool workload)
{
    for (size_t i = 0; i < k->c->peer_authentication_count; i++) {
        const struct cp_peer_authentication *p = &k->c->peer_authentications[i];
        bool own = workload ? p->selector.n && labels && cp_labels_match(&p->selector, labels) && !str_is(ns, CPC_ROOT_NAMESPACE) : !p->selector.n;
        if (own && str_eq(p->meta.ns, ns)) {
            return p;
        }
    }
    return NULL;
}

const struct cp_peer_authentication *cpc_workload_peer_policy(const struct compiler *k)
{
    return find_peer_policy(k, k->node->ns, &k->node->labels, true);
}

// Istio's precedence: the workload's own policy, of it first the port, then the namespace's, then the mesh's. What is unset says nothing.
enum cp_mtls cpc_peer_mode(const struct compiler *k, struct str ns, const struct cp_labels *labels, uint16_t port)
{
    const struct cp_peer_authentication *order[] = { find_peer_policy(k, ns, labels, true), find_peer_policy(k, ns, NULL, false),
                                                     find_peer_policy(k, STR(CPC_ROOT_NAMESPACE), NULL, false) };
    const struct cp_peer_authentication *own = order[0];
    for (size_t x = 0; own && x < own->port_count; x++) {
        if (own->ports[x].port == port && own->ports[x].mode != CP_MTLS_UNSET) {
            return own->ports[x].mode;
        }
    }
    for (size_t i = 0; i < array_len(order); i++) {
        if (order[i] && order[i]->mode != CP_MTLS_UNSET) {
            return order[i]->mode;
        }
    }
    return CP_MTLS_PERMISSIVE;
}

enum cp_mtls cpc_mtls_mode(const struct compiler *k, uint16_t port)
{
    return cpc_peer_mode(k, k->node->ns, &k->node->labels, port);
}

static int by_name(const void *a, const void *b)
{
    return str_cmp(((const struct cp_resource *)a)->name, ((const struct cp_resource *)b)->name);
}

static bool is_at(const struct cp_endpoint *e, const struct cp_node *node)
{
    struct addr a;
    return addr_parse_ip(e->address, 0, &a) && addr_ip_eq(&a, &node->ip);
}

// The WorkloadEntry that the node is, or else the endpoint of a service of its namespace; NULL: the files do not know it.
static const struct cp_endpoint *find_workload(const struct cp_config *c, const struct cp_node *node)
{
    for (size_t i = 0; i < c->workload_count; i++) {
        if (str_eq(c->workloads[i].ns, node->ns) && is_at(&c->workloads[i], node)) {
            return &c->workloads[i];
        }
    }
    for (size_t i = 0; i < c->service_count; i++) {
        const struct cp_service *s = &c->services[i];
        for (size_t e = 0; e < s->endpoint_count && str_eq(s->meta.ns, node->ns); e++) {
            if (is_at(&s->endpoints[e], node)) {
                return &s->endpoints[e];
            }
        }
    }
    return NULL;
}

// What selectors see: the labels that the files give the workload, and of those that the proxy says itself what these do not say. No proxy gets rid of
// a policy by what it says.
static struct cp_labels node_labels(struct arena *a, const struct cp_config *c, const struct cp_node *node)
{
    const struct cp_endpoint *e = find_workload(c, node);
    struct cp_labels l = { .v = arena_array(a, struct cp_label, node->labels.n + (e ? e->labels.n : 0) + 1) };
    for (size_t i = 0; e && i < e->labels.n; i++) {
        l.v[l.n++] = e->labels.v[i];
    }
    for (size_t i = 0; i < node->labels.n; i++) {
        bool said = false;
        for (size_t x = 0; e && x < e->labels.n && !said; x++) {
            said = str_eq(e->labels.v[x].key, node->labels.v[i].key);
        }
        if (!said) {
            l.v[l.n++] = node->labels.v[i];
        }
    }
    return l;
}

int cp_check_mesh(const struct cp_config *c, const struct cp_options *o, struct err *err)
{
    const struct cp_mesh *m = &c->mesh;
    if (m->trust_domain.n && !str_eq(m->trust_domain, o->trust_domain)) {
        return err_set(err, -EINVAL, "%s: trustDomain: \"%.*s\" is not the \"%.*s\" of --trust-domain, which signs the certificates", m->file,
                       STR_FMT(m->trust_domain), STR_FMT(o->trust_domain));
    }
    return 0;
}

static struct cp_options merge_options(const struct cp_options *o, const struct cp_mesh *m)
{
    struct cp_options out = *o;
    out.access_log = m->access_log ? m->access_log > 0 : o->access_log;
    out.registry_only = m->registry_only ? m->registry_only > 0 : o->registry_only;
    out.sniff_timeout = m->sniff_timeout.n ? m->sniff_timeout : o->sniff_timeout;
    return out;
}

int cp_compile(const struct cp_config *c, const struct cp_node *asking, const struct cp_options *o, struct cp_set **ret, struct err *err)
{
    struct cp_node node = *asking;
    struct cp_options options = merge_options(o, &c->mesh);
    struct compiler k = { .c = c, .node = &node, .o = &options, .set = mem_new(struct cp_set), .err = err };
    k.set->refs = 1;
    arena_init(&k.set->arena, 64 * 1024, 0);
    node.labels = node_labels(&k.work, c, asking);
    cpc_views(&k);
    int rc = cpc_clusters(&k);
    rc = rc ? rc : cpc_endpoints(&k);
    rc = rc ? rc : cpc_listeners(&k);
    rc = rc ? rc : cpc_routes(&k);
    arena_fini(&k.scratch);
    cpc_views_free(&k);
    if (rc) {
        cp_set_unref(k.set);
        return rc;
    }
    for (int t = 0; t < CP_TYPE_COUNT; t++) {
        if (k.set->n[t]) {
            qsort(k.set->v[t], k.set->n[t], sizeof(struct cp_resource), by_name);
        }
    }
    *ret = k.set;
    return 0;
}

void cp_set_unref(struct cp_set *s)
{
    if (s && --s->refs == 0) {
        arena_fini(&s->arena);
        free(s);
    }
}

const struct cp_resource *cp_set_find(const struct cp_set *s, enum cp_type t, struct str name)
{
    struct cp_resource key = { .name = name };
    return s->n[t] ? bsearch(&key, s->v[t], s->n[t], sizeof(key), by_name) : NULL;
}

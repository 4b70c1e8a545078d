// SPDX-License-Identifier: Apache-2.0
// /config_dump in the shape of admin.v3.ConfigDump: the accepted resources as they came, kept by xds-client.
#include <stdlib.h>
#include <string.h>

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "envoy/config/listener/v3/listener.pb-c.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "lib/base/base64.h"
#include "lib/base/clock.h"
#include "lib/regex/regex.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proto/types.h"
#include "proxy/admin/admin_int.h"

#define DUMP_URL "type.googleapis.com/envoy.admin.v3."

struct dump {
    struct admin *ad;
    struct json_writer w;
    struct arena *arena;
    struct str mask;        // comma-separated member names; n 0 = all
    struct str resource;    // one member name: flat list of its elements
    struct regex *name_re;  // only elements with such a name; NULL = all
    bool include_eds;
};

static bool has_item(struct str list, const char *name)
{
    while (list.n) {
        struct str item = str_split(&list, ',');
        struct str first = str_split(&item, '.'); // "dynamic_listeners.name" asks for the member all the same
        if (str_is(str_trim(first), name)) {
            return true;
        }
    }
    return false;
}

static bool wants(const struct dump *d, const char *member)
{
    if (d->resource.n) {
        return str_is(d->resource, member);
    }
    return !d->mask.n || has_item(d->mask, member);
}

static bool name_fits(const struct dump *d, struct str name)
{
    return !d->name_re || regex_search(d->name_re, name);
}

// A serialized resource as a member `key` with its "@type".
static void write_any(struct dump *d, const char *key, enum xds_type t, struct str bytes)
{
    ProtobufCMessage *m = NULL;
    struct arena a = { 0 };
    const ProtobufCMessageDescriptor *desc = types_find(xds_type_url(t));
    jw_key(&d->w, str_c(key));
    if (desc && !pb_unpack(desc, bytes, &a, &m, NULL)) {
        pb_json_write_typed(&d->w, m, PB_JSON_REDACT);
    } else {
        jw_object(&d->w);
        jw_kv(&d->w, "@type", xds_type_url(t));
        jw_object_end(&d->w);
    }
    arena_fini(&a);
}

static void write_error_state(struct dump *d, const struct xds_resource *r, enum xds_type t)
{
    if (!r->failed_reason.p) {
        return;
    }
    jw_key(&d->w, STR("error_state"));
    jw_object(&d->w);
    if (r->failed_bytes.p) {
        write_any(d, "failed_configuration", t, r->failed_bytes);
    }
    admin_kv_time(&d->w, "last_update_attempt", r->failed_ms);
    jw_kv(&d->w, "details", r->failed_reason);
    if (r->failed_version.n) {
        jw_kv(&d->w, "version_info", r->failed_version);
    }
    jw_object_end(&d->w);
}

// In a flat list (resource=) each element says its own type.
static void open_element(struct dump *d, const char *element_type)
{
    jw_object(&d->w);
    if (d->resource.n) {
        jw_kv(&d->w, "@type", arena_printf(d->arena, DUMP_URL "%s", element_type));
    }
}

static void open_list(struct dump *d, const char *member)
{
    if (!d->resource.n) {
        jw_key(&d->w, str_c(member));
        jw_array(&d->w);
    }
}

static void close_list(struct dump *d)
{
    if (!d->resource.n) {
        jw_array_end(&d->w);
    }
}

static void open_dump(struct dump *d, const char *type)
{
    if (!d->resource.n) {
        jw_object(&d->w);
        jw_kv(&d->w, "@type", arena_printf(d->arena, DUMP_URL "%s", type));
    }
}

static void close_dump(struct dump *d)
{
    if (!d->resource.n) {
        jw_object_end(&d->w);
    }
}

static void write_version(struct dump *d, enum xds_type t)
{
    struct xds_type_status st;
    xds_status(d->ad->d.xds, t, &st);
    if (!d->resource.n && !d->mask.n && st.version.n) {
        jw_kv(&d->w, "version_info", st.version);
    }
}

// How the elements of one resource type look in their dump.
struct shape {
    enum xds_type type;
    const char *key;               // member of the element that holds the resource
    const char *static_type, *dynamic_type;
};

struct walk {
    struct dump *d;
    const struct shape *s;
    bool want_static;
    int warming; // 0 active only, 1 warming only
};

static bool is_warming(const struct walk *w, const struct xds_resource *r)
{
    const struct admin_deps *a = &w->d->ad->d;
    return w->s->type == XDS_CLUSTER && a->cluster_warming(a->arg, r->name);
}

static bool one_resource(void *arg, const struct xds_resource *r)
{
    struct walk *w = arg;
    struct dump *d = w->d;
    if (!r->bytes.p || r->is_static != w->want_static || !name_fits(d, r->name) || (!w->want_static && is_warming(w, r) != (w->warming == 1))) {
        return true;
    }
    open_element(d, r->is_static ? w->s->static_type : w->s->dynamic_type);
    if (!r->is_static && r->version.n) {
        jw_kv(&d->w, "version_info", r->version);
    }
    write_any(d, w->s->key, w->s->type, r->bytes);
    admin_kv_time(&d->w, "last_updated", r->updated_ms);
    write_error_state(d, r, w->s->type);
    jw_object_end(&d->w);
    return true;
}

static void write_list(struct dump *d, const struct shape *s, const char *member, bool want_static, int warming)
{
    if (!wants(d, member)) {
        return;
    }
    struct walk w = { .d = d, .s = s, .want_static = want_static, .warming = warming };
    open_list(d, member);
    xds_each(d->ad->d.xds, s->type, one_resource, &w);
    close_list(d);
}

static void dump_bootstrap(struct dump *d)
{
    if (!wants(d, "bootstrap") || d->resource.n) {
        return;
    }
    open_dump(d, "BootstrapConfigDump");
    jw_key(&d->w, STR("bootstrap"));
    pb_json_write(&d->w, d->ad->d.bootstrap, PB_JSON_REDACT);
    admin_kv_time(&d->w, "last_updated", d->ad->d.start_wall_ms);
    close_dump(d);
}

static void dump_clusters(struct dump *d)
{
    static const struct shape s = { XDS_CLUSTER, "cluster", "ClustersConfigDump.StaticCluster", "ClustersConfigDump.DynamicCluster" };
    if (!wants(d, "static_clusters") && !wants(d, "dynamic_active_clusters") && !wants(d, "dynamic_warming_clusters")) {
        return;
    }
    open_dump(d, "ClustersConfigDump");
    write_version(d, XDS_CLUSTER);
    write_list(d, &s, "static_clusters", true, 0);
    write_list(d, &s, "dynamic_active_clusters", false, 0);
    write_list(d, &s, "dynamic_warming_clusters", false, 1);
    close_dump(d);
}

// The endpoints that a cluster carries itself: as configured, with names where DNS finds the addresses.
static bool one_inline_assignment(void *arg, const struct xds_resource *r)
{
    struct dump *d = arg;
    Envoy__Config__Cluster__V3__Cluster *m = NULL;
    struct arena a = { 0 };
    if (r->bytes.p && name_fits(d, r->name) &&
        !pb_unpack_as(Envoy__Config__Cluster__V3__Cluster, envoy__config__cluster__v3__cluster, r->bytes, &a, &m, NULL) && m->load_assignment) {
        if (!m->load_assignment->cluster_name[0]) {
            m->load_assignment->cluster_name = m->name;
        }
        open_element(d, "EndpointsConfigDump.StaticEndpointConfig");
        jw_key(&d->w, STR("endpoint_config"));
        pb_json_write_typed(&d->w, &m->load_assignment->base, PB_JSON_REDACT);
        admin_kv_time(&d->w, "last_updated", r->updated_ms);
        jw_object_end(&d->w);
    }
    arena_fini(&a);
    return true;
}

static void write_static_assignments(struct dump *d, const struct shape *s)
{
    if (wants(d, "static_endpoint_configs")) {
        struct walk w = { .d = d, .s = s, .want_static = true };
        open_list(d, "static_endpoint_configs");
        xds_each(d->ad->d.xds, XDS_ENDPOINT, one_resource, &w);
        xds_each(d->ad->d.xds, XDS_CLUSTER, one_inline_assignment, d);
        close_list(d);
    }
}

static void dump_endpoints(struct dump *d)
{
    static const struct shape s = { XDS_ENDPOINT, "endpoint_config", "EndpointsConfigDump.StaticEndpointConfig",
                                    "EndpointsConfigDump.DynamicEndpointConfig" };
    if (!d->include_eds || (!wants(d, "dynamic_endpoint_configs") && !wants(d, "static_endpoint_configs"))) {
        return;
    }
    open_dump(d, "EndpointsConfigDump");
    write_static_assignments(d, &s);
    write_list(d, &s, "dynamic_endpoint_configs", false, 0);
    close_dump(d);
}

static bool one_listener(void *arg, const struct xds_resource *r)
{
    struct walk *w = arg;
    struct dump *d = w->d;
    if (r->is_static || !name_fits(d, r->name)) {
        return true;
    }
    const struct admin_deps *a = &d->ad->d;
    open_element(d, "ListenersConfigDump.DynamicListener");
    jw_kv(&d->w, "name", r->name);
    if (r->bytes.p) {
        jw_key(&d->w, a->listener_warming(a->arg, r->name) ? STR("warming_state") : STR("active_state"));
        jw_object(&d->w);
        if (r->version.n) {
            jw_kv(&d->w, "version_info", r->version);
        }
        write_any(d, "listener", XDS_LISTENER, r->bytes);
        admin_kv_time(&d->w, "last_updated", r->updated_ms);
        jw_object_end(&d->w);
    }
    write_error_state(d, r, XDS_LISTENER);
    jw_object_end(&d->w);
    return true;
}

static void dump_listeners(struct dump *d)
{
    static const struct shape s = { XDS_LISTENER, "listener", "ListenersConfigDump.StaticListener", "" };
    if (!wants(d, "static_listeners") && !wants(d, "dynamic_listeners")) {
        return;
    }
    open_dump(d, "ListenersConfigDump");
    write_version(d, XDS_LISTENER);
    write_list(d, &s, "static_listeners", true, 0);
    if (wants(d, "dynamic_listeners")) {
        struct walk w = { .d = d };
        open_list(d, "dynamic_listeners");
        xds_each(d->ad->d.xds, XDS_LISTENER, one_listener, &w);
        xds_each_refused(d->ad->d.xds, XDS_LISTENER, one_listener, &w);
        close_list(d);
    }
    close_dump(d);
}

typedef Envoy__Config__Listener__V3__FilterChain chain_msg;
typedef Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager hcm_msg;

// Route configurations that stand inside HTTP connection managers are "static" ones in Envoy's dump.
static void inline_routes(struct dump *d, const chain_msg *c, uint64_t updated_ms)
{
    for (size_t i = 0; c && i < c->n_filters; i++) {
        struct arena a = { 0 };
        hcm_msg *h = NULL;
        bool typed = c->filters[i]->config_type_case == ENVOY__CONFIG__LISTENER__V3__FILTER__CONFIG_TYPE_TYPED_CONFIG;
        if (typed && !pb_any_unpack_as(hcm_msg, envoy__extensions__filters__network__http_connection_manager__v3__http_connection_manager,
                              c->filters[i]->typed_config, &a, &h, NULL) &&
            h->route_specifier_case ==
                ENVOY__EXTENSIONS__FILTERS__NETWORK__HTTP_CONNECTION_MANAGER__V3__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_ROUTE_CONFIG &&
            name_fits(d, str_c(h->route_config->name))) {
            open_element(d, "RoutesConfigDump.StaticRouteConfig");
            jw_key(&d->w, STR("route_config"));
            pb_json_write_typed(&d->w, &h->route_config->base, PB_JSON_REDACT);
            admin_kv_time(&d->w, "last_updated", updated_ms);
            jw_object_end(&d->w);
        }
        arena_fini(&a);
    }
}

static bool one_inline_listener(void *arg, const struct xds_resource *r)
{
    struct walk *w = arg;
    struct arena a = { 0 };
    Envoy__Config__Listener__V3__Listener *l = NULL;
    if (r->bytes.p && !pb_unpack_as(Envoy__Config__Listener__V3__Listener, envoy__config__listener__v3__listener, r->bytes, &a, &l, NULL)) {
        for (size_t i = 0; i < l->n_filter_chains; i++) {
            inline_routes(w->d, l->filter_chains[i], r->updated_ms);
        }
        inline_routes(w->d, l->default_filter_chain, r->updated_ms);
    }
    arena_fini(&a);
    return true;
}

static void dump_routes(struct dump *d)
{
    static const struct shape s = { XDS_ROUTE, "route_config", "RoutesConfigDump.StaticRouteConfig", "RoutesConfigDump.DynamicRouteConfig" };
    if (!wants(d, "static_route_configs") && !wants(d, "dynamic_route_configs")) {
        return;
    }
    open_dump(d, "RoutesConfigDump");
    if (wants(d, "static_route_configs")) {
        struct walk w = { .d = d };
        open_list(d, "static_route_configs");
        xds_each(d->ad->d.xds, XDS_LISTENER, one_inline_listener, &w);
        close_list(d);
    }
    write_list(d, &s, "dynamic_route_configs", false, 0);
    close_dump(d);
}

struct secret_walk {
    struct dump *d;
    bool want_static, warming;
};

static void write_secret_value(struct dump *d, const struct admin_secret *s)
{
    struct json_writer *j = &d->w;
    jw_key(j, s->is_root ? STR("validation_context") : STR("tls_certificate"));
    jw_object(j);
    jw_key(j, s->is_root ? STR("trusted_ca") : STR("certificate_chain"));
    jw_object(j);
    jw_kv(j, "inline_bytes", base64_encode(d->arena, s->pem));
    jw_object_end(j);
    if (!s->is_root) {
        jw_key(j, STR("private_key"));
        jw_object(j);
        jw_kv(j, "inline_bytes", STR("W3JlZGFjdGVkXQ==")); // base64 of "[redacted]"
        jw_object_end(j);
    }
    jw_object_end(j);
}

static void one_secret(void *arg, const struct admin_secret *s)
{
    struct secret_walk *w = arg;
    struct json_writer *j = &w->d->w;
    if (s->is_static != w->want_static || s->warming != w->warming || !name_fits(w->d, s->name)) {
        return;
    }
    open_element(w->d, s->is_static ? "SecretsConfigDump.StaticSecret" : "SecretsConfigDump.DynamicSecret");
    jw_kv(j, "name", s->name);
    if (!s->is_static && s->version.n) {
        jw_kv(j, "version_info", s->version);
    }
    admin_kv_time(j, "last_updated", s->updated_ms);
    jw_key(j, STR("secret"));
    jw_object(j);
    jw_kv(j, "@type", xds_type_url(XDS_SECRET));
    jw_kv(j, "name", s->name);
    if (!s->warming) {
        write_secret_value(w->d, s);
    }
    jw_object_end(j);
    jw_object_end(j);
}

static void secret_list(struct dump *d, const char *member, bool want_static, bool warming)
{
    struct secret_walk w = { .d = d, .want_static = want_static, .warming = warming };
    if (wants(d, member)) {
        open_list(d, member);
        d->ad->d.each_secret(d->ad->d.arg, one_secret, &w);
        close_list(d);
    }
}

static void dump_secrets(struct dump *d)
{
    if (!wants(d, "static_secrets") && !wants(d, "dynamic_active_secrets") && !wants(d, "dynamic_warming_secrets")) {
        return;
    }
    open_dump(d, "SecretsConfigDump");
    secret_list(d, "static_secrets", true, false);
    secret_list(d, "dynamic_active_secrets", false, false);
    secret_list(d, "dynamic_warming_secrets", false, true);
    close_dump(d);
}

static void dump_scoped(struct dump *d)
{
    if (!d->mask.n && !d->resource.n) { // there are none; Envoy writes the empty object all the same
        open_dump(d, "ScopedRoutesConfigDump");
        close_dump(d);
    }
}

static const char *const members[] = { "bootstrap", "static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters",
                                       "static_endpoint_configs", "dynamic_endpoint_configs", "static_listeners", "dynamic_listeners",
                                       "static_route_configs", "dynamic_route_configs", "static_secrets", "dynamic_active_secrets",
                                       "dynamic_warming_secrets" };

static bool known_member(struct str name)
{
    for (size_t i = 0; i < array_len(members); i++) {
        if (str_is(name, members[i])) {
            return true;
        }
    }
    return false;
}

static bool check_query(struct dump *d, struct http_server_req *q, struct http_server_resp *r)
{
    struct str re = http_query_get(q->query, "name_regex", q->arena);
    struct err err = { 0 };
    if (re.n && !(d->name_re = regex_new(re, &err))) {
        r->status = 400;
        buf_printf(&r->body, "Error: %s\n", err.msg);
        return false;
    }
    if (d->resource.n && !known_member(d->resource)) {
        r->status = 404;
        buf_printf(&r->body, "%.*s not found in config dump\n", STR_FMT(d->resource));
        return false;
    }
    struct str rest = d->mask;
    while (rest.n) {
        struct str item = str_split(&rest, ',');
        struct str first = str_trim(str_split(&item, '.'));
        if (!known_member(first)) {
            r->status = 400;
            buf_printf(&r->body, "FieldMask paths: \"%.*s\" is no member of a config dump\n", STR_FMT(first));
            return false;
        }
    }
    return true;
}

void admin_config_dump(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    struct dump d = { .ad = ad, .arena = q->arena, .include_eds = admin_flag(q, "include_eds") };
    d.mask = http_query_get(q->query, "mask", q->arena);
    d.resource = http_query_get(q->query, "resource", q->arena);
    if (check_query(&d, q, r)) {
        admin_json(r, &d.w);
        jw_object(&d.w);
        jw_key(&d.w, STR("configs"));
        jw_array(&d.w);
        dump_bootstrap(&d);
        dump_clusters(&d);
        dump_endpoints(&d);
        dump_listeners(&d);
        dump_scoped(&d);
        dump_routes(&d);
        dump_secrets(&d);
        jw_array_end(&d.w);
        jw_object_end(&d.w);
        buf_append(&r->body, "\n", 1);
    }
    if (d.name_re) {
        regex_free(d.name_re);
    }
}

struct unready {
    struct json_writer *w;
    struct admin *ad;
    bool listeners;
};

static bool one_unready(void *arg, const struct xds_resource *r)
{
    struct unready *u = arg;
    const struct admin_deps *d = &u->ad->d;
    if (u->listeners ? d->listener_warming(d->arg, r->name) : d->cluster_warming(d->arg, r->name)) {
        jw_str(u->w, r->name);
    }
    return true;
}

void admin_init_dump(struct admin *ad, struct http_server_req *q, struct http_server_resp *r)
{
    (void)q;
    struct json_writer w;
    struct unready u = { .w = &w, .ad = ad };
    admin_json(r, &w);
    jw_object(&w);
    jw_key(&w, STR("unready_targets_dumps"));
    jw_array(&w);
    for (int i = 0; i < 2; i++) {
        u.listeners = i == 1;
        jw_object(&w);
        jw_kv(&w, "name", i ? STR("init manager listeners") : STR("init manager clusters"));
        jw_key(&w, STR("target_names"));
        jw_array(&w);
        xds_each(ad->d.xds, i ? XDS_LISTENER : XDS_CLUSTER, one_unready, &u);
        jw_array_end(&w);
        jw_object_end(&w);
    }
    jw_array_end(&w);
    jw_object_end(&w);
    buf_append(&r->body, "\n", 1);
}

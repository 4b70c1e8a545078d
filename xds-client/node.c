// SPDX-License-Identifier: Apache-2.0
#include "xds-client/node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/file.h"
#include "lib/base/map.h"
#include "lib/base/utf8.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "xds-client/wire.h"

enum { FILE_MAX_BYTES = 1024 * 1024, STATUS_PORT = 15021, PROMETHEUS_PORT = 15090 };

struct builder {
    const struct node_in *in;
    struct arena *a;
    struct map meta;                   // name → struct json (arena)
    struct json *labels, *annotations; // arena objects
    struct node_info *out;
};

// ---- small JSON trees ----

static struct json *text_node(struct arena *a, struct str s)
{
    struct json *n = arena_new(a, struct json);
    n->type = JSON_STRING;
    n->text = arena_str(a, s);
    return n;
}

static struct json *number_node(struct arena *a, unsigned v)
{
    struct json *n = arena_new(a, struct json);
    n->type = JSON_NUMBER;
    n->text = arena_printf(a, "%u", v);
    return n;
}

static struct json *empty_node(struct arena *a, enum json_type type)
{
    struct json *n = arena_new(a, struct json);
    n->type = type;
    return n;
}

// Adds or replaces a member; the child must not be in another tree.
static void object_set(struct json *obj, struct str key, struct json *child, struct arena *a)
{
    struct json **at = &obj->first;
    while (*at && !str_eq((*at)->key, key)) {
        at = &(*at)->next;
    }
    child->key = arena_str(a, key);
    child->next = *at ? (*at)->next : NULL;
    obj->count += !*at;
    *at = child;
}

static struct json *shallow_copy(struct arena *a, const struct json *n)
{
    struct json *c = arena_new(a, struct json);
    *c = *n;
    c->next = NULL;
    return c;
}

// Members of over win; objects inside are merged too (as mesh and pod settings of ProxyConfig are). Members meet whether they are
// written in lowerCamelCase or snake_case.
static bool same_member(struct str a, struct str b)
{
    size_t i = 0, j = 0;
    for (;;) {
        i += i < a.n && a.p[i] == '_';
        j += j < b.n && b.p[j] == '_';
        if (i >= a.n || j >= b.n) {
            return i >= a.n && j >= b.n;
        }
        if (!str_eq_nocase(str_n(a.p + i++, 1), str_n(b.p + j++, 1))) {
            return false;
        }
    }
}

// Of these (oneofs of ProxyConfig and Tracing) only the last one given counts.
static bool rivals(struct str a, struct str b)
{
    static const struct str groups[][4] = {
        { STR_INIT("service_cluster"), STR_INIT("tracing_service_name") },
        { STR_INIT("zipkin"), STR_INIT("lightstep"), STR_INIT("datadog"), STR_INIT("stackdriver") },
    };
    for (size_t g = 0; g < array_len(groups); g++) {
        bool in_a = false, in_b = false;
        for (size_t i = 0; i < array_len(groups[g]) && groups[g][i].n; i++) {
            in_a |= same_member(a, groups[g][i]);
            in_b |= same_member(b, groups[g][i]);
        }
        if (in_a && in_b) {
            return true;
        }
    }
    return false;
}

static void object_merge(struct json *into, const struct json *over, struct arena *a)
{
    for (const struct json *m = over->first; m; m = m->next) {
        struct json *old = NULL;
        struct json **at = &into->first;
        while (*at) {
            if (same_member((*at)->key, m->key)) {
                old = *at;
            } else if (rivals((*at)->key, m->key)) {
                *at = (*at)->next;
                into->count--;
                continue;
            }
            at = &(*at)->next;
        }
        if (old && old->type == JSON_OBJECT && m->type == JSON_OBJECT) {
            object_merge(old, m, a);
            continue;
        }
        struct json *c = arena_new(a, struct json);
        *c = *m;
        if (m->type == JSON_OBJECT) { // a tree of its own: it may be merged into later
            c->first = NULL;
            c->count = 0;
            object_merge(c, m, a);
        }
        object_set(into, old ? old->key : m->key, c, a);
    }
}

// ---- environment ----

struct str node_env(const char *const *envp, const char *name)
{
    size_t n = strlen(name);
    for (; envp && *envp; envp++) {
        if (strncmp(*envp, name, n) == 0 && (*envp)[n] == '=') {
            return str_c(*envp + n + 1);
        }
    }
    return str_n(NULL, 0);
}

static struct str env_or(const struct builder *b, const char *name, const char *fallback)
{
    struct str v = node_env(b->in->envp, name);
    return v.n ? v : str_c(fallback);
}

static void meta_set(struct builder *b, struct str key, struct json *v)
{
    if (utf8_valid(key) && key.n) {
        map_put(&b->meta, key, v);
    }
}

static void meta_text(struct builder *b, const char *key, struct str v)
{
    if (v.n && utf8_valid(v)) {
        meta_set(b, str_c(key), text_node(b->a, v));
    }
}

static bool meta_has(const struct builder *b, const char *key)
{
    return map_get(&b->meta, str_c(key)) != NULL;
}

static struct str meta_str(const struct builder *b, const char *key)
{
    const struct json *n = map_get(&b->meta, str_c(key));
    return n && n->type == JSON_STRING ? n->text : str_n(NULL, 0);
}

// An optional file; -ENOENT leaves *ret empty and is fine.
static int read_optional(const struct builder *b, const char *path, struct str *ret, struct err *err)
{
    const char *root = b->in->root ? b->in->root : "";
    const char *full = arena_printf(b->a, "%s%s", root, path).p;
    int rc = (b->in->read_file ? b->in->read_file : file_read)(full, FILE_MAX_BYTES, b->a, ret, err);
    return rc == -ENOENT ? 0 : rc;
}

// ---- labels and annotations ----

// One line of the downward API: key="value", the value quoted as Go does it.
static int parse_quoted(struct str s, struct arena *a, struct str *ret)
{
    struct json *n = NULL;
    struct err ignored;
    if (s.n < 2 || s.p[0] != '"') {
        return -1;
    }
    // Go's escapes beyond JSON's (\x00, \a, \v) stand for bytes that cannot be in a label, and are rare in an annotation.
    if (json_parse(s, a, &n, &ignored) == 0 && n->type == JSON_STRING) {
        *ret = n->text;
    } else {
        *ret = str_n(s.p + 1, s.n - (str_ends(s, STR("\"")) ? 2 : 1));
    }
    return 0;
}

static int read_downward(struct builder *b, const char *path, struct json *into, const char *drop, struct err *err)
{
    struct str text = { 0 };
    int rc = read_optional(b, path, &text, err);
    if (rc) {
        return rc;
    }
    for (int line = 1; text.n; line++) {
        struct str l = str_split(&text, '\n');
        ptrdiff_t eq = str_find(l, '=');
        struct str value;
        if (l.n == 0) {
            continue;
        }
        if (eq <= 0 || parse_quoted(str_skip(l, (size_t)eq + 1), b->a, &value)) {
            return err_set(err, -EINVAL, "%s: line %d: not key=\"value\"", path, line);
        }
        struct str key = str_n(l.p, (size_t)eq);
        if (!(drop && str_is(key, drop)) && utf8_valid(key) && utf8_valid(value)) {
            object_set(into, key, text_node(b->a, value), b->a);
        }
    }
    return 0;
}

// ---- ISTIO_META_ and ISTIO_METAJSON_ ----

static int add_json_variable(struct builder *b, struct str name, struct str value, struct err *err)
{
    struct json *n = NULL;
    if (json_parse(value, b->a, &n, err)) {
        return err_wrap(err, "ISTIO_METAJSON_%.*s", STR_FMT(name));
    }
    if (n->type != JSON_OBJECT) {
        return err_set(err, -EINVAL, "ISTIO_METAJSON_%.*s: must be a JSON object", STR_FMT(name));
    }
    if (str_is(name, "LABELS")) {
        object_merge(b->labels, n, b->a);
    } else if (str_is(name, "ANNOTATIONS")) {
        object_merge(b->annotations, n, b->a);
    } else {
        for (const struct json *m = n->first; m; m = m->next) {
            meta_set(b, m->key, shallow_copy(b->a, m));
        }
    }
    return 0;
}

static int add_variables(struct builder *b, struct err *err)
{
    const struct str plain = STR("ISTIO_META_"), json = STR("ISTIO_METAJSON_");
    for (int pass = 0; pass < 2; pass++) { // the JSON ones win
        for (const char *const *e = b->in->envp; e && *e; e++) {
            struct str rest = str_c(*e);
            struct str name = str_split(&rest, '=');
            if (pass == 0 && str_starts(name, plain) && utf8_valid(rest)) {
                meta_set(b, str_skip(name, plain.n), text_node(b->a, rest));
            } else if (pass == 1 && str_starts(name, json) && rest.n && add_json_variable(b, str_skip(name, json.n), rest, err)) {
                return -EINVAL;
            }
        }
    }
    return 0;
}

// ---- ProxyConfig ----

// Lays text over *into, once it has been read as a ProxyConfig without complaint. Fields of a newer Istio pass.
static int overlay(struct builder *b, struct str text, const char *what, bool mesh, struct json *into, struct err *err)
{
    struct json *tree = NULL;
    ProtobufCMessage *msg = NULL;
    if (text.n == 0) {
        return 0;
    }
    if (json_or_yaml_parse(text, b->a, &tree, err)) {
        return err_wrap(err, "%s", what);
    }
    if (mesh) { // MeshConfig.default_config
        struct json *inner = json_get(tree, "defaultConfig");
        tree = inner ? inner : json_get(tree, "default_config");
    }
    if (!tree || tree->type == JSON_NULL) {
        return 0;
    }
    if (pb_json_read(tree, &istio__mesh__v1alpha1__proxy_config__descriptor, PB_JSON_IGNORE_UNKNOWN, b->a, &msg, err)) {
        return err_wrap(err, "%s", what);
    }
    object_merge(into, tree, b->a);
    return 0;
}

// The message as a tree in which every value has the type of its field, for Go is strict about that.
static int normalise(struct builder *b, const ProtobufCMessage *msg, struct json **ret, struct err *err)
{
    struct buf out = { 0 };
    struct json_writer w;
    jw_init(&w, &out, 0);
    pb_json_write(&w, msg, 0);
    struct str text = arena_str(b->a, buf_pullup(&out, buf_len(&out)));
    buf_clear(&out);
    return json_parse(text, b->a, ret, err);
}

static int read_proxy_config(struct builder *b, struct err *err)
{
    struct json *merged = empty_node(b->a, JSON_OBJECT);
    struct str mesh = { 0 };
    if (read_optional(b, "etc/istio/config/mesh", &mesh, err)) {
        return -EINVAL;
    }
    const char *defaults = "{\"discoveryAddress\":\"istiod.istio-system.svc:15012\",\"controlPlaneAuthPolicy\":\"MUTUAL_TLS\","
                           "\"configPath\":\"./etc/istio/proxy\",\"binaryPath\":\"/usr/local/bin/envoy\",\"drainDuration\":\"45s\","
                           "\"terminationDrainDuration\":\"5s\",\"proxyAdminPort\":15000,\"statNameLength\":189,"
                           "\"statusPort\":15020}";
    if (overlay(b, str_c(defaults), "defaults", false, merged, err) || overlay(b, mesh, "etc/istio/config/mesh", true, merged, err) ||
        overlay(b, node_env(b->in->envp, "PROXY_CONFIG"), "PROXY_CONFIG", false, merged, err) ||
        overlay(b, json_str(b->annotations, "proxy.istio.io/config"), "annotation proxy.istio.io/config", false, merged, err)) {
        return -EINVAL;
    }
    struct json *over = empty_node(b->a, JSON_OBJECT);
    struct str port = json_str(b->annotations, "status.sidecar.istio.io/port");
    struct str address = json_str(b->annotations, "sidecar.istio.io/discoveryAddress");
    if (port.n) {
        object_set(over, STR("statusPort"), text_node(b->a, port), b->a);
    }
    if (address.n) {
        object_set(over, STR("discoveryAddress"), text_node(b->a, address), b->a);
    }
    object_merge(merged, over, b->a);
    ProtobufCMessage *msg = NULL;
    if (pb_json_read(merged, &istio__mesh__v1alpha1__proxy_config__descriptor, PB_JSON_IGNORE_UNKNOWN, b->a, &msg, err) ||
        normalise(b, msg, &merged, err)) {
        return err_wrap(err, "ProxyConfig");
    }
    b->out->proxy = (Istio__Mesh__V1alpha1__ProxyConfig *)(void *)msg;
    meta_set(b, STR("PROXY_CONFIG"), merged);
    // ProxyConfig.proxy_metadata: variables of the proxy; the environment itself wins.
    const Istio__Mesh__V1alpha1__ProxyConfig *pc = b->out->proxy;
    for (size_t i = 0; i < pc->n_proxy_metadata; i++) {
        struct str key = str_c(pc->proxy_metadata[i]->key);
        if (str_starts(key, STR("ISTIO_META_"))) {
            meta_set(b, str_skip(key, sizeof("ISTIO_META_") - 1), text_node(b->a, str_c(pc->proxy_metadata[i]->value)));
        }
    }
    return 0;
}

// ---- computed fields ----

static struct str join_ips(const struct builder *b, struct str *ret_first)
{
    struct str all = node_env(b->in->envp, "INSTANCE_IP");
    *ret_first = all.n || b->in->ip_count == 0 ? all : b->in->ips[0];
    struct str first = all;
    for (size_t i = 0; i < b->in->ip_count; i++) {
        if (!str_eq(b->in->ips[i], first)) {
            all = all.n ? arena_printf(b->a, "%.*s,%.*s", STR_FMT(all), STR_FMT(b->in->ips[i])) : b->in->ips[i];
        }
    }
    return all;
}

static struct str host_of(struct str address)
{
    size_t n = address.n;
    while (n > 0 && address.p[n - 1] != ':') {
        n--;
    }
    return n ? str_n(address.p, n - 1) : address;
}

static void set_pilot_san(struct builder *b)
{
    struct str san = node_env(b->in->envp, "ISTIOD_SAN");
    struct str host = host_of(str_c(b->out->proxy->discovery_address));
    san = san.n ? san : str_is(host, "localhost") ? STR("istiod.istio-system.svc") : host;
    struct json *list = empty_node(b->a, JSON_ARRAY);
    list->first = text_node(b->a, san);
    list->count = 1;
    meta_set(b, STR("PILOT_SAN"), list);
}

static int meta_port(struct builder *b, const char *name, unsigned fallback, struct err *err)
{
    struct str v = node_env(b->in->envp, name);
    uint64_t port = fallback;
    if (v.n && !str_to_u64(v, 65535, &port)) {
        return err_set(err, -EINVAL, "%s: \"%.*s\" is not a port", name, STR_FMT(v));
    }
    meta_set(b, str_c(name), number_node(b->a, (unsigned)port));
    return 0;
}

static int compute(struct builder *b, struct err *err)
{
    struct node_info *o = b->out;
    o->pod = env_or(b, "POD_NAME", "");
    o->ns = env_or(b, "POD_NAMESPACE", "");
    o->service_account = env_or(b, "SERVICE_ACCOUNT", "");
    meta_text(b, "INSTANCE_IPS", join_ips(b, &o->ip));
    if (!o->ip.n) {
        return err_set(err, -EINVAL, "no address: set INSTANCE_IP, or give this host an address other than loopback");
    }
    meta_text(b, "NAME", o->pod);
    meta_text(b, "NAMESPACE", o->ns);
    meta_text(b, "SERVICE_ACCOUNT", o->service_account);
    if (!meta_has(b, "CLUSTER_ID")) {
        meta_text(b, "CLUSTER_ID", STR("Kubernetes"));
    }
    if (!meta_has(b, "ISTIO_VERSION")) {
        meta_text(b, "ISTIO_VERSION", STR(NODE_ISTIO_VERSION));
    }
    if (!meta_has(b, "INTERCEPTION_MODE")) {
        static const char *const modes[] = { "REDIRECT", "TPROXY", "NONE" };
        unsigned m = (unsigned)o->proxy->interception_mode;
        meta_text(b, "INTERCEPTION_MODE", str_c(m < 3 ? modes[m] : modes[0]));
    }
    if (!meta_has(b, "MESH_ID")) {
        meta_text(b, "MESH_ID", str_c(o->proxy->mesh_id));
    }
    meta_text(b, "ISTIO_PROXY_SHA", STR("remora:" REMORA_VERSION));
    meta_text(b, "EXIT_ON_ZERO_ACTIVE_CONNECTIONS", node_env(b->in->envp, "EXIT_ON_ZERO_ACTIVE_CONNECTIONS"));
    o->cluster_id = meta_str(b, "CLUSTER_ID");
    meta_set(b, STR("LABELS"), b->labels);
    meta_set(b, STR("ANNOTATIONS"), b->annotations);
    set_pilot_san(b);
    return meta_port(b, "ENVOY_STATUS_PORT", STATUS_PORT, err) || meta_port(b, "ENVOY_PROMETHEUS_PORT", PROMETHEUS_PORT, err) ? -EINVAL : 0;
}

static void name_cluster(struct builder *b)
{
    typedef Istio__Mesh__V1alpha1__ProxyConfig pc;
    const pc *p = b->out->proxy;
    struct str ns = b->out->ns, workload = meta_str(b, "WORKLOAD_NAME"), app = json_str(b->labels, "app");
    struct str canonical = json_str(b->labels, "service.istio.io/canonical-name");
    struct str name = b->in->cluster;
    canonical = canonical.n ? canonical : json_str(b->labels, "app.kubernetes.io/name");
    canonical = canonical.n ? canonical : app.n ? app : workload;
    if (!name.n && p->cluster_name_case == ISTIO__MESH__V1ALPHA1__PROXY_CONFIG__CLUSTER_NAME_SERVICE_CLUSTER) {
        name = str_c(p->service_cluster);
    } else if (!name.n && p->cluster_name_case == ISTIO__MESH__V1ALPHA1__PROXY_CONFIG__CLUSTER_NAME_TRACING_SERVICE_NAME) {
        if (p->tracing_service_name == ISTIO__MESH__V1ALPHA1__PROXY_CONFIG__TRACING_SERVICE_NAME__CANONICAL_NAME_ONLY) {
            name = canonical;
        } else if (p->tracing_service_name == ISTIO__MESH__V1ALPHA1__PROXY_CONFIG__TRACING_SERVICE_NAME__CANONICAL_NAME_AND_NAMESPACE &&
                   canonical.n) {
            name = arena_printf(b->a, "%.*s.%.*s", STR_FMT(canonical), STR_FMT(ns));
        }
    }
    if (!name.n || str_is(name, "istio-proxy")) { // the default of old charts says nothing
        struct str base = app.n ? app : workload.n ? workload : STR("istio-proxy");
        name = ns.n ? arena_printf(b->a, "%.*s.%.*s", STR_FMT(base), STR_FMT(ns)) : base;
    }
    b->out->cluster = arena_str(b->a, name);
}

// Label "region/zone/subzone"; the old label has dots because a label value cannot hold slashes.
static void find_locality(struct builder *b)
{
    struct str l = json_str(b->labels, "topology.istio.io/locality");
    l = l.n ? l : json_str(b->labels, "istio-locality");
    char *copy = (char *)arena_str(b->a, l).p;
    if (str_find(l, '/') < 0) {
        for (size_t i = 0; i < l.n; i++) {
            copy[i] = copy[i] == '.' ? '/' : copy[i];
        }
    }
    struct str rest = str_n(copy, l.n);
    b->out->region = str_split(&rest, '/');
    b->out->zone = str_split(&rest, '/');
    b->out->sub_zone = str_split(&rest, '/');
}

// ---- packing ----

static void put_value(struct buf *out, const struct json *n);

// google.protobuf.Struct
static void put_struct(struct buf *out, const struct json *obj)
{
    struct buf entry = { 0 }, value = { 0 };
    for (const struct json *m = obj->first; m; m = m->next) {
        put_value(&value, m);
        wire_put_str(&entry, 1, m->key);
        wire_put_message(&entry, 2, &value);
        wire_put_message(out, 1, &entry);
    }
}

// google.protobuf.Value; the depth is bounded by the parser (JSON_DEPTH_MAX).
static void put_value(struct buf *out, const struct json *n)
{
    struct buf sub = { 0 }, item = { 0 };
    switch (n->type) {
    case JSON_NULL:
        wire_put_varint(out, 1, 0);
        break;
    case JSON_NUMBER:
        wire_put_double(out, 2, strtod(n->text.p, NULL));
        break; // numbers are followed by a byte that ends them
    case JSON_STRING:
        wire_put_bytes(out, 3, n->text);
        break;
    case JSON_BOOL:
        wire_put_varint(out, 4, n->boolean);
        break;
    case JSON_OBJECT:
        put_struct(&sub, n);
        wire_put_message(out, 5, &sub);
        break;
    case JSON_ARRAY:
        for (const struct json *m = n->first; m; m = m->next) {
            put_value(&item, m);
            wire_put_message(&sub, 1, &item);
        }
        wire_put_message(out, 6, &sub);
        break;
    }
}

static void collect_metadata(struct builder *b)
{
    struct map_entry **sorted = map_sorted(&b->meta);
    struct json *obj = empty_node(b->a, JSON_OBJECT);
    struct json **tail = &obj->first;
    for (size_t i = 0; i < b->meta.count; i++) {
        struct json *m = sorted[i]->val;
        m->key = arena_str(b->a, sorted[i]->key);
        m->next = NULL;
        *tail = m;
        tail = &m->next;
        obj->count++;
    }
    free(sorted);
    b->out->metadata = obj;
}

// envoy.config.core.v3.Node
static void pack(struct builder *b)
{
    struct node_info *o = b->out;
    struct buf node = { 0 }, sub = { 0 };
    wire_put_str(&node, 1, o->id);
    wire_put_str(&node, 2, o->cluster);
    put_struct(&sub, o->metadata);
    wire_put_message(&node, 3, &sub);
    if (o->region.n) {
        wire_put_str(&sub, 1, o->region);
        wire_put_str(&sub, 2, o->zone);
        wire_put_str(&sub, 3, o->sub_zone);
        wire_put_message(&node, 4, &sub);
    }
    wire_put_str(&node, 6, STR("remora"));
    wire_put_str(&node, 7, STR(REMORA_VERSION));
    o->serialized = arena_str(b->a, buf_pullup(&node, buf_len(&node)));
    buf_clear(&node);
}

int node_from_env(const struct node_in *in, struct arena *a, struct node_info *ret, struct err *err)
{
    struct node_info out = { 0 };
    struct builder b = { .in = in, .a = a, .out = &out };
    b.labels = empty_node(a, JSON_OBJECT);
    b.annotations = empty_node(a, JSON_OBJECT);
    // ProxyConfig hangs on an annotation, its metadata gives way to the variables, and they to the files of the pod.
    int rc = read_downward(&b, "etc/istio/pod/annotations", b.annotations, NULL, err);
    rc = rc ? rc : read_proxy_config(&b, err);
    rc = rc ? rc : add_variables(&b, err);
    rc = rc ? rc : read_downward(&b, "etc/istio/pod/labels", b.labels, "pod-template-hash", err);
    rc = rc ? rc : compute(&b, err);
    if (rc == 0) {
        name_cluster(&b);
        find_locality(&b);
        struct str domain = in->domain.n ? in->domain
                            : out.ns.n   ? arena_printf(a, "%.*s.svc.cluster.local", STR_FMT(out.ns))
                                         : STR("svc.cluster.local");
        out.id = arena_printf(a, "sidecar~%.*s~%.*s.%.*s~%.*s", STR_FMT(out.ip), STR_FMT(out.pod), STR_FMT(out.ns), STR_FMT(domain));
        collect_metadata(&b);
        pack(&b);
        *ret = out;
    }
    map_fini(&b.meta);
    return rc ? -EINVAL : 0;
}

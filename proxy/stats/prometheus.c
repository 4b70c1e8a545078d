// SPDX-License-Identifier: Apache-2.0
// Prometheus text as Envoy writes it: "# TYPE" lines, no HELP, an empty line behind each family; what Envoy's tag extraction takes
// out of a name becomes a label here by construction, because a block knows its scope.
#include <stdio.h>

#include "lib/base/check.h"
#include "proxy/stats/store.h"

static const char *const scope_labels[STAT_SCOPE_COUNT] = {
    [STAT_LISTENER] = "envoy_listener_address",
    [STAT_HTTP] = "envoy_http_conn_manager_prefix",
    [STAT_CLUSTER] = "envoy_cluster_name",
    [STAT_CLUSTER_LB] = "envoy_cluster_name",
    [STAT_CLUSTER_OUTLIER] = "envoy_cluster_name",
    [STAT_CLUSTER_HEALTH] = "envoy_cluster_name",
    [STAT_CLUSTER_LIMIT] = "envoy_cluster_name",
    [STAT_CLUSTER_GRPC] = "envoy_cluster_name",
    [STAT_TCP] = "envoy_tcp_prefix",
    [STAT_VCLUSTER] = "envoy_virtual_cluster",
    [STAT_ROUTE] = "envoy_route",
    [STAT_TCP_AUTHZ] = "envoy_ext_authz_prefix",
    [STAT_HTTP_LIMIT] = "envoy_local_http_ratelimit_prefix",
    [STAT_TCP_LIMIT] = "envoy_local_network_ratelimit_prefix",
    [STAT_TCP_OPEN_LIMIT] = "envoy_connection_limit_prefix",
};

// Envoy's default buckets, in the histogram's unit (ms).
static const double bounds[] = { 0.5,  1,    5,     10,    25,    50,     100,    250,     500,    1000,
                                 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000 };

struct prom {
    const struct stats_view *v;
    const struct stats_dump_opts *o;
    struct buf *out;
    struct buf name;
};

static bool wanted(const struct prom *p, struct str name)
{
    return !p->o || !p->o->keep || p->o->keep(p->o->arg, name);
}

// Names of metrics: letters, digits, '_'.
static void put_metric(struct buf *out, const char *name)
{
    for (; *name; name++) {
        char c = *name;
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        buf_append(out, ok ? &c : "_", 1);
    }
}

static void put_label(struct buf *out, const char *label, struct str value)
{
    buf_printf(out, "%s=\"", label);
    for (size_t i = 0; i < value.n; i++) {
        char c = value.p[i];
        if (c == '\\' || c == '"') {
            buf_append(out, "\\", 1);
            buf_append(out, &c, 1);
        } else if (c == '\n') {
            buf_append(out, "\\n", 2);
        } else {
            buf_append(out, &c, 1);
        }
    }
    buf_append(out, "\"", 1);
}

// "VIRTUAL HOST.vcluster.NAME", "VIRTUAL HOST.route.NAME": both halves.
static void split_vhost(const struct stats_group *g, struct str *ret_host, struct str *ret_name)
{
    struct str mark = g->scope == STAT_ROUTE ? STR(".route.") : STR(".vcluster."), rest = g->name;
    ptrdiff_t at = str_find_str(rest, mark);
    *ret_host = at < 0 ? rest : str_n(rest.p, (size_t)at);
    *ret_name = at < 0 ? str_n(NULL, 0) : str_skip(rest, (size_t)at + mark.n);
}

static bool is_rbac(enum stat_scope scope)
{
    return scope >= STAT_HTTP_RBAC && scope <= STAT_TCP_RBAC_POLICY_SHADOW;
}

// "PREFIX.rbac[.RULES PREFIX][.policy.NAME]": its parts as labels.
static void put_rbac_labels(struct prom *p, const struct stats_group *g)
{
    struct str mark = STR(".rbac"), policy = STR(".policy."), prefix = g->name, rest = STR("");
    ptrdiff_t at = str_find_str(g->name, mark);
    if (at >= 0) {
        prefix.n = (size_t)at;
        rest = str_skip(g->name, (size_t)at + mark.n);
    }
    at = str_find_str(rest, policy);
    if (at >= 0) {
        put_label(p->out, "envoy_rbac_policy_name", str_skip(rest, (size_t)at + policy.n));
        buf_append(p->out, ",", 1);
        rest.n = (size_t)at;
    }
    if (rest.n > 1) {
        put_label(p->out, "envoy_rbac_http_prefix", str_skip(rest, 1));
        buf_append(p->out, ",", 1);
    }
    prefix.n -= prefix.n && prefix.p[prefix.n - 1] == ';';
    put_label(p->out, g->scope >= STAT_TCP_RBAC ? "envoy_rbac_prefix" : "envoy_http_conn_manager_prefix", prefix);
}

// "PREFIX.ext_authz[.FILTER PREFIX]": its parts as labels.
static void put_authz_labels(struct prom *p, const struct stats_group *g)
{
    struct str mark = STR(".ext_authz"), prefix = g->name;
    for (size_t n = g->name.n; n >= mark.n; n--) { // the last one: names of clusters may hold anything
        if (str_ends(str_n(g->name.p, n), mark) && (n == g->name.n || g->name.p[n] == '.')) {
            prefix.n = n - mark.n;
            break;
        }
    }
    struct str rest = str_skip(g->name, prefix.n + mark.n + 1);
    put_label(p->out, g->scope == STAT_CLUSTER_AUTHZ ? "envoy_cluster_name" : "envoy_http_conn_manager_prefix", prefix);
    if (rest.n) {
        buf_append(p->out, ",", 1);
        put_label(p->out, "envoy_ext_authz_prefix", rest);
    }
}

// "PREFIX.jwt_authn[.OWN PREFIX]"
static void put_jwt_labels(struct prom *p, const struct stats_group *g)
{
    struct str mark = STR(".jwt_authn"), prefix = g->name, own = STR("");
    ptrdiff_t at = str_find_str(g->name, mark);
    if (at >= 0) {
        prefix.n = (size_t)at;
        own = str_skip(g->name, (size_t)at + mark.n);
    }
    prefix.n -= prefix.n && prefix.p[prefix.n - 1] == ';';
    put_label(p->out, "envoy_http_conn_manager_prefix", prefix);
    if (own.n > 1) {
        buf_append(p->out, ",", 1);
        put_label(p->out, "envoy_jwt_authn_prefix", str_skip(own, 1));
    }
}

static void put_scope_label(struct prom *p, const struct stats_group *g)
{
    if (g->scope == STAT_HTTP_JWT) {
        put_jwt_labels(p, g);
        return;
    }
    if (g->scope == STAT_HTTP_AUTHZ || g->scope == STAT_CLUSTER_AUTHZ) {
        put_authz_labels(p, g);
        return;
    }
    if (is_rbac(g->scope)) {
        put_rbac_labels(p, g);
        return;
    }
    struct str v = g->name;
    if (g->scope == STAT_VCLUSTER || g->scope == STAT_ROUTE) {
        struct str host;
        split_vhost(g, &host, &v);
        put_label(p->out, "envoy_virtual_host", host);
        buf_append(p->out, ",", 1);
    }
    // Istio ends the names with ';' so that its tag expressions know where a name with dots ends.
    if (v.n && v.p[v.n - 1] == ';') {
        v.n--;
    }
    put_label(p->out, scope_labels[g->scope], v);
}

// "upstream_rq_2xx" → class 2 and the family "upstream_rq_xx"; 0 for every other name.
static int response_class(const char *name, char *family, size_t cap)
{
    size_t n = strlen(name);
    if (n < 4 || strcmp(name + n - 2, "xx") != 0 || name[n - 4] != '_' || name[n - 3] < '1' || name[n - 3] > '5') {
        return 0;
    }
    snprintf(family, cap, "%.*sxx", (int)(n - 3), name);
    return name[n - 3] - '0';
}

static const char *scope_words(enum stat_scope scope)
{
    if (is_rbac(scope)) {
        static const char *const words[] = { "http_rbac", "http_rbac", "http_rbac_policy", "http_rbac_policy", "rbac", "rbac", "rbac_policy", "rbac_policy" };
        return words[scope - STAT_HTTP_RBAC];
    }
    if (scope == STAT_HTTP_AUTHZ || scope == STAT_CLUSTER_AUTHZ) {
        return scope == STAT_HTTP_AUTHZ ? "http_ext_authz" : "cluster_ext_authz";
    }
    if (scope == STAT_HTTP_JWT) {
        return "http_jwt_authn";
    }
    return scope == STAT_VCLUSTER ? "vhost_vcluster" : scope == STAT_ROUTE ? "vhost_route" : stat_scope_names[scope];
}

static void put_type(struct prom *p, enum stat_scope scope, const char *metric, const char *kind)
{
    buf_printf(p->out, "# TYPE envoy_%s%s", scope_words(scope), scope_words(scope)[0] ? "_" : "");
    put_metric(p->out, metric);
    buf_printf(p->out, " %s\n", kind);
}

static void put_name(struct prom *p, enum stat_scope scope, const char *metric)
{
    buf_printf(p->out, "envoy_%s%s", scope_words(scope), scope_words(scope)[0] ? "_" : "");
    put_metric(p->out, metric);
}

static void histogram_lines(struct prom *p, const struct stats_group *g, unsigned id)
{
    struct histogram_sum h;
    stats_group_histogram(g, id, &h);
    const char *name = stat_metas[id].name;
    for (size_t i = 0; i <= array_len(bounds); i++) {
        put_name(p, g->scope, name);
        buf_printf(p->out, "_bucket{");
        put_scope_label(p, g);
        if (i < array_len(bounds)) {
            buf_printf(p->out, ",le=\"%.10g\"} %llu\n", bounds[i], (unsigned long long)histogram_count_below(&h, bounds[i]));
        } else {
            buf_printf(p->out, ",le=\"+Inf\"} %llu\n", (unsigned long long)h.count);
        }
    }
    put_name(p, g->scope, name);
    buf_printf(p->out, "_sum{");
    put_scope_label(p, g);
    buf_printf(p->out, "} %llu\n", (unsigned long long)h.sum);
    put_name(p, g->scope, name);
    buf_printf(p->out, "_count{");
    put_scope_label(p, g);
    buf_printf(p->out, "} %llu\n", (unsigned long long)h.count);
}

// The lines of one metric over all its groups. Histograms without a value are left out: twenty empty lines each are most of what
// people complain about.
static bool metric_lines(struct prom *p, unsigned id, const char *family, int class, bool typed)
{
    const struct stat_meta *m = &stat_metas[id];
    static const char *const kinds[] = { "counter", "gauge", "histogram" };
    for (size_t i = 0; i < p->v->group_count; i++) {
        const struct stats_group *g = &p->v->groups[i];
        if (g->scope != m->scope ||
            (((p->o && p->o->used_only) || m->kind == STAT_HISTOGRAM) && !stats_group_used(g, id)) ||
            !wanted(p, stats_full_name(g, m->name, &p->name))) {
            continue;
        }
        if (!typed) {
            put_type(p, m->scope, family, kinds[m->kind]);
            typed = true;
        }
        if (m->kind == STAT_HISTOGRAM) {
            histogram_lines(p, g, id);
            continue;
        }
        put_name(p, m->scope, family);
        buf_append(p->out, "{", 1);
        if (class) {
            buf_printf(p->out, "envoy_response_code_class=\"%d\",", class);
        }
        put_scope_label(p, g);
        buf_printf(p->out, "} %llu\n", (unsigned long long)stats_group_value(g, id));
    }
    return typed;
}

static void code_lines(struct prom *p, enum stat_scope scope)
{
    bool typed = false;
    for (size_t i = 0; i < p->v->group_count; i++) {
        const struct stats_group *g = &p->v->groups[i];
        unsigned codes[64];
        uint64_t counts[64];
        size_t n = g->scope == scope ? stats_group_codes(g, codes, counts, array_len(codes)) : 0;
        for (size_t k = 0; k < n; k++) {
            char metric[32];
            snprintf(metric, sizeof(metric), "upstream_rq_%u", codes[k]);
            if (!wanted(p, stats_full_name(g, metric, &p->name))) {
                continue;
            }
            if (!typed) {
                put_type(p, scope, "upstream_rq", "counter");
                typed = true;
            }
            put_name(p, scope, "upstream_rq");
            buf_printf(p->out, "{envoy_response_code=\"%u\",", codes[k]);
            put_scope_label(p, g);
            buf_printf(p->out, "} %llu\n", (unsigned long long)counts[k]);
        }
    }
    if (typed) {
        buf_append(p->out, "\n", 1);
    }
}

static void registered_lines(struct prom *p)
{
    for (size_t i = 0; i < p->v->reg_count; i++) {
        struct stat_registered *r = p->v->reg[i];
        if (r->text || !wanted(p, str_c(r->name))) {
            continue;
        }
        uint64_t value = r->fn(r->arg);
        if (!value && p->o && p->o->used_only && r->kind == STAT_COUNTER) {
            continue;
        }
        buf_printf(p->out, "# TYPE envoy_");
        put_metric(p->out, r->name);
        buf_printf(p->out, r->kind == STAT_GAUGE ? " gauge\nenvoy_" : " counter\nenvoy_");
        put_metric(p->out, r->name);
        buf_printf(p->out, "{} %llu\n\n", (unsigned long long)value);
    }
}

void stats_dump_prometheus(struct stats_store *s, const struct stats_dump_opts *o, struct buf *out)
{
    struct stats_view v;
    stats_view_init(&v, s);
    struct prom p = { .v = &v, .o = o, .out = out };
    for (unsigned id = 0; id < STAT_ANY_COUNT; id++) {
        char family[64];
        int class = response_class(stat_metas[id].name, family, sizeof(family));
        bool typed = false;
        // The five classes stand next to each other in the catalog and are one family here.
        for (unsigned first = id; class && id + 1 < STAT_ANY_COUNT && id - first < 4; id++) {
            typed = metric_lines(&p, id, family, class, typed);
            class = response_class(stat_metas[id + 1].name, family, sizeof(family));
        }
        typed = metric_lines(&p, id, class ? family : stat_metas[id].name, class, typed);
        if (typed) {
            buf_append(out, "\n", 1);
        }
    }
    code_lines(&p, STAT_CLUSTER);
    code_lines(&p, STAT_VCLUSTER);
    code_lines(&p, STAT_ROUTE);
    registered_lines(&p);
    buf_clear(&p.name);
    stats_view_fini(&v);
}

// SPDX-License-Identifier: Apache-2.0
// pilot-agent's part: who we are, where istiod is, certificates, and the ports that kubelet and Prometheus talk to.
#include "proxy/server/sidecar.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/event/thread.h"
#include "proto/pb_util.h"
#include "proxy/identity/provider.h"
#include "proxy/server/app_probes.h"
#include "xds-client/node.h"

enum {
    PORT_AGENT = 15020,   // health, merged metrics, quit
    PORT_STATUS = 15021,  // readiness
    PORT_METRICS = 15090, // Prometheus
    PORT_PLAIN_XDS = 15010,
    IPS_MAX = 64,
    SIDECAR_PORTS = 3,
};

struct sidecar {
    struct arena arena;
    struct node_info node;
    struct str ca_addr, root_file, server_name;
    bool tls;
    struct identity *identity;                  // owned
    struct http_server *ports[SIDECAR_PORTS];   // owned
    struct app_probes *probes;                  // owned
    struct admin *admin;                        // borrowed
    struct config *config;                      // borrowed
};

extern char **environ;

static struct str env(const char *name)
{
    return node_env((const char *const *)environ, name);
}

// Addresses of the interfaces, without loopback and link-local.
static size_t own_ips(struct arena *a, struct str *v, size_t max)
{
    struct ifaddrs *all = NULL;
    size_t n = 0;
    if (getifaddrs(&all)) {
        return 0;
    }
    for (struct ifaddrs *i = all; i && n < max; i = i->ifa_next) {
        struct addr x;
        char text[ADDR_TEXT_MAX];
        bool inet = i->ifa_addr && (i->ifa_addr->sa_family == AF_INET || i->ifa_addr->sa_family == AF_INET6);
        socklen_t len = inet && i->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        if (!inet || (i->ifa_flags & IFF_LOOPBACK) || !addr_from_sockaddr(i->ifa_addr, len, &x) || x.scope) {
            continue;
        }
        v[n++] = arena_printf(a, "%s", addr_ip_text(&x, text));
    }
    freeifaddrs(all);
    return n;
}

// Root of the control plane's certificate: the first that applies, as pilot-agent looks for it.
static struct str find_root(struct arena *a)
{
    struct str given = env("XDS_ROOT_CA");
    if (given.n && !str_is(given, "SYSTEM")) {
        return given;
    }
    if (given.n) {
        return STR("/etc/ssl/certs/ca-certificates.crt");
    }
    struct str prov = env("PROV_CERT");
    const char *const candidates[] = { "etc/certs/root-cert.pem", prov.n ? arena_printf(a, "%.*s/root-cert.pem", STR_FMT(prov)).p : NULL,
                                       "var/run/secrets/istio/root-cert.pem" };
    for (size_t i = 0; i < array_len(candidates); i++) {
        if (candidates[i] && access(candidates[i], R_OK) == 0) {
            return str_c(candidates[i]);
        }
    }
    return STR("var/run/secrets/istio/root-cert.pem");
}

static uint16_t port_of(struct str target)
{
    ptrdiff_t colon = -1;
    for (size_t i = 0; i < target.n; i++) {
        colon = target.p[i] == ':' ? (ptrdiff_t)i : colon;
    }
    uint64_t v = 0;
    str_to_u64(str_skip(target, (size_t)(colon + 1)), 65535, &v);
    return (uint16_t)v;
}

// Every XDS_HEADER_name variable becomes metadata of the stream.
static void take_headers(struct sidecar *s, struct xds_ads_opts *o)
{
    size_t max = 2;
    for (char **e = environ; *e; e++) {
        max++;
    }
    struct str(*h)[2] = arena_zalloc(&s->arena, sizeof(*h) * max);
    size_t n = 0;
    if (s->node.cluster_id.n) {
        h[n][0] = STR("clusterid");
        h[n++][1] = s->node.cluster_id;
    }
    for (char **e = environ; *e; e++) {
        struct str rest = str_c(*e), name = str_split(&rest, '=');
        if (str_starts(name, STR("XDS_HEADER_")) && rest.p) {
            struct str key = arena_str(&s->arena, str_skip(name, 11));
            for (size_t i = 0; i < key.n; i++) { // gRPC metadata keys are lower case
                ((char *)key.p)[i] = key.p[i] >= 'A' && key.p[i] <= 'Z' ? (char)(key.p[i] | 0x20) : key.p[i];
            }
            h[n][0] = key;
            h[n++][1] = rest;
        }
    }
    o->headers = (const struct str(*)[2])h;
    o->header_count = n;
}

static void take_ads(struct sidecar *s, struct bootstrap *b)
{
    struct str target = str_c(s->node.proxy->discovery_address);
    s->tls = s->node.proxy->control_plane_auth_policy != ISTIO__MESH__V1ALPHA1__AUTHENTICATION_POLICY__NONE && port_of(target) != PORT_PLAIN_XDS;
    s->root_file = find_root(&s->arena);
    s->server_name = env("ISTIOD_SAN");
    struct str host = str_n(target.p, target.n);
    struct str head = str_split(&host, ':');
    if (!s->server_name.n && str_is(head, "localhost")) {
        s->server_name = STR("istiod.istio-system.svc");
    }
    s->ca_addr = env("CA_ADDR");
    s->ca_addr = s->ca_addr.n ? s->ca_addr : target;
    struct str delta = env("ISTIO_DELTA_XDS");
    b->has_ads = b->cds_ads = b->lds_ads = true;
    b->ads = (struct xds_ads_opts){
        .target = target,
        .delta = !str_is(delta, "false"),
        .tls = s->tls,
        .root_file = s->tls ? s->root_file : str_n(NULL, 0),
        .server_name = s->server_name,
        .token_file = STR("var/run/secrets/tokens/istio-token"),
        .keepalive_ms = 30000,
        .keepalive_timeout_ms = 10000,
    };
    take_headers(s, &b->ads);
}

int sidecar_bootstrap(struct sidecar **ret, struct bootstrap *ret_boot, struct err *err)
{
    struct sidecar *s = mem_new(struct sidecar);
    struct str ips[IPS_MAX];
    struct node_in in = { .envp = (const char *const *)environ, .root = "", .ips = ips };
    in.ip_count = own_ips(&s->arena, ips, IPS_MAX);
    if (node_from_env(&in, &s->arena, &s->node, err)) {
        sidecar_free(s);
        return err->code;
    }
    struct bootstrap b = { 0 };
    b.msg = pb_new_as(&b.arena, Envoy__Config__Bootstrap__V3__Bootstrap, envoy__config__bootstrap__v3__bootstrap);
    if (pb_unpack_as(Envoy__Config__Core__V3__Node, envoy__config__core__v3__node, s->node.serialized, &b.arena, &b.msg->node, err)) {
        bootstrap_fini(&b);
        sidecar_free(s);
        return err->code;
    }
    int port = s->node.proxy->proxy_admin_port ? s->node.proxy->proxy_admin_port : 15000;
    addr_parse_ip(STR("127.0.0.1"), (uint16_t)port, &b.admin);
    take_ads(s, &b);
    (void)str_to_u64(env("GLOBAL_DOWNSTREAM_MAX_CONNECTIONS"), UINT64_MAX - 1, &b.max_connections);
    *ret = s;
    *ret_boot = b;
    return 0;
}

int sidecar_concurrency(const struct sidecar *s)
{
    uint64_t limit = 0;
    if (s->node.proxy->concurrency) {
        int n = s->node.proxy->concurrency->value;
        return n > 0 ? n : thread_cpu_count();
    }
    struct str cpu = env("ISTIO_CPU_LIMIT");
    if (cpu.n && str_to_u64(cpu, 1024, &limit) && limit > 0) {
        return (int)limit;
    }
    int cpus = thread_cpu_count();
    return cpus < 2 ? cpus : 2;
}

uint64_t sidecar_drain_ms(const struct sidecar *s, uint64_t dflt)
{
    const Google__Protobuf__Duration *d = s->node.proxy->termination_drain_duration;
    return d && pb_duration_valid(d) ? (uint64_t)pb_duration_ms(d, (int64_t)dflt) : dflt;
}

// ---- ports ----

static void to_admin(struct sidecar *s, struct http_server_req *q, struct http_server_resp *r, struct str path)
{
    q->path = path;
    admin_handle(s->admin, q, r);
}

static void on_metrics(void *arg, struct http_server_req *q, struct http_server_resp *r)
{
    if (str_is(q->path, "/stats/prometheus") || str_is(q->path, "/metrics")) {
        to_admin(arg, q, r, STR("/stats/prometheus"));
        return;
    }
    r->status = 404;
}

static void on_status(void *arg, struct http_server_req *q, struct http_server_resp *r)
{
    if (str_is(q->path, "/healthz/ready")) {
        to_admin(arg, q, r, STR("/ready"));
        return;
    }
    r->status = 404;
}

// As pilot-agent: the end is that of SIGTERM, which lets connections finish. (Envoy's own /quitquitquit on the admin port ends at once.)
static void quit(const struct http_server_req *q, struct http_server_resp *r)
{
    if (!str_is(q->req->method, "POST")) {
        r->status = 405;
        return;
    }
    buf_printf(&r->body, "OK\n");
    kill(getpid(), SIGTERM);
}

static void on_agent(void *arg, struct http_server_req *q, struct http_server_resp *r)
{
    struct sidecar *s = arg;
    if (str_is(q->path, "/quitquitquit") || str_is(q->path, "/drain")) {
        if (!addr_is_loopback(&q->peer)) {
            r->status = 403;
            buf_printf(&r->body, "only requests from this host may do that\n");
            return;
        }
        if (str_is(q->path, "/drain")) {
            // The preStop hook of a native sidecar: the application still runs and goes on calling others until the signal comes.
            q->query = STR("inboundonly&graceful&skip_exit");
            to_admin(s, q, r, STR("/drain_listeners"));
        } else {
            quit(q, r);
        }
        return;
    }
    if (str_is(q->path, "/healthz/ready")) {
        on_status(s, q, r);
        return;
    }
    if (app_probes_handle(s->probes, q, r)) {
        return;
    }
    on_metrics(s, q, r);
}

static int start_ports(struct sidecar *s, struct loop *l, struct err *err)
{
    static const struct {
        uint16_t port;
        void (*handler)(void *arg, struct http_server_req *q, struct http_server_resp *r);
    } ports[SIDECAR_PORTS] = { { PORT_AGENT, on_agent }, { PORT_STATUS, on_status }, { PORT_METRICS, on_metrics } };
    bool v6 = str_find(s->node.ip, ':') >= 0;
    bool loopback = str_is(env("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION"), "true");
    uint16_t agent = s->node.proxy->status_port > 0 ? (uint16_t)s->node.proxy->status_port : PORT_AGENT;
    s->probes = app_probes_new(l, env("ISTIO_KUBE_APP_PROBERS"), !loopback ? s->node.ip : v6 ? STR("::1") : STR("127.0.0.1"), agent, err);
    if (!s->probes) {
        return -EINVAL;
    }
    for (int i = 0; i < SIDECAR_PORTS; i++) {
        struct addr a;
        uint16_t port = ports[i].port == PORT_AGENT ? agent : ports[i].port;
        addr_parse_ip(v6 ? STR("::") : STR("0.0.0.0"), port, &a);
        s->ports[i] = http_server_new(l, &a, 0, ports[i].handler, s, err);
        if (!s->ports[i]) {
            return err_wrap(err, "port %u", port);
        }
    }
    return 0;
}

// ---- identity ----

static void on_identity(void *owner, const struct identity_set *set)
{
    struct sidecar *s = owner;
    struct err err = { 0 };
    if (config_set_secret(s->config, STR("ROOTCA"), set->root_pem, str_n(NULL, 0), &err) ||
        config_set_secret(s->config, STR("default"), set->cert_chain_pem, set->key_pem, &err)) {
        log_error(LOGC_SECRET, 0, "identity_refused", "reason=\"%s\" (the former certificate stays)", err.msg);
    }
}

static void on_identity_failure(void *owner, const struct err *err)
{
    (void)owner;
    log_warn(LOGC_SECRET, 0, "identity_failed", "reason=\"%s\" (retried)", err->msg);
}

static const struct identity_ops identity_events = { .on_set = on_identity, .on_failure = on_identity_failure };

static const char *text_or_null(struct sidecar *s, struct str v)
{
    return v.n ? arena_str(&s->arena, v).p : NULL;
}

int sidecar_parse_ttl(struct str text, uint64_t *ret_s)
{
    enum { TTL_MAX_S = 90 * 86400 };
    static const struct {
        char unit;
        uint64_t seconds;
    } units[] = { { 'h', 3600 }, { 'm', 60 }, { 's', 1 } };
    uint64_t sum = 0, v;
    struct str rest = text;
    if (!text.n || str_to_u64(text, TTL_MAX_S, &sum)) {
        *ret_s = sum;
        return 0;
    }
    for (size_t u = 0; u < array_len(units) && rest.n; u++) {
        ptrdiff_t at = str_find(rest, units[u].unit);
        if (at < 0) {
            continue;
        }
        if (!str_to_u64(str_n(rest.p, (size_t)at), TTL_MAX_S, &v)) {
            return -EINVAL;
        }
        sum += v * units[u].seconds;
        rest = str_skip(rest, (size_t)at + 1);
    }
    if (rest.n || sum > TTL_MAX_S) {
        return -EINVAL;
    }
    *ret_s = sum;
    return 0;
}

bool sidecar_has_credentials(const char *dir)
{
    static const char *const names[] = { "cert-chain.pem", "key.pem", "root-cert.pem" };
    char path[512];
    for (size_t i = 0; i < array_len(names); i++) {
        int n = snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        if (n < 0 || (size_t)n >= sizeof(path) || access(path, R_OK)) {
            return false;
        }
    }
    return true;
}

static int start_identity(struct sidecar *s, struct loop *l, struct err *err)
{
    static const char files[] = "var/run/secrets/workload-spiffe-credentials";
    uint64_t ttl_s = 0;
    if (sidecar_has_credentials(files)) {
        struct identity_files_opts f = { .dir = files };
        s->identity = identity_files_new(l, &f, &identity_events, s, err);
        return s->identity ? 0 : -EINVAL;
    }
    struct str domain = env("TRUST_DOMAIN"), ecc = env("ECC_SIGNATURE_ALGORITHM"), algorithm = env("WORKLOAD_RSA_KEY_SIZE");
    if (sidecar_parse_ttl(env("SECRET_TTL"), &ttl_s)) {
        return err_set(err, -EINVAL, "SECRET_TTL: \"%.*s\" is not a duration such as 24h, 30m or 90s, of at most 90 days", STR_FMT(env("SECRET_TTL")));
    }
    domain = domain.n ? domain : STR("cluster.local");
    struct str(*headers)[2] = arena_zalloc(&s->arena, sizeof(*headers));
    headers[0][0] = STR("clusterid");
    headers[0][1] = s->node.cluster_id;
    struct identity_ca_opts o = {
        .target = text_or_null(s, s->ca_addr),
        .tls = s->tls,
        .server_name = text_or_null(s, s->server_name),
        .root_file = text_or_null(s, s->root_file),
        .token_file = "var/run/secrets/tokens/istio-token",
        .headers = (const struct str(*)[2])headers,
        .header_count = s->node.cluster_id.n ? 1 : 0,
        .uri = arena_printf(&s->arena, "spiffe://%.*s/ns/%.*s/sa/%.*s", STR_FMT(domain), STR_FMT(s->node.ns), STR_FMT(s->node.service_account)),
        .cert_signer = text_or_null(s, env("ISTIO_META_CERT_SIGNER")),
        // ECDSA unless an RSA key size is asked for: a fifth of the handshake's CPU
        .key_type = !ecc.n && algorithm.n ? KEY_RSA_2048 : KEY_ECDSA_P256,
        .ttl_s = (int64_t)ttl_s,
    };
    s->identity = identity_ca_new(l, &o, &identity_events, s, err);
    return s->identity ? 0 : -EINVAL;
}

int sidecar_start(struct sidecar *s, struct loop *l, struct config *c, struct admin *a, struct stats_store *st, struct err *err)
{
    s->config = c;
    s->admin = a;
    (void)st;
    return start_ports(s, l, err) || start_identity(s, l, err) ? (err->code ? err->code : -1) : 0;
}

void sidecar_free(struct sidecar *s)
{
    for (int i = 0; i < SIDECAR_PORTS; i++) {
        if (s->ports[i]) {
            http_server_free(s->ports[i]);
        }
    }
    app_probes_free(s->probes);
    if (s->identity) {
        identity_free(s->identity);
    }
    arena_fini(&s->arena);
    free(s);
}

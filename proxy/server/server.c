// SPDX-License-Identifier: Apache-2.0
// Start order: statistics → control loop → workers (with an empty snapshot) → configuration and xDS client → static resources and sources →
// admin. Workers serve whatever the newest snapshot says; the server is LIVE once every worker runs the first complete one.
#include "proxy/server/explain.h"
#include "proxy/server/server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/event/signal.h"
#include "lib/event/thread.h"
#include "lib/grpc/grpc.h"
#include "proto/pb_util.h"
#include "proxy/authz/node_labels.h"
#include "proxy/access_log/access_log.h"
#include "proxy/admin/admin.h"
#include "proxy/config/bootstrap.h"
#include "proxy/config/config.h"
#include "proxy/filters/network/peer_exchange.h"
#include "proxy/listener/listener.h"
#include "proxy/server/sidecar.h"
#include "proxy/server/trim.h"
#include "proxy/server/workers.h"

enum {
    DRAIN_POLL_MS = 50,
    TRIM_AFTER_MS = 2000,
    BOOTSTRAP_BYTES_MAX = 64 * 1024 * 1024,
};

struct server {
    const struct options *opts; // borrowed
    struct loop *loop;
    struct stats_store *stats;
    struct dns *dns;
    struct workers *workers;
    struct xds_client *xds;
    struct config *config;
    struct admin *admin;
    struct sidecar *sidecar;   // NULL in file mode
    struct bootstrap boot;
    struct signal_watch signals;
    struct timer drain_poll;
    struct timer trim;
    uint64_t start_wall_ms, drain_started_ms;
    int concurrency;
    bool applied_static;       // bootstrap_apply is done
    bool live;                 // was LIVE once
    bool draining, exiting, health_failed;
    bool drain_closed;            // the listeners are closed
    bool admin_inbound_only;      // what /drain_listeners?graceful asked for
    bool drained_before;          // a preStop hook has drained: the signal comes when the pod's application is gone
    uint64_t drain_ms;            // longest time between SIGTERM and the end
    struct timer admin_drain_end; // of it
    struct snapshot *published; // reference; newest given to the workers
};

static bool type_answered(const struct server *s, enum xds_type t)
{
    struct xds_type_status st;
    xds_status(s->xds, t, &st);
    return st.answered;
}

// First complete configuration: everything asked for in the bootstrap has been answered and nothing of it is still warming.
static bool server_configured(const struct server *s)
{
    if (!s->applied_static) {
        return false;
    }
    bool cds = s->boot.cds_ads || s->boot.cds_path, lds = s->boot.lds_ads || s->boot.lds_path;
    if ((cds && !type_answered(s, XDS_CLUSTER)) || (lds && !type_answered(s, XDS_LISTENER))) {
        return false;
    }
    struct config_status cs;
    config_status(s->config, &cs);
    return cs.clusters_warming == 0 && cs.listeners_warming == 0;
}

static void trim_tick(struct timer *t)
{
    (void)t;
    trim_after_start();
}

static void update_live(void *arg)
{
    struct server *s = arg;
    if (!s->live && !s->exiting && server_configured(s) && (!s->published || workers_applied(s->workers) >= s->published->version)) {
        s->live = true;
        timer_set(s->loop, &s->trim, TRIM_AFTER_MS);
        log_info(LOGC_MAIN, 0, "server_live", "workers=%d after_ms=%llu", s->concurrency,
                 (unsigned long long)(clock_wall_ms() - s->start_wall_ms));
    }
}

static enum server_state server_state_now(void *arg)
{
    struct server *s = arg;
    update_live(s);
    if (s->draining || s->health_failed) {
        return SERVER_DRAINING;
    }
    return s->live ? SERVER_LIVE : s->applied_static ? SERVER_INITIALIZING : SERVER_PRE_INITIALIZING;
}

static void publish(void *arg, struct snapshot *snap)
{
    struct server *s = arg;
    workers_publish(s->workers, snap);
    snapshot_unref(s->published);
    s->published = snap;
}

static void server_exit(void *arg)
{
    struct server *s = arg;
    s->exiting = true;
    loop_stop(s->loop);
}

static void counted(void *arg, size_t connections)
{
    struct server *s = arg;
    uint64_t waited = loop_now_ms(s->loop) - s->drain_started_ms;
    if (s->exiting) {
        return;
    }
    if (!s->drain_closed) {
        // Others learn only bit by bit that this proxy goes away: they are still served, each with a request to go elsewhere, for half
        // of the time; the other half is for what was under way then. From a file (tests, a terminal) nobody has to be waited for.
        if (waited < s->drain_ms / 2 && (connections > 0 || s->opts->mode == RUN_SIDECAR)) {
            timer_set(s->loop, &s->drain_poll, DRAIN_POLL_MS);
            return;
        }
        s->drain_closed = true;
        workers_drain(s->workers, false, false);
        workers_count(s->workers, counted, s); // after that on each worker: who came at the last moment is counted
        return;
    }
    if (connections == 0 || waited >= s->drain_ms) {
        log_info(LOGC_MAIN, 0, "drained", "connections_left=%zu after_ms=%llu", connections, (unsigned long long)waited);
        server_exit(s);
        return;
    }
    timer_set(s->loop, &s->drain_poll, DRAIN_POLL_MS);
}

static void drain_tick(struct timer *t)
{
    struct server *s = container_of(t, struct server, drain_poll);
    workers_count(s->workers, counted, s);
}

static void drain_and_exit(struct server *s)
{
    if (s->draining) {
        return;
    }
    s->draining = true;
    s->drain_started_ms = loop_now_ms(s->loop);
    log_info(LOGC_MAIN, 0, "draining", "limit_ms=%llu", (unsigned long long)s->drain_ms);
    workers_drain(s->workers, false, true);
    timer_set(s->loop, &s->drain_poll, DRAIN_POLL_MS);
}

static void admin_drain_over(struct timer *t)
{
    struct server *s = container_of(t, struct server, admin_drain_end);
    workers_drain(s->workers, s->admin_inbound_only, false);
}

// /drain_listeners: stops accepting and lets connections finish; the process stays. graceful: accepts for the drain time first, and with
// skip_exit for good.
static void admin_drain(void *arg, bool inbound_only, bool graceful, bool skip_exit)
{
    struct server *s = arg;
    workers_drain(s->workers, inbound_only, graceful);
    s->drained_before = s->drained_before || (skip_exit && s->sidecar);
    if (graceful && !skip_exit) {
        s->admin_inbound_only = inbound_only;
        timer_set(s->loop, &s->admin_drain_end, s->drain_ms);
    }
}

static void admin_health(void *arg, bool fail)
{
    ((struct server *)arg)->health_failed = fail;
}

static void on_signal(struct signal_watch *w, int signo)
{
    struct server *s = container_of(w, struct server, signals);
    if (s->exiting) {
        return;
    }
    if (signo == SIGUSR1) {
        access_log_reopen();
    } else if (s->drained_before || (signo == SIGINT && s->draining)) {
        server_exit(s); // asked twice: at once
    } else if (signo == SIGTERM || signo == SIGINT) {
        drain_and_exit(s);
    }
}

static struct snapshot *admin_snapshot(void *arg)
{
    return ((struct server *)arg)->published;
}

static void admin_explain(void *arg, struct http_server_req *q, struct http_server_resp *r)
{
    explain_page(((struct server *)arg)->published, q, r);
}

struct secret_walk {
    void (*fn)(void *arg, const struct admin_secret *s);
    void *arg;
};

static void one_secret(void *arg, const struct config_secret *c)
{
    struct secret_walk *w = arg;
    struct admin_secret a = { .name = c->name, .pem = c->chain_pem, .version = c->version, .is_root = c->is_root,
                              .is_static = c->is_static, .warming = c->warming, .updated_ms = c->updated_ms };
    w->fn(w->arg, &a);
}

static void admin_each_secret(void *arg, void (*fn)(void *a, const struct admin_secret *s), void *a)
{
    struct secret_walk w = { .fn = fn, .arg = a };
    config_each_secret(((struct server *)arg)->config, one_secret, &w);
}

static bool admin_cluster_warming(void *arg, struct str name)
{
    return config_cluster_warming(((struct server *)arg)->config, name);
}

static bool admin_listener_warming(void *arg, struct str name)
{
    return config_listener_warming(((struct server *)arg)->config, name);
}

static int start_admin(struct server *s, struct err *err)
{
    if (s->boot.admin.family == 0) {
        return 0;
    }
    struct admin_deps d = {
        .loop = s->loop,
        .stats = s->stats,
        .xds = s->xds,
        .bootstrap = s->boot.msg,
        .node = s->boot.msg->node,
        .config_path = s->opts->config_path ? s->opts->config_path : "",
        .concurrency = s->concurrency,
        .start_wall_ms = s->start_wall_ms,
        .arg = s,
        .state = server_state_now,
        .snapshot = admin_snapshot,
        .each_secret = admin_each_secret,
        .cluster_warming = admin_cluster_warming,
        .listener_warming = admin_listener_warming,
        .drain = admin_drain,
        .healthcheck_fail = admin_health,
        .quit = server_exit,
        .explain = admin_explain,
    };
    s->admin = admin_new(&s->boot.admin, &d, err);
    return s->admin ? 0 : -EADDRNOTAVAIL;
}

// The bootstrap's text: the file, or --config-yaml.
static int read_bootstrap(struct server *s, struct arena *scratch, struct err *err)
{
    struct str text = str_c(s->opts->config_yaml);
    const char *name = "--config-yaml";
    if (s->opts->config_path) {
        name = s->opts->config_path;
        int rc = file_read(name, BOOTSTRAP_BYTES_MAX, scratch, &text, err);
        if (rc) {
            return rc;
        }
    }
    return bootstrap_parse(text, name, &s->boot, err);
}

static int load_bootstrap(struct server *s, struct err *err)
{
    if (s->opts->mode == RUN_SIDECAR) {
        int rc = sidecar_bootstrap(&s->sidecar, &s->boot, err);
        if (!rc && s->drain_ms == OPTIONS_DRAIN_MS) { // the flag wins over ProxyConfig
            s->drain_ms = sidecar_drain_ms(s->sidecar, s->drain_ms);
        }
        return rc;
    }
    struct arena scratch = { 0 };
    int rc = read_bootstrap(s, &scratch, err);
    arena_fini(&scratch);
    return rc;
}

// Who we are, as Envoy fills it in: tools show the version of a dumped bootstrap.
static void set_user_agent(struct server *s, Envoy__Config__Core__V3__Node *n)
{
    unsigned v[3] = { 0 };
    if (n->user_agent_name[0] || sscanf(REMORA_VERSION, "%u.%u.%u", &v[0], &v[1], &v[2]) != 3) {
        return;
    }
    n->user_agent_name = "remora";
    n->user_agent_version_type_case = ENVOY__CONFIG__CORE__V3__NODE__USER_AGENT_VERSION_TYPE_USER_AGENT_BUILD_VERSION;
    n->user_agent_build_version = pb_new_as(&s->boot.arena, Envoy__Config__Core__V3__BuildVersion, envoy__config__core__v3__build_version);
    n->user_agent_build_version->version = pb_new_as(&s->boot.arena, Envoy__Type__V3__SemanticVersion, envoy__type__v3__semantic_version);
    n->user_agent_build_version->version->major_number = v[0];
    n->user_agent_build_version->version->minor_number = v[1];
    n->user_agent_build_version->version->patch = v[2];
}

// The node, with --service-node and --service-cluster over the bootstrap's, packed for the stream.
static struct str node_bytes(struct server *s)
{
    Envoy__Config__Core__V3__Node *n = s->boot.msg->node;
    if (!n) {
        n = arena_new(&s->boot.arena, Envoy__Config__Core__V3__Node);
        envoy__config__core__v3__node__init(n);
        s->boot.msg->node = n;
    }
    set_user_agent(s, n);
    if (s->opts->service_node) {
        n->id = arena_strdup(&s->boot.arena, s->opts->service_node);
    }
    if (s->opts->service_cluster) {
        n->cluster = arena_strdup(&s->boot.arena, s->opts->service_cluster);
    }
    return pb_pack(&n->base, &s->boot.arena);
}

static bool host_has_ipv6(void)
{
    FILE *f = fopen("/proc/net/if_inet6", "re");
    if (!f) {
        return false;
    }
    char line[256];
    bool found = false;
    while (!found && fgets(line, sizeof(line), f)) {
        found = strncmp(line, "00000000000000000000000000000001", 32) != 0 && strncmp(line, "fe80", 4) != 0;
    }
    fclose(f);
    return found;
}

static int start_config(struct server *s, struct err *err)
{
    struct config_opts co = {
        .loop = s->loop,
        .stats = s->stats,
        .dns = s->dns,
        .publish = publish,
        .arg = s,
        .ipv6 = host_has_ipv6(),
        .node_id = s->boot.msg && s->boot.msg->node ? s->boot.msg->node->id : NULL,
        .node_cluster = s->boot.msg && s->boot.msg->node ? s->boot.msg->node->cluster : NULL,
        .runtime = s->boot.msg ? s->boot.msg->layered_runtime : NULL,
        .validate_only = s->opts->mode == RUN_VALIDATE,
    };
    s->config = config_new(&co);
    struct xds_node node = { .serialized = node_bytes(s) };
    peer_exchange_init(s->boot.msg->node);
    node_labels_init(s->boot.msg->node);
    s->xds = xds_client_new(s->loop, &node, config_sink, s->config);
    config_set_client(s->config, s->xds);
    if (co.validate_only) {
        s->boot.has_ads = false; // looking at a file is no reason to call anybody
    }
    int rc = bootstrap_apply(&s->boot, s->xds, err);
    s->applied_static = rc == 0;
    return rc;
}

static void apply_log_options(const struct options *o)
{
    log_set_level(-1, o->log_level);
    log_set_json(o->log_json);
    struct str rest = str_c(o->component_log_level);
    while (rest.n) {
        struct str item = str_split(&rest, ',');
        struct str name = str_split(&item, ':');
        char nbuf[32], lbuf[32];
        snprintf(nbuf, sizeof(nbuf), "%.*s", STR_FMT(name));
        snprintf(lbuf, sizeof(lbuf), "%.*s", STR_FMT(item));
        int c = log_component_parse(nbuf), l = log_level_parse(lbuf);
        if (c >= 0 && l >= 0) {
            log_set_level(c, (enum log_level)l);
        } else if (l < 0 || o->mode != RUN_SIDECAR) { // Istio's injector names loggers of Envoy in every pod ("misc:error")
            fprintf(stderr, "remora-proxy: --component-log-level: \"%s:%s\" names no component and level of ours\n", nbuf, lbuf);
        }
    }
}

static int server_start(struct server *s, struct err *err)
{
    s->start_wall_ms = clock_wall_ms();
    timer_init(&s->drain_poll, drain_tick);
    timer_init(&s->admin_drain_end, admin_drain_over);
    timer_init(&s->trim, trim_tick);
    s->loop = loop_new(err);
    if (!s->loop || load_bootstrap(s, err)) {
        return -1;
    }
    bootstrap_set_local(&s->boot);
    listener_set_global_limit(s->boot.max_connections ? s->boot.max_connections : UINT64_MAX);
    bool validate = s->opts->mode == RUN_VALIDATE;
    s->concurrency = s->opts->concurrency > 0 ? s->opts->concurrency
                     : s->sidecar               ? sidecar_concurrency(s->sidecar)
                                                : thread_cpu_count();
    s->stats = stats_store_new(s->concurrency + 1);
    s->dns = dns_new(s->loop, err);
    if (!s->dns || (!validate && access_log_start(err))) {
        return -1;
    }
    s->signals.on_signal = on_signal;
    const int signals[] = { SIGTERM, SIGINT, SIGUSR1 };
    struct snapshot *empty = snapshot_clone(NULL);
    empty->home = s->loop;
    s->workers = workers_start(s->loop, s->stats, validate ? 0 : s->concurrency, empty, err);
    snapshot_unref(empty);
    if (!s->workers || signal_watch_start(&s->signals, s->loop, signals, (int)array_len(signals), err)) {
        return -1;
    }
    workers_on_applied(s->workers, update_live, s);
    if (start_config(s, err)) {
        return -1;
    }
    if (validate) {
        return 0;
    }
    if (start_admin(s, err)) {
        return -1;
    }
    return s->sidecar ? sidecar_start(s->sidecar, s->loop, s->config, s->admin, s->stats, err) : 0;
}

static void server_stop(struct server *s)
{
    s->exiting = true;
    timer_cancel(&s->drain_poll);
    timer_cancel(&s->admin_drain_end);
    timer_cancel(&s->trim);
    if (s->config) {
        config_stop(s->config);
    }
    if (s->sidecar) {
        sidecar_free(s->sidecar);
    }
    if (s->admin) {
        admin_free(s->admin);
    }
    if (s->workers) {
        workers_stop(s->workers);
    }
    if (s->xds) {
        xds_client_free(s->xds);
    }
    if (s->loop) {
        loop_turn(s->loop, 0); // errands and snapshots on their way home
    }
    snapshot_unref(s->published);
    if (s->config) {
        config_free(s->config);
    }
    access_log_stop();
    if (s->dns) {
        dns_free(s->dns);
    }
    bootstrap_fini(&s->boot);
    if (s->loop) {
        signal_watch_stop(&s->signals);
        loop_free(s->loop);
    }
    if (s->stats) {
        stats_store_free(s->stats);
    }
    grpc_fence_shutdown();
}

int server_run(const struct options *o)
{
    struct server s = { .opts = o, .drain_ms = o->drain_time_ms };
    struct err err = { 0 };
    signal_block_all();
    apply_log_options(o);
    int rc = server_start(&s, &err);
    if (rc) {
        fprintf(stderr, "remora-proxy: %s\n", err.msg);
    } else if (o->mode == RUN_VALIDATE) {
        printf("configuration '%s' OK\n", o->config_path ? o->config_path : "--config-yaml");
    } else {
        log_info(LOGC_MAIN, 0, "started", "version=%s workers=%d", REMORA_VERSION, s.concurrency);
        loop_run(s.loop);
        log_info(LOGC_MAIN, 0, "exiting", "uptime_s=%llu", (unsigned long long)((clock_wall_ms() - s.start_wall_ms) / 1000));
    }
    server_stop(&s);
    return rc ? 1 : 0;
}

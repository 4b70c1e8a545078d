// SPDX-License-Identifier: Apache-2.0
// Thresholds and intervals of health checks as Envoy has them: an answer that is not wanted makes a host unhealthy at once, a missing answer after
// unhealthy_threshold of them; the first good answer ever makes it healthy at once, later ones after healthy_threshold.
#include "proxy/upstream/monitor.h"

#include <math.h>
#include <stdlib.h>

#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/base/rand.h"
#include "proxy/upstream/outlier.h"
#include "proxy/upstream/probe.h"

enum { STALE_MS = 100 };

struct member { // a host of the present set
    struct cluster_monitor *m;
    struct host *host;            // ref
    const struct endpoint *e;     // in m->set
    struct probe probe;
    struct timer timer;           // next probe
    bool probing, seen;
    uint32_t good, bad;           // in a row
};

struct cluster_monitor {
    struct monitor_opts o;
    struct cluster_cfg *cfg;      // ref
    struct endpoint_set *set;     // ref
    struct map members;           // host pointer → struct member *
    struct timer interval;        // outlier detection
    struct stat_block *outlier_stats, *health_stats; // NULL while not needed
    size_t waiting;               // members without a first result
    bool stale;                   // set was made for a former cfg: its indexes mean other transports
    bool told_ready;
};

bool cluster_monitor_needed(const struct cluster_cfg *cfg)
{
    return cfg->check_count > 0 || cfg->outlier.enabled;
}

static struct str member_key(struct host *const *h)
{
    return str_n(h, sizeof(*h));
}

static const struct health_cfg *check_of(const struct cluster_monitor *m)
{
    return m->cfg && m->cfg->check_count ? &m->cfg->checks[0] : NULL;
}

// ---- ejections ----

static void uneject(struct cluster_monitor *m, struct host *h)
{
    if (host_set_flag(h, HOST_FAILED_OUTLIER, false)) {
        atomic_fetch_sub_explicit(&m->o.shared->ejected, 1, memory_order_relaxed);
        stat_gauge_add(m->outlier_stats, STAT_ID_CLUSTER_OUTLIER_ACTIVE, -1);
        atomic_store_explicit(&h->consecutive_5xx, 0, memory_order_relaxed);
        atomic_store_explicit(&h->consecutive_gateway, 0, memory_order_relaxed);
        atomic_store_explicit(&h->consecutive_local, 0, memory_order_relaxed);
        log_info(LOGC_UPSTREAM, 0, "outlier_host_back", "host=%s", h->text);
    }
}

static bool is_ejected(const struct host *h)
{
    return atomic_load_explicit(&h->flags, memory_order_relaxed) & HOST_FAILED_OUTLIER;
}

static void check_for_return(struct cluster_monitor *m, struct host *h, uint64_t now)
{
    const struct outlier_cfg *o = &m->cfg->outlier;
    unsigned times = atomic_load_explicit(&h->ejections, memory_order_relaxed);
    uint64_t max = o->max_ejection_ms > o->base_ejection_ms ? o->max_ejection_ms : o->base_ejection_ms;
    uint64_t ms = o->base_ejection_ms * (times ? times : 1);
    ms = ms > max ? max : ms;
    // The jitter of one ejection is the same each time we look.
    uint64_t since = atomic_load_explicit(&h->ejected_ms, memory_order_relaxed);
    ms += o->max_ejection_jitter_ms ? (since * 0x9e3779b97f4a7c15ull >> 33) % (o->max_ejection_jitter_ms + 1) : 0;
    if (now >= since + ms) {
        uneject(m, h);
    }
}

struct rate {
    struct host *host;
    double percent;
};

// Success rates of the interval; one kind at a time.
struct rates {
    struct rate *v; // owned
    size_t n;
};

static void take_rate(struct cluster_monitor *m, struct host *h, bool local, struct rates *by_rate, struct rates *by_pct)
{
    const struct outlier_cfg *o = &m->cfg->outlier;
    unsigned total = atomic_exchange_explicit(local ? &h->local_total : &h->rate_total, 0, memory_order_relaxed);
    unsigned good = atomic_exchange_explicit(local ? &h->local_success : &h->rate_success, 0, memory_order_relaxed);
    atomic_int *shown = local ? &h->local_success_rate : &h->success_rate;
    if (total == 0 || (total < o->success_rate_volume && total < o->failure_pct_volume)) {
        atomic_store_explicit(shown, -1, memory_order_relaxed);
        return;
    }
    double percent = 100.0 * (good > total ? total : good) / total;
    atomic_store_explicit(shown, (int)(percent * 10), memory_order_relaxed);
    if (is_ejected(h)) {
        return;
    }
    if (total >= o->success_rate_volume) {
        by_rate->v[by_rate->n++] = (struct rate){ h, percent };
    }
    if (total >= o->failure_pct_volume) {
        by_pct->v[by_pct->n++] = (struct rate){ h, percent };
    }
}

static void judge_rates(struct cluster_monitor *m, bool local)
{
    const struct outlier_cfg *o = &m->cfg->outlier;
    size_t hosts = m->members.count;
    struct rates by_rate = { mem_alloc((hosts + 1) * sizeof(struct rate)), 0 }, by_pct = { mem_alloc((hosts + 1) * sizeof(struct rate)), 0 };
    const struct outlier_place place = { .cfg = m->cfg, .shared = m->o.shared, .stats = m->outlier_stats, .hosts = m->set->count,
                                         .now_ms = loop_now_ms(m->o.loop) };
    for (size_t i = 0; i < m->set->count; i++) {
        take_rate(m, m->set->v[i].host, local, &by_rate, &by_pct);
    }
    if (by_rate.n && hosts >= o->success_rate_min_hosts) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < by_rate.n; i++) {
            sum += by_rate.v[i].percent;
        }
        double mean = sum / (double)by_rate.n;
        for (size_t i = 0; i < by_rate.n; i++) {
            squares += (by_rate.v[i].percent - mean) * (by_rate.v[i].percent - mean);
        }
        double least = mean - o->success_rate_stdev_factor / 1000.0 * sqrt(squares / (double)by_rate.n);
        for (size_t i = 0; i < by_rate.n; i++) {
            if (by_rate.v[i].percent < least) {
                outlier_detected(&place, by_rate.v[i].host, local ? OUTLIER_LOCAL_RATE : OUTLIER_RATE);
            }
        }
    }
    for (size_t i = 0; hosts >= o->failure_pct_min_hosts && i < by_pct.n; i++) {
        if (100 - by_pct.v[i].percent >= o->failure_pct_threshold) {
            outlier_detected(&place, by_pct.v[i].host, local ? OUTLIER_LOCAL_PCT : OUTLIER_PCT);
        }
    }
    free(by_rate.v);
    free(by_pct.v);
}

static void interval_over(struct timer *t)
{
    struct cluster_monitor *m = container_of(t, struct cluster_monitor, interval);
    uint64_t now = loop_now_ms(m->o.loop);
    for (size_t i = 0; i < m->set->count; i++) {
        struct host *h = m->set->v[i].host;
        if (is_ejected(h)) {
            check_for_return(m, h, now);
        }
    }
    judge_rates(m, false);
    if (m->cfg->outlier.split_local_origin) {
        judge_rates(m, true);
    }
    for (size_t i = 0; i < m->set->count; i++) { // a host that stays in for an interval is trusted a step more
        struct host *h = m->set->v[i].host;
        unsigned times = atomic_load_explicit(&h->ejections, memory_order_relaxed);
        if (!is_ejected(h) && times) {
            atomic_store_explicit(&h->ejections, times - 1, memory_order_relaxed);
        }
    }
    timer_set(m->o.loop, t, m->cfg->outlier.interval_ms);
}

// ---- health checks ----

static void first_result(struct cluster_monitor *m, struct host *h)
{
    if (h->checked) {
        return;
    }
    h->checked = true;
    host_set_flag(h, HOST_PENDING_HC, false);
    m->waiting--;
    if (m->waiting == 0 && !m->told_ready) {
        m->told_ready = true;
        m->o.ready(m->o.arg);
    }
}

static bool is_failed(const struct host *h)
{
    return atomic_load_explicit(&h->flags, memory_order_relaxed) & HOST_FAILED_ACTIVE_HC;
}

// true: the state changed.
static bool succeeded(struct member *x)
{
    struct cluster_monitor *m = x->m;
    struct host *h = x->host;
    bool changed = false;
    x->bad = 0;
    stat_inc(m->health_stats, STAT_ID_CLUSTER_HEALTH_SUCCESS);
    if (is_failed(h) && (!h->checked || ++x->good >= check_of(m)->healthy_threshold)) {
        atomic_store_explicit(&h->since_ms, loop_now_ms(m->o.loop), memory_order_relaxed);
        host_set_flag(h, HOST_FAILED_ACTIVE_HC, false);
        stat_gauge_add(m->health_stats, STAT_ID_CLUSTER_HEALTH_HEALTHY, 1);
        log_info(LOGC_UPSTREAM, 0, "health_check_healthy", "cluster=%.*s host=%s first=%d", STR_FMT(m->cfg->name), h->text, !h->checked);
        x->good = 0;
        changed = true;
    } else if (check_of(m)->always_log_success) {
        log_info(LOGC_UPSTREAM, 0, "health_check_success", "cluster=%.*s host=%s", STR_FMT(m->cfg->name), h->text);
    }
    if (!is_failed(h) && !m->cfg->outlier.no_uneject_on_health) {
        uneject(m, h);
    }
    return changed;
}

static bool was_bad(struct member *x, enum probe_result r)
{
    struct cluster_monitor *m = x->m;
    struct host *h = x->host;
    bool at_once = r == PROBE_BAD || r == PROBE_OTHER, changed = false;
    x->good = 0;
    stat_inc(m->health_stats, STAT_ID_CLUSTER_HEALTH_FAILURE);
    if (r == PROBE_NETWORK) {
        stat_inc(m->health_stats, STAT_ID_CLUSTER_HEALTH_NETWORK_FAILURE);
    } else if (r == PROBE_OTHER) {
        stat_inc(m->health_stats, STAT_ID_CLUSTER_HEALTH_VERIFY_CLUSTER);
    }
    if (!is_failed(h) && (at_once || ++x->bad >= check_of(m)->unhealthy_threshold)) {
        host_set_flag(h, HOST_FAILED_ACTIVE_HC, true);
        stat_gauge_add(m->health_stats, STAT_ID_CLUSTER_HEALTH_HEALTHY, -1);
        x->bad = 0;
        changed = true;
    }
    if (changed || !h->checked || check_of(m)->always_log_failure) {
        log_info(LOGC_UPSTREAM, 0, changed ? "health_check_unhealthy" : "health_check_failure", "cluster=%.*s host=%s network=%d first=%d",
                 STR_FMT(m->cfg->name), h->text, r == PROBE_NETWORK, !h->checked);
    }
    return changed;
}

static uint64_t next_in(const struct member *x, bool changed)
{
    const struct health_cfg *c = check_of(x->m);
    bool healthy = !is_failed(x->host);
    uint64_t ms;
    if (!atomic_load_explicit(&x->m->o.shared->used_ms, memory_order_relaxed)) {
        ms = healthy ? c->no_traffic_healthy_ms : c->no_traffic_ms;
    } else if (healthy) {
        ms = changed ? c->healthy_edge_ms : c->interval_ms;
    } else {
        ms = changed ? c->unhealthy_edge_ms : c->unhealthy_ms;
    }
    ms += c->jitter_percent ? rand_below(ms * c->jitter_percent / 100 + 1) : 0;
    return ms + (c->jitter_ms ? rand_below(c->jitter_ms + 1) : 0);
}

static void member_free(struct member *x)
{
    timer_cancel(&x->timer);
    probe_fini(&x->probe);
    host_unref(x->host);
    loop_free_later(x->m->o.loop, x);
}

static void leave(struct cluster_monitor *m, struct member *x)
{
    struct host *h = x->host;
    uneject(m, h);
    if (x->probing && !is_failed(h)) {
        stat_gauge_add(m->health_stats, STAT_ID_CLUSTER_HEALTH_HEALTHY, -1);
    }
    if (x->probing && !h->checked) {
        m->waiting--;
    }
    h->checked = false; // when it comes back, it is new
    host_set_flag(h, HOST_REMOVED, false);
    host_set_flag(h, HOST_PENDING_HC, false);
    map_del(&m->members, member_key(&x->host));
    member_free(x);
}

// A host that discovery no longer has, and that was kept for its health, has lost it.
static void drop_removed(struct member *gone)
{
    struct cluster_monitor *m = gone->m;
    struct endpoint_set *next = endpoint_set_new(), *old = m->set;
    endpoint_set_copy(next, old, gone->host);
    endpoint_set_unref(m->set);
    m->set = endpoint_set_ref(next);
    for (size_t i = 0; i < next->count; i++) {
        struct member *x = map_get(&m->members, member_key(&next->v[i].host));
        if (x) {
            x->e = &next->v[i];
        }
    }
    leave(m, gone);
    m->o.changed(m->o.arg, next);
}

static void probed(struct probe *p, enum probe_result r)
{
    struct member *x = container_of(p, struct member, probe);
    bool changed = r == PROBE_OK ? succeeded(x) : was_bad(x, r);
    first_result(x->m, x->host);
    if (r != PROBE_OK && is_failed(x->host) && (atomic_load_explicit(&x->host->flags, memory_order_relaxed) & HOST_REMOVED)) {
        drop_removed(x);
        return;
    }
    timer_set(x->m->o.loop, &x->timer, next_in(x, changed));
}

// Cluster.transport_socket_matches of the endpoint.
static const struct transport_cfg *transport_for(const struct cluster_cfg *cfg, const struct endpoint *e)
{
    return e->transport < cfg->transport_count ? &cfg->transports[e->transport] : &cfg->default_transport;
}

static void probe_now(struct timer *t)
{
    struct member *x = container_of(t, struct member, timer);
    if (x->m->stale) { // a probe over the wrong transport would say nothing, and might say it in the clear
        timer_set(x->m->o.loop, t, STALE_MS);
        return;
    }
    const struct cluster_cfg *cfg = x->m->cfg;
    const struct health_cfg *c = check_of(x->m);
    const struct endpoint_more *own = x->e->more;
    struct probe_target target = { .check = c, .cluster = cfg, .transport = transport_for(cfg, x->e),
                                   .addr = own && own->check_addr.family ? own->check_addr : x->host->addr };
    target.authority = own && own->check_host.n ? own->check_host : c->kind == HEALTH_GRPC ? c->grpc_authority : c->host;
    target.authority = target.authority.n ? target.authority : cfg->name;
    if (own && own->check_port) {
        target.addr.port = own->check_port;
    } else if (c->alt_port) {
        target.addr.port = (uint16_t)c->alt_port;
    }
    stat_inc(x->m->health_stats, STAT_ID_CLUSTER_HEALTH_ATTEMPT);
    probe_run(&x->probe, &target);
}

// ---- members ----

// From now on x is probed. A host never checked before is out of use until its first result.
static void start_probing(struct member *x)
{
    struct cluster_monitor *m = x->m;
    const struct health_cfg *c = check_of(m);
    x->probing = true;
    if (!x->host->checked) {
        m->waiting++;
        host_set_flag(x->host, HOST_FAILED_ACTIVE_HC, true);
        host_set_flag(x->host, HOST_PENDING_HC, true);
    } else if (!is_failed(x->host)) {
        stat_gauge_add(m->health_stats, STAT_ID_CLUSTER_HEALTH_HEALTHY, 1);
    }
    timer_set(m->o.loop, &x->timer, c->initial_jitter_ms ? rand_below(c->initial_jitter_ms + 1) : 0);
}

static void stop_probing(struct member *x)
{
    if (!x->probing) {
        return;
    }
    x->probing = false;
    timer_cancel(&x->timer);
    probe_stop(&x->probe);
    x->m->waiting -= !x->host->checked;
    if (!is_failed(x->host)) {
        stat_gauge_add(x->m->health_stats, STAT_ID_CLUSTER_HEALTH_HEALTHY, -1);
    }
}

// Without checks a host is not held to what the last one said.
static void forget_health(struct host *h)
{
    host_set_flag(h, HOST_FAILED_ACTIVE_HC, false);
    host_set_flag(h, HOST_PENDING_HC, false);
    h->checked = false;
}

static void follow(struct member *x, bool new_checks)
{
    bool wanted = check_of(x->m) && !(x->e->more && x->e->more->check_off);
    if (x->probing && (!wanted || new_checks)) {
        stop_probing(x);
    }
    if (!wanted) {
        forget_health(x->host);
    } else if (!x->probing) {
        start_probing(x);
    }
}

static void join(struct cluster_monitor *m, const struct endpoint *e)
{
    struct member *x = map_get(&m->members, member_key((struct host *const *)&e->host));
    if (!x) {
        x = mem_new(struct member);
        x->m = m;
        x->host = host_ref(e->host);
        probe_init(&x->probe, m->o.loop, probed);
        timer_init(&x->timer, probe_now);
        map_put(&m->members, member_key(&x->host), x);
    }
    x->e = e;
    x->seen = true;
    follow(x, false);
}

// Adds to set those hosts of the present one that discovery no longer has but whose checks succeed.
static void keep_healthy(struct cluster_monitor *m, struct endpoint_set *set)
{
    if (!check_of(m) || m->cfg->ignore_health_on_removal || !m->set) {
        return;
    }
    struct map named = { 0 };
    for (size_t i = 0; i < set->count; i++) {
        map_put(&named, member_key((struct host *const *)&set->v[i].host), m);
        host_set_flag(set->v[i].host, HOST_REMOVED, false);
    }
    for (size_t i = 0; i < m->set->count; i++) {
        const struct endpoint *e = &m->set->v[i];
        struct member *x = map_get(&m->members, member_key((struct host *const *)&e->host));
        if (x && x->probing && !is_failed(e->host) && !map_get(&named, member_key((struct host *const *)&e->host))) {
            host_set_flag(e->host, HOST_REMOVED, true);
            endpoint_set_add(set, e);
        }
    }
    map_fini(&named);
}

struct endpoint_set *cluster_monitor_set(struct cluster_monitor *m, struct endpoint_set *set)
{
    keep_healthy(m, set);
    struct endpoint_set *old = m->set;
    m->set = endpoint_set_ref(set);
    m->stale = false;
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&m->members, &i));) {
        ((struct member *)e->val)->seen = false;
    }
    for (size_t i = 0; i < set->count; i++) {
        join(m, &set->v[i]);
    }
    for (size_t i = 0; (e = map_next(&m->members, &i));) {
        if (!((struct member *)e->val)->seen) {
            leave(m, e->val);
        }
    }
    endpoint_set_unref(old);
    return set;
}

bool cluster_monitor_ready(const struct cluster_monitor *m)
{
    return m->waiting == 0;
}

// ---- life ----

struct cluster_monitor *cluster_monitor_new(const struct monitor_opts *o)
{
    struct cluster_monitor *m = mem_new(struct cluster_monitor);
    m->o = *o;
    timer_init(&m->interval, interval_over);
    return m;
}

static void hold_stats(struct cluster_monitor *m, struct stat_block **b, enum stat_scope scope, bool needed)
{
    if (needed && !*b) {
        *b = stats_scope_get(m->o.stats, scope, m->cfg->stat_name.n ? m->cfg->stat_name : m->cfg->name);
        stats_scope_hold(*b);
    }
}

void cluster_monitor_use(struct cluster_monitor *m, struct cluster_cfg *cfg)
{
    struct cluster_cfg *old = m->cfg;
    m->cfg = cluster_cfg_ref(cfg);
    m->stale = old != NULL;
    hold_stats(m, &m->outlier_stats, STAT_CLUSTER_OUTLIER, cfg->outlier.enabled);
    hold_stats(m, &m->health_stats, STAT_CLUSTER_HEALTH, cfg->check_count > 0);
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&m->members, &i));) {
        struct member *x = e->val;
        follow(x, true); // probes refer to the old configuration
        if (!cfg->outlier.enabled) {
            uneject(m, x->host);
        }
    }
    if (cfg->outlier.enabled) {
        m->set = m->set ? m->set : endpoint_set_new();
        if (!timer_pending(&m->interval) || !old || old->outlier.interval_ms != cfg->outlier.interval_ms) { // updates must not put it off
            timer_set(m->o.loop, &m->interval, cfg->outlier.interval_ms);
        }
    } else {
        timer_cancel(&m->interval);
    }
    cluster_cfg_unref(old);
}

void cluster_monitor_free(struct cluster_monitor *m)
{
    if (!m) {
        return;
    }
    timer_cancel(&m->interval);
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&m->members, &i));) {
        struct member *x = e->val;
        stop_probing(x);
        forget_health(x->host);
        leave(m, x);
    }
    map_fini(&m->members);
    endpoint_set_unref(m->set);
    cluster_cfg_unref(m->cfg);
    stats_scope_release(m->outlier_stats);
    stats_scope_release(m->health_stats);
    free(m);
}

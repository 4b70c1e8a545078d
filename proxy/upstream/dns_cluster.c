// SPDX-License-Identifier: Apache-2.0
// STRICT_DNS and LOGICAL_DNS: each name is asked again by its own clock; the set is rebuilt when an answer differs. An answer that fails keeps
// the addresses known before; "no such name" empties a STRICT_DNS cluster and changes nothing in a LOGICAL_DNS one (as Envoy). A LOGICAL_DNS
// cluster has one host: the first address, kept as long as it is answered, with DNS_LOOKUP_ALL the others beside it (RFC 8305).
#include <errno.h>
#include <stdlib.h>

#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/base/rand.h"
#include "lib/net/race.h"
#include "proxy/upstream/discovery.h"

enum { TTL_MIN_MS = 1000 };

struct dns_name {
    struct dns_cluster *cluster;
    const struct lb_endpoint_cfg *cfg; // in cluster->cfg
    struct dns_query *query;           // outstanding, or NULL
    struct timer timer;
    struct addr *addrs; // owned
    size_t count;
    bool answered;
    uint32_t failures; // in a row
};

struct dns_cluster {
    struct loop *loop;
    struct dns *dns;
    struct dns *own;          // owned: typed_dns_resolver_config.resolvers; NULL = dns is the process's
    struct host_table *table; // borrowed
    struct cluster_cfg *cfg;  // ref
    void (*changed)(void *arg, struct endpoint_set *set);
    void *arg;
    struct dns_name *names; // those endpoints that need resolving
    size_t name_count;
    struct stat_block *stats; // STAT_CLUSTER_LB, NULL = not counted
    struct loop_task first; // the first set when nothing has to be resolved
};

static void publish(struct dns_cluster *d)
{
    size_t n = 0, k = 0;
    for (size_t i = 0; i < d->cfg->endpoint_count; i++) {
        n += d->cfg->endpoints[i].addr.family != 0;
    }
    for (size_t i = 0; i < d->name_count; i++) {
        n += d->names[i].count;
    }
    struct lb_endpoint_cfg *v = mem_alloc((n ? n : 1) * sizeof(*v));
    size_t next_name = 0;
    for (size_t i = 0; i < d->cfg->endpoint_count; i++) {
        if (d->cfg->endpoints[i].addr.family != 0) {
            v[k++] = d->cfg->endpoints[i];
            continue;
        }
        const struct dns_name *name = &d->names[next_name++];
        if (d->cfg->type == CLUSTER_LOGICAL_DNS && name->count) {
            v[k] = d->cfg->endpoints[i];
            v[k].addr = name->addrs[0];
            v[k].more = name->addrs + 1;
            v[k++].more_count = name->count - 1;
            continue;
        }
        for (size_t j = 0; j < name->count; j++) {
            v[k] = d->cfg->endpoints[i];
            v[k++].addr = name->addrs[j];
        }
    }
    struct endpoint_set *set = endpoint_set_build(d->table, d->cfg, v, k);
    free(v);
    d->changed(d->arg, set);
}

static bool all_answered(const struct dns_cluster *d)
{
    for (size_t i = 0; i < d->name_count; i++) {
        if (!d->names[i].answered) {
            return false;
        }
    }
    return true;
}

static int addr_order(const void *a, const void *b)
{
    const struct addr *x = a, *y = b;
    return x->family != y->family ? (int)x->family - (int)y->family : memcmp(x->ip, y->ip, sizeof(x->ip));
}

// LOGICAL_DNS: the present address first as long as it is in the answer; the rest in a stable order, or left out.
static size_t choose(const struct dns_name *n, struct addr *v, size_t count)
{
    size_t first = 0;
    for (size_t i = 1; i < count && n->count && !addr_eq(&v[first], &n->addrs[0]); i++) {
        first = addr_eq(&v[i], &n->addrs[0]) ? i : first;
    }
    struct addr a = v[first];
    v[first] = v[0];
    v[0] = a;
    if (n->cluster->cfg->dns_lookup != DNS_LOOKUP_ALL) {
        return 1;
    }
    qsort(v + 1, count - 1, sizeof(*v), addr_order);
    return count > RACE_MAX ? RACE_MAX : count;
}

// Takes the answer; whether the addresses differ. Order does not count: resolvers rotate.
static bool take_answer(struct dns_name *n, const struct addr *addrs, size_t count)
{
    struct addr *v = mem_alloc((count ? count : 1) * sizeof(*v));
    for (size_t i = 0; i < count; i++) {
        v[i] = addrs[i];
        v[i].port = n->cfg->port;
    }
    if (n->cluster->cfg->type == CLUSTER_LOGICAL_DNS && count) {
        count = choose(n, v, count);
    } else {
        qsort(v, count, sizeof(*v), addr_order);
    }
    bool same = count == n->count;
    for (size_t i = 0; i < count && same; i++) {
        same = addr_eq(&v[i], &n->addrs[i]);
    }
    free(n->addrs);
    n->addrs = v;
    n->count = count;
    return !same;
}

static void resolve(struct dns_name *n);

static void resolve_again(struct timer *t)
{
    resolve(container_of(t, struct dns_name, timer));
}

static uint64_t next_in(struct dns_name *n, bool failed, uint32_t ttl_s)
{
    const struct cluster_cfg *cfg = n->cluster->cfg;
    uint64_t ms = cfg->dns_refresh_ms;
    if (failed && cfg->dns_fail_base_ms) { // exponential, with full jitter above the base
        ms = cfg->dns_fail_base_ms << (n->failures < 20 ? n->failures : 20);
        ms = ms > cfg->dns_fail_max_ms ? cfg->dns_fail_max_ms : ms;
        n->failures++;
        return cfg->dns_fail_base_ms + rand_below(ms - cfg->dns_fail_base_ms + 1);
    }
    if (!failed && cfg->respect_dns_ttl && ttl_s) {
        ms = (uint64_t)ttl_s * 1000 < TTL_MIN_MS ? TTL_MIN_MS : (uint64_t)ttl_s * 1000;
    }
    return ms + (cfg->dns_jitter_ms ? rand_below(cfg->dns_jitter_ms + 1) : 0);
}

static void answered(void *arg, int status, const struct addr *addrs, int count, uint32_t ttl_s)
{
    struct dns_name *n = arg;
    struct dns_cluster *d = n->cluster;
    n->query = NULL;
    bool differs = false, none = status == -ENOENT, failed = status != 0 && !none;
    if (failed) {
        stat_inc(d->stats, STAT_ID_CLUSTER_LB_UPDATE_FAILURE);
        log_warn(LOGC_DNS, 0, "resolve_failed", "cluster=%.*s name=%.*s code=%d", STR_FMT(d->cfg->name), STR_FMT(n->cfg->host_name), status);
    } else {
        n->failures = 0;
        stat_inc(d->stats, none ? STAT_ID_CLUSTER_LB_UPDATE_EMPTY : STAT_ID_CLUSTER_LB_UPDATE_SUCCESS);
        if (!none || d->cfg->type == CLUSTER_STRICT_DNS) {
            differs = take_answer(n, addrs, status == 0 && count > 0 ? (size_t)count : 0);
        }
        if (!differs) {
            stat_inc(d->stats, STAT_ID_CLUSTER_LB_UPDATE_NO_REBUILD);
        }
    }
    bool was_complete = all_answered(d);
    n->answered = true;
    timer_set(d->loop, &n->timer, next_in(n, failed, ttl_s));
    if (all_answered(d) && (differs || !was_complete)) {
        publish(d); // may free d
    }
}

static enum dns_family family_of(enum dns_lookup l)
{
    switch (l) {
    case DNS_LOOKUP_AUTO:
        return DNS_AUTO;
    case DNS_LOOKUP_V4:
        return DNS_V4_ONLY;
    case DNS_LOOKUP_V6:
        return DNS_V6_ONLY;
    case DNS_LOOKUP_V4_PREFERRED:
        return DNS_V4_PREFERRED;
    case DNS_LOOKUP_ALL:
        return DNS_ALL;
    }
    return DNS_AUTO;
}

static void resolve(struct dns_name *n)
{
    stat_inc(n->cluster->stats, STAT_ID_CLUSTER_LB_UPDATE_ATTEMPT);
    n->query = dns_resolve(n->cluster->dns, n->cfg->host_name, family_of(n->cluster->cfg->dns_lookup), answered, n);
}

static void first_set(struct loop_task *t)
{
    publish(container_of(t, struct dns_cluster, first));
}

struct dns_cluster *dns_cluster_new(struct loop *l, struct dns *dns, struct host_table *t, struct cluster_cfg *cfg,
                                    void (*changed)(void *arg, struct endpoint_set *set), void *arg)
{
    struct dns_cluster *d = mem_new(struct dns_cluster);
    *d = (struct dns_cluster){ .loop = l, .dns = dns, .table = t, .cfg = cluster_cfg_ref(cfg), .changed = changed, .arg = arg };
    loop_task_init(&d->first, first_set);
    if (cfg->dns_servers.n) {
        struct err err = { 0 };
        char *servers = str_dup(cfg->dns_servers);
        d->own = dns_new(l, &err);
        if (d->own && !dns_set_servers(d->own, servers, &err)) {
            d->dns = d->own;
        } else { // out of memory; proxy/config has read the addresses
            log_error(LOGC_DNS, 0, "resolver_not_started", "cluster=%.*s reason=\"%s\"", STR_FMT(cfg->name), err.msg);
        }
        free(servers);
    }
    d->names = mem_zalloc((cfg->endpoint_count ? cfg->endpoint_count : 1) * sizeof(*d->names));
    for (size_t i = 0; i < cfg->endpoint_count; i++) {
        if (cfg->endpoints[i].addr.family == 0) {
            struct dns_name *n = &d->names[d->name_count++];
            n->cluster = d;
            n->cfg = &cfg->endpoints[i];
            timer_init(&n->timer, resolve_again);
        }
    }
    for (size_t i = 0; i < d->name_count; i++) {
        resolve(&d->names[i]);
    }
    if (d->name_count == 0) {
        loop_defer(l, &d->first);
    }
    return d;
}

void dns_cluster_count(struct dns_cluster *d, struct stats_shard *shard)
{
    d->stats = stats_scope_get(shard, STAT_CLUSTER_LB, d->cfg->stat_name);
    stats_scope_hold(d->stats);
    stat_add(d->stats, STAT_ID_CLUSTER_LB_UPDATE_ATTEMPT, d->name_count); // those that dns_cluster_new began
}

void dns_cluster_free(struct dns_cluster *d)
{
    if (!d) {
        return;
    }
    stats_scope_release(d->stats);
    for (size_t i = 0; i < d->name_count; i++) {
        timer_cancel(&d->names[i].timer);
        if (d->names[i].query) {
            dns_cancel(d->names[i].query);
        }
        free(d->names[i].addrs);
    }
    loop_task_cancel(&d->first);
    dns_free(d->own);
    free(d->names);
    cluster_cfg_unref(d->cfg);
    free(d);
}

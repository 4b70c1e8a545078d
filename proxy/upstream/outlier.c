// SPDX-License-Identifier: Apache-2.0
// Outlier detection (cluster.v3.OutlierDetection), the workers' half: counters of consecutive failures are the host's, shared by all workers,
// and the worker whose answer reached a limit ejects. What happens by time (hosts come back, success rates are compared) is the control thread's:
// monitor.c.
//
// Beside that, and always on: a host that refuses or breaks connections is avoided for a moment, longer each time in a row (balancer.c).
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/rand.h"
#include "proxy/upstream/outlier.h"

enum { AVOID_FIRST_MS = 50, AVOID_MAX_MS = 1000 };

static const struct {
    enum stat_any detected, enforced;
    const char *name;
} kinds[] = {
    [OUTLIER_5XX] = { STAT_ID_CLUSTER_OUTLIER_DETECTED_5XX, STAT_ID_CLUSTER_OUTLIER_ENFORCED_5XX, "consecutive_5xx" },
    [OUTLIER_GATEWAY] = { STAT_ID_CLUSTER_OUTLIER_DETECTED_GATEWAY, STAT_ID_CLUSTER_OUTLIER_ENFORCED_GATEWAY, "consecutive_gateway_failure" },
    [OUTLIER_LOCAL] = { STAT_ID_CLUSTER_OUTLIER_DETECTED_LOCAL, STAT_ID_CLUSTER_OUTLIER_ENFORCED_LOCAL, "consecutive_local_origin_failure" },
    [OUTLIER_RATE] = { STAT_ID_CLUSTER_OUTLIER_DETECTED_RATE, STAT_ID_CLUSTER_OUTLIER_ENFORCED_RATE, "success_rate" },
    [OUTLIER_LOCAL_RATE] = { STAT_ID_CLUSTER_OUTLIER_DETECTED_LOCAL_RATE, STAT_ID_CLUSTER_OUTLIER_ENFORCED_LOCAL_RATE,
                             "local_origin_success_rate" },
    [OUTLIER_PCT] = { STAT_ID_CLUSTER_OUTLIER_DETECTED_PCT, STAT_ID_CLUSTER_OUTLIER_ENFORCED_PCT, "failure_percentage" },
    [OUTLIER_LOCAL_PCT] = { STAT_ID_CLUSTER_OUTLIER_DETECTED_LOCAL_PCT, STAT_ID_CLUSTER_OUTLIER_ENFORCED_LOCAL_PCT,
                            "local_origin_failure_percentage" },
};

static uint32_t enforcing(const struct outlier_cfg *o, enum outlier_kind k)
{
    const uint32_t percent[] = {
        [OUTLIER_5XX] = o->enforcing_5xx,
        [OUTLIER_GATEWAY] = o->enforcing_gateway,
        [OUTLIER_LOCAL] = o->enforcing_local_origin,
        [OUTLIER_RATE] = o->enforcing_success_rate,
        [OUTLIER_LOCAL_RATE] = o->enforcing_local_success_rate,
        [OUTLIER_PCT] = o->enforcing_failure_pct,
        [OUTLIER_LOCAL_PCT] = o->enforcing_local_failure_pct,
    };
    return percent[k];
}

// One more may go only if max_ejection_percent still holds with it, or if it is the first and always_eject_one_host is set.
static bool take_place(const struct outlier_cfg *o, struct cluster_shared *s, size_t hosts)
{
    unsigned before = atomic_fetch_add_explicit(&s->ejected, 1, memory_order_relaxed);
    if (((uint64_t)before + 1) * 100 <= (uint64_t)o->max_ejection_percent * hosts || (o->always_eject_one && before == 0)) {
        return true;
    }
    atomic_fetch_sub_explicit(&s->ejected, 1, memory_order_relaxed);
    return false;
}

void outlier_detected(const struct outlier_place *p, struct host *h, enum outlier_kind k)
{
    const struct outlier_cfg *o = &p->cfg->outlier;
    if (atomic_load_explicit(&h->flags, memory_order_relaxed) & HOST_FAILED_OUTLIER) {
        return;
    }
    stat_inc(p->stats, kinds[k].detected);
    if (rand_below(100) >= enforcing(o, k)) {
        return;
    }
    if (!take_place(o, p->shared, p->hosts)) {
        stat_inc(p->stats, STAT_ID_CLUSTER_OUTLIER_OVERFLOW);
        return;
    }
    // The time is there before the flag: the control thread looks at it when it sees the flag, a moment early at worst.
    atomic_store_explicit(&h->ejected_ms, p->now_ms, memory_order_relaxed);
    if (!host_set_flag(h, HOST_FAILED_OUTLIER, true)) { // another worker was faster
        atomic_fetch_sub_explicit(&p->shared->ejected, 1, memory_order_relaxed);
        return;
    }
    uint64_t max = o->max_ejection_ms > o->base_ejection_ms ? o->max_ejection_ms : o->base_ejection_ms;
    if (o->base_ejection_ms * atomic_load_explicit(&h->ejections, memory_order_relaxed) < max) {
        atomic_fetch_add_explicit(&h->ejections, 1, memory_order_relaxed);
    }
    stat_inc(p->stats, STAT_ID_CLUSTER_OUTLIER_ENFORCED_TOTAL);
    stat_inc(p->stats, kinds[k].enforced);
    stat_gauge_add(p->stats, STAT_ID_CLUSTER_OUTLIER_ACTIVE, 1);
    log_info(LOGC_UPSTREAM, 0, "outlier_host_ejected", "cluster=%.*s host=%s why=%s", STR_FMT(p->cfg->name), h->text, kinds[k].name);
}

// One more failure of a kind; at the limit the count begins again.
static void failed(struct cluster_worker *cw, struct host *h, atomic_uint *n, uint32_t limit, enum outlier_kind k)
{
    if (limit == 0 || atomic_fetch_add_explicit(n, 1, memory_order_relaxed) + 1 != limit) {
        return;
    }
    atomic_store_explicit(n, 0, memory_order_relaxed);
    const struct outlier_place p = { .cfg = cw->snap->cfg, .shared = cluster_shared_of(cw), .stats = cw->outlier_stats,
                                     .hosts = cw->snap->endpoints->count, .now_ms = loop_now_ms(cw->worker->loop) };
    outlier_detected(&p, h, k);
}

// Most hosts have nothing to forget: look before writing a line that all workers share.
static void forget(atomic_uint *n)
{
    if (atomic_load_explicit(n, memory_order_relaxed) != 0) {
        atomic_store_explicit(n, 0, memory_order_relaxed);
    }
}

static void tally(atomic_uint *total, atomic_uint *success, bool good)
{
    atomic_fetch_add_explicit(total, 1, memory_order_relaxed);
    if (good) {
        atomic_fetch_add_explicit(success, 1, memory_order_relaxed);
    }
}

// Attempts that fail at about the same time count as one.
static void avoid(struct host *h, uint64_t now_ms)
{
    if (now_ms < atomic_load_explicit(&h->refused_until_ms, memory_order_relaxed)) {
        return;
    }
    unsigned row = atomic_load_explicit(&h->refused_row, memory_order_relaxed);
    uint64_t ms = row < 5 ? (uint64_t)AVOID_FIRST_MS << row : AVOID_MAX_MS;
    atomic_store_explicit(&h->refused_row, row < 5 ? row + 1 : row, memory_order_relaxed);
    atomic_store_explicit(&h->refused_until_ms, now_ms + ms, memory_order_relaxed);
}

static void no_longer_avoid(struct host *h)
{
    if (atomic_load_explicit(&h->refused_until_ms, memory_order_relaxed) != 0) {
        atomic_store_explicit(&h->refused_until_ms, 0, memory_order_relaxed);
        atomic_store_explicit(&h->refused_row, 0, memory_order_relaxed);
    }
}

// What reached the host, or came from it: a status. Failures on the way count as 503 where they are not split off.
static void external(struct cluster_worker *cw, struct host *h, const struct outlier_cfg *o, int status)
{
    bool good = status < 500;
    tally(&h->rate_total, &h->rate_success, good);
    if (good) {
        forget(&h->consecutive_5xx);
        forget(&h->consecutive_gateway);
        return;
    }
    if (status >= 502 && status <= 504) {
        failed(cw, h, &h->consecutive_gateway, o->consecutive_gateway, OUTLIER_GATEWAY);
    } else {
        forget(&h->consecutive_gateway);
    }
    failed(cw, h, &h->consecutive_5xx, o->consecutive_5xx, OUTLIER_5XX);
}

void outlier_result(struct cluster_worker *cw, struct host *h, int status, bool local_failure)
{
    const struct outlier_cfg *o = &cw->snap->cfg->outlier;
    if (status == 0 && !local_failure) {
        return;
    }
    if (local_failure) {
        avoid(h, loop_now_ms(cw->worker->loop));
    } else {
        no_longer_avoid(h);
    }
    if (!o->enabled) {
        return;
    }
    if (!o->split_local_origin) {
        external(cw, h, o, local_failure ? 503 : status);
        return;
    }
    tally(&h->local_total, &h->local_success, !local_failure);
    if (local_failure) {
        failed(cw, h, &h->consecutive_local, o->consecutive_local_origin, OUTLIER_LOCAL);
    } else {
        forget(&h->consecutive_local);
        external(cw, h, o, status);
    }
}

// SPDX-License-Identifier: Apache-2.0
// Outlier detection by consecutive failures (cluster.v3.OutlierDetection). Counters are the host's, shared by all workers; the worker whose
// answer reached a limit ejects, and its timer takes the host back. Success rate and failure percentage are not built: istiod sends them
// with enforcing 0.
#include <stdlib.h>

#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/base/rand.h"
#include "proxy/upstream/internal.h"

struct ejection { // a host this worker has ejected
    struct list link;
    struct timer timer;
    struct host *host; // ref
    struct loop *loop;
};

static void take_back(struct ejection *x)
{
    host_set_flag(x->host, HOST_FAILED_OUTLIER, false);
    atomic_store_explicit(&x->host->unejected_ms, loop_now_ms(x->loop), memory_order_relaxed);
    timer_cancel(&x->timer);
    list_del(&x->link);
    log_info(LOGC_UPSTREAM, 0, "outlier_host_back", "host=%s", x->host->text);
    host_unref(x->host);
    free(x);
}

static void ejection_over(struct timer *t)
{
    take_back(container_of(t, struct ejection, timer));
}

void outlier_fini(struct upstream *u)
{
    while (!list_empty(&u->ejections)) {
        take_back(list_entry(u->ejections.next, struct ejection, link));
    }
}

// One more may go only if max_ejection_percent still holds with it.
static bool may_eject(const struct cluster_worker *cw)
{
    const struct endpoint_set *set = cw->snap->endpoints;
    uint64_t ejected = 1;
    for (size_t i = 0; i < set->count; i++) {
        ejected += (atomic_load_explicit(&set->v[i].host->flags, memory_order_relaxed) & HOST_FAILED_OUTLIER) != 0;
    }
    return ejected * 100 <= (uint64_t)cw->snap->cfg->outlier.max_ejection_percent * set->count;
}

static void eject(struct cluster_worker *cw, struct host *h, const char *why)
{
    const struct outlier_cfg *o = &cw->snap->cfg->outlier;
    if (!may_eject(cw) || !host_set_flag(h, HOST_FAILED_OUTLIER, true)) {
        return;
    }
    struct upstream *u = upstream_of(cw->worker);
    uint64_t now = loop_now_ms(cw->worker->loop), back = atomic_load_explicit(&h->unejected_ms, memory_order_relaxed);
    // The multiplier falls by one for each interval the host stayed in.
    unsigned before = atomic_load_explicit(&h->ejections, memory_order_relaxed);
    uint64_t good = back && o->interval_ms ? (now - back) / o->interval_ms : 0;
    unsigned times = 1 + (before > good ? before - (unsigned)good : 0);
    atomic_store_explicit(&h->ejections, times, memory_order_relaxed);
    uint64_t ms = o->base_ejection_ms * times, max = o->max_ejection_ms > o->base_ejection_ms ? o->max_ejection_ms : o->base_ejection_ms;
    ms = ms > max ? max : ms;
    struct ejection *x = mem_new(struct ejection);
    x->host = host_ref(h);
    x->loop = cw->worker->loop;
    list_add_tail(&u->ejections, &x->link);
    timer_init(&x->timer, ejection_over);
    timer_set(x->loop, &x->timer, ms);
    log_info(LOGC_UPSTREAM, 0, "outlier_host_ejected", "cluster=%.*s host=%s why=%s ms=%lu", STR_FMT(cw->name), h->text, why,
             (unsigned long)ms);
}

// One more failure of a kind; at the limit the count begins again.
static void failed(struct cluster_worker *cw, struct host *h, atomic_uint *n, uint32_t limit, uint32_t enforcing, const char *why)
{
    if (limit == 0 || atomic_fetch_add_explicit(n, 1, memory_order_relaxed) + 1 != limit) {
        return;
    }
    atomic_store_explicit(n, 0, memory_order_relaxed);
    if (rand_below(100) < enforcing) {
        eject(cw, h, why);
    }
}

// Most hosts have nothing to forget: look before writing a line that all workers share.
static void forget(atomic_uint *n)
{
    if (atomic_load_explicit(n, memory_order_relaxed) != 0) {
        atomic_store_explicit(n, 0, memory_order_relaxed);
    }
}

void outlier_result(struct cluster_worker *cw, struct host *h, int status, bool local_failure)
{
    const struct outlier_cfg *o = &cw->snap->cfg->outlier;
    if (!o->enabled || (status == 0 && !local_failure)) {
        return;
    }
    if (local_failure && o->split_local_origin) {
        failed(cw, h, &h->consecutive_local, o->consecutive_local_origin, o->enforcing_local_origin, "consecutive_local_origin_failure");
        return;
    }
    forget(&h->consecutive_local);
    if (status < 500 && !local_failure) {
        forget(&h->consecutive_5xx);
        forget(&h->consecutive_gateway);
        return;
    }
    if (local_failure || (status >= 502 && status <= 504)) { // a local failure counts as 503
        failed(cw, h, &h->consecutive_gateway, o->consecutive_gateway, o->enforcing_gateway, "consecutive_gateway_failure");
    } else {
        forget(&h->consecutive_gateway);
    }
    failed(cw, h, &h->consecutive_5xx, o->consecutive_5xx, o->enforcing_5xx, "consecutive_5xx");
}

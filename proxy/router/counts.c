// SPDX-License-Identifier: Apache-2.0
// What is counted of a request by its virtual cluster (VirtualHost.virtual_clusters) and by its route (Route.stat_prefix).
#include "lib/base/check.h"
#include "proxy/router/internal.h"

void counts_begin(struct router *r)
{
    if (r->vhost->cluster_count) {
        const struct match_request m = { .method = r->req->method, .path = r->req->path, .authority = r->req->host, .scheme = r->req->scheme,
                                         .headers = &r->req->headers, .random = r->random, .arena = r->arena, .head = r->req };
        const struct virtual_cluster *c = virtual_host_cluster(r->vhost, &m);
        if (c) {
            r->info->virtual_cluster = c->name;
            r->counts[0] = stats_scope_get(r->worker->stats, STAT_VCLUSTER, c->stat_name);
        }
    }
    r->counted = r->counts[0] != NULL || r->route->stat_name.n;
    if (r->route->stat_name.n) {
        r->counts[1] = stats_scope_get(r->worker->stats, STAT_ROUTE, r->route->stat_name);
    }
}

// The catalog has both scopes' metrics in the same order.
static enum stat_any route_id(enum stat_any vcluster_id)
{
    return (enum stat_any)(vcluster_id - STAT_ID_VCLUSTER_RQ_TOTAL + STAT_ID_ROUTE_RQ_TOTAL);
}
_Static_assert(STAT_ID_VCLUSTER_RQ_TIME - STAT_ID_VCLUSTER_RQ_TOTAL == STAT_ID_ROUTE_RQ_TIME - STAT_ID_ROUTE_RQ_TOTAL, "the same metrics");

void counts_add_now(struct router *r, enum stat_any vcluster_id)
{
    stat_inc(r->counts[0], vcluster_id);
    stat_inc(r->counts[1], route_id(vcluster_id));
}

void counts_answer_now(struct router *r, int status)
{
    for (size_t i = 0; i < array_len(r->counts); i++) {
        stat_answer(r->counts[i], status);
    }
}

void counts_time_now(struct router *r, uint64_t ms)
{
    stat_record(r->counts[0], STAT_ID_VCLUSTER_RQ_TIME, ms);
    stat_record(r->counts[1], STAT_ID_ROUTE_RQ_TIME, ms);
}

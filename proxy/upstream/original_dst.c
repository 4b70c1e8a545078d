// SPDX-License-Identifier: Apache-2.0
// ORIGINAL_DST clusters: the host is where the client wanted to go.
#include <stdlib.h>

#include "proxy/upstream/internal.h"

enum { CLEAN_MIN_MS = 1000, CLEAN_MAX_MS = 3600000 };

struct str upstream_addr_key(const struct addr *a, char out[ADDR_KEY_MAX])
{
    out[0] = (char)a->family;
    if (a->family == AF_UNIX) {
        size_t n = a->path ? strnlen(a->path, ADDR_KEY_MAX - 1) : 0;
        memcpy(out + 1, a->path ? a->path : "", n);
        return str_n(out, n + 1);
    }
    out[1] = (char)(a->port >> 8);
    out[2] = (char)a->port;
    memcpy(out + 3, &a->scope, sizeof(a->scope));
    memcpy(out + 3 + sizeof(a->scope), a->ip, sizeof(a->ip));
    return str_n(out, 3 + sizeof(a->scope) + (a->family == AF_INET ? 4 : sizeof(a->ip)));
}

struct host *original_dst_pick(struct cluster_worker *cw, const struct pick *p)
{
    if (p->original_dst.family != AF_INET && p->original_dst.family != AF_INET6) {
        return NULL;
    }
    struct addr dst = addr_unmap(p->original_dst);
    if (cw->snap->cfg->original_dst_port) {
        dst.port = (uint16_t)cw->snap->cfg->original_dst_port;
    }
    char key[ADDR_KEY_MAX];
    struct str k = upstream_addr_key(&dst, key);
    struct map *hosts = &cluster_priv(cw)->orig_hosts;
    struct host *h = map_get(hosts, k);
    if (!h) {
        h = host_new(&dst, (struct str){ 0 });
        map_put(hosts, k, h);
    }
    return h;
}

void original_dst_clean(struct cluster_worker *cw, bool all)
{
    struct cluster_priv *p = cluster_priv(cw);
    uint64_t now = loop_now_ms(cw->worker->loop), every = cw->snap->cfg->cleanup_interval_ms;
    every = every < CLEAN_MIN_MS ? CLEAN_MIN_MS : every > CLEAN_MAX_MS ? CLEAN_MAX_MS : every;
    if (!all && now - p->orig_cleaned_ms < every) {
        return;
    }
    p->orig_cleaned_ms = now;
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&p->orig_hosts, &i));) {
        struct host *h = e->val;
        // Only this worker hands out references, so one left is ours.
        if (all || atomic_load_explicit(&h->refs.n, memory_order_relaxed) == 1) {
            map_del(&p->orig_hosts, e->key);
            host_unref(h);
        }
    }
}

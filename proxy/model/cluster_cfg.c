// SPDX-License-Identifier: Apache-2.0
#include "proxy/model/cluster_cfg.h"

#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/mem.h"

struct cluster_cfg *cluster_cfg_new(void)
{
    struct cluster_cfg *c = mem_new(struct cluster_cfg);
    refs_init(&c->refs);
    arena_init(&c->arena, 1024, 0);
    c->least_request_choices = 2;
    c->least_request_bias = 1.0;
    c->ring_min = 1024;
    c->ring_max = 8388608;
    c->maglev_size = 65537;
    c->zone_routing_percent = 100;
    c->zone_min_hosts = 6;
    c->first_family_count = 1;
    c->connect_timeout_ms = 5000;
    c->idle_timeout_ms = 3600000;
    c->healthy_panic_threshold = 50;
    c->dns_refresh_ms = 5000;
    c->cleanup_interval_ms = 5000;
    // cluster.v3.CircuitBreakers.Thresholds: what holds when a limit is not given.
    for (size_t i = 0; i < array_len(c->breakers); i++) {
        c->breakers[i] = (struct breaker_limits){ .max_connections = 1024, .max_pending = 1024, .max_requests = 1024, .max_retries = 3 };
    }
    return c;
}

struct cluster_cfg *cluster_cfg_ref(struct cluster_cfg *c)
{
    refs_get(&c->refs);
    return c;
}

void cluster_cfg_unref(struct cluster_cfg *c)
{
    if (c && refs_put(&c->refs)) {
        arena_fini(&c->arena);
        free(c);
    }
}

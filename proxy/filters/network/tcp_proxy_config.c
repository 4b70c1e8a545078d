// SPDX-License-Identifier: Apache-2.0
// tcp_proxy.v3.TcpProxy → struct tcp_proxy_cfg.
#include <errno.h>

#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb-c.h"
#include "envoy/type/v3/hash_policy.pb-c.h"
#include "proto/pb_util.h"
#include "proxy/access_log/access_log.h"
#include "proxy/filters/network/tcp_proxy.h"

typedef Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy tcp_proxy_msg;
typedef Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy__WeightedCluster weighted_msg;

enum { IDLE_DEFAULT_MS = 3600000, WEIGHTED_MAX = 1000 };

// What would change traffic and is not done here.
static int refuse_unsupported(const tcp_proxy_msg *m, struct err *err)
{
    const struct {
        const char *field;
        bool set;
    } fields[] = {
        { "on_demand", m->on_demand },
        { "tunneling_config", m->tunneling_config },
        { "downstream_idle_timeout", m->downstream_idle_timeout },
        { "upstream_idle_timeout", m->upstream_idle_timeout },
        { "backoff_options", m->backoff_options },
        { "access_log_options", m->access_log_options },
        { "proxy_protocol_tlvs", m->n_proxy_protocol_tlvs > 0 },
        { "upstream_connect_mode", m->upstream_connect_mode != 0 },
        { "max_early_data_bytes", m->max_early_data_bytes },
        { "check_drain_close", m->check_drain_close && !m->check_drain_close->value }, // drained connections do end here
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (fields[i].set) {
            return err_set(err, -EINVAL, "%s: not supported yet", fields[i].field);
        }
    }
    return 0;
}

static int parse_weighted(const weighted_msg *m, struct arena *a, struct tcp_proxy_cfg *c, struct err *err)
{
    if (m->n_clusters == 0 || m->n_clusters > WEIGHTED_MAX) {
        return err_set(err, -EINVAL, "weighted_clusters.clusters: %zu entries; 1 to %d are needed", m->n_clusters, WEIGHTED_MAX);
    }
    c->weighted = arena_array(a, struct tcp_weighted, m->n_clusters);
    for (size_t i = 0; i < m->n_clusters; i++) {
        if (!m->clusters[i]->name[0] || m->clusters[i]->weight == 0) {
            return err_set(err, -EINVAL, "weighted_clusters.clusters[%zu]: name and a weight of at least 1 are needed", i);
        }
        c->weighted[i] = (struct tcp_weighted){ .name = arena_str(a, str_c(m->clusters[i]->name)), .weight = m->clusters[i]->weight };
        c->total_weight += c->weighted[i].weight;
    }
    c->weighted_count = m->n_clusters;
    return 0;
}

static int parse_target(const tcp_proxy_msg *m, struct arena *a, struct tcp_proxy_cfg *c, struct err *err)
{
    switch (m->cluster_specifier_case) {
    case ENVOY__EXTENSIONS__FILTERS__NETWORK__TCP_PROXY__V3__TCP_PROXY__CLUSTER_SPECIFIER_CLUSTER:
        c->cluster = arena_str(a, str_c(m->cluster));
        return c->cluster.n ? 0 : err_set(err, -EINVAL, "cluster: a name is needed");
    case ENVOY__EXTENSIONS__FILTERS__NETWORK__TCP_PROXY__V3__TCP_PROXY__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS:
        return parse_weighted(m->weighted_clusters, a, c, err);
    default:
        return err_set(err, -EINVAL, "cluster or weighted_clusters is needed");
    }
}

static int parse_hash(const tcp_proxy_msg *m, struct tcp_proxy_cfg *c, struct err *err)
{
    for (size_t i = 0; i < m->n_hash_policy; i++) {
        if (m->hash_policy[i]->policy_specifier_case != ENVOY__TYPE__V3__HASH_POLICY__POLICY_SPECIFIER_SOURCE_IP) {
            return err_set(err, -EINVAL, "hash_policy[%zu]: only source_ip is supported", i);
        }
        c->hash_source_ip = true;
    }
    return 0;
}

static int parse_access_logs(const tcp_proxy_msg *m, struct arena *a, struct tcp_proxy_cfg *c, struct err *err)
{
    c->access_logs = m->n_access_log ? arena_array(a, struct access_log_cfg *, m->n_access_log) : NULL;
    for (size_t i = 0; i < m->n_access_log; i++) {
        if (access_log_parse(m->access_log[i], a, &c->access_logs[i], err) != 0) {
            return err_wrap(err, "access_log[%zu]", i);
        }
        c->access_log_count++;
    }
    return 0;
}

int tcp_proxy_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx;
    const tcp_proxy_msg *m = msg;
    if (!m) {
        return err_set(err, -EINVAL, "the TCP proxy needs a configuration");
    }
    struct tcp_proxy_cfg *c = arena_new(arena, struct tcp_proxy_cfg);
    int rc = refuse_unsupported(m, err);
    rc = rc ? rc : parse_target(m, arena, c, err);
    rc = rc ? rc : parse_hash(m, c, err);
    rc = rc ? rc : parse_access_logs(m, arena, c, err);
    if (rc != 0) {
        return rc;
    }
    c->stat_prefix = arena_str(arena, str_c(m->stat_prefix));
    c->idle_ms = (uint64_t)pb_duration_ms(m->idle_timeout, IDLE_DEFAULT_MS);
    c->max_duration_ms = (uint64_t)pb_duration_ms(m->max_downstream_connection_duration, 0);
    if (m->max_downstream_connection_duration_jitter_percentage) {
        double percent = m->max_downstream_connection_duration_jitter_percentage->value;
        if (!(percent >= 0 && percent <= 100)) {
            return err_set(err, -EINVAL, "max_downstream_connection_duration_jitter_percentage: must be 0 to 100");
        }
        c->max_duration_jitter_ppm = (uint32_t)(percent * 10000);
    }
    c->max_connect_attempts = pb_u32_or(m->max_connect_attempts, 1);
    if (c->max_connect_attempts == 0) {
        return err_set(err, -EINVAL, "max_connect_attempts: must be at least 1");
    }
    *ret_cfg = c;
    return 0;
}

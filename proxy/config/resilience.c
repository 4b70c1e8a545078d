// SPDX-License-Identifier: Apache-2.0
// circuit_breakers and outlier_detection of a cluster.
#include "proto/pb_util.h"
#include "proxy/config/build.h"

typedef Envoy__Config__Cluster__V3__Cluster cluster;
typedef Envoy__Config__Cluster__V3__CircuitBreakers__Thresholds thresholds_msg;

enum { INTERVAL_LEAST_MS = 1, BUDGET_MAX_MS = 3600000 };

static int take_budget(const thresholds_msg *t, struct breaker_limits *b, struct err *err)
{
    const Envoy__Config__Cluster__V3__CircuitBreakers__Thresholds__RetryBudget *r = t->retry_budget;
    if (!r) {
        // Without a number, or with one that is no limit, retries have remora's own budget.
        b->retry_limit = t->max_retries && t->max_retries->value != UINT32_MAX ? RETRY_LIMIT_COUNT : RETRY_LIMIT_DEFAULT;
        return 0;
    }
    b->retry_limit = RETRY_LIMIT_BUDGET;
    double percent = r->budget_percent ? r->budget_percent->value : 20;
    b->budget_percent = (float)percent;
    b->budget_min = pb_u32_or(r->min_retry_concurrency, 3);
    int64_t interval = pb_duration_ms(r->budget_interval, 0);
    b->budget_interval_ms = (uint32_t)(interval > BUDGET_MAX_MS ? 0 : interval);
    if (!(percent >= 0 && percent <= 100)) {
        return cfg_fail(err, "retry_budget.budget_percent", "must be 0 to 100");
    }
    if (interval > BUDGET_MAX_MS) {
        return cfg_fail(err, "retry_budget.budget_interval", "must be at most an hour");
    }
    return 0;
}

static int take_breakers(const cluster *m, struct cluster_cfg *c, struct err *err)
{
    c->breakers[0].retry_limit = c->breakers[1].retry_limit = RETRY_LIMIT_DEFAULT;
    c->host_connections[0] = c->host_connections[1] = UINT32_MAX;
    if (!m->circuit_breakers) {
        return 0;
    }
    if (CFG_KNOWN(m->circuit_breakers, err, "thresholds", "per_host_thresholds")) {
        return err->code;
    }
    for (size_t i = 0; i < m->circuit_breakers->n_per_host_thresholds; i++) {
        const thresholds_msg *t = m->circuit_breakers->per_host_thresholds[i];
        if (CFG_KNOWN(t, err, "priority", "max_connections")) { // Envoy looks at no other
            return cfg_in(err, "per_host_thresholds[%zu]", i);
        }
        c->host_connections[t->priority == ENVOY__CONFIG__CORE__V3__ROUTING_PRIORITY__HIGH ? 1 : 0] = pb_u32_or(t->max_connections, UINT32_MAX);
    }
    for (size_t i = 0; i < m->circuit_breakers->n_thresholds; i++) {
        const thresholds_msg *t = m->circuit_breakers->thresholds[i];
        struct breaker_limits *b = &c->breakers[t->priority == ENVOY__CONFIG__CORE__V3__ROUTING_PRIORITY__HIGH ? 1 : 0];
        if (CFG_KNOWN(t, err, "priority", "max_connections", "max_pending_requests", "max_requests", "max_retries", "retry_budget",
                      "track_remaining", "max_connection_pools") ||
            take_budget(t, b, err)) {
            return cfg_in(err, "thresholds[%zu]", i);
        }
        b->max_connections = pb_u32_or(t->max_connections, b->max_connections);
        b->max_pending = pb_u32_or(t->max_pending_requests, b->max_pending);
        b->max_requests = pb_u32_or(t->max_requests, b->max_requests);
        b->max_retries = pb_u32_or(t->max_retries, b->max_retries);
        b->max_pools = t->max_connection_pools && t->max_connection_pools->value != UINT32_MAX ? t->max_connection_pools->value : 0;
        b->track_remaining = t->track_remaining;
    }
    return 0;
}

static int check_percents(const Envoy__Config__Cluster__V3__OutlierDetection *m, struct err *err)
{
    const struct {
        const char *field;
        const Google__Protobuf__UInt32Value *v;
    } all[] = {
        { "max_ejection_percent", m->max_ejection_percent },
        { "enforcing_consecutive_5xx", m->enforcing_consecutive_5xx },
        { "enforcing_success_rate", m->enforcing_success_rate },
        { "enforcing_consecutive_gateway_failure", m->enforcing_consecutive_gateway_failure },
        { "enforcing_consecutive_local_origin_failure", m->enforcing_consecutive_local_origin_failure },
        { "enforcing_local_origin_success_rate", m->enforcing_local_origin_success_rate },
        { "failure_percentage_threshold", m->failure_percentage_threshold },
        { "enforcing_failure_percentage", m->enforcing_failure_percentage },
        { "enforcing_failure_percentage_local_origin", m->enforcing_failure_percentage_local_origin },
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i].v && all[i].v->value > 100) {
            return cfg_fail(err, all[i].field, "%u is above 100", all[i].v->value);
        }
    }
    return 0;
}

static int take_outlier(const Envoy__Config__Cluster__V3__OutlierDetection *m, struct outlier_cfg *o, struct err *err)
{
    if (CFG_KNOWN(m, err, "consecutive_5xx", "interval", "base_ejection_time", "max_ejection_percent", "enforcing_consecutive_5xx",
                  "enforcing_success_rate", "success_rate_minimum_hosts", "success_rate_request_volume", "success_rate_stdev_factor",
                  "consecutive_gateway_failure", "enforcing_consecutive_gateway_failure", "split_external_local_origin_errors",
                  "consecutive_local_origin_failure", "enforcing_consecutive_local_origin_failure", "enforcing_local_origin_success_rate",
                  "failure_percentage_threshold", "enforcing_failure_percentage", "enforcing_failure_percentage_local_origin",
                  "failure_percentage_minimum_hosts", "failure_percentage_request_volume", "max_ejection_time", "max_ejection_time_jitter",
                  "successful_active_health_check_uneject_host", "always_eject_one_host") ||
        check_percents(m, err)) {
        return err->code;
    }
    *o = (struct outlier_cfg){
        .enabled = true,
        .consecutive_5xx = pb_u32_or(m->consecutive_5xx, 5),
        .consecutive_gateway = pb_u32_or(m->consecutive_gateway_failure, 5),
        .consecutive_local_origin = pb_u32_or(m->consecutive_local_origin_failure, 5),
        .enforcing_5xx = pb_u32_or(m->enforcing_consecutive_5xx, 100),
        .enforcing_gateway = pb_u32_or(m->enforcing_consecutive_gateway_failure, 0),
        .enforcing_local_origin = pb_u32_or(m->enforcing_consecutive_local_origin_failure, 100),
        .max_ejection_percent = pb_u32_or(m->max_ejection_percent, 10),
        .interval_ms = (uint64_t)pb_duration_ms(m->interval, 10000),
        .base_ejection_ms = (uint64_t)pb_duration_ms(m->base_ejection_time, 30000),
        .max_ejection_ms = (uint64_t)pb_duration_ms(m->max_ejection_time, 300000),
        .max_ejection_jitter_ms = (uint64_t)pb_duration_ms(m->max_ejection_time_jitter, 0),
        .split_local_origin = m->split_external_local_origin_errors,
        .enforcing_success_rate = pb_u32_or(m->enforcing_success_rate, 100),
        .enforcing_local_success_rate = pb_u32_or(m->enforcing_local_origin_success_rate, 100),
        .success_rate_min_hosts = pb_u32_or(m->success_rate_minimum_hosts, 5),
        .success_rate_volume = pb_u32_or(m->success_rate_request_volume, 100),
        .success_rate_stdev_factor = pb_u32_or(m->success_rate_stdev_factor, 1900),
        .failure_pct_threshold = pb_u32_or(m->failure_percentage_threshold, 85),
        .enforcing_failure_pct = pb_u32_or(m->enforcing_failure_percentage, 0),
        .enforcing_local_failure_pct = pb_u32_or(m->enforcing_failure_percentage_local_origin, 0),
        .failure_pct_min_hosts = pb_u32_or(m->failure_percentage_minimum_hosts, 5),
        .failure_pct_volume = pb_u32_or(m->failure_percentage_request_volume, 50),
        .always_eject_one = pb_bool_or(m->always_eject_one_host, false),
        .no_uneject_on_health = !pb_bool_or(m->successful_active_health_check_uneject_host, true),
    };
    if (o->interval_ms < INTERVAL_LEAST_MS || o->base_ejection_ms < INTERVAL_LEAST_MS) {
        return cfg_fail(err, o->interval_ms ? "base_ejection_time" : "interval", "must be greater than 0s");
    }
    return 0;
}

int build_resilience(const cluster *m, struct cluster_cfg *c, struct err *err)
{
    if (take_breakers(m, c, err)) {
        return cfg_in(err, "circuit_breakers");
    }
    if (m->outlier_detection && take_outlier(m->outlier_detection, &c->outlier, err)) {
        return cfg_in(err, "outlier_detection");
    }
    return 0;
}

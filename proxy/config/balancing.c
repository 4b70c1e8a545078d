// SPDX-License-Identifier: Apache-2.0
// How a cluster's hosts are chosen: lb_policy with its options or load_balancing_policy, common_lb_config, lb_subset_config.
#include <stdlib.h>
#include <string.h>

#include "envoy/extensions/load_balancing_policies/cluster_provided/v3/cluster_provided.pb-c.h"
#include "envoy/extensions/load_balancing_policies/least_request/v3/least_request.pb-c.h"
#include "envoy/extensions/load_balancing_policies/maglev/v3/maglev.pb-c.h"
#include "envoy/extensions/load_balancing_policies/random/v3/random.pb-c.h"
#include "envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash.pb-c.h"
#include "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.pb-c.h"
#include "envoy/extensions/load_balancing_policies/wrr_locality/v3/wrr_locality.pb-c.h"
#include "proto/pb_util.h"
#include "proxy/config/build.h"
#include "proxy/upstream/lb/lb.h"

typedef Envoy__Config__Cluster__V3__Cluster cluster;
typedef Envoy__Config__Cluster__V3__Cluster__CommonLbConfig common_lb;
typedef Envoy__Config__Cluster__V3__Cluster__LbSubsetConfig subset_msg;

enum { RING_MAX = 8388608, MAGLEV_MAX = 5000011, CHOICES_MAX = 1000, KEYS_MAX = 32, SELECTORS_MAX = 64, POLICY_DEPTH = 3 };

// ---- options that old and new forms share ----

// The messages of both forms have the same members.
struct slow_start_msg {
    const Google__Protobuf__Duration *window;
    const Envoy__Config__Core__V3__RuntimeDouble *aggression;
    const Envoy__Type__V3__Percent *least;
};

static int take_slow_start(struct slow_start_msg m, struct cluster_cfg *c, struct err *err)
{
    int64_t window = pb_duration_ms(m.window, 0);
    double aggression = m.aggression ? m.aggression->default_value : 1.0, least = m.least ? m.least->value : 10;
    if (!(aggression > 0)) {
        return cfg_fail(err, "slow_start_config.aggression", "must be greater than 0");
    }
    if (!(least >= 0 && least <= 100)) {
        return cfg_fail(err, "slow_start_config.min_weight_percent", "must be 0 to 100");
    }
    c->slow_start = (struct slow_start_cfg){ .window_ms = (uint64_t)window, .aggression = aggression, .min_percent = least };
    return 0;
}

static int take_choices(uint32_t n, struct cluster_cfg *c, struct err *err)
{
    if (n < 2 || n > CHOICES_MAX) {
        return cfg_fail(err, "choice_count", "must be 2 to %d", CHOICES_MAX);
    }
    c->least_request_choices = n;
    return 0;
}

static int take_bias(const Envoy__Config__Core__V3__RuntimeDouble *bias, struct cluster_cfg *c, struct err *err)
{
    c->least_request_bias = bias ? bias->default_value : 1.0;
    return c->least_request_bias >= 0 ? 0 : cfg_fail(err, "active_request_bias", "must not be negative");
}

static int take_ring(const Google__Protobuf__UInt64Value *min, const Google__Protobuf__UInt64Value *max, struct cluster_cfg *c, struct err *err)
{
    c->ring_min = pb_u64_or(min, 1024);
    c->ring_max = pb_u64_or(max, RING_MAX);
    if (c->ring_max < 1 || c->ring_max > RING_MAX) {
        return cfg_fail(err, "maximum_ring_size", "must be 1 to %d", RING_MAX);
    }
    if (c->ring_min < 1 || c->ring_min > c->ring_max) {
        return cfg_fail(err, "minimum_ring_size", "must be 1 to maximum_ring_size, %llu", (unsigned long long)c->ring_max);
    }
    return 0;
}

static bool is_prime(uint64_t n)
{
    for (uint64_t d = 2; d * d <= n; d++) {
        if (n % d == 0) {
            return false;
        }
    }
    return n > 1;
}

static int take_maglev(const Google__Protobuf__UInt64Value *size, struct cluster_cfg *c, struct err *err)
{
    uint64_t n = pb_u64_or(size, 65537);
    if (n > MAGLEV_MAX || !is_prime(n)) {
        return cfg_fail(err, "table_size", "%llu is not a prime of at most %d", (unsigned long long)n, MAGLEV_MAX);
    }
    c->maglev_size = (uint32_t)n;
    return 0;
}

static int take_balance_factor(const Google__Protobuf__UInt32Value *v, struct cluster_cfg *c, struct err *err)
{
    c->hash_balance_factor = pb_u32_or(v, 0);
    return v && v->value < 100 ? cfg_fail(err, "hash_balance_factor", "must be at least 100") : 0;
}

// ---- common_lb_config ----

static int take_zone_aware(const Envoy__Config__Cluster__V3__Cluster__CommonLbConfig__ZoneAwareLbConfig *z, struct cluster_cfg *c, struct err *err)
{
    if (CFG_KNOWN(z, err, "routing_enabled", "min_cluster_size", "fail_traffic_on_panic")) {
        return cfg_in(err, "zone_aware_lb_config");
    }
    c->spread = LOCALITY_ZONE_AWARE;
    c->zone_routing_percent = z->routing_enabled ? z->routing_enabled->value : 100;
    c->zone_min_hosts = pb_u64_or(z->min_cluster_size, 6);
    c->fail_on_panic = z->fail_traffic_on_panic;
    return 0;
}

static int take_common(const common_lb *m, struct cluster_cfg *c, struct err *err)
{
    if (CFG_KNOWN(m, err, "healthy_panic_threshold", "locality_weighted_lb_config", "update_merge_window",
                  "close_connections_on_host_set_change", "zone_aware_lb_config", "ignore_new_hosts_until_first_hc",
                  "override_host_status", "consistent_hashing_lb_config")) {
        return err->code;
    }
    if (m->healthy_panic_threshold) {
        c->healthy_panic_threshold = m->healthy_panic_threshold->value;
    }
    c->close_on_set_change = m->close_connections_on_host_set_change;
    c->ignore_new_until_checked = m->ignore_new_hosts_until_first_hc;
    if (m->consistent_hashing_lb_config) {
        c->hash_by_hostname = m->consistent_hashing_lb_config->use_hostname_for_hashing;
        if (take_balance_factor(m->consistent_hashing_lb_config->hash_balance_factor, c, err)) {
            return cfg_in(err, "consistent_hashing_lb_config");
        }
    }
    switch (m->locality_config_specifier_case) {
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__COMMON_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_LOCALITY_WEIGHTED_LB_CONFIG:
        c->spread = LOCALITY_WEIGHTED;
        return 0;
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__COMMON_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_ZONE_AWARE_LB_CONFIG:
        return take_zone_aware(m->zone_aware_lb_config, c, err);
    default:
        return 0;
    }
}

// ---- lb_policy ----

static int take_options(const cluster *m, struct cluster_cfg *c, struct err *err)
{
    switch (m->lb_config_case) {
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_CONFIG_LEAST_REQUEST_LB_CONFIG: {
        const Envoy__Config__Cluster__V3__Cluster__LeastRequestLbConfig *o = m->least_request_lb_config;
        const Envoy__Config__Cluster__V3__Cluster__SlowStartConfig *s = o->slow_start_config;
        bool bad = take_choices(pb_u32_or(o->choice_count, 2), c, err) || take_bias(o->active_request_bias, c, err) ||
                   (s && take_slow_start((struct slow_start_msg){ s->slow_start_window, s->aggression, s->min_weight_percent }, c, err));
        return bad ? cfg_in(err, "least_request_lb_config") : 0;
    }
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_CONFIG_ROUND_ROBIN_LB_CONFIG: {
        const Envoy__Config__Cluster__V3__Cluster__SlowStartConfig *s = m->round_robin_lb_config->slow_start_config;
        bool bad = s && take_slow_start((struct slow_start_msg){ s->slow_start_window, s->aggression, s->min_weight_percent }, c, err);
        return bad ? cfg_in(err, "round_robin_lb_config") : 0;
    }
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_CONFIG_RING_HASH_LB_CONFIG:
        c->ring_murmur = m->ring_hash_lb_config->hash_function == ENVOY__CONFIG__CLUSTER__V3__CLUSTER__RING_HASH_LB_CONFIG__HASH_FUNCTION__MURMUR_HASH_2;
        return take_ring(m->ring_hash_lb_config->minimum_ring_size, m->ring_hash_lb_config->maximum_ring_size, c, err)
                   ? cfg_in(err, "ring_hash_lb_config")
                   : 0;
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_CONFIG_MAGLEV_LB_CONFIG:
        return take_maglev(m->maglev_lb_config->table_size, c, err) ? cfg_in(err, "maglev_lb_config") : 0;
    default:
        return 0;
    }
}

static int take_policy(const cluster *m, struct cluster_cfg *c, struct err *err)
{
    static const enum lb_policy policies[] = { LB_ROUND_ROBIN, LB_LEAST_REQUEST, LB_RING_HASH, LB_RANDOM, LB_ROUND_ROBIN /* 4: gone */,
                                               LB_MAGLEV, LB_CLUSTER_PROVIDED };
    unsigned p = (unsigned)m->lb_policy;
    if (p >= sizeof(policies) / sizeof(policies[0]) || p == 4) {
        return cfg_fail(err, "lb_policy", "value %u is not supported; set one of ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH, MAGLEV", p);
    }
    c->lb = policies[p];
    return take_options(m, c, err);
}

// ---- load_balancing_policy: typed configurations of the same ----

typedef Envoy__Extensions__LoadBalancingPolicies__Common__V3__LocalityLbConfig locality_msg;

static int take_locality(const locality_msg *m, struct cluster_cfg *c, struct err *err)
{
    if (!m) {
        return 0;
    }
    if (m->locality_config_specifier_case ==
        ENVOY__EXTENSIONS__LOAD_BALANCING_POLICIES__COMMON__V3__LOCALITY_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_LOCALITY_WEIGHTED_LB_CONFIG) {
        c->spread = LOCALITY_WEIGHTED;
    } else if (m->locality_config_specifier_case ==
               ENVOY__EXTENSIONS__LOAD_BALANCING_POLICIES__COMMON__V3__LOCALITY_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_ZONE_AWARE_LB_CONFIG) {
        const Envoy__Extensions__LoadBalancingPolicies__Common__V3__LocalityLbConfig__ZoneAwareLbConfig *z = m->zone_aware_lb_config;
        if (CFG_KNOWN(z, err, "routing_enabled", "min_cluster_size", "fail_traffic_on_panic")) {
            return cfg_in(err, "locality_lb_config.zone_aware_lb_config");
        }
        c->spread = LOCALITY_ZONE_AWARE;
        c->zone_routing_percent = z->routing_enabled ? z->routing_enabled->value : 100;
        c->zone_min_hosts = pb_u64_or(z->min_cluster_size, 6);
        c->fail_on_panic = z->fail_traffic_on_panic;
    }
    return 0;
}

static int take_hashing(const Envoy__Extensions__LoadBalancingPolicies__Common__V3__ConsistentHashingLbConfig *m, bool weighted,
                        struct cluster_cfg *c, struct err *err)
{
    c->spread = weighted ? LOCALITY_WEIGHTED : c->spread;
    if (!m) {
        return 0;
    }
    if (CFG_KNOWN(m, err, "use_hostname_for_hashing", "hash_balance_factor")) {
        return cfg_in(err, "consistent_hashing_lb_config");
    }
    c->hash_by_hostname = m->use_hostname_for_hashing;
    return take_balance_factor(m->hash_balance_factor, c, err) ? cfg_in(err, "consistent_hashing_lb_config") : 0;
}

static int typed_round_robin(const ProtobufCMessage *msg, struct cluster_cfg *c, struct err *err)
{
    const Envoy__Extensions__LoadBalancingPolicies__RoundRobin__V3__RoundRobin *o = (const void *)msg;
    const Envoy__Extensions__LoadBalancingPolicies__Common__V3__SlowStartConfig *s = o->slow_start_config;
    c->lb = LB_ROUND_ROBIN;
    return s && take_slow_start((struct slow_start_msg){ s->slow_start_window, s->aggression, s->min_weight_percent }, c, err)
               ? err->code
               : take_locality(o->locality_lb_config, c, err);
}

static int typed_least_request(const ProtobufCMessage *msg, struct cluster_cfg *c, struct err *err)
{
    const Envoy__Extensions__LoadBalancingPolicies__LeastRequest__V3__LeastRequest *o = (const void *)msg;
    const Envoy__Extensions__LoadBalancingPolicies__Common__V3__SlowStartConfig *s = o->slow_start_config;
    c->lb = LB_LEAST_REQUEST;
    c->least_request_full_scan =
        o->selection_method == ENVOY__EXTENSIONS__LOAD_BALANCING_POLICIES__LEAST_REQUEST__V3__LEAST_REQUEST__SELECTION_METHOD__FULL_SCAN;
    bool bad = take_choices(pb_u32_or(o->choice_count, 2), c, err) || take_bias(o->active_request_bias, c, err) ||
               (s && take_slow_start((struct slow_start_msg){ s->slow_start_window, s->aggression, s->min_weight_percent }, c, err)) ||
               take_locality(o->locality_lb_config, c, err);
    return bad ? err->code : 0;
}

static int typed_random(const ProtobufCMessage *msg, struct cluster_cfg *c, struct err *err)
{
    c->lb = LB_RANDOM;
    return take_locality(((const Envoy__Extensions__LoadBalancingPolicies__Random__V3__Random *)(const void *)msg)->locality_lb_config, c, err);
}

static int typed_ring_hash(const ProtobufCMessage *msg, struct cluster_cfg *c, struct err *err)
{
    const Envoy__Extensions__LoadBalancingPolicies__RingHash__V3__RingHash *o = (const void *)msg;
    c->lb = LB_RING_HASH;
    c->ring_murmur = o->hash_function == ENVOY__EXTENSIONS__LOAD_BALANCING_POLICIES__RING_HASH__V3__RING_HASH__HASH_FUNCTION__MURMUR_HASH_2;
    bool bad = take_ring(o->minimum_ring_size, o->maximum_ring_size, c, err) ||
               take_hashing(o->consistent_hashing_lb_config, o->locality_weighted_lb_config, c, err);
    return bad ? err->code : 0;
}

static int typed_maglev(const ProtobufCMessage *msg, struct cluster_cfg *c, struct err *err)
{
    const Envoy__Extensions__LoadBalancingPolicies__Maglev__V3__Maglev *o = (const void *)msg;
    c->lb = LB_MAGLEV;
    bool bad = take_maglev(o->table_size, c, err) || take_hashing(o->consistent_hashing_lb_config, o->locality_weighted_lb_config, c, err);
    return bad ? err->code : 0;
}

static int typed_provided(const ProtobufCMessage *msg, struct cluster_cfg *c, struct err *err)
{
    (void)msg, (void)err;
    c->lb = LB_CLUSTER_PROVIDED;
    return 0;
}

static const struct {
    const ProtobufCMessageDescriptor *desc;
    int (*take)(const ProtobufCMessage *msg, struct cluster_cfg *c, struct err *err);
} typed[] = {
    { &envoy__extensions__load_balancing_policies__round_robin__v3__round_robin__descriptor, typed_round_robin },
    { &envoy__extensions__load_balancing_policies__least_request__v3__least_request__descriptor, typed_least_request },
    { &envoy__extensions__load_balancing_policies__random__v3__random__descriptor, typed_random },
    { &envoy__extensions__load_balancing_policies__ring_hash__v3__ring_hash__descriptor, typed_ring_hash },
    { &envoy__extensions__load_balancing_policies__maglev__v3__maglev__descriptor, typed_maglev },
    { &envoy__extensions__load_balancing_policies__cluster_provided__v3__cluster_provided__descriptor, typed_provided },
};

static int take_typed(struct config_ctx *ctx, const Envoy__Config__Cluster__V3__LoadBalancingPolicy *m, int depth, struct cluster_cfg *c,
                      struct err *err);

// 0 taken, 1 not known here, negative refused.
static int take_one_typed(struct config_ctx *ctx, const Envoy__Config__Core__V3__TypedExtensionConfig *x, int depth, struct cluster_cfg *c,
                          struct err *err)
{
    ProtobufCMessage *msg = NULL;
    struct err e = { 0 };
    int rc = x ? pb_any_unpack_whole(x->typed_config, NULL, NULL, ctx->scratch, &msg, &e) : -ENOENT;
    if (rc) {
        return rc == -ENOENT ? 1 : cfg_fail(err, "typed_extension_config.typed_config", "%.900s", e.msg);
    }
    if (msg->descriptor == &envoy__extensions__load_balancing_policies__wrr_locality__v3__wrr_locality__descriptor) {
        const Envoy__Extensions__LoadBalancingPolicies__WrrLocality__V3__WrrLocality *w = (const void *)msg;
        if (depth >= POLICY_DEPTH || !w->endpoint_picking_policy) {
            return cfg_fail(err, "typed_extension_config.typed_config.endpoint_picking_policy", depth >= POLICY_DEPTH ? "nested too deep" : "missing");
        }
        rc = take_typed(ctx, w->endpoint_picking_policy, depth + 1, c, err);
        c->spread = LOCALITY_WEIGHTED;
        return rc ? cfg_in(err, "typed_extension_config.typed_config.endpoint_picking_policy") : 0;
    }
    for (size_t i = 0; i < sizeof(typed) / sizeof(typed[0]); i++) {
        if (typed[i].desc == msg->descriptor) {
            return typed[i].take(msg, c, err) ? cfg_in(err, "typed_extension_config.typed_config") : 0;
        }
    }
    return 1;
}

// The first policy that is known, as the field says.
static int take_typed(struct config_ctx *ctx, const Envoy__Config__Cluster__V3__LoadBalancingPolicy *m, int depth, struct cluster_cfg *c,
                      struct err *err)
{
    const char *name = "";
    for (size_t i = 0; i < m->n_policies; i++) {
        int rc = take_one_typed(ctx, m->policies[i]->typed_extension_config, depth, c, err);
        if (rc <= 0) {
            return rc ? cfg_in(err, "policies[%zu]", i) : 0;
        }
        name = m->policies[i]->typed_extension_config ? m->policies[i]->typed_extension_config->name : "";
    }
    return cfg_fail(err, "policies", "none is supported (the last is \"%.100s\")", name);
}

// ---- lb_subset_config ----

static int by_text(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

static struct str *sorted_keys(struct arena *a, char *const *keys, size_t n)
{
    struct str *v = arena_array(a, struct str, n ? n : 1);
    for (size_t i = 0; i < n; i++) {
        v[i] = build_str(a, keys[i]);
    }
    qsort(v, n, sizeof(*v), by_text);
    return v;
}

static bool contains(const struct str *v, size_t n, struct str key)
{
    for (size_t i = 0; i < n; i++) {
        if (str_eq(v[i], key)) {
            return true;
        }
    }
    return false;
}

static int take_fallback_keys(const Envoy__Config__Cluster__V3__Cluster__LbSubsetConfig__LbSubsetSelector *m, struct arena *a,
                              struct subset_selector *s, struct err *err)
{
    if (m->n_fallback_keys_subset == 0 || m->n_fallback_keys_subset >= m->n_keys) {
        return cfg_fail(err, "fallback_keys_subset", "must be some, and not all, of keys");
    }
    s->fallback_keys = sorted_keys(a, m->fallback_keys_subset, m->n_fallback_keys_subset);
    s->fallback_key_count = m->n_fallback_keys_subset;
    for (size_t i = 0; i < s->fallback_key_count; i++) {
        if (!contains(s->keys, s->key_count, s->fallback_keys[i])) {
            return cfg_fail(err, "fallback_keys_subset", "\"%.*s\" is not among keys", STR_FMT(s->fallback_keys[i]));
        }
    }
    return 0;
}

static int take_selector(const Envoy__Config__Cluster__V3__Cluster__LbSubsetConfig__LbSubsetSelector *m, struct arena *a,
                         struct subset_selector *s, struct err *err)
{
    static const enum subset_fallback policies[] = { SUBSET_NOT_DEFINED, SUBSET_NO_FALLBACK, SUBSET_ANY_ENDPOINT, SUBSET_DEFAULT, SUBSET_KEYS };
    if (m->n_keys == 0 || m->n_keys > KEYS_MAX) {
        return cfg_fail(err, "keys", "1 to %d are needed", KEYS_MAX);
    }
    if ((unsigned)m->fallback_policy >= sizeof(policies) / sizeof(policies[0])) {
        return cfg_fail(err, "fallback_policy", "unknown value %d", (int)m->fallback_policy);
    }
    s->keys = sorted_keys(a, m->keys, m->n_keys);
    s->key_count = m->n_keys;
    s->fallback = policies[m->fallback_policy];
    s->single_host = m->single_host_per_subset;
    if (s->single_host && s->key_count != 1) {
        return cfg_fail(err, "single_host_per_subset", "needs a selector of one key");
    }
    return s->fallback == SUBSET_KEYS ? take_fallback_keys(m, a, s, err) : 0;
}

static int take_subset(const subset_msg *m, struct arena *a, struct subset_cfg *s, struct err *err)
{
    static const enum subset_fallback policies[] = { SUBSET_NO_FALLBACK, SUBSET_ANY_ENDPOINT, SUBSET_DEFAULT };
    if (CFG_KNOWN(m, err, "fallback_policy", "default_subset", "subset_selectors", "locality_weight_aware", "scale_locality_weight",
                  "panic_mode_any", "list_as_any")) {
        return err->code;
    }
    if ((unsigned)m->fallback_policy >= sizeof(policies) / sizeof(policies[0])) {
        return cfg_fail(err, "fallback_policy", "unknown value %d", (int)m->fallback_policy);
    }
    if (m->n_subset_selectors > SELECTORS_MAX) {
        return cfg_fail(err, "subset_selectors", "%zu selectors, at most %d", m->n_subset_selectors, SELECTORS_MAX);
    }
    if (build_lb_metadata(m->default_subset, a, &s->default_subset, &s->default_count, err)) {
        return cfg_in(err, "default_subset");
    }
    size_t whole = 0; // elements of lists are an endpoint's affair
    for (size_t i = 0; i < s->default_count; i++) {
        if (!s->default_subset[i].element) {
            s->default_subset[whole++] = s->default_subset[i];
        }
    }
    s->default_count = whole;
    s->selectors = arena_array(a, struct subset_selector, m->n_subset_selectors + 1);
    for (size_t i = 0; i < m->n_subset_selectors; i++) {
        if (take_selector(m->subset_selectors[i], a, &s->selectors[i], err)) {
            return cfg_in(err, "subset_selectors[%zu]", i);
        }
    }
    s->selector_count = m->n_subset_selectors;
    s->fallback = policies[m->fallback_policy];
    s->locality_weight_aware = m->locality_weight_aware;
    s->scale_locality_weight = m->scale_locality_weight;
    s->panic_mode_any = m->panic_mode_any;
    s->list_as_any = m->list_as_any;
    s->enabled = m->n_subset_selectors > 0 || s->fallback == SUBSET_DEFAULT;
    return 0;
}

int build_balancing(struct config_ctx *ctx, const cluster *m, struct cluster_cfg *c, struct err *err)
{
    if (m->load_balancing_policy) {
        if (take_typed(ctx, m->load_balancing_policy, 0, c, err)) {
            return cfg_in(err, "load_balancing_policy");
        }
    } else if (take_policy(m, c, err)) {
        return err->code;
    }
    if ((c->lb == LB_CLUSTER_PROVIDED) != (c->type == CLUSTER_ORIGINAL_DST)) {
        return cfg_fail(err, "lb_policy", "CLUSTER_PROVIDED and type ORIGINAL_DST go together");
    }
    if (m->common_lb_config && take_common(m->common_lb_config, c, err)) {
        return cfg_in(err, "common_lb_config");
    }
    if (m->lb_subset_config && take_subset(m->lb_subset_config, ctx->arena, &c->subset, err)) {
        return cfg_in(err, "lb_subset_config");
    }
    if (c->subset.enabled && c->type == CLUSTER_ORIGINAL_DST) {
        return cfg_fail(err, "lb_subset_config", "does not go with type ORIGINAL_DST");
    }
    return 0;
}

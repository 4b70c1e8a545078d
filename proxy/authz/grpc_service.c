// SPDX-License-Identifier: Apache-2.0
#include "proxy/authz/grpc_service.h"

#include <errno.h>

#include "lib/http/chars.h"
#include "proto/pb_util.h"

enum { BACKOFF_BASE_MS = 1000, BACKOFF_MAX_TIMES = 10, RETRIES_MAX = 100 }; // core.v3.BackoffStrategy of RetryPolicy.retry_back_off when unset

int core_retry_parse(const Envoy__Config__Core__V3__RetryPolicy *m, struct arena *a, struct retry_policy **ret, struct err *err)
{
    *ret = NULL;
    if (!m) {
        return 0;
    }
    if (m->retry_priority || m->n_retry_host_predicate || m->host_selection_retry_max_attempts) {
        return err_set(err, -ENOTSUP, "retry_policy: retry_priority and retry_host_predicate are not supported here");
    }
    struct retry_policy *p = arena_new(a, struct retry_policy);
    p->on = retry_on_parse(str_c(m->retry_on));
    p->num_retries = pb_u32_or(m->num_retries, 1);
    if (p->num_retries > RETRIES_MAX) {
        return err_set(err, -EINVAL, "retry_policy.num_retries: at most %d", RETRIES_MAX);
    }
    p->host_selection_attempts = 1;
    const Envoy__Config__Core__V3__BackoffStrategy *b = m->retry_back_off;
    int64_t base = pb_duration_ms(b ? b->base_interval : NULL, BACKOFF_BASE_MS);
    int64_t max = pb_duration_ms(b ? b->max_interval : NULL, base * BACKOFF_MAX_TIMES);
    if (base <= 0 || max < base) {
        return err_set(err, -EINVAL, "retry_policy.retry_back_off: base_interval must be above 0, and max_interval not below it");
    }
    p->backoff_base_ms = (uint64_t)base;
    p->backoff_max_ms = (uint64_t)max;
    p->per_try_timeout_ms = (uint64_t)max; // as Envoy reads it, which has no field for that here
    *ret = p;
    return 0;
}

static int take_metadata(const Envoy__Config__Core__V3__GrpcService *m, struct arena *a, struct grpc_service *s, struct err *err)
{
    struct headers *h = m->n_initial_metadata ? arena_new(a, struct headers) : NULL;
    if (h) {
        headers_init(h, a);
    }
    for (size_t i = 0; i < m->n_initial_metadata; i++) {
        const Envoy__Config__Core__V3__HeaderValue *x = m->initial_metadata[i];
        struct str name = arena_str(a, str_c(x->key)), value = arena_str(a, x->value[0] ? str_c(x->value) : pb_bytes(x->raw_value));
        for (size_t k = 0; k < name.n; k++) { // gRPC knows lower case only
            char *c = (char *)name.p + k;
            *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c;
        }
        if (!ch_all(name, CH_TOKEN)) {
            return err_set(err, -EINVAL, "initial_metadata[%zu].key: \"%s\" is no name of a field", i, x->key);
        }
        if (str_find(value, '%') >= 0) {
            return err_set(err, -ENOTSUP, "initial_metadata[%zu].value: operators (%%…%%) are not supported here", i);
        }
        for (size_t k = 0; k < value.n; k++) {
            if ((unsigned char)value.p[k] < 0x20 || value.p[k] == 0x7f) {
                return err_set(err, -EINVAL, "initial_metadata[%zu].value: must not have line ends or control characters", i);
            }
        }
        headers_add(h, name, value);
    }
    s->metadata = h;
    return 0;
}

int grpc_service_parse(const Envoy__Config__Core__V3__GrpcService *m, uint64_t default_ms, struct arena *a, struct grpc_service *ret,
                       struct err *err)
{
    struct grpc_service s = { 0 };
    if (m->target_specifier_case == ENVOY__CONFIG__CORE__V3__GRPC_SERVICE__TARGET_SPECIFIER_GOOGLE_GRPC) {
        return err_set(err, -ENOTSUP, "google_grpc: is not supported; name a cluster with envoy_grpc");
    }
    if (m->target_specifier_case != ENVOY__CONFIG__CORE__V3__GRPC_SERVICE__TARGET_SPECIFIER_ENVOY_GRPC || !m->envoy_grpc->cluster_name[0]) {
        return err_set(err, -EINVAL, "envoy_grpc.cluster_name: is missing");
    }
    const Envoy__Config__Core__V3__GrpcService__EnvoyGrpc *e = m->envoy_grpc;
    s.cluster = arena_str(a, str_c(e->cluster_name));
    s.authority = arena_str(a, str_c(e->authority));
    for (size_t i = 0; i < s.authority.n; i++) {
        if (s.authority.p[i] <= 0x20 || s.authority.p[i] == 0x7f) {
            return err_set(err, -EINVAL, "envoy_grpc.authority: must not have spaces or control characters");
        }
    }
    s.answer_max = pb_u32_or(e->max_receive_message_length, 0);
    s.no_envoy_headers = e->skip_envoy_headers;
    s.timeout_ms = (uint64_t)pb_duration_ms(m->timeout, (int64_t)default_ms);
    int rc = core_retry_parse(m->retry_policy ? m->retry_policy : e->retry_policy, a, &s.retry, err);
    rc = rc ? rc : take_metadata(m, a, &s, err);
    if (!rc) {
        *ret = s;
    }
    return rc;
}

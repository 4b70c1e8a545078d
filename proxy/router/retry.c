// SPDX-License-Identifier: Apache-2.0
// When to try again: route.v3.RetryPolicy.retry_on with Envoy's meaning.
#include "lib/base/check.h"
#include "proxy/router/router.h"

static bool wanted_status(const struct retry_policy *p, int status)
{
    if ((p->on & RETRY_5XX) && status >= 500) {
        return true;
    }
    if ((p->on & RETRY_GATEWAY_ERROR) && status >= 502 && status <= 504) {
        return true;
    }
    if ((p->on & RETRY_RETRIABLE_4XX) && status == 409) {
        return true;
    }
    for (size_t i = 0; (p->on & RETRY_STATUS_CODES) && i < p->status_code_count; i++) {
        if (p->status_codes[i] == (uint32_t)status) {
            return true;
        }
    }
    return false;
}

static bool wanted_grpc(const struct retry_policy *p, const struct headers *h)
{
    static const struct {
        uint64_t status;
        uint32_t on;
    } map[] = { { 1, RETRY_GRPC_CANCELLED }, { 4, RETRY_GRPC_DEADLINE }, { 8, RETRY_GRPC_EXHAUSTED },
                { 13, RETRY_GRPC_INTERNAL }, { 14, RETRY_GRPC_UNAVAILABLE } };
    uint64_t status;
    if (!h || !str_to_u64(headers_value_id(h, HDR_GRPC_STATUS), 16, &status)) {
        return false;
    }
    for (size_t i = 0; i < array_len(map); i++) {
        if (map[i].status == status) {
            return p->on & map[i].on;
        }
    }
    return false;
}

bool retry_wanted(const struct retry_policy *p, enum retry_event ev, int status, const struct headers *headers)
{
    if (!p) {
        return false;
    }
    switch (ev) {
    case RETRY_EV_RESPONSE:
        if (headers && headers_get(headers, STR("x-envoy-ratelimited"))) {
            return p->on & RETRY_ENVOY_RATELIMITED; // a rate limit is not to be hammered on, whatever else is set
        }
        if (headers && (p->on & RETRY_HEADERS) && retry_headers_match(p, headers)) {
            return true;
        }
        return wanted_status(p, status) || wanted_grpc(p, headers);
    case RETRY_EV_CONNECT_FAIL:
        return p->on & (RETRY_CONNECT_FAILURE | RETRY_RESET_BEFORE_REQUEST | RETRY_RESET | RETRY_5XX | RETRY_GATEWAY_ERROR);
    case RETRY_EV_REFUSED:
        return p->on & (RETRY_REFUSED_STREAM | RETRY_RESET | RETRY_5XX | RETRY_GATEWAY_ERROR);
    case RETRY_EV_RESET:
    case RETRY_EV_TIMEOUT:
        return p->on & (RETRY_RESET | RETRY_5XX | RETRY_GATEWAY_ERROR);
    }
    return false;
}

uint64_t retry_backoff_ms(const struct retry_policy *p, uint32_t n, uint64_t random)
{
    uint64_t base = p->backoff_base_ms ? p->backoff_base_ms : ROUTER_BACKOFF_MS;
    uint64_t max = p->backoff_max_ms ? p->backoff_max_ms : 10 * base;
    uint64_t span = base;
    for (uint32_t i = 1; i < n && span < max; i++) {
        span *= 2;
    }
    span = span > max ? max : span;
    return span ? random % span : 0;
}

bool method_is_idempotent(struct str method)
{
    static const char *const names[] = { "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE" };
    for (size_t i = 0; i < array_len(names); i++) {
        if (str_is(method, names[i])) {
            return true;
        }
    }
    return false;
}

bool method_is_safe(struct str method)
{
    return str_is(method, "GET") || str_is(method, "HEAD") || str_is(method, "OPTIONS");
}

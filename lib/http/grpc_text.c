// SPDX-License-Identifier: Apache-2.0
#include "lib/http/grpc_text.h"

#include <stdio.h>

enum { TIMEOUT_DIGITS_MAX = 8, TIMEOUT_VALUE_MAX = 99999999 };

bool grpc_content_type(struct str value)
{
    static const struct str name = { "application/grpc", 16 };
    return value.n >= name.n && str_eq_nocase(str_n(value.p, name.n), name) &&
           (value.n == name.n || value.p[name.n] == '+' || value.p[name.n] == ';');
}

enum grpc_status grpc_status_of_http(int status)
{
    switch (status) {
    case 400:
        return GRPC_INTERNAL;
    case 401:
        return GRPC_UNAUTHENTICATED;
    case 403:
        return GRPC_PERMISSION_DENIED;
    case 404:
        return GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return GRPC_UNAVAILABLE;
    default:
        return GRPC_UNKNOWN;
    }
}

bool grpc_timeout_parse(struct str value, uint64_t *ret_ms)
{
    uint64_t n;
    if (value.n < 2 || value.n > TIMEOUT_DIGITS_MAX + 1 || !str_to_u64(str_n(value.p, value.n - 1), TIMEOUT_VALUE_MAX, &n)) {
        return false;
    }
    switch (value.p[value.n - 1]) {
    case 'H':
        *ret_ms = n * 3600 * 1000;
        return true;
    case 'M':
        *ret_ms = n * 60 * 1000;
        return true;
    case 'S':
        *ret_ms = n * 1000;
        return true;
    case 'm':
        *ret_ms = n;
        return true;
    case 'u':
        *ret_ms = (n + 999) / 1000;
        return true;
    case 'n':
        *ret_ms = (n + 999999) / 1000000;
        return true;
    default:
        return false;
    }
}

struct str grpc_timeout_text(uint64_t ms, struct arena *a)
{
    static const struct {
        char unit;
        uint64_t ms;
    } units[] = { { 'm', 1 }, { 'S', 1000 }, { 'M', 60 * 1000 }, { 'H', 3600 * 1000 } };
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        uint64_t n = ms / units[i].ms + (ms % units[i].ms != 0);
        if (n <= TIMEOUT_VALUE_MAX) {
            return arena_printf(a, "%llu%c", (unsigned long long)n, units[i].unit);
        }
    }
    return arena_printf(a, "%dH", TIMEOUT_VALUE_MAX);
}

struct str grpc_message_encode(struct str text, struct arena *a)
{
    char *out = arena_alloc(a, text.n * 3 + 1);
    size_t n = 0;
    for (size_t i = 0; out && i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c >= 0x20 && c <= 0x7e && c != '%') {
            out[n++] = (char)c;
        } else {
            n += (size_t)snprintf(out + n, 4, "%%%02X", c);
        }
    }
    return str_n(out, n);
}

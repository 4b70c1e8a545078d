// SPDX-License-Identifier: Apache-2.0
// What an HTTP route of a VirtualService does.
#include <stdlib.h>

#include "control-plane/load_int.h"
#include "control-plane/validate_int.h"
#include "lib/base/check.h"
#include "lib/regex/regex.h"

enum { BODY_LARGE = 100 * 1024, BODY_MAX = 1024 * 1024, REGEX_MAX = 1024 };

// ---- header changes ----

static bool is_authority(struct str name)
{
    return str_eq_nocase(name, STR("host")) || str_eq_nocase(name, STR(":authority"));
}

static void check_name(struct cp_validator *v, const struct json *at, struct str name, bool authority)
{
    if (!name.n) {
        va_error(v, at, "a header's name is empty");
    } else if ((name.p[0] == ':' || is_authority(name)) && !(authority && is_authority(name))) {
        va_error(v, at, "\"%.*s\" cannot be changed here", STR_FMT(name));
    }
}

// Envoy's operators, "%NAME%", "%NAME(text)%", "%NAME([\"a\", \"b\"])%", and "%%": what is wrong with the text, or NULL.
static const char *wrong_value(struct str s)
{
    enum { TEXT, NAME, ARGUMENTS, QUOTE, STRING, COMMA, CLOSE, END } state = TEXT;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if ((c < 0x20 && c != '\t' && (unsigned char)c < 0x80) || c == 0x7f) {
            return "holds a control character";
        }
        switch (state) {
        case TEXT:
            if (c == '%' && i + 1 < s.n && s.p[i + 1] == '%') {
                i++;
            } else if (c == '%') {
                state = i + 1 < s.n ? NAME : END;
            }
            break;
        case NAME:
            state = c == '%' ? TEXT : c == '(' ? ARGUMENTS : NAME;
            break;
        case ARGUMENTS:
            state = c == '[' ? QUOTE : c != ' ' ? STRING : ARGUMENTS;
            break;
        case QUOTE:
            if (c != '"' && c != ' ') {
                return "holds an operator with wrong arguments";
            }
            state = c == '"' ? STRING : QUOTE;
            break;
        case STRING:
            if (c == '\\') {
                i++;
            } else {
                state = c == ')' ? END : c == '"' ? COMMA : state;
            }
            break;
        case COMMA:
            if (c != ',' && c != ']' && c != ' ') {
                return "holds an operator with wrong arguments";
            }
            state = c == ',' ? QUOTE : c == ']' ? CLOSE : COMMA;
            break;
        case CLOSE:
        case END:
            if (c != ' ' && c != (state == CLOSE ? ')' : '%')) {
                return "holds an operator with wrong arguments";
            }
            state = c == ' ' ? state : state == CLOSE ? END : TEXT;
            break;
        }
    }
    return state == TEXT ? NULL : "holds a % that begins no operator; %% is the character";
}

static void check_headers(struct cp_validator *v, const struct json *n)
{
    static const char *const sides[] = { "request", "response" }, *const changes[] = { "add", "set" };
    for (int i = 0; i < 2; i++) {
        const struct json *side = va_get(va_get(n, "headers"), sides[i]);
        for (int k = 0; k < 2; k++) {
            for (const struct json *h = va_first(side, changes[k]); h; h = h->next) {
                const char *wrong = wrong_value(h->text);
                check_name(v, h, h->key, i == 0);
                if (wrong) {
                    va_error(v, h, "\"%.*s\" %s", STR_FMT(h->text), wrong);
                }
            }
        }
        for (const struct json *h = va_first(side, "remove"); h; h = h->next) {
            check_name(v, va_get(side, "remove"), h->text, false);
        }
    }
}

// rewrite.authority, and host or :authority among the header changes: one of them.
static void check_authority(struct cp_validator *v, const struct json *r)
{
    static const char *const changes[] = { "set", "add" };
    const struct json *request = va_get(va_get(r, "headers"), "request");
    bool have = json_str(va_get(r, "rewrite"), "authority").n > 0;
    for (int k = 0; k < 2; k++) {
        for (const struct json *h = va_first(request, changes[k]); h; h = h->next) {
            if (is_authority(h->key) && have) {
                va_error(v, h, "the authority is set already");
                return;
            }
            have |= is_authority(h->key) && h->text.n;
        }
    }
}

// ---- redirect, direct response, rewrite ----

static void check_redirect(struct cp_validator *v, const struct json *n, const struct json *r)
{
    struct str scheme = json_str(n, "scheme");
    const struct json *port = va_get(n, "port"), *code = va_get(n, "redirectCode");
    bool uri = json_str(n, "uri").n, prefix = json_str(n, "prefixRewrite").n;
    if (!n) {
        return;
    }
    for (const struct json *m = prefix ? va_first(r, "match") : NULL; m; m = m->next) {
        if (va_get(m, "uri") && !va_get(va_get(m, "uri"), "prefix")) {
            va_error(v, n, "prefixRewrite goes with matches by prefix only");
            return;
        }
    }
    if (uri && prefix) {
        va_error(v, n, "uri and prefixRewrite exclude each other");
    } else if (!uri && !prefix && !json_str(n, "authority").n && !port && !va_get(n, "derivePort") && !scheme.n) {
        va_error(v, n, "uri, prefixRewrite, authority, scheme or port is needed");
    } else if (code && va_number(code) != 0 && (va_number(code) < 300 || va_number(code) > 399)) {
        va_error(v, code, "must be 3xx");
    } else if (scheme.n && !str_is(scheme, "http") && !str_is(scheme, "https")) {
        va_error(v, va_get(n, "scheme"), "must be http or https");
    } else if (port && va_number(port) != 0) {
        va_port(v, n, port);
    }
}

static void check_status(struct cp_validator *v, const struct json *n, const char *key)
{
    const struct json *m = va_get(n, key);
    double x = va_number(m);
    if (x < 200 || x > 600) { // Istio takes 600, too
        va_error(v, m ? m : n, "%smust be from 200 to 599", m ? "" : "status: ");
    }
}

static void check_direct(struct cp_validator *v, const struct json *n)
{
    const struct json *body = va_get(n, "body");
    struct str bytes = json_str(body, "bytes"), text = json_str(body, "string");
    size_t size = text.n ? text.n : bytes.n / 4 * 3;
    if (size > BODY_MAX) {
        va_error(v, body, "must be smaller than 1 MiB");
    } else if (size > BODY_LARGE) {
        va_warn(v, body, "large bodies are sent to every proxy");
    }
    if (n) {
        check_status(v, n, "status");
    }
}

static void check_rewrite(struct cp_validator *v, const struct json *n)
{
    const struct json *regex = va_get(n, "uriRegexRewrite"), *match = va_get(regex, "match");
    bool uri = json_str(n, "uri").n;
    struct err e = { 0 };
    if (!n) {
        return;
    }
    if (uri && regex) {
        va_error(v, n, "uri and uriRegexRewrite exclude each other");
    } else if (!uri && !regex && !json_str(n, "authority").n) {
        va_error(v, n, "uri, uriRegexRewrite or authority is needed");
    } else if (regex && (!json_str(regex, "match").n || !json_str(regex, "rewrite").n)) {
        va_error(v, regex, "match and rewrite are needed");
    } else if (regex) {
        struct regex *re = match->text.n <= REGEX_MAX ? regex_new(match->text, &e) : NULL;
        if (!re) {
            va_error(v, match, "%.300s", e.code ? e.msg : "must have at most 1024 characters");
        }
        regex_free(re);
    }
}

// ---- CORS, fault, mirrors, retries ----

static void check_cors(struct cp_validator *v, const struct json *n)
{
    static const char *const methods[] = { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*" };
    static const char *const lists[] = { "allowHeaders", "exposeHeaders" };
    for (const struct json *o = va_first(n, "allowOrigins"); o; o = o->next) {
        struct str exact = json_str(o, "exact"), prefix = json_str(o, "prefix");
        struct err e = { 0 };
        const struct json *regex = va_get(o, "regex");
        struct regex *re = regex && regex->text.n && regex->text.n <= REGEX_MAX ? regex_new(regex->text, &e) : NULL;
        if (regex ? !re : !exact.n && !prefix.n) {
            va_error(v, regex ? regex : va_get(n, "allowOrigins"), "%.300s", e.code ? e.msg : "an origin is empty");
        }
        regex_free(re);
    }
    for (const struct json *m = va_first(n, "allowMethods"); m; m = m->next) {
        bool known = false;
        for (size_t i = 0; i < array_len(methods); i++) {
            known |= str_is(m->text, methods[i]);
        }
        if (!known) {
            va_error(v, va_get(n, "allowMethods"), "\"%.*s\" is no HTTP method", STR_FMT(m->text));
        }
    }
    for (int i = 0; i < 2; i++) {
        for (const struct json *h = va_first(n, lists[i]); h; h = h->next) {
            if (!str_is(h->text, "*") && !va_is_header(h->text)) {
                va_error(v, va_get(n, lists[i]), "\"%.*s\" is no name of a header", STR_FMT(h->text));
            }
        }
    }
    const struct json *age = va_get(n, "maxAge");
    double s;
    va_duration(v, n, "maxAge");
    if (age && ld_parse_duration(age->text, &s) && s != (double)(long long)s) {
        va_error(v, age, "must be whole seconds");
    }
}

static void check_percentage(struct cp_validator *v, const struct json *n, const char *key, double least)
{
    const struct json *m = va_get(n, key);
    double x = va_number(va_get(m, "value"));
    if (m && (x < 0 || x > 100 || (x > 0 && x < least))) {
        va_error(v, m, "must be 0, or from %g to 100", least);
    }
}

static void check_fault(struct cp_validator *v, const struct json *n)
{
    static const char *const grpc[] = { "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
                                        "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
                                        "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED" };
    const struct json *abort = va_get(n, "abort"), *delay = va_get(n, "delay"), *status = va_get(abort, "grpcStatus");
    if (n && !abort && !delay) {
        va_error(v, n, "abort or delay is needed");
    }
    check_percentage(v, abort, "percentage", 0.0001);
    check_percentage(v, delay, "percentage", 0.0001);
    va_duration(v, delay, "fixedDelay");
    va_duration(v, delay, "exponentialDelay");
    if (va_get(delay, "exponentialDelay")) {
        va_error(v, va_get(delay, "exponentialDelay"), "is not supported by Istio");
    }
    if (va_get(abort, "http2Error")) {
        va_error(v, va_get(abort, "http2Error"), "is not supported by Istio");
    }
    if (va_get(abort, "httpStatus")) {
        check_status(v, abort, "httpStatus");
    }
    bool known = !status;
    for (size_t i = 0; i < array_len(grpc) && !known; i++) {
        known = str_is(status->text, grpc[i]);
    }
    if (!known) {
        va_error(v, status, "\"%.*s\" is no name of a gRPC status, such as NOT_FOUND", STR_FMT(status->text));
    }
}

static void check_mirrors(struct cp_validator *v, const struct json *r)
{
    const struct json *list = va_get(r, "mirrors"), *percent = va_get(r, "mirrorPercent");
    if (va_get(r, "mirror") && list && list->count) {
        va_error(v, list, "mirror and mirrors exclude each other");
    }
    va_destination(v, va_get(r, "mirror"));
    check_percentage(v, r, "mirrorPercentage", 0);
    if (percent) {
        va_warn(v, percent, "is the older form of mirrorPercentage");
        if (va_number(percent) > 100) {
            va_error(v, percent, "must be at most 100");
        }
    }
    for (const struct json *m = list ? list->first : NULL; m; m = m->next) {
        if (!va_get(m, "destination")) {
            va_error(v, m, "destination: missing");
            continue;
        }
        va_destination(v, va_get(m, "destination"));
        check_percentage(v, m, "percentage", 0);
    }
}

// The status codes that have a name (IANA's registry and 418), as Go's net/http knows them.
static bool is_named_status(struct str s)
{
    static const struct {
        int from, to;
    } ranges[] = { { 100, 103 }, { 200, 208 }, { 226, 226 }, { 300, 305 }, { 307, 308 }, { 400, 418 }, { 421, 426 },
                   { 428, 429 }, { 431, 431 }, { 451, 451 }, { 500, 508 }, { 510, 511 } };
    uint64_t x = 0;
    bool known = false;
    for (size_t i = 0; i < array_len(ranges) && str_to_u64(s, 999, &x); i++) {
        known |= (int)x >= ranges[i].from && (int)x <= ranges[i].to;
    }
    return known;
}

static void check_retries(struct cp_validator *v, const struct json *n)
{
    static const char *const policies[] = { "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx",
                                            "refused-stream", "retriable-status-codes", "retriable-headers", "envoy-ratelimited",
                                            "http3-post-connect-failure", "cancelled", "deadline-exceeded", "internal", "resource-exhausted",
                                            "unavailable" };
    double attempts = va_number(va_get(n, "attempts"));
    struct str rest = json_str(n, "retryOn");
    if (attempts < 0) {
        va_error(v, va_get(n, "attempts"), "must not be negative");
    }
    if (n && attempts == 0 && (va_get(n, "perTryTimeout") || rest.n || va_get(n, "retryRemoteLocalities"))) {
        va_error(v, n, "attempts is 0, which switches retries off; the other fields have no effect");
    }
    va_duration(v, n, "perTryTimeout");
    va_duration(v, n, "backoff");
    while (rest.n) {
        struct str word = str_split(&rest, ',');
        bool known = is_named_status(word);
        for (size_t i = 0; i < array_len(policies); i++) {
            known |= str_is(word, policies[i]);
        }
        if (!known) {
            va_error(v, va_get(n, "retryOn"), "\"%.*s\" is no condition to retry on", STR_FMT(word));
        }
    }
}

// ---- which of them go together ----

static void check_together(struct cp_validator *v, const struct json *r, bool delegate)
{
    static const char *const with_redirect[] = { "fault", "rewrite", "directResponse" }, *const with_direct[] = { "fault", "rewrite" };
    const struct json *redirect = va_get(r, "redirect"), *direct = va_get(r, "directResponse"), *route = va_get(r, "route");
    if (va_get(r, "delegate") && !delegate) {
        if (redirect || (route && route->count)) {
            va_error(v, redirect ? redirect : route, "does not go with delegate");
        }
        return;
    }
    if (va_get(r, "delegate")) {
        va_error(v, va_get(r, "delegate"), "a delegate cannot delegate again");
    }
    for (size_t i = 0; redirect && i < array_len(with_redirect); i++) {
        if (va_get(r, with_redirect[i])) {
            va_error(v, va_get(r, with_redirect[i]), "does not go with redirect");
        }
    }
    for (size_t i = 0; !redirect && direct && i < array_len(with_direct); i++) {
        if (va_get(r, with_direct[i])) {
            va_error(v, va_get(r, with_direct[i]), "does not go with directResponse");
        }
    }
    if ((redirect || direct) && route && route->count) {
        va_error(v, route, "does not go with %s", redirect ? "redirect" : "directResponse");
    } else if (!redirect && !direct && (!route || !route->count)) {
        va_error(v, r, "route, redirect or directResponse is needed");
    }
}

void va_http_route(struct cp_validator *v, const struct json *r, bool delegate)
{
    check_together(v, r, delegate);
    check_headers(v, r);
    for (const struct json *d = va_first(r, "route"); d; d = d->next) {
        check_headers(v, d);
    }
    check_authority(v, r);
    check_redirect(v, va_get(r, "redirect"), r);
    check_direct(v, va_get(r, "directResponse"));
    check_rewrite(v, va_get(r, "rewrite"));
    check_cors(v, va_get(r, "corsPolicy"));
    check_fault(v, va_get(r, "fault"));
    check_mirrors(v, r);
    check_retries(v, va_get(r, "retries"));
    va_duration(v, r, "timeout");
}

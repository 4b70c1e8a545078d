// SPDX-License-Identifier: Apache-2.0
// What an HTTP route does: redirect, direct response, rewrite, fault, mirrors, CORS, retries, header changes.
#include <errno.h>
#include <string.h>

#include "control-plane/load_int.h"
#include "lib/base/check.h"
#include "lib/regex/regex.h"

enum { MILLION = 1000000 };

// ---- header changes ----

static bool is_authority(struct str name)
{
    return str_eq_nocase(name, STR("host")) || str_eq_nocase(name, STR(":authority"));
}

static int by_key(const struct cp_label *a, const struct cp_label *b)
{
    return str_cmp(a->key, b->key);
}

// In the order of names, as istiod writes them; host and :authority become a rewrite of the host.
static int take_changes(struct loader *l, const struct json *n, struct cp_labels in, struct cp_header_changes *h, struct cp_label **ret, size_t *ret_n)
{
    *ret = arena_array(l->a, struct cp_label, in.n + 1);
    for (size_t i = 0; i < in.n; i++) {
        if (is_authority(in.v[i].key)) {
            h->authority = h->authority.n ? h->authority : in.v[i].value;
            continue;
        }
        if (!in.v[i].key.n || in.v[i].key.p[0] == ':') {
            return ld_fail(l, n, "\"%.*s\" cannot be changed this way; rewrite.uri can change the path", STR_FMT(in.v[i].key));
        }
        size_t at = (*ret_n)++;
        for (; at && by_key(&(*ret)[at - 1], &in.v[i]) > 0; at--) {
            (*ret)[at] = (*ret)[at - 1];
        }
        (*ret)[at] = in.v[i];
    }
    return 0;
}

static int load_changes_side(struct loader *l, const struct json *h, const char *side, struct cp_header_changes *c)
{
    const struct json *n = NULL;
    struct cp_labels set = { 0 }, add = { 0 };
    if (ld_object(l, h, side, &n)) {
        return -EINVAL;
    }
    if (!n) {
        return 0;
    }
    if (ld_members(l, n, "set add remove") || ld_labels(l, n, "set", &set) || ld_labels(l, n, "add", &add) ||
        ld_strs(l, n, "remove", &c->remove, &c->remove_count) || take_changes(l, n, set, c, &c->set, &c->set_count) ||
        take_changes(l, n, add, c, &c->add, &c->add_count)) {
        return -EINVAL;
    }
    if (c->authority.n && str_is(str_c(side), "response")) {
        return ld_fail(l, n, "host and :authority belong to requests");
    }
    for (size_t i = 0; i < c->remove_count; i++) {
        if (!c->remove[i].n || c->remove[i].p[0] == ':' || is_authority(c->remove[i])) {
            return ld_fail(l, n, "remove: \"%.*s\" cannot be removed", STR_FMT(c->remove[i]));
        }
    }
    return 0;
}

int ld_header_changes(struct loader *l, const struct json *n, struct cp_header_changes *req, struct cp_header_changes *resp, bool *ret_there)
{
    const struct json *h = NULL;
    if (ld_object(l, n, "headers", &h) || (h && ld_members(l, h, "request response"))) {
        return -EINVAL;
    }
    if (h && ret_there) {
        *ret_there = true;
    }
    return h && (load_changes_side(l, h, "request", req) || load_changes_side(l, h, "response", resp)) ? -EINVAL : 0;
}

// ---- answers without a destination ----

static int load_redirect(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    const struct json *m = NULL;
    int derive = -1;
    if (ld_object(l, n, "redirect", &m)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    struct cp_redirect *d = r->redirect = arena_new(l->a, struct cp_redirect);
    *d = (struct cp_redirect){ .code = 301 };
    if (ld_members(l, m, "uri prefixRewrite authority port derivePort scheme redirectCode") || ld_str(l, m, "uri", &d->uri) ||
        ld_str(l, m, "prefixRewrite", &d->prefix) || ld_str(l, m, "authority", &d->authority) || ld_str(l, m, "scheme", &d->scheme) ||
        ld_port(l, m, "port", &d->port) || ld_u32(l, m, "redirectCode", 399, &d->code) ||
        ld_word(l, m, "derivePort", "FROM_PROTOCOL_DEFAULT FROM_REQUEST_PORT", &derive)) {
        return -EINVAL;
    }
    d->has_port = d->port || derive >= 0;
    d->request_port = derive == 1;
    d->code = d->code ? d->code : 301;
    if (d->port && derive >= 0) {
        return ld_fail(l, m, "port and derivePort exclude each other");
    }
    if (d->uri.n && d->prefix.n) {
        return ld_fail(l, m, "uri and prefixRewrite exclude each other");
    }
    if (d->scheme.n && !str_is(d->scheme, "http") && !str_is(d->scheme, "https")) {
        return ld_fail(l, json_get(m, "scheme"), "must be http or https");
    }
    if (d->code != 301 && d->code != 302 && d->code != 303 && d->code != 307 && d->code != 308) {
        return ld_fail(l, json_get(m, "redirectCode"), "must be 301, 302, 303, 307 or 308");
    }
    return 0;
}

static int load_direct(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    const struct json *m = NULL, *body = NULL;
    if (ld_object(l, n, "directResponse", &m)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    struct cp_direct *d = r->direct = arena_new(l->a, struct cp_direct);
    if (ld_members(l, m, "status body") || ld_u32(l, m, "status", 599, &d->status) || ld_object(l, m, "body", &body)) {
        return -EINVAL;
    }
    if (d->status < 200) {
        return ld_fail(l, m, "status: must be 200 to 599");
    }
    if (!body) {
        return 0;
    }
    d->has_body = true;
    d->bytes = json_get(body, "bytes") != NULL;
    if (ld_members(l, body, "string bytes") || ld_str(l, body, d->bytes ? "bytes" : "string", &d->body)) {
        return -EINVAL;
    }
    return d->bytes && json_get(body, "string") ? ld_fail(l, body, "string and bytes exclude each other") : 0;
}

// ---- forwarding ----

static int load_rewrite(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    const struct json *m = NULL, *re = NULL;
    if (ld_object(l, n, "rewrite", &m)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    struct cp_rewrite *w = r->rewrite = arena_new(l->a, struct cp_rewrite);
    if (ld_members(l, m, "uri authority uriRegexRewrite") || ld_str(l, m, "uri", &w->uri) || ld_str(l, m, "authority", &w->authority) ||
        ld_object(l, m, "uriRegexRewrite", &re)) {
        return -EINVAL;
    }
    if (re && (ld_members(l, re, "match rewrite") || ld_str(l, re, "match", &w->regex) || ld_str(l, re, "rewrite", &w->substitution))) {
        return -EINVAL;
    }
    if (re && w->uri.n) {
        return ld_fail(l, m, "uri and uriRegexRewrite exclude each other");
    }
    if (re && (!w->regex.n || !w->substitution.n)) {
        return ld_fail(l, re, "match and rewrite are both needed");
    }
    struct err e = { 0 };
    struct regex *c = re ? regex_new(w->regex, &e) : NULL;
    if (re && !c) {
        return ld_fail(l, json_get(re, "match"), "%.500s", e.msg);
    }
    regex_free(c);
    return 0;
}

static int load_delay(struct loader *l, const struct json *n, struct cp_fault *f)
{
    const struct json *m = NULL;
    uint32_t percent = 0;
    bool there = false;
    if (ld_object(l, n, "delay", &m)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    if (ld_members(l, m, "fixedDelay percentage percent") || ld_duration(l, m, "fixedDelay", &f->delay_time) ||
        ld_u32(l, m, "percent", 100, &percent) || ld_percent(l, m, "percentage", &f->delay_ppm, &there)) {
        return -EINVAL;
    }
    f->delay_ppm = there ? f->delay_ppm : percent * (MILLION / 100);
    f->delay = f->delay_time.n > 0; // without it there is no delay, as in Istio
    return 0;
}

// The names of google.rpc.Code, in the order of their numbers.
static const char grpc_codes[] = "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
                                 "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
                                 "UNAUTHENTICATED";

static int load_abort(struct loader *l, const struct json *n, struct cp_fault *f)
{
    const struct json *m = NULL;
    int code = -1;
    bool there = false;
    if (ld_object(l, n, "abort", &m)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    if (ld_members(l, m, "httpStatus grpcStatus percentage") || ld_u32(l, m, "httpStatus", 599, &f->abort_status) ||
        ld_word(l, m, "grpcStatus", grpc_codes, &code) || ld_percent(l, m, "percentage", &f->abort_ppm, &there)) {
        return -EINVAL;
    }
    if (code >= 0 && f->abort_status) {
        return ld_fail(l, m, "httpStatus and grpcStatus exclude each other");
    }
    if (code < 0 && f->abort_status && f->abort_status < 200) {
        return ld_fail(l, m, "httpStatus: must be 200 to 599");
    }
    f->abort = code >= 0 || f->abort_status; // without them there is no abort, as in Istio
    f->grpc = code >= 0;
    f->abort_status = code >= 0 ? (uint32_t)code : f->abort_status;
    return 0; // HTTPFaultInjection.Abort.percentage: no request when absent
}

static int load_fault(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    const struct json *m = NULL;
    if (ld_object(l, n, "fault", &m)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    r->fault = arena_new(l->a, struct cp_fault);
    if (ld_members(l, m, "delay abort") || load_delay(l, m, r->fault) || load_abort(l, m, r->fault)) {
        return -EINVAL;
    }
    if (!r->fault->delay && !r->fault->abort) {
        r->fault = NULL;
    }
    return 0;
}

static int load_mirrors(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    const struct json *one = NULL, *list = NULL;
    uint32_t percent = 100, ppm = MILLION;
    bool there = false;
    if (ld_object(l, n, "mirror", &one) || ld_list(l, n, "mirrors", &list) || ld_u32(l, n, "mirrorPercent", 100, &percent) ||
        ld_percent(l, n, "mirrorPercentage", &ppm, &there)) {
        return -EINVAL;
    }
    if (one && list) {
        return ld_fail(l, list, "mirror and mirrors exclude each other");
    }
    r->mirrors = arena_array(l->a, struct cp_mirror, 1 + (list ? list->count : 0));
    if (one) {
        struct cp_mirror *m = &r->mirrors[r->mirror_count++];
        m->ppm = there ? ppm : percent * (MILLION / 100);
        return ld_one_destination(l, one, &m->to);
    }
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        struct cp_mirror *m = &r->mirrors[r->mirror_count++];
        const struct json *to = NULL;
        m->ppm = MILLION;
        if (ld_members(l, x, "destination percentage") || ld_percent(l, x, "percentage", &m->ppm, &there) || ld_object(l, x, "destination", &to)) {
            return -EINVAL;
        }
        if (!to) {
            return ld_fail(l, x, "destination: missing");
        }
        if (ld_one_destination(l, to, &m->to)) {
            return -EINVAL;
        }
    }
    return 0;
}

static int join(struct loader *l, const struct json *n, const char *key, struct str *ret)
{
    struct str *v = NULL;
    size_t count = 0;
    if (ld_strs(l, n, key, &v, &count)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        *ret = i ? arena_printf(l->a, "%.*s,%.*s", STR_FMT(*ret), STR_FMT(v[i])) : v[i];
    }
    return 0;
}

static int load_origins(struct loader *l, const struct json *n, struct cp_cors *c)
{
    const struct json *list = NULL;
    struct str *exact = NULL;
    size_t exact_count = 0;
    if (ld_list(l, n, "allowOrigins", &list) || ld_strs(l, n, "allowOrigin", &exact, &exact_count)) {
        return -EINVAL;
    }
    c->origins = arena_array(l->a, struct cp_string_match, exact_count + (list ? list->count : 0) + 1);
    for (const struct json *x = list ? list->first : NULL; x; x = x->next) {
        struct cp_string_match *m = &c->origins[c->origin_count++];
        if (ld_string_match(l, x, m)) {
            return -EINVAL;
        }
        if (m->kind == CP_PRESENT) {
            return ld_fail(l, json_get(n, "allowOrigins"), "exact, prefix or regex is needed");
        }
    }
    for (size_t i = 0; !list && i < exact_count; i++) { // the older form
        c->origins[c->origin_count++] = (struct cp_string_match){ .kind = CP_EXACT, .value = exact[i] };
    }
    return 0;
}

static int load_cors(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    const struct json *m = NULL;
    int unmatched = 0;
    bool credentials = false;
    struct str age = { 0 };
    if (ld_object(l, n, "corsPolicy", &m)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    struct cp_cors *c = r->cors = arena_new(l->a, struct cp_cors);
    if (ld_members(l, m, "allowOrigins allowOrigin allowMethods allowHeaders exposeHeaders maxAge allowCredentials unmatchedPreflights") ||
        load_origins(l, m, c) || join(l, m, "allowMethods", &c->methods) || join(l, m, "allowHeaders", &c->headers) ||
        join(l, m, "exposeHeaders", &c->expose) || ld_duration(l, m, "maxAge", &age) || ld_bool(l, m, "allowCredentials", &credentials) ||
        ld_word(l, m, "unmatchedPreflights", "UNSPECIFIED FORWARD IGNORE", &unmatched)) {
        return -EINVAL;
    }
    c->credentials = !json_get(m, "allowCredentials") ? 0 : credentials ? 1 : -1;
    c->ignore_unmatched = unmatched == 2;
    ptrdiff_t dot = str_find(age, '.');
    c->max_age = age.n && dot > 0 ? str_n(age.p, (size_t)dot) : age; // whole seconds
    return 0;
}

static int load_retries(struct loader *l, const struct json *n, struct cp_retries *r)
{
    const struct json *m = NULL;
    if (ld_object(l, n, "retries", &m)) {
        return -EINVAL;
    }
    if (!m) {
        return 0;
    }
    r->set = true;
    r->has_avoid = json_get(m, "retryIgnorePreviousHosts") != NULL;
    return ld_members(l, m, "attempts perTryTimeout retryOn retryRemoteLocalities retryIgnorePreviousHosts backoff") ||
                   ld_u32(l, m, "attempts", 100, &r->attempts) || ld_duration(l, m, "perTryTimeout", &r->per_try_timeout) ||
                   ld_str(l, m, "retryOn", &r->retry_on) || ld_bool(l, m, "retryRemoteLocalities", &r->remote_localities) ||
                   ld_bool(l, m, "retryIgnorePreviousHosts", &r->avoid) || ld_duration(l, m, "backoff", &r->backoff)
               ? -EINVAL
               : 0;
}

int ld_http_action(struct loader *l, const struct json *n, struct cp_http_route *r)
{
    return load_redirect(l, n, r) || load_direct(l, n, r) || load_rewrite(l, n, r) || load_fault(l, n, r) || load_mirrors(l, n, r) ||
                   load_cors(l, n, r) || ld_duration(l, n, "timeout", &r->timeout) || load_retries(l, n, &r->retries) ||
                   ld_header_changes(l, n, &r->request, &r->response, &r->has_headers)
               ? -EINVAL
               : 0;
}

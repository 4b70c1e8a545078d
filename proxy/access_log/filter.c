// SPDX-License-Identifier: Apache-2.0
#include "proxy/access_log/filter.h"

#include <errno.h>

#include "envoy/config/accesslog/v3/accesslog.pb-c.h"
#include "lib/base/check.h"

typedef Envoy__Config__Accesslog__V3__AccessLogFilter pb_filter;

static int parse(const pb_filter *m, int depth, struct arena *a, struct access_log_filter *f, bool *ext, struct err *err);

static int parse_comparison(const Envoy__Config__Accesslog__V3__ComparisonFilter *c, struct access_log_filter *f, struct err *err)
{
    if (!c || !c->value) {
        return err_set(err, -EINVAL, "comparison.value: is missing");
    }
    f->op = (int)c->op == 1 ? AF_GE : (int)c->op == 2 ? AF_LE : (int)c->op == 3 ? AF_NE : AF_EQ;
    f->value = c->value->default_value; // runtime keys have no other source here
    return 0;
}

static int parse_children(pb_filter **v, size_t n, int depth, struct arena *a, struct access_log_filter *f, bool *ext,
                          struct err *err)
{
    f->children = arena_array(a, struct access_log_filter, n ? n : 1);
    f->child_count = n;
    for (size_t i = 0; i < n; i++) {
        int rc = parse(v[i], depth + 1, a, &f->children[i], ext, err);
        if (rc < 0) {
            return err_wrap(err, "filters[%zu]", i);
        }
    }
    return 0;
}

static int parse_string(const Envoy__Type__Matcher__V3__StringMatcher *m, struct arena *a, struct string_matcher *s, struct err *err)
{
    s->ignore_case = m->ignore_case;
    const char *text = "";
    switch (m->match_pattern_case) {
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_EXACT:
        s->kind = SM_EXACT, text = m->exact;
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_PREFIX:
        s->kind = SM_PREFIX, text = m->prefix;
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_SUFFIX:
        s->kind = SM_SUFFIX, text = m->suffix;
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_CONTAINS:
        s->kind = SM_CONTAINS, text = m->contains;
        break;
    default:
        return err_set(err, -EINVAL, "header.string_match: this kind of match is not supported in access log filters");
    }
    s->value = arena_str(a, str_c(text));
    return 0;
}

static int parse_header(const Envoy__Config__Route__V3__HeaderMatcher *m, struct arena *a, struct header_matcher *h, struct err *err)
{
    if (!m || !m->name || !m->name[0]) {
        return err_set(err, -EINVAL, "header.name: is missing");
    }
    h->name = arena_str(a, str_c(m->name));
    for (size_t i = 0; i < h->name.n; i++) {
        char *c = (char *)h->name.p + i;
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c;
    }
    h->id = hdr_id_of(h->name);
    h->invert = m->invert_match;
    h->treat_missing_as_empty = m->treat_missing_header_as_empty;
    switch (m->header_match_specifier_case) {
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER__NOT_SET:
        h->kind = HM_PRESENT;
        h->present = true;
        return 0;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PRESENT_MATCH:
        h->kind = HM_PRESENT;
        h->present = m->present_match;
        return 0;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_STRING_MATCH:
        h->kind = HM_STRING;
        return parse_string(m->string_match, a, &h->string, err);
    default:
        return err_set(err, -EINVAL, "header: only present_match and string_match are supported in access log filters");
    }
}

static int parse_flags(const Envoy__Config__Accesslog__V3__ResponseFlagFilter *m, struct access_log_filter *f, struct err *err)
{
    for (size_t i = 0; i < m->n_flags; i++) {
        uint32_t bit = response_flag_parse(str_c(m->flags[i]));
        if (!bit) {
            return err_set(err, -EINVAL, "response_flag_filter.flags[%zu]: unknown response flag \"%s\"", i, m->flags[i]);
        }
        f->flags |= bit;
    }
    return 0;
}

static int parse_runtime(const Envoy__Config__Accesslog__V3__RuntimeFilter *m, struct access_log_filter *f)
{
    static const uint32_t denominators[] = { 100, 10000, 1000000 };
    // Without percent_sampled the runtime key decides, and there is no runtime: Envoy's default of 0 %.
    f->fraction = (struct fraction){ .numerator = 0, .denominator = 100 };
    if (m->percent_sampled && (unsigned)m->percent_sampled->denominator < array_len(denominators)) {
        f->fraction.numerator = m->percent_sampled->numerator;
        f->fraction.denominator = denominators[m->percent_sampled->denominator];
    }
    return 0;
}

static int parse(const pb_filter *m, int depth, struct arena *a, struct access_log_filter *f, bool *ext, struct err *err)
{
    if (depth > ACCESS_FILTER_DEPTH_MAX) {
        return err_set(err, -EINVAL, "filters are nested deeper than %d", ACCESS_FILTER_DEPTH_MAX);
    }
#define CASE(name) case ENVOY__CONFIG__ACCESSLOG__V3__ACCESS_LOG_FILTER__FILTER_SPECIFIER_##name
    switch (m->filter_specifier_case) {
    CASE(STATUS_CODE_FILTER):
        f->kind = AF_STATUS;
        return parse_comparison(m->status_code_filter->comparison, f, err);
    CASE(DURATION_FILTER):
        f->kind = AF_DURATION;
        return parse_comparison(m->duration_filter->comparison, f, err);
    CASE(NOT_HEALTH_CHECK_FILTER):
        f->kind = AF_NOT_HEALTH_CHECK;
        return 0;
    CASE(TRACEABLE_FILTER):
        f->kind = AF_ALL;
        return 0;
    CASE(RUNTIME_FILTER):
        f->kind = AF_RUNTIME;
        return parse_runtime(m->runtime_filter, f);
    CASE(AND_FILTER):
        f->kind = AF_AND;
        return parse_children(m->and_filter->filters, m->and_filter->n_filters, depth, a, f, ext, err);
    CASE(OR_FILTER):
        f->kind = AF_OR;
        return parse_children(m->or_filter->filters, m->or_filter->n_filters, depth, a, f, ext, err);
    CASE(HEADER_FILTER):
        f->kind = AF_HEADER;
        return parse_header(m->header_filter->header, a, &f->header, err);
    CASE(RESPONSE_FLAG_FILTER):
        f->kind = AF_FLAGS;
        return parse_flags(m->response_flag_filter, f, err);
    CASE(GRPC_STATUS_FILTER):
        f->kind = AF_GRPC_STATUS;
        f->grpc_exclude = m->grpc_status_filter->exclude;
        for (size_t i = 0; i < m->grpc_status_filter->n_statuses; i++) {
            f->grpc_statuses |= 1u << ((unsigned)m->grpc_status_filter->statuses[i] & 31);
        }
        return 0;
    CASE(EXTENSION_FILTER):
        f->kind = AF_ALL;
        *ext = true;
        return 0;
    default:
        return err_set(err, -EINVAL, "filter: metadata, log type and empty filters are not supported");
    }
#undef CASE
}

int access_filter_parse(const void *msg, struct arena *a, struct access_log_filter **ret, bool *ret_extension, struct err *err)
{
    struct access_log_filter *f = arena_new(a, struct access_log_filter);
    bool ext = false;
    int rc = parse(msg, 0, a, f, &ext, err);
    if (rc < 0) {
        return err_wrap(err, "filter");
    }
    *ret = f;
    *ret_extension = ext;
    return 0;
}

static bool compare(const struct access_log_filter *f, uint64_t v)
{
    switch (f->op) {
    case AF_EQ:
        return v == f->value;
    case AF_GE:
        return v >= f->value;
    case AF_LE:
        return v <= f->value;
    default:
        return v != f->value;
    }
}

static bool match_header(const struct access_log_filter *f, const struct format_ctx *ctx)
{
    if (!ctx->req) {
        return false;
    }
    struct arena scratch = { .limit_bytes = 65536 };
    const struct match_request r = { .method = ctx->req->method, .path = ctx->req->path, .authority = ctx->req->host,
                                     .scheme = ctx->req->scheme, .headers = &ctx->req->headers, .arena = &scratch, .head = ctx->req };
    bool hit = header_matcher_match(&f->header, &r);
    arena_fini(&scratch);
    return hit;
}

static bool match_grpc(const struct access_log_filter *f, const struct format_ctx *ctx)
{
    struct str s = ctx->resp_trailers ? headers_value_id(ctx->resp_trailers, HDR_GRPC_STATUS) : str_n(NULL, 0);
    if (!s.n && ctx->resp) {
        s = headers_value_id(&ctx->resp->headers, HDR_GRPC_STATUS);
    }
    uint64_t n = 2; // UNKNOWN
    (void)str_to_u64(s, 31, &n);
    return (f->grpc_statuses >> n & 1) != f->grpc_exclude;
}

bool access_filter_match(const struct access_log_filter *f, const struct format_ctx *ctx, uint64_t random)
{
    const struct stream_info *i = ctx->info;
    switch (f->kind) {
    case AF_STATUS:
        return compare(f, i->status);
    case AF_DURATION:
        return compare(f, (i->end_ns - i->start_ns) / 1000000);
    case AF_NOT_HEALTH_CHECK:
    case AF_ALL:
        return true; // nothing marks health checks: there is no health check filter
    case AF_RUNTIME:
        return fraction_hit(f->fraction, random);
    case AF_AND:
        for (size_t k = 0; k < f->child_count; k++) {
            if (!access_filter_match(&f->children[k], ctx, random)) {
                return false;
            }
        }
        return true;
    case AF_OR:
        for (size_t k = 0; k < f->child_count; k++) {
            if (access_filter_match(&f->children[k], ctx, random)) {
                return true;
            }
        }
        return false;
    case AF_HEADER:
        return match_header(f, ctx);
    case AF_FLAGS:
        return f->flags ? i->flags & f->flags : i->flags != 0;
    case AF_GRPC_STATUS:
        return match_grpc(f, ctx);
    }
    return false;
}

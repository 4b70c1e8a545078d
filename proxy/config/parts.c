// SPDX-License-Identifier: Apache-2.0
// Parts that several resources share: addresses, data sources, matchers.
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/file.h"
#include "lib/http/chars.h"
#include "proto/pb_util.h"
#include "proxy/config/build.h"

enum { DATA_SOURCE_BYTES_MAX = 16 * 1024 * 1024 };

static int build_socket_address(const Envoy__Config__Core__V3__SocketAddress *s, struct arena *a, struct addr *ret, struct err *err)
{
    (void)a;
    // ipv4_compat: a socket on :: takes IPv4 as well in any case
    if (CFG_KNOWN(s, err, "protocol", "address", "port_value", "named_port", "ipv4_compat")) {
        return cfg_in(err, "socket_address");
    }
    if (s->protocol != ENVOY__CONFIG__CORE__V3__SOCKET_ADDRESS__PROTOCOL__TCP) {
        return cfg_fail(err, "socket_address.protocol", "only TCP is supported");
    }
    if (s->port_specifier_case == ENVOY__CONFIG__CORE__V3__SOCKET_ADDRESS__PORT_SPECIFIER_NAMED_PORT) {
        return cfg_fail(err, "socket_address.named_port", "not supported; give port_value");
    }
    uint32_t port = s->port_specifier_case == ENVOY__CONFIG__CORE__V3__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE ? s->port_value : 0;
    if (port > 65535) {
        return cfg_fail(err, "socket_address.port_value", "%u is not a port", port);
    }
    if (!addr_parse_ip(str_c(s->address), (uint16_t)port, ret)) {
        return cfg_fail(err, "socket_address.address", "\"%s\" is not an IP address", s->address);
    }
    return 0;
}

int build_address(const Envoy__Config__Core__V3__Address *m, struct arena *a, struct addr *ret, struct err *err)
{
    if (!m) {
        return cfg_fail(err, "address", "missing");
    }
    switch (m->address_case) {
    case ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_SOCKET_ADDRESS:
        return build_socket_address(m->socket_address, a, ret, err);
    case ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_PIPE: {
        struct addr u = { .family = AF_UNIX, .path = arena_strdup(a, m->pipe->path) };
        if (!u.path[0] || strlen(u.path) > 107) {
            return cfg_fail(err, "pipe.path", "must have 1 to 107 bytes");
        }
        *ret = u;
        return 0;
    }
    case ENVOY__CONFIG__CORE__V3__ADDRESS__ADDRESS_ENVOY_INTERNAL_ADDRESS:
        return cfg_fail(err, "envoy_internal_address", "internal listeners are not supported yet");
    default:
        return cfg_fail(err, "address", "missing");
    }
}

int build_cidr(const Envoy__Config__Core__V3__CidrRange *m, struct cidr *ret, struct err *err)
{
    char text[96];
    uint32_t max = strchr(m->address_prefix, ':') ? 128 : 32;
    uint32_t len = pb_u32_or(m->prefix_len, 0);
    snprintf(text, sizeof(text), "%s/%u", m->address_prefix, len);
    if (len > max || !cidr_parse(str_c(text), ret)) {
        return cfg_fail(err, "address_prefix", "\"%s\" is not an address range", text);
    }
    return 0;
}

int build_data_source(const Envoy__Config__Core__V3__DataSource *m, struct arena *a, struct str *ret, struct err *err)
{
    if (!m) {
        *ret = str_n(NULL, 0);
        return 0;
    }
    if (CFG_KNOWN(m, err, "filename", "inline_bytes", "inline_string", "environment_variable")) {
        return err->code;
    }
    switch (m->specifier_case) {
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_INLINE_STRING:
        *ret = build_str(a, m->inline_string);
        return 0;
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_INLINE_BYTES:
        *ret = arena_str(a, pb_bytes(m->inline_bytes));
        return 0;
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_FILENAME: {
        struct err e = { 0 };
        if (file_read(m->filename, DATA_SOURCE_BYTES_MAX, a, ret, &e)) {
            return cfg_fail(err, "filename", "%s", e.msg);
        }
        return 0;
    }
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_ENVIRONMENT_VARIABLE: {
        const char *v = getenv(m->environment_variable);
        if (!v) {
            return cfg_fail(err, "environment_variable", "%s is not set", m->environment_variable);
        }
        *ret = build_str(a, v);
        return 0;
    }
    default:
        return cfg_fail(err, "specifier", "one of filename, inline_bytes, inline_string, environment_variable is needed");
    }
}

bool build_header_name_ok(struct str name)
{
    return ch_all(name, CH_TOKEN);
}

bool build_header_value_ok(struct str value)
{
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static void free_regex(void *r)
{
    regex_free(r);
}

int build_regex(const Envoy__Type__Matcher__V3__RegexMatcher *m, struct arena *a, struct regex **ret, struct err *err)
{
    struct err e = { 0 };
    if (!m->regex[0]) {
        return cfg_fail(err, "regex", "missing");
    }
    struct regex *re = regex_new(str_c(m->regex), &e);
    if (!re) {
        return cfg_fail(err, "regex", "%s", e.msg);
    }
    arena_on_free(a, free_regex, re);
    *ret = re;
    return 0;
}

int build_string_matcher(const Envoy__Type__Matcher__V3__StringMatcher *m, struct arena *a, struct string_matcher *ret, struct err *err)
{
    struct string_matcher s = { .ignore_case = m->ignore_case };
    switch (m->match_pattern_case) {
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_EXACT:
        s.kind = SM_EXACT;
        s.value = build_str(a, m->exact);
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_PREFIX:
        s.kind = SM_PREFIX;
        s.value = build_str(a, m->prefix);
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_SUFFIX:
        s.kind = SM_SUFFIX;
        s.value = build_str(a, m->suffix);
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_CONTAINS:
        s.kind = SM_CONTAINS;
        s.value = build_str(a, m->contains);
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX:
        s.kind = SM_REGEX;
        s.value = build_str(a, m->safe_regex->regex);
        if (build_regex(m->safe_regex, a, &s.re, err)) {
            return cfg_in(err, "safe_regex");
        }
        break;
    default:
        return cfg_fail(err, "match_pattern", "one of exact, prefix, suffix, contains, safe_regex is needed");
    }
    if (s.kind != SM_EXACT && s.kind != SM_REGEX && !s.value.n) { // it would match whatever comes
        static const char *const names[] = { [SM_PREFIX] = "prefix", [SM_SUFFIX] = "suffix", [SM_CONTAINS] = "contains" };
        return cfg_fail(err, names[s.kind], "must not be empty");
    }
    *ret = s;
    return 0;
}

static void plain_string(struct string_matcher *s, enum string_match kind, struct arena *a, const char *v)
{
    s->kind = kind;
    s->value = build_str(a, v);
}

int build_header_matcher(const Envoy__Config__Route__V3__HeaderMatcher *m, struct arena *a, struct header_matcher *ret, struct err *err)
{
    struct header_matcher h = { .kind = HM_STRING, .invert = m->invert_match, .treat_missing_as_empty = m->treat_missing_header_as_empty };
    h.name = build_str(a, m->name);
    if (!h.name.n) {
        return cfg_fail(err, "name", "missing");
    }
    for (size_t i = 0; i < h.name.n; i++) {
        char *c = (char *)h.name.p + i;
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c;
    }
    h.id = hdr_id_of(h.name);
    h.joined = header_is_joined(h.name);
    switch (m->header_match_specifier_case) {
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_EXACT_MATCH:
        plain_string(&h.string, SM_EXACT, a, m->exact_match);
        break;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PREFIX_MATCH:
        plain_string(&h.string, SM_PREFIX, a, m->prefix_match);
        break;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_SUFFIX_MATCH:
        plain_string(&h.string, SM_SUFFIX, a, m->suffix_match);
        break;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_CONTAINS_MATCH:
        plain_string(&h.string, SM_CONTAINS, a, m->contains_match);
        break;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_SAFE_REGEX_MATCH:
        h.string.kind = SM_REGEX;
        if (build_regex(m->safe_regex_match, a, &h.string.re, err)) {
            return cfg_in(err, "safe_regex_match");
        }
        break;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_RANGE_MATCH:
        h.kind = HM_RANGE;
        h.from = m->range_match->start;
        h.to = m->range_match->end;
        break;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_STRING_MATCH:
        if (build_string_matcher(m->string_match, a, &h.string, err)) {
            return cfg_in(err, "string_match");
        }
        break;
    case ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PRESENT_MATCH:
        h.kind = HM_PRESENT;
        h.present = m->present_match;
        break;
    default: // route.v3.HeaderMatcher: nothing said means the header must be there
        h.kind = HM_PRESENT;
        h.present = true;
        break;
    }
    *ret = h;
    return 0;
}

struct str build_metadata_bytes(const Envoy__Config__Core__V3__Metadata *m, struct arena *a)
{
    if (!m || !m->n_filter_metadata) {
        return str_n(NULL, 0);
    }
    Envoy__Config__Core__V3__Metadata texts = ENVOY__CONFIG__CORE__V3__METADATA__INIT; // typed_filter_metadata is for filters
    texts.n_filter_metadata = m->n_filter_metadata;
    texts.filter_metadata = m->filter_metadata;
    return pb_pack_stable(&texts.base, a);
}

struct str build_value_text(const Google__Protobuf__Value *v, struct arena *a)
{
    switch (v ? v->kind_case : GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET) {
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        return build_str(a, v->string_value);
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        return arena_printf(a, "%.17g", v->number_value);
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        return v->bool_value ? STR("true") : STR("false");
    default:
        return str_n(NULL, 0);
    }
}

struct fraction build_fraction(const Envoy__Type__V3__FractionalPercent *m)
{
    static const uint32_t denominators[] = { 100, 10000, 1000000 };
    struct fraction f = { .denominator = 100 };
    if (m) {
        f.numerator = m->numerator;
        f.denominator = (unsigned)m->denominator < 3 ? denominators[m->denominator] : 100;
    }
    return f;
}

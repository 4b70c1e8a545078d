// SPDX-License-Identifier: Apache-2.0
#include "proxy/filters/http/parse_fields.h"

#include <errno.h>
#include <strings.h>

#include "lib/http/chars.h"
#include "proto/pb_util.h"
#include "proxy/access_log/format.h"
#include "proxy/filters/http/parse.h"

struct fraction parse_runtime_fraction(const struct config_ctx *ctx, const Envoy__Config__Core__V3__RuntimeFractionalPercent *m)
{
    struct fraction f = parse_fraction(m->default_value);
    if (config_runtime_fraction && m->runtime_key && m->runtime_key[0]) {
        (void)config_runtime_fraction(ctx, m->runtime_key, &f.numerator, &f.denominator);
    }
    return f;
}

// What is put into messages must not be able to end a line of theirs (RFC 9110 §5.5).
static bool value_ok(struct str value)
{
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static int parse_header_add(const Envoy__Config__Core__V3__HeaderValueOption *m, struct arena *a, struct header_add *h, struct err *err)
{
    if (!m->header || !m->header->key[0]) {
        return err_set(err, -EINVAL, "header.key: missing");
    }
    if (m->header->key[0] == ':' || !strcasecmp(m->header->key, "host")) {
        return err_set(err, -EINVAL, "header.key: \"%s\" cannot be set this way", m->header->key);
    }
    h->name = arena_str(a, str_c(m->header->key));
    if (!ch_all(h->name, CH_TOKEN)) {
        return err_set(err, -EINVAL, "header.key: \"%s\" is no name of a field", m->header->key);
    }
    if (m->header->raw_value.len && m->header->value[0]) {
        return err_set(err, -EINVAL, "header.value: only one of value and raw_value can be given");
    }
    h->value = arena_str(a, m->header->raw_value.len ? pb_bytes(m->header->raw_value) : str_c(m->header->value));
    h->action = (enum header_append)m->append_action;
    if (m->append) {
        h->action = m->append->value ? HA_APPEND_IF_EXISTS_OR_ADD : HA_OVERWRITE_IF_EXISTS_OR_ADD;
    }
    h->keep_empty = m->keep_empty_value;
    if (!value_ok(h->value)) {
        return err_set(err, -EINVAL, "header.value: must not have line ends or control characters");
    }
    struct err e = { 0 };
    if (str_find(h->value, '%') >= 0 && format_compile(h->value, a, &h->format, &e)) {
        return err_set(err, -EINVAL, "header.value: %.900s", e.msg);
    }
    return 0;
}

int parse_header_adds(size_t n, Envoy__Config__Core__V3__HeaderValueOption *const *v, const char *field, struct arena *a, struct header_add **ret,
                      size_t *ret_count, struct err *err)
{
    struct header_add *adds = n ? arena_array(a, struct header_add, n) : NULL;
    for (size_t i = 0; i < n; i++) {
        struct err e = { 0 };
        if (parse_header_add(v[i], a, &adds[i], &e)) {
            return err_set(err, e.code, "%s[%zu].%.900s", field, i, e.msg);
        }
    }
    *ret = adds;
    *ret_count = n;
    return 0;
}

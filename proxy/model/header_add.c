// SPDX-License-Identifier: Apache-2.0
// One entry of request_headers_to_add and its like (config.core.v3.HeaderValueOption), and the levels that have them.
#include "proxy/model/route_table.h"

static bool is_host(struct str name)
{
    return str_eq_nocase(name, STR(":authority")) || str_eq_nocase(name, STR("host"));
}

void header_add_to(const struct header_add *a, struct str value, struct headers *h, struct http_request *req)
{
    if (!value.n && !a->keep_empty) {
        return;
    }
    if (is_host(a->name)) {
        if (req) { // there is exactly one
            req->host = value;
        }
        return;
    }
    if (a->name.n && a->name.p[0] == ':') {
        if (req && str_is(a->name, ":path") && value.n && value.p[0] == '/') {
            req->path = value;
        }
        return;
    }
    bool present = headers_get(h, a->name) != NULL;
    switch (a->action) {
    case HA_APPEND_IF_EXISTS_OR_ADD:
        headers_add(h, a->name, value);
        break;
    case HA_ADD_IF_ABSENT:
        if (!present) {
            headers_add(h, a->name, value);
        }
        break;
    case HA_OVERWRITE_IF_EXISTS_OR_ADD:
        headers_set(h, a->name, value);
        break;
    case HA_OVERWRITE_IF_EXISTS:
        if (present) {
            headers_set(h, a->name, value);
        }
        break;
    }
}

size_t header_levels_response(const struct route_table *t, const struct virtual_host *vh, const struct route *rt, const struct weighted_cluster *w,
                              const struct header_ops *ret[HEADER_LEVELS])
{
    const struct header_ops *levels[] = { &rt->response_ops, &vh->response_ops, &t->response_ops };
    size_t n = 0;
    if (w) {
        ret[n++] = &w->response_ops;
    }
    for (size_t i = 0; i < 3; i++) {
        ret[n++] = levels[t->most_specific_header_mutations_wins ? 2 - i : i];
    }
    return n;
}

// SPDX-License-Identifier: Apache-2.0
// One entry of request_headers_to_add and its like (config.core.v3.HeaderValueOption), and the levels that have them.
#include "proxy/model/route_table.h"

static bool is_host(struct str name)
{
    return str_eq_nocase(name, STR(":authority")) || str_eq_nocase(name, STR("host"));
}

static void set_one(const struct header_add *a, struct str value, struct headers *h, struct http_request *req)
{
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
    headers_set(h, a->name, value);
}

static bool sets(const struct header_add *a)
{
    return a->action == HA_OVERWRITE_IF_EXISTS_OR_ADD || a->action == HA_OVERWRITE_IF_EXISTS || is_host(a->name) || (a->name.n && a->name.p[0] == ':');
}

void header_adds_take(const struct header_add *add, struct str *values, size_t n, struct headers *h, struct http_request *req)
{
    for (size_t i = 0; i < n; i++) { // all conditions before anything changes
        const struct header_add *a = &add[i];
        bool out = !values[i].n && !a->keep_empty;
        if (!out && (a->action == HA_ADD_IF_ABSENT || a->action == HA_OVERWRITE_IF_EXISTS)) {
            out = (headers_get(h, a->name) != NULL) == (a->action == HA_ADD_IF_ABSENT);
        }
        values[i] = out ? str_n(NULL, 0) : values[i].p ? values[i] : STR("");
    }
    for (size_t i = 0; i < n; i++) {
        if (values[i].p && sets(&add[i])) {
            set_one(&add[i], values[i], h, req);
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (values[i].p && !sets(&add[i])) {
            headers_add(h, add[i].name, values[i]);
        }
    }
}

void header_ops_remove(const struct header_ops *ops, struct headers *h)
{
    for (size_t i = 0; i < ops->remove_count; i++) {
        if (!is_host(ops->remove[i])) {
            headers_remove(h, ops->remove[i]);
        }
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

// SPDX-License-Identifier: Apache-2.0
// request_headers_to_add, …_to_remove and their response counterparts (config.core.v3.HeaderValueOption).
#include "proxy/router/router.h"

enum { HEADER_OPS_MAX = 64 }; // per level; the configuration is refused beyond by proxy/config's own limits, the rest is left out here

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

static inline bool any(const struct header_ops *ops)
{
    return ops->add_count || ops->remove_count;
}

void header_ops_apply(const struct header_ops *ops, struct headers *h, struct http_request *req, struct router *r,
                      const struct http_response *resp)
{
    if (!any(ops)) {
        return;
    }
    for (size_t i = 0; i < ops->remove_count; i++) {
        if (!is_host(ops->remove[i])) {
            headers_remove(h, ops->remove[i]);
        }
    }
    struct str values[HEADER_OPS_MAX];
    size_t n = ops->add_count < HEADER_OPS_MAX ? ops->add_count : HEADER_OPS_MAX;
    for (size_t i = 0; i < n; i++) {
        values[i] = ops->add[i].format ? r->ops->format(r, ops->add[i].format, resp) : ops->add[i].value;
    }
    for (size_t i = 0; i < n; i++) {
        if (values[i].n || ops->add[i].keep_empty) {
            set_one(&ops->add[i], values[i], h, req);
        }
    }
}

// The level that is evaluated last wins: the table's by default, the route's with most_specific_header_mutations_wins.
void header_ops_request(struct router *r)
{
    struct headers *h = &r->req->headers;
    if (!r->weighted && !any(&r->route->request_ops) && !any(&r->vhost->request_ops) && !any(&r->table->request_ops)) {
        return;
    }
    if (r->weighted) {
        header_ops_apply(&r->weighted->request_ops, h, r->req, r, NULL);
    }
    const struct header_ops *levels[] = { &r->route->request_ops, &r->vhost->request_ops, &r->table->request_ops };
    bool turn = r->table->most_specific_header_mutations_wins;
    for (int i = 0; i < 3; i++) {
        header_ops_apply(levels[turn ? 2 - i : i], h, r->req, r, NULL);
    }
}

void header_ops_response(struct router *r, struct http_response *resp)
{
    struct headers *h = &resp->headers;
    if (!r->weighted && !any(&r->route->response_ops) && !any(&r->vhost->response_ops) && !any(&r->table->response_ops)) {
        return;
    }
    if (r->weighted) {
        header_ops_apply(&r->weighted->response_ops, h, NULL, r, resp);
    }
    const struct header_ops *levels[] = { &r->route->response_ops, &r->vhost->response_ops, &r->table->response_ops };
    bool turn = r->table->most_specific_header_mutations_wins;
    for (int i = 0; i < 3; i++) {
        header_ops_apply(levels[turn ? 2 - i : i], h, NULL, r, resp);
    }
}

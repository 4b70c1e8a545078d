// SPDX-License-Identifier: Apache-2.0
// request_headers_to_add, …_to_remove and their response counterparts (config.core.v3.HeaderValueOption).
#include "proxy/router/router.h"

enum { HEADER_OPS_FEW = 32 };

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
    header_ops_remove(ops, h);
    struct str few[HEADER_OPS_FEW];
    size_t n = ops->add_count;
    struct str *values = n <= HEADER_OPS_FEW ? few : arena_array(r->arena, struct str, n);
    for (size_t i = 0; i < n; i++) {
        values[i] = ops->add[i].format ? r->ops->format(r, ops->add[i].format, resp) : ops->add[i].value;
    }
    header_adds_take(ops->add, values, n, h, req);
}

static __attribute__((noinline)) void request_levels(struct router *r)
{
    struct headers *h = &r->req->headers;
    if (r->weighted) {
        header_ops_apply(&r->weighted->request_ops, h, r->req, r, NULL);
    }
    const struct header_ops *levels[] = { &r->route->request_ops, &r->vhost->request_ops, &r->table->request_ops };
    bool turn = r->table->most_specific_header_mutations_wins;
    for (int i = 0; i < 3; i++) {
        header_ops_apply(levels[turn ? 2 - i : i], h, r->req, r, NULL);
    }
}

static __attribute__((noinline)) void response_levels(struct router *r, struct http_response *resp)
{
    const struct header_ops *levels[HEADER_LEVELS];
    size_t n = header_levels_response(r->table, r->vhost, r->route, r->weighted, levels);
    for (size_t i = 0; i < n; i++) {
        header_ops_apply(levels[i], &resp->headers, NULL, r, resp);
    }
}

// The level that is evaluated last wins: the table's by default, the route's with most_specific_header_mutations_wins.
void header_ops_request(struct router *r)
{
    if (r->weighted || any(&r->route->request_ops) || any(&r->vhost->request_ops) || any(&r->table->request_ops)) {
        request_levels(r);
    }
}

void header_ops_response(struct router *r, struct http_response *resp)
{
    if (r->weighted || any(&r->route->response_ops) || any(&r->vhost->response_ops) || any(&r->table->response_ops)) {
        response_levels(r, resp);
    }
}

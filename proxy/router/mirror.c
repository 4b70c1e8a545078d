// SPDX-License-Identifier: Apache-2.0
// Mirrored requests (route.v3.RouteAction.request_mirror_policies): a second router whose answers go nowhere. It lives on by itself once it
// has the whole request; what it cannot take in time is not waited for.
#include <stdlib.h>

#include "lib/base/mem.h"
#include "proxy/router/internal.h"

struct shadow {
    struct router r;
    struct list link;          // of this thread's shadows
    struct shadow *next;       // of the request that is mirrored, while its body comes
    struct router_cfg cfg;
    struct arena arena;
    struct http_request req;
    struct stream_info info;
    struct route route;        // the original's, without what must not happen twice
    struct virtual_host vhost;
    struct route_table *table; // ref
    struct loop_task end;
    bool attached;             // in the list of the original
    bool ending;
};

static _Thread_local struct list shadows; // a worker's
static const struct route_table no_table; // header operations were done on the original

static struct shadow *shadow_of(struct router *r)
{
    return container_of(r, struct shadow, r);
}

static void end(struct loop_task *t)
{
    struct shadow *s = container_of(t, struct shadow, end);
    router_destroy(&s->r);
    list_del(&s->link);
    loop_task_cancel(&s->end);
    route_table_unref(s->table);
    arena_fini(&s->arena);
    free(s);
}

// Never inside the router's own call, and not while the original still points here: it lets go with its own end.
static void end_later(struct shadow *s)
{
    s->ending = true;
    if (!s->attached) {
        loop_defer(s->r.worker->loop, &s->end);
    }
}

static void drop_response(struct router *r, struct http_response *resp)
{
    if (resp->end_stream) {
        end_later(shadow_of(r));
    }
}

static void drop_informational(struct router *r, struct http_response *resp)
{
    (void)r;
    (void)resp;
}

static void drop_data(struct router *r, struct buf *data, bool last)
{
    buf_clear(data);
    if (last) {
        end_later(shadow_of(r));
    }
}

static void drop_trailers(struct router *r, struct headers *trailers)
{
    (void)trailers;
    end_later(shadow_of(r));
}

static void drop_reply(struct router *r, int status, struct str body, const char *details, uint32_t flags, const struct headers *extra)
{
    (void)status;
    (void)body;
    (void)details;
    (void)flags;
    (void)extra;
    end_later(shadow_of(r));
}

static void drop_reset(struct router *r, const char *details, uint32_t flags)
{
    (void)details;
    (void)flags;
    end_later(shadow_of(r));
}

// The mirror's upstream is slower than the real one: the mirror is given up rather than the request slowed.
static void drop_pause(struct router *r)
{
    end_later(shadow_of(r));
}

static void drop_resume(struct router *r)
{
    (void)r;
}

static struct str no_format(struct router *r, const struct format *f, const struct http_response *resp)
{
    (void)r;
    (void)f;
    (void)resp;
    return str_n(NULL, 0); // header operations were done on the original
}

static const struct router_ops drop_ops = {
    .response = drop_response, .informational = drop_informational, .data = drop_data, .trailers = drop_trailers,
    .local_reply = drop_reply, .reset = drop_reset, .pause = drop_pause, .resume = drop_resume, .format = no_format,
};

// "host-shadow", before a port.
static struct str shadow_host(struct str host, struct arena *a)
{
    size_t at = host.n;
    while (at > 0 && host.p[at - 1] >= '0' && host.p[at - 1] <= '9') {
        at--;
    }
    bool port = at > 0 && at < host.n && host.p[at - 1] == ':';
    size_t n = port ? at - 1 : host.n;
    return arena_printf(a, "%.*s-shadow%.*s", (int)n, host.p, STR_FMT(str_skip(host, n)));
}

static void copy_head(struct shadow *s, const struct router *from, const struct mirror *m)
{
    bool append_shadow = m->append_shadow;
    struct arena *a = &s->arena;
    s->req = *from->req;
    s->req.method = arena_str(a, from->req->method);
    s->req.path = arena_str(a, from->req->path);
    s->req.scheme = arena_str(a, from->req->scheme);
    s->req.host = m->host.n ? m->host : append_shadow ? shadow_host(from->req->host, a) : arena_str(a, from->req->host);
    s->req.expect_continue = false;
    headers_init(&s->req.headers, a);
    for (struct hdr *x = headers_first(&from->req->headers); x; x = headers_next(&from->req->headers, x)) {
        headers_add_known(&s->req.headers, (enum hdr_id)x->id, arena_str(a, x->name), arena_str(a, x->value));
    }
}

// The listener that they are of may go before the shadow.
static const struct str *copy_names(struct arena *a, const struct str *v, size_t n)
{
    struct str *out = v ? arena_array(a, struct str, n ? n : 1) : NULL;
    for (size_t i = 0; out && i < n; i++) {
        out[i] = arena_str(a, v[i]);
    }
    return out;
}

static struct shadow *shadow_new(struct router *from, const struct mirror *m)
{
    struct shadow *s = mem_new(struct shadow);
    arena_init(&s->arena, 0, 0);
    loop_task_init(&s->end, end);
    if (!shadows.next) {
        list_init(&shadows);
    }
    list_add_tail(&shadows, &s->link);
    copy_head(s, from, m);
    s->cfg.suppress_envoy_headers = true;
    s->table = route_table_ref((struct route_table *)(uintptr_t)from->table);
    s->route = (struct route){ .name = from->route->name, .kind = ROUTE_FORWARD,
                               .cluster = m->cluster.n ? m->cluster : arena_str(&s->arena, headers_value(&from->req->headers, m->cluster_header)),
                               .max_grpc_timeout_ms = -1,
                               .timeout_ms = from->route->timeout_ms > 0 ? from->route->timeout_ms : ROUTER_TIMEOUT_MS,
                               .hash = from->route->hash, .hash_count = from->route->hash_count };
    s->info.downstream_remote = from->info->downstream_remote;
    s->r = (struct router){ .ops = &drop_ops, .cfg = &s->cfg, .worker = from->worker, .arena = &s->arena, .req = &s->req,
                            .info = &s->info, .table = &no_table, .vhost = &s->vhost, .route = &s->route, .random = from->random,
                            .original_dst = from->original_dst, .alpn_override_count = from->alpn_override_count,
                            .alpn_override = copy_names(&s->arena, from->alpn_override, from->alpn_override_count),
                            .alpn_override_h2 = copy_names(&s->arena, from->alpn_override_h2, from->alpn_override_h2_count),
                            .alpn_override_h2_count = from->alpn_override_h2_count };
    return s;
}

void mirror_start(struct router *r)
{
    if (r->req->upgrade.n || !r->req->path.n) {
        return; // a conversation cannot be had with two
    }
    for (size_t i = 0; i < r->route->mirror_count; i++) {
        const struct mirror *m = &r->route->mirrors[i];
        // Another draw than the one that chose the cluster, or a mirrored tenth would always be the same tenth.
        if (!fraction_hit(m->fraction, (r->random >> 32) + i) ||
            (!m->cluster.n && !headers_value(&r->req->headers, m->cluster_header).n)) {
            continue;
        }
        struct shadow *s = shadow_new(r, m);
        s->attached = !r->body_end;
        if (s->attached) {
            s->next = r->shadows;
            r->shadows = s;
        }
        router_start(&s->r);
    }
}

static void detach_all(struct router *r, bool cancel)
{
    for (struct shadow *s = r->shadows, *next; s; s = next) {
        next = s->next;
        s->attached = false;
        if (cancel || s->ending) {
            end_later(s);
        }
    }
    r->shadows = NULL;
}

void mirror_data(struct router *r, const struct buf *data, bool last)
{
    for (struct shadow *s = r->shadows; s; s = s->next) {
        if (s->ending) {
            continue;
        }
        struct buf copy = { 0 };
        for (const struct slice *x = data->head; x; x = x->next) {
            buf_append(&copy, x->data + x->off, x->end - x->off);
        }
        router_request_data(&s->r, &copy, last);
        buf_clear(&copy);
    }
    if (last) {
        detach_all(r, false);
    }
}

void mirror_trailers(struct router *r, const struct headers *trailers)
{
    for (struct shadow *s = r->shadows; s; s = s->next) {
        if (s->ending) {
            continue;
        }
        struct headers copy;
        headers_init(&copy, &s->arena);
        for (struct hdr *x = headers_first(trailers); x; x = headers_next(trailers, x)) {
            headers_add_known(&copy, (enum hdr_id)x->id, arena_str(&s->arena, x->name), arena_str(&s->arena, x->value));
        }
        router_request_trailers(&s->r, &copy);
    }
    detach_all(r, false);
}

void mirror_worker_fini(void)
{
    while (shadows.next && !list_empty(&shadows)) {
        struct shadow *s = list_entry(shadows.next, struct shadow, link);
        end(&s->end);
    }
}

void mirror_abandon(struct router *r)
{
    detach_all(r, true);
}

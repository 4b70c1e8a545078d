// SPDX-License-Identifier: Apache-2.0
// The filters of one stream. The request head visits them in order until one stops; what follows it (body, trailers) visits those that have
// seen the head and then waits in s->held until the one that stopped goes on. Answers visit all of them in reverse.
#include "proxy/http/internal.h"

// Whether the request still goes anywhere.
static bool alive(const struct stream *s)
{
    return !s->destroyed && (!s->response_complete || s->tunnel) && s->down;
}

static void run_heads(struct stream *s);
static void hold_data(struct stream *s, size_t from, struct buf *data, bool end);

// In the place of a filter that the route has switched off.
static const struct http_filter_ops passes_all = { .ext = { .name = "disabled" } };

static bool weighted_per_filter(const struct route *rt)
{
    for (size_t i = 0; i < rt->weighted_count; i++) {
        if (rt->weighted[i].per_filter_count) {
            return true;
        }
    }
    return false;
}

// Some level of the route has configuration for filters.
static bool stream_per_route(const struct stream *s)
{
    return (s->route && (s->route->per_filter_count || weighted_per_filter(s->route))) || (s->vhost && s->vhost->per_filter_count) ||
           (s->table && s->table->per_filter_count);
}

static struct http_filter *filters_new(struct stream *s)
{
    size_t n = s->chain->count;
    struct http_filter *v = arena_array(&s->arena, struct http_filter, n ? n : 1);
    bool per_route = stream_per_route(s);
    for (size_t i = 0; i < n; i++) {
        const struct ext *e = &s->chain->filters[i];
        v[i].ops = (const struct http_filter_ops *)(const void *)e->ops;
        v[i].cfg = e->cfg;
        v[i].ext = e;
        v[i].stream = s;
        v[i].index = (uint16_t)i;
        if (per_route || e->disabled) {
            if (!v[i].ops->terminal && stream_filter_disabled(s, e->name, e->disabled)) {
                v[i].ops = &passes_all;
                continue;
            }
        }
        v[i].state = v[i].ops->state_size ? arena_zalloc(&s->arena, v[i].ops->state_size) : NULL;
    }
    return v;
}

void chain_start(struct stream *s)
{
    s->chain = upgrade_chain(&s->req, s->cfg);
    s->filters = filters_new(s);
    s->chain_started = true;
    run_heads(s);
}

// Body from filter `from` on; all of these have seen the head and none of them holds the request.
static void pass_data(struct stream *s, size_t from, struct buf *data, bool end)
{
    for (size_t i = from; i < s->chain->count && alive(s); i++) {
        struct http_filter *f = &s->filters[i];
        if (f->ops->on_request_data && f->ops->on_request_data(f, data, end) == HF_STOP && !f->ops->terminal) {
            // A filter that wants to see more before it decides: what it left in data waits behind it.
            s->stopped = true;
            s->next_filter = (uint32_t)i + 1;
            buf_move(&s->held, data, data->len);
            s->end_seen |= end;
            return;
        }
    }
    buf_clear(data);
}

static void pass_trailers(struct stream *s, size_t from, struct headers *trailers)
{
    for (size_t i = from; i < s->chain->count && alive(s); i++) {
        struct http_filter *f = &s->filters[i];
        if (f->ops->on_request_trailers) {
            f->ops->on_request_trailers(f, trailers);
        }
    }
}

static void resume_held(struct stream *s)
{
    if (s->paused_held) {
        s->paused_held = false;
        if (s->down && !s->paused_router) {
            codec_stream_resume(s->down);
        }
    }
}

// Lets go what waited behind filter index next_filter - 1.
static void release_held(struct stream *s, size_t from)
{
    struct buf data = s->held;
    s->held = (struct buf){ 0 };
    struct headers *trailers = s->held_trailers;
    bool end = s->end_seen && !trailers;
    if (data.len || end) {
        pass_data(s, from, &data, end);
    }
    buf_clear(&data);
    if (trailers && !s->stopped && alive(s)) {
        s->held_trailers = NULL;
        pass_trailers(s, from, trailers);
    }
    if (!s->stopped) {
        resume_held(s);
    }
}

static void run_heads(struct stream *s)
{
    size_t n = s->chain->count;
    while (s->next_filter < n && alive(s)) {
        struct http_filter *f = &s->filters[s->next_filter++];
        if (f->ops->on_request && f->ops->on_request(f, &s->req) == HF_STOP && !f->ops->terminal) {
            s->stopped = true;
            return;
        }
    }
    if (alive(s) && n && !s->filters[n - 1].ops->terminal) {
        stream_local_reply(s, 404, str_n(NULL, 0), "filter_chain_not_terminated", 0, NULL);
    }
}

void stream_continue_request(struct stream *s, struct http_filter *f)
{
    if (!s->stopped || !alive(s)) {
        return;
    }
    s->stopped = false;
    size_t from = (size_t)f->index + 1;
    bool heads_left = s->next_filter < s->chain->count && s->filters[s->chain->count - 1].ops->terminal;
    if (heads_left) {
        run_heads(s);
    }
    if (!alive(s)) {
        return;
    }
    if (!s->stopped) {
        release_held(s, from);
    } else if (s->held.len || s->end_seen) { // the next one stopped: those up to it look at what has waited
        struct buf data = s->held;
        s->held = (struct buf){ 0 };
        hold_data(s, from, &data, s->end_seen && !s->held_trailers);
        buf_clear(&data);
    }
}

// While a filter holds the request: those up to it, from `from` on, look at the data, which then waits.
static void hold_data(struct stream *s, size_t from, struct buf *data, bool end)
{
    size_t last = s->next_filter; // filters below have seen the head
    for (size_t i = from; i < last && alive(s); i++) {
        struct http_filter *f = &s->filters[i];
        if (!f->ops->on_request_data) {
            continue;
        }
        enum http_filter_status st = f->ops->on_request_data(f, data, end);
        if (i + 1 == last && st == HF_CONTINUE && alive(s)) {
            buf_move(&s->held, data, data->len);
            s->end_seen |= end;
            stream_continue_request(s, f);
            return;
        }
    }
    if (!alive(s)) {
        return;
    }
    buf_move(&s->held, data, data->len);
    s->end_seen |= end;
    bool full = s->held.len > STREAM_HELD_MAX && s->held.len > s->held_max;
    if (full && !s->paused_held) {
        s->paused_held = s->body_excused = true;
        codec_stream_pause(s->down);
    } else if (!full) { // this filter wants to see more than the one before it
        resume_held(s);
    }
}

void chain_data(struct stream *s, struct buf *data, bool end)
{
    if (!s->chain_started || !alive(s)) {
        return;
    }
    if (s->stopped) {
        hold_data(s, 0, data, end);
    } else {
        pass_data(s, 0, data, end);
    }
}

void chain_trailers(struct stream *s, struct headers *trailers)
{
    if (!s->chain_started || !alive(s)) {
        return;
    }
    if (s->stopped) {
        struct headers *kept = arena_new(&s->arena, struct headers);
        *kept = *trailers;
        s->held_trailers = kept;
        s->end_seen = true;
        for (size_t i = 0; i < s->next_filter && alive(s); i++) {
            struct http_filter *f = &s->filters[i];
            if (f->ops->on_request_trailers) {
                f->ops->on_request_trailers(f, trailers);
            }
        }
    } else {
        pass_trailers(s, 0, trailers);
    }
}

void chain_destroy(struct stream *s)
{
    if (s->destroyed) {
        return;
    }
    s->destroyed = true;
    if (s->chain_started) {
        for (size_t i = 0; i < s->chain->count; i++) {
            struct http_filter *f = &s->filters[i];
            if (f->ops->on_destroy) {
                f->ops->on_destroy(f);
            }
        }
    }
    buf_clear(&s->held);
}

void chain_reset(struct stream *s)
{
    chain_destroy(s);
    s->destroyed = false;
    s->chain_started = false;
    s->stopped = false;
    s->next_filter = 0;
    s->end_seen = false;
    s->held_trailers = NULL;
    s->held_max = 0;
}

void chain_response(struct stream *s, struct http_response *resp)
{
    for (size_t i = s->chain_started ? s->chain->count : 0; i > 0; i--) {
        struct http_filter *f = &s->filters[i - 1];
        if (f->ops->on_response) {
            f->ops->on_response(f, resp);
        }
    }
}

void stream_pause_request(struct stream *s)
{
    if (!s->paused_router) {
        s->paused_router = s->body_excused = true;
        if (s->down) {
            codec_stream_pause(s->down);
        }
    }
}

void stream_resume_request(struct stream *s)
{
    if (s->paused_router) {
        s->paused_router = false;
        if (s->down && !s->paused_held) {
            codec_stream_resume(s->down);
        }
    }
}

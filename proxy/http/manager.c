// SPDX-License-Identifier: Apache-2.0
// A downstream HTTP connection: codec, time-outs, draining, end. Streams are in stream.c.
//
// Time-outs are lazy: one timer per connection stands at or before the earliest limit that was known when it was set, and only when it
// fires is it worked out which limits have really been reached. A request sets no timer.
#include "proxy/http/manager.h"

#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/base/recycle.h"
#include "proxy/access_log/access_log.h"
#include "proxy/http/internal.h"

static uint64_t now_ms(const struct http_conn *hc)
{
    return loop_now_ms(hc->ds->worker->loop);
}

static uint64_t started_ms(const struct http_conn *hc)
{
    return hc->ds->start_ns / 1000000;
}

// ---- the worker ----

void http_worker_init(struct worker *w)
{
    struct http_worker *hw = mem_new(struct http_worker);
    list_init(&hw->holds);
    list_init(&hw->awake);
    w->slots[SLOT_HTTP] = hw;
}

void http_worker_fini(struct worker *w)
{
    struct http_worker *hw = w->slots[SLOT_HTTP];
    if (!hw) {
        return;
    }
    while (hw->free_streams) {
        struct stream *s = hw->free_streams;
        hw->free_streams = (struct stream *)(void *)s->link.next;
        arena_fini(&s->arena);
        free(s);
    }
    free(hw);
    w->slots[SLOT_HTTP] = NULL;
}

// ---- counting ----

void http_conn_count_bytes(struct http_conn *hc)
{
    const struct conn *c = hc->ds->conn;
    stat_add(hc->stats, STAT_ID_HTTP_CX_RX_BYTES, c->bytes_in - hc->bytes_in_seen);
    stat_add(hc->stats, STAT_ID_HTTP_CX_TX_BYTES, c->bytes_out - hc->bytes_out_seen);
    hc->bytes_in_seen = c->bytes_in;
    hc->bytes_out_seen = c->bytes_out;
}

// ---- limits ----

void http_conn_arm(struct http_conn *hc, uint64_t at_ms)
{
    if (hc->ended || (timer_pending(&hc->ds->timer) && hc->ds->timer.expires_ms <= at_ms)) {
        return;
    }
    uint64_t now = now_ms(hc);
    timer_set(hc->ds->worker->loop, &hc->ds->timer, at_ms > now ? at_ms - now : 0);
}

static void lower(uint64_t *at, uint64_t candidate)
{
    if (candidate < *at) {
        *at = candidate;
    }
}

static void begin_drain(struct http_conn *hc)
{
    hc->draining = true;
    codec_drain(hc->codec);
}

// A gRPC client learns that it was its own deadline, as from Envoy.
static void end_duration(struct stream *s, int status)
{
    struct headers extra;
    headers_init(&extra, &s->arena);
    if (stream_is_grpc(s)) {
        headers_add_id(&extra, HDR_GRPC_STATUS, STR("4"));
    }
    stream_local_reply(s, status, STR("downstream duration timeout"), "max_duration_timeout", 0, &extra);
}

// A body that comes by drops: at the end of each window enough of it must have come, unless it was us who did not read. True: too slow.
static bool body_too_slow(struct stream *s, uint64_t now, uint64_t *at)
{
    if (!s->body_at_ms || s->request_complete) {
        return false;
    }
    if (now >= s->body_at_ms) {
        bool excused = s->body_excused || s->paused_held || s->paused_router || (s->req.expect_continue && s->info.bytes_received == 0);
        if (!excused && s->info.bytes_received - s->body_seen < s->cfg->body_min_bytes) {
            return true;
        }
        s->body_seen = s->info.bytes_received;
        s->body_excused = false;
        s->body_at_ms = now + s->cfg->body_window_ms;
    }
    lower(at, s->body_at_ms);
    return false;
}

// The rest of a request that took too long is not waited for (RFC 9110 §15.5.9).
static void give_up(struct stream *s, int status, struct str body, const char *details, uint32_t flags)
{
    if (!s->request_complete && s->info.protocol != HTTP_2) {
        codec_drain(s->hc->codec);
    }
    stream_local_reply(s, status, body, details, flags, NULL);
}

// Limits of one stream. Returns the next moment to look, or 0 when it was ended.
static uint64_t check_stream(struct stream *s, uint64_t now)
{
    uint64_t at = UINT64_MAX, start_ms = s->info.start_ns / 1000000;
    const struct http_manager_cfg *cfg = s->cfg;
    // RFC 9110 §15.5.9, §15.6.5: whose fault the silence is decides the status, as in Envoy.
    int status = s->request_complete ? 504 : 408;
    if (s->idle_limit_ms) {
        uint64_t end = s->active_ms + s->idle_limit_ms;
        if (now >= end) {
            stat_inc(s->hc->stats, STAT_ID_HTTP_RQ_IDLE_TIMEOUT);
            give_up(s, status, STR("stream timeout"), "stream_idle_timeout", RF(STREAM_IDLE_TIMEOUT));
            return 0;
        }
        lower(&at, end);
    }
    if (cfg->request_timeout_ms && !s->request_complete) {
        uint64_t end = start_ms + cfg->request_timeout_ms;
        if (now >= end) {
            stat_inc(s->hc->stats, STAT_ID_HTTP_RQ_TIMEOUT);
            give_up(s, 408, STR("request timeout"), "request_overall_timeout", 0);
            return 0;
        }
        lower(&at, end);
    }
    if (body_too_slow(s, now, &at)) {
        stat_inc(s->hc->stats, STAT_ID_HTTP_RQ_TIMEOUT);
        give_up(s, 408, STR("request body too slow"), "request_body_too_slow", 0);
        return 0;
    }
    if (s->max_limit_ms) {
        uint64_t end = start_ms + s->max_limit_ms;
        if (now >= end) {
            stat_inc(s->hc->stats, STAT_ID_HTTP_RQ_MAX_DURATION);
            end_duration(s, status);
            return 0;
        }
        lower(&at, end);
    }
    return at;
}

// A head that does not come to its end (slow attack): there is no stream to answer on yet.
static bool head_too_slow(struct http_conn *hc, uint64_t now, uint64_t *at)
{
    if (!hc->cfg->request_headers_ms || !hc->head_since_ms) {
        return false;
    }
    uint64_t end = hc->head_since_ms + hc->cfg->request_headers_ms;
    if (now < end) {
        lower(at, end);
        return false;
    }
    static const char answer[] = "HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain\r\ncontent-length: 22\r\n"
                                 "connection: close\r\n\r\nrequest header timeout";
    stat_inc(hc->stats, STAT_ID_HTTP_RQ_HEADER_TIMEOUT);
    conn_write_bytes(codec_conn(hc->codec), answer, sizeof(answer) - 1);
    return true;
}

static void on_timer(struct timer *t)
{
    struct downstream *d = container_of(t, struct downstream, timer);
    if (!idle_due(d)) {
        return;
    }
    struct http_conn *hc = idle_wake(d);
    const struct http_manager_cfg *cfg = hc->cfg;
    uint64_t now = now_ms(hc), at = UINT64_MAX;
    if (!hc->codec) { // not a byte of a request came
        stat_inc(hc->stats, STAT_ID_HTTP_CX_IDLE_TIMEOUT);
        http_conn_end(hc);
        return;
    }
    if (head_too_slow(hc, now, &at)) {
        http_conn_end(hc);
        return;
    }
    list_for_safe (p, &hc->streams) {
        uint64_t next = check_stream(list_entry(p, struct stream, link), now);
        if (next) {
            lower(&at, next);
        }
    }
    bool idle = list_empty(&hc->streams);
    if (idle && cfg->idle_ms && hc->idle_since_ms) {
        uint64_t end = hc->idle_since_ms + cfg->idle_ms;
        if (now >= end) {
            stat_inc(hc->stats, STAT_ID_HTTP_CX_IDLE_TIMEOUT);
            begin_drain(hc);
        } else {
            lower(&at, end);
        }
    }
    if (cfg->max_connection_ms && !hc->draining) {
        uint64_t end = started_ms(hc) + cfg->max_connection_ms;
        if (now >= end) {
            stat_inc(hc->stats, STAT_ID_HTTP_CX_MAX_DURATION);
            begin_drain(hc);
        } else {
            lower(&at, end);
        }
    }
    if (hc->drain_at_ms) {
        if (now >= hc->drain_at_ms) {
            hc->drain_at_ms = 0;
            begin_drain(hc);
        } else {
            lower(&at, hc->drain_at_ms);
        }
    }
    if (at != UINT64_MAX) {
        http_conn_arm(hc, at);
    }
    if (idle && hc->codec && !hc->next && !hc->draining) {
        idle_check(hc); // it was woken for this look only, perhaps
    }
}

// ---- codec ----

static struct arena *get_arena(struct codec *c)
{
    struct http_conn *hc = codec_owner(c);
    bool h2 = codec_version(c) == HTTP_2; // its heads are complete when they come here
    if (!hc->next) {
        hc->next = stream_take(hc);
        hc->next->arena.block_bytes = h2 ? STREAM_ARENA_BYTES : STREAM_ARENA_H1_BYTES;
    } else if (h2) { // the last head was refused
        arena_reset(&hc->next->arena, true);
    }
    if (hc->cfg->request_headers_ms && !h2) {
        hc->head_since_ms = now_ms(hc);
        http_conn_arm(hc, hc->head_since_ms + hc->cfg->request_headers_ms);
    }
    return &hc->next->arena;
}

static void on_request(struct codec *c, struct codec_stream *cs, struct http_request *req)
{
    struct http_conn *hc = codec_owner(c);
    struct stream *s = hc->next;
    hc->next = NULL;
    hc->head_since_ms = hc->idle_since_ms = 0;
    hc->requests++;
    list_add_tail(&hc->streams, &s->link);
    if (hc->cfg->max_requests_per_connection && hc->requests >= hc->cfg->max_requests_per_connection && !hc->draining) {
        stat_inc(hc->stats, STAT_ID_HTTP_CX_MAX_REQUESTS);
        begin_drain(hc);
    } else if (hc->draining) {
        stat_inc(hc->stats, STAT_ID_HTTP_CX_DRAIN_CLOSE);
        codec_drain(c);
    }
    stream_begin(s, cs, req);
}

// Bytes that are no request: the codec answers, we count and log, so that attacks are seen.
static void on_bad_request(struct codec *c, int status, const char *detail)
{
    struct http_conn *hc = codec_owner(c);
    stat_inc(hc->stats, status == 408 ? STAT_ID_HTTP_RQ_HEADER_TIMEOUT : STAT_ID_HTTP_CX_PROTOCOL_ERROR);
    log_debug(LOGC_HTTP, codec_conn(c)->id, "bad_request", "status=%d detail=%s", status, detail);
    if (!hc->cfg->access_log_count) {
        return;
    }
    const struct downstream *d = hc->ds;
    struct loop *l = hc->ds->worker->loop;
    const struct stream_info info = {
        .start_wall_ms = loop_wall_ms(l), .start_ns = loop_now_ns(l), .end_ns = loop_now_ns(l), .status = (uint16_t)status,
        .flags = RF(DOWNSTREAM_PROTOCOL_ERROR), .details = detail, .is_http = true, .protocol = codec_version(c),
        .downstream_remote = *downstream_remote(d), .downstream_direct_remote = d->conn->peer, .downstream_local = *downstream_local(d),
        .connection_id = codec_conn(c)->id, .requested_server_name = downstream_server_name(d), .downstream_tls = downstream_tls(d),
    };
    const struct format_ctx ctx = { .info = &info };
    access_log_write(hc->ds->worker, hc->cfg->access_logs, hc->cfg->access_log_count, &ctx);
}

static void on_idle(struct codec *c)
{
    struct http_conn *hc = codec_owner(c);
    http_conn_count_bytes(hc);
    if (hc->ended || !list_empty(&hc->streams)) {
        return;
    }
    hc->idle_since_ms = now_ms(hc);
    if (hc->cfg->idle_ms) {
        http_conn_arm(hc, hc->idle_since_ms + hc->cfg->idle_ms);
    }
    idle_check(hc);
}

static void on_conn_close(struct codec *c, enum conn_close why)
{
    (void)why;
    http_conn_end(codec_owner(c));
}

static const struct codec_ops ops = {
    .on_request = on_request, .get_arena = get_arena, .on_bad_request = on_bad_request, .on_idle = on_idle, .on_conn_close = on_conn_close,
};

// ---- begin and end ----

// Everything of the connection ends here, at once.
void http_conn_end(struct http_conn *hc)
{
    if (hc->ended) {
        return;
    }
    hc->ended = true;
    idle_leave(hc);
    timer_cancel(&hc->ds->timer);
    http_conn_count_bytes(hc);
    struct downstream *d = hc->ds;
    list_for_safe (p, &hc->streams) { // those that the codec did not close itself
        struct stream *s = list_entry(p, struct stream, link);
        if (!s->response_complete) {
            s->info.flags |= RF(DOWNSTREAM_TERMINATION);
            s->info.details = s->info.details ? s->info.details : "downstream_remote_disconnect";
        }
        codec_stream_set(s->down, NULL, NULL);
        s->down = NULL;
        stream_finish(s);
    }
    if (hc->next) {
        stream_release(hc->next);
    }
    stat_gauge_add(hc->stats, STAT_ID_HTTP_CX_ACTIVE, -1);
    stat_inc(hc->stats, STAT_ID_HTTP_CX_DESTROY);
    codec_free(hc->codec); // and the connection: downstream_close frees it a second time, which is harmless
    d->terminal = NULL;
    d->ops = NULL;
    if (hc->xfcc.p) {
        loop_free_later(d->worker->loop, (char *)hc->xfcc.p);
    }
    loop_free_later(d->worker->loop, hc);
    downstream_close(d);
}

// Whether what is being answered can still say that the connection ends. Over HTTP/1 an answer whose head has left said that it stays: the client
// may send its next request with the last byte, and that one is told.
static bool can_tell(const struct http_conn *hc)
{
    bool can = codec_version(hc->codec) == HTTP_2; // GOAWAY leaves time by itself
    list_for (p, &hc->streams) {
        can = can || !list_entry(p, struct stream, link)->response_started;
    }
    return can;
}

// The server or the listener drains: the next answer says Connection: close. An idle client may be about to send, so it gets the
// drain time before its connection is closed.
static void on_drain(struct downstream *d)
{
    struct http_conn *hc = d->terminal;
    if (!hc || hc->draining) {
        return;
    }
    hc->draining = true;
    if (hc->codec && can_tell(hc)) {
        stat_inc(hc->stats, STAT_ID_HTTP_CX_DRAIN_CLOSE);
        codec_drain(hc->codec);
    }
    hc->drain_at_ms = now_ms(hc) + hc->cfg->drain_ms;
    http_conn_arm(hc, hc->drain_at_ms);
}

static void on_abort(struct downstream *d)
{
    if (d->terminal) {
        http_conn_end(d->terminal);
    }
}

// A stream's facts point to the listener's metadata.
static bool borrows_listener(const struct downstream *d)
{
    const struct http_conn *hc = d->terminal;
    return !list_empty(&hc->streams);
}

const struct downstream_ops http_conn_ds_ops = { .on_drain = on_drain, .on_abort = on_abort, .borrows_listener = borrows_listener };

// ---- which protocol ----

static void start_codec(struct http_conn *hc, enum http_version version)
{
    const struct http_manager_cfg *cfg = hc->cfg;
    const struct codec_opts o = { .h1 = cfg->h1.head_bytes ? &cfg->h1 : NULL, .h1_names = cfg->h1_names, .max_concurrent_streams = cfg->h2_max_streams,
                                  .stream_window = cfg->h2_stream_window, .conn_window = cfg->h2_conn_window,
                                  .allow_connect = cfg->h2_allow_connect, .head_timeout_ms = cfg->request_headers_ms,
                                  .h2 = cfg->h2.max_outbound_frames ? &cfg->h2 : NULL };
    if (version == HTTP_2) {
        idle_leave(hc); // it never sleeps
    }
    hc->codec = version == HTTP_2 ? codec_h2_server(hc->ds->conn, &ops, hc, &o) : codec_h1_server(hc->ds->conn, &ops, hc, &o);
}

static const char h2_preface[] = "PRI * HTTP/2.0"; // the rest is the codec's business

// RFC 9113 §3.4: what the first bytes say.
static void sniff(struct http_conn *hc)
{
    char start[sizeof(h2_preface) - 1];
    size_t n = buf_peek(&hc->ds->conn->in, 0, start, sizeof(start));
    if (n == 0) {
        return;
    }
    if (memcmp(start, h2_preface, n)) {
        start_codec(hc, HTTP_11);
    } else if (n == sizeof(start)) {
        start_codec(hc, HTTP_2);
    } else if (hc->cfg->request_headers_ms) { // the timer ends a connection without codec
        http_conn_arm(hc, now_ms(hc) + hc->cfg->request_headers_ms);
    }
}

static void sniff_data(struct conn *c)
{
    sniff(c->owner);
}

static void sniff_eof(struct conn *c)
{
    struct http_conn *hc = c->owner;
    if (c->in.len) {
        start_codec(hc, HTTP_11); // it refuses what is incomplete
    } else {
        http_conn_end(hc);
    }
}

static void sniff_close(struct conn *c, enum conn_close why)
{
    (void)why;
    http_conn_end(c->owner);
}

static const struct conn_ops sniff_ops = { .on_data = sniff_data, .on_eof = sniff_eof, .on_close = sniff_close };

static bool alpn_is(struct str name, const char *a, const char *b, const char *c, const char *d)
{
    return str_is(name, a) || str_is(name, b) || str_is(name, c) || str_is(name, d);
}

// From the configuration, what was negotiated, or what a listener filter has seen; otherwise the first bytes decide ("istio" over mutual
// TLS says nothing about the version).
void http_conn_codec(struct http_conn *hc)
{
    const struct downstream *d = hc->ds;
    const struct tls_info *tls = downstream_tls(d);
    struct str name = tls ? tls->alpn : d->alpn_count == 1 ? d->alpn[0] : str_n(NULL, 0);
    if (hc->requests) {
        start_codec(hc, HTTP_11); // it slept between two requests
    } else if (hc->cfg->codec == CODEC_H2 || (hc->cfg->codec == CODEC_AUTO && alpn_is(name, "h2", "istio-h2", "h2c", "h2"))) {
        start_codec(hc, HTTP_2);
    } else if (hc->cfg->codec == CODEC_H1 || alpn_is(name, "http/1.1", "http/1.0", "istio-http/1.1", "istio-http/1.0")) {
        start_codec(hc, HTTP_11);
    } else {
        d->conn->ops = &sniff_ops;
        d->conn->owner = hc;
        sniff(hc);
    }
}

struct http_conn *http_conn_new(struct downstream *d, struct stat_block *stats)
{
    struct http_conn *hc = recycle_calloc(1, sizeof(*hc));
    CHECK(hc);
    const struct filter_chain *chain = d->chain;
    hc->ds = d;
    hc->cfg = chain->filters[chain->filter_count - 1].cfg;
    hc->stats = stats;
    list_init(&hc->streams);
    idle_enter(hc);
    d->terminal = hc;
    d->ops = &http_conn_ds_ops;
    return hc;
}

void http_manager_start(struct downstream *d, const struct http_manager_cfg *cfg)
{
    struct http_conn *hc = http_conn_new(d, stats_scope_get(d->worker->stats, STAT_HTTP, cfg->stat_prefix));
    if (!d->listener->buffer_limit) {
        d->conn->high = DOWNSTREAM_HIGH;
        d->conn->low = DOWNSTREAM_HIGH / 2;
    }
    timer_init(&d->timer, on_timer);
    hc->idle_since_ms = now_ms(hc);
    stat_inc(hc->stats, STAT_ID_HTTP_CX_TOTAL);
    stat_gauge_add(hc->stats, STAT_ID_HTTP_CX_ACTIVE, 1);
    http_conn_codec(hc);
    if (cfg->idle_ms) {
        http_conn_arm(hc, hc->idle_since_ms + cfg->idle_ms);
    }
    if (cfg->max_connection_ms) {
        http_conn_arm(hc, started_ms(hc) + cfg->max_connection_ms);
    }
    if (d->worker->draining && (!d->worker->drain_inbound_only || d->listener->direction == DIRECTION_INBOUND)) {
        on_drain(d);
    }
    idle_check(hc);
}

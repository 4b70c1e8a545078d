// SPDX-License-Identifier: Apache-2.0
// Abuse of HTTP/2 that is allowed frame by frame: floods of control frames, empty DATA, CONTINUATION, resets (threat classes T14–T18).
// Every frame that makes work without bringing anything costs credits; credits come with time and with honest work. A connection
// without credits ends with ENHANCE_YOUR_CALM. The scanner sees each frame's header before nghttp2 does, also of frames that
// nghttp2 skips.
#include "lib/http/h2_conn.h"

enum { FRAME_HEADER = 9, PREFACE_BYTES = 24 };

const struct h2_opts h2_opts_default = {
    .hpack_table = H2_HPACK_TABLE_DEFAULT,
    .max_outbound_frames = 10000,
    .max_outbound_control = 1000,
    .max_empty_frames = 1,
    .max_priority_per_stream = 100,
    .max_window_updates = 10,
};

void h2_guard_init(struct h2 *h)
{
    h->guard.preface_left = h->server ? PREFACE_BYTES : 0;
    h->guard.budget = H2_BUDGET_MAX;
    h->guard.budget_ms = loop_now_ms(h->c.conn->loop);
}

bool h2_guard_spend(struct h2 *h, int cost)
{
    struct h2_guard *g = &h->guard;
    if (cost < 0) {
        h2_guard_earn(h, -cost);
        return true;
    }
    g->budget -= cost;
    if (g->budget >= 0) {
        return true;
    }
    uint64_t now = loop_now_ms(h->c.conn->loop), passed = now - g->budget_ms;
    int64_t earned = (int64_t)(passed > 10000 ? H2_BUDGET_MAX : passed * H2_BUDGET_PER_S / 1000);
    g->budget_ms = now;
    h2_guard_earn(h, (int)earned);
    return g->budget >= 0;
}

void h2_guard_earn(struct h2 *h, int credit)
{
    struct h2_guard *g = &h->guard;
    g->budget += credit;
    if (g->budget > H2_BUDGET_MAX) {
        g->budget = H2_BUDGET_MAX;
    }
}

static const char *block_part(struct h2 *h, uint32_t len, uint8_t flags, uint32_t *ret_code)
{
    struct h2_guard *g = &h->guard;
    g->block_bytes += len;
    g->in_block = !(flags & NGHTTP2_FLAG_END_HEADERS);
    if (g->block_bytes > H2_BLOCK_BYTES_MAX || g->continuations > H2_CONTINUATIONS_MAX) {
        *ret_code = NGHTTP2_ENHANCE_YOUR_CALM;
        return "http2.header_block_too_large";
    }
    return NULL;
}

// RFC 9113 §5.1.1: identifiers only grow; nghttp2 takes a skipped one for a closed stream.
static const char *check_order(struct h2 *h, int32_t id, uint32_t *ret_code)
{
    struct h2_guard *g = &h->guard;
    if (!h->server || id % 2 == 0) {
        return NULL;
    }
    if (id > g->last_id) {
        if (id > g->last_id + 2) {
            g->gap_lo = g->last_id + 2;
            g->gap_hi = id - 2;
        }
        g->last_id = id;
    } else if (id >= g->gap_lo && id <= g->gap_hi) {
        *ret_code = NGHTTP2_PROTOCOL_ERROR;
        return "http2.stream_id_too_low";
    }
    return NULL;
}

static int cost_of(const struct h2 *h, uint32_t len, uint8_t type, uint8_t flags)
{
    switch (type) {
    case NGHTTP2_DATA:
        return flags & NGHTTP2_FLAG_END_STREAM ? 0 : len == 0 ? 10 : -2; // data pays for the PING that measures its path
    case NGHTTP2_HEADERS:
        return h->server ? 2 : 0; // given back when the stream ends well
    case NGHTTP2_CONTINUATION:
        return len < 256 ? 20 : 2;
    case NGHTTP2_SETTINGS:
        return flags & NGHTTP2_FLAG_ACK ? 1 : 20 + (int)(len / 8);
    case NGHTTP2_RST_STREAM:
        return 4;
    case NGHTTP2_PING:
        return flags & NGHTTP2_FLAG_ACK ? 1 : 3;
    default: // PRIORITY, WINDOW_UPDATE, GOAWAY, PUSH_PROMISE, unknown
        return 2;
    }
}

// The limits that are configured one by one (core.v3.Http2ProtocolOptions, numbers as Envoy applies them).
static const char *check_counts(struct h2 *h, uint32_t len, uint8_t type, uint8_t flags)
{
    struct h2_guard *g = &h->guard;
    const struct h2_opts *o = h->opts;
    uint64_t opened = h->server ? g->blocks : h->opened;
    switch (type) {
    case NGHTTP2_DATA:
    case NGHTTP2_HEADERS:
    case NGHTTP2_CONTINUATION:
        g->empties = len == 0 && !(flags & NGHTTP2_FLAG_END_STREAM) ? g->empties + 1 : 0;
        return g->empties > o->max_empty_frames ? "http2.too_many_empty_frames" : NULL;
    case NGHTTP2_PRIORITY:
        return ++g->priorities > o->max_priority_per_stream * (1 + opened) ? "http2.too_many_priority_frames" : NULL;
    case NGHTTP2_WINDOW_UPDATE:
        return ++g->window_updates > 5 + 2 * (opened + o->max_window_updates * g->data_sent) ? "http2.too_many_window_updates" : NULL;
    default:
        return NULL;
    }
}

bool h2_guard_outbound(const struct h2 *h)
{
    size_t n = nghttp2_session_get_outbound_queue_size(h->session); // heads are in it, bodies are not
    return n > h->opts->max_outbound_frames || n > (size_t)h->opts->max_outbound_control + 2 * h->n_streams;
}

static const char *frame_begins(struct h2 *h, uint32_t *ret_code)
{
    struct h2_guard *g = &h->guard;
    const uint8_t *p = g->hd;
    uint32_t len = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
    uint8_t type = p[3], flags = p[4];
    int32_t id = (int32_t)(((uint32_t)p[5] & 0x7f) << 24 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 8 | p[8]);
    g->payload_left = len;
    if (!h2_guard_spend(h, cost_of(h, len, type, flags))) {
        *ret_code = NGHTTP2_ENHANCE_YOUR_CALM;
        return "http2.too_many_glitches";
    }
    const char *flood = check_counts(h, len, type, flags);
    if (flood) {
        *ret_code = NGHTTP2_ENHANCE_YOUR_CALM;
        return flood;
    }
    if (type == NGHTTP2_HEADERS) {
        g->block_bytes = g->continuations = 0;
        g->blocks++;
        const char *e = check_order(h, id, ret_code);
        return e ? e : block_part(h, len, flags, ret_code);
    }
    if (type == NGHTTP2_CONTINUATION && g->in_block) {
        g->continuations++;
        return block_part(h, len, flags, ret_code);
    }
    return NULL;
}

const char *h2_guard_scan(struct h2 *h, const char *p, size_t n, uint32_t *ret_code)
{
    struct h2_guard *g = &h->guard;
    while (n) {
        size_t k;
        if (g->preface_left) {
            k = n < g->preface_left ? n : g->preface_left;
            g->preface_left -= (unsigned)k;
        } else if (g->payload_left) {
            k = n < g->payload_left ? n : g->payload_left;
            g->payload_left -= (uint32_t)k;
        } else {
            k = FRAME_HEADER - g->have;
            k = n < k ? n : k;
            memcpy(g->hd + g->have, p, k);
            g->have += (unsigned)k;
            if (g->have == FRAME_HEADER) {
                g->have = 0;
                const char *e = frame_begins(h, ret_code);
                if (e) {
                    return e;
                }
            }
        }
        p += k;
        n -= k;
    }
    return NULL;
}

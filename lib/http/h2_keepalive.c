// SPDX-License-Identifier: Apache-2.0
// Whether the peer is still there (core.v3.KeepaliveSettings). Any byte from it is a sign of life, not only the answer to the PING.
#include "lib/base/rand.h"
#include "lib/http/h2_conn.h"

static void set_timer(struct h2 *h, uint64_t ms)
{
    timer_set(h->c.conn->loop, &h->ping_timer, ms);
}

static void arm_interval(struct h2 *h)
{
    const struct h2_opts *o = h->opts;
    if (o->ping_interval_ms) {
        uint64_t jitter = o->ping_interval_ms * o->ping_jitter_pct / 100;
        set_timer(h, o->ping_interval_ms + (jitter ? rand_below(jitter + 1) : 0));
    }
}

static void send_ping(struct h2 *h)
{
    static const uint8_t word[8] = { 'k', 'e', 'e', 'p', 'a', 'l', 'v', 'e' };
    h->pinged = true;
    h->heard_since_ping = false;
    nghttp2_submit_ping(h->session, NGHTTP2_FLAG_NONE, word);
    h2_kick(h);
    set_timer(h, h->opts->ping_timeout_ms);
}

static void on_timer(struct timer *t)
{
    struct h2 *h = container_of(t, struct h2, ping_timer);
    h2_enter(h);
    if (h->failed || h->closing || h->gone_due || h->gone) {
        h2_leave(h);
        return;
    }
    if (!h->pinged) {
        send_ping(h);
    } else if (h->heard_since_ping) {
        h->pinged = false;
        arm_interval(h);
    } else {
        h2_lost(h, "http2.ping_timeout");
    }
    h2_leave(h);
}

void h2_keepalive_init(struct h2 *h)
{
    timer_init(&h->ping_timer, on_timer);
    h->heard_ms = loop_now_ms(h->c.conn->loop);
    arm_interval(h);
}

void h2_keepalive_heard(struct h2 *h)
{
    h->heard_ms = loop_now_ms(h->c.conn->loop);
    h->heard_since_ping = h->pinged;
}

void h2_keepalive_stream(struct h2 *h)
{
    uint64_t now = loop_now_ms(h->c.conn->loop);
    if (h->opts->ping_idle_ms && !h->pinged && h->settings_heard && now - h->heard_ms >= h->opts->ping_idle_ms) {
        send_ping(h);
    }
}

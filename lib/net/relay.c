// SPDX-License-Identifier: Apache-2.0
#include "lib/net/relay.h"

#include "lib/base/check.h"

static void on_data(struct conn *c);
static void on_eof(struct conn *c);
static void on_low(struct conn *c);
static void on_close(struct conn *c, enum conn_close why);

static const struct conn_ops relay_ops = {
    .on_data = on_data,
    .on_eof = on_eof,
    .on_low = on_low,
    .on_close = on_close,
};
static const struct conn_ops no_ops;

static struct conn *other(const struct relay *r, const struct conn *c)
{
    return c == r->a ? r->b : r->a;
}

static void finish(struct relay *r, struct conn *who, enum conn_close why)
{
    if (!r->done) {
        r->done = true;
        timer_cancel(&r->idle);
        r->on_done(r, who, why); // may free r
    }
}

// true: what is in c->in may pass.
static bool passes(struct relay *r, struct conn *c, bool eof)
{
    uint8_t side = c == r->a ? RELAY_A : RELAY_B;
    if (!(r->gated & side)) {
        return true;
    }
    if (!r->gate(r, c, eof)) {
        return false;
    }
    r->gated &= (uint8_t)~side;
    return true;
}

static void on_data(struct conn *c)
{
    struct relay *r = c->owner;
    if (r->gated && (!passes(r, c, false) || c->in.len == 0)) {
        return;
    }
    struct conn *to = other(r, c);
    if (to->state == CONN_CLOSED || to->eof_out) {
        buf_clear(&c->in); // the other side's way out is closed: nobody is there to read it
        return;
    }
    buf_move(&to->out, &c->in, c->in.len);
    conn_flush(to);
    if (conn_above_high(to)) {
        conn_pause_read(c, CONN_PAUSE_FLOW);
    }
}

static void on_eof(struct conn *c)
{
    struct relay *r = c->owner;
    if (r->gated) {
        if (!passes(r, c, true)) {
            return;
        }
        if (c->in.len) {
            on_data(c);
        }
    }
    conn_shutdown(other(r, c));
}

static void on_low(struct conn *c)
{
    conn_resume_read(other(c->owner, c), CONN_PAUSE_FLOW);
}

static void on_close(struct conn *c, enum conn_close why)
{
    struct relay *r = c->owner;
    // An orderly end leaves the other side to send what it still holds.
    if (why != CONN_CLOSE_REMOTE || other(r, c)->state == CONN_CLOSED) {
        finish(r, c, why);
    }
}

static void on_idle(struct timer *t)
{
    struct relay *r = container_of(t, struct relay, idle);
    struct loop *l = r->a->loop;
    // The timer is not moved with each byte; it looks when it fires.
    uint64_t last = r->a->active_ms > r->b->active_ms ? r->a->active_ms : r->b->active_ms;
    uint64_t now = loop_now_ms(l), quiet = now > last ? now - last : 0;
    if (quiet < r->idle_ms) {
        timer_set(l, &r->idle, r->idle_ms - quiet);
    } else {
        finish(r, NULL, CONN_CLOSE_LOCAL);
    }
}

static void take_over(struct relay *r, struct conn *c)
{
    c->ops = &relay_ops;
    c->owner = r;
    c->pause = 0;
}

void relay_start(struct relay *r, struct conn *a, struct conn *b, uint64_t idle_ms,
                 void (*on_done)(struct relay *r, struct conn *who, enum conn_close why))
{
    r->a = a;
    r->b = b;
    r->idle_ms = idle_ms;
    r->on_done = on_done;
    r->done = false;
    timer_init(&r->idle, on_idle);
    take_over(r, a);
    take_over(r, b);
    struct conn *both[2] = { a, b };
    for (int i = 0; i < 2 && !r->done; i++) {
        struct conn *c = both[i];
        if (c->in.len) {
            on_data(c);
        }
        if (c->eof_in && !r->done) { // else a gate has ended the relay
            on_eof(c); // told to the former owner
        }
        if (r->done) {
            return;
        }
        conn_pause_read(c, CONN_PAUSE_OWNER); // so that resume sees a change and looks for waiting bytes
        conn_resume_read(c, CONN_PAUSE_OWNER);
    }
    if (idle_ms) {
        timer_set(a->loop, &r->idle, idle_ms);
    }
}

void relay_stop(struct relay *r)
{
    if (!r->a) {
        return;
    }
    timer_cancel(&r->idle);
    r->done = true;
    r->a->ops = r->b->ops = &no_ops;
    r->a = r->b = NULL;
}

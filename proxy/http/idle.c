// SPDX-License-Identifier: Apache-2.0
// HTTP/1 connections that wait for a request, most of a sidecar's: they give back their codec and their http_conn, and keep the downstream
// with its timer, and the socket. Some keep everything, so that a few busy connections pay nothing.
#include <stdlib.h>

#include "lib/base/recycle.h"
#include "proxy/http/internal.h"

static const struct downstream_ops asleep_ds_ops;
static const struct conn_ops asleep_conn_ops;

// When a silent connection is over. UINT64_MAX = never.
static uint64_t end_ms(const struct downstream *d, const struct http_manager_cfg *cfg, uint64_t idle_since_ms)
{
    uint64_t at = cfg->idle_ms ? idle_since_ms + cfg->idle_ms : UINT64_MAX;
    if (cfg->max_connection_ms) {
        uint64_t end = d->start_ns / 1000000 + cfg->max_connection_ms;
        at = end < at ? end : at;
    }
    return at;
}

// False: something is under way after all.
static bool fall_asleep(struct http_conn *hc)
{
    struct downstream *d = hc->ds;
    struct conn *c = d->conn;
    if (hc->ended || hc->draining || hc->drain_at_ms || hc->next || !list_empty(&hc->streams) ||
        (hc->codec ? !codec_leave(hc->codec) : c->in.len || c->eof_in || c->out.len)) {
        return false;
    }
    idle_leave(hc);
    http_conn_count_bytes(hc);
    uint64_t end = end_ms(d, hc->cfg, hc->idle_since_ms);
    if (end != UINT64_MAX) {
        http_conn_arm(hc, end); // one that stands earlier, for requests that are over, is looked at by idle_due
    }
    d->requests = hc->requests;
    d->terminal = hc->stats;
    d->ops = &asleep_ds_ops;
    c->ops = &asleep_conn_ops;
    c->owner = d;
    free((char *)hc->xfcc.p);
    recycle_free(hc);
    return true;
}

void idle_enter(struct http_conn *hc)
{
    struct http_worker *hw = http_worker_of(hc->ds->worker);
    list_add_tail(&hw->awake, &hc->link);
    hw->awake_count++;
}

void idle_leave(struct http_conn *hc)
{
    if (!list_empty(&hc->link)) {
        list_del(&hc->link);
        http_worker_of(hc->ds->worker)->awake_count--;
    }
}

// The list is in the order in which its members were looked at. Two of it a time, one more than can have come, so that it shrinks in spite of
// those with a request under way.
void idle_trim(struct http_conn *hc)
{
    struct http_worker *hw = http_worker_of(hc->ds->worker);
    for (int tries = 2; tries > 0 && hw->awake_count > IDLE_AWAKE_MAX; tries--) {
        struct http_conn *oldest = list_entry(hw->awake.next, struct http_conn, link);
        if (oldest == hc || !fall_asleep(oldest)) {
            list_del(&oldest->link);
            list_add_tail(&hw->awake, &oldest->link);
        }
    }
}

// Without codec.
static struct http_conn *wake(struct downstream *d)
{
    struct http_conn *hc = http_conn_new(d, d->terminal);
    const struct conn *c = d->conn;
    hc->requests = d->requests;
    hc->idle_since_ms = c->active_ms;
    hc->bytes_in_seen = c->bytes_in - c->in.len; // what woke it is not counted yet
    hc->bytes_out_seen = c->bytes_out;
    return hc;
}

struct http_conn *idle_wake(struct downstream *d)
{
    if (d->ops != &asleep_ds_ops) {
        return d->terminal;
    }
    struct http_conn *hc = wake(d);
    http_conn_codec(hc);
    return hc;
}

bool idle_due(struct downstream *d)
{
    if (d->ops != &asleep_ds_ops) {
        return true;
    }
    uint64_t end = end_ms(d, d->chain->filters[d->chain->filter_count - 1].cfg, d->conn->active_ms), now = loop_now_ms(d->worker->loop);
    if (end != UINT64_MAX && now < end) {
        timer_set(d->worker->loop, &d->timer, end - now);
    }
    return now >= end;
}

// ---- what can happen to one that sleeps ----

static void on_data(struct conn *c)
{
    (void)idle_wake(c->owner); // the codec finds the bytes
}

static void on_eof(struct conn *c)
{
    http_conn_end(wake(c->owner));
}

static void on_close(struct conn *c, enum conn_close why)
{
    (void)why;
    http_conn_end(wake(c->owner));
}

static const struct conn_ops asleep_conn_ops = { .on_data = on_data, .on_eof = on_eof, .on_close = on_close };

static void on_drain(struct downstream *d)
{
    (void)idle_wake(d);
    d->ops->on_drain(d);
}

static void on_abort(struct downstream *d)
{
    http_conn_end(wake(d));
}

static const struct downstream_ops asleep_ds_ops = { .on_drain = on_drain, .on_abort = on_abort };

// SPDX-License-Identifier: Apache-2.0
// From an accepted socket to the listener that is responsible for it, and the end of a connection.
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/net/origdst.h"
#include "proxy/listener/internal.h"

enum { ARENA_BLOCK_BYTES = 256 }; // server name and ALPN fit; nothing is allocated before something is kept

static const struct conn_ops no_ops;

static struct {
    uint64_t max;                // before workers start
    _Atomic uint64_t open;       // all workers; counted only when there is a limit
} global = { .max = UINT64_MAX };

void listener_set_global_limit(uint64_t max)
{
    global.max = max;
}

// Takes one of the places that all listeners share; *ret_counted: it is to be given back. False: there is none.
static bool admit(const struct listener_cfg *l, bool *ret_counted)
{
    *ret_counted = global.max != UINT64_MAX && !l->ignore_global_limit;
    if (!*ret_counted || atomic_fetch_add_explicit(&global.open, 1, memory_order_relaxed) < global.max) {
        return true;
    }
    atomic_fetch_sub_explicit(&global.open, 1, memory_order_relaxed);
    return false;
}

static struct downstream *downstream_new(struct worker *w, struct listener_cfg *accepted_by, int fd, const struct addr *peer,
                                         const struct addr *local)
{
    struct listener_set *set = listener_set_of(w);
    struct downstream *d = mem_new(struct downstream);
    d->worker = w;
    d->inbound = accepted_by->direction == DIRECTION_INBOUND;
    const struct addr remote = addr_unmap(*peer), own = addr_unmap(*local);
    d->conn = conn_accepted(w->loop, fd, &remote, &own, &no_ops, d);
    timer_init(&d->timer, NULL);
    list_add_tail(&set->conns, &d->link);
    set->conn_count++;
    return d;
}

// listener.v3.Listener.use_original_dst: a redirected connection belongs to the listener of the address it was meant for. One that was not
// redirected stays here.
static struct listener_cfg *responsible(struct downstream *d, struct listener_cfg *l)
{
    if (!l->use_original_dst) {
        return l;
    }
    struct addr dst;
    if (origdst_get(d->conn->fd.fd, d->conn->local.family, l->transparent, &dst) == 0) {
        downstream_restore(d, addr_unmap(dst));
        struct listener_cfg *v = snapshot_virtual_listener(d->worker->snap, downstream_local(d));
        return v ? v : l;
    }
    return l;
}

void listener_dispatch(struct worker *w, struct listener_cfg *accepted_by, int fd, const struct addr *peer, const struct addr *local)
{
    bool counted;
    if (!admit(accepted_by, &counted)) {
        stat_inc(stats_scope_get(w->stats, STAT_LISTENER, accepted_by->stat_name), STAT_ID_LISTENER_GLOBAL_CX_OVERFLOW);
        close(fd);
        return;
    }
    if (local->family != AF_UNIX) {
        socket_nodelay(fd);
    }
    struct downstream *d = downstream_new(w, accepted_by, fd, peer, local);
    d->limited = counted;
    d->listener = listener_cfg_ref(responsible(d, accepted_by));
    d->stats = stats_scope_get(w->stats, STAT_LISTENER, d->listener->stat_name);
    if (d->listener->buffer_limit) {
        d->conn->high = d->listener->buffer_limit;
        d->conn->low = d->listener->buffer_limit / 2;
    }
    stat_inc(d->stats, STAT_ID_LISTENER_DOWNSTREAM_CX_TOTAL);
    stat_gauge_add(d->stats, STAT_ID_LISTENER_DOWNSTREAM_CX_ACTIVE, 1);
    d->start_wall_ms = loop_wall_ms(w->loop);
    d->start_ns = loop_now_ns(w->loop);
    chain_begin(d);
}

bool downstream_original_dst(const struct downstream *d, struct addr *ret)
{
    if (!d->restored) {
        return false; // the client dialled us: connecting there would be a loop
    }
    *ret = d->conn->local;
    return true;
}

struct downstream_found *downstream_found(struct downstream *d)
{
    if (!d->found) {
        d->found = mem_new(struct downstream_found);
        arena_init(&d->found->arena, ARENA_BLOCK_BYTES, 0);
    }
    return d->found;
}

struct upstream_hints *downstream_hints(struct downstream *d)
{
    struct downstream_found *f = downstream_found(d);
    if (!f->hints) {
        f->hints = arena_new(&f->arena, struct upstream_hints);
    }
    return (struct upstream_hints *)f->hints;
}

void downstream_info(const struct downstream *d, struct stream_info *ret)
{
    *ret = (struct stream_info){
        .start_wall_ms = d->start_wall_ms,
        .start_ns = d->start_ns,
        .connection_id = d->conn->id,
        .downstream_remote = *downstream_remote(d),
        .downstream_direct_remote = d->conn->peer,
        .downstream_local = *downstream_local(d),
        .requested_server_name = downstream_server_name(d),
        .facts = downstream_facts(d),
        .dynamic = d->found ? d->found->dynamic : NULL,
        .downstream_tls = downstream_tls(d),
        .flags = d->found ? d->found->flags : 0,
        .details = d->found ? d->found->details : NULL,
        .connection_termination = str_c(d->found ? d->found->termination : NULL),
        .metadata = { [METADATA_LISTENER] = &d->listener->metadata, [METADATA_FILTER_CHAIN] = d->chain ? &d->chain->metadata : NULL },
    };
}

const struct tls_info *downstream_tls(const struct downstream *d)
{
    return transport_tls_info(d->conn);
}

void downstream_close(struct downstream *d)
{
    if (d->closed) {
        return;
    }
    d->closed = true;
    struct listener_set *set = listener_set_of(d->worker);
    stat_gauge_add(d->stats, STAT_ID_LISTENER_DOWNSTREAM_CX_ACTIVE, -1);
    stat_inc(d->stats, STAT_ID_LISTENER_DOWNSTREAM_CX_DESTROY);
    stat_record(d->stats, STAT_ID_LISTENER_CX_LENGTH_MS, (loop_now_ns(d->worker->loop) - d->start_ns) / 1000000);
    chain_progress_free(d);
    timer_cancel(&d->timer);
    conn_free(d->conn); // memory stays until the end of the turn
    list_del(&d->link);
    set->conn_count--;
    if (d->limited) {
        atomic_fetch_sub_explicit(&global.open, 1, memory_order_relaxed);
    }
    // The callers up the stack may still look at d and at its listener's configuration.
    list_add_tail(&set->dead, &d->link);
    loop_defer(d->worker->loop, &set->bury);
}

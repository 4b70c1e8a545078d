// SPDX-License-Identifier: Apache-2.0
// Sockets of one worker: bound with SO_REUSEPORT each, kept over configurations as long as the address stays.
#include "proxy/listener/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/log.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"
#include "proxy/listener/internal.h"

enum {
    ACCEPT_BUDGET = 64,      // connections per turn and socket where the configuration sets no limit: others get their turn
    BIND_RETRY_MS = 1000,
    ACCEPT_PAUSE_MS = 100,   // after running out of descriptors
    QUEUE_MAX = SOMAXCONN + 1, // what an accept queue can hold (socket_listen's backlog)
};

struct listen_socket {
    struct list link;
    struct loop_fd fd; // fd.fd -1 = not bound yet
    struct listener_set *set;
    struct listener_cfg *cfg; // ref
    struct addr addr;         // path in cfg
    bool wanted;              // mark of listener_on_snapshot
    uint32_t budget;          // accepts in the next turn, see on_readable
    uint64_t seen_ms;         // turn of the last event
};

static void on_readable(struct loop_fd *f, uint32_t events);

// ---- binding ----

static struct socket_listen_opts listen_opts(const struct listener_cfg *l, const struct addr *a)
{
    return (struct socket_listen_opts){
        .reuse_port = a->family != AF_UNIX,
        .transparent = l->transparent,
        .freebind = l->freebind,
        // A wildcard pair (0.0.0.0 and ::) on one port needs it; a lone :: takes IPv4 as well, as Envoy's ipv4_compat does.
        .v6only = a->family == AF_INET6 && l->address_count > 1,
    };
}

static bool try_bind(struct listen_socket *s)
{
    struct err e = { 0 };
    struct socket_listen_opts o = listen_opts(s->cfg, &s->addr);
    int fd = socket_listen(&s->addr, &o, &e);
    if (fd < 0) {
        log_error(LOGC_CONNECTION, 0, "listener_bind_failed", "listener=%.*s why=\"%s\"", STR_FMT(s->cfg->name), e.msg);
        return false;
    }
    s->fd.fd = fd;
    int r = s->set->paused ? 0 : loop_add_fd_level(s->set->worker->loop, &s->fd, EPOLLIN);
    if (r < 0) {
        log_error(LOGC_CONNECTION, 0, "listener_watch_failed", "listener=%.*s code=%d", STR_FMT(s->cfg->name), r);
        close(fd);
        s->fd.fd = -1;
        return false;
    }
    return true;
}

static void retry_bind(struct timer *t)
{
    struct listener_set *set = container_of(t, struct listener_set, retry);
    bool again = false;
    list_for(l, &set->sockets)
    {
        struct listen_socket *s = list_entry(l, struct listen_socket, link);
        again = (s->fd.fd < 0 && !try_bind(s)) || again;
    }
    if (again) {
        timer_set(set->worker->loop, t, BIND_RETRY_MS);
    }
}

static void socket_new(struct listener_set *set, struct listener_cfg *l, const struct addr *a)
{
    struct listen_socket *s = mem_new(struct listen_socket);
    s->set = set;
    s->cfg = listener_cfg_ref(l);
    s->addr = *a;
    s->fd = (struct loop_fd){ .fd = -1, .on_event = on_readable };
    s->wanted = true;
    list_add_tail(&set->sockets, &s->link);
    if (!try_bind(s) && !timer_pending(&set->retry)) {
        timer_set(set->worker->loop, &set->retry, BIND_RETRY_MS);
    }
}

// At once: who waits in the accept queue is reset.
static void socket_close(struct listen_socket *s)
{
    if (s->fd.fd >= 0) {
        loop_del_fd(s->set->worker->loop, &s->fd);
        close(s->fd.fd);
    }
    list_del(&s->link);
    listener_cfg_unref(s->cfg);
    loop_free_later(s->set->worker->loop, s);
}

int listener_check_bind(const struct listener_cfg *l, struct err *err)
{
    for (size_t i = 0; l->bind_to_port && i < l->address_count; i++) {
        if (l->addresses[i].family == AF_UNIX) {
            continue; // probing would take the path from whoever serves it now
        }
        struct socket_listen_opts o = listen_opts(l, &l->addresses[i]);
        int fd = socket_listen(&l->addresses[i], &o, err);
        if (fd < 0) {
            return fd;
        }
        close(fd);
    }
    return 0;
}

// ---- accepting ----

static void pause_accept(struct listener_set *set)
{
    if (set->paused) {
        return;
    }
    set->paused = true;
    list_for(l, &set->sockets)
    {
        struct listen_socket *s = list_entry(l, struct listen_socket, link);
        if (s->fd.fd >= 0) {
            loop_del_fd(set->worker->loop, &s->fd);
        }
    }
    timer_set(set->worker->loop, &set->resume, ACCEPT_PAUSE_MS);
}

static void resume_accept(struct timer *t)
{
    struct listener_set *set = container_of(t, struct listener_set, resume);
    set->paused = false;
    if (set->spare_fd < 0) {
        set->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    list_for(l, &set->sockets)
    {
        struct listen_socket *s = list_entry(l, struct listen_socket, link);
        if (s->fd.fd >= 0) {
            (void)loop_add_fd_level(set->worker->loop, &s->fd, EPOLLIN);
        }
    }
}

// Out of descriptors: the connection at the head of the queue is turned away by means of the spare descriptor, so that its client learns at
// once, and nothing is accepted for a moment: the socket stays readable, and looking again and again would burn the CPU.
static void out_of_descriptors(struct listen_socket *s, int code)
{
    struct listener_set *set = s->set;
    log_error(LOGC_CONNECTION, 0, "accept_failed", "listener=%.*s code=%d paused_ms=%d", STR_FMT(s->cfg->name), code, ACCEPT_PAUSE_MS);
    if (set->spare_fd >= 0) {
        close(set->spare_fd);
        struct addr peer;
        int fd = socket_accept(s->fd.fd, &peer);
        if (fd >= 0) {
            socket_close_reset(fd);
        }
        set->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    pause_accept(set);
}

// false: stop for this turn.
static bool accept_one(struct listen_socket *s)
{
    struct addr peer;
    int fd = socket_accept(s->fd.fd, &peer);
    if (fd >= 0) {
        struct addr local = s->addr;
        // Bound to one address, the connection came to it; TPROXY and wildcards have to ask.
        if ((s->cfg->transparent || addr_is_any(&s->addr)) && socket_local(fd, &local) < 0) {
            close(fd); // reset while it waited
            return true;
        }
        listener_dispatch(s->set->worker, s->cfg, fd, &peer, &local);
        return s->fd.fd >= 0;
    }
    if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM) {
        out_of_descriptors(s, fd);
        return false;
    }
    // accept(2): errors of the connection itself (ECONNABORTED, EPROTO, …) mean: try the next one.
    return fd != -EAGAIN && fd != -EBADF && fd != -EINVAL && fd != -ENOTSOCK;
}

// Who waits in the queue has been promised a connection (connect(2) succeeded), and closing the socket would reset it: all of it is accepted
// first. Not without end: others go on coming until the socket is closed.
static void socket_retire(struct listen_socket *s)
{
    for (int i = 0; i < QUEUE_MAX && s->fd.fd >= 0 && !s->set->paused && accept_one(s); i++) {
    }
    socket_close(s);
}

// Level-triggered, so what is left comes again in the next turn. A lone connection costs one accept4 and not a second one that finds nothing:
// the budget begins at one and doubles while events follow at once.
static void on_readable(struct loop_fd *f, uint32_t events)
{
    (void)events;
    struct listen_socket *s = container_of(f, struct listen_socket, fd);
    uint32_t max = s->cfg->max_accept_per_event ? s->cfg->max_accept_per_event : ACCEPT_BUDGET;
    uint64_t now = loop_now_ms(s->set->worker->loop);
    s->budget = now - s->seen_ms > 1 || s->budget == 0 ? 1 : s->budget * 2;
    s->budget = s->budget > max ? max : s->budget;
    s->seen_ms = now;
    for (uint32_t left = s->budget; left > 0 && accept_one(s); left--) {
    }
}

void listener_inject(struct worker *w, struct listener_cfg *l, int fd, const struct addr *peer, const struct addr *local)
{
    listener_dispatch(w, l, fd, peer, local);
}

// ---- life ----

static void bury(struct loop_task *t)
{
    struct listener_set *set = container_of(t, struct listener_set, bury);
    while (!list_empty(&set->dead)) {
        struct downstream *d = list_entry(set->dead.next, struct downstream, link);
        list_del(&d->link);
        if (d->found) {
            arena_fini(&d->found->arena);
            free(d->found);
        }
        filter_chain_unref(d->chain); // first: one made by hand lies in the listener's arena
        listener_cfg_unref(d->listener);
        free(d);
    }
}

void listener_worker_init(struct worker *w)
{
    struct listener_set *set = mem_new(struct listener_set);
    set->worker = w;
    list_init(&set->sockets);
    list_init(&set->conns);
    list_init(&set->dead);
    loop_task_init(&set->bury, bury);
    timer_init(&set->retry, retry_bind);
    timer_init(&set->resume, resume_accept);
    set->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    w->slots[SLOT_LISTENER] = set;
}

void listener_worker_fini(struct worker *w)
{
    struct listener_set *set = listener_set_of(w);
    list_for_safe(l, &set->sockets)
    {
        socket_close(list_entry(l, struct listen_socket, link));
    }
    while (!list_empty(&set->conns)) {
        struct downstream *d = list_entry(set->conns.next, struct downstream, link);
        if (d->ops && d->ops->on_abort) {
            d->ops->on_abort(d);
        }
        downstream_close(d);
    }
    loop_task_cancel(&set->bury);
    bury(&set->bury);
    timer_cancel(&set->retry);
    timer_cancel(&set->resume);
    if (set->spare_fd >= 0) {
        close(set->spare_fd);
    }
    speaker_table_free(set->speakers);
    free(set);
    w->slots[SLOT_LISTENER] = NULL;
}

size_t listener_connections(const struct worker *w)
{
    return listener_set_of(w)->conn_count;
}

static void drain_conn(struct downstream *d)
{
    if (!d->ops) {
        d->drains = true; // still in front of its terminal filter: see start_filters
    } else if (d->ops->on_drain) {
        d->ops->on_drain(d);
    }
}

// ---- following snapshots ----

static bool same_socket(const struct listen_socket *s, const struct listener_cfg *l, const struct addr *a)
{
    return addr_eq(&s->addr, a) && s->cfg->transparent == l->transparent && s->cfg->freebind == l->freebind &&
           (s->cfg->address_count > 1) == (l->address_count > 1);
}

static void want_socket(struct listener_set *set, struct listener_cfg *l, const struct addr *a)
{
    list_for(i, &set->sockets)
    {
        struct listen_socket *s = list_entry(i, struct listen_socket, link);
        if (!s->wanted && same_socket(s, l, a)) {
            s->wanted = true;
            listener_cfg_ref(l);
            listener_cfg_unref(s->cfg);
            s->cfg = l;
            s->addr = *a; // its path is l's
            return;
        }
    }
    socket_new(set, l, a);
}

// A path can be bound once only: the first worker serves it.
static bool shares(const struct listener_set *set, const struct addr *a)
{
    return a->family != AF_UNIX || set->worker->index == 0;
}

static bool accepts(const struct listener_set *set, const struct listener_cfg *l)
{
    return l->bind_to_port && !set->closed && !(set->closed_inbound && l->direction == DIRECTION_INBOUND);
}

static void follow_sockets(struct listener_set *set, const struct snapshot *s)
{
    list_for(i, &set->sockets)
    {
        list_entry(i, struct listen_socket, link)->wanted = false;
    }
    // Gone addresses first: one of them may stand in the way of a new one (another option on the same port).
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < s->listener_count; i++) {
            struct listener_cfg *l = s->listeners[i];
            for (size_t j = 0; accepts(set, l) && j < l->address_count; j++) {
                bool known = false;
                list_for(k, &set->sockets)
                {
                    struct listen_socket *x = list_entry(k, struct listen_socket, link);
                    known = known || (x->wanted && x->cfg == l && addr_eq(&x->addr, &l->addresses[j]));
                }
                if (known || !shares(set, &l->addresses[j])) {
                    continue;
                }
                list_for(k, &set->sockets)
                {
                    struct listen_socket *x = list_entry(k, struct listen_socket, link);
                    known = known || (!x->wanted && same_socket(x, l, &l->addresses[j]));
                }
                if (known || pass == 1) {
                    want_socket(set, l, &l->addresses[j]);
                }
            }
        }
        list_for_safe(i, &set->sockets)
        {
            struct listen_socket *x = list_entry(i, struct listen_socket, link);
            if (!x->wanted) {
                socket_retire(x);
            }
        }
    }
}

struct versions {
    struct map live;   // the listeners of the snapshot, by address of the object and by name
    struct map chains; // by (listener, chain): of those that were asked for
};

static bool same_hash(const struct hash128 *a, const struct hash128 *b)
{
    static const struct hash128 none; // configurations made by hand in tests: the object itself counts
    return memcmp(a, &none, sizeof(none)) != 0 && memcmp(a, b, sizeof(none)) == 0;
}

static void note_chain(struct versions *v, const struct listener_cfg *l, struct filter_chain *c)
{
    const void *key[] = { l, c };
    map_put(&v->chains, str_n(key, sizeof(key)), c);
}

static bool has_chain(struct versions *v, const struct listener_cfg *l, const struct filter_chain *c)
{
    const void *known[] = { l, NULL }, *key[] = { l, c };
    if (!map_get(&v->chains, str_n(known, sizeof(known)))) {
        map_put(&v->chains, str_n(known, sizeof(known)), v);
        for (size_t i = 0; i < l->chain_count; i++) {
            note_chain(v, l, l->all_chains[i]);
        }
        if (l->default_chain) {
            note_chain(v, l, l->default_chain);
        }
    }
    return map_get(&v->chains, str_n(key, sizeof(key))) != NULL;
}

// Its listener differs from the present version only in filter chains, if at all, and its own chain is still there (or not chosen yet): it
// belongs to the present version from now on. A chain's object is shared by the versions that have it.
static bool survives(struct versions *v, struct downstream *d)
{
    struct listener_cfg *l = map_get(&v->live, d->listener->name);
    bool same = l && (same_hash(&l->hash, &d->listener->hash) ||
                      (same_hash(&l->rest_hash, &d->listener->rest_hash) && (!d->chain || has_chain(v, l, d->chain))));
    if (!same) {
        return false;
    }
    bool borrowed = d->chain ? d->ops && d->ops->borrows_listener && d->ops->borrows_listener(d) : chain_probes(d);
    if (!borrowed) { // else it holds the former version until another one comes
        listener_cfg_ref(l);
        listener_cfg_unref(d->listener);
        d->listener = l;
    }
    return true;
}

// Connections of listeners or filter chains that are gone or different now.
static void drain_outdated(struct listener_set *set, const struct snapshot *s)
{
    struct versions v = { 0 };
    for (size_t i = 0; i < s->listener_count; i++) {
        struct listener_cfg *l = s->listeners[i];
        map_put(&v.live, str_n(&l, sizeof(l)), l);
        map_put(&v.live, l->name, l);
    }
    list_for_safe(i, &set->conns)
    {
        struct downstream *d = list_entry(i, struct downstream, link);
        if (!map_get(&v.live, str_n(&d->listener, sizeof(d->listener))) && !survives(&v, d)) {
            drain_conn(d);
        }
    }
    map_fini(&v.live);
    map_fini(&v.chains);
}

static bool same_listeners(const struct snapshot *a, const struct snapshot *b)
{
    return a && b && a->listener_count == b->listener_count &&
           (a->listener_count == 0 || memcmp(a->listeners, b->listeners, a->listener_count * sizeof(struct listener_cfg *)) == 0);
}

void listener_on_snapshot(struct worker *w, const struct snapshot *old)
{
    struct listener_set *set = listener_set_of(w);
    if (same_listeners(old, w->snap)) {
        return;
    }
    follow_sockets(set, w->snap);
    if (old) {
        drain_outdated(set, w->snap);
    }
}

// ---- drain ----

static bool concerns(const struct downstream *d, bool inbound_only)
{
    return !inbound_only || d->inbound;
}

void listener_drain_notify(struct worker *w, bool inbound_only)
{
    struct listener_set *set = listener_set_of(w);
    list_for_safe(i, &set->conns)
    {
        struct downstream *d = list_entry(i, struct downstream, link);
        if (concerns(d, inbound_only)) {
            drain_conn(d);
        }
    }
}

void listener_drain(struct worker *w, bool inbound_only)
{
    struct listener_set *set = listener_set_of(w);
    set->closed = set->closed || !inbound_only;
    set->closed_inbound = true;
    list_for_safe(i, &set->sockets)
    {
        struct listen_socket *s = list_entry(i, struct listen_socket, link);
        if (!inbound_only || s->cfg->direction == DIRECTION_INBOUND) {
            socket_retire(s);
        }
    }
    listener_drain_notify(w, inbound_only);
}

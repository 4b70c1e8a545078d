// SPDX-License-Identifier: Apache-2.0
// c-ares drives its sockets through the loop: sock_state_cb registers them, one timer serves its time-outs. c-ares may answer
// from inside the asking call (literals, /etc/hosts), so answers go out through a task always.
#include "lib/net/dns.h"

#include <ares.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/mem.h"

enum {
    TRY_TIMEOUT_MS = 1500, // c-ares doubles it for each further try
    TRIES = 2,
    NAME_MAX_BYTES = 253, // RFC 1035 §2.3.4, as text without the final dot
};

struct dns {
    struct loop *loop;
    ares_channel channel;
    struct list queries, sockets;
    struct timer timer;
    char *servers; // owned; NULL = resolv.conf
    int active;    // queries that c-ares still works on
    bool stale;    // no server answered: read resolv.conf again when nothing is under way
    bool freeing;
};

struct dns_query {
    struct list link;
    struct dns *dns;
    struct loop_task task;
    struct timer deadline;
    char *name; // owned
    int families[2], family_count, family_at;
    bool in_ares; // c-ares holds a pointer to us
    void (*cb)(void *arg, int status, const struct addr *addrs, int n, uint32_t ttl_s); // NULL: nobody waits
    void *arg;
    int status;
    struct addr *addrs; // owned
    size_t count, cap;
    uint32_t ttl_s;
};

struct dns_socket {
    struct list link;
    struct loop_fd fd;
    struct dns *dns;
};

static void arm_timer(struct dns *d)
{
    struct timeval tv, *next = ares_timeout(d->channel, NULL, &tv);
    if (next) {
        timer_set(d->loop, &d->timer, (uint64_t)next->tv_sec * 1000 + (uint64_t)next->tv_usec / 1000 + 1);
    } else {
        timer_cancel(&d->timer);
    }
}

static void on_timer(struct timer *t)
{
    struct dns *d = container_of(t, struct dns, timer);
    ares_process_fd(d->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    arm_timer(d);
}

static void on_socket(struct loop_fd *f, uint32_t events)
{
    struct dns_socket *s = container_of(f, struct dns_socket, fd);
    struct dns *d = s->dns; // s may go meanwhile
    int fd = f->fd;
    bool in = events & (EPOLLIN | EPOLLERR | EPOLLHUP), out = events & EPOLLOUT;
    ares_process_fd(d->channel, in ? fd : ARES_SOCKET_BAD, out ? fd : ARES_SOCKET_BAD);
    arm_timer(d);
}

// c-ares: this socket now waits for these; neither = it is about to be closed.
static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct dns *d = arg;
    struct dns_socket *s = NULL;
    list_for(link, &d->sockets) {
        struct dns_socket *at = list_entry(link, struct dns_socket, link);
        if (at->fd.fd == fd) {
            s = at;
            break;
        }
    }
    uint32_t events = (readable ? (uint32_t)EPOLLIN : 0) | (writable ? (uint32_t)EPOLLOUT : 0);
    if (!events && s) {
        loop_del_fd(d->loop, &s->fd);
        list_del(&s->link);
        loop_free_later(d->loop, s); // we may be inside its handler
    } else if (events && s) {
        loop_mod_fd(d->loop, &s->fd, events);
    } else if (events) {
        s = mem_new(struct dns_socket);
        s->dns = d;
        s->fd = (struct loop_fd){ .fd = fd, .on_event = on_socket };
        list_add_tail(&d->sockets, &s->link);
        loop_add_fd_level(d->loop, &s->fd, events); // on failure the try runs into its time-out
    }
}

static int channel_open(struct dns *d, ares_channel *ret)
{
    struct ares_options o = {
        .timeout = TRY_TIMEOUT_MS,
        .tries = TRIES,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = d,
    };
    ares_channel c;
    int r = ares_init_options(&c, &o, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
    if (r == ARES_SUCCESS && d->servers && (r = ares_set_servers_ports_csv(c, d->servers)) != ARES_SUCCESS) {
        ares_destroy(c);
    }
    if (r == ARES_SUCCESS) {
        *ret = c;
    }
    return r;
}

static int library_status;
static void library_init(void)
{
    library_status = ares_library_init(ARES_LIB_INIT_ALL);
}

struct dns *dns_new(struct loop *l, struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, library_init);
    struct dns *d = mem_new(struct dns);
    d->loop = l;
    list_init(&d->queries);
    list_init(&d->sockets);
    timer_init(&d->timer, on_timer);
    int r = library_status ? library_status : channel_open(d, &d->channel);
    if (r != ARES_SUCCESS) {
        err_set(err, -EIO, "cannot start the DNS resolver: %s", ares_strerror(r));
        free(d);
        return NULL;
    }
    return d;
}

int dns_set_servers(struct dns *d, const char *servers, struct err *err)
{
    int r = ares_set_servers_ports_csv(d->channel, servers);
    if (r != ARES_SUCCESS) {
        return err_set(err, -EINVAL, "DNS servers \"%s\": %s", servers, ares_strerror(r));
    }
    free(d->servers);
    d->servers = mem_strdup(servers);
    return 0;
}

static void query_free(struct dns_query *q)
{
    list_del(&q->link);
    loop_task_cancel(&q->task);
    timer_cancel(&q->deadline);
    free(q->name);
    free(q->addrs);
    free(q);
}

void dns_free(struct dns *d)
{
    if (!d) {
        return;
    }
    d->freeing = true;
    list_for_safe(link, &d->queries) {
        struct dns_query *q = list_entry(link, struct dns_query, link);
        q->cb = NULL;
        if (!q->in_ares) {
            query_free(q);
        }
    }
    ares_destroy(d->channel); // answers ARES_EDESTRUCTION to the others, which frees them
    CHECK(list_empty(&d->queries));
    timer_cancel(&d->timer);
    list_for_safe(link, &d->sockets) {
        struct dns_socket *s = list_entry(link, struct dns_socket, link);
        loop_del_fd(d->loop, &s->fd);
        list_del(&s->link);
        loop_free_later(d->loop, s);
    }
    free(d->servers);
    loop_free_later(d->loop, d);
}

// A new channel reads /etc/resolv.conf anew: c-ares 1.18 never does by itself.
static void refresh(struct dns *d)
{
    ares_channel fresh;
    if (!d->stale || d->active) {
        return;
    }
    d->stale = false;
    if (channel_open(d, &fresh) == ARES_SUCCESS) {
        ares_destroy(d->channel);
        d->channel = fresh;
    }
}

// Answers from a task (or is freed there when nobody waits).
static void answer(struct dns_query *q, int status)
{
    q->status = status;
    timer_cancel(&q->deadline);
    loop_defer(q->dns->loop, &q->task);
}

static void on_task(struct loop_task *t)
{
    struct dns_query *q = container_of(t, struct dns_query, task);
    void (*cb)(void *, int, const struct addr *, int, uint32_t) = q->cb;
    struct addr *addrs = q->addrs;
    void *arg = q->arg;
    int status = q->status, count = status == 0 ? (int)q->count : 0;
    uint32_t ttl_s = status == 0 ? q->ttl_s : 0;
    q->cb = NULL;
    q->addrs = NULL;
    // Before the callback, which may free the resolver. When the deadline came first, c-ares still holds q: on_answer frees it.
    if (!q->in_ares) {
        query_free(q);
    }
    if (cb) {
        cb(arg, status, addrs, count, ttl_s);
    }
    free(addrs);
}

static void take_addresses(struct dns_query *q, const struct ares_addrinfo *info)
{
    for (const struct ares_addrinfo_node *n = info->nodes; n && q->count < DNS_ADDRS_MAX; n = n->ai_next) {
        struct addr a;
        if (!addr_from_sockaddr(n->ai_addr, n->ai_addrlen, &a)) {
            continue;
        }
        a.port = 0;
        uint32_t ttl = n->ai_ttl > 0 ? (uint32_t)n->ai_ttl : 0;
        q->ttl_s = q->count == 0 || ttl < q->ttl_s ? ttl : q->ttl_s;
        mem_grow(&q->addrs, &q->cap, q->count + 1, sizeof(a));
        q->addrs[q->count++] = a;
    }
}

static int status_of(int ares_status)
{
    switch (ares_status) {
    case ARES_SUCCESS:
    case ARES_ENODATA:
    case ARES_ENOTFOUND:
    case ARES_EBADNAME:
    case ARES_ENONAME:
        return -ENOENT; // success without a usable address, too
    case ARES_ETIMEOUT:
        return -ETIMEDOUT;
    default:
        return -EIO;
    }
}

static void ask(struct dns_query *q);

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    (void)timeouts;
    struct dns_query *q = arg;
    struct dns *d = q->dns;
    q->in_ares = false;
    d->active--;
    if (status == ARES_ECONNREFUSED || status == ARES_ETIMEOUT) {
        d->stale = true;
    }
    if (info && q->cb) {
        take_addresses(q, info);
    }
    if (info) {
        ares_freeaddrinfo(info);
    }
    if (!q->cb) { // cancelled, past its deadline, or the resolver goes
        query_free(q);
    } else if (q->count) {
        answer(q, 0);
    } else if (status_of(status) == -ENOENT && q->family_at + 1 < q->family_count) {
        q->family_at++;
        ask(q);
    } else {
        answer(q, status_of(status));
    }
}

static void ask(struct dns_query *q)
{
    const struct ares_addrinfo_hints hints = {
        .ai_family = q->families[q->family_at],
        .ai_socktype = SOCK_STREAM, // or each address comes once per protocol
        .ai_flags = ARES_AI_NOSORT, // sorting would open a socket per address
    };
    q->in_ares = true;
    q->dns->active++;
    ares_getaddrinfo(q->dns->channel, q->name, NULL, &hints, on_answer, q);
}

static void on_deadline(struct timer *t)
{
    struct dns_query *q = container_of(t, struct dns_query, deadline);
    q->dns->stale = true;
    answer(q, -ETIMEDOUT);
}

static void set_families(struct dns_query *q, enum dns_family f)
{
    static const struct {
        int count, family[2];
    } plans[] = {
        [DNS_AUTO] = { 2, { AF_INET6, AF_INET } },
        [DNS_V4_ONLY] = { 1, { AF_INET } },
        [DNS_V6_ONLY] = { 1, { AF_INET6 } },
        [DNS_V4_PREFERRED] = { 2, { AF_INET, AF_INET6 } },
        [DNS_ALL] = { 1, { AF_UNSPEC } },
    };
    CHECK((unsigned)f < array_len(plans));
    q->family_count = plans[f].count;
    memcpy(q->families, plans[f].family, sizeof(q->families));
}

struct dns_query *dns_resolve(struct dns *d, struct str name, enum dns_family f,
                              void (*cb)(void *arg, int status, const struct addr *addrs, int n, uint32_t ttl_s), void *arg)
{
    struct dns_query *q = mem_new(struct dns_query);
    q->dns = d;
    q->cb = cb;
    q->arg = arg;
    q->name = str_dup(name);
    set_families(q, f);
    loop_task_init(&q->task, on_task);
    timer_init(&q->deadline, on_deadline);
    list_add_tail(&d->queries, &q->link);
    size_t n = str_ends(name, STR(".")) ? name.n - 1 : name.n;
    if (n == 0 || n > NAME_MAX_BYTES || memchr(name.p, '\0', name.n)) {
        answer(q, -ENOENT);
        return q;
    }
    refresh(d);
    timer_set(d->loop, &q->deadline, DNS_TIMEOUT_MS);
    ask(q);
    arm_timer(d);
    return q;
}

void dns_cancel(struct dns_query *q)
{
    q->cb = NULL;
    if (!q->in_ares) {
        loop_defer(q->dns->loop, &q->task); // frees it
    } else {
        timer_cancel(&q->deadline);
    }
}

// SPDX-License-Identifier: Apache-2.0
// System calls are the cost here, so: one epoll_ctl per connection; a read that came back short ends the reading (the kernel
// signals an edge for whatever comes later, RDHUP included), a write is tried at once and waits for an edge only when the
// kernel took less than offered.
//
// Callbacks are made from three places only: the descriptor's event, the task and the timer. The API functions leave a note
// (broken, owe_*) and schedule the task.
#include "lib/net/conn.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/mem.h"

enum {
    READ_ROOM_MIN = 4096,       // less room than this in the last slice: take a fresh one
    BULK_READ_BYTES = 4 * BUF_SLICE_ROOM,
};

static void on_event(struct loop_fd *f, uint32_t events);
static void on_task(struct loop_task *t);
static void on_timer(struct timer *t);
static void close_now(struct conn *c, enum conn_close why);

static struct conn *conn_new(struct loop *l, int fd, const struct conn_ops *ops, void *owner)
{
    static _Atomic uint64_t ids = 1; // relaxed: only has to be unique
    struct conn *c = mem_zalloc(sizeof(*c));
    c->ops = ops;
    c->owner = owner;
    c->high = CONN_HIGH_DEFAULT;
    c->low = CONN_HIGH_DEFAULT / 2;
    c->loop = l;
    c->id = atomic_fetch_add_explicit(&ids, 1, memory_order_relaxed);
    c->active_ms = loop_now_ms(l);
    c->fd = (struct loop_fd){ .fd = fd, .on_event = on_event };
    loop_task_init(&c->task, on_task);
    return c;
}

struct conn_preface {
    size_t n;
    char bytes[];
};

struct conn_rare {
    struct conn *conn;
    struct timer timer;           // connect + handshake time-out, then linger time-out
    struct buf raw_in;            // raw bytes put back for the transport
    struct race *race;            // owned; while one of several addresses is looked for
    struct conn_preface *preface; // owned; see conn_set_preface
};

static struct conn_rare *rare_of(struct conn *c)
{
    if (!c->rare) {
        c->rare = mem_new(struct conn_rare);
        c->rare->conn = c;
        timer_init(&c->rare->timer, on_timer);
    }
    return c->rare;
}

// Frees it when nothing in it is in use.
static void rare_settle(struct conn *c)
{
    struct conn_rare *r = c->rare;
    if (r && !timer_pending(&r->timer) && !r->raw_in.len && !r->race && !r->preface) {
        buf_clear(&r->raw_in);
        free(r);
        c->rare = NULL;
    }
}

static void set_timer(struct conn *c, uint64_t ms)
{
    timer_set(c->loop, &rare_of(c)->timer, ms);
}

static void cancel_timer(struct conn *c)
{
    if (c->rare) {
        timer_cancel(&c->rare->timer);
        rare_settle(c);
    }
}

static void end_race(struct conn *c)
{
    if (c->rare) {
        race_free(c->rare->race);
        c->rare->race = NULL;
        rare_settle(c);
    }
}

static size_t raw_waiting(const struct conn *c)
{
    return c->rare ? c->rare->raw_in.len : 0;
}

// The next task closes for this reason.
static void break_later(struct conn *c, enum conn_close why, int errno_value)
{
    if (c->broken == CONN_CLOSE_NONE) {
        c->broken = (uint8_t)why;
        c->connect_errno = errno_value ? (short)errno_value : c->connect_errno;
        // A failed write: the peer may have answered before it reset, so reading is tried once more (read_rest).
        c->readable = c->hup = c->readable || why == CONN_CLOSE_RESET;
    }
    loop_defer(c->loop, &c->task);
}

static void watch(struct conn *c)
{
    int r = loop_add_fd(c->loop, &c->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI);
    if (r < 0) {
        break_later(c, c->state == CONN_OPEN ? CONN_CLOSE_RESET : CONN_CLOSE_CONNECT_FAIL, -r);
    }
}

struct conn *conn_accepted(struct loop *l, int fd, const struct addr *peer, const struct addr *local, const struct conn_ops *ops,
                           void *owner)
{
    struct conn *c = conn_new(l, fd, ops, owner);
    c->state = CONN_OPEN;
    c->writable = true; // a fresh socket takes bytes; what is readable the first event tells
    c->peer = peer ? *peer : (struct addr){ 0 };
    c->local = local ? *local : (struct addr){ 0 };
    watch(c);
    return c;
}

struct conn *conn_connect(struct loop *l, const struct addr *to, const struct socket_connect_opts *o, uint64_t timeout_ms,
                          const struct conn_ops *ops, void *owner)
{
    bool done = false;
    int fd = socket_connect(to, o, &done);
    struct conn *c = conn_new(l, fd >= 0 ? fd : -1, ops, owner);
    c->state = CONN_CONNECTING;
    c->peer = *to;
    if (fd < 0) {
        break_later(c, CONN_CLOSE_CONNECT_FAIL, -fd);
        return c;
    }
    if (timeout_ms) {
        set_timer(c, timeout_ms);
    }
    watch(c); // when done already, the first event is EPOLLOUT
    return c;
}

static void race_over(void *arg, int fd, size_t i)
{
    struct conn *c = arg;
    (void)i;
    end_race(c);
    if (fd < 0) {
        c->connect_errno = -fd;
        close_now(c, CONN_CLOSE_CONNECT_FAIL);
        return;
    }
    c->fd.fd = fd;
    (void)socket_peer(fd, &c->peer);
    watch(c); // the first event is EPOLLOUT
}

struct conn *conn_connect_any(struct loop *l, const struct race_target *v, size_t n, uint64_t timeout_ms, const struct conn_ops *ops,
                              void *owner)
{
    if (n == 1) {
        return conn_connect(l, &v[0].to, &v[0].opts, timeout_ms, ops, owner);
    }
    struct conn *c = conn_new(l, -1, ops, owner);
    c->state = CONN_CONNECTING;
    c->peer = v[0].to;
    rare_of(c)->race = race_start(l, v, n, race_over, c);
    if (timeout_ms) {
        set_timer(c, timeout_ms);
    }
    return c;
}

void conn_set_transport(struct conn *c, struct transport *t, uint64_t timeout_ms)
{
    CHECK(!c->transport);
    c->transport = t;
    t->conn = c;
    if (timeout_ms && !(c->rare && timer_pending(&c->rare->timer))) {
        set_timer(c, timeout_ms);
    }
    if (c->state == CONN_OPEN) {
        c->state = CONN_HANDSHAKING;
        c->bytes_in -= c->in.len; // they were not plain bytes
        if (c->in.len) {
            buf_move(&rare_of(c)->raw_in, &c->in, c->in.len);
        }
        loop_defer(c->loop, &c->task); // bytes may be here already, then no edge follows
    }
}

// The end of the life: from event, task or timer only. May destroy c (on_close usually calls conn_free).
static void close_now(struct conn *c, enum conn_close why)
{
    if (c->state == CONN_CLOSED || c->freed) {
        return;
    }
    c->state = CONN_CLOSED;
    c->close_reason = c->closing ? CONN_CLOSE_LOCAL : why;
    c->readable = c->writable = false;
    cancel_timer(c);
    loop_task_cancel(&c->task);
    end_race(c);
    loop_close_fd(c->loop, &c->fd);
    if (c->ops->on_close) {
        c->ops->on_close(c, c->close_reason);
    }
}

// What a failed system call or transport means.
static enum conn_close error_reason(const struct conn *c)
{
    return c->transport && !c->connect_errno ? CONN_CLOSE_TLS : CONN_CLOSE_RESET;
}

static bool is_open(const struct conn *c)
{
    return c->state == CONN_OPEN && !c->freed;
}

// --- writing ---

static void send_fin(struct conn *c)
{
    if (c->transport && c->transport->ops->shutdown) {
        enum io r = c->transport->ops->shutdown(c->transport);
        if (r == IO_AGAIN) {
            c->writing_blocked = true;
            return;
        }
    }
    c->fin_sent = true;
    shutdown(c->fd.fd, SHUT_WR); // fails only when the connection is gone, and then reading tells
    if (c->closing && (!c->linger || c->eof_in)) {
        break_later(c, CONN_CLOSE_LOCAL, 0);
    } else if (c->eof_in) {
        break_later(c, CONN_CLOSE_REMOTE, 0);
    }
}

static __attribute__((noinline)) ssize_t send_slices(struct conn *c, size_t *ret_offered)
{
    struct iovec iov[BUF_IOV_MAX];
    int n = buf_iov(&c->out, iov, BUF_IOV_MAX);
    *ret_offered = 0;
    for (int i = 0; i < n; i++) {
        *ret_offered += iov[i].iov_len;
    }
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = (size_t)n };
    return sendmsg(c->fd.fd, &m, MSG_NOSIGNAL);
}

// One send of what is in out. Returns as send(2); *ret_offered: bytes offered.
static ssize_t send_some(struct conn *c, size_t *ret_offered)
{
    struct str front = buf_front(&c->out);
    if (front.n == c->out.len) {
        *ret_offered = front.n;
        return socket_send(c->fd.fd, front.p, front.n);
    }
    return send_slices(c, ret_offered);
}

static void write_raw(struct conn *c)
{
    while (c->out.len && c->writable) {
        size_t offered;
        ssize_t n = send_some(c, &offered);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            c->writable = false;
            if (errno != EAGAIN) {
                break_later(c, CONN_CLOSE_RESET, errno);
            }
            return;
        }
        c->bytes_out += (size_t)n;
        buf_drain(&c->out, (size_t)n);
        if ((size_t)n < offered) {
            c->writable = false; // the kernel's buffer is full and it has noted that we want to know
        }
    }
}

static void write_transport(struct conn *c)
{
    size_t before = c->out.len;
    enum io r = c->transport->ops->write(c->transport, &c->out);
    c->bytes_out += before - c->out.len;
    c->writing_blocked = r == IO_AGAIN;
    if (r == IO_ERROR || r == IO_EOF) {
        break_later(c, error_reason(c), 0);
    }
}

// Sends what can be sent now; never calls back.
static void write_out(struct conn *c)
{
    if (c->state != CONN_OPEN || c->freed || c->broken || c->fin_sent) {
        return;
    }
    size_t before = c->out.len;
    if (before >= c->high) {
        c->above_high = true; // the owner may have seen it, and waits for on_low now
    }
    if (before || c->writing_blocked) {
        if (c->transport) {
            write_transport(c);
        } else {
            write_raw(c);
        }
        if (c->out.len != before) {
            c->active_ms = loop_now_ms(c->loop);
        }
    }
    if (c->above_high && c->out.len <= c->low) {
        c->above_high = false;
        c->owe_low = true;
        loop_defer(c->loop, &c->task);
    }
    if (c->out.len || c->writing_blocked || c->broken) {
        return;
    }
    if (before && c->ops->on_drained) {
        c->owe_drained = true;
        loop_defer(c->loop, &c->task);
    }
    if (c->eof_out) {
        send_fin(c);
    }
}

void conn_flush(struct conn *c)
{
    write_out(c);
}

void conn_write(struct conn *c, struct buf *b)
{
    buf_move(&c->out, b, b->len);
    write_out(c);
}

void conn_write_bytes(struct conn *c, const void *p, size_t n)
{
    if (!c->transport && c->out.len == 0 && c->writable && is_open(c) && !c->broken && !c->fin_sent && n < c->high) {
        // Straight from the caller's memory; what the kernel does not take is copied.
        ssize_t k = n ? socket_send(c->fd.fd, p, n) : 0;
        if (k < 0 && errno != EAGAIN && errno != EINTR) {
            // Not tried again below: the first error tells why, a second send says EPIPE whatever it was.
            c->writable = false;
            break_later(c, CONN_CLOSE_RESET, errno);
        } else if (k > 0) {
            c->bytes_out += (size_t)k;
            c->active_ms = loop_now_ms(c->loop);
            p = (const char *)p + k;
            n -= (size_t)k;
            if (n == 0 && c->ops->on_drained) {
                c->owe_drained = true;
                loop_defer(c->loop, &c->task);
            }
        }
        if (n == 0) {
            return;
        }
    }
    buf_append(&c->out, p, n);
    write_out(c);
}

void conn_shutdown(struct conn *c)
{
    if (!c->eof_out) {
        c->eof_out = true;
        write_out(c); // before OPEN this does nothing; opening writes
    }
}

// --- reading ---

// As readv(2); *ret_room: bytes offered.
static __attribute__((noinline)) ssize_t read_slices(struct conn *c, size_t *ret_room)
{
    struct iovec iov[BUF_IOV_MAX];
    int count = buf_reserve_iov(&c->in, BULK_READ_BYTES, iov, BUF_IOV_MAX);
    *ret_room = 0;
    for (int i = 0; i < count; i++) {
        *ret_room += iov[i].iov_len;
    }
    ssize_t n = readv(c->fd.fd, iov, count);
    int saved = errno;
    buf_commit_iov(&c->in, n > 0 ? (size_t)n : 0);
    errno = saved;
    return n;
}

// IO_OK: filled what was offered, more may follow. IO_AGAIN: the kernel has no more.
static enum io read_raw(struct conn *c)
{
    size_t room = 0;
    ssize_t n;
    if (c->bulk && !c->sips) {
        n = read_slices(c, &room);
    } else {
        char *p = buf_reserve(&c->in, READ_ROOM_MIN, &room);
        room = c->sips ? CONN_SIP_BYTES : room;
        n = socket_recv(c->fd.fd, p, room);
        buf_commit(&c->in, n > 0 ? (size_t)n : 0);
    }
    if (n > 0) {
        c->bulk = (size_t)n == room && !c->sips;
        if ((size_t)n < room && !c->hup) {
            c->readable = false;
            return IO_AGAIN;
        }
        return IO_OK;
    }
    if (n == 0) {
        c->readable = false;
        return IO_EOF;
    }
    if (errno == EINTR) {
        return IO_OK;
    }
    c->readable = false;
    if (errno == EAGAIN) {
        return IO_AGAIN;
    }
    c->connect_errno = errno;
    return IO_ERROR;
}

static bool can_read(const struct conn *c)
{
    if (c->eof_in) {
        return false;
    }
    struct transport *t = c->transport;
    return c->readable || (t && (raw_waiting(c) || (t->ops->pending && t->ops->pending(t))));
}

static void handle_eof(struct conn *c)
{
    c->eof_in = true;
    c->readable = false;
    if (c->closing) {
        if (c->fin_sent) {
            close_now(c, CONN_CLOSE_LOCAL);
        }
        return;
    }
    if (!c->ops->on_eof) {
        close_now(c, CONN_CLOSE_REMOTE);
        return;
    }
    c->ops->on_eof(c);
    if (is_open(c) && c->fin_sent) {
        close_now(c, CONN_CLOSE_REMOTE);
    }
}

// Hands out what came; false when the connection did not outlive it.
static bool deliver(struct conn *c, size_t before)
{
    size_t got = c->in.len - before;
    if (got == 0) {
        return true;
    }
    c->bytes_in += got;
    c->active_ms = loop_now_ms(c->loop);
    if (c->closing) {
        buf_clear(&c->in);
    } else if (c->ops->on_data) {
        c->ops->on_data(c);
    }
    return is_open(c);
}

static void read_in(struct conn *c)
{
    for (size_t total = 0; is_open(c) && !c->pause && can_read(c);) {
        if (total >= CONN_READ_BUDGET) {
            loop_defer(c->loop, &c->task);
            return;
        }
        size_t before = c->in.len;
        enum io r = c->transport ? c->transport->ops->read(c->transport, &c->in, c->bulk ? BULK_READ_BYTES : BUF_SLICE_BYTES)
                                 : read_raw(c);
        size_t got = c->in.len - before;
        total += got;
        if (c->transport) {
            c->bulk = got >= BUF_SLICE_ROOM;
        }
        if (!deliver(c, before)) {
            return;
        }
        if (r == IO_EOF) {
            // tcp(7): once a send has taken the reset's error, reading gives 0 as if it were an orderly end. Only EPIPE says
            // that the peer's end came before its reset.
            if (c->broken == CONN_CLOSE_RESET && c->connect_errno != EPIPE) {
                close_now(c, CONN_CLOSE_RESET);
            } else {
                handle_eof(c);
            }
            return;
        }
        if (r == IO_ERROR) {
            close_now(c, error_reason(c));
            return;
        }
        if (r == IO_AGAIN) {
            return;
        }
    }
}

void conn_pause_read(struct conn *c, enum conn_pause why)
{
    c->pause |= (uint8_t)why;
}

void conn_resume_read(struct conn *c, enum conn_pause why)
{
    bool was = c->pause != 0;
    c->pause &= (uint8_t)~why;
    if (was && !c->pause && c->state == CONN_OPEN && !c->freed && (can_read(c) || c->broken)) {
        loop_defer(c->loop, &c->task);
    }
}

// --- opening ---

static void opened(struct conn *c)
{
    c->state = CONN_OPEN;
    if (!c->closing) {
        cancel_timer(c);
    }
    if (c->ops->on_open) {
        c->ops->on_open(c);
    }
}

static void handshake(struct conn *c)
{
    enum io r = c->transport->ops->handshake(c->transport);
    if (r == IO_OK) {
        opened(c);
    } else if (r != IO_AGAIN) {
        close_now(c, CONN_CLOSE_TLS);
    }
}

static void drop_preface(struct conn *c)
{
    if (c->rare) {
        free(c->rare->preface);
        c->rare->preface = NULL;
        rare_settle(c);
    }
}

void conn_set_preface(struct conn *c, const void *p, size_t n)
{
    CHECK(c->state == CONN_CONNECTING && n <= CONN_PREFACE_MAX);
    drop_preface(c);
    if (n) {
        struct conn_preface *f = rare_of(c)->preface = mem_alloc(sizeof(*f) + n);
        f->n = n;
        memcpy(f->bytes, p, n);
    }
}

static bool send_preface(struct conn *c)
{
    const struct conn_preface *f = c->rare ? c->rare->preface : NULL;
    if (f) {
        ssize_t n = socket_send(c->fd.fd, f->bytes, f->n);
        c->connect_errno = n < 0 ? errno : 0;
        if (n != (ssize_t)f->n) {
            return false;
        }
        drop_preface(c);
    }
    return true;
}

static void connected(struct conn *c)
{
    int r = c->hup ? socket_error(c->fd.fd) : 0;
    if (r < 0) {
        c->connect_errno = -r;
        close_now(c, CONN_CLOSE_CONNECT_FAIL);
        return;
    }
    (void)socket_local(c->fd.fd, &c->local);
    if (!send_preface(c)) {
        close_now(c, CONN_CLOSE_CONNECT_FAIL);
        return;
    }
    if (c->transport) {
        c->state = CONN_HANDSHAKING;
    } else {
        opened(c);
    }
}

// Does whatever the latches allow.
static void progress(struct conn *c)
{
    if (c->state == CONN_CONNECTING && c->writable) {
        connected(c);
    }
    if (c->state == CONN_HANDSHAKING && !c->freed) {
        handshake(c);
    }
    if (!is_open(c)) {
        return;
    }
    if (c->writable && (c->out.len || c->writing_blocked || (c->eof_out && !c->fin_sent))) {
        write_out(c);
    }
    if (!c->pause) {
        read_in(c);
    }
}

static void on_event(struct loop_fd *f, uint32_t events)
{
    struct conn *c = container_of(f, struct conn, fd);
    // tcp(7): a read ends in front of an urgent byte, whatever stands behind it.
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI)) {
        c->hup = true;
    }
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        c->readable = true;
    }
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        c->writable = true;
    }
    // A reset while the owner does not want to read: tell it now. With FLOW, bytes that came before the reset are still to be
    // read and passed on, so it waits for resume.
    if ((events & EPOLLERR) && c->state == CONN_OPEN && c->pause == CONN_PAUSE_OWNER) {
        c->connect_errno = -socket_error(f->fd);
        close_now(c, CONN_CLOSE_RESET);
        return;
    }
    progress(c);
}

// What is left to read after a failed write, an early error response say. True when closing has to wait for it.
static bool read_rest(struct conn *c)
{
    if (c->state != CONN_OPEN || c->broken != CONN_CLOSE_RESET || c->eof_in || c->pause == CONN_PAUSE_OWNER) {
        return false;
    }
    if (!c->pause) {
        read_in(c);
    }
    return is_open(c) && can_read(c); // paused for flow, or the turn's budget is used: resume or the next task goes on
}

static void on_task(struct loop_task *t)
{
    struct conn *c = container_of(t, struct conn, task);
    if (c->broken) {
        if (!read_rest(c)) {
            close_now(c, (enum conn_close)c->broken);
        }
        return;
    }
    if (c->owe_low && is_open(c)) {
        c->owe_low = false;
        if (!c->above_high && c->ops->on_low) {
            c->ops->on_low(c);
        }
    }
    if (c->owe_drained && is_open(c)) {
        c->owe_drained = false;
        if (c->out.len == 0 && c->ops->on_drained) {
            c->ops->on_drained(c);
        }
    }
    if (!c->freed) {
        progress(c);
    }
}

static void on_timer(struct timer *t)
{
    struct conn *c = container_of(t, struct conn_rare, timer)->conn;
    close_now(c, c->closing ? CONN_CLOSE_LOCAL : CONN_CLOSE_CONNECT_TIMEOUT);
}

// --- the end ---

void conn_close_after_flush(struct conn *c, uint64_t linger_ms)
{
    if (c->state == CONN_CLOSED || c->freed || c->closing) {
        return;
    }
    c->closing = true;
    c->linger = linger_ms != 0;
    c->pause = 0;
    buf_clear(&c->in);
    if (c->state != CONN_OPEN) {
        break_later(c, CONN_CLOSE_LOCAL, 0); // nothing was sent yet
        return;
    }
    if (linger_ms) {
        set_timer(c, linger_ms);
    }
    c->eof_out = true;
    if (c->fin_sent) {
        if (c->eof_in || !c->linger) {
            break_later(c, CONN_CLOSE_LOCAL, 0);
        }
    } else {
        write_out(c);
    }
    loop_defer(c->loop, &c->task); // input that waits is discarded
}

static void destroy(struct loop_task *t)
{
    struct conn *c = container_of(t, struct conn, task);
    if (c->transport) {
        c->transport->ops->destroy(c->transport);
    }
    buf_clear(&c->in);
    buf_clear(&c->out);
    if (c->rare) {
        buf_clear(&c->rare->raw_in);
        free(c->rare->preface);
        free(c->rare);
    }
    free(c);
}

static void free_conn(struct conn *c, bool reset)
{
    if (!c || c->freed) {
        return;
    }
    c->freed = true;
    if (c->state != CONN_CLOSED) {
        struct transport *tr = c->transport;
        if (!reset && c->state == CONN_OPEN && !c->broken && !c->fin_sent && tr && tr->ops->shutdown) {
            (void)tr->ops->shutdown(tr); // close_notify if the kernel takes it; nobody waits for it
        }
        if (c->state != CONN_CONNECTING && reset && c->fd.fd >= 0) {
            struct linger now = { .l_onoff = 1 };
            (void)setsockopt(c->fd.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        }
        c->close_reason = CONN_CLOSE_LOCAL;
        c->state = CONN_CLOSED;
    }
    end_race(c);
    loop_close_fd(c->loop, &c->fd);
    cancel_timer(c);
    // The memory, bytes that a caller up the stack still looks at included, goes at the end of the turn.
    loop_task_cancel(&c->task);
    c->task.fn = destroy;
    loop_defer(c->loop, &c->task);
}

void conn_free(struct conn *c)
{
    free_conn(c, false);
}

void conn_free_reset(struct conn *c)
{
    free_conn(c, true);
}

// --- for transports ---

ssize_t conn_raw_read(struct conn *c, void *p, size_t n)
{
    if (raw_waiting(c)) {
        size_t k = buf_peek(&c->rare->raw_in, 0, p, n);
        buf_drain(&c->rare->raw_in, k);
        rare_settle(c);
        return (ssize_t)k;
    }
    if (!c->readable || n == 0) {
        return -EAGAIN; // known without asking the kernel
    }
    for (;;) {
        ssize_t k = socket_recv(c->fd.fd, p, n);
        if (k >= 0) {
            if (k == 0 || ((size_t)k < n && !c->hup)) {
                c->readable = k == 0; // the end can be read again
            }
            return k;
        }
        if (errno == EINTR) {
            continue;
        }
        c->readable = false;
        if (errno != EAGAIN && !c->connect_errno) {
            c->connect_errno = errno;
        }
        return -errno;
    }
}

ssize_t conn_raw_write(struct conn *c, const void *p, size_t n)
{
    if (!c->writable) {
        return -EAGAIN;
    }
    for (;;) {
        ssize_t k = socket_send(c->fd.fd, p, n);
        if (k >= 0) {
            c->writable = (size_t)k == n;
            return k;
        }
        if (errno == EINTR) {
            continue;
        }
        c->writable = false;
        if (errno != EAGAIN && !c->connect_errno) {
            c->connect_errno = errno;
        }
        return -errno;
    }
}

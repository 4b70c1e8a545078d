// SPDX-License-Identifier: Apache-2.0
#include "lib/event/loop.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/base/recycle.h"
#include "lib/event/mailbox.h"
#include "lib/event/wheel.h"

enum {
    EVENTS_MAX = 256,               // per epoll_wait; the rest comes in the next turn
    WALL_REFRESH_NS = 100 * 1000000 // how old the distance between the two clocks may be
};

struct loop {
    // loop's thread
    int epfd;
    struct loop_fd wake; // eventfd
    struct epoll_event events[EVENTS_MAX];
    int event_at, event_count; // the events not yet delivered in this turn are [event_at, event_count)
    struct wheel wheel;
    struct list tasks, hooks;
    void **garbage; // owned; freed at the end of the turn
    size_t garbage_count, garbage_cap;
    uint64_t now_ns, now_ms; // the same moment
    uint64_t wall_at_ns; // monotonic time when wall_offset_ms was taken
    int64_t wall_offset_ms;
    bool fake_time;
    // any thread, atomic
    struct mailbox mailbox;
    atomic_bool stop;
    _Atomic(const void *) thread; // identity of the thread that runs it, NULL before
};

static _Thread_local struct loop *current;
static _Thread_local char thread_identity; // its address names the thread, without a system call

static void refresh_time(struct loop *l)
{
    if (l->fake_time) {
        return;
    }
    l->now_ns = clock_mono_ns();
    l->now_ms = l->now_ns / 1000000;
    if (l->now_ns - l->wall_at_ns >= WALL_REFRESH_NS) {
        l->wall_at_ns = l->now_ns;
        l->wall_offset_ms = (int64_t)clock_wall_ms() - (int64_t)(l->now_ns / 1000000);
    }
}

static void on_wake(struct loop_fd *f, uint32_t events)
{
    // The mailbox is looked into every turn. The counter need not be read: edge-triggered, each write is an edge.
    (void)f;
    (void)events;
}

struct loop *loop_new(struct err *err)
{
    struct loop *l = mem_zalloc(sizeof(*l));
    l->epfd = epoll_create1(EPOLL_CLOEXEC);
    l->wake = (struct loop_fd){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .on_event = on_wake };
    int r = l->epfd < 0 || l->wake.fd < 0 ? -errno : loop_add_fd(l, &l->wake, EPOLLIN);
    if (r < 0) {
        err_errno(err, -r, "cannot create an event loop (epoll, eventfd)");
        if (l->epfd >= 0) {
            close(l->epfd);
        }
        if (l->wake.fd >= 0) {
            close(l->wake.fd);
        }
        free(l);
        return NULL;
    }
    list_init(&l->tasks);
    list_init(&l->hooks);
    refresh_time(l);
    wheel_init(&l->wheel, l->now_ns / 1000000);
    return l;
}

static void bind_thread(struct loop *l)
{
    current = l;
    atomic_store_explicit(&l->thread, &thread_identity, memory_order_relaxed);
}

static void collect_garbage(struct loop *l)
{
    while (l->garbage_count) {
        recycle_free(l->garbage[--l->garbage_count]); // most are of a kind that the next turn wants again
    }
}

static void run_mailbox(struct loop *l)
{
    for (struct mailbox_msg *m = mailbox_take(&l->mailbox), *next; m; m = next) {
        next = m->next; // fn owns m
        m->fn(m);
    }
}

// Moves the whole list to the (uninitialised) head to.
static void list_take(struct list *from, struct list *to)
{
    list_init(to);
    if (!list_empty(from)) {
        *to = *from;
        to->next->prev = to->prev->next = to;
        list_init(from);
    }
}

static void run_timers(struct loop *l)
{
    wheel_advance(&l->wheel, l->now_ns / 1000000);
    if (list_empty(&l->wheel.due)) {
        return;
    }
    // Apart, so that a timer set again without delay fires in the next turn; one cancelled meanwhile leaves the list.
    struct list due;
    list_take(&l->wheel.due, &due);
    while (!list_empty(&due)) {
        struct timer *t = list_entry(due.next, struct timer, link);
        list_del(&t->link);
        t->fn(t);
    }
}

static void run_tasks(struct loop *l)
{
    struct list todo;
    list_take(&l->tasks, &todo);
    while (!list_empty(&todo)) {
        struct loop_task *t = list_entry(todo.next, struct loop_task, link);
        list_del(&t->link);
        t->fn(t);
    }
}

static void run_hooks(struct loop *l)
{
    if (list_empty(&l->hooks)) {
        return;
    }
    struct list todo;
    list_take(&l->hooks, &todo);
    while (!list_empty(&todo)) {
        struct loop_hook *h = list_entry(todo.next, struct loop_hook, link);
        list_del(&h->link);
        list_add_tail(&l->hooks, &h->link);
        h->fn(h);
    }
}

// Milliseconds for epoll_wait.
static int wait_ms(struct loop *l, int max_wait_ms)
{
    if (!list_empty(&l->tasks)) {
        return 0;
    }
    uint64_t next = wheel_next_ms(&l->wheel);
    if (next == UINT64_MAX) {
        return max_wait_ms;
    }
    uint64_t now = l->fake_time ? l->now_ns : clock_mono_ns();
    if (next <= now / 1000000) {
        return 0;
    }
    if (l->fake_time) {
        return max_wait_ms; // that time comes only by loop_set_fake_time
    }
    uint64_t ms = (next * 1000000 - now + 999999) / 1000000;
    int bound = ms > 3600000 ? 3600000 : (int)ms;
    return max_wait_ms >= 0 && max_wait_ms < bound ? max_wait_ms : bound;
}

void loop_turn(struct loop *l, int max_wait_ms)
{
    bind_thread(l);
    int n = epoll_wait(l->epfd, l->events, EVENTS_MAX, wait_ms(l, max_wait_ms));
    CHECK(n >= 0 || errno == EINTR);
    refresh_time(l);
    l->event_count = n > 0 ? n : 0;
    for (l->event_at = 0; l->event_at < l->event_count;) {
        struct epoll_event *e = &l->events[l->event_at++];
        struct loop_fd *f = e->data.ptr;
        if (f) { // NULL: unregistered by an earlier handler of this turn
            f->on_event(f, e->events);
        }
    }
    l->event_at = l->event_count = 0;
    run_mailbox(l);
    run_timers(l);
    run_tasks(l);
    run_hooks(l);
    collect_garbage(l);
}

void loop_run(struct loop *l)
{
    bind_thread(l);
    refresh_time(l); // the loop may have been made long before
    // Acquire: what the stopping thread did before; partner: the release in loop_stop.
    while (!atomic_load_explicit(&l->stop, memory_order_acquire)) {
        loop_turn(l, -1);
    }
    atomic_store_explicit(&l->stop, false, memory_order_relaxed);
}

static void wake(struct loop *l)
{
    // Fails only when the counter is full, and then the receiver has its edge already.
    ssize_t done = write(l->wake.fd, &(uint64_t){ 1 }, sizeof(uint64_t));
    (void)done;
}

void loop_stop(struct loop *l)
{
    atomic_store_explicit(&l->stop, true, memory_order_release);
    wake(l);
}

void loop_free(struct loop *l)
{
    if (!l) {
        return;
    }
    bind_thread(l);
    run_mailbox(l);
    for (int pass = 0; pass < 16 && !list_empty(&l->tasks); pass++) {
        run_tasks(l);
    }
    while (!list_empty(&l->tasks)) {
        list_del(l->tasks.next);
    }
    while (!list_empty(&l->hooks)) {
        list_del(l->hooks.next);
    }
    wheel_fini(&l->wheel);
    collect_garbage(l);
    close(l->wake.fd);
    close(l->epfd);
    free(l->garbage);
    current = NULL;
    free(l);
}

uint64_t loop_now_ms(const struct loop *l)
{
    return l->now_ms;
}

uint64_t loop_now_ns(const struct loop *l)
{
    return l->now_ns;
}

uint64_t loop_wall_ms(const struct loop *l)
{
    return (uint64_t)((int64_t)l->now_ms + l->wall_offset_ms);
}

void loop_set_fake_time(struct loop *l, uint64_t mono_ms)
{
    if (!l->fake_time || mono_ms < l->now_ns / 1000000) {
        wheel_advance(&l->wheel, mono_ms); // may go backwards: the wheel must not be ahead of the cached time
    }
    l->fake_time = true;
    l->now_ns = mono_ms * 1000000;
    l->now_ms = mono_ms;
}

struct wheel *loop_wheel(struct loop *l)
{
    return &l->wheel;
}

uint64_t loop_now_ms_up(const struct loop *l)
{
    return (l->now_ns + 999999) / 1000000;
}

static int add_fd(struct loop *l, struct loop_fd *f, uint32_t events, bool level)
{
    struct epoll_event e = { .events = events | (level ? 0 : (uint32_t)EPOLLET), .data.ptr = f };
    if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, f->fd, &e) < 0) {
        return -errno;
    }
    f->watched = true;
    f->level = level;
    return 0;
}

int loop_add_fd(struct loop *l, struct loop_fd *f, uint32_t events)
{
    return add_fd(l, f, events, false);
}

int loop_add_fd_level(struct loop *l, struct loop_fd *f, uint32_t events)
{
    return add_fd(l, f, events, true);
}

int loop_mod_fd(struct loop *l, struct loop_fd *f, uint32_t events)
{
    struct epoll_event e = { .events = events | (f->level ? 0 : (uint32_t)EPOLLET), .data.ptr = f };
    return epoll_ctl(l->epfd, EPOLL_CTL_MOD, f->fd, &e) < 0 ? -errno : 0;
}

// Events of this turn that f has not seen are dropped.
static void forget(struct loop *l, struct loop_fd *f)
{
    for (int i = l->event_at; i < l->event_count; i++) {
        if (l->events[i].data.ptr == f) {
            l->events[i].data.ptr = NULL;
        }
    }
    f->watched = false;
}

void loop_del_fd(struct loop *l, struct loop_fd *f)
{
    if (!f->watched) {
        return;
    }
    DCHECK(loop_is_current(l));
    epoll_ctl(l->epfd, EPOLL_CTL_DEL, f->fd, NULL);
    forget(l, f);
}

void loop_close_fd(struct loop *l, struct loop_fd *f)
{
    if (f->watched) {
        DCHECK(loop_is_current(l));
        forget(l, f);
    }
    if (f->fd >= 0) {
        close(f->fd);
        f->fd = -1;
    }
}

void loop_task_init(struct loop_task *t, void (*fn)(struct loop_task *))
{
    list_init(&t->link);
    t->fn = fn;
}

void loop_defer(struct loop *l, struct loop_task *t)
{
    DCHECK(loop_is_current(l));
    if (list_empty(&t->link)) {
        list_add_tail(&l->tasks, &t->link);
    }
}

void loop_task_cancel(struct loop_task *t)
{
    list_del(&t->link);
}

void loop_free_later(struct loop *l, void *p)
{
    DCHECK(loop_is_current(l));
    mem_grow(&l->garbage, &l->garbage_cap, l->garbage_count + 1, sizeof(void *));
    l->garbage[l->garbage_count++] = p;
}

void loop_post(struct loop *l, struct mailbox_msg *m)
{
    if (mailbox_push(&l->mailbox, m)) {
        wake(l);
    }
}

void loop_add_hook(struct loop *l, struct loop_hook *h)
{
    list_add_tail(&l->hooks, &h->link);
}

void loop_del_hook(struct loop_hook *h)
{
    list_del(&h->link);
}

bool loop_is_current(const struct loop *l)
{
    const void *t = atomic_load_explicit(&l->thread, memory_order_relaxed);
    return !t || t == &thread_identity;
}

struct loop *loop_current(void)
{
    return current;
}

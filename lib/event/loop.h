// SPDX-License-Identifier: Apache-2.0
// One event loop per thread: epoll (edge-triggered), timers, deferred tasks, a mailbox from other threads.
// A turn: epoll_wait → fd handlers → mailbox → due timers → deferred tasks → turn hooks (before the next wait).
#ifndef LIB_EVENT_LOOP_H
#define LIB_EVENT_LOOP_H

#include <sys/epoll.h>

#include "lib/base/err.h"
#include "lib/base/list.h"
#include "lib/event/timer.h"

struct loop;

// A file descriptor watched by a loop; embedded in its owner. Registered once, edge-triggered: the owner keeps its own
// "readable" and "writable" latches.
struct loop_fd {
    int fd;             // not owned
    bool level;         // private: level-triggered
    bool watched;       // registered
    // events: EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLERR | EPOLLHUP as reported. May destroy its owner.
    void (*on_event)(struct loop_fd *f, uint32_t events);
};

// Work to do once at the end of this turn; embedded. Safe to schedule twice (runs once), safe to cancel.
// A task deferred by a task runs in the next turn, so that a task which defers itself does not keep others from their turn.
struct loop_task {
    struct list link;
    void (*fn)(struct loop_task *t); // may free its owner
};

// A message from another thread; embedded in what it carries. The receiver owns it from fn on.
struct mailbox_msg {
    struct mailbox_msg *next;
    void (*fn)(struct mailbox_msg *m); // runs on the loop's thread
};

// Called each turn after tasks, before the wait; embedded.
struct loop_hook {
    struct list link;
    void (*fn)(struct loop_hook *h);
};

// Any thread creates; exactly one thread runs. NULL + err when the kernel refuses.
struct loop *loop_new(struct err *err);
// On the loop's thread, or any when that has ended, after loop_run returned. Pending mailbox messages and deferred tasks are run first.
// No other thread may still be inside loop_post or loop_stop, also one whose message or stop ended the loop: join the senders first.
void loop_free(struct loop *l);
// Runs until loop_stop. Binds the loop to the calling thread.
void loop_run(struct loop *l);
// One turn, waiting at most max_wait_ms (-1 = until something happens). For tests and the CLI.
void loop_turn(struct loop *l, int max_wait_ms);
// Any thread: loop_run returns after the current turn (the next loop_run, when none is running).
void loop_stop(struct loop *l);
// Cached at the start of the turn. Loop's thread.
uint64_t loop_now_ms(const struct loop *l);  // monotonic
uint64_t loop_now_ns(const struct loop *l);  // monotonic
uint64_t loop_wall_ms(const struct loop *l); // since 1970
// Tests: time stands still unless moved (timers then fire in loop_turn by this time).
void loop_set_fake_time(struct loop *l, uint64_t mono_ms);

// Registers edge-triggered for events (EPOLLET is added). 0 or negative errno.
int loop_add_fd(struct loop *l, struct loop_fd *f, uint32_t events);
// Level-triggered variant, for listeners and signal descriptors.
int loop_add_fd_level(struct loop *l, struct loop_fd *f, uint32_t events);
// Changes the events of a registered fd (keeps its trigger mode).
int loop_mod_fd(struct loop *l, struct loop_fd *f, uint32_t events);
// Unregisters; events of this turn not yet delivered to f are dropped, so f may be freed at once. Idempotent.
void loop_del_fd(struct loop *l, struct loop_fd *f);
// As loop_del_fd, then closes f->fd and sets it to -1, with one system call in place of two: the kernel forgets a closed
// descriptor by itself. Only when no duplicate of the descriptor exists. Idempotent.
void loop_close_fd(struct loop *l, struct loop_fd *f);

void loop_task_init(struct loop_task *t, void (*fn)(struct loop_task *));
void loop_defer(struct loop *l, struct loop_task *t);
void loop_task_cancel(struct loop_task *t);
// free(p) at the end of this turn: for objects destroyed inside their own callbacks.
void loop_free_later(struct loop *l, void *p);

// Any thread; takes the message. Order is kept per sender. Wakes the loop (one eventfd write for a burst).
void loop_post(struct loop *l, struct mailbox_msg *m);

void loop_add_hook(struct loop *l, struct loop_hook *h);
void loop_del_hook(struct loop_hook *h);

// True on the thread that runs the loop (or before any thread ran it).
bool loop_is_current(const struct loop *l);
// The loop run by this thread, or NULL.
struct loop *loop_current(void);

#endif

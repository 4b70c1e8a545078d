// SPDX-License-Identifier: Apache-2.0
#include "lib/net/race.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/base/mem.h"

struct lane { // one attempt
    struct race *race;
    struct loop_fd fd; // -1 = not begun, or failed
};

struct race {
    struct loop *loop;
    struct race_target v[RACE_MAX];
    struct lane lanes[RACE_MAX];
    size_t n, next, running;
    struct timer timer;   // the next one begins
    struct loop_task task; // begins, and tells the result
    int error;            // of the last failure
    void (*done)(void *arg, int fd, size_t i);
    void *arg;
    bool over;
};

static void finish(struct race *r, int fd, size_t i)
{
    r->over = true;
    timer_cancel(&r->timer);
    r->done(r->arg, fd, i);
}

static void lane_ready(struct loop_fd *f, uint32_t events);

// Begins attempts until one is under way.
static void begin_next(struct race *r)
{
    while (r->next < r->n) {
        size_t i = r->next++;
        bool connected = false;
        int fd = socket_connect(&r->v[i].to, &r->v[i].opts, &connected);
        if (fd < 0) {
            r->error = fd;
            continue;
        }
        struct lane *l = &r->lanes[i];
        l->fd.fd = fd;
        int rc = loop_add_fd(r->loop, &l->fd, EPOLLOUT); // connected already: the first event says so
        if (rc < 0) {
            close(fd);
            l->fd.fd = -1;
            r->error = rc;
            continue;
        }
        r->running++;
        if (r->next < r->n) {
            timer_set(r->loop, &r->timer, RACE_DELAY_MS);
        }
        return;
    }
    if (r->running == 0) {
        finish(r, r->error, 0);
    }
}

static void lane_ready(struct loop_fd *f, uint32_t events)
{
    (void)events;
    struct lane *l = container_of(f, struct lane, fd);
    struct race *r = l->race;
    int rc = socket_error(f->fd);
    if (rc < 0) {
        loop_close_fd(r->loop, f);
        r->running--;
        r->error = rc;
        timer_cancel(&r->timer);
        begin_next(r); // may free r
        return;
    }
    int fd = f->fd;
    loop_del_fd(r->loop, f);
    f->fd = -1;
    finish(r, fd, (size_t)(l - r->lanes));
}

static void delay_over(struct timer *t)
{
    begin_next(container_of(t, struct race, timer));
}

static void begin(struct loop_task *t)
{
    begin_next(container_of(t, struct race, task));
}

struct race *race_start(struct loop *l, const struct race_target *v, size_t n, void (*done)(void *arg, int fd, size_t i), void *arg)
{
    CHECK(n >= 1 && n <= RACE_MAX);
    struct race *r = mem_new(struct race);
    *r = (struct race){ .loop = l, .n = n, .done = done, .arg = arg, .error = -EADDRNOTAVAIL };
    for (size_t i = 0; i < n; i++) {
        r->v[i] = v[i];
        r->lanes[i] = (struct lane){ r, { .fd = -1, .on_event = lane_ready } };
    }
    timer_init(&r->timer, delay_over);
    loop_task_init(&r->task, begin);
    loop_defer(l, &r->task);
    return r;
}

void race_free(struct race *r)
{
    if (!r) {
        return;
    }
    timer_cancel(&r->timer);
    loop_task_cancel(&r->task);
    for (size_t i = 0; i < r->n; i++) {
        if (r->lanes[i].fd.fd >= 0) {
            loop_close_fd(r->loop, &r->lanes[i].fd);
        }
    }
    loop_free_later(r->loop, r);
}

void race_order(struct addr *v, size_t n, uint16_t first, uint32_t first_count)
{
    struct addr out[RACE_MAX];
    bool used[RACE_MAX] = { false };
    CHECK(n <= RACE_MAX);
    first = first ? first : n ? v[0].family : 0;
    bool want_first = true;
    uint32_t left = first_count ? first_count : 1;
    for (size_t k = 0; k < n; k++) {
        size_t pick = n, any = n;
        for (size_t i = 0; i < n && pick == n; i++) {
            if (!used[i]) {
                any = any == n ? i : any;
                pick = (v[i].family == first) == want_first ? i : n;
            }
        }
        pick = pick == n ? any : pick;
        used[pick] = true;
        out[k] = v[pick];
        if (want_first && --left > 0) {
            continue;
        }
        want_first = !want_first;
        left = 1; // from then on in turn
    }
    for (size_t k = 0; k < n; k++) {
        v[k] = out[k];
    }
}

// SPDX-License-Identifier: Apache-2.0
#include "lib/event/wheel.h"

void wheel_init(struct wheel *w, uint64_t now_ms)
{
    w->now_ms = now_ms;
    list_init(&w->due);
    for (int l = 0; l < WHEEL_LEVELS; l++) {
        w->occupied[l] = 0;
        for (int s = 0; s < WHEEL_SLOTS; s++) {
            list_init(&w->slots[l][s]);
        }
    }
}

void wheel_add(struct wheel *w, struct timer *t)
{
    if (t->expires_ms <= w->now_ms) {
        list_add_tail(&w->due, &t->link);
        return;
    }
    int level = (63 - __builtin_clzll(t->expires_ms - w->now_ms)) / WHEEL_BITS;
    if (level >= WHEEL_LEVELS) {
        level = WHEEL_LEVELS - 1; // beyond the wheel: its slot comes too early, and then the timer is filed anew
    }
    unsigned slot = (unsigned)(t->expires_ms >> (WHEEL_BITS * level)) & (WHEEL_SLOTS - 1);
    list_add_tail(&w->slots[level][slot], &t->link);
    w->occupied[level] |= (uint64_t)1 << slot;
}

static void take_all(struct list *from, struct list *to)
{
    list_init(to);
    if (!list_empty(from)) {
        *to = *from;
        to->next->prev = to->prev->next = to;
        list_init(from);
    }
}

// Files anew what is in the slot; time has just reached its beginning.
static void cascade(struct wheel *w, int level, unsigned slot)
{
    struct list all;
    take_all(&w->slots[level][slot], &all);
    w->occupied[level] &= ~((uint64_t)1 << slot);
    while (!list_empty(&all)) {
        struct timer *t = list_entry(all.next, struct timer, link);
        list_del(&t->link);
        wheel_add(w, t);
    }
}

static inline uint64_t rotate_right(uint64_t v, unsigned n)
{
    return n ? v >> n | v << (64 - n) : v;
}

// The next time at which the slot of a level begins, among its occupied slots.
static uint64_t next_of_level(struct wheel *w, int level)
{
    while (w->occupied[level]) {
        uint64_t from = (w->now_ms >> (WHEEL_BITS * level)) + 1;
        unsigned ahead = (unsigned)__builtin_ctzll(rotate_right(w->occupied[level], from & (WHEEL_SLOTS - 1)));
        unsigned slot = (unsigned)(from + ahead) & (WHEEL_SLOTS - 1);
        if (!list_empty(&w->slots[level][slot])) {
            return (from + ahead) << (WHEEL_BITS * level);
        }
        w->occupied[level] &= ~((uint64_t)1 << slot); // emptied by timer_cancel, which does not know the wheel
    }
    return UINT64_MAX;
}

// Later than now_ms; due does not count.
static uint64_t next_tick(struct wheel *w)
{
    uint64_t next = UINT64_MAX;
    for (int l = 0; l < WHEEL_LEVELS; l++) {
        uint64_t t = next_of_level(w, l);
        next = t < next ? t : next;
    }
    return next;
}

uint64_t wheel_next_ms(struct wheel *w)
{
    return list_empty(&w->due) ? next_tick(w) : w->now_ms;
}

static void refile_all(struct wheel *w, uint64_t now_ms)
{
    struct list all;
    take_all(&w->due, &all);
    for (int l = 0; l < WHEEL_LEVELS; l++) {
        for (int s = 0; s < WHEEL_SLOTS; s++) {
            while (!list_empty(&w->slots[l][s])) {
                struct list *link = w->slots[l][s].next;
                list_del(link);
                list_add_tail(&all, link);
            }
        }
        w->occupied[l] = 0;
    }
    w->now_ms = now_ms;
    while (!list_empty(&all)) {
        struct timer *t = list_entry(all.next, struct timer, link);
        list_del(&t->link);
        wheel_add(w, t);
    }
}

void wheel_advance(struct wheel *w, uint64_t now_ms)
{
    if (now_ms < w->now_ms) {
        refile_all(w, now_ms);
        return;
    }
    for (uint64_t t; (t = next_tick(w)) <= now_ms;) {
        w->now_ms = t;
        for (int l = WHEEL_LEVELS - 1; l >= 0; l--) {
            if ((t & (((uint64_t)1 << (WHEEL_BITS * l)) - 1)) == 0) {
                cascade(w, l, (unsigned)(t >> (WHEEL_BITS * l)) & (WHEEL_SLOTS - 1));
            }
        }
    }
    w->now_ms = now_ms;
}

void wheel_fini(struct wheel *w)
{
    refile_all(w, UINT64_MAX - 1); // everything becomes due
    while (!list_empty(&w->due)) {
        list_del(w->due.next);
    }
}

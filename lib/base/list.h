// SPDX-License-Identifier: Apache-2.0
// Intrusive doubly linked list with a sentinel.
#ifndef LIB_BASE_LIST_H
#define LIB_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/check.h"

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}
// Before the sentinel: at the end.
static inline void list_add_tail(struct list *l, struct list *n)
{
    n->prev = l->prev;
    n->next = l;
    l->prev->next = n;
    l->prev = n;
}
static inline void list_add_head(struct list *l, struct list *n)
{
    list_add_tail(l->next, n);
}
// Unlinks and re-initialises, so that deleting twice is harmless.
static inline void list_del(struct list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}
#define list_entry(ptr, type, member) container_of(ptr, type, member)
#define list_for(pos, head) for (struct list *pos = (head)->next; pos != (head); pos = pos->next)
// pos may be unlinked in the body.
#define list_for_safe(pos, head)                                                                                       \
    for (struct list *pos = (head)->next, *pos##_n = pos->next; pos != (head); pos = pos##_n, pos##_n = pos->next)

#endif

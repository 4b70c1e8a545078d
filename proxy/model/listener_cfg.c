// SPDX-License-Identifier: Apache-2.0
#include "proxy/model/listener_cfg.h"

#include <stdlib.h>

#include "lib/base/mem.h"

enum { CHAIN_BLOCK_BYTES = 512 }; // there may be thousands, most of them a TCP proxy: two blocks

struct filter_chain *filter_chain_new(void)
{
    struct filter_chain *c = mem_new(struct filter_chain);
    refs_init(&c->refs);
    arena_init(&c->arena, CHAIN_BLOCK_BYTES, 0);
    return c;
}

static bool by_hand(const struct filter_chain *c)
{
    return atomic_load_explicit(&c->refs.n, memory_order_relaxed) == 0;
}

struct filter_chain *filter_chain_ref(struct filter_chain *c)
{
    if (!by_hand(c)) {
        refs_get(&c->refs);
    }
    return c;
}

void filter_chain_unref(struct filter_chain *c)
{
    if (c && !by_hand(c) && refs_put(&c->refs)) {
        arena_fini(&c->arena);
        free(c);
    }
}

struct listener_cfg *listener_cfg_new(void)
{
    struct listener_cfg *l = mem_new(struct listener_cfg);
    refs_init(&l->refs);
    arena_init(&l->arena, 0, 0);
    return l;
}

struct listener_cfg *listener_cfg_ref(struct listener_cfg *l)
{
    refs_get(&l->refs);
    return l;
}

void listener_cfg_unref(struct listener_cfg *l)
{
    if (l && refs_put(&l->refs)) {
        arena_fini(&l->arena);
        free(l);
    }
}

bool port_predicate_match(const struct port_predicate *p, uint16_t destination_port)
{
    switch (p->kind) {
    case PP_NEVER:
        return false;
    case PP_ANY:
        return true;
    case PP_RANGE:
        return destination_port >= p->start && destination_port < p->end;
    case PP_OR:
        for (size_t i = 0; i < p->rule_count; i++) {
            if (port_predicate_match(p->rules[i], destination_port)) {
                return true;
            }
        }
        return false;
    case PP_AND:
        for (size_t i = 0; i < p->rule_count; i++) {
            if (!port_predicate_match(p->rules[i], destination_port)) {
                return false;
            }
        }
        return true;
    case PP_NOT:
        return !port_predicate_match(p->rules[0], destination_port);
    }
    return false;
}

// SPDX-License-Identifier: Apache-2.0
// MAGLEV: a fixed table filled by each host's permutation, in turns by weight (Eisenbud et al., "Maglev", NSDI 2016, §3.4). The order of turns
// and the arithmetic are chosen so that tables come out as Envoy's: tests/unit/proxy/upstream/test_placement.c has recorded ones.
#include <stdlib.h>

#include "lib/base/hash.h"
#include "lib/base/mem.h"
#include "proxy/upstream/lb/lb.h"
#include "proxy/upstream/lb/policies.h"

struct filler {
    struct str key;
    uint32_t index;
    uint64_t offset, skip, next;
    double weight, due; // share of all; what the rounds so far must add up to for the next turn
};
struct maglev {
    uint32_t *table; // owned
    uint32_t size;
};

// Turns go by name, not by the order of the assignment: an assignment in another order gives the same table.
static int by_key(const void *a, const void *b)
{
    const struct filler *x = a, *y = b;
    int order = str_cmp(x->key, y->key);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

static size_t next_free(struct filler *f, const struct maglev *m)
{
    for (;;) {
        size_t at = (size_t)((f->offset + f->next++ * f->skip) % m->size);
        if (m->table[at] == UINT32_MAX) {
            return at;
        }
    }
}

static void maglev_init(void *state, const struct lb_hosts *h, uint64_t now_ms)
{
    (void)now_ms;
    struct maglev *m = state;
    m->size = h->cfg->maglev_size;
    m->table = mem_alloc(m->size * sizeof(*m->table));
    memset(m->table, 0xff, m->size * sizeof(*m->table));
    struct filler *f = mem_zalloc(h->n * sizeof(*f));
    double sum = 0, heaviest = 0;
    for (size_t i = 0; i < h->n; i++) {
        sum += h->weight[i];
    }
    for (size_t i = 0; i < h->n; i++) {
        struct str key = f[i].key = lb_hash_key(h, i);
        f[i].index = (uint32_t)i;
        f[i].offset = hash_xx64(key.p, key.n, 0) % m->size;
        f[i].skip = hash_xx64(key.p, key.n, 1) % (m->size - 1) + 1;
        f[i].weight = h->weight[i] / sum;
        heaviest = f[i].weight > heaviest ? f[i].weight : heaviest;
    }
    qsort(f, h->n, sizeof(*f), by_key);
    size_t filled = 0;
    for (uint32_t round = 1; filled < m->size; round++) {
        for (size_t i = 0; i < h->n && filled < m->size; i++) {
            // A host of half the heaviest's weight takes a turn in every second round.
            if (round * f[i].weight < f[i].due) {
                continue;
            }
            f[i].due += heaviest;
            m->table[next_free(&f[i], m)] = f[i].index;
            filled++;
        }
    }
    free(f);
}

static void maglev_fini(void *state)
{
    free(((struct maglev *)state)->table);
}

static size_t maglev_pick(void *state, const struct lb_hosts *h, const struct lb_draw *d)
{
    (void)h;
    const struct maglev *m = state;
    uint64_t hash = d->has_hash ? d->hash : d->random;
    if (d->attempt > 0) {
        hash ^= ~0ull - d->attempt + 1;
    }
    return m->table[hash % m->size];
}

const struct lb_ops lb_maglev = {
    .policy = LB_MAGLEV,
    .name = "MAGLEV",
    .by_hash = true,
    .state_size = sizeof(struct maglev),
    .init = maglev_init,
    .fini = maglev_fini,
    .pick = maglev_pick,
};

// SPDX-License-Identifier: Apache-2.0
// MAGLEV: a fixed table filled by each host's permutation, in turns by weight (Eisenbud et al., "Maglev", NSDI 2016, §3.4).
#include <stdlib.h>

#include "lib/base/hash.h"
#include "lib/base/mem.h"
#include "proxy/upstream/lb/lb.h"
#include "proxy/upstream/lb/policies.h"

enum { TABLE_SIZE = 65537 }; // prime; cluster.v3.Cluster.MaglevLbConfig.table_size's default

struct filler {
    uint64_t offset, skip, next;
    double weight, due; // share of the heaviest; the round in which the next turn comes
};
struct maglev {
    uint32_t *table; // owned
};

static size_t next_free(struct filler *f, const uint32_t *table)
{
    for (;;) {
        size_t at = (size_t)((f->offset + f->next++ * f->skip) % TABLE_SIZE);
        if (table[at] == UINT32_MAX) {
            return at;
        }
    }
}

static void maglev_init(void *state, const struct cluster_cfg *cfg, struct endpoint *const *v, size_t n)
{
    (void)cfg;
    struct maglev *m = state;
    m->table = mem_alloc(TABLE_SIZE * sizeof(*m->table));
    memset(m->table, 0xff, TABLE_SIZE * sizeof(*m->table));
    struct filler *f = mem_zalloc(n * sizeof(*f));
    uint32_t heaviest = 1;
    for (size_t i = 0; i < n; i++) {
        heaviest = v[i]->weight > heaviest ? v[i]->weight : heaviest;
    }
    for (size_t i = 0; i < n; i++) {
        struct str key = str_c(v[i]->host->text);
        f[i].offset = hash_xx64(key.p, key.n, 0) % TABLE_SIZE;
        f[i].skip = hash_xx64(key.p, key.n, 1) % (TABLE_SIZE - 1) + 1;
        f[i].weight = (double)v[i]->weight / heaviest;
    }
    size_t filled = 0;
    for (size_t round = 1; filled < TABLE_SIZE; round++) {
        for (size_t i = 0; i < n && filled < TABLE_SIZE; i++) {
            // A host of half the heaviest's weight takes a turn in every second round.
            if ((double)round * f[i].weight < f[i].due) {
                continue;
            }
            f[i].due += 1;
            m->table[next_free(&f[i], m->table)] = (uint32_t)i;
            filled++;
        }
    }
    free(f);
}

static void maglev_fini(void *state)
{
    free(((struct maglev *)state)->table);
}

static size_t maglev_pick(void *state, struct endpoint *const *v, size_t n, bool has_hash, uint64_t hash, uint64_t random)
{
    (void)v, (void)n;
    return ((const struct maglev *)state)->table[(has_hash ? hash : random) % TABLE_SIZE];
}

const struct lb_ops lb_maglev = {
    .policy = LB_MAGLEV,
    .name = "MAGLEV",
    .state_size = sizeof(struct maglev),
    .init = maglev_init,
    .fini = maglev_fini,
    .pick = maglev_pick,
};

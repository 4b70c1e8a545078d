// SPDX-License-Identifier: Apache-2.0
// Ring hash and Maglev place every recorded key where a real Envoy did.
#include "tests/unit/proxy/world.h"

#include <stdio.h>

#include "lib/base/hash.h"
#include "tests/golden/lb/placements.h"

enum { HOSTS_MAX = 12 };

static const struct {
    const char *name;
    enum lb_policy lb;
    uint64_t ring_min, ring_max;
    bool murmur;
    uint32_t table_size;
    bool locality_weighted;
    size_t hosts;
    struct {
        uint32_t weight, priority;
        bool sick;
        const char *zone;
        uint32_t locality_weight;
        const char *key;
    } v[HOSTS_MAX];
    const char *placed;
} cases[] = { PLACEMENTS };

static struct world x;

static int setup(void **state)
{
    (void)state;
    world_init(&x);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_fini(&x);
    return 0;
}

static struct cluster_worker *put(size_t n)
{
    struct lb_endpoint_cfg e[HOSTS_MAX];
    for (size_t i = 0; i < cases[n].hosts; i++) {
        char text[40];
        snprintf(text, sizeof(text), "127.77.0.%zu:18977", i + 1);
        e[i] = (struct lb_endpoint_cfg){ .addr = world_ip(text), .weight = cases[n].v[i].weight, .priority = cases[n].v[i].priority,
                                         .health = cases[n].v[i].sick ? EDS_UNHEALTHY : EDS_UNKNOWN, .zone = str_c(cases[n].v[i].zone),
                                         .locality_weight = cases[n].v[i].locality_weight, .hash_key = str_c(cases[n].v[i].key) };
    }
    struct snapshot *s = snapshot_clone(x.w.snap);
    struct cluster_cfg *c = world_cluster("c", cases[n].lb);
    c->healthy_panic_threshold = 0;
    c->ring_min = cases[n].ring_min;
    c->ring_max = cases[n].ring_max;
    c->ring_murmur = cases[n].murmur;
    c->maglev_size = cases[n].table_size;
    c->spread = cases[n].locality_weighted ? LOCALITY_WEIGHTED : LOCALITY_NONE;
    world_cluster_put(s, c, NULL, e, cases[n].hosts);
    snapshot_unref(world_swap(&x, s));
    return upstream_cluster(&x.w, STR("c"));
}

static void placed_as_envoy_places(void **state)
{
    (void)state;
    size_t wrong = 0, keys = 0;
    for (size_t n = 0; n < array_len(cases); n++) {
        struct cluster_worker *cw = put(n);
        size_t before = wrong;
        for (size_t k = 0; cases[n].placed[k]; k++) {
            char key[16];
            int len = snprintf(key, sizeof(key), "key-%zu", k);
            struct pick p = { .has_hash = true, .hash = hash_xx64(key, (size_t)len, 0) };
            struct picked r;
            assert_true(upstream_pick(cw, &p, &r));
            int got = r.host->addr.ip[3] - 1;
            wrong += "0123456789abcdefghijklmnopqrstuvwxyz"[got] != cases[n].placed[k];
            keys++;
            picked_release(&r);
        }
        if (wrong != before) {
            print_error("%s: %zu keys elsewhere\n", cases[n].name, wrong - before);
        }
    }
    assert_int_equal(wrong, 0);
    assert_true(keys >= 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(placed_as_envoy_places, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// Subsets: whom a route's metadata_match leads to, and what happens when it leads to nobody.
#include "tests/unit/proxy/world.h"

#include <stdio.h>

#include "lib/base/rand.h"

enum { HOSTS = 6, DRAWS = 120 };

static struct world x;
static struct host_table *table;
static struct lb_endpoint_cfg e[HOSTS];
static unsigned hits[HOSTS];

//            0         1         2         3          4              5
// version    1         1         2         2          [1, 2]         -
// stage      prod      dev       prod      dev        prod           prod
static struct lb_criterion m0[] = { { STR_INIT("version"), STR_INIT("1"), false }, { STR_INIT("stage"), STR_INIT("prod"), false } };
static struct lb_criterion m1[] = { { STR_INIT("version"), STR_INIT("1"), false }, { STR_INIT("stage"), STR_INIT("dev"), false } };
static struct lb_criterion m2[] = { { STR_INIT("version"), STR_INIT("2"), false }, { STR_INIT("stage"), STR_INIT("prod"), false } };
static struct lb_criterion m3[] = { { STR_INIT("version"), STR_INIT("2"), false }, { STR_INIT("stage"), STR_INIT("dev"), false } };
static struct lb_criterion m4[] = { { STR_INIT("version"), STR_INIT("[1:1,1:2,"), false }, { STR_INIT("version"), STR_INIT("1"), true },
                                    { STR_INIT("version"), STR_INIT("2"), true }, { STR_INIT("stage"), STR_INIT("prod"), false } };
static struct lb_criterion m5[] = { { STR_INIT("stage"), STR_INIT("prod"), false } };

static int setup(void **state)
{
    (void)state;
    static const struct {
        struct lb_criterion *v;
        size_t n;
    } metadata[HOSTS] = { { m0, 2 }, { m1, 2 }, { m2, 2 }, { m3, 2 }, { m4, 4 }, { m5, 1 } };
    rand_seed(5);
    world_init(&x);
    table = host_table_new();
    for (size_t i = 0; i < HOSTS; i++) {
        char text[40];
        snprintf(text, sizeof(text), "10.0.0.%zu:80", i + 1);
        e[i] = world_endpoint(world_ip(text));
        e[i].lb_metadata = metadata[i].v;
        e[i].lb_metadata_count = metadata[i].n;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_fini(&x);
    host_table_free(table);
    return 0;
}

static struct str version_only[] = { STR_INIT("version") }, both[] = { STR_INIT("stage"), STR_INIT("version") };
static struct subset_selector selectors[2];

// Selectors: {version}, and {stage, version} with the given fallback of its own.
static struct cluster_worker *put(enum subset_fallback fallback, enum subset_fallback own, void (*change)(struct cluster_cfg *c))
{
    selectors[0] = (struct subset_selector){ .keys = version_only, .key_count = 1 };
    selectors[1] = (struct subset_selector){ .keys = both, .key_count = 2, .fallback = own, .fallback_keys = version_only, .fallback_key_count = 1 };
    struct snapshot *s = snapshot_clone(x.w.snap);
    struct cluster_cfg *c = world_cluster("c", LB_ROUND_ROBIN);
    c->healthy_panic_threshold = 0;
    c->subset = (struct subset_cfg){ .enabled = true, .fallback = fallback, .selectors = selectors, .selector_count = 2,
                                     .default_subset = m1, .default_count = 2 };
    if (change) {
        change(c);
    }
    world_cluster_put(s, c, table, e, HOSTS);
    snapshot_unref(world_swap(&x, s));
    return upstream_cluster(&x.w, STR("c"));
}

// Which hosts requests with these criteria reach, as digits. stage, version: NULL = not asked for.
static const char *reached(struct cluster_worker *cw, const char *stage, const char *version)
{
    static char out[HOSTS + 1];
    struct subset_key k[2];
    size_t n = 0;
    if (stage) {
        k[n++] = (struct subset_key){ STR("stage"), str_c(stage) };
    }
    if (version) {
        k[n++] = (struct subset_key){ STR("version"), str_c(version) };
    }
    const struct pick p = { .subset = k, .subset_count = n };
    memset(hits, 0, sizeof(hits));
    for (int i = 0; i < DRAWS; i++) {
        struct picked r;
        if (upstream_pick(cw, &p, &r)) {
            hits[r.host->addr.ip[3] - 1]++;
            picked_release(&r);
        }
    }
    char *at = out;
    for (int i = 0; i < HOSTS; i++) {
        if (hits[i]) {
            *at++ = (char)('0' + i);
        }
    }
    *at = '\0';
    return out;
}

static void list_as_any(struct cluster_cfg *c)
{
    c->subset.list_as_any = true;
}

static void criteria_choose(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(SUBSET_NO_FALLBACK, SUBSET_NOT_DEFINED, NULL);
    assert_string_equal(reached(cw, NULL, "1"), "01");
    assert_int_equal(hits[0], DRAWS / 2);
    assert_string_equal(reached(cw, NULL, "2"), "23");
    assert_string_equal(reached(cw, "dev", "2"), "3");
    assert_string_equal(reached(cw, NULL, "3"), "");
    assert_string_equal(reached(cw, "dev", NULL), ""); // no selector has that
    assert_string_equal(reached(cw, NULL, NULL), "");
    cw = put(SUBSET_NO_FALLBACK, SUBSET_NOT_DEFINED, list_as_any);
    assert_string_equal(reached(cw, NULL, "1"), "014");
    assert_string_equal(reached(cw, "prod", "2"), "24");
}

static void fallbacks(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(SUBSET_ANY_ENDPOINT, SUBSET_NOT_DEFINED, NULL);
    assert_string_equal(reached(cw, NULL, "3"), "012345");
    cw = put(SUBSET_DEFAULT, SUBSET_NOT_DEFINED, NULL);
    assert_string_equal(reached(cw, NULL, NULL), "1");
    assert_string_equal(reached(cw, "dev", "3"), "1");
    cw = put(SUBSET_ANY_ENDPOINT, SUBSET_NO_FALLBACK, NULL); // the selector's own wins
    assert_string_equal(reached(cw, "dev", "3"), "");
    assert_string_equal(reached(cw, NULL, "3"), "012345");
    cw = put(SUBSET_NO_FALLBACK, SUBSET_KEYS, NULL); // without the stage, then
    assert_string_equal(reached(cw, "test", "2"), "23");
    assert_string_equal(reached(cw, "test", "3"), "");
}

static void panic_any(struct cluster_cfg *c)
{
    c->subset.panic_mode_any = true;
}

static void a_default_that_is_empty_may_panic(void **state)
{
    (void)state;
    e[1].health = EDS_UNHEALTHY;
    struct cluster_worker *cw = put(SUBSET_DEFAULT, SUBSET_NOT_DEFINED, NULL);
    assert_string_equal(reached(cw, NULL, "3"), "");
    cw = put(SUBSET_DEFAULT, SUBSET_NOT_DEFINED, panic_any);
    assert_string_equal(reached(cw, NULL, "3"), "02345");
}

static void single(struct cluster_cfg *c)
{
    c->subset.selectors[0].single_host = true;
}

static void one_host_each(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(SUBSET_NO_FALLBACK, SUBSET_NOT_DEFINED, single);
    assert_string_equal(reached(cw, NULL, "2"), "2");
}

static void subsets_follow_health(void **state)
{
    (void)state;
    struct cluster_worker *cw = put(SUBSET_NO_FALLBACK, SUBSET_NOT_DEFINED, NULL);
    assert_string_equal(reached(cw, NULL, "1"), "01");
    host_set_flag(cw->snap->endpoints->v[0].host, HOST_FAILED_OUTLIER, true);
    assert_string_equal(reached(cw, NULL, "1"), "1");
    host_set_flag(cw->snap->endpoints->v[0].host, HOST_FAILED_OUTLIER, false);
    assert_string_equal(reached(cw, NULL, "1"), "01");
}

static void weighted(struct cluster_cfg *c)
{
    c->spread = LOCALITY_WEIGHTED;
    c->subset.locality_weight_aware = true;
}

static void scaled(struct cluster_cfg *c)
{
    weighted(c);
    c->subset.scale_locality_weight = true;
}

static void unaware(struct cluster_cfg *c)
{
    c->spread = LOCALITY_WEIGHTED;
}

// Version 1 has host 0 of zone a (one of two) and host 1 of zone b (one of four); both zones weigh the same.
static void locality_weights_of_subsets(void **state)
{
    (void)state;
    for (size_t i = 0; i < HOSTS; i++) {
        e[i].zone = i == 0 || i == 2 ? STR("a") : STR("b");
        e[i].locality_weight = i == 0 || i == 2 ? 3 : 1;
    }
    reached(put(SUBSET_NO_FALLBACK, SUBSET_NOT_DEFINED, unaware), NULL, "1");
    assert_int_equal(hits[0], DRAWS / 2);
    reached(put(SUBSET_NO_FALLBACK, SUBSET_NOT_DEFINED, weighted), NULL, "1");
    assert_in_range(hits[0], DRAWS * 3 / 4 - 1, DRAWS * 3 / 4 + 1);
    reached(put(SUBSET_NO_FALLBACK, SUBSET_NOT_DEFINED, scaled), NULL, "1"); // 3 × 1/2 to 1 × 1/4
    assert_in_range(hits[0], DRAWS * 6 / 7 - 1, DRAWS * 6 / 7 + 2);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(criteria_choose), T(fallbacks), T(a_default_that_is_empty_may_panic), T(one_host_each), T(subsets_follow_health),
        T(locality_weights_of_subsets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

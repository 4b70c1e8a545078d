// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/cli/support.h"

#include "cli/rollout.h"

static const char file[] = "# a comment: weight: 7\n"
                           "kind: DestinationRule\nspec: {host: reviews}\n---\n"
                           "kind: VirtualService\nmetadata: {name: reviews, namespace: shop}\nspec:\n  hosts: [reviews]\n  http:\n"
                           "  - name: testers\n    route: [{destination: {host: reviews, subset: v2}}]\n"
                           "  - name: canary\n    route:\n"
                           "    - destination: {host: reviews, subset: v1}\n      weight: 90   # most\n"
                           "    - {weight: 10, destination: {host: reviews, subset: v2}}   # some\n"
                           "  - name: other\n    route: [{destination: {host: a, subset: v2}, weight: 1}, {destination: {host: b}, weight: 3}]\n";

static void weights_change_and_nothing_else(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct rollout_weights w;
    struct err err = { 0 };
    struct rollout_target t = { .subset = STR("v2") };
    assert_int_equal(rollout_find(str_c(file), &t, &a, &w, &err), 0);
    assert_int_equal(w.percent, 10);
    assert_true(str_is(w.host, "reviews.shop.svc.cluster.local"));
    struct str text = rollout_edit(str_c(file), &w, 100, &a);
    assert_non_null(strstr(text.p, "weight: 0   # most"));
    assert_non_null(strstr(text.p, "{weight: 100, destination: {host: reviews, subset: v2}}   # some"));
    assert_int_equal(text.n, sizeof(file) - 1 - 1 + 1);
    assert_int_equal(rollout_find(text, &t, &a, &w, &err), 0);
    assert_int_equal(w.percent, 100);
    assert_string_equal(rollout_edit(text, &w, 10, &a).p, file); // there and back again
    t.route = STR("other");
    assert_int_equal(rollout_find(str_c(file), &t, &a, &w, &err), 0);
    assert_int_equal(w.percent, 25);
    t.subset = STR("v1");
    assert_int_not_equal(rollout_find(str_c(file), &t, &a, &w, &err), 0);
    assert_non_null(strstr(err.msg, "http route other of two destinations, one of them subset v1"));
    arena_fini(&a);
}

static void what_cannot_be_edited_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        { "kind: VirtualService\nspec: {http: [{route: [{destination: {host: a, subset: v1}}, {destination: {host: a, subset: v2}, weight: 1}]}]}\n", "needs a weight" },
        { "kind: VirtualService\nspec: {http: [{route: [{destination: {host: a, subset: v1}, weight: '1'}, {destination: {host: a, subset: v2}, weight: 1}]}]}\n", "plain number" },
        { "kind: VirtualService\nspec: {http: [{route: [{destination: {host: a, subset: v2}, weight: 1}]}]}\n", "there is no VirtualService" },
        { "kind: Service\n", "there is no VirtualService" },
        { "a: [\n", "line" },
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        struct arena a = { 0 };
        struct rollout_weights w;
        struct err err = { 0 };
        assert_int_not_equal(rollout_find(str_c(cases[i].text), &(struct rollout_target){ .subset = STR("v2") }, &a, &w, &err), 0);
        if (!strstr(err.msg, cases[i].says)) {
            fail_msg("case %zu: \"%s\"", i, err.msg);
        }
        arena_fini(&a);
    }
}

static void counters_of_the_subset_alone(void **state)
{
    (void)state;
    struct rollout_counts c = rollout_read(STR("cluster.outbound|80|v2|r.d.;.upstream_rq_completed: 7\n"
                                               "cluster.outbound|80|v2|r.d;.upstream_rq_completed: 10\n"
                                               "cluster.outbound|80|v2|r.d;.upstream_rq_5xx: 2\n"
                                               "cluster.outbound|80|v2|r.d;.grpc.14: 3\n"
                                               "cluster.outbound|80|v2|r.d;.grpc.5: 100\n"
                                               "cluster.outbound|80|v2|r.d;.grpc.0: 100\n"
                                               "cluster.outbound|80|v2|r.d;.grpc.failure: 103\n"
                                               "cluster.outbound|81|v2|r.d.upstream_rq_completed: 5\n"
                                               "cluster.outbound|80|v1|r.d;.upstream_rq_completed: 1000\n"
                                               "cluster.outbound|80|v2|r.d.x;.upstream_rq_completed: 1000\n"
                                               "cluster.outbound|80|v2|r.d;.upstream_rq_completed_more: 1000\n"
                                               "cluster.outbound|80|v2|r.d;.upstream_rq_time: P0(nan,0)\nx\n"),
                                           STR("v2"), STR("r.d"));
    assert_int_equal(c.requests, 15);
    assert_int_equal(c.failed, 5);
}

static void a_step_waits_goes_on_or_back(void **state)
{
    (void)state;
    assert_int_equal(rollout_judge((struct rollout_counts){ 0, 0 }, true, 20, 0.01), ROLLOUT_WAIT);
    assert_int_equal(rollout_judge((struct rollout_counts){ 19, 0 }, true, 20, 0.01), ROLLOUT_WAIT);
    assert_int_equal(rollout_judge((struct rollout_counts){ 20, 0 }, false, 20, 0.01), ROLLOUT_WAIT);
    assert_int_equal(rollout_judge((struct rollout_counts){ 20, 0 }, true, 20, 0.01), ROLLOUT_ON);
    assert_int_equal(rollout_judge((struct rollout_counts){ 1, 1 }, false, 20, 0.01), ROLLOUT_BACK);  // 1 of 20 is 5 %
    assert_int_equal(rollout_judge((struct rollout_counts){ 1, 1 }, false, 100, 0.01), ROLLOUT_WAIT); // 1 of 100 is not more than 1 %
    assert_int_equal(rollout_judge((struct rollout_counts){ 1000, 10 }, true, 20, 0.01), ROLLOUT_ON);
    assert_int_equal(rollout_judge((struct rollout_counts){ 1000, 11 }, true, 20, 0.01), ROLLOUT_BACK);
}

static void steps_grow(void **state)
{
    (void)state;
    unsigned v[ROLLOUT_STEPS_MAX];
    size_t n = 0;
    struct err err = { 0 };
    assert_int_equal(rollout_steps(STR("1, 5,25,50,100"), v, &n, &err), 0);
    assert_int_equal(n, 5);
    assert_int_equal(v[4], 100);
    assert_int_not_equal(rollout_steps(STR("5,5"), v, &n, &err), 0);
    assert_int_not_equal(rollout_steps(STR("0"), v, &n, &err), 0);
    assert_int_not_equal(rollout_steps(STR("101"), v, &n, &err), 0);
    assert_int_not_equal(rollout_steps(STR(""), v, &n, &err), 0);
}

static void the_command_line_is_checked(void **state)
{
    (void)state;
    static const struct {
        const char *words, *says;
    } cases[] = {
        { "rollout", "exactly one FILE" },
        { "rollout a b", "exactly one FILE" },
        { "rollout /nonexistent.yaml", "--subset is wanted" },
        { "rollout /nonexistent.yaml --subset v2", "/nonexistent.yaml" },
        { "rollout /nonexistent.yaml --subset v2 --max-failed 101", "from 0 to 100" },
        { "rollout /nonexistent.yaml --subset v2 --steps 7,3", "growing percentages" },
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        struct arena a = { 0 };
        struct result r = run_words(&a, cases[i].words, false);
        assert_int_equal(r.code, CLI_FAILED);
        if (!strstr(r.notes.p, cases[i].says)) {
            fail_msg("%s: %s", cases[i].words, r.notes.p);
        }
        arena_fini(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_change_and_nothing_else), cmocka_unit_test(what_cannot_be_edited_is_refused),
        cmocka_unit_test(counters_of_the_subset_alone),    cmocka_unit_test(a_step_waits_goes_on_or_back),
        cmocka_unit_test(steps_grow),                      cmocka_unit_test(the_command_line_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/json.h"
#include "lib/base/mem.h"
#include "proxy/stats/store.h"

static bool has(struct buf *b, const char *text)
{
    return str_find_str(buf_pullup(b, b->len), str_c(text)) >= 0;
}

static struct stat_block *cluster(struct stats_store *s, int shard, const char *name)
{
    return stats_scope_get(stats_shard_get(s, shard), STAT_CLUSTER, str_c(name));
}

static void sums_over_shards(void **state)
{
    (void)state;
    struct stats_store *s = stats_store_new(3);
    for (int i = 0; i < 3; i++) {
        struct stat_block *b = cluster(s, i, "c");
        assert_ptr_equal(b, cluster(s, i, "c"));
        stat_add(b, STAT_ID_CLUSTER_UPSTREAM_RQ_TOTAL, (uint64_t)i + 1);
        stat_gauge_add(b, STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE, 1);
        stat_record(b, STAT_ID_CLUSTER_UPSTREAM_RQ_TIME, 7);
    }
    // A gauge may be raised on one worker and lowered on another: only the sum counts.
    stat_gauge_add(cluster(s, 0, "c"), STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE, -3);
    assert_int_equal(stats_sum(s, STAT_CLUSTER, STR("c"), STAT_ID_CLUSTER_UPSTREAM_RQ_TOTAL), 6);
    assert_int_equal(stats_sum(s, STAT_CLUSTER, STR("c"), STAT_ID_CLUSTER_UPSTREAM_RQ_ACTIVE), 0);
    assert_int_equal(stats_sum(s, STAT_CLUSTER, STR("c"), STAT_ID_CLUSTER_UPSTREAM_RQ_TIME), 3);
    assert_int_equal(stats_sum(s, STAT_HTTP, STR("c"), STAT_ID_HTTP_RQ_TOTAL), 0);
    stat_inc(NULL, STAT_ID_HTTP_RQ_TOTAL);
    stat_record(NULL, STAT_ID_HTTP_RQ_TIME, 1);
    stat_answer(cluster(s, 0, "c"), 204);
    stats_reset_counters(s);
    assert_int_equal(stats_sum(s, STAT_CLUSTER, STR("c"), STAT_ID_CLUSTER_UPSTREAM_RQ_TOTAL), 0);
    struct buf out = { 0 };
    stats_dump_text(s, NULL, &out);
    assert_false(has(&out, "upstream_rq_204"));
    stat_answer(cluster(s, 0, "c"), 204);
    stats_dump_text(s, NULL, &out);
    assert_true(has(&out, "upstream_rq_204: 1\n"));
    buf_clear(&out);
    stat_inc(cluster(s, 0, "c"), STAT_ID_CLUSTER_UPSTREAM_RQ_TOTAL);
    assert_int_equal(stats_sum(s, STAT_CLUSTER, STR("c"), STAT_ID_CLUSTER_UPSTREAM_RQ_TOTAL), 1);
    stats_store_free(s);
}

static void buckets_and_quantiles(void **state)
{
    (void)state;
    struct stat_histogram *h = mem_new(struct stat_histogram);
    static const uint64_t values[] = { 0, 1, 9, 10, 99, 100, 109, 110, 999, 1000, 12345, 3600000, UINT64_MAX };
    struct histogram_sum s = { 0 };
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        histogram_record(h, values[i]);
    }
    histogram_merge(h, &s);
    assert_int_equal(s.count, 13);
    assert_int_equal(histogram_count_below(&s, 0.5), 1);
    assert_int_equal(histogram_count_below(&s, 1), 2);
    assert_int_equal(histogram_count_below(&s, 10), 4);
    assert_int_equal(histogram_count_below(&s, 99), 5);
    assert_int_equal(histogram_count_below(&s, 109), 7); // 100 and 109 share a bucket
    assert_int_equal(histogram_count_below(&s, 108), 5);
    assert_int_equal(histogram_count_below(&s, 1e9), 13);
    histogram_free(h);
    struct histogram_sum one = { .count = 4, .sum = 4 };
    one.buckets[1] = 4;
    assert_true(histogram_quantile(&one, 0) == 1.0);
    assert_true(histogram_quantile(&one, 0.5) > 1.04 && histogram_quantile(&one, 0.5) < 1.06);
    assert_true(histogram_quantile(&one, 1) > 1.09 && histogram_quantile(&one, 1) < 1.11);
}

static uint64_t forty_two(void *arg)
{
    (void)arg;
    return 42;
}
static struct str version(void *arg)
{
    (void)arg;
    return STR("v1");
}

static struct stats_store *sample(void)
{
    struct stats_store *s = stats_store_new(2);
    struct stat_block *b = cluster(s, 0, "outbound|80||a.b;");
    stat_inc(b, STAT_ID_CLUSTER_UPSTREAM_RQ_TOTAL);
    stat_answer(b, 200);
    stat_answer(cluster(s, 1, "outbound|80||a.b;"), 200);
    stat_answer(b, 503);
    stat_record(b, STAT_ID_CLUSTER_UPSTREAM_RQ_TIME, 30);
    cluster(s, 1, "quiet\"\\");
    stats_scope_get(stats_shard_get(s, 0), STAT_LISTENER, STR("[::]_15006"));
    stats_register(s, "server.answer", STAT_GAUGE, "", forty_two, NULL);
    stats_register_text(s, "cluster_manager.cds.version_text", version, NULL);
    return s;
}

static void text_form(void **state)
{
    (void)state;
    struct stats_store *s = sample();
    struct buf out = { 0 };
    stats_dump_text(s, NULL, &out);
    assert_true(has(&out, "cluster_manager.cds.version_text: \"v1\"\n"));
    assert_true(has(&out, "cluster.outbound|80||a.b;.upstream_rq_2xx: 2\n"));
    assert_true(has(&out, "cluster.outbound|80||a.b;.upstream_rq_200: 2\n"));
    assert_true(has(&out, "cluster.outbound|80||a.b;.upstream_rq_completed: 3\n"));
    assert_true(has(&out, "listener.[__]_15006.downstream_cx_active: 0\n"));
    assert_true(has(&out, "server.answer: 42\n"));
    assert_true(has(&out, "cluster.outbound|80||a.b;.upstream_rq_time: P0(nan,30) P25(nan,30.25) P50(nan,30.5)"));
    assert_true(has(&out, "upstream_cx_connect_ms: No recorded values\n"));
    // Values are in the order of names: the registered one stands behind every cluster.
    struct str all = buf_pullup(&out, out.len);
    assert_true(str_find_str(all, STR("server.answer")) > str_find_str(all, STR("quiet\"\\.upstream_rq_total")));
    buf_clear(&out);
    stats_dump_text(s, &(struct stats_dump_opts){ .used_only = true }, &out);
    assert_false(has(&out, "quiet"));
    assert_false(has(&out, "upstream_cx_connect_ms"));
    assert_true(has(&out, "upstream_rq_total: 1\n"));
    buf_clear(&out);
    stats_store_free(s);
}

static bool keep_rq_total(void *arg, struct str name)
{
    (void)arg;
    return str_ends(name, STR("upstream_rq_total"));
}

static void json_form(void **state)
{
    (void)state;
    struct stats_store *s = sample();
    struct buf out = { 0 };
    stats_dump_json(s, NULL, &out);
    struct arena a = { 0 };
    struct json *root;
    struct err err;
    assert_int_equal(json_parse(buf_pullup(&out, out.len), &a, &root, &err), 0);
    struct json *stats = json_get(root, "stats"), *last = stats->first;
    while (last->next) {
        last = last->next;
    }
    assert_non_null(json_path(last, "histograms.computed_quantiles"));
    assert_int_equal(json_path(last, "histograms.supported_quantiles")->count, 10);
    buf_clear(&out);
    stats_dump_json(s, &(struct stats_dump_opts){ .keep = keep_rq_total }, &out);
    assert_int_equal(json_parse(buf_pullup(&out, out.len), &a, &root, &err), 0);
    assert_int_equal(json_get(root, "stats")->count, 2);
    arena_fini(&a);
    buf_clear(&out);
    stats_store_free(s);
}

static void prometheus_form(void **state)
{
    (void)state;
    struct stats_store *s = sample();
    struct buf out = { 0 };
    stats_dump_prometheus(s, NULL, &out);
    assert_true(has(&out, "# TYPE envoy_cluster_upstream_rq_xx counter\n"
                          "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"1\",envoy_cluster_name=\"outbound|80||a.b\"} 0\n"));
    assert_true(has(&out, "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"outbound|80||a.b\"} 2\n"));
    assert_true(has(&out, "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"5\",envoy_cluster_name=\"outbound|80||a.b\"} 1\n"));
    assert_true(has(&out, "envoy_cluster_upstream_rq{envoy_response_code=\"503\",envoy_cluster_name=\"outbound|80||a.b\"} 1\n"));
    assert_true(has(&out, "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"quiet\\\"\\\\\"} 0\n"));
    assert_true(has(&out, "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"outbound|80||a.b\",le=\"25\"} 0\n"));
    assert_true(has(&out, "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"outbound|80||a.b\",le=\"50\"} 1\n"));
    assert_true(has(&out, "le=\"+Inf\"} 1\nenvoy_cluster_upstream_rq_time_sum{envoy_cluster_name=\"outbound|80||a.b\"} 30\n"));
    assert_true(has(&out, "envoy_listener_downstream_cx_active{envoy_listener_address=\"[::]_15006\"} 0\n"));
    assert_true(has(&out, "# TYPE envoy_server_answer gauge\nenvoy_server_answer{} 42\n\n"));
    assert_false(has(&out, "# TYPE envoy_cluster_upstream_rq_xx counter\n\n"));
    // Every family is declared once.
    struct str all = buf_pullup(&out, out.len);
    ptrdiff_t at = str_find_str(all, STR("# TYPE envoy_cluster_upstream_rq_xx "));
    assert_true(str_find_str(str_skip(all, (size_t)at + 8), STR("# TYPE envoy_cluster_upstream_rq_xx ")) < 0);
    buf_clear(&out);
    stats_store_free(s);
}

static void dropped_blocks_stay_while_in_use(void **state)
{
    (void)state;
    struct stats_store *s = stats_store_new(1);
    struct stat_block *b = cluster(s, 0, "gone");
    struct stat_block *busy = cluster(s, 0, "busy");
    stat_gauge_add(busy, STAT_ID_CLUSTER_UPSTREAM_CX_ACTIVE, 1);
    stats_scope_drop(s, STAT_CLUSTER, STR("gone"));
    stats_scope_drop(s, STAT_CLUSTER, STR("busy"));
    struct stats_view v;
    stats_view_init(&v, s);
    assert_int_equal(v.group_count, 2); // within the grace time
    stats_view_fini(&v);
    b->dropped_ms -= 2 * STAT_DROP_GRACE_MS;
    busy->dropped_ms -= 2 * STAT_DROP_GRACE_MS;
    stats_view_init(&v, s);
    assert_int_equal(v.group_count, 1);
    stats_view_fini(&v);
    assert_ptr_equal(cluster(s, 0, "busy"), busy); // back in the configuration
    stat_gauge_add(busy, STAT_ID_CLUSTER_UPSTREAM_CX_ACTIVE, -1);
    stats_view_init(&v, s);
    assert_int_equal(v.group_count, 1);
    stats_view_fini(&v);
    stats_store_free(s);
}

static void dropped_blocks_stay_while_held(void **state)
{
    (void)state;
    struct stats_store *s = stats_store_new(1);
    struct stat_block *b = cluster(s, 0, "held");
    stats_scope_hold(b);
    stats_scope_drop(s, STAT_CLUSTER, STR("held"));
    b->dropped_ms -= 2 * STAT_DROP_GRACE_MS;
    struct stats_view v;
    stats_view_init(&v, s);
    assert_int_equal(v.group_count, 1);
    stats_view_fini(&v);
    stat_inc(b, STAT_ID_CLUSTER_UPSTREAM_CX_DESTROY); // the last word of a connection
    stats_scope_release(b);
    // Without anybody who looks: the next one that goes sweeps up.
    s->swept_ms -= 2 * STAT_DROP_GRACE_MS;
    stats_scope_drop(s, STAT_CLUSTER, STR("other"));
    assert_null(s->shards[0].list);
    stats_store_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_over_shards), cmocka_unit_test(buckets_and_quantiles), cmocka_unit_test(text_form),
        cmocka_unit_test(json_form),        cmocka_unit_test(prometheus_form),       cmocka_unit_test(dropped_blocks_stay_while_in_use),
        cmocka_unit_test(dropped_blocks_stay_while_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

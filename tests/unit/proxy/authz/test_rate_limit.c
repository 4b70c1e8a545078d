// SPDX-License-Identifier: Apache-2.0
// The limiter: which buckets a request's descriptors find, in which order they are drawn from, and what is remembered of wildcards.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.pb-c.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proxy/authz/rate_limit.h"

typedef Envoy__Extensions__Filters__Http__LocalRatelimit__V3__LocalRateLimit filter_msg;

static const uint64_t NOW = 5000000000000ull;
static struct arena a;
static struct err err;

static int setup(void **state)
{
    (void)state;
    a = (struct arena){ 0 };
    err = (struct err){ 0 };
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&a);
    return 0;
}

static struct limiter *parse(const char *json)
{
    ProtobufCMessage *msg;
    if (pb_json_parse(str_c(json), &envoy__extensions__filters__http__local_ratelimit__v3__local_rate_limit__descriptor, 0, &a, &msg, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    const filter_msg *m = (const void *)msg;
    struct limiter *l = NULL;
    const struct limiter_msg lm = { .bucket = m->token_bucket, .descriptors = m->descriptors, .descriptor_count = m->n_descriptors,
                                    .dynamic_max = pb_u32_or(m->max_dynamic_descriptors, RATE_LIMIT_DYNAMIC_DEFAULT),
                                    .always_default = pb_bool_or(m->always_consume_default_token_bucket, true) };
    return limiter_parse(&lm, &a, &l, &err) ? NULL : l;
}

#define BUCKET(max) "\"token_bucket\":{\"max_tokens\":" #max ",\"fill_interval\":\"3600s\"}"
#define E(k, v) "{\"key\":\"" k "\",\"value\":\"" v "\"}"

// "k=v,k=v;k=v": one descriptor, then another.
static struct limiter_answer ask(struct limiter *l, const char *text)
{
    struct rate_limit_descriptor d[8] = { 0 };
    size_t n = 0;
    struct str rest = str_c(text);
    while (rest.n) {
        struct str one = str_split(&rest, ';');
        d[n].entries = arena_array(&a, struct rate_limit_entry, 8);
        while (one.n) {
            struct str kv = str_split(&one, ',');
            struct str k = str_split(&kv, '=');
            d[n].entries[d[n].count++] = (struct rate_limit_entry){ k, kv };
        }
        n++;
    }
    struct limiter_answer r;
    limiter_ask(l, d, n, NOW, &a, &r);
    return r;
}

static int allowed(struct limiter *l, const char *text, int tries)
{
    int n = 0;
    for (int i = 0; i < tries; i++) {
        n += ask(l, text).allowed;
    }
    return n;
}

static void without_descriptors_the_default_counts(void **state)
{
    (void)state;
    struct limiter *l = parse("{" BUCKET(3) "}");
    assert_non_null(l);
    struct limiter_answer r = ask(l, "");
    assert_true(r.allowed && r.has_bucket);
    assert_int_equal(r.limit, 3);
    assert_int_equal(r.remaining, 2);
    assert_int_equal(allowed(l, "a=b", 5), 2);
    r = ask(l, "");
    assert_false(r.allowed);
    assert_int_equal(r.remaining, 0);
    assert_int_equal(r.reset_s, 3600);
    assert_int_equal(allowed(parse("{}"), "", 5), 5);
}

static void a_descriptor_has_its_own_bucket(void **state)
{
    (void)state;
    struct limiter *l = parse("{" BUCKET(100) ",\"descriptors\":[{\"entries\":[" E("a", "1") "," E("b", "2") "]," BUCKET(2) "}]}");
    assert_int_equal(allowed(l, "a=1,b=2", 5), 2);
    assert_int_equal(allowed(l, "b=2,a=1", 5), 5); // another order is another descriptor
    assert_int_equal(allowed(l, "a=1", 5), 5);
    assert_int_equal(allowed(l, "a=1,b=2,c=3", 5), 5);
    assert_int_equal(allowed(l, "x=y;a=1,b=2", 5), 0); // any of those that it has
}

static void the_default_is_drawn_from_as_well_unless_it_is_not_wanted(void **state)
{
    (void)state;
    struct limiter *both = parse("{" BUCKET(2) ",\"descriptors\":[{\"entries\":[" E("a", "1") "]," BUCKET(9) "}]}");
    assert_int_equal(ask(both, "a=1").limit, 9); // of the descriptor
    assert_int_equal(allowed(both, "a=1", 5), 1);
    assert_int_equal(ask(both, "a=1").limit, 2); // of the one that refused
    struct limiter *one = parse("{" BUCKET(2) ",\"always_consume_default_token_bucket\":false,"
                                "\"descriptors\":[{\"entries\":[" E("a", "1") "]," BUCKET(9) "}]}");
    assert_int_equal(allowed(one, "a=1", 20), 9);
    assert_int_equal(allowed(one, "", 20), 2);
}

static void the_slowest_is_asked_first(void **state)
{
    (void)state;
    struct limiter *l = parse("{\"descriptors\":[{\"entries\":[" E("fast", "1") "],\"token_bucket\":{\"max_tokens\":3,\"tokens_per_fill\":50,"
                              "\"fill_interval\":\"3600s\"}},{\"entries\":[" E("slow", "1") "]," BUCKET(2) "}]}");
    assert_int_equal(allowed(l, "fast=1;slow=1", 5), 2);
    assert_int_equal(ask(l, "fast=1").remaining, 0); // the refused ones took nothing: this is its third
    assert_int_equal(ask(l, "fast=1;slow=1").limit, 2);
}

static void a_wildcard_has_a_bucket_for_each_value(void **state)
{
    (void)state;
    struct limiter *l = parse("{" BUCKET(1000) ",\"max_dynamic_descriptors\":2,\"descriptors\":[{\"entries\":[" E("u", "") "]," BUCKET(2) "},"
                              "{\"entries\":[" E("u", "root") "]," BUCKET(5) "}]}");
    assert_int_equal(allowed(l, "u=x", 5), 2);
    assert_int_equal(allowed(l, "u=y", 5), 2);
    assert_int_equal(allowed(l, "u=root", 9), 5); // spelled out comes first
    assert_int_equal(allowed(l, "u=x", 5), 0);
    assert_int_equal(allowed(l, "u=z", 5), 2);    // y was the one not used for longest
    assert_int_equal(allowed(l, "u=x", 5), 0);
    assert_int_equal(allowed(l, "u=y", 5), 2);
    assert_int_equal(allowed(l, "u=", 5), 2);
}

// A long value is a value: it does not get by, and is not taken for another one.
static void long_values_have_buckets_too(void **state)
{
    (void)state;
    struct limiter *l = parse("{\"descriptors\":[{\"entries\":[" E("u", "") "]," BUCKET(1) "}]}");
    enum { LONG = 100000 };
    char *text = arena_alloc(&a, LONG);
    memset(text, 'x', LONG);
    struct rate_limit_entry e = { STR("u"), str_n(text, LONG) };
    struct rate_limit_descriptor d = { .entries = &e, .count = 1 };
    struct limiter_answer r;
    for (int i = 0; i < 4; i++) {
        text[LONG - 1] = i < 2 ? 'x' : 'y';
        limiter_ask(l, &d, 1, NOW, &a, &r);
        assert_int_equal(r.allowed, i % 2 == 0);
    }
    e.value.n = LONG - 1;
    limiter_ask(l, &d, 1, NOW, &a, &r);
    assert_true(r.allowed);
}

static void hits_count_and_come_back(void **state)
{
    (void)state;
    struct limiter *l = parse("{\"descriptors\":[{\"entries\":[" E("a", "1") "]," BUCKET(10) "}]}");
    struct rate_limit_entry e = { STR("a"), STR("1") };
    struct rate_limit_descriptor d = { .entries = &e, .count = 1, .has_hits = true, .hits = 6 };
    struct limiter_answer r;
    limiter_ask(l, &d, 1, NOW, &a, &r);
    assert_true(r.allowed);
    assert_int_equal(r.remaining, 4);
    limiter_ask(l, &d, 1, NOW, &a, &r);
    assert_false(r.allowed);
    d.negative = true;
    limiter_ask(l, &d, 1, NOW, &a, &r);
    assert_true(r.allowed);
    assert_int_equal(r.remaining, 10);
}

static void a_shadow_refuses_nothing(void **state)
{
    (void)state;
    struct limiter *l = parse("{\"descriptors\":[{\"entries\":[" E("a", "1") "],\"shadow_mode\":true," BUCKET(1) "}]}");
    assert_false(ask(l, "a=1").shadow);
    struct limiter_answer r = ask(l, "a=1");
    assert_true(r.allowed && r.shadow);
    assert_int_equal(allowed(l, "a=1", 5), 5);
}

static void a_bucket_that_holds_nothing_refuses_everything(void **state)
{
    (void)state;
    struct limiter_answer r = ask(parse("{\"token_bucket\":{\"max_tokens\":0,\"fill_interval\":\"1s\"}}"), "");
    assert_true(!r.allowed && !r.has_bucket);
    struct limiter *l = parse("{\"descriptors\":[{\"entries\":[" E("a", "1") "],\"token_bucket\":{\"max_tokens\":0,\"fill_interval\":\"1s\"}}]}");
    assert_false(ask(l, "a=1").allowed);
    assert_true(ask(l, "a=2").allowed);
}

static void a_copy_has_buckets_of_its_own(void **state)
{
    (void)state;
    struct limiter *l = parse("{" BUCKET(9) ",\"descriptors\":[{\"entries\":[" E("a", "1") "]," BUCKET(2) "},{\"entries\":[" E("u", "") "]," BUCKET(1) "}]}");
    struct limiter *c = limiter_copy(l, &a);
    assert_int_equal(allowed(l, "a=1", 5), 2);
    assert_int_equal(allowed(c, "a=1", 5), 2);
    assert_int_equal(allowed(c, "u=x", 5), 1);
    assert_int_equal(allowed(l, "u=x", 5), 1);
    assert_int_equal(ask(c, "").remaining, 5);
}

enum { TRIES = 20000 };
static struct limiter *shared;

static void *many_values(void *arg)
{
    struct arena mine = { 0 };
    int *sum = arg;
    for (int i = 0; i < TRIES; i++) {
        char v[16];
        int n = snprintf(v, sizeof(v), "%d", i % 50);
        struct rate_limit_entry e = { STR("u"), str_n(v, (size_t)n) };
        struct rate_limit_descriptor d = { .entries = &e, .count = 1 };
        struct limiter_answer r;
        limiter_ask(shared, &d, 1, NOW, &mine, &r);
        *sum += r.allowed;
        arena_reset(&mine, true);
    }
    arena_fini(&mine);
    return NULL;
}

static void threads_share_wildcards(void **state)
{
    (void)state;
    pthread_t th[2];
    int sum[2] = { 0 };
    shared = parse("{\"max_dynamic_descriptors\":50,\"descriptors\":[{\"entries\":[" E("u", "") "]," BUCKET(7) "}]}");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&th[i], NULL, many_values, &sum[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(th[i], NULL);
    }
    assert_int_equal(sum[0] + sum[1], 50 * 7);
}

static void refusals_name_the_field(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
    } t[] = {
        { "{\"token_bucket\":{\"max_tokens\":1,\"fill_interval\":\"0.049s\"}}", "token_bucket.fill_interval: must be 50 ms or more" },
        { "{\"token_bucket\":{\"max_tokens\":0}}", "token_bucket.fill_interval: must be 50 ms or more" },
        { "{\"token_bucket\":{\"max_tokens\":1,\"tokens_per_fill\":0,\"fill_interval\":\"1s\"}}", "token_bucket.tokens_per_fill: must be greater than 0" },
        { "{\"descriptors\":[{" BUCKET(1) "}]}", "descriptors[0]: entries: 1 to 64 are needed" },
        { "{\"descriptors\":[{\"entries\":[" E("a", "") "]}]}", "descriptors[0]: token_bucket: missing" },
        { "{\"descriptors\":[{\"entries\":[" E("", "1") "]," BUCKET(1) "}]}", "descriptors[0]: entries[0].key: missing" },
        { "{\"descriptors\":[{\"entries\":[" E("a", "1") "]," BUCKET(1) "},{\"entries\":[" E("a", "1") "]," BUCKET(2) "}]}", "descriptors[1]: entries: stand there twice" },
        { "{\"descriptors\":[{\"entries\":[" E("a", "") "]," BUCKET(1) "},{\"entries\":[" E("a", "") "]," BUCKET(2) "}]}", "descriptors[1]: entries: stand there twice" },
        { "{\"max_dynamic_descriptors\":100001}", "max_dynamic_descriptors: must be 1 to 100000" },
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        assert_null(parse(t[i].json));
        assert_string_equal(err.msg, t[i].text);
    }
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(without_descriptors_the_default_counts), T(a_descriptor_has_its_own_bucket), T(the_default_is_drawn_from_as_well_unless_it_is_not_wanted),
        T(the_slowest_is_asked_first), T(a_wildcard_has_a_bucket_for_each_value), T(long_values_have_buckets_too), T(hits_count_and_come_back), T(a_shadow_refuses_nothing),
        T(a_bucket_that_holds_nothing_refuses_everything), T(a_copy_has_buckets_of_its_own), T(threads_share_wildcards), T(refusals_name_the_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// What a rate limit server is asked and says, without one.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "envoy/service/ratelimit/v3/rls.pb-c.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proxy/authz/rate_question.h"

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

static void assert_str(struct str s, const char *want)
{
    assert_int_equal(s.n, strlen(want));
    assert_memory_equal(s.p, want, s.n);
}

static void a_question(void **state)
{
    (void)state;
    struct rate_limit_entry e[] = { { STR("k"), STR("v") }, { STR("empty"), STR("") } };
    const char zero[] = { 'a', 0, 'b', (char)0xff, (char)0xc3, (char)0xa9 };
    struct rate_limit_entry odd = { STR("odd"), str_n(zero, sizeof(zero)) };
    const struct rate_limit_descriptor d[] = {
        { .entries = e, .count = 2, .has_override = true, .override_requests = 5, .override_unit = 3 },
        { .entries = &odd, .count = 1, .has_hits = true, .hits = 7, .negative = true },
        { .count = 0 },
    };
    struct str bytes = rate_question_pack(STR("dom"), d, 3, &a);
    Envoy__Service__Ratelimit__V3__RateLimitRequest *m;
    assert_int_equal(pb_unpack_as(Envoy__Service__Ratelimit__V3__RateLimitRequest, envoy__service__ratelimit__v3__rate_limit_request, bytes, &a, &m, &err), 0);
    assert_string_equal(m->domain, "dom");
    assert_int_equal(m->hits_addend, 0);
    assert_int_equal(m->n_descriptors, 3);
    assert_int_equal(m->descriptors[0]->n_entries, 2);
    assert_string_equal(m->descriptors[0]->entries[0]->value, "v");
    assert_string_equal(m->descriptors[0]->entries[1]->value, "");
    assert_int_equal(m->descriptors[0]->limit->requests_per_unit, 5);
    assert_int_equal(m->descriptors[0]->limit->unit, 3);
    assert_null(m->descriptors[0]->hits_addend);
    assert_string_equal(m->descriptors[1]->entries[0]->value, "a!b!\xc3\xa9");
    assert_int_equal(m->descriptors[1]->hits_addend->value, 7);
    assert_true(m->descriptors[1]->is_negative_hits);
    assert_int_equal(m->descriptors[2]->n_entries, 0);
}

static int answer(const char *json, struct rate_answer *ret)
{
    ProtobufCMessage *m;
    if (pb_json_parse(str_c(json), &envoy__service__ratelimit__v3__rate_limit_response__descriptor, 0, &a, &m, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return rate_answer_parse(pb_pack(m, &a), &a, ret, &err);
}

static void an_answer(void **state)
{
    (void)state;
    struct rate_answer r;
    assert_int_equal(answer("{\"overall_code\":\"OVER_LIMIT\",\"raw_body\":\"aGk=\",\"response_headers_to_add\":[{\"key\":\"X-A\",\"value\":\"1\"},"
                            "{\"key\":\"x-b\",\"raw_value\":\"Mg==\"}],\"request_headers_to_add\":[{\"key\":\"x-c\",\"value\":\"3\"}],"
                            "\"dynamic_metadata\":{\"k\":\"v\"},\"statuses\":[{\"code\":\"OVER_LIMIT\",\"duration_until_reset\":\"9.5s\"}]}", &r), 0);
    assert_true(r.over);
    assert_str(r.body, "hi");
    assert_int_equal(r.response_count, 2);
    assert_str(r.response[0].name, "x-a");
    assert_str(r.response[1].value, "2");
    assert_int_equal(r.request_count, 1);
    assert_str(r.request[0].value, "3");
    assert_true(r.metadata.n > 0);
    assert_false(r.has_limit);
    assert_int_equal(r.retry_after_s, 9);
    assert_int_equal(rate_answer_parse(STR(""), &a, &r, &err), 0); // UNKNOWN: not over
    assert_false(r.over);
}

static void limits(void **state)
{
    (void)state;
    struct rate_answer r;
    assert_int_equal(answer("{\"statuses\":[{\"current_limit\":{\"requests_per_unit\":10,\"unit\":\"MINUTE\",\"name\":\"n\"},\"limit_remaining\":4,"
                            "\"duration_until_reset\":\"30s\"},{\"current_limit\":{\"requests_per_unit\":7,\"unit\":\"HOUR\",\"unit_multiplier\":2},"
                            "\"limit_remaining\":3,\"duration_until_reset\":\"99s\"},{\"current_limit\":{\"requests_per_unit\":1},\"limit_remaining\":3}]}", &r), 0);
    assert_str(r.limit, "7, 10;w=60;name=\"n\", 7;w=7200");
    assert_int_equal(r.remaining, 3);
    assert_int_equal(r.reset_s, 99);
}

// A server must not be able to end a line of a message.
static void what_cannot_stand_in_a_message_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{\"response_headers_to_add\":[{\"key\":\"x\",\"value\":\"a\\r\\nb: c\"}]}", "{\"request_headers_to_add\":[{\"key\":\"x\",\"value\":\"a\\nb\"}]}",
        "{\"response_headers_to_add\":[{\"key\":\"x y\",\"value\":\"a\"}]}", "{\"request_headers_to_add\":[{\"key\":\":path\",\"value\":\"/\"}]}",
        "{\"request_headers_to_add\":[{\"key\":\"\",\"value\":\"/\"}]}",
    };
    struct rate_answer r;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_not_equal(answer(bad[i], &r), 0);
    }
    assert_int_equal(answer("{\"statuses\":[{\"current_limit\":{\"requests_per_unit\":1,\"unit\":\"HOUR\",\"name\":\"a\\nb\"}}]}", &r), 0);
    assert_str(r.limit, "1, 1;w=3600");
    assert_int_not_equal(rate_answer_parse(STR("\xff\xff"), &a, &r, &err), 0);
}

static void fields_that_frame_messages_are_passed_over(void **state)
{
    (void)state;
    struct rate_answer r;
    assert_int_equal(answer("{\"response_headers_to_add\":[{\"key\":\"Content-Length\",\"value\":\"5\"},{\"key\":\"x\",\"value\":\"1\"},"
                            "{\"key\":\"connection\",\"value\":\"close\"}],\"request_headers_to_add\":[{\"key\":\"transfer-encoding\",\"value\":\"chunked\"},"
                            "{\"key\":\"host\",\"value\":\"h\"},{\"key\":\"te\",\"value\":\"trailers\"},{\"key\":\"y\",\"value\":\"2\"}]}", &r), 0);
    assert_int_equal(r.response_count, 1);
    assert_str(r.response[0].name, "x");
    assert_int_equal(r.request_count, 1);
    assert_str(r.request[0].name, "y");
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = { T(a_question), T(an_answer), T(limits), T(what_cannot_stand_in_a_message_is_refused),
                                        T(fields_that_frame_messages_are_passed_over) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

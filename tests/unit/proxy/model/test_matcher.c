// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/http/message.h"
#include "proxy/model/matcher.h"

static struct arena arena;
static struct headers headers;
static struct match_request rq;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 0, 0);
    headers_init(&headers, &arena);
    rq = (struct match_request){ .method = STR("GET"), .path = STR("/p?q=1"), .authority = STR("h:80"), .scheme = STR("http"),
                                 .headers = &headers, .arena = &arena };
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static void strings(void **state)
{
    (void)state;
    struct string_matcher m = { .kind = SM_EXACT, .value = STR("aBc") };
    assert_true(string_matcher_match(&m, STR("aBc")));
    assert_false(string_matcher_match(&m, STR("abc")));
    m.ignore_case = true;
    assert_true(string_matcher_match(&m, STR("AbC")));
    m.kind = SM_PREFIX;
    assert_true(string_matcher_match(&m, STR("abcd")));
    assert_false(string_matcher_match(&m, STR("ab")));
    m.kind = SM_SUFFIX;
    assert_true(string_matcher_match(&m, STR("xABC")));
    assert_false(string_matcher_match(&m, STR("abcx")));
    m.kind = SM_CONTAINS;
    assert_true(string_matcher_match(&m, STR("xxABCyy")));
    assert_true(string_matcher_match(&m, STR("aabc")));
    assert_false(string_matcher_match(&m, STR("abxc")));
    m.ignore_case = false;
    assert_false(string_matcher_match(&m, STR("xxabcyy")));
    struct string_matcher re = { .kind = SM_REGEX, .re = regex_new(STR("a+"), NULL) };
    assert_true(string_matcher_match(&re, STR("aa")));
    assert_false(string_matcher_match(&re, STR("aab")));
    regex_free(re.re);
}

static bool header(struct header_matcher m)
{
    m.id = hdr_id_of(m.name);
    return header_matcher_match(&m, &rq);
}

static void pseudo_headers(void **state)
{
    (void)state;
    assert_true(header((struct header_matcher){ .kind = HM_STRING, .name = STR(":method"), .string = { .value = STR("GET") } }));
    assert_true(header((struct header_matcher){ .kind = HM_STRING, .name = STR(":path"), .string = { .value = STR("/p?q=1") } }));
    assert_true(header((struct header_matcher){ .kind = HM_STRING, .name = STR(":authority"), .string = { .value = STR("h:80") } }));
    assert_true(header((struct header_matcher){ .kind = HM_STRING, .name = STR("host"), .string = { .value = STR("h:80") } }));
    assert_true(header((struct header_matcher){ .kind = HM_PRESENT, .name = STR(":scheme"), .present = true }));
}

// A head keeps these beside its list; conditions on them hold all the same.
static void framing_fields(void **state)
{
    (void)state;
    struct http_request head = { .version = HTTP_11, .content_length = -1 };
    struct header_matcher up = { .kind = HM_STRING, .name = STR("upgrade"), .string = { .value = STR("websocket") } },
                          any = { .kind = HM_PRESENT, .name = STR("content-length"), .present = true },
                          length = { .kind = HM_RANGE, .name = STR("content-length"), .from = 3, .to = 6 },
                          te = { .kind = HM_STRING, .name = STR("te"), .string = { .value = STR("trailers") } },
                          option = { .kind = HM_STRING, .name = STR("connection"), .string = { .kind = SM_CONTAINS, .value = STR("pgrade") } };
    rq.head = &head;
    assert_false(header(up) || header(any) || header(length) || header(te) || header(option));
    head.upgrade = STR("websocket");
    head.content_length = 5;
    head.te_trailers = true;
    assert_true(header(up) && header(any) && header(length) && header(te) && header(option));
    up.invert = true;
    assert_false(header(up));
    head.content_length = 6;
    assert_false(header(length));
    head.content_length = 0;
    assert_true(header(any));
    rq.head = NULL; // an answer's fields: the list alone
    assert_false(header(any));
    headers_add(&headers, STR("content-length"), STR("4"));
    assert_true(header(any) && header(length));
}

static void missing_headers(void **state)
{
    (void)state;
    struct header_matcher m = { .kind = HM_STRING, .name = STR("x-a"), .string = { .value = STR("1") } };
    assert_false(header(m));
    m.invert = true;
    assert_false(header(m)); // missing, not merely different
    m.treat_missing_as_empty = true;
    assert_true(header(m));
    headers_add(&headers, STR("X-A"), STR("1"));
    assert_false(header(m));
}

static void presence(void **state)
{
    (void)state;
    struct header_matcher m = { .kind = HM_PRESENT, .name = STR("accept"), .present = true };
    assert_false(header(m));
    m.invert = true;
    assert_true(header(m));
    headers_add_id(&headers, hdr_id_of(STR("accept")), STR("*"));
    assert_false(header(m));
    m = (struct header_matcher){ .kind = HM_PRESENT, .name = STR("accept"), .present = false };
    assert_false(header(m));
    m = (struct header_matcher){ .kind = HM_PRESENT, .name = STR("x-none"), .present = true, .treat_missing_as_empty = true };
    assert_true(header(m)); // what is missing counts as there, as in Envoy
}

static void several_fields_are_looked_at_one_by_one(void **state)
{
    (void)state;
    headers_add(&headers, STR("x-a"), STR("1"));
    headers_add(&headers, STR("x-a"), STR("2"));
    assert_false(header((struct header_matcher){ .kind = HM_STRING, .name = STR("x-a"), .string = { .value = STR("1,2") } }));
    assert_true(header((struct header_matcher){ .kind = HM_STRING, .name = STR("x-a"), .string = { .value = STR("1") } }));
    assert_true(header((struct header_matcher){ .kind = HM_STRING, .name = STR("x-a"), .string = { .value = STR("2") } }));
    // inverted: none may match, or a second field would hide the first
    assert_false(header((struct header_matcher){ .kind = HM_STRING, .name = STR("x-a"), .invert = true, .string = { .value = STR("1") } }));
    assert_true(header((struct header_matcher){ .kind = HM_STRING, .name = STR("x-a"), .invert = true, .string = { .value = STR("3") } }));
    assert_true(header((struct header_matcher){ .kind = HM_RANGE, .name = STR("x-a"), .from = 2, .to = 3 }));
}

// Fields that Envoy keeps as one: a second one must not turn a condition true that does not hold there.
static void some_fields_are_joined(void **state)
{
    (void)state;
    struct header_matcher m = { .kind = HM_STRING, .name = STR("user-agent"), .joined = header_is_joined(STR("user-agent")), .string = { .value = STR("in") } };
    assert_true(m.joined && !header_is_joined(STR("cookie")) && !header_is_joined(STR("x-a")));
    headers_add_id(&headers, HDR_USER_AGENT, STR(""));
    headers_add_id(&headers, HDR_USER_AGENT, STR("in"));
    assert_true(header(m)); // what is empty leaves no comma
    headers_add_id(&headers, HDR_USER_AGENT, STR(""));
    headers_add_id(&headers, HDR_USER_AGENT, STR("out"));
    assert_false(header(m));
    m.string.value = STR("in,out");
    assert_true(header(m));
    m.invert = true;
    assert_false(header(m));
}

static void ranges(void **state)
{
    (void)state;
    struct header_matcher m = { .kind = HM_RANGE, .name = STR("x-n"), .from = -5, .to = 10 };
    static const struct { const char *v; bool want; } rows[] = {
        { "-5", true }, { "-6", false }, { "9", true }, { "10", false }, { "", false }, { "-", false }, { "1x", false },
        { "99999999999999999999", false },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        headers_set(&headers, STR("x-n"), str_c(rows[i].v));
        assert_int_equal(header(m), rows[i].want);
    }
}

static void queries(void **state)
{
    (void)state;
    struct query_matcher m = { .name = STR("a"), .string = { .value = STR("1") } };
    assert_true(query_matcher_match(&m, STR("b=2&a=1"), &arena));
    assert_false(query_matcher_match(&m, STR("a=2&a=1"), &arena)); // the first one counts
    assert_false(query_matcher_match(&m, STR("aa=1"), &arena));
    assert_false(query_matcher_match(&m, (struct str){ 0 }, &arena));
    m = (struct query_matcher){ .name = STR("a"), .present_only = true, .want_present = true };
    assert_true(query_matcher_match(&m, STR("a"), &arena));
    assert_true(query_matcher_match(&m, STR("a=&b"), &arena));
    assert_false(query_matcher_match(&m, STR("b&"), &arena));
    m.want_present = false;
    assert_true(query_matcher_match(&m, STR("b"), &arena));
    assert_false(query_matcher_match(&m, STR("a"), &arena));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(strings, setup, teardown),
        cmocka_unit_test_setup_teardown(pseudo_headers, setup, teardown),
        cmocka_unit_test_setup_teardown(framing_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(missing_headers, setup, teardown),
        cmocka_unit_test_setup_teardown(presence, setup, teardown),
        cmocka_unit_test_setup_teardown(several_fields_are_looked_at_one_by_one, setup, teardown), cmocka_unit_test_setup_teardown(some_fields_are_joined, setup, teardown),
        cmocka_unit_test_setup_teardown(ranges, setup, teardown),
        cmocka_unit_test_setup_teardown(queries, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

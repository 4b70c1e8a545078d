// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/arena.h"
#include "proxy/core/facts.h"
#include "proxy/core/stream_info.h"

static void flags_as_text(void **state)
{
    (void)state;
    char out[RF_TEXT_MAX];
    assert_string_equal(response_flags_text(0, false, out), "-");
    assert_string_equal(response_flags_text(RF(UPSTREAM_CONNECT_FAILURE) | RF(UPSTREAM_RETRY_LIMIT), false, out), "URX,UF");
    assert_string_equal(response_flags_text(RF(NO_ROUTE), true, out), "NoRouteFound");
    // all at once stay within the buffer
    assert_true(strlen(response_flags_text(UINT32_MAX, true, out)) < RF_TEXT_MAX);
}

static void text_as_flag(void **state)
{
    (void)state;
    assert_int_equal(response_flag_parse(STR("NR")), RF(NO_ROUTE));
    assert_int_equal(response_flag_parse(STR("UAEX")), RF(UNAUTHORIZED_EXTERNAL));
    assert_int_equal(response_flag_parse(STR("nr")), 0);
    assert_int_equal(response_flag_parse(STR("")), 0);
}

static struct metadata_value find(const struct stream_info *info, const char *space, const char *a, const char *b)
{
    const struct str path[] = { str_c(a), str_c(b) };
    return stream_info_metadata_find(info, str_c(space), path, a ? b ? 2 : 1 : 0);
}

static void dynamic_metadata(void **state)
{
    (void)state;
    struct arena arena = { 0 };
    struct connection_fact fact = { .space = STR("pp"), .key = STR("tlv"), .value = STR("x") };
    struct stream_info info = { .facts = &fact };
    assert_int_equal(find(&info, "ns", "k", NULL).kind, MV_NONE);
    stream_info_metadata_text(&info, &arena, STR("ns"), STR("k:with:colons"), STR("one"));
    stream_info_metadata_bool(&info, &arena, STR("ns"), STR("flag"), true);
    stream_info_metadata_text(&info, &arena, STR("ns"), STR("empty"), STR(""));
    stream_info_metadata_text(&info, &arena, STR("other"), STR("k:with:colons"), STR("two"));
    assert_true(str_is(find(&info, "ns", "k:with:colons", NULL).bytes, "one"));
    assert_true(find(&info, "ns", "flag", NULL).boolean);
    assert_int_equal(find(&info, "ns", "empty", NULL).kind, MV_TEXT);
    assert_int_equal(find(&info, "ns", "flag", "x").kind, MV_NONE);
    assert_int_equal(find(&info, "ns", NULL, NULL).kind, MV_STRUCT);
    assert_true(str_is(find(&info, "other", "k:with:colons", NULL).bytes, "two"));
    assert_true(str_is(find(&info, "pp", "tlv", NULL).bytes, "x"));
    // a later value replaces, whatever its kind, and the size does not grow
    size_t n = find(&info, "ns", NULL, NULL).bytes.n;
    for (int i = 0; i <= 200; i++) {
        stream_info_metadata_bool(&info, &arena, STR("ns"), STR("k:with:colons"), i % 2);
        assert_true(find(&info, "ns", "k:with:colons", NULL).boolean == i % 2);
    }
    assert_true(find(&info, "ns", NULL, NULL).bytes.n <= n);
    assert_int_equal(find(&info, "ns", "k:with:colons", NULL).kind, MV_BOOL);
    assert_int_equal(find(&info, "ns", "empty", NULL).kind, MV_TEXT);
    const struct metadata_value last = { .kind = MV_TEXT, .bytes = STR("merged") };
    stream_info_metadata_merge(&info, &arena, STR("ns"), metadata_struct_of(STR("k:with:colons"), &last, &arena));
    assert_true(str_is(find(&info, "ns", "k:with:colons", NULL).bytes, "merged"));
    stream_info_metadata_bool(&info, &arena, STR("ns"), STR("k:with:colons"), true);
    assert_true(find(&info, "ns", "flag", NULL).boolean);
    // a struct within a struct, longer than one byte of length says
    char text[300];
    memset(text, 'a', sizeof(text));
    const struct metadata_value t = { .kind = MV_TEXT, .bytes = str_n(text, sizeof(text)) }, d = { .kind = MV_NUMBER, .number = -1.5 };
    struct str inner = metadata_struct_merge(metadata_struct_of(STR("t"), &t, &arena), metadata_struct_of(STR("d"), &d, &arena), &arena);
    const struct metadata_value v = { .kind = MV_STRUCT, .bytes = inner };
    stream_info_metadata_merge(&info, &arena, STR("jwt"), metadata_struct_of(STR("payload"), &v, &arena));
    assert_int_equal(find(&info, "jwt", "payload", "t").bytes.n, sizeof(text));
    assert_true(find(&info, "jwt", "payload", "d").number == -1.5);
    arena_fini(&arena);
}

static void dynamic_metadata_is_bounded(void **state)
{
    (void)state;
    struct arena arena = { 0 };
    struct stream_info info = { 0 };
    for (int i = 0; i < DYNAMIC_METADATA_SPACES_MAX + 3; i++) {
        stream_info_metadata_bool(&info, &arena, arena_printf(&arena, "%d", i), STR("k"), true);
    }
    size_t n = 0;
    for (const struct dynamic_metadata *m = info.dynamic; m; m = m->next) {
        n++;
    }
    assert_int_equal(n, DYNAMIC_METADATA_SPACES_MAX);
    char *big = calloc(1, DYNAMIC_METADATA_BYTES_MAX);
    stream_info_metadata_text(&info, &arena, STR("0"), STR("big"), str_n(big, DYNAMIC_METADATA_BYTES_MAX));
    assert_int_equal(find(&info, "0", "big", NULL).kind, MV_NONE);
    const struct metadata_value v = { .kind = MV_TEXT, .bytes = str_n(big, DYNAMIC_METADATA_BYTES_MAX / 2) };
    const struct str half = metadata_struct_of(STR("half"), &v, &arena), other = metadata_struct_of(STR("other"), &v, &arena);
    assert_true(stream_info_metadata_merge(&info, &arena, STR("1"), half));
    assert_false(stream_info_metadata_merge(&info, &arena, STR("1"), other));
    assert_int_equal(find(&info, "1", "half", NULL).kind, MV_TEXT);
    assert_int_equal(find(&info, "1", "other", NULL).kind, MV_NONE);
    assert_false(stream_info_metadata_merge(&info, &arena, STR("one more space"), metadata_struct_of(STR("k"), &v, &arena)));
    struct arena small = { .limit_bytes = 4096 };
    assert_false(stream_info_metadata_merge(&info, &small, STR("2"), half));
    assert_true(find(&info, "2", "k", NULL).boolean);
    arena_fini(&small);
    free(big);
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(flags_as_text), cmocka_unit_test(text_as_flag), cmocka_unit_test(dynamic_metadata),
                                        cmocka_unit_test(dynamic_metadata_is_bounded) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

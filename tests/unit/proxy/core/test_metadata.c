// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/base/arena.h"
#include "proxy/core/metadata.h"

// Messages are written as they are on the wire: a field is its tag, a length and the content.
static struct arena arena;

static struct str field(int number, struct str content)
{
    return arena_printf(&arena, "%c%c%.*s", number << 3 | 2, (int)content.n, STR_FMT(content));
}

static struct str join(struct str a, struct str b)
{
    char *p = arena_alloc(&arena, a.n + b.n);
    memcpy(p, a.p, a.n);
    memcpy(p + a.n, b.p, b.n);
    return str_n(p, a.n + b.n);
}

// printf would stop at a NUL: lengths are put together by hand.
static struct str bytes_field(int number, struct str content)
{
    char head[2] = { (char)(number << 3 | 2), (char)content.n };
    return join(arena_str(&arena, str_n(head, 2)), content);
}

static struct str number(double x)
{
    char v[9] = { 2 << 3 | 1 };
    memcpy(v + 1, &x, 8);
    return arena_str(&arena, str_n(v, 9));
}

static struct str entry(const char *key, struct str value)
{
    return bytes_field(1, join(field(1, str_c(key)), bytes_field(2, value)));
}

static const char *json(struct metadata_value v)
{
    struct buf out = { 0 };
    metadata_json(&v, &out);
    const char *s = arena_str(&arena, buf_pullup(&out, out.len)).p;
    buf_clear(&out);
    return s;
}

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 0, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static void values(void **state)
{
    (void)state;
    struct str null = str_n("\x08\x00", 2), yes = str_n("\x20\x01", 2);
    struct str list = bytes_field(6, join(bytes_field(1, number(1)), bytes_field(1, null)));
    struct str deep = bytes_field(5, join(entry("a:b", yes), entry("c", field(3, STR("d\"\n")))));
    struct str space = join(join(entry("text", field(3, STR("hello"))), entry("deep", deep)), join(entry("list", list), entry("no", null)));
    struct str md = join(entry("other", STR("")), entry("ns", space));
    assert_true(str_is(metadata_find(md, STR("ns"), STR("text")).bytes, "hello"));
    assert_true(str_is(metadata_find(md, STR("ns"), STR("deep:c")).bytes, "d\"\n"));
    assert_int_equal(metadata_find(md, STR("ns"), STR("text:c")).kind, MV_NONE);
    assert_int_equal(metadata_find(md, STR("ns"), STR("none")).kind, MV_NONE);
    assert_int_equal(metadata_find(md, STR("n"), STR("")).kind, MV_NONE);
    assert_int_equal(metadata_find(md, STR("ns"), STR("no")).kind, MV_NULL);
    assert_int_equal(metadata_find(STR(""), STR("ns"), STR("")).kind, MV_NONE);
    assert_string_equal(json(metadata_find(md, STR("ns"), STR("deep"))), "{\"a:b\":true,\"c\":\"d\\\"\\n\"}");
    assert_string_equal(json(metadata_find(md, STR("ns"), STR("list"))), "[1,null]");
    assert_string_equal(json(metadata_find(md, STR("other"), STR(""))), "{}");
}

// The last entry of a name counts, as in protobuf; what is cut off or of another type is no value, and never read beyond its end.
static void malformed(void **state)
{
    (void)state;
    struct str md = entry("ns", join(entry("k", field(3, STR("old"))), entry("k", field(3, STR("new")))));
    assert_true(str_is(metadata_find(md, STR("ns"), STR("k")).bytes, "new"));
    for (size_t n = 0; n < md.n; n++) {
        struct str cut = str_n(arena_str(&arena, str_n(md.p, n)).p, n);
        assert_int_equal(metadata_find(cut, STR("ns"), STR("k")).kind, MV_NONE);
    }
    assert_int_equal(metadata_find(STR("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), STR("a"), STR("")).kind, MV_NONE);
    assert_int_equal(metadata_find(STR("\x0b\x0c"), STR("a"), STR("")).kind, MV_NONE); // groups
}

// As Envoy 1.40 prints them.
static void numbers(void **state)
{
    (void)state;
    const struct {
        double x;
        const char *text;
    } all[] = { { 100000, "1e+05" }, { 10000, "10000" }, { 123000, "123000" }, { 12000000, "1.2e+07" }, { 1200000, "1200000" },
                { 0.001, "0.001" }, { 0.0001, "1e-04" }, { 0.00012, "0.00012" }, { 0.000012345, "1.2345e-05" }, { 0.1, "0.1" }, { -3, "-3" },
                { 1e21, "1e+21" }, { 12345678901234567, "12345678901234568" }, { 123456789012345680000.0, "123456789012345683968" },
                { 1234567.125, "1234567.125" }, { 0, "0" }, { -0.0, "-0" }, { 3600, "3600" } };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        assert_string_equal(json((struct metadata_value){ .kind = MV_NUMBER, .number = all[i].x }), all[i].text);
    }
}

static void asking(void **state)
{
    (void)state;
    assert_false(metadata_wanted(METADATA_UPSTREAM_HOST));
    metadata_want(METADATA_UPSTREAM_HOST);
    assert_true(metadata_wanted(METADATA_UPSTREAM_HOST));
    assert_false(metadata_wanted(METADATA_CLUSTER));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(values, setup, teardown),
        cmocka_unit_test_setup_teardown(malformed, setup, teardown),
        cmocka_unit_test_setup_teardown(numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(asking, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

// base64, hash, rand, clock, mem, file, list, utf8: a few cases each.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/base64.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/hash.h"
#include "lib/base/list.h"
#include "lib/base/mem.h"
#include "lib/base/rand.h"
#include "lib/base/utf8.h"

static void test_base64(void **state)
{
    (void)state;
    struct arena a = { 0 };
    // RFC 4648 §10
    static const char *const pairs[][2] = { { "", "" },         { "f", "Zg==" },         { "fo", "Zm8=" },        { "foo", "Zm9v" },
                                            { "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" }, { "foobar", "Zm9vYmFy" } };
    struct str s;
    for (size_t i = 0; i < array_len(pairs); i++) {
        assert_string_equal(base64_encode(&a, str_c(pairs[i][0])).p, pairs[i][1]);
        assert_true(base64_decode(&a, str_c(pairs[i][1]), &s));
        assert_true(str_is(s, pairs[i][0]));
        struct str bare = str_c(pairs[i][1]);
        while (str_ends(bare, STR("="))) {
            bare.n--;
        }
        assert_true(base64_decode(&a, bare, &s));
        assert_true(str_is(s, pairs[i][0]));
    }
    assert_true(base64_decode(&a, STR("-_+/"), &s)); // both alphabets
    assert_memory_equal(s.p, "\xfb\xff\xbf", 3);
    static const char *const bad[] = { "Z", "Zg=", "Zg===", "Z===", "Z g=", "Zh==", "Zm9=", "Zg==Zg==", "=", "====", "Zm9v\n" };
    for (size_t i = 0; i < array_len(bad); i++) {
        if (base64_decode(&a, str_c(bad[i]), &s)) {
            fail_msg("taken: %s", bad[i]);
        }
    }
    assert_string_equal(hex_encode(&a, str_n("\x00\xff\x1a", 3)).p, "00ff1a");
    arena_fini(&a);
}

static void test_hash(void **state)
{
    (void)state;
    assert_int_equal(hash_xx64("", 0, 0), 0xef46db3751d8e999u); // the algorithm's published value
    assert_int_equal(hash_xx64(NULL, 0, 0), 0xef46db3751d8e999u);
    assert_int_equal(hash_seed(), hash_seed());
    assert_int_not_equal(hash_seed(), 0);
    struct hash128 x = hash_content("a", 1), y = hash_content("b", 1);
    assert_true(x.lo != y.lo && x.hi != y.hi);
}

static void test_rand(void **state)
{
    (void)state;
    rand_seed(1);
    uint64_t first = rand_u64();
    rand_seed(1);
    assert_int_equal(rand_u64(), first);
    int hits[7] = { 0 };
    for (int i = 0; i < 70000; i++) {
        hits[rand_below(7)]++;
        double d = rand_double();
        assert_true(d >= 0 && d < 1);
    }
    for (int i = 0; i < 7; i++) {
        assert_true(hits[i] > 9500 && hits[i] < 10500);
    }
    assert_int_equal(rand_below(1), 0);
    char a[RAND_UUID_MAX], b[RAND_UUID_MAX];
    for (int i = 0; i < 40; i++) { // beyond one pool of random bytes
        rand_uuid(a);
        rand_uuid(b);
        assert_int_equal(strlen(a), 36);
        assert_string_not_equal(a, b);
        assert_int_equal(a[14], '4');
        assert_non_null(strchr("89ab", a[19]));
        assert_true(a[8] == '-' && a[13] == '-' && a[18] == '-' && a[23] == '-');
    }
}

static void test_clock(void **state)
{
    (void)state;
    char out[CLOCK_RFC3339_MAX];
    clock_rfc3339(0, out);
    assert_string_equal(out, "1970-01-01T00:00:00.000Z");
    clock_rfc3339(1795233631123, out);
    assert_string_equal(out, "2026-11-21T04:00:31.123Z");
    clock_rfc3339(UINT64_MAX, out); // whatever it says, it ends
    assert_true(strlen(out) < CLOCK_RFC3339_MAX);
    uint64_t a = clock_mono_ns(), b = clock_mono_ns();
    assert_true(b >= a);
    assert_true(clock_wall_ms() > 1577836800000u);
}

static void test_mem_grow(void **state)
{
    (void)state;
    int *v = NULL;
    size_t cap = 0;
    for (size_t i = 0; i < 1000; i++) {
        mem_grow(&v, &cap, i + 1, sizeof(*v));
        v[i] = (int)i;
    }
    assert_int_equal(v[999], 999);
    assert_int_equal(v[0], 0);
    assert_int_equal(cap, 1024);
    free(v);
    assert_null(mem_strdup(NULL));
    char *s = mem_strdup("x");
    assert_string_equal(s, "x");
    free(s);
}

static void test_file(void **state)
{
    (void)state;
    char dir[] = "/tmp/remora-unit-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/f", dir);
    struct arena a = { 0 };
    struct str s = { 0 };
    struct err err;
    assert_int_equal(file_read(path, 100, &a, &s, &err), -ENOENT);
    assert_non_null(strstr(err.msg, path));
    assert_int_equal(file_write_atomic(path, STR("hello"), 0640, &err), 0);
    assert_int_equal(file_read(path, 5, &a, &s, &err), 0);
    assert_string_equal(s.p, "hello");
    assert_int_equal(file_read(path, 4, &a, &s, &err), -EFBIG);
    assert_int_equal(file_write_atomic(path, STR("second"), 0600, &err), 0);
    assert_int_equal(file_read(path, 100, &a, &s, &err), 0);
    assert_string_equal(s.p, "second");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(file_read("/proc/self/stat", 100000, &a, &s, &err), 0); // says it has 0 bytes
    assert_true(s.n > 10);
    assert_true(file_read(dir, 100, &a, &s, &err) < 0);
    assert_true(file_write_atomic("/nonexistent/x", STR(""), 0600, &err) < 0);
    unlink(path);
    assert_int_equal(rmdir(dir), 0); // no temporary file is left
    arena_fini(&a);
}

struct item {
    int v;
    struct list link;
};

static void test_list(void **state)
{
    (void)state;
    struct list l;
    struct item a = { .v = 1 }, b = { .v = 2 }, c = { .v = 3 };
    list_init(&l);
    assert_true(list_empty(&l));
    list_add_tail(&l, &b.link);
    list_add_tail(&l, &c.link);
    list_add_head(&l, &a.link);
    int sum = 0;
    list_for(p, &l) {
        sum = sum * 10 + list_entry(p, struct item, link)->v;
    }
    assert_int_equal(sum, 123);
    list_for_safe(p, &l) {
        if (list_entry(p, struct item, link)->v != 3) {
            list_del(p);
        }
    }
    assert_ptr_equal(l.next, &c.link);
    list_del(&a.link);
    list_del(&c.link);
    assert_true(list_empty(&l));
}

static void test_utf8(void **state)
{
    (void)state;
    assert_true(utf8_valid(STR("aé€😀")));
    assert_true(utf8_valid(STR("")));
    assert_true(utf8_valid(STR("\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"))); // around the gaps
    assert_false(utf8_valid(STR("a\xed\xa0\x80")));
    for (uint32_t c = 1; c < 0x110000; c += 97) {
        if (c >= 0xd800 && c < 0xe000) {
            continue;
        }
        char s[4];
        size_t n = utf8_encode(c, s);
        assert_int_equal(utf8_len(str_n(s, n)), n);
        assert_int_equal(utf8_len(str_n(s, n - 1)), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base64), cmocka_unit_test(test_hash), cmocka_unit_test(test_rand), cmocka_unit_test(test_clock),
        cmocka_unit_test(test_mem_grow), cmocka_unit_test(test_file), cmocka_unit_test(test_list), cmocka_unit_test(test_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

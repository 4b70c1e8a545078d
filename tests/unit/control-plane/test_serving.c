// SPDX-License-Identifier: Apache-2.0
// The server's own certificate over a year, by an injected clock.
#include "tests/unit/control-plane/common.h"

#include <stdio.h>
#include <unistd.h>

#include "control-plane/serving.h"
#include "lib/tls/cert.h"

enum { DAY_MS = 24 * 3600 * 1000 };

static int shown;

static void use(void *arg, struct str cert_pem, struct str key_pem)
{
    struct str *last = arg;
    struct arena a = { 0 };
    struct cert_info *v;
    size_t n;
    shown++;
    assert_true(cert_key_matches(cert_pem, key_pem));
    assert_int_equal(cert_parse_bundle(cert_pem, &a, &v, &n, NULL), 0);
    assert_true(str_is(v[0].sans[v[0].san_count - 1].value, "control.test"));
    assert_false(str_eq(cert_pem, *last));
    free((char *)last->p);
    *last = str_n(str_dup(cert_pem), cert_pem.n);
    arena_fini(&a);
}

static void until_day(struct loop *l, uint64_t start, unsigned *day, unsigned to)
{
    for (; *day < to; ++*day) {
        loop_set_fake_time(l, start + (*day + 1) * (uint64_t)DAY_MS);
        loop_turn(l, 0);
    }
}

static void renewed_at_half_its_life(void **state)
{
    (void)state;
    char folder[] = "/tmp/remora-serving-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    struct ca ca;
    struct err err = { 0 };
    struct arena a = { 0 };
    assert_int_equal(ca_open(&ca, folder, STR("cluster.local"), &err), 0);
    struct loop *l = loop_new(&err);
    uint64_t start = loop_now_ms(l);
    unsigned day = 0;
    loop_set_fake_time(l, start);
    struct str sans[] = { STR("control.test") }, key, cert, last;
    struct serving s = { .ca = &ca, .sans = sans, .san_count = 1, .loop = l, .use = use, .arg = &last };
    assert_int_equal(serving_start(&s, &a, &cert, &key, &err), 0);
    last = str_n(str_dup(cert), cert.n);
    until_day(l, start, &day, 181);
    assert_int_equal(shown, 0);
    until_day(l, start, &day, 184);
    assert_int_equal(shown, 1);
    until_day(l, start, &day, 363);
    assert_int_equal(shown, 1);
    until_day(l, start, &day, 400);
    assert_int_equal(shown, 2);
    serving_stop(&s);
    free((char *)last.p);
    loop_free(l);
    ca_close(&ca);
    arena_fini(&a);
    static const char *const files[] = { "ca-key.pem", "root-cert.pem", "token-key" };
    for (size_t i = 0; i < array_len(files); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(renewed_at_half_its_life) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/control-plane/common.h"

#include "control-plane/token.h"

static void a_token_says_who_and_nothing_else_passes(void **state)
{
    (void)state;
    struct arena a = { 0 };
    uint8_t key[TOKEN_KEY_BYTES] = { 1, 2, 3 }, other[TOKEN_KEY_BYTES] = { 9 };
    struct token_identity who;
    struct str t = token_sign(key, STR("default"), STR("reviews"), 1000, &a);
    assert_true(token_verify(key, t, 999, &a, &who));
    assert_true(str_is(who.ns, "default"));
    assert_true(str_is(who.service_account, "reviews"));
    assert_false(token_verify(key, t, 1000, &a, &who));   // expired
    assert_false(token_verify(other, t, 999, &a, &who));  // other key
    assert_false(token_verify(key, str_n(t.p, t.n - 1), 999, &a, &who));
    assert_false(token_verify(key, STR(""), 999, &a, &who));
    assert_false(token_verify(key, STR("a.b.c"), 999, &a, &who));
    // "alg":"none" with no signature
    assert_false(token_verify(key, STR("eyJhbGciOiJub25lIn0.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6YTpiIn0."), 999, &a, &who));
    for (size_t i = 0; i < t.n; i++) { // any changed byte is refused
        char *copy = str_dup(t);
        copy[i] = copy[i] == 'A' ? 'B' : 'A';
        struct token_identity w;
        bool same_bits = i + 1 == t.n; // the last base64 digit has spare bits
        assert_true(!token_verify(key, str_c(copy), 999, &a, &w) || same_bits);
        free(copy);
    }
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_token_says_who_and_nothing_else_passes) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// Tokens and key sets: the examples of RFC 7515 appendix A and RFC 8037 appendix A, and the vectors of tests/golden/jose.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/file.h"
#include "lib/jose/jwks.h"

static struct jwks *keys_of(const char *text)
{
    struct jwks *k = NULL;
    struct err err = { 0 };
    if (jwks_parse(str_c(text), &k, &err)) {
        fail_msg("%s", err.msg);
    }
    return k;
}

// A whole token is parsed; these examples have payloads that are no claims.
static enum jwt_status check(const char *keys, enum jose_alg alg, const char *token)
{
    struct arena a = { 0 };
    struct jwks *k = keys_of(keys);
    const char *dot = strrchr(token, '.');
    struct jwt t = { .alg = alg, .signing_input = str_n(token, (size_t)(dot - token)) };
    assert_true(jose_b64url_decode(&a, str_c(dot + 1), &t.signature));
    enum jwt_status st = jwks_verify(k, &t);
    jwks_unref(k);
    arena_fini(&a);
    return st;
}

static const char CLAIMS[] = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"; // of A.1 to A.3
#define A1_KEY "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\"}]}"
#define A1_HEAD "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
#define A1_SIG "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
#define A2_KEY                                                                                                         \
    "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-"     \
    "yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdV"    \
    "MTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ\",\"e\":\"AQAB\"}]}"
#define A2_SIG                                                                                                         \
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiu"  \
    "B--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2"    \
    "w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
#define A3_KEY "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}]}"
#define A3_SIG "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
#define A4_KEY                                                                                                         \
    "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-521\",\"x\":\"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk\",\"y\":"  \
    "\"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2\"}]}"
#define A4_SIG                                                                                                         \
    "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7"  \
    "iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"

static void test_rfc7515(void **state)
{
    (void)state;
    char token[2048];
    snprintf(token, sizeof(token), "%s.%s.%s", A1_HEAD, CLAIMS, A1_SIG);
    assert_int_equal(check(A1_KEY, JOSE_HS256, token), JWT_OK);
    assert_int_equal(check(A1_KEY, JOSE_HS384, token), JWT_VERIFICATION);
    snprintf(token, sizeof(token), "eyJhbGciOiJSUzI1NiJ9.%s.%s", CLAIMS, A2_SIG);
    assert_int_equal(check(A2_KEY, JOSE_RS256, token), JWT_OK);
    assert_int_equal(check(A2_KEY, JOSE_PS256, token), JWT_VERIFICATION);
    assert_int_equal(check(A1_KEY, JOSE_RS256, token), JWT_VERIFICATION);
    snprintf(token, sizeof(token), "eyJhbGciOiJFUzI1NiJ9.%s.%s", CLAIMS, A3_SIG);
    assert_int_equal(check(A3_KEY, JOSE_ES256, token), JWT_OK);
    assert_int_equal(check("{\"keys\":[{\"kty\":\"EC\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}]}",
                           JOSE_ES256, token), JWT_OK); // no curve: P-256
    token[30]++;
    assert_int_equal(check(A3_KEY, JOSE_ES256, token), JWT_VERIFICATION);
    assert_int_equal(check(A4_KEY, JOSE_ES512, "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA." A4_SIG), JWT_OK);
    assert_int_equal(check(A4_KEY, JOSE_ES512, "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZB." A4_SIG), JWT_VERIFICATION);
}

static void test_rfc7515_token(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct jwt t;
    char token[2048];
    snprintf(token, sizeof(token), "%s.%s.%s", A1_HEAD, CLAIMS, A1_SIG);
    assert_int_equal(jwt_parse(str_c(token), &a, &t), JWT_OK);
    assert_true(str_is(t.iss, "joe") && t.alg == JOSE_HS256 && t.exp == 1300819380 && t.has_exp && !t.kid.n && t.aud_count == 0);
    assert_int_equal(jwt_check_time(&t, 1300819380, 0), JWT_OK);
    assert_int_equal(jwt_check_time(&t, 1300819381, 0), JWT_EXPIRED);
    assert_int_equal(jwt_check_time(&t, 1300819440, 60), JWT_OK);
    assert_int_equal(jwt_check_time(&t, 1300819441, 60), JWT_EXPIRED);
    t.nbf = 1000;
    assert_int_equal(jwt_check_time(&t, 940, 60), JWT_OK);
    assert_int_equal(jwt_check_time(&t, 939, 60), JWT_NOT_YET_VALID);
    t.nbf = t.exp = UINT64_MAX; // no sum may wrap
    assert_int_equal(jwt_check_time(&t, 1000, UINT64_MAX), JWT_OK);
    assert_int_equal(jwt_check_time(&t, 1000, 60), JWT_NOT_YET_VALID);
    // A.5: no signature at all
    snprintf(token, sizeof(token), "eyJhbGciOiJub25lIn0.%s.", CLAIMS);
    assert_int_equal(jwt_parse(str_c(token), &a, &t), JWT_BAD_FORMAT);
    arena_fini(&a);
}

static void test_rfc8037(void **state)
{
    (void)state;
    static const char key[] = "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}"; // A.2
    static const char token[] = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."                                            // A.4
                                "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_int_equal(check(key, JOSE_EDDSA, token), JWT_OK);
    assert_int_equal(check(key, JOSE_ES256, token), JWT_VERIFICATION);
    assert_int_equal(check(key, JOSE_EDDSA, "fyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
                                            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"), JWT_VERIFICATION);
    assert_int_equal(check(key, JOSE_EDDSA, "eyJhbGciOiJFZERTQSJ9.RXg.hgyY"), JWT_ED25519_LENGTH);
}

// ---- tests/golden/jose ----

enum { GOLDEN_MAX = 4 * 1024 * 1024 };

static struct json *golden(const char *name, struct arena *a)
{
    char path[256];
    struct str text;
    struct json *root = NULL;
    struct err err = { 0 };
    snprintf(path, sizeof(path), "tests/golden/jose/%s", name);
    if (file_read(path, GOLDEN_MAX, a, &text, &err) || json_parse(text, a, &root, &err)) {
        fail_msg("%s: %s", path, err.msg);
    }
    return root;
}

static enum jwt_status parse_set(const struct json *n, struct jwks **ret, struct err *err)
{
    struct buf b = { 0 };
    struct json_writer w;
    jw_init(&w, &b, 0);
    jw_tree(&w, n);
    enum jwt_status st = jwks_parse(buf_pullup(&b, b.len), ret, err);
    buf_clear(&b);
    return st;
}

static const char *id_of(enum jwt_status s)
{
    switch (s) {
#define JWT_STATUS(id, code, text)                                                                                     \
    case JWT_##id:                                                                                                     \
        return #id;
#include "lib/jose/status.def"
#undef JWT_STATUS
    }
    return "?";
}

static const uint64_t NOW = 1795000000; // 2026-11

static enum jwt_status whole_check(const struct jwks *k, struct str token, struct arena *a)
{
    struct jwt t;
    enum jwt_status st = jwt_parse(token, a, &t);
    st = st ? st : jwt_check_time(&t, NOW, 60);
    return st ? st : jwks_verify(k, &t);
}

static void test_tokens(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct jwks *k = NULL;
    struct err err = { 0 };
    struct json *tokens = golden("tokens.json", &a);
    assert_int_equal(parse_set(json_get(golden("keys.json", &a), "all"), &k, &err), JWT_OK);
    assert_int_equal(jwks_count(k), 7);
    assert_true(tokens->count > 200);
    int bad = 0;
    for (const struct json *n = tokens->first; n; n = n->next) {
        const char *got = id_of(whole_check(k, json_str(n, "token"), &a));
        if (!str_is(json_str(n, "want"), got)) {
            bad++;
            print_error("%.*s: %s, want %.*s\n", STR_FMT(n->key), got, STR_FMT(json_str(n, "want")));
        }
    }
    assert_int_equal(bad, 0);
    jwks_unref(k);
    arena_fini(&a);
}

// No token may pass that has one byte more, less or changed; the kept bits of base64url included.
static void test_every_byte_counts(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct jwks *k = NULL;
    struct json *tokens = golden("tokens.json", &a);
    assert_int_equal(parse_set(json_get(golden("keys.json", &a), "all"), &k, NULL), JWT_OK);
    static const char *const names[] = { "hs256", "es256", "eddsa" };
    for (size_t i = 0; i < 3; i++) {
        struct str good = json_str(json_get(tokens, names[i]), "token");
        assert_int_equal(whole_check(k, good, &a), JWT_OK);
        char *m = arena_strdup(&a, good.p);
        for (size_t at = 0; at < good.n; at++) {
            struct arena scratch = { 0 };
            for (const char *c = "Aa_.= "; *c; c++) {
                m[at] = *c;
                if (*c != good.p[at] && whole_check(k, str_n(m, good.n), &scratch) == JWT_OK) {
                    fail_msg("%s passes with '%c' at %zu", names[i], *c, at);
                }
            }
            m[at] = good.p[at];
            arena_fini(&scratch);
        }
        for (size_t n = 0; n < good.n; n++) {
            assert_int_not_equal(whole_check(k, str_n(good.p, n), &a), JWT_OK);
        }
    }
    jwks_unref(k);
    arena_fini(&a);
}

static void test_key_sets(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum jwt_status want;
        const char *why;
    } cases[] = {
        { "all", JWT_OK, NULL },
        { "nokid", JWT_OK, NULL },
        { "x509", JWT_OK, NULL },
        { "mixed", JWT_OK, NULL },
        { "x509_ec", JWT_JWKS_X509_KEY, "get pubkey" },
        { "empty", JWT_JWKS_NO_VALID, "[keys] is empty" },
        { "unknown_kty", JWT_JWKS_NO_VALID, "[kty]" },
        { "off_curve", JWT_JWKS_NO_VALID, "no point" },
        { "weak_rsa", JWT_JWKS_NO_VALID, "2048" },
        { "weak_oct", JWT_JWKS_NO_VALID, "32 for HS256" },
        { "encryption", JWT_JWKS_NO_VALID, "[use]" },
        { "signing_only", JWT_JWKS_NO_VALID, "[key_ops]" },
        { "bad_alg", JWT_JWKS_NO_VALID, "[alg]" },
        { "bad_crv", JWT_JWKS_NO_VALID, "[crv]" },
        { "crv_alg", JWT_JWKS_NO_VALID, "[alg]" },
        { "short_x", JWT_JWKS_NO_VALID, "[x]" },
        { "no_keys", JWT_JWKS_NO_KEYS, "does not have [keys]" },
        { "keys_object", JWT_JWKS_KEYS_TYPE, "not an array" },
        { "array", JWT_JWKS_JSON, "not an object" },
    };
    struct arena a = { 0 };
    struct json *sets = golden("keys.json", &a);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct jwks *k = NULL;
        struct err err = { 0 };
        struct json *n = json_get(sets, cases[i].name);
        assert_non_null(n);
        enum jwt_status st = parse_set(n, &k, &err);
        if (st != cases[i].want || (cases[i].why && !strstr(err.msg, cases[i].why))) {
            fail_msg("%s: %s (%s)", cases[i].name, id_of(st), err.msg);
        }
        jwks_unref(k);
    }
    struct jwks *k = NULL;
    assert_int_equal(jwks_parse(STR("{\"keys\":[],\"keys\":[]}"), &k, NULL), JWT_JWKS_JSON); // which of them?
    assert_int_equal(jwks_parse(STR("\x01"), &k, NULL), JWT_JWKS_JSON);
    assert_int_equal(jwks_parse(STR(""), &k, NULL), JWT_JWKS_JSON);
    arena_fini(&a);
}

// The same token with other key sets.
static void test_selection(void **state)
{
    (void)state;
    static const struct {
        const char *keys, *token;
        enum jwt_status want;
    } cases[] = {
        { "nokid", "kid", JWT_OK },             // the second key; the first one's does not fit
        { "nokid", "es256", JWT_OK },
        { "nokid", "hs256", JWT_VERIFICATION },
        { "x509", "kid", JWT_OK },
        { "x509", "rs512", JWT_OK },
        { "x509", "kid_wrong", JWT_KID_ALG_MISMATCH },
        { "other", "kid", JWT_VERIFICATION },
        { "ps256", "ps256", JWT_OK },
        { "ps256", "rs256", JWT_KID_ALG_MISMATCH }, // RFC 8725 §3.1: a key for one algorithm
        { "ps256", "ps384", JWT_KID_ALG_MISMATCH },
        { "rsa", "rs_as_hs_pem", JWT_VERIFICATION },
        { "rsa", "rs_as_hs_n", JWT_VERIFICATION },
        { "mixed", "kid", JWT_OK },
    };
    struct arena a = { 0 };
    struct json *sets = golden("keys.json", &a), *tokens = golden("tokens.json", &a);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct jwks *k = NULL;
        assert_int_equal(parse_set(json_get(sets, cases[i].keys), &k, NULL), JWT_OK);
        struct str token = json_str(json_get(tokens, cases[i].token), "token");
        enum jwt_status st = whole_check(k, token, &a);
        if (!token.n || st != cases[i].want) {
            fail_msg("%s with %s: %s", cases[i].token, cases[i].keys, id_of(st));
        }
        jwks_unref(k);
    }
    arena_fini(&a);
}

static void test_limits(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct jwt t;
    char *long_token = arena_alloc(&a, JWT_TOKEN_BYTES_MAX + 1);
    memset(long_token, 'A', JWT_TOKEN_BYTES_MAX + 1);
    long_token[3] = long_token[9] = '.';
    assert_int_equal(jwt_parse(str_n(long_token, JWT_TOKEN_BYTES_MAX + 1), &a, &t), JWT_BAD_FORMAT);
    assert_int_equal(jwt_parse(str_n(long_token, JWT_TOKEN_BYTES_MAX), &a, &t), JWT_HEADER_JSON);
    // more keys than are kept
    struct buf b = { 0 };
    buf_append_str(&b, STR("{\"keys\":["));
    for (int i = 0; i < JWKS_KEYS_MAX + 20; i++) {
        buf_printf(&b, "%s{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"%d\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}", i ? "," : "", i);
    }
    buf_append_str(&b, STR("]}"));
    struct jwks *k = NULL;
    assert_int_equal(jwks_parse(buf_pullup(&b, b.len), &k, NULL), JWT_OK);
    assert_int_equal(jwks_count(k), JWKS_KEYS_MAX);
    jwks_ref(k);
    jwks_unref(k);
    jwks_unref(k);
    buf_clear(&b);
    char *text = arena_alloc(&a, JWKS_BYTES_MAX + 1);
    memset(text, ' ', JWKS_BYTES_MAX + 1);
    assert_int_equal(jwks_parse(str_n(text, JWKS_BYTES_MAX + 1), &k, NULL), JWT_JWKS_JSON);
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rfc7515), cmocka_unit_test(test_rfc7515_token), cmocka_unit_test(test_rfc8037), cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_every_byte_counts), cmocka_unit_test(test_key_sets), cmocka_unit_test(test_selection), cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

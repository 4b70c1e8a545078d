// SPDX-License-Identifier: Apache-2.0
// The peer's point of a key exchange: what the lean context leaves out of its check must not let a bad point through.
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/tls/libctx.h"

static const char *const groups[] = { "P-256", "P-384", "P-521" };

// Takes the point as TLS does: encoded, into a key with the group's parameters. Whether a secret came out of it.
static bool derives(EVP_PKEY *own, const unsigned char *point, size_t n)
{
    unsigned char secret[128];
    size_t len = sizeof(secret);
    EVP_PKEY *peer = EVP_PKEY_new();
    EVP_PKEY_CTX *x = EVP_PKEY_CTX_new(own, NULL);
    bool ok = EVP_PKEY_copy_parameters(peer, own) == 1 && EVP_PKEY_set1_encoded_public_key(peer, point, n) == 1 &&
              EVP_PKEY_derive_init(x) == 1 && EVP_PKEY_derive_set_peer(x, peer) == 1 && EVP_PKEY_derive(x, secret, &len) == 1;
    EVP_PKEY_CTX_free(x);
    EVP_PKEY_free(peer);
    ERR_clear_error();
    return ok;
}

static void only_points_of_the_curve(void **st)
{
    (void)st;
    OSSL_LIB_CTX *before = tls_libctx_enter();
    assert_non_null(before); // the lean context is in use
    for (size_t i = 0; i < 3; i++) {
        EVP_PKEY *own = EVP_EC_gen(groups[i]), *peer = EVP_EC_gen(groups[i]);
        unsigned char *point = NULL, infinity = 0;
        size_t n = EVP_PKEY_get1_encoded_public_key(peer, &point);
        assert_true(n > 64);
        assert_true(derives(own, point, n));
        point[n - 1] ^= 1; // not on the curve any more
        assert_false(derives(own, point, n));
        point[n - 1] ^= 1;
        memset(point + 1, 0xff, n / 2); // x is not below the field's prime
        assert_false(derives(own, point, n));
        assert_false(derives(own, &infinity, 1));
        assert_false(derives(own, point, n - 1));
        assert_false(derives(own, point, 0));
        OPENSSL_free(point);
        EVP_PKEY_free(own);
        EVP_PKEY_free(peer);
    }
    tls_libctx_leave(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(only_points_of_the_curve) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

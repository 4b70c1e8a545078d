// SPDX-License-Identifier: Apache-2.0
// Key sets: read or refused with a reason; what is read can be asked about a token of every algorithm.
// fuzz-modules: lib/jose lib/base
#include "lib/base/check.h"
#include "lib/jose/jwks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char signature[132];
    struct jwks *k = NULL;
    struct err err = { 0 };
    if (jwks_parse(str_n(data, n), &k, &err)) {
        CHECK(err.code < 0 && err.msg[0]);
        return 0;
    }
    CHECK(jwks_count(k) > 0 && jwks_count(k) <= JWKS_KEYS_MAX);
    for (int i = 0; i < JOSE_ALG_COUNT && jwks_count(k) < 4; i++) {
        size_t half = jose_algs[i].coordinate ? jose_algs[i].coordinate : 32;
        struct jwt t = { .alg = (enum jose_alg)i, .signing_input = STR("a.b"), .signature = str_n(signature, 2 * half) };
        bool ok = jwks_verify(k, &t) == JWT_OK;
        CHECK(!ok || i == JOSE_EDDSA); // a point of small order takes zeros
    }
    jwks_unref(k);
    return 0;
}

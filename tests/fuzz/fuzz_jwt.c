// SPDX-License-Identifier: Apache-2.0
// Tokens: whatever is taken apart without complaint has its three parts, and passes no key set whose key has not signed it. The first byte chooses
// whether the bytes are a token, or its header and payload in JSON, which get past base64.
// fuzz-modules: lib/jose lib/base
#include <stdlib.h>

#include "lib/base/base64.h"
#include "lib/base/check.h"
#include "lib/jose/jwks.h"

static const char KEYS[] = "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\"},"
                           "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"},"
                           "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}";

static struct str url64(struct arena *a, struct str s)
{
    struct str t = base64_encode(a, s);
    char *p = (char *)t.p;
    while (t.n && p[t.n - 1] == '=') {
        t.n--;
    }
    for (size_t i = 0; i < t.n; i++) {
        p[i] = p[i] == '+' ? '-' : p[i] == '/' ? '_' : p[i];
    }
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct jwks *keys;
    struct arena a = { 0 };
    struct jwt t;
    if (!keys) {
        CHECK(jwks_parse(str_c(KEYS), &keys, NULL) == JWT_OK);
    }
    struct str token = str_n(data, n);
    if (n && data[0] & 1) {
        struct str payload = str_skip(token, 1), header = str_split(&payload, '\0');
        token = arena_printf(&a, "%.*s.%.*s.AAAA", STR_FMT(url64(&a, header)), STR_FMT(url64(&a, payload)));
    }
    if (jwt_parse(token, &a, &t) == JWT_OK) {
        CHECK(t.signing_input.n + 1 < token.n && t.header && t.payload && t.alg < JOSE_ALG_COUNT);
        (void)jwt_check_time(&t, 1795000000, 60);
        CHECK(jwks_verify(keys, &t) != JWT_OK);
    }
    arena_fini(&a);
    return 0;
}

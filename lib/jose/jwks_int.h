// SPDX-License-Identifier: Apache-2.0
// Inside of lib/jose: a key as both halves, reading and verifying, have it.
#ifndef LIB_JOSE_JWKS_INT_H
#define LIB_JOSE_JWKS_INT_H

#include <openssl/evp.h>
#include <stdatomic.h>

#include "lib/jose/jwks.h"

struct jwk {
    struct str kid;            // arena; empty = none
    enum jose_kty kty;
    bool alg_named;            // "alg" is there: tokens of another are not for this key
    uint32_t algs;             // JOSE_ALG_BIT of what it verifies
    EVP_PKEY *key;             // owned; NULL for JOSE_OCT
    // What a verification copies instead of setting it up, NULL where algs has not the bit. Owned. Never used themselves: only copied, which
    // reads them.
    EVP_PKEY_CTX *ready[JOSE_ALG_COUNT]; // RSA, EC
    EVP_MAC_CTX *mac[JOSE_ALG_COUNT];    // oct
};

struct jwks {
    atomic_uint refs;
    struct arena arena;
    struct jwk *keys;
    size_t count;
    EVP_MD *sha256, *sha384, *sha512; // owned
};

// By its length in bytes.
const EVP_MD *jwks_digest(const struct jwks *k, unsigned bytes);

// From members of a JWK into k->key and k->kty, k->algs. False with a static reason.
bool jwk_read(const struct json *n, struct arena *a, struct jwk *k, struct str *ret_oct, const char **ret_why);
// The public RSA key of a certificate.
enum jwt_status jwk_read_x509(struct str pem, struct jwk *k);

#endif

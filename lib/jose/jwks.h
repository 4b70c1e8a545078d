// SPDX-License-Identifier: Apache-2.0
// A set of public keys (JWK Set, RFC 7517 §5): read once, then immutable and counted, so that all threads verify with it.
#ifndef LIB_JOSE_JWKS_H
#define LIB_JOSE_JWKS_H

#include "lib/base/err.h"
#include "lib/jose/jwt.h"

enum {
    JWKS_BYTES_MAX = 1024 * 1024,
    JWKS_KEYS_MAX = 100,       // a token that names no key is tried with each
    JOSE_RSA_BITS_MIN = 2048,  // RFC 7518 §3.3
    JOSE_RSA_BITS_MAX = 8192,  // what a verification may cost
    JOSE_OCT_BYTES_MIN = 32,   // RFC 7518 §3.2: the size of the hash
    JOSE_OCT_BYTES_MAX = 4096,
};

struct jwks;

// Reads {"keys": […]} or a map from key id to X.509 certificate in PEM (RSA keys). Keys that are not usable are passed over, as RFC 7517 §5 asks
// for: unknown kinds, "use" other than "sig", "key_ops" without "verify" (for symmetric keys: too), weak or malformed ones; so are those beyond
// JWKS_KEYS_MAX. *ret has one reference. Else the status, with err = its text and why; err may be NULL.
enum jwt_status jwks_parse(struct str text, struct jwks **ret, struct err *err);
struct jwks *jwks_ref(struct jwks *k);
// NULL is fine. Any thread; the last one frees.
void jwks_unref(struct jwks *k);
size_t jwks_count(const struct jwks *k);

// Whether one of the keys has signed t. A key is asked only when it fits: the same "kid" where both have one, the same "alg" where the key has
// one, and always its own kind and curve, whatever the token says (RFC 8725 §3.1). JWT_OK, JWT_KID_ALG_MISMATCH (none could be asked),
// JWT_ED25519_LENGTH or JWT_VERIFICATION. Any thread.
enum jwt_status jwks_verify(const struct jwks *k, const struct jwt *t);

#endif

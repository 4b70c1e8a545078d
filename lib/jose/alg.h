// SPDX-License-Identifier: Apache-2.0
// Signature algorithms of JSON Web Signatures (RFC 7518 §3.1, RFC 8037 §3.1), and what their keys are.
#ifndef LIB_JOSE_ALG_H
#define LIB_JOSE_ALG_H

#include "lib/base/str.h"

enum jose_kty { JOSE_RSA, JOSE_EC, JOSE_OKP, JOSE_OCT }; // RFC 7518 §6.1, RFC 8037 §2

enum jose_alg {
    JOSE_RS256, JOSE_RS384, JOSE_RS512,
    JOSE_PS256, JOSE_PS384, JOSE_PS512,
    JOSE_ES256, JOSE_ES384, JOSE_ES512,
    JOSE_HS256, JOSE_HS384, JOSE_HS512,
    JOSE_EDDSA,
    JOSE_ALG_COUNT
};
#define JOSE_ALG_BIT(a) (1u << (a))

struct jose_alg_info {
    const char *name;
    enum jose_kty kty;
    unsigned digest;        // bytes of the SHA-2 hash: 32, 48, 64; 0 = the algorithm has its own
    bool pss;               // RSASSA-PSS, else RSASSA-PKCS1-v1_5
    const char *crv;        // the one curve of an ECDSA algorithm
    unsigned coordinate;    // bytes of a coordinate of crv, half a signature
};
extern const struct jose_alg_info jose_algs[JOSE_ALG_COUNT];

// By its name, case-sensitive (RFC 7515 §4.1.1). False: unknown, or "none", which is no signature.
bool jose_alg_find(struct str name, enum jose_alg *ret);

#endif

// SPDX-License-Identifier: Apache-2.0
#include "lib/jose/alg.h"

const struct jose_alg_info jose_algs[JOSE_ALG_COUNT] = {
    [JOSE_RS256] = { "RS256", JOSE_RSA, 32, false, NULL, 0 },
    [JOSE_RS384] = { "RS384", JOSE_RSA, 48, false, NULL, 0 },
    [JOSE_RS512] = { "RS512", JOSE_RSA, 64, false, NULL, 0 },
    [JOSE_PS256] = { "PS256", JOSE_RSA, 32, true, NULL, 0 },
    [JOSE_PS384] = { "PS384", JOSE_RSA, 48, true, NULL, 0 },
    [JOSE_PS512] = { "PS512", JOSE_RSA, 64, true, NULL, 0 },
    [JOSE_ES256] = { "ES256", JOSE_EC, 32, false, "P-256", 32 },
    [JOSE_ES384] = { "ES384", JOSE_EC, 48, false, "P-384", 48 },
    [JOSE_ES512] = { "ES512", JOSE_EC, 64, false, "P-521", 66 },
    [JOSE_HS256] = { "HS256", JOSE_OCT, 32, false, NULL, 0 },
    [JOSE_HS384] = { "HS384", JOSE_OCT, 48, false, NULL, 0 },
    [JOSE_HS512] = { "HS512", JOSE_OCT, 64, false, NULL, 0 },
    [JOSE_EDDSA] = { "EdDSA", JOSE_OKP, 0, false, "Ed25519", 0 },
};

bool jose_alg_find(struct str name, enum jose_alg *ret)
{
    for (int i = 0; i < JOSE_ALG_COUNT; i++) {
        if (str_is(name, jose_algs[i].name)) {
            *ret = (enum jose_alg)i;
            return true;
        }
    }
    return false;
}

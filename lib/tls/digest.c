// SPDX-License-Identifier: Apache-2.0
#include "lib/tls/digest.h"

#include <openssl/evp.h>

bool digest_sha1(struct str s, uint8_t ret[SHA1_BYTES])
{
    return EVP_Digest(s.p, s.n, ret, NULL, EVP_sha1(), NULL) == 1;
}

// SPDX-License-Identifier: Apache-2.0
// Signatures (RFC 7515 §5.2). What does not depend on the token was prepared when the keys were read; a verification copies it.
#include <openssl/crypto.h>
#include <openssl/err.h>

#include "lib/jose/jwks_int.h"

enum { DER_MAX = 2 + 1 + 2 * (2 + 1 + 66) };

// An unsigned number as DER's INTEGER (ITU-T X.690 §8.3) at out; returns the bytes written.
static size_t put_integer(unsigned char *out, const unsigned char *p, size_t n)
{
    while (n > 1 && *p == 0) {
        p++;
        n--;
    }
    size_t pad = *p & 0x80 ? 1 : 0;
    out[0] = 2;
    out[1] = (unsigned char)(n + pad);
    out[2] = 0;
    memcpy(out + 2 + pad, p, n);
    return 2 + pad + n;
}

// R and S side by side (RFC 7518 §3.4) as the sequence that OpenSSL reads (RFC 3279 §2.2.3).
static size_t put_ecdsa(unsigned char out[DER_MAX], struct str sig)
{
    unsigned char body[DER_MAX];
    const unsigned char *p = (const unsigned char *)sig.p;
    size_t half = sig.n / 2, n = put_integer(body, p, half);
    n += put_integer(body + n, p + half, half);
    size_t head = 0;
    out[head++] = 0x30;
    if (n >= 0x80) {
        out[head++] = 0x81;
    }
    out[head++] = (unsigned char)n;
    memcpy(out + head, body, n);
    return head + n;
}

static bool verify_key(const struct jwks *s, const struct jwk *k, const struct jwt *t)
{
    const struct jose_alg_info *alg = &jose_algs[t->alg];
    unsigned char hash[EVP_MAX_MD_SIZE], der[DER_MAX];
    const unsigned char *sig = (const unsigned char *)t->signature.p;
    size_t sig_n = t->signature.n;
    unsigned hash_n = 0;
    if (!k->ready[t->alg]) {
        return false;
    }
    if (alg->kty == JOSE_EC) {
        if (sig_n != 2 * (size_t)alg->coordinate) {
            return false;
        }
        sig_n = put_ecdsa(der, t->signature);
        sig = der;
    }
    if (EVP_Digest(t->signing_input.p, t->signing_input.n, hash, &hash_n, jwks_digest(s, alg->digest), NULL) != 1) {
        return false;
    }
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_dup(k->ready[t->alg]);
    bool ok = c && EVP_PKEY_verify(c, sig, sig_n, hash, hash_n) == 1;
    EVP_PKEY_CTX_free(c);
    return ok;
}

static bool verify_ed25519(const struct jwk *k, const struct jwt *t)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool ok = c && EVP_DigestVerifyInit(c, NULL, NULL, NULL, k->key) == 1 &&
              EVP_DigestVerify(c, (const unsigned char *)t->signature.p, t->signature.n, (const unsigned char *)t->signing_input.p,
                               t->signing_input.n) == 1;
    EVP_MD_CTX_free(c);
    return ok;
}

static bool verify_mac(const struct jwk *k, const struct jwt *t)
{
    unsigned char out[EVP_MAX_MD_SIZE];
    size_t n = 0;
    EVP_MAC_CTX *c = k->mac[t->alg] ? EVP_MAC_CTX_dup(k->mac[t->alg]) : NULL;
    bool ok = c && EVP_MAC_update(c, (const unsigned char *)t->signing_input.p, t->signing_input.n) == 1 &&
              EVP_MAC_final(c, out, &n, sizeof(out)) == 1 && n == t->signature.n && CRYPTO_memcmp(out, t->signature.p, n) == 0;
    EVP_MAC_CTX_free(c);
    OPENSSL_cleanse(out, sizeof(out));
    return ok;
}

static enum jwt_status try_keys(const struct jwks *s, const struct jwt *t)
{
    enum jwt_status st = JWT_KID_ALG_MISMATCH;
    for (size_t i = 0; i < s->count; i++) {
        const struct jwk *k = &s->keys[i];
        bool fits = k->algs & JOSE_ALG_BIT(t->alg);
        if ((t->kid.n && k->kid.n && !str_eq(t->kid, k->kid)) || (k->alg_named && !fits)) {
            continue;
        }
        st = st == JWT_KID_ALG_MISMATCH ? JWT_VERIFICATION : st;
        if (!fits) {
            continue;
        }
        if (k->kty == JOSE_OKP && t->signature.n != 64) { // RFC 8032 §5.1.6
            st = JWT_ED25519_LENGTH;
        } else if (k->kty == JOSE_OKP ? verify_ed25519(k, t) : k->kty == JOSE_OCT ? verify_mac(k, t) : verify_key(s, k, t)) {
            return JWT_OK;
        }
    }
    return st;
}

enum jwt_status jwks_verify(const struct jwks *k, const struct jwt *t)
{
    enum jwt_status st = try_keys(k, t);
    ERR_clear_error(); // TLS on the same thread looks at the queue
    return st;
}

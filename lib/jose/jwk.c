// SPDX-License-Identifier: Apache-2.0
// One key: members of a JWK (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2) to an OpenSSL key.
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "lib/jose/jwks_int.h"

static bool fail(const char **ret_why, const char *why)
{
    *ret_why = why;
    return false;
}

static bool bytes_of(const struct json *n, const char *name, struct arena *a, struct str *ret)
{
    struct str text = json_str(n, name);
    return text.n && jose_b64url_decode(a, text, ret) && ret->n;
}

static struct str without_zeros(struct str s)
{
    while (s.n && s.p[0] == 0) {
        s = str_skip(s, 1);
    }
    return s;
}

static EVP_PKEY *from_params(const char *type, OSSL_PARAM_BLD *b)
{
    EVP_PKEY *key = NULL;
    OSSL_PARAM *params = b ? OSSL_PARAM_BLD_to_param(b) : NULL;
    EVP_PKEY_CTX *ctx = params ? EVP_PKEY_CTX_new_from_name(NULL, type, NULL) : NULL;
    if (ctx && (EVP_PKEY_fromdata_init(ctx) != 1 || EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)) {
        key = NULL;
    }
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    return key;
}

static bool rsa_size_ok(const EVP_PKEY *key)
{
    int bits = EVP_PKEY_get_bits(key);
    return bits >= JOSE_RSA_BITS_MIN && bits <= JOSE_RSA_BITS_MAX;
}

static bool read_rsa(const struct json *n, struct arena *a, struct jwk *k, const char **ret_why)
{
    struct str mod, exp;
    if (!bytes_of(n, "n", a, &mod) || !bytes_of(n, "e", a, &exp)) {
        return fail(ret_why, "[n] or [e] of an RSA key is missing or malformed");
    }
    mod = without_zeros(mod);
    exp = without_zeros(exp);
    // The two exponents that are in use; others cost more or are broken. An even modulus is no product of two primes.
    bool usual = (exp.n == 1 && exp.p[0] == 3) || (exp.n == 3 && memcmp(exp.p, "\x01\x00\x01", 3) == 0);
    if (!usual || mod.n > JOSE_RSA_BITS_MAX / 8 || !mod.n || !(mod.p[mod.n - 1] & 1)) {
        return fail(ret_why, "[n] or [e] of an RSA key is no usable number");
    }
    BIGNUM *bn = BN_bin2bn((const unsigned char *)mod.p, (int)mod.n, NULL), *be = BN_bin2bn((const unsigned char *)exp.p, (int)exp.n, NULL);
    OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
    bool ok = bn && be && b && OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_N, bn) && OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_E, be);
    k->key = ok ? from_params("RSA", b) : NULL;
    OSSL_PARAM_BLD_free(b);
    BN_free(bn);
    BN_free(be);
    if (!k->key || !rsa_size_ok(k->key)) {
        return fail(ret_why, "an RSA key must have 2048 to 8192 bits");
    }
    return true;
}

// The algorithm of a curve, or of "alg" where no curve is named, or ES256 where neither is.
static bool curve_of(const struct json *n, struct str alg, enum jose_alg *ret)
{
    const struct json *crv = json_get(n, "crv");
    if (crv && crv->type != JSON_STRING) {
        return false;
    }
    if (!crv || !crv->text.n) {
        *ret = JOSE_ES256;
        return !alg.n || (jose_alg_find(alg, ret) && jose_algs[*ret].kty == JOSE_EC);
    }
    for (int i = JOSE_ES256; i <= JOSE_ES512; i++) {
        if (str_is(crv->text, jose_algs[i].crv)) {
            *ret = (enum jose_alg)i;
            return true;
        }
    }
    return false;
}

static bool read_ec(const struct json *n, struct str alg, struct arena *a, struct jwk *k, const char **ret_why)
{
    enum jose_alg of;
    struct str x, y;
    unsigned char point[1 + 2 * 66] = { 4 }; // uncompressed, SEC 1 §2.3.3
    if (!curve_of(n, alg, &of)) {
        return fail(ret_why, "[crv] or [alg] of an EC key is not supported");
    }
    size_t size = jose_algs[of].coordinate;
    if (!bytes_of(n, "x", a, &x) || !bytes_of(n, "y", a, &y)) {
        return fail(ret_why, "[x] or [y] of an EC key is missing or malformed");
    }
    x = without_zeros(x);
    y = without_zeros(y);
    if (x.n > size || y.n > size) {
        return fail(ret_why, "[x] or [y] of an EC key is too long for its curve");
    }
    memcpy(point + 1 + size - x.n, x.p, x.n);
    memcpy(point + 1 + 2 * size - y.n, y.p, y.n);
    OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
    bool ok = b && OSSL_PARAM_BLD_push_utf8_string(b, OSSL_PKEY_PARAM_GROUP_NAME, jose_algs[of].crv, 0) &&
              OSSL_PARAM_BLD_push_octet_string(b, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * size);
    k->key = ok ? from_params("EC", b) : NULL; // fails where the point is not on the curve
    OSSL_PARAM_BLD_free(b);
    if (!k->key) {
        return fail(ret_why, "[x] and [y] of an EC key are no point of its curve");
    }
    k->algs = JOSE_ALG_BIT(of);
    return true;
}

static bool read_okp(const struct json *n, struct arena *a, struct jwk *k, const char **ret_why)
{
    struct str x;
    if (!str_is(json_str(n, "crv"), "Ed25519")) {
        return fail(ret_why, "[crv] of an OKP key is not supported");
    }
    if (!bytes_of(n, "x", a, &x) || x.n != 32) {
        return fail(ret_why, "[x] of an OKP key is missing or malformed");
    }
    k->key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, (const unsigned char *)x.p, x.n);
    k->algs = JOSE_ALG_BIT(JOSE_EDDSA);
    return k->key || fail(ret_why, "[x] of an OKP key is no key");
}

static bool read_oct(const struct json *n, struct arena *a, struct jwk *k, struct str *ret_oct, const char **ret_why)
{
    if (!bytes_of(n, "k", a, ret_oct)) {
        return fail(ret_why, "[k] of a symmetric key is missing or malformed");
    }
    if (ret_oct->n > JOSE_OCT_BYTES_MAX) {
        return fail(ret_why, "[k] of a symmetric key is too long");
    }
    for (int i = JOSE_HS256; i <= JOSE_HS512; i++) {
        k->algs |= ret_oct->n >= jose_algs[i].digest ? JOSE_ALG_BIT(i) : 0;
    }
    return k->algs || fail(ret_why, "a symmetric key must have at least as many bytes as the hash, 32 for HS256");
}

// RFC 7517 §4.2, §4.3: what the key is for.
static bool for_signatures(const struct json *n)
{
    const struct json *use = json_get(n, "use"), *ops = json_get(n, "key_ops");
    if (use && !(use->type == JSON_STRING && str_is(use->text, "sig"))) {
        return false;
    }
    bool found = !ops;
    for (const struct json *x = ops && ops->type == JSON_ARRAY ? ops->first : NULL; x; x = x->next) {
        found |= x->type == JSON_STRING && str_is(x->text, "verify");
    }
    return found;
}

static uint32_t rsa_algs(void)
{
    uint32_t set = 0;
    for (int i = JOSE_RS256; i <= JOSE_PS512; i++) {
        set |= JOSE_ALG_BIT(i);
    }
    return set;
}

bool jwk_read(const struct json *n, struct arena *a, struct jwk *k, struct str *ret_oct, const char **ret_why)
{
    struct str kty = json_str(n, "kty"), alg = json_str(n, "alg");
    enum jose_alg named = JOSE_RS256;
    bool ok;
    if (!for_signatures(n)) {
        return fail(ret_why, "a key is not for signatures ([use], [key_ops])");
    }
    if (alg.n && !jose_alg_find(alg, &named)) {
        return fail(ret_why, "[alg] of a key is not supported");
    }
    k->kid = arena_str(a, json_str(n, "kid"));
    k->alg_named = alg.n != 0;
    if (str_is(kty, "RSA")) {
        k->kty = JOSE_RSA;
        k->algs = rsa_algs();
        ok = read_rsa(n, a, k, ret_why);
    } else if (str_is(kty, "EC")) {
        k->kty = JOSE_EC;
        ok = read_ec(n, alg, a, k, ret_why);
    } else if (str_is(kty, "OKP")) {
        k->kty = JOSE_OKP;
        ok = read_okp(n, a, k, ret_why);
    } else if (str_is(kty, "oct")) {
        k->kty = JOSE_OCT;
        ok = read_oct(n, a, k, ret_oct, ret_why);
    } else {
        return fail(ret_why, "[kty] of a key is missing or not supported");
    }
    if (ok && k->alg_named) {
        k->algs &= JOSE_ALG_BIT(named);
        ok = k->algs || fail(ret_why, "[alg] of a key does not go with its [kty], [crv] or size");
    }
    return ok;
}

enum jwt_status jwk_read_x509(struct str pem, struct jwk *k)
{
    BIO *in = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *cert = in ? PEM_read_bio_X509(in, NULL, NULL, NULL) : NULL;
    BIO_free(in);
    if (!cert) {
        return JWT_JWKS_X509;
    }
    k->kty = JOSE_RSA;
    k->algs = rsa_algs();
    k->key = X509_get_pubkey(cert);
    X509_free(cert);
    return k->key && EVP_PKEY_get_base_id(k->key) == EVP_PKEY_RSA && rsa_size_ok(k->key) ? JWT_OK : JWT_JWKS_X509_KEY;
}

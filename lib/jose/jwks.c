// SPDX-License-Identifier: Apache-2.0
#include "lib/jose/jwks.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <stdlib.h>

#include "lib/base/mem.h"
#include "lib/jose/jwks_int.h"

enum { ARENA_BYTES = 512 }; // the keys of a small set; the rest is OpenSSL's

static const char CERT_BEGIN[] = "-----BEGIN CERTIFICATE-----\n", CERT_END[] = "\n-----END CERTIFICATE-----\n";

const EVP_MD *jwks_digest(const struct jwks *k, unsigned bytes)
{
    return bytes == 32 ? k->sha256 : bytes == 48 ? k->sha384 : k->sha512;
}

static void key_fini(struct jwk *k)
{
    for (int i = 0; i < JOSE_ALG_COUNT; i++) {
        EVP_PKEY_CTX_free(k->ready[i]);
        EVP_MAC_CTX_free(k->mac[i]);
    }
    EVP_PKEY_free(k->key);
}

struct jwks *jwks_ref(struct jwks *k)
{
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    return k;
}

void jwks_unref(struct jwks *k)
{
    // Release with the acquire of the last one: who frees sees what others have read.
    if (!k || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (size_t i = 0; i < k->count; i++) {
        key_fini(&k->keys[i]);
    }
    EVP_MD_free(k->sha256);
    EVP_MD_free(k->sha384);
    EVP_MD_free(k->sha512);
    arena_fini(&k->arena);
    free(k);
}

size_t jwks_count(const struct jwks *k)
{
    return k->count;
}

// A context with everything but the signature, for one algorithm. NULL: the library does not do it.
static EVP_PKEY_CTX *make_ready(const struct jwks *s, const struct jwk *k, const struct jose_alg_info *alg)
{
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_pkey(NULL, k->key, NULL);
    bool ok = c && EVP_PKEY_verify_init(c) == 1;
    if (ok && k->kty == JOSE_RSA) {
        ok = EVP_PKEY_CTX_set_rsa_padding(c, alg->pss ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING) == 1;
    }
    ok = ok && EVP_PKEY_CTX_set_signature_md(c, jwks_digest(s, alg->digest)) == 1;
    if (ok && alg->pss) { // RFC 7518 §3.5: the same hash for MGF1, a salt of its length
        ok = EVP_PKEY_CTX_set_rsa_mgf1_md(c, jwks_digest(s, alg->digest)) == 1 && EVP_PKEY_CTX_set_rsa_pss_saltlen(c, (int)alg->digest) == 1;
    }
    if (!ok) {
        EVP_PKEY_CTX_free(c);
        return NULL;
    }
    return c;
}

static EVP_MAC_CTX *make_mac(const struct jose_alg_info *alg, struct str oct)
{
    char digest[16] = "SHA256";
    if (alg->digest != 32) {
        memcpy(digest, alg->digest == 48 ? "SHA384" : "SHA512", 7);
    }
    OSSL_PARAM params[] = { OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end() };
    EVP_MAC *m = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *c = m ? EVP_MAC_CTX_new(m) : NULL;
    EVP_MAC_free(m);
    if (c && EVP_MAC_init(c, (const unsigned char *)oct.p, oct.n, params) != 1) {
        EVP_MAC_CTX_free(c);
        return NULL;
    }
    return c;
}

static bool prepare(struct jwks *s, struct jwk *k, struct str oct)
{
    bool any = k->kty == JOSE_OKP;
    for (int i = 0; i < JOSE_ALG_COUNT; i++) {
        if (!(k->algs & JOSE_ALG_BIT(i)) || k->kty == JOSE_OKP) {
            continue;
        }
        if (k->kty == JOSE_OCT) {
            k->mac[i] = make_mac(&jose_algs[i], oct);
        } else {
            k->ready[i] = make_ready(s, k, &jose_algs[i]);
        }
        any |= k->mac[i] || k->ready[i];
    }
    return any;
}

static enum jwt_status fail(enum jwt_status st, struct err *err, const char *why)
{
    (void)err_set(err, -EINVAL, "%s%s%s", jwt_status_text(st), why ? ": " : "", why ? why : "");
    return st;
}

static enum jwt_status read_keys(struct jwks *s, const struct json *list, struct arena *scratch, struct err *err)
{
    const char *why = list->count ? NULL : "[keys] is empty";
    s->keys = arena_array(&s->arena, struct jwk, (list->count < JWKS_KEYS_MAX ? list->count : JWKS_KEYS_MAX) + 1);
    for (const struct json *n = list->first; n && s->count < JWKS_KEYS_MAX; n = n->next) {
        struct jwk k = { 0 };
        struct str oct = { 0 };
        const char *w = NULL;
        if (jwk_read(n, scratch, &k, &oct, &w) && prepare(s, &k, oct)) {
            k.kid = arena_str(&s->arena, k.kid);
            s->keys[s->count++] = k;
        } else {
            why = why ? why : w; // the first one's
            key_fini(&k);
        }
        if (oct.p) {
            OPENSSL_cleanse((char *)oct.p, oct.n);
        }
    }
    return s->count ? JWT_OK : fail(JWT_JWKS_NO_VALID, err, why);
}

// Whether every member is a certificate in PEM.
static bool is_x509_map(const struct json *root)
{
    for (const struct json *n = root->first; n; n = n->next) {
        if (!n->key.n || n->type != JSON_STRING || !str_starts(n->text, str_c(CERT_BEGIN)) || !str_ends(n->text, str_c(CERT_END))) {
            return false;
        }
    }
    return root->count > 0;
}

static enum jwt_status read_x509(struct jwks *s, const struct json *root, struct err *err)
{
    if (root->count > JWKS_KEYS_MAX) {
        return fail(JWT_JWKS_NO_VALID, err, "more than 100 certificates");
    }
    s->keys = arena_array(&s->arena, struct jwk, root->count);
    for (const struct json *n = root->first; n; n = n->next) {
        struct jwk k = { 0 };
        enum jwt_status st = jwk_read_x509(n->text, &k);
        if (!st && !prepare(s, &k, STR(""))) {
            st = JWT_JWKS_X509_KEY;
        }
        if (st) {
            key_fini(&k);
            return fail(st, err, NULL);
        }
        k.kid = arena_str(&s->arena, n->key);
        s->keys[s->count++] = k;
    }
    return JWT_OK;
}

static enum jwt_status read_set(struct jwks *s, struct str text, struct arena *scratch, struct err *err)
{
    struct json *root;
    if (text.n > JWKS_BYTES_MAX) {
        return fail(JWT_JWKS_JSON, err, "longer than 1 MiB");
    }
    struct err e = { 0 };
    if (json_parse(text, scratch, &root, &e) || root->type != JSON_OBJECT) {
        return fail(JWT_JWKS_JSON, err, e.code ? e.msg : "not an object");
    }
    const struct json *list = json_get(root, "keys");
    if (!list) {
        return is_x509_map(root) ? read_x509(s, root, err) : fail(JWT_JWKS_NO_KEYS, err, NULL);
    }
    return list->type == JSON_ARRAY ? read_keys(s, list, scratch, err) : fail(JWT_JWKS_KEYS_TYPE, err, NULL);
}

enum jwt_status jwks_parse(struct str text, struct jwks **ret, struct err *err)
{
    struct arena scratch = { 0 };
    struct jwks *s = mem_new(struct jwks);
    atomic_init(&s->refs, 1);
    arena_init(&s->arena, ARENA_BYTES, 0);
    s->sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
    s->sha384 = EVP_MD_fetch(NULL, "SHA2-384", NULL);
    s->sha512 = EVP_MD_fetch(NULL, "SHA2-512", NULL);
    enum jwt_status st = s->sha256 && s->sha384 && s->sha512 ? read_set(s, text, &scratch, err)
                                                              : fail(JWT_JWKS_NO_VALID, err, "the cryptographic library has no SHA-2");
    arena_fini(&scratch);
    ERR_clear_error(); // TLS on the same thread looks at the queue
    if (st) {
        jwks_unref(s);
        return st;
    }
    *ret = s;
    return JWT_OK;
}

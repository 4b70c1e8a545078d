// SPDX-License-Identifier: Apache-2.0
#include "lib/tls/cert.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include "lib/base/mem.h"
#include "lib/tls/ossl.h"

static struct str serial_text(const X509 *c, struct arena *a)
{
    BIGNUM *bn = ASN1_INTEGER_to_BN(X509_get0_serialNumber(c), NULL);
    char *hex = bn ? BN_bn2hex(bn) : NULL;
    BN_free(bn);
    if (!hex) {
        return str_n(NULL, 0);
    }
    for (char *p = hex; *p; p++) {
        *p = (char)tolower((unsigned char)*p);
    }
    char *copy = arena_strdup(a, hex);
    OPENSSL_free(hex);
    return str_c(copy);
}

static int info_of(X509 *c, struct arena *a, struct cert_info *ret, struct err *err)
{
    *ret = (struct cert_info){
        .serial_hex = serial_text(c, a),
        .subject = ossl_name_text(X509_get_subject_name(c), a),
        .issuer = ossl_name_text(X509_get_issuer_name(c), a),
        .not_before_s = ossl_time_s(X509_get0_notBefore(c)),
        .not_after_s = ossl_time_s(X509_get0_notAfter(c)),
        .is_ca = X509_check_ca(c) != 0,
    };
    if (ret->not_before_s == INT64_MIN || ret->not_after_s == INT64_MIN) {
        return err_set(err, -EINVAL, "its validity does not parse");
    }
    if (!ossl_names(c, a, &ret->sans, &ret->san_count)) {
        return err_set(err, -EINVAL, "its subject alternative names do not parse");
    }
    return 0;
}

int cert_parse_bundle(struct str pem, struct arena *a, struct cert_info **ret, size_t *ret_count, struct err *err)
{
    ossl_scope_bio *b = ossl_bio(pem);
    if (!b) {
        return err_set(err, -ENOMEM, "certificates: out of memory");
    }
    struct cert_info *v = NULL;
    size_t n = 0, cap = 0;
    bool broken = false;
    int r = 0;
    while (r == 0) {
        ossl_scope_x509 *c = ossl_read_cert(b, &broken);
        if (!c) {
            break;
        }
        if (n == OSSL_PEM_CERTS_MAX) {
            r = err_set(err, -E2BIG, "more than %d certificates in one bundle", OSSL_PEM_CERTS_MAX);
            break;
        }
        mem_grow(&v, &cap, n + 1, sizeof(*v));
        r = info_of(c, a, &v[n], err);
        if (r) {
            err_wrap(err, "certificate %zu of the bundle", n + 1);
        }
        n++;
    }
    if (r == 0 && broken) {
        r = err_set(err, -EINVAL, "certificate %zu of the bundle is not valid PEM", n + 1);
    } else if (r == 0 && n == 0) {
        r = err_set(err, -EINVAL, "no certificate (PEM) found");
    }
    if (r == 0) {
        *ret = arena_array(a, struct cert_info, n);
        memcpy(*ret, v, n * sizeof(*v));
        *ret_count = n;
    }
    free(v);
    return r;
}

static bool has_cert(const STACK_OF(X509) *all, const X509 *c)
{
    for (int i = 0; i < sk_X509_num(all); i++) {
        if (X509_cmp(sk_X509_value(all, i), c) == 0) {
            return true;
        }
    }
    return false;
}

// Adds the certificates of pem that all does not have yet, also as PEM to out.
static int merge_one(struct str pem, STACK_OF(X509) *all, BIO *out, struct err *err)
{
    ossl_scope_bio *b = ossl_bio(pem);
    bool broken = false;
    X509 *c;
    while (b && (c = ossl_read_cert(b, &broken)) != NULL) {
        bool known = has_cert(all, c);
        bool ok = known || (sk_X509_num(all) < OSSL_PEM_CERTS_MAX && PEM_write_bio_X509(out, c) && sk_X509_push(all, c));
        if (known || !ok) {
            X509_free(c);
        }
        if (!ok) {
            return err_set(err, -E2BIG, "more than %d certificates in one bundle", OSSL_PEM_CERTS_MAX);
        }
    }
    return broken ? err_set(err, -EINVAL, "a certificate of the bundle is not valid PEM") : 0;
}

int cert_merge_bundles(const struct str *pems, size_t count, struct arena *a, struct str *ret_pem, struct err *err)
{
    STACK_OF(X509) *all = sk_X509_new_null();
    ossl_scope_bio *out = BIO_new(BIO_s_mem());
    int r = all && out ? 0 : err_set(err, -ENOMEM, "certificates: out of memory");
    for (size_t i = 0; r == 0 && i < count; i++) {
        r = merge_one(pems[i], all, out, err);
    }
    if (r == 0) {
        *ret_pem = ossl_bio_str(out, a);
    }
    sk_X509_pop_free(all, X509_free);
    return r;
}

static EVP_PKEY *new_key(enum key_type t)
{
    switch (t) {
    case KEY_ECDSA_P256:
        return EVP_EC_gen("P-256");
    case KEY_ECDSA_P384:
        return EVP_EC_gen("P-384");
    case KEY_RSA_2048:
        return EVP_RSA_gen(2048);
    case KEY_RSA_3072:
        return EVP_RSA_gen(3072);
    case KEY_RSA_4096:
        return EVP_RSA_gen(4096);
    }
    return NULL;
}

int cert_new_key(enum key_type t, struct arena *a, struct str *ret_pem, struct err *err)
{
    ossl_scope_pkey *k = new_key(t);
    // Secure memory BIOs wipe what they held.
    ossl_scope_bio *b = BIO_new(BIO_s_secmem());
    if (!k || !b || !PEM_write_bio_PKCS8PrivateKey(b, k, NULL, NULL, 0, NULL, NULL)) {
        return ossl_err(err, -EIO, "making a private key");
    }
    *ret_pem = ossl_bio_str(b, a);
    return 0;
}

bool cert_key_matches(struct str cert_pem, struct str key_pem)
{
    ossl_scope_bio *b = ossl_bio(cert_pem);
    bool broken;
    ossl_scope_x509 *c = b ? ossl_read_cert(b, &broken) : NULL;
    ossl_scope_pkey *k = ossl_read_key(key_pem, NULL);
    bool same = c && k && X509_check_private_key(c, k) == 1;
    ERR_clear_error();
    return same;
}

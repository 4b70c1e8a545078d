// SPDX-License-Identifier: Apache-2.0
// The making half of cert.h: requests, a development root, leaf certificates as istiod issues them.
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <time.h>

#include "lib/base/check.h"
#include "lib/tls/cert.h"
#include "lib/tls/ossl.h"

enum {
    BACKDATE_S = 120, // clocks of other machines may lag; istiod uses the same
    SERIAL_BYTES = 16,
    X509_VERSION_3_VALUE = 2,
};

static bool add_ext(X509 *c, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, c, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = e && X509_add_ext(c, e, -1);
    X509_EXTENSION_free(e);
    return ok;
}

static bool push_name(GENERAL_NAMES *names, int type, const void *p, size_t n)
{
    GENERAL_NAME *g = GENERAL_NAME_new();
    ASN1_STRING *s = type == GEN_IPADD ? ASN1_OCTET_STRING_new() : ASN1_IA5STRING_new();
    if (!g || !s || n > INT32_MAX || !ASN1_STRING_set(s, p, (int)n)) {
        GENERAL_NAME_free(g);
        ASN1_STRING_free(s);
        return false;
    }
    GENERAL_NAME_set0_value(g, type, s);
    if (!sk_GENERAL_NAME_push(names, g)) {
        GENERAL_NAME_free(g);
        return false;
    }
    return true;
}

static bool push_dns_or_ip(GENERAL_NAMES *names, struct str s)
{
    unsigned char ip[16];
    char text[INET6_ADDRSTRLEN];
    if (s.n < sizeof(text)) {
        memcpy(text, s.p, s.n);
        text[s.n] = 0;
        if (inet_pton(AF_INET, text, ip) == 1) {
            return push_name(names, GEN_IPADD, ip, 4);
        }
        if (inet_pton(AF_INET6, text, ip) == 1) {
            return push_name(names, GEN_IPADD, ip, 16);
        }
    }
    return push_name(names, GEN_DNS, s.p, s.n);
}

// Subject alternative names of o; NULL on failure.
static GENERAL_NAMES *names_new(struct str uri, const struct str *dns, size_t dns_count)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    bool ok = names && (uri.n == 0 || push_name(names, GEN_URI, uri.p, uri.n));
    for (size_t i = 0; ok && i < dns_count; i++) {
        ok = push_dns_or_ip(names, dns[i]);
    }
    if (!ok) {
        GENERAL_NAMES_free(names);
        return NULL;
    }
    return names;
}

static bool csr_add_uri(X509_REQ *r, struct str uri)
{
    GENERAL_NAMES *names = names_new(uri, NULL, 0);
    STACK_OF(X509_EXTENSION) *exts = NULL;
    // Critical, as the subject is empty (RFC 5280 §4.2.1.6).
    bool ok = names && X509V3_add1_i2d(&exts, NID_subject_alt_name, names, 1, X509V3_ADD_DEFAULT) == 1 &&
              X509_REQ_add_extensions(r, exts) == 1;
    sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
    GENERAL_NAMES_free(names);
    return ok;
}

int cert_new_csr(struct str key_pem, struct str uri_san, struct arena *a, struct str *ret_pem, struct err *err)
{
    ossl_scope_pkey *k = ossl_read_key(key_pem, err);
    if (!k) {
        return -EINVAL;
    }
    ossl_scope_req *r = X509_REQ_new();
    ossl_scope_bio *b = BIO_new(BIO_s_mem());
    bool ok = r && b && X509_REQ_set_version(r, 0) && X509_REQ_set_pubkey(r, k) &&
              (uri_san.n == 0 || csr_add_uri(r, uri_san)) && X509_REQ_sign(r, k, EVP_sha256()) > 0 &&
              PEM_write_bio_X509_REQ(b, r);
    if (!ok) {
        return ossl_err(err, -EIO, "making a certificate request");
    }
    *ret_pem = ossl_bio_str(b, a);
    return 0;
}

static bool set_serial(X509 *c)
{
    unsigned char raw[SERIAL_BYTES];
    if (RAND_bytes(raw, sizeof(raw)) != 1) {
        return false;
    }
    raw[0] &= 0x7f; // positive (RFC 5280 §4.1.2.2)
    raw[0] |= 0x40; // and always of full length
    BIGNUM *bn = BN_bin2bn(raw, sizeof(raw), NULL);
    bool ok = bn && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(c));
    BN_free(bn);
    return ok;
}

static bool set_validity(X509 *c, int64_t from_s, int64_t to_s)
{
    return ASN1_TIME_set(X509_getm_notBefore(c), (time_t)from_s) && ASN1_TIME_set(X509_getm_notAfter(c), (time_t)to_s);
}

int cert_new_ca(struct str key_pem, struct str org, int64_t ttl_s, struct arena *a, struct str *ret_pem, struct err *err)
{
    ossl_scope_pkey *k = ossl_read_key(key_pem, err);
    if (!k) {
        return -EINVAL;
    }
    if (org.n > 64) {
        return err_set(err, -EINVAL, "organisation of a certificate has at most 64 characters");
    }
    ossl_scope_x509 *c = X509_new();
    ossl_scope_bio *b = BIO_new(BIO_s_mem());
    int64_t now = (int64_t)time(NULL);
    bool ok = c && b && X509_set_version(c, X509_VERSION_3_VALUE) && set_serial(c) &&
              set_validity(c, now - BACKDATE_S, now + ttl_s) && X509_set_pubkey(c, k) &&
              X509_NAME_add_entry_by_txt(X509_get_subject_name(c), "O", MBSTRING_UTF8, (const unsigned char *)org.p, (int)org.n,
                                         -1, 0) &&
              X509_set_issuer_name(c, X509_get_subject_name(c)) &&
              add_ext(c, c, NID_basic_constraints, "critical,CA:TRUE") &&
              add_ext(c, c, NID_key_usage, "critical,keyCertSign,cRLSign") &&
              add_ext(c, c, NID_subject_key_identifier, "hash") && X509_sign(c, k, EVP_sha256()) > 0 &&
              PEM_write_bio_X509(b, c);
    if (!ok) {
        return ossl_err(err, -EIO, "making a root certificate");
    }
    *ret_pem = ossl_bio_str(b, a);
    return 0;
}

static X509_REQ *read_csr(struct str pem, struct err *err)
{
    ossl_scope_bio *b = ossl_bio(pem);
    X509_REQ *r = b ? PEM_read_bio_X509_REQ(b, NULL, NULL, (void *)"") : NULL;
    if (!r) {
        ossl_err(err, -EINVAL, "the certificate request is not valid PEM");
        return NULL;
    }
    EVP_PKEY *k = X509_REQ_get0_pubkey(r);
    if (!k || X509_REQ_verify(r, k) != 1) {
        ossl_err(err, -EINVAL, "the signature of the certificate request is wrong");
        X509_REQ_free(r);
        return NULL;
    }
    return r;
}

static bool leaf_extensions(X509 *c, X509 *ca, const struct cert_sign_opts *o)
{
    if (!add_ext(c, ca, NID_basic_constraints, "critical,CA:FALSE") ||
        !add_ext(c, ca, NID_key_usage, "critical,digitalSignature,keyEncipherment") ||
        !add_ext(c, ca, NID_ext_key_usage, "serverAuth,clientAuth") || !add_ext(c, ca, NID_authority_key_identifier, "keyid")) {
        return false;
    }
    if (o->uri_san.n == 0 && o->dns_count == 0) {
        return true;
    }
    GENERAL_NAMES *names = names_new(o->uri_san, o->dns, o->dns_count);
    bool ok = names && X509_add1_ext_i2d(c, NID_subject_alt_name, names, 1, X509V3_ADD_DEFAULT) == 1;
    GENERAL_NAMES_free(names);
    return ok;
}

// A leaf that outlives its issuer would only fail later, far from here.
static int64_t leaf_end(X509 *ca, int64_t ttl_s)
{
    int64_t end = (int64_t)time(NULL) + ttl_s;
    int64_t ca_end = ossl_time_s(X509_get0_notAfter(ca));
    return ca_end != INT64_MIN && ca_end < end ? ca_end : end;
}

int cert_sign_csr(struct str csr_pem, struct str ca_cert_pem, struct str ca_key_pem, const struct cert_sign_opts *o, struct arena *a,
                  struct str *ret_pem, struct err *err)
{
    if (o->ttl_s <= 0) {
        return err_set(err, -EINVAL, "life-time of a certificate must be positive");
    }
    ossl_scope_req *r = read_csr(csr_pem, err);
    if (!r) {
        return -EINVAL;
    }
    ossl_scope_bio *ca_bio = ossl_bio(ca_cert_pem);
    bool broken;
    ossl_scope_x509 *ca = ca_bio ? ossl_read_cert(ca_bio, &broken) : NULL;
    if (!ca) {
        return err_set(err, -EINVAL, "the CA certificate is not valid PEM");
    }
    ossl_scope_pkey *ca_key = ossl_read_key(ca_key_pem, err);
    if (!ca_key) {
        return -EINVAL;
    }
    if (X509_check_private_key(ca, ca_key) != 1) {
        return ossl_err(err, -EINVAL, "the CA key does not belong to the CA certificate");
    }
    ossl_scope_x509 *c = X509_new();
    ossl_scope_bio *b = BIO_new(BIO_s_mem());
    bool ok = c && b && X509_set_version(c, X509_VERSION_3_VALUE) && set_serial(c) &&
              set_validity(c, (int64_t)time(NULL) - BACKDATE_S, leaf_end(ca, o->ttl_s)) &&
              X509_set_pubkey(c, X509_REQ_get0_pubkey(r)) && X509_set_issuer_name(c, X509_get_subject_name(ca)) &&
              leaf_extensions(c, ca, o) && X509_sign(c, ca_key, EVP_sha256()) > 0 && PEM_write_bio_X509(b, c);
    if (!ok) {
        return ossl_err(err, -EIO, "signing a certificate");
    }
    *ret_pem = ossl_bio_str(b, a);
    return 0;
}

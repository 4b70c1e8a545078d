// SPDX-License-Identifier: Apache-2.0
#include "lib/tls/ossl.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <time.h>

void ossl_error_text(char *out, size_t n)
{
    // The first entry is the cause; later ones are callers that noticed. Entries without a reason text say nothing to a person.
    unsigned long e;
    const char *text = NULL;
    while ((e = ERR_get_error()) != 0) {
        if (!text) {
            text = ERR_reason_error_string(e);
        }
    }
    snprintf(out, n, "%s", text ? text : "no reason given");
}

int ossl_err(struct err *err, int code, const char *what)
{
    char text[OSSL_TEXT_MAX];
    ossl_error_text(text, sizeof(text));
    return err_set(err, code, "%s: %s", what, text);
}

BIO *ossl_bio(struct str pem)
{
    if (pem.n > INT32_MAX) {
        return NULL;
    }
    return BIO_new_mem_buf(pem.n ? pem.p : "", (int)pem.n);
}

// OpenSSL's default asks on the terminal, which would hang a proxy.
static int no_password(char *buf, int size, int rwflag, void *u)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)u;
    return -1;
}

X509 *ossl_read_cert(BIO *b, bool *ret_broken)
{
    ERR_clear_error();
    X509 *c = PEM_read_bio_X509(b, NULL, no_password, NULL);
    unsigned long e = ERR_peek_last_error();
    bool at_end = ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    *ret_broken = !c && !at_end;
    return c;
}

EVP_PKEY *ossl_read_key(struct str pem, struct err *err)
{
    ossl_scope_bio *b = ossl_bio(pem);
    ERR_clear_error();
    EVP_PKEY *k = b ? PEM_read_bio_PrivateKey(b, NULL, no_password, NULL) : NULL;
    if (!k) {
        ossl_err(err, -EINVAL, "no usable private key (PEM, not encrypted)");
    }
    ERR_clear_error();
    return k;
}

struct str ossl_bio_str(BIO *b, struct arena *a)
{
    char *p = NULL;
    long n = BIO_get_mem_data(b, &p);
    return arena_str(a, str_n(p, n > 0 ? (size_t)n : 0));
}

static bool san_of(const GENERAL_NAME *g, struct arena *a, struct san *ret)
{
    const ASN1_STRING *s;
    switch (g->type) {
    case GEN_DNS:
        ret->type = SAN_DNS;
        s = g->d.dNSName;
        break;
    case GEN_URI:
        ret->type = SAN_URI;
        s = g->d.uniformResourceIdentifier;
        break;
    case GEN_EMAIL:
        ret->type = SAN_EMAIL;
        s = g->d.rfc822Name;
        break;
    case GEN_IPADD:
        ret->type = SAN_IP;
        s = g->d.iPAddress;
        break;
    default:
        return false;
    }
    struct str v = str_n(ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
    if (g->type == GEN_IPADD) {
        char text[INET6_ADDRSTRLEN];
        if ((v.n != 4 && v.n != 16) || !inet_ntop(v.n == 4 ? AF_INET : AF_INET6, v.p, text, sizeof(text))) {
            return false;
        }
        ret->value = arena_str(a, str_c(text));
        return true;
    }
    if (v.n == 0 || memchr(v.p, 0, v.n)) {
        return false;
    }
    ret->value = arena_str(a, v);
    return true;
}

bool ossl_names(const X509 *c, struct arena *a, struct san **ret, size_t *ret_count)
{
    int crit = 0;
    GENERAL_NAMES *all = X509_get_ext_d2i(c, NID_subject_alt_name, &crit, NULL);
    if (!all) {
        ERR_clear_error();
        *ret = NULL;
        *ret_count = 0;
        return crit == -1; // absent; -2 = twice, ≥ 0 = does not parse
    }
    int n = sk_GENERAL_NAME_num(all);
    struct san *v = arena_array(a, struct san, (size_t)n);
    size_t k = 0;
    for (int i = 0; v && i < n; i++) {
        if (san_of(sk_GENERAL_NAME_value(all, i), a, &v[k])) {
            k++;
        }
    }
    GENERAL_NAMES_free(all);
    *ret = v;
    *ret_count = k;
    return true;
}

int64_t ossl_time_s(const ASN1_TIME *t)
{
    struct tm tm;
    if (!t || !ASN1_TIME_to_tm(t, &tm)) {
        return INT64_MIN;
    }
    return (int64_t)timegm(&tm);
}

struct str ossl_name_text(const X509_NAME *n, struct arena *a)
{
    ossl_scope_bio *b = BIO_new(BIO_s_mem());
    if (!b || X509_NAME_print_ex(b, n, 0, XN_FLAG_RFC2253) < 0) {
        ERR_clear_error();
        return str_n(NULL, 0);
    }
    return ossl_bio_str(b, a);
}

// SPDX-License-Identifier: Apache-2.0
// Shared helpers around OpenSSL: words for its errors, names and times of certificates, PEM without prompts. Inside lib/tls only.
#ifndef LIB_TLS_OSSL_H
#define LIB_TLS_OSSL_H

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "lib/base/arena.h"
#include "lib/base/err.h"
#include "lib/tls/verify.h"

enum { OSSL_TEXT_MAX = 256, OSSL_PEM_CERTS_MAX = 10000 };

// Scope cleanup: `ossl_scope(X509) *c`.
static inline void ossl_free_bio(BIO **b)
{
    BIO_free_all(*b);
}
static inline void ossl_free_x509(X509 **c)
{
    X509_free(*c);
}
static inline void ossl_free_pkey(EVP_PKEY **k)
{
    EVP_PKEY_free(*k);
}
static inline void ossl_free_req(X509_REQ **r)
{
    X509_REQ_free(*r);
}
#define ossl_scope_bio __attribute__((cleanup(ossl_free_bio))) BIO
#define ossl_scope_x509 __attribute__((cleanup(ossl_free_x509))) X509
#define ossl_scope_pkey __attribute__((cleanup(ossl_free_pkey))) EVP_PKEY
#define ossl_scope_req __attribute__((cleanup(ossl_free_req))) X509_REQ

// The most telling entry of this thread's error queue in lower-case words ("certificate verify failed"), "no reason given" when
// the queue is empty. The queue is cleared. out gets at most n bytes.
void ossl_error_text(char *out, size_t n);
// err_set(err, code, "what: text of the queue").
int ossl_err(struct err *err, int code, const char *what);

// Read-only view of pem as a BIO. NULL when out of memory. Borrows pem.
BIO *ossl_bio(struct str pem);
// Next certificate of b. NULL at the end or on a broken block; *ret_broken tells which. Clears the queue.
X509 *ossl_read_cert(BIO *b, bool *ret_broken);
// First private key of pem, never asking for a password. NULL + err.
EVP_PKEY *ossl_read_key(struct str pem, struct err *err);
// Bytes a memory BIO has gathered, copied to the arena.
struct str ossl_bio_str(BIO *b, struct arena *a);

// DNS, URI, e-mail and IP subject alternative names in certificate order, copied to the arena; IP as text. A name with a NUL
// inside is left out: it can only be an attempt to look like another name. false when the extension does not parse.
bool ossl_names(const X509 *c, struct arena *a, struct san **ret, size_t *ret_count);
// Seconds since 1970; INT64_MIN when the time does not parse.
int64_t ossl_time_s(const ASN1_TIME *t);
// RFC 2253 text in the arena.
struct str ossl_name_text(const X509_NAME *n, struct arena *a);

#endif

// SPDX-License-Identifier: Apache-2.0
// A lean OpenSSL library context for handshakes.
//
// OpenSSL 3.0 walks through all decoders (about 70) and key types (about 20) of its providers for every public key that it
// meets in a certificate, which was a third of the time of a handshake. Handshakes here run in a library context of their own,
// whose only provider hands on the default provider's algorithms, but of those two kinds only what certificates in use have.
// The pattern is that of a filtering provider (provider(7)); the algorithms, their code and their state are the default's.
#include "lib/tls/libctx.h"

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/provider.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "lib/base/check.h"

enum { KEPT_MAX = 32 };

static OSSL_PROVIDER *base; // "default" in the process's default context
static OSSL_LIB_CTX *lean;
static OSSL_ALGORITHM decoders[KEPT_MAX + 1], keymgmts[KEPT_MAX + 1]; // end with names = NULL

static bool name_in(const char *names, const char *const *list, size_t n)
{
    size_t first = strcspn(names, ":");
    for (size_t i = 0; i < n; i++) {
        if (strlen(list[i]) == first && strncmp(names, list[i], first) == 0) {
            return true;
        }
    }
    return false;
}

static bool keep_decoder(const OSSL_ALGORITHM *a)
{
    static const char *const keys[] = { "EC", "RSA", "RSA-PSS", "ED25519", "ED448" };
    return name_in(a->algorithm_names, keys, array_len(keys)) && strstr(a->property_definition, "input=der") &&
           strstr(a->property_definition, "structure=SubjectPublicKeyInfo");
}

static bool keep_keymgmt(const OSSL_ALGORITHM *a)
{
    // Besides keys of certificates, those of key exchange, and the MAC of TLS 1.2's older ciphers.
    static const char *const keys[] = { "EC", "RSA", "RSA-PSS", "ED25519", "ED448", "X25519", "X448", "DH", "HMAC" };
    return name_in(a->algorithm_names, keys, array_len(keys));
}

static bool filter(int operation, bool (*keep)(const OSSL_ALGORITHM *), OSSL_ALGORITHM *out)
{
    int no_cache = 0;
    size_t n = 0;
    for (const OSSL_ALGORITHM *a = OSSL_PROVIDER_query_operation(base, operation, &no_cache); a && a->algorithm_names; a++) {
        if (keep(a)) {
            if (n == KEPT_MAX) {
                return false;
            }
            out[n++] = *a;
        }
    }
    return n > 0 && !no_cache;
}

static const OSSL_ALGORITHM *query(void *provctx, int operation, int *no_cache)
{
    (void)provctx;
    *no_cache = 0;
    switch (operation) {
    case OSSL_OP_DECODER:
        return decoders;
    case OSSL_OP_KEYMGMT:
        return keymgmts;
    default:
        return OSSL_PROVIDER_query_operation(base, operation, no_cache);
    }
}

// The default provider's function of this number.
static void (*base_function(int id))(void)
{
    for (const OSSL_DISPATCH *d = OSSL_PROVIDER_get0_dispatch(base); d && d->function_id; d++) {
        if (d->function_id == id) {
            return d->function;
        }
    }
    return NULL;
}

static int provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **provctx)
{
    (void)handle;
    (void)in;
    static OSSL_DISPATCH functions[3];
    functions[0] = (OSSL_DISPATCH){ OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query };
    functions[1] = (OSSL_DISPATCH){ OSSL_FUNC_PROVIDER_GET_CAPABILITIES, base_function(OSSL_FUNC_PROVIDER_GET_CAPABILITIES) };
    // No teardown: the context below belongs to the default provider.
    *provctx = OSSL_PROVIDER_get0_provider_ctx(base);
    *out = functions;
    return functions[1].function != NULL;
}

static void make(void)
{
    // Without the default provider (an operator's FIPS configuration) everything stays as OpenSSL is configured.
    if (!OSSL_PROVIDER_available(NULL, "default") || !(base = OSSL_PROVIDER_load(NULL, "default"))) {
        ERR_clear_error();
        return;
    }
    OSSL_LIB_CTX *c = NULL;
    if (filter(OSSL_OP_DECODER, keep_decoder, decoders) && filter(OSSL_OP_KEYMGMT, keep_keymgmt, keymgmts)) {
        c = OSSL_LIB_CTX_new();
    }
    if (c && OSSL_PROVIDER_add_builtin(c, "remora-lean", provider_init) && OSSL_PROVIDER_load(c, "remora-lean")) {
        lean = c;
    } else {
        OSSL_LIB_CTX_free(c);
    }
    ERR_clear_error();
}

OSSL_LIB_CTX *tls_libctx_enter(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make);
    return lean ? OSSL_LIB_CTX_set0_default(lean) : NULL;
}

void tls_libctx_leave(OSSL_LIB_CTX *before)
{
    if (before) {
        OSSL_LIB_CTX_set0_default(before);
    }
}

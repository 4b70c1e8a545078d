// SPDX-License-Identifier: Apache-2.0
// A lean OpenSSL library context for handshakes.
//
// OpenSSL 3.0 walks through all decoders (about 70) and key types (about 20) of its providers for every public key that it
// meets in a certificate, which was a third of the time of a handshake, and for that it copies the list of every algorithm that
// any fetch has brought into the context. Handshakes here run in a library context of their own, whose only provider hands on
// the default provider's algorithms, but of most kinds only what TLS and certificates in use need. The pattern is that of a
// filtering provider (provider(7)); the algorithms, their code and their state are the default's.
#include "lib/tls/libctx.h"

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "lib/base/check.h"

enum { KEPT_MAX = 32 };

static OSSL_PROVIDER *base; // "default" in the process's default context
static OSSL_LIB_CTX *lean;

// What is handed on of each kind of algorithm, by first name. A kind that is not listed is handed on whole.
enum { NAMES_MAX = 13 };
static struct kept {
    int operation;
    const char *names[NAMES_MAX];
    OSSL_ALGORITHM list[KEPT_MAX + 1]; // ends with names = NULL
} kept[] = {
    { .operation = OSSL_OP_DECODER, .names = { "EC", "RSA", "RSA-PSS", "ED25519", "ED448" } },
    // Besides keys of certificates, those of key exchange, and the MAC of TLS 1.2's older ciphers.
    { .operation = OSSL_OP_KEYMGMT, .names = { "EC", "RSA", "RSA-PSS", "ED25519", "ED448", "X25519", "X448", "DH", "HMAC" } },
    { .operation = OSSL_OP_DIGEST,
      .names = { "SHA1", "SHA2-224", "SHA2-256", "SHA2-384", "SHA2-512", "SHA3-256", "SHA3-384", "SHA3-512", "MD5", "MD5-SHA1" } },
    // For session tickets and the random generator. Those of the records, whatever the cipher list says, come from the SSL_CTX,
    // made in the default context; but OpenSSL looks for these joined forms (TLS 1.2, CBC) when a handshake ends.
    { .operation = OSSL_OP_CIPHER,
      .names = { "AES-128-CBC", "AES-256-CBC", "AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305", "AES-128-CTR", "AES-256-CTR",
                 "AES-128-CBC-HMAC-SHA1", "AES-256-CBC-HMAC-SHA1", "AES-128-CBC-HMAC-SHA256", "AES-256-CBC-HMAC-SHA256" } },
    { .operation = OSSL_OP_MAC, .names = { "HMAC" } },
    { .operation = OSSL_OP_KDF, .names = { "HKDF", "TLS13-KDF", "TLS1-PRF" } },
    { .operation = OSSL_OP_KEYEXCH, .names = { "DH", "ECDH", "X25519", "X448", "TLS1-PRF", "HKDF" } },
    { .operation = OSSL_OP_SIGNATURE, .names = { "RSA", "ED25519", "ED448", "ECDSA", "HMAC" } },
};

static bool keep(const struct kept *k, const OSSL_ALGORITHM *a)
{
    size_t first = strcspn(a->algorithm_names, ":");
    for (size_t i = 0; i < NAMES_MAX && k->names[i]; i++) {
        if (strlen(k->names[i]) == first && strncmp(a->algorithm_names, k->names[i], first) == 0) {
            return k->operation != OSSL_OP_DECODER ||
                   (strstr(a->property_definition, "input=der") && strstr(a->property_definition, "structure=SubjectPublicKeyInfo"));
        }
    }
    return false;
}

// ---- key exchange with a peer's point ----
//
// For every ECDHE OpenSSL multiplies the peer's point by the order of the group to see that it lies in it: a tenth of a handshake.
// On the curves below that says nothing, for they have no other points than those of the group (their cofactor is 1). NIST
// SP 800-56A Rev. 3 §5.6.2.3.4 asks of such an ephemeral key that it is a point of the curve and not the one at infinity, which is
// the default provider's quick check. Any other group or question keeps the full one.

enum { DISPATCH_MAX = 64 };
static OSSL_DISPATCH ec_functions[DISPATCH_MAX]; // the default provider's, with validate replaced
static OSSL_FUNC_keymgmt_validate_fn *ec_validate;
static OSSL_FUNC_keymgmt_get_params_fn *ec_get_params;

static bool is_prime_order_group(const char *name)
{
    return strcmp(name, "prime256v1") == 0 || strcmp(name, "secp384r1") == 0 || strcmp(name, "secp521r1") == 0;
}

static int validate(const void *key, int selection, int check)
{
    char group[32] = "";
    OSSL_PARAM ask[] = { OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof(group)), OSSL_PARAM_construct_end() };
    if (selection == OSSL_KEYMGMT_SELECT_PUBLIC_KEY && ec_get_params((void *)(uintptr_t)key, ask) == 1 && is_prime_order_group(group)) {
        check = OSSL_KEYMGMT_VALIDATE_QUICK_CHECK;
    }
    return ec_validate(key, selection, check);
}

// Puts our validate into a copy of the key type's functions. Without one of the two functions that it needs, all stays as it is.
static void replace_validate(OSSL_ALGORITHM *ec)
{
    size_t n = 0;
    for (const OSSL_DISPATCH *d = ec->implementation; d->function_id; d++) {
        if (n == DISPATCH_MAX - 1) {
            return;
        }
        ec_functions[n] = *d;
        if (d->function_id == OSSL_FUNC_KEYMGMT_VALIDATE) {
            ec_validate = OSSL_FUNC_keymgmt_validate(d);
            ec_functions[n].function = (void (*)(void))validate;
        } else if (d->function_id == OSSL_FUNC_KEYMGMT_GET_PARAMS) {
            ec_get_params = OSSL_FUNC_keymgmt_get_params(d);
        }
        n++;
    }
    if (ec_validate && ec_get_params) {
        ec->implementation = ec_functions;
    }
}

static bool filter(struct kept *k)
{
    int no_cache = 0;
    size_t n = 0;
    for (const OSSL_ALGORITHM *a = OSSL_PROVIDER_query_operation(base, k->operation, &no_cache); a && a->algorithm_names; a++) {
        if (keep(k, a)) {
            if (n == KEPT_MAX) {
                return false;
            }
            k->list[n++] = *a;
            if (k->operation == OSSL_OP_KEYMGMT && strncmp(a->algorithm_names, "EC:", 3) == 0) {
                replace_validate(&k->list[n - 1]);
            }
        }
    }
    return n > 0 && !no_cache;
}

static bool filter_all(void)
{
    for (size_t i = 0; i < array_len(kept); i++) {
        if (!filter(&kept[i])) {
            return false;
        }
    }
    return true;
}

static const OSSL_ALGORITHM *query(void *provctx, int operation, int *no_cache)
{
    (void)provctx;
    *no_cache = 0;
    for (size_t i = 0; i < array_len(kept); i++) {
        if (kept[i].operation == operation) {
            return kept[i].list;
        }
    }
    return OSSL_PROVIDER_query_operation(base, operation, no_cache);
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
    if (filter_all()) {
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

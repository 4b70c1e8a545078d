// SPDX-License-Identifier: Apache-2.0
// The OpenSSL library context that handshakes run in; see libctx.c for why.
#ifndef LIB_TLS_LIBCTX_H
#define LIB_TLS_LIBCTX_H

#include <openssl/crypto.h>

// Makes it this thread's default. Returns the one before for tls_libctx_leave; NULL when there is nothing to change back.
// Whatever runs in between may use keys of any context, but must not read private keys.
OSSL_LIB_CTX *tls_libctx_enter(void);
void tls_libctx_leave(OSSL_LIB_CTX *before);

#endif

// SPDX-License-Identifier: Apache-2.0
// What the first bytes of a TLS connection say: server name and ALPN offer of a ClientHello (RFC 8446 §4.1.2, RFC 6066 §3, RFC 7301 §3.1).
// Pure: bytes in, views out; hostile input is the normal case.
#ifndef PROXY_FILTERS_LISTENER_TLS_HELLO_H
#define PROXY_FILTERS_LISTENER_TLS_HELLO_H

#include "lib/base/str.h"

enum {
    TLS_HELLO_BYTES_MAX = 64 * 1024, // handshake message; longer ones are not TLS to us
    TLS_HELLO_RECORDS_MAX = 64,      // a ClientHello in more pieces than this is made to hurt
    TLS_HELLO_ALPN_MAX = 16,         // further names are left out
    TLS_HELLO_NAME_MAX = 255,
    // All that needs to be looked at: the message and its record headers.
    TLS_HELLO_WIRE_MAX = TLS_HELLO_BYTES_MAX + 5 * TLS_HELLO_RECORDS_MAX,
};

enum tls_hello_result { TLS_HELLO_MORE, TLS_HELLO_FOUND, TLS_HELLO_NOT_TLS };

struct tls_hello {
    struct str server_name; // first host_name, may be empty; as sent
    struct str alpn[TLS_HELLO_ALPN_MAX];
    size_t alpn_count;
    char *joined; // owned when the message came in several records: views point into it; tls_hello_fini
};

// bytes: all that came so far, from the start. FOUND fills *ret (tls_hello_fini afterwards). MORE: the beginning fits, bytes are missing.
enum tls_hello_result tls_hello_parse(struct str bytes, struct tls_hello *ret);
void tls_hello_fini(struct tls_hello *h);

#endif

// SPDX-License-Identifier: Apache-2.0
// TLS as a transport of a connection (lib/net/transport.h).
#ifndef LIB_TLS_TRANSPORT_TLS_H
#define LIB_TLS_TRANSPORT_TLS_H

#include "lib/net/conn.h"
#include "lib/tls/tls_ctx.h"
#include "lib/tls/verify.h"

// Per-endpoint session cache slot for resumption; owned by the caller, one thread. Zero-initialised is empty.
struct tls_session_slot {
    void *session; // SSL_SESSION, owned
};
void tls_session_slot_fini(struct tls_session_slot *s);

struct tls_client_opts {
    struct str sni;                 // empty = none
    const struct str *alpn;         // offered in this order; borrowed during the call
    size_t alpn_count;
    const struct san_matcher *sans; // borrowed until the connection ends
    size_t san_count;
    struct tls_session_slot *session; // NULL = no resumption; must outlive the connection
};

struct tls_server_opts {
    const struct san_matcher *sans; // borrowed until the connection ends
    size_t san_count;
};

// Facts of a finished handshake, owned by the transport, valid while it lives.
struct tls_info {
    const char *version;     // "TLSv1.3"
    const char *cipher;      // OpenSSL name
    struct str alpn;         // negotiated, may be empty
    struct str sni;          // server: what the client sent
    bool resumed;
    bool peer_cert;          // the peer presented a certificate and its chain was checked
    struct str peer_uri;     // first URI SAN (SPIFFE id), may be empty
    struct str peer_subject; // RFC 2253
    struct str peer_dns;     // DNS SANs, comma-separated
    const struct str *peer_uris, *peer_dns_names; // all URI and all DNS SANs, in the certificate's order
    size_t peer_uri_count, peer_dns_count;
    struct str local_uri;    // first URI SAN of our own certificate
    struct str peer_sha256;  // hex of the certificate's SHA-256
    struct str peer_pem;     // the certificate, where somebody wants it (tls_want_peer_pem)
};

// Both take a reference on ctx. NULL only when OpenSSL is out of memory.
struct transport *transport_tls_client(struct tls_ctx *ctx, const struct tls_client_opts *o);
struct transport *transport_tls_server(struct tls_ctx *ctx, const struct tls_server_opts *o);
// NULL when the connection has no TLS transport or the handshake is not done.
const struct tls_info *transport_tls_info(const struct conn *c);
// From now on tls_info.peer_pem is there: certificates are not kept otherwise. Any thread.
void tls_want_peer_pem(void);

#endif

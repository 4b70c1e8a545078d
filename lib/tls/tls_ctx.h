// SPDX-License-Identifier: Apache-2.0
// Immutable TLS contexts, one per distinct (certificate, roots, parameters), counted and shared by workers and clusters.
// What differs per connection (SNI, ALPN offer, expected names) is in struct tls_client_opts / tls_server_opts.
#ifndef LIB_TLS_TLS_CTX_H
#define LIB_TLS_TLS_CTX_H

#include "lib/base/err.h"
#include "lib/base/str.h"

struct tls_ctx;

// How long sessions may be resumed, and by whom; how a handshake is chosen. Zero is the usual.
struct tls_policy {
    uint32_t session_s;  // server: how long a session may be resumed (DownstreamTlsContext.session_timeout); 0 = an hour
    bool no_tickets;     // server: nobody resumes over TLS 1.3, where tickets are the only way (…disable_stateless_session_resumption)
    bool no_session_ids; // server: nobody resumes over TLS 1.2 and before (…disable_stateful_session_resumption)
    bool client_order;   // server: ciphers by the client's preference (…prefer_client_ciphers)
    bool no_resumption;  // client: keeps no sessions (UpstreamTlsContext.max_session_keys 0)
    bool rsa_usage;      // client: an RSA certificate whose key usage forbids what the handshake does is refused (…enforce_rsa_key_usage)
};

enum tls_version { TLS_VERSION_AUTO, TLS_V1_0, TLS_V1_1, TLS_V1_2, TLS_V1_3 };

// All views are borrowed during the call. Follows tls.v3.CommonTlsContext.
struct tls_ctx_params {
    bool server;
    struct str cert_chain_pem; // empty = none (client without certificate)
    struct str key_pem;
    struct str ca_pem;         // empty = no roots
    struct str crl_pem;        // empty = none
    bool verify_peer;          // require and check the peer's chain against ca_pem; server: client certificate asked for
    bool require_peer_cert;    // server: refuse clients without a certificate
    enum tls_version min_version, max_version; // AUTO: 1.2 … 1.3
    struct str ciphers;        // OpenSSL list for ≤ 1.2, ':' between; empty = default
    struct str curves;         // ':' between; empty = default
    const struct str *alpn;    // server: protocols it selects from, in its order of preference
    size_t alpn_count;
    struct tls_policy policy;
};

// Parses and checks everything (key matches certificate, at least one root when verify_peer). The error names the part.
int tls_ctx_new(const struct tls_ctx_params *p, struct tls_ctx **ret, struct err *err);
struct tls_ctx *tls_ctx_ref(struct tls_ctx *c); // any thread
void tls_ctx_unref(struct tls_ctx *c);          // any thread; NULL is fine
// Process-wide count of contexts alive, for tests and admin.
size_t tls_ctx_live(void);
// Whether versions, ciphers, curves, ALPN names and policy of p can be had, certificates and roots left out: they may come later.
int tls_ctx_check(const struct tls_ctx_params *p, struct err *err);

#endif

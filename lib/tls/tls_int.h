// SPDX-License-Identifier: Apache-2.0
// What the files of lib/tls share: the context, the state of one TLS transport, facts of peers, and OpenSSL's callbacks.
#ifndef LIB_TLS_TLS_INT_H
#define LIB_TLS_TLS_INT_H

#include <openssl/ssl.h>
#include <stdatomic.h>

#include "lib/base/arena.h"
#include "lib/tls/transport_tls.h"

struct tls_ctx {
    _Atomic unsigned refs;
    uint64_t serial; // never used twice in a process: names the policy in caches and sessions
    bool server, verify_peer, has_crl;
    SSL_CTX *ssl;        // owned
    unsigned char *alpn; // owned; server: own protocols in wire form (RFC 7301 §3.1), by preference
    unsigned alpn_len;
    char *local_uri;     // owned; first URI SAN of our certificate, may be NULL
};

// Facts of one peer certificate, shared by all connections of this thread with that peer. Not atomic: one thread.
struct tls_peer {
    unsigned refs;
    unsigned char sha[32]; // SHA-256 of the certificate
    int64_t not_after_s;
    bool names_ok; // the SAN extension parsed
    struct san *names;
    size_t name_count;
    struct str uri, dns, subject, sha_hex;
    struct arena arena;
};

struct tls_conn {
    struct transport t;
    struct tls_ctx *ctx;            // ref
    SSL *ssl;                       // owned
    const struct san_matcher *sans; // borrowed
    size_t san_count;
    struct tls_session_slot *slot;  // borrowed; client
    struct tls_peer *peer;          // ref; NULL without certificate
    struct tls_info *info;          // owned; made on first demand
    char *detail;                   // owned; what conn->close_detail points to
    struct buf left;                // records that the kernel has not taken yet
    int raw_err;                    // negative errno of the last raw read or write that failed for good
    bool raw_eof;                   // the socket ended
    bool done;                      // handshake finished
    bool got_ticket; // a session ticket came during this read
    bool more;                      // decrypted or undecrypted bytes may wait inside
};

// peer.c
// Facts of c from this thread's cache, or new. A reference. NULL when out of memory.
struct tls_peer *tls_peer_of(X509 *c);
void tls_peer_unref(struct tls_peer *p);
// Chains found good on this thread, by context and SHA-256 of every certificate sent. Time of day in seconds.
struct tls_chain_key {
    unsigned char sha[32];
};
bool tls_chain_key(const struct tls_ctx *ctx, const struct tls_peer *p, STACK_OF(X509) *sent, struct tls_chain_key *ret);
bool tls_chain_known(const struct tls_chain_key *k, int64_t now_s);
void tls_chain_remember(const struct tls_chain_key *k, int64_t until_s);
int64_t tls_now_s(void);
// Whether the names of p satisfy the matchers; on false, out says in words which names met which expectations.
bool tls_peer_names_match(const struct tls_peer *p, const struct san_matcher *m, size_t count, char *out, size_t n);

// hooks.c: OpenSSL's callbacks. SSL_get_app_data is the struct tls_conn.
int tls_hook_verify(X509_STORE_CTX *x, void *ctx);
int tls_hook_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned in_len, void *ctx);
int tls_hook_new_session(SSL *ssl, SSL_SESSION *s);
SSL_TICKET_RETURN tls_hook_ticket(SSL *ssl, SSL_SESSION *s, const unsigned char *name, size_t name_len, SSL_TICKET_STATUS st,
                                  void *arg);
// Offers the slot's session when it was made under the same context and its peer would still be accepted; else empties the slot.
void tls_offer_session(struct tls_conn *t);
// Sets t->detail (kept when one is set already).
__attribute__((format(printf, 2, 3))) void tls_say(struct tls_conn *t, const char *fmt, ...);

#endif

// SPDX-License-Identifier: Apache-2.0
// What the files of lib/tls share: the context, the state of one TLS transport, facts of peers, and OpenSSL's callbacks.
#ifndef LIB_TLS_TLS_INT_H
#define LIB_TLS_TLS_INT_H

#include <openssl/ssl.h>
#include <stdatomic.h>

#include "lib/base/arena.h"
#include "lib/tls/record13.h"
#include "lib/tls/transport_tls.h"

struct tls_ctx {
    _Atomic unsigned refs;
    uint64_t serial; // never used twice in a process: names the policy in caches and sessions
    bool server, verify_peer, has_crl;
    struct tls_policy policy;
    SSL_CTX *ssl;        // owned
    struct tls_sessions *sessions; // owned; server: what clients may resume
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
    struct str *uris, *dns_names; // those of names; arena
    size_t uri_count, dns_count;
    struct str pem;      // of the certificate, where tls_want_peer_pem was called before; empty = not kept
    struct arena arena;
};

// What is needed during the handshake only.
struct tls_handshake {
    uint8_t secret[2][RECORD13_SECRET_MAX]; // application traffic secrets of client and server (RFC 8446 §7.1)
    bool have[2];
    uint64_t sent; // records sent since our Finished, that is under the application keys
};

// A TLS connection. First OpenSSL does the handshake. With TLS 1.3 the records are ours from then on (own) and OpenSSL's object
// goes; a client with a session slot keeps it until the first ticket or data came. With TLS 1.2 OpenSSL stays to the end.
struct tls_conn {
    struct transport t;
    struct tls_ctx *ctx;            // ref
    SSL *ssl;                       // owned; NULL when no longer needed
    const struct san_matcher *sans; // borrowed
    size_t san_count;
    struct tls_session_slot *slot;  // borrowed; client
    struct tls_peer *peer;          // ref; NULL without certificate
    struct tls_info *info;          // owned; made when the handshake is done
    struct tls_handshake *hs;       // owned; NULL after the handshake
    char *detail;                   // owned; what conn->close_detail points to
    struct buf raw;                 // received records not opened yet
    struct buf left;                // records that the kernel has not taken yet
    struct str feed;                // borrowed: the record that OpenSSL is to look at while the records are ours
    struct record13 rec;            // when own
    int raw_err;                    // negative errno of the last raw read or write that failed for good
    uint32_t msg_left;              // bytes of a handshake message still to come
    uint8_t msg_head[4];            // its type and length
    uint8_t msg_have;               // bytes of that
    uint8_t quiet;                  // records without data in a row
    bool raw_eof;                   // the socket ended
    bool done;                      // handshake finished
    bool own;                       // records are ours
    bool sent_close, got_close;     // close_notify, when own
    bool owe_update;                // the peer asked for new keys while the kernel took nothing: our KeyUpdate goes ahead of the next data
    bool got_ticket;                // a session ticket came during this call
    bool more;                      // unopened or undelivered bytes may wait inside
};

// Memory that every thread with TLS has once, made on first use and freed with the thread; what is in it is over when a call
// returns. received: between two calls only the beginning of one record can be left, and that is kept by its connection.
enum { TLS_BATCH_BYTES = 64 * 1024, TLS_READ_BYTES = 64 * 1024 };
struct tls_scratch {
    char batch[TLS_BATCH_BYTES];
    char received[TLS_READ_BYTES + RECORD13_MAX];
};

// rawio.c: between us and the socket. Records of one call are gathered and leave with one write.
struct tls_scratch *tls_scratch_get(void); // never NULL
void tls_batch_begin(struct tls_conn *t);
void tls_batch_end(struct tls_conn *t); // hands them to the kernel; what it refuses goes to t->left
// Room for n ≤ TLS_BATCH_BYTES bytes in the batch; tls_batch_put says how many were used.
char *tls_batch_room(struct tls_conn *t, size_t n);
void tls_batch_put(size_t n);
// Retries what the kernel refused before. IO_ERROR: t->raw_err is set.
enum io tls_flush_left(struct tls_conn *t);
BIO *tls_bio_new(struct tls_conn *t);

// established.c: TLS 1.3 after the handshake, without OpenSSL's connection object.
// Takes the records over when that is possible; t->own tells.
void tls_take_over(struct tls_conn *t);
enum io tls_own_read(struct tls_conn *t, struct buf *in, size_t want);
enum io tls_own_write(struct tls_conn *t, struct buf *out); // between tls_batch_begin and _end
void tls_own_close(struct tls_conn *t);                     // close_notify, once; between tls_batch_begin and _end

// transport_tls.c
// Says why (kept when something was said), from t->raw_err or OpenSSL's queue, which is cleared. IO_ERROR.
enum io tls_fail(struct tls_conn *t, const char *phase);
void tls_drop_ssl(struct tls_conn *t);
const char *tls_alert_name(unsigned description); // RFC 8446 §6, in words

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
int tls_hook_new_session(SSL *ssl, SSL_SESSION *s); // client
// Whether a connection may resume s: a full handshake with the certificate of then would be accepted now.
bool tls_session_allowed(const struct tls_conn *t, SSL_SESSION *s);
// For both: what tls_take_over needs to know.
void tls_hook_keys(const SSL *ssl, const char *line);
void tls_hook_message(int sent, int version, int type, const void *p, size_t n, SSL *ssl, void *arg);
// sessions.c: what a server remembers of its clients. The hooks may run on several threads at once.
struct tls_sessions *tls_sessions_new(void);
void tls_sessions_free(struct tls_sessions *s);
int tls_hook_keep_session(SSL *ssl, SSL_SESSION *s);
SSL_SESSION *tls_hook_find_session(SSL *ssl, const unsigned char *id, int len, int *copy);
void tls_hook_drop_session(SSL_CTX *ssl_ctx, SSL_SESSION *s);
// Offers the slot's session when it was made under the same context and its peer would still be accepted; else empties the slot.
void tls_offer_session(struct tls_conn *t);
// Sets t->detail (kept when one is set already).
__attribute__((format(printf, 2, 3))) void tls_say(struct tls_conn *t, const char *fmt, ...);

#endif

// SPDX-License-Identifier: Apache-2.0
// Sessions that clients of a server context may resume.
//
// They stay here, and the client's ticket is only their number (RFC 8446 §4.6.1 leaves that open; RFC 5077 is not used). Tickets
// with the session inside would cost a tenth of every handshake: OpenSSL 3.0 encodes the session for them, with the client's
// certificate, decodes that again and encodes it once more. The price is memory, so the table is small and the oldest goes first.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/mem.h"
#include "lib/tls/tls_int.h"

enum { SETS = 64, WAYS = 4 }; // 256 sessions, some 5 KB each with the certificate

struct tls_sessions {
    pthread_mutex_t lock; // workers share the context; held for a few comparisons
    uint64_t clock;       // counts what was kept
    struct {
        SSL_SESSION *session; // owned, or NULL
        uint64_t kept;        // clock then
    } slot[SETS][WAYS];
};

struct tls_sessions *tls_sessions_new(void)
{
    struct tls_sessions *s = mem_new(struct tls_sessions);
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void tls_sessions_free(struct tls_sessions *s)
{
    if (!s) {
        return;
    }
    for (int i = 0; i < SETS; i++) {
        for (int k = 0; k < WAYS; k++) {
            SSL_SESSION_free(s->slot[i][k].session);
        }
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

// Session ids are random bytes of ours.
static unsigned set_of(const unsigned char *id, size_t n)
{
    return n > 0 ? id[0] % SETS : 0;
}

static bool is_session(SSL_SESSION *s, const unsigned char *id, size_t n)
{
    unsigned len = 0;
    const unsigned char *own = s ? SSL_SESSION_get_id(s, &len) : NULL;
    return own && len == n && memcmp(own, id, n) == 0;
}

int tls_hook_keep_session(SSL *ssl, SSL_SESSION *s)
{
    const struct tls_conn *t = SSL_get_app_data(ssl);
    unsigned n = 0;
    const unsigned char *id = SSL_SESSION_get_id(s, &n);
    if (!t || !t->ctx->sessions || n == 0 || (t->ctx->policy.no_session_ids && SSL_version(ssl) < TLS1_3_VERSION)) {
        return 0;
    }
    struct tls_sessions *all = t->ctx->sessions;
    pthread_mutex_lock(&all->lock);
    unsigned set = set_of(id, n), k = 0;
    for (unsigned i = 0; i < WAYS; i++) {
        if (is_session(all->slot[set][i].session, id, n)) {
            k = i;
            break;
        }
        k = all->slot[set][i].kept < all->slot[set][k].kept ? i : k;
    }
    SSL_SESSION *old = all->slot[set][k].session;
    all->slot[set][k].session = s;
    all->slot[set][k].kept = ++all->clock;
    pthread_mutex_unlock(&all->lock);
    SSL_SESSION_free(old);
    return 1; // the reference is ours now
}

SSL_SESSION *tls_hook_find_session(SSL *ssl, const unsigned char *id, int len, int *copy)
{
    *copy = 0; // the reference that is returned is the caller's
    struct tls_conn *t = SSL_get_app_data(ssl);
    if (!t || !t->ctx->sessions || len <= 0) {
        return NULL;
    }
    struct tls_sessions *all = t->ctx->sessions;
    SSL_SESSION *found = NULL;
    pthread_mutex_lock(&all->lock);
    for (unsigned i = 0, set = set_of(id, (size_t)len); i < WAYS && !found; i++) {
        SSL_SESSION *s = all->slot[set][i].session;
        found = is_session(s, id, (size_t)len) && SSL_SESSION_up_ref(s) ? s : NULL;
    }
    pthread_mutex_unlock(&all->lock);
    // CVE-2022-21654: a resumed session must pass what a full handshake would have to pass. If not, do a full one.
    if (found && !tls_session_allowed(t, found)) {
        SSL_SESSION_free(found);
        return NULL;
    }
    return found;
}

// OpenSSL calls this when a connection of the session ended with a fatal alert.
void tls_hook_drop_session(SSL_CTX *ssl_ctx, SSL_SESSION *s)
{
    struct tls_ctx *c = SSL_CTX_get_app_data(ssl_ctx);
    if (!c || !c->sessions) {
        return;
    }
    SSL_SESSION *dropped = NULL;
    pthread_mutex_lock(&c->sessions->lock);
    for (int i = 0; i < SETS * WAYS && !dropped; i++) {
        if (c->sessions->slot[i / WAYS][i % WAYS].session == s) {
            dropped = s;
            c->sessions->slot[i / WAYS][i % WAYS].session = NULL;
            c->sessions->slot[i / WAYS][i % WAYS].kept = 0;
        }
    }
    pthread_mutex_unlock(&c->sessions->lock);
    SSL_SESSION_free(dropped);
}

// SPDX-License-Identifier: Apache-2.0
// Facts of peer certificates and chains already found good. A mesh meets few distinct certificates again and again; looking
// them up by hash saves the parsing of names and the signature checks of a full handshake. Both caches are per thread, of
// fixed size, and an entry simply gives way to another one with the same slot.
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "lib/base/base64.h"
#include "lib/base/check.h"
#include "lib/tls/ossl.h"
#include "lib/tls/tls_int.h"

enum {
    CACHE_SLOTS = 128,         // power of two
    CHAIN_TTL_S = 3600,        // look again at least this often
    CHAIN_SENT_MAX = 10,       // longer chains are not cached
    DNS_TEXT_MAX = 2048,
};

struct chain_entry {
    struct tls_chain_key key;
    int64_t until_s; // 0 = empty
};
struct cache {
    struct tls_peer *peers[CACHE_SLOTS]; // refs
    struct chain_entry chains[CACHE_SLOTS];
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t cache_key; // only for its destructor at the end of a thread
static EVP_MD *sha256;          // fetched once: an implicit fetch per digest costs a look-up under a lock
static _Thread_local struct cache *cache;

static void cache_free(void *arg)
{
    struct cache *c = arg;
    for (size_t i = 0; i < CACHE_SLOTS; i++) {
        tls_peer_unref(c->peers[i]);
    }
    free(c);
    cache = NULL;
}

static void init_once(void)
{
    CHECK(pthread_key_create(&cache_key, cache_free) == 0);
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
}

static struct cache *cache_get(void)
{
    if (__builtin_expect(!cache, 0)) {
        pthread_once(&once, init_once);
        cache = calloc(1, sizeof(*cache));
        if (cache) {
            pthread_setspecific(cache_key, cache);
        }
    }
    return sha256 ? cache : NULL;
}

static size_t slot_of(const unsigned char *sha)
{
    return (sha[0] | (size_t)sha[1] << 8) & (CACHE_SLOTS - 1);
}

int64_t tls_now_s(void)
{
    return (int64_t)time(NULL);
}

static struct str first_uri(const struct tls_peer *p)
{
    for (size_t i = 0; i < p->name_count; i++) {
        if (p->names[i].type == SAN_URI) {
            return p->names[i].value;
        }
    }
    return str_n(NULL, 0);
}

static size_t names_of(struct tls_peer *p, enum san_type type, struct str **ret)
{
    size_t n = 0;
    *ret = arena_array(&p->arena, struct str, p->name_count + 1);
    for (size_t i = 0; i < p->name_count; i++) {
        if (p->names[i].type == type) {
            (*ret)[n++] = p->names[i].value;
        }
    }
    return n;
}

static struct str dns_text(struct tls_peer *p)
{
    char text[DNS_TEXT_MAX];
    size_t n = 0;
    for (size_t i = 0; i < p->name_count; i++) {
        struct str v = p->names[i].value;
        if (p->names[i].type == SAN_DNS && n + v.n + 1 < sizeof(text)) {
            if (n) {
                text[n++] = ',';
            }
            memcpy(text + n, v.p, v.n);
            n += v.n;
        }
    }
    return n ? arena_str(&p->arena, str_n(text, n)) : str_n(NULL, 0);
}

static atomic_bool pem_wanted;

void tls_want_peer_pem(void)
{
    atomic_store_explicit(&pem_wanted, true, memory_order_relaxed);
}

static struct str pem_text(X509 *c, struct arena *a)
{
    ossl_scope_bio *b = BIO_new(BIO_s_mem());
    if (!b || PEM_write_bio_X509(b, c) != 1) {
        ERR_clear_error();
        return str_n(NULL, 0);
    }
    return ossl_bio_str(b, a);
}

static struct tls_peer *peer_new(X509 *c, const unsigned char *sha)
{
    struct tls_peer *p = calloc(1, sizeof(*p));
    if (!p) {
        return NULL;
    }
    p->refs = 1;
    memcpy(p->sha, sha, sizeof(p->sha));
    arena_init(&p->arena, 512, 0);
    p->not_after_s = ossl_time_s(X509_get0_notAfter(c));
    p->names_ok = ossl_names(c, &p->arena, &p->names, &p->name_count);
    p->uri = first_uri(p);
    p->uri_count = names_of(p, SAN_URI, &p->uris);
    p->dns_count = names_of(p, SAN_DNS, &p->dns_names);
    p->dns = dns_text(p);
    p->subject = ossl_name_text(X509_get_subject_name(c), &p->arena);
    if (atomic_load_explicit(&pem_wanted, memory_order_relaxed)) {
        p->pem = pem_text(c, &p->arena);
    }
    p->sha_hex = hex_encode(&p->arena, str_n(sha, sizeof(p->sha)));
    return p;
}

void tls_peer_unref(struct tls_peer *p)
{
    if (p && --p->refs == 0) {
        arena_fini(&p->arena);
        free(p);
    }
}

struct tls_peer *tls_peer_of(X509 *c)
{
    struct cache *k = cache_get();
    unsigned char sha[32];
    if (!k || !X509_digest(c, sha256, sha, NULL)) {
        return NULL;
    }
    struct tls_peer **slot = &k->peers[slot_of(sha)];
    bool pem_missing = *slot && !(*slot)->pem.n && atomic_load_explicit(&pem_wanted, memory_order_relaxed);
    if (!*slot || pem_missing || memcmp((*slot)->sha, sha, sizeof(sha)) != 0) {
        struct tls_peer *p = peer_new(c, sha);
        if (!p) {
            return NULL;
        }
        tls_peer_unref(*slot);
        *slot = p;
    }
    (*slot)->refs++;
    return *slot;
}

bool tls_chain_key(const struct tls_ctx *ctx, const struct tls_peer *p, STACK_OF(X509) *sent, struct tls_chain_key *ret)
{
    // A certificate revocation list changes its mind with time; never remember then.
    int n = sent ? sk_X509_num(sent) : 0;
    if (ctx->has_crl || n > CHAIN_SENT_MAX) {
        return false;
    }
    unsigned char text[8 + 32 + CHAIN_SENT_MAX * 32];
    memcpy(text, &ctx->serial, 8);
    memcpy(text + 8, p->sha, 32);
    size_t len = 40;
    for (int i = 0; i < n; i++, len += 32) {
        if (!X509_digest(sk_X509_value(sent, i), sha256, text + len, NULL)) {
            return false;
        }
    }
    return EVP_Digest(text, len, ret->sha, NULL, sha256, NULL) == 1;
}

bool tls_chain_known(const struct tls_chain_key *k, int64_t now_s)
{
    const struct chain_entry *e = &cache_get()->chains[slot_of(k->sha)];
    return e->until_s > now_s && memcmp(&e->key, k, sizeof(*k)) == 0;
}

void tls_chain_remember(const struct tls_chain_key *k, int64_t until_s)
{
    struct chain_entry *e = &cache_get()->chains[slot_of(k->sha)];
    int64_t limit = tls_now_s() + CHAIN_TTL_S;
    e->key = *k;
    e->until_s = until_s < limit ? until_s : limit;
}

// Appends to a bounded text; what does not fit is cut.
static void put(char *out, size_t n, size_t *at, struct str s)
{
    size_t k = s.n < n - *at - 1 ? s.n : n - *at - 1;
    if (k) {
        memcpy(out + *at, s.p, k);
    }
    *at += k;
    out[*at] = 0;
}

bool tls_peer_names_match(const struct tls_peer *p, const struct san_matcher *m, size_t count, char *out, size_t n)
{
    if (count == 0) {
        return true;
    }
    if (p->names_ok && san_match_any(p->names, p->name_count, m, count)) {
        return true;
    }
    static const char *const how[] = { [SAN_EXACT] = "", [SAN_PREFIX] = "prefix ", [SAN_SUFFIX] = "suffix ", [SAN_CONTAINS] = "containing " };
    size_t at = 0;
    put(out, n, &at, STR("peer certificate names ["));
    for (size_t i = 0; i < p->name_count; i++) {
        put(out, n, &at, i ? STR(", ") : STR(""));
        put(out, n, &at, p->names[i].value);
    }
    put(out, n, &at, STR("] match none of the expected ["));
    for (size_t i = 0; i < count; i++) {
        put(out, n, &at, i ? STR(", ") : STR(""));
        put(out, n, &at, str_c(how[m[i].match]));
        put(out, n, &at, m[i].value);
    }
    put(out, n, &at, STR("]"));
    return false;
}

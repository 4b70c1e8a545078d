// SPDX-License-Identifier: Apache-2.0
#include "lib/tls/record13.h"

#include <endian.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <pthread.h>
#include <string.h>

#include "lib/base/check.h"

enum {
    HASH_MAX = 48,
    HASH_BLOCK_MAX = 128,
    LABEL_MAX = 64,
    GATHER_MAX = 2048, // up to here copying the pieces together costs less than a call into OpenSSL for each
};

struct record13_suite {
    unsigned id;
    const char *cipher_name, *hash_name;
    uint8_t key_len, hash_len, hash_block;
    bool gcm;
    EVP_CIPHER *cipher; // fetched once; NULL = not available
    EVP_MD *hash;
};

// RFC 8446 §B.4
static struct record13_suite suites[] = {
    { .id = 0x1301, .cipher_name = "AES-128-GCM", .hash_name = "SHA256", .key_len = 16, .hash_len = 32, .hash_block = 64, .gcm = true },
    { .id = 0x1302, .cipher_name = "AES-256-GCM", .hash_name = "SHA384", .key_len = 32, .hash_len = 48, .hash_block = 128, .gcm = true },
    { .id = 0x1303, .cipher_name = "ChaCha20-Poly1305", .hash_name = "SHA256", .key_len = 32, .hash_len = 32, .hash_block = 64 },
};

static void fetch_all(void)
{
    for (size_t i = 0; i < array_len(suites); i++) {
        suites[i].cipher = EVP_CIPHER_fetch(NULL, suites[i].cipher_name, NULL);
        suites[i].hash = EVP_MD_fetch(NULL, suites[i].hash_name, NULL);
    }
}

const struct record13_suite *record13_suite_of(unsigned id)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fetch_all);
    for (size_t i = 0; i < array_len(suites); i++) {
        if (suites[i].id == (id & 0xffff)) {
            return suites[i].cipher && suites[i].hash ? &suites[i] : NULL;
        }
    }
    return NULL;
}

size_t record13_secret_len(const struct record13_suite *s)
{
    return s->hash_len;
}

// ---- keys ----

// RFC 2104 with a key of at most one block, which traffic secrets are.
static bool hmac(const struct record13_suite *s, const uint8_t *key, const uint8_t *msg, size_t n, uint8_t *out)
{
    uint8_t inner[HASH_BLOCK_MAX + LABEL_MAX], outer[HASH_BLOCK_MAX + HASH_MAX];
    CHECK(n <= LABEL_MAX);
    memset(inner, 0x36, s->hash_block);
    memset(outer, 0x5c, s->hash_block);
    for (size_t i = 0; i < s->hash_len; i++) {
        inner[i] ^= key[i];
        outer[i] ^= key[i];
    }
    memcpy(inner + s->hash_block, msg, n);
    bool ok = EVP_Digest(inner, s->hash_block + n, outer + s->hash_block, NULL, s->hash, NULL) == 1 &&
              EVP_Digest(outer, (size_t)s->hash_block + s->hash_len, out, NULL, s->hash, NULL) == 1;
    OPENSSL_cleanse(inner, sizeof(inner));
    OPENSSL_cleanse(outer, sizeof(outer));
    return ok;
}

// HKDF-Expand-Label(secret, label, "", len) of §7.1; len is at most one hash, so one round of RFC 5869 is enough.
static bool expand(const struct record13_suite *s, const uint8_t *secret, const char *label, size_t len, uint8_t *out)
{
    uint8_t info[LABEL_MAX], block[HASH_MAX];
    size_t label_len = strlen(label), n = 0;
    CHECK(len <= s->hash_len && label_len + 11 <= sizeof(info));
    info[n++] = 0;
    info[n++] = (uint8_t)len;
    info[n++] = (uint8_t)(6 + label_len);
    memcpy(info + n, "tls13 ", 6);
    memcpy(info + n + 6, label, label_len);
    n += 6 + label_len;
    info[n++] = 0; // empty context
    info[n++] = 1; // first round
    bool ok = hmac(s, secret, info, n, block);
    memcpy(out, block, len);
    OPENSSL_cleanse(block, sizeof(block));
    return ok;
}

static bool set_keys(const struct record13_suite *s, struct record13_dir *d, bool sealing)
{
    uint8_t key[32];
    bool ok = expand(s, d->secret, "key", s->key_len, key) && expand(s, d->secret, "iv", sizeof(d->iv), d->iv) &&
              EVP_CipherInit_ex(d->aead, s->cipher, NULL, key, NULL, sealing) == 1;
    OPENSSL_cleanse(key, sizeof(key));
    return ok;
}

bool record13_init(struct record13 *r, const struct record13_suite *s, const uint8_t *in_secret, uint64_t in_seq,
                   const uint8_t *out_secret, uint64_t out_seq)
{
    *r = (struct record13){ .suite = s, .in.seq = in_seq, .out.seq = out_seq };
    memcpy(r->in.secret, in_secret, s->hash_len);
    memcpy(r->out.secret, out_secret, s->hash_len);
    r->in.aead = EVP_CIPHER_CTX_new();
    r->out.aead = EVP_CIPHER_CTX_new();
    if (r->in.aead && r->out.aead && set_keys(s, &r->in, false) && set_keys(s, &r->out, true)) {
        return true;
    }
    record13_fini(r);
    return false;
}

void record13_fini(struct record13 *r)
{
    EVP_CIPHER_CTX_free(r->in.aead);
    EVP_CIPHER_CTX_free(r->out.aead);
    OPENSSL_cleanse(r, sizeof(*r));
}

static bool rekey(const struct record13_suite *s, struct record13_dir *d, bool sealing)
{
    uint8_t next[HASH_MAX];
    bool ok = expand(s, d->secret, "traffic upd", s->hash_len, next);
    memcpy(d->secret, next, s->hash_len);
    OPENSSL_cleanse(next, sizeof(next));
    d->seq = 0;
    return ok && set_keys(s, d, sealing);
}

bool record13_rekey_in(struct record13 *r)
{
    return rekey(r->suite, &r->in, false);
}
bool record13_rekey_out(struct record13 *r)
{
    return rekey(r->suite, &r->out, true);
}

// §5.3: the counter, big-endian, exclusive-or the iv; and the counter goes on.
static void next_nonce(struct record13_dir *d, uint8_t *nonce)
{
    memcpy(nonce, d->iv, sizeof(d->iv));
    uint64_t low;
    memcpy(&low, nonce + 4, sizeof(low));
    low ^= htobe64(d->seq);
    memcpy(nonce + 4, &low, sizeof(low));
    d->seq++;
}

// Gives the cipher its nonce and, when opening, the tag to expect (NULL when sealing).
//
// OpenSSL 3.0's EVP_CipherInit_ex asks the cipher for the length of its nonce by name, which costs as much as encrypting a short
// record. AES-GCM also takes a whole nonce as the parameter "tlsivfixed" with the length -1, what EVP_CTRL_GCM_SET_IV_FIXED sends.
static bool start(const struct record13_suite *s, struct record13_dir *d, uint8_t *tag, bool sealing)
{
    uint8_t nonce[12];
    next_nonce(d, nonce);
    OSSL_PARAM p[3];
    int n = 0;
    if (s->gcm) {
        p[n++] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED, nonce, (size_t)-1);
    } else if (EVP_CipherInit_ex(d->aead, NULL, NULL, NULL, nonce, sealing) != 1) {
        return false;
    }
    if (tag) {
        p[n++] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag, RECORD13_TAG);
    }
    p[n] = OSSL_PARAM_construct_end();
    return n == 0 || EVP_CIPHER_CTX_set_params(d->aead, p) == 1;
}

// ---- records ----

size_t record13_length(const char *p, size_t n, enum record13_result *ret_result)
{
    const uint8_t *h = (const uint8_t *)p;
    *ret_result = RECORD13_OK;
    if (n < RECORD13_HEADER) {
        return 0;
    }
    size_t body = (size_t)h[3] << 8 | h[4];
    if (h[0] != RECORD13_DATA) {
        *ret_result = RECORD13_UNEXPECTED_MESSAGE; // all records are protected by now
    } else if (body > RECORD13_BODY_MAX) {
        *ret_result = RECORD13_OVERFLOW;
    } else if (body < 1 + RECORD13_TAG) {
        *ret_result = RECORD13_BAD_MAC;
    }
    return RECORD13_HEADER + body;
}

static void put_header(uint8_t *h, size_t body)
{
    h[0] = RECORD13_DATA;
    h[1] = 3; // legacy_record_version
    h[2] = 3;
    h[3] = (uint8_t)(body >> 8);
    h[4] = (uint8_t)body;
}

static bool encrypt(EVP_CIPHER_CTX *c, uint8_t *to, const void *from, size_t len)
{
    int k = 0;
    return len == 0 || (EVP_EncryptUpdate(c, to, &k, from, (int)len) == 1 && (size_t)k == len);
}

// The content and its type, RFC 8446 §5.2 TLSInnerPlaintext, to w.
static bool seal_content(EVP_CIPHER_CTX *c, enum record13_type type, const struct iovec *iov, int n, size_t len, uint8_t *w)
{
    const uint8_t kind = (uint8_t)type;
    bool gather = len <= GATHER_MAX, ok = true;
    size_t at = 0;
    for (int i = 0; i < n && at < len && ok; i++) {
        size_t piece = iov[i].iov_len < len - at ? iov[i].iov_len : len - at;
        if (gather && piece) {
            memcpy(w + at, iov[i].iov_base, piece);
        } else {
            ok = encrypt(c, w + at, iov[i].iov_base, piece);
        }
        at += piece;
    }
    CHECK(!ok || at == len);
    if (!gather) {
        return ok && encrypt(c, w + len, &kind, 1);
    }
    w[len] = kind;
    return encrypt(c, w, w, len + 1);
}

size_t record13_seal(struct record13 *r, enum record13_type type, const struct iovec *iov, int n, size_t len, char *out)
{
    CHECK(len <= RECORD13_PLAIN_MAX);
    uint8_t *w = (uint8_t *)out, *content = w + RECORD13_HEADER, *tag = content + len + 1;
    EVP_CIPHER_CTX *c = r->out.aead;
    int k = 0;
    put_header(w, len + 1 + RECORD13_TAG);
    OSSL_PARAM get[] = { OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag, RECORD13_TAG),
                         OSSL_PARAM_construct_end() };
    bool ok = start(r->suite, &r->out, NULL, true) && EVP_EncryptUpdate(c, NULL, &k, w, RECORD13_HEADER) == 1 &&
              seal_content(c, type, iov, n, len, content) && EVP_EncryptFinal_ex(c, tag, &k) == 1 &&
              EVP_CIPHER_CTX_get_params(c, get) == 1;
    return ok ? len + RECORD13_OVERHEAD : 0;
}

// Finds the content's type behind the padding (§5.4). Returns the content's length; SIZE_MAX when all is zeros.
static size_t strip_padding(const struct iovec *iov, int n, size_t len, uint8_t *ret_type)
{
    size_t start[8], used[8], at = 0;
    CHECK(n <= 8);
    for (int i = 0; i < n; i++) {
        start[i] = at;
        used[i] = iov[i].iov_len < len - at ? iov[i].iov_len : len - at;
        at += used[i];
    }
    for (int i = n - 1; i >= 0; i--) {
        const uint8_t *p = iov[i].iov_base;
        for (size_t k = used[i]; k > 0; k--) {
            if (p[k - 1]) {
                *ret_type = p[k - 1];
                return start[i] + k - 1;
            }
        }
    }
    return SIZE_MAX;
}

enum record13_result record13_open(struct record13 *r, const char *record, size_t len, const struct iovec *iov, int n,
                                   enum record13_type *ret_type, size_t *ret_len)
{
    size_t left = record13_open_room(len), total = left;
    const uint8_t *p = (const uint8_t *)record + RECORD13_HEADER;
    EVP_CIPHER_CTX *c = r->in.aead;
    uint8_t tag[RECORD13_TAG];
    int k = 0;
    memcpy(tag, p + left, sizeof(tag));
    if (!start(r->suite, &r->in, tag, false) || EVP_DecryptUpdate(c, NULL, &k, (const uint8_t *)record, RECORD13_HEADER) != 1) {
        return RECORD13_INTERNAL;
    }
    for (int i = 0; i < n && left; i++) {
        size_t piece = iov[i].iov_len < left ? iov[i].iov_len : left;
        if (piece && (EVP_DecryptUpdate(c, iov[i].iov_base, &k, p, (int)piece) != 1 || (size_t)k != piece)) {
            return RECORD13_INTERNAL;
        }
        p += piece;
        left -= piece;
    }
    CHECK(left == 0);
    uint8_t none[16];
    if (EVP_DecryptFinal_ex(c, none, &k) != 1) {
        return RECORD13_BAD_MAC;
    }
    uint8_t type = 0;
    size_t content = strip_padding(iov, n, total, &type);
    if (content == SIZE_MAX) {
        return RECORD13_UNEXPECTED_MESSAGE; // §5.4
    }
    if (content > RECORD13_PLAIN_MAX || total > RECORD13_PLAIN_MAX + 1) {
        return RECORD13_OVERFLOW; // §5.2
    }
    if (type != RECORD13_DATA && type != RECORD13_HANDSHAKE && type != RECORD13_ALERT) {
        return RECORD13_UNEXPECTED_MESSAGE;
    }
    if (type != RECORD13_DATA && content == 0) {
        return RECORD13_UNEXPECTED_MESSAGE; // §5.1
    }
    *ret_type = (enum record13_type)type;
    *ret_len = content;
    return RECORD13_OK;
}

// SPDX-License-Identifier: Apache-2.0
// Record protection of TLS 1.3 (RFC 8446 §5 and §7.2–7.3) once the handshake is over. Takes and gives bytes; owns no socket.
//
// Why not leave it to OpenSSL: its connection object keeps 17 KB for what is two keys and two counters here. A mesh proxy holds
// thousands of idle connections; after the handshake the transport drops that object and goes on with this.
#ifndef LIB_TLS_RECORD13_H
#define LIB_TLS_RECORD13_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    RECORD13_HEADER = 5,
    RECORD13_PLAIN_MAX = 16384,                                // §5.1
    RECORD13_BODY_MAX = RECORD13_PLAIN_MAX + 256,              // §5.2
    RECORD13_MAX = RECORD13_HEADER + RECORD13_BODY_MAX,
    RECORD13_TAG = 16,                                         // of all three ciphers
    RECORD13_OVERHEAD = RECORD13_HEADER + 1 + RECORD13_TAG,    // what sealing adds
    RECORD13_SECRET_MAX = 48,
    RECORD13_REKEY_AFTER = 1 << 23,                            // records under one key; §5.5 allows AES-GCM about 2^24.5
};

enum record13_type { RECORD13_ALERT = 21, RECORD13_HANDSHAKE = 22, RECORD13_DATA = 23 }; // §5.1 ContentType

// Alerts that opening a record can call for (§6).
enum record13_result {
    RECORD13_OK = 0,
    RECORD13_UNEXPECTED_MESSAGE = 10,
    RECORD13_BAD_MAC = 20,
    RECORD13_OVERFLOW = 22,
    RECORD13_INTERNAL = 80,
};

struct record13_suite; // cipher and hash; process lifetime

struct record13_dir {
    EVP_CIPHER_CTX *aead; // owned
    uint64_t seq;
    uint8_t iv[12];
    uint8_t secret[RECORD13_SECRET_MAX]; // application_traffic_secret_N
};

struct record13 {
    const struct record13_suite *suite;
    struct record13_dir in, out;
};

// Cipher suite number (0x1301, 0x1302, 0x1303). NULL when it is none of them or OpenSSL has no such cipher. Any thread.
const struct record13_suite *record13_suite_of(unsigned id);
size_t record13_secret_len(const struct record13_suite *s);
// Secrets of record13_secret_len bytes; the counters start at in_seq and out_seq. false when out of memory (nothing to free then).
bool record13_init(struct record13 *r, const struct record13_suite *s, const uint8_t *in_secret, uint64_t in_seq,
                   const uint8_t *out_secret, uint64_t out_seq);
void record13_fini(struct record13 *r); // wipes the keys

// Length of the record that starts at p, header included, once n ≥ RECORD13_HEADER bytes are there; 0 = not yet.
// *ret_result tells a header that no good peer sends.
size_t record13_length(const char *p, size_t n, enum record13_result *ret_result);
// Protects len ≤ RECORD13_PLAIN_MAX bytes of the n pieces as one record into out (len + RECORD13_OVERHEAD bytes). Returns the
// record's size, 0 when OpenSSL fails.
size_t record13_seal(struct record13 *r, enum record13_type type, const struct iovec *iov, int n, size_t len, char *out);
// Bytes that record13_open wants to write for a record of this length.
static inline size_t record13_open_room(size_t record_len)
{
    return record_len - RECORD13_HEADER - RECORD13_TAG;
}
// Opens the record (len as record13_length said) into the n pieces, which have room for record13_open_room(len) bytes. On
// RECORD13_OK *ret_len bytes of content of *ret_type are there; otherwise what is there means nothing.
enum record13_result record13_open(struct record13 *r, const char *record, size_t len, const struct iovec *iov, int n,
                                   enum record13_type *ret_type, size_t *ret_len);
// §7.2: the next generation of keys, counter 0. false when OpenSSL fails.
bool record13_rekey_in(struct record13 *r);
bool record13_rekey_out(struct record13 *r);

#endif

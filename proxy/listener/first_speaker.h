// SPDX-License-Identifier: Apache-2.0
// Who speaks first at a destination: what a worker learned from earlier connections, so that the next one need not wait. Bounded, forgetful, pure
// but for its memory; one thread.
#ifndef PROXY_LISTENER_FIRST_SPEAKER_H
#define PROXY_LISTENER_FIRST_SPEAKER_H

#include "lib/net/addr.h"

enum speaker { SPEAKER_UNKNOWN, SPEAKER_CLIENT, SPEAKER_SERVER };

enum {
    SPEAKER_SETS = 256, // × SPEAKER_WAYS destinations at most
    SPEAKER_WAYS = 4,
    SPEAKER_TTL_MS = 600000, // knowledge that nothing confirmed for this long is gone: another application may live there now
    SPEAKER_PEEK_MAX = 24,   // bytes that first_words needs at most
};

struct speaker_table; // SPEAKER_SETS × SPEAKER_WAYS entries, 48 KB

struct speaker_table *speaker_table_new(void);
void speaker_table_free(struct speaker_table *t); // NULL is fine

// t NULL = nothing learned yet. dst: IPv4 or IPv6 with port; others are never known.
enum speaker speaker_get(const struct speaker_table *t, const struct addr *dst, uint64_t now_ms);
// The latest observation wins; where a set is full the entry that was confirmed longest ago goes.
void speaker_learn(struct speaker_table *t, const struct addr *dst, enum speaker who, uint64_t now_ms);

// What a server's first bytes say. Servers of HTTP may speak before they are asked: HTTP/2 servers send their SETTINGS as soon as they are
// connected (RFC 9113 §3.4), HTTP/1 servers a 408 to a connection that was silent for too long. Neither makes the protocol server-first.
enum first_words { FIRST_WORDS_MORE, FIRST_WORDS_HTTP, FIRST_WORDS_OTHER };
enum first_words first_words(struct str bytes);

#endif

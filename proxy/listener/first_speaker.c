// SPDX-License-Identifier: Apache-2.0
#include "proxy/listener/first_speaker.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/hash.h"
#include "lib/base/mem.h"

struct entry {
    uint8_t key[18];     // address, port
    uint8_t family, who; // who SPEAKER_UNKNOWN = free
    uint64_t seen_ms;
};

struct speaker_table {
    struct entry sets[SPEAKER_SETS][SPEAKER_WAYS];
};

struct speaker_table *speaker_table_new(void)
{
    return mem_new(struct speaker_table);
}

void speaker_table_free(struct speaker_table *t)
{
    free(t);
}

static bool make_key(const struct addr *a, struct entry *ret)
{
    if (a->family != AF_INET && a->family != AF_INET6) {
        return false;
    }
    memset(ret, 0, sizeof(*ret));
    memcpy(ret->key, a->ip, a->family == AF_INET ? 4 : 16);
    memcpy(ret->key + 16, &a->port, 2);
    ret->family = (uint8_t)a->family;
    return true;
}

static bool same_key(const struct entry *a, const struct entry *b)
{
    return a->who != SPEAKER_UNKNOWN && a->family == b->family && memcmp(a->key, b->key, sizeof(a->key)) == 0;
}

// Clients choose the destinations: seeded, so that they cannot aim at one set.
static size_t set_of(const struct entry *k)
{
    return hash_str(str_n(k->key, sizeof(k->key))) % SPEAKER_SETS;
}

static bool is_stale(const struct entry *e, uint64_t now_ms)
{
    return now_ms - e->seen_ms > SPEAKER_TTL_MS;
}

enum speaker speaker_get(const struct speaker_table *t, const struct addr *dst, uint64_t now_ms)
{
    struct entry k;
    if (!t || !make_key(dst, &k)) {
        return SPEAKER_UNKNOWN;
    }
    const struct entry *set = t->sets[set_of(&k)];
    for (size_t i = 0; i < SPEAKER_WAYS; i++) {
        if (same_key(&set[i], &k)) {
            return is_stale(&set[i], now_ms) ? SPEAKER_UNKNOWN : (enum speaker)set[i].who;
        }
    }
    return SPEAKER_UNKNOWN;
}

void speaker_learn(struct speaker_table *t, const struct addr *dst, enum speaker who, uint64_t now_ms)
{
    struct entry k;
    if (!make_key(dst, &k)) {
        return;
    }
    struct entry *set = t->sets[set_of(&k)], *place = &set[0];
    for (size_t i = 0; i < SPEAKER_WAYS; i++) {
        if (same_key(&set[i], &k)) {
            place = &set[i];
            break;
        }
        bool unused = set[i].who == SPEAKER_UNKNOWN;
        if (place->who != SPEAKER_UNKNOWN && (unused || set[i].seen_ms < place->seen_ms)) {
            place = &set[i];
        }
    }
    k.who = (uint8_t)who;
    k.seen_ms = now_ms;
    *place = k;
}

// RFC 9113 §4.1, §6.5: length (24 bits, a multiple of 6), type 4, flags 0, stream 0.
static enum first_words h2_settings(struct str b)
{
    static const unsigned char want[] = { 4, 0, 0, 0, 0, 0 }; // type to stream identifier
    const unsigned char *p = (const unsigned char *)b.p;
    if ((b.n > 0 && p[0] != 0) || (b.n > 1 && p[1] > 1)) {
        return FIRST_WORDS_OTHER;
    }
    if (b.n > 2 && ((unsigned)p[1] << 8 | p[2]) % 6 != 0) {
        return FIRST_WORDS_OTHER;
    }
    for (size_t i = 3; i < b.n && i < 9; i++) {
        if (p[i] != want[i - 3]) {
            return FIRST_WORDS_OTHER;
        }
    }
    return b.n >= 9 ? FIRST_WORDS_HTTP : FIRST_WORDS_MORE;
}

enum first_words first_words(struct str b)
{
    struct str status = STR("HTTP/");
    size_t n = b.n < status.n ? b.n : status.n;
    if (n == 0 || memcmp(b.p, status.p, n) == 0) {
        return b.n >= status.n ? FIRST_WORDS_HTTP : FIRST_WORDS_MORE;
    }
    return h2_settings(b);
}

// SPDX-License-Identifier: Apache-2.0
// HTTP header fields of one message: an ordered list in an arena. Names keep the case they came with (HTTP/1.1 to HTTP/1.1 keeps
// it); look-ups ignore case. Well-known names are interned to a small id at parse time, so look-ups of them compare integers.
#ifndef LIB_HTTP_HEADERS_H
#define LIB_HTTP_HEADERS_H

#include "lib/base/arena.h"

// Ids from lib/http/tokens.def: HDR_OTHER, HDR_HOST, HDR_CONTENT_LENGTH, …
enum hdr_id {
    HDR_OTHER = 0,
#define HDR(id, name) HDR_##id,
#include "lib/http/tokens.def"
#undef HDR
    HDR_ID_COUNT
};
_Static_assert(HDR_ID_COUNT <= 64, "a set of ids is one word");
#define HDR_BIT(id) (1ull << (id))

struct hdr {
    struct str name;  // arena or static
    struct str value; // arena or static; no leading or trailing white space
    uint16_t id;      // enum hdr_id
    bool removed;     // skipped by everything; keeps indexes stable
    bool wire;        // as parsed, both stand in "name: value\r\n" (HTTP/1); says nothing any more once one of them was replaced
};

struct headers {
    struct arena *arena; // borrowed: where names, values and the array live
    struct hdr *v;
    uint32_t count, cap;
    size_t bytes;        // sum of names and values that are present
    uint64_t ids;        // bit = enum hdr_id: a field with this id was added once (it may have been removed)
    bool truncated;      // an addition was lost to the arena's limit: the message must not be sent on
};

void headers_init(struct headers *h, struct arena *a);
enum hdr_id hdr_id_of(struct str name);  // case-insensitive; HDR_OTHER when not well-known
struct str hdr_name_of(enum hdr_id id);  // lower case
bool hdr_is_connection_specific(enum hdr_id id); // RFC 9113 §8.2.2: no field of HTTP/2
// Framing, routing, authentication and proxy-owned fields mean nothing good behind a body (RFC 9110 §6.5.1). name: in any case. Not among
// them: connection-specific ones.
bool hdr_is_bad_trailer(enum hdr_id id, struct str name);
// Appends; views must live as long as the arena (use arena_str first otherwise).
void headers_add(struct headers *h, struct str name, struct str value);
void headers_add_id(struct headers *h, enum hdr_id id, struct str value);
__attribute__((noinline, cold)) void headers_add_slow(struct headers *h, const struct hdr *x); // for headers_add_hdr: when the array is full
static inline void headers_add_hdr(struct headers *h, const struct hdr *x)
{
    if (__builtin_expect(h->count == h->cap, 0)) {
        headers_add_slow(h, x);
        return;
    }
    h->v[h->count++] = *x;
    h->bytes += x->name.n + x->value.n;
    h->ids |= HDR_BIT(x->id);
}
// As headers_add with the id already looked up (id == hdr_id_of(name)); for parsers, keeps the name's case.
static inline void headers_add_known(struct headers *h, enum hdr_id id, struct str name, struct str value)
{
    if (__builtin_expect(h->count == h->cap, 0)) {
        headers_add_slow(h, &(struct hdr){ .name = name, .value = value, .id = (uint16_t)id });
        return;
    }
    struct hdr *x = &h->v[h->count++];
    x->name = name;
    x->value = value;
    x->id = (uint16_t)id;
    x->removed = x->wire = false;
    h->bytes += name.n + value.n;
    h->ids |= HDR_BIT(id);
}
__attribute__((noinline)) bool headers_grow(struct headers *h, uint32_t n); // for headers_reserve
// Room for n fields in all. false when the arena's limit is hit.
static inline bool headers_reserve(struct headers *h, uint32_t n)
{
    return n <= h->cap || headers_grow(h, n);
}
// First match or NULL.
struct hdr *headers_get(const struct headers *h, struct str name);
struct hdr *headers_get_id(const struct headers *h, enum hdr_id id);
// Whether a field with one of these ids (HDR_BIT) may be there. False: there is none.
static inline bool headers_may_have(const struct headers *h, uint64_t ids)
{
    return (h->ids & ids) != 0;
}
// Value of the first match or the empty view (p NULL when absent).
struct str headers_value(const struct headers *h, struct str name);
struct str headers_value_id(const struct headers *h, enum hdr_id id);
// All values joined with "," as Envoy does for matching; in the arena when more than one. present (may be NULL) tells absence.
struct str headers_joined(const struct headers *h, struct str name, bool *present);
// Replaces the first and removes the others, or appends.
void headers_set(struct headers *h, struct str name, struct str value);
void headers_set_id(struct headers *h, enum hdr_id id, struct str value);
// Returns the count removed.
int headers_remove(struct headers *h, struct str name);
int headers_remove_id(struct headers *h, enum hdr_id id);
// for (struct hdr *x = headers_first(h); x; x = headers_next(h, x))
static inline struct hdr *headers_next(const struct headers *h, const struct hdr *x)
{
    if (!h->v) { // C17 §6.5.6: nothing may be added to a null pointer
        return NULL;
    }
    const struct hdr *end = h->v + h->count;
    for (x = x ? x + 1 : h->v; x < end; x++) {
        if (!x->removed) {
            return (struct hdr *)x;
        }
    }
    return NULL;
}
static inline struct hdr *headers_first(const struct headers *h)
{
    return headers_next(h, NULL);
}

#endif

// SPDX-License-Identifier: Apache-2.0
#include "lib/http/headers.h"

#include "lib/base/check.h"

enum { SLOTS = 256, FIRST_CAP = 8 };

// Index = enum hdr_id.
static const struct str names[HDR_ID_COUNT] = {
    [HDR_OTHER] = STR_INIT(""),
#define HDR(id, name) [HDR_##id] = STR_INIT(name),
#include "lib/http/tokens.def"
#undef HDR
};

// Each well-known name in a slot of its own; filled before main from tokens.def, then only read.
static uint8_t slots[SLOTS];
static uint64_t multiplier;
_Static_assert(HDR_ID_COUNT < SLOTS / 4, "enlarge the table of well-known header names");

static inline uint64_t eight(const char *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof(x));
    return x;
}

// The first four and the last four of n >= 4 bytes.
static inline uint64_t two_fours(const char *p, size_t n)
{
    uint32_t a, b;
    memcpy(&a, p, sizeof(a));
    memcpy(&b, p + n - sizeof(b), sizeof(b));
    return a | (uint64_t)b << 32;
}

static const uint64_t fold = 0x2020202020202020ull; // case folds by setting 0x20

// From the length and four characters at each end. n.n > 0.
static inline unsigned slot_of(struct str n)
{
    uint64_t w = n.n >= 4 ? two_fours(n.p, n.n) : (unsigned char)n.p[0] | (uint64_t)(unsigned char)n.p[n.n - 1] << 8;
    return (unsigned)((((w | fold) + n.n) * multiplier) >> 56);
}

static bool fill_slots(void)
{
    memset(slots, 0, sizeof(slots));
    for (unsigned id = 1; id < HDR_ID_COUNT; id++) {
        unsigned i = slot_of(names[id]);
        if (slots[i]) {
            return false;
        }
        slots[i] = (uint8_t)id;
    }
    return true;
}

__attribute__((constructor)) static void find_multiplier(void)
{
    // One in a hundred gives each of the names a slot of its own; a name that is added to the list may make it another one.
    uint64_t x = 0x9e3779b97f4a7c15u;
    bool found = false;
    for (int tries = 0; tries < 100000 && !found; tries++) {
        x = x * 6364136223846793005u + 1442695040888963407u; // Knuth's MMIX generator
        multiplier = x | 1;
        found = fill_slots();
    }
    CHECK(found); // two names with the same length and ends: slot_of must look at more of them
}

// Whether eight bytes are the lower-case ones b but for the case of letters: they may differ in 0x20 alone, and only where 0x40 is set
// (letters, not '-', digits or control bytes).
static inline bool same_eight(uint64_t a, uint64_t b)
{
    uint64_t d = a ^ b;
    return !((d & ~fold) | ((d & fold) << 1 & ~a));
}

// Equality with a lower-case well-known name, ASCII case folded. Pieces overlap at the end.
static inline bool same_name(const char *p, const char *lower, size_t n)
{
    if (n >= 8) {
        for (size_t i = 0; i + 8 < n; i += 8) {
            if (!same_eight(eight(p + i), eight(lower + i))) {
                return false;
            }
        }
        return same_eight(eight(p + n - 8), eight(lower + n - 8));
    }
    if (n >= 4) {
        return same_eight(two_fours(p, n), two_fours(lower, n));
    }
    for (size_t i = 0; i < n; i++) {
        if (!same_eight((unsigned char)p[i], (unsigned char)lower[i])) {
            return false;
        }
    }
    return true;
}

enum hdr_id hdr_id_of(struct str name)
{
    if (name.n == 0) {
        return HDR_OTHER;
    }
    unsigned id = slots[slot_of(name)]; // 0: names[0] is empty
    return names[id].n == name.n && same_name(name.p, names[id].p, name.n) ? (enum hdr_id)id : HDR_OTHER;
}

struct str hdr_name_of(enum hdr_id id)
{
    return names[id];
}

bool hdr_is_connection_specific(enum hdr_id id)
{
    switch (id) {
    case HDR_CONNECTION:
    case HDR_KEEP_ALIVE:
    case HDR_PROXY_CONNECTION:
    case HDR_TRANSFER_ENCODING:
    case HDR_UPGRADE:
    case HDR_HTTP2_SETTINGS:
        return true;
    default:
        return false;
    }
}

bool hdr_is_bad_trailer(enum hdr_id id, struct str name)
{
    switch (id) {
    case HDR_HOST:
    case HDR_CONTENT_LENGTH:
    case HDR_TRAILER:
    case HDR_TE:
    case HDR_EXPECT:
    case HDR_CONTENT_TYPE:
    case HDR_CACHE_CONTROL:
    case HDR_AUTHORIZATION:
    case HDR_COOKIE:
    case HDR_SET_COOKIE:
    case HDR_LOCATION:
    case HDR_X_FORWARDED_FOR:
    case HDR_X_FORWARDED_PROTO:
    case HDR_X_FORWARDED_HOST:
    case HDR_X_FORWARDED_PORT:
    case HDR_X_FORWARDED_CLIENT_CERT:
    case HDR_X_REQUEST_ID:
        return true;
    default:
        return name.n >= 8 && str_eq_nocase(str_n(name.p, 8), STR("x-envoy-"));
    }
}

void headers_init(struct headers *h, struct arena *a)
{
    *h = (struct headers){ .arena = a };
}

bool headers_grow(struct headers *h, uint32_t n)
{
    uint32_t cap = h->cap ? h->cap * 2 : n > 1 ? n : FIRST_CAP; // whoever reserves knows how many there will be
    cap = cap < n ? n : cap;
    struct hdr *v = arena_alloc(h->arena, sizeof(*v) * cap);
    if (!v) {
        return false;
    }
    if (h->count) {
        memcpy(v, h->v, sizeof(*v) * h->count);
    }
    h->v = v;
    h->cap = cap;
    return true;
}

void headers_add_slow(struct headers *h, const struct hdr *x)
{
    if (!headers_reserve(h, h->count + 1)) {
        h->truncated = true;
        return;
    }
    headers_add_hdr(h, x);
}

static inline void add(struct headers *h, struct str name, struct str value, enum hdr_id id)
{
    headers_add_known(h, id, name, value);
}

void headers_add(struct headers *h, struct str name, struct str value)
{
    add(h, name, value, hdr_id_of(name));
}

void headers_add_id(struct headers *h, enum hdr_id id, struct str value)
{
    CHECK(id != HDR_OTHER);
    add(h, names[id], value, id);
}

static __attribute__((noinline)) uint32_t find_present(const struct headers *h, uint32_t i, enum hdr_id id, struct str name)
{
    if (id != HDR_OTHER) {
        for (; i < h->count; i++) {
            if (h->v[i].id == id && !h->v[i].removed) {
                break;
            }
        }
        return i;
    }
    for (; i < h->count; i++) {
        const struct hdr *x = &h->v[i];
        if (x->id == HDR_OTHER && !x->removed && x->name.n == name.n && str_eq_nocase(x->name, name)) {
            break;
        }
    }
    return i;
}

// The next match at or behind index i; h->count when there is none.
static inline uint32_t find(const struct headers *h, uint32_t i, enum hdr_id id, struct str name)
{
    if (!headers_may_have(h, HDR_BIT(id))) {
        return h->count;
    }
    return find_present(h, i, id, name);
}
static struct hdr *get(const struct headers *h, enum hdr_id id, struct str name)
{
    uint32_t i = find(h, 0, id, name);
    return i < h->count ? &h->v[i] : NULL;
}

struct hdr *headers_get(const struct headers *h, struct str name)
{
    return get(h, hdr_id_of(name), name);
}

struct hdr *headers_get_id(const struct headers *h, enum hdr_id id)
{
    CHECK(id != HDR_OTHER);
    return get(h, id, (struct str){ 0 });
}

struct str headers_value(const struct headers *h, struct str name)
{
    struct hdr *x = headers_get(h, name);
    return x ? x->value : (struct str){ 0 };
}

struct str headers_value_id(const struct headers *h, enum hdr_id id)
{
    struct hdr *x = headers_get_id(h, id);
    return x ? x->value : (struct str){ 0 };
}

struct str headers_joined(const struct headers *h, struct str name, bool *present)
{
    enum hdr_id id = hdr_id_of(name);
    uint32_t first = find(h, 0, id, name);
    if (present) {
        *present = first < h->count;
    }
    if (first == h->count) {
        return (struct str){ 0 };
    }
    size_t n = h->v[first].value.n, more = 0;
    for (uint32_t i = find(h, first + 1, id, name); i < h->count; i = find(h, i + 1, id, name)) {
        n += 1 + h->v[i].value.n;
        more++;
    }
    if (!more) {
        return h->v[first].value;
    }
    char *p = arena_alloc(h->arena, n + 1), *q = p;
    if (!p) {
        return h->v[first].value;
    }
    for (uint32_t i = first; i < h->count; i = find(h, i + 1, id, name)) {
        if (q != p) {
            *q++ = ',';
        }
        if (h->v[i].value.n) {
            memcpy(q, h->v[i].value.p, h->v[i].value.n);
            q += h->v[i].value.n;
        }
    }
    *q = '\0';
    return str_n(p, n);
}

static int remove_from(struct headers *h, uint32_t i, enum hdr_id id, struct str name)
{
    int n = 0;
    for (i = find(h, i, id, name); i < h->count; i = find(h, i + 1, id, name)) {
        h->v[i].removed = true;
        h->bytes -= h->v[i].name.n + h->v[i].value.n;
        n++;
    }
    return n;
}

static void set(struct headers *h, enum hdr_id id, struct str name, struct str value)
{
    uint32_t i = find(h, 0, id, name);
    if (i == h->count) {
        add(h, name, value, id);
        return;
    }
    h->bytes += value.n;
    h->bytes -= h->v[i].value.n;
    h->v[i].value = value;
    remove_from(h, i + 1, id, name);
}

void headers_set(struct headers *h, struct str name, struct str value)
{
    set(h, hdr_id_of(name), name, value);
}

void headers_set_id(struct headers *h, enum hdr_id id, struct str value)
{
    CHECK(id != HDR_OTHER);
    set(h, id, names[id], value);
}

int headers_remove(struct headers *h, struct str name)
{
    return remove_from(h, 0, hdr_id_of(name), name);
}

int headers_remove_id(struct headers *h, enum hdr_id id)
{
    CHECK(id != HDR_OTHER);
    return remove_from(h, 0, id, (struct str){ 0 });
}

// SPDX-License-Identifier: Apache-2.0
// The trie is a path-compressed binary tree per family: a node is a prefix, its children extend it and begin with bit 0 or 1.
// Nodes without a value are branching points.
#include "lib/net/cidr.h"

#include "lib/base/check.h"

static unsigned family_bits(const struct addr *a)
{
    return a->family == AF_INET ? 32 : a->family == AF_INET6 ? 128 : 0;
}

static inline unsigned bit_at(const uint8_t ip[16], unsigned i)
{
    return ip[i / 8] >> (7 - i % 8) & 1;
}

// Leading bits that a and b have in common, at most max.
static unsigned common_bits(const uint8_t a[16], const uint8_t b[16], unsigned max)
{
    unsigned i = 0;
    while (i + 8 <= max && a[i / 8] == b[i / 8]) {
        i += 8;
    }
    while (i < max && bit_at(a, i) == bit_at(b, i)) {
        i++;
    }
    return i;
}

static void clear_host_bits(struct addr *a, unsigned len)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned keep = len > i * 8 ? len - i * 8 : 0;
        a->ip[i] &= keep >= 8 ? 0xff : (uint8_t)(0xff00 >> keep);
    }
}

bool cidr_parse(struct str s, struct cidr *ret)
{
    struct cidr c = { 0 };
    struct str rest = s, ip = str_split(&rest, '/');
    if (!addr_parse_ip(ip, 0, &c.base) || c.base.scope) {
        return false;
    }
    uint64_t len = family_bits(&c.base);
    if (rest.p && !str_to_u64(rest, len, &len)) {
        return false;
    }
    c.len = (uint8_t)len;
    clear_host_bits(&c.base, c.len);
    *ret = c;
    return true;
}

bool cidr_contains(const struct cidr *c, const struct addr *a)
{
    struct addr base = c->base, ip = *a;
    if (base.family != ip.family) {
        ip = addr_unmap(ip);
    }
    return base.family == ip.family && family_bits(&base) && common_bits(base.ip, ip.ip, c->len) == c->len;
}

struct node {
    uint8_t ip[16]; // host bits zero
    unsigned len;
    void *val; // borrowed; NULL at a branching point
    struct node *child[2];
};

struct cidr_trie {
    struct arena *arena; // borrowed; holds all nodes
    struct node *v4, *v6;
};

struct cidr_trie *cidr_trie_new(struct arena *a)
{
    struct cidr_trie *t = arena_new(a, struct cidr_trie);
    if (t) {
        t->arena = a;
    }
    return t;
}

static struct node *node_new(struct cidr_trie *t, const uint8_t ip[16], unsigned len, void *val)
{
    struct node *n = arena_new(t->arena, struct node);
    CHECK(n); // tries live in configuration arenas, which have no limit
    struct addr a = { 0 };
    memcpy(a.ip, ip, 16);
    clear_host_bits(&a, len);
    memcpy(n->ip, a.ip, 16);
    n->len = len;
    n->val = val;
    return n;
}

void *cidr_trie_put(struct cidr_trie *t, const struct cidr *c, void *val)
{
    CHECK(val && family_bits(&c->base));
    struct node **at = c->base.family == AF_INET ? &t->v4 : &t->v6;
    for (;;) {
        struct node *n = *at;
        if (!n) {
            *at = node_new(t, c->base.ip, c->len, val);
            return NULL;
        }
        unsigned max = n->len < c->len ? n->len : c->len;
        unsigned same = common_bits(n->ip, c->base.ip, max);
        if (same == n->len && same == c->len) {
            void *old = n->val;
            n->val = val;
            return old;
        }
        if (same == n->len) {
            at = &n->child[bit_at(c->base.ip, same)];
            continue;
        }
        // They part inside n's prefix: a new node above n, which is c itself when c ends there.
        struct node *up = node_new(t, c->base.ip, same, same == c->len ? val : NULL);
        up->child[bit_at(n->ip, same)] = n;
        if (same < c->len) {
            up->child[bit_at(c->base.ip, same)] = node_new(t, c->base.ip, c->len, val);
        }
        *at = up;
        return NULL;
    }
}

static void *walk(const struct cidr_trie *t, const struct addr *a, unsigned len, bool exact)
{
    void *best = NULL;
    const struct node *n = a->family == AF_INET ? t->v4 : a->family == AF_INET6 ? t->v6 : NULL;
    while (n && n->len <= len && common_bits(n->ip, a->ip, n->len) == n->len) {
        if (n->val && (!exact || n->len == len)) {
            best = n->val;
        }
        n = n->len < len ? n->child[bit_at(a->ip, n->len)] : NULL;
    }
    return best;
}

void *cidr_trie_get_exact(const struct cidr_trie *t, const struct cidr *c)
{
    return walk(t, &c->base, c->len, true);
}

void *cidr_trie_find(const struct cidr_trie *t, const struct addr *a)
{
    void *best = walk(t, a, family_bits(a), false);
    struct addr v4 = addr_unmap(*a);
    return best || v4.family == a->family ? best : walk(t, &v4, 32, false);
}

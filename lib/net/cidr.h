// SPDX-License-Identifier: Apache-2.0
// Address prefixes and a longest-prefix trie over them.
#ifndef LIB_NET_CIDR_H
#define LIB_NET_CIDR_H

#include "lib/base/arena.h"
#include "lib/net/addr.h"

struct cidr {
    struct addr base; // host bits zero
    uint8_t len;      // bits
};

// "10.0.0.0/8"; without "/n" a host prefix. Host bits are cleared.
bool cidr_parse(struct str s, struct cidr *ret);
bool cidr_contains(const struct cidr *c, const struct addr *a);

struct cidr_trie; // lives in an arena, immutable once filled
struct cidr_trie *cidr_trie_new(struct arena *a);
// val must not be NULL; a second insert of the same prefix replaces and returns the former value.
void *cidr_trie_put(struct cidr_trie *t, const struct cidr *c, void *val);
void *cidr_trie_get_exact(const struct cidr_trie *t, const struct cidr *c);
// Value of the longest prefix that contains a, or NULL.
void *cidr_trie_find(const struct cidr_trie *t, const struct addr *a);

#endif

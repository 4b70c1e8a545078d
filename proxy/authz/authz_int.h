// SPDX-License-Identifier: Apache-2.0
// Inside of proxy/authz: the tree of conditions.
#ifndef PROXY_AUTHZ_AUTHZ_INT_H
#define PROXY_AUTHZ_AUTHZ_INT_H

#include "lib/net/cidr.h"
#include "proxy/authz/authz.h"
#include "proxy/authz/metadata_match.h"
#include "proxy/model/matcher.h"

enum node_kind {
    NODE_ANY, NODE_AND, NODE_OR, NODE_NOT,
    NODE_STRING,     // one string matcher on a text
    NODE_SET,        // texts that are equal to one of many
    NODE_AFFIXES,    // texts that begin with, end with or contain one of many
    NODE_HEADER, NODE_HEADER_SET,
    NODE_CIDR, NODE_CIDR_SET, NODE_PORTS,
    NODE_TLS,        // authenticated without a name
    NODE_TEMPLATE, NODE_METADATA,
};

// What a condition looks at.
enum node_input { IN_NONE, IN_PATH, IN_SERVER_NAME, IN_PRINCIPAL, IN_LOCAL, IN_DIRECT_REMOTE, IN_SOURCE, IN_REMOTE, IN_ROUTE };

// Texts in an open table whose size is a power of two; an empty view with NULL is a free place.
struct text_set {
    struct str *v;
    size_t mask;
    bool ignore_case;
};

// Texts, sorted, none of which begins with another one: then the only one that a text can begin with is the last one that is not behind it.
struct affix_set {
    enum string_match how;  // SM_PREFIX, SM_CONTAINS, SM_SUFFIX (v is sorted from the end then)
    bool ignore_case;
    struct str *v;
    size_t count;
    size_t common;          // bytes that all of v begin with (0 with ignore_case)
    // Made of expressions like ".*/ns/shop/.*": holds for printable ASCII; what else comes is for the expressions. NULL = made of plain texts.
    struct string_matcher *const *expressions;
    size_t expression_count;
};

struct node {
    uint8_t kind, input; // enum node_kind, enum node_input
    uint32_t count;      // of children
    union {
        struct node *children; // AND, OR, NOT (one); arena
        struct string_matcher *string;
        struct text_set *set;
        struct affix_set *affixes;
        struct header_matcher *header;
        struct header_set {
            struct header_matcher name; // only which header
            struct text_set texts;
        } *header_set;
        struct cidr *cidr;
        struct cidr_trie *cidrs;
        struct { uint32_t from, to; } ports; // [from, to)
        struct regex *path;                  // TEMPLATE
        const struct metadata_match *metadata; // of the route where input says so
    };
};

struct authz_policy {
    struct str name;
    struct node permissions, principals; // both OR
};

struct authz {
    enum authz_action action;
    struct authz_policy *policies; // sorted by name
    size_t count;
};

// Makes the alternatives of an OR node cheap to try: what is alike becomes a set; an AND of one becomes that one. The meaning stays. n->children
// may be written to.
void authz_fold(struct node *n, struct arena *a);
bool text_set_has(const struct text_set *t, struct str s);
// affix.c. v: string matchers of one kind, which is not SM_EXACT; SM_REGEX only those that affix_reduce takes, all with the same answer.
struct affix_set *affix_set_new(struct string_matcher *const *v, size_t n, struct arena *a);
bool affix_set_fits(const struct affix_set *t, struct str s);
// Whether an expression says no more than "begins with", "ends with" or "contains" a literal (in the arena), for printable ASCII.
bool affix_reduce(const struct string_matcher *m, struct arena *a, enum string_match *ret_how, struct str *ret_literal);

#endif

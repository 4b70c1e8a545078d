// SPDX-License-Identifier: Apache-2.0
// Long lists of alternatives: a mesh's policies name hundreds of principals, namespaces, paths and ranges. Among the children of an OR, which may be
// tried in any order, texts that must be equal become one hash table, beginnings and ends a sorted list, ranges one trie, and regular expressions few.
#include <stdlib.h>

#include "lib/base/buf.h"
#include "lib/base/hash.h"
#include "lib/base/mem.h"
#include "proxy/authz/authz_int.h"

enum {
    FOLD_MIN = 3,             // below it a list is as fast
    REGEX_TOGETHER_MAX = 16, REGEX_TOGETHER_BYTES = 1024, // of one joined expression: beyond, its automaton does not fit into RE2's memory
};

// ---- sets of texts ----

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static uint64_t text_hash(const struct text_set *t, struct str s)
{
    if (!t->ignore_case) {
        return hash_str(s);
    }
    uint64_t h = hash_seed() ^ 14695981039346656037ull; // FNV-1a; short texts: host names
    for (size_t i = 0; i < s.n; i++) {
        h = (h ^ (unsigned char)lower(s.p[i])) * 1099511628211ull;
    }
    return h ^ h >> 32;
}

static struct str *text_place(const struct text_set *t, struct str s)
{
    size_t i = text_hash(t, s) & t->mask;
    while (t->v[i].p && !(t->ignore_case ? str_eq_nocase(t->v[i], s) : str_eq(t->v[i], s))) {
        i = (i + 1) & t->mask;
    }
    return &t->v[i];
}

bool text_set_has(const struct text_set *t, struct str s)
{
    return text_place(t, s)->p != NULL;
}

static void text_set_init(struct text_set *t, size_t n, bool ignore_case, struct arena *a)
{
    size_t size = 8;
    while (size < 2 * n) {
        size *= 2;
    }
    t->v = arena_array(a, struct str, size);
    t->mask = size - 1;
    t->ignore_case = ignore_case;
}

static void text_set_put(struct text_set *t, struct str s)
{
    *text_place(t, s) = s.p ? s : STR("");
}

// ---- what is alike ----

static bool is_exact(const struct string_matcher *m)
{
    return m->kind == SM_EXACT;
}

// Conditions that a set can hold: equal texts of one header, whatever a field that is missing means, which is false then.
static bool foldable(const struct node *n)
{
    switch ((enum node_kind)n->kind) {
    case NODE_STRING:
        return n->string->kind != SM_REGEX || n->string->value.n; // without its text it is a joined one
    case NODE_HEADER:
        return n->header->kind == HM_STRING && is_exact(&n->header->string) && !n->header->invert && !n->header->treat_missing_as_empty;
    case NODE_CIDR:
        return true;
    default:
        return false;
    }
}

static bool alike(const struct node *a, const struct node *b)
{
    if (a->kind != b->kind || a->input != b->input || !foldable(b)) {
        return false;
    }
    if (a->kind == NODE_STRING) {
        return a->string->kind == b->string->kind && a->string->ignore_case == b->string->ignore_case;
    }
    if (a->kind == NODE_HEADER) {
        return str_eq(a->header->name, b->header->name) && a->header->string.ignore_case == b->header->string.ignore_case;
    }
    return true;
}

// ---- folding ----

static void into_text_set(struct node *first, struct node *const *v, size_t n, struct arena *a)
{
    struct text_set *t = arena_new(a, struct text_set);
    text_set_init(t, n, first->string->ignore_case, a);
    for (size_t i = 0; i < n; i++) {
        text_set_put(t, v[i]->string->value);
    }
    first->kind = NODE_SET;
    first->set = t;
}

static void into_header_set(struct node *first, struct node *const *v, size_t n, struct arena *a)
{
    struct header_set *h = arena_new(a, struct header_set);
    h->name = *first->header;
    text_set_init(&h->texts, n, first->header->string.ignore_case, a);
    for (size_t i = 0; i < n; i++) {
        text_set_put(&h->texts, v[i]->header->string.value);
    }
    first->kind = NODE_HEADER_SET;
    first->header_set = h;
}

static void into_cidr_set(struct node *first, struct node *const *v, size_t n, struct arena *a)
{
    struct cidr_trie *t = cidr_trie_new(a);
    for (size_t i = 0; i < n; i++) {
        (void)cidr_trie_put(t, v[i]->cidr, v[i]);
    }
    first->kind = NODE_CIDR_SET;
    first->cidrs = t;
}

static void drop(struct node *n)
{
    n->kind = NODE_OR; // without children: never true
    n->count = 0;
    n->children = NULL;
}

// "\Q" quotes up to an end that another pattern could bring along.
static bool joinable(struct str pattern)
{
    return str_find_str(pattern, STR("\\Q")) < 0 && str_find_str(pattern, STR("\\E")) < 0;
}

static void free_regex(void *re)
{
    regex_free(re);
}

// (?:a)|(?:b)|… of v[from…to) in place of v[from]; where the library finds that too large, all stay as they are.
static bool join(struct node *const *v, size_t from, size_t to, struct arena *a)
{
    struct buf b = { 0 };
    for (size_t i = from; i < to; i++) {
        buf_printf(&b, "%s(?:%.*s)", i > from ? "|" : "", STR_FMT(v[i]->string->value));
    }
    struct regex *re = regex_new(buf_pullup(&b, b.len), NULL);
    if (re) {
        struct string_matcher *m = arena_new(a, struct string_matcher);
        *m = (struct string_matcher){ .kind = SM_REGEX, .re = re };
        arena_on_free(a, free_regex, re);
        v[from]->string = m;
    }
    buf_clear(&b);
    return re != NULL;
}

static void join_regexes(struct node *const *v, size_t n, struct arena *a)
{
    for (size_t from = 0, to; from < n; from = to) {
        size_t bytes = 0;
        for (to = from; to < n && to < from + REGEX_TOGETHER_MAX && (to == from || bytes + v[to]->string->value.n < REGEX_TOGETHER_BYTES) &&
                        joinable(v[to]->string->value); to++) {
            bytes += v[to]->string->value.n + 5;
        }
        if (to == from) {
            to++;
        } else if (to - from > 1 && join(v, from, to, a)) {
            for (size_t i = from + 1; i < to; i++) {
                drop(v[i]);
            }
        }
    }
}

static void into_affixes(struct node *first, struct node *const *v, size_t n, struct arena *a)
{
    struct string_matcher **m = mem_zalloc(n * sizeof(*m));
    for (size_t i = 0; i < n; i++) {
        m[i] = v[i]->string;
    }
    first->affixes = affix_set_new(m, n, a);
    first->kind = NODE_AFFIXES;
    free(m);
}

// Expressions that are literals with ".*" about them, by what they say; the others one group after the other.
static void fold_regexes(struct node **v, size_t n, struct arena *a)
{
    struct node **same = mem_zalloc(2 * n * sizeof(*same)), **rest = same + n;
    size_t rest_count = 0;
    for (enum string_match how = SM_EXACT; how < SM_REGEX; how++) {
        size_t k = 0;
        for (size_t i = 0; i < n; i++) {
            enum string_match is;
            struct str literal;
            bool simple = affix_reduce(v[i]->string, a, &is, &literal);
            if (simple && is == how) {
                same[k++] = v[i];
            } else if (!simple && how == SM_EXACT) {
                rest[rest_count++] = v[i];
            }
        }
        if (k) {
            into_affixes(same[0], same, k, a);
            for (size_t i = 1; i < k; i++) {
                drop(same[i]);
            }
        }
        for (size_t i = 0, left = 0; i <= n; i++) { // those that are left have strings
            if (i == n) {
                n = left;
            } else if (v[i]->kind == NODE_STRING) {
                v[left++] = v[i];
            }
        }
    }
    join_regexes(rest, rest_count, a);
    free(same);
}

static void fold_group(struct node **v, size_t n, struct arena *a)
{
    struct node *first = v[0];
    if (first->kind == NODE_STRING && first->string->kind == SM_REGEX) {
        fold_regexes(v, n, a);
        return;
    }
    if (first->kind == NODE_STRING && first->string->kind != SM_EXACT) {
        into_affixes(first, v, n, a);
    } else if (first->kind == NODE_STRING) {
        into_text_set(first, v, n, a);
    } else if (first->kind == NODE_HEADER) {
        into_header_set(first, v, n, a);
    } else {
        into_cidr_set(first, v, n, a);
    }
    for (size_t i = 1; i < n; i++) {
        drop(v[i]);
    }
}

// An OR within an OR is its children.
static size_t count_flat(const struct node *n, bool *ret_any)
{
    size_t k = 0;
    for (uint32_t i = 0; i < n->count; i++) {
        const struct node *c = &n->children[i];
        k += c->kind == NODE_OR ? c->count : 1;
        *ret_any |= c->kind == NODE_OR;
    }
    return k;
}

static void flatten(struct node *n, struct arena *a)
{
    bool any = false;
    size_t k = count_flat(n, &any), at = 0;
    if (!any) {
        return;
    }
    struct node *v = arena_array(a, struct node, k + 1);
    for (uint32_t i = 0; i < n->count; i++) {
        const struct node *c = &n->children[i];
        if (c->kind == NODE_OR) {
            for (uint32_t j = 0; j < c->count; j++) {
                v[at++] = c->children[j];
            }
        } else {
            v[at++] = *c;
        }
    }
    n->children = v;
    n->count = (uint32_t)at;
}

static void compact(struct node *n)
{
    uint32_t k = 0;
    for (uint32_t i = 0; i < n->count; i++) {
        if (n->children[i].kind != NODE_OR || n->children[i].count) {
            n->children[k++] = n->children[i];
        }
    }
    n->count = k;
}

void authz_fold(struct node *n, struct arena *a)
{
    if (n->kind == NODE_AND) {
        if (n->count == 1) {
            struct node only = n->children[0];
            *n = only;
        }
        return;
    }
    flatten(n, a); // children were folded before: theirs are flat
    if (n->count < FOLD_MIN) {
        return;
    }
    struct node **group = mem_zalloc(sizeof(*group) * n->count);
    for (uint32_t i = 0; i < n->count; i++) {
        if (!foldable(&n->children[i])) {
            continue;
        }
        size_t k = 0;
        for (uint32_t j = i; j < n->count; j++) {
            if (j == i || alike(&n->children[i], &n->children[j])) {
                group[k++] = &n->children[j];
            }
        }
        if (k >= FOLD_MIN) {
            fold_group(group, k, a);
        }
    }
    free(group);
    compact(n);
}

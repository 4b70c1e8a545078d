// SPDX-License-Identifier: Apache-2.0
// A tree with one kind of node per level, built once. Each level keeps its most specific entries apart from its "any" entry; the look-up
// goes down exactly one of them, as Envoy's filter chain manager does, so a chain further right in the order is never reached by
// backtracking.
#include "proxy/model/chain_match.h"

#include <errno.h>

enum { SERVER_NAME_MAX = 255 }; // RFC 1035 §2.3.4

// Sorted by key; ports and lower-case names. The child's type depends on the level.
struct entry {
    struct str name;
    uint32_t port;
    void *child;
};
struct table {
    struct entry *v;
    size_t n, cap;
};

struct prefixes {
    struct cidr_trie *trie; // NULL = no prefixes here
    void *any;              // entry without a prefix
};

struct leaf {
    struct filter_chain *chain;
    struct str chain_name;
};
struct source_level {
    struct prefixes prefixes; // → struct table (ports, 0 = any) of struct leaf
    bool used;
};
struct source_types {
    struct source_level v[3]; // by enum source_type
};

// destination port → destination prefix → server name → transport protocol → application protocol → source type …
// Envoy also knows a directly connected source prefix between the last two; nothing here sets it.
struct chain_matcher {
    struct arena *arena;
    struct table ports; // 0 = any
};

static int entry_cmp(const struct entry *e, struct str name, uint32_t port)
{
    return e->port != port ? (e->port > port ? 1 : -1) : str_cmp(e->name, name);
}

static size_t table_lower_bound(const struct table *t, struct str name, uint32_t port)
{
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (entry_cmp(&t->v[mid], name, port) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static void *table_find(const struct table *t, struct str name, uint32_t port)
{
    size_t i = table_lower_bound(t, name, port);
    return i < t->n && entry_cmp(&t->v[i], name, port) == 0 ? t->v[i].child : NULL;
}

// The child for the key, made zeroed (child_bytes) when new.
static void *table_child(struct arena *a, struct table *t, struct str name, uint32_t port, size_t child_bytes)
{
    size_t i = table_lower_bound(t, name, port);
    if (i < t->n && entry_cmp(&t->v[i], name, port) == 0) {
        return t->v[i].child;
    }
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 2;
        struct entry *v = arena_alloc(a, cap * sizeof(*v));
        if (t->n) {
            memcpy(v, t->v, t->n * sizeof(*v));
        }
        t->v = v;
        t->cap = cap;
    }
    memmove(&t->v[i + 1], &t->v[i], (t->n - i) * sizeof(t->v[0]));
    t->v[i] = (struct entry){ .name = name, .port = port, .child = arena_zalloc(a, child_bytes) };
    t->n++;
    return t->v[i].child;
}

static void *prefix_child(struct arena *a, struct prefixes *p, const struct cidr *c, size_t child_bytes)
{
    if (!c) {
        if (!p->any) {
            p->any = arena_zalloc(a, child_bytes);
        }
        return p->any;
    }
    if (!p->trie) {
        p->trie = cidr_trie_new(a);
    }
    void *child = cidr_trie_get_exact(p->trie, c);
    if (!child) {
        child = arena_zalloc(a, child_bytes);
        cidr_trie_put(p->trie, c, child);
    }
    return child;
}

static void *prefix_find(const struct prefixes *p, const struct addr *a)
{
    void *child = p->trie && (a->family == AF_INET || a->family == AF_INET6) ? cidr_trie_find(p->trie, a) : NULL;
    return child ? child : p->any;
}

struct chain_matcher *chain_matcher_new(struct arena *a)
{
    struct chain_matcher *m = arena_new(a, struct chain_matcher);
    m->arena = a;
    return m;
}

// ---- building: one function a level, each over all alternatives of its part of the criteria ----

struct addition {
    struct arena *arena;
    const struct chain_criteria *c;
    struct leaf leaf;
    struct err *err;
};

static int add_ports(const struct addition *x, struct table *ports)
{
    static const uint32_t any_port = 0;
    const uint32_t *v = x->c->source_port_count ? x->c->source_ports : &any_port;
    size_t n = x->c->source_port_count ? x->c->source_port_count : 1;
    for (size_t i = 0; i < n; i++) {
        struct leaf *l = table_child(x->arena, ports, (struct str){ 0 }, v[i], sizeof(*l));
        if (l->chain) {
            return err_set(x->err, -EINVAL, "filter chain '%.*s' has the same match as '%.*s'", STR_FMT(x->leaf.chain_name),
                           STR_FMT(l->chain_name));
        }
        *l = x->leaf;
    }
    return 0;
}

static int add_sources(const struct addition *x, struct source_types *types)
{
    struct source_level *s = &types->v[x->c->source_type];
    s->used = true;
    for (size_t i = 0; i < (x->c->source_count ? x->c->source_count : 1); i++) {
        const struct cidr *c = x->c->source_count ? &x->c->sources[i] : NULL;
        int rc = add_ports(x, prefix_child(x->arena, &s->prefixes, c, sizeof(struct table)));
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int add_protocols(const struct addition *x, struct table *transports)
{
    struct str t = arena_str(x->arena, x->c->transport_protocol);
    struct table *alpns = table_child(x->arena, transports, t, 0, sizeof(*alpns));
    for (size_t i = 0; i < (x->c->application_protocol_count ? x->c->application_protocol_count : 1); i++) {
        struct str p = x->c->application_protocol_count ? x->c->application_protocols[i] : (struct str){ 0 };
        int rc = add_sources(x, table_child(x->arena, alpns, arena_str(x->arena, p), 0, sizeof(struct source_types)));
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static struct str lower_copy(struct arena *a, struct str s)
{
    struct str r = arena_str(a, s);
    for (char *p = (char *)r.p, *end = p + r.n; p < end; p++) {
        *p = *p >= 'A' && *p <= 'Z' ? (char)(*p | 0x20) : *p;
    }
    return r;
}

// "*.x" is kept as ".x": no exact name begins with a dot.
static int server_name_key(const struct addition *x, struct str name, struct str *ret)
{
    struct str rest = str_starts(name, STR("*.")) ? str_skip(name, 1) : name;
    if (str_find(rest, '*') >= 0 || name.n == 0 || rest.n > SERVER_NAME_MAX) {
        return err_set(x->err, -EINVAL, "server_names: '%.*s' is neither a host name nor '*.' and a domain", STR_FMT(name));
    }
    *ret = lower_copy(x->arena, rest);
    return 0;
}

static int add_server_names(const struct addition *x, struct table *names)
{
    for (size_t i = 0; i < (x->c->server_name_count ? x->c->server_name_count : 1); i++) {
        struct str key = { 0 };
        int rc = x->c->server_name_count ? server_name_key(x, x->c->server_names[i], &key) : 0;
        if (rc == 0) {
            rc = add_protocols(x, table_child(x->arena, names, key, 0, sizeof(struct table)));
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

int chain_matcher_add(struct chain_matcher *m, const struct chain_criteria *c, struct filter_chain *chain, struct str chain_name,
                      struct err *err)
{
    struct addition x = { m->arena, c, { chain, arena_str(m->arena, chain_name) }, err };
    struct prefixes *dst = table_child(m->arena, &m->ports, (struct str){ 0 }, c->destination_port, sizeof(*dst));
    for (size_t i = 0; i < (c->destination_count ? c->destination_count : 1); i++) {
        const struct cidr *p = c->destination_count ? &c->destinations[i] : NULL;
        int rc = add_server_names(&x, prefix_child(m->arena, dst, p, sizeof(struct table)));
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

// ---- look-up ----

static struct filter_chain *find_port(const struct source_level *s, const struct chain_input *in)
{
    const struct table *ports = prefix_find(&s->prefixes, &in->source);
    const struct leaf *l = ports ? table_find(ports, (struct str){ 0 }, in->source.port) : NULL;
    if (ports && !l) {
        l = table_find(ports, (struct str){ 0 }, 0);
    }
    return l ? l->chain : NULL;
}

static struct filter_chain *find_source(const struct source_types *t, const struct chain_input *in)
{
    const struct source_level *local = &t->v[SOURCE_SAME_IP_OR_LOOPBACK], *external = &t->v[SOURCE_EXTERNAL];
    if (local->used || external->used) {
        // Unix sockets are local by nature.
        bool is_local = addr_is_loopback(&in->source) || addr_ip_eq(&in->source, &in->destination) || in->source.family == AF_UNIX;
        const struct source_level *s = is_local ? local : external;
        if (s->used) {
            return find_port(s, in);
        }
    }
    return t->v[SOURCE_ANY].used ? find_port(&t->v[SOURCE_ANY], in) : NULL;
}

static struct filter_chain *find_protocols(const struct table *transports, const struct chain_input *in)
{
    const struct table *alpns = table_find(transports, in->transport_protocol, 0);
    if (!alpns) {
        alpns = table_find(transports, (struct str){ 0 }, 0);
    }
    if (!alpns) {
        return NULL;
    }
    for (size_t i = 0; i < in->application_protocol_count; i++) {
        const struct source_types *t =
            in->application_protocols[i].n ? table_find(alpns, in->application_protocols[i], 0) : NULL;
        if (t) {
            return find_source(t, in);
        }
    }
    const struct source_types *t = table_find(alpns, (struct str){ 0 }, 0);
    return t ? find_source(t, in) : NULL;
}

static const struct table *find_server_name(const struct table *names, struct str server_name)
{
    char low[SERVER_NAME_MAX];
    size_t n = server_name.n <= SERVER_NAME_MAX && names->n > 0 ? server_name.n : 0;
    for (size_t i = 0; i < n; i++) {
        char c = server_name.p[i];
        low[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    const struct table *t = n ? table_find(names, str_n(low, n), 0) : NULL;
    // ".example.com", then ".com" for "www.example.com".
    for (size_t i = 1; !t && i + 1 < n; i++) {
        t = low[i] == '.' ? table_find(names, str_n(low + i, n - i), 0) : NULL;
    }
    return t ? t : table_find(names, (struct str){ 0 }, 0);
}

struct filter_chain *chain_matcher_find(const struct chain_matcher *m, const struct chain_input *in)
{
    uint32_t port = in->destination.family == AF_INET || in->destination.family == AF_INET6 ? in->destination.port : 0;
    const struct prefixes *dst = port ? table_find(&m->ports, (struct str){ 0 }, port) : NULL;
    if (!dst) {
        dst = table_find(&m->ports, (struct str){ 0 }, 0);
    }
    const struct table *names = dst ? prefix_find(dst, &in->destination) : NULL;
    const struct table *transports = names ? find_server_name(names, in->server_name) : NULL;
    return transports ? find_protocols(transports, in) : NULL;
}

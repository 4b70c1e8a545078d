// SPDX-License-Identifier: Apache-2.0
#include "init-net/lists.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>

// Cuts the next non-empty item off *rest; *ix counts from 1 as a person would.
static bool next_item(struct str *rest, size_t *ix, struct str *ret)
{
    while (rest->n) {
        struct str item = str_trim(str_split(rest, ','));
        (*ix)++;
        if (item.n) {
            *ret = item;
            return true;
        }
    }
    return false;
}

static size_t count_items(struct str text)
{
    size_t n = text.n ? 1 : 0;
    for (size_t i = 0; i < text.n; i++) {
        n += text.p[i] == ',';
    }
    return n;
}

__attribute__((format(printf, 4, 5))) static int bad_item(struct err *err, size_t ix, struct str item,
                                                          const char *fmt, ...)
{
    char why[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    return err_set(err, -EINVAL, "item %zu '%.*s': %s", ix, item.n > 80 ? 80 : (int)item.n, item.p, why);
}

static int check_count(struct str text, struct err *err)
{
    if (count_items(text) > LIST_ITEMS_MAX) {
        return err_set(err, -E2BIG, "more than %d items", LIST_ITEMS_MAX);
    }
    return 0;
}

// "*" alone. -EINVAL when it stands among others or is not allowed.
static int take_star(struct str text, bool star, bool *ret, struct err *err)
{
    struct str rest = text, item;
    size_t ix = 0, items = 0, star_ix = 0;
    while (next_item(&rest, &ix, &item)) {
        items++;
        if (str_is(item, "*")) {
            star_ix = ix;
        }
    }
    if (!star_ix) {
        *ret = false;
        return 0;
    }
    if (!star) {
        return bad_item(err, star_ix, STR("*"), "'*' is not allowed here");
    }
    if (items > 1) {
        return bad_item(err, star_ix, STR("*"), "'*' must stand alone");
    }
    *ret = true;
    return 0;
}

static bool parse_range(struct str item, struct port_range *ret)
{
    ptrdiff_t sep = str_find(item, '-');
    if (sep < 0) {
        sep = str_find(item, ':');
    }
    uint64_t lo, hi;
    if (sep < 0) {
        if (!str_to_u64(item, 65535, &lo)) {
            return false;
        }
        hi = lo;
    } else if (!str_to_u64(str_n(item.p, (size_t)sep), 65535, &lo) ||
               !str_to_u64(str_skip(item, (size_t)sep + 1), 65535, &hi) || lo > hi) {
        return false;
    }
    *ret = (struct port_range){ .lo = (uint16_t)lo, .hi = (uint16_t)hi };
    return true;
}

int port_list_parse(struct str text, bool star, struct arena *a, struct port_list *ret, struct err *err)
{
    struct port_list l = { 0 };
    int r = check_count(text, err);
    r = r ? r : take_star(text, star, &l.all, err);
    if (r || l.all) {
        if (!r) {
            *ret = l;
        }
        return r;
    }
    l.v = arena_array(a, struct port_range, count_items(text) + 1);
    struct str item;
    size_t ix = 0;
    while (next_item(&text, &ix, &item)) {
        if (!parse_range(item, &l.v[l.n])) {
            return bad_item(err, ix, item, "not a port (0-65535) or a range like 9000-9100");
        }
        l.n++;
    }
    *ret = l;
    return 0;
}

static void clear_host_bits(struct cidr *c)
{
    for (unsigned bit = c->len; bit < (c->family == AF_INET ? 32u : 128u); bit++) {
        c->addr[bit / 8] &= (uint8_t)~(0x80u >> (bit % 8));
    }
}

int cidr_parse(struct str text, struct cidr *ret, struct err *err)
{
    ptrdiff_t slash = str_find(text, '/');
    char addr[INET6_ADDRSTRLEN] = "";
    if (slash < 0) {
        return err_set(err, -EINVAL, "a network needs a prefix length, like 10.0.0.0/8");
    }
    if ((size_t)slash >= sizeof(addr)) {
        return err_set(err, -EINVAL, "not an IP network");
    }
    memcpy(addr, text.p, (size_t)slash);
    struct cidr c = { 0 };
    if (inet_pton(AF_INET, addr, c.addr) == 1) {
        c.family = AF_INET;
    } else if (inet_pton(AF_INET6, addr, c.addr) == 1) {
        c.family = AF_INET6;
    } else {
        return err_set(err, -EINVAL, "not an IP network");
    }
    uint64_t len;
    if (!str_to_u64(str_skip(text, (size_t)slash + 1), c.family == AF_INET ? 32 : 128, &len)) {
        return err_set(err, -EINVAL, "the prefix length must be 0 to %d", c.family == AF_INET ? 32 : 128);
    }
    c.len = (uint8_t)len;
    clear_host_bits(&c);
    *ret = c;
    return 0;
}

int cidr_list_parse(struct str text, bool star, struct arena *a, struct cidr_list *ret, struct err *err)
{
    struct cidr_list l = { 0 };
    int r = check_count(text, err);
    r = r ? r : take_star(text, star, &l.all, err);
    if (r || l.all) {
        if (!r) {
            *ret = l;
        }
        return r;
    }
    l.v = arena_array(a, struct cidr, count_items(text) + 1);
    struct str item;
    size_t ix = 0;
    while (next_item(&text, &ix, &item)) {
        struct err why;
        if (cidr_parse(item, &l.v[l.n], &why) < 0) {
            return bad_item(err, ix, item, "%s", why.msg);
        }
        l.n++;
    }
    *ret = l;
    return 0;
}

bool id_find(struct str db, struct str name, uint32_t *ret)
{
    while (db.n) {
        struct str line = str_split(&db, '\n');
        if (!str_eq(str_split(&line, ':'), name)) {
            continue;
        }
        str_split(&line, ':'); // password
        uint64_t id;
        if (str_to_u64(str_split(&line, ':'), UINT32_MAX - 1, &id)) {
            *ret = (uint32_t)id;
            return true;
        }
    }
    return false;
}

int id_list_parse(struct str text, bool star, struct str db, const char *what, struct arena *a,
                  struct id_list *ret, struct err *err)
{
    struct id_list l = { 0 };
    int r = check_count(text, err);
    r = r ? r : take_star(text, star, &l.all, err);
    if (r || l.all) {
        if (!r) {
            *ret = l;
        }
        return r;
    }
    l.v = arena_array(a, uint32_t, count_items(text) + 1);
    struct str item;
    size_t ix = 0;
    while (next_item(&text, &ix, &item)) {
        uint64_t id;
        uint32_t found;
        if (str_to_u64(item, UINT32_MAX - 1, &id)) {
            found = (uint32_t)id;
        } else if (!id_find(db, item, &found)) {
            return bad_item(err, ix, item, "not a number, and no such %s in /etc/%s", what,
                            what[0] == 'u' ? "passwd" : "group");
        }
        if (!id_list_has(&l, found)) {
            l.v[l.n++] = found;
        }
    }
    *ret = l;
    return 0;
}

int name_list_parse(struct str text, struct arena *a, struct name_list *ret, struct err *err)
{
    struct name_list l = { 0 };
    int r = check_count(text, err);
    if (r) {
        return r;
    }
    l.v = arena_array(a, char *, count_items(text) + 1);
    struct str item;
    size_t ix = 0;
    while (next_item(&text, &ix, &item)) {
        char last = item.p[item.n - 1];
        bool wild = last == '+' || last == '*';
        if (item.n - wild >= IFNAMSIZ) {
            return bad_item(err, ix, item, "an interface name has at most %d characters", IFNAMSIZ - 1);
        }
        for (size_t i = 0; i < item.n; i++) {
            unsigned char ch = (unsigned char)item.p[i];
            if (ch <= ' ' || ch == '/' || ch == '"' || ch >= 0x7f || (ch == '*' && i + 1 < item.n)) {
                return bad_item(err, ix, item, "not an interface name");
            }
        }
        char *name = (char *)arena_str(a, item).p; // our own copy
        if (wild) {
            name[item.n - 1] = '*';
        }
        l.v[l.n++] = name;
    }
    *ret = l;
    return 0;
}

struct cidr_list cidr_list_family(const struct cidr_list *l, uint8_t family, struct arena *a)
{
    struct cidr_list out = { .all = l->all, .v = arena_array(a, struct cidr, l->n + 1) };
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].family == family) {
            out.v[out.n++] = l->v[i];
        }
    }
    return out;
}

static int cidr_order(const void *pa, const void *pb)
{
    const struct cidr *x = pa, *y = pb;
    int d = memcmp(x->addr, y->addr, sizeof(x->addr));
    return d ? d : (int)x->len - (int)y->len;
}

struct cidr_list cidr_list_disjoint(const struct cidr_list *l, struct arena *a)
{
    struct cidr_list out = { .all = l->all, .n = 0, .v = arena_array(a, struct cidr, l->n + 1) };
    struct cidr *sorted = arena_array(a, struct cidr, l->n + 1);
    if (l->n) {
        memcpy(sorted, l->v, l->n * sizeof(*sorted));
    }
    qsort(sorted, l->n, sizeof(*sorted), cidr_order);
    for (size_t i = 0; i < l->n; i++) {
        if (out.n && cidr_contains(&out.v[out.n - 1], sorted[i].family, sorted[i].addr)) {
            continue;
        }
        out.v[out.n++] = sorted[i];
    }
    return out;
}

static int range_order(const void *pa, const void *pb)
{
    const struct port_range *x = pa, *y = pb;
    return x->lo != y->lo ? (int)x->lo - (int)y->lo : (int)x->hi - (int)y->hi;
}

struct port_list port_list_disjoint(const struct port_list *l, struct arena *a)
{
    struct port_list out = { .all = l->all, .n = 0, .v = arena_array(a, struct port_range, l->n + 1) };
    struct port_range *sorted = arena_array(a, struct port_range, l->n + 1);
    if (l->n) {
        memcpy(sorted, l->v, l->n * sizeof(*sorted));
    }
    qsort(sorted, l->n, sizeof(*sorted), range_order);
    for (size_t i = 0; i < l->n; i++) {
        struct port_range *last = out.n ? &out.v[out.n - 1] : NULL;
        if (last && (uint32_t)sorted[i].lo <= (uint32_t)last->hi + 1) {
            last->hi = sorted[i].hi > last->hi ? sorted[i].hi : last->hi;
            continue;
        }
        out.v[out.n++] = sorted[i];
    }
    return out;
}

bool cidr_contains(const struct cidr *c, uint8_t family, const uint8_t *addr)
{
    if (c->family != family) {
        return false;
    }
    unsigned whole = c->len / 8, rest = c->len % 8;
    if (memcmp(c->addr, addr, whole) != 0) {
        return false;
    }
    return rest == 0 || ((c->addr[whole] ^ addr[whole]) >> (8 - rest)) == 0;
}

bool port_list_has(const struct port_list *l, uint16_t port)
{
    for (size_t i = 0; i < l->n; i++) {
        if (port >= l->v[i].lo && port <= l->v[i].hi) {
            return true;
        }
    }
    return l->all;
}

bool id_list_has(const struct id_list *l, uint32_t id)
{
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i] == id) {
            return true;
        }
    }
    return l->all;
}

bool name_matches(const char *pattern, const char *name)
{
    size_t n = strlen(pattern);
    if (n && pattern[n - 1] == '*') {
        return strncmp(pattern, name, n - 1) == 0;
    }
    return strcmp(pattern, name) == 0;
}

const char *cidr_text(const struct cidr *c, char *buf, size_t n)
{
    char addr[INET6_ADDRSTRLEN];
    inet_ntop(c->family, c->addr, addr, sizeof(addr));
    snprintf(buf, n, "%s/%u", addr, c->len);
    return buf;
}

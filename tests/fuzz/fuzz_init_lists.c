// SPDX-License-Identifier: Apache-2.0
// Lists of ports, networks, ids and interface names: the folded form means the same as the list, and what was taken can
// be written and read again. The first byte picks the list and whether '*' is allowed.
// fuzz-modules: init-net lib/base
#include "init-net/lists.h"
#include "lib/base/check.h"

enum { INPUT_MAX = 16384 };

static void check_ports(struct str text, bool star, struct arena *a)
{
    struct port_list l;
    struct err err;
    if (port_list_parse(text, star, a, &l, &err)) {
        return;
    }
    CHECK(!l.all || (star && l.n == 0));
    struct port_list folded = port_list_disjoint(&l, a);
    for (size_t i = 1; i < folded.n; i++) {
        CHECK(folded.v[i].lo > folded.v[i - 1].hi + 1);
    }
    for (size_t i = 0; i < l.n; i++) {
        CHECK(l.v[i].lo <= l.v[i].hi && port_list_has(&folded, l.v[i].lo) && port_list_has(&folded, l.v[i].hi));
    }
    for (uint32_t port = 0; port <= 65535; port += 257) {
        CHECK(port_list_has(&l, (uint16_t)port) == port_list_has(&folded, (uint16_t)port));
    }
}

static bool any_contains(const struct cidr_list *l, const struct cidr *c)
{
    for (size_t i = 0; i < l->n; i++) {
        if (cidr_contains(&l->v[i], c->family, c->addr)) {
            return true;
        }
    }
    return false;
}

static void check_networks(struct str text, bool star, struct arena *a)
{
    struct cidr_list l;
    struct err err;
    if (cidr_list_parse(text, star, a, &l, &err)) {
        return;
    }
    size_t n = 0;
    for (int v6 = 0; v6 < 2; v6++) {
        struct cidr_list one = cidr_list_family(&l, v6 ? AF_INET6 : AF_INET, a);
        struct cidr_list folded = cidr_list_disjoint(&one, a);
        n += one.n;
        CHECK(folded.n <= one.n);
        for (size_t i = 0; i < one.n; i++) {
            CHECK(any_contains(&folded, &one.v[i]));
        }
        for (size_t i = 1; i < folded.n; i++) {
            CHECK(!cidr_contains(&folded.v[i - 1], folded.v[i].family, folded.v[i].addr));
        }
    }
    CHECK(n == l.n);
    for (size_t i = 0; i < l.n; i++) {
        char buf[64];
        struct cidr again;
        CHECK(cidr_parse(str_c(cidr_text(&l.v[i], buf, sizeof(buf))), &again, &err) == 0);
        CHECK(memcmp(&again, &l.v[i], sizeof(again)) == 0);
    }
}

static void check_ids(struct str text, bool star, struct arena *a)
{
    struct id_list l;
    struct err err;
    if (id_list_parse(text, star, STR("root:x:0:\nstaff:x:50:"), "group", a, &l, &err)) {
        return;
    }
    for (size_t i = 0; i < l.n; i++) {
        struct id_list before = { .n = i, .v = l.v };
        CHECK(l.v[i] != UINT32_MAX && !id_list_has(&before, l.v[i]));
    }
}

static void check_names(struct str text, struct arena *a)
{
    struct name_list l;
    struct err err;
    if (name_list_parse(text, a, &l, &err)) {
        return;
    }
    for (size_t i = 0; i < l.n; i++) {
        CHECK(l.v[i][0] && strlen(l.v[i]) <= 16 && name_matches(l.v[i], l.v[i]));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    if (size == 0 || size > INPUT_MAX) {
        return 0;
    }
    arena_init(&a, 16384, 0);
    struct str text = str_n(data + 1, size - 1);
    bool star = data[0] & 4;
    switch (data[0] & 3) {
    case 0:
        check_ports(text, star, &a);
        break;
    case 1:
        check_networks(text, star, &a);
        break;
    case 2:
        check_ids(text, star, &a);
        break;
    default:
        check_names(text, &a);
        break;
    }
    arena_fini(&a);
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
// The comma separated lists of the command line: ports, networks, ids, interface names. Pure text to values.
#ifndef INIT_NET_LISTS_H
#define INIT_NET_LISTS_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/base/arena.h"
#include "lib/base/err.h"

enum { LIST_ITEMS_MAX = 65536 }; // items of one list; a rule set beyond this is a mistake

struct port_range {
    uint16_t lo, hi; // inclusive
};
// all: the list was "*" and v is empty.
struct port_list {
    bool all;
    size_t n;
    struct port_range *v; // arena
};

// A network; bits behind len are zero.
struct cidr {
    uint8_t family; // AF_INET or AF_INET6
    uint8_t len;    // prefix length
    uint8_t addr[16];
};
struct cidr_list {
    bool all;
    size_t n;
    struct cidr *v; // arena
};

struct id_list {
    bool all;
    size_t n;
    uint32_t *v; // arena
};

// Interface names; a trailing '*' stands for "any name with this beginning".
struct name_list {
    size_t n;
    char **v; // arena
};

// All parsers drop empty items, trim blanks, and on a bad item return -EINVAL with "item N 'text': why" in err.
// Ports: N, A-B or A:B. "*" is taken only when star is set, and only alone.
int port_list_parse(struct str text, bool star, struct arena *a, struct port_list *ret, struct err *err);
// Networks: prefix length is mandatory; host bits are cleared.
int cidr_list_parse(struct str text, bool star, struct arena *a, struct cidr_list *ret, struct err *err);
// One "address/len".
int cidr_parse(struct str text, struct cidr *ret, struct err *err);
// Numbers, or names found in db (the text of passwd(5) or group(5); never NSS). what is "user" or "group".
int id_list_parse(struct str text, bool star, struct str db, const char *what, struct arena *a,
                  struct id_list *ret, struct err *err);
// Looks a name up in the text of passwd(5) or group(5). false when absent.
bool id_find(struct str db, struct str name, uint32_t *ret);
// Interface names of at most 15 bytes; "x+" and "x*" are the same wildcard.
int name_list_parse(struct str text, struct arena *a, struct name_list *ret, struct err *err);

// The networks of one family, in order.
struct cidr_list cidr_list_family(const struct cidr_list *l, uint8_t family, struct arena *a);
// Sorted by address, networks inside another one dropped: what an interval set can hold.
struct cidr_list cidr_list_disjoint(const struct cidr_list *l, struct arena *a);
// Sorted, overlapping and touching ranges joined.
struct port_list port_list_disjoint(const struct port_list *l, struct arena *a);

bool cidr_contains(const struct cidr *c, uint8_t family, const uint8_t *addr);
bool port_list_has(const struct port_list *l, uint16_t port);
bool id_list_has(const struct id_list *l, uint32_t id);
// Interface pattern as in struct name_list against a real name.
bool name_matches(const char *pattern, const char *name);
// "10.0.0.0/8" into buf.
const char *cidr_text(const struct cidr *c, char *buf, size_t n);

#endif

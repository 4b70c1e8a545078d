// SPDX-License-Identifier: Apache-2.0
// Network addresses: IPv4, IPv6, Unix sockets. Plain values.
#ifndef LIB_NET_ADDR_H
#define LIB_NET_ADDR_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/base/str.h"

struct addr {
    uint16_t family; // AF_INET, AF_INET6, AF_UNIX; 0 = none
    uint16_t port;   // host order
    uint32_t scope;  // IPv6 scope id
    union {
        uint8_t ip[16];   // AF_INET, AF_INET6: network order; IPv4 in the first four bytes
        const char *path; // AF_UNIX: borrowed, '@' first = abstract
    };
};

enum { ADDR_TEXT_MAX = 128 };

// "127.0.0.1" or "::1" (brackets allowed), no names. false when it is not an address.
bool addr_parse_ip(struct str s, uint16_t port, struct addr *ret);
// "1.2.3.4:80", "[::1]:80", "unix:///path", "/path".
bool addr_parse(struct str s, struct addr *ret);
// "1.2.3.4:80", "[::1]:80", "unix:///path" into out; returns out.
const char *addr_text(const struct addr *a, char out[ADDR_TEXT_MAX]);
// Without the port and without brackets.
const char *addr_ip_text(const struct addr *a, char out[ADDR_TEXT_MAX]);
bool addr_eq(const struct addr *a, const struct addr *b);
bool addr_ip_eq(const struct addr *a, const struct addr *b);
uint64_t addr_hash(const struct addr *a);
bool addr_is_any(const struct addr *a);      // 0.0.0.0 or ::
bool addr_is_loopback(const struct addr *a); // 127/8, ::1, ::ffff:127/104
// IPv4-mapped IPv6 (::ffff:a.b.c.d) becomes IPv4, everything else is unchanged.
struct addr addr_unmap(struct addr a);
socklen_t addr_to_sockaddr(const struct addr *a, struct sockaddr_storage *ret);
// false for families other than the three. Unix paths are not kept (path = "").
bool addr_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct addr *ret);

#endif

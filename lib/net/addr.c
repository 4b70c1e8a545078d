// SPDX-License-Identifier: Apache-2.0
#include "lib/net/addr.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/un.h>

#include "lib/base/hash.h"

static size_t ip_len(const struct addr *a)
{
    return a->family == AF_INET ? 4 : a->family == AF_INET6 ? 16 : 0;
}

bool addr_parse_ip(struct str s, uint16_t port, struct addr *ret)
{
    char text[INET6_ADDRSTRLEN + IF_NAMESIZE + 1];
    if (s.n >= 2 && s.p[0] == '[' && s.p[s.n - 1] == ']') {
        s = str_n(s.p + 1, s.n - 2);
        if (str_find(s, ':') < 0) {
            return false; // brackets are for IPv6
        }
    }
    if (s.n == 0 || s.n >= sizeof(text) || memchr(s.p, '\0', s.n)) {
        return false;
    }
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    struct addr a = { .port = port };
    if (inet_pton(AF_INET, text, a.ip) == 1) {
        a.family = AF_INET;
        *ret = a;
        return true;
    }
    char *zone = strchr(text, '%'); // RFC 4007 §11: scope by interface name or number
    if (zone) {
        *zone++ = '\0';
        uint64_t number;
        a.scope = str_to_u64(str_c(zone), UINT32_MAX, &number) ? (uint32_t)number : if_nametoindex(zone);
        if (a.scope == 0) {
            return false;
        }
    }
    if (inet_pton(AF_INET6, text, a.ip) != 1) {
        return false;
    }
    a.family = AF_INET6;
    *ret = a;
    return true;
}

bool addr_parse(struct str s, struct addr *ret)
{
    if (str_starts(s, STR("unix://"))) {
        s = str_skip(s, 7);
        if (s.n == 0) {
            return false;
        }
    }
    if (s.n && (s.p[0] == '/' || s.p[0] == '@')) {
        // path is a C string: the view must be followed by its NUL.
        if (s.n >= sizeof(((struct sockaddr_un *)0)->sun_path) || memchr(s.p, '\0', s.n) || s.p[s.n] != '\0') {
            return false;
        }
        *ret = (struct addr){ .family = AF_UNIX, .path = s.p };
        return true;
    }
    size_t colon = s.n;
    while (colon > 0 && s.p[colon - 1] != ':') {
        colon--;
    }
    uint64_t port;
    if (colon == 0 || !str_to_u64(str_skip(s, colon), UINT16_MAX, &port)) {
        return false;
    }
    struct str ip = str_n(s.p, colon - 1);
    if (str_find(ip, ':') >= 0 && ip.p[0] != '[') {
        return false; // IPv6 with a port needs brackets
    }
    return addr_parse_ip(ip, (uint16_t)port, ret);
}

const char *addr_ip_text(const struct addr *a, char out[ADDR_TEXT_MAX])
{
    out[0] = '\0';
    if (a->family == AF_UNIX) {
        snprintf(out, ADDR_TEXT_MAX, "%s", a->path ? a->path : "");
    } else if (ip_len(a)) {
        inet_ntop(a->family, a->ip, out, ADDR_TEXT_MAX);
        if (a->family == AF_INET6 && a->scope) {
            size_t n = strlen(out);
            snprintf(out + n, ADDR_TEXT_MAX - n, "%%%u", a->scope);
        }
    }
    return out;
}

const char *addr_text(const struct addr *a, char out[ADDR_TEXT_MAX])
{
    char ip[ADDR_TEXT_MAX];
    addr_ip_text(a, ip);
    if (a->family == AF_UNIX) {
        snprintf(out, ADDR_TEXT_MAX, "unix://%.*s", ADDR_TEXT_MAX - 8, ip);
    } else if (a->family == AF_INET6) {
        snprintf(out, ADDR_TEXT_MAX, "[%.*s]:%u", ADDR_TEXT_MAX - 10, ip, a->port);
    } else if (a->family == AF_INET) {
        snprintf(out, ADDR_TEXT_MAX, "%.*s:%u", ADDR_TEXT_MAX - 10, ip, a->port);
    } else {
        out[0] = '\0';
    }
    return out;
}

bool addr_ip_eq(const struct addr *a, const struct addr *b)
{
    if (a->family != b->family) {
        return false;
    }
    if (a->family == AF_UNIX) {
        return str_eq(str_c(a->path), str_c(b->path));
    }
    return memcmp(a->ip, b->ip, ip_len(a)) == 0 && a->scope == b->scope;
}

bool addr_eq(const struct addr *a, const struct addr *b)
{
    return a->port == b->port && addr_ip_eq(a, b);
}

uint64_t addr_hash(const struct addr *a)
{
    if (a->family == AF_UNIX) {
        return hash_str(str_c(a->path));
    }
    char key[24] = { 0 };
    memcpy(key, &a->family, 2);
    memcpy(key + 2, &a->port, 2);
    memcpy(key + 4, &a->scope, 4);
    memcpy(key + 8, a->ip, ip_len(a));
    return hash_xx64(key, sizeof(key), hash_seed());
}

bool addr_is_any(const struct addr *a)
{
    static const uint8_t zero[16];
    return ip_len(a) && memcmp(a->ip, zero, ip_len(a)) == 0;
}

static const uint8_t MAPPED[12] = { [10] = 0xff, [11] = 0xff }; // RFC 4291 §2.5.5.2

bool addr_is_loopback(const struct addr *a)
{
    static const uint8_t one[16] = { [15] = 1 };
    if (a->family == AF_INET) {
        return a->ip[0] == 127;
    }
    return a->family == AF_INET6 && (memcmp(a->ip, one, 16) == 0 || (memcmp(a->ip, MAPPED, 12) == 0 && a->ip[12] == 127));
}

struct addr addr_unmap(struct addr a)
{
    if (a.family == AF_INET6 && memcmp(a.ip, MAPPED, 12) == 0) {
        struct addr v4 = { .family = AF_INET, .port = a.port };
        memcpy(v4.ip, a.ip + 12, 4);
        return v4;
    }
    return a;
}

static socklen_t unix_to_sockaddr(const char *path, struct sockaddr_un *un)
{
    size_t n = path ? strnlen(path, sizeof(un->sun_path) - 1) : 0;
    un->sun_family = AF_UNIX;
    if (n) {
        memcpy(un->sun_path, path, n);
    }
    if (n && path[0] == '@') {
        un->sun_path[0] = '\0'; // unix(7): abstract; its length ends the name, no NUL
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    }
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
}

socklen_t addr_to_sockaddr(const struct addr *a, struct sockaddr_storage *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (a->family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)ret;
        in->sin_family = AF_INET;
        in->sin_port = htons(a->port);
        memcpy(&in->sin_addr, a->ip, 4);
        return sizeof(*in);
    }
    if (a->family == AF_INET6) {
        struct sockaddr_in6 *in = (struct sockaddr_in6 *)ret;
        in->sin6_family = AF_INET6;
        in->sin6_port = htons(a->port);
        in->sin6_scope_id = a->scope;
        memcpy(&in->sin6_addr, a->ip, 16);
        return sizeof(*in);
    }
    return a->family == AF_UNIX ? unix_to_sockaddr(a->path, (struct sockaddr_un *)ret) : 0;
}

bool addr_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct addr *ret)
{
    struct addr a = { 0 };
    if (len >= sizeof(struct sockaddr_in) && sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
        a.family = AF_INET;
        a.port = ntohs(in->sin_port);
        memcpy(a.ip, &in->sin_addr, 4);
    } else if (len >= sizeof(struct sockaddr_in6) && sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)sa;
        a.family = AF_INET6;
        a.port = ntohs(in->sin6_port);
        a.scope = in->sin6_scope_id;
        memcpy(a.ip, &in->sin6_addr, 16);
    } else if (len >= sizeof(sa->sa_family) && sa->sa_family == AF_UNIX) {
        a.family = AF_UNIX;
        a.path = "";
    } else {
        return false;
    }
    *ret = a;
    return true;
}

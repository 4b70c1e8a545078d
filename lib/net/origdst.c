// SPDX-License-Identifier: Apache-2.0
#include "lib/net/origdst.h"

#include <errno.h>

#include "lib/net/socket.h"

// linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h; the headers clash with the C library's.
enum { OPT_SO_ORIGINAL_DST = 80, OPT_IP6T_SO_ORIGINAL_DST = 80 };

static int query(int fd, int family, struct addr *ret)
{
    struct sockaddr_storage ss;
    socklen_t len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    int r = family == AF_INET ? getsockopt(fd, SOL_IP, OPT_SO_ORIGINAL_DST, &ss, &len)
                              : getsockopt(fd, SOL_IPV6, OPT_IP6T_SO_ORIGINAL_DST, &ss, &len);
    if (r < 0) {
        return -errno;
    }
    return addr_from_sockaddr((struct sockaddr *)&ss, len, ret) ? 0 : -ENOENT;
}

int origdst_get(int fd, int family, bool transparent, struct addr *ret)
{
    struct addr local, dst;
    int r = socket_local(fd, &local);
    if (r < 0) {
        return r;
    }
    local = addr_unmap(local);
    if (transparent) {
        *ret = local;
        return 0;
    }
    // IPv4 on a dual-stack socket has its entry in the IPv4 table.
    r = family == AF_INET || local.family == AF_INET ? query(fd, AF_INET, &dst)
        : family == AF_INET6                         ? query(fd, AF_INET6, &dst)
                                                     : -ENOENT;
    if (r < 0) {
        // ENOPROTOOPT: no connection tracking in this kernel, so nothing can have been redirected.
        return r == -ENOPROTOOPT || r == -EOPNOTSUPP ? -ENOENT : r;
    }
    // A tracked connection that no rule touched answers with the address it was made to. The port and address decide; a scope
    // is not part of what the kernel tracks.
    dst.scope = local.scope;
    if (addr_eq(&dst, &local)) {
        return -ENOENT;
    }
    *ret = dst;
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
// Where a redirected connection wanted to go: SO_ORIGINAL_DST (linux/netfilter_ipv4.h), IP6T_SO_ORIGINAL_DST, or the local
// address when TPROXY delivered it.
#ifndef LIB_NET_ORIGDST_H
#define LIB_NET_ORIGDST_H

#include "lib/net/addr.h"

// fd: an accepted TCP socket. family: of its local address. transparent: the listener uses TPROXY, so the local address is the
// answer. 0, or -ENOENT when the connection was not redirected (the local address is then what the client dialled).
int origdst_get(int fd, int family, bool transparent, struct addr *ret);

#endif

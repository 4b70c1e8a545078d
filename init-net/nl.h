// SPDX-License-Identifier: Apache-2.0
// One netlink socket: requests, dumps, acknowledgements. Blocking; the kernel answers at once.
#ifndef INIT_NET_NL_H
#define INIT_NET_NL_H

#include <libmnl/libmnl.h>

#include "lib/base/err.h"

// Netlink attributes' payload is limited to 64 KiB; no message of ours is larger than this.
enum { NL_MSG_MAX = 1 << 17 };

struct nl {
    struct mnl_socket *s; // owned
    uint32_t seq;
};

// bus: NETLINK_NETFILTER, NETLINK_ROUTE, …. On failure err says what is missing.
int nl_open(struct nl *nl, int bus, struct err *err);
void nl_close(struct nl *nl);
static inline void scope_nl_(struct nl *nl)
{
    nl_close(nl);
}
#define scope_nl __attribute__((cleanup(scope_nl_)))

// Sends msg (its sequence number is set here) and feeds every answer to cb until the acknowledgement or the end of a
// dump. Returns 0 or the kernel's negative errno; -EINTR when a dump was disturbed and must be repeated: cb has seen all of
// it then, but not of one moment. cb may be NULL.
int nl_request(struct nl *nl, struct nlmsghdr *msg, mnl_cb_t cb, void *arg);

// Whether what ended with code was a disturbed dump that should be asked for again; waits a moment before it says yes.
// *until_ms: 0 at first; the monotonic time at which it gives up, five seconds after the first call.
bool nl_again(int code, uint64_t *until_ms);

#endif

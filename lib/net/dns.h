// SPDX-License-Identifier: Apache-2.0
// Asynchronous name resolution on a loop (c-ares): A and AAAA with TTLs, /etc/hosts and /etc/resolv.conf honoured. Never blocks.
#ifndef LIB_NET_DNS_H
#define LIB_NET_DNS_H

#include "lib/event/loop.h"
#include "lib/net/addr.h"

enum dns_family { DNS_AUTO /* v6 then v4 when none */, DNS_V4_ONLY, DNS_V6_ONLY, DNS_V4_PREFERRED, DNS_ALL };
enum { DNS_ADDRS_MAX = 256, DNS_TIMEOUT_MS = 5000 };

struct dns;       // one per loop
struct dns_query; // owned by the resolver until its callback

struct dns *dns_new(struct loop *l, struct err *err);
// Asks these servers in place of resolv.conf's: "10.0.0.1,[::1]:5353". 0 or -EINVAL.
int dns_set_servers(struct dns *d, const char *servers, struct err *err);
void dns_free(struct dns *d); // outstanding callbacks are not called
// cb runs later on the loop's thread: status 0 and n addresses (port 0) with the smallest TTL, or a negative errno
// (-ENOENT no such name, -ETIMEDOUT, -EIO).
struct dns_query *dns_resolve(struct dns *d, struct str name, enum dns_family f,
                              void (*cb)(void *arg, int status, const struct addr *addrs, int n, uint32_t ttl_s), void *arg);
// Its callback will not run. Not once the callback has begun: the query is gone then.
void dns_cancel(struct dns_query *q);

#endif

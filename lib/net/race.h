// SPDX-License-Identifier: Apache-2.0
// Several addresses of one peer, tried one after the other without waiting for each to fail: RFC 8305 §5 ("happy eyeballs"). The first that
// connects is it. One loop.
#ifndef LIB_NET_RACE_H
#define LIB_NET_RACE_H

#include "lib/event/loop.h"
#include "lib/net/socket.h"

enum { RACE_MAX = 8, RACE_DELAY_MS = 300 }; // RFC 8305 §8 recommends 250 ms; Envoy has 300

struct race_target {
    struct addr to;
    struct socket_connect_opts opts;
};
struct race;
// Tries v[0] at once, the next ones RACE_DELAY_MS after it or as soon as one fails. n is 1 to RACE_MAX; v is copied (paths of Unix sockets are
// not). done(arg, fd, i) comes once, later: fd is the connected socket of v[i], now the callee's, or a negative errno of the last failure. The
// callee then calls race_free, inside done or later.
struct race *race_start(struct loop *l, const struct race_target *v, size_t n, void (*done)(void *arg, int fd, size_t i), void *arg);
// Closes what is still under way. NULL is fine.
void race_free(struct race *r);
// Orders addresses as RFC 8305 §4 says: families in turn. first: AF_INET or AF_INET6 to begin with, 0 = that of v[0]; so many of it (at least
// 1) come before the first of the other.
void race_order(struct addr *v, size_t n, uint16_t first, uint32_t first_count);

#endif

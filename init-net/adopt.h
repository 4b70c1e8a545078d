// SPDX-License-Identifier: Apache-2.0
// Connections that were open before the rules came. When conntrack begins to look, it takes their next segment for a new
// connection and redirects it, which resets them. So each gets a conntrack entry first, without NAT.
#ifndef INIT_NET_ADOPT_H
#define INIT_NET_ADOPT_H

#include "lib/base/err.h"

#include <stddef.h>

enum { ADOPT_MAX = 100000 }; // connections; more are left to their luck

// Makes a conntrack entry for every TCP connection of this network namespace that has none. *ret_adopted counts the new
// ones. Returns 0 or a negative errno with a reason; entries made so far stay, they do no harm.
int adopt_connections(size_t *ret_adopted, struct err *err);

#endif

// SPDX-License-Identifier: Apache-2.0
// Rules of other programs that redirect a pod's traffic, known by the names of their tables and chains.
#ifndef INIT_NET_FOREIGN_H
#define INIT_NET_FOREIGN_H

#include <stdbool.h>

#include "lib/base/str.h"

// Who makes nftables tables of this name: "istio-iptables", "Consul", …; NULL for a name we do not know.
const char *foreign_table_owner(const char *table);
// Who makes iptables chains of this name (ISTIO_OUTPUT, PROXY_INIT_REDIRECT, CONSUL_PROXY_INBOUND, …); NULL likewise.
const char *foreign_chain_owner(struct str chain);
// Does --takeover remove what this owner made? Istio's, linkerd's and Consul's.
bool foreign_is_removable(const char *owner);

#endif

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
// Does a chain of this name show that the pod is in Istio's ambient mesh? Its other chains bear the names of istio-iptables',
// which are not what they seem then: see foreign_settle.
bool foreign_is_ambient(struct str chain);
// The owner of a chain when it is known whether the pod is in an ambient mesh. NULL stays NULL.
const char *foreign_settle(const char *owner, bool ambient);
// Does --takeover remove what this owner made? Istio's, linkerd's and Consul's.
bool foreign_is_removable(const char *owner);

#endif

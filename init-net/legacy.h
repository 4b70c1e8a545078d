// SPDX-License-Identifier: Apache-2.0
// What stands in the tables of iptables-legacy, seen without its program and without making a table: asking for a table
// that is not there would make it, and an empty nat table alone wakes conntrack.
#ifndef INIT_NET_LEGACY_H
#define INIT_NET_LEGACY_H

#include <stdbool.h>
#include <stddef.h>

struct legacy_found {
    bool hidden;           // we may not see which tables there are
    bool nat_in_use;       // a nat table exists, whosever rules are in it
    bool ours;             // chains REMORA_…
    bool ambient;          // chains of Istio's ambient mesh
    const char *owners[4]; // other redirectors whose chains are there (static texts)
    size_t n_owners;
};

// Reads /proc/net/ip_tables_names and ip6_tables_names (readable for user 0 only; else hidden is set) and the chain
// names of raw, mangle and nat by IPT_SO_GET_ENTRIES (linux/netfilter_ipv4/ip_tables.h).
void legacy_scan(struct legacy_found *ret);

#endif

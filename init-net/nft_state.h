// SPDX-License-Identifier: Apache-2.0
// What is in the kernel: our table with its rules and counters, and the traces of other redirectors.
#ifndef INIT_NET_NFT_STATE_H
#define INIT_NET_NFT_STATE_H

#include "init-net/nl.h"
#include "init-net/plan.h"

struct state_rule {
    const char *chain;   // arena
    const char *comment; // arena, "" when none
    uint64_t packets, bytes;
    uint64_t content; // hash of the expressions, counters and names of anonymous sets left out
};

struct state_table {
    uint8_t family; // NFPROTO_*
    const char *name;
};

struct nft_state {
    bool present;        // table inet remora is there
    const char *comment; // of the table; arena; "" when none
    size_t n_rules;
    struct state_rule *rules; // arena; in kernel order
    size_t n_chains;          // of our table
    size_t n_tables;
    struct state_table *tables; // arena; all tables of the namespace, ours included
    size_t cap_rules, cap_tables;
};

// Reads everything. Strings live in the arena. -errno with a reason in err when the kernel cannot be asked.
int nft_state_read(struct nl *nl, struct arena *a, struct nft_state *ret, struct err *err);
// Does the kernel hold exactly the plan? On false, why says what differs (a short sentence).
bool nft_state_equals(const struct nft_state *s, const struct plan *p, char *why, size_t why_size);
// Who owns a table that redirects too: "istio-iptables", "Consul", …; NULL for a name we do not know.
const char *nft_state_foreign_owner(const struct state_table *t);

#endif

// SPDX-License-Identifier: Apache-2.0
// What is in the kernel: our table with its rules and counters, and the traces of other redirectors.
#ifndef INIT_NET_NFT_STATE_H
#define INIT_NET_NFT_STATE_H

#include "init-net/nft_batch.h"
#include "init-net/nl.h"
#include "init-net/plan.h"

struct state_rule {
    uint8_t family;      // NFPROTO_*, of its table
    const char *chain;   // arena
    const char *comment; // arena, "" when none
    uint64_t packets, bytes;
    uint64_t content; // hash of the expressions, counters and names of anonymous sets left out
};

struct state_table {
    uint8_t family; // NFPROTO_*
    const char *name;
};

// A chain that we or other redirectors made in a table of the iptables-nft program.
struct state_chain {
    uint8_t family;
    const char *table, *name;
    const char *owner; // NULL: ours
};

struct nft_state {
    bool present;                // a table of ours is there
    bool inet, ip, ip6;          // which
    const char *comment;         // that holds the hash: of the table, or from the marker; arena; "" when none
    bool comments_differ;        // the tables are not of one configuration
    size_t n_rules;
    struct state_rule *rules;    // arena; in kernel order
    size_t n_chains;             // of our tables, without the marker
    size_t n_tables;
    struct state_table *tables;  // arena; all tables of the namespace, ours included
    size_t n_xt;
    struct state_chain *xt;      // arena; see state_chain
    size_t cap_rules, cap_tables, cap_xt;
};

// Reads everything. Strings live in the arena. -errno with a reason in err when the kernel cannot be asked.
int nft_state_read(struct nl *nl, struct arena *a, struct nft_state *ret, struct err *err);
// Does the kernel hold exactly the plan, in its layout, and nothing of ours beside it? On false, why says what differs.
bool nft_state_equals(const struct nft_state *s, const struct plan *p, char *why, size_t why_size);
// Adds to *rm: our tables that the plan (NULL: none) does not replace. With xt also what we made through iptables-nft. With
// takeover also what istio-iptables, linkerd and Consul made, in tables of their own and (xt) through iptables-nft.
int nft_state_removals(const struct nft_state *s, struct nl *nl, const struct plan *p, bool xt, bool takeover,
                       struct arena *a, struct nft_removals *rm, struct err *err);

#endif

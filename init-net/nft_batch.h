// SPDX-License-Identifier: Apache-2.0
// The plan to the kernel in one nf_tables transaction: all of it or nothing.
#ifndef INIT_NET_NFT_BATCH_H
#define INIT_NET_NFT_BATCH_H

#include "init-net/nl.h"
#include "init-net/plan.h"

enum nft_commit {
    NFT_REPLACE,  // whatever is there
    NFT_CREATE,   // -EEXIST when a table of ours is there already. Faster: the kernel has nothing to tear down
    NFT_VALIDATE, // checked by the kernel, then thrown away
};

// Something else that goes in the same transaction: what another program made (--takeover), or what we made in another
// layout or through iptables-nft.
struct nft_removal {
    uint8_t family; // NFPROTO_*
    const char *table;
    const char *chain; // NULL: the whole table
    uint64_t handle;   // of one rule of the chain; 0: the chain with all its rules
};

struct nft_removals {
    struct nft_removal *v; // arena
    size_t n, cap;
};
void nft_removal_add(struct nft_removals *l, struct arena *a, struct nft_removal r);

// Replaces our tables by the plan (whatever was there before), and removes what rm (may be NULL) lists.
// deadline_ms: monotonic clock in ms, until when a transaction that met another writer is repeated.
// Returns 0, or a negative errno with the refused rule, its flag and the reason in err; the kernel is unchanged then.
int nft_apply(struct nl *nl, const struct plan *p, uint64_t hash, enum nft_commit commit, const struct nft_removals *rm,
              int64_t deadline_ms, struct err *err);
// Removes what rm lists.
int nft_delete(struct nl *nl, const struct nft_removals *rm, int64_t deadline_ms, struct err *err);
// Puts into err which rule the kernel refused: number, chain, flag, meaning, reason and text. what: "rule", "set", ….
// kernel_text: the kernel's own words, may be "". Returns code.
int nft_refused(const struct plan *p, const struct rule *r, const char *what, int code, const char *kernel_text,
                struct err *err);
// Does this error say that the kernel lacks a part of nf_tables, so that another layout or backend may still work?
bool nft_is_lacking(int code);
// Words for a person: what a negative errno of an nf_tables request usually means here.
const char *nft_hint(int code);

#endif

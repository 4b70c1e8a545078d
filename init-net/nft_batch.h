// SPDX-License-Identifier: Apache-2.0
// The plan to the kernel in one nf_tables transaction: all of it or nothing.
#ifndef INIT_NET_NFT_BATCH_H
#define INIT_NET_NFT_BATCH_H

#include "init-net/nl.h"
#include "init-net/plan.h"

enum nft_commit {
    NFT_REPLACE,  // whatever is there
    NFT_CREATE,   // -EEXIST when table inet remora is there already. Faster: the kernel has nothing to tear down
    NFT_VALIDATE, // checked by the kernel, then thrown away
};

// A table of somebody else that goes in the same transaction (--takeover).
struct nft_foreign {
    uint8_t family; // NFPROTO_*
    const char *table;
};

// Replaces table inet remora by the plan (whatever was there before), and deletes the n foreign tables.
// deadline_ms: monotonic clock in ms, until when a transaction that met another writer is repeated.
// Returns 0, or a negative errno with the refused rule, its flag and the reason in err; the kernel is unchanged then.
int nft_apply(struct nl *nl, const struct plan *p, uint64_t hash, enum nft_commit commit, const struct nft_foreign *f,
              size_t n, int64_t deadline_ms, struct err *err);
// Deletes table inet remora, there or not, and the n foreign tables.
int nft_delete(struct nl *nl, const struct nft_foreign *f, size_t n, int64_t deadline_ms, struct err *err);
// Puts into err which rule the kernel refused: number, chain, flag, meaning, reason and text. what: "rule", "set", ….
// kernel_text: the kernel's own words, may be "". Returns code.
int nft_refused(const struct plan *p, const struct rule *r, const char *what, int code, const char *kernel_text,
                struct err *err);
// Words for a person: what a negative errno of an nf_tables request usually means here.
const char *nft_hint(int code);

#endif

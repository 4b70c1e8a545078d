// SPDX-License-Identifier: Apache-2.0
// The plan as text: nft syntax (loadable with `nft -f`), iptables-restore syntax, JSON. Pure.
#ifndef INIT_NET_PRINT_H
#define INIT_NET_PRINT_H

#include "init-net/plan.h"
#include "lib/base/buf.h"

// One rule in nft syntax, without the comment.
void print_nft_rule(const struct plan *p, const struct rule *r, struct buf *out);
// The whole table. hash: shown as the table's comment, 0 for none.
void print_nft(const struct plan *p, uint64_t hash, struct buf *out);
// The routing part, as `ip` commands in nft comments.
void print_routes(const struct plan *p, struct buf *out);
// iptables-restore input: one text for IPv4, then one for IPv6 when the plan has it, each behind a "# iptables…" line.
// Lists become several rules.
void print_iptables(const struct plan *p, struct buf *out);
// {"chains":[…],"rules":[…],"routes":[…]} with hash and warnings.
void print_json(const struct plan *p, struct buf *out);
// Name of the empty chain that says the same on kernels whose tables have no comments: "hash_HASH".
void print_marker(uint64_t hash, char *buf, size_t n);
// "table comment" of a plan, as stored in the kernel: "remora-init HASH".
void print_table_comment(uint64_t hash, char *buf, size_t n);

#endif

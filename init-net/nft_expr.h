// SPDX-License-Identifier: Apache-2.0
// Small builders over libnftnl: one rule of the plan as expressions, one list as an anonymous set.
#ifndef INIT_NET_NFT_EXPR_H
#define INIT_NET_NFT_EXPR_H

#include <libnftnl/rule.h>
#include <libnftnl/set.h>

#include "init-net/plan.h"

enum { NFT_SETS_PER_RULE = 3 };

// The sets a rule refers to; they are sent before it.
struct nft_sets {
    struct nftnl_set *v[NFT_SETS_PER_RULE]; // owned by whoever called nft_rule_build
    size_t n;
};

// Builds the kernel form of r for the table of a family (NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6). *next_set_id numbers the anonymous sets of one batch and is moved on.
// The caller frees the result with nftnl_rule_free and the sets with nft_sets_free.
struct nftnl_rule *nft_rule_build(uint8_t family, const struct rule *r, uint32_t *next_set_id, struct nft_sets *ret_sets);
void nft_sets_free(struct nft_sets *sets);

#endif

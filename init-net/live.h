// SPDX-License-Identifier: Apache-2.0
// The rules that stand in the kernel, read back into the model they were made from, so that `explain --live` walks through
// what is there and not through what the flags would make. Rules that remora-init would not write are refused by name.
#ifndef INIT_NET_LIVE_H
#define INIT_NET_LIVE_H

#include "init-net/install.h"

// After install_find: the plan of our rules, whichever backend holds them. Rules lie in in->o->arena. -ENOENT when there are
// none, -EINVAL when somebody has put in a rule that cannot be read back (named in err).
int live_read(struct install *in, struct plan *ret, struct err *err);

// --- its two halves ---

// Rules of our tables in nf_tables.
int live_read_nft(struct nl *nl, const struct nft_state *s, struct plan *p, struct err *err);
// One family's iptables-save text.
int live_read_ipt(struct str text, uint8_t family, struct plan *p, struct err *err);
// Splits "-p: to the proxy" into flag and meaning; no flag is "".
void live_set_comment(struct plan *p, struct rule *r, const char *text);

#endif

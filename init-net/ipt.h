// SPDX-License-Identifier: Apache-2.0
// The iptables backends: the plan through iptables-restore, for kernels without nf_tables or for pods whose other rules are
// iptables'. Each table of each family is one step of the kernel; a failure in a later one takes the earlier ones back.
#ifndef INIT_NET_IPT_H
#define INIT_NET_IPT_H

#include "init-net/ipt_text.h"
#include "init-net/options.h"

struct ipt_family {
    const char *restore, *save; // full paths, arena; NULL: this family has no program
    struct ipt_saved saved;     // as last read
};

// One of the two variants of the iptables programs, and what it shows.
struct ipt {
    bool legacy;
    struct arena *a;             // borrowed
    int64_t deadline_ms;         // monotonic clock, for everything
    struct ipt_family family[2]; // IPv4, IPv6
};

// Finds the programs of a variant. -ENOENT with words when there are none, -EACCES where legacy cannot work (it asks for
// user 0 and CAP_NET_RAW).
int ipt_open(struct ipt *t, bool legacy, struct arena *a, int64_t deadline_ms, struct err *err);
// Reads what is there, both families. Changes nothing, makes no table.
int ipt_read(struct ipt *t, struct err *err);
// After ipt_read: is the plan there, exactly? On false, why says what differs.
bool ipt_equals(const struct ipt *t, const struct plan *p, char *why, size_t why_size);
// After ipt_read: is there anything of ours?
bool ipt_has_ours(const struct ipt *t);
// After ipt_read: replaces what is ours by the plan (NULL: by nothing); with takeover also what istio-iptables, linkerd and
// Consul have made. IPv6 before IPv4, raw and mangle before nat, what goes altogether last. On failure everything is put
// back as it was read; err names the rule, the flag and what the program said.
int ipt_replace(struct ipt *t, const struct plan *p, bool takeover, struct err *err);
// Would the programs take the plan? Nothing is changed.
int ipt_check(struct ipt *t, const struct plan *p, struct err *err);
// What iptables-save -c writes, IPv4 and IPv6; empty for a family without programs.
int ipt_counters(struct ipt *t, struct str ret[2], struct err *err);
// After ipt_read: were the rules of this family (0: IPv4, 1: IPv6) made from this plan?
bool ipt_is_from(const struct ipt *t, int family, const struct plan *p);
// "iptables-legacy" or "iptables-nft".
const char *ipt_name(const struct ipt *t);

#endif

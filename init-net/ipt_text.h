// SPDX-License-Identifier: Apache-2.0
// The texts of iptables-save and iptables-restore: the plan as lines, what is there as lines, and the script that leads
// from one to the other. Pure.
//
// In each table one jump from PREROUTING and one from OUTPUT leads to chains of our own, whose names begin with REMORA_;
// nothing else of ours stands in the built-in chains. No comments and no sets: gVisor and old kernels know few matches.
// An empty chain REMORA_<10 hex: plan><10 hex: rules> says which plan the rules were made from and what they looked like
// when read back; so the same again can be told from drift, whatever dialect this version of iptables-save writes.
#ifndef INIT_NET_IPT_TEXT_H
#define INIT_NET_IPT_TEXT_H

#include "init-net/plan.h"
#include "lib/base/buf.h"

enum ipt_table { IPT_RAW, IPT_MANGLE, IPT_NAT, IPT_TABLES };
extern const char *const ipt_table_names[IPT_TABLES];

struct ipt_line {
    struct str text;         // "-A CHAIN …", arena
    const struct rule *rule; // of the plan it was made from; NULL when it was read
};

struct ipt_lines {
    struct ipt_line *v; // arena
    size_t n, cap;
};

// text must live as long as a.
void ipt_lines_add(struct ipt_lines *l, struct arena *a, struct str text, const struct rule *rule);

// What someone has in one table.
struct ipt_content {
    struct ipt_lines chains; // names
    struct ipt_lines rules;  // of these chains
    struct ipt_lines hooks;  // rules of the built-in chains
};

// One family's tables as iptables-save shows them.
struct ipt_saved {
    struct ipt_content ours[IPT_TABLES];
    struct ipt_content foreign[IPT_TABLES]; // what --takeover removes
    const char *owners[4];                  // other redirectors that were seen
    size_t n_owners;
    bool displaced;    // another rule stands before a jump of ours
    struct str marker; // its 20 hex digits, empty when there is none
    uint64_t digest;   // of ours, the marker left out
};

// A script and, for each of its lines (the first is 0), the rule of the plan that it is about, or NULL.
struct ipt_script {
    struct buf text;           // owned
    const struct rule **rules; // owned
    size_t n, cap;
};
void ipt_script_fini(struct ipt_script *s);

// The plan's part for one family and table; empty when it has none.
void ipt_from_plan(const struct plan *p, uint8_t family, enum ipt_table t, struct ipt_content *ret);
// Reads the output of iptables-save (without counters).
void ipt_from_save(struct str text, struct arena *a, struct ipt_saved *ret);
bool ipt_content_is_empty(const struct ipt_content *c);
// Appends "*table … COMMIT": what from says goes, what to says comes, in one step. Nothing when both are empty.
void ipt_script_add(struct ipt_script *s, enum ipt_table t, const struct ipt_content *from, const struct ipt_content *to);
// The content of x and y together.
struct ipt_content ipt_content_join(const struct ipt_content *x, const struct ipt_content *y, struct arena *a);
// Is this one of our chains?
bool ipt_chain_is_ours(struct str name);
// The 20 digits of a marker.
void ipt_marker(uint64_t plan_hash, uint64_t digest, char ret[21]);

#endif

// SPDX-License-Identifier: Apache-2.0
// The plan: options turned into an ordered list of chains and rules, plus the routing that goes with them.
// Pure data, made without privileges; everything else (the kernel batch, the texts, the evaluator) reads it.
#ifndef INIT_NET_PLAN_H
#define INIT_NET_PLAN_H

#include "init-net/options.h"

#define PLAN_TABLE "remora" // family inet, or ip and ip6

// How the nf_tables backend lays the plan out.
enum plan_layout {
    PLAN_INET, // one table of family inet
    PLAN_IP,   // a table of family ip and, with IPv6, one of ip6: for kernels before 5.2, which have no inet nat
};

enum chain {
    // Base chains, in the order in which a packet meets them.
    CHAIN_RAW_PRE,
    CHAIN_RAW_OUT,
    CHAIN_GUARD_OUT, // nftables only
    CHAIN_MANGLE_PRE,
    CHAIN_MANGLE_OUT,
    CHAIN_NAT_PRE,
    CHAIN_NAT_OUT,
    CHAIN_BASES,
    // Regular chains.
    CHAIN_INBOUND = CHAIN_BASES, // nat: which inbound ports are captured
    CHAIN_OUTBOUND,              // nat: who is captured
    CHAIN_CAPTURE,               // nat: which destinations are captured
    CHAIN_DNS,                   // nat: DNS to the proxy's resolver
    CHAIN_TO_INBOUND,            // nat: the redirect to the inbound port
    CHAIN_TO_OUTBOUND,           // nat: the redirect to the outbound port
    CHAIN_TPROXY_INBOUND,        // mangle: which inbound ports are captured
    CHAIN_TPROXY_DIVERT,         // mangle: packets of connections already captured
    CHAIN_TPROXY,                // mangle: the tproxy statement
    CHAIN_COUNT
};

struct chain_info {
    const char *name;
    const char *type; // "filter", "route", "nat"; NULL for regular chains
    uint32_t hook;    // enum nf_inet_hooks
    int priority;     // of nat chains: before the offset
    const char *iptables_table; // "raw", "mangle", "nat"
    const char *iptables_name;  // of base chains: the chain that PREROUTING or OUTPUT jumps to
};
extern const struct chain_info plan_chains[CHAIN_COUNT];

enum match_kind {
    MATCH_FAMILY,   // family: AF_INET or AF_INET6
    MATCH_PROTO,    // proto: IPPROTO_TCP or IPPROTO_UDP
    MATCH_SPORT,    // ports; a MATCH_PROTO stands before it
    MATCH_DPORT,    // ports
    MATCH_IIF,      // name
    MATCH_OIF,      // name
    MATCH_SADDR,    // nets, all of one family; implies that family
    MATCH_DADDR,    // nets
    MATCH_UID,      // ids: user of the socket when it was made; never matches what has no socket
    MATCH_GID,      // ids
    MATCH_MARK,     // mark
    MATCH_CT_MARK,  // mark
    MATCH_CT_STATE, // ct_state: bits CT_*
    MATCH_NOT_SYN,  // TCP flags other than a bare SYN; a MATCH_PROTO of TCP stands before it
};

// Bits of `ct state` (linux/netfilter/nf_conntrack_common.h, NF_CT_STATE_BIT).
enum { CT_INVALID = 1, CT_ESTABLISHED = 2, CT_RELATED = 4 };

struct match {
    enum match_kind kind;
    bool negate; // for lists: none of them
    union {
        uint8_t family;
        uint8_t proto;
        struct port_list ports; // disjoint, ascending
        const char *name;       // trailing '*': prefix
        struct cidr_list nets;  // disjoint, ascending
        struct id_list ids;
        struct mark mark;
        uint32_t ct_state;
    };
};

enum action_kind {
    ACTION_RETURN,
    ACTION_ACCEPT,
    ACTION_DROP,
    ACTION_REJECT,     // TCP by a reset, others by "port unreachable"; a MATCH_PROTO stands before it
    ACTION_JUMP,       // chain
    ACTION_REDIRECT,   // port
    ACTION_TPROXY,     // port, value = mark; accepts when a socket listens there, else goes on
    ACTION_MARK,       // value; goes on
    ACTION_CT_SAVE,    // packet mark to conntrack mark; goes on
    ACTION_CT_RESTORE, // conntrack mark to packet mark; goes on
    ACTION_ZONE,       // value; then returns
};

enum { RULE_MATCHES_MAX = 8, RULE_COMMENT_MAX = 96 };

struct rule {
    enum chain chain;
    struct match m[RULE_MATCHES_MAX];
    size_t n;
    enum action_kind action;
    enum chain target; // ACTION_JUMP
    uint16_t port;
    uint32_t value;
    const char *origin;  // the flag it comes from, or "" ; static text
    const char *comment; // at most RULE_COMMENT_MAX bytes, arena
};

struct plan {
    const struct options *o; // borrowed
    struct arena *a;         // borrowed; owns rules and lists
    struct rule *rules;      // arena; in order within each chain
    size_t n, cap;
    bool v6;                // IPv6 rules
    bool passthrough_addr6; // ::6/128 on lo
    bool policy_route4, policy_route6;
    uint32_t route_mark, route_table;
    enum plan_layout layout;
    bool marker;    // the hash also stands in the name of an empty chain: kernels before 5.10 keep no comment of a table
    int nat_offset; // added to the priority of the nat chains
};

// Chooses the layout, and whether this kernel needs the marker.
void plan_set_layout(struct plan *p, enum plan_layout layout);
// The families of the tables of this layout (NFPROTO_*); returns how many.
size_t plan_tables(const struct plan *p, uint8_t ret[2]);
// Does the rule say anything about packets of this family (NFPROTO_INET: any)?
bool plan_rule_is_for(const struct rule *r, uint8_t family);
// Does this family's table hold this chain?
bool plan_chain_in(const struct plan *p, uint8_t family, enum chain c);

// Builds the plan of an apply. Cannot fail: options were checked before. o and a must outlive *ret.
void plan_build(const struct options *o, struct arena *a, struct plan *ret);
// Does the chain hold a rule? Chains without are not created.
bool plan_chain_used(const struct plan *p, enum chain c);
// Position of a rule within its chain, from 1.
size_t plan_rule_number(const struct plan *p, const struct rule *r);
// Priority of a base chain, offset included.
int plan_chain_priority(const struct plan *p, enum chain c);
// 64 bits over all that matters to the kernel; equal plans have equal hashes on every machine and run.
uint64_t plan_hash(const struct plan *p);
// Does the plan change nothing at all?
bool plan_is_empty(const struct plan *p);

// --- for rules/*.c: a rule is added, then narrowed by matches. The pointer is good until the next plan_add. ---
__attribute__((format(printf, 5, 6))) struct rule *plan_add(struct plan *p, enum chain c, enum action_kind action,
                                                            const char *origin, const char *fmt, ...);
void match_family(struct rule *r, uint8_t family);
void match_proto(struct rule *r, uint8_t proto);
// Empty lists add no condition.
void match_ports(struct plan *p, struct rule *r, enum match_kind kind, const struct port_list *ports, bool negate);
void match_port(struct plan *p, struct rule *r, enum match_kind kind, uint16_t port, bool negate);
void match_name(struct rule *r, enum match_kind kind, const char *name);
void match_nets(struct plan *p, struct rule *r, enum match_kind kind, const struct cidr_list *nets, bool negate);
void match_net(struct plan *p, struct rule *r, enum match_kind kind, const struct cidr *net, bool negate);
void match_ids(struct rule *r, enum match_kind kind, const struct id_list *ids, bool negate);
void match_mark(struct rule *r, enum match_kind kind, struct mark mark, bool negate);
void match_ct_state(struct rule *r, uint32_t bits);
void match_not_syn(struct rule *r);

#endif

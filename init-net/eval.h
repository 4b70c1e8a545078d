// SPDX-License-Identifier: Apache-2.0
// What would the plan's rules do with a packet? A pure walk over the same rules that the kernel gets.
#ifndef INIT_NET_EVAL_H
#define INIT_NET_EVAL_H

#include "init-net/plan.h"

// The first packet of a connection.
struct packet {
    enum direction dir;
    uint8_t family; // AF_INET or AF_INET6
    uint8_t proto;  // IPPROTO_TCP or IPPROTO_UDP
    uint8_t src[16], dst[16];
    uint16_t sport, dport; // sport 0: one that no rule knows
    bool has_owner;        // DIR_OUT from a local socket
    uint32_t uid, gid;
    const char *iif, *oif; // oif for DIR_OUT, iif for DIR_IN
    uint32_t mark, ct_mark;
    uint32_t ct_state; // CT_* bits; 0: new
    bool not_syn;
};

enum fate_kind { FATE_PASS, FATE_REDIRECT, FATE_TPROXY, FATE_DROP, FATE_REJECT };

struct fate {
    enum fate_kind kind;
    uint16_t port;            // FATE_REDIRECT, FATE_TPROXY
    uint32_t zone, mark;      // as the packet has them at the end
    const struct rule *rule;  // the rule that decided; NULL: none did
};

// Called for each rule looked at. failed: index of the first condition that did not hold, -1 when all did.
typedef void (*eval_trace)(const struct plan *p, const struct rule *r, int failed, void *arg);

// trace may be NULL.
struct fate eval_packet(const struct plan *p, const struct packet *pkt, eval_trace trace, void *arg);
// "10.0.0.1:80", "[::1]:80", "10.0.0.1" into address and port (port stays when absent). -EINVAL with a reason.
int eval_address(struct str text, uint8_t *ret_family, uint8_t ret_addr[16], uint16_t *port, struct err *err);
// "redirect to port 15001"; into buf.
const char *eval_fate_text(const struct fate *f, char *buf, size_t n);

#endif

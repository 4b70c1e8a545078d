// SPDX-License-Identifier: Apache-2.0
// The rule emitters, in the order in which their rules stand in each chain. A new kind of rule is one file and one line.
#ifndef INIT_NET_RULES_REGISTRY_H
#define INIT_NET_RULES_REGISTRY_H

#include "init-net/plan.h"

struct rules_emitter {
    const char *name;
    void (*emit)(const struct options *o, struct plan *p); // appends to the plan; nothing to do is fine
};
extern const struct rules_emitter rules_registry[];
extern const size_t rules_registry_count;

// Each is described at its definition.
void rules_ipv6(const struct options *o, struct plan *p);
void rules_interfaces(const struct options *o, struct plan *p);
void rules_guard(const struct options *o, struct plan *p);
void rules_ipv6_drop(const struct options *o, struct plan *p);
void rules_established(const struct options *o, struct plan *p);
void rules_drop_invalid(const struct options *o, struct plan *p);
void rules_exclude_ports(const struct options *o, struct plan *p);
void rules_passthrough(const struct options *o, struct plan *p);
void rules_owner(const struct options *o, struct plan *p);
void rules_groups(const struct options *o, struct plan *p);
void rules_dns(const struct options *o, struct plan *p);
void rules_capture(const struct options *o, struct plan *p);
void rules_inbound_redirect(const struct options *o, struct plan *p);
void rules_inbound_tproxy(const struct options *o, struct plan *p);

#endif

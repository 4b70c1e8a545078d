// SPDX-License-Identifier: Apache-2.0
#include "init-net/rules/registry.h"

// The proxy hands inbound connections to the application from source 127.0.0.6 (::6): these must not come in again.
void rules_passthrough(const struct options *o, struct plan *p)
{
    static const struct cidr sources[] = {
        { .family = AF_INET, .len = 32, .addr = { 127, 0, 0, 6 } },
        { .family = AF_INET6, .len = 128, .addr = { [15] = 6 } },
    };
    (void)o;
    struct rule *r = plan_add(p, CHAIN_NAT_OUT, ACTION_JUMP, "", "all outbound traffic");
    r->target = CHAIN_OUTBOUND;
    for (size_t i = 0; i < 2; i++) {
        if (sources[i].family == AF_INET6 && !p->v6) {
            continue;
        }
        r = plan_add(p, CHAIN_OUTBOUND, ACTION_RETURN, "", "proxy delivers to the application");
        match_name(r, MATCH_OIF, "lo");
        match_net(p, r, MATCH_SADDR, &sources[i], false);
    }
}

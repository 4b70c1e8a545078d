// SPDX-License-Identifier: Apache-2.0
#include "init-net/rules/registry.h"

// --drop-invalid: an out-of-window segment of a redirected connection is not translated back, meets no socket and draws
// a reset; dropped instead.
void rules_drop_invalid(const struct options *o, struct plan *p)
{
    if (o->drop_invalid) {
        match_ct_state(plan_add(p, CHAIN_MANGLE_PRE, ACTION_DROP, "--drop-invalid", "invalid for conntrack"),
                       CT_INVALID);
    }
}

// SPDX-License-Identifier: Apache-2.0
// Metadata that load balancing looks at: "envoy.lb" of endpoints. Values are canonical texts (proxy/config writes them as it writes what routes
// ask for, struct subset_key), so that comparing is comparing bytes. Frozen, in the arena of what has them.
#ifndef PROXY_MODEL_LB_CRITERIA_H
#define PROXY_MODEL_LB_CRITERIA_H

#include "lib/base/str.h"

struct lb_criterion {
    struct str key, value;
    bool element; // endpoints only: value is one of a list's; it matches with LbSubsetConfig.list_as_any
};

#endif

// SPDX-License-Identifier: Apache-2.0
// What listener and network filters want of the upstream connections that are made for a client.
#ifndef PROXY_CORE_HINTS_H
#define PROXY_CORE_HINTS_H

#include "lib/net/addr.h"

struct upstream_hints { // in the downstream connection's arena
    struct addr source; // connect from this address, which is not ours (original_src); family 0 = as the cluster says
    uint32_t mark;      // SO_MARK, 0 = as the cluster says
    struct str tlvs;    // whole TLVs of the client's PROXY header that may be handed on
    struct str cluster; // where a TCP proxy shall go in place of its configured target; empty = as configured
};

#endif

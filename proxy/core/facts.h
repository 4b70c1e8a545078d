// SPDX-License-Identifier: Apache-2.0
// Dynamic metadata of a connection: texts that filters found, by namespace and key. For access logs.
#ifndef PROXY_CORE_FACTS_H
#define PROXY_CORE_FACTS_H

#include "lib/base/str.h"

struct connection_fact { // in the connection's arena; the latest one first
    struct str space, key, value;
    const struct connection_fact *next; // NULL = last
};

#endif

// SPDX-License-Identifier: Apache-2.0
#include "init-net/foreign.h"

#include <string.h>

#include "lib/base/check.h"

static const char istio[] = "istio-iptables", ambient[] = "Istio ambient", linkerd[] = "linkerd", consul[] = "Consul", kuma[] = "Kuma";

struct known {
    const char *name, *owner;
};

const char *foreign_table_owner(const char *table)
{
    static const struct known known[] = {
        { "istio-proxy-nat", istio },     { "istio-proxy-mangle", istio },     { "istio-proxy-raw", istio },
        { "istio-ambient-nat", ambient }, { "istio-ambient-mangle", ambient }, { "istio-ambient-raw", ambient },
        { "consul_tproxy", consul },
    };
    for (size_t i = 0; i < array_len(known); i++) {
        if (strcmp(table, known[i].name) == 0) {
            return known[i].owner;
        }
    }
    return NULL;
}

const char *foreign_chain_owner(struct str chain)
{
    // Ambient's in-pod chains bear Istio's prefix, so they stand before it.
    static const struct known prefixes[] = {
        { "ISTIO_PRERT", ambient }, { "ISTIO_", istio }, { "PROXY_INIT_", linkerd }, { "CONSUL_", consul }, { "KUMA_MESH_", kuma },
    };
    for (size_t i = 0; i < array_len(prefixes); i++) {
        if (str_starts(chain, str_c(prefixes[i].name))) {
            return prefixes[i].owner;
        }
    }
    return NULL;
}

bool foreign_is_ambient(struct str chain)
{
    return str_starts(chain, STR("ISTIO_PRERT"));
}

const char *foreign_settle(const char *owner, bool is_ambient)
{
    return owner && is_ambient && strcmp(owner, istio) == 0 ? ambient : owner;
}

bool foreign_is_removable(const char *owner)
{
    return strcmp(owner, istio) == 0 || strcmp(owner, linkerd) == 0 || strcmp(owner, consul) == 0;
}

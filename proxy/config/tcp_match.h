// SPDX-License-Identifier: Apache-2.0
// The part of a TCP proxy's configuration that is compared with endpoints' metadata, which proxy/config knows how to write.
#ifndef PROXY_CONFIG_TCP_MATCH_H
#define PROXY_CONFIG_TCP_MATCH_H

#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb-c.h"
#include "proxy/filters/network/tcp_proxy.h"

// metadata_match of m into c, which was parsed from it, and into its weighted clusters, whose own criteria come over the former. Control thread.
int build_tcp_match(const Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy *m, struct arena *a, struct tcp_proxy_cfg *c,
                    struct err *err);

#endif

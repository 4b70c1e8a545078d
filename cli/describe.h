// SPDX-License-Identifier: Apache-2.0
// Short words for pieces of configuration, as istioctl has them. Results live in the arena or in the tree.
#ifndef CLI_DESCRIBE_H
#define CLI_DESCRIBE_H

#include "cli/dump.h"

// The strings of an array joined by sep; empty for no array.
struct str describe_join(const struct json *strings, const char *sep, struct arena *a);
// What b holds, in the arena; b is empty then.
struct str describe_take(struct buf *b, struct arena *a);
// route.v3.RouteMatch: "/x*", "/x", "PathPrefix:/x", "regex R". Headers and parameters are not shown.
struct str describe_match(const struct json *match, struct arena *a);
// route.v3.RouteConfiguration inside a listener: the cluster when all goes to one, else "Inline Route: …".
struct str describe_route_config(const struct json *route_config, struct arena *a);
// "Cluster: NAME", or only NAME for those that say it themselves (PassthroughCluster).
struct str describe_cluster(struct str name, struct arena *a);
// The domains of a virtual host: the two shortest forms, "a, b + 2 more...".
struct str describe_domains(const struct json *domains, struct arena *a);
// An address as in core.v3.Address: "1.2.3.4", "unix:///path" (pipe_prefix "unix://"), "envoy://listener/id"; *ret_port 0 where
// there is none. "unknown" for others.
struct str describe_address(const struct json *address, const char *pipe_prefix, uint32_t *ret_port, struct arena *a);
// core.v3.HealthStatus: name of a name or number; UNKNOWN when absent.
struct str describe_health(struct str value);

#endif

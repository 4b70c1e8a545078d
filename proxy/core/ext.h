// SPDX-License-Identifier: Apache-2.0
// An extension's parsed configuration as the frozen model holds it: which extension, its data, how to free it. Extension ops (network,
// HTTP, listener filters) all begin with struct ext_ops so that config code can treat registries alike.
#ifndef PROXY_CORE_EXT_H
#define PROXY_CORE_EXT_H

#include "lib/base/arena.h"
#include "lib/base/err.h"

struct config_ctx; // proxy/config's build context, opaque here: passed through config_parse

// Value of a runtime key, at most max, for parsers of extensions. False: not there, or no number. Set by proxy/config; NULL = there is no runtime.
extern bool (*config_runtime_number)(const struct config_ctx *ctx, const char *key, uint64_t max, uint64_t *ret);
// The same for fractions: {"numerator", "denominator"}, or a number as a percentage.
extern bool (*config_runtime_fraction)(const struct config_ctx *ctx, const char *key, uint32_t *ret_numerator, uint32_t *ret_denominator);
// The same for flags: *ret is left alone when the key is not there; fails ("layered_runtime: reason") when its value is no bool.
extern int (*config_runtime_bool)(const struct config_ctx *ctx, const char *key, bool *ret, struct err *err);
// node.cluster of the bootstrap, "" = none; lives as long as the process. Set and NULL as above.
extern const char *(*config_node_cluster)(const struct config_ctx *ctx);
// The listener that is built sends requests to this cluster: it begins when the cluster is ready. Set and NULL as above.
extern void (*config_uses_cluster)(struct config_ctx *ctx, struct str name);

// What every extension has. Ops structs embed it as their first member.
struct ext_ops {
    const char *name;      // canonical name, "envoy.filters.http.router"
    const char *type_url;  // without "type.googleapis.com/"; NULL when it has no configuration message
    // msg: the unpacked configuration message (ProtobufCMessage *), NULL when none was given. Allocate *ret_cfg in arena (it lives as
    // long as the owning listener or route table; register frees with arena_on_free). 0, or negative with err = "field: reason".
    // NULL = the configuration is ignored (telemetry-only extensions).
    int (*config_parse)(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err);
    // What it is told beyond our definitions is passed over rather than refused: it is about telemetry, and newer control planes say more.
    // So it is without config_parse, too.
    bool lenient;
};

struct ext { // an instance in a configuration
    const struct ext_ops *ops; // static
    const void *cfg;           // in the owner's arena
    struct str name;           // as configured (may differ from the canonical name)
    bool disabled;             // passed over unless a route says otherwise (HttpFilter.disabled, route.v3.FilterConfig.disabled)
};

#endif

// SPDX-License-Identifier: Apache-2.0
// What the resource builders (proto → model) share: the context of one build, errors with field paths, fields that are not supported.
#ifndef PROXY_CONFIG_CONFIG_CTX_H
#define PROXY_CONFIG_CONFIG_CTX_H

#include <errno.h>
#include <protobuf-c/protobuf-c.h>

#include "lib/base/arena.h"
#include "lib/base/err.h"
#include "proxy/model/tls_cfg.h"

struct secret_store;
struct listener_cfg;
struct Envoy__Config__Bootstrap__V3__LayeredRuntime;

// One resource being built. Control thread.
struct config_ctx {
    struct arena *arena;          // of the object being built
    struct arena *scratch;        // dies after the build: unpacked messages
    struct secret_store *secrets; // TLS slots and secrets
    bool ipv6;                    // the host has IPv6
    const char *node_id, *node_cluster; // of the bootstrap; NULL = none
    const struct Envoy__Config__Bootstrap__V3__LayeredRuntime *runtime; // NULL = none; lives as long as the process
    const struct listener_cfg *former; // of a listener that is built: the version whose unchanged chains it shares; NULL = none
    // What the resource refers to, collected on the way (names_arena, else arena of the object).
    struct tls_slot **slots;      // borrowed: the object's arena holds a reference
    size_t slot_count, slot_cap;
    struct str *rds_names;
    size_t rds_count, rds_cap;
    // Clusters that a listener sends traffic to; collected when names_arena is set (the listener's: route tables inside it have their own).
    struct arena *names_arena;
    struct str *cluster_names;
    size_t cluster_count, cluster_cap;
    // Files that serve EDS, RDS or SDS, named by config sources. NULL = no such source can be added (tests of one builder).
    // Makes the file at path a source of the type (enum xds_type); the same file twice is one. path NULL: 0 when the type may come over
    // ADS, else negative: files serve it already.
    int (*add_source)(void *arg, int type, const char *path, struct err *err);
    void *add_source_arg;
    bool peer_exchange;           // what is built speaks Istio's TCP metadata exchange: its ALPN is kept
};

// "field: reason" with code -EINVAL. Returns the code.
#define cfg_fail(err, field, ...) cfg_fail_((err), (field), __VA_ARGS__)
__attribute__((format(printf, 3, 4))) int cfg_fail_(struct err *err, const char *field, const char *fmt, ...);
// Puts "prefix." before "field: reason". Returns err->code.
__attribute__((format(printf, 2, 3))) int cfg_in(struct err *err, const char *fmt, ...);

// Refuses the first field of m that is set (not its default) and not among known[n]: "field: not supported yet". A configuration that asks for
// something we would not do must not pass silently.
int cfg_known(const ProtobufCMessage *m, const char *const *known, size_t n, struct err *err);
#define CFG_KNOWN(m, err, ...)                                                                                         \
    cfg_known(&(m)->base, (const char *const[]){ __VA_ARGS__ },                                                        \
              sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(const char *), (err))

// Refuses texts of m itself (not of what is within) that have line ends or NUL: they become parts of heads. "field: reason".
int cfg_one_line(const ProtobufCMessage *m, struct err *err);

// Remember a slot / RDS name the object needs (duplicates are dropped).
void config_ctx_add_slot(struct config_ctx *ctx, struct tls_slot *slot);
void config_ctx_add_rds(struct config_ctx *ctx, struct str name);
// Remember a cluster that the object sends traffic to, when the context wants to know.
void config_ctx_add_cluster(struct config_ctx *ctx, struct str name);

#endif

// SPDX-License-Identifier: Apache-2.0
// xDS subscriber: sources (a gRPC ADS stream, files, memory) bring resources of several types; one sink per type accepts each
// resource or says why not. The client keeps what was accepted, de-duplicates by content, ACKs and NACKs, reconnects. It knows no
// listener and no cluster: a resource is a type, a name and serialized bytes.
// All on one loop (the control thread).
#ifndef XDS_CLIENT_XDS_CLIENT_H
#define XDS_CLIENT_XDS_CLIENT_H

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/base/hash.h"
#include "lib/base/map.h"
#include "lib/event/loop.h"

enum xds_type {
#define XDS_TYPE(id, short_name, url, wildcard, full) XDS_##id,
#include "xds-client/resource_types.def"
#undef XDS_TYPE
    XDS_TYPE_COUNT
};
const char *xds_type_short(enum xds_type t); // "CDS"
struct str xds_type_url(enum xds_type t);    // "type.googleapis.com/envoy.config.cluster.v3.Cluster"
int xds_type_parse(struct str url);          // -1 unknown; with or without "type.googleapis.com/"

// An accepted resource as it came. Owned by the client; valid until the resource is replaced or removed.
struct xds_resource {
    struct str name;
    struct str bytes;    // serialized message of the type (the value of the Any)
    struct str version;  // Resource.version, or the response's version_info
    struct hash128 hash; // of bytes
    uint64_t updated_ms; // wall clock of the last change
    bool is_static;      // came from the bootstrap
    // The last refused successor, for config_dump's error_state; name p NULL when none.
    struct str failed_bytes, failed_reason, failed_version;
    uint64_t failed_ms;
};

// One update of one type, as the sink sees it. Unchanged resources (equal hash) are not shown again.
struct xds_update_item {
    struct str name;
    struct str bytes; // p NULL: the resource was removed (or, asked for by name, does not exist); borrowed during the call
    struct str version;
    bool is_static;
    // The sink sets it (in the arena given) to refuse this resource: "path.to.field: reason". p NULL = accepted.
    struct str refused;
};
struct xds_update {
    enum xds_type type;
    struct xds_update_item *items;
    size_t count;
    struct str version;  // system_version_info / version_info
    struct arena *arena; // for reasons; dies after the call
};

// Called for each response that changed something, and once with count 0 for the first response of a type that was empty.
// The sink applies good items and sets refused on bad ones (their old versions stay, in the client too).
typedef void (*xds_sink_fn)(void *arg, struct xds_update *u);

struct xds_client;

struct xds_node {          // borrowed during xds_client_new, copied
    struct str serialized; // envoy.config.core.v3.Node, packed
};

struct xds_client *xds_client_new(struct loop *l, const struct xds_node *node, xds_sink_fn sink, void *arg);
void xds_client_free(struct xds_client *c);

// Interest in a type. Wildcard types: names NULL, n 0 = all. Other types: exactly these names from now on (replaces the former set);
// names that left are unsubscribed and dropped without a sink call. Sends at the end of the loop's turn, coalesced: a name that
// left and came back within one turn is not shown again (xds_find has it). Names that are not text are never asked for.
// With several sources a type is served by the source that was given for it.
void xds_subscribe(struct xds_client *c, enum xds_type t, const struct str *names, size_t n);
// on_missing(arg, type, name) runs, once, when a subscribed name has not arrived timeout_ms after xds_subscribe, connected or not
// (core.v3.ConfigSource.initial_fetch_timeout; 0 = wait for ever); name is empty for a wildcard type. One handler for all.
void xds_on_missing(struct xds_client *c, void (*fn)(void *arg, enum xds_type t, struct str name), void *arg, uint64_t timeout_ms);

// ---- sources ----
struct xds_ads_opts {
    struct str target; // "istiod.istio-system.svc:15012"
    bool delta;        // DeltaAggregatedResources rather than StreamAggregatedResources
    bool tls;
    struct str root_file; // PEM file, read again for every connection; empty = root_pem
    struct str root_pem;
    struct str server_name;         // name to verify in place of the target's host
    struct str cert_file, key_file; // client certificate, optional
    struct str token_file;          // bearer token, read again for every stream, sent over TLS only; missing file = no header
    const struct str (*headers)[2]; // further metadata pairs
    size_t header_count;
    int keepalive_ms, keepalive_timeout_ms;   // 0 = 30 s / 10 s
    uint64_t backoff_base_ms, backoff_max_ms; // 0 = 500 / 30000, full jitter
};
// Serves all types not yet served by another source. Starts connecting.
// -EEXIST when there is a stream already.
int xds_add_ads(struct xds_client *c, const struct xds_ads_opts *o, struct err *err);
// A file holding a DiscoveryResponse in JSON or YAML (Envoy's path_config_source), for one type; reloaded when it changes.
// Also a plain list under `resources:`, whose members may leave "@type" out. Several files may serve one type. Resources reach the
// sink as far as they are subscribed. Fails when the file cannot be read now; bad content is counted and shown in xds_status.
int xds_add_file(struct xds_client *c, enum xds_type t, const char *path, struct err *err);
// In-process resources (static bootstrap resources). Adds or replaces one resource; bytes NULL removes. Delivered to the sink in one
// update per type by xds_mem_commit, which returns the number refused and the first reason in err. A name put twice before one
// commit is refused. A static resource is never replaced or removed by another source.
void xds_mem_put(struct xds_client *c, enum xds_type t, struct str name, struct str bytes);
int xds_mem_commit(struct xds_client *c, enum xds_type t, struct err *err);

// ---- status ----
struct xds_type_status {
    struct str version;                   // of the last accepted response
    uint64_t updates, accepted, rejected; // responses seen, ACKed, NACKed (cds.update_attempt/success/rejected)
    uint64_t failures;                    // connection failures while subscribed
    uint64_t last_update_ms;              // wall clock
    struct str last_error;                // text of the last NACK, empty when none
    bool subscribed, answered;            // answered: at least one response (or mem commit) came
    size_t resources;
};
void xds_status(const struct xds_client *c, enum xds_type t, struct xds_type_status *ret);
struct xds_ads_status {
    bool connected; // the stream is up
    uint64_t connects, disconnects;
    struct str last_error;       // gRPC status text of the last end
    uint64_t connected_since_ms; // time of the loop: the wall clock may be set meanwhile
};
void xds_ads_state(const struct xds_client *c, struct xds_ads_status *ret);
// Accepted resources of a type in name order; fn returns false to stop.
void xds_each(const struct xds_client *c, enum xds_type t, bool (*fn)(void *arg, const struct xds_resource *r), void *arg);
// The same for names of which only refused versions are known (bytes p NULL, failed_* set).
void xds_each_refused(const struct xds_client *c, enum xds_type t, bool (*fn)(void *arg, const struct xds_resource *r), void *arg);
const struct xds_resource *xds_find(const struct xds_client *c, enum xds_type t, struct str name);

#endif

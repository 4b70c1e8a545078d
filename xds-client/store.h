// SPDX-License-Identifier: Apache-2.0
// The accepted resources of one type, as serialized bytes, and what was refused since. Pure; the control thread's.
#ifndef XDS_CLIENT_STORE_H
#define XDS_CLIENT_STORE_H

#include "xds-client/xds_client.h"

enum { XDS_ORIGIN_STATIC = 0, XDS_ORIGIN_ADS = 1, XDS_ORIGIN_FILE = 2 /* and up, one per file */ };

struct xds_entry {
    struct xds_resource r;   // strings owned
    struct str wire_version; // owned; Resource.version as sent, what initial_resource_versions repeats; may be empty
    bool accepted;           // false: only a refused version is known
    int origin;              // the source that gave the accepted version
    uint32_t mark;           // scratch of xds_apply: generation in which the name was seen
};

// A zeroed struct is a valid empty store.
struct xds_store {
    struct map entries; // → owned struct xds_entry
    size_t accepted;    // entries with an accepted version
    uint32_t mark;
};

void xds_store_fini(struct xds_store *s);
// Entry by name, accepted or not; NULL when unknown. Borrowed until removed.
struct xds_entry *xds_store_get(const struct xds_store *s, struct str name);
// Keeps copies. version is shown to people, wire_version goes back to the server. Forgets a refused successor.
void xds_store_put(struct xds_store *s, struct str name, struct str bytes, struct str version, struct str wire_version, int origin,
                   uint64_t wall_ms);
// Remembers a refused version beside the accepted one. Names never accepted are kept up to XDS_REFUSED_MAX.
void xds_store_fail(struct xds_store *s, struct str name, struct str bytes, struct str version, struct str reason, int origin,
                    uint64_t wall_ms);
void xds_store_clear_failed(struct xds_entry *e);
void xds_store_set_wire_version(struct xds_entry *e, struct str v);
// Forgets name (accepted and refused version). Idempotent.
void xds_store_del(struct xds_store *s, struct str name);

#endif

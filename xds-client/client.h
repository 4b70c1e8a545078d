// SPDX-License-Identifier: Apache-2.0
// Inside of the client: what its sources share. Control thread only.
#ifndef XDS_CLIENT_CLIENT_H
#define XDS_CLIENT_CLIENT_H

#include "lib/base/arena.h"
#include "xds-client/response.h"
#include "xds-client/store.h"
#include "xds-client/subscription.h"
#include "xds-client/view.h"
#include "xds-client/xds_client.h"

struct xds_ads;

// Counters and marks of one type.
struct xds_type_state {
    struct str version;    // owned; of the last accepted response
    struct str last_error; // owned; text of the last refusal
    uint64_t updates, accepted, rejected, failures;
    uint64_t last_update_ms;
    bool answered_static;                             // a commit of static resources came
    bool answered;                                    // a response of another source came
    bool dirty;                                       // the subscription changed in this turn
    struct arena *pending;                            // owned; static resources waiting for xds_mem_commit, NULL when none
    struct xds_pending *pending_first, *pending_last; // arena
};

struct xds_client {
    struct loop *loop; // borrowed
    struct str node;   // owned
    xds_sink_fn sink;
    void *arg;
    void (*missing)(void *arg, enum xds_type t, struct str name);
    void *missing_arg;
    uint64_t missing_timeout_ms;

    struct xds_sub subs[XDS_TYPE_COUNT];
    struct xds_store stores[XDS_TYPE_COUNT];
    struct xds_type_state types[XDS_TYPE_COUNT];

    struct loop_task flush; // end of the turn: requests, dropped names, files
    struct timer deadline;  // earliest first-fetch deadline
    struct list files;      // owned struct xds_file
    uint32_t file_types;    // bit per type served by files
    int next_origin;
    struct xds_ads *ads; // owned; NULL without
};

// Owned copy of a text: replaces *s.
void xds_client_set_text(struct str *s, struct str v);
// A response of a source: sink, store, counters. The NACK text, the empty view when all was accepted.
struct str xds_client_take(struct xds_client *c, struct xds_response *r, int origin, struct arena *a);
// A source could not make a response out of what it got: counted as refused, the old resources stay.
void xds_client_refuse(struct xds_client *c, enum xds_type t, struct str reason);
// Runs the flush at the end of this turn.
void xds_client_wake(struct xds_client *c);

// ---- source_ads.c ----
void xds_ads_free(struct xds_ads *ads);
// Sends what there is to ask for, when the stream is there.
void xds_ads_pump(struct xds_ads *ads);
uint32_t xds_ads_served(const struct xds_ads *ads);
void xds_ads_status_get(const struct xds_ads *ads, struct xds_ads_status *ret);

// ---- source_file.c ----
struct xds_file;
void xds_files_free(struct xds_client *c);
// Brings the resources of every file of the type to the sink (again): what did not change is not shown.
void xds_files_load(struct xds_client *c, enum xds_type t);

// ---- source_mem.c ----
void xds_mem_fini(struct xds_client *c);

#endif

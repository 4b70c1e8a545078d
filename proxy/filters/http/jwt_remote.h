// SPDX-License-Identifier: Apache-2.0
// Key sets that are fetched over HTTP (JwtProvider.remote_jwks): once for all workers, kept as long as configured, and never twice at a time.
#ifndef PROXY_FILTERS_HTTP_JWT_REMOTE_H
#define PROXY_FILTERS_HTTP_JWT_REMOTE_H

#include "lib/base/list.h"
#include "lib/jose/jwks.h"
#include "proxy/core/worker.h"
#include "proxy/model/route_table.h"
#include "proxy/stats/stats.h"

enum { JWT_WORKERS_MAX = 1024, JWT_REMOTE_WAITERS_MAX = 10000 }; // of a process; requests of a worker that wait for one key set

struct jwt_remote_opts {      // all copied
    struct str cluster, host, path;
    uint64_t timeout_ms;
    uint64_t cache_ms;        // how long a key set counts
    bool async;               // fetched again before that ends; a key set then counts until there is another
    uint64_t failed_refetch_ms;
    const struct retry_policy *retry; // NULL = one attempt; borrowed for good: of static life, or in arena
    struct arena arena;       // taken: what retry points to
};
struct jwt_remote;            // counted
// For one configuration. Where another one asks the same, in another chain or the version before, both have the same keys. o->arena is taken.
struct jwt_remote *jwt_remote_open(struct jwt_remote_opts *o);
// The configuration is gone; after the last one there are no further fetches. Any thread. NULL is fine.
void jwt_remote_close(struct jwt_remote *r);

// The present key set; NULL = none, or it is too old. Borrowed until the worker's next call of this. Worker's thread.
struct jwks *jwt_remote_keys(struct jwt_remote *r, struct worker *w);
// Where fetches are counted, as for jwt_count; the first one's word, copied. Called for each request that may need the keys.
void jwt_remote_name(struct jwt_remote *r, struct worker *w, struct str stat_prefix, struct str stat_own);
// Fetches what new configurations want ahead of need (async). Worker's thread, when it has a new snapshot; the first worker does it for all.
void jwt_remote_on_snapshot(struct worker *w);
// A request that waits for keys; embedded in its state.
struct jwt_waiter {
    struct list link;
    void (*fn)(struct jwt_waiter *x, bool fetched); // on the worker's thread; fetched: jwt_remote_keys has them
};
// Has the keys fetched, or joins a fetch that is under way; x->fn comes once, later, unless jwt_remote_forget comes first. False: too many wait.
bool jwt_remote_wait(struct jwt_remote *r, struct worker *w, struct jwt_waiter *x);
// Does nothing when x does not wait.
void jwt_remote_forget(struct jwt_waiter *x);
// Gives up the fetches of this thread, at its end, after side_call_worker_fini.
void jwt_remote_worker_fini(void);

// Counts one STAT_ID_HTTP_JWT_… of the connection manager with this stat_prefix. own: the filter's stat_prefix; empty = none.
void jwt_count(struct worker *w, struct str prefix, struct str own, enum stat_any id);

#endif

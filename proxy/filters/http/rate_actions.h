// SPDX-License-Identifier: Apache-2.0
// route.v3.RateLimit: what a request is counted as. Entries of a route, a virtual host or a filter → descriptors.
#ifndef PROXY_FILTERS_HTTP_RATE_ACTIONS_H
#define PROXY_FILTERS_HTTP_RATE_ACTIONS_H

#include "envoy/config/route/v3/route_components.pb-c.h"
#include "proxy/authz/rate_limit.h"
#include "proxy/core/ext.h"

struct rate_limits; // frozen, in the owner's arena
struct stream;

enum { RATE_LIMIT_STAGES = 11, RATE_LIMIT_ACTIONS_MAX = RATE_LIMIT_ENTRIES_MAX, RATE_LIMIT_RULES_MAX = 256 };

// Where entries stand decides what they may say (Envoy refuses the rest): embedded in a filter's configuration there is no stage and no
// disable_key, and where limits are this process's own, no limit either.
enum rate_limits_place { RATE_LIMITS_ROUTE, RATE_LIMITS_GLOBAL_FILTER, RATE_LIMITS_LOCAL_FILTER };
// *ret NULL: there are none. "[0].actions[1].field: reason". Control thread.
int rate_limits_parse(const struct config_ctx *ctx, size_t n, Envoy__Config__Route__V3__RateLimit *const *v, enum rate_limits_place place,
                      struct arena *a, const struct rate_limits **ret, struct err *err);

// How many entries could apply at all: room for descriptors. l may be NULL.
size_t rate_limits_count(const struct rate_limits *l);

// The cluster that s goes to by its route, which is a forwarding one: weighted and named by a field, too.
struct str rate_limits_destination(const struct stream *s);

struct rate_limits_ask {
    unsigned stage;      // only entries of this stage
    bool done;           // those that apply when the exchange is over; else the others
    bool any_time;       // both (local limits do not know the difference)
    bool keyed_are_off;  // entries with a disable_key do not apply; else the runtime's share decides
};
// Appends the descriptors that s has to d[*n]; an entry one of whose actions has nothing to say makes none. In s's arena. l may be NULL.
void rate_limits_fill(const struct rate_limits *l, struct stream *s, const struct rate_limits_ask *q, struct rate_limit_descriptor *d,
                      size_t *n);

#endif

// SPDX-License-Identifier: Apache-2.0
// Inside of proxy/router: the seam between the request (router.c) and its attempts (attempt.c).
#ifndef PROXY_ROUTER_INTERNAL_H
#define PROXY_ROUTER_INTERNAL_H

#include "proxy/router/router.h"

// Picks a host and asks for a connection; answers locally when that is not possible.
void attempt_begin(struct router *r);
// Gives the current attempt back without an outcome (client gone, time-out): cancels what is under way.
void attempt_cancel(struct router *r);
// Sends what the request has so far to the open attempt: called when it opens.
void attempt_send_request(struct router *r);
// The client's side of a tunnel ended.
void attempt_client_ended(struct router *r);
// The route's time-out starts when the request is complete.
void router_request_complete(struct router *r);
// The answer is there (in full or locally): no timer, no replay any more.
void router_finish(struct router *r);

// Decimal text in the arena; printf shows in profiles of small requests.
struct str router_number(struct arena *a, uint64_t n);

// ---- mirror.c ----
// Starts the mirrors of the route, whose head is ready to be sent.
void mirror_start(struct router *r);
// Copies of the body for those that still take it.
void mirror_data(struct router *r, const struct buf *data, bool last);
void mirror_trailers(struct router *r, const struct headers *trailers);
// The request ended before it was complete.
void mirror_abandon(struct router *r);

#endif

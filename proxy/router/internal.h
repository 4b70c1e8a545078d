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
// The route's time-out starts when the request is complete.
void router_request_complete(struct router *r);
// The answer is there (in full or locally): no timer, no replay any more.
void router_finish(struct router *r);

#endif

// SPDX-License-Identifier: Apache-2.0
// Interest in one type: the wanted names, which of them had an answer, and until when the others may take. Pure: time comes in.
#ifndef XDS_CLIENT_SUBSCRIPTION_H
#define XDS_CLIENT_SUBSCRIPTION_H

#include "lib/base/arena.h"
#include "lib/base/map.h"

struct xds_sub_name {
    uint64_t deadline_ms; // monotonic; 0 = none
    bool answered;        // a resource, a refusal or a removal came, or the deadline passed
};

// A zeroed struct is a valid "not subscribed".
struct xds_sub {
    bool subscribed;         // xds_subscribe was called
    bool wildcard;           // everything; names is empty then
    struct map names;        // → owned struct xds_sub_name
    struct xds_sub_name all; // the wildcard's own deadline
    uint64_t timeout_ms;     // for names added from now on; 0 = wait for ever
};

void xds_sub_fini(struct xds_sub *s);
// Exactly these names from now on (duplicates count once, names no server could be asked for, empty, too long or not text, not
// at all, at most XDS_NAMES_MAX are kept); n 0 = everything when wildcard_ok,
// nothing otherwise. Deadlines of names that stay are kept. Returns whether anything changed.
bool xds_sub_set(struct xds_sub *s, bool wildcard_ok, const struct str *names, size_t n, uint64_t now_ms);
// The time-out changed: unanswered names that had no deadline get one from now, or lose it when timeout_ms is 0.
void xds_sub_set_timeout(struct xds_sub *s, uint64_t timeout_ms, uint64_t now_ms);
// Whether a resource of this name is asked for.
bool xds_sub_wants(const struct xds_sub *s, struct str name);
// Wanted by name and still without an answer.
bool xds_sub_waits_for(const struct xds_sub *s, struct str name);
// An answer for the name came; with the wildcard, any answer is one.
void xds_sub_answer(struct xds_sub *s, struct str name);
// Earliest deadline of an unanswered name; 0 = none.
uint64_t xds_sub_deadline(const struct xds_sub *s);
// Takes the names whose deadline has passed and marks them answered, so that each is reported once. Copies them into the arena;
// a wildcard's is the empty view. Returns the count.
size_t xds_sub_expire(struct xds_sub *s, uint64_t now_ms, struct arena *a, struct str **ret_names);

#endif

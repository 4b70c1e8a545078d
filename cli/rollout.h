// SPDX-License-Identifier: Apache-2.0
// The pure half of `remoractl rollout`: finding and changing two weights in a file without touching anything else of it, reading a proxy's
// counters, and deciding what comes next.
#ifndef CLI_ROLLOUT_H
#define CLI_ROLLOUT_H

#include "lib/base/arena.h"
#include "lib/base/err.h"
#include "lib/base/str.h"

enum { ROLLOUT_STEPS_MAX = 100 };

// Which weights: the http route that sends to subset and to one other destination.
struct rollout_target {
    struct str name;   // of the VirtualService; empty: the only one of the file that fits
    struct str route;  // name of the http route; empty: the first one with the subset
    struct str subset;
};
struct rollout_weights {
    struct str host;            // of the destination, with its full name
    unsigned percent;           // that the subset has now, of both weights
    size_t at[2], length[2];    // places of the two numbers in the text: the subset's, the other's
};
// Where the weights stand in text (one or more YAML documents). -EINVAL with the reason. Views live in the arena.
int rollout_find(struct str text, const struct rollout_target *t, struct arena *a, struct rollout_weights *ret, struct err *err);
// text with percent and 100 - percent in the place of the two weights.
struct str rollout_edit(struct str text, const struct rollout_weights *w, unsigned percent, struct arena *a);

// "1,5,25" → percentages, each greater than the one before, 1 to 100.
int rollout_steps(struct str text, unsigned *ret, size_t *ret_n, struct err *err);

struct rollout_counts {
    uint64_t requests, failed;
};
// Sums the counters of all outbound clusters of the subset and host in the text that a proxy's /stats answers.
struct rollout_counts rollout_read(struct str stats, struct str subset, struct str host);

enum rollout_verdict { ROLLOUT_WAIT, ROLLOUT_ON, ROLLOUT_BACK };
// What a step's counts say. Back as soon as more have failed than min_requests (or all that were seen) may; on when the time is over and
// enough were seen. max_failed is a share, 0 to 1.
enum rollout_verdict rollout_judge(struct rollout_counts seen, bool time_over, uint64_t min_requests, double max_failed);

#endif

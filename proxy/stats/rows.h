// SPDX-License-Identifier: Apache-2.0
// The walk over all statistics in the order of Envoy's text form, shared by the text and the JSON exposition.
#ifndef PROXY_STATS_ROWS_H
#define PROXY_STATS_ROWS_H

#include "proxy/stats/store.h"

enum { STATS_CODES_SHOWN = 64, STATS_ROWS_MAX = 64 + STATS_CODES_SHOWN, STATS_METRIC_MAX = 80 };

struct stats_row {
    char metric[STATS_METRIC_MAX]; // behind the scope's name
    uint64_t value;
};

struct stats_visitor { // called in order: all texts, all values, all histograms. Names are borrowed for the call.
    void *arg;
    void (*text)(void *arg, struct str name, struct str value);
    void (*value)(void *arg, struct str name, uint64_t value);
    void (*histogram)(void *arg, struct str name, const struct histogram_sum *h);
};
// Control thread.
void stats_each(struct stats_store *s, const struct stats_dump_opts *o, const struct stats_visitor *vis);

#endif

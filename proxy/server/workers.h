// SPDX-License-Identifier: Apache-2.0
// The worker threads: start, hand over snapshots, drain, count, stop. Called on the control thread; workers answer through its mailbox.
#ifndef PROXY_SERVER_WORKERS_H
#define PROXY_SERVER_WORKERS_H

#include "proxy/core/worker.h"
#include "proxy/model/snapshot.h"
#include "proxy/stats/stats.h"

struct workers;

// n threads named "worker_0"…, each with stats shard index 0 … n-1. first: what they begin with (its own reference is taken).
struct workers *workers_start(struct loop *control, struct stats_store *stats, int n, struct snapshot *first, struct err *err);
// Hands s (one reference per worker is taken) to all; each swaps between two of its turns.
void workers_publish(struct workers *ws, struct snapshot *s);
// Version that every worker has swapped to; 0 before the first.
uint64_t workers_applied(const struct workers *ws);
// Called on the control thread each time workers_applied grew.
void workers_on_applied(struct workers *ws, void (*fn)(void *arg), void *arg);
// Tells all connections (inbound_only: of inbound listeners) to finish, and stops accepting there unless accept. May be called again
// with more.
void workers_drain(struct workers *ws, bool inbound_only, bool accept);
// Asks all workers how many connections they hold; fn(arg, sum) once.
void workers_count(struct workers *ws, void (*fn)(void *arg, size_t connections), void *arg);
// Stops and joins all threads; remaining connections are closed. Runs one turn of the control loop, in which the callbacks of workers_count and
// workers_on_applied may still come. Frees ws. Not from a callback.
void workers_stop(struct workers *ws);

#endif

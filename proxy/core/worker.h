// SPDX-License-Identifier: Apache-2.0
// One thread's whole world: its loop, the snapshot it works with, its statistics shard, and a slot per subsystem.
// A worker shares nothing mutable with others except what docs/internals/shared-state.md lists.
#ifndef PROXY_CORE_WORKER_H
#define PROXY_CORE_WORKER_H

#include "lib/base/list.h"
#include "lib/event/loop.h"

struct snapshot;
struct stats_shard;

enum worker_slot { SLOT_LISTENER, SLOT_UPSTREAM, SLOT_HTTP, SLOT_ACCESS_LOG, SLOT_COUNT };

struct worker {
    struct loop *loop;         // owned by the server
    int index;                 // 0 … n-1
    struct snapshot *snap;     // counted reference; never NULL once started; replaced only between turns
    struct stats_shard *stats; // borrowed: lives as long as the process
    void *slots[SLOT_COUNT];   // each owned by its subsystem
    bool draining;             // server-wide drain has begun
    bool drain_inbound_only;
};

#endif

// SPDX-License-Identifier: Apache-2.0
// What the HTTP and the network filter of role-based access control have in common: rules that are enforced and rules that are only tried
// (shadow), how both are counted, and what they leave in dynamic metadata. Worker's thread; the parsed object is frozen but for its counters.
#ifndef PROXY_AUTHZ_RULES_H
#define PROXY_AUTHZ_RULES_H

#include <stdatomic.h>

#include "proxy/authz/authz.h"

struct worker;
struct stat_block;
struct dynamic_metadata;

enum { AUTHZ_WORKERS_KEPT = 16 }; // workers whose blocks of counters are remembered; others look theirs up each time

struct authz_side { // of the enforced or of the shadow rules
    const struct authz *rules;    // NULL = none: nothing is decided
    struct str stat_suffix;       // "" or ".PREFIX", behind "….rbac"
    struct str id_key, result_key; // of dynamic metadata
    _Atomic(struct stat_block *) blocks[AUTHZ_WORKERS_KEPT]; // made on first use; they live as long as the process
};
struct authz_rules {
    struct authz_side enforced, shadow;
    bool per_policy; // count by policy as well
};

struct authz_rules_cfg { // as both filters' messages have it; texts may be NULL
    const void *rules, *shadow_rules; // Envoy__Config__Rbac__V3__RBAC; NULL = absent, which is not the same as empty
    const char *rules_prefix, *shadow_prefix;
    bool per_policy;
};
int authz_rules_parse(const struct authz_rules_cfg *c, enum authz_of of, struct arena *a, struct authz_rules **ret, struct err *err);

// One question. names: the filter's own object, which counts; rules: those that hold, its own or a route's.
struct authz_question {
    struct authz_rules *names;
    const struct authz_rules *rules;
    const struct authz_subject *subject;
    struct worker *worker;
    struct str stat_base;              // what the counters' names begin with, behind "http." for requests; without ".rbac"
    struct dynamic_metadata **metadata; // where results are noted, NULL = nowhere
    struct arena *arena;               // for them, and for details
    enum authz_of of;
};
// Tries the shadow rules, if there are some.
void authz_try_shadow(const struct authz_question *q);
// False: denied, and *ret_details says by which policy ("rbac_access_denied_matched_policy[NAME]", in the arena, NUL-terminated).
bool authz_enforce(const struct authz_question *q, const char **ret_details);

#endif

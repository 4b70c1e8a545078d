// SPDX-License-Identifier: Apache-2.0
// Inside the analyzer.
#ifndef CONTROL_PLANE_ANALYZE_INT_H
#define CONTROL_PLANE_ANALYZE_INT_H

#include "control-plane/analyze.h"
#include "control-plane/model.h"
#include "lib/base/json.h"
#include "lib/base/map.h"

struct an_object {
    const struct json *doc, *spec; // spec may be NULL
    const char *file;
    struct str kind, ns, name;
    struct cp_export export;
};
struct an_ref { // of one name, in the order of the files
    const struct an_object *o;
    struct an_ref *next;
};
struct an_host { // of a ServiceEntry or Service
    struct str name;
    const struct an_object *o;
    const struct json *ports; // list with "number" or "port"
    size_t next;              // of the same name: index + 1
};
struct analysis {
    struct arena *a;
    struct an_object *v;
    size_t n, cap;
    struct an_host *hosts;
    size_t host_count, host_cap;
    struct map by_host;            // name → index + 1 of the first in hosts
    struct map rules, virtual_services; // full host → struct an_ref
    struct an_ref *wild_virtual_services; // those with a host that begins with '*'
    struct cp_finding *found;
    size_t found_count, found_cap;
};

// at: the node whose line is reported; NULL: the object's first line.
__attribute__((format(printf, 6, 7))) void an_report(struct analysis *x, enum cp_level level, const char *code, const struct an_object *o,
                                                      const struct json *at, const char *fmt, ...);
// The n-th object of a kind after *at (start with 0); NULL at the end.
const struct an_object *an_next(const struct analysis *x, const char *kind, size_t *at);
// A host name as the object's namespace means it.
struct str an_full(struct analysis *x, struct str host, struct str ns);
const struct an_host *an_find_host(struct analysis *x, struct str host, struct str ns);
// host is a wildcard for a known one.
bool an_covers_host(struct analysis *x, struct str host, struct str ns);
// Every label of want stands in have; both may be NULL, and NULL wants nothing.
bool an_selects(const struct json *want, const struct json *have);
// Conditions on claims of tokens: pods of the gateway that check no tokens.
void an_claims(struct analysis *x, const struct an_object *o);
const struct an_object *an_find_gateway(struct analysis *x, struct str name, struct str ns);

void an_virtual_services(struct analysis *x);
void an_conflicting_hosts(struct analysis *x);
void an_rules(struct analysis *x);
void an_service_entries(struct analysis *x);
void an_policies(struct analysis *x);
// Rules that can never be reached, and matches that earlier ones take, of one VirtualService.
void an_matches(struct analysis *x, const struct an_object *o);

#endif

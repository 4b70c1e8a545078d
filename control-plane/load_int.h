// SPDX-License-Identifier: Apache-2.0
// Inside the loader: one file per group of kinds, and the readers of fields that they share. A mistake ends the load with FILE:LINE: field: reason.
#ifndef CONTROL_PLANE_LOAD_INT_H
#define CONTROL_PLANE_LOAD_INT_H

#include "control-plane/model.h"
#include "lib/base/json.h"

enum { NAME_BYTES_MAX = 253, WEIGHT_MAX = 1000000 };

struct loader {
    struct cp_config *c;
    struct arena *a;
    const char *file; // in arena
    struct err *err;
    struct cp_meta meta;
    // growing lists
    size_t service_cap, workload_cap, workload_meta_cap, vs_cap, dr_cap, pa_cap, authz_cap, ra_cap;
    const struct json *annotations; // of the object that is being read; NULL: none
    struct cp_selector { size_t service; struct cp_labels labels; } *selectors; // services that select workloads
    size_t selector_count, selector_cap;
    struct map seen; // "KIND/NAMESPACE/NAME" → its cp_meta
};

// Sets l->err to "FILE:LINE: key: text" (n may be NULL) and returns -EINVAL.
__attribute__((format(printf, 3, 4))) int ld_fail(struct loader *l, const struct json *n, const char *fmt, ...);
// The same for what no proto of Istio's could hold, an unknown field or a wrong type: the error's code is -EPROTOTYPE, to be told from what
// only this program does not take.
__attribute__((format(printf, 3, 4))) int ld_mistyped(struct loader *l, const struct json *n, const char *fmt, ...);
// n must be an object with no other members than the space-separated names in known.
int ld_members(struct loader *l, const struct json *n, const char *known);
// Members of n by key: *ret stays as it is when there is none. Texts are copied into the arena.
int ld_str(struct loader *l, const struct json *n, const char *key, struct str *ret);
int ld_u32(struct loader *l, const struct json *n, const char *key, uint64_t max, uint32_t *ret);
int ld_port(struct loader *l, const struct json *n, const char *key, uint16_t *ret);
int ld_bool(struct loader *l, const struct json *n, const char *key, bool *ret);
int ld_strs(struct loader *l, const struct json *n, const char *key, struct str **ret, size_t *ret_n);
int ld_labels(struct loader *l, const struct json *n, const char *key, struct cp_labels *ret);
// "10s", "500ms", "1m", "1h30m" become seconds for protobuf's JSON: "0.500000s".
bool ld_parse_duration(struct str s, double *ret_seconds);
int ld_duration(struct loader *l, const struct json *n, const char *key, struct str *ret);
// A number with decimals, min to max. *ret_there (may be NULL) says whether the member is there.
int ld_number(struct loader *l, const struct json *n, const char *key, double min, double max, double *ret, bool *ret_there);
// Percent{value} as millionths; *ret stays as it is when there is no such member.
int ld_percent(struct loader *l, const struct json *n, const char *key, uint32_t *ret, bool *ret_there);
// One of the space-separated words; *ret_index is its place.
int ld_word(struct loader *l, const struct json *n, const char *key, const char *words, int *ret_index);
int ld_export(struct loader *l, const struct json *n, struct cp_export *ret); // exportTo
// The object member key, or NULL. 0, or an error when it is something else.
int ld_object(struct loader *l, const struct json *n, const char *key, const struct json **ret);
int ld_list(struct loader *l, const struct json *n, const char *key, const struct json **ret);
// Names become parts of resource names, SPIFFE ids and host names: letters, digits, '-', '_' and '.' (Kubernetes allows fewer).
int ld_name(struct loader *l, const struct json *n, const char *what, struct str s);
// A DNS name; "*.example.com" too.
int ld_host(struct loader *l, const struct json *n, const char *what, struct str s);
// "reviews" in namespace default is "reviews.default.svc.cluster.local"; names with dots, and "*", stay.
struct str ld_full_name(struct loader *l, struct str host, struct str ns);
// Room for one more element of size bytes in the arena's list *v; returns it, zeroed.
void *ld_grow(struct loader *l, void **v, size_t *n, size_t *cap, size_t size);

// Parts of routes.
int ld_string_match(struct loader *l, const struct json *n, struct cp_string_match *m);
int ld_http_match(struct loader *l, const struct json *n, struct cp_http_match *m);
int ld_l4_match(struct loader *l, const struct json *n, bool tls, struct cp_l4_match *m);
// gateways of n: which of the three.
int ld_gateways(struct loader *l, const struct json *n, enum cp_gateways *ret);
int ld_header_changes(struct loader *l, const struct json *n, struct cp_header_changes *req, struct cp_header_changes *resp, bool *ret_there);
int ld_one_destination(struct loader *l, const struct json *dest, struct cp_destination *d);
// All that an HTTP route does beside its destinations.
int ld_http_action(struct loader *l, const struct json *n, struct cp_http_route *r);
int ld_traffic_policy(struct loader *l, const struct json *n, struct cp_policy *p);

// The spec of each kind, into l->c.
int ld_service_entry(struct loader *l, const struct json *spec);
int ld_workload(struct loader *l, const struct json *spec);
int ld_virtual_service(struct loader *l, const struct json *spec);
int ld_destination_rule(struct loader *l, const struct json *spec);
int ld_peer_authentication(struct loader *l, const struct json *spec);
int ld_authorization_policy(struct loader *l, const struct json *spec);
int ld_request_authentication(struct loader *l, const struct json *spec);
// doc: the ConfigMap "istio" itself, which has no spec.
int ld_config_map(struct loader *l, const struct json *doc);
// selector, targetRef and targetRefs of a policy. *ret_targets: it is for gateways or waypoints, whatever its selector.
int ld_policy_scope(struct loader *l, const struct json *spec, struct cp_labels *ret_selector, bool *ret_targets);
// After all documents: delegates get their roots' place; ld_link calls it.
int ld_delegates(struct loader *l);
// After all documents: selectors find their workloads, rules and routes their services.
int ld_link(struct loader *l);

#endif

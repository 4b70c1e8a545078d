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
    size_t service_cap, workload_cap, workload_meta_cap, vs_cap, dr_cap, pa_cap;
    struct cp_selector { size_t service; struct cp_labels labels; } *selectors; // services that select workloads
    size_t selector_count, selector_cap;
};

// Sets l->err to "FILE:LINE: key: text" (n may be NULL) and returns -EINVAL.
__attribute__((format(printf, 3, 4))) int ld_fail(struct loader *l, const struct json *n, const char *fmt, ...);
// n must be an object with no other members than the space-separated names in known.
int ld_members(struct loader *l, const struct json *n, const char *known);
// Members of n by key: *ret stays as it is when there is none. Texts are copied into the arena.
int ld_str(struct loader *l, const struct json *n, const char *key, struct str *ret);
int ld_u32(struct loader *l, const struct json *n, const char *key, uint64_t max, uint32_t *ret);
int ld_port(struct loader *l, const struct json *n, const char *key, uint16_t *ret);
int ld_bool(struct loader *l, const struct json *n, const char *key, bool *ret);
int ld_strs(struct loader *l, const struct json *n, const char *key, struct str **ret, size_t *ret_n);
int ld_labels(struct loader *l, const struct json *n, const char *key, struct cp_labels *ret);
// "10s", "500ms", "1m" become seconds for protobuf's JSON: "0.500000s".
int ld_duration(struct loader *l, const struct json *n, const char *key, struct str *ret);
// Names become parts of resource names, SPIFFE ids and host names: letters, digits, '-', '_' and '.' (Kubernetes allows fewer).
int ld_name(struct loader *l, const struct json *n, const char *what, struct str s);
// A DNS name; "*.example.com" too.
int ld_host(struct loader *l, const struct json *n, const char *what, struct str s);
// Room for one more element of size bytes in the arena's list *v; returns it, zeroed.
void *ld_grow(struct loader *l, void **v, size_t *n, size_t *cap, size_t size);

// The spec of each kind, into l->c.
int ld_service_entry(struct loader *l, const struct json *spec);
int ld_workload(struct loader *l, const struct json *spec);
int ld_virtual_service(struct loader *l, const struct json *spec);
int ld_destination_rule(struct loader *l, const struct json *spec);
int ld_peer_authentication(struct loader *l, const struct json *spec);
// After all documents: selectors find their workloads, rules and routes their services.
int ld_link(struct loader *l);

#endif

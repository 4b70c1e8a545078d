// SPDX-License-Identifier: Apache-2.0
// Inside the validation: one file per kind, and the checks that they share.
#ifndef CONTROL_PLANE_VALIDATE_INT_H
#define CONTROL_PLANE_VALIDATE_INT_H

#include "control-plane/validate.h"

// "KEY: text" at that node.
__attribute__((format(printf, 3, 4))) void va_error(struct cp_validator *v, const struct json *at, const char *fmt, ...);
__attribute__((format(printf, 3, 4))) void va_warn(struct cp_validator *v, const struct json *at, const char *fmt, ...);
// A member that is there and not null, else NULL.
const struct json *va_get(const struct json *n, const char *key);
// The first element of the list or object at key, or NULL.
const struct json *va_first(const struct json *n, const char *key);
double va_number(const struct json *n); // 0 for what is no number

// A DNS label; letters of both cases.
bool va_is_label(struct str s);
bool va_is_domain(struct str s);
// The first label may be "*", or begin with it.
bool va_is_wild_domain(struct str s);
bool va_is_ip(struct str s);
bool va_is_subnet(struct str s);
bool va_is_header(struct str s);
// Names that one of the two patterns covers, where "*" at the beginning stands for any text.
bool va_hosts_meet(struct str a, struct str b);
bool va_host_within(struct str narrow, struct str wide);

// At least 1 ms and whole milliseconds, when it is there.
void va_duration(struct cp_validator *v, const struct json *n, const char *key);
void va_labels(struct cp_validator *v, const struct json *n, const char *key);
void va_port(struct cp_validator *v, const struct json *at, const struct json *number);
void va_gateways(struct cp_validator *v, const struct json *n);
void va_export(struct cp_validator *v, const struct json *spec, bool entry, bool selector);
// Labels of a selector: no wildcards. note: what a selector without labels does, or NULL.
void va_selector(struct cp_validator *v, const struct json *selector, const char *labels, const char *note);

void va_http_route(struct cp_validator *v, const struct json *r, bool delegate);
void va_destination(struct cp_validator *v, const struct json *to);
void va_virtual_service(struct cp_validator *v, const struct json *spec);
void va_traffic_policy(struct cp_validator *v, const struct json *at, const struct json *policy);
void va_destination_rule(struct cp_validator *v, const struct json *spec);
void va_service_entry(struct cp_validator *v, const struct json *spec);
void va_authorization_policy(struct cp_validator *v, const struct json *spec);
void va_request_authentication(struct cp_validator *v, const struct json *spec);
void va_peer_authentication(struct cp_validator *v, const struct json *spec);
// Parts of policies: selector, targetRef, targetRefs; and the annotation istio.io/dry-run of any object.
void va_scope(struct cp_validator *v, const struct json *spec);
void va_dry_run(struct cp_validator *v, const struct json *doc);

#endif

// SPDX-License-Identifier: Apache-2.0
// A response of any source in one form, checked as far as the envelope goes: names present, unique, equal to the name inside the
// message, the right message type, within the limits. Pure; views are borrowed from the response's bytes.
#ifndef XDS_CLIENT_RESPONSE_H
#define XDS_CLIENT_RESPONSE_H

#include "lib/base/arena.h"
#include "xds-client/xds_client.h"

struct xds_item {
    struct str name;         // empty only when refused
    struct str bytes;        // serialized message; p NULL for a removal
    struct str wire_version; // Resource.version, may be empty
    bool removed;
    struct str refused; // arena; p NULL = not refused (yet)
};

struct xds_response {
    enum xds_type type;
    struct str version, nonce;
    struct xds_item *items; // arena
    size_t count, cap;
    bool full;        // what is not in items is gone (state of the world of full-state types)
    struct str error; // the whole response is refused, nothing of it may be applied; p NULL = no
    size_t refused;   // items refused, filled by xds_apply
};

// What DeltaDiscoveryResponse and DiscoveryResponse have in common, under the same field numbers.
enum { XDS_ENVELOPE_VERSION = 1, XDS_ENVELOPE_RESOURCE = 2, XDS_ENVELOPE_TYPE = 4, XDS_ENVELOPE_NONCE = 5 };
enum { XDS_ENVELOPE_REMOVED = 6 }; // delta only; in state of the world it is control_plane

struct xds_envelope {
    enum xds_type type;
    struct str version, nonce;
    size_t resources, removed; // how many fields of each there are
};

// 0; -ENOENT = a type we do not know; -EBADMSG = not a discovery response.
int xds_envelope_read(struct str bytes, struct xds_envelope *ret, struct err *err);
// Starts a response with room for want items. false when that is more than XDS_RESOURCES_MAX: the response is refused as a whole
// then and nothing may be added.
bool xds_response_open(struct xds_response *r, const struct xds_envelope *e, size_t want, struct arena *a);
// Room for want items in the arena.
void xds_response_init(struct xds_response *r, enum xds_type t, size_t want, struct arena *a);
// Adds what one google.protobuf.Any holds (state of the world). An Any of type envoy.service.discovery.v3.Resource is unwrapped
// first, as Envoy does.
void xds_response_add_any(struct xds_response *r, struct str any, struct arena *a);
// Adds one serialized envoy.service.discovery.v3.Resource (delta).
void xds_response_add_resource(struct xds_response *r, struct str resource, struct arena *a);
// Adds one message of the type itself (files). wrapper_name: Resource.name, p NULL when there is no wrapper.
void xds_response_add_message(struct xds_response *r, struct str bytes, struct str wrapper_name, struct arena *a);
// Adds a resource of our own making, unchecked: a static listener may have no name in its message. bytes p NULL: a removal.
void xds_response_add_static(struct xds_response *r, struct str name, struct str bytes);
// Adds a resource that could not even be decoded. name may be empty.
void xds_response_add_refused(struct xds_response *r, struct str name, struct str reason, struct arena *a);
void xds_response_add_removed(struct xds_response *r, struct str name);
// To be called when all is added: refuses all but the first of items with the same name.
void xds_response_seal(struct xds_response *r, struct arena *a);
// What to tell the server: "name: reason; name: reason", at most XDS_NACK_MAX_BYTES, ended with a count of what did not fit.
// Empty view when nothing was refused.
struct str xds_response_nack(const struct xds_response *r, struct arena *a);
// google.rpc.Status for error_detail: INTERNAL (13), as pilot-agent and Envoy send.
void xds_put_error_detail(struct buf *out, uint32_t field, struct str text);

#endif

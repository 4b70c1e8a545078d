// SPDX-License-Identifier: Apache-2.0
// The engine of role-based access control (config.rbac.v3.RBAC): policies as a frozen tree, and the decision about one request or connection.
// Pure: no clock, no I/O, no counting; any thread. What a decision means for traffic is the filters' business.
#ifndef PROXY_AUTHZ_AUTHZ_H
#define PROXY_AUTHZ_AUTHZ_H

#include "lib/base/arena.h"
#include "lib/base/err.h"
#include "lib/net/addr.h"

struct match_request;
struct stream_info;
struct tls_info;

enum { AUTHZ_DEPTH_MAX = 32 };         // permissions and principals within each other
enum { AUTHZ_NODES_MAX = 1024 * 1024 }; // conditions of one configuration

enum authz_action { AUTHZ_ALLOW, AUTHZ_DENY, AUTHZ_LOG };
// What may be asked about: a connection has no fields and no path.
enum authz_of { AUTHZ_OF_REQUEST, AUTHZ_OF_CONNECTION };

struct authz; // in an arena, immutable

// Who asks for what. All borrowed for the call; addresses may be NULL where there is none.
struct authz_subject {
    const struct match_request *request; // NULL: a connection
    const struct addr *local;            // where the client wanted to go: destination_ip, destination_port
    const struct addr *direct_remote;    // the peer of the socket
    const struct addr *source;           // the connection's client: as direct_remote, or by a PROXY header
    const struct addr *remote;           // the client as the HTTP manager sees it (X-Forwarded-For, PROXY header)
    struct str server_name;              // of the TLS hello
    bool tls;                            // our side of the connection is TLS
    const struct str *uris, *dns_names;  // SANs of the client's certificate
    size_t uri_count, dns_count;
    struct str certificate_subject;      // RFC 2253
    const struct stream_info *info;      // dynamic metadata; NULL = none
    const struct str *route_metadata;    // bytes of a Metadata, see proxy/core/metadata.h; NULL = no route
};

// Our side of the connection is TLS, and who its client is. t: NULL = plain text. Borrowed as the rest.
void authz_subject_tls(struct authz_subject *s, const struct tls_info *t);

struct authz_decision {
    bool allowed;
    bool matched;
    struct str policy; // name of the first policy that matched; empty = none. Borrowed from the configuration
};

// msg: Envoy__Config__Rbac__V3__RBAC. Everything in the arena. 0, or negative with "field: reason": nothing is left out that a policy says.
int authz_parse(const void *msg, enum authz_of of, struct arena *a, struct authz **ret, struct err *err);
// Policies are tried in the order of their names, the first that matches decides: ALLOW allows what matches, DENY what does not, LOG everything.
struct authz_decision authz_decide(const struct authz *z, const struct authz_subject *s);
enum authz_action authz_action_of(const struct authz *z);

#endif

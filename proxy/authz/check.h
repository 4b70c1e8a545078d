// SPDX-License-Identifier: Apache-2.0
// What authorization servers are asked and what they answer (envoy.service.auth.v3). Pure; any thread.
#ifndef PROXY_AUTHZ_CHECK_H
#define PROXY_AUTHZ_CHECK_H

#include "lib/base/arena.h"
#include "lib/base/err.h"
#include "lib/net/addr.h"
#include "proxy/core/stream_info.h"

struct check_pair {
    struct str key, value;
};

// ---- the question ----

struct check_peer { // AttributeContext.Peer
    struct addr addr;
    struct str service, principal, certificate; // empty = not said
    const struct check_pair *labels;
    size_t label_count;
};

struct check_http { // AttributeContext.HttpRequest
    uint64_t id;
    struct str method, path, host, scheme, protocol;
    uint64_t size;                    // body bytes received so far
    const struct check_pair *headers; // names in lower case, in order; those of one name are joined unless raw
    size_t header_count;
    bool raw;                         // as header_map, bytes as they came (encode_raw_headers)
    bool has_body;
    bool body_as_bytes;               // raw_body instead of body
    bool partial;                     // body is not all of it
    struct str body;
};

struct check_question {
    struct check_peer source, destination;
    uint64_t time_ms;                 // wall clock of the request's beginning; with http
    const struct check_http *http;    // NULL = about a connection
    const struct check_pair *extensions; // context_extensions
    size_t extension_count;
    struct str metadata, route_metadata; // bytes of core.v3.Metadata; the second one with http
    bool has_tls;
    struct str sni;
};
// A CheckRequest. Bytes of texts that are no UTF-8 become '!', as Envoy makes them. In the arena.
struct str check_question_pack(const struct check_question *q, struct arena *a);
// A peer's name: the first of these that is there.
static inline struct str check_principal(struct str uri, struct str dns, struct str subject)
{
    return uri.n ? uri : dns.n ? dns : subject;
}
// PEM with what is special in URLs as %XX, as in X-Forwarded-Client-Cert. In the arena.
struct str check_certificate(struct str pem, struct arena *a);
// Bytes of a core.v3.Metadata with those namespaces of an exchange's dynamic metadata, or of other such bytes, that are there. In the arena.
struct str check_metadata(const struct stream_info *info, const struct str *spaces, size_t n, struct arena *a);
struct str check_metadata_of(struct str metadata, const struct str *spaces, size_t n, struct arena *a);
// s with each byte that is not part of valid UTF-8 replaced by '!'; s itself when there is none.
struct str check_utf8(struct str s, struct arena *a);

// ---- the answer ----

// core.v3.HeaderValueOption.HeaderAppendAction, same numbers; CHECK_JOIN: joined with "," to what is there, and nothing where there is nothing.
// As in Envoy 1.40 the upstream's headers know CHECK_OVERWRITE_OR_ADD and CHECK_JOIN only (`append`), those of a denied request CHECK_ADD only.
enum check_action { CHECK_ADD, CHECK_ADD_IF_ABSENT, CHECK_OVERWRITE_OR_ADD, CHECK_OVERWRITE, CHECK_JOIN };

struct check_header {
    struct str name, value; // name in lower case
    enum check_action action;
};

struct check_answer { // views into the bytes' arena
    enum { CHECK_OK, CHECK_DENIED, CHECK_ERROR } verdict;
    int status;                      // for the client; 0 = not said
    struct str body;                 // for the client
    const struct check_header *headers; // CHECK_OK: for the upstream; else for the client
    size_t header_count;
    const struct check_header *answer_headers; // CHECK_OK: for the client
    size_t answer_header_count;
    const struct str *remove;        // names, lower case
    size_t remove_count;
    const struct check_pair *query_set;
    size_t query_set_count;
    const struct str *query_remove;
    size_t query_remove_count;
    struct str metadata;             // bytes of a google.protobuf.Struct; empty = none
    bool bad_action;                 // some header had an append_action that does not exist
};
// A CheckResponse. 0, or negative with the reason: it is none, or has more than CHECK_FIELDS_MAX fields in some list.
enum { CHECK_FIELDS_MAX = 1024 };
int check_answer_parse(struct str bytes, struct arena *a, struct check_answer *ret, struct err *err);

// The answer's metadata, with how long it took where it allows (ext_authz_duration, in ms), as Envoy keeps it. In the arena; empty = none.
struct str check_answer_metadata(const struct check_answer *c, uint64_t took_ns, struct arena *a);

// A path whose query was changed as Envoy does it: parameters by name, those of one name in their order. In the arena.
struct str check_query_change(struct str path, const struct check_pair *set, size_t set_count, const struct str *remove, size_t remove_count,
                              struct arena *a);
// Whether text may be put into a query: strict, as validate_mutations has it, letters, digits and "*-._" alone; else whatever a request line
// can have.
bool check_query_text(struct str text, bool strict);

#endif

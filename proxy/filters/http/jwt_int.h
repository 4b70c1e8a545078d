// SPDX-License-Identifier: Apache-2.0
// Inside of envoy.filters.http.jwt_authn: the frozen configuration, and the parts that jwt_authn.c puts together.
#ifndef PROXY_FILTERS_HTTP_JWT_INT_H
#define PROXY_FILTERS_HTTP_JWT_INT_H

#include "lib/http/message.h"
#include "lib/jose/jwks.h"
#include "proxy/core/ext.h"
#include "proxy/model/matcher.h"
#include "proxy/model/route_table.h"

enum {
    JWT_PROVIDERS_MAX = 1000,
    JWT_NODES_MAX = 2000,       // of one requirement
    JWT_DEPTH_MAX = 32,         // of one requirement
    JWT_TOKENS_MAX = 16,        // of one request, found for one requirement; with more it is refused
    JWT_CACHE_MAX = 100000,     // entries of a provider on a worker
    JWT_CACHE_WORKERS_MAX = 128, // beyond, a worker has no cache
};

struct jwt_remote;
struct jwt_cache;

// ---- where tokens are (jwt_extract.c) ----
enum jwt_place { JWT_IN_HEADER, JWT_IN_PARAM, JWT_IN_COOKIE };
struct jwt_location {
    enum jwt_place place;
    struct str name;          // of a header: lower case
    struct str prefix;        // of a header's value; empty = the whole value
    bool any_issuer;          // a provider without an issuer names this place
    struct str *issuers;      // of the providers that name it
    size_t issuer_count;
};
struct jwt_locations {        // headers, parameters, cookies, each in order of their names: the order in which tokens are found
    struct jwt_location *v;
    size_t count;
};
struct jwt_found {
    const struct jwt_location *at;
    struct str token;
};
// Up to JWT_TOKENS_MAX tokens; *ret_more: there are more. The array and decoded values in a.
size_t jwt_extract(const struct jwt_locations *l, const struct http_request *req, struct arena *a, struct jwt_found *ret, bool *ret_more);
// Takes the token's header or query parameter out of the request. Cookies stay, as in Envoy. a: for a new path.
void jwt_remove(const struct jwt_location *at, struct http_request *req, struct arena *a);
bool jwt_issuer_allowed(const struct jwt_location *at, struct str issuer);

// ---- what is configured (jwt_config.c) ----
struct jwt_claim_header {
    struct str name;
    struct str *path;         // keys
    size_t path_count;
};
struct jwt_provider {
    struct str name, issuer;  // issuer empty = any
    struct str *audiences;    // as jwt_audience_core makes them; none = any
    size_t audience_count;
    struct string_matcher *subjects; // NULL = any
    bool limited_life;        // exp must be there, and be less than max_life_s away
    double max_life_s;        // may be infinite
    uint64_t skew_s;
    struct jwks *local;       // ref by the listener's arena; NULL = remote
    struct jwt_remote *remote; // as above
    struct jwt_locations locations;
    bool forward;
    struct str payload_header; // lower case; empty = none
    bool pad_payload;
    struct str payload_key, header_key, failed_key; // within the metadata; empty = not put there
    struct str *split_claims; // normalize_payload_in_metadata
    size_t split_count;
    struct jwt_claim_header *claims;
    size_t claim_count;
    bool clear_route;
    uint32_t cache_size;      // entries
    uint32_t cache_token_max; // bytes of a token that is kept
    _Atomic(struct jwt_cache *) *caches; // one for each worker, made by it on first use; freed with the listener
};

enum jwt_need { JWT_NEED_PROVIDER, JWT_NEED_ANY, JWT_NEED_ALL, JWT_NEED_MISSING, JWT_NEED_MISSING_OR_FAILED, JWT_NEED_NOTHING };
struct jwt_node {             // a requirement
    enum jwt_need kind;
    uint16_t index;           // its place in the state of a request
    bool missing_ok, failed_ok; // any: a list with allow_missing, allow_missing_or_failed
    const struct jwt_provider *provider;
    struct str *audiences;    // in place of the provider's
    size_t audience_count;
    struct jwt_locations locations; // without a provider: of all
    struct jwt_node *children;
    size_t child_count;
};
struct jwt_requirement {
    struct str name;          // of requirement_map
    struct jwt_node *root;    // NULL = none
    uint16_t node_count;
};
struct jwt_rule {
    struct route match;       // only what route_match looks at
    const struct jwt_requirement *needs; // NULL = nothing
};
struct jwt_cfg {
    struct jwt_provider *providers; // by name
    size_t provider_count;
    struct jwt_requirement *map; // by name
    size_t map_count;
    struct str map_names;     // "a,b", for people
    struct jwt_rule *rules;
    size_t rule_count;
    bool bypass_preflight, strip_failure;
    struct str stat_prefix;   // empty = none
    struct str *sanitize;     // headers that only this filter may set, lower case
    size_t sanitize_count;
};
struct jwt_route_cfg {
    bool disabled;
    struct str requirement;
};
int jwt_config_parse(struct config_ctx *ctx, const void *msg, struct arena *a, void **ret_cfg, struct err *err);
int jwt_route_parse(struct config_ctx *ctx, const void *msg, struct arena *a, void **ret_cfg, struct err *err);
const struct jwt_requirement *jwt_requirement_find(const struct jwt_cfg *c, struct str name);
// For tokens without a provider of their own: the first with that issuer, else the first without one. NULL = none.
const struct jwt_provider *jwt_provider_of(const struct jwt_cfg *c, struct str issuer);
// Without scheme and final slash, as both sides of an audience are compared.
struct str jwt_audience_core(struct str aud);

// ---- what a good token says (jwt_claims.c) ----
struct jwt_facts {            // all that is needed of a token once its signature is known; what a cache keeps
    struct str iss, sub;
    struct str *aud;
    size_t aud_count;
    bool has_exp;
    uint64_t nbf, exp;
    struct str payload_b64;
    struct str header_struct, payload_struct; // google.protobuf.Struct; only those that the provider puts into metadata
    struct str *claim_values; // for provider->claims, empty = not there
};
// Everything in a, but views of t.
void jwt_facts_make(const struct jwt_provider *p, const struct jwt *t, struct arena *a, struct jwt_facts *ret);
// An object, whose members it sorts, as google.protobuf.Struct. split: names of members whose text becomes a list of its words.
struct str jwt_struct_bytes(struct json *object, const struct str *split, size_t split_count, struct arena *a);

// ---- verified tokens, by worker (jwt_cache.c) ----
// The facts of a token that was verified with the present keys (their address in keys); NULL = not there. They live until the next call for this
// cache.
const struct jwt_facts *jwt_cache_find(const struct jwt_provider *p, int worker, const struct jwks *keys, struct str token, uint64_t now_s);
void jwt_cache_put(const struct jwt_provider *p, int worker, struct jwks *keys, struct str token, const struct jwt *t);
void jwt_cache_free(struct jwt_cache *c);

#endif

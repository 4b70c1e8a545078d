// SPDX-License-Identifier: Apache-2.0
// The operators. Each reads one fact of the stream; what is not known stays VALUE_NONE and prints "-" (null in JSON).
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/http/grpc_text.h"
#include "lib/tls/transport_tls.h"
#include "proxy/access_log/token.h"
#include "proxy/core/facts.h"
#include "proxy/core/peer.h"

enum { METADATA_PATH_MAX = 16 }; // keys in an operator

#define OP(name)                                                                                                       \
    static void tok_##name(const struct format_op *op __attribute__((unused)),                                         \
                           const struct format_ctx *c __attribute__((unused)),                                         \
                           struct format_value *v __attribute__((unused)))

static void put_text(struct format_value *v, struct str s)
{
    if (s.n) {
        v->kind = VALUE_TEXT;
        v->text = s;
    }
}

static void put_number(struct format_value *v, uint64_t n)
{
    v->kind = VALUE_NUMBER;
    v->number = n;
}

// Details come with blanks from libraries and with none in logs that people split at blanks; Envoy writes them so.
static void put_details(struct format_value *v, struct str s)
{
    if (s.n > sizeof(v->scratch)) {
        s.n = sizeof(v->scratch);
    }
    for (size_t i = 0; i < s.n; i++) {
        v->scratch[i] = s.p[i] == ' ' ? '_' : s.p[i];
    }
    put_text(v, str_n(v->scratch, s.n));
}

static void put_addr(struct format_value *v, const struct addr *a)
{
    _Static_assert(TOKEN_SCRATCH >= (int)ADDR_TEXT_MAX, "addresses fit");
    if (a->family) {
        put_text(v, str_c(addr_text(a, v->scratch)));
    }
}

static void put_ip(struct format_value *v, const struct addr *a)
{
    if (a->family) {
        put_text(v, str_c(addr_ip_text(a, v->scratch)));
    }
}

static void put_port(struct format_value *v, const struct addr *a)
{
    if (a->family == AF_INET || a->family == AF_INET6) {
        put_number(v, a->port);
    }
}

static void put_ms_between(struct format_value *v, uint64_t from_ns, uint64_t to_ns)
{
    if (from_ns && to_ns >= from_ns) {
        put_number(v, (to_ns - from_ns) / 1000000);
    }
}

// What Istio's metadata exchange leaves in filter state: "downstream_peer", "upstream_peer" (in older configurations with "wasm." before it), printed as
// the baggage that Istio makes of it; with "_id", the node's id. Everything else is unknown.
static void put_peer(struct format_value *v, const struct peer_info *p)
{
    const struct { const char *key; struct str value; } parts[] = {
        { "k8s.deployment.name=", p->workload }, { ",service.name=", p->canonical_name }, { ",service.version=", p->canonical_revision },
        { ",k8s.namespace.name=", p->namespace }, { ",k8s.cluster.name=", p->cluster }, { ",app.name=", p->app }, { ",app.version=", p->version },
    };
    size_t n = 0;
    for (size_t i = 0; i < array_len(parts); i++) {
        const char *key = n ? parts[i].key : parts[i].key + (parts[i].key[0] == ',');
        size_t room = sizeof(v->scratch) - n, need = strlen(key) + parts[i].value.n;
        if (parts[i].value.n && need < room) {
            n += (size_t)snprintf(v->scratch + n, room, "%s%.*s", key, STR_FMT(parts[i].value));
        }
    }
    put_text(v, str_n(v->scratch, n));
}

// Values that are not text print as JSON.
static void put_metadata(struct format_value *v, const struct metadata_value *m)
{
    if (m->kind == MV_TEXT) {
        v->kind = VALUE_TEXT; // also when it is empty
        v->text = m->bytes;
    } else if (m->kind != MV_NONE && m->kind != MV_NULL) {
        metadata_json(m, &v->owned);
        v->kind = VALUE_JSON;
        v->text = buf_pullup(&v->owned, v->owned.len);
    }
}

// (NAMESPACE) or (NAMESPACE:KEY:…) of what filters found out about the request or the connection.
OP(dynamic_metadata)
{
    struct str rest = op->text, space = str_split(&rest, ':'), path[METADATA_PATH_MAX];
    size_t n = 0;
    struct str whole = rest;
    while (rest.n && n < METADATA_PATH_MAX) {
        path[n++] = str_split(&rest, ':');
    }
    struct metadata_value m = stream_info_metadata_find(c->info, space, path, n);
    if (m.kind == MV_NONE && n > 1) { // a name with a colon in it
        m = stream_info_metadata_find(c->info, space, &whole, 1);
    }
    put_metadata(v, &m);
}

// The same of what was configured.
OP(metadata)
{
    struct str path = op->text, space = str_split(&path, ':');
    if (op->metadata == METADATA_COUNT) {
        tok_dynamic_metadata(op, c, v);
        return;
    }
    const struct str *md = c->info->metadata[op->metadata];
    const struct metadata_value m = md && md->n ? metadata_find(*md, space, path) : (struct metadata_value){ .kind = MV_NONE };
    put_metadata(v, &m);
}

OP(filter_state)
{
    struct str rest = op->text, key = str_split(&rest, ':'); // ":PLAIN", ":TYPED": the same here
    key = str_starts(key, STR("wasm.")) ? str_skip(key, 5) : key;
    bool down = str_starts(key, STR("downstream_peer")), up = str_starts(key, STR("upstream_peer"));
    const struct peer_info *p = down ? c->info->downstream_peer : up ? c->info->upstream_peer : NULL;
    struct str which = str_skip(key, down ? 15 : 13);
    if (p && str_is(which, "_id")) {
        put_text(v, p->id);
    } else if (p && which.n == 0) {
        put_peer(v, p);
    }
}

// ---- time ----

size_t format_time(uint64_t wall_ms, uint64_t nanos_of_ms, struct str fmt, char *out, size_t cap)
{
    time_t sec = (time_t)(wall_ms / 1000);
    uint64_t nanos = wall_ms % 1000 * 1000000 + nanos_of_ms;
    char fraction[16], expanded[TOKEN_SCRATCH], seconds[24];
    snprintf(fraction, sizeof(fraction), "%09llu", (unsigned long long)nanos);
    snprintf(seconds, sizeof(seconds), "%lld", (long long)sec);
    struct tm tm;
    gmtime_r(&sec, &tm);
    size_t n = 0;
    for (size_t i = 0; i < fmt.n && n + 24 < sizeof(expanded); i++) {
        struct str rest = str_skip(fmt, i + 1);
        size_t digits = rest.n >= 2 && rest.p[0] >= '1' && rest.p[0] <= '9' && rest.p[1] == 'f' ? (size_t)(rest.p[0] - '0') : 0;
        if (fmt.p[i] != '%' || rest.n == 0) {
            expanded[n++] = fmt.p[i];
        } else if (digits || rest.p[0] == 'f') {
            digits = digits ? digits : 9;
            memcpy(expanded + n, fraction, digits);
            n += digits;
            i += rest.p[0] == 'f' ? 1 : 2;
        } else if (rest.p[0] == 's') {
            n += (size_t)snprintf(expanded + n, sizeof(expanded) - n, "%s", seconds);
            i++;
        } else if (rest.n >= 3 && rest.p[0] == 'E' && rest.p[2] == 'S') { // absl: %E3S, %E*S
            int shown = rest.p[1] >= '1' && rest.p[1] <= '9' ? rest.p[1] - '0' : 9;
            n += (size_t)snprintf(expanded + n, sizeof(expanded) - n, "%02d.%.*s", tm.tm_sec, shown, fraction);
            i += 3;
        } else {
            expanded[n++] = '%';
            expanded[n++] = rest.p[0]; // also "%%"
            i++;
        }
    }
    expanded[n] = '\0';
    return strftime(out, cap, expanded, &tm);
}

static void put_time(const struct format_op *op, struct format_value *v, uint64_t wall_ms)
{
    if (op->text.n) {
        put_text(v, str_n(v->scratch, format_time(wall_ms, 0, op->text, v->scratch, sizeof(v->scratch))));
    } else {
        clock_rfc3339(wall_ms, v->scratch);
        put_text(v, str_c(v->scratch));
    }
}

OP(start_time)
{
    put_time(op, v, c->info->start_wall_ms);
}

OP(emit_time)
{
    put_time(op, v, clock_wall_ms());
}

OP(duration)
{
    put_ms_between(v, c->info->start_ns, c->info->end_ns);
}

OP(request_duration)
{
    put_ms_between(v, c->info->start_ns, c->info->request_end_ns);
}

OP(request_tx_duration)
{
    put_ms_between(v, c->info->start_ns, c->info->upstream_end_ns);
}

OP(response_duration)
{
    put_ms_between(v, c->info->start_ns, c->info->first_response_ns);
}

OP(response_tx_duration)
{
    put_ms_between(v, c->info->first_response_ns, c->info->end_ns);
}

// ---- messages ----

static struct str without_query(struct str path)
{
    ptrdiff_t q = str_find(path, '?');
    return q >= 0 ? str_n(path.p, (size_t)q) : path;
}

static struct str header_of(const struct headers *h, const struct header_ref *r)
{
    if (!h || r->kind != REF_HEADER) {
        return str_n(NULL, 0);
    }
    return r->id != HDR_OTHER ? headers_value_id(h, r->id) : headers_value(h, r->name);
}

static struct str request_of(const struct format_ctx *c, const struct header_ref *r)
{
    if (!c->req) {
        return str_n(NULL, 0);
    }
    switch (r->kind) {
    case REF_METHOD:
        return c->req->method;
    case REF_PATH:
        return c->req->path;
    case REF_AUTHORITY:
        return c->req->host;
    case REF_SCHEME:
        return c->req->scheme;
    default:
        return r->kind == REF_HEADER && r->id == HDR_TE && c->req->te_trailers ? STR("trailers") : header_of(&c->req->headers, r);
    }
}

// A length is no field of a list: the codec took it.
static bool put_length(struct format_value *v, const struct header_ref *r, int64_t length)
{
    if (r->kind != REF_HEADER || r->id != HDR_CONTENT_LENGTH || length < 0) {
        return false;
    }
    int n = snprintf(v->scratch, sizeof(v->scratch), "%lld", (long long)length);
    put_text(v, str_n(v->scratch, (size_t)n));
    return true;
}

OP(req)
{
    if (c->req && put_length(v, &op->header, c->req->content_length)) {
        return;
    }
    struct str s = request_of(c, &op->header);
    put_text(v, s.n ? s : request_of(c, &op->alternative));
}

OP(req_without_query)
{
    struct str s = request_of(c, &op->header);
    put_text(v, without_query(s.n ? s : request_of(c, &op->alternative)));
}

OP(resp)
{
    if (op->header.kind == REF_STATUS) {
        if (c->info->status) {
            put_number(v, c->info->status);
        }
        return;
    }
    if (c->resp && put_length(v, &op->header, c->resp->content_length)) {
        return;
    }
    const struct headers *h = c->resp ? &c->resp->headers : NULL;
    struct str s = header_of(h, &op->header);
    put_text(v, s.n ? s : header_of(h, &op->alternative));
}

OP(trailer)
{
    struct str s = header_of(c->resp_trailers, &op->header);
    put_text(v, s.n ? s : header_of(c->resp_trailers, &op->alternative));
}

static const char *const grpc_names[] = {
    "OK",           "Canceled",          "Unknown",           "InvalidArgument", "DeadlineExceeded", "NotFound",
    "AlreadyExists", "PermissionDenied",  "ResourceExhausted", "FailedPrecondition", "Aborted",       "OutOfRange",
    "Unimplemented", "Internal",          "Unavailable",       "DataLoss",        "Unauthenticated",
};

static bool grpc_number(const struct format_ctx *c, uint64_t *ret)
{
    struct str s = c->resp_trailers ? headers_value_id(c->resp_trailers, HDR_GRPC_STATUS) : str_n(NULL, 0);
    if (!s.n && c->resp) {
        s = headers_value_id(&c->resp->headers, HDR_GRPC_STATUS);
    }
    if (!s.n && c->req && c->info->status && grpc_content_type(headers_value_id(&c->req->headers, HDR_CONTENT_TYPE))) {
        *ret = grpc_status_of_http(c->info->status); // as a client of gRPC has to read it
        return true;
    }
    return s.n && str_to_u64(s, UINT32_MAX, ret);
}

OP(grpc_status)
{
    uint64_t n;
    if (!grpc_number(c, &n)) {
        return;
    }
    if (n < array_len(grpc_names) && !str_eq(op->text, STR("NUMBER"))) {
        put_text(v, str_c(grpc_names[n]));
    } else {
        put_number(v, n);
    }
}

OP(grpc_status_number)
{
    uint64_t n;
    if (grpc_number(c, &n)) {
        put_number(v, n);
    }
}

static const char *const version_names[] = { [HTTP_10] = "HTTP/1.0", [HTTP_11] = "HTTP/1.1", [HTTP_2] = "HTTP/2" };

OP(protocol)
{
    if (c->info->is_http) {
        put_text(v, str_c(version_names[c->info->protocol]));
    }
}

OP(upstream_protocol)
{
    if (c->info->upstream_start_ns && c->info->is_http) {
        put_text(v, str_c(version_names[c->info->upstream_protocol]));
    }
}

OP(stream_id)
{
    put_text(v, c->req ? headers_value_id(&c->req->headers, HDR_X_REQUEST_ID) : str_n(NULL, 0));
}

// W3C trace context, version-traceid-parentid-flags; B3 otherwise.
OP(trace_id)
{
    if (!c->req) {
        return;
    }
    struct str w3c = headers_value_id(&c->req->headers, HDR_TRACEPARENT);
    if (w3c.n >= 35 && w3c.p[2] == '-') {
        put_text(v, str_n(w3c.p + 3, 32));
    } else {
        put_text(v, headers_value_id(&c->req->headers, HDR_X_B3_TRACEID));
    }
}

OP(local_reply_body)
{
    v->kind = VALUE_TEXT; // also when it is empty
    v->text = c->local_reply_body;
}

// ---- outcome ----

OP(response_code)
{
    put_number(v, c->info->status); // 0 when there was none, as Envoy
}

OP(response_code_details)
{
    if (str_is(op->text, "ALLOW_WHITESPACES")) {
        put_text(v, str_c(c->info->details));
    } else {
        put_details(v, str_c(c->info->details));
    }
}

OP(response_flags)
{
    put_text(v, str_c(response_flags_text(c->info->flags, false, v->scratch))); // "-" when there is none, also in JSON
}

OP(response_flags_long)
{
    put_text(v, str_c(response_flags_text(c->info->flags, true, v->scratch)));
}
_Static_assert(TOKEN_SCRATCH >= (int)RF_TEXT_MAX, "flags fit");

OP(connection_termination)
{
    put_details(v, c->info->connection_termination);
}

OP(transport_failure)
{
    put_details(v, c->info->transport_failure);
}

OP(bytes_received)
{
    put_number(v, c->info->bytes_received);
}

OP(bytes_sent)
{
    put_number(v, c->info->bytes_sent);
}

OP(upstream_bytes_received)
{
    put_number(v, c->info->upstream_bytes_received);
}

OP(upstream_bytes_sent)
{
    put_number(v, c->info->upstream_bytes_sent);
}

OP(attempts)
{
    if (c->info->is_http) {
        put_number(v, c->info->attempts);
    }
}

// ---- where from, where to ----

OP(connection_id)
{
    put_number(v, c->info->connection_id);
}

OP(downstream_local)
{
    put_addr(v, &c->info->downstream_local);
}

OP(downstream_local_ip)
{
    put_ip(v, &c->info->downstream_local);
}

OP(downstream_local_port)
{
    put_port(v, &c->info->downstream_local);
}

OP(downstream_remote)
{
    put_addr(v, &c->info->downstream_remote);
}

OP(downstream_remote_ip)
{
    put_ip(v, &c->info->downstream_remote);
}

OP(downstream_remote_port)
{
    put_port(v, &c->info->downstream_remote);
}

OP(downstream_direct_remote)
{
    put_addr(v, &c->info->downstream_direct_remote);
}

OP(downstream_direct_remote_ip)
{
    put_ip(v, &c->info->downstream_direct_remote);
}

OP(downstream_direct_remote_port)
{
    put_port(v, &c->info->downstream_direct_remote);
}

OP(requested_server_name)
{
    put_text(v, c->info->requested_server_name);
}

OP(upstream_host)
{
    put_addr(v, &c->info->upstream_host);
}

OP(upstream_host_ip)
{
    put_ip(v, &c->info->upstream_host);
}

OP(upstream_host_port)
{
    put_port(v, &c->info->upstream_host);
}

OP(upstream_local)
{
    put_addr(v, &c->info->upstream_local);
}

OP(upstream_local_ip)
{
    put_ip(v, &c->info->upstream_local);
}

OP(upstream_cluster)
{
    put_text(v, c->info->upstream_cluster);
}

OP(upstream_peer_uri)
{
    put_text(v, c->info->upstream_peer_uri);
}

OP(route_name)
{
    put_text(v, c->info->route_name);
}

OP(virtual_cluster)
{
    put_text(v, c->info->virtual_cluster);
}

OP(virtual_host)
{
    put_text(v, c->info->virtual_host);
}

OP(downstream_peer_uri)
{
    put_text(v, c->info->downstream_tls ? c->info->downstream_tls->peer_uri : str_n(NULL, 0));
}

OP(downstream_local_uri)
{
    put_text(v, c->info->downstream_tls ? c->info->downstream_tls->local_uri : str_n(NULL, 0));
}

OP(downstream_peer_subject)
{
    put_text(v, c->info->downstream_tls ? c->info->downstream_tls->peer_subject : str_n(NULL, 0));
}

OP(downstream_peer_dns)
{
    put_text(v, c->info->downstream_tls ? c->info->downstream_tls->peer_dns : str_n(NULL, 0));
}

OP(downstream_peer_sha256)
{
    put_text(v, c->info->downstream_tls ? c->info->downstream_tls->peer_sha256 : str_n(NULL, 0));
}

OP(downstream_tls_version)
{
    put_text(v, str_c(c->info->downstream_tls ? c->info->downstream_tls->version : NULL));
}

OP(downstream_tls_cipher)
{
    put_text(v, str_c(c->info->downstream_tls ? c->info->downstream_tls->cipher : NULL));
}

// ---- the process ----

// Read at compile time (format.c puts the value into op->text): the environment does not change and getenv is not for workers.
OP(environment)
{
    put_text(v, op->text);
}

OP(hostname)
{
    put_text(v, op->text);
}

const struct token format_tokens[] = {
#define TOKEN(name_, fn, arg_) { .name = name_, .eval = tok_##fn, .arg = arg_ },
#include "proxy/access_log/tokens.def"
#undef TOKEN
};
const size_t format_token_count = array_len(format_tokens);

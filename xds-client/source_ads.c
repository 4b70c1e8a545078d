// SPDX-License-Identifier: Apache-2.0
// One gRPC ADS stream: connects, feeds the protocol machine, answers, and comes back with jittered back-off for as long as the
// client lives. istiod ends connections every 30 minutes or so: that is normal life and must not be seen by traffic.
#include <errno.h>
#include <stdlib.h>

#include "lib/base/file.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/base/rand.h"
#include "lib/grpc/grpc.h"
#include "xds-client/backoff.h"
#include "xds-client/client.h"
#include "xds-client/delta.h"
#include "xds-client/limits.h"
#include "xds-client/sotw.h"

#define SERVICE "/envoy.service.discovery.v3.AggregatedDiscoveryService/"

enum { KEEPALIVE_MS = 30000, KEEPALIVE_TIMEOUT_MS = 10000 };
enum { GRPC_UNAVAILABLE = 14, GRPC_INTERNAL = 13 }; // google.rpc.Code

struct xds_ads {
    struct xds_client *c;   // borrowed, the owner
    struct arena arena;     // owns the options
    struct xds_ads_opts o;  // arena
    uint32_t served;        // types asked for here
    struct xds_delta delta; // the one of the two that o.delta names is used
    struct xds_sotw sotw;
    struct grpc_chan *chan;     // owned; one per connection attempt, so that roots are read again. NULL before the first
    struct grpc_stream *stream; // borrowed from the fence; NULL while waiting to connect again
    struct timer retry;
    struct xds_backoff backoff;
    bool up; // this stream has answered
    struct xds_ads_status status;
    struct str last_error; // owned
};

static void on_message(struct grpc_stream *s, struct str bytes);
static void on_end(struct grpc_stream *s, int status, struct str message);
static const struct grpc_stream_ops stream_ops = { .on_message = on_message, .on_end = on_end };

// ---- connecting ----

static struct xds_view view(const struct xds_ads *ads)
{
    const struct xds_client *c = ads->c;
    return (struct xds_view){ .node = c->node, .subs = c->subs, .stores = c->stores, .served = ads->served };
}

// The connection is gone or could not be made: wait and try again.
static void lost(struct xds_ads *ads, int status, struct str text)
{
    struct xds_client *c = ads->c;
    uint64_t wait = xds_backoff_next(&ads->backoff, rand_double());
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        c->types[t].failures += c->subs[t].subscribed && (ads->served >> t & 1);
    }
    ads->status.disconnects += ads->up;
    ads->status.connected = ads->up = false;
    ads->stream = NULL;
    xds_client_set_text(&ads->last_error, text.n ? text : STR("the stream ended"));
    log_warn(LOGC_CONFIG, 0, "xds_disconnected", "target=%.*s status=%d reason=\"%.*s\" retry_ms=%llu", STR_FMT(ads->o.target), status,
             STR_FMT(ads->last_error), (unsigned long long)wait);
    timer_set(c->loop, &ads->retry, wait);
}

static int read_optional(struct str path, size_t max, struct arena *a, struct str *ret, struct err *err)
{
    return path.n ? file_read(path.p, max, a, ret, err) : 0;
}

// Header "authorization: Bearer …". A missing file is no error: the server decides whether it wants a token.
static int read_token(const struct xds_ads *ads, struct arena *a, struct str *ret, struct err *err)
{
    struct str raw = { 0 };
    if (!ads->o.token_file.n || !ads->o.tls) {
        return 0; // never in clear text over a network
    }
    int rc = file_read(ads->o.token_file.p, XDS_TOKEN_MAX_BYTES, a, &raw, err);
    if (rc == -ENOENT) {
        return 0;
    }
    if (rc) {
        return rc;
    }
    while (raw.n && (unsigned char)raw.p[raw.n - 1] <= ' ') {
        raw.n--;
    }
    for (size_t i = 0; i < raw.n; i++) {
        if (raw.p[i] <= ' ' || raw.p[i] > '~') {
            return err_set(err, -EINVAL, "%s: is not a token (byte %zu)", ads->o.token_file.p, i);
        }
    }
    *ret = raw.n ? arena_printf(a, "Bearer %.*s", STR_FMT(raw)) : raw;
    return 0;
}

static int open_channel(struct xds_ads *ads, struct arena *a, struct err *err)
{
    const struct xds_ads_opts *o = &ads->o;
    struct grpc_chan_opts co = {
        .target = o->target,
        .tls = o->tls,
        .root_pem = o->root_pem,
        .server_name = o->server_name,
        .keepalive_ms = o->keepalive_ms ? o->keepalive_ms : KEEPALIVE_MS,
        .keepalive_timeout_ms = o->keepalive_timeout_ms ? o->keepalive_timeout_ms : KEEPALIVE_TIMEOUT_MS,
    };
    // A root file that is named and not there must not end in trusting the system's roots.
    if (o->tls && (read_optional(o->root_file, XDS_PEM_MAX_BYTES, a, &co.root_pem, err) ||
                   read_optional(o->cert_file, XDS_PEM_MAX_BYTES, a, &co.cert_pem, err) ||
                   read_optional(o->key_file, XDS_PEM_MAX_BYTES, a, &co.key_pem, err))) {
        return -1;
    }
    if (o->tls && o->root_file.n && !co.root_pem.n) {
        return err_set(err, -EINVAL, "%s: is empty, no root certificates", o->root_file.p);
    }
    ads->chan = grpc_chan_new(ads->c->loop, &co, err);
    return ads->chan ? 0 : -1;
}

static int open_stream(struct xds_ads *ads, struct arena *a, struct err *err)
{
    const struct xds_ads_opts *o = &ads->o;
    struct grpc_md *md = arena_array(a, struct grpc_md, o->header_count + 1);
    struct str bearer = { 0 };
    size_t n = 0;
    if (read_token(ads, a, &bearer, err) || open_channel(ads, a, err)) {
        return -1;
    }
    if (bearer.n) {
        md[n++] = (struct grpc_md){ .key = STR("authorization"), .value = bearer };
    }
    for (size_t i = 0; i < o->header_count; i++) {
        md[n++] = (struct grpc_md){ .key = o->headers[i][0], .value = o->headers[i][1] };
    }
    ads->stream = grpc_stream_new(ads->chan, o->delta ? SERVICE "DeltaAggregatedResources" : SERVICE "StreamAggregatedResources", md, n, 0,
                                  &stream_ops, ads);
    return ads->stream ? 0 : err_set(err, -EIO, "cannot start a gRPC call");
}

static void connect_now(struct timer *t)
{
    struct xds_ads *ads = container_of(t, struct xds_ads, retry);
    struct arena a = { 0 };
    struct err err = { 0 };
    if (ads->chan) {
        grpc_chan_free(ads->chan); // here and not when the stream ended, for that was inside its callback
        ads->chan = NULL;
    }
    xds_delta_start(&ads->delta);
    xds_sotw_start(&ads->sotw);
    if (open_stream(ads, &a, &err)) {
        lost(ads, GRPC_UNAVAILABLE, str_c(err.msg));
    } else {
        xds_ads_pump(ads);
    }
    arena_fini(&a);
}

// ---- the stream ----

// Our side gives the stream up.
static void reset(struct xds_ads *ads, const char *why)
{
    struct grpc_stream *s = ads->stream;
    lost(ads, GRPC_INTERNAL, str_c(why));
    grpc_stream_cancel(s);
}

static bool send_buf(struct xds_ads *ads, struct buf *b)
{
    int rc = grpc_stream_send(ads->stream, buf_pullup(b, buf_len(b)));
    buf_clear(b);
    if (rc == -ENOBUFS) {
        reset(ads, "the server does not read our requests");
    }
    return rc == 0; // -EPIPE: on_end is under way
}

void xds_ads_pump(struct xds_ads *ads)
{
    struct xds_view v = view(ads);
    struct buf b = { 0 };
    while (ads->stream && (ads->o.delta ? xds_delta_next(&ads->delta, &v, &b) : xds_sotw_next(&ads->sotw, &v, &b))) {
        if (!send_buf(ads, &b)) {
            break;
        }
    }
    buf_clear(&b);
}

static void came_up(struct xds_ads *ads)
{
    ads->up = ads->status.connected = true;
    ads->status.connects++;
    ads->status.connected_since_ms = loop_now_ms(ads->c->loop);
    log_info(LOGC_CONFIG, 0, "xds_connected", "target=%.*s", STR_FMT(ads->o.target));
}

static void on_message(struct grpc_stream *s, struct str bytes)
{
    struct xds_ads *ads = grpc_stream_owner(s);
    struct arena a = { 0 };
    struct err err = { 0 };
    struct xds_response r;
    int rc = ads->o.delta ? xds_delta_decode(&ads->delta, bytes, &a, &r, &err) : xds_sotw_decode(&ads->sotw, bytes, &a, &r, &err);
    if (rc == -EBADMSG) {
        arena_fini(&a);
        reset(ads, err.msg);
        return;
    }
    if (!ads->up) {
        came_up(ads);
    }
    if (rc == 0) {
        struct xds_view v = view(ads);
        struct buf b = { 0 };
        xds_backoff_reset(&ads->backoff);
        struct str nack = xds_client_take(ads->c, &r, XDS_ORIGIN_ADS, &a);
        if (ads->o.delta) {
            xds_delta_answer(&ads->delta, &v, &r, nack, &b);
        } else {
            xds_sotw_answer(&ads->sotw, &v, &r, nack, &b);
        }
        (void)send_buf(ads, &b);
        xds_client_wake(ads->c);
    } else {
        log_warn(LOGC_CONFIG, 0, "xds_response_ignored", "reason=\"%s\"", err.msg);
    }
    arena_fini(&a);
}

static void on_end(struct grpc_stream *s, int status, struct str message)
{
    lost(grpc_stream_owner(s), status, message);
}

// ---- life ----

static struct str keep(struct xds_ads *ads, struct str s)
{
    return s.n ? arena_str(&ads->arena, s) : str_n(NULL, 0);
}

static void copy_opts(struct xds_ads *ads, const struct xds_ads_opts *o)
{
    ads->o = *o;
    ads->o.target = keep(ads, o->target);
    ads->o.root_file = keep(ads, o->root_file);
    ads->o.root_pem = keep(ads, o->root_pem);
    ads->o.server_name = keep(ads, o->server_name);
    ads->o.cert_file = keep(ads, o->cert_file);
    ads->o.key_file = keep(ads, o->key_file);
    ads->o.token_file = keep(ads, o->token_file);
    struct str(*h)[2] = arena_alloc(&ads->arena, sizeof(*h) * (o->header_count + 1));
    for (size_t i = 0; i < o->header_count; i++) {
        h[i][0] = keep(ads, o->headers[i][0]);
        h[i][1] = keep(ads, o->headers[i][1]);
        for (char *p = (char *)h[i][0].p; p && *p; p++) { // HTTP/2 field names are lower case (RFC 9113 §8.2)
            *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
        }
    }
    ads->o.headers = (const struct str(*)[2])h;
}

int xds_add_ads(struct xds_client *c, const struct xds_ads_opts *o, struct err *err)
{
    if (c->ads) {
        return err_set(err, -EEXIST, "there is an ADS stream already");
    }
    if (!o->target.n) {
        return err_set(err, -EINVAL, "the ADS server has no address");
    }
    struct xds_ads *ads = mem_new(struct xds_ads);
    ads->c = c;
    ads->served = ~c->file_types;
    copy_opts(ads, o);
    timer_init(&ads->retry, connect_now);
    xds_backoff_init(&ads->backoff, o->backoff_base_ms, o->backoff_max_ms);
    c->ads = ads;
    timer_set(c->loop, &ads->retry, 0);
    return 0;
}

void xds_ads_free(struct xds_ads *ads)
{
    timer_cancel(&ads->retry);
    if (ads->stream) {
        grpc_stream_cancel(ads->stream);
    }
    if (ads->chan) {
        grpc_chan_free(ads->chan);
    }
    xds_delta_fini(&ads->delta);
    xds_sotw_fini(&ads->sotw);
    free((char *)ads->last_error.p);
    arena_fini(&ads->arena);
    free(ads);
}

uint32_t xds_ads_served(const struct xds_ads *ads)
{
    return ads->served;
}

void xds_ads_status_get(const struct xds_ads *ads, struct xds_ads_status *ret)
{
    *ret = ads->status;
    ret->last_error = ads->last_error;
}

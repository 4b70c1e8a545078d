// SPDX-License-Identifier: Apache-2.0
// A key made here, signed by the mesh's CA: istio.v1.auth.IstioCertificateService/CreateCertificate. The key never leaves the
// process. One call at a time; every call has a channel of its own, so that a new root file and a new token count at once.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "istio/v1/auth/ca.pb-c.h"
#include "lib/base/file.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/base/rand.h"
#include "lib/base/scope.h"
#include "lib/grpc/grpc.h"
#include "proxy/identity/provider_int.h"

enum {
    CALL_DEADLINE_MS = 10 * 1000,
    TTL_DEFAULT_S = 86400,
    RETRY_DEFAULT_MS = 100,
    KEEPALIVE_MS = 30 * 1000,
    KEEPALIVE_TIMEOUT_MS = 10 * 1000,
    TOKEN_MAX_BYTES = 32 * 1024,
    CHAIN_MAX = 100, // certificates and bundles in one answer
};

static const char METHOD[] = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

struct ca {
    struct identity base;
    struct identity_ca_opts o; // texts owned by memory
    struct arena memory;
    struct grpc_chan *chan;    // owned; NULL between calls
    struct loop_task done;     // frees chan: the answer comes from inside its callback, and this keeps it simple
    struct arena call;         // of the call that is out
    struct str key, root;      // in call: private key; the root file's text
    unsigned failures;         // in a row
};

// Ends the call's memory; the key in it is wiped.
static void call_clear(struct ca *c)
{
    if (c->key.n) {
        explicit_bzero((void *)(uintptr_t)c->key.p, c->key.n);
    }
    c->key = c->root = str_n(NULL, 0);
    arena_fini(&c->call);
}

static void free_channel(struct loop_task *t)
{
    struct ca *c = container_of(t, struct ca, done);
    grpc_chan_free(c->chan);
    c->chan = NULL;
}

// A file that is not there is no error when optional: no token then, as pilot-agent does.
static int read_file(const char *path, bool optional, size_t max, struct arena *a, struct str *ret, struct err *err)
{
    if (!path) {
        return 0;
    }
    int r = file_read(path, max, a, ret, err);
    return r == -ENOENT && optional ? 0 : r;
}

static int open_channel(struct ca *c, struct err *err)
{
    const struct identity_ca_opts *o = &c->o;
    struct grpc_chan_opts co = {
        .target = str_c(o->target),
        .tls = o->tls,
        .server_name = str_c(o->server_name),
        .keepalive_ms = KEEPALIVE_MS,
        .keepalive_timeout_ms = KEEPALIVE_TIMEOUT_MS,
    };
    // A root file that is named but unreadable or empty must not end in trusting the system's roots.
    int r = read_file(o->root_file, false, IDENTITY_FILE_MAX_BYTES, &c->call, &c->root, err);
    if (r == 0 && o->root_file && c->root.n == 0) {
        r = err_set(err, -EINVAL, "%s: is empty, no root certificates", o->root_file);
    }
    if (r == 0) {
        r = read_file(o->cert_file, true, IDENTITY_FILE_MAX_BYTES, &c->call, &co.cert_pem, err);
    }
    if (r == 0) {
        r = read_file(o->key_file, true, IDENTITY_FILE_MAX_BYTES, &c->call, &co.key_pem, err);
    }
    if (r) {
        return r;
    }
    co.root_pem = c->root;
    c->chan = grpc_chan_new(c->base.loop, &co, err);
    return c->chan ? 0 : err->code;
}

static int metadata(struct ca *c, struct grpc_md **ret, size_t *ret_n, struct err *err)
{
    struct grpc_md *md = arena_array(&c->call, struct grpc_md, c->o.header_count + 1);
    size_t n = 0;
    struct str token = { 0 };
    // A token in clear text is anybody's: without TLS none is sent, as on the xDS stream.
    int r = c->o.tls ? read_file(c->o.token_file, true, TOKEN_MAX_BYTES, &c->call, &token, err) : 0;
    if (r) {
        return r;
    }
    while (token.n && (token.p[token.n - 1] == '\n' || token.p[token.n - 1] == '\r')) {
        token.n--;
    }
    token = str_trim(token);
    if (token.n) {
        md[n++] = (struct grpc_md){ STR("authorization"), arena_printf(&c->call, "Bearer %.*s", STR_FMT(token)) };
    }
    for (size_t i = 0; i < c->o.header_count; i++) {
        md[n++] = (struct grpc_md){ c->o.headers[i][0], c->o.headers[i][1] };
    }
    *ret = md;
    *ret_n = n;
    return 0;
}

static int request(struct ca *c, struct str *ret, struct err *err)
{
    struct str csr;
    if (cert_new_key(c->o.key_type, &c->call, &c->key, err) || cert_new_csr(c->key, c->o.uri, &c->call, &csr, err)) {
        return err->code;
    }
    Istio__V1__Auth__IstioCertificateRequest q = ISTIO__V1__AUTH__ISTIO_CERTIFICATE_REQUEST__INIT;
    Google__Protobuf__Struct meta = GOOGLE__PROTOBUF__STRUCT__INIT;
    Google__Protobuf__Struct__FieldsEntry entry = GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT, *entries[] = { &entry };
    Google__Protobuf__Value value = GOOGLE__PROTOBUF__VALUE__INIT;
    q.csr = (char *)(uintptr_t)csr.p;
    q.validity_duration = c->o.ttl_s;
    if (c->o.cert_signer) {
        value.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
        value.string_value = (char *)(uintptr_t)c->o.cert_signer;
        entry.key = (char *)(uintptr_t)"CertSigner";
        entry.value = &value;
        meta.n_fields = 1;
        meta.fields = entries;
        q.metadata = &meta;
    }
    size_t n = istio__v1__auth__istio_certificate_request__get_packed_size(&q);
    uint8_t *p = arena_alloc(&c->call, n + 1);
    *ret = str_n(p, istio__v1__auth__istio_certificate_request__pack(&q, p));
    return 0;
}

static void failed(struct ca *c, const struct err *err)
{
    call_clear(c);
    identity_plan(&c->base, identity_backoff_ms(c->o.retry_ms, c->failures, rand_double()));
    c->failures++;
    identity_failed(&c->base, err);
}

// Leaf and intermediates become the chain; the last element is the root bundle, to which the configured roots are added.
static int take_chain(struct ca *c, char *const *pems, size_t n, struct err *err)
{
    if (n == 0 || n > CHAIN_MAX) {
        return err_set(err, -EBADMSG, "the CA answered with %zu certificates", n);
    }
    if (n == 1 && c->root.n == 0) {
        return err_set(err, -EBADMSG, "the CA sent no root certificate and no root file is configured");
    }
    struct str chain = str_c(pems[0]);
    size_t chain_count = n == 1 ? 1 : n - 1;
    for (size_t i = 1; i < chain_count; i++) {
        bool lf = chain.n && chain.p[chain.n - 1] == '\n';
        chain = arena_printf(&c->call, "%.*s%s%s", STR_FMT(chain), lf ? "" : "\n", pems[i]);
    }
    struct str roots[] = { n > 1 ? str_c(pems[n - 1]) : str_n(NULL, 0), c->root }, merged;
    if (cert_merge_bundles(roots, 2, &c->call, &merged, err)) {
        return err_wrap(err, "root certificates of the CA");
    }
    return identity_report(&c->base, chain, c->key, merged, err);
}

static void plan_rotation(struct ca *c)
{
    double share = c->o.grace_ratio + (rand_double() * 2 - 1) * c->o.grace_jitter;
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    identity_plan(&c->base, identity_rotate_after_ms((int64_t)(loop_wall_ms(c->base.loop) / 1000), c->base.status.not_after_s, share));
}

static void on_answer(void *arg, int status, struct str message, struct str response)
{
    struct ca *c = arg;
    struct err err = { 0 };
    loop_defer(c->base.loop, &c->done);
    if (status != 0) {
        err_set(&err, -EREMOTEIO, "CA %s: gRPC status %d: %.*s", c->o.target, status, (int)message.n, message.n ? message.p : "");
        failed(c, &err);
        return;
    }
    Istio__V1__Auth__IstioCertificateResponse *a =
        istio__v1__auth__istio_certificate_response__unpack(NULL, response.n, (const uint8_t *)response.p);
    int r = a ? take_chain(c, a->cert_chain, a->n_cert_chain, &err) : err_set(&err, -EBADMSG, "the CA's answer cannot be decoded");
    if (a) {
        istio__v1__auth__istio_certificate_response__free_unpacked(a, NULL);
    }
    if (r) {
        err_wrap(&err, "CA %s", c->o.target);
        failed(c, &err);
        return;
    }
    call_clear(c);
    c->failures = 0;
    plan_rotation(c);
}

static void attempt(struct identity *i)
{
    struct ca *c = container_of(i, struct ca, base);
    if (c->chan) {
        return; // a call is out; its end plans the next one
    }
    struct err err = { 0 };
    struct grpc_md *md = NULL;
    size_t n = 0;
    struct str body = { 0 };
    int r = request(c, &body, &err);
    r = r ? r : metadata(c, &md, &n, &err);
    r = r ? r : open_channel(c, &err);
    if (r) {
        failed(c, &err);
        return;
    }
    grpc_unary(c->chan, METHOD, md, n, body, CALL_DEADLINE_MS, on_answer, c);
}

static void destroy(struct identity *i)
{
    struct ca *c = container_of(i, struct ca, base);
    loop_task_cancel(&c->done);
    grpc_chan_free(c->chan);
    call_clear(c);
    arena_fini(&c->memory);
    free(c);
}

static const struct identity_provider ca_provider = { .name = "ca", .attempt = attempt, .destroy = destroy };

static const char *keep(struct ca *c, const char *s)
{
    return s && s[0] ? arena_strdup(&c->memory, s) : NULL;
}

static void keep_opts(struct ca *c, const struct identity_ca_opts *o)
{
    struct identity_ca_opts *k = &c->o;
    *k = *o;
    k->target = keep(c, o->target);
    k->server_name = keep(c, o->server_name);
    k->root_file = keep(c, o->root_file);
    k->token_file = keep(c, o->token_file);
    k->cert_file = keep(c, o->cert_file);
    k->key_file = keep(c, o->key_file);
    k->cert_signer = keep(c, o->cert_signer);
    k->uri = arena_str(&c->memory, o->uri);
    struct str(*headers)[2] = arena_alloc(&c->memory, sizeof(*headers) * (o->header_count + 1));
    for (size_t i = 0; i < o->header_count; i++) {
        headers[i][0] = arena_str(&c->memory, o->headers[i][0]);
        headers[i][1] = arena_str(&c->memory, o->headers[i][1]);
    }
    k->headers = (const struct str(*)[2])headers;
    k->ttl_s = o->ttl_s ? o->ttl_s : TTL_DEFAULT_S;
    k->grace_ratio = o->grace_ratio > 0 ? o->grace_ratio : 0.5;
    k->grace_jitter = o->grace_jitter > 0 ? o->grace_jitter : 0.01;
    k->retry_ms = o->retry_ms ? o->retry_ms : RETRY_DEFAULT_MS;
}

struct identity *identity_ca_new(struct loop *l, const struct identity_ca_opts *o, const struct identity_ops *ops, void *owner,
                                 struct err *err)
{
    if (!o->target || !o->target[0]) {
        err_set(err, -EINVAL, "certificate authority: no address given");
        return NULL;
    }
    if (o->ttl_s < 0 || o->grace_ratio < 0 || o->grace_ratio > 1) {
        err_set(err, -EINVAL, "certificate authority: life-time or grace ratio out of range");
        return NULL;
    }
    struct ca *c = mem_new(struct ca);
    identity_init(&c->base, &ca_provider, l, ops, owner);
    loop_task_init(&c->done, free_channel);
    keep_opts(c, o);
    identity_plan(&c->base, 0);
    return &c->base;
}

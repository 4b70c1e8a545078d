// SPDX-License-Identifier: Apache-2.0
// Both providers against a folder and a CA of our own, over loopback.
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
// cmocka needs those four first
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "istio/v1/auth/ca.pb-c.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/grpc/grpc.h"
#include "proxy/identity/provider_int.h"

enum { WAIT_MS = 20000 };
#define URI "spiffe://td/ns/a/sa/b"

static struct loop *loop;
static struct arena mem;
static struct str ca_cert, ca_key, other_cert, other_key;
static char dir[64];

// ---- what was reported ----

struct got {
    unsigned sets, failures;
    struct str chain, key, root;
    char uri[128], error[512];
    int64_t not_after_s;
};

static void on_set(void *owner, const struct identity_set *s)
{
    struct got *g = owner;
    g->sets++;
    g->chain = arena_str(&mem, s->cert_chain_pem);
    g->key = arena_str(&mem, s->key_pem);
    g->root = arena_str(&mem, s->root_pem);
    g->not_after_s = s->not_after_s;
    snprintf(g->uri, sizeof(g->uri), "%.*s", (int)s->uri.n, s->uri.n ? s->uri.p : "");
}
static void on_failure(void *owner, const struct err *err)
{
    struct got *g = owner;
    g->failures++;
    snprintf(g->error, sizeof(g->error), "%.*s", (int)sizeof(g->error) - 1, err->msg);
}
static const struct identity_ops ops = { .on_set = on_set, .on_failure = on_failure };

#define WAIT_FOR(cond)                                                                                                 \
    do {                                                                                                               \
        uint64_t end_ = clock_mono_ms() + WAIT_MS;                                                                     \
        while (!(cond)) {                                                                                              \
            if (clock_mono_ms() > end_) {                                                                              \
                fail_msg("timed out waiting for %s", #cond);                                                           \
            }                                                                                                          \
            loop_turn(loop, 20);                                                                                       \
        }                                                                                                              \
    } while (0)

// ---- a CA ----

static unsigned asked, refuse_next;
static int64_t asked_ttl;
static char asked_token[64], asked_cluster[64], asked_signer[64];
static bool send_root, send_junk;
static struct grpc_srv *srv;
static int port, tls_port; // the same service in clear text, and with a certificate of "root two"

static bool on_call(struct grpc_srv *s, struct grpc_call *c, const struct grpc_call_info *info)
{
    (void)s;
    (void)c;
    asked_token[0] = asked_cluster[0] = 0;
    for (size_t i = 0; i < info->md_count; i++) {
        if (str_is(info->md[i].key, "authorization")) {
            snprintf(asked_token, sizeof(asked_token), "%.*s", STR_FMT(info->md[i].value));
        }
        if (str_is(info->md[i].key, "clusterid")) {
            snprintf(asked_cluster, sizeof(asked_cluster), "%.*s", STR_FMT(info->md[i].value));
        }
    }
    return str_is(info->method, "/istio.v1.auth.IstioCertificateService/CreateCertificate");
}

static void on_message(struct grpc_call *c, struct str bytes)
{
    asked++;
    if (refuse_next) {
        refuse_next--;
        grpc_call_finish(c, 14, "not now");
        return;
    }
    Istio__V1__Auth__IstioCertificateRequest *q =
        istio__v1__auth__istio_certificate_request__unpack(NULL, bytes.n, (const uint8_t *)bytes.p);
    assert_non_null(q);
    asked_ttl = q->validity_duration;
    asked_signer[0] = 0;
    if (q->metadata) {
        assert_string_equal(q->metadata->fields[0]->key, "CertSigner");
        snprintf(asked_signer, sizeof(asked_signer), "%s", q->metadata->fields[0]->value->string_value);
    }
    struct err err = { 0 };
    struct cert_sign_opts o = { .uri_san = STR(URI), .ttl_s = q->validity_duration };
    struct str leaf;
    if (cert_sign_csr(str_c(q->csr), ca_cert, ca_key, &o, &mem, &leaf, &err)) {
        fail_msg("%s", err.msg);
    }
    istio__v1__auth__istio_certificate_request__free_unpacked(q, NULL);
    Istio__V1__Auth__IstioCertificateResponse r = ISTIO__V1__AUTH__ISTIO_CERTIFICATE_RESPONSE__INIT;
    char *chain[] = { send_junk ? (char *)(uintptr_t)"junk" : (char *)(uintptr_t)leaf.p, (char *)(uintptr_t)ca_cert.p };
    r.cert_chain = chain;
    r.n_cert_chain = send_root ? 2 : 1;
    uint8_t buf[16384];
    size_t n = istio__v1__auth__istio_certificate_response__pack(&r, buf);
    assert_int_equal(grpc_call_send(c, str_n(buf, n)), 0);
    grpc_call_finish(c, 0, NULL);
}
static const struct grpc_srv_ops srv_ops = { .on_call = on_call, .on_message = on_message };

static char *path(const char *name)
{
    return arena_strdup(&mem, arena_printf(&mem, "%s/%s", dir, name).p);
}
static void put(const char *name, struct str text)
{
    struct err err = { 0 };
    assert_int_equal(file_write_atomic(path(name), text, 0600, &err), 0);
}

static int setup(void **st)
{
    (void)st;
    struct err err = { 0 };
    loop = loop_new(&err);
    snprintf(dir, sizeof(dir), "/tmp/identity-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(cert_new_key(KEY_ECDSA_P256, &mem, &ca_key, &err), 0);
    assert_int_equal(cert_new_ca(ca_key, STR("root one"), 3600, &mem, &ca_cert, &err), 0);
    assert_int_equal(cert_new_key(KEY_ECDSA_P256, &mem, &other_key, &err), 0);
    assert_int_equal(cert_new_ca(other_key, STR("root two"), 3600, &mem, &other_cert, &err), 0);
    srv = grpc_srv_new(loop, &srv_ops, NULL, &err);
    port = grpc_srv_listen(srv, "127.0.0.1:0", NULL, &err);
    assert_true(port > 0);
    struct str key, csr, leaf;
    const struct str me = STR("127.0.0.1");
    assert_int_equal(cert_new_key(KEY_ECDSA_P256, &mem, &key, &err), 0);
    assert_int_equal(cert_new_csr(key, STR(URI), &mem, &csr, &err), 0);
    struct cert_sign_opts so = { .dns = &me, .dns_count = 1, .ttl_s = 3600 };
    assert_int_equal(cert_sign_csr(csr, other_cert, other_key, &so, &mem, &leaf, &err), 0);
    struct grpc_srv_opts o = { .cert_pem = leaf, .key_pem = key, .tls = true };
    tls_port = grpc_srv_listen(srv, "127.0.0.1:0", &o, &err);
    assert_true(tls_port > 0);
    grpc_srv_start(srv);
    return 0;
}

static int teardown(void **st)
{
    (void)st;
    grpc_srv_free(srv);
    loop_free(loop);
    grpc_fence_shutdown();
    char cmd[128];
    snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    int r = system(cmd);
    arena_fini(&mem);
    return r;
}

static struct identity_ca_opts ca_opts(void)
{
    asked = refuse_next = 0;
    send_root = true;
    send_junk = false;
    return (struct identity_ca_opts){
        .target = arena_strdup(&mem, arena_printf(&mem, "127.0.0.1:%d", port).p), .uri = STR(URI), .ttl_s = 600, .retry_ms = 5,
    };
}

static size_t roots_in(struct str pem)
{
    struct cert_info *v;
    size_t n;
    struct err err;
    assert_int_equal(cert_parse_bundle(pem, &mem, &v, &n, &err), 0);
    return n;
}

static void test_ca_issues(void **st)
{
    (void)st;
    struct identity_ca_opts o = ca_opts();
    o.target = arena_strdup(&mem, arena_printf(&mem, "127.0.0.1:%d", tls_port).p);
    o.tls = true;
    put("token", STR("tok-1\n"));
    put("roots.pem", other_cert);
    static const struct str headers[][2] = { { STR_INIT("clusterid"), STR_INIT("Kubernetes") } };
    o.token_file = path("token");
    o.root_file = path("roots.pem");
    o.headers = headers;
    o.header_count = 1;
    o.cert_signer = "clusterissuers.x/y";
    struct got g = { 0 };
    struct err err = { 0 };
    struct identity *i = identity_ca_new(loop, &o, &ops, &g, &err);
    assert_int_equal(g.sets, 0);
    WAIT_FOR(g.sets == 1);
    assert_string_equal(g.uri, URI);
    assert_true(cert_key_matches(g.chain, g.key));
    assert_int_equal(roots_in(g.root), 2); // the CA's and the configured one
    assert_int_equal(roots_in(g.chain), 1);
    assert_string_equal(asked_token, "Bearer tok-1");
    assert_string_equal(asked_cluster, "Kubernetes");
    assert_string_equal(asked_signer, "clusterissuers.x/y");
    assert_int_equal(asked_ttl, 600);
    // Planned at half of the life-time, ± 1 %.
    uint64_t in = identity_status(i)->next_ms - loop_now_ms(loop);
    assert_in_range(in, 290000, 310000);
    // The token is read again, and the key is a new one.
    struct str key = g.key;
    put("token", STR("tok-2"));
    identity_refresh(i);
    WAIT_FOR(g.sets == 2);
    assert_string_equal(asked_token, "Bearer tok-2");
    assert_false(str_eq(key, g.key));
    assert_int_equal(g.failures, 0);
    identity_free(i);
}

static void test_ca_rotates(void **st)
{
    (void)st;
    struct identity_ca_opts o = ca_opts();
    o.grace_ratio = 0.99999; // leaves the lower bound: half a second
    o.grace_jitter = 0.000001;
    put("token", STR("tok-3"));
    o.token_file = path("token");
    struct got g = { 0 };
    struct err err = { 0 };
    struct identity *i = identity_ca_new(loop, &o, &ops, &g, &err);
    WAIT_FOR(g.sets == 2);
    assert_int_equal(asked, 2);
    assert_string_equal(asked_token, ""); // not in clear text
    identity_free(i);
}

static void test_ca_retries(void **st)
{
    (void)st;
    struct identity_ca_opts o = ca_opts();
    refuse_next = 3;
    struct got g = { 0 };
    struct err err = { 0 };
    struct identity *i = identity_ca_new(loop, &o, &ops, &g, &err);
    WAIT_FOR(g.sets == 1);
    assert_int_equal(g.failures, 3);
    assert_non_null(strstr(g.error, "gRPC status 14: not now"));
    assert_int_equal(identity_status(i)->failures, 3);
    assert_string_equal(identity_status(i)->last_error, "");
    identity_free(i);
}

static void test_ca_bad_answers(void **st)
{
    (void)st;
    struct identity_ca_opts o = ca_opts();
    o.retry_ms = 100000; // one attempt only
    struct got g = { 0 };
    struct err err = { 0 };
    send_junk = true;
    struct identity *i = identity_ca_new(loop, &o, &ops, &g, &err);
    WAIT_FOR(g.failures == 1);
    assert_non_null(strstr(g.error, "certificate chain"));
    send_junk = false;
    send_root = false;
    identity_refresh(i);
    WAIT_FOR(g.failures == 2);
    assert_non_null(strstr(g.error, "no root certificate"));
    send_root = true;
    identity_refresh(i);
    WAIT_FOR(g.sets == 1);
    identity_free(i);
    // A root file that is named must be there.
    o.root_file = path("no-such-file");
    i = identity_ca_new(loop, &o, &ops, &g, &err);
    WAIT_FOR(g.failures == 3);
    assert_non_null(strstr(g.error, "no-such-file"));
    identity_free(i);
    o.target = "";
    assert_null(identity_ca_new(loop, &o, &ops, &g, &err));
}

static void test_ca_freed_while_asking(void **st)
{
    (void)st;
    struct identity_ca_opts o = ca_opts();
    struct got g = { 0 };
    struct err err = { 0 };
    for (int turns = 0; turns < 4; turns++) {
        struct identity *i = identity_ca_new(loop, &o, &ops, &g, &err);
        for (int k = 0; k < turns; k++) {
            loop_turn(loop, 1);
        }
        identity_free(i);
    }
    for (int k = 0; k < 5; k++) {
        loop_turn(loop, 5);
    }
    assert_int_equal(g.sets + g.failures, 0);
}

static void issue(const char *uri, struct str *ret_cert, struct str *ret_key)
{
    struct err err = { 0 };
    struct str csr;
    assert_int_equal(cert_new_key(KEY_ECDSA_P256, &mem, ret_key, &err), 0);
    assert_int_equal(cert_new_csr(*ret_key, str_c(uri), &mem, &csr, &err), 0);
    struct cert_sign_opts o = { .uri_san = str_c(uri), .ttl_s = 600 };
    assert_int_equal(cert_sign_csr(csr, ca_cert, ca_key, &o, &mem, ret_cert, &err), 0);
}

// A folder as the kubelet fills it: names link to ..data/NAME, ..data links to a folder that is swapped.
static void kube_put(const char *root, const char *version, struct str cert, struct str key)
{
    char *d = arena_strdup(&mem, arena_printf(&mem, "%s/%s", root, version).p);
    assert_int_equal(mkdir(d, 0700), 0);
    const struct {
        const char *name;
        struct str text;
    } files[] = { { "cert-chain.pem", cert }, { "key.pem", key }, { "root-cert.pem", ca_cert } };
    for (size_t k = 0; k < 3; k++) {
        struct err err = { 0 };
        assert_int_equal(file_write_atomic(arena_printf(&mem, "%s/%s", d, files[k].name).p, files[k].text, 0600, &err), 0);
        char *to = arena_strdup(&mem, arena_printf(&mem, "%s/%s", root, files[k].name).p);
        (void)!symlink(arena_printf(&mem, "..data/%s", files[k].name).p, to);
    }
    char *tmp = arena_strdup(&mem, arena_printf(&mem, "%s/..data_tmp", root).p);
    assert_int_equal(symlink(version, tmp), 0);
    assert_int_equal(rename(tmp, arena_printf(&mem, "%s/..data", root).p), 0);
}

static void test_files(void **st)
{
    (void)st;
    struct got g = { 0 };
    struct err err = { 0 };
    char *d = path("creds");
    struct identity_files_opts o = { .dir = d };
    struct identity *i = identity_files_new(loop, &o, &ops, &g, &err);
    WAIT_FOR(g.failures == 1); // not there yet
    assert_int_equal(mkdir(d, 0700), 0);
    struct str cert, key, key2;
    issue(URI, &cert, &key);
    kube_put(d, "..v1", cert, key);
    identity_refresh(i); // it would look again by itself after a second
    WAIT_FOR(g.sets == 1);
    assert_string_equal(g.uri, URI);
    assert_true(str_eq(g.key, key));
    assert_true(str_eq(g.root, ca_cert));
    // Swapped as a whole.
    issue("spiffe://td/ns/a/sa/c", &cert, &key);
    kube_put(d, "..v2", cert, key);
    WAIT_FOR(g.sets == 2);
    assert_string_equal(g.uri, "spiffe://td/ns/a/sa/c");
    // A key that does not fit is refused and what was reported stays.
    unsigned failures = g.failures;
    issue(URI, &cert, &key2);
    kube_put(d, "..v3", cert, key);
    WAIT_FOR(g.failures > failures);
    assert_non_null(strstr(g.error, "does not belong"));
    assert_int_equal(g.sets, 2);
    kube_put(d, "..v4", cert, key2);
    WAIT_FOR(g.sets == 3);
    // Touching without a change reports nothing.
    identity_refresh(i);
    for (int k = 0; k < 5; k++) {
        loop_turn(loop, 5);
    }
    assert_int_equal(g.sets, 3);
    identity_free(i);
}

static void test_times(void **st)
{
    (void)st;
    assert_int_equal(identity_rotate_after_ms(1000, 1600, 0.5), 300000);
    assert_int_equal(identity_rotate_after_ms(1000, 1600, 0.0), 600000);
    assert_int_equal(identity_rotate_after_ms(1000, 1600, 1.0), 500);
    assert_int_equal(identity_rotate_after_ms(2000, 1600, 0.5), 500);
    assert_int_equal(identity_backoff_ms(100, 0, 1.0), 100);
    assert_int_equal(identity_backoff_ms(100, 0, 0.0), 50);
    assert_int_equal(identity_backoff_ms(100, 3, 1.0), 800);
    assert_int_equal(identity_backoff_ms(100, 4000000, 1.0), IDENTITY_RETRY_MAX_MS);
}

#ifdef __SANITIZE_THREAD__
const char *__tsan_default_options(void); // see tests/unit/lib/grpc/test_grpc.c
const char *__tsan_default_options(void)
{
    return "report_bugs=0";
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_ca_issues),
        cmocka_unit_test(test_ca_rotates),
        cmocka_unit_test(test_ca_retries),
        cmocka_unit_test(test_ca_bad_answers),
        cmocka_unit_test(test_ca_freed_while_asking),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

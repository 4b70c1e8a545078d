// SPDX-License-Identifier: Apache-2.0
// Client against server over loopback, on one loop, with gRPC core's real threads in between.
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
// cmocka needs those four first
#include <cmocka.h>
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/arena.h"
#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/grpc/grpc.h"

enum { WAIT_MS = 20000 }; // only a broken test waits that long

static struct loop *loop;
static struct arena mem;

// ---- a server: Echo answers each message, Hold keeps quiet, Fail ends at once, Unary answers once in upper case ----

struct served {
    char method[64];
    unsigned messages;
    bool half_closed;
};
static unsigned calls_open, calls_seen, half_closes;
static char last_auth[64], last_peer_uri[128], last_peer[64];
static bool last_tls;
static struct grpc_call *held;

static bool on_call(struct grpc_srv *s, struct grpc_call *c, const struct grpc_call_info *info)
{
    assert_ptr_equal(grpc_srv_owner(s), &mem);
    if (!str_starts(info->method, STR("/test.T/"))) {
        return false;
    }
    struct served *v = mem_new(struct served);
    snprintf(v->method, sizeof(v->method), "%.*s", STR_FMT(str_skip(info->method, 8)));
    snprintf(last_peer, sizeof(last_peer), "%.*s", STR_FMT(info->peer));
    last_peer_uri[0] = 0;
    if (info->peer_uri.n) {
        snprintf(last_peer_uri, sizeof(last_peer_uri), "%.*s", STR_FMT(info->peer_uri));
    }
    last_tls = info->tls;
    last_auth[0] = 0;
    for (size_t i = 0; i < info->md_count; i++) {
        if (str_is(info->md[i].key, "authorization")) {
            snprintf(last_auth, sizeof(last_auth), "%.*s", STR_FMT(info->md[i].value));
        }
    }
    grpc_call_set_owner(c, v);
    calls_open++;
    calls_seen++;
    if (strcmp(v->method, "Fail") == 0) {
        grpc_call_finish(c, 7, "you shall not pass");
    }
    if (strcmp(v->method, "Hold") == 0) {
        held = c;
    }
    return true;
}

static void on_message(struct grpc_call *c, struct str bytes)
{
    struct served *v = grpc_call_owner(c);
    v->messages++;
    if (strcmp(v->method, "Echo") == 0) {
        assert_int_equal(grpc_call_send(c, bytes), 0);
    } else if (strcmp(v->method, "Unary") == 0) {
        char *up = str_dup(bytes);
        for (size_t i = 0; i < bytes.n; i++) {
            up[i] = (char)(up[i] & ~0x20);
        }
        assert_int_equal(grpc_call_send(c, str_n(up, bytes.n)), 0);
        free(up);
        grpc_call_finish(c, 0, NULL);
    } else if (strcmp(v->method, "Burst") == 0) {
        for (int i = 0; i < 500; i++) {
            assert_int_equal(grpc_call_send(c, str_n(&i, sizeof(i))), 0);
        }
        grpc_call_finish(c, 0, "");
        assert_int_equal(grpc_call_send(c, bytes), -EPIPE);
    }
}

static void on_half_close(struct grpc_call *c)
{
    struct served *v = grpc_call_owner(c);
    assert_false(v->half_closed);
    v->half_closed = true;
    half_closes++;
    if (strcmp(v->method, "Echo") == 0) {
        grpc_call_finish(c, 0, "bye");
    }
}

static void on_call_end(struct grpc_call *c)
{
    free(grpc_call_owner(c));
    calls_open--;
    if (held == c) {
        held = NULL;
    }
}

static const struct grpc_srv_ops srv_ops = {
    .on_call = on_call, .on_message = on_message, .on_half_close = on_half_close, .on_end = on_call_end,
};

// ---- a client that remembers what came ----

struct got {
    unsigned messages, ends;
    size_t bytes;
    int status;
    char text[256];
    char first[64];
    bool in_order;
    void (*hook)(struct grpc_stream *s, struct got *g);
};

static void on_answer(struct grpc_stream *s, struct str bytes)
{
    struct got *g = grpc_stream_owner(s);
    assert_int_equal(g->ends, 0);
    if (g->messages == 0) {
        snprintf(g->first, sizeof(g->first), "%.*s", (int)(bytes.n < 60 ? bytes.n : 60), bytes.p);
    }
    int i;
    if (bytes.n == sizeof(i)) {
        memcpy(&i, bytes.p, sizeof(i));
        g->in_order = (g->messages == 0 || g->in_order) && i == (int)g->messages;
    }
    g->messages++;
    g->bytes += bytes.n;
    if (g->hook) {
        g->hook(s, g);
    }
}

static void on_end(struct grpc_stream *s, int status, struct str message)
{
    struct got *g = grpc_stream_owner(s);
    g->ends++;
    g->status = status;
    snprintf(g->text, sizeof(g->text), "%.*s", STR_FMT(message));
}

static const struct grpc_stream_ops client_ops = { .on_message = on_answer, .on_end = on_end };

#define WAIT_FOR(cond)                                                                                                 \
    do {                                                                                                               \
        uint64_t end_ = clock_mono_ms() + WAIT_MS;                                                                     \
        while (!(cond)) {                                                                                              \
            if (clock_mono_ms() > end_) {                                                                              \
                fail_msg("timed out waiting for %s", #cond);                                                           \
            }                                                                                                          \
            loop_turn(loop, 50);                                                                                       \
        }                                                                                                              \
    } while (0)

// ---- certificates, by OpenSSL itself: this folder may not use lib/tls ----

static struct str bio_str(BIO *b)
{
    char *p;
    long n = BIO_get_mem_data(b, &p);
    struct str s = arena_str(&mem, str_n(p, (size_t)n));
    BIO_free(b);
    return s;
}

static void ext(X509 *c, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, c, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    X509_add_ext(c, e, -1);
    X509_EXTENSION_free(e);
}

static X509 *make_cert(EVP_PKEY *k, X509 *ca, EVP_PKEY *ca_key, const char *san, struct str *ret_cert, struct str *ret_key)
{
    X509 *c = X509_new();
    X509_set_version(c, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(c), ca ? 2 : 1);
    X509_gmtime_adj(X509_getm_notBefore(c), -60);
    X509_gmtime_adj(X509_getm_notAfter(c), 3600);
    X509_set_pubkey(c, k);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(c), "O", MBSTRING_ASC, (const unsigned char *)(ca ? "leaf" : "root"), -1, -1, 0);
    X509_set_issuer_name(c, X509_get_subject_name(ca ? ca : c));
    ext(c, ca ? ca : c, NID_basic_constraints, ca ? "CA:FALSE" : "critical,CA:TRUE");
    if (san) {
        ext(c, ca, NID_subject_alt_name, san);
    }
    X509_sign(c, ca_key, EVP_sha256());
    BIO *b = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(b, c);
    *ret_cert = bio_str(b);
    b = BIO_new(BIO_s_mem());
    PEM_write_bio_PKCS8PrivateKey(b, k, NULL, NULL, 0, NULL, NULL);
    *ret_key = bio_str(b);
    return c;
}

static struct str root_pem, srv_cert, srv_key, next_cert, next_key, cli_cert, cli_key;

static void make_certs(void)
{
    EVP_PKEY *rk = EVP_EC_gen("P-256"), *sk = EVP_EC_gen("P-256"), *ck = EVP_EC_gen("P-256");
    struct str unused;
    X509 *root = make_cert(rk, NULL, rk, NULL, &root_pem, &unused);
    X509_free(make_cert(sk, root, rk, "DNS:control.test", &srv_cert, &srv_key));
    X509_free(make_cert(sk, root, rk, "DNS:next.test", &next_cert, &next_key));
    X509_free(make_cert(ck, root, rk, "URI:spiffe://td/ns/a/sa/b", &cli_cert, &cli_key));
    X509_free(root);
    EVP_PKEY_free(rk);
    EVP_PKEY_free(sk);
    EVP_PKEY_free(ck);
}

static struct grpc_srv *srv;
static char plain_target[32], tls_target[32];

static int setup(void **st)
{
    (void)st;
    struct err err = { 0 };
    loop = loop_new(&err);
    make_certs();
    srv = grpc_srv_new(loop, &srv_ops, &mem, &err);
    int p = grpc_srv_listen(srv, "127.0.0.1:0", NULL, &err);
    assert_true(p > 0);
    snprintf(plain_target, sizeof(plain_target), "127.0.0.1:%d", p);
    struct grpc_srv_opts o = { .tls = true, .cert_pem = srv_cert, .key_pem = srv_key, .client_ca_pem = root_pem };
    p = grpc_srv_listen(srv, "127.0.0.1:0", &o, &err);
    assert_true(p > 0);
    snprintf(tls_target, sizeof(tls_target), "127.0.0.1:%d", p);
    grpc_srv_start(srv);
    return 0;
}

static int teardown(void **st)
{
    (void)st;
    grpc_srv_free(srv);
    grpc_fence_shutdown(); // before the loop goes: what waits in its mailbox must survive that
    loop_free(loop);
    arena_fini(&mem);
    return calls_open == 0 ? 0 : -1;
}

static struct grpc_chan *plain(void)
{
    struct err err = { 0 };
    struct grpc_chan_opts o = { .target = str_c(plain_target), .keepalive_ms = 30000, .keepalive_timeout_ms = 10000 };
    struct grpc_chan *c = grpc_chan_new(loop, &o, &err);
    assert_non_null(c);
    return c;
}

static struct grpc_stream *open_stream(struct grpc_chan *c, const char *method, int deadline_ms, struct got *g)
{
    struct grpc_md md = { STR("authorization"), STR("Bearer abc") };
    return grpc_stream_new(c, method, &md, 1, deadline_ms, &client_ops, g);
}

static void echo_while_open(struct grpc_chan *c, unsigned others)
{
    struct got g = { 0 };
    struct grpc_stream *s = open_stream(c, "/test.T/Echo", 0, &g);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(grpc_stream_send(s, str_n(&i, sizeof(i))), 0);
    }
    WAIT_FOR(g.messages == 100);
    assert_true(g.in_order);
    assert_int_equal(g.ends, 0);
    assert_string_equal(last_auth, "Bearer abc");
    grpc_stream_half_close(s);
    assert_int_equal(grpc_stream_send(s, STR("late")), -EPIPE);
    WAIT_FOR(g.ends == 1);
    assert_int_equal(g.status, 0);
    assert_string_equal(g.text, "bye");
    WAIT_FOR(calls_open == others);
}

static void echo_over(struct grpc_chan *c)
{
    echo_while_open(c, 0);
}

static void test_echo_plain(void **st)
{
    (void)st;
    struct grpc_chan *c = plain();
    echo_over(c);
    assert_false(last_tls);
    assert_int_equal(strncmp(last_peer, "ipv4:127.0.0.1:", 15), 0);
    grpc_chan_free(c);
}

static void test_echo_tls(void **st)
{
    (void)st;
    struct err err = { 0 };
    struct grpc_chan_opts o = {
        .target = str_c(tls_target), .tls = true, .root_pem = root_pem, .server_name = STR("control.test"),
    };
    struct grpc_chan *c = grpc_chan_new(loop, &o, &err);
    echo_over(c);
    assert_true(last_tls);
    assert_string_equal(last_peer_uri, "");
    grpc_chan_free(c);
    o.cert_pem = cli_cert;
    o.key_pem = cli_key;
    c = grpc_chan_new(loop, &o, &err);
    echo_over(c);
    assert_string_equal(last_peer_uri, "spiffe://td/ns/a/sa/b");
    grpc_chan_free(c);
}

// A handshake after the change meets the new certificate; a stream that is open goes on.
static void test_certificate_is_changed(void **st)
{
    (void)st;
    struct err err = { 0 };
    struct grpc_chan_opts o = {
        .target = str_c(tls_target), .tls = true, .root_pem = root_pem, .server_name = STR("control.test"),
    };
    struct grpc_chan *old = grpc_chan_new(loop, &o, &err);
    struct got g = { 0 }, refused = { 0 };
    struct grpc_stream *s = open_stream(old, "/test.T/Echo", 0, &g);
    int i = 0;
    assert_int_equal(grpc_stream_send(s, str_n(&i, sizeof(i))), 0);
    WAIT_FOR(g.messages == 1);
    grpc_srv_set_cert(srv, next_cert, next_key);
    o.server_name = STR("next.test");
    struct grpc_chan *c = grpc_chan_new(loop, &o, &err);
    echo_while_open(c, 1);
    grpc_chan_free(c);
    i = 1;
    assert_int_equal(grpc_stream_send(s, str_n(&i, sizeof(i))), 0);
    WAIT_FOR(g.messages == 2);
    assert_int_equal(g.ends, 0);
    grpc_srv_set_cert(srv, STR("no certificate"), STR("no key")); // refused: the former one stays
    c = grpc_chan_new(loop, &o, &err);
    echo_while_open(c, 1);
    grpc_chan_free(c);
    grpc_srv_set_cert(srv, srv_cert, srv_key);
    c = grpc_chan_new(loop, &o, &err);
    (void)open_stream(c, "/test.T/Echo", 10000, &refused);
    WAIT_FOR(refused.ends == 1);
    assert_int_not_equal(refused.status, 0);
    grpc_chan_free(c);
    grpc_chan_free(old);
    WAIT_FOR(calls_open == 0);
}

static void test_tls_wrong_name_and_root(void **st)
{
    (void)st;
    struct err err = { 0 };
    for (int i = 0; i < 2; i++) {
        struct grpc_chan_opts o = {
            .target = str_c(tls_target), .tls = true, .root_pem = i ? cli_cert : root_pem,
            .server_name = i ? STR("control.test") : STR("other.test"),
        };
        struct grpc_chan *c = grpc_chan_new(loop, &o, &err);
        unsigned before = calls_seen;
        struct got g = { 0 };
        (void)open_stream(c, "/test.T/Echo", 5000, &g);
        WAIT_FOR(g.ends == 1);
        assert_int_equal(g.status, 14);
        assert_int_equal(calls_seen, before);
        grpc_chan_free(c);
    }
}

struct unary_got {
    unsigned n;
    int status;
    char text[256];
    char answer[256];
};
static void unary_done(void *arg, int status, struct str message, struct str response)
{
    struct unary_got *u = arg;
    u->n++;
    u->status = status;
    snprintf(u->text, sizeof(u->text), "%.*s", STR_FMT(message));
    snprintf(u->answer, sizeof(u->answer), "%.*s", STR_FMT(response));
}

static void test_unary(void **st)
{
    (void)st;
    struct grpc_chan *c = plain();
    struct unary_got a = { 0 }, b = { 0 }, d = { 0 }, e = { 0 };
    grpc_unary(c, "/test.T/Unary", NULL, 0, STR("hello"), 10000, unary_done, &a);
    grpc_unary(c, "/test.T/Fail", NULL, 0, STR("hello"), 10000, unary_done, &b);
    grpc_unary(c, "/other.O/X", NULL, 0, STR("hello"), 10000, unary_done, &d);
    struct grpc_md bad = { STR("Upper"), STR("x") };
    grpc_unary(c, "/test.T/Unary", &bad, 1, STR("hello"), 10000, unary_done, &e);
    assert_int_equal(e.n, 0); // never from inside
    WAIT_FOR(a.n && b.n && d.n && e.n);
    assert_int_equal(a.status, 0);
    assert_string_equal(a.answer, "HELLO");
    assert_int_equal(b.status, 7);
    assert_string_equal(b.text, "you shall not pass");
    assert_int_equal(d.status, 12);
    assert_int_equal(e.status, 3);
    WAIT_FOR(calls_open == 0);
    grpc_chan_free(c);
    assert_int_equal(a.n + b.n + d.n + e.n, 4);
}

static void test_deadline(void **st)
{
    (void)st;
    struct grpc_chan *c = plain();
    struct unary_got u = { 0 };
    unsigned seen = calls_seen;
    grpc_unary(c, "/test.T/Hold", NULL, 0, STR("x"), 100, unary_done, &u);
    WAIT_FOR(u.n);
    assert_int_equal(u.status, 4);
    WAIT_FOR(calls_seen > seen);
    WAIT_FOR(calls_open == 0); // the server learns of it too
    grpc_chan_free(c);
}

static void test_client_cancels(void **st)
{
    (void)st;
    struct grpc_chan *c = plain();
    struct got g = { 0 };
    struct grpc_stream *s = open_stream(c, "/test.T/Hold", 0, &g);
    assert_int_equal(grpc_stream_send(s, STR("x")), 0);
    WAIT_FOR(calls_open == 1);
    grpc_stream_cancel(s);
    WAIT_FOR(calls_open == 0);
    assert_int_equal(g.ends, 0);
    grpc_chan_free(c);
}

static void cancel_hook(struct grpc_stream *s, struct got *g)
{
    g->hook = NULL;
    grpc_stream_cancel(s);
    grpc_stream_cancel(s);
}

static void test_client_cancels_inside_on_message(void **st)
{
    (void)st;
    struct grpc_chan *c = plain();
    struct got g = { .hook = cancel_hook };
    struct grpc_stream *s = open_stream(c, "/test.T/Burst", 0, &g);
    assert_int_equal(grpc_stream_send(s, STR("x")), 0);
    WAIT_FOR(g.messages == 1);
    WAIT_FOR(calls_open == 0);
    assert_int_equal(g.messages, 1);
    assert_int_equal(g.ends, 0);
    grpc_chan_free(c);
}

static void test_server_ends(void **st)
{
    (void)st;
    struct grpc_chan *c = plain();
    struct got g = { 0 };
    (void)open_stream(c, "/test.T/Hold", 0, &g);
    WAIT_FOR(held);
    assert_int_equal(grpc_call_send(held, STR("last words")), 0);
    grpc_call_finish(held, 10, "ABORTED by test");
    grpc_call_finish(held, 0, "the second does not count");
    WAIT_FOR(g.ends == 1);
    assert_int_equal(g.messages, 1);
    assert_string_equal(g.first, "last words");
    assert_int_equal(g.status, 10);
    assert_string_equal(g.text, "ABORTED by test");
    WAIT_FOR(calls_open == 0);
    grpc_chan_free(c);
}

static void test_server_burst_in_order(void **st)
{
    (void)st;
    struct grpc_chan *c = plain();
    struct got g = { 0 };
    struct grpc_stream *s = open_stream(c, "/test.T/Burst", 0, &g);
    assert_int_equal(grpc_stream_send(s, STR("go")), 0);
    WAIT_FOR(g.ends == 1);
    assert_int_equal(g.messages, 500);
    assert_true(g.in_order);
    assert_int_equal(g.status, 0);
    WAIT_FOR(calls_open == 0);
    grpc_chan_free(c);
}

static void test_pause(void **st)
{
    (void)st;
    struct grpc_chan *c = plain();
    struct got g = { 0 };
    struct grpc_stream *s = open_stream(c, "/test.T/Echo", 0, &g);
    grpc_stream_pause(s, true); // one read is out already
    for (int i = 0; i < 5; i++) {
        assert_int_equal(grpc_stream_send(s, str_n(&i, sizeof(i))), 0);
    }
    WAIT_FOR(g.messages == 1);
    for (int i = 0; i < 5; i++) {
        loop_turn(loop, 10);
    }
    assert_int_equal(g.messages, 1);
    grpc_stream_pause(s, false);
    WAIT_FOR(g.messages == 5);
    assert_true(g.in_order);
    grpc_stream_cancel(s);
    WAIT_FOR(calls_open == 0);
    grpc_chan_free(c);
}

static void test_big_message(void **st)
{
    (void)st;
    enum { BIG = 20 * 1000 * 1000 };
    struct grpc_chan *c = plain();
    struct got g = { 0 };
    struct grpc_stream *s = open_stream(c, "/test.T/Echo", 0, &g);
    char *big = malloc(BIG);
    memset(big, 'b', BIG);
    assert_int_equal(grpc_stream_send(s, str_n(big, BIG)), 0);
    WAIT_FOR(g.messages == 1);
    assert_int_equal(g.bytes, BIG);
    free(big);
    grpc_stream_half_close(s);
    WAIT_FOR(g.ends == 1);
    WAIT_FOR(calls_open == 0);
    grpc_chan_free(c);
}

static void test_queue_is_bounded(void **st)
{
    (void)st;
    struct grpc_chan *c = plain();
    struct got g = { 0 };
    struct grpc_stream *s = open_stream(c, "/test.T/Hold", 0, &g);
    int r = 0, n = 0;
    while (r == 0 && n < GRPC_QUEUE_MAX + 10) {
        r = grpc_stream_send(s, STR("x")); // no turn in between: nothing leaves the queue
        n++;
    }
    assert_int_equal(r, -ENOBUFS);
    assert_int_equal(n, GRPC_QUEUE_MAX + 1);
    WAIT_FOR(calls_open == 1); // else the server might see the call only during the next test
    grpc_stream_cancel(s);
    WAIT_FOR(calls_open == 0);
    grpc_chan_free(c);
}

static void test_nobody_there(void **st)
{
    (void)st;
    struct err err = { 0 };
    struct grpc_chan_opts o = { .target = STR("127.0.0.1:1") };
    struct grpc_chan *c = grpc_chan_new(loop, &o, &err);
    struct unary_got u = { 0 };
    grpc_unary(c, "/test.T/Unary", NULL, 0, STR("x"), 0, unary_done, &u);
    WAIT_FOR(u.n);
    assert_int_equal(u.status, 14);
    grpc_chan_free(c);
    o.target = STR("");
    assert_null(grpc_chan_new(loop, &o, &err));
}

static void test_server_goes_away(void **st)
{
    (void)st;
    struct err err = { 0 };
    struct grpc_srv *s2 = grpc_srv_new(loop, &srv_ops, &mem, &err);
    int port = grpc_srv_listen(s2, "127.0.0.1:0", NULL, &err);
    grpc_srv_start(s2);
    char target[32];
    snprintf(target, sizeof(target), "127.0.0.1:%d", port);
    struct grpc_chan_opts o = { .target = str_c(target) };
    struct grpc_chan *c = grpc_chan_new(loop, &o, &err);
    struct got g = { 0 };
    struct grpc_stream *s = open_stream(c, "/test.T/Hold", 0, &g);
    assert_int_equal(grpc_stream_send(s, STR("x")), 0);
    WAIT_FOR(calls_open == 1);
    grpc_srv_free(s2);
    assert_int_equal(calls_open, 0); // told from inside
    WAIT_FOR(g.ends == 1);
    assert_int_equal(g.status, 14);
    grpc_chan_free(c);
}

static void test_port_taken_and_bad_tls(void **st)
{
    (void)st;
    struct err err = { 0 };
    struct grpc_srv *s2 = grpc_srv_new(loop, &srv_ops, &mem, &err);
    assert_true(grpc_srv_listen(s2, plain_target, NULL, &err) < 0);
    struct grpc_srv_opts o = { .tls = true, .cert_pem = srv_cert };
    assert_true(grpc_srv_listen(s2, "127.0.0.1:0", &o, &err) < 0);
    assert_non_null(strstr(err.msg, "certificate"));
    o.key_pem = cli_key;
    assert_true(grpc_srv_listen(s2, "127.0.0.1:0", &o, &err) < 0);
    grpc_srv_free(s2); // never started
}

static void test_free_with_outstanding_calls(void **st)
{
    (void)st;
    struct grpc_chan *c = plain();
    struct got g[20] = { 0 };
    struct unary_got u[20] = { 0 };
    for (int i = 0; i < 20; i++) {
        struct grpc_stream *s = open_stream(c, i % 2 ? "/test.T/Echo" : "/test.T/Hold", 0, &g[i]);
        (void)grpc_stream_send(s, STR("x"));
        grpc_unary(c, "/test.T/Hold", NULL, 0, STR("x"), 0, unary_done, &u[i]);
    }
    WAIT_FOR(calls_open > 5);
    grpc_chan_free(c);
    unsigned messages = 0;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(g[i].ends, 0);
        assert_int_equal(u[i].n, 0);
        messages += g[i].messages;
    }
    WAIT_FOR(calls_open == 0);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(g[i].ends, 0);
        assert_int_equal(u[i].n, 0);
        messages -= g[i].messages;
    }
    assert_int_equal(messages, 0);
}

#ifdef __SANITIZE_THREAD__
// gRPC core is not instrumented and synchronises by means that the thread sanitizer does not see: it reports hundreds of races
// between gRPC's own threads, none with both ends in our code. The tests themselves still run.
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "report_bugs=0";
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo_plain),
        cmocka_unit_test(test_echo_tls),
        cmocka_unit_test(test_certificate_is_changed),
        cmocka_unit_test(test_tls_wrong_name_and_root),
        cmocka_unit_test(test_unary),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_client_cancels),
        cmocka_unit_test(test_client_cancels_inside_on_message),
        cmocka_unit_test(test_server_ends),
        cmocka_unit_test(test_server_burst_in_order),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_big_message),
        cmocka_unit_test(test_queue_is_bounded),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_server_goes_away),
        cmocka_unit_test(test_port_taken_and_bad_tls),
        cmocka_unit_test(test_free_with_outstanding_calls),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

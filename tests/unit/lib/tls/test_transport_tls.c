// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/lib/tls/fixture.h"

#include <stdlib.h>

// The program's time(2), OpenSSL's included, so that a certificate can end without waiting for it.
static time_t skip_s;
time_t time(time_t *ret)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += skip_s;
    if (ret) {
        *ret = t.tv_sec;
    }
    return t.tv_sec;
}

static struct identity alice, bob; // client, server
static struct tls_ctx *client_ctx, *server_ctx;

#define ALICE "spiffe://td/ns/a/sa/alice"
#define BOB "spiffe://td/ns/b/sa/bob"

static int setup(void **st)
{
    (void)st;
    fixture_ca();
    alice = fixture_identity(ALICE);
    bob = fixture_identity(BOB);
    client_ctx = fixture_ctx(false, &alice, true);
    server_ctx = fixture_ctx(true, &bob, true);
    return 0;
}

static int teardown(void **st)
{
    (void)st;
    tls_ctx_unref(client_ctx);
    tls_ctx_unref(server_ctx);
    size_t left = tls_ctx_live();
    arena_fini(&mem);
    return left == 0 ? 0 : -1;
}

static void connect_pair(struct pair *p, const struct tls_client_opts *co, const struct tls_server_opts *so)
{
    pair_init(p, transport_tls_client(client_ctx, co), transport_tls_server(server_ctx, so));
    pair_handshake(p);
}

static void assert_open(const struct pair *p)
{
    if (p->client_io != IO_OK || p->server_io != IO_OK) {
        fail_msg("client: %s, server: %s", p->client.c.close_detail, p->server.c.close_detail);
    }
}

static void assert_detail(const struct side *s, const char *part)
{
    assert_non_null(s->c.close_detail);
    if (!strstr(s->c.close_detail, part)) {
        fail_msg("\"%s\" does not say \"%s\"", s->c.close_detail, part);
    }
}

static void expect_bytes(struct side *s, const char *text)
{
    assert_int_equal(side_read(s, 65536), IO_AGAIN);
    assert_int_equal(s->c.in.len, strlen(text));
    assert_memory_equal(buf_pullup(&s->c.in, s->c.in.len).p, text, strlen(text));
    buf_clear(&s->c.in);
}

static void test_mutual_handshake_facts(void **st)
{
    (void)st;
    struct pair p;
    struct tls_client_opts co = { .sni = STR("outbound_.9080_._.reviews.default.svc.cluster.local") };
    connect_pair(&p, &co, NULL);
    assert_open(&p);
    const struct tls_info *ci = transport_tls_info(&p.client.c), *si = transport_tls_info(&p.server.c);
    assert_string_equal(ci->version, "TLSv1.3");
    assert_string_equal(ci->cipher, "TLS_AES_128_GCM_SHA256");
    assert_true(str_is(ci->peer_uri, BOB));
    assert_true(str_is(ci->local_uri, ALICE));
    assert_true(str_is(si->peer_uri, ALICE));
    assert_true(str_is(si->local_uri, BOB));
    assert_true(str_eq(si->sni, co.sni));
    assert_int_equal(si->peer_sha256.n, 64);
    assert_true(ci->peer_cert && si->peer_cert);
    assert_false(ci->resumed || si->resumed);
    assert_int_equal(ci->alpn.n, 0);
    assert_int_equal(side_write(&p.client, "hello", 5), IO_OK);
    expect_bytes(&p.server, "hello");
    assert_int_equal(side_write(&p.server, "there", 5), IO_OK);
    expect_bytes(&p.client, "there");
    pair_fini(&p);
}

static void test_info_only_after_handshake(void **st)
{
    (void)st;
    struct pair p;
    struct tls_client_opts co = { 0 };
    pair_init(&p, transport_tls_client(client_ctx, &co), transport_tls_server(server_ctx, NULL));
    assert_null(transport_tls_info(&p.client.c));
    struct conn raw = { 0 };
    assert_null(transport_tls_info(&raw));
    pair_fini(&p);
}

static void san_case(struct san_matcher client, struct san_matcher server, bool client_ok, bool server_ok)
{
    struct pair p;
    struct tls_client_opts co = { .sans = &client, .san_count = 1 };
    struct tls_server_opts so = { .sans = &server, .san_count = 1 };
    connect_pair(&p, &co, &so);
    if (client_ok && server_ok) {
        assert_open(&p);
    } else if (!client_ok) {
        assert_int_equal(p.client_io, IO_ERROR);
        assert_detail(&p.client, "peer certificate names [" BOB "] match none of the expected [");
        assert_int_equal(p.server_io, IO_ERROR);
        assert_detail(&p.server, "peer sent the alert \"bad certificate\"");
    } else {
        assert_int_equal(p.server_io, IO_ERROR);
        assert_detail(&p.server, "peer certificate names [" ALICE "] match none of the expected [prefix spiffe://other/]");
        // In TLS 1.3 the client learns of it with its first read.
        assert_int_equal(side_read(&p.client, 100), IO_ERROR);
        assert_detail(&p.client, "bad certificate");
    }
    pair_fini(&p);
}

static void test_san(void **st)
{
    (void)st;
    struct san_matcher bob_exact = { SAN_URI, SAN_EXACT, false, STR_INIT(BOB) };
    struct san_matcher td = { SAN_ANY, SAN_PREFIX, false, STR_INIT("spiffe://td/") };
    struct san_matcher other = { SAN_ANY, SAN_PREFIX, false, STR_INIT("spiffe://other/") };
    struct san_matcher longer = { SAN_URI, SAN_EXACT, false, STR_INIT(BOB "x") };
    san_case(bob_exact, td, true, true);
    san_case(td, td, true, true);
    san_case(other, td, false, true);
    san_case(longer, td, false, true);
    san_case(bob_exact, other, true, false);
}

static void test_no_client_certificate(void **st)
{
    (void)st;
    struct err err = { 0 };
    struct tls_ctx_params cp = { .verify_peer = true, .ca_pem = ca_cert };
    struct tls_ctx *plain;
    assert_int_equal(tls_ctx_new(&cp, &plain, &err), 0);
    struct pair p;
    struct tls_client_opts co = { 0 };
    pair_init(&p, transport_tls_client(plain, &co), transport_tls_server(server_ctx, NULL));
    pair_handshake(&p);
    assert_int_equal(p.server_io, IO_ERROR);
    assert_detail(&p.server, "peer sent no certificate");
    assert_int_equal(side_read(&p.client, 100), IO_ERROR);
    assert_detail(&p.client, "certificate required");
    pair_fini(&p);
    // A server that does not require one serves it, and says that there was none.
    struct tls_ctx *lax;
    struct tls_ctx_params sp = { .server = true, .cert_chain_pem = bob.cert, .key_pem = bob.key, .ca_pem = ca_cert, .verify_peer = true };
    assert_int_equal(tls_ctx_new(&sp, &lax, &err), 0);
    pair_init(&p, transport_tls_client(plain, &co), transport_tls_server(lax, NULL));
    pair_handshake(&p);
    assert_open(&p);
    assert_false(transport_tls_info(&p.server.c)->peer_cert);
    assert_int_equal(transport_tls_info(&p.server.c)->peer_uri.n, 0);
    pair_fini(&p);
    tls_ctx_unref(plain);
    tls_ctx_unref(lax);
}

// A client with this identity against server_ctx, and the same identity as a server against client_ctx.
static void refused_both_ways(const struct identity *bad, const char *why)
{
    struct tls_ctx *c = fixture_ctx(false, bad, true), *s = fixture_ctx(true, bad, true);
    struct pair p;
    struct tls_client_opts co = { 0 };
    pair_init(&p, transport_tls_client(c, &co), transport_tls_server(server_ctx, NULL));
    pair_handshake(&p);
    assert_int_equal(p.server_io, IO_ERROR);
    assert_detail(&p.server, why);
    pair_fini(&p);
    pair_init(&p, transport_tls_client(client_ctx, &co), transport_tls_server(s, NULL));
    pair_handshake(&p);
    assert_int_equal(p.client_io, IO_ERROR);
    assert_detail(&p.client, why);
    assert_int_equal(p.server_io, IO_ERROR);
    pair_fini(&p);
    tls_ctx_unref(c);
    tls_ctx_unref(s);
}

static void test_expired(void **st)
{
    (void)st;
    struct identity old = fixture_identity("spiffe://td/ns/a/sa/old");
    old.cert = fixture_expire(old.cert, -10);
    refused_both_ways(&old, "[spiffe://td/ns/a/sa/old] refused: certificate has expired");
}

static void test_wrong_root(void **st)
{
    (void)st;
    struct identity foreign = fixture_identity_from("spiffe://td/ns/a/sa/foreign", other_ca_cert, other_ca_key);
    foreign.root = ca_cert; // it accepts us, but we must not accept it
    refused_both_ways(&foreign, "refused: unable to get local issuer certificate");
}

static void test_chain_seen_good_counts_for_one_context(void **st)
{
    (void)st;
    struct pair p;
    struct tls_client_opts co = { 0 };
    connect_pair(&p, &co, NULL);
    assert_open(&p);
    pair_fini(&p);
    // Same client certificate, but this server trusts only somebody else.
    struct identity other = bob;
    other.root = other_ca_cert;
    struct tls_ctx *s = fixture_ctx(true, &other, true);
    pair_init(&p, transport_tls_client(client_ctx, &co), transport_tls_server(s, NULL));
    pair_handshake(&p);
    assert_int_equal(p.server_io, IO_ERROR);
    assert_detail(&p.server, "refused: unable to get local issuer certificate");
    pair_fini(&p);
    tls_ctx_unref(s);
}

// Certificates and key exchanges other than the usual ones, as handshakes run in a trimmed library context.
static void test_kinds_of_keys_and_parameters(void **st)
{
    (void)st;
    static const struct {
        enum key_type key;
        const char *curve, *cipher;
        enum tls_version v;
    } cases[] = {
        { KEY_RSA_2048, "X25519", NULL, TLS_V1_3 },
        { KEY_RSA_2048, "P-256", "ECDHE-RSA-AES128-GCM-SHA256", TLS_V1_2 },
        { KEY_RSA_2048, "P-256", "AES128-GCM-SHA256", TLS_V1_2 },
        { KEY_RSA_2048, "P-521", "ECDHE-RSA-AES128-SHA", TLS_V1_2 },
        { KEY_RSA_2048, "X25519", "ECDHE-RSA-CHACHA20-POLY1305", TLS_V1_2 },
        { KEY_ECDSA_P384, "P-384", NULL, TLS_V1_3 },
        { KEY_ECDSA_P256, "X448", NULL, TLS_V1_3 },
        { KEY_ECDSA_P384, "P-384", "ECDHE-ECDSA-AES256-GCM-SHA384", TLS_V1_2 },
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        struct err err = { 0 };
        struct str key, csr, cert;
        assert_int_equal(cert_new_key(cases[i].key, &mem, &key, &err), 0);
        assert_int_equal(cert_new_csr(key, STR(ALICE), &mem, &csr, &err), 0);
        struct cert_sign_opts o = { .uri_san = STR(ALICE), .ttl_s = 600 };
        assert_int_equal(cert_sign_csr(csr, ca_cert, ca_key, &o, &mem, &cert, &err), 0);
        struct tls_ctx_params p = { .cert_chain_pem = cert, .key_pem = key, .ca_pem = ca_cert, .verify_peer = true, .require_peer_cert = true };
        p.curves = str_c(cases[i].curve);
        p.ciphers = str_c(cases[i].cipher);
        p.max_version = cases[i].v;
        struct tls_ctx *c, *s;
        assert_int_equal(tls_ctx_new(&p, &c, &err), 0);
        p.server = true;
        assert_int_equal(tls_ctx_new(&p, &s, &err), 0);
        struct tls_session_slot slot = { 0 };
        for (int round = 0; round < 2; round++) {
            struct pair pr;
            struct tls_client_opts co = { .session = &slot };
            pair_init(&pr, transport_tls_client(c, &co), transport_tls_server(s, NULL));
            pair_handshake(&pr);
            assert_open(&pr);
            assert_true(str_is(transport_tls_info(&pr.server.c)->peer_uri, ALICE));
            assert_int_equal(transport_tls_info(&pr.server.c)->resumed, round == 1);
            if (cases[i].cipher) {
                assert_string_equal(transport_tls_info(&pr.server.c)->cipher, cases[i].cipher);
            }
            assert_int_equal(side_write(&pr.server, "hello", 5), IO_OK);
            expect_bytes(&pr.client, "hello");
            assert_int_equal(side_write(&pr.client, "there", 5), IO_OK);
            expect_bytes(&pr.server, "there");
            pair_fini(&pr);
        }
        tls_session_slot_fini(&slot);
        tls_ctx_unref(c);
        tls_ctx_unref(s);
    }
}

static void test_insecure_client_still_checks_names(void **st)
{
    (void)st;
    struct err err = { 0 };
    struct tls_ctx_params cp = { .verify_peer = false, .cert_chain_pem = alice.cert, .key_pem = alice.key };
    struct tls_ctx *c;
    assert_int_equal(tls_ctx_new(&cp, &c, &err), 0);
    struct pair p;
    struct tls_client_opts co = { 0 };
    pair_init(&p, transport_tls_client(c, &co), transport_tls_server(server_ctx, NULL));
    pair_handshake(&p);
    assert_open(&p);
    assert_false(transport_tls_info(&p.client.c)->peer_cert); // unchecked: nothing may build on it
    pair_fini(&p);
    struct san_matcher m = { SAN_DNS, SAN_EXACT, false, STR_INIT("example.com") };
    co = (struct tls_client_opts){ .sans = &m, .san_count = 1 };
    pair_init(&p, transport_tls_client(c, &co), transport_tls_server(server_ctx, NULL));
    pair_handshake(&p);
    assert_int_equal(p.client_io, IO_ERROR);
    pair_fini(&p);
    tls_ctx_unref(c);
}

static void test_alpn(void **st)
{
    (void)st;
    struct err err = { 0 };
    struct str mine[] = { STR("h2"), STR("http/1.1") };
    struct tls_ctx_params sp = { .server = true, .cert_chain_pem = bob.cert, .key_pem = bob.key, .alpn = mine, .alpn_count = 2 };
    struct tls_ctx *s;
    assert_int_equal(tls_ctx_new(&sp, &s, &err), 0);
    static const struct {
        struct str offer[3];
        size_t n;
        const char *want;
    } cases[] = {
        { { STR_INIT("http/1.1"), STR_INIT("h2") }, 2, "h2" }, // the server's order decides
        { { STR_INIT("istio"), STR_INIT("http/1.1") }, 2, "http/1.1" },
        { { STR_INIT("istio-peer-exchange"), STR_INIT("istio") }, 2, "" }, // none in common: goes on without
        { { STR_INIT("h") }, 1, "" },
        { { { 0 } }, 0, "" },
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        struct pair p;
        struct tls_client_opts co = { .alpn = cases[i].offer, .alpn_count = cases[i].n };
        pair_init(&p, transport_tls_client(client_ctx, &co), transport_tls_server(s, NULL));
        pair_handshake(&p);
        assert_open(&p);
        assert_true(str_is(transport_tls_info(&p.client.c)->alpn, cases[i].want));
        assert_true(str_is(transport_tls_info(&p.server.c)->alpn, cases[i].want));
        pair_fini(&p);
    }
    tls_ctx_unref(s);
}

// One connection with slot; says whether it was resumed. Reads once, as session tickets come after the handshake.
static bool resumed_with(struct tls_ctx *c, struct tls_ctx *s, struct tls_session_slot *slot, const struct san_matcher *cm,
                         const struct san_matcher *sm)
{
    struct pair p;
    struct tls_client_opts co = { .session = slot, .sni = STR("bob"), .sans = cm, .san_count = cm ? 1 : 0 };
    struct tls_server_opts so = { .sans = sm, .san_count = sm ? 1 : 0 };
    pair_init(&p, transport_tls_client(c, &co), transport_tls_server(s, &so));
    pair_handshake(&p);
    assert_int_equal(p.client_io, IO_OK);
    assert_int_equal(p.server_io, IO_OK);
    assert_int_equal(side_write(&p.server, "x", 1), IO_OK);
    expect_bytes(&p.client, "x");
    const struct tls_info *ci = transport_tls_info(&p.client.c), *si = transport_tls_info(&p.server.c);
    assert_int_equal(ci->resumed, si->resumed);
    assert_true(str_is(ci->peer_uri, BOB)); // the identity is known on a resumed connection too
    assert_true(str_is(si->peer_uri, ALICE));
    bool r = ci->resumed;
    pair_fini(&p);
    return r;
}

static void resumption_rules(enum tls_version v)
{
    struct err err = { 0 };
    struct tls_ctx_params cp = { .verify_peer = true, .cert_chain_pem = alice.cert, .key_pem = alice.key, .ca_pem = ca_cert, .max_version = v };
    struct tls_ctx *c, *c2;
    assert_int_equal(tls_ctx_new(&cp, &c, &err), 0);
    assert_int_equal(tls_ctx_new(&cp, &c2, &err), 0);
    struct tls_session_slot slot = { 0 };
    struct san_matcher td = { SAN_URI, SAN_PREFIX, false, STR_INIT("spiffe://td/") };
    struct san_matcher bob_exact = { SAN_URI, SAN_EXACT, false, STR_INIT(BOB) };
    struct san_matcher alice_exact = { SAN_URI, SAN_EXACT, false, STR_INIT(ALICE) };
    assert_false(resumed_with(c, server_ctx, &slot, NULL, NULL));
    assert_non_null(slot.session);
    assert_true(resumed_with(c, server_ctx, &slot, NULL, NULL));
    assert_true(resumed_with(c, server_ctx, &slot, &bob_exact, &td));
    assert_true(resumed_with(c, server_ctx, &slot, NULL, &alice_exact));
    // Another context (new roots or certificate) must do a full handshake.
    assert_false(resumed_with(c2, server_ctx, &slot, NULL, NULL));
    struct tls_ctx *s2 = fixture_ctx(true, &bob, true);
    assert_true(resumed_with(c2, server_ctx, &slot, NULL, NULL));
    assert_false(resumed_with(c2, s2, &slot, NULL, NULL));
    tls_ctx_unref(s2);
    tls_session_slot_fini(&slot);
    tls_ctx_unref(c);
    tls_ctx_unref(c2);
}

static void test_resumption(void **st)
{
    (void)st;
    resumption_rules(TLS_V1_3);
    resumption_rules(TLS_V1_2);
}

// Whether a second connection between contexts of these policies is resumed.
static bool second_resumes(enum tls_version v, struct tls_policy client, struct tls_policy server)
{
    struct err err = { 0 };
    struct tls_ctx_params p = { .verify_peer = true, .cert_chain_pem = alice.cert, .key_pem = alice.key, .ca_pem = ca_cert, .max_version = v,
                                .policy = client };
    struct tls_ctx *c, *s;
    assert_int_equal(tls_ctx_new(&p, &c, &err), 0);
    p = (struct tls_ctx_params){ .server = true, .verify_peer = true, .require_peer_cert = true, .cert_chain_pem = bob.cert, .key_pem = bob.key,
                                 .ca_pem = ca_cert, .policy = server };
    assert_int_equal(tls_ctx_new(&p, &s, &err), 0);
    struct tls_session_slot slot = { 0 };
    assert_false(resumed_with(c, s, &slot, NULL, NULL));
    bool r = resumed_with(c, s, &slot, NULL, NULL);
    tls_session_slot_fini(&slot);
    tls_ctx_unref(c);
    tls_ctx_unref(s);
    return r;
}

static void test_policy_of_sessions(void **st)
{
    (void)st;
    static const struct tls_policy usual = { 0 }, no_tickets = { .no_tickets = true }, no_ids = { .no_session_ids = true },
                                   none = { .no_tickets = true, .no_session_ids = true }, forgetful = { .no_resumption = true };
    assert_true(second_resumes(TLS_V1_3, usual, (struct tls_policy){ .session_s = 60 }));
    assert_false(second_resumes(TLS_V1_3, usual, no_tickets));
    assert_true(second_resumes(TLS_V1_2, usual, no_tickets));
    assert_true(second_resumes(TLS_V1_3, usual, no_ids));
    assert_false(second_resumes(TLS_V1_2, usual, no_ids));
    assert_false(second_resumes(TLS_V1_3, usual, none) || second_resumes(TLS_V1_2, usual, none));
    assert_false(second_resumes(TLS_V1_3, forgetful, usual) || second_resumes(TLS_V1_2, forgetful, usual));
}

static void test_policy_of_cipher_order(void **st)
{
    (void)st;
    static const char first[] = "ECDHE-ECDSA-AES128-GCM-SHA256", second[] = "ECDHE-ECDSA-AES256-GCM-SHA384";
    for (int client_order = 0; client_order < 2; client_order++) {
        struct err err = { 0 };
        struct pair pr;
        struct tls_client_opts co = { 0 };
        struct tls_ctx_params p = { .verify_peer = true, .ca_pem = ca_cert, .max_version = TLS_V1_2 };
        struct tls_ctx *c, *s;
        p.ciphers = STR("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256");
        assert_int_equal(tls_ctx_new(&p, &c, &err), 0);
        p = (struct tls_ctx_params){ .server = true, .cert_chain_pem = bob.cert, .key_pem = bob.key, .policy = { .client_order = client_order } };
        p.ciphers = STR("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384");
        assert_int_equal(tls_ctx_new(&p, &s, &err), 0);
        pair_init(&pr, transport_tls_client(c, &co), transport_tls_server(s, NULL));
        pair_handshake(&pr);
        assert_open(&pr);
        assert_string_equal(transport_tls_info(&pr.server.c)->cipher, client_order ? second : first);
        pair_fini(&pr);
        tls_ctx_unref(c);
        tls_ctx_unref(s);
    }
}

// An RSA certificate that allows key encipherment only.
static struct str rsa_for_encipherment(struct str *ret_key)
{
    struct err err = { 0 };
    struct str csr, cert;
    assert_int_equal(cert_new_key(KEY_RSA_2048, &mem, ret_key, &err), 0);
    assert_int_equal(cert_new_csr(*ret_key, STR(BOB), &mem, &csr, &err), 0);
    struct cert_sign_opts o = { .uri_san = STR(BOB), .ttl_s = 600 };
    assert_int_equal(cert_sign_csr(csr, ca_cert, ca_key, &o, &mem, &cert, &err), 0);
    BIO *b = BIO_new_mem_buf(cert.p, (int)cert.n), *kb = BIO_new_mem_buf(ca_key.p, (int)ca_key.n), *out = BIO_new(BIO_s_mem());
    X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);
    EVP_PKEY *k = PEM_read_bio_PrivateKey(kb, NULL, NULL, NULL);
    X509_EXTENSION_free(X509_delete_ext(x, X509_get_ext_by_NID(x, NID_key_usage, -1)));
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_key_usage, "critical,keyEncipherment");
    assert_true(X509_add_ext(x, e, -1) && X509_sign(x, k, EVP_sha256()) > 0 && PEM_write_bio_X509(out, x));
    char *p;
    long n = BIO_get_mem_data(out, &p);
    cert = arena_str(&mem, str_n(p, (size_t)n));
    X509_EXTENSION_free(e);
    X509_free(x);
    EVP_PKEY_free(k);
    BIO_free(b);
    BIO_free(kb);
    BIO_free(out);
    return cert;
}

static void test_policy_of_rsa_usage(void **st)
{
    (void)st;
    struct str key, cert = rsa_for_encipherment(&key);
    static const struct {
        bool rsa_usage;
        enum tls_version v;
        const char *ciphers;
        bool good;
    } cases[] = {
        { false, TLS_V1_3, "", true },
        { true, TLS_V1_3, "", false },
        { true, TLS_V1_2, "ECDHE-RSA-AES128-GCM-SHA256", false },
        { true, TLS_V1_2, "AES128-GCM-SHA256", true }, // RSA key exchange
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        struct err err = { 0 };
        struct pair pr;
        struct tls_client_opts co = { 0 };
        struct tls_ctx *c, *s;
        struct tls_ctx_params p = { .verify_peer = true, .ca_pem = ca_cert, .max_version = cases[i].v, .policy = { .rsa_usage = cases[i].rsa_usage } };
        p.ciphers = str_c(cases[i].ciphers);
        assert_int_equal(tls_ctx_new(&p, &c, &err), 0);
        p = (struct tls_ctx_params){ .server = true, .cert_chain_pem = cert, .key_pem = key };
        assert_int_equal(tls_ctx_new(&p, &s, &err), 0);
        pair_init(&pr, transport_tls_client(c, &co), transport_tls_server(s, NULL));
        pair_handshake(&pr);
        assert_int_equal(pr.client_io, cases[i].good ? IO_OK : IO_ERROR);
        if (!cases[i].good) {
            assert_detail(&pr.client, "its key usage does not allow signatures");
        }
        pair_fini(&pr);
        tls_ctx_unref(c);
        tls_ctx_unref(s);
    }
}

static void test_resumption_is_bounded(void **st)
{
    (void)st;
    enum { CLIENTS = 300, KEPT = 256 }; // lib/tls/sessions.c
    struct tls_ctx *s = fixture_ctx(true, &bob, true);
    struct tls_session_slot slots[CLIENTS] = { 0 };
    int resumed = 0;
    for (int i = 0; i < CLIENTS; i++) {
        assert_false(resumed_with(client_ctx, s, &slots[i], NULL, NULL));
    }
    assert_true(resumed_with(client_ctx, s, &slots[CLIENTS - 1], NULL, NULL)); // the newest are there
    for (int i = 0; i < CLIENTS - 1; i++) {
        struct tls_session_slot *slot = &slots[i];
        resumed += resumed_with(client_ctx, s, slot, NULL, NULL);
    }
    // Which of the older are gone depends on their random numbers; a client whose session is gone has a full handshake.
    assert_in_range(resumed, 1, KEPT);
    for (int i = 0; i < CLIENTS; i++) {
        tls_session_slot_fini(&slots[i]);
    }
    tls_ctx_unref(s);
}

static void test_resumption_checks_names_again(void **st)
{
    (void)st;
    struct tls_session_slot slot = { 0 };
    assert_false(resumed_with(client_ctx, server_ctx, &slot, NULL, NULL));
    // The client now expects somebody else: the session is dropped and the handshake fails.
    struct san_matcher other = { SAN_URI, SAN_EXACT, false, STR_INIT("spiffe://td/ns/b/sa/carol") };
    struct pair p;
    struct tls_client_opts co = { .session = &slot, .sni = STR("bob"), .sans = &other, .san_count = 1 };
    connect_pair(&p, &co, NULL);
    assert_int_equal(p.client_io, IO_ERROR);
    assert_null(slot.session);
    pair_fini(&p);
    // The server's expectations changed while the session is kept: no resumption, and the full handshake refuses.
    assert_false(resumed_with(client_ctx, server_ctx, &slot, NULL, NULL));
    struct tls_server_opts so = { .sans = &other, .san_count = 1 };
    co = (struct tls_client_opts){ .session = &slot, .sni = STR("bob") };
    connect_pair(&p, &co, &so);
    assert_int_equal(p.server_io, IO_ERROR);
    assert_detail(&p.server, "match none of the expected");
    pair_fini(&p);
    tls_session_slot_fini(&slot);
}

static void test_resumption_not_beyond_expiry(void **st)
{
    (void)st;
    // The session outlives the certificate.
    struct identity brief = fixture_identity(ALICE);
    brief.cert = fixture_expire(brief.cert, 100);
    struct tls_ctx *c = fixture_ctx(false, &brief, true);
    struct tls_session_slot slot = { 0 };
    assert_false(resumed_with(c, server_ctx, &slot, NULL, NULL));
    assert_true(resumed_with(c, server_ctx, &slot, NULL, NULL));
    skip_s = 200;
    struct pair p;
    struct tls_client_opts co = { .session = &slot, .sni = STR("bob") };
    pair_init(&p, transport_tls_client(c, &co), transport_tls_server(server_ctx, NULL));
    pair_handshake(&p);
    assert_int_equal(p.server_io, IO_ERROR);
    assert_detail(&p.server, "certificate has expired");
    skip_s = 0;
    pair_fini(&p);
    tls_session_slot_fini(&slot);
    tls_ctx_unref(c);
}

static void test_big_transfer_with_back_pressure(void **st)
{
    (void)st;
    enum { TOTAL = 3 * 1000 * 1000 };
    struct pair p;
    struct tls_client_opts co = { 0 };
    connect_pair(&p, &co, NULL);
    assert_open(&p);
    char *data = malloc(TOTAL);
    for (size_t i = 0; i < TOTAL; i++) {
        data[i] = (char)(i * 2654435761u >> 24);
    }
    // A socket that takes all: four records a call.
    unsigned before = p.client.writes;
    assert_int_equal(side_write(&p.client, data, 1024 * 1024), IO_OK);
    assert_in_range(p.client.writes - before, 1, 25);
    while (side_read(&p.server, 1024 * 1024) == IO_OK) {
    }
    assert_int_equal(p.server.c.in.len, 1024 * 1024);
    buf_clear(&p.server.c.in);
    p.server.room = 50000; // the "socket buffer"
    enum io w = side_write(&p.client, data, TOTAL);
    assert_int_equal(w, IO_AGAIN);
    size_t got = 0;
    for (int turn = 0; turn < 1000 && got < TOTAL; turn++) {
        enum io r = side_read(&p.server, 30000);
        assert_true(r == IO_OK || r == IO_AGAIN);
        while (p.server.c.in.len) {
            struct str s = buf_front(&p.server.c.in);
            assert_memory_equal(s.p, data + got, s.n);
            got += s.n;
            buf_drain(&p.server.c.in, s.n);
        }
        if (w == IO_AGAIN) {
            w = p.client.c.transport->ops->write(p.client.c.transport, &p.client.c.out);
        }
        assert_true(w == IO_AGAIN || w == IO_OK);
    }
    assert_int_equal(got, TOTAL);
    assert_int_equal(w, IO_OK);
    free(data);
    pair_fini(&p);
}

static void test_small_pieces_share_a_record(void **st)
{
    (void)st;
    struct pair p;
    struct tls_client_opts co = { 0 };
    connect_pair(&p, &co, NULL);
    assert_open(&p);
    for (int i = 0; i < 3; i++) { // three slices of ten bytes
        struct buf piece = { 0 };
        buf_append(&piece, "0123456789", 10);
        buf_move(&p.client.c.out, &piece, 10);
    }
    unsigned before = p.client.writes;
    assert_int_equal(p.client.c.transport->ops->write(p.client.c.transport, &p.client.c.out), IO_OK);
    assert_int_equal(p.client.writes - before, 1);
    assert_in_range(p.server.wire.len, 30, 30 + 22);
    expect_bytes(&p.server, "012345678901234567890123456789");
    pair_fini(&p);
}

static void test_half_close(void **st)
{
    (void)st;
    struct pair p;
    struct tls_client_opts co = { 0 };
    connect_pair(&p, &co, NULL);
    assert_open(&p);
    assert_int_equal(side_write(&p.client, "last", 4), IO_OK);
    assert_int_equal(p.client.c.transport->ops->shutdown(p.client.c.transport), IO_OK);
    assert_int_equal(side_read(&p.server, 100), IO_EOF);
    assert_int_equal(p.server.c.in.len, 4);
    // The other direction goes on.
    assert_int_equal(side_write(&p.server, "answer", 6), IO_OK);
    expect_bytes(&p.client, "answer");
    assert_int_equal(p.server.c.transport->ops->shutdown(p.server.c.transport), IO_OK);
    assert_int_equal(side_read(&p.client, 100), IO_EOF);
    pair_fini(&p);
}

static void test_shutdown_waits_for_the_kernel(void **st)
{
    (void)st;
    struct pair p;
    struct tls_client_opts co = { 0 };
    connect_pair(&p, &co, NULL);
    p.server.room = 10;
    assert_int_equal(p.client.c.transport->ops->shutdown(p.client.c.transport), IO_AGAIN);
    p.server.room = SIZE_MAX;
    assert_int_equal(p.client.c.transport->ops->shutdown(p.client.c.transport), IO_OK);
    assert_int_equal(side_read(&p.server, 100), IO_EOF);
    pair_fini(&p);
}

static void test_truncated_stream_is_eof(void **st)
{
    (void)st;
    struct pair p;
    struct tls_client_opts co = { 0 };
    connect_pair(&p, &co, NULL);
    assert_int_equal(side_write(&p.client, "part", 4), IO_OK);
    p.server.wire_eof = true;
    assert_int_equal(side_read(&p.server, 100), IO_EOF);
    assert_int_equal(p.server.c.in.len, 4);
    pair_fini(&p);
}

static void test_reset(void **st)
{
    (void)st;
    struct pair p;
    struct tls_client_opts co = { 0 };
    connect_pair(&p, &co, NULL);
    p.server.wire_err = ECONNRESET;
    buf_clear(&p.server.wire);
    assert_int_equal(side_read(&p.server, 100), IO_ERROR);
    assert_detail(&p.server, "Connection reset");
    pair_fini(&p);
}

static void test_garbage_and_plain_http(void **st)
{
    (void)st;
    static const struct {
        const char *bytes, *why;
    } cases[] = {
        { "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "peer sent plain HTTP" },
        { "SSH-2.0-OpenSSH_9.2\r\n", "does not speak TLS" },
        { "\x16\x03\x01\x00\x05zzzzzzzzzzzzz", "TLS handshake:" },
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        struct pair p;
        struct tls_client_opts co = { 0 };
        pair_init(&p, transport_tls_client(client_ctx, &co), transport_tls_server(server_ctx, NULL));
        buf_append(&p.server.wire, cases[i].bytes, strlen(cases[i].bytes + 4) + 4);
        p.server_io = p.server.c.transport->ops->handshake(p.server.c.transport);
        assert_int_equal(p.server_io, IO_ERROR);
        assert_detail(&p.server, cases[i].why);
        pair_fini(&p);
    }
}

static void test_tampered_record(void **st)
{
    (void)st;
    struct pair p;
    struct tls_client_opts co = { 0 };
    connect_pair(&p, &co, NULL);
    assert_int_equal(side_write(&p.client, "hello", 5), IO_OK);
    struct str wire = buf_pullup(&p.server.wire, p.server.wire.len);
    ((char *)(uintptr_t)wire.p)[wire.n - 1] ^= 1;
    assert_int_equal(side_read(&p.server, 100), IO_ERROR);
    assert_detail(&p.server, "TLS read:");
    assert_int_equal(p.server.c.in.len, 0);
    pair_fini(&p);
}

static void test_eof_in_handshake(void **st)
{
    (void)st;
    struct pair p;
    struct tls_client_opts co = { 0 };
    pair_init(&p, transport_tls_client(client_ctx, &co), transport_tls_server(server_ctx, NULL));
    p.client_io = p.client.c.transport->ops->handshake(p.client.c.transport);
    assert_int_equal(p.client_io, IO_AGAIN);
    p.client.wire_eof = true;
    p.client_io = p.client.c.transport->ops->handshake(p.client.c.transport);
    assert_int_equal(p.client_io, IO_ERROR);
    assert_detail(&p.client, "peer closed the connection");
    pair_fini(&p);
}

static void test_data_with_the_finished_is_pending(void **st)
{
    (void)st;
    struct pair p;
    struct tls_client_opts co = { 0 };
    pair_init(&p, transport_tls_client(client_ctx, &co), transport_tls_server(server_ctx, NULL));
    p.client_io = p.client.c.transport->ops->handshake(p.client.c.transport);
    p.server_io = p.server.c.transport->ops->handshake(p.server.c.transport);
    p.client_io = p.client.c.transport->ops->handshake(p.client.c.transport);
    assert_int_equal(p.client_io, IO_OK);
    assert_int_equal(side_write(&p.client, "early", 5), IO_OK); // arrives together with the client's Finished
    p.server_io = p.server.c.transport->ops->handshake(p.server.c.transport);
    assert_int_equal(p.server_io, IO_OK);
    assert_int_equal(p.server.wire.len, 0);
    assert_true(p.server.c.transport->ops->pending(p.server.c.transport));
    expect_bytes(&p.server, "early");
    assert_false(p.server.c.transport->ops->pending(p.server.c.transport));
    pair_fini(&p);
}

static void test_bad_client_options(void **st)
{
    (void)st;
    char longer[300];
    memset(longer, 'a', sizeof(longer));
    struct tls_client_opts co = { .sni = str_n(longer, sizeof(longer)) };
    assert_null(transport_tls_client(client_ctx, &co));
    struct str proto = str_n(longer, 256);
    co = (struct tls_client_opts){ .alpn = &proto, .alpn_count = 1 };
    assert_null(transport_tls_client(client_ctx, &co));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mutual_handshake_facts),
        cmocka_unit_test(test_info_only_after_handshake),
        cmocka_unit_test(test_san),
        cmocka_unit_test(test_no_client_certificate),
        cmocka_unit_test(test_expired),
        cmocka_unit_test(test_wrong_root),
        cmocka_unit_test(test_chain_seen_good_counts_for_one_context),
        cmocka_unit_test(test_kinds_of_keys_and_parameters),
        cmocka_unit_test(test_insecure_client_still_checks_names),
        cmocka_unit_test(test_alpn),
        cmocka_unit_test(test_resumption),
        cmocka_unit_test(test_policy_of_sessions),
        cmocka_unit_test(test_policy_of_cipher_order),
        cmocka_unit_test(test_policy_of_rsa_usage),
        cmocka_unit_test(test_resumption_is_bounded),
        cmocka_unit_test(test_resumption_checks_names_again),
        cmocka_unit_test(test_resumption_not_beyond_expiry),
        cmocka_unit_test(test_big_transfer_with_back_pressure),
        cmocka_unit_test(test_small_pieces_share_a_record),
        cmocka_unit_test(test_half_close),
        cmocka_unit_test(test_shutdown_waits_for_the_kernel),
        cmocka_unit_test(test_truncated_stream_is_eof),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_garbage_and_plain_http),
        cmocka_unit_test(test_tampered_record),
        cmocka_unit_test(test_eof_in_handshake),
        cmocka_unit_test(test_data_with_the_finished_is_pending),
        cmocka_unit_test(test_bad_client_options),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

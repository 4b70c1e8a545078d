// SPDX-License-Identifier: Apache-2.0
// Our TLS 1.3 records against OpenSSL itself at the other end.
#include "tests/unit/lib/tls/fixture.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>

#include "lib/tls/tls_int.h"

#define ALICE "spiffe://td/ns/a/sa/alice"
#define BOB "spiffe://td/ns/b/sa/bob"

static struct identity alice, bob;
static struct tls_ctx *client_ctx, *server_ctx;

// OpenSSL with two memory BIOs; pump moves the bytes between them and our side.
struct peer {
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *in, *out;
    struct side ours, dummy;
    size_t step; // bytes a time, 0 = all
};

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
    arena_fini(&mem);
    return tls_ctx_live() == 0 ? 0 : -1;
}

static void use_identity(SSL_CTX *c, const struct identity *id)
{
    BIO *b = BIO_new_mem_buf(id->cert.p, (int)id->cert.n), *kb = BIO_new_mem_buf(id->key.p, (int)id->key.n);
    BIO *rb = BIO_new_mem_buf(id->root.p, (int)id->root.n);
    X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL), *root = PEM_read_bio_X509(rb, NULL, NULL, NULL);
    EVP_PKEY *k = PEM_read_bio_PrivateKey(kb, NULL, NULL, NULL);
    assert_int_equal(SSL_CTX_use_certificate(c, x), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(c, k), 1);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(c), root);
    X509_free(x);
    X509_free(root);
    EVP_PKEY_free(k);
    BIO_free(b);
    BIO_free(kb);
    BIO_free(rb);
}

// The other end is a server (our side a client) or the other way round.
static void peer_init(struct peer *p, bool peer_is_server, const char *suite, struct tls_session_slot *slot)
{
    memset(p, 0, sizeof(*p));
    p->ctx = SSL_CTX_new(peer_is_server ? TLS_server_method() : TLS_client_method());
    use_identity(p->ctx, peer_is_server ? &bob : &alice);
    SSL_CTX_set_verify(p->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_session_id_context(p->ctx, (const unsigned char *)"x", 1);
    if (suite) {
        assert_int_equal(SSL_CTX_set_ciphersuites(p->ctx, suite), 1);
    }
    p->ssl = SSL_new(p->ctx);
    p->in = BIO_new(BIO_s_mem());
    p->out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(p->in, -1);
    SSL_set_bio(p->ssl, p->in, p->out);
    struct tls_client_opts co = { .session = slot };
    if (peer_is_server) {
        SSL_set_accept_state(p->ssl);
        side_init(&p->ours, &p->dummy, transport_tls_client(client_ctx, &co));
    } else {
        SSL_set_connect_state(p->ssl);
        side_init(&p->ours, &p->dummy, transport_tls_server(server_ctx, NULL));
    }
    p->dummy = (struct side){ .room = SIZE_MAX, .other = &p->ours };
}

static void peer_fini(struct peer *p)
{
    side_fini(&p->ours);
    buf_clear(&p->dummy.wire);
    SSL_free(p->ssl);
    SSL_CTX_free(p->ctx);
    ERR_clear_error();
}

// What we wrote goes to OpenSSL, what OpenSSL wrote to us.
static void pump(struct peer *p)
{
    while (p->dummy.wire.len) {
        struct str s = buf_front(&p->dummy.wire);
        BIO_write(p->in, s.p, (int)s.n);
        buf_drain(&p->dummy.wire, s.n);
    }
    char *q;
    long n = BIO_get_mem_data(p->out, &q);
    if (n > 0) {
        buf_append(&p->ours.wire, q, (size_t)n);
        (void)BIO_reset(p->out);
    }
}

static void handshake(struct peer *p)
{
    enum io io = IO_AGAIN;
    int r = 0;
    for (int i = 0; i < 20 && !(io == IO_OK && r == 1); i++) {
        if (io == IO_AGAIN) {
            io = p->ours.c.transport->ops->handshake(p->ours.c.transport);
        }
        pump(p);
        if (r != 1) {
            r = SSL_do_handshake(p->ssl);
        }
        pump(p);
    }
    if (io != IO_OK || r != 1) {
        fail_msg("handshake: %s", p->ours.c.close_detail);
    }
    assert_true(((struct tls_conn *)(void *)p->ours.c.transport)->own);
}

static struct tls_conn *conn_of(struct peer *p)
{
    return container_of(p->ours.c.transport, struct tls_conn, t);
}

static void assert_detail(struct peer *p, const char *part)
{
    if (!p->ours.c.close_detail || !strstr(p->ours.c.close_detail, part)) {
        fail_msg("\"%s\" does not say \"%s\"", p->ours.c.close_detail, part);
    }
}

// OpenSSL sends n bytes; they arrive.
static void from_peer(struct peer *p, size_t n)
{
    char *data = calloc(1, n), *got = calloc(1, n);
    for (size_t i = 0; i < n; i++) {
        data[i] = (char)(i * 7 + n);
    }
    assert_int_equal(SSL_write(p->ssl, data, (int)n), (int)n);
    pump(p);
    enum io io;
    while ((io = side_read(&p->ours, 100000)) == IO_OK) {
    }
    if (io != IO_AGAIN) {
        fail_msg("read: %s", p->ours.c.close_detail);
    }
    assert_int_equal(p->ours.c.in.len, n);
    buf_peek(&p->ours.c.in, 0, got, n);
    assert_memory_equal(data, got, n);
    buf_clear(&p->ours.c.in);
    free(data);
    free(got);
    pump(p);
}

// We send n bytes; OpenSSL reads them.
static void to_peer(struct peer *p, size_t n)
{
    char *data = calloc(1, n), *got = calloc(1, n);
    for (size_t i = 0; i < n; i++) {
        data[i] = (char)(i * 5 + n);
    }
    assert_int_equal(side_write(&p->ours, data, n), IO_OK);
    pump(p);
    size_t have = 0;
    while (have < n) {
        int k = SSL_read(p->ssl, got + have, (int)(n - have));
        if (k <= 0) {
            fail_msg("OpenSSL: %s", ERR_reason_error_string(ERR_peek_error()));
        }
        have += (size_t)k;
    }
    assert_memory_equal(data, got, n);
    free(data);
    free(got);
    pump(p);
}

// The alert that OpenSSL gets from us.
static void peer_gets_alert(struct peer *p, const char *reason)
{
    char c;
    pump(p);
    assert_true(SSL_read(p->ssl, &c, 1) <= 0);
    const char *text = ERR_reason_error_string(ERR_peek_error());
    if (!text || !strstr(text, reason)) {
        fail_msg("OpenSSL says \"%s\", not \"%s\"", text, reason);
    }
    ERR_clear_error();
}

static void test_all_suites_both_roles(void **st)
{
    (void)st;
    static const char *const suites[] = { "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256" };
    static const size_t sizes[] = { 1, 15, 16, 17, 100, 16343, 16360, 16383, 16384, 16385, 50000, 300000 };
    for (size_t s = 0; s < array_len(suites); s++) {
        for (int role = 0; role < 2; role++) {
            struct peer p;
            peer_init(&p, role, suites[s], NULL);
            handshake(&p);
            assert_string_equal(transport_tls_info(&p.ours.c)->cipher, suites[s]);
            assert_null(conn_of(&p)->ssl); // OpenSSL's object is gone
            for (size_t i = 0; i < array_len(sizes); i++) {
                from_peer(&p, sizes[i]);
                to_peer(&p, sizes[i]);
            }
            peer_fini(&p);
        }
    }
}

static void test_byte_by_byte(void **st)
{
    (void)st;
    struct peer p;
    peer_init(&p, false, NULL, NULL);
    handshake(&p);
    char data[300];
    memset(data, 'x', sizeof(data));
    assert_int_equal(SSL_write(p.ssl, data, 150), 150);
    assert_int_equal(SSL_write(p.ssl, data, 150), 150);
    struct buf all = { 0 };
    pump(&p);
    buf_move(&all, &p.ours.wire, p.ours.wire.len);
    while (all.len) {
        buf_move(&p.ours.wire, &all, 1);
        assert_int_equal(side_read(&p.ours, 1000), IO_AGAIN);
    }
    assert_int_equal(p.ours.c.in.len, 300);
    assert_int_equal(conn_of(&p)->raw.len, 0); // idle: nothing is held
    peer_fini(&p);
}

static void test_key_updates(void **st)
{
    (void)st;
    for (int role = 0; role < 2; role++) {
        struct peer p;
        peer_init(&p, role, NULL, NULL);
        handshake(&p);
        for (int i = 0; i < 5; i++) {
            assert_int_equal(SSL_key_update(p.ssl, i % 2 ? SSL_KEY_UPDATE_NOT_REQUESTED : SSL_KEY_UPDATE_REQUESTED), 1);
            from_peer(&p, 1000); // the update goes out with it, and we answer a request
            to_peer(&p, 1000);
        }
        peer_fini(&p);
    }
}

static void test_key_updates_that_nobody_reads(void **st)
{
    (void)st;
    struct peer p;
    peer_init(&p, false, NULL, NULL);
    handshake(&p);
    p.dummy.room = 0; // the kernel takes nothing from us
    for (int i = 0; i < 500; i++) {
        assert_int_equal(SSL_key_update(p.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        from_peer(&p, 1);
    }
    assert_in_range(conn_of(&p)->left.len, 1, 100);
    p.dummy.room = SIZE_MAX;
    to_peer(&p, 1000); // behind the answers
    to_peer(&p, 1000);
    from_peer(&p, 1000);
    peer_fini(&p);
}

static void test_we_change_keys_in_time(void **st)
{
    (void)st;
    struct peer p;
    peer_init(&p, true, NULL, NULL);
    handshake(&p);
    to_peer(&p, 10);
    struct record13_dir *out = &conn_of(&p)->rec.out;
    unsigned char before[RECORD13_SECRET_MAX];
    memcpy(before, out->secret, sizeof(before));
    // As if eight million records had gone before: both ends must count the same, so OpenSSL's end is played by ourselves.
    struct record13 other;
    assert_true(record13_init(&other, conn_of(&p)->rec.suite, out->secret, RECORD13_REKEY_AFTER - 1, out->secret, 0));
    out->seq = RECORD13_REKEY_AFTER - 1;
    assert_int_equal(side_write(&p.ours, "a", 1), IO_OK);
    assert_int_equal(side_write(&p.ours, "b", 1), IO_OK);
    assert_memory_not_equal(before, out->secret, 32);
    assert_int_equal(out->seq, 1);
    const enum record13_type want[] = { RECORD13_DATA, RECORD13_HANDSHAKE, RECORD13_DATA };
    const char *text[] = { "a", "\x18\0\0\1\0", "b" };
    for (int i = 0; i < 3; i++) {
        struct str w = buf_pullup(&p.dummy.wire, p.dummy.wire.len);
        enum record13_result bad;
        size_t len = record13_length(w.p, w.n, &bad), content = 0;
        char plain[64];
        struct iovec iov = { plain, sizeof(plain) };
        enum record13_type type;
        assert_int_equal(record13_open(&other, w.p, len, &iov, 1, &type, &content), RECORD13_OK);
        assert_int_equal(type, want[i]);
        assert_memory_equal(plain, text[i], content);
        if (type == RECORD13_HANDSHAKE) {
            assert_true(record13_rekey_in(&other));
        }
        buf_drain(&p.dummy.wire, len);
    }
    record13_fini(&other);
    peer_fini(&p);
}

static void test_too_many_key_updates(void **st)
{
    (void)st;
    struct peer p;
    peer_init(&p, false, NULL, NULL);
    handshake(&p);
    enum io io = IO_AGAIN;
    int n = 0;
    while (io == IO_AGAIN && n < 100) {
        assert_int_equal(SSL_key_update(p.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(p.ssl), 1);
        pump(&p);
        io = side_read(&p.ours, 1000);
        n++;
    }
    assert_int_equal(io, IO_ERROR);
    assert_in_range(n, 30, 40);
    assert_detail(&p, "records without data");
    peer_gets_alert(&p, "unexpected message");
    peer_fini(&p);
}

static void test_padding_and_empty_records(void **st)
{
    (void)st;
    struct peer p;
    peer_init(&p, false, NULL, NULL);
    assert_int_equal(SSL_set_block_padding(p.ssl, 4096), 1);
    handshake(&p);
    from_peer(&p, 5);
    from_peer(&p, 4096);
    from_peer(&p, 40000);
    to_peer(&p, 100);
    peer_fini(&p);
}

// Changes the next record of OpenSSL and expects a refusal with this alert.
static void spoiled(size_t at, int value, const char *why, const char *alert)
{
    struct peer p;
    peer_init(&p, false, NULL, NULL);
    handshake(&p);
    char data[200] = "hello";
    assert_int_equal(SSL_write(p.ssl, data, sizeof(data)), sizeof(data));
    pump(&p);
    struct str w = buf_pullup(&p.ours.wire, p.ours.wire.len);
    char *b = (char *)(uintptr_t)w.p + at;
    *b = value < 0 ? (char)(*b ^ 1) : (char)value;
    if (at == 3) {
        buf_append(&p.ours.wire, data, sizeof(data));
    }
    assert_int_equal(side_read(&p.ours, 1000), IO_ERROR);
    assert_int_equal(p.ours.c.in.len, 0);
    assert_detail(&p, why);
    peer_gets_alert(&p, alert);
    peer_fini(&p);
}

static void test_spoiled_records(void **st)
{
    (void)st;
    spoiled(RECORD13_HEADER, -1, "bad record mac", "bad record mac");     // content
    spoiled(RECORD13_HEADER + 200, -1, "bad record mac", "bad record mac"); // the hidden type
    spoiled(RECORD13_HEADER + 210, -1, "bad record mac", "bad record mac"); // tag
    spoiled(1, -1, "bad record mac", "bad record mac"); // the header is authenticated
    spoiled(0, 22, "no TLS 1.3 record", "unexpected message");
    spoiled(0, 'G', "no TLS 1.3 record", "unexpected message");
    spoiled(3, 0x42, "too long", "record overflow");
    spoiled(4, 3, "bad record mac", "bad record mac");
}

static void seal_and_give(struct peer *p, struct record13 *r, enum record13_type type, const void *bytes, size_t n)
{
    char out[RECORD13_MAX];
    struct iovec iov = { (void *)(uintptr_t)bytes, n };
    size_t size = record13_seal(r, type, &iov, 1, n, out);
    buf_append(&p->ours.wire, out, size);
}

// A peer that speaks through record13 itself, to say what OpenSSL never says.
static void odd_records(bool we_are_client, enum record13_type type, const void *bytes, size_t n, enum io want, const char *why)
{
    struct peer p;
    peer_init(&p, we_are_client, NULL, NULL);
    handshake(&p);
    if (we_are_client) {
        (void)side_read(&p.ours, 1000); // OpenSSL's tickets
    }
    struct record13 r;
    struct record13_dir *in = &conn_of(&p)->rec.in;
    assert_true(record13_init(&r, conn_of(&p)->rec.suite, in->secret, 0, in->secret, in->seq));
    seal_and_give(&p, &r, type, bytes, n);
    assert_int_equal(side_read(&p.ours, 1000), want);
    if (why) {
        assert_detail(&p, why);
    }
    record13_fini(&r);
    peer_fini(&p);
}

static void test_odd_records(void **st)
{
    (void)st;
    odd_records(false, RECORD13_ALERT, "\1\0", 2, IO_EOF, NULL);
    odd_records(false, RECORD13_ALERT, "\1\x5a", 2, IO_AGAIN, NULL); // user_canceled
    odd_records(false, RECORD13_ALERT, "\2\x2a", 2, IO_ERROR, "bad certificate");
    odd_records(false, RECORD13_ALERT, "\2\x2a\2\x2a", 4, IO_ERROR, "broken alert");
    odd_records(false, RECORD13_ALERT, "", 0, IO_ERROR, "no TLS 1.3 record");
    odd_records(false, RECORD13_HANDSHAKE, "", 0, IO_ERROR, "no TLS 1.3 record");
    odd_records(false, RECORD13_DATA, "", 0, IO_AGAIN, NULL);
    odd_records(false, (enum record13_type)20, "\1", 1, IO_ERROR, "no TLS 1.3 record");
    odd_records(false, (enum record13_type)0, "\0\0", 2, IO_ERROR, "no TLS 1.3 record"); // nothing but padding
    odd_records(false, RECORD13_HANDSHAKE, "\x18\0\0\1\2", 5, IO_ERROR, "broken key update");
    odd_records(false, RECORD13_HANDSHAKE, "\x18\0\0\2\0\0", 6, IO_ERROR, "does not belong");
    odd_records(false, RECORD13_HANDSHAKE, "\x18\0\0\1\0\x18\0\0\1\0", 10, IO_ERROR, "old key");
    odd_records(false, RECORD13_HANDSHAKE, "\x04\0\0\1\0", 5, IO_ERROR, "does not belong"); // tickets go to clients
    odd_records(true, RECORD13_HANDSHAKE, "\x04\0\0\1\0", 5, IO_AGAIN, NULL);
    odd_records(true, RECORD13_HANDSHAKE, "\x04\xff\xff\xff\0", 5, IO_ERROR, "does not belong");
    odd_records(true, RECORD13_HANDSHAKE, "\x0d\0\0\1\0", 5, IO_ERROR, "does not belong"); // late certificate request
    odd_records(false, RECORD13_HANDSHAKE, "\x01\0\0\1\0", 5, IO_ERROR, "does not belong"); // renegotiation
}

static void test_message_split_by_data(void **st)
{
    (void)st;
    struct peer p;
    peer_init(&p, false, NULL, NULL);
    handshake(&p);
    struct record13 r;
    struct record13_dir *in = &conn_of(&p)->rec.in;
    assert_true(record13_init(&r, conn_of(&p)->rec.suite, in->secret, 0, in->secret, in->seq));
    seal_and_give(&p, &r, RECORD13_HANDSHAKE, "\x18\0", 2);
    seal_and_give(&p, &r, RECORD13_HANDSHAKE, "\0\1\1", 3);
    assert_int_equal(side_read(&p.ours, 1000), IO_AGAIN); // a split key update is one
    assert_int_equal(conn_of(&p)->rec.in.seq, 0);
    assert_true(p.dummy.wire.len > 0); // and was answered
    assert_true(record13_rekey_out(&r));
    seal_and_give(&p, &r, RECORD13_HANDSHAKE, "\x18\0", 2);
    seal_and_give(&p, &r, RECORD13_DATA, "x", 1);
    assert_int_equal(side_read(&p.ours, 1000), IO_ERROR);
    assert_detail(&p, "inside a handshake message");
    assert_int_equal(p.ours.c.in.len, 0);
    record13_fini(&r);
    peer_fini(&p);
}

static void test_tickets_from_openssl(void **st)
{
    (void)st;
    for (size_t tickets = 0; tickets < 4; tickets++) {
        for (int small = 0; small < 2; small++) {
            struct tls_session_slot slot = { 0 };
            struct peer p;
            peer_init(&p, true, NULL, &slot);
            SSL_set_num_tickets(p.ssl, tickets);
            if (small) {
                SSL_set_max_send_fragment(p.ssl, 512); // splits the ticket, which holds our certificate
            }
            handshake(&p);
            assert_non_null(conn_of(&p)->ssl); // waits for a ticket
            assert_int_equal(side_read(&p.ours, 100), IO_AGAIN);
            assert_int_equal(conn_of(&p)->ssl == NULL, tickets > 0); // an idle connection does not keep it
            from_peer(&p, 100);
            assert_null(conn_of(&p)->ssl);
            assert_int_equal(slot.session != NULL, tickets > 0);
            to_peer(&p, 100);
            // One after data is too late to be kept, and does no harm.
            assert_int_equal(SSL_new_session_ticket(p.ssl), 1);
            assert_int_equal(SSL_do_handshake(p.ssl), 1);
            from_peer(&p, 1000);
            to_peer(&p, 1000);
            // The ticket is good: OpenSSL's server resumes.
            if (tickets) {
                struct peer q;
                peer_init(&q, true, NULL, &slot);
                SSL_free(q.ssl);
                SSL_CTX_free(q.ctx);
                SSL_CTX_up_ref(p.ctx);
                q.ctx = p.ctx;
                q.ssl = SSL_new(q.ctx);
                q.in = BIO_new(BIO_s_mem());
                q.out = BIO_new(BIO_s_mem());
                BIO_set_mem_eof_return(q.in, -1);
                SSL_set_bio(q.ssl, q.in, q.out);
                SSL_set_accept_state(q.ssl);
                handshake(&q);
                assert_true(transport_tls_info(&q.ours.c)->resumed);
                assert_int_equal(SSL_session_reused(q.ssl), 1);
                from_peer(&q, 3000);
                to_peer(&q, 3000);
                peer_fini(&q);
            }
            peer_fini(&p);
            tls_session_slot_fini(&slot);
        }
    }
}

static void test_openssl_client_resumes(void **st)
{
    (void)st;
    SSL_SESSION *session = NULL;
    for (int round = 0; round < 3; round++) {
        struct peer p;
        peer_init(&p, false, NULL, NULL);
        if (session) {
            assert_int_equal(SSL_set_session(p.ssl, session), 1);
        }
        handshake(&p);
        to_peer(&p, 10); // OpenSSL reads the ticket on the way
        from_peer(&p, 10);
        assert_int_equal(SSL_session_reused(p.ssl), round > 0);
        assert_true(str_is(transport_tls_info(&p.ours.c)->peer_uri, ALICE));
        SSL_SESSION_free(session);
        session = SSL_get1_session(p.ssl);
        SSL_set_shutdown(p.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        peer_fini(&p);
    }
    SSL_SESSION_free(session);
}

static void test_close_notify(void **st)
{
    (void)st;
    struct peer p;
    peer_init(&p, false, NULL, NULL);
    handshake(&p);
    assert_int_equal(p.ours.c.transport->ops->shutdown(p.ours.c.transport), IO_OK);
    assert_int_equal(p.ours.c.transport->ops->shutdown(p.ours.c.transport), IO_OK);
    size_t once = p.dummy.wire.len;
    pump(&p);
    char c;
    assert_int_equal(SSL_read(p.ssl, &c, 1), 0);
    assert_int_equal(SSL_get_error(p.ssl, 0), SSL_ERROR_ZERO_RETURN);
    from_peer(&p, 100); // half-closed: this direction goes on
    assert_true(SSL_shutdown(p.ssl) >= 0);
    pump(&p);
    assert_int_equal(side_read(&p.ours, 100), IO_EOF);
    assert_int_equal(side_read(&p.ours, 100), IO_EOF);
    assert_int_equal(p.dummy.wire.len, 0);
    assert_int_equal(once, 2 + RECORD13_OVERHEAD); // said once, though asked twice
    peer_fini(&p);
}

static void test_tls12_stays_with_openssl(void **st)
{
    (void)st;
    struct peer p;
    peer_init(&p, false, NULL, NULL);
    SSL_set_max_proto_version(p.ssl, TLS1_2_VERSION);
    enum io io = IO_AGAIN;
    for (int i = 0, r = 0; i < 20 && !(io == IO_OK && r == 1); i++) {
        io = io == IO_OK ? io : p.ours.c.transport->ops->handshake(p.ours.c.transport);
        pump(&p);
        r = SSL_do_handshake(p.ssl);
        pump(&p);
    }
    assert_int_equal(io, IO_OK);
    assert_false(conn_of(&p)->own);
    assert_string_equal(transport_tls_info(&p.ours.c)->version, "TLSv1.2");
    static const size_t sizes[] = { 1, 100, 16384, 50000, 300000 };
    for (size_t i = 0; i < array_len(sizes); i++) {
        from_peer(&p, sizes[i]);
        to_peer(&p, sizes[i]);
    }
    assert_true(SSL_shutdown(p.ssl) >= 0);
    pump(&p);
    assert_int_equal(side_read(&p.ours, 100), IO_EOF);
    peer_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_suites_both_roles),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_key_updates),
        cmocka_unit_test(test_key_updates_that_nobody_reads),
        cmocka_unit_test(test_we_change_keys_in_time),
        cmocka_unit_test(test_too_many_key_updates),
        cmocka_unit_test(test_padding_and_empty_records),
        cmocka_unit_test(test_spoiled_records),
        cmocka_unit_test(test_odd_records),
        cmocka_unit_test(test_message_split_by_data),
        cmocka_unit_test(test_tickets_from_openssl),
        cmocka_unit_test(test_openssl_client_resumes),
        cmocka_unit_test(test_close_notify),
        cmocka_unit_test(test_tls12_stays_with_openssl),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

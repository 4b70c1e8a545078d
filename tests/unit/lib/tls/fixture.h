// SPDX-License-Identifier: Apache-2.0
// A CA and certificates made once per test program, and two connections joined by pipes in memory: conn_raw_read and
// conn_raw_write are given here, so every read, write and end of the socket is under the test's control.
#ifndef TESTS_TLS_FIXTURE_H
#define TESTS_TLS_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
// cmocka needs those four first
#include <cmocka.h>
#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <time.h>

#include "lib/base/check.h"
#include "lib/tls/cert.h"
#include "lib/tls/transport_tls.h"

struct identity {
    struct str cert, key, root;
};

static struct arena mem;
static struct str ca_cert, ca_key, other_ca_cert, other_ca_key;

__attribute__((unused)) static void fixture_ca(void)
{
    struct err err = { 0 };
    assert_int_equal(cert_new_key(KEY_ECDSA_P256, &mem, &ca_key, &err), 0);
    assert_int_equal(cert_new_ca(ca_key, STR("remora test"), 3600, &mem, &ca_cert, &err), 0);
    assert_int_equal(cert_new_key(KEY_ECDSA_P256, &mem, &other_ca_key, &err), 0);
    assert_int_equal(cert_new_ca(other_ca_key, STR("somebody else"), 3600, &mem, &other_ca_cert, &err), 0);
}

__attribute__((unused)) static struct identity fixture_identity_from(const char *uri, struct str cert, struct str key)
{
    struct err err = { 0 };
    struct identity id = { .root = cert };
    struct str csr = { 0 };
    assert_int_equal(cert_new_key(KEY_ECDSA_P256, &mem, &id.key, &err), 0);
    assert_int_equal(cert_new_csr(id.key, str_c(uri), &mem, &csr, &err), 0);
    struct cert_sign_opts o = { .uri_san = str_c(uri), .ttl_s = 600 };
    assert_int_equal(cert_sign_csr(csr, cert, key, &o, &mem, &id.cert, &err), 0);
    return id;
}

__attribute__((unused)) static struct identity fixture_identity(const char *uri)
{
    return fixture_identity_from(uri, ca_cert, ca_key);
}

// The same certificate, but its end moved to ten seconds ago.
__attribute__((unused)) static struct str fixture_expire(struct str pem, int64_t from_now_s)
{
    BIO *b = BIO_new_mem_buf(pem.p, (int)pem.n), *kb = BIO_new_mem_buf(ca_key.p, (int)ca_key.n), *o = BIO_new(BIO_s_mem());
    X509 *c = PEM_read_bio_X509(b, NULL, NULL, NULL);
    EVP_PKEY *k = PEM_read_bio_PrivateKey(kb, NULL, NULL, NULL);
    ASN1_TIME_set(X509_getm_notAfter(c), time(NULL) + from_now_s);
    assert_true(X509_sign(c, k, EVP_sha256()) > 0);
    assert_true(PEM_write_bio_X509(o, c));
    char *p;
    long n = BIO_get_mem_data(o, &p);
    struct str r = arena_str(&mem, str_n(p, (size_t)n));
    BIO_free(b);
    BIO_free(kb);
    BIO_free(o);
    X509_free(c);
    EVP_PKEY_free(k);
    return r;
}

__attribute__((unused)) static struct tls_ctx *fixture_ctx(bool server, const struct identity *id, bool mutual)
{
    struct err err = { 0 };
    struct tls_ctx_params p = { .server = server, .verify_peer = !server || mutual, .require_peer_cert = server && mutual };
    p.cert_chain_pem = id->cert;
    p.key_pem = id->key;
    p.ca_pem = id->root;
    struct tls_ctx *c = NULL;
    if (tls_ctx_new(&p, &c, &err)) {
        fail_msg("%s", err.msg);
    }
    return c;
}

// ---- pipes ----

struct side {
    struct conn c;
    struct buf wire;     // bytes on their way to this side
    bool wire_eof;       // and then the end
    int wire_err;        // or an error (positive errno)
    size_t room;         // most bytes the wire takes before the writer gets EAGAIN
    unsigned writes, reads; // calls
    struct side *other;
};

#ifndef FIXTURE_NO_CONN
ssize_t conn_raw_read(struct conn *c, void *p, size_t n)
{
    struct side *s = container_of(c, struct side, c);
    s->reads++;
    if (s->wire.len == 0) {
        return s->wire_err ? -s->wire_err : s->wire_eof ? 0 : -EAGAIN;
    }
    size_t k = buf_peek(&s->wire, 0, p, n);
    buf_drain(&s->wire, k);
    return (ssize_t)k;
}

ssize_t conn_raw_write(struct conn *c, const void *p, size_t n)
{
    struct side *s = container_of(c, struct side, c)->other;
    container_of(c, struct side, c)->writes++;
    size_t room = s->room > s->wire.len ? s->room - s->wire.len : 0;
    if (room == 0) {
        return -EAGAIN;
    }
    size_t k = n < room ? n : room;
    buf_append(&s->wire, p, k);
    return (ssize_t)k;
}
#endif

struct pair {
    struct side client, server;
    enum io client_io, server_io; // results of the handshake
};

__attribute__((unused)) static void side_init(struct side *s, struct side *other, struct transport *t)
{
    *s = (struct side){ .room = SIZE_MAX, .other = other };
    assert_non_null(t);
    s->c.transport = t;
    t->conn = &s->c;
}

__attribute__((unused)) static void pair_init(struct pair *p, struct transport *client, struct transport *server)
{
    side_init(&p->client, &p->server, client);
    side_init(&p->server, &p->client, server);
    p->client_io = p->server_io = IO_AGAIN;
}

__attribute__((unused)) static void pair_handshake(struct pair *p)
{
    for (int i = 0; i < 20; i++) {
        if (p->client_io == IO_AGAIN) {
            p->client_io = p->client.c.transport->ops->handshake(p->client.c.transport);
        }
        if (p->server_io == IO_AGAIN) {
            p->server_io = p->server.c.transport->ops->handshake(p->server.c.transport);
        }
    }
}

__attribute__((unused)) static enum io side_read(struct side *s, size_t want)
{
    return s->c.transport->ops->read(s->c.transport, &s->c.in, want);
}
__attribute__((unused)) static enum io side_write(struct side *s, const void *p, size_t n)
{
    buf_append(&s->c.out, p, n);
    return s->c.transport->ops->write(s->c.transport, &s->c.out);
}

__attribute__((unused)) static void side_fini(struct side *s)
{
    s->c.transport->ops->destroy(s->c.transport);
    buf_clear(&s->c.in);
    buf_clear(&s->c.out);
    buf_clear(&s->wire);
}
__attribute__((unused)) static void pair_fini(struct pair *p)
{
    side_fini(&p->client);
    side_fini(&p->server);
}

#endif

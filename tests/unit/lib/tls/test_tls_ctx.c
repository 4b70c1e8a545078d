// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/lib/tls/fixture.h"

static struct identity id;

static int setup(void **st)
{
    (void)st;
    fixture_ca();
    id = fixture_identity("spiffe://td/ns/a/sa/a");
    return 0;
}
static int teardown(void **st)
{
    (void)st;
    arena_fini(&mem);
    return tls_ctx_live() == 0 ? 0 : -1;
}

static struct tls_ctx_params good(void)
{
    return (struct tls_ctx_params){
        .server = true, .cert_chain_pem = id.cert, .key_pem = id.key, .ca_pem = id.root, .verify_peer = true, .require_peer_cert = true,
    };
}

static void refused(const struct tls_ctx_params *p, const char *why)
{
    struct err err = { 0 };
    struct tls_ctx *c = NULL;
    assert_true(tls_ctx_new(p, &c, &err) < 0);
    assert_null(c);
    if (!strstr(err.msg, why)) {
        fail_msg("\"%s\" does not say \"%s\"", err.msg, why);
    }
    assert_int_equal(tls_ctx_live(), 0);
}

static void accepted(const struct tls_ctx_params *p)
{
    struct err err = { 0 };
    struct tls_ctx *c = NULL;
    if (tls_ctx_new(p, &c, &err)) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(tls_ctx_live(), 1);
    tls_ctx_unref(tls_ctx_ref(c));
    assert_int_equal(tls_ctx_live(), 1);
    tls_ctx_unref(c);
    assert_int_equal(tls_ctx_live(), 0);
}

static void test_parts_are_checked(void **st)
{
    (void)st;
    struct tls_ctx_params p = good();
    accepted(&p);
    p.cert_chain_pem = STR("");
    refused(&p, "a TLS server needs a certificate");
    p = good();
    p.cert_chain_pem = STR("junk");
    refused(&p, "certificate chain: no valid PEM");
    p = good();
    p.key_pem = ca_key;
    refused(&p, "private key does not belong to the certificate");
    p = good();
    p.key_pem = STR("");
    refused(&p, "no usable private key");
    p = good();
    p.ca_pem = STR("");
    refused(&p, "trusted roots: none given");
    p = good();
    p.ca_pem = STR("junk");
    refused(&p, "trusted roots: no PEM certificate");
    p = good();
    p.crl_pem = STR("junk");
    refused(&p, "revocation list");
    p = good();
    p.server = false;
    p.cert_chain_pem = STR("");
    refused(&p, "private key without certificate");
    p.key_pem = STR("");
    accepted(&p);
}

static void test_ciphers_curves_versions(void **st)
{
    (void)st;
    struct tls_ctx_params p = good();
    p.ciphers = STR("[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]:ECDHE-RSA-AES128-GCM-SHA256");
    accepted(&p);
    p.ciphers = STR("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES129");
    refused(&p, "unknown cipher \"ECDHE-ECDSA-AES129\"");
    p = good();
    p.curves = STR("X25519:P-256:P-384");
    accepted(&p);
    p.curves = STR("P-256:nope");
    refused(&p, "curve list");
    p = good();
    p.min_version = TLS_V1_3;
    p.max_version = TLS_V1_2;
    refused(&p, "TLS versions");
    p.max_version = TLS_V1_3;
    accepted(&p);
    struct str bad = STR("");
    p = good();
    p.alpn = &bad;
    p.alpn_count = 1;
    refused(&p, "ALPN");
    // What can be said before there is a certificate.
    struct err err = { 0 };
    struct tls_ctx_params early = { .server = true, .verify_peer = true, .require_peer_cert = true };
    assert_int_equal(tls_ctx_check(&early, &err), 0);
    early.ciphers = STR("NOPE");
    assert_int_not_equal(tls_ctx_check(&early, &err), 0);
    early = (struct tls_ctx_params){ .min_version = TLS_V1_3, .max_version = TLS_V1_2 };
    assert_int_not_equal(tls_ctx_check(&early, &err), 0);
}

static void test_encrypted_key_does_not_ask(void **st)
{
    (void)st;
    BIO *kb = BIO_new_mem_buf(id.key.p, (int)id.key.n), *o = BIO_new(BIO_s_mem());
    EVP_PKEY *k = PEM_read_bio_PrivateKey(kb, NULL, NULL, NULL);
    char pass[] = "secret";
    PEM_write_bio_PKCS8PrivateKey(o, k, EVP_aes_256_cbc(), pass, 6, NULL, NULL);
    char *text;
    long n = BIO_get_mem_data(o, &text);
    struct tls_ctx_params p = good();
    p.key_pem = str_n(text, (size_t)n);
    refused(&p, "not encrypted");
    EVP_PKEY_free(k);
    BIO_free(kb);
    BIO_free(o);
}

static struct str make_crl(struct str revoked_pem)
{
    BIO *cb = BIO_new_mem_buf(ca_cert.p, (int)ca_cert.n), *kb = BIO_new_mem_buf(ca_key.p, (int)ca_key.n), *o = BIO_new(BIO_s_mem());
    BIO *rb = BIO_new_mem_buf(revoked_pem.p, (int)revoked_pem.n);
    X509 *ca = PEM_read_bio_X509(cb, NULL, NULL, NULL), *bad = PEM_read_bio_X509(rb, NULL, NULL, NULL);
    EVP_PKEY *k = PEM_read_bio_PrivateKey(kb, NULL, NULL, NULL);
    X509_CRL *crl = X509_CRL_new();
    X509_CRL_set_version(crl, 1);
    X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca));
    ASN1_TIME *t = ASN1_TIME_set(NULL, time(NULL) - 60);
    X509_CRL_set1_lastUpdate(crl, t);
    X509_REVOKED *r = X509_REVOKED_new();
    X509_REVOKED_set_serialNumber(r, X509_get_serialNumber(bad));
    X509_REVOKED_set_revocationDate(r, t);
    X509_CRL_add0_revoked(crl, r);
    ASN1_TIME_set(t, time(NULL) + 600);
    X509_CRL_set1_nextUpdate(crl, t);
    X509_CRL_sign(crl, k, EVP_sha256());
    PEM_write_bio_X509_CRL(o, crl);
    char *p;
    long n = BIO_get_mem_data(o, &p);
    struct str out = arena_str(&mem, str_n(p, (size_t)n));
    ASN1_TIME_free(t);
    X509_CRL_free(crl);
    X509_free(ca);
    X509_free(bad);
    EVP_PKEY_free(k);
    BIO_free(cb);
    BIO_free(kb);
    BIO_free(rb);
    BIO_free(o);
    return out;
}

static void test_revoked_client(void **st)
{
    (void)st;
    struct identity bad = fixture_identity("spiffe://td/ns/a/sa/bad"), fine = fixture_identity("spiffe://td/ns/a/sa/fine");
    struct tls_ctx_params p = good();
    p.crl_pem = make_crl(bad.cert);
    struct err err = { 0 };
    struct tls_ctx *s;
    assert_int_equal(tls_ctx_new(&p, &s, &err), 0);
    for (int i = 0; i < 4; i++) {
        struct tls_ctx *c = fixture_ctx(false, i % 2 ? &bad : &fine, true);
        struct pair pr;
        struct tls_client_opts co = { 0 };
        pair_init(&pr, transport_tls_client(c, &co), transport_tls_server(s, NULL));
        pair_handshake(&pr);
        assert_int_equal(pr.server_io, i % 2 ? IO_ERROR : IO_OK);
        if (i % 2) {
            assert_non_null(strstr(pr.server.c.close_detail, "certificate revoked"));
        }
        pair_fini(&pr);
        tls_ctx_unref(c);
    }
    tls_ctx_unref(s);
}

static void test_intermediates(void **st)
{
    (void)st;
    // root → intermediate → leaf; the peer knows only the root, or only the intermediate.
    struct err err = { 0 };
    struct str key, cert, csr;
    assert_int_equal(cert_new_key(KEY_ECDSA_P256, &mem, &key, &err), 0);
    assert_int_equal(cert_new_ca(key, STR("intermediate"), 3000, &mem, &cert, &err), 0);
    (void)csr;
    BIO *b = BIO_new_mem_buf(cert.p, (int)cert.n), *rb = BIO_new_mem_buf(ca_cert.p, (int)ca_cert.n);
    BIO *kb = BIO_new_mem_buf(ca_key.p, (int)ca_key.n), *o = BIO_new(BIO_s_mem());
    X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL), *root = PEM_read_bio_X509(rb, NULL, NULL, NULL);
    EVP_PKEY *k = PEM_read_bio_PrivateKey(kb, NULL, NULL, NULL);
    X509_set_issuer_name(x, X509_get_subject_name(root));
    assert_true(X509_sign(x, k, EVP_sha256()) > 0);
    PEM_write_bio_X509(o, x);
    char *text;
    long n = BIO_get_mem_data(o, &text);
    cert = arena_str(&mem, str_n(text, (size_t)n));
    BIO_free(b);
    BIO_free(rb);
    BIO_free(kb);
    BIO_free(o);
    X509_free(x);
    X509_free(root);
    EVP_PKEY_free(k);

    struct identity leaf = fixture_identity_from("spiffe://td/ns/a/sa/deep", cert, key);
    struct str bare = leaf.cert;
    leaf.cert = arena_printf(&mem, "%.*s%.*s", STR_FMT(leaf.cert), STR_FMT(cert));
    struct str roots[] = { ca_cert, cert };
    for (int sent = 0; sent < 2; sent++) {
        for (size_t i = 0; i < 2; i++) {
            struct identity srv = { .cert = sent ? leaf.cert : bare, .key = leaf.key, .root = ca_cert };
            struct identity cli = { .cert = id.cert, .key = id.key, .root = roots[i] };
            struct tls_ctx *s = fixture_ctx(true, &srv, false), *c = fixture_ctx(false, &cli, false);
            struct pair pr;
            struct tls_client_opts co = { 0 };
            pair_init(&pr, transport_tls_client(c, &co), transport_tls_server(s, NULL));
            pair_handshake(&pr);
            // Without the intermediate in the chain only those who trust it directly can follow.
            assert_int_equal(pr.client_io, sent || i == 1 ? IO_OK : IO_ERROR);
            pair_fini(&pr);
            tls_ctx_unref(s);
            tls_ctx_unref(c);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_are_checked),
        cmocka_unit_test(test_ciphers_curves_versions),
        cmocka_unit_test(test_encrypted_key_does_not_ask),
        cmocka_unit_test(test_revoked_client),
        cmocka_unit_test(test_intermediates),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/lib/tls/fixture.h"

#include <openssl/x509v3.h>

static int setup(void **st)
{
    (void)st;
    fixture_ca();
    return 0;
}
static int teardown(void **st)
{
    (void)st;
    arena_fini(&mem);
    return 0;
}

static struct cert_info *parse(struct str pem, size_t want)
{
    struct cert_info *v = NULL;
    size_t n = 0;
    struct err err = { 0 };
    assert_int_equal(cert_parse_bundle(pem, &mem, &v, &n, &err), 0);
    assert_int_equal(n, want);
    return v;
}

static void sign_with(enum key_type t)
{
    struct err err = { 0 };
    struct str key, csr, cert = { 0 };
    assert_int_equal(cert_new_key(t, &mem, &key, &err), 0);
    assert_int_equal(cert_new_csr(key, STR("spiffe://td/ns/x/sa/asked"), &mem, &csr, &err), 0);
    struct str dns[] = { STR("istiod.istio-system.svc"), STR("127.0.0.1"), STR("::1") };
    struct cert_sign_opts o = { .uri_san = STR("spiffe://td/ns/x/sa/given"), .dns = dns, .dns_count = 3, .ttl_s = 600 };
    int64_t now = (int64_t)time(NULL);
    assert_int_equal(cert_sign_csr(csr, ca_cert, ca_key, &o, &mem, &cert, &err), 0);
    assert_true(cert_key_matches(cert, key));
    assert_false(cert_key_matches(cert, ca_key));
    struct cert_info *i = parse(cert, 1);
    assert_int_equal(i->subject.n, 0);
    assert_true(str_is(i->issuer, "O=remora test"));
    assert_false(i->is_ca);
    assert_in_range(i->not_before_s, now - 122, now - 118);
    assert_in_range(i->not_after_s, now + 598, now + 602);
    assert_int_equal(i->san_count, 4);
    // The names come from the signer, never from the request.
    assert_true(i->sans[0].type == SAN_URI && str_is(i->sans[0].value, "spiffe://td/ns/x/sa/given"));
    assert_true(i->sans[1].type == SAN_DNS && str_is(i->sans[1].value, "istiod.istio-system.svc"));
    assert_true(i->sans[2].type == SAN_IP && str_is(i->sans[2].value, "127.0.0.1"));
    assert_true(i->sans[3].type == SAN_IP && str_is(i->sans[3].value, "::1"));
    assert_int_equal(i->serial_hex.n, 32);
}

static void test_sign(void **st)
{
    (void)st;
    sign_with(KEY_ECDSA_P256);
    sign_with(KEY_ECDSA_P384);
    sign_with(KEY_RSA_2048);
}

static void test_ca(void **st)
{
    (void)st;
    struct cert_info *i = parse(ca_cert, 1);
    assert_true(i->is_ca);
    assert_true(str_is(i->subject, "O=remora test"));
    assert_true(str_eq(i->subject, i->issuer));
}

static X509 *x509(struct str pem)
{
    BIO *b = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *c = PEM_read_bio_X509(b, NULL, NULL, NULL);
    BIO_free(b);
    return c;
}

static void test_leaf_verifies_and_has_istio_usages(void **st)
{
    (void)st;
    struct identity id = fixture_identity("spiffe://td/ns/x/sa/y");
    X509 *leaf = x509(id.cert), *ca = x509(ca_cert);
    X509_STORE *store = X509_STORE_new();
    X509_STORE_add_cert(store, ca);
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    X509_STORE_CTX_init(ctx, store, leaf, NULL);
    assert_int_equal(X509_verify_cert(ctx), 1);
    assert_true(X509_get_extended_key_usage(leaf) == (XKU_SSL_SERVER | XKU_SSL_CLIENT));
    assert_true(X509_get_key_usage(leaf) & KU_DIGITAL_SIGNATURE);
    int crit = 0;
    GENERAL_NAMES *n = X509_get_ext_d2i(leaf, NID_subject_alt_name, &crit, NULL);
    assert_int_equal(crit, 1);
    GENERAL_NAMES_free(n);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    X509_free(leaf);
    X509_free(ca);
}

static void test_csr_has_one_critical_uri(void **st)
{
    (void)st;
    struct err err = { 0 };
    struct str csr = { 0 };
    assert_int_equal(cert_new_csr(ca_key, STR("spiffe://td/x"), &mem, &csr, &err), 0);
    BIO *b = BIO_new_mem_buf(csr.p, (int)csr.n);
    X509_REQ *r = PEM_read_bio_X509_REQ(b, NULL, NULL, NULL);
    assert_non_null(r);
    assert_int_equal(X509_NAME_entry_count(X509_REQ_get_subject_name(r)), 0);
    STACK_OF(X509_EXTENSION) *e = X509_REQ_get_extensions(r);
    assert_int_equal(sk_X509_EXTENSION_num(e), 1);
    assert_int_equal(X509_EXTENSION_get_critical(sk_X509_EXTENSION_value(e, 0)), 1);
    sk_X509_EXTENSION_pop_free(e, X509_EXTENSION_free);
    X509_REQ_free(r);
    BIO_free(b);
}

static void test_sign_refuses(void **st)
{
    (void)st;
    struct err err = { 0 };
    struct str csr = { 0 }, out = { 0 };
    struct cert_sign_opts o = { .uri_san = STR("spiffe://td/x"), .ttl_s = 60 };
    assert_true(cert_sign_csr(STR("nonsense"), ca_cert, ca_key, &o, &mem, &out, &err) < 0);
    assert_non_null(strstr(err.msg, "certificate request"));
    assert_int_equal(cert_new_csr(ca_key, STR("spiffe://td/x"), &mem, &csr, &err), 0);
    assert_true(cert_sign_csr(csr, ca_cert, other_ca_key, &o, &mem, &out, &err) < 0);
    assert_non_null(strstr(err.msg, "does not belong"));
    o.ttl_s = 0;
    assert_true(cert_sign_csr(csr, ca_cert, ca_key, &o, &mem, &out, &err) < 0);
    o.ttl_s = 60;
    // Somebody else's key in a signed request: the signature no longer fits.
    BIO *b = BIO_new_mem_buf(csr.p, (int)csr.n), *kb = BIO_new_mem_buf(other_ca_key.p, (int)other_ca_key.n), *ob = BIO_new(BIO_s_mem());
    X509_REQ *r = PEM_read_bio_X509_REQ(b, NULL, NULL, NULL);
    EVP_PKEY *k = PEM_read_bio_PrivateKey(kb, NULL, NULL, NULL);
    X509_REQ_set_pubkey(r, k);
    PEM_write_bio_X509_REQ(ob, r);
    char *p;
    long n = BIO_get_mem_data(ob, &p);
    assert_true(cert_sign_csr(str_n(p, (size_t)n), ca_cert, ca_key, &o, &mem, &out, &err) < 0);
    assert_non_null(strstr(err.msg, "signature"));
    assert_null(out.p);
    X509_REQ_free(r);
    EVP_PKEY_free(k);
    BIO_free(b);
    BIO_free(kb);
    BIO_free(ob);
}

static void test_leaf_does_not_outlive_its_ca(void **st)
{
    (void)st;
    struct err err = { 0 };
    struct str csr, out;
    assert_int_equal(cert_new_csr(ca_key, STR("spiffe://td/x"), &mem, &csr, &err), 0);
    struct cert_sign_opts o = { .uri_san = STR("spiffe://td/x"), .ttl_s = 1000000 };
    assert_int_equal(cert_sign_csr(csr, ca_cert, ca_key, &o, &mem, &out, &err), 0);
    assert_int_equal(parse(out, 1)->not_after_s, parse(ca_cert, 1)->not_after_s);
}

static void test_bundles(void **st)
{
    (void)st;
    struct str two = arena_printf(&mem, "# a comment\n%.*s\n%.*s", STR_FMT(ca_cert), STR_FMT(other_ca_cert));
    assert_true(str_is(parse(two, 2)[1].subject, "O=somebody else"));
    struct cert_info *v = NULL;
    size_t n = 0;
    struct err err = { 0 };
    assert_true(cert_parse_bundle(STR(""), &mem, &v, &n, &err) < 0);
    assert_true(cert_parse_bundle(STR("hello"), &mem, &v, &n, &err) < 0);
    struct str broken = arena_printf(&mem, "%.*s-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", STR_FMT(ca_cert));
    assert_true(cert_parse_bundle(broken, &mem, &v, &n, &err) < 0);
    assert_non_null(strstr(err.msg, "certificate 2"));
    assert_null(v);
}

static void test_merge(void **st)
{
    (void)st;
    struct err err = { 0 };
    struct str both = arena_printf(&mem, "%.*s%.*s", STR_FMT(ca_cert), STR_FMT(other_ca_cert));
    struct str in[] = { ca_cert, STR(""), both, other_ca_cert }, out = { 0 };
    assert_int_equal(cert_merge_bundles(in, 4, &mem, &out, &err), 0);
    assert_true(str_is(parse(out, 2)[0].subject, "O=remora test"));
    in[1] = STR("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    out = str_n(NULL, 0);
    assert_int_equal(cert_merge_bundles(in, 4, &mem, &out, &err), -EINVAL);
    assert_null(out.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sign),
        cmocka_unit_test(test_ca),
        cmocka_unit_test(test_leaf_verifies_and_has_istio_usages),
        cmocka_unit_test(test_csr_has_one_critical_uri),
        cmocka_unit_test(test_sign_refuses),
        cmocka_unit_test(test_leaf_does_not_outlive_its_ca),
        cmocka_unit_test(test_bundles),
        cmocka_unit_test(test_merge),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

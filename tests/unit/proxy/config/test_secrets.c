// SPDX-License-Identifier: Apache-2.0
// Secrets and the TLS slots made from them.
#include "tests/unit/proxy/config/rig.h"

#include "lib/base/file.h"

static const struct str none = { 0 };

struct fixture {
    struct secret_store s;
    struct arena a;
    struct rig_certs one, two;
};

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    secret_store_init(&f->s);
    f->one = rig_certs(&f->a, "spiffe://td/ns/a/sa/one");
    f->two = rig_certs(&f->a, "spiffe://td/ns/a/sa/two");
}

static void teardown(struct fixture *f)
{
    secret_store_fini(&f->s);
    arena_fini(&f->a);
}

static int put_cert(struct fixture *f, const struct rig_certs *c, struct err *err)
{
    return secret_put(&f->s, STR("cert"), c->chain, c->key, none, none, STR("1"), false, err);
}

static int put_ca(struct fixture *f, const struct rig_certs *c, struct err *err)
{
    return secret_put(&f->s, STR("ca"), none, none, c->ca, none, STR("1"), false, err);
}

static struct tls_slot *slot(struct fixture *f, bool server)
{
    struct slot_params p = { .server = server, .verify_peer = true, .cert_name = STR("cert"), .ca_name = STR("ca") };
    struct tls_slot *t = NULL;
    struct err err = { 0 };
    assert_int_equal(secret_slot_get(&f->s, &p, true, true, &t, &err), 0);
    return t;
}

static void equal_parameters_share_a_slot(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct tls_slot *x = slot(&f, false), *y = slot(&f, false), *z = slot(&f, true);
    assert_ptr_equal(x, y);
    assert_ptr_not_equal(x, z);
    tls_slot_unref(x);
    tls_slot_unref(y);
    tls_slot_unref(z);
    assert_int_equal(f.s.slots.count, 2);
    secret_store_gc(&f.s);
    assert_int_equal(f.s.slots.count, 0);
    assert_int_equal(f.s.secrets.count, 0); // only wanted for them
    teardown(&f);
}

static void a_slot_fills_when_its_last_secret_comes(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = { 0 };
    setup(&f);
    struct tls_slot *t = slot(&f, false);
    assert_null(tls_slot_get(t));
    assert_int_equal(put_cert(&f, &f.one, &err), 0);
    assert_null(tls_slot_get(t));
    assert_int_equal(put_ca(&f, &f.one, &err), 0);
    struct tls_ctx *c = tls_slot_get(t);
    assert_non_null(c);
    tls_ctx_unref(c);
    // And one that comes after its secrets is filled at once.
    struct tls_slot *late = slot(&f, true);
    c = tls_slot_get(late);
    assert_non_null(c);
    tls_ctx_unref(c);
    tls_slot_unref(late);
    tls_slot_unref(t);
    teardown(&f);
}

static void rotation_swaps_the_context_and_retires_the_old_one(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = { 0 };
    struct arena garbage = { 0 };
    setup(&f);
    assert_int_equal(put_cert(&f, &f.one, &err), 0);
    assert_int_equal(put_ca(&f, &f.one, &err), 0);
    struct tls_slot *t = slot(&f, true);
    struct tls_ctx *before = tls_slot_get(t);
    assert_int_equal(f.s.garbage_count, 0);
    assert_int_equal(put_cert(&f, &f.two, &err), 0);
    struct tls_ctx *after = tls_slot_get(t);
    assert_ptr_not_equal(before, after);
    assert_int_equal(f.s.garbage_count, 1);
    assert_true(f.s.changed);
    secret_take_garbage(&f.s, &garbage);
    assert_int_equal(f.s.garbage_count, 0);
    arena_fini(&garbage);
    tls_ctx_unref(before);
    tls_ctx_unref(after);
    tls_slot_unref(t);
    teardown(&f);
}

static void what_is_bad_is_refused_and_the_old_stays(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct err err = { 0 };
    assert_int_equal(put_cert(&f, &f.one, &err), 0);
    assert_int_equal(put_ca(&f, &f.one, &err), 0);
    struct tls_slot *t = slot(&f, true);
    struct tls_ctx *before = tls_slot_get(t);
    struct rig_certs mixed = { .chain = f.one.chain, .key = f.two.key };
    const struct {
        struct str name, chain, key, ca;
    } bad[] = {
        { STR_INIT("cert"), mixed.chain, mixed.key, none },         // a key of another certificate
        { STR_INIT("cert"), STR_INIT("rubbish"), f.one.key, none },
        { STR_INIT("cert"), none, none, f.one.ca },                 // roots where a certificate is used
        { STR_INIT("ca"), f.one.chain, f.one.key, none },           // and the other way round
        { STR_INIT("ca"), none, none, STR_INIT("rubbish") },
        { STR_INIT("unused"), mixed.chain, mixed.key, none },       // bad in itself, though nobody uses it yet
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        memset(&err, 0, sizeof(err));
        assert_int_not_equal(secret_put(&f.s, bad[i].name, bad[i].chain, bad[i].key, bad[i].ca, none, none, false, &err), 0);
        assert_true(err.msg[0]);
        struct tls_ctx *now = tls_slot_get(t);
        assert_ptr_equal(now, before);
        tls_ctx_unref(now);
    }
    assert_null(map_get(&f.s.secrets, STR("unused")));
    tls_ctx_unref(before);
    tls_slot_unref(t);
    teardown(&f);
}

static void paths_are_read_when_named_and_forgotten_with_their_user(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = { 0 };
    char dir[] = "/tmp/remora-test-XXXXXX", cert[64], key[64], name[160];
    setup(&f);
    assert_non_null(mkdtemp(dir));
    snprintf(cert, sizeof(cert), "%s/c", dir);
    snprintf(key, sizeof(key), "%s/k", dir);
    snprintf(name, sizeof(name), "file-cert:%s~%s", cert, key);
    struct slot_params p = { .server = true, .cert_name = str_c(name) };
    struct tls_slot *t = NULL;
    assert_int_not_equal(secret_slot_get(&f.s, &p, false, false, &t, &err), 0); // not there
    assert_null(t);
    assert_int_equal(file_write_atomic(cert, f.one.chain, 0600, &err), 0);
    assert_int_equal(file_write_atomic(key, f.one.key, 0600, &err), 0);
    assert_int_equal(secret_slot_get(&f.s, &p, false, false, &t, &err), 0);
    struct tls_ctx *c = tls_slot_get(t);
    assert_non_null(c);
    tls_ctx_unref(c);
    tls_slot_unref(t);
    secret_store_gc(&f.s);
    assert_int_equal(f.s.secrets.count, 0);
    remove(cert);
    remove(key);
    remove(dir);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_parameters_share_a_slot),
        cmocka_unit_test(a_slot_fills_when_its_last_secret_comes),
        cmocka_unit_test(rotation_swaps_the_context_and_retires_the_old_one),
        cmocka_unit_test(what_is_bad_is_refused_and_the_old_stays),
        cmocka_unit_test(paths_are_read_when_named_and_forgotten_with_their_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

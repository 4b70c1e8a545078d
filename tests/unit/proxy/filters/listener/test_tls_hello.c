// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/buf.h"
#include "lib/base/rand.h"
#include "proxy/filters/listener/tls_hello.h"

// ---- making hellos ----

static void u8(struct buf *b, unsigned v)
{
    buf_append(b, &(char){ (char)v }, 1);
}
static void u16(struct buf *b, unsigned v)
{
    u8(b, v >> 8);
    u8(b, v);
}
static void u24(struct buf *b, size_t v)
{
    u8(b, (unsigned)(v >> 16));
    u16(b, (unsigned)v & 0xffff);
}
static void put_vector16(struct buf *b, struct buf *body)
{
    u16(b, (unsigned)body->len);
    buf_move(b, body, body->len);
}
static void zeros(struct buf *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        u8(b, 0);
    }
}

static void sni_ext(struct buf *exts, struct str name)
{
    struct buf list = { 0 }, ext = { 0 };
    u8(&list, 0);
    u16(&list, (unsigned)name.n);
    buf_append_str(&list, name);
    put_vector16(&ext, &list);
    u16(exts, 0);
    put_vector16(exts, &ext);
}

static void alpn_ext(struct buf *exts, const struct str *names, size_t n)
{
    struct buf list = { 0 }, ext = { 0 };
    for (size_t i = 0; i < n; i++) {
        u8(&list, (unsigned)names[i].n);
        buf_append_str(&list, names[i]);
    }
    put_vector16(&ext, &list);
    u16(exts, 16);
    put_vector16(exts, &ext);
}

// A ClientHello handshake message around the extensions (taken).
static void message(struct buf *out, struct buf *exts, size_t session)
{
    struct buf body = { 0 };
    u16(&body, 0x0303);
    zeros(&body, 32);
    u8(&body, (unsigned)session);
    zeros(&body, session);
    u16(&body, 2);
    u16(&body, 0x1301);
    u8(&body, 1);
    u8(&body, 0);
    if (exts->len) {
        put_vector16(&body, exts);
    }
    u8(out, 1);
    u24(out, body.len);
    buf_move(out, &body, body.len);
}

// Cut into records of at most piece bytes.
static struct str records(struct buf *message_, size_t piece)
{
    static char wire[200000];
    size_t n = 0;
    while (message_->len) {
        size_t k = message_->len < piece ? message_->len : piece;
        wire[n++] = 22;
        wire[n++] = 3;
        wire[n++] = 1;
        wire[n++] = (char)(k >> 8);
        wire[n++] = (char)k;
        n += buf_peek(message_, 0, wire + n, k);
        buf_drain(message_, k);
    }
    return str_n(wire, n);
}

static struct str usual(size_t piece)
{
    static const struct str alpn[] = { STR_INIT("istio-http/1.1"), STR_INIT("istio"), STR_INIT("http/1.1") };
    struct buf exts = { 0 }, m = { 0 };
    u16(&exts, 0x0a0a); // GREASE
    u16(&exts, 0);
    sni_ext(&exts, STR("Reviews.default.svc"));
    alpn_ext(&exts, alpn, 3);
    message(&m, &exts, 32);
    return records(&m, piece);
}

static void is_usual(const struct tls_hello *h)
{
    assert_true(str_is(h->server_name, "Reviews.default.svc"));
    assert_int_equal(h->alpn_count, 3);
    assert_true(str_is(h->alpn[0], "istio-http/1.1"));
    assert_true(str_is(h->alpn[2], "http/1.1"));
}

// ---- tests ----

static void names_are_found(void **state)
{
    (void)state;
    struct tls_hello h;
    assert_int_equal(tls_hello_parse(usual(16384), &h), TLS_HELLO_FOUND);
    is_usual(&h);
    assert_null(h.joined);
    tls_hello_fini(&h);
}

// Every shorter beginning asks for more, byte by byte, however the message is cut into records.
static void incomplete_hellos_ask_for_more(void **state)
{
    (void)state;
    static const size_t pieces[] = { 16384, 40, 4, 3 };
    for (size_t k = 0; k < 4; k++) {
        struct str w = usual(pieces[k]);
        struct tls_hello h;
        for (size_t n = 0; n < w.n; n++) {
            char *exact = malloc(n ? n : 1); // so that the sanitizer sees a read beyond
            memcpy(exact, w.p, n);
            assert_int_equal(tls_hello_parse(str_n(exact, n), &h), TLS_HELLO_MORE);
            free(exact);
        }
        assert_int_equal(tls_hello_parse(w, &h), TLS_HELLO_FOUND);
        is_usual(&h);
        tls_hello_fini(&h);
    }
}

static void too_many_records_are_no_hello(void **state)
{
    (void)state;
    struct tls_hello h;
    assert_int_equal(tls_hello_parse(usual(1), &h), TLS_HELLO_NOT_TLS);
}

static void bytes_after_the_hello_do_not_matter(void **state)
{
    (void)state;
    struct str w = usual(16384);
    memset((char *)w.p + w.n, 0xff, 100);
    struct tls_hello h;
    assert_int_equal(tls_hello_parse(str_n(w.p, w.n + 100), &h), TLS_HELLO_FOUND);
    is_usual(&h);
}

static void hello_without_extensions(void **state)
{
    (void)state;
    struct buf exts = { 0 }, m = { 0 };
    message(&m, &exts, 0);
    struct tls_hello h;
    assert_int_equal(tls_hello_parse(records(&m, 16384), &h), TLS_HELLO_FOUND);
    assert_int_equal(h.server_name.n + h.alpn_count, 0);
}

static void other_protocols_are_known_at_once(void **state)
{
    (void)state;
    static const struct str v[] = {
        STR_INIT("G"), STR_INIT("*1\r\n"), STR_INIT("\x00"), STR_INIT("\x16\x02"), STR_INIT("\x16\x03\x05"),
        STR_INIT("\x16\x03\x01\x00\x05\x02"), // server hello
        STR_INIT("\x15\x03\x01\x00\x02"),     // alert
        STR_INIT("\x16\x03\x01\x00\x00"),     // empty record
        STR_INIT("\x16\x03\x01\x40\x01\x01"), // record too long
        STR_INIT("\x16\x03\x01\x00\x05\x01\x01\x00\x00"), // message of 64 KiB
    };
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
        struct tls_hello h;
        assert_int_equal(tls_hello_parse(v[i], &h), TLS_HELLO_NOT_TLS);
    }
}

static void check_ext(void (*make)(struct buf *exts), enum tls_hello_result want)
{
    struct buf exts = { 0 }, m = { 0 };
    make(&exts);
    message(&m, &exts, 0);
    struct tls_hello h;
    assert_int_equal(tls_hello_parse(records(&m, 16384), &h), want);
    if (want == TLS_HELLO_FOUND) {
        tls_hello_fini(&h);
    }
}

static void empty_sni(struct buf *e)
{
    sni_ext(e, STR(""));
}
static void sni_with_nul(struct buf *e)
{
    sni_ext(e, str_n("a\0b", 3));
}
static void long_sni(struct buf *e)
{
    static char big[256];
    memset(big, 'a', sizeof(big));
    sni_ext(e, str_n(big, sizeof(big)));
}
static void two_snis(struct buf *e)
{
    sni_ext(e, STR("a"));
    sni_ext(e, STR("b"));
}
static void empty_alpn_name(struct buf *e)
{
    static const struct str v[] = { STR_INIT("") };
    alpn_ext(e, v, 1);
}
static void cut_extension(struct buf *e)
{
    u16(e, 16);
    u16(e, 9);
    u8(e, 0);
}
static void alpn_list_too_short(struct buf *e)
{
    u16(e, 16);
    u16(e, 5);
    u16(e, 2);
    u8(e, 1);
    u8(e, 'a');
    u8(e, 'x'); // behind the list
}
static void max_sni(struct buf *e)
{
    static char big[255];
    memset(big, 'a', sizeof(big));
    sni_ext(e, str_n(big, sizeof(big)));
}

static void broken_extensions_are_no_hello(void **state)
{
    (void)state;
    check_ext(empty_sni, TLS_HELLO_NOT_TLS);
    check_ext(sni_with_nul, TLS_HELLO_NOT_TLS);
    check_ext(long_sni, TLS_HELLO_NOT_TLS);
    check_ext(two_snis, TLS_HELLO_NOT_TLS);
    check_ext(empty_alpn_name, TLS_HELLO_NOT_TLS);
    check_ext(cut_extension, TLS_HELLO_NOT_TLS);
    check_ext(alpn_list_too_short, TLS_HELLO_NOT_TLS);
    check_ext(max_sni, TLS_HELLO_FOUND);
}

static void more_alpn_than_is_kept(void **state)
{
    (void)state;
    struct str v[40];
    for (size_t i = 0; i < 40; i++) {
        v[i] = STR("h2");
    }
    struct buf exts = { 0 }, m = { 0 };
    alpn_ext(&exts, v, 40);
    message(&m, &exts, 0);
    struct tls_hello h;
    assert_int_equal(tls_hello_parse(records(&m, 16384), &h), TLS_HELLO_FOUND);
    assert_int_equal(h.alpn_count, TLS_HELLO_ALPN_MAX);
}

// Any byte of a good hello may be anything: never a crash, never a view outside.
static void mutated_hellos_are_harmless(void **state)
{
    (void)state;
    struct str w = usual(64);
    rand_seed(1);
    for (int i = 0; i < 20000; i++) {
        size_t n = rand_below(w.n) + 1;
        char *c = malloc(n);
        memcpy(c, w.p, n);
        for (int k = 0; k < 3; k++) {
            c[rand_below(n)] = (char)rand_u64();
        }
        struct tls_hello h;
        if (tls_hello_parse(str_n(c, n), &h) == TLS_HELLO_FOUND) {
            volatile char sum = 0;
            for (size_t k = 0; k < h.server_name.n; k++) {
                sum = (char)(sum + h.server_name.p[k]);
            }
            tls_hello_fini(&h);
        }
        free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_found),
        cmocka_unit_test(incomplete_hellos_ask_for_more),
        cmocka_unit_test(too_many_records_are_no_hello),
        cmocka_unit_test(bytes_after_the_hello_do_not_matter),
        cmocka_unit_test(hello_without_extensions),
        cmocka_unit_test(other_protocols_are_known_at_once),
        cmocka_unit_test(broken_extensions_are_no_hello),
        cmocka_unit_test(more_alpn_than_is_kept),
        cmocka_unit_test(mutated_hellos_are_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

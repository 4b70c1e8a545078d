// SPDX-License-Identifier: Apache-2.0
// PROXY protocol headers: what is taken, what is refused, and that writing is the reverse of parsing.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "lib/net/proxy_header.h"

#define SIG "\r\n\r\n\0\r\nQUIT\n"

static void verdicts(void **state)
{
    (void)state;
    static const struct {
        struct str bytes;
        enum proxy_header_result want;
    } cases[] = {
        { STR_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n"), PROXY_HEADER_FOUND },
        { STR_INIT("PROXY TCP6 ::1 2001:db8::2 1000 80\r\nrest"), PROXY_HEADER_FOUND },
        { STR_INIT("PROXY UNKNOWN\r\n"), PROXY_HEADER_FOUND },
        { STR_INIT("PROXY UNKNOWN ff:: x y z\r\n"), PROXY_HEADER_FOUND },
        { STR_INIT(""), PROXY_HEADER_MORE },
        { STR_INIT("PRO"), PROXY_HEADER_MORE },
        { STR_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r"), PROXY_HEADER_MORE },
        { STR_INIT("PRI * HTTP/2.0\r\n"), PROXY_HEADER_NONE },
        { STR_INIT("GET / HTTP/1.1\r\n"), PROXY_HEADER_NONE },
        { STR_INIT("\r\n\r\nGET"), PROXY_HEADER_NONE },
        { STR_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\rX"), PROXY_HEADER_BAD },
        { STR_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 1000\r\n"), PROXY_HEADER_BAD },
        { STR_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 1000 80 9\r\n"), PROXY_HEADER_BAD },
        { STR_INIT("PROXY TCP4  1.2.3.4 5.6.7.8 1000 80\r\n"), PROXY_HEADER_BAD },
        { STR_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 1000 65536\r\n"), PROXY_HEADER_BAD },
        { STR_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 +1 80\r\n"), PROXY_HEADER_BAD },
        { STR_INIT("PROXY TCP4 1.2.3.4 5.6.7.8 01 80\r\n"), PROXY_HEADER_BAD },
        { STR_INIT("PROXY TCP4 ::1 ::2 1 80\r\n"), PROXY_HEADER_BAD },
        { STR_INIT("PROXY TCP6 [::1] ::2 1 80\r\n"), PROXY_HEADER_BAD },
        { STR_INIT("PROXY TCP6 fe80::1%1 ::2 1 80\r\n"), PROXY_HEADER_BAD },
        { STR_INIT("PROXY UDP4 1.2.3.4 5.6.7.8 1000 80\r\n"), PROXY_HEADER_BAD },
        { STR_INIT("PROXY  \r\n"), PROXY_HEADER_BAD },
        { STR_INIT(SIG "\x21\x11\0\x0c\1\2\3\4\5\6\7\x8\0\x50\0\x51"), PROXY_HEADER_FOUND },
        { STR_INIT(SIG "\x20\0\0\0"), PROXY_HEADER_FOUND },
        { STR_INIT(SIG "\x20\xff\0\2xx"), PROXY_HEADER_FOUND }, // LOCAL: what it holds does not matter
        { STR_INIT(SIG "\x21\0\0\0"), PROXY_HEADER_FOUND },     // UNSPEC
        { STR_INIT(SIG "\x21\x11\0\x0c\1"), PROXY_HEADER_MORE },
        { STR_INIT("\r\n\r\n\0\r\nQ"), PROXY_HEADER_MORE },
        { STR_INIT(SIG "\x21\x11\0"), PROXY_HEADER_MORE },
        { STR_INIT(SIG "\x11\x11\0\x0c\1\2\3\4\5\6\7\x8\0\x50\0\x51"), PROXY_HEADER_BAD }, // version 1
        { STR_INIT(SIG "\x22\x11\0\x0c\1\2\3\4\5\6\7\x8\0\x50\0\x51"), PROXY_HEADER_BAD }, // command 2
        { STR_INIT(SIG "\x21\x12\0\x0c\1\2\3\4\5\6\7\x8\0\x50\0\x51"), PROXY_HEADER_BAD }, // UDP
        { STR_INIT(SIG "\x21\x11\0\x0b\1\2\3\4\5\6\7\x8\0\x50\0"), PROXY_HEADER_BAD },     // too short for its family
        { STR_INIT(SIG "\x21\x41\0\0"), PROXY_HEADER_BAD },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct proxy_header h;
        if (proxy_header_parse(cases[i].bytes, &h) != cases[i].want) {
            fail_msg("case %zu", i);
        }
    }
}

static void a_line_without_end_is_bad(void **state)
{
    (void)state;
    char line[200] = "PROXY UNKNOWN ";
    memset(line + 14, 'x', sizeof(line) - 14);
    struct proxy_header h;
    assert_int_equal(proxy_header_parse(str_n(line, PROXY_V1_BYTES_MAX - 1), &h), PROXY_HEADER_MORE);
    assert_int_equal(proxy_header_parse(str_n(line, PROXY_V1_BYTES_MAX), &h), PROXY_HEADER_BAD);
    memcpy(line + PROXY_V1_BYTES_MAX - 2, "\r\n", 2);
    assert_int_equal(proxy_header_parse(str_n(line, sizeof(line)), &h), PROXY_HEADER_FOUND);
    assert_int_equal(h.length, PROXY_V1_BYTES_MAX);
}

static void what_is_written_parses(void **state)
{
    (void)state;
    static const char *const pairs[][2] = { { "10.1.2.3:4000", "10.9.9.9:443" },
                                            { "[2001:db8::1]:1", "[::2]:65535" },
                                            { "1.2.3.4:5", "[::1]:6" } };
    struct str tlvs = STR("\x02\0\3abc\xe0\0\0");
    for (size_t i = 0; i < 3; i++) {
        for (int version = 1; version <= 2; version++) {
            struct addr s, d;
            assert_true(addr_parse(str_c(pairs[i][0]), &s) && addr_parse(str_c(pairs[i][1]), &d));
            struct buf b = { 0 };
            proxy_header_write(version, &s, &d, tlvs, &b);
            buf_append(&b, "payload", 7);
            struct proxy_header h;
            struct str all = buf_pullup(&b, b.len);
            assert_int_equal(proxy_header_parse(all, &h), PROXY_HEADER_FOUND);
            assert_int_equal(h.version, version);
            assert_int_equal(h.length, b.len - 7);
            assert_int_equal(h.local, i == 2);
            if (!h.local) {
                assert_true(addr_eq(&h.source, &s) && addr_eq(&h.destination, &d));
            }
            assert_int_equal(h.tlvs.n, version == 2 ? tlvs.n : 0);
            uint8_t type;
            struct str value;
            if (version == 2) {
                assert_true(proxy_tlv_next(&h.tlvs, &type, &value));
                assert_int_equal(type, 2);
                assert_true(str_is(value, "abc"));
                assert_true(proxy_tlv_next(&h.tlvs, &type, &value));
                assert_int_equal(type, 0xe0);
                assert_int_equal(value.n, 0);
            }
            assert_false(proxy_tlv_next(&h.tlvs, &type, &value));
            assert_int_equal(h.tlvs.n, 0);
            buf_clear(&b);
        }
    }
}

static void broken_tlvs_end(void **state)
{
    (void)state;
    struct str rest = STR("\1\0\1a\2\0\5bc"), value;
    uint8_t type;
    assert_true(proxy_tlv_next(&rest, &type, &value));
    assert_false(proxy_tlv_next(&rest, &type, &value));
    assert_int_not_equal(rest.n, 0);
}

static void too_many_tlvs_are_left_out(void **state)
{
    (void)state;
    char big[PROXY_HEADER_WRITE_MAX];
    memset(big, 0, sizeof(big));
    struct addr a;
    assert_true(addr_parse(STR("1.2.3.4:5"), &a));
    struct buf b = { 0 };
    proxy_header_write(2, &a, &a, str_n(big, sizeof(big)), &b);
    assert_int_equal(b.len, PROXY_V2_FIXED + 12);
    buf_clear(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdicts),        cmocka_unit_test(a_line_without_end_is_bad),  cmocka_unit_test(what_is_written_parses),
        cmocka_unit_test(broken_tlvs_end), cmocka_unit_test(too_many_tlvs_are_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

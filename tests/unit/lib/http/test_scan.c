// SPDX-License-Identifier: Apache-2.0
// Every byte value at every place: the scans against the byte classes and plain loops.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "lib/http/chars.h"
#include "lib/http/scan.h"

static void every_byte_everywhere(void **state)
{
    (void)state;
    for (int at = 0; at < SCAN_BYTES; at++) {
        for (int c = 0; c < 256; c++) {
            char text[SCAN_BYTES];
            memset(text, 'x', sizeof(text));
            text[at] = (char)c;
            uint32_t bit = 1u << at;
            bool control = (c < 0x20 && c != '\t') || c == 0x7f;
            bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '.';
            assert_int_equal(scan_control(text), control ? bit : 0);
            assert_int_equal(scan_not_target(text), ch_is((char)c, CH_PATH) ? 0 : bit);
            assert_int_equal(scan_not_plain_host(text), plain ? 0 : bit);
            assert_true(!plain || ch_is((char)c, CH_HOST));
            assert_int_equal(scan_equal(text, ':'), c == ':' ? bit : 0);
            assert_int_equal(scan_equal(text, (char)c), c == 'x' ? 0xffff : bit);
        }
    }
}

static void bits_of_any_pattern(void **state)
{
    (void)state;
    for (uint32_t want = 0; want < 1u << SCAN_BYTES; want++) {
        scan_v m = { 0 };
        for (int i = 0; i < SCAN_BYTES; i++) {
            m[i] = want >> i & 1 ? 0xff : 0;
        }
        assert_int_equal(scan_bits(m), want);
        assert_int_equal(scan_bits_anywhere(m), want);
        if (want) {
            assert_true(want >> scan_first(want) & 1);
            assert_int_equal(want & ((1u << scan_first(want)) - 1), 0);
        }
    }
}

static void short_pieces_are_seen_whole(void **state)
{
    (void)state;
    for (size_t n = 0; n < SCAN_BYTES; n++) {
        char text[SCAN_BYTES + 2];
        memset(text, '!', sizeof(text)); // what stands beside them is not looked at
        memset(text + 1, 'y', n);
        assert_int_equal(scan_bits((scan_v)(scan_load_short(text + 1, n) == SCAN_ALL('!'))), 0);
        for (size_t at = 0; at < n; at++) {
            text[1 + at] = '#';
            assert_int_not_equal(scan_bits((scan_v)(scan_load_short(text + 1, n) == SCAN_ALL('#'))), 0);
            text[1 + at] = 'y';
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_byte_everywhere), cmocka_unit_test(bits_of_any_pattern),
                                        cmocka_unit_test(short_pieces_are_seen_whole) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

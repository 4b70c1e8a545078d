// SPDX-License-Identifier: Apache-2.0
// What is learned of destinations, and what a server's first bytes say.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "proxy/listener/first_speaker.h"

static struct addr at(unsigned host, uint16_t port)
{
    struct addr a = { .family = AF_INET, .port = port, .ip = { 10, (uint8_t)(host >> 16), (uint8_t)(host >> 8), (uint8_t)host } };
    return a;
}

static void learns_and_forgets(void **state)
{
    (void)state;
    struct addr a = at(1, 3306), b = at(1, 80), none = { 0 };
    assert_int_equal(speaker_get(NULL, &a, 5), SPEAKER_UNKNOWN);
    struct speaker_table *t = speaker_table_new();
    speaker_learn(t, &a, SPEAKER_SERVER, 1000);
    assert_int_equal(speaker_get(t, &a, 1000), SPEAKER_SERVER);
    assert_int_equal(speaker_get(t, &b, 1000), SPEAKER_UNKNOWN); // the port counts
    speaker_learn(t, &a, SPEAKER_CLIENT, 2000);
    assert_int_equal(speaker_get(t, &a, 2000 + SPEAKER_TTL_MS), SPEAKER_CLIENT);
    assert_int_equal(speaker_get(t, &a, 2001 + SPEAKER_TTL_MS), SPEAKER_UNKNOWN);
    speaker_learn(t, &none, SPEAKER_SERVER, 1);
    assert_int_equal(speaker_get(t, &none, 1), SPEAKER_UNKNOWN);
    speaker_table_free(t);
}

static void ipv6_is_not_ipv4(void **state)
{
    (void)state;
    struct speaker_table *t = speaker_table_new();
    struct addr a = at(7, 25), b = a;
    b.family = AF_INET6;
    speaker_learn(t, &a, SPEAKER_SERVER, 1);
    assert_int_equal(speaker_get(t, &b, 1), SPEAKER_UNKNOWN);
    speaker_table_free(t);
}

// However many destinations: the table stays as it is, and the latest one is known.
static void is_bounded(void **state)
{
    (void)state;
    struct speaker_table *t = speaker_table_new();
    unsigned known = 0, n = SPEAKER_SETS * SPEAKER_WAYS * 4;
    for (unsigned i = 0; i < n; i++) {
        struct addr a = at(i, 80);
        speaker_learn(t, &a, SPEAKER_SERVER, i);
        assert_int_equal(speaker_get(t, &a, i), SPEAKER_SERVER);
    }
    for (unsigned i = 0; i < n; i++) {
        struct addr a = at(i, 80);
        known += speaker_get(t, &a, n) == SPEAKER_SERVER;
    }
    assert_in_range(known, SPEAKER_SETS, SPEAKER_SETS * SPEAKER_WAYS);
    speaker_table_free(t);
}

static void first_words_of_servers(void **state)
{
    (void)state;
    static const struct {
        struct str words;
        enum first_words want;
    } cases[] = {
        { STR_INIT("220 mail ESMTP\r\n"), FIRST_WORDS_OTHER },
        { STR_INIT("SSH-2.0-x\r\n"), FIRST_WORDS_OTHER },
        { STR_INIT("\x4a\0\0\0\x0a"), FIRST_WORDS_OTHER }, // MySQL
        { STR_INIT("HTTP/1.0 408 Request Time-out\r\n"), FIRST_WORDS_HTTP },
        { STR_INIT("HTTP/"), FIRST_WORDS_HTTP },
        { STR_INIT("HTT"), FIRST_WORDS_MORE },
        { STR_INIT("HELO"), FIRST_WORDS_OTHER },
        { STR_INIT("\0\0\0\4\0\0\0\0\0"), FIRST_WORDS_HTTP }, // empty SETTINGS
        { STR_INIT("\0\0\x12\4\0\0\0\0\0\0\3"), FIRST_WORDS_HTTP },
        { STR_INIT("\0\0\x12\4"), FIRST_WORDS_MORE },
        { STR_INIT("\0"), FIRST_WORDS_MORE },
        { STR_INIT("\0\0\x13"), FIRST_WORDS_OTHER },             // SETTINGS are multiples of six
        { STR_INIT("\0\0\x12\4\1\0\0\0\0"), FIRST_WORDS_OTHER }, // an acknowledgement of nothing
        { STR_INIT("\0\0\x12\6\0\0\0\0\0"), FIRST_WORDS_OTHER },
        { STR_INIT(""), FIRST_WORDS_MORE },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(first_words(cases[i].words), cases[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learns_and_forgets),
        cmocka_unit_test(ipv6_is_not_ipv4),
        cmocka_unit_test(is_bounded),
        cmocka_unit_test(first_words_of_servers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

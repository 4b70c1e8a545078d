// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/filters/listener/http_peek.h"

static void versions(void **state)
{
    (void)state;
    static const struct { struct str bytes; enum http_peek_result want; } rows[] = {
        { STR_INIT("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), HTTP_PEEK_11 },
        { STR_INIT("POST /a?b=c HTTP/1.0\r\n"), HTTP_PEEK_10 },
        { STR_INIT("VERSION-CONTROL /x HTTP/1.1"), HTTP_PEEK_11 },
        { STR_INIT("OPTIONS * HTTP/1.1"), HTTP_PEEK_11 },
        { STR_INIT("CONNECT a:443 HTTP/1.1\r\n"), HTTP_PEEK_11 },
        { STR_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"), HTTP_PEEK_2 },
        { STR_INIT("GET / HTTP/1.2\r\n"), HTTP_PEEK_NOT_HTTP },
        { STR_INIT("GET / HTTP/2.0\r\n"), HTTP_PEEK_NOT_HTTP },
        { STR_INIT("GET /\r\n"), HTTP_PEEK_NOT_HTTP }, // HTTP/0.9
        { STR_INIT("GET  HTTP/1.1\r\n"), HTTP_PEEK_NOT_HTTP },
        { STR_INIT("GET\t/ HTTP/1.1"), HTTP_PEEK_NOT_HTTP },
        { STR_INIT("get / HTTP/1.1"), HTTP_PEEK_NOT_HTTP },
        { STR_INIT("GETX / HTTP/1.1"), HTTP_PEEK_NOT_HTTP },
        { STR_INIT(" GET / HTTP/1.1"), HTTP_PEEK_NOT_HTTP },
        { STR_INIT("PRI * HTTP/2.0\r\n\r\nXX"), HTTP_PEEK_NOT_HTTP },
        { STR_INIT("*1\r\n$4\r\nPING\r\n"), HTTP_PEEK_NOT_HTTP }, // redis
        { STR_INIT("\x16\x03\x01"), HTTP_PEEK_NOT_HTTP },
        { STR_INIT("SET a b\r\n"), HTTP_PEEK_NOT_HTTP },
        { STR_INIT("PUT a b\r\n"), HTTP_PEEK_NOT_HTTP },
        { STR_INIT("EHLO x\r\n"), HTTP_PEEK_NOT_HTTP },
        { STR_INIT("\0"), HTTP_PEEK_NOT_HTTP },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(http_peek(rows[i].bytes), rows[i].want);
    }
}

// Every beginning of a request waits, and none of them is something else.
static void beginnings_wait(void **state)
{
    (void)state;
    static const struct str v[] = { STR_INIT("GET / HTTP/1."), STR_INIT("PROPPATCH /x HTTP/1."), STR_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r") };
    for (size_t k = 0; k < 3; k++) {
        for (size_t n = 0; n <= v[k].n; n++) {
            char *exact = malloc(n ? n : 1); // so that the sanitizer sees a read beyond
            memcpy(exact, v[k].p, n);
            assert_int_equal(http_peek(str_n(exact, n)), HTTP_PEEK_MORE);
            free(exact);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(versions), cmocka_unit_test(beginnings_wait) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

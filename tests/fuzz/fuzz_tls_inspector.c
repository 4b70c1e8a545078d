// SPDX-License-Identifier: Apache-2.0
// ClientHello parser: no crash, views inside the input (or the joined copy), and more bytes never turn FOUND into something else.
#include <stdlib.h>

#include "lib/base/check.h"
#include "proxy/filters/listener/tls_hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(struct str s, const struct tls_hello *h, const uint8_t *data, size_t size)
{
    if (!h->joined && s.n) {
        CHECK(s.p >= (const char *)data && s.p + s.n <= (const char *)data + size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tls_hello h;
    enum tls_hello_result whole = tls_hello_parse(str_n(data, size), &h);
    if (whole == TLS_HELLO_FOUND) {
        CHECK(h.server_name.n <= TLS_HELLO_NAME_MAX && h.alpn_count <= TLS_HELLO_ALPN_MAX);
        inside(h.server_name, &h, data, size);
        for (size_t i = 0; i < h.alpn_count; i++) {
            CHECK(h.alpn[i].n > 0);
            inside(h.alpn[i], &h, data, size);
        }
        tls_hello_fini(&h);
    }
    // The verdict on a beginning is either "more" or the verdict on the whole.
    size_t cut = size / 2;
    enum tls_hello_result half = tls_hello_parse(str_n(data, cut), &h);
    if (half == TLS_HELLO_FOUND) {
        tls_hello_fini(&h);
    }
    CHECK(half == TLS_HELLO_MORE || half == whole);
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
// PROXY header parser: no crash, views inside the input, a beginning says "more" or what the whole says, and what it found can be written and found
// again.
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/net/proxy_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void again(const struct proxy_header *h)
{
    struct buf b = { 0 };
    struct proxy_header back;
    proxy_header_write(h->version, &h->source, &h->destination, h->tlvs, &b);
    CHECK(proxy_header_parse(buf_pullup(&b, b.len), &back) == PROXY_HEADER_FOUND && back.length == b.len);
    CHECK(back.local == h->local && (h->local || (addr_eq(&back.source, &h->source) && addr_eq(&back.destination, &h->destination))));
    buf_clear(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header h, part;
    enum proxy_header_result whole = proxy_header_parse(str_n(data, size), &h);
    if (whole == PROXY_HEADER_FOUND) {
        CHECK(h.length <= size && h.length <= PROXY_V2_BYTES_MAX);
        CHECK(!h.tlvs.n || (h.tlvs.p >= (const char *)data && h.tlvs.p + h.tlvs.n <= (const char *)data + h.length));
        struct str rest = h.tlvs, value;
        uint8_t type;
        while (proxy_tlv_next(&rest, &type, &value)) {
        }
        again(&h);
    }
    enum proxy_header_result half = proxy_header_parse(str_n(data, size / 2), &part);
    CHECK(half == PROXY_HEADER_MORE || half == whole);
    return 0;
}

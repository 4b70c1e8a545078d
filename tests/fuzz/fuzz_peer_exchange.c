// SPDX-License-Identifier: Apache-2.0
// A peer's metadata message: no crash, never more bytes than there are, a beginning says "more" or what the whole says.
#include <stdlib.h>

#include "lib/base/check.h"
#include "proxy/filters/network/peer_exchange.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct peer_info p = { 0 };
    size_t n = 0;
    if (size == 0) {
        return 0;
    }
    arena_init(&a, 1024, 0);
    enum peer_exchange_result whole = peer_exchange_parse(str_n(data, size), &a, &p, &n);
    CHECK(n <= size && (n == 0) == (whole != PEER_EXCHANGE_FOUND && whole != PEER_EXCHANGE_UNKNOWN));
    CHECK(whole != PEER_EXCHANGE_MORE || peer_exchange_wants(str_n(data, size)) > size);
    if (size > 1) {
        enum peer_exchange_result half = peer_exchange_parse(str_n(data, size / 2), &a, &p, &n);
        CHECK(half == PEER_EXCHANGE_MORE || half == whole);
    }
    arena_fini(&a);
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
// fuzz-modules: lib/http lib/net lib/event lib/base
// First byte: options; then requests as they come on one connection.
#include "tests/fuzz/fuzz_h1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct replay_opts o = { .request = true, .limits = h1_limits_default };
    o.limits.allow_http10 = data[0] & 1;
    o.limits.allow_absolute_url = !(data[0] & 2);
    if (data[0] & 4) {
        o.limits.head_bytes = 128;
        o.limits.header_count = 4;
    }
    fuzz_h1(o, data + 1, size - 1);
    return 0;
}

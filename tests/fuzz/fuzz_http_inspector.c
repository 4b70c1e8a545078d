// SPDX-License-Identifier: Apache-2.0
// HTTP detection: no crash, and the verdict on a beginning is either "more" or the verdict on the whole.
#include "lib/base/check.h"
#include "proxy/filters/listener/http_peek.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum http_peek_result whole = http_peek(str_n(data, size));
    for (size_t n = 0; n < size && n < 64; n++) {
        enum http_peek_result part = http_peek(str_n(data, n));
        CHECK(part == HTTP_PEEK_MORE || part == whole);
    }
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
// What the HTTP/1 request and response targets have in common: the verdict does not depend on the pieces, and what goes out is
// read again as the same.
#ifndef TESTS_FUZZ_FUZZ_H1_H
#define TESTS_FUZZ_FUZZ_H1_H

#include "lib/base/check.h"
#include "tests/conformance/h1/replay.h"

static inline void fuzz_h1_same(struct replay *a, struct replay *b)
{
    CHECK(a->error == b->error && a->messages == b->messages && a->closed == b->closed);
    CHECK(str_eq(buf_pullup(&a->out, a->out.len), buf_pullup(&b->out, b->out.len)));
}

// o: options without pieces.
static inline void fuzz_h1(struct replay_opts o, const uint8_t *data, size_t size)
{
    struct replay whole = replay(&o, data, size);
    const size_t steps[] = { 1, 3, 0 };
    for (int i = 0; i < 3; i++) {
        struct replay_opts cut = o;
        cut.step = steps[i];
        cut.first = steps[i] ? steps[i] : 1 + (size ? data[size / 2] : 0);
        struct replay pieces = replay(&cut, data, size);
        fuzz_h1_same(&whole, &pieces);
        buf_clear(&pieces.out);
    }
    // Our own writer may add a field (Connection beside TE) and blanks.
    o.limits.header_count *= 3;
    o.limits.head_bytes *= 3;
    struct str out = buf_pullup(&whole.out, whole.out.len);
    struct replay again = replay(&o, out.p, out.n);
    CHECK(again.error == H1_OK && again.messages == whole.messages);
    CHECK(str_eq(out, buf_pullup(&again.out, again.out.len)));
    buf_clear(&again.out);
    buf_clear(&whole.out);
}

#endif

// SPDX-License-Identifier: Apache-2.0
// fuzz-modules: lib/http lib/net lib/event lib/base
// The HTTP/1 parser and writer against a second reader (strict_h1.h). First byte: options; then the bytes of one connection.
// Held: what goes out is read by the second reader as the same number of messages without a doubt; what it reads in the input is
// what came out; and what it finds without fault is not refused, but for named limits.
#include "lib/base/check.h"
#include "tests/conformance/h1/replay.h"
#include "tests/fuzz/strict_h1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Refusals that are policy, not syntax.
static bool is_policy(enum h1_error e)
{
    return e == H1_ERR_HEAD_TOO_LARGE || e == H1_ERR_TOO_MANY_HEADERS || e == H1_ERR_TRAILER || e == H1_ERR_CONNECTION_HEADER ||
           e == H1_ERR_HOST_INVALID || e == H1_ERR_HTTP10;
}

static bool tunnel(const struct strict *s)
{
    return s->doubt && (strcmp(s->doubt, "101") == 0 || strcmp(s->doubt, "CONNECT") == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct replay_opts o = { .request = !(data[0] & 1), .head = (data[0] & 3) == 3, .limits = h1_limits_default };
    o.limits.lenient = data[0] & 4;
    o.limits.allow_http10 = data[0] & 8;
    o.limits.allow_chunked_length = data[0] & 16;
    static struct strict in, out;
    memset(&in, 0, sizeof(in));
    memset(&out, 0, sizeof(out));
    struct replay r = replay(&o, data + 1, size - 1);
    struct str text = buf_pullup(&r.out, r.out.len);
    in.p = (const char *)data + 1;
    in.n = size - 1;
    out.p = text.p;
    out.n = text.n;
    in.request = out.request = o.request;
    in.head = out.head = o.head;
    in.eof = out.eof = true;
    strict_read(&in);
    strict_read(&out);
    if (r.messages <= STRICT_MESSAGES_MAX && !tunnel(&out)) {
        bool host = out.doubt && strcmp(out.doubt, "host") == 0; // the second reader knows plain names only
        CHECK(host || (!out.doubt && out.count == r.messages && out.at == out.n));
    }
    for (unsigned i = 0; i < in.count && i < out.count; i++) {
        CHECK(in.v[i].digest == out.v[i].digest && in.v[i].body == out.v[i].body);
    }
    if (!is_policy(r.error) && !(out.doubt && !tunnel(&out))) {
        CHECK(r.messages >= in.count || r.messages > STRICT_MESSAGES_MAX);
    }
    buf_clear(&r.out);
    return 0;
}

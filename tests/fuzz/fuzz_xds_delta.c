// SPDX-License-Identifier: Apache-2.0
// Fuzz target of the delta machine: hostile responses between subscriptions and reconnects.
#include "tests/fuzz/fuzz_xds.h"
#include "xds-client/delta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void drain(struct fuzz_xds *f, struct xds_delta *m)
{
    struct xds_view v = fuzz_view(f);
    struct buf b = { 0 };
    int n = 0;
    while (xds_delta_next(m, &v, &b)) {
        fuzz_check_request(&envoy__service__discovery__v3__delta_discovery_request__descriptor, &b);
        CHECK(++n <= XDS_TYPE_COUNT); // asks once for each type, not for ever
    }
}

static void respond(struct fuzz_xds *f, struct xds_delta *m, struct str bytes)
{
    struct xds_view v = fuzz_view(f);
    struct xds_response r;
    struct err err;
    struct buf b = { 0 };
    int rc = xds_delta_decode(m, bytes, &f->a, &r, &err);
    if (rc == 0) {
        xds_delta_answer(m, &v, &r, fuzz_apply(f, &r), &b);
        fuzz_check_request(&envoy__service__discovery__v3__delta_discovery_request__descriptor, &b);
    } else {
        CHECK(rc == -ENOENT || rc == -EBADMSG);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_xds f = { 0 };
    struct xds_delta m = { 0 };
    struct str in = str_n(data, size);
    for (int steps = 0; in.n && steps < 64; steps++) {
        uint8_t op = (uint8_t)in.p[0];
        in = str_skip(in, 1);
        switch (op % FUZZ_OPS) {
        case FUZZ_RESPONSE:
            respond(&f, &m, fuzz_operand(&in));
            break;
        case FUZZ_SUBSCRIBE:
            fuzz_subscribe(&f, (enum xds_type)(op / FUZZ_OPS % XDS_TYPE_COUNT), fuzz_operand(&in));
            break;
        case FUZZ_STREAM:
            xds_delta_start(&m);
            break;
        default:
            drain(&f, &m);
            break;
        }
        fuzz_check(&f);
    }
    xds_delta_fini(&m);
    fuzz_fini(&f);
    return 0;
}

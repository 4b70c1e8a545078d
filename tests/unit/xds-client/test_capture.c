// SPDX-License-Identifier: Apache-2.0
// The responses of a real istiod through the machines: every resource arrives, none is refused, a second time nothing changes.
// Reads tests/golden/istiod, and the folder named by REMORA_CAPTURE when that is set (all of …/delta/*/NN-TYPE.response.pb).
#include <ftw.h>

#include "lib/base/file.h"
#include "tests/unit/xds-client/helpers.h"
#include "xds-client/delta.h"
#include "xds-client/resource_types.h"
#include "xds-client/sotw.h"

enum { FILES_MAX = 500, FILE_MAX_BYTES = 64 * 1024 * 1024 };

static char *files[FILES_MAX];
static size_t n_files;

static int collect(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    if (type == FTW_F && strstr(path, ".response.pb") && n_files < FILES_MAX) {
        files[n_files++] = strdup(path);
    }
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    const char *more = getenv("REMORA_CAPTURE");
    return nftw("tests/golden/istiod", collect, 16, FTW_PHYS) || (more && nftw(more, collect, 16, FTW_PHYS));
}

static int tear_down(void **state)
{
    (void)state;
    while (n_files) {
        free(files[--n_files]);
    }
    return 0;
}

static int type_of_file(const char *path)
{
    const char *dash = strrchr(path, '-');
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        const char *s = xds_type_short((enum xds_type)t);
        if (strncmp(dash + 1, s, strlen(s)) == 0 && dash[1 + strlen(s)] == '.') {
            return t;
        }
    }
    fail_msg("%s: no such type", path);
    return -1;
}

// Subscribes to the names that the response, read with the generated code, has. Returns their count.
static size_t want_all(struct world *w, enum xds_type t, bool delta, struct str bytes)
{
    struct str *names = arena_alloc(&w->a, sizeof(*names) * 1000);
    size_t n = 0;
    struct err err = { 0 };
    if (delta) {
        Envoy__Service__Discovery__V3__DeltaDiscoveryResponse *m = NULL;
        assert_int_equal(pb_unpack_as(Envoy__Service__Discovery__V3__DeltaDiscoveryResponse,
                                      envoy__service__discovery__v3__delta_discovery_response, bytes, &w->a, &m, &err),
                         0);
        for (; n < m->n_resources && n < 1000; n++) {
            names[n] = str_c(m->resources[n]->name);
        }
    } else {
        Envoy__Service__Discovery__V3__DiscoveryResponse *m = NULL;
        assert_int_equal(pb_unpack_as(Envoy__Service__Discovery__V3__DiscoveryResponse, envoy__service__discovery__v3__discovery_response,
                                      bytes, &w->a, &m, &err),
                         0);
        for (; n < m->n_resources && n < 1000; n++) {
            ProtobufCMessage *r = NULL;
            assert_int_equal(pb_any_unpack(m->resources[n], NULL, &w->a, &r, &err), 0);
            if (!xds_type_info(t)->wildcard) {
                names[n] = str_c(*(char **)(void *)(r + 1)); // the first field is the name
            }
        }
    }
    bool wildcard = xds_type_info(t)->wildcard;
    xds_sub_set(&w->subs[t], wildcard, names, wildcard ? 0 : n, 1);
    return n;
}

static void through_delta(struct world *w, struct str bytes, enum xds_type t, struct xds_response *r)
{
    struct xds_delta d = { 0 };
    struct xds_view v = world_view(w);
    struct buf b = { 0 };
    struct err err = { 0 };
    xds_delta_start(&d);
    assert_true(xds_delta_next(&d, &v, &b));
    buf_clear(&b);
    assert_int_equal(xds_delta_decode(&d, bytes, &w->a, r, &err), 0);
    assert_int_equal(r->type, t);
    struct str nack = world_apply(w, r);
    assert_int_equal(nack.n, 0);
    xds_delta_answer(&d, &v, r, nack, &b);
    delta_request *q = read_delta(&w->a, take_buf(&b, &w->a));
    assert_true(str_eq(str_c(q->response_nonce), r->nonce) && r->nonce.n > 0);
    assert_null(q->error_detail);
    xds_delta_fini(&d);
}

static void through_sotw(struct world *w, struct str bytes, enum xds_type t, struct xds_response *r)
{
    struct xds_sotw s = { 0 };
    struct xds_view v = world_view(w);
    struct buf b = { 0 };
    struct err err = { 0 };
    xds_sotw_start(&s);
    assert_true(xds_sotw_next(&s, &v, &b));
    buf_clear(&b);
    assert_int_equal(xds_sotw_decode(&s, bytes, &w->a, r, &err), 0);
    assert_int_equal(r->type, t);
    struct str nack = world_apply(w, r);
    assert_int_equal(nack.n, 0);
    xds_sotw_answer(&s, &v, r, nack, &b);
    sotw_request *q = read_sotw(&w->a, take_buf(&b, &w->a));
    assert_true(str_eq(str_c(q->version_info), r->version) && r->version.n > 0);
    assert_null(q->error_detail);
    xds_sotw_fini(&s);
}

static size_t count_of(const char *path)
{
    struct world w = { 0 };
    struct str bytes;
    struct err err = { 0 };
    struct xds_response r;
    enum xds_type t = (enum xds_type)type_of_file(path);
    bool delta = strstr(path, "/delta/") != NULL;
    assert_int_equal(file_read(path, FILE_MAX_BYTES, &w.a, &bytes, &err), 0);
    size_t n = want_all(&w, t, delta, bytes);
    for (int round = 0; round < 2; round++) {
        w.sink.calls = 0;
        (delta ? through_delta : through_sotw)(&w, bytes, t, &r);
        assert_int_equal(w.stores[t].accepted, n);
        assert_int_equal(w.sink.calls, round == 0);
    }
    world_fini(&w);
    return n;
}

static void every_resource_arrives_once(void **state)
{
    (void)state;
    assert_true(n_files >= 10);
    for (size_t i = 0; i < n_files; i++) {
        count_of(files[i]);
    }
}

// SUMMARY.json of the captures.
static void counts_are_those_of_the_capture(void **state)
{
    (void)state;
    assert_int_equal(count_of("tests/golden/istiod/delta/productpage/01-CDS.response.pb"), 52);
    assert_int_equal(count_of("tests/golden/istiod/delta/productpage/02-EDS.response.pb"), 35);
    assert_int_equal(count_of("tests/golden/istiod/delta/productpage/03-LDS.response.pb"), 35);
    assert_int_equal(count_of("tests/golden/istiod/delta/productpage/04-NDS.response.pb"), 1);
    assert_int_equal(count_of("tests/golden/istiod/delta/productpage/05-RDS.response.pb"), 18);
    assert_int_equal(count_of("tests/golden/istiod/delta/productpage-tls/03-SDS.response.pb"), 1);
    assert_int_equal(count_of("tests/golden/istiod/sotw/ratings/02-EDS.response.pb"), 35);
    assert_int_equal(count_of("tests/golden/istiod/sotw/ratings/03-LDS.response.pb"), 35);
    assert_int_equal(count_of("tests/golden/istiod/sotw/ratings/06-ECDS.response.pb"), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_resource_arrives_once),
        cmocka_unit_test(counts_are_those_of_the_capture),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xds-client/helpers.h"
#include "xds-client/sotw.h"

#include <errno.h>

struct fixture {
    struct world w;
    struct xds_sotw s;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    xds_sotw_start(&f->s);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    xds_sotw_fini(&f->s);
    world_fini(&f->w);
    free(f);
    return 0;
}

static sotw_request *next(struct fixture *f)
{
    struct buf b = { 0 };
    struct xds_view v = world_view(&f->w);
    if (!xds_sotw_next(&f->s, &v, &b)) {
        assert_int_equal(buf_len(&b), 0);
        return NULL;
    }
    return read_sotw(&f->w.a, take_buf(&b, &f->w.a));
}

static sotw_request *respond(struct fixture *f, struct str bytes)
{
    struct xds_response r;
    struct err err;
    struct buf b = { 0 };
    struct xds_view v = world_view(&f->w);
    assert_int_equal(xds_sotw_decode(&f->s, bytes, &f->w.a, &r, &err), 0);
    xds_sotw_answer(&f->s, &v, &r, world_apply(&f->w, &r), &b);
    return read_sotw(&f->w.a, take_buf(&b, &f->w.a));
}

#define RESPOND(f, t, nonce, version, ...)                                                                                                 \
    respond((f), sotw_response(&(f)->w.a, (t), (nonce), (version), (struct res[]){ __VA_ARGS__ },                                          \
                               sizeof((struct res[]){ __VA_ARGS__ }) / sizeof(struct res)))

static void ack_carries_version_nonce_and_all_names(void **state)
{
    struct fixture *f = *state;
    const char *ab[] = { "a", "b" };
    world_want(&f->w, XDS_ENDPOINT, false, ab, 2);
    sotw_request *q = next(f);
    assert_string_equal(q->node->id, "me");
    assert_string_equal(q->version_info, "");
    assert_int_equal(q->n_resource_names, 2);
    q = RESPOND(f, XDS_ENDPOINT, "n1", "5", { .name = "a" }, { .name = "b" });
    assert_null(q->node);
    assert_string_equal(q->version_info, "5");
    assert_string_equal(q->response_nonce, "n1");
    assert_int_equal(q->n_resource_names, 2);
    assert_true(has(q->resource_names, 2, "a") && has(q->resource_names, 2, "b"));
    assert_null(next(f));
}

static void nack_repeats_the_old_version(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    RESPOND(f, XDS_CLUSTER, "n1", "1", { .name = "a", .body = "1" }, { .name = "b", .body = "1" });
    f->w.sink.refuse = "b";
    sotw_request *q = RESPOND(f, XDS_CLUSTER, "n2", "2", { .name = "a", .body = "2" }, { .name = "b", .body = "2" });
    assert_string_equal(q->version_info, "1");
    assert_string_equal(q->response_nonce, "n2");
    assert_int_equal(q->error_detail->code, 13);
    assert_string_equal(q->error_detail->message, "b: some.field: no good");
    struct xds_store *s = &f->w.stores[XDS_CLUSTER];
    assert_true(str_eq(xds_store_get(s, STR("a"))->r.bytes, message(&f->w.a, "a", "2")));
    assert_true(str_eq(xds_store_get(s, STR("b"))->r.bytes, message(&f->w.a, "b", "1")));
    assert_string_equal(xds_store_get(s, STR("b"))->r.failed_version.p, "2");
}

static void full_state_types_drop_what_is_left_out(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    RESPOND(f, XDS_CLUSTER, "n1", "1", { .name = "a" }, { .name = "b" }, { .name = "c" });
    xds_store_put(&f->w.stores[XDS_CLUSTER], STR("static"), STR("x"), STR(""), STR(""), XDS_ORIGIN_STATIC, 1);
    log_sink_clear(&f->w.sink);
    f->w.sink.refuse = "c"; // refused is not left out
    RESPOND(f, XDS_CLUSTER, "n2", "2", { .name = "a" }, { .name = "c", .body = "2" });
    assert_string_equal(f->w.sink.text, "+c -b");
    assert_int_equal(f->w.stores[XDS_CLUSTER].accepted, 3);
    assert_null(xds_store_get(&f->w.stores[XDS_CLUSTER], STR("b")));
}

static void refused_names_do_not_pile_up(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    f->w.sink.refuse = "bad";
    RESPOND(f, XDS_CLUSTER, "n1", "1", { .name = "a" }, { .name = "bad" });
    assert_int_equal(f->w.stores[XDS_CLUSTER].entries.count, 2);
    RESPOND(f, XDS_CLUSTER, "n2", "2", { .name = "a" });
    assert_int_equal(f->w.stores[XDS_CLUSTER].entries.count, 1);
}

static void partial_types_keep_what_is_left_out(void **state)
{
    struct fixture *f = *state;
    const char *ab[] = { "a", "b" };
    world_want(&f->w, XDS_ENDPOINT, false, ab, 2);
    next(f);
    RESPOND(f, XDS_ENDPOINT, "n1", "1", { .name = "a" }, { .name = "b" });
    log_sink_clear(&f->w.sink);
    RESPOND(f, XDS_ENDPOINT, "n2", "2", { .name = "b", .body = "2" });
    assert_string_equal(f->w.sink.text, "+b");
    assert_int_equal(f->w.stores[XDS_ENDPOINT].accepted, 2);
}

static void full_state_with_names_covers_only_those(void **state)
{
    struct fixture *f = *state;
    const char *ab[] = { "a", "b" };
    world_want(&f->w, XDS_CLUSTER, true, ab, 2);
    next(f);
    RESPOND(f, XDS_CLUSTER, "n1", "1", { .name = "a" }, { .name = "b" });
    log_sink_clear(&f->w.sink);
    RESPOND(f, XDS_CLUSTER, "n2", "2", { .name = "b", .body = "2" });
    assert_string_equal(f->w.sink.text, "+b");
    assert_int_equal(f->w.stores[XDS_CLUSTER].accepted, 2);
}

static void changed_names_follow_a_nack_in_their_own_request(void **state)
{
    struct fixture *f = *state;
    const char *a[] = { "a" }, *ab[] = { "a", "b" };
    world_want(&f->w, XDS_ROUTE, false, a, 1);
    next(f);
    RESPOND(f, XDS_ROUTE, "n1", "1", { .name = "a" });
    world_want(&f->w, XDS_ROUTE, false, ab, 2);
    f->w.sink.refuse = "a";
    sotw_request *q = RESPOND(f, XDS_ROUTE, "n2", "2", { .name = "a", .body = "2" });
    assert_non_null(q->error_detail);
    assert_int_equal(q->n_resource_names, 1);
    q = next(f);
    assert_null(q->error_detail);
    assert_int_equal(q->n_resource_names, 2);
    assert_string_equal(q->response_nonce, "n2");
    assert_string_equal(q->version_info, "1");
    assert_null(next(f));
}

static void last_name_gone_is_an_empty_request(void **state)
{
    struct fixture *f = *state;
    const char *a[] = { "a" };
    world_want(&f->w, XDS_ROUTE, false, a, 1);
    next(f);
    world_want(&f->w, XDS_ROUTE, false, NULL, 0);
    sotw_request *q = next(f);
    assert_int_equal(q->n_resource_names, 0);
    assert_null(next(f));
}

static void reconnect_keeps_version_and_forgets_nonce(void **state)
{
    struct fixture *f = *state;
    const char *a[] = { "a" };
    world_want(&f->w, XDS_ENDPOINT, false, a, 1);
    next(f);
    RESPOND(f, XDS_ENDPOINT, "n1", "9", { .name = "a" });
    xds_sotw_start(&f->s);
    sotw_request *q = next(f);
    assert_string_equal(q->node->id, "me");
    assert_string_equal(q->version_info, "9");
    assert_string_equal(q->response_nonce, "");
    assert_int_equal(q->n_resource_names, 1);
    log_sink_clear(&f->w.sink);
    RESPOND(f, XDS_ENDPOINT, "m1", "9", { .name = "a" });
    assert_int_equal(f->w.sink.calls, 0);
}

static void resource_wrapper_is_unwrapped(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    struct buf any = { 0 }, res = { 0 }, outer = { 0 }, resp = { 0 };
    wire_put_str(&any, 1, xds_type_url(XDS_CLUSTER));
    wire_put_bytes(&any, 2, message(&f->w.a, "a", "1"));
    wire_put_str(&res, 3, STR("a"));
    wire_put_str(&res, 1, STR("rv"));
    wire_put_message(&res, 2, &any);
    wire_put_str(&outer, 1, STR("type.googleapis.com/envoy.service.discovery.v3.Resource"));
    wire_put_message(&outer, 2, &res);
    wire_put_message(&resp, 2, &outer);
    wire_put_str(&resp, 4, xds_type_url(XDS_CLUSTER));
    sotw_request *q = respond(f, take_buf(&resp, &f->w.a));
    assert_null(q->error_detail);
    assert_string_equal(xds_store_get(&f->w.stores[XDS_CLUSTER], STR("a"))->r.version.p, "rv");
}

static void singleton_has_a_name(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_NAMETABLE, true, NULL, 0);
    next(f);
    sotw_request *q = RESPOND(f, XDS_NAMETABLE, "n1", "1", { .inner = "host" });
    assert_null(q->error_detail);
    assert_string_equal(f->w.sink.text, "+NameTable");
}

static void nameless_and_garbage_are_refused(void **state)
{
    struct fixture *f = *state;
    struct xds_response r;
    struct err err;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    sotw_request *q = RESPOND(f, XDS_CLUSTER, "n1", "1", { .inner = "" }, { .inner = "ok" });
    assert_string_equal(q->error_detail->message, "resources[0]: has no name");
    assert_string_equal(f->w.sink.text, "+ok");
    assert_int_equal(xds_sotw_decode(&f->s, STR("not protobuf at all"), &f->w.a, &r, &err), -EBADMSG);
    struct str route = sotw_response(&f->w.a, XDS_ROUTE, "n1", "1", NULL, 0);
    assert_int_equal(xds_sotw_decode(&f->s, route, &f->w.a, &r, &err), -ENOENT);
    assert_int_equal(f->s.ignored, 1);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(ack_carries_version_nonce_and_all_names),
        T(nack_repeats_the_old_version),
        T(full_state_types_drop_what_is_left_out),
        T(refused_names_do_not_pile_up),
        T(partial_types_keep_what_is_left_out),
        T(full_state_with_names_covers_only_those),
        T(changed_names_follow_a_nack_in_their_own_request),
        T(last_name_gone_is_an_empty_request),
        T(reconnect_keeps_version_and_forgets_nonce),
        T(resource_wrapper_is_unwrapped),
        T(singleton_has_a_name),
        T(nameless_and_garbage_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xds-client/helpers.h"
#include "xds-client/delta.h"
#include "xds-client/limits.h"

#include <errno.h>

struct fixture {
    struct world w;
    struct xds_delta d;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    xds_delta_start(&f->d);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    xds_delta_fini(&f->d);
    world_fini(&f->w);
    free(f);
    return 0;
}

// The next request, NULL when there is none.
static delta_request *next(struct fixture *f)
{
    struct buf b = { 0 };
    struct xds_view v = world_view(&f->w);
    if (!xds_delta_next(&f->d, &v, &b)) {
        assert_int_equal(buf_len(&b), 0);
        return NULL;
    }
    return read_delta(&f->w.a, take_buf(&b, &f->w.a));
}

static delta_request *respond(struct fixture *f, struct str bytes)
{
    struct xds_response r;
    struct err err;
    struct buf b = { 0 };
    struct xds_view v = world_view(&f->w);
    assert_int_equal(xds_delta_decode(&f->d, bytes, &f->w.a, &r, &err), 0);
    xds_delta_answer(&f->d, &v, &r, world_apply(&f->w, &r), &b);
    return read_delta(&f->w.a, take_buf(&b, &f->w.a));
}

#define RESPOND(f, t, nonce, ...)                                                                                                          \
    respond((f), delta_response(&(f)->w.a, (t), (nonce), (struct res[]){ __VA_ARGS__ },                                                    \
                                sizeof((struct res[]){ __VA_ARGS__ }) / sizeof(struct res), NULL, 0))

static void first_requests_in_order_and_node_once(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_LISTENER, true, NULL, 0);
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    delta_request *q = next(f);
    assert_string_equal(q->type_url, "type.googleapis.com/envoy.config.cluster.v3.Cluster");
    assert_string_equal(q->node->id, "me");
    assert_int_equal(q->n_resource_names_subscribe, 0);
    assert_string_equal(q->response_nonce, "");
    q = next(f);
    assert_string_equal(q->type_url, "type.googleapis.com/envoy.config.listener.v3.Listener");
    assert_null(q->node);
    assert_null(next(f));
}

static void named_type_without_names_is_not_asked_for(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_ENDPOINT, false, NULL, 0);
    assert_null(next(f));
}

static void ack_repeats_the_nonce_and_no_names(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    delta_request *q = RESPOND(f, XDS_CLUSTER, "n1", { .name = "a" }, { .name = "b" });
    assert_string_equal(q->response_nonce, "n1");
    assert_null(q->error_detail);
    assert_null(q->node);
    assert_int_equal(q->n_resource_names_subscribe + q->n_resource_names_unsubscribe + q->n_initial_resource_versions, 0);
    assert_string_equal(f->w.sink.text, "+a +b");
    assert_int_equal(f->w.stores[XDS_CLUSTER].accepted, 2);
    assert_string_equal(xds_store_get(&f->w.stores[XDS_CLUSTER], STR("a"))->r.version.p, "v1");
}

static void unchanged_resources_never_reach_the_sink(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_LISTENER, true, NULL, 0);
    next(f);
    RESPOND(f, XDS_LISTENER, "n1", { .name = "a", .body = "1" }, { .name = "b", .body = "1" });
    log_sink_clear(&f->w.sink);
    delta_request *q = RESPOND(f, XDS_LISTENER, "n2", { .name = "a", .body = "1" }, { .name = "b", .body = "2" });
    assert_string_equal(f->w.sink.text, "+b");
    assert_null(q->error_detail);
    log_sink_clear(&f->w.sink);
    q = RESPOND(f, XDS_LISTENER, "n3", { .name = "a", .body = "1" }, { .name = "b", .body = "2" });
    assert_int_equal(f->w.sink.calls, 0);
    assert_string_equal(q->response_nonce, "n3");
}

static void first_empty_response_is_shown(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_LISTENER, true, NULL, 0);
    next(f);
    respond(f, delta_response(&f->w.a, XDS_LISTENER, "n1", NULL, 0, NULL, 0));
    assert_int_equal(f->w.sink.calls, 1);
    respond(f, delta_response(&f->w.a, XDS_LISTENER, "n2", NULL, 0, NULL, 0));
    assert_int_equal(f->w.sink.calls, 1);
}

static void partial_nack_keeps_the_good_and_the_old(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_LISTENER, true, NULL, 0);
    next(f);
    RESPOND(f, XDS_LISTENER, "n1", { .name = "bad", .body = "old" });
    f->w.sink.refuse = "bad";
    delta_request *q = RESPOND(f, XDS_LISTENER, "n2", { .name = "good", .body = "1" }, { .name = "bad", .body = "new" });
    assert_string_equal(q->response_nonce, "n2");
    assert_int_equal(q->error_detail->code, 13);
    assert_string_equal(q->error_detail->message, "bad: some.field: no good");
    struct xds_entry *e = xds_store_get(&f->w.stores[XDS_LISTENER], STR("bad"));
    assert_true(str_eq(e->r.bytes, message(&f->w.a, "bad", "old")));
    assert_true(str_eq(e->r.failed_bytes, message(&f->w.a, "bad", "new")));
    assert_string_equal(e->r.failed_reason.p, "some.field: no good");
    assert_true(xds_store_get(&f->w.stores[XDS_LISTENER], STR("good"))->accepted);
    // Back to the old content: the failure is forgotten without a sink call.
    log_sink_clear(&f->w.sink);
    q = RESPOND(f, XDS_LISTENER, "n3", { .name = "bad", .body = "old" });
    assert_null(q->error_detail);
    assert_int_equal(f->w.sink.calls, 0);
    assert_null(e->r.failed_reason.p);
}

static void never_accepted_resource_is_not_held(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    f->w.sink.refuse = "bad";
    RESPOND(f, XDS_CLUSTER, "n1", { .name = "bad" }, { .name = "good" });
    assert_int_equal(f->w.stores[XDS_CLUSTER].accepted, 1);
    assert_false(xds_store_get(&f->w.stores[XDS_CLUSTER], STR("bad"))->accepted);
    xds_delta_start(&f->d);
    delta_request *q = next(f);
    assert_int_equal(q->n_initial_resource_versions, 1);
    assert_string_equal(q->initial_resource_versions[0]->key, "good");
}

static void removal_reaches_sink_and_store(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    RESPOND(f, XDS_CLUSTER, "n1", { .name = "a" }, { .name = "b" });
    log_sink_clear(&f->w.sink);
    const char *gone[] = { "b", "never-there" };
    delta_request *q = respond(f, delta_response(&f->w.a, XDS_CLUSTER, "n2", NULL, 0, gone, 2));
    assert_string_equal(f->w.sink.text, "-b");
    assert_null(q->error_detail);
    assert_null(xds_store_get(&f->w.stores[XDS_CLUSTER], STR("b")));
    assert_int_equal(f->w.stores[XDS_CLUSTER].accepted, 1);
}

static void awaited_name_that_does_not_exist_is_told(void **state)
{
    struct fixture *f = *state;
    const char *want[] = { "r1" };
    world_want(&f->w, XDS_ROUTE, false, want, 1);
    next(f);
    respond(f, delta_response(&f->w.a, XDS_ROUTE, "n1", NULL, 0, want, 1));
    assert_string_equal(f->w.sink.text, "-r1");
    log_sink_clear(&f->w.sink);
    respond(f, delta_response(&f->w.a, XDS_ROUTE, "n2", NULL, 0, want, 1));
    assert_int_equal(f->w.sink.calls, 0); // said once
}

static void subscription_changes_are_differences(void **state)
{
    struct fixture *f = *state;
    const char *ab[] = { "a", "b" }, *bc[] = { "b", "c" };
    world_want(&f->w, XDS_ENDPOINT, false, ab, 2);
    delta_request *q = next(f);
    assert_int_equal(q->n_resource_names_subscribe, 2);
    assert_null(next(f));
    world_want(&f->w, XDS_ENDPOINT, false, bc, 2);
    q = next(f);
    assert_int_equal(q->n_resource_names_subscribe, 1);
    assert_string_equal(q->resource_names_subscribe[0], "c");
    assert_int_equal(q->n_resource_names_unsubscribe, 1);
    assert_string_equal(q->resource_names_unsubscribe[0], "a");
    assert_string_equal(q->response_nonce, "");
    assert_null(next(f));
    world_want(&f->w, XDS_ENDPOINT, false, NULL, 0);
    q = next(f);
    assert_int_equal(q->n_resource_names_unsubscribe, 2);
    assert_int_equal(q->n_resource_names_subscribe, 0);
    assert_null(next(f));
    world_want(&f->w, XDS_ENDPOINT, false, ab, 1);
    q = next(f);
    assert_int_equal(q->n_resource_names_subscribe, 1);
}

static void wildcard_and_names_can_be_swapped(void **state)
{
    struct fixture *f = *state;
    const char *a[] = { "a" };
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    world_want(&f->w, XDS_CLUSTER, true, a, 1);
    delta_request *q = next(f);
    assert_true(has(q->resource_names_subscribe, q->n_resource_names_subscribe, "a"));
    assert_true(has(q->resource_names_unsubscribe, q->n_resource_names_unsubscribe, "*"));
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    q = next(f);
    assert_true(has(q->resource_names_subscribe, q->n_resource_names_subscribe, "*"));
    assert_true(has(q->resource_names_unsubscribe, q->n_resource_names_unsubscribe, "a"));
}

static void reconnect_names_what_is_held(void **state)
{
    struct fixture *f = *state;
    const char *names[] = { "e1", "e2" };
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    world_want(&f->w, XDS_ENDPOINT, false, names, 2);
    next(f);
    next(f);
    RESPOND(f, XDS_CLUSTER, "n1", { .name = "a", .version = "7" });
    RESPOND(f, XDS_ENDPOINT, "n2", { .name = "e1" });
    world_want(&f->w, XDS_NAMETABLE, true, NULL, 0);
    next(f);
    RESPOND(f, XDS_NAMETABLE, "n3", { .name = "", .inner = "x" });
    xds_delta_start(&f->d);
    delta_request *q = next(f);
    assert_string_equal(q->node->id, "me");
    assert_string_equal(q->response_nonce, "");
    assert_int_equal(q->n_resource_names_subscribe, 0);
    assert_int_equal(q->n_initial_resource_versions, 1);
    assert_string_equal(q->initial_resource_versions[0]->key, "a");
    assert_string_equal(q->initial_resource_versions[0]->value, "7");
    q = next(f);
    assert_int_equal(q->n_resource_names_subscribe, 2);
    assert_int_equal(q->n_initial_resource_versions, 1);
    assert_string_equal(q->initial_resource_versions[0]->key, "e1");
    assert_string_equal(q->initial_resource_versions[0]->value, "");
    q = next(f);
    assert_string_equal(q->type_url, xds_type_url(XDS_NAMETABLE).p);
    assert_int_equal(q->n_initial_resource_versions, 0);
    assert_null(next(f));
}

static void version_of_unchanged_content_is_taken(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    RESPOND(f, XDS_CLUSTER, "n1", { .name = "a", .version = "7" });
    RESPOND(f, XDS_CLUSTER, "n2", { .name = "a", .version = "8" });
    assert_int_equal(f->w.sink.calls, 1);
    xds_delta_start(&f->d);
    assert_string_equal(next(f)->initial_resource_versions[0]->value, "8");
}

static void duplicate_name_is_refused_by_name(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    delta_request *q = RESPOND(f, XDS_CLUSTER, "n1", { .name = "a", .body = "1" }, { .name = "a", .body = "2" }, { .name = "b" });
    assert_string_equal(q->error_detail->message, "a: more than once in one response");
    assert_string_equal(f->w.sink.text, "+a +b");
    const char *both[] = { "c" };
    struct res c = { .name = "c" };
    q = respond(f, delta_response(&f->w.a, XDS_CLUSTER, "n2", &c, 1, both, 1));
    assert_string_equal(q->error_detail->message, "c: both sent and removed in one response");
}

static void wrong_names_and_types_are_refused(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    delta_request *q = RESPOND(f, XDS_CLUSTER, "n1", { .name = "a", .inner = "other" },
                               { .name = "b", .url = "type.googleapis.com/envoy.config.listener.v3.Listener" }, { .name = "ok" },
                               { .name = "\xff\xfe", .inner = "\xff\xfe" });
    assert_non_null(strstr(q->error_detail->message, "a: the name in the message differs"));
    assert_non_null(strstr(q->error_detail->message, "b: has type \"type.googleapis.com/envoy.config.listener.v3.Listener\""));
    assert_non_null(strstr(q->error_detail->message, "resources[3]: the name is not text"));
    assert_string_equal(f->w.sink.text, "+ok");
}

static void unwanted_names_are_passed_over(void **state)
{
    struct fixture *f = *state;
    const char *a[] = { "a" };
    world_want(&f->w, XDS_ENDPOINT, false, a, 1);
    next(f);
    delta_request *q = RESPOND(f, XDS_ENDPOINT, "n1", { .name = "a" }, { .name = "late" });
    assert_null(q->error_detail);
    assert_string_equal(f->w.sink.text, "+a");
    assert_int_equal(f->w.stores[XDS_ENDPOINT].entries.count, 1);
}

static void static_resource_is_not_replaced(void **state)
{
    struct fixture *f = *state;
    xds_store_put(&f->w.stores[XDS_CLUSTER], STR("s"), STR("x"), STR(""), STR(""), XDS_ORIGIN_STATIC, 1);
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    delta_request *q = next(f);
    assert_int_equal(q->n_initial_resource_versions, 0);
    q = RESPOND(f, XDS_CLUSTER, "n1", { .name = "s" });
    assert_string_equal(q->error_detail->message, "s: a static resource has this name");
    const char *gone[] = { "s" };
    respond(f, delta_response(&f->w.a, XDS_CLUSTER, "n2", NULL, 0, gone, 1));
    assert_true(xds_store_get(&f->w.stores[XDS_CLUSTER], STR("s"))->accepted);
}

static void response_for_what_was_not_asked_is_ignored(void **state)
{
    struct fixture *f = *state;
    struct xds_response r;
    struct err err;
    struct res a = { .name = "a" };
    struct str bytes = delta_response(&f->w.a, XDS_ROUTE, "n1", &a, 1, NULL, 0);
    assert_int_equal(xds_delta_decode(&f->d, bytes, &f->w.a, &r, &err), -ENOENT);
    assert_int_equal(xds_delta_decode(&f->d,
                                      STR("\x22\x03"
                                          "foo"),
                                      &f->w.a, &r, &err),
                     -ENOENT);
    assert_int_equal(f->d.ignored, 2);
}

static void garbage_is_not_a_response(void **state)
{
    struct fixture *f = *state;
    struct xds_response r;
    struct err err;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    struct res a = { .name = "a" };
    struct str good = delta_response(&f->w.a, XDS_CLUSTER, "nonce", &a, 1, NULL, 0);
    assert_int_equal(xds_delta_decode(&f->d, STR("\xff\xff\xff garbage"), &f->w.a, &r, &err), -EBADMSG);
    assert_int_equal(xds_delta_decode(&f->d, STR("\x08\x01"), &f->w.a, &r, &err), -EBADMSG);         // version as a varint
    assert_int_equal(xds_delta_decode(&f->d, STR("\x2a\x02\xff\xff"), &f->w.a, &r, &err), -EBADMSG); // nonce not text
    assert_int_equal(xds_delta_decode(&f->d, str_n(good.p, good.n - 1), &f->w.a, &r, &err), -EBADMSG);
    // A whole envelope around a broken resource: refused in its place, the others are taken.
    struct buf b = { 0 };
    wire_put_bytes(&b, 2, STR("\x12\x7f"));
    buf_append_str(&b, good);
    delta_request *q = respond(f, take_buf(&b, &f->w.a));
    assert_string_equal(q->error_detail->message, "resources[0]: the Resource does not parse");
    assert_string_equal(f->w.sink.text, "+a");
}

static void expiring_resources_are_refused(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    struct buf res = { 0 }, resp = { 0 };
    wire_put_str(&res, 3, STR("a"));
    wire_put_bytes(&res, 6, STR("\x08\x01")); // ttl 1 s
    wire_put_message(&resp, 2, &res);
    wire_put_str(&resp, 4, xds_type_url(XDS_CLUSTER));
    delta_request *q = respond(f, take_buf(&resp, &f->w.a));
    assert_string_equal(q->error_detail->message, "a: ttl: resources that expire are not supported");
}

static void nack_text_is_bounded_and_utf8(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    enum { N = 300 };
    static struct res many[N];
    static char names[N][32];
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof(names[i]), "cluster-with-a-name-%d", i);
        many[i] = (struct res){ .name = names[i], .inner = "x" };
    }
    delta_request *q = respond(f, delta_response(&f->w.a, XDS_CLUSTER, "n", many, N, NULL, 0));
    size_t n = strlen(q->error_detail->message);
    assert_in_range(n, 4000, XDS_NACK_MAX_BYTES);
    assert_non_null(strstr(q->error_detail->message, " more"));
    // A reason that is no text must not break the request (read_delta checks UTF-8).
    f->w.sink.refuse = "u";
    f->w.sink.reason = STR("bad \xff\xc3\0 value");
    q = RESPOND(f, XDS_CLUSTER, "n2", { .name = "u" });
    assert_string_equal(q->error_detail->message, "u: bad ??? value");
}

static void too_large_is_refused(void **state)
{
    struct fixture *f = *state;
    world_want(&f->w, XDS_CLUSTER, true, NULL, 0);
    next(f);
    char *big = malloc(XDS_RESOURCE_MAX_BYTES + 1);
    memset(big, 'x', XDS_RESOURCE_MAX_BYTES);
    big[XDS_RESOURCE_MAX_BYTES] = '\0';
    delta_request *q = RESPOND(f, XDS_CLUSTER, "n", { .name = "big", .body = big }, { .name = "small" });
    free(big);
    assert_non_null(strstr(q->error_detail->message, "big: 16777"));
    assert_string_equal(f->w.sink.text, "+small");
    // More resources than any control plane has reason to send: the response is refused as a whole.
    struct buf b = { 0 };
    for (int i = 0; i <= XDS_RESOURCES_MAX; i++) {
        wire_put_bytes(&b, 2, STR(""));
    }
    wire_put_str(&b, 4, xds_type_url(XDS_CLUSTER));
    log_sink_clear(&f->w.sink);
    q = respond(f, take_buf(&b, &f->w.a));
    assert_string_equal(q->error_detail->message, "100001 resources in one response, more than the 100000 allowed");
    assert_int_equal(f->w.sink.calls, 0);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(first_requests_in_order_and_node_once),
        T(named_type_without_names_is_not_asked_for),
        T(ack_repeats_the_nonce_and_no_names),
        T(unchanged_resources_never_reach_the_sink),
        T(first_empty_response_is_shown),
        T(partial_nack_keeps_the_good_and_the_old),
        T(never_accepted_resource_is_not_held),
        T(removal_reaches_sink_and_store),
        T(awaited_name_that_does_not_exist_is_told),
        T(subscription_changes_are_differences),
        T(wildcard_and_names_can_be_swapped),
        T(reconnect_names_what_is_held),
        T(version_of_unchanged_content_is_taken),
        T(duplicate_name_is_refused_by_name),
        T(wrong_names_and_types_are_refused),
        T(unwanted_names_are_passed_over),
        T(static_resource_is_not_replaced),
        T(response_for_what_was_not_asked_is_ignored),
        T(garbage_is_not_a_response),
        T(expiring_resources_are_refused),
        T(nack_text_is_bounded_and_utf8),
        T(too_large_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

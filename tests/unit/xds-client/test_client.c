// SPDX-License-Identifier: Apache-2.0
// The client with its ADS source; the server is the test, time is moved by hand.
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/file.h"
#include "lib/base/log.h"
#include "lib/event/loop.h"
#include "tests/unit/xds-client/fake_grpc.h"

struct fixture {
    struct loop *loop;
    struct xds_client *c;
    struct log_sink sink;
    struct arena a;
    uint64_t now;
    char missing[256];
    char dir[64];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err = { 0 };
    struct xds_node node = { .serialized = STR("\x0a\x02me") };
    log_set_level(-1, LOG_OFF);
    f->loop = loop_new(&err);
    assert_non_null(f->loop);
    f->now = 1000000;
    loop_set_fake_time(f->loop, f->now);
    f->c = xds_client_new(f->loop, &node, log_sink_fn, &f->sink);
    snprintf(f->dir, sizeof(f->dir), "/tmp/remora-xds-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    xds_client_free(f->c);
    fake_fini();
    loop_free(f->loop);
    arena_fini(&f->a);
    char cmd[128];
    snprintf(cmd, sizeof(cmd), "rm -r '%s'", f->dir);
    assert_int_equal(system(cmd), 0);
    free(f);
    return 0;
}

static void turn(struct fixture *f, uint64_t ms)
{
    f->now += ms;
    loop_set_fake_time(f->loop, f->now);
    loop_turn(f->loop, 0);
    loop_turn(f->loop, 0); // what timers deferred
}

static const char *put_file(struct fixture *f, const char *name, const char *text)
{
    static char path[128];
    struct err err;
    snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    assert_int_equal(file_write_atomic(path, str_c(text), 0600, &err), 0);
    return path;
}

static void connect_ads(struct fixture *f)
{
    struct err err = { 0 };
    struct xds_ads_opts o = { .target = STR("cp:15010"), .delta = true };
    assert_int_equal(xds_add_ads(f->c, &o, &err), 0);
    turn(f, 0);
    assert_non_null(fake.stream);
}

#define ANSWER(f, t, nonce, ...)                                                                                                           \
    fake_answer(delta_response(&(f)->a, (t), (nonce), (struct res[]){ __VA_ARGS__ },                                                       \
                               sizeof((struct res[]){ __VA_ARGS__ }) / sizeof(struct res), NULL, 0))

static void subscriptions_of_a_turn_are_one_request(void **state)
{
    struct fixture *f = *state;
    struct str ab[] = { STR("a"), STR("b") };
    connect_ads(f);
    xds_subscribe(f->c, XDS_LISTENER, NULL, 0);
    xds_subscribe(f->c, XDS_CLUSTER, NULL, 0);
    xds_subscribe(f->c, XDS_ENDPOINT, ab, 1);
    xds_subscribe(f->c, XDS_ENDPOINT, ab, 2);
    assert_null(fake_next());
    turn(f, 0);
    delta_request *q = fake_next();
    assert_string_equal(q->type_url, xds_type_url(XDS_CLUSTER).p);
    assert_string_equal(q->node->id, "me");
    q = fake_next();
    assert_string_equal(q->type_url, xds_type_url(XDS_ENDPOINT).p);
    assert_int_equal(q->n_resource_names_subscribe, 2);
    assert_string_equal(fake_next()->type_url, xds_type_url(XDS_LISTENER).p);
    assert_null(fake_next());
    assert_string_equal(fake.method.p, "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources");
}

static void response_is_acked_and_counted(void **state)
{
    struct fixture *f = *state;
    struct xds_type_status st;
    struct xds_ads_status as;
    connect_ads(f);
    xds_ads_state(f->c, &as);
    assert_false(as.connected);
    xds_subscribe(f->c, XDS_CLUSTER, NULL, 0);
    turn(f, 0);
    fake_next();
    ANSWER(f, XDS_CLUSTER, "n1", { .name = "b" }, { .name = "a" });
    assert_string_equal(fake_next()->response_nonce, "n1");
    f->sink.refuse = "a";
    ANSWER(f, XDS_CLUSTER, "n2", { .name = "a", .body = "2" });
    assert_string_equal(fake_next()->error_detail->message, "a: some.field: no good");
    xds_status(f->c, XDS_CLUSTER, &st);
    assert_int_equal(st.updates, 2);
    assert_int_equal(st.accepted, 1);
    assert_int_equal(st.rejected, 1);
    assert_int_equal(st.resources, 2);
    assert_true(st.answered && st.subscribed);
    assert_string_equal(st.last_error.p, "a: some.field: no good");
    assert_string_equal(st.version.p, "v1");
    assert_non_null(xds_find(f->c, XDS_CLUSTER, STR("a"))->failed_reason.p);
    assert_null(xds_find(f->c, XDS_CLUSTER, STR("c")));
    xds_ads_state(f->c, &as);
    assert_true(as.connected);
    assert_int_equal(as.connects, 1);
}

static bool add_name(void *arg, const struct xds_resource *r)
{
    char *names = arg; // 16 bytes
    size_t n = strlen(names);
    snprintf(names + n, 16 - n, "%s", r->name.p);
    return strlen(names) < 2;
}

static void each_goes_in_order_and_stops(void **state)
{
    struct fixture *f = *state;
    char names[16] = "";
    connect_ads(f);
    xds_subscribe(f->c, XDS_CLUSTER, NULL, 0);
    turn(f, 0);
    f->sink.refuse = "x";
    ANSWER(f, XDS_CLUSTER, "n1", { .name = "c" }, { .name = "a" }, { .name = "b" }, { .name = "x" });
    xds_each(f->c, XDS_CLUSTER, add_name, names);
    assert_string_equal(names, "ab");
    names[0] = '\0';
    xds_each_refused(f->c, XDS_CLUSTER, add_name, names);
    assert_string_equal(names, "x");
}

static void lost_stream_comes_back_with_what_is_held(void **state)
{
    struct fixture *f = *state;
    struct xds_type_status st;
    struct xds_ads_status as;
    connect_ads(f);
    xds_subscribe(f->c, XDS_CLUSTER, NULL, 0);
    turn(f, 0);
    ANSWER(f, XDS_CLUSTER, "n1", { .name = "a", .version = "7" });
    fake_end(14, "going away");
    xds_ads_state(f->c, &as);
    assert_false(as.connected);
    assert_int_equal(as.disconnects, 1);
    assert_string_equal(as.last_error.p, "going away");
    xds_status(f->c, XDS_CLUSTER, &st);
    assert_int_equal(st.failures, 1);
    xds_status(f->c, XDS_LISTENER, &st);
    assert_int_equal(st.failures, 0); // not subscribed
    assert_non_null(xds_find(f->c, XDS_CLUSTER, STR("a")));
    turn(f, 501); // full jitter below 500 ms
    assert_int_equal(fake.streams, 2);
    assert_int_equal(fake.channels, 2);
    assert_int_equal(fake.live_channels, 1);
    delta_request *q = fake_next();
    assert_string_equal(q->node->id, "me");
    assert_int_equal(q->n_initial_resource_versions, 1);
    assert_string_equal(q->initial_resource_versions[0]->value, "7");
    log_sink_clear(&f->sink);
    ANSWER(f, XDS_CLUSTER, "n2", { .name = "a", .version = "7" });
    assert_int_equal(f->sink.calls, 0); // traffic notices nothing
    const char *gone[] = { "a" };
    fake_answer(delta_response(&f->a, XDS_CLUSTER, "n3", NULL, 0, gone, 1));
    assert_string_equal(f->sink.text, "-a");
}

static void back_off_grows_until_a_good_response(void **state)
{
    struct fixture *f = *state;
    connect_ads(f);
    xds_subscribe(f->c, XDS_CLUSTER, NULL, 0);
    turn(f, 0);
    for (int i = 0; i < 12; i++) {
        int before = fake.streams;
        fake_end(14, "refused");
        turn(f, 30001); // never more than the limit
        assert_int_equal(fake.streams, before + 1);
    }
    // At the limit now: of 20 waits, not all are below half a second (chance of failure 2^-118).
    int early = 0;
    for (int i = 0; i < 20; i++) {
        int before = fake.streams;
        fake_end(14, "refused");
        turn(f, 501);
        early += fake.streams > before;
        turn(f, 30001);
    }
    assert_true(early < 20);
    ANSWER(f, XDS_CLUSTER, "n1", { .name = "a" });
    int before = fake.streams;
    fake_end(0, "");
    turn(f, 501);
    assert_int_equal(fake.streams, before + 1);
}

static void garbage_resets_the_stream(void **state)
{
    struct fixture *f = *state;
    struct xds_ads_status as;
    connect_ads(f);
    xds_subscribe(f->c, XDS_CLUSTER, NULL, 0);
    turn(f, 0);
    ANSWER(f, XDS_CLUSTER, "n1", { .name = "a" });
    fake_answer(STR("HTTP/1.1 400 Bad Request"));
    assert_null(fake.stream);
    xds_ads_state(f->c, &as);
    assert_non_null(strstr(as.last_error.p, "not a discovery response"));
    assert_non_null(xds_find(f->c, XDS_CLUSTER, STR("a")));
    turn(f, 501);
    assert_non_null(fake.stream);
    // A response that nobody asked for changes nothing and is not answered.
    size_t sent = fake.n_sent;
    ANSWER(f, XDS_SECRET, "n2", { .name = "s" });
    assert_int_equal(fake.n_sent, sent);
    assert_non_null(fake.stream);
}

static void full_send_queue_resets_the_stream(void **state)
{
    struct fixture *f = *state;
    connect_ads(f);
    xds_subscribe(f->c, XDS_CLUSTER, NULL, 0);
    fake.send_result = -ENOBUFS;
    turn(f, 0);
    assert_null(fake.stream);
    fake.send_result = 0;
    turn(f, 501);
    assert_non_null(fake_next());
}

static void token_and_root_are_read_for_each_stream(void **state)
{
    struct fixture *f = *state;
    struct err err = { 0 };
    struct str headers[][2] = { { STR("ClusterID"), STR("east") } };
    char root[128], token[128];
    snprintf(root, sizeof(root), "%s/root", f->dir);
    snprintf(token, sizeof(token), "%s/token", f->dir);
    struct xds_ads_opts o = { .target = STR("cp:15012"),
                              .delta = false,
                              .tls = true,
                              .root_file = str_c(root),
                              .token_file = str_c(token),
                              .headers = (const struct str(*)[2])headers,
                              .header_count = 1 };
    assert_int_equal(xds_add_ads(f->c, &o, &err), 0);
    turn(f, 0);
    assert_int_equal(fake.channels, 0); // no root: nothing is trusted
    struct xds_ads_status as;
    xds_ads_state(f->c, &as);
    assert_non_null(strstr(as.last_error.p, "/root"));
    put_file(f, "root", "ROOT1");
    turn(f, 30001);
    assert_string_equal(fake.root_pem.p, "ROOT1");
    assert_string_equal(fake.md, "clusterid=east;"); // no token file, no header
    assert_string_equal(fake.method.p, "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources");
    put_file(f, "token", "abc.def\n");
    put_file(f, "root", "ROOT2");
    fake_end(16, "Unauthenticated");
    turn(f, 30001);
    assert_string_equal(fake.root_pem.p, "ROOT2");
    assert_string_equal(fake.md, "authorization=Bearer abc.def;clusterid=east;");
    put_file(f, "token", "two\nlines");
    fake_end(16, "Unauthenticated");
    turn(f, 30001);
    assert_null(fake.stream);
    xds_ads_state(f->c, &as);
    assert_non_null(strstr(as.last_error.p, "not a token"));
    assert_null(strstr(as.last_error.p, "lines")); // never the content
}

static void note_missing(void *arg, enum xds_type t, struct str name)
{
    struct fixture *f = arg;
    size_t n = strlen(f->missing);
    snprintf(f->missing + n, sizeof(f->missing) - n, "%s:%.*s ", xds_type_short(t), STR_FMT(name));
}

static void missing_names_are_told_in_time(void **state)
{
    struct fixture *f = *state;
    struct str ab[] = { STR("a"), STR("b") };
    connect_ads(f);
    xds_on_missing(f->c, note_missing, f, 15000);
    xds_subscribe(f->c, XDS_ROUTE, ab, 2);
    xds_subscribe(f->c, XDS_CLUSTER, NULL, 0);
    turn(f, 0);
    ANSWER(f, XDS_ROUTE, "n1", { .name = "a" });
    turn(f, 14999);
    assert_string_equal(f->missing, "");
    turn(f, 2);
    assert_string_equal(f->missing, "CDS: RDS:b ");
    turn(f, 60000);
    assert_string_equal(f->missing, "CDS: RDS:b ");
}

static void names_that_left_are_dropped_and_come_back_new(void **state)
{
    struct fixture *f = *state;
    struct str ab[] = { STR("a"), STR("b") };
    connect_ads(f);
    xds_subscribe(f->c, XDS_ROUTE, ab, 2);
    turn(f, 0);
    ANSWER(f, XDS_ROUTE, "n1", { .name = "a" }, { .name = "b" });
    log_sink_clear(&f->sink);
    xds_subscribe(f->c, XDS_ROUTE, ab, 1);
    turn(f, 0);
    assert_null(xds_find(f->c, XDS_ROUTE, STR("b")));
    assert_int_equal(f->sink.calls, 0);
    xds_subscribe(f->c, XDS_ROUTE, NULL, 0); // gone and back within a turn: kept, and not waited for
    xds_on_missing(f->c, note_missing, f, 10);
    xds_subscribe(f->c, XDS_ROUTE, ab, 1);
    turn(f, 0);
    turn(f, 100);
    assert_string_equal(f->missing, "");
    assert_non_null(xds_find(f->c, XDS_ROUTE, STR("a")));
    xds_subscribe(f->c, XDS_ROUTE, ab, 2);
    turn(f, 0);
    ANSWER(f, XDS_ROUTE, "n2", { .name = "b" });
    assert_string_equal(f->sink.text, "+b");
}

static void static_resources_go_the_same_way(void **state)
{
    struct fixture *f = *state;
    struct err err = { 0 };
    struct xds_type_status st;
    xds_mem_put(f->c, XDS_CLUSTER, STR("s1"), STR("one"));
    xds_mem_put(f->c, XDS_CLUSTER, STR("s2"), STR(""));
    assert_int_equal(f->sink.calls, 0);
    assert_int_equal(xds_mem_commit(f->c, XDS_CLUSTER, &err), 0);
    assert_string_equal(f->sink.text, "+s1 +s2");
    assert_int_equal(f->sink.calls, 1);
    assert_true(xds_find(f->c, XDS_CLUSTER, STR("s1"))->is_static);
    xds_status(f->c, XDS_CLUSTER, &st);
    assert_true(st.answered);
    assert_int_equal(st.updates, 0);
    f->sink.refuse = "s3";
    xds_mem_put(f->c, XDS_CLUSTER, STR("s3"), STR("x"));
    xds_mem_put(f->c, XDS_CLUSTER, STR("s2"), str_n(NULL, 0));
    assert_int_equal(xds_mem_commit(f->c, XDS_CLUSTER, &err), 1);
    assert_string_equal(err.msg, "CDS \"s3\": some.field: no good");
    assert_null(xds_find(f->c, XDS_CLUSTER, STR("s2")));
    assert_int_equal(xds_mem_commit(f->c, XDS_LISTENER, &err), 0); // nothing put: the first answer of the type
    assert_int_equal(f->sink.calls, 3);
    // A named resource that is there already is not waited for, and stays when nobody asks for it.
    struct str name = STR("sec");
    xds_mem_put(f->c, XDS_SECRET, name, STR("x"));
    assert_int_equal(xds_mem_commit(f->c, XDS_SECRET, &err), 0);
    xds_on_missing(f->c, note_missing, f, 10);
    xds_subscribe(f->c, XDS_SECRET, &name, 1);
    turn(f, 0);
    turn(f, 100);
    assert_string_equal(f->missing, "");
    xds_subscribe(f->c, XDS_SECRET, NULL, 0);
    turn(f, 0);
    assert_non_null(xds_find(f->c, XDS_SECRET, name));
}

static void file_is_a_discovery_response(void **state)
{
    struct fixture *f = *state;
    struct err err = { 0 };
    struct xds_type_status st;
    assert_true(xds_add_file(f->c, XDS_CLUSTER, "/nonexistent/file", &err) < 0);
    const char *path = put_file(f, "cds.yaml",
                                "version_info: '7'\nresources:\n"
                                "- {'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: a}\n"
                                "- name: b\n  connectTimeout: 2s\n"
                                "- {name: c, no_such_field: 1}\n"
                                "- {'@type': type.googleapis.com/envoy.service.discovery.v3.Resource, name: d, resource: "
                                "{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: d}}\n");
    assert_int_equal(xds_add_file(f->c, XDS_CLUSTER, path, &err), 0);
    turn(f, 0);
    assert_int_equal(f->sink.calls, 0); // not subscribed
    xds_subscribe(f->c, XDS_CLUSTER, NULL, 0);
    turn(f, 0);
    assert_string_equal(f->sink.text, "+a +b +d");
    xds_status(f->c, XDS_CLUSTER, &st);
    assert_int_equal(st.rejected, 1);
    assert_non_null(strstr(st.last_error.p, "c: "));
    assert_non_null(strstr(st.last_error.p, "no_such_field"));
}

// The watch needs the kernel's events, not time: a few turns until they are in.
static void settle_file(struct fixture *f)
{
    for (int i = 0; i < 3; i++) {
        turn(f, 60);
    }
}

static void file_changes_are_taken_and_mistakes_are_not(void **state)
{
    struct fixture *f = *state;
    struct err err = { 0 };
    struct xds_type_status st;
    const char *path = put_file(f, "lds.json", "{\"resources\":[{\"name\":\"a\"},{\"name\":\"b\"}]}");
    assert_int_equal(xds_add_file(f->c, XDS_LISTENER, path, &err), 0);
    xds_subscribe(f->c, XDS_LISTENER, NULL, 0);
    turn(f, 0);
    assert_string_equal(f->sink.text, "+a +b");
    log_sink_clear(&f->sink);
    put_file(f, "lds.json", "{\"resources\":[{\"name\":\"a\"},{\"name\":\"c\"}]}");
    settle_file(f);
    assert_string_equal(f->sink.text, "+c -b");
    put_file(f, "lds.json", "{\"resources\":[{\"name\":\"a\"}");
    settle_file(f);
    xds_status(f->c, XDS_LISTENER, &st);
    assert_int_equal(st.accepted, 2);
    assert_int_equal(st.rejected, 1);
    assert_non_null(strstr(st.last_error.p, "lds.json: line 1"));
    assert_int_equal(st.resources, 2);
    put_file(f, "lds.json", "resource: []\n");
    settle_file(f);
    xds_status(f->c, XDS_LISTENER, &st);
    assert_non_null(strstr(st.last_error.p, "unknown field \"resource\""));
    assert_int_equal(st.resources, 2);
}

static void named_file_resources_come_when_wanted(void **state)
{
    struct fixture *f = *state;
    struct err err = { 0 };
    struct xds_type_status st;
    struct str names[] = { STR("r1"), STR("r2") };
    const char *path = put_file(f, "rds.yaml", "- name: r1\n- name: r2\n");
    assert_int_equal(xds_add_file(f->c, XDS_ROUTE, path, &err), 0);
    connect_ads(f); // does not serve what a file serves
    assert_int_equal(xds_add_file(f->c, XDS_CLUSTER, path, &err), -EEXIST);
    xds_subscribe(f->c, XDS_ROUTE, names, 1);
    turn(f, 0);
    assert_string_equal(f->sink.text, "+r1");
    xds_subscribe(f->c, XDS_ROUTE, names, 2);
    turn(f, 0);
    assert_string_equal(f->sink.text, "+r1 +r2");
    assert_null(fake_next());
    xds_status(f->c, XDS_ROUTE, &st);
    assert_int_equal(st.updates, 1);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(subscriptions_of_a_turn_are_one_request),
        T(response_is_acked_and_counted),
        T(each_goes_in_order_and_stops),
        T(lost_stream_comes_back_with_what_is_held),
        T(back_off_grows_until_a_good_response),
        T(garbage_resets_the_stream),
        T(full_send_queue_resets_the_stream),
        T(token_and_root_are_read_for_each_stream),
        T(missing_names_are_told_in_time),
        T(names_that_left_are_dropped_and_come_back_new),
        T(static_resources_go_the_same_way),
        T(file_is_a_discovery_response),
        T(file_changes_are_taken_and_mistakes_are_not),
        T(named_file_resources_come_when_wanted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "envoy/config/accesslog/v3/accesslog.pb-c.h"
#include "lib/base/file.h"
#include "proto/pb_json.h"
#include "proxy/access_log/access_log.h"
#include "proxy/access_log/file.h"

static struct arena arena;
static struct err err;
static char path[64];
static struct worker worker;
static struct http_request req;
static struct stream_info info;
static const struct format_ctx ctx = { .info = &info, .req = &req };

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 0, 0);
    snprintf(path, sizeof(path), "/tmp/remora-log-XXXXXX");
    close(mkstemp(path));
    worker = (struct worker){ .loop = loop_new(&err) };
    access_log_worker_init(&worker);
    headers_init(&req.headers, &arena);
    headers_add(&req.headers, STR("x-who"), STR("me"));
    info = (struct stream_info){ .status = 200, .start_ns = 1, .end_ns = 30000001 };
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    access_log_worker_fini(&worker);
    access_log_stop();
    loop_free(worker.loop);
    unlink(path);
    arena_fini(&arena);
    return 0;
}

static int parse(const char *logger, const char *filter, struct access_log_cfg **ret)
{
    char text[2048];
    ProtobufCMessage *m;
    snprintf(text, sizeof(text), "{\"name\":\"log\",\"typed_config\":{%s}%s%s}", logger, filter ? ",\"filter\":" : "", filter ? filter : "");
    int rc = pb_json_parse(str_c(text), &envoy__config__accesslog__v3__access_log__descriptor, 0, &arena, &m, &err);
    return rc < 0 ? rc : access_log_parse(m, &arena, ret, &err);
}

static struct access_log_cfg *file_log(const char *filter)
{
    char logger[512];
    struct access_log_cfg *c = NULL;
    snprintf(logger, sizeof(logger),
             "\"@type\":\"type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog\",\"path\":\"%s\","
             "\"log_format\":{\"text_format_source\":{\"inline_string\":\"%%RESPONSE_CODE%% %%REQ(X-WHO)%%\\n\"}}", path);
    if (parse(logger, filter, &c) < 0) {
        fail_msg("%s", err.msg);
    }
    return c;
}

static struct str written(void)
{
    access_log_worker_fini(&worker);
    access_log_stop();
    struct str s;
    assert_int_equal(file_read(path, 1 << 24, &arena, &s, &err), 0);
    return s;
}

static void lines_arrive_through_the_writer(void **state)
{
    (void)state;
    assert_int_equal(access_log_start(&err), 0);
    struct access_log_cfg *c = file_log(NULL), *again = file_log(NULL);
    assert_ptr_equal(c->sink, again->sink);
    for (int i = 0; i < 20000; i++) {
        access_log_write(&worker, &c, 1, &ctx);
    }
    struct str s = written();
    assert_int_equal(s.n, 20000 * strlen("200 me\n"));
    assert_true(str_starts(s, STR("200 me\n200 me\n")));
}

static void a_batch_is_flushed_after_a_while(void **state)
{
    (void)state;
    struct access_log_cfg *c = file_log(NULL);
    loop_set_fake_time(worker.loop, 1000);
    access_log_write(&worker, &c, 1, &ctx);
    loop_set_fake_time(worker.loop, 1000 + ACCESS_LOG_FLUSH_MS + 1);
    loop_turn(worker.loop, 0);
    void *kept = worker.slots[SLOT_ACCESS_LOG];
    worker.slots[SLOT_ACCESS_LOG] = NULL; // what is written now was handed over by the timer
    assert_true(str_eq(written(), STR("200 me\n")));
    worker.slots[SLOT_ACCESS_LOG] = kept;
}

static void overload_drops_and_counts(void **state)
{
    (void)state;
    struct access_log_cfg *c = file_log(NULL);
    uint64_t before = access_log_dropped();
    uint64_t lines = (uint64_t)ACCESS_LOG_QUEUE_MAX / 7 * 2;
    for (uint64_t i = 0; i < lines; i++) { // nobody writes: the queue fills
        access_log_write(&worker, &c, 1, &ctx);
    }
    struct str s = written();
    assert_true(s.n <= ACCESS_LOG_QUEUE_MAX && s.n > ACCESS_LOG_QUEUE_MAX / 2);
    assert_int_equal(s.n / 7 + access_log_dropped() - before, lines);
}

// A standard output that nobody reads must not hold the end of the process.
static void a_full_pipe_does_not_hold_the_stop(void **state)
{
    (void)state;
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDWR | O_CLOEXEC); // it never reads
    assert_int_equal(access_log_start(&err), 0);
    struct access_log_cfg *c = file_log(NULL);
    uint64_t before = access_log_dropped(), lines = 50000;
    for (uint64_t i = 0; i < lines; i++) {
        access_log_write(&worker, &c, 1, &ctx);
    }
    access_log_worker_fini(&worker);
    alarm(60); // in place of waiting for ever
    int in_pipe = 0;
    while (in_pipe < 4096) { // until the writer is at work
        assert_int_equal(ioctl(reader, FIONREAD, &in_pipe), 0);
        usleep(1000);
    }
    sink_stop(50);
    alarm(0);
    assert_int_equal(ioctl(reader, FIONREAD, &in_pipe), 0);
    uint64_t whole = (uint64_t)in_pipe / strlen("200 me\n");
    assert_in_range(access_log_dropped() - before, lines - whole - 1, lines - whole);
    close(reader);
}

static bool logs(const char *filter)
{
    struct access_log_cfg *c = file_log(filter);
    struct str s;
    assert_int_equal(truncate(path, 0), 0);
    access_log_write(&worker, &c, 1, &ctx);
    s = written();
    access_log_worker_init(&worker);
    return s.n > 0;
}

static void filters(void **state)
{
    (void)state;
    assert_true(logs("{\"status_code_filter\":{\"comparison\":{\"op\":\"EQ\",\"value\":{\"default_value\":200}}}}"));
    assert_false(logs("{\"status_code_filter\":{\"comparison\":{\"op\":\"GE\",\"value\":{\"default_value\":400}}}}"));
    assert_true(logs("{\"duration_filter\":{\"comparison\":{\"op\":\"GE\",\"value\":{\"default_value\":30}}}}"));
    assert_false(logs("{\"duration_filter\":{\"comparison\":{\"op\":\"GE\",\"value\":{\"default_value\":31}}}}"));
    assert_false(logs("{\"response_flag_filter\":{\"flags\":[\"NR\"]}}"));
    info.flags = RF(NO_ROUTE);
    assert_true(logs("{\"response_flag_filter\":{\"flags\":[\"UH\",\"NR\"]}}"));
    assert_true(logs("{\"response_flag_filter\":{}}"));
    assert_false(logs("{\"response_flag_filter\":{\"flags\":[\"UH\"]}}"));
    assert_true(logs("{\"header_filter\":{\"header\":{\"name\":\"X-Who\",\"string_match\":{\"exact\":\"me\"}}}}"));
    assert_false(logs("{\"header_filter\":{\"header\":{\"name\":\"X-Who\",\"present_match\":true,\"invert_match\":true}}}"));
    assert_true(logs("{\"or_filter\":{\"filters\":[{\"response_flag_filter\":{\"flags\":[\"UH\"]}},{\"not_health_check_filter\":{}}]}}"));
    assert_false(logs("{\"and_filter\":{\"filters\":[{\"response_flag_filter\":{\"flags\":[\"UH\"]}},{\"not_health_check_filter\":{}}]}}"));
    assert_false(logs("{\"runtime_filter\":{\"runtime_key\":\"x\",\"percent_sampled\":{\"numerator\":0}}}"));
    assert_true(logs("{\"runtime_filter\":{\"runtime_key\":\"x\",\"percent_sampled\":{\"numerator\":100}}}"));
    assert_true(logs("{\"grpc_status_filter\":{\"statuses\":[\"UNKNOWN\"]}}"));
    assert_false(logs("{\"grpc_status_filter\":{\"statuses\":[\"OK\"]}}"));
}

static void telemetry_is_accepted_unknown_is_refused(void **state)
{
    (void)state;
    struct access_log_cfg *c = NULL;
    assert_int_equal(parse("\"@type\":\"type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig\"", NULL, &c), 0);
    assert_null(c->sink);
    access_log_write(&worker, &c, 1, &ctx);
    assert_true(parse("\"@type\":\"type.googleapis.com/envoy.config.cluster.v3.Cluster\"", NULL, &c) < 0);
    assert_string_equal(err.msg, "access_log \"log\": unknown access logger envoy.config.cluster.v3.Cluster");
    assert_true(parse("\"@type\":\"type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog\","
                      "\"log_format\":{\"text_format\":\"%NO%\"}", NULL, &c) < 0);
    assert_non_null(strstr(err.msg, "log_format: text_format: unknown operator %NO%"));
    assert_true(parse("\"@type\":\"type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog\","
                      "\"path\":\"/nonexistent/x\"", NULL, &c) < 0);
    assert_non_null(strstr(err.msg, "path: /nonexistent/x: No such file"));
    assert_true(parse("\"@type\":\"type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog\"",
                      "{\"response_flag_filter\":{\"flags\":[\"NOPE\"]}}", &c) < 0);
    assert_non_null(strstr(err.msg, "unknown response flag \"NOPE\""));
    assert_int_equal(parse("\"@type\":\"type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog\"", NULL, &c), 0);
    assert_non_null(c->sink);
    c = file_log("{\"extension_filter\":{\"name\":\"cel\",\"typed_config\":{\"@type\":\"type.googleapis.com/"
                 "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter\"}}}");
    assert_null(c->sink);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lines_arrive_through_the_writer, setup, teardown),
        cmocka_unit_test_setup_teardown(a_batch_is_flushed_after_a_while, setup, teardown),
        cmocka_unit_test_setup_teardown(overload_drops_and_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_pipe_does_not_hold_the_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(filters, setup, teardown),
        cmocka_unit_test_setup_teardown(telemetry_is_accepted_unknown_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

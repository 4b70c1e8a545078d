// SPDX-License-Identifier: Apache-2.0
// Commands against a listening socket: a thread answers the requests of a test in turn over a Unix socket, and keeps what was
// asked.
#include "tests/unit/cli/support.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/file.h"

static struct arena a;

struct server {
    char dir[32], path[64];
    int fd;
    const char *const *answers; // ends with NULL; one connection each
    char asked[8][256];         // request lines
    pthread_t thread;
};

static void answer(struct server *s, size_t i)
{
    char request[2048];
    size_t n = 0;
    int fd = accept(s->fd, NULL, NULL);
    assert_true(fd >= 0);
    while (n < sizeof(request) - 1 && str_find_str(str_n(request, n), STR("\r\n\r\n")) < 0) {
        ssize_t k = read(fd, request + n, sizeof(request) - 1 - n);
        assert_true(k > 0);
        n += (size_t)k;
    }
    struct str rest = str_n(request, n), line = str_split(&rest, '\r');
    snprintf(s->asked[i], sizeof(s->asked[i]), "%.*s", STR_FMT(line));
    dprintf(fd, "HTTP/1.1 %s", s->answers[i]);
    close(fd);
}

static void *serve(void *arg)
{
    struct server *s = arg;
    for (size_t i = 0; s->answers[i]; i++) {
        answer(s, i);
    }
    return NULL;
}

static void start(struct server *s, const char *const *answers)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    *s = (struct server){ .answers = answers, .dir = "/tmp/remoractl-test-XXXXXX" };
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->path, sizeof(s->path), "%s/admin", s->dir);
    snprintf(to.sun_path, sizeof(to.sun_path), "%s", s->path);
    s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(listen(s->fd, 8), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void stop(struct server *s)
{
    pthread_join(s->thread, NULL);
    close(s->fd);
    unlink(s->path);
    rmdir(s->dir);
}

static struct result run_at(const struct server *s, const char *command, const char *option)
{
    return run_words(&a, arena_printf(&a, "%s %s unix://%s", command, option, s->path).p, false);
}

static int done(void **state)
{
    (void)state;
    arena_fini(&a);
    return 0;
}

#define OK_JSON(body) "200 OK\r\ncontent-type: application/json\r\n\r\n" body

static void test_masks(void **state)
{
    static const char *const answers[] = {
        OK_JSON(
            "{\"configs\":[{\"@type\":\"t/envoy.admin.v3.ClustersConfigDump\",\"static_clusters\":[{\"cluster\":{\"name\":\"c1\"}}]}]}"),
        OK_JSON("{\"cluster_statuses\":[]}"), NULL
    };
    struct server s;
    (void)state;
    start(&s, answers);
    struct result r = run_at(&s, "pc cluster --no-headers", "--address");
    assert_int_equal(r.code, CLI_OK);
    assert_string_equal(r.out.p, "c1     -     -     -     STATIC     \n");
    r = run_at(&s, "pc endpoint", "-a");
    assert_string_equal(r.out.p, "ENDPOINT     STATUS     OUTLIER CHECK     CLUSTER\n");
    stop(&s);
    assert_string_equal(s.asked[0], "GET /config_dump?mask=dynamic_active_clusters,dynamic_warming_clusters,static_clusters HTTP/1.1");
    assert_string_equal(s.asked[1], "GET /clusters?format=json HTTP/1.1");
}

static void test_bad_answers(void **state)
{
    static const char *const answers[] = { "404 Not Found\r\n\r\ninvalid path. more\nand more", OK_JSON("<html>"), OK_JSON("{"), NULL };
    struct server s;
    (void)state;
    start(&s, answers);
    struct result r = run_at(&s, "pc route", "--address");
    assert_int_equal(r.code, CLI_FAILED);
    assert_true(str_find_str(r.notes, STR("was answered with 404: invalid path. more\n")) > 0);
    assert_int_equal(r.out.n, 0);
    r = run_at(&s, "pc route", "--address");
    assert_true(r.code == CLI_FAILED && str_find_str(r.notes, STR("is not JSON")) > 0);
    r = run_at(&s, "ps", "--control");
    assert_true(r.code == CLI_FAILED && str_find_str(r.notes, STR("/debug/syncz is not JSON")) > 0);
    stop(&s);
    assert_string_equal(s.asked[2], "GET /debug/syncz HTTP/1.1");
}

static void test_log(void **state)
{
    static const char *const answers[] = { OK_JSON("first\n"), OK_JSON("second\n"), OK_JSON("third\n"), OK_JSON("fourth\n"), NULL };
    struct server s;
    (void)state;
    start(&s, answers);
    assert_string_equal(run_at(&s, "pc log --level http:debug,router=warn", "--address").out.p, "second\n");
    assert_string_equal(run_at(&s, "pc log", "--address").out.p, "third\n");
    assert_string_equal(run_at(&s, "pc log --reset", "--address").out.p, "fourth\n");
    stop(&s);
    assert_string_equal(s.asked[0], "POST /logging?http=debug HTTP/1.1");
    assert_string_equal(s.asked[1], "POST /logging?router=warning HTTP/1.1");
    assert_string_equal(s.asked[2], "POST /logging HTTP/1.1");
    assert_string_equal(s.asked[3], "POST /logging?level=warning HTTP/1.1");
}

static void test_rejected_listener_is_said(void **state)
{
    static const char *const answers[] = {
        OK_JSON("{\"configs\":[{\"@type\":\"t/envoy.admin.v3.ListenersConfigDump\",\"dynamic_listeners\":[{\"name\":\"l1\","
                "\"error_state\":{\"details\":\"no such filter\"}}]}]}"),
        NULL
    };
    struct server s;
    (void)state;
    start(&s, answers);
    struct result r = run_at(&s, "pc l", "--address");
    assert_int_equal(r.code, CLI_OK);
    assert_string_equal(r.notes.p, "note: there are no listeners\n"
                                   "note: the proxy rejected the last update of listener l1: no such filter\n");
    stop(&s);
}

// A dump is read by the other commands, each taking its page.
static void test_dump(void **state)
{
    static const char *const answers[] = {
        OK_JSON("{\"version\":\"v\"}"),
        OK_JSON("{\"configs\":[{\"@type\":\"t.ClustersConfigDump\",\"static_clusters\":[{\"cluster\":{\"name\":\"c1\"}}]}]}"),
        OK_JSON("{\"cluster_statuses\":[{\"name\":\"c1\",\"host_statuses\":[{\"address\":{\"pipe\":{\"path\":\"/p\"}}}]}]}"),
        OK_JSON("{}"),
        "404 Not Found\r\n\r\nnone",
        OK_JSON("{}"),
        OK_JSON("a: 1\nb: 2\n"),
        NULL
    };
    struct server s;
    struct err err;
    (void)state;
    start(&s, answers);
    struct result r = run_at(&s, "dump", "--address");
    assert_int_equal(r.code, CLI_OK);
    assert_true(str_starts(r.notes, STR("note: left out: GET /certs")));
    assert_true(str_find_str(r.out, STR("\"stats\": \"a: 1\\nb: 2\\n\"")) > 0);
    const char *file = arena_printf(&a, "%s/dump.json", s.dir).p;
    assert_int_equal(file_write_atomic(file, r.out, 0600, &err), 0);
    struct result pc = run_words(&a, arena_printf(&a, "pc c --no-headers -f %s", file).p, false);
    assert_string_equal(pc.out.p, "c1     -     -     -     STATIC     \n");
    pc = run_words(&a, arena_printf(&a, "pc ep --no-headers -f %s", file).p, false);
    assert_string_equal(pc.out.p, "unix:///p     UNKNOWN     OK     c1\n");
    unlink(file);
    stop(&s);
    assert_string_equal(s.asked[6], "GET /stats HTTP/1.1");
}

static void test_nobody_there(void **state)
{
    (void)state;
    struct result r = run_words(&a, "dump --address unix:///nonexistent/admin", false);
    assert_int_equal(r.code, CLI_FAILED);
    assert_int_equal(r.out.n, 0);
    assert_true(str_find_str(r.notes, STR("left out")) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_masks, done), cmocka_unit_test_teardown(test_bad_answers, done),
        cmocka_unit_test_teardown(test_log, done),   cmocka_unit_test_teardown(test_rejected_listener_is_said, done),
        cmocka_unit_test_teardown(test_dump, done),  cmocka_unit_test_teardown(test_nobody_there, done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

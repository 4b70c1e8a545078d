// SPDX-License-Identifier: Apache-2.0
// The admin server on a real loop and a loopback or Unix socket, asked by the blocking client on a second thread.
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "lib/http/client.h"
#include "lib/http/server.h"
#include "lib/net/socket.h"

enum { HUGE_BYTES = 12 * 1024 * 1024 }; // more than two kernels' buffers hold

struct rig {
    struct loop *loop;
    struct http_server *server;
    int requests, afters;
    bool free_in_handler;
    struct http_server_later *later;
    struct loop_task task;
};

struct ask {
    struct http_client_req q;
    struct arena arena;
    struct str body;
    struct err err;
    int status;
    atomic_bool done;
};

static void on_after(void *arg)
{
    ((struct rig *)arg)->afters++;
}

static void answer_later(struct loop_task *t)
{
    struct rig *r = container_of(t, struct rig, task);
    struct http_server_resp p = { .status = 418 };
    buf_append_str(&p.body, STR("late\n"));
    http_server_answer(r->later, &p);
}

static void handle(void *arg, struct http_server_req *q, struct http_server_resp *p)
{
    struct rig *r = arg;
    r->requests++;
    if (str_is(q->path, "/echo")) {
        buf_move(&p->body, q->body, q->body->len);
    } else if (str_is(q->path, "/query")) {
        struct str v = http_query_get(q->query, "a", q->arena);
        buf_printf(&p->body, "%s=%.*s", v.p ? "yes" : "no", STR_FMT(v));
        headers_add(&p->headers, STR("x-extra"), STR("1"));
    } else if (str_is(q->path, "/big")) {
        for (int i = 0; i < 40000; i++) {
            buf_append_str(&p->body, STR("0123456789abcdef0123456789abcdef0123456789abcdef"));
        }
    } else if (str_is(q->path, "/huge")) {
        static char part[64 * 1024];
        for (int i = 0; i < HUGE_BYTES / (int)sizeof(part); i++) {
            buf_append(&p->body, part, sizeof(part));
        }
    } else if (str_is(q->path, "/quit")) {
        p->after = on_after;
        p->after_arg = r;
        buf_append_str(&p->body, STR("bye\n"));
    } else if (str_is(q->path, "/later") || str_is(q->path, "/owed")) {
        r->later = http_server_later(q);
        buf_append_str(&p->body, STR("never sent"));
        loop_task_init(&r->task, answer_later);
        if (str_is(q->path, "/later")) {
            loop_defer(r->loop, &r->task);
        }
    } else if (str_is(q->path, "/free")) {
        http_server_free(r->server);
        r->server = NULL;
        buf_append_str(&p->body, STR("never sent"));
    } else {
        p->status = 404;
        p->content_type = "text/html";
    }
}

static struct rig *rig_new(const struct addr *a, int mode)
{
    struct rig *r = calloc(1, sizeof(*r));
    r->loop = loop_new(NULL);
    loop_turn(r->loop, 0);
    struct err err = { 0 };
    r->server = http_server_new(r->loop, a, mode, handle, r, &err);
    assert_non_null(r->server);
    return r;
}

static struct rig *rig_tcp(void)
{
    struct addr a;
    assert_true(addr_parse(STR("127.0.0.1:0"), &a));
    return rig_new(&a, 0);
}

static void rig_free(struct rig *r)
{
    http_server_free(r->server);
    for (int i = 0; i < 3; i++) {
        loop_turn(r->loop, 0);
    }
    loop_free(r->loop);
    free(r);
    buf_cache_free();
}

static void *ask_thread(void *arg)
{
    struct ask *k = arg;
    k->status = http_client_do(&k->q, &k->arena, &k->body, &k->err);
    atomic_store(&k->done, true);
    buf_cache_free();
    return NULL;
}

// The caller finishes k->arena.
static void ask(struct rig *r, struct ask *k)
{
    pthread_t t;
    if (!k->q.to.family) {
        k->q.to = http_server_addr(r->server);
    }
    k->q.host = STR("localhost");
    k->q.timeout_ms = k->q.timeout_ms ? k->q.timeout_ms : 5000;
    k->q.max_bytes = k->q.max_bytes ? k->q.max_bytes : 1 << 22;
    assert_int_equal(pthread_create(&t, NULL, ask_thread, k), 0);
    while (!atomic_load(&k->done)) {
        loop_turn(r->loop, 1);
    }
    pthread_join(t, NULL);
    loop_turn(r->loop, 0);
    loop_turn(r->loop, 0);
}

static int get(struct rig *r, const char *path, struct ask *k)
{
    *k = (struct ask){ .q = { .method = "GET", .path = str_c(path) } };
    ask(r, k);
    return k->status;
}

static void pages(void **state)
{
    (void)state;
    struct rig *r = rig_tcp();
    struct ask k;
    assert_int_equal(get(r, "/query?b=1&a=x%20y", &k), 200);
    assert_string_equal(k.body.p, "yes=x y");
    arena_fini(&k.arena);
    assert_int_equal(get(r, "/query?ab=1", &k), 200);
    assert_string_equal(k.body.p, "no=");
    arena_fini(&k.arena);
    assert_int_equal(get(r, "/none", &k), 404);
    assert_int_equal(k.body.n, 0);
    arena_fini(&k.arena);
    assert_int_equal(get(r, "/big", &k), 200);
    assert_int_equal(k.body.n, 40000 * 48);
    arena_fini(&k.arena);
    k = (struct ask){ .q = { .method = "HEAD", .path = STR("/big") } };
    ask(r, &k);
    assert_int_equal(k.status, 200);
    assert_int_equal(k.body.n, 0);
    arena_fini(&k.arena);
    rig_free(r);
}

static void bodies(void **state)
{
    (void)state;
    struct rig *r = rig_tcp();
    struct ask k = { .q = { .method = "POST", .path = STR("/echo"), .body = STR("hello") } };
    ask(r, &k);
    assert_int_equal(k.status, 200);
    assert_string_equal(k.body.p, "hello");
    arena_fini(&k.arena);
    size_t n = HTTP_SERVER_BODY_MAX + 1;
    char *big = calloc(1, n);
    k = (struct ask){ .q = { .method = "POST", .path = STR("/echo"), .body = str_n(big, n) } };
    ask(r, &k);
    assert_int_equal(k.status, 413);
    assert_int_equal(r->requests, 1);
    arena_fini(&k.arena);
    k = (struct ask){ .q = { .method = "POST", .path = STR("/echo"), .body = str_n(big, n - 1) } };
    ask(r, &k);
    assert_int_equal(k.status, 200);
    assert_int_equal(k.body.n, n - 1);
    arena_fini(&k.arena);
    free(big);
    rig_free(r);
}

// A chunked body tells its size only as it comes.
static void endless_body(void **state)
{
    (void)state;
    struct rig *r = rig_tcp();
    struct addr a = http_server_addr(r->server);
    bool done;
    int fd = socket_connect(&a, NULL, &done);
    assert_true(fd >= 0);
    static const char head[] = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    static char chunk[6 + 4096 + 2] = "1000\r\n";
    memcpy(chunk + sizeof(chunk) - 2, "\r\n", 2);
    char answer[64] = "";
    assert_int_equal(send(fd, head, sizeof(head) - 1, MSG_NOSIGNAL), sizeof(head) - 1);
    for (int i = 0; i < 2000 && !answer[0]; i++) {
        ssize_t k = send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)k; // a short one breaks the framing, but only when the server does not read
        loop_turn(r->loop, 0);
        k = recv(fd, answer, sizeof(answer) - 1, MSG_DONTWAIT);
    }
    assert_memory_equal(answer, "HTTP/1.1 413 ", 13);
    assert_int_equal(r->requests, 0);
    close(fd);
    rig_free(r);
}

// A raw client: sends text, turns the loop, gives back what came.
static const char *talk(struct rig *r, int fd, const char *text)
{
    static char got[4096];
    size_t n = 0;
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    for (int i = 0; i < 20; i++) {
        loop_turn(r->loop, 1);
        ssize_t k = recv(fd, got + n, sizeof(got) - 1 - n, MSG_DONTWAIT);
        n += k > 0 ? (size_t)k : 0;
    }
    got[n] = '\0';
    return got;
}

static int dial(struct rig *r)
{
    struct addr a = http_server_addr(r->server);
    bool done;
    int fd = socket_connect(&a, NULL, &done);
    assert_true(fd >= 0);
    return fd;
}

static void raw_requests(void **state)
{
    (void)state;
    struct rig *r = rig_tcp();
    int fd = dial(r);
    assert_string_equal(talk(r, fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"),
                        "HTTP/1.1 100 Continue\r\n\r\n");
    const char *ok = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=UTF-8\r\ncontent-length: 2\r\n\r\nhi";
    assert_string_equal(talk(r, fd, "hi"), ok);
    assert_string_equal(talk(r, fd, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n\r\n"), ok);
    assert_memory_equal(talk(r, fd, "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 405 ", 13);
    close(fd);
    rig_free(r);
}

static void idle_clients_are_closed(void **state)
{
    (void)state;
    struct rig *r = rig_tcp();
    loop_set_fake_time(r->loop, 1000000);
    int fd = dial(r);
    assert_memory_equal(talk(r, fd, "GET /none HTTP/1.1\r\nHost: h\r\n\r\nGET /ha"), "HTTP/1.1 404 ", 13);
    char c;
    loop_set_fake_time(r->loop, 1000000 + HTTP_SERVER_IDLE_MS - 10);
    loop_turn(r->loop, 0);
    assert_int_equal(recv(fd, &c, 1, MSG_DONTWAIT), -1);
    loop_set_fake_time(r->loop, 1000000 + HTTP_SERVER_IDLE_MS + 10);
    loop_turn(r->loop, 0);
    loop_turn(r->loop, 0);
    assert_int_equal(recv(fd, &c, 1, 0), 0);
    close(fd);
    rig_free(r);
}

static void connections_are_bounded(void **state)
{
    (void)state;
    struct rig *r = rig_tcp();
    int fds[HTTP_SERVER_CONNS_MAX + 1];
    for (int i = 0; i <= HTTP_SERVER_CONNS_MAX; i++) {
        fds[i] = dial(r);
        loop_turn(r->loop, 0);
    }
    char c;
    for (int i = 0; i < 10; i++) {
        loop_turn(r->loop, 1);
    }
    assert_int_equal(recv(fds[0], &c, 1, MSG_DONTWAIT), 0); // one too many: the one that has been silent for longest goes
    assert_int_equal(recv(fds[1], &c, 1, MSG_DONTWAIT), -1);
    assert_memory_equal(talk(r, fds[HTTP_SERVER_CONNS_MAX], "GET /none HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 404 ", 13);
    for (int i = 0; i <= HTTP_SERVER_CONNS_MAX; i++) {
        close(fds[i]);
    }
    rig_free(r);
}

// Requests that never come to their end must not keep others out either.
static void unfinished_requests_make_room(void **state)
{
    (void)state;
    struct rig *r = rig_tcp();
    int fds[HTTP_SERVER_CONNS_MAX];
    for (int i = 0; i < HTTP_SERVER_CONNS_MAX; i++) {
        fds[i] = dial(r);
        static const char part[] = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx";
        assert_int_equal(send(fds[i], part, sizeof(part) - 1, MSG_NOSIGNAL), sizeof(part) - 1);
        loop_turn(r->loop, 0);
    }
    for (int i = 0; i < 10; i++) {
        loop_turn(r->loop, 1);
    }
    int probe = dial(r);
    assert_memory_equal(talk(r, probe, "GET /none HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 404 ", 13);
    close(probe);
    for (int i = 0; i < HTTP_SERVER_CONNS_MAX; i++) {
        close(fds[i]);
    }
    rig_free(r);
}

// Clients that ask for much and do not read: bounded in sum, probes pass, and who reads nothing for a while makes room.
static void unread_answers_are_bounded(void **state)
{
    (void)state;
    enum { CLIENTS = 10 };
    struct rig *r = rig_tcp();
    uint64_t now = 1000000;
    loop_set_fake_time(r->loop, now);
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    int fds[CLIENTS], small = 4096;
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = dial(r);
        setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
        static const char ask_huge[] = "GET /huge HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_int_equal(send(fds[i], ask_huge, sizeof(ask_huge) - 1, MSG_NOSIGNAL), sizeof(ask_huge) - 1);
        for (int t = 0; t < 10; t++) {
            loop_turn(r->loop, 1);
        }
    }
    assert_int_equal(r->requests, CLIENTS);
    assert_true(mallinfo2().uordblks + mallinfo2().hblkhd - before < HTTP_SERVER_UNREAD_MAX + 4 * 1024 * 1024);
    char first[13], last[13];
    assert_int_equal(recv(fds[0], first, sizeof(first), 0), sizeof(first));
    assert_memory_equal(first, "HTTP/1.1 200 ", 13);
    assert_int_equal(recv(fds[CLIENTS - 1], last, sizeof(last), 0), sizeof(last));
    assert_memory_equal(last, "HTTP/1.1 503 ", 13);
    int probe = dial(r);
    assert_memory_equal(talk(r, probe, "GET /none HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 404 ", 13);
    loop_set_fake_time(r->loop, now + HTTP_SERVER_STALE_MS + 100);
    assert_memory_equal(talk(r, probe, "GET /huge HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 200 ", 13);
    close(probe);
    for (int i = 0; i < CLIENTS; i++) {
        close(fds[i]);
    }
    rig_free(r);
}

// The same for bodies of requests that do not come to their end.
static void unfinished_bodies_are_bounded(void **state)
{
    (void)state;
    enum { CLIENTS = 12, PART = 900 * 1024 };
    struct rig *r = rig_tcp();
    int fds[CLIENTS];
    char *part = calloc(1, PART);
    static const char head[] = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n";
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = dial(r);
        assert_int_equal(send(fds[i], head, sizeof(head) - 1, MSG_NOSIGNAL), sizeof(head) - 1);
        size_t sent = 0;
        for (int t = 0; t < 10000 && sent < PART; t++) {
            ssize_t n = send(fds[i], part + sent, PART - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
            sent += n > 0 ? (size_t)n : 0;
            loop_turn(r->loop, 0);
        }
        assert_int_equal(sent, PART);
    }
    for (int t = 0; t < 50; t++) {
        loop_turn(r->loop, 1);
    }
    int refused = 0;
    for (int i = 0; i < CLIENTS; i++) { // in which order they are read is the kernel's business
        char got[13];
        if (recv(fds[i], got, sizeof(got), MSG_DONTWAIT) > 0) {
            assert_memory_equal(got, "HTTP/1.1 503 ", 13);
            refused++;
        }
    }
    assert_int_equal(refused, CLIENTS - HTTP_SERVER_BODIES_MAX / PART);
    struct ask k;
    assert_int_equal(get(r, "/none", &k), 404);
    arena_fini(&k.arena);
    for (int i = 0; i < CLIENTS; i++) {
        close(fds[i]);
    }
    free(part);
    rig_free(r);
}

static void out_of_descriptors(void **state)
{
    (void)state;
    struct rig *r = rig_tcp();
    loop_set_fake_time(r->loop, 1000000);
    int fd = dial(r), spare = dup(fd);
    close(spare); // the next free number
    struct rlimit old, tight;
    getrlimit(RLIMIT_NOFILE, &old);
    tight = old;
    tight.rlim_cur = (rlim_t)spare;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    log_set_level(-1, LOG_OFF);
    for (int i = 0; i < 5; i++) {
        loop_turn(r->loop, 1);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_string_equal(talk(r, fd, "GET /none HTTP/1.1\r\nHost: h\r\n\r\n"), ""); // it waits, and does not look again and again
    loop_set_fake_time(r->loop, 1000200);
    assert_memory_equal(talk(r, fd, "GET /none HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 404 ", 13);
    close(fd);
    rig_free(r);
}

static void after_the_answer(void **state)
{
    (void)state;
    struct rig *r = rig_tcp();
    struct ask k;
    assert_int_equal(get(r, "/quit", &k), 200);
    assert_string_equal(k.body.p, "bye\n");
    assert_int_equal(r->afters, 1);
    arena_fini(&k.arena);
    rig_free(r);
}

static void handler_frees_the_server(void **state)
{
    (void)state;
    struct rig *r = rig_tcp();
    struct ask k;
    assert_true(get(r, "/free", &k) < 0);
    arena_fini(&k.arena);
    rig_free(r);
}

static void answers_that_come_later(void **state)
{
    (void)state;
    struct rig *r = rig_tcp();
    struct ask k;
    assert_int_equal(get(r, "/later", &k), 418);
    assert_string_equal(k.body.p, "late\n");
    arena_fini(&k.arena);
    k = (struct ask){ .q = { .method = "GET", .path = STR("/owed"), .timeout_ms = 50 } };
    ask(r, &k);
    assert_true(k.status < 0);
    arena_fini(&k.arena);
    answer_later(&r->task); // to nobody: the client has left
    k = (struct ask){ .q = { .method = "GET", .path = STR("/owed"), .timeout_ms = 50 } };
    ask(r, &k);
    arena_fini(&k.arena);
    http_server_free(r->server);
    r->server = NULL;
    answer_later(&r->task); // nor when the server has
    rig_free(r);
}

static void unix_socket(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof(path), "/tmp/remora-test-http-%d.sock", (int)getpid());
    struct addr a = { .family = AF_UNIX, .path = path };
    struct rig *r = rig_new(&a, 0600);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    struct ask k;
    assert_int_equal(get(r, "/query?a", &k), 200);
    assert_string_equal(k.body.p, "yes=");
    arena_fini(&k.arena);
    rig_free(r);
    assert_int_equal(stat(path, &st), -1);
}

static void address_in_use(void **state)
{
    (void)state;
    struct rig *r = rig_tcp();
    struct addr a = http_server_addr(r->server);
    assert_int_not_equal(a.port, 0);
    struct err err = { 0 };
    assert_null(http_server_new(r->loop, &a, 0, handle, r, &err));
    assert_int_equal(err.code, -EADDRINUSE);
    rig_free(r);
}

static void client_errors(void **state)
{
    (void)state;
    struct rig *r = rig_tcp();
    struct ask k = { .q = { .method = "GET", .path = STR("/big"), .max_bytes = 1000 } };
    ask(r, &k);
    assert_int_equal(k.status, -EMSGSIZE);
    arena_fini(&k.arena);
    struct addr gone = http_server_addr(r->server);
    http_server_free(r->server);
    r->server = NULL;
    loop_turn(r->loop, 0);
    k = (struct ask){ .q = { .method = "GET", .path = STR("/"), .to = gone } };
    ask(r, &k);
    assert_int_equal(k.status, -ECONNREFUSED);
    assert_non_null(strstr(k.err.msg, "connect to 127.0.0.1:"));
    assert_non_null(strstr(k.err.msg, "refused"));
    rig_free(r);
}

// A listening socket that nobody serves: the kernel accepts, nothing answers.
static void client_timeout(void **state)
{
    (void)state;
    struct rig *r = rig_tcp();
    struct arena arena = { 0 };
    struct str body;
    struct err err = { 0 };
    struct http_client_req q = { .method = "GET", .to = http_server_addr(r->server), .host = STR("h"), .path = STR("/"),
                                 .timeout_ms = 20, .max_bytes = 100 };
    assert_int_equal(http_client_do(&q, &arena, &body, &err), -ETIMEDOUT); // the loop does not turn meanwhile
    assert_non_null(strstr(err.msg, "GET / at 127.0.0.1:"));
    arena_fini(&arena);
    rig_free(r);
}

static void query(void **state)
{
    (void)state;
    struct arena a = { 0 };
    assert_string_equal(http_query_get(STR("a=1&b=2"), "b", &a).p, "2");
    assert_string_equal(http_query_get(STR("a=1&b"), "b", &a).p, "");
    assert_string_equal(http_query_get(STR("b=%41=c"), "b", &a).p, "A=c");
    assert_null(http_query_get(STR("a=1"), "b", &a).p);
    assert_null(http_query_get(STR("b=%4"), "b", &a).p);
    assert_null(http_query_get((struct str){ 0 }, "b", &a).p);
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages),
        cmocka_unit_test(bodies),
        cmocka_unit_test(endless_body),
        cmocka_unit_test(raw_requests),
        cmocka_unit_test(idle_clients_are_closed),
        cmocka_unit_test(connections_are_bounded),
        cmocka_unit_test(unfinished_requests_make_room),
        cmocka_unit_test(unread_answers_are_bounded),
        cmocka_unit_test(unfinished_bodies_are_bounded),
        cmocka_unit_test(out_of_descriptors),
        cmocka_unit_test(after_the_answer),
        cmocka_unit_test(handler_frees_the_server), cmocka_unit_test(answers_that_come_later),
        cmocka_unit_test(unix_socket),
        cmocka_unit_test(address_in_use),
        cmocka_unit_test(client_errors),
        cmocka_unit_test(client_timeout),
        cmocka_unit_test(query),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

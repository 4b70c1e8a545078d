// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/net/origdst.h"
#include "lib/net/socket.h"

static struct addr at(const char *text)
{
    struct addr a;
    assert_true(addr_parse(str_c(text), &a));
    return a;
}

static int accept_one(int listener, struct addr *peer)
{
    struct pollfd p = { .fd = listener, .events = POLLIN };
    assert_int_equal(poll(&p, 1, 2000), 1);
    return socket_accept(listener, peer);
}

static void meet(const char *where, const struct socket_connect_opts *o)
{
    struct addr a = at(where), local, peer, seen;
    struct err err;
    int l = socket_listen(&a, NULL, &err);
    assert_true(l >= 0);
    assert_int_equal(socket_accept(l, &peer), -EAGAIN);
    assert_int_equal(socket_local(l, &local), 0);
    assert_int_not_equal(local.port, 0);
    bool done;
    int c = socket_connect(&local, o, &done);
    assert_true(c >= 0);
    int s = accept_one(l, &peer);
    assert_true(s >= 0);
    assert_int_equal(socket_local(c, &seen), 0);
    assert_true(addr_eq(&seen, &peer));
    assert_int_equal(socket_peer(s, &seen), 0);
    assert_true(addr_eq(&seen, &peer));
    if (o && o->source.family) {
        assert_true(addr_ip_eq(&peer, &o->source));
    }
    int on = 0;
    socklen_t len = sizeof(on);
    assert_int_equal(getsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
    assert_int_equal(on, 1); // inherited from the listener
    assert_int_equal(socket_error(c), 0);
    struct addr dst = { .port = 1 };
    assert_int_equal(origdst_get(s, local.family, false, &dst), -ENOENT); // nobody redirected it
    assert_int_equal(dst.port, 1);
    assert_int_equal(origdst_get(s, local.family, true, &dst), 0); // TPROXY: the local address
    assert_true(addr_eq(&dst, &local));
    close(c);
    close(s);
    close(l);
}

static void test_tcp(void **state)
{
    (void)state;
    meet("127.0.0.1:0", NULL);
    meet("[::1]:0", NULL);
    struct socket_connect_opts o = { .keepalive_idle_s = 10, .keepalive_interval_s = 5, .keepalive_probes = 3 };
    assert_true(addr_parse_ip(STR("127.0.0.6"), 0, &o.source)); // the passthrough source
    meet("127.0.0.1:0", &o);
}

static void test_refused(void **state)
{
    (void)state;
    struct addr a = at("127.0.0.1:0"), local;
    int l = socket_listen(&a, NULL, NULL);
    assert_int_equal(socket_local(l, &local), 0);
    close(l);
    bool done = false;
    int c = socket_connect(&local, NULL, &done);
    if (c >= 0) {
        struct pollfd p = { .fd = c, .events = POLLOUT };
        poll(&p, 1, 2000);
        assert_int_equal(socket_error(c), -ECONNREFUSED);
        close(c);
    } else {
        assert_int_equal(c, -ECONNREFUSED);
    }
}

static void test_in_use(void **state)
{
    (void)state;
    struct addr a = at("127.0.0.1:0"), local;
    struct err err;
    struct socket_listen_opts shared = { .reuse_port = true };
    int l = socket_listen(&a, NULL, &err);
    assert_int_equal(socket_local(l, &local), 0);
    assert_int_equal(socket_listen(&local, NULL, &err), -EADDRINUSE);
    assert_non_null(strstr(err.msg, "cannot listen on 127.0.0.1:"));
    close(l);
    l = socket_listen(&a, &shared, &err);
    assert_int_equal(socket_local(l, &local), 0);
    int l2 = socket_listen(&local, &shared, &err);
    assert_true(l2 >= 0);
    close(l);
    close(l2);
}

static void test_unix(void **state)
{
    (void)state;
    char dir[] = "/tmp/remora-sock-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/s", dir);
    struct addr a = { .family = AF_UNIX, .path = path }, peer;
    struct socket_listen_opts o = { .unix_mode = 0600 };
    struct err err;
    int l = socket_listen(&a, &o, &err);
    assert_true(l >= 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(socket_listen(&a, &o, &err), -EADDRINUSE); // somebody listens
    bool done = false;
    int c = socket_connect(&a, NULL, &done);
    assert_true(c >= 0 && done);
    int s = accept_one(l, &peer);
    assert_int_equal(peer.family, AF_UNIX);
    close(c);
    close(s);
    close(l);
    l = socket_listen(&a, &o, &err); // stale: replaced
    assert_true(l >= 0);
    close(l);
    unlink(path);
    FILE *f = fopen(path, "w");
    fclose(f);
    assert_true(socket_listen(&a, &o, &err) < 0); // a file that is no socket stays
    assert_int_equal(unlink(path), 0);
    rmdir(dir);
    a.path = "@remora-unit-abstract";
    l = socket_listen(&a, NULL, &err);
    assert_true(l >= 0);
    c = socket_connect(&a, NULL, &done);
    assert_true(c >= 0);
    close(c);
    close(l);
}

// An address that this machine does not have (TEST-NET-1).
static void test_freebind(void **state)
{
    (void)state;
    struct socket_connect_opts o = { .source = at("192.0.2.77:0") };
    struct addr to = at("127.0.0.1:9");
    bool done;
    assert_int_equal(socket_connect(&to, &o, &done), -EADDRNOTAVAIL);
    o.freebind = true;
    int fd = socket_connect(&to, &o, &done);
    assert_int_not_equal(fd, -EADDRNOTAVAIL); // whatever the way from there to loopback is
    if (fd >= 0) {
        close(fd);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_in_use),
        cmocka_unit_test(test_unix),
        cmocka_unit_test(test_freebind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

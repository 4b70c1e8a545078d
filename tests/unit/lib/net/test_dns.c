// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

// Against a name server of our own: a UDP socket on the same loop that answers from a small table.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/net/dns.h"
#include "lib/net/socket.h"

static struct loop *loop;
static struct dns *dns;
static struct loop_fd server;
static int queries;
static bool silent;

struct answer {
    int calls, status, n;
    uint32_t ttl;
    struct addr addrs[8];
    bool free_resolver;
};

static void on_answer(void *arg, int status, const struct addr *addrs, int n, uint32_t ttl)
{
    struct answer *a = arg;
    a->calls++;
    a->status = status;
    a->n = n;
    a->ttl = ttl;
    for (int i = 0; i < n && i < 8; i++) {
        a->addrs[i] = addrs[i];
    }
    if (a->free_resolver) {
        dns_free(dns);
        dns = NULL;
    }
}

// Appends an answer record that points to the question's name.
static size_t record(uint8_t *p, int type, uint32_t ttl, const void *data, uint16_t n)
{
    const uint8_t head[] = { 0xc0, 12, 0, (uint8_t)type, 0, 1, (uint8_t)(ttl >> 24), (uint8_t)(ttl >> 16), (uint8_t)(ttl >> 8),
                             (uint8_t)ttl, 0, (uint8_t)n };
    memcpy(p, head, sizeof(head));
    memcpy(p + sizeof(head), data, n);
    return sizeof(head) + n;
}

static void on_query(struct loop_fd *f, uint32_t events)
{
    (void)events;
    uint8_t m[1024];
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    ssize_t n = recvfrom(f->fd, m, 512, 0, (struct sockaddr *)&from, &len);
    if (n < 17) {
        return;
    }
    queries++;
    if (silent) {
        return;
    }
    size_t end = 12;
    while (m[end]) {
        end += m[end] + 1u;
    }
    int type = m[end + 2];
    size_t at = end + 5;
    const char *label = (const char *)m + 13;
    bool both = m[12] == 4 && memcmp(label, "both", 4) == 0, v4 = m[12] == 2 && memcmp(label, "v4", 2) == 0;
    int count = 0;
    if (type == 1 && (both || v4)) {
        at += record(m + at, 1, 300, "\x0a\x01\x02\x03", 4);
        at += record(m + at, 1, 60, "\x0a\x01\x02\x04", 4);
        count = 2;
    } else if (type == 28 && both) {
        at += record(m + at, 28, 30, "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", 16);
        count = 1;
    }
    m[2] = 0x84;
    m[3] = both || v4 ? 0x80 : 0x83; // no error, or no such name
    m[7] = (uint8_t)count;
    m[8] = m[9] = m[10] = m[11] = 0;
    sendto(f->fd, m, at, 0, (struct sockaddr *)&from, len);
}

static int setup(void **state)
{
    (void)state;
    struct addr a;
    struct sockaddr_storage ss;
    char servers[ADDR_TEXT_MAX];
    loop = loop_new(NULL);
    assert_true(addr_parse(STR("127.0.0.1:0"), &a));
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&ss, addr_to_sockaddr(&a, &ss)), 0);
    assert_int_equal(socket_local(fd, &a), 0);
    server = (struct loop_fd){ .fd = fd, .on_event = on_query };
    assert_int_equal(loop_add_fd_level(loop, &server, EPOLLIN), 0);
    dns = dns_new(loop, NULL);
    assert_non_null(dns);
    assert_int_equal(dns_set_servers(dns, addr_text(&a, servers), NULL), 0);
    queries = 0;
    silent = false;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dns_free(dns);
    loop_close_fd(loop, &server);
    loop_free(loop);
    return 0;
}

static void wait_for(struct answer *a)
{
    for (uint64_t end = clock_mono_ms() + 3000; !a->calls && clock_mono_ms() < end;) {
        loop_turn(loop, 50);
    }
    assert_int_equal(a->calls, 1);
}

static void resolve(const char *name, enum dns_family f, struct answer *a)
{
    *a = (struct answer){ 0 };
    assert_non_null(dns_resolve(dns, str_c(name), f, on_answer, a));
    assert_int_equal(a->calls, 0); // later, never from inside
    wait_for(a);
}

static void test_families(void **state)
{
    (void)state;
    struct answer a;
    char text[ADDR_TEXT_MAX];
    resolve("v4.test.", DNS_V4_ONLY, &a);
    assert_int_equal(a.status, 0);
    assert_int_equal(a.n, 2);
    assert_int_equal(a.ttl, 60); // the smallest
    assert_string_equal(addr_text(&a.addrs[0], text), "10.1.2.3:0");
    resolve("both.test.", DNS_AUTO, &a); // v6 when there is any
    assert_int_equal(a.n, 1);
    assert_string_equal(addr_text(&a.addrs[0], text), "[fd00::1]:0");
    assert_int_equal(a.ttl, 30);
    resolve("v4.test.", DNS_AUTO, &a); // else v4
    assert_int_equal(a.n, 2);
    resolve("both.test.", DNS_V4_PREFERRED, &a);
    assert_int_equal(a.addrs[0].family, AF_INET);
    resolve("both.test.", DNS_ALL, &a);
    assert_int_equal(a.n, 3);
    resolve("v4.test.", DNS_V6_ONLY, &a);
    assert_int_equal(a.status, -ENOENT);
    assert_int_equal(a.n, 0);
}

static void test_no_such_name(void **state)
{
    (void)state;
    struct answer a;
    resolve("nothing.test.", DNS_AUTO, &a);
    assert_int_equal(a.status, -ENOENT);
    resolve("", DNS_AUTO, &a);
    assert_int_equal(a.status, -ENOENT);
    char big[300];
    memset(big, 'a', sizeof(big));
    big[299] = '\0';
    resolve(big, DNS_AUTO, &a);
    assert_int_equal(a.status, -ENOENT);
    a = (struct answer){ 0 };
    dns_resolve(dns, str_n("v4\0.test.", 9), DNS_AUTO, on_answer, &a);
    wait_for(&a);
    assert_int_equal(a.status, -ENOENT);
}

static void test_literal(void **state)
{
    (void)state;
    struct answer a;
    char text[ADDR_TEXT_MAX];
    resolve("192.0.2.7", DNS_V4_ONLY, &a);
    assert_int_equal(a.n, 1);
    assert_string_equal(addr_ip_text(&a.addrs[0], text), "192.0.2.7");
    assert_int_equal(queries, 0);
}

static void test_many_at_once(void **state)
{
    (void)state;
    enum { N = 50 };
    static struct answer a[N];
    memset(a, 0, sizeof(a));
    for (int i = 0; i < N; i++) {
        dns_resolve(dns, i % 2 ? STR("v4.test.") : STR("nothing.test."), DNS_V4_ONLY, on_answer, &a[i]);
    }
    for (int i = 0; i < N; i++) {
        wait_for(&a[i]);
        assert_int_equal(a[i].status, i % 2 ? 0 : -ENOENT);
    }
}

static void test_cancel(void **state)
{
    (void)state;
    struct answer a = { 0 }, b = { 0 }, c = { 0 };
    struct dns_query *q = dns_resolve(dns, STR("v4.test."), DNS_V4_ONLY, on_answer, &a);
    struct dns_query *r = dns_resolve(dns, STR("192.0.2.1"), DNS_V4_ONLY, on_answer, &b); // answered already, not told yet
    dns_cancel(q);
    dns_cancel(r);
    dns_resolve(dns, STR("v4.test."), DNS_V4_ONLY, on_answer, &c);
    wait_for(&c);
    for (int i = 0; i < 5; i++) {
        loop_turn(loop, 0);
    }
    assert_int_equal(a.calls + b.calls, 0);
}

static void test_timeout(void **state)
{
    (void)state;
    silent = true;
    uint64_t now = 100000;
    loop_set_fake_time(loop, now);
    struct answer a = { 0 };
    dns_resolve(dns, STR("v4.test."), DNS_V4_ONLY, on_answer, &a);
    loop_turn(loop, 20);
    loop_set_fake_time(loop, now + DNS_TIMEOUT_MS - 1);
    loop_turn(loop, 0);
    assert_int_equal(a.calls, 0);
    loop_set_fake_time(loop, now + DNS_TIMEOUT_MS);
    loop_turn(loop, 0);
    loop_turn(loop, 0);
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.status, -ETIMEDOUT);
    assert_true(queries >= 1);
}

// With questions under way; also from inside a callback.
static void test_free_resolver(void **state)
{
    (void)state;
    silent = true;
    struct answer a = { 0 }, b = { .free_resolver = true }, c = { 0 };
    dns_resolve(dns, STR("v4.test."), DNS_V4_ONLY, on_answer, &a);
    dns_resolve(dns, STR("192.0.2.1"), DNS_V4_ONLY, on_answer, &b);
    dns_resolve(dns, STR("192.0.2.2"), DNS_V4_ONLY, on_answer, &c);
    wait_for(&b);
    loop_turn(loop, 0);
    assert_int_equal(a.calls + c.calls, 0);
    assert_null(dns);
}

static void test_servers_refused(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(dns_set_servers(dns, "not an address", &err), -EINVAL);
    assert_non_null(strstr(err.msg, "not an address"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
        T(test_families), T(test_no_such_name), T(test_literal), T(test_many_at_once), T(test_cancel), T(test_timeout),
        T(test_free_resolver), T(test_servers_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// Clusters by name against a name server of this test; time is moved by hand.
#include "tests/unit/proxy/world.h"

#include <sys/socket.h>

#include "lib/base/rand.h"

static struct world x;
static struct host_table *table;
static struct cluster_cfg *cfg;
static struct dns *dns;
static struct dns_cluster *cluster;
static struct loop_fd server;
static struct lb_endpoint_cfg name;
static struct endpoint_set *got; // ref
static int changes, asked;
static uint64_t now_ms;

// What the server says now.
static uint8_t v4[4], v6[4]; // last bytes of 10.0.0.x and fd00::x; 0 = no more
static uint32_t ttl;
static int rcode;

static size_t record(uint8_t *p, int type, const void *data, uint8_t n)
{
    const uint8_t head[] = { 0xc0, 12, 0, (uint8_t)type, 0, 1, 0, 0, (uint8_t)(ttl >> 8), (uint8_t)ttl, 0, n };
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
    if (recvfrom(f->fd, m, 512, 0, (struct sockaddr *)&from, &len) < 17) {
        return;
    }
    asked++;
    size_t end = 12, count = 0;
    while (m[end]) {
        end += m[end] + 1u;
    }
    int type = m[end + 2];
    size_t at = end + 5;
    for (; type == 1 && rcode == 0 && count < 4 && v4[count]; count++) {
        const uint8_t a[] = { 10, 0, 0, v4[count] };
        at += record(m + at, type, a, 4);
    }
    for (; type == 28 && rcode == 0 && count < 4 && v6[count]; count++) {
        uint8_t a[16] = { 0xfd };
        a[15] = v6[count];
        at += record(m + at, type, a, 16);
    }
    m[2] = 0x84;
    m[3] = (uint8_t)(0x80 | rcode);
    m[7] = (uint8_t)count;
    m[8] = m[9] = m[10] = m[11] = 0;
    sendto(f->fd, m, at, 0, (struct sockaddr *)&from, len);
}

static void say(const uint8_t a[4], const uint8_t b[4])
{
    memcpy(v4, a, 4);
    memcpy(v6, b, 4);
}

static int setup(void **state)
{
    (void)state;
    char servers[ADDR_TEXT_MAX];
    struct sockaddr_storage ss;
    rand_seed(3);
    world_init(&x);
    now_ms = 1000000;
    loop_set_fake_time(x.w.loop, now_ms);
    struct addr a = world_ip("127.0.0.1:0");
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&ss, addr_to_sockaddr(&a, &ss)), 0);
    assert_int_equal(socket_local(fd, &a), 0);
    server = (struct loop_fd){ .fd = fd, .on_event = on_query };
    assert_int_equal(loop_add_fd_level(x.w.loop, &server, EPOLLIN), 0);
    dns = dns_new(x.w.loop, NULL);
    assert_int_equal(dns_set_servers(dns, addr_text(&a, servers), NULL), 0);
    table = host_table_new();
    cfg = world_cluster("c", LB_ROUND_ROBIN);
    name = (struct lb_endpoint_cfg){ .host_name = STR("shop.test"), .port = 80, .weight = 1 };
    cfg->endpoints = &name;
    cfg->endpoint_count = 1;
    cfg->type = CLUSTER_STRICT_DNS;
    cfg->dns_lookup = DNS_LOOKUP_V4;
    cfg->dns_refresh_ms = 5000;
    changes = asked = rcode = 0;
    ttl = 60;
    say((const uint8_t[4]){ 1, 2 }, (const uint8_t[4]){ 7, 8 });
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dns_cluster_free(cluster);
    cluster = NULL;
    endpoint_set_unref(got);
    got = NULL;
    dns_free(dns);
    loop_close_fd(x.w.loop, &server);
    host_table_free(table);
    cluster_cfg_unref(cfg);
    world_fini(&x);
    return 0;
}

static void changed(void *arg, struct endpoint_set *set)
{
    (void)arg;
    endpoint_set_unref(got);
    got = set;
    changes++;
}

static uint64_t count(enum stat_any id)
{
    return world_stat(&x, STAT_CLUSTER_LB, "c", id);
}

static uint64_t answers(void)
{
    return count(STAT_ID_CLUSTER_LB_UPDATE_SUCCESS) + count(STAT_ID_CLUSTER_LB_UPDATE_EMPTY) + count(STAT_ID_CLUSTER_LB_UPDATE_FAILURE);
}

static void start(void)
{
    cluster = dns_cluster_new(x.w.loop, dns, table, cfg, changed, NULL);
    dns_cluster_count(cluster, stats_shard_control(x.stats));
    world_turn_until(&x, changes == 1);
}

// Nothing is asked until ms have passed; then the answer is taken.
static void next_after(uint64_t ms)
{
    int before = asked;
    uint64_t done = answers();
    loop_set_fake_time(x.w.loop, now_ms += ms - 1);
    world_turns(&x, 3);
    assert_int_equal(asked, before);
    loop_set_fake_time(x.w.loop, now_ms += 1);
    world_turn_until(&x, answers() > done);
}

static const char *host(size_t i)
{
    return got->v[i].host->text;
}

static void strict_follows_every_answer(void **state)
{
    (void)state;
    start();
    assert_int_equal(got->count, 2);
    assert_string_equal(host(0), "10.0.0.1:80");
    say((const uint8_t[4]){ 2, 1 }, v6); // another order is no change
    next_after(5000);
    assert_int_equal(changes, 1);
    assert_int_equal(count(STAT_ID_CLUSTER_LB_UPDATE_NO_REBUILD), 1);
    say((const uint8_t[4]){ 2, 3 }, v6);
    next_after(5000);
    assert_int_equal(changes, 2);
    assert_string_equal(host(1), "10.0.0.3:80");
    rcode = 3; // no such name
    next_after(5000);
    assert_int_equal(got->count, 0);
    assert_int_equal(count(STAT_ID_CLUSTER_LB_UPDATE_EMPTY), 1);
    assert_int_equal(count(STAT_ID_CLUSTER_LB_UPDATE_ATTEMPT), 4);
}

static void logical_keeps_its_address(void **state)
{
    (void)state;
    cfg->type = CLUSTER_LOGICAL_DNS;
    start();
    assert_int_equal(got->count, 1);
    assert_string_equal(host(0), "10.0.0.1:80");
    say((const uint8_t[4]){ 2, 1 }, v6); // still there
    next_after(5000);
    assert_int_equal(changes, 1);
    rcode = 3;
    next_after(5000);
    assert_int_equal(changes, 1);
    rcode = 0;
    say((const uint8_t[4]){ 2, 3 }, v6);
    next_after(5000);
    assert_int_equal(changes, 2);
    assert_int_equal(got->count, 1);
    assert_string_equal(host(0), "10.0.0.2:80");
}

static void the_time_to_live_is_respected(void **state)
{
    (void)state;
    cfg->respect_dns_ttl = true;
    ttl = 42;
    start();
    ttl = 0; // says nothing: the configured rate
    next_after(42000);
    next_after(5000);
}

static void failures_are_repeated_at_their_own_rate(void **state)
{
    (void)state;
    cfg->dns_fail_base_ms = cfg->dns_fail_max_ms = 700;
    start();
    rcode = 2; // server failure: what was known stays
    next_after(5000);
    assert_int_equal(count(STAT_ID_CLUSTER_LB_UPDATE_FAILURE), 1);
    next_after(700);
    assert_int_equal(got->count, 2);
    assert_int_equal(changes, 1);
    rcode = 0;
    next_after(700);
    next_after(5000);
}

static void families_as_configured(void **state)
{
    (void)state;
    static const struct {
        enum dns_lookup lookup;
        const char *first;
        size_t count;
    } v[] = { { DNS_LOOKUP_V4, "10.0.0.1:80", 2 }, { DNS_LOOKUP_V6, "[fd00::7]:80", 2 }, { DNS_LOOKUP_AUTO, "[fd00::7]:80", 2 },
              { DNS_LOOKUP_V4_PREFERRED, "10.0.0.1:80", 2 }, { DNS_LOOKUP_ALL, "10.0.0.1:80", 4 } };
    for (size_t i = 0; i < 5; i++) {
        cfg->dns_lookup = v[i].lookup;
        start();
        assert_int_equal(got->count, v[i].count);
        assert_string_equal(host(0), v[i].first);
        dns_cluster_free(cluster);
        changes = 0;
    }
    say((const uint8_t[4]){ 1 }, (const uint8_t[4]){ 0 });
    cfg->dns_lookup = DNS_LOOKUP_AUTO; // none of the one: the other
    start();
    assert_string_equal(host(0), "10.0.0.1:80");
}

static void all_addresses_of_a_logical_host(void **state)
{
    (void)state;
    cfg->type = CLUSTER_LOGICAL_DNS;
    cfg->dns_lookup = DNS_LOOKUP_ALL;
    start();
    assert_int_equal(got->count, 1);
    assert_int_equal(got->v[0].host->more_count, 3);
    struct host *before = got->v[0].host;
    next_after(5000);
    assert_int_equal(changes, 1);
    say((const uint8_t[4]){ 1, 2 }, (const uint8_t[4]){ 7 });
    next_after(5000);
    assert_int_equal(changes, 2);
    assert_ptr_not_equal(got->v[0].host, before);
    assert_int_equal(got->v[0].host->more_count, 2);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(strict_follows_every_answer), T(logical_keeps_its_address), T(the_time_to_live_is_respected),
        T(failures_are_repeated_at_their_own_rate), T(families_as_configured), T(all_addresses_of_a_logical_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

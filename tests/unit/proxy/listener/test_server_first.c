// SPDX-License-Identifier: Apache-2.0
// Who speaks first: when a probe is made for a silent client, and what becomes of both. Time stands still unless moved; the terminal filters only note
// what they are asked.
#define WORLD_WITHOUT_UPSTREAM
#include "tests/unit/proxy/world.h"

#include <stdio.h>

#include "proxy/listener/first_speaker.h"
#include "proxy/listener/internal.h"
#include "proxy/listener/listener.h"
#include "proxy/listener/listener_filter.h"
#include "proxy/listener/network_filter.h"

static struct world x;
static struct listener_cfg *l;
static uint64_t now;

// What the terminal filter of the raw chain was asked, and what it is to answer.
static int probes, cancelled, started_raw, started_http, asked, adopted;
static bool cannot;
static struct downstream *probed;
static void (*tell)(struct downstream *d, enum probe_event e, struct str words);
static int handle;

static void closed(struct conn *c, enum conn_close why)
{
    (void)why;
    downstream_close(c->owner);
}
static const struct conn_ops held_ops = { .on_close = closed };

static void hold(struct downstream *d)
{
    d->conn->ops = &held_ops;
    d->conn->owner = d;
}

static void start_raw(struct downstream *d, const void *cfg)
{
    (void)cfg;
    started_raw++;
    adopted += d->probe == &handle;
    d->probe = NULL;
    hold(d);
}

static void start_http(struct downstream *d, const void *cfg)
{
    (void)cfg;
    started_http++;
    assert_null(d->probe);
    hold(d);
}

static void *probe(struct downstream *d, const void *cfg, void (*on_event)(struct downstream *d, enum probe_event e, struct str words))
{
    (void)cfg;
    probes++;
    probed = d;
    tell = on_event;
    return cannot ? NULL : &handle;
}

static void probe_cancel(void *p)
{
    assert_ptr_equal(p, &handle);
    cancelled++;
}

static const struct network_filter_ops raw_end = {
    .ext = { .name = "raw" },
    .terminal = true,
    .start = start_raw,
    .probe = probe,
    .probe_cancel = probe_cancel,
};
static const struct network_filter_ops http_end = { .ext = { .name = "http" }, .terminal = true, .start = start_http };

// ---- filters before it ----

static enum filter_verdict verdict;

static enum filter_verdict on_connection(struct downstream *d, const void *cfg)
{
    (void)d, (void)cfg;
    asked++;
    return verdict;
}
static enum filter_verdict peek(const struct downstream *d, const void *cfg)
{
    (void)d, (void)cfg;
    return verdict;
}
static const struct network_filter_ops gate = { .ext = { .name = "gate" }, .on_connection = on_connection };
static const struct network_filter_ops clear_gate = { .ext = { .name = "clear" }, .on_connection = on_connection, .peek = peek };
static const struct network_filter_ops observer = { .ext = { .name = "observer" }, .on_connection = on_connection, .observes = true };

// ---- an inspector of one letter: H is HTTP ----

static enum listener_verdict wants_bytes(struct downstream *d, const void *cfg)
{
    (void)d, (void)cfg;
    return LF_NEED_BYTES;
}

static enum listener_verdict looks(struct downstream *d, const void *cfg, struct str bytes, bool eof, size_t *ret_consumed)
{
    (void)cfg, (void)eof, (void)ret_consumed;
    static struct str http[] = { STR_INIT("http/1.1") };
    if (bytes.p[0] == '?') {
        return LF_NEED_BYTES;
    }
    d->alpn = bytes.p[0] == 'H' ? http : NULL;
    d->alpn_count = bytes.p[0] == 'H';
    return LF_DONE;
}
static const struct listener_filter_ops sniffer = {
    .ext = { .name = "sniff" }, .on_accept = wants_bytes, .on_bytes = looks, .max_bytes = 8, .sniffs = true
};

// Takes one '#' off the front.
static enum listener_verdict takes(struct downstream *d, const void *cfg, struct str bytes, bool eof, size_t *ret_consumed)
{
    (void)d, (void)cfg, (void)eof;
    *ret_consumed = bytes.p[0] == '#';
    return LF_DONE;
}
static const struct listener_filter_ops header = {
    .ext = { .name = "header" }, .on_accept = wants_bytes, .on_bytes = takes, .max_bytes = 8
};

static struct filter_chain *chain_new(const struct network_filter_ops *before, const struct network_filter_ops *end)
{
    struct filter_chain *c = arena_new(&l->arena, struct filter_chain);
    c->filters = arena_array(&l->arena, struct ext, 2);
    if (before) {
        c->filters[c->filter_count++].ops = &before->ext;
    }
    c->filters[c->filter_count++].ops = &end->ext;
    return c;
}

static int setup(void **state)
{
    (void)state;
    world_init(&x);
    listener_worker_init(&x.w);
    now = 1000000;
    loop_set_fake_time(x.w.loop, now);
    probes = cancelled = started_raw = started_http = asked = adopted = 0;
    cannot = false;
    verdict = FILTER_CONTINUE;
    l = listener_cfg_new();
    l->name = l->stat_name = STR("in");
    l->chains = chain_matcher_new(&l->arena);
    l->listener_filters = arena_array(&l->arena, struct listener_filter_cfg, 2);
    l->listener_filters[0].ext.ops = &sniffer.ext;
    l->listener_filter_count = 1;
    l->continue_on_timeout = true;
    static struct str http[] = { STR_INIT("http/1.1") };
    struct chain_criteria k = { .application_protocols = http, .application_protocol_count = 1 };
    assert_int_equal(chain_matcher_add(l->chains, &k, chain_new(NULL, &http_end), STR("http"), NULL), 0);
    l->default_chain = chain_new(NULL, &raw_end);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    listener_worker_fini(&x.w);
    listener_cfg_unref(l);
    world_fini(&x);
    return 0;
}

static int client(void)
{
    int fd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    struct addr peer = world_ip("10.1.1.9:40000"), local = world_ip("10.0.0.5:25");
    listener_inject(&x.w, l, fd[0], &peer, &local);
    return fd[1];
}

static void pass(uint64_t ms)
{
    now += ms;
    loop_set_fake_time(x.w.loop, now);
    loop_turn(x.w.loop, 0);
}

static void end(int fd)
{
    close(fd);
    world_turn_until(&x, listener_connections(&x.w) == 0);
}

static uint64_t stat_of(enum stat_any id)
{
    return world_stat(&x, STAT_LISTENER, "in", id);
}

static void server_first_is_taken_and_learned(void **state)
{
    (void)state;
    int a = client();
    pass(5);
    assert_int_equal(probes, 0); // the client may be about to speak
    pass(30);
    assert_int_equal(probes, 1);
    assert_int_equal(started_raw, 0);
    tell(probed, PROBE_SPOKE, STR("220 ready"));
    assert_int_equal(started_raw, 1);
    assert_int_equal(adopted, 1);
    int b = client();
    assert_int_equal(probes, 2); // at once
    tell(probed, PROBE_SPOKE, STR("220 ready"));
    assert_int_equal(adopted, 2);
    assert_int_equal(stat_of(STAT_ID_LISTENER_SERVER_FIRST_DETECTED), 2);
    assert_int_equal(stat_of(STAT_ID_LISTENER_SERVER_FIRST_KNOWN), 1);
    assert_int_equal(cancelled, 0);
    close(b);
    end(a);
}

static void client_first_http_gives_the_probe_up(void **state)
{
    (void)state;
    int a = client();
    pass(30);
    world_send(a, "H");
    world_turn_until(&x, started_http == 1);
    assert_int_equal(cancelled, 1);
    int b = client();
    pass(100);
    assert_int_equal(probes, 1); // learned: clients speak first here
    pass(500);
    assert_int_equal(probes, 2);
    close(b);
    end(a);
    assert_int_equal(cancelled, 2);
    assert_int_equal(stat_of(STAT_ID_LISTENER_SERVER_FIRST_WASTED), 2);
}

static void prompt_client_is_not_probed_for(void **state)
{
    (void)state;
    int a = client();
    world_send(a, "H");
    world_turn_until(&x, started_http == 1);
    pass(100);
    assert_int_equal(probes, 0);
    end(a);
}

static void client_first_on_the_same_chain_uses_the_probe(void **state)
{
    (void)state;
    int a = client();
    pass(30);
    world_send(a, "x");
    world_turn_until(&x, started_raw == 1);
    assert_int_equal(adopted, 1);
    assert_int_equal(stat_of(STAT_ID_LISTENER_SERVER_FIRST_USED), 1);
    end(a);
}

// A client that has begun is inspected to the end, whatever the server says meanwhile.
static void server_does_not_overtake_a_client_that_began(void **state)
{
    (void)state;
    int a = client();
    pass(30);
    world_send(a, "?");
    world_turns(&x, 5);
    tell(probed, PROBE_SPOKE, STR("220 ready"));
    assert_int_equal(started_raw, 0);
    shutdown(a, SHUT_WR); // no more will come: inspected
    world_turn_until(&x, started_raw == 1);
    assert_int_equal(adopted, 1);
    close(a);
}

static void servers_of_http_are_not_server_first(void **state)
{
    (void)state;
    int a = client();
    pass(30);
    tell(probed, PROBE_SPOKE, str_n("\0\0", 2));
    assert_int_equal(cancelled, 0);
    tell(probed, PROBE_SPOKE, str_n("\0\0\6\4\0\0\0\0\0", 9));
    assert_int_equal(cancelled, 1);
    assert_int_equal(started_raw, 0);
    pass(3600000);
    assert_int_equal(probes, 1);
    world_send(a, "H");
    world_turn_until(&x, started_http == 1);
    end(a);
}

// Two bytes that might become HTTP, and never do.
static void words_cut_short_count_in_the_end(void **state)
{
    (void)state;
    int a = client();
    pass(30);
    tell(probed, PROBE_SPOKE, STR("HT"));
    assert_int_equal(started_raw, 0);
    pass(150);
    assert_int_equal(adopted, 1);
    end(a);
}

static void time_out_takes_the_chain_with_its_probe(void **state)
{
    (void)state;
    l->listener_filters_timeout_ms = 5000;
    int a = client();
    pass(30);
    pass(5000);
    assert_int_equal(started_raw, 1);
    assert_int_equal(adopted, 1);
    end(a);
}

static void failed_probes_are_tried_again_ever_slower(void **state)
{
    (void)state;
    cannot = true;
    int a = client();
    pass(30);
    assert_int_equal(probes, 1);
    uint64_t waits[] = { 1000, 2000, 4000, 8000, 16000, 16000 };
    for (size_t i = 0; i < 6; i++) {
        pass(waits[i] - 10);
        assert_int_equal(probes, i + 1);
        pass(20);
        assert_int_equal(probes, i + 2);
    }
    assert_int_equal(stat_of(STAT_ID_LISTENER_SERVER_FIRST_FAILED), 7);
    assert_int_equal(started_raw, 0);
    end(a);
}

static void lost_probe_of_a_known_server_takes_the_chain(void **state)
{
    (void)state;
    int a = client();
    pass(30);
    tell(probed, PROBE_SPOKE, STR("220"));
    int b = client();
    tell(probed, PROBE_FAILED, (struct str){ 0 });
    assert_int_equal(started_raw, 2); // without a probe: it finds out for itself, and says so in its log
    assert_int_equal(adopted, 1);
    close(b);
    end(a);
}

static void server_that_closes_ends_the_probe_only(void **state)
{
    (void)state;
    int a = client();
    pass(30);
    tell(probed, PROBE_ENDED, (struct str){ 0 });
    pass(100000);
    assert_int_equal(probes, 1);
    assert_int_equal(started_raw, 0);
    world_send(a, "H");
    world_turn_until(&x, started_http == 1);
    end(a);
    assert_int_equal(cancelled, 0); // it was gone already
}

static void silence_on_both_sides_ends_the_probe(void **state)
{
    (void)state;
    int a = client();
    pass(30);
    pass(59000);
    assert_int_equal(cancelled, 0);
    pass(2000);
    assert_int_equal(cancelled, 1);
    pass(600000);
    assert_int_equal(probes, 1);
    world_send(a, "x");
    world_turn_until(&x, started_raw == 1);
    assert_int_equal(adopted, 0);
    end(a);
}

static void client_that_goes_takes_the_probe_along(void **state)
{
    (void)state;
    int a = client();
    pass(30);
    end(a);
    assert_int_equal(cancelled, 1);
    assert_int_equal(started_raw, 0);
}

// Silent clients cost their server no more than so many connections; a known server is not held up by them.
static void probes_are_limited(void **state)
{
    (void)state;
    int fd[140];
    for (int i = 0; i < 140; i++) {
        fd[i] = client();
    }
    pass(30);
    assert_int_equal(probes, 128);
    assert_int_equal(stat_of(STAT_ID_LISTENER_SERVER_FIRST_PUT_OFF), 12);
    tell(probed, PROBE_SPOKE, STR("220"));
    int known = client();
    assert_int_equal(probes, 129);
    pass(1100);
    assert_int_equal(probes, 129 + 12); // known by now
    close(known);
    for (int i = 0; i < 140; i++) {
        close(fd[i]);
    }
    world_turn_until(&x, listener_connections(&x.w) == 0);
    assert_int_equal(cancelled, probes - 1);
}

// ---- when there is none ----

static void no_probe(const char *why)
{
    int a = client();
    pass(30);
    pass(5000);
    if (probes) {
        fail_msg("%s: probed", why);
    }
    end(a);
}

static void nothing_is_probed_where_it_must_not_be(void **state)
{
    (void)state;
    l->continue_on_timeout = false;
    no_probe("the time-out closes");
    l->continue_on_timeout = true;
    l->default_chain = NULL;
    no_probe("no chain");
    l->default_chain = chain_new(NULL, &raw_end);
    struct tls_cfg tls = { 0 };
    l->default_chain->tls = &tls;
    no_probe("the chain wants TLS");
    l->default_chain = chain_new(NULL, &http_end);
    no_probe("the chain is HTTP");
    l->default_chain = chain_new(&gate, &raw_end);
    no_probe("a filter that cannot say");
    l->default_chain = chain_new(&clear_gate, &raw_end);
    verdict = FILTER_CLOSE;
    no_probe("a filter that would refuse");
    assert_int_equal(asked, 0); // nobody was counted
    verdict = FILTER_CONTINUE;
    l->default_chain = chain_new(NULL, &raw_end);
    l->listener_filters[1].ext.ops = &header.ext;
    l->listener_filter_count = 2;
    no_probe("a filter that must have bytes");
}

static void filters_are_asked_once_when_the_chain_is_taken(void **state)
{
    (void)state;
    const struct network_filter_ops *v[] = { &clear_gate, &observer };
    for (int i = 0; i < 2; i++) {
        l->default_chain = chain_new(v[i], &raw_end);
        int a = client();
        pass(30);
        assert_int_equal(probes, i + 1);
        assert_int_equal(asked, i);
        tell(probed, PROBE_SPOKE, STR("220"));
        assert_int_equal(asked, i + 1);
        assert_int_equal(adopted, i + 1);
        end(a);
    }
}

// The bytes of a filter that takes them are not the client's first words; what follows is.
static void header_bytes_are_no_words(void **state)
{
    (void)state;
    l->listener_filters[0].ext.ops = &header.ext;
    l->listener_filters[1].ext.ops = &sniffer.ext;
    l->listener_filter_count = 2;
    int a = client();
    pass(100);
    assert_int_equal(probes, 0);
    world_send(a, "#");
    world_turns(&x, 5);
    pass(30);
    assert_int_equal(probes, 1);
    tell(probed, PROBE_SPOKE, STR("220"));
    assert_int_equal(adopted, 1);
    end(a);
}

// Allowed when asked before, refused when it counts: the probe must not be left behind.
static void refused_at_last(void **state)
{
    (void)state;
    l->default_chain = chain_new(&clear_gate, &raw_end);
    int a = client();
    pass(30);
    verdict = FILTER_CLOSE;
    tell(probed, PROBE_SPOKE, STR("220"));
    assert_int_equal(cancelled, 1);
    assert_int_equal(started_raw, 0);
    assert_int_equal(listener_connections(&x.w), 0);
    close(a);
}

static void worker_ends_with_a_probe(void **state)
{
    (void)state;
    int a = client();
    pass(30);
    assert_int_equal(probes, 1);
    close(a); // teardown ends the rest
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(server_first_is_taken_and_learned),
        T(client_first_http_gives_the_probe_up),
        T(prompt_client_is_not_probed_for),
        T(client_first_on_the_same_chain_uses_the_probe),
        T(server_does_not_overtake_a_client_that_began),
        T(servers_of_http_are_not_server_first),
        T(words_cut_short_count_in_the_end),
        T(time_out_takes_the_chain_with_its_probe),
        T(failed_probes_are_tried_again_ever_slower),
        T(lost_probe_of_a_known_server_takes_the_chain),
        T(server_that_closes_ends_the_probe_only),
        T(silence_on_both_sides_ends_the_probe),
        T(client_that_goes_takes_the_probe_along),
        T(probes_are_limited),
        T(nothing_is_probed_where_it_must_not_be),
        T(filters_are_asked_once_when_the_chain_is_taken),
        T(header_bytes_are_no_words),
        T(refused_at_last),
        T(worker_ends_with_a_probe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// Protocols where the server speaks first, behind listener filters that wait for the client: while the client is silent, the chain that would
// be taken on time-out connects upstream, and whoever speaks first decides. Why and how: docs/internals/server-first.md.
#include "lib/base/log.h"
#include "proxy/listener/internal.h"
#include "proxy/listener/listener_filter.h"

enum {
    SILENT_MS = 20,         // before the first probe of a destination nobody knows: a client that speaks first has mostly spoken by then
    SILENT_CLIENT_MS = 500, // where a probe was for nothing before
    RETRY_MS = 1000,        // after a probe that could not connect; doubles
    RETRY_SHIFT_MAX = 4,
    PROBES_MAX = 128, // at a time and worker, for destinations not known to speak first: silent clients must not cost their server more
    WORDS_MS = 100,   // for the rest of first words that might become HTTP
    HOLD_MS = 60000,  // both sides silent: the upstream connection is given up
};

static uint64_t now_ms(const struct downstream *d)
{
    return loop_now_ms(d->worker->loop);
}

static enum speaker known_speaker(const struct downstream *d)
{
    return speaker_get(listener_set_of(d->worker)->speakers, downstream_local(d), now_ms(d));
}

static void learn(struct downstream *d, enum speaker who)
{
    struct listener_set *set = listener_set_of(d->worker);
    if (!set->speakers) {
        set->speakers = speaker_table_new();
    }
    speaker_learn(set->speakers, downstream_local(d), who, now_ms(d));
}

static const struct network_filter_ops *ops_at(const struct filter_chain *c, size_t i)
{
    return (const struct network_filter_ops *)c->filters[i].ops;
}

static const struct network_filter_ops *terminal_of(const struct filter_chain *c)
{
    return c->filter_count ? ops_at(c, c->filter_count - 1) : NULL;
}

// Everything that still waits only wants to know the protocol. (Others, a PROXY header say, must come before anything is known at all.)
static bool only_sniffing(const struct progress *p)
{
    const struct listener_cfg *l = p->d->listener;
    for (size_t i = p->at; i < l->listener_filter_count; i++) {
        const struct listener_filter_cfg *f = &l->listener_filters[i];
        if (!chain_filter_disabled(p->d, f) && !((const struct listener_filter_ops *)f->ext.ops)->sniffs) {
            return false;
        }
    }
    return true;
}

// The chain of the time-out, when it is one through which a connection may be made for a client that has shown nothing: not one that wants
// TLS, not one whose filters cannot say beforehand whether they would let the client through.
static const struct filter_chain *candidate(const struct progress *p)
{
    const struct filter_chain *c = chain_find(p->d);
    const struct network_filter_ops *end = c ? terminal_of(c) : NULL;
    if (!end || c->tls || !end->probe) {
        return NULL;
    }
    for (size_t i = 0; i + 1 < c->filter_count; i++) {
        const struct network_filter_ops *f = ops_at(c, i);
        if (!f->observes && f->on_connection && (!f->peek || f->peek(p->d, c->filters[i].cfg) != FILTER_CONTINUE)) {
            return NULL;
        }
    }
    return c;
}

static void uncount(struct progress *p)
{
    listener_set_of(p->d->worker)->probes -= p->counted;
    p->counted = false;
}

static void give_up_probe(struct progress *p)
{
    uncount(p);
    if (p->probe) {
        stat_inc(p->d->stats, STAT_ID_LISTENER_SERVER_FIRST_WASTED);
        terminal_of(p->chain)->probe_cancel(p->probe);
        p->probe = NULL;
    }
}

static void wait_again(struct progress *p)
{
    unsigned shift = p->tries < RETRY_SHIFT_MAX ? p->tries : RETRY_SHIFT_MAX;
    p->tries += p->tries < UINT8_MAX;
    timer_set(p->d->worker->loop, &p->silence, (uint64_t)RETRY_MS << shift);
}

static void take_server_first(struct progress *p)
{
    stat_inc(p->d->stats, STAT_ID_LISTENER_SERVER_FIRST_DETECTED);
    learn(p->d, SPEAKER_SERVER);
    chain_take(p->d, p->chain);
}

static void server_spoke(struct progress *p, struct str words)
{
    struct downstream *d = p->d;
    switch (first_words(words)) {
    case FIRST_WORDS_MORE:
        p->stutters = true;
        timer_set(d->worker->loop, &p->silence, WORDS_MS);
        return;
    case FIRST_WORDS_HTTP:
        log_debug(LOGC_CONNECTION, d->conn->id, "server_first_http", "listener=%.*s", STR_FMT(d->listener->name));
        learn(d, SPEAKER_CLIENT);
        timer_cancel(&p->silence);
        give_up_probe(p); // for good: it would say the same again
        return;
    case FIRST_WORDS_OTHER:
        take_server_first(p);
        return;
    }
}

// Without a probe any more: a client of a server-first protocol is to see what became of its connection, others go on being waited for.
static void probe_lost(struct progress *p, enum probe_event e)
{
    p->probe = NULL;
    uncount(p);
    timer_cancel(&p->silence);
    stat_inc(p->d->stats, e == PROBE_FAILED ? STAT_ID_LISTENER_SERVER_FIRST_FAILED : STAT_ID_LISTENER_SERVER_FIRST_WASTED);
    if (p->heard) {
        return;
    }
    if (known_speaker(p->d) == SPEAKER_SERVER) {
        chain_take(p->d, p->chain);
    } else if (e == PROBE_FAILED) {
        wait_again(p);
    }
}

static void on_event(struct downstream *d, enum probe_event e, struct str words)
{
    struct progress *p = d->pre;
    if (e != PROBE_SPOKE) {
        probe_lost(p, e);
    } else if (!p->heard) {
        server_spoke(p, words);
    }
}

static void begin_probe(struct progress *p)
{
    struct downstream *d = p->d;
    p->chain = candidate(p);
    if (!p->chain) {
        return; // there will be none later: what is known changes only with the client's bytes
    }
    struct listener_set *set = listener_set_of(d->worker);
    if (known_speaker(d) != SPEAKER_SERVER) {
        if (set->probes >= PROBES_MAX) {
            stat_inc(d->stats, STAT_ID_LISTENER_SERVER_FIRST_PUT_OFF);
            timer_set(d->worker->loop, &p->silence, RETRY_MS);
            return;
        }
        p->counted = true;
        set->probes++;
    }
    const struct network_filter_ops *end = terminal_of(p->chain);
    p->probe = end->probe(d, p->chain->filters[p->chain->filter_count - 1].cfg, on_event);
    if (!p->probe) {
        probe_lost(p, PROBE_FAILED);
        return;
    }
    stat_inc(d->stats, STAT_ID_LISTENER_SERVER_FIRST_PROBES);
    timer_set(d->worker->loop, &p->silence, HOLD_MS);
}

static void silent(struct timer *t)
{
    struct progress *p = container_of(t, struct progress, silence);
    if (!p->probe) {
        begin_probe(p);
        return;
    }
    if (p->stutters && !p->heard) {
        take_server_first(p);
        return;
    }
    learn(p->d, SPEAKER_CLIENT);
    give_up_probe(p);
}

void server_first_wait(struct progress *p)
{
    struct downstream *d = p->d;
    const struct listener_cfg *l = d->listener;
    if (p->heard || p->silence.fn || !l->continue_on_timeout || l->no_server_first || !only_sniffing(p)) {
        return;
    }
    timer_init(&p->silence, silent);
    switch (known_speaker(d)) {
    case SPEAKER_SERVER:
        stat_inc(d->stats, STAT_ID_LISTENER_SERVER_FIRST_KNOWN);
        begin_probe(p);
        return;
    case SPEAKER_CLIENT:
        timer_set(d->worker->loop, &p->silence, SILENT_CLIENT_MS);
        return;
    case SPEAKER_UNKNOWN:
        timer_set(d->worker->loop, &p->silence, SILENT_MS);
        return;
    }
}

void server_first_heard(struct progress *p)
{
    p->heard = true;
    if (!p->probe && p->silence.fn) {
        timer_cancel(&p->silence);
    }
}

void server_first_chosen(struct progress *p, const struct filter_chain *chain)
{
    if (!p->probe) {
        return;
    }
    if (chain != p->chain) {
        learn(p->d, SPEAKER_CLIENT);
        give_up_probe(p);
        return;
    }
    if (p->heard) {
        stat_inc(p->d->stats, STAT_ID_LISTENER_SERVER_FIRST_USED);
    }
    uncount(p);
    p->d->probe = p->probe;
    p->probe = NULL;
}

void server_first_fini(struct progress *p)
{
    if (p->silence.fn) {
        timer_cancel(&p->silence);
    }
    give_up_probe(p);
}

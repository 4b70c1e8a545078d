// SPDX-License-Identifier: Apache-2.0
#include "proxy/identity/provider_int.h"

#include <errno.h>
#include <stdio.h>

#include "lib/base/log.h"

enum {
    // Timers run on monotonic time, which stands still while a machine sleeps; certificates end by the wall clock. So long
    // delays are slept in pieces.
    NAP_MS = 60 * 1000,
    ROTATE_MIN_MS = 500,
};

static void nap(struct identity *i)
{
    uint64_t now = loop_wall_ms(i->loop);
    uint64_t left = i->due_wall_ms > now ? i->due_wall_ms - now : 0;
    timer_set(i->loop, &i->timer, left < NAP_MS ? left : NAP_MS);
    i->status.next_ms = loop_now_ms(i->loop) + left;
}

static void on_timer(struct timer *t)
{
    struct identity *i = container_of(t, struct identity, timer);
    if (loop_wall_ms(i->loop) < i->due_wall_ms) {
        nap(i);
        return;
    }
    i->status.next_ms = 0;
    i->provider->attempt(i);
}

void identity_init(struct identity *i, const struct identity_provider *p, struct loop *l, const struct identity_ops *ops, void *owner)
{
    i->provider = p;
    i->loop = l;
    i->ops = ops;
    i->owner = owner;
    timer_init(&i->timer, on_timer);
}

void identity_plan(struct identity *i, uint64_t delay_ms)
{
    i->due_wall_ms = loop_wall_ms(i->loop) + delay_ms;
    nap(i);
}

static struct str leaf_uri(const struct cert_info *leaf)
{
    for (size_t k = 0; k < leaf->san_count; k++) {
        if (leaf->sans[k].type == SAN_URI) {
            return leaf->sans[k].value;
        }
    }
    return str_n(NULL, 0);
}

static int check(struct identity *i, struct arena *a, struct identity_set *s, struct err *err)
{
    struct cert_info *certs, *roots;
    size_t n, root_count;
    if (cert_parse_bundle(s->cert_chain_pem, a, &certs, &n, err)) {
        return err_wrap(err, "certificate chain");
    }
    if (cert_parse_bundle(s->root_pem, a, &roots, &root_count, err)) {
        return err_wrap(err, "root certificates");
    }
    if (!cert_key_matches(s->cert_chain_pem, s->key_pem)) {
        return err_set(err, -EINVAL, "the private key does not belong to the certificate");
    }
    int64_t now = (int64_t)(loop_wall_ms(i->loop) / 1000);
    if (certs[0].not_after_s <= now) {
        return err_set(err, -EINVAL, "the certificate has expired %lld s ago", (long long)(now - certs[0].not_after_s));
    }
    s->uri = leaf_uri(&certs[0]);
    s->not_after_s = certs[0].not_after_s;
    return 0;
}

int identity_report(struct identity *i, struct str chain, struct str key, struct str root, struct err *err)
{
    struct arena a = { 0 };
    struct identity_set s = { .cert_chain_pem = chain, .key_pem = key, .root_pem = root };
    int r = check(i, &a, &s, err);
    if (r == 0) {
        i->status.sets++;
        i->status.not_after_s = s.not_after_s;
        i->status.last_error[0] = 0;
        log_info(LOGC_SECRET, 0, "identity_new", "source=%s uri=%.*s not_after=%lld", i->provider->name, (int)s.uri.n,
                 s.uri.n ? s.uri.p : "", (long long)s.not_after_s);
        i->ops->on_set(i->owner, &s);
    }
    arena_fini(&a);
    return r;
}

void identity_failed(struct identity *i, const struct err *err)
{
    i->status.failures++;
    snprintf(i->status.last_error, sizeof(i->status.last_error), "%.*s", (int)sizeof(i->status.last_error) - 1, err->msg);
    log_debug(LOGC_SECRET, 0, "identity_failed", "source=%s error=\"%s\"", i->provider->name, err->msg);
    if (i->ops->on_failure) {
        i->ops->on_failure(i->owner, err);
    }
}

uint64_t identity_rotate_after_ms(int64_t now_s, int64_t not_after_s, double share)
{
    int64_t left = not_after_s - now_s;
    double ms = left > 0 ? (double)left * 1000.0 * (1.0 - share) : 0;
    return ms > ROTATE_MIN_MS ? (uint64_t)ms : ROTATE_MIN_MS;
}

uint64_t identity_backoff_ms(uint64_t first_ms, unsigned n, double unit)
{
    uint64_t ms = first_ms;
    while (n-- && ms < IDENTITY_RETRY_MAX_MS) {
        ms *= 2;
    }
    ms = ms < IDENTITY_RETRY_MAX_MS ? ms : IDENTITY_RETRY_MAX_MS;
    return ms / 2 + (uint64_t)((double)(ms - ms / 2) * unit);
}

void identity_refresh(struct identity *i)
{
    identity_plan(i, 0);
}

const struct identity_status *identity_status(const struct identity *i)
{
    return &i->status;
}

void identity_free(struct identity *i)
{
    if (i) {
        timer_cancel(&i->timer);
        i->provider->destroy(i);
    }
}

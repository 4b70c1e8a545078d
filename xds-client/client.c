// SPDX-License-Identifier: Apache-2.0
#include "xds-client/client.h"

#include <stdlib.h>

#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "xds-client/apply.h"
#include "xds-client/resource_types.h"

static void on_flush(struct loop_task *t);
static void on_deadline(struct timer *t);

void xds_client_set_text(struct str *s, struct str v)
{
    char *p = v.n ? str_dup(v) : NULL;
    free((char *)s->p);
    *s = str_n(p, v.n);
}

struct xds_client *xds_client_new(struct loop *l, const struct xds_node *node, xds_sink_fn sink, void *arg)
{
    struct xds_client *c = mem_new(struct xds_client);
    c->loop = l;
    c->sink = sink;
    c->arg = arg;
    c->next_origin = XDS_ORIGIN_FILE;
    xds_client_set_text(&c->node, node->serialized);
    loop_task_init(&c->flush, on_flush);
    timer_init(&c->deadline, on_deadline);
    list_init(&c->files);
    return c;
}

void xds_client_free(struct xds_client *c)
{
    if (!c) {
        return;
    }
    if (c->ads) {
        xds_ads_free(c->ads);
    }
    xds_files_free(c);
    xds_mem_fini(c);
    loop_task_cancel(&c->flush);
    timer_cancel(&c->deadline);
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        xds_sub_fini(&c->subs[t]);
        xds_store_fini(&c->stores[t]);
        xds_client_set_text(&c->types[t].version, str_n(NULL, 0));
        xds_client_set_text(&c->types[t].last_error, str_n(NULL, 0));
    }
    free((char *)c->node.p);
    free(c);
}

void xds_client_wake(struct xds_client *c)
{
    loop_defer(c->loop, &c->flush);
}

void xds_subscribe(struct xds_client *c, enum xds_type t, const struct str *names, size_t n)
{
    if (xds_sub_set(&c->subs[t], xds_type_info(t)->wildcard, names, n, loop_now_ms(c->loop))) {
        c->types[t].dirty = true;
        xds_client_wake(c);
    }
}

void xds_on_missing(struct xds_client *c, void (*fn)(void *arg, enum xds_type t, struct str name), void *arg, uint64_t timeout_ms)
{
    c->missing = fn;
    c->missing_arg = arg;
    c->missing_timeout_ms = timeout_ms;
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        xds_sub_set_timeout(&c->subs[t], timeout_ms, loop_now_ms(c->loop));
    }
    xds_client_wake(c);
}

// ---- the end of a turn ----

// Names that left: forgotten. Names that came and are held already (static, or gone and back within the turn): answered.
static void settle(struct xds_client *c, enum xds_type t)
{
    struct xds_store *s = &c->stores[t];
    struct xds_sub *sub = &c->subs[t];
    struct map_entry *me;
    for (size_t i = 0; (me = map_next(&s->entries, &i));) {
        const struct xds_entry *e = me->val;
        if (xds_sub_wants(sub, e->r.name)) {
            if (e->accepted && !sub->wildcard) {
                xds_sub_answer(sub, e->r.name);
            }
        } else if (e->origin != XDS_ORIGIN_STATIC) {
            xds_store_del(s, e->r.name);
        }
    }
}

static void arm_deadline(struct xds_client *c)
{
    uint64_t first = 0;
    if (c->missing_timeout_ms == 0) {
        timer_cancel(&c->deadline);
        return;
    }
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        uint64_t d = xds_sub_deadline(&c->subs[t]);
        if (d && (!first || d < first)) {
            first = d;
        }
    }
    if (!first) {
        timer_cancel(&c->deadline);
        return;
    }
    uint64_t now = loop_now_ms(c->loop);
    timer_set(c->loop, &c->deadline, first > now ? first - now : 0);
}

static void on_flush(struct loop_task *task)
{
    struct xds_client *c = container_of(task, struct xds_client, flush);
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        if (!c->types[t].dirty) {
            continue;
        }
        c->types[t].dirty = false;
        settle(c, (enum xds_type)t);
        xds_files_load(c, (enum xds_type)t);
    }
    if (c->ads) {
        xds_ads_pump(c->ads);
    }
    arm_deadline(c);
}

static void on_deadline(struct timer *timer)
{
    struct xds_client *c = container_of(timer, struct xds_client, deadline);
    struct arena a = { 0 };
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        struct str *names = NULL;
        size_t n = xds_sub_expire(&c->subs[t], loop_now_ms(c->loop), &a, &names);
        for (size_t i = 0; i < n; i++) {
            log_warn(LOGC_CONFIG, 0, "xds_fetch_timeout", "type=%s name=%.*s", xds_type_short((enum xds_type)t), STR_FMT(names[i]));
            if (c->missing) {
                c->missing(c->missing_arg, (enum xds_type)t, names[i]);
            }
        }
    }
    arena_fini(&a);
    arm_deadline(c);
}

// ---- responses ----

static void note_refusal(struct xds_client *c, enum xds_type t, struct str reason)
{
    xds_client_set_text(&c->types[t].last_error, reason);
    log_warn(LOGC_CONFIG, 0, "xds_refused", "type=%s reason=\"%.*s\"", xds_type_short(t), STR_FMT(reason));
}

void xds_client_refuse(struct xds_client *c, enum xds_type t, struct str reason)
{
    c->types[t].updates++;
    c->types[t].rejected++;
    note_refusal(c, t, reason);
}

struct str xds_client_take(struct xds_client *c, struct xds_response *r, int origin, struct arena *a)
{
    struct xds_type_state *st = &c->types[r->type];
    bool is_static = origin == XDS_ORIGIN_STATIC;
    bool *answered = is_static ? &st->answered_static : &st->answered;
    struct xds_apply ap = {
        .store = &c->stores[r->type],
        .sub = is_static ? NULL : &c->subs[r->type],
        .origin = origin,
        .first = !*answered,
        .wall_ms = loop_wall_ms(c->loop),
        .sink = c->sink,
        .arg = c->arg,
    };
    if (!r->error.p) {
        *answered = true;
        xds_sub_answer(&c->subs[r->type], str_n(NULL, 0)); // counts for a wildcard only
    }
    xds_apply(&ap, r, a);
    struct str nack = xds_response_nack(r, a);
    st->last_update_ms = ap.wall_ms;
    if (nack.n && !is_static) {
        xds_client_refuse(c, r->type, nack);
    } else if (nack.n) {
        note_refusal(c, r->type, nack);
    } else if (!is_static) {
        st->updates++;
        st->accepted++;
        xds_client_set_text(&st->version, r->version);
    }
    return nack;
}

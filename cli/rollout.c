// SPDX-License-Identifier: Apache-2.0
#include "cli/rollout.h"

#include <errno.h>
#include <string.h>

#include "lib/base/json.h"

// The place of a node in the text.
static size_t place(struct str text, const struct json *n)
{
    struct str rest = text;
    for (int line = 1; line < n->line && rest.n; line++) {
        str_split(&rest, '\n');
    }
    return rest.p ? (size_t)(rest.p - text.p) + (size_t)n->col - 1 : text.n;
}

static int take_weight(struct str text, const struct json *d, struct rollout_weights *w, int i, uint64_t *ret, struct err *err)
{
    const struct json *n = json_get(d, "weight");
    if (!n || !str_to_u64(n->text, 1000000, ret)) {
        return err_set(err, -EINVAL, "line %d: each of the two destinations needs a weight", d->line);
    }
    w->at[i] = place(text, n);
    w->length[i] = n->text.n;
    if (w->at[i] + w->length[i] > text.n || memcmp(text.p + w->at[i], n->text.p, n->text.n)) {
        return err_set(err, -EINVAL, "line %d: the weight must be written as a plain number", n->line);
    }
    return 0;
}

static struct str full_host(struct str host, struct str ns, struct arena *a)
{
    return str_find(host, '.') >= 0 ? arena_str(a, host) : arena_printf(a, "%.*s.%.*s.svc.cluster.local", STR_FMT(host), STR_FMT(ns));
}

// The route's destination of that subset, and the other one.
static bool fits(const struct json *route, const struct rollout_target *t, const struct json **ret)
{
    const struct json *list = json_get(route, "route");
    if ((t->route.n && !str_eq(json_str(route, "name"), t->route)) || !list || list->count != 2) {
        return false;
    }
    const struct json *a = list->first, *b = a->next;
    bool first = str_eq(json_str(json_get(a, "destination"), "subset"), t->subset);
    bool second = str_eq(json_str(json_get(b, "destination"), "subset"), t->subset);
    ret[0] = first ? a : b;
    ret[1] = first ? b : a;
    return first != second;
}

static int find_in(struct str text, const struct json *doc, const struct rollout_target *t, struct arena *a, struct rollout_weights *ret,
                   bool *ret_found, struct err *err)
{
    const struct json *meta = json_get(doc, "metadata"), *http = json_get(json_get(doc, "spec"), "http"), *d[2];
    if (!str_is(json_str(doc, "kind"), "VirtualService") || (t->name.n && !str_eq(json_str(meta, "name"), t->name)) || !http) {
        return 0;
    }
    for (const struct json *r = http->first; r; r = r->next) {
        struct rollout_weights w = { 0 };
        uint64_t mine, other;
        if (!fits(r, t, d)) {
            continue;
        }
        if (*ret_found) {
            return err_set(err, -EINVAL, "line %d: there is a second VirtualService with subset %.*s; --name tells which", doc->line,
                           STR_FMT(t->subset));
        }
        if (take_weight(text, d[0], &w, 0, &mine, err) || take_weight(text, d[1], &w, 1, &other, err)) {
            return err->code;
        }
        struct str ns = json_str(meta, "namespace");
        w.host = full_host(json_str(json_get(d[0], "destination"), "host"), ns.n ? ns : STR("default"), a);
        w.percent = mine + other ? (unsigned)((mine * 100 + (mine + other) / 2) / (mine + other)) : 0;
        *ret = w;
        *ret_found = true;
        break; // the first of this VirtualService
    }
    return 0;
}

int rollout_find(struct str text, const struct rollout_target *t, struct arena *a, struct rollout_weights *ret, struct err *err)
{
    struct json *docs = NULL;
    struct rollout_weights w = { 0 };
    bool found = false;
    if (yaml_parse(text, a, &docs, err)) {
        return err->code;
    }
    for (const struct json *d = docs->first; d; d = d->next) {
        if (find_in(text, d, t, a, &w, &found, err)) {
            return err->code;
        }
    }
    if (!found) {
        return err_set(err, -EINVAL, "there is no VirtualService%s%.*s with an http route%s%.*s of two destinations, one of them subset %.*s",
                       t->name.n ? " " : "", STR_FMT(t->name), t->route.n ? " " : "", STR_FMT(t->route), STR_FMT(t->subset));
    }
    *ret = w;
    return 0;
}

struct str rollout_edit(struct str text, const struct rollout_weights *w, unsigned percent, struct arena *a)
{
    int first = w->at[0] < w->at[1] ? 0 : 1, second = 1 - first;
    unsigned value[2] = { percent, 100 - percent };
    size_t one = w->at[first] + w->length[first], two = w->at[second] + w->length[second];
    return arena_printf(a, "%.*s%u%.*s%u%.*s", (int)w->at[first], text.p, value[first], (int)(w->at[second] - one), text.p + one, value[second],
                        (int)(text.n - two), text.p + two);
}

int rollout_steps(struct str text, unsigned *ret, size_t *ret_n, struct err *err)
{
    size_t n = 0;
    struct str rest = text;
    while (rest.n) {
        uint64_t v;
        if (!str_to_u64(str_trim(str_split(&rest, ',')), 100, &v) || v == 0 || n == ROLLOUT_STEPS_MAX || (n && v <= ret[n - 1])) {
            return err_set(err, -EINVAL, "--steps %.*s: growing percentages from 1 to 100 are wanted", STR_FMT(text));
        }
        ret[n++] = (unsigned)v;
    }
    *ret_n = n;
    return n ? 0 : err_set(err, -EINVAL, "--steps: at least one is wanted");
}

// gRPC statuses that say of a server what 5xx says: Unknown, DeadlineExceeded, Unimplemented, Internal, Unavailable, DataLoss.
static bool is_grpc_failure(struct str key)
{
    static const uint32_t servers_fault = 1u << 2 | 1u << 4 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 15;
    uint64_t n;
    return str_starts(key, STR(".grpc.")) && str_to_u64(str_skip(key, 6), 16, &n) && (servers_fault >> n & 1);
}

struct rollout_counts rollout_read(struct str stats, struct str subset, struct str host)
{
    struct rollout_counts c = { 0 };
    while (stats.n) {
        struct str line = str_split(&stats, '\n'), rest = line;
        if (!str_starts(line, STR("cluster.outbound|"))) {
            continue;
        }
        str_split(&rest, '|');
        str_split(&rest, '|');
        if (!str_eq(str_split(&rest, '|'), subset) || !str_starts(rest, host)) {
            continue;
        }
        rest = str_skip(rest, host.n);
        rest = str_starts(rest, STR(";")) ? str_skip(rest, 1) : rest; // alt_stat_name ends with one
        struct str key = str_split(&rest, ':');
        uint64_t v;
        if (!str_to_u64(str_trim(rest), UINT64_MAX, &v)) {
            continue;
        }
        c.requests += str_is(key, ".upstream_rq_completed") ? v : 0;
        c.failed += str_is(key, ".upstream_rq_5xx") || is_grpc_failure(key) ? v : 0;
    }
    return c;
}

enum rollout_verdict rollout_judge(struct rollout_counts seen, bool time_over, uint64_t min_requests, double max_failed)
{
    uint64_t of = seen.requests > min_requests ? seen.requests : min_requests;
    if ((double)seen.failed > max_failed * (double)of) {
        return ROLLOUT_BACK;
    }
    return time_over && seen.requests >= min_requests ? ROLLOUT_ON : ROLLOUT_WAIT;
}

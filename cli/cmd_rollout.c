// SPDX-License-Identifier: Apache-2.0
// remoractl rollout: edits the weights of a VirtualService on disk, step by step, while a proxy's own counters say that the subset does well;
// back to none of it as soon as they do not.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/rollout.h"
#include "cli/source.h"
#include "lib/base/file.h"

enum { FILE_BYTES_MAX = 8 * 1024 * 1024, POLL_MS = 250, FAILED_READS_MAX = 20 };

struct rollout {
    struct cli *c;
    const char *file;
    struct rollout_target target;
    struct rollout_weights weights;
    unsigned steps[ROLLOUT_STEPS_MAX];
    size_t step_count;
    double max_failed; // share
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

__attribute__((format(printf, 2, 3))) static void say(struct cli *c, const char *fmt, ...)
{
    va_list ap;
    char text[512];
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    buf_printf(&c->out, "%s\n", text);
    if (c->flush) {
        c->flush(c);
    }
}

// The file as it is now gets the weights: what others changed in it meanwhile stays.
static int set_percent(struct rollout *r, unsigned percent, struct err *err)
{
    struct arena a = { 0 };
    struct str text;
    struct stat st = { 0 };
    int rc = stat(r->file, &st) ? err_errno(err, errno, r->file) : file_read(r->file, FILE_BYTES_MAX, &a, &text, err);
    struct rollout_weights w;
    rc = rc ? rc : rollout_find(text, &r->target, &a, &w, err);
    if (!rc) {
        rc = file_write_atomic(r->file, rollout_edit(text, &w, percent, &a), st.st_mode & 0777, err);
    }
    arena_fini(&a);
    return rc;
}

static int read_counts(struct rollout *r, struct rollout_counts *ret, struct err *err)
{
    struct arena a = { 0 }, *own = r->c->arena;
    struct str text;
    r->c->arena = &a;
    int rc = source_text(r->c, "/stats?filter=upstream_rq_(completed%7C5xx)%7Cgrpc.[0-9]", &text, err);
    r->c->arena = own;
    if (!rc) {
        *ret = rollout_read(text, r->target.subset, r->weights.host);
    }
    arena_fini(&a);
    return rc;
}

static struct rollout_counts since(struct rollout_counts now, struct rollout_counts then)
{
    bool restarted = now.requests < then.requests; // the proxy counts from 0 again
    return restarted ? now : (struct rollout_counts){ now.requests - then.requests, now.failed > then.failed ? now.failed - then.failed : 0 };
}

// One step until it is decided. A proxy that does not answer for a while ends the roll-out: nobody would see the subset fail.
static int watch(struct rollout *r, enum rollout_verdict *ret, struct rollout_counts *ret_seen, struct err *err)
{
    struct rollout_counts then = { 0 }, now;
    uint64_t start = now_ms();
    int missed = 0, rc = read_counts(r, &then, err);
    while (!rc) {
        r->c->wait_ms(POLL_MS);
        if (read_counts(r, &now, err)) {
            rc = ++missed < FAILED_READS_MAX ? 0 : err->code;
            continue;
        }
        missed = 0;
        *ret_seen = since(now, then);
        *ret = rollout_judge(*ret_seen, now_ms() - start >= r->c->o.interval_ms, r->c->o.min_requests, r->max_failed);
        if (*ret != ROLLOUT_WAIT) {
            return 0;
        }
    }
    return rc;
}

static int roll_back(struct rollout *r, struct err *err)
{
    struct err e = { 0 };
    if (set_percent(r, 0, &e)) {
        return err_set(err, e.code, "%.400s; and rolling back failed: %.400s", err->msg, e.msg);
    }
    say(r->c, "rolled back: subset %.*s gets nothing", STR_FMT(r->target.subset));
    return err->code;
}

static int run(struct rollout *r, struct err *err)
{
    for (size_t i = 0; i < r->step_count; i++) {
        enum rollout_verdict verdict = ROLLOUT_WAIT;
        struct rollout_counts seen = { 0 };
        if (set_percent(r, r->steps[i], err) || watch(r, &verdict, &seen, err)) {
            return roll_back(r, err);
        }
        say(r->c, "%3u %%: %llu requests, %llu failed: %s", r->steps[i], (unsigned long long)seen.requests, (unsigned long long)seen.failed,
            verdict == ROLLOUT_ON ? "good" : "too many");
        if (verdict == ROLLOUT_BACK) {
            err_set(err, -ECANCELED, "subset %.*s of %.*s failed %llu of %llu requests at %u %%", STR_FMT(r->target.subset), STR_FMT(r->weights.host),
                    (unsigned long long)seen.failed, (unsigned long long)seen.requests, r->steps[i]);
            return roll_back(r, err);
        }
    }
    say(r->c, "done: subset %.*s gets %u %%", STR_FMT(r->target.subset), r->steps[r->step_count - 1]);
    return 0;
}

static int prepare(struct rollout *r, struct err *err)
{
    struct cli *c = r->c;
    struct str text;
    char *end;
    if (c->word_count != 1) {
        return err_set(err, -EINVAL, "exactly one FILE is wanted: the one with the VirtualService");
    }
    if (!c->o.subset.n) {
        return err_set(err, -EINVAL, "--subset is wanted: the one that gets the traffic");
    }
    r->file = c->words[0];
    r->target = (struct rollout_target){ .name = c->o.name, .route = c->o.route, .subset = c->o.subset };
    r->max_failed = strtod(c->o.max_failed.p, &end) / 100;
    if (*end || end == c->o.max_failed.p || !(r->max_failed >= 0 && r->max_failed <= 1)) {
        return err_set(err, -EINVAL, "--max-failed %.*s: a percentage from 0 to 100 is wanted", STR_FMT(c->o.max_failed));
    }
    if (rollout_steps(c->o.steps, r->steps, &r->step_count, err) || file_read(r->file, FILE_BYTES_MAX, c->arena, &text, err)) {
        return err->code;
    }
    if (rollout_find(text, &r->target, c->arena, &r->weights, err)) {
        return err_wrap(err, "%s", r->file);
    }
    return 0;
}

int cmd_rollout(struct cli *c, struct err *err)
{
    struct rollout r = { .c = c };
    struct rollout_counts now;
    if (prepare(&r, err) || read_counts(&r, &now, err)) { // nothing is changed when the proxy cannot be asked
        return err->code;
    }
    say(c, "%s: subset %.*s of %.*s has %u %%", r.file, STR_FMT(r.target.subset), STR_FMT(r.weights.host), r.weights.percent);
    return c->wait_ms ? run(&r, err) : 0;
}

// SPDX-License-Identifier: Apache-2.0
// Certificate, key and roots from a folder that somebody else fills (cert-manager's CSI driver, SPIFFE credentials of a platform,
// a VM's provisioning).
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/event/fswatch.h"
#include "proxy/identity/provider_int.h"

enum {
    QUIET_MS = 50,
    AGAIN_MS = 1000, // the three files are not replaced at one moment, or the folder is not there yet
};

static const char *const NAMES[] = { "cert-chain.pem", "key.pem", "root-cert.pem" };
enum { FILE_CHAIN, FILE_KEY, FILE_ROOT, FILE_COUNT };

struct files {
    struct identity base;
    char *dir;             // owned
    struct fswatch *watch; // owned; NULL while the folder is missing
    struct arena current;  // what was reported last
    struct str text[FILE_COUNT];
};

static void wipe(struct str *text)
{
    for (int k = 0; k < FILE_COUNT; k++) {
        if (text[k].n) {
            explicit_bzero((void *)(uintptr_t)text[k].p, text[k].n);
        }
        text[k] = str_n(NULL, 0);
    }
}

static int read_all(const char *dir, struct arena *a, struct str *ret, struct err *err)
{
    for (int k = 0; k < FILE_COUNT; k++) {
        struct str path = arena_printf(a, "%s/%s", dir, NAMES[k]);
        int r = file_read(path.p, IDENTITY_FILE_MAX_BYTES, a, &ret[k], err);
        if (r) {
            return r;
        }
    }
    return 0;
}

static bool same(const struct str *x, const struct str *y)
{
    for (int k = 0; k < FILE_COUNT; k++) {
        if (!str_eq(x[k], y[k])) {
            return false;
        }
    }
    return true;
}

static void on_change(void *arg)
{
    struct files *f = arg;
    identity_plan(&f->base, 0);
}

// Only once the folder is there: a watch on a missing path would be one for a file of that name.
static int watch(struct files *f, struct err *err)
{
    struct stat st;
    if (f->watch) {
        return 0;
    }
    if (stat(f->dir, &st) < 0) {
        return err_errno(err, errno, f->dir);
    }
    if (!S_ISDIR(st.st_mode)) {
        return err_set(err, -ENOTDIR, "%s: is not a folder", f->dir);
    }
    f->watch = fswatch_new(f->base.loop, f->dir, QUIET_MS, on_change, f, err);
    return f->watch ? 0 : err->code;
}

static void attempt(struct identity *i)
{
    struct files *f = container_of(i, struct files, base);
    struct err err = { 0 };
    struct arena a = { 0 };
    struct str text[FILE_COUNT] = { { 0 } };
    int r = watch(f, &err);
    r = r ? r : read_all(f->dir, &a, text, &err);
    if (r == 0 && same(text, f->text)) {
        i->status.last_error[0] = 0;
    } else if (r == 0) {
        r = identity_report(i, text[FILE_CHAIN], text[FILE_KEY], text[FILE_ROOT], &err);
        if (r) {
            err_wrap(&err, "%s", f->dir);
        }
    }
    if (r) {
        // Told once per reason, else a folder that never comes would fill the log.
        if (strncmp(i->status.last_error, err.msg, sizeof(i->status.last_error) - 1) != 0) {
            identity_failed(i, &err);
        }
        identity_plan(i, AGAIN_MS);
    }
    if (r == 0 && !same(text, f->text)) {
        wipe(f->text);
        arena_fini(&f->current);
        f->current = a;
        memcpy(f->text, text, sizeof(text));
    } else {
        wipe(text);
        arena_fini(&a);
    }
}

static void destroy(struct identity *i)
{
    struct files *f = container_of(i, struct files, base);
    fswatch_free(f->watch);
    wipe(f->text);
    arena_fini(&f->current);
    free(f->dir);
    free(f);
}

static const struct identity_provider files_provider = { .name = "files", .attempt = attempt, .destroy = destroy };

struct identity *identity_files_new(struct loop *l, const struct identity_files_opts *o, const struct identity_ops *ops, void *owner,
                                    struct err *err)
{
    if (!o->dir || !o->dir[0]) {
        err_set(err, -EINVAL, "certificate files: no folder given");
        return NULL;
    }
    struct files *f = mem_new(struct files);
    identity_init(&f->base, &files_provider, l, ops, owner);
    f->dir = mem_strdup(o->dir);
    identity_plan(&f->base, 0);
    return &f->base;
}

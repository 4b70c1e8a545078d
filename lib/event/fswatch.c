// SPDX-License-Identifier: Apache-2.0
// inotify(7) on folders only: a file that is replaced by rename keeps no watch, its folder does. Kubernetes swaps the link
// `..data` in the folder, so names that begin with ".." count as a change of every file in it.
#include "lib/event/fswatch.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"

enum {
    RETRY_MS = 1000,   // how often a folder that went away is looked for
    PATIENCE = 20,     // times quiet_ms after the first event, the change is told even if events keep coming
    TREE_DEPTH_MAX = 32,
};

static const uint32_t MASK = IN_CLOSE_WRITE | IN_MODIFY | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB |
                             IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

struct fswatch {
    struct loop *loop;
    struct loop_fd fd; // inotify
    struct timer timer;
    char *path; // owned
    bool is_file;
    bool lost;          // the folder is gone; timer looks for it
    char name[NAME_MAX + 1];   // of the file
    char target[NAME_MAX + 1]; // of the file behind its links
    unsigned quiet_ms;
    uint64_t first_ms; // loop time of the first event not told yet, 0 = none
    int dirs;
    void (*on_change)(void *arg);
    void *arg;
};

static void watch_tree(struct fswatch *w, const char *dir, int depth)
{
    if (w->dirs >= FSWATCH_DIRS_MAX || depth > TREE_DEPTH_MAX || inotify_add_watch(w->fd.fd, dir, MASK) < 0) {
        return;
    }
    w->dirs++;
    DIR *d = opendir(dir);
    if (!d) {
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        char *sub;
        struct stat st;
        if (asprintf(&sub, "%s/%s", dir, e->d_name) < 0) {
            break;
        }
        // Real folders only: links could lead round in a circle.
        if (lstat(sub, &st) == 0 && S_ISDIR(st.st_mode)) {
            watch_tree(w, sub, depth + 1);
        }
        free(sub);
    }
    closedir(d);
}

// Splits at the last '/'; returns the folder (heap) and copies the name.
static char *split_path(const char *path, char name[NAME_MAX + 1])
{
    const char *slash = strrchr(path, '/');
    snprintf(name, NAME_MAX + 1, "%s", slash ? slash + 1 : path);
    return slash ? str_dup(str_n(path, slash == path ? 1 : (size_t)(slash - path))) : mem_strdup(".");
}

static int watch_file(struct fswatch *w)
{
    char *dir = split_path(w->path, w->name);
    int r = inotify_add_watch(w->fd.fd, dir, MASK) < 0 ? -errno : 0;
    free(dir);
    char *real = realpath(w->path, NULL); // NULL while the file is missing: it may come later
    if (real) {
        dir = split_path(real, w->target);
        inotify_add_watch(w->fd.fd, dir, MASK);
        free(dir);
        free(real);
    }
    return r;
}

// Watches what is there now; inotify ignores what it watches already. 0 or negative errno when the top folder is not there.
static int watch_all(struct fswatch *w)
{
    struct stat st;
    if (w->is_file) {
        return watch_file(w);
    }
    if (stat(w->path, &st) < 0) {
        return -errno;
    }
    if (inotify_add_watch(w->fd.fd, w->path, MASK) < 0) {
        return -errno;
    }
    w->dirs = 0;
    watch_tree(w, w->path, 0);
    return 0;
}

static void schedule(struct fswatch *w)
{
    uint64_t now = loop_now_ms(w->loop);
    w->first_ms = w->first_ms ? w->first_ms : now;
    uint64_t last = w->first_ms + (uint64_t)PATIENCE * w->quiet_ms;
    uint64_t left = last > now ? last - now : 0;
    timer_set(w->loop, &w->timer, left < w->quiet_ms ? left : w->quiet_ms);
}

static bool concerns(const struct fswatch *w, const struct inotify_event *e)
{
    if (e->mask & IN_IGNORED) {
        return false;
    }
    if (!w->is_file || e->len == 0 || (e->mask & IN_Q_OVERFLOW)) {
        return true;
    }
    return strncmp(e->name, "..", 2) == 0 || strcmp(e->name, w->name) == 0 || strcmp(e->name, w->target) == 0;
}

static void on_events(struct loop_fd *f, uint32_t events)
{
    (void)events;
    struct fswatch *w = container_of(f, struct fswatch, fd);
    _Alignas(struct inotify_event) char buf[16384];
    ssize_t n;
    while ((n = read(f->fd, buf, sizeof(buf))) > 0) {
        for (char *p = buf; p < buf + n;) {
            const struct inotify_event *e = (const struct inotify_event *)(void *)p;
            if (concerns(w, e)) {
                schedule(w);
            }
            p += sizeof(*e) + e->len;
        }
    }
}

static void on_timer(struct timer *t)
{
    struct fswatch *w = container_of(t, struct fswatch, timer);
    // First the watches, then the callback: what changes after its reading is seen.
    bool was_lost = w->lost;
    w->lost = watch_all(w) < 0;
    if (w->lost) {
        timer_set(w->loop, &w->timer, RETRY_MS);
    }
    bool tell = w->first_ms != 0 || (was_lost && !w->lost);
    w->first_ms = 0;
    if (tell) {
        w->on_change(w->arg); // may free w
    }
}

struct fswatch *fswatch_new(struct loop *l, const char *path, unsigned quiet_ms, void (*on_change)(void *arg), void *arg,
                            struct err *err)
{
    struct stat st;
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd < 0) {
        err_errno(err, errno, "cannot watch files (inotify)");
        return NULL;
    }
    struct fswatch *w = mem_zalloc(sizeof(*w));
    *w = (struct fswatch){ .loop = l, .quiet_ms = quiet_ms, .on_change = on_change, .arg = arg, .path = mem_strdup(path) };
    for (size_t n = strlen(path); n > 1 && w->path[n - 1] == '/'; n--) {
        w->path[n - 1] = '\0';
    }
    w->is_file = stat(path, &st) < 0 || !S_ISDIR(st.st_mode);
    w->fd = (struct loop_fd){ .fd = fd, .on_event = on_events };
    timer_init(&w->timer, on_timer);
    int r = watch_all(w);
    r = r < 0 ? r : loop_add_fd(l, &w->fd, EPOLLIN);
    if (r < 0) {
        err_errno(err, -r, path);
        close(fd);
        free(w->path);
        free(w);
        return NULL;
    }
    return w;
}

void fswatch_free(struct fswatch *w)
{
    if (!w) {
        return;
    }
    timer_cancel(&w->timer);
    loop_close_fd(w->loop, &w->fd);
    free(w->path);
    free(w);
}

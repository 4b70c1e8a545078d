// SPDX-License-Identifier: Apache-2.0
// The writer thread. Workers hand over whole buffers under a lock that is held for a few pointer moves, never while writing.
#include "proxy/access_log/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <poll.h>
#include <unistd.h>

#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/event/thread.h"
#include "proxy/access_log/access_log.h"

struct access_log_sink {
    struct access_log_sink *next;
    char *path;           // owned
    size_t index;
    int fd;               // writer thread once it runs
    struct buf queue;     // under lock
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static struct access_log_sink *sinks; // under lock; never shrinks before access_log_stop
static size_t sink_count;
static pthread_t thread;
static bool running, stopping, reopen; // under lock
static atomic_ullong dropped_lines;    // any thread

static int sink_open(const char *path)
{
    if (strcmp(path, "/dev/stdout") == 0) {
        return fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    }
    if (strcmp(path, "/dev/stderr") == 0) {
        return fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    }
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
}

int sink_get(struct str path, struct access_log_sink **ret, struct err *err)
{
    pthread_mutex_lock(&lock);
    struct access_log_sink *s = sinks;
    while (s && !str_is(path, s->path)) {
        s = s->next;
    }
    pthread_mutex_unlock(&lock);
    if (!s) {
        char *name = str_dup(path);
        int fd = sink_open(name);
        if (fd < 0) {
            int rc = err_errno(err, errno, name);
            free(name);
            return rc;
        }
        s = mem_new(struct access_log_sink);
        s->path = name;
        s->fd = fd;
        pthread_mutex_lock(&lock);
        s->index = sink_count++;
        s->next = sinks;
        sinks = s;
        pthread_mutex_unlock(&lock);
    }
    *ret = s;
    return 0;
}

size_t sink_index(const struct access_log_sink *s)
{
    return s->index;
}

void sink_queue(struct access_log_sink *s, struct buf *lines, uint64_t line_count)
{
    pthread_mutex_lock(&lock);
    if (s->queue.len + lines->len > ACCESS_LOG_QUEUE_MAX) {
        pthread_mutex_unlock(&lock);
        atomic_fetch_add_explicit(&dropped_lines, line_count, memory_order_relaxed);
        buf_clear(lines);
        return;
    }
    buf_move(&s->queue, lines, lines->len);
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
}

static void write_all(struct access_log_sink *s, struct buf *b)
{
    while (b->len) {
        struct iovec iov[BUF_IOV_MAX];
        ssize_t n = writev(s->fd, iov, buf_iov(b, iov, BUF_IOV_MAX));
        if (n > 0) {
            buf_drain(b, (size_t)n);
        } else if (n < 0 && errno == EAGAIN) { // a standard output that somebody made non-blocking
            struct pollfd p = { .fd = s->fd, .events = POLLOUT };
            (void)poll(&p, 1, 1000);
        } else if (n == 0 || errno != EINTR) {
            log_warn(LOGC_MAIN, 0, "access_log_write_failed", "path=%s error=%s", s->path, n ? strerror(errno) : "nothing written");
            buf_clear(b);
        }
    }
}

static void reopen_all(struct access_log_sink *s)
{
    for (; s; s = s->next) {
        int fd = sink_open(s->path);
        if (fd < 0) {
            log_warn(LOGC_MAIN, 0, "access_log_reopen_failed", "path=%s error=%s", s->path, strerror(errno));
        } else {
            close(s->fd);
            s->fd = fd;
        }
    }
}

static struct access_log_sink *sink_with_lines(void)
{
    struct access_log_sink *s = sinks;
    while (s && !s->queue.len) {
        s = s->next;
    }
    return s;
}

static void *writer(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&lock);
    for (;;) {
        struct access_log_sink *s = sink_with_lines();
        if (s) {
            struct buf b = s->queue;
            s->queue = (struct buf){ 0 };
            pthread_mutex_unlock(&lock);
            write_all(s, &b);
            pthread_mutex_lock(&lock);
        } else if (reopen) {
            reopen = false;
            struct access_log_sink *all = sinks;
            pthread_mutex_unlock(&lock);
            reopen_all(all);
            pthread_mutex_lock(&lock);
        } else if (stopping) {
            break;
        } else {
            buf_cache_free(); // idle: give the slices back
            pthread_cond_wait(&wake, &lock);
        }
    }
    pthread_mutex_unlock(&lock);
    buf_cache_free();
    return NULL;
}

int access_log_start(struct err *err)
{
    if (running) {
        return 0;
    }
    stopping = false;
    int rc = thread_start(&thread, "access-log", writer, NULL, err);
    running = rc == 0;
    return rc;
}

void access_log_stop(void)
{
    if (running) {
        pthread_mutex_lock(&lock);
        stopping = true;
        pthread_cond_signal(&wake);
        pthread_mutex_unlock(&lock);
        pthread_join(thread, NULL);
        running = false;
    }
    for (struct access_log_sink *s = sinks, *next; s; s = next) {
        next = s->next;
        write_all(s, &s->queue);
        close(s->fd);
        free(s->path);
        free(s);
    }
    sinks = NULL;
    sink_count = 0;
}

void access_log_reopen(void)
{
    pthread_mutex_lock(&lock);
    reopen = true;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
}

uint64_t access_log_dropped(void)
{
    return atomic_load_explicit(&dropped_lines, memory_order_relaxed);
}

// SPDX-License-Identifier: Apache-2.0
// The writer thread. Workers hand over whole buffers under a lock that is held for a few pointer moves, never while writing.
#include "proxy/access_log/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/event/thread.h"
#include "proxy/access_log/access_log.h"

enum {
    NUDGE_MS = 20,   // between two attempts to wake a writer that hangs in write(2)
    NUDGES_MAX = 50, // then it is left to the end of the process
    NUDGE = SIGURG,  // ignored by default, and unblocked in the writer only
};

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
static atomic_bool given_up;           // the time is over: what is not written yet is dropped

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

static uint64_t count_lines(const struct buf *b)
{
    uint64_t n = 0;
    for (size_t at = 0, got; at < b->len; at += got) {
        char part[4096];
        got = buf_peek(b, at, part, sizeof(part));
        for (size_t i = 0; i < got; i++) {
            n += part[i] == '\n';
        }
    }
    return n;
}

static void drop(struct access_log_sink *s, struct buf *b, const char *why)
{
    uint64_t lines = count_lines(b);
    atomic_fetch_add_explicit(&dropped_lines, lines, memory_order_relaxed);
    log_warn(LOGC_MAIN, 0, "access_log_write_failed", "path=%s lines_dropped=%llu error=%s", s->path, (unsigned long long)lines, why);
    buf_clear(b);
}

static void write_all(struct access_log_sink *s, struct buf *b)
{
    while (b->len) {
        if (atomic_load(&given_up)) {
            drop(s, b, "nobody reads it, and the process ends");
            return;
        }
        struct iovec iov[BUF_IOV_MAX];
        ssize_t n = writev(s->fd, iov, buf_iov(b, iov, BUF_IOV_MAX));
        if (n > 0) {
            buf_drain(b, (size_t)n);
        } else if (n < 0 && errno == EAGAIN) { // a standard output that somebody made non-blocking
            struct pollfd p = { .fd = s->fd, .events = POLLOUT };
            (void)poll(&p, 1, 1000);
        } else if (n == 0 || errno != EINTR) {
            drop(s, b, n ? strerror(errno) : "nothing written");
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
    sigset_t nudge;
    sigemptyset(&nudge);
    sigaddset(&nudge, NUDGE);
    pthread_sigmask(SIG_UNBLOCK, &nudge, NULL);
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

static void nudged(int signo)
{
    (void)signo; // write(2) comes back with EINTR, that is all
}

int access_log_start(struct err *err)
{
    if (running) {
        return 0;
    }
    struct sigaction a = { .sa_handler = nudged }; // without SA_RESTART
    sigemptyset(&a.sa_mask);
    sigaction(NUDGE, &a, NULL);
    stopping = false;
    int rc = thread_start(&thread, "access-log", writer, NULL, err);
    running = rc == 0;
    return rc;
}

static bool joined_within(uint64_t ms)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t); // pthread_timedjoin_np(3) knows no other
    uint64_t ns = (uint64_t)t.tv_nsec + ms % 1000 * 1000000;
    t.tv_sec += (time_t)(ms / 1000 + ns / 1000000000);
    t.tv_nsec = (long)(ns % 1000000000);
    return pthread_timedjoin_np(thread, NULL, &t) == 0;
}

// A pipe that nobody reads holds the writer in write(2) for ever; a signal brings it back, and it sees that the time is over.
static bool stop_writer(uint64_t limit_ms)
{
    pthread_mutex_lock(&lock);
    stopping = true;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
    bool joined = joined_within(limit_ms);
    atomic_store(&given_up, !joined);
    for (int i = 0; i < NUDGES_MAX && !joined; i++) {
        pthread_kill(thread, NUDGE);
        joined = joined_within(NUDGE_MS);
    }
    return joined;
}

void sink_stop(uint64_t limit_ms)
{
    if (running) {
        running = false;
        if (!stop_writer(limit_ms)) {
            log_error(LOGC_MAIN, 0, "access_log_writer_stuck", "what=\"its file neither takes lines nor lets go\"");
            return; // it still uses the sinks
        }
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
    atomic_store(&given_up, false);
}

void access_log_stop(void)
{
    sink_stop(ACCESS_LOG_STOP_MS);
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

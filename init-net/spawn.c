// SPDX-License-Identifier: Apache-2.0
#include "init-net/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/base/scope.h"

extern char **environ;

const char *spawn_find(const char *name, struct arena *a)
{
    static const struct str usual = STR("/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin");
    const char *path = secure_getenv("PATH"); // not believed when a file capability gives us more than our caller has
    struct str dirs[] = { str_c(path ? path : ""), usual };
    for (size_t i = 0; i < 2; i++) {
        while (dirs[i].n) {
            struct str dir = str_split(&dirs[i], ':');
            if (dir.n == 0 || dir.p[0] != '/') {
                continue; // never from the working directory
            }
            struct str full = arena_printf(a, "%.*s/%s", STR_FMT(dir), name);
            if (access(full.p, X_OK) == 0) {
                return full.p;
            }
        }
    }
    return NULL;
}

// In the child: what we may do, the program may do too, also when neither of us is root (capabilities(7), ambient set).
static void hand_on_capabilities(void)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { 0 };
    static const int wanted[] = { CAP_NET_ADMIN, CAP_NET_RAW };
    if (geteuid() == 0 || syscall(SYS_capget, &head, data) < 0) {
        return;
    }
    for (size_t i = 0; i < 2; i++) {
        data[0].inheritable |= data[0].permitted & (1u << wanted[i]);
    }
    if (syscall(SYS_capset, &head, data) < 0) {
        return;
    }
    for (size_t i = 0; i < 2; i++) {
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, wanted[i], 0, 0); // refused: the program will say what it lacks
    }
}

static void run_child(char *const argv[], const char *setting, int in, int out, int err)
{
    hand_on_capabilities();
    // Nor may that caller choose, by XTABLES_LIBDIR and the like, what the program does with what we hand on.
    if (getauxval(AT_SECURE)) {
        clearenv();
    }
    if (setting) {
        putenv((char *)setting);
    }
    if (dup2(in, 0) >= 0 && dup2(out, 1) >= 0 && dup2(err, 2) >= 0) {
        execve(argv[0], argv, environ);
    }
    dprintf(2, "cannot start %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

struct stream {
    int fd; // -1: at its end
    char *text;
    size_t n, cap;
};

static void read_some(struct stream *s)
{
    mem_grow(&s->text, &s->cap, s->n + 4096, 1);
    ssize_t n = read(s->fd, s->text + s->n, s->cap - s->n);
    if (n > 0) {
        // Beyond the limit it is read and forgotten, so that the writer does not stop.
        s->n = s->n + (size_t)n > SPAWN_OUTPUT_MAX ? SPAWN_OUTPUT_MAX : s->n + (size_t)n;
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        close(s->fd);
        s->fd = -1;
    }
}

static void write_some(int *fd, struct str *input)
{
    ssize_t n = input->n ? write(*fd, input->p, input->n) : 0;
    if (n > 0) {
        *input = str_skip(*input, (size_t)n);
    }
    if (input->n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
        close(*fd);
        *fd = -1;
    }
}

// Feeds and reads until both outputs are closed. false when time is over.
static bool exchange(int *in, struct str input, struct stream out[2], int64_t deadline_ms)
{
    while (out[0].fd >= 0 || out[1].fd >= 0) {
        struct pollfd p[3] = { { .fd = out[0].fd, .events = POLLIN },
                               { .fd = out[1].fd, .events = POLLIN },
                               { .fd = *in, .events = POLLOUT } };
        int64_t left = deadline_ms - (int64_t)clock_mono_ms();
        if (left <= 0) {
            return false;
        }
        if (poll(p, 3, (int)(left > 1000000 ? 1000000 : left)) < 0 && errno != EINTR) {
            return false;
        }
        for (int i = 0; i < 2; i++) {
            if (p[i].fd >= 0 && p[i].revents) {
                read_some(&out[i]);
            }
        }
        if (*in >= 0 && p[2].revents) {
            write_some(in, &input);
        }
    }
    return true;
}

static int wait_end(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int spawn_run(char *const argv[], const char *setting, struct str input, int64_t deadline_ms, struct arena *a, struct spawn_result *ret,
              struct err *err)
{
    int pipes[3][2];
    for (int i = 0; i < 3; i++) {
        if (pipe2(pipes[i], O_CLOEXEC) < 0) {
            int e = errno;
            while (i-- > 0) {
                close(pipes[i][0]);
                close(pipes[i][1]);
            }
            return err_set(err, -e, "cannot run %s: %s", argv[0], strerror(e));
        }
    }
    struct sigaction ignore = { .sa_handler = SIG_IGN }, before;
    sigaction(SIGPIPE, &ignore, &before); // a program that ends before it has read all is no reason to die
    pid_t pid = fork();
    if (pid == 0) {
        sigaction(SIGPIPE, &before, NULL);
        run_child(argv, setting, pipes[0][0], pipes[1][1], pipes[2][1]);
    }
    int e = errno;
    scope_close int in = pipes[0][1];
    struct stream out[2] = { { .fd = pipes[1][0] }, { .fd = pipes[2][0] } };
    close(pipes[0][0]);
    close(pipes[1][1]);
    close(pipes[2][1]);
    fcntl(in, F_SETFL, O_NONBLOCK);
    bool done = pid > 0 && exchange(&in, input, out, deadline_ms);
    if (pid > 0 && !done) {
        kill(pid, SIGKILL);
    }
    struct spawn_result result = { .status = pid > 0 ? wait_end(pid) : 0 };
    sigaction(SIGPIPE, &before, NULL);
    for (int i = 0; i < 2; i++) {
        if (out[i].fd >= 0) {
            close(out[i].fd);
        }
    }
    result.out = arena_str(a, str_n(out[0].text, out[0].n));
    result.err = arena_str(a, str_n(out[1].text, out[1].n));
    free(out[0].text);
    free(out[1].text);
    if (!done) {
        return err_set(err, pid > 0 ? -ETIMEDOUT : -e, "cannot run %s: %s", argv[0], pid > 0 ? "it did not end in time" : strerror(e));
    }
    *ret = result;
    return 0;
}

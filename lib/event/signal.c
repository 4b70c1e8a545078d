// SPDX-License-Identifier: Apache-2.0
#include "lib/event/signal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

void signal_block_all(void)
{
    static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD };
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < array_len(signals); i++) {
        sigaddset(&set, signals[i]);
    }
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void on_readable(struct loop_fd *f, uint32_t events)
{
    (void)events;
    struct signal_watch *w = container_of(f, struct signal_watch, fd);
    // One a turn: level-triggered, and the callback may stop or free the watch.
    struct signalfd_siginfo info;
    if (read(f->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        w->on_signal(w, (int)info.ssi_signo);
    }
}

int signal_watch_start(struct signal_watch *w, struct loop *l, const int *signals, int n, struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < n; i++) {
        sigaddset(&set, signals[i]);
    }
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) {
        return err_errno(err, errno, "cannot watch signals (signalfd)");
    }
    w->fd = (struct loop_fd){ .fd = fd, .on_event = on_readable };
    w->loop = l;
    int r = loop_add_fd_level(l, &w->fd, EPOLLIN);
    if (r < 0) {
        close(fd);
        w->fd.fd = -1;
        return err_errno(err, -r, "cannot watch signals (epoll)");
    }
    return 0;
}

void signal_watch_stop(struct signal_watch *w)
{
    if (w->fd.watched) {
        loop_close_fd(w->loop, &w->fd);
    }
}

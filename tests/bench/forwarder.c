// SPDX-License-Identifier: Apache-2.0
// forwarder LISTEN_PORT BACKEND_PORT: the least a TCP proxy can do, as a yardstick.
//
// One thread, level-triggered epoll, one 16 KiB buffer shared by all connections; bytes that the other side does not take are
// kept aside and stop the reading. No splice, no statistics, no time-outs, no choice of backend.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_BYTES = 16384, EVENTS_MAX = 256 };

struct side {
    int fd;
    struct side *other;
    bool eof;        // it will send no more
    bool closed_out; // we told it that no more will come
    char *kept;      // owned; bytes for this side that its socket did not take
    size_t kept_off, kept_len;
    uint32_t events; // as registered
};

struct pair {
    struct side client, backend;
    struct pair *next_dead;
};

static int epfd;
static char buffer[BUFFER_BYTES];
static struct pair *dead; // freed after the events of one epoll_wait: a later event may still name them

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(struct side *s, uint32_t events)
{
    if (s->events != events) {
        struct epoll_event e = { .events = events, .data.ptr = s };
        if (epoll_ctl(epfd, s->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, s->fd, &e) < 0) {
            die("epoll_ctl");
        }
        s->events = events;
    }
}

static struct pair *pair_of(struct side *s)
{
    return (struct pair *)(s < s->other ? s : s->other); // client is the first member
}

static void pair_close(struct pair *p)
{
    if (p->client.fd >= 0) {
        close(p->client.fd);
        close(p->backend.fd);
        p->client.fd = p->backend.fd = -1;
        p->next_dead = dead;
        dead = p;
    }
}

static void settle(struct side *s)
{
    struct side *o = s->other;
    if (s->eof && !o->closed_out && o->kept_len == 0) {
        shutdown(o->fd, SHUT_WR);
        o->closed_out = true;
    }
    if (s->eof && o->eof && s->closed_out && o->closed_out) {
        pair_close(pair_of(s));
        return;
    }
    uint32_t in = s->eof || o->kept_len ? 0 : EPOLLIN;
    watch(s, in | (s->kept_len ? (uint32_t)EPOLLOUT : 0) | EPOLLERR);
    in = o->eof || s->kept_len ? 0 : EPOLLIN;
    watch(o, in | (o->kept_len ? (uint32_t)EPOLLOUT : 0) | EPOLLERR);
}

// False: the pair is gone.
static bool flush(struct side *s)
{
    ssize_t n = send(s->fd, s->kept + s->kept_off, s->kept_len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        pair_close(pair_of(s));
        return false;
    }
    if (n > 0) {
        s->kept_off += (size_t)n;
        s->kept_len -= (size_t)n;
    }
    if (s->kept_len == 0) {
        free(s->kept);
        s->kept = NULL;
        settle(s);
    }
    return s->fd >= 0;
}

static void forward(struct side *s)
{
    struct side *o = s->other;
    ssize_t n = recv(s->fd, buffer, sizeof(buffer), 0);
    if (n < 0) {
        if (errno != EAGAIN) {
            pair_close(pair_of(s));
        }
        return;
    }
    if (n == 0) {
        s->eof = true;
        settle(s);
        return;
    }
    ssize_t w = send(o->fd, buffer, (size_t)n, MSG_NOSIGNAL);
    if (w < 0 && errno != EAGAIN) {
        pair_close(pair_of(s));
        return;
    }
    w = w < 0 ? 0 : w;
    if (w < n) {
        o->kept_len = (size_t)(n - w);
        o->kept_off = 0;
        o->kept = malloc(o->kept_len);
        if (!o->kept) {
            die("malloc");
        }
        memcpy(o->kept, buffer + w, o->kept_len);
        settle(s);
    }
}

static void accept_all(int lfd, const struct sockaddr_in *backend)
{
    for (int i = 0; i < 16; i++) {
        int c = accept4(lfd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (c < 0) {
            return;
        }
        int b = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        struct pair *p = calloc(1, sizeof(*p));
        if (b < 0 || !p) {
            die("socket");
        }
        int one = 1;
        setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        setsockopt(b, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        p->client = (struct side){ .fd = c, .other = &p->backend };
        p->backend = (struct side){ .fd = b, .other = &p->client };
        if (connect(b, (const struct sockaddr *)backend, sizeof(*backend)) < 0 && errno != EINPROGRESS) {
            pair_close(p);
            continue;
        }
        watch(&p->client, EPOLLIN); // on loopback the connect is done by now; elsewhere the first send is kept aside
        watch(&p->backend, EPOLLIN);
    }
}

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1024) < 0) {
        die("listen");
    }
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: forwarder LISTEN_PORT BACKEND_PORT\n");
        return 2;
    }
    int lfd = listen_on((int)strtol(argv[1], NULL, 10));
    struct sockaddr_in backend = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)strtol(argv[2], NULL, 10)),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    epfd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = NULL }, events[EVENTS_MAX];
    if (epfd < 0 || epoll_ctl(epfd, EPOLL_CTL_ADD, lfd, &e) < 0) {
        die("epoll");
    }
    for (;;) {
        int n = epoll_wait(epfd, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            struct side *s = events[i].data.ptr;
            if (!s) {
                accept_all(lfd, &backend);
            } else if (s->fd >= 0) {
                if ((events[i].events & EPOLLOUT) && s->kept_len && !flush(s)) {
                    continue;
                }
                if ((events[i].events & (EPOLLERR | EPOLLHUP)) && !(events[i].events & EPOLLIN)) {
                    pair_close(pair_of(s));
                } else if (events[i].events & EPOLLIN) {
                    forward(s);
                }
            }
        }
        while (dead) {
            struct pair *p = dead;
            dead = p->next_dead;
            free(p->client.kept);
            free(p->backend.kept);
            free(p);
        }
    }
}

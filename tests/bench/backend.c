// SPDX-License-Identifier: Apache-2.0
// backend HTTP_PORT ECHO_PORT: what stands behind the proxies; one thread, so plain that it never is the limit.
//
// HTTP_PORT: HTTP/1.1 with keep-alive. GET /N answers N bytes (at most 16 MiB), any other path 128. Requests have no body.
// ECHO_PORT: sends back what comes.
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

enum { IN_BYTES = 8192, OUT_BYTES = 65536, EVENTS_MAX = 256, BODY_MAX = 16 << 20, BODY_DEFAULT = 128 };

struct client {
    int fd;
    bool echo, closing;
    size_t in_len;
    char in[IN_BYTES]; // an unfinished request head
    char head[128];    // of the answer
    size_t head_off, head_len;
    size_t body_left;
    char *echo_left; // owned; not taken by the socket
    size_t echo_off, echo_len;
};

static int epfd;
static char body[OUT_BYTES];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(struct client *c, int op, uint32_t events)
{
    struct epoll_event e = { .events = events, .data.ptr = c };
    if (epoll_ctl(epfd, op, c->fd, &e) < 0) {
        die("epoll_ctl");
    }
}

static void client_free(struct client *c)
{
    close(c->fd);
    free(c->echo_left);
    free(c);
}

// 1: all was sent, 0: the socket is full, -1: error.
static int send_answer(struct client *c)
{
    while (c->head_len || c->body_left) {
        struct iovec v[2] = { { c->head + c->head_off, c->head_len }, { body, c->body_left < sizeof(body) ? c->body_left : sizeof(body) } };
        struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
        ssize_t n = sendmsg(c->fd, &m, MSG_NOSIGNAL);
        if (n < 0) {
            return errno == EAGAIN ? 0 : -1;
        }
        size_t h = (size_t)n < c->head_len ? (size_t)n : c->head_len;
        c->head_off += h;
        c->head_len -= h;
        c->body_left -= (size_t)n - h;
    }
    return 1;
}

// Answers the whole heads in c->in. As send_answer.
static int serve(struct client *c)
{
    for (;;) {
        char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
        if (!end) {
            return c->in_len < IN_BYTES ? 1 : -1;
        }
        size_t head = (size_t)(end - c->in) + 4, want = BODY_DEFAULT;
        *end = '\0';
        if (head > 8 && memcmp(c->in, "GET /", 5) == 0 && c->in[5] >= '0' && c->in[5] <= '9') {
            want = strtoul(c->in + 5, NULL, 10);
        }
        c->closing = strcasestr(c->in, "\r\nconnection: close") != NULL;
        c->body_left = want < BODY_MAX ? want : BODY_MAX;
        c->head_off = 0;
        c->head_len =
            (size_t)snprintf(c->head, sizeof(c->head), "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %zu%s\r\n\r\n",
                             c->body_left, c->closing ? "\r\nconnection: close" : "");
        c->in_len -= head;
        memmove(c->in, c->in + head, c->in_len);
        int r = send_answer(c);
        if (r != 1) {
            return r;
        }
        if (c->closing) {
            return -1;
        }
    }
}

// False: c is gone.
static bool http_event(struct client *c, uint32_t events)
{
    int r = 1;
    if (events & EPOLLOUT) {
        r = send_answer(c);
        if (r == 1) {
            watch(c, EPOLL_CTL_MOD, EPOLLIN);
            r = c->closing ? -1 : serve(c);
        }
    } else {
        ssize_t n = recv(c->fd, c->in + c->in_len, IN_BYTES - c->in_len, 0);
        if (n <= 0) {
            r = n < 0 && errno == EAGAIN ? 1 : -1;
        } else {
            c->in_len += (size_t)n;
            r = serve(c);
        }
    }
    if (r < 0) {
        client_free(c);
        return false;
    }
    if (r == 0) {
        watch(c, EPOLL_CTL_MOD, EPOLLOUT);
    }
    return true;
}

static void echo_event(struct client *c, uint32_t events)
{
    static char buffer[OUT_BYTES];
    const char *p = buffer;
    ssize_t n;
    if (events & EPOLLOUT) {
        p = c->echo_left + c->echo_off;
        n = (ssize_t)c->echo_len;
    } else {
        n = recv(c->fd, buffer, sizeof(buffer), 0);
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n <= 0) {
            client_free(c);
            return;
        }
    }
    ssize_t w = send(c->fd, p, (size_t)n, MSG_NOSIGNAL);
    if (w < 0 && errno != EAGAIN) {
        client_free(c);
        return;
    }
    w = w < 0 ? 0 : w;
    if (events & EPOLLOUT) {
        c->echo_off += (size_t)w;
        c->echo_len -= (size_t)w;
        if (c->echo_len == 0) {
            free(c->echo_left);
            c->echo_left = NULL;
            watch(c, EPOLL_CTL_MOD, EPOLLIN);
        }
    } else if (w < n) {
        c->echo_off = 0;
        c->echo_len = (size_t)(n - w);
        c->echo_left = malloc(c->echo_len);
        if (!c->echo_left) {
            die("malloc");
        }
        memcpy(c->echo_left, p + w, c->echo_len);
        watch(c, EPOLL_CTL_MOD, EPOLLOUT);
    }
}

static void accept_all(struct client *l)
{
    for (;;) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
        if (fd < 0) {
            return;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        struct client *c = calloc(1, sizeof(*c));
        if (!c) {
            die("calloc");
        }
        c->fd = fd;
        c->echo = l->echo;
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void listen_on(struct client *l, int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 4096) < 0) {
        die("listen");
    }
    l->fd = fd;
    watch(l, EPOLL_CTL_ADD, EPOLLIN);
}

int main(int argc, char **argv)
{
    static struct client listeners[2];
    struct epoll_event events[EVENTS_MAX];
    if (argc != 3) {
        fprintf(stderr, "usage: backend HTTP_PORT ECHO_PORT\n");
        return 2;
    }
    memset(body, 'x', sizeof(body));
    epfd = epoll_create1(EPOLL_CLOEXEC);
    listeners[1].echo = true;
    listen_on(&listeners[0], (int)strtol(argv[1], NULL, 10));
    listen_on(&listeners[1], (int)strtol(argv[2], NULL, 10));
    for (;;) {
        int n = epoll_wait(epfd, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (c >= listeners && c < listeners + 2) {
                accept_all(c);
            } else if (c->echo) {
                echo_event(c, events[i].events);
            } else {
                (void)http_event(c, events[i].events);
            }
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
#include "lib/net/socket.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

// Older C libraries have it only in linux/in.h, which clashes with netinet/in.h.
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

static int set_int(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int set_transparent(int fd, int family)
{
    return family == AF_INET ? set_int(fd, SOL_IP, IP_TRANSPARENT, 1) : set_int(fd, SOL_IPV6, IPV6_TRANSPARENT, 1);
}

// Removes a socket file that nobody listens on any more; leaves everything else alone.
static void remove_stale(const struct addr *a)
{
    struct stat st;
    if (!a->path || a->path[0] != '/' || lstat(a->path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        return;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_storage ss;
    socklen_t len = addr_to_sockaddr(a, &ss);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&ss, len) < 0 && errno == ECONNREFUSED) {
        unlink(a->path);
    }
    if (fd >= 0) {
        close(fd);
    }
}

// Returns the name of what failed, errno set; NULL on success.
static const char *listen_setup(int fd, const struct addr *a, const struct socket_listen_opts *o)
{
    bool ip = a->family != AF_UNIX;
    if (ip && set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1) < 0) {
        return "SO_REUSEADDR";
    }
    if (ip && o->reuse_port && set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1) < 0) {
        return "SO_REUSEPORT";
    }
    if (ip && o->transparent && set_transparent(fd, a->family) < 0) {
        return "IP_TRANSPARENT (needs CAP_NET_ADMIN)";
    }
    if (ip && o->freebind && set_int(fd, SOL_IP, IP_FREEBIND, 1) < 0) {
        return "IP_FREEBIND";
    }
    if (a->family == AF_INET6 && set_int(fd, SOL_IPV6, IPV6_V6ONLY, o->v6only) < 0) {
        return "IPV6_V6ONLY";
    }
    // Accepted sockets inherit it: no system call for each of them.
    if (ip && set_int(fd, SOL_TCP, TCP_NODELAY, 1) < 0) {
        return "TCP_NODELAY";
    }
    if (!ip) {
        remove_stale(a);
    }
    struct sockaddr_storage ss;
    socklen_t len = addr_to_sockaddr(a, &ss);
    if (bind(fd, (struct sockaddr *)&ss, len) < 0) {
        return "bind";
    }
    if (!ip && o->unix_mode && a->path[0] == '/' && chmod(a->path, (mode_t)o->unix_mode) < 0) {
        return "chmod";
    }
    return listen(fd, o->backlog ? o->backlog : SOMAXCONN) < 0 ? "listen" : NULL;
}

int socket_listen(const struct addr *a, const struct socket_listen_opts *o, struct err *err)
{
    static const struct socket_listen_opts none;
    char text[ADDR_TEXT_MAX];
    int fd = socket(a->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const char *what = fd < 0 ? "socket" : listen_setup(fd, a, o ? o : &none);
    if (!what) {
        return fd;
    }
    int e = errno;
    if (fd >= 0) {
        close(fd);
    }
    err_errno(err, e, what);
    err_wrap(err, "cannot listen on %s", addr_text(a, text));
    return -e;
}

static int connect_setup(int fd, const struct addr *a, const struct socket_connect_opts *o)
{
    int r = 0;
    if (a->family != AF_UNIX) {
        r = set_int(fd, SOL_TCP, TCP_NODELAY, 1);
    }
    if (r == 0 && o->mark) {
        r = set_int(fd, SOL_SOCKET, SO_MARK, (int)o->mark);
    }
    if (r == 0 && (o->keepalive_idle_s || o->keepalive_interval_s || o->keepalive_probes)) {
        r = set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        r = r == 0 && o->keepalive_idle_s ? set_int(fd, SOL_TCP, TCP_KEEPIDLE, o->keepalive_idle_s) : r;
        r = r == 0 && o->keepalive_interval_s ? set_int(fd, SOL_TCP, TCP_KEEPINTVL, o->keepalive_interval_s) : r;
        r = r == 0 && o->keepalive_probes ? set_int(fd, SOL_TCP, TCP_KEEPCNT, o->keepalive_probes) : r;
    }
    if (r < 0 || !o->source.family) {
        return r;
    }
    // The port is chosen at connect, per destination: 64k connections per destination in place of 64k in all.
    if (o->source.port == 0 && o->source.family != AF_UNIX) {
        (void)set_int(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    }
    if (o->transparent_source && (r = set_transparent(fd, o->source.family)) < 0) {
        return r;
    }
    if (o->freebind && (r = set_int(fd, SOL_IP, IP_FREEBIND, 1)) < 0) { // counts for IPv6 too
        return r;
    }
    if (o->source.port && (r = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1)) < 0) {
        return r;
    }
    struct sockaddr_storage ss;
    socklen_t len = addr_to_sockaddr(&o->source, &ss);
    return bind(fd, (struct sockaddr *)&ss, len) < 0 ? -errno : 0;
}

int socket_connect(const struct addr *a, const struct socket_connect_opts *o, bool *ret_done)
{
    static const struct socket_connect_opts none;
    int fd = socket(a->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    int r = connect_setup(fd, a, o ? o : &none);
    bool done = false;
    if (r == 0) {
        struct sockaddr_storage ss;
        socklen_t len = addr_to_sockaddr(a, &ss);
        done = connect(fd, (struct sockaddr *)&ss, len) == 0;
        r = done || errno == EINPROGRESS ? 0 : -errno; // EAGAIN (Unix, backlog full) is a failure: no event would follow
    }
    if (r < 0) {
        close(fd);
        return r;
    }
    *ret_done = done;
    return fd;
}

int socket_accept(int listen_fd, struct addr *ret_peer)
{
    struct sockaddr_storage ss;
    for (;;) {
        socklen_t len = sizeof(ss);
        int fd = accept4(listen_fd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            if (!addr_from_sockaddr((struct sockaddr *)&ss, len, ret_peer)) {
                *ret_peer = (struct addr){ 0 };
            }
            return fd;
        }
        // accept(2): errors of a connection that ended while it waited; the next one may be fine.
        if (errno != EINTR && errno != ECONNABORTED && errno != EPROTO) {
            return -errno;
        }
    }
}

void socket_nodelay(int fd)
{
    (void)set_int(fd, SOL_TCP, TCP_NODELAY, 1); // fails on Unix sockets only
}

static int name_of(int (*get)(int, struct sockaddr *, socklen_t *), int fd, struct addr *ret)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    if (get(fd, (struct sockaddr *)&ss, &len) < 0) {
        return -errno;
    }
    return addr_from_sockaddr((struct sockaddr *)&ss, len, ret) ? 0 : -EAFNOSUPPORT;
}

static int get_sock(int fd, struct sockaddr *sa, socklen_t *len)
{
    return getsockname(fd, sa, len);
}

static int get_peer(int fd, struct sockaddr *sa, socklen_t *len)
{
    return getpeername(fd, sa, len);
}

int socket_local(int fd, struct addr *ret)
{
    return name_of(get_sock, fd, ret);
}

int socket_peer(int fd, struct addr *ret)
{
    return name_of(get_peer, fd, ret);
}

int socket_error(int fd)
{
    int e = 0;
    socklen_t len = sizeof(e);
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0 ? -errno : -e;
}

void socket_close_reset(int fd)
{
    struct linger now = { .l_onoff = 1 };
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(fd);
}

// The C library's recv and send switch cancellation on and off around each call in a process with threads, and nothing here cancels a
// thread. (Sanitizers want to see the C library's.)
ssize_t socket_recv(int fd, void *p, size_t n)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return recv(fd, p, n, 0);
#else
    return syscall(SYS_recvfrom, fd, p, n, 0, NULL, NULL);
#endif
}

ssize_t socket_send(int fd, const void *p, size_t n)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return send(fd, p, n, MSG_NOSIGNAL);
#else
    return syscall(SYS_sendto, fd, p, n, MSG_NOSIGNAL, NULL, 0);
#endif
}

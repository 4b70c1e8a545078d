// SPDX-License-Identifier: Apache-2.0
// Sockets: non-blocking, close-on-exec, with the options a transparent proxy needs. Functions return an fd or a negative errno.
#ifndef LIB_NET_SOCKET_H
#define LIB_NET_SOCKET_H

#include "lib/base/err.h"
#include "lib/net/addr.h"

struct socket_listen_opts {
    bool reuse_port;  // SO_REUSEPORT: one socket per worker
    bool transparent; // IP_TRANSPARENT / IPV6_TRANSPARENT (TPROXY)
    bool v6only;
    bool freebind;
    int backlog; // 0 = SOMAXCONN
    int unix_mode; // permission bits of a Unix socket, 0 = leave; a stale socket file is replaced
};

struct socket_connect_opts {
    struct addr source;      // bind before connect (IP_BIND_ADDRESS_NO_PORT); family 0 = none
    bool transparent_source; // source is not local (TPROXY original source)
    bool freebind;           // source may be no address of this machine (yet): IP_FREEBIND
    uint32_t mark;           // SO_MARK, 0 = none
    int keepalive_idle_s, keepalive_interval_s, keepalive_probes; // 0 = off / kernel default
};

int socket_listen(const struct addr *a, const struct socket_listen_opts *o, struct err *err);
// Starts a non-blocking connect; *ret_done says whether it finished at once. TCP_NODELAY is set.
int socket_connect(const struct addr *a, const struct socket_connect_opts *o, bool *ret_done);
// accept4; *ret_peer filled. -EAGAIN when none is waiting. TCP_NODELAY is not set here: see socket_nodelay.
int socket_accept(int listen_fd, struct addr *ret_peer);
void socket_nodelay(int fd);
// getsockname / getpeername. 0 or negative errno.
int socket_local(int fd, struct addr *ret);
int socket_peer(int fd, struct addr *ret);
// Pending error of a connect (SO_ERROR), as negative errno or 0.
int socket_error(int fd);
// close with RST rather than FIN (SO_LINGER 0).
void socket_close_reset(int fd);
// recv(2) without flags and send(2) with MSG_NOSIGNAL, without the C library's cancellation points.
ssize_t socket_recv(int fd, void *p, size_t n);
ssize_t socket_send(int fd, const void *p, size_t n);

#endif

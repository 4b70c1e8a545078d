// SPDX-License-Identifier: Apache-2.0
#include "init-net/verify.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter_ipv4.h>
#include <poll.h>
#include <stdio.h>
#include <sys/fsuid.h>
#include <sys/random.h>
#include <unistd.h>

#include "init-net/eval.h"
#include "init-net/install.h"
#include "init-net/route.h"
#include "lib/base/clock.h"
#include "lib/base/scope.h"

enum { TOKEN_BYTES = 16 };

union address {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

// One probe: a socket listens where the rules should lead, another one calls an address that nobody has.
struct probe {
    const char *name;
    uint8_t family, proto;
    const char *from; // NULL: as the kernel likes
    const char *to;
    uint16_t to_port;
    const char *oif; // by which interface the call would leave
    const char *listen;
};

static socklen_t make_address(uint8_t family, const char *text, uint16_t port, union address *ret)
{
    *ret = (union address){ 0 };
    if (family == AF_INET) {
        ret->v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
        inet_pton(AF_INET, text, &ret->v4.sin_addr);
        return sizeof(ret->v4);
    }
    ret->v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) };
    inet_pton(AF_INET6, text, &ret->v6.sin6_addr);
    return sizeof(ret->v6);
}

__attribute__((format(printf, 4, 5))) static void note(struct verify_result *v, const char *name, enum check_state state,
                                                       const char *fmt, ...)
{
    if (v->n == VERIFY_CHECKS_MAX) {
        return;
    }
    struct check *c = &v->checks[v->n++];
    c->name = name;
    c->state = state;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->text, sizeof(c->text), fmt, ap);
    va_end(ap);
    v->failed = v->failed || state == CHECK_FAILED;
}

static bool wait_for(int fd, short events, int64_t deadline_ms)
{
    struct pollfd p = { .fd = fd, .events = events };
    int64_t left = deadline_ms - (int64_t)clock_mono_ms();
    return poll(&p, 1, left > 0 ? (int)left : 0) > 0;
}

// Where the rules should send the probe when our own user makes it.
static struct fate expected(const struct plan *p, const struct probe *x)
{
    struct packet k = { .dir = DIR_OUT, .family = x->family, .proto = x->proto, .dport = x->to_port, .has_owner = true,
                        .uid = geteuid(), .gid = getegid(), .oif = x->oif };
    inet_pton(x->family, x->to, k.dst);
    if (x->from) {
        inet_pton(x->family, x->from, k.src);
    }
    return eval_packet(p, &k, NULL, NULL);
}

// The destination before the redirect (SO_ORIGINAL_DST of linux/netfilter_ipv4.h, IP6T_SO_ORIGINAL_DST): port, 0 unknown.
static uint16_t original_port(int fd, uint8_t family)
{
    union address a = { 0 };
    socklen_t n = family == AF_INET ? sizeof(a.v4) : sizeof(a.v6);
    if (getsockopt(fd, family == AF_INET ? SOL_IP : SOL_IPV6, SO_ORIGINAL_DST, &a, &n) < 0) {
        return 0;
    }
    return ntohs(family == AF_INET ? a.v4.sin_port : a.v6.sin6_port);
}

// Bound to the port that the rules lead to; -1 and errno when that is taken (by a proxy that runs already).
static int open_listener(const struct probe *x, uint16_t port)
{
    union address a;
    socklen_t n = make_address(x->family, x->listen, port, &a);
    int type = x->proto == IPPROTO_TCP ? SOCK_STREAM : SOCK_DGRAM;
    int fd = socket(x->family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1; // only lets old connections in TIME_WAIT pass; a listener of somebody else still is in the way
    if (fd >= 0 && x->proto == IPPROTO_TCP) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    }
    if (fd >= 0 && (bind(fd, &a.sa, n) < 0 || (x->proto == IPPROTO_TCP && listen(fd, 4) < 0))) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

// Starts the call. -1 and errno when there is no way to that address.
static int open_caller(const struct probe *x)
{
    union address a;
    int type = x->proto == IPPROTO_TCP ? SOCK_STREAM : SOCK_DGRAM;
    int fd = socket(x->family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool ok = fd >= 0;
    if (ok && x->from) {
        socklen_t n = make_address(x->family, x->from, 0, &a);
        ok = bind(fd, &a.sa, n) == 0;
    }
    socklen_t n = make_address(x->family, x->to, x->to_port, &a);
    if (ok && connect(fd, &a.sa, n) < 0 && errno != EINPROGRESS) {
        ok = false;
    }
    if (!ok && fd >= 0) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

static bool same_token(int fd, const uint8_t *token, int64_t deadline_ms)
{
    uint8_t got[TOKEN_BYTES + 1];
    return wait_for(fd, POLLIN, deadline_ms) && recv(fd, got, sizeof(got), 0) == TOKEN_BYTES &&
           memcmp(got, token, TOKEN_BYTES) == 0;
}

// Accepts until a connection shows the token; strangers are let go. Sets *ret_port to its original port.
static bool meet_tcp(int listener, int caller, const struct probe *x, const uint8_t *token, int64_t deadline_ms,
                     uint16_t *ret_port)
{
    while (wait_for(listener, POLLIN, deadline_ms)) {
        scope_close int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            continue;
        }
        // Closed by a reset, so that no TIME_WAIT of ours is in the way when the proxy binds this port.
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
        if (send(caller, token, TOKEN_BYTES, MSG_NOSIGNAL) == TOKEN_BYTES && same_token(fd, token, deadline_ms)) {
            *ret_port = original_port(fd, x->family);
            return true;
        }
    }
    return false;
}

static void run_probe(const struct plan *p, const struct probe *x, uint32_t timeout_ms, struct verify_result *v)
{
    struct fate want = expected(p, x);
    uint8_t token[TOKEN_BYTES];
    uint16_t port = 0;
    if (want.kind != FATE_REDIRECT) {
        note(v, x->name, CHECK_SKIPPED, "these rules leave %s:%u of user %u alone", x->to, x->to_port, geteuid());
        return;
    }
    if (getrandom(token, sizeof(token), 0) != sizeof(token)) {
        note(v, x->name, CHECK_SKIPPED, "no random numbers");
        return;
    }
    scope_close int listener = open_listener(x, want.port);
    if (listener < 0) {
        note(v, x->name, CHECK_SKIPPED, "port %u of %s is taken (%s): a proxy may be running", want.port, x->listen,
             strerror(errno));
        return;
    }
    scope_close int caller = open_caller(x);
    if (caller < 0) {
        bool refused = errno == ECONNREFUSED;
        note(v, x->name, refused ? CHECK_FAILED : CHECK_SKIPPED, "cannot call %s: %s", x->to, strerror(errno));
        return;
    }
    int64_t deadline = (int64_t)clock_mono_ms() + timeout_ms;
    if (x->proto == IPPROTO_UDP) {
        bool met = send(caller, token, sizeof(token), 0) == sizeof(token) && same_token(listener, token, deadline);
        note(v, x->name, met ? CHECK_OK : CHECK_FAILED, met ? "%s:%u reaches port %u" : "%s:%u does not reach port %u",
             x->to, x->to_port, want.port);
        v->probed = v->probed || met;
        return;
    }
    // Refused at once means that no rule caught it; no need to wait for a listener that nobody will call.
    struct pollfd both = { .fd = caller, .events = POLLOUT };
    poll(&both, 1, (int)timeout_ms);
    int failed = 0;
    socklen_t n = sizeof(failed);
    getsockopt(caller, SOL_SOCKET, SO_ERROR, &failed, &n);
    if (failed || !(both.revents & POLLOUT) || !meet_tcp(listener, caller, x, token, deadline, &port)) {
        note(v, x->name, CHECK_FAILED, "a connection to %s:%u does not reach port %u%s%s", x->to, x->to_port, want.port,
             failed ? ": " : "", failed ? strerror(failed) : "");
        return;
    }
    bool right = port == x->to_port;
    note(v, x->name, right ? CHECK_OK : CHECK_FAILED, "a connection to %s:%u reaches port %u, original port %u", x->to,
         x->to_port, want.port, port);
    v->probed = v->probed || right;
}

// A socket that counts as the proxy's: the rules ask whose it was when it was made. -1 without CAP_SETUID.
static int proxy_socket(const struct id_list *uids)
{
    uid_t own = geteuid();
    int fd = -1;
    if (uids->n == 0) {
        return -1;
    }
    setfsuid(uids->v[0]);
    if ((uid_t)setfsuid((uid_t)-1) == uids->v[0]) { // an impossible user only asks which one it is
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    }
    setfsuid(own);
    return fd;
}

// The proxy asks the nameserver for the root's servers (RFC 1035 §4.1). Its own port in network order; 0: it cannot.
static uint16_t proxy_asks(const struct plan *p, const struct probe *x)
{
    static const uint8_t query[] = { 0x72, 0x6d, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1 };
    scope_close int fd = proxy_socket(&p->o->proxy_uids);
    union address a, own = { 0 };
    socklen_t n = make_address(AF_INET, x->to, x->to_port, &a), own_n = sizeof(own.v4);
    if (fd < 0 || connect(fd, &a.sa, n) < 0 || getsockname(fd, &own.sa, &own_n) < 0 ||
        send(fd, query, sizeof(query), 0) != (ssize_t)sizeof(query)) {
        return 0;
    }
    return own.v4.sin_port;
}

// An application that takes the port from which the proxy has just asked must not follow the proxy's conntrack entry past
// the redirect: the zones are for that.
static void probe_zones(const struct plan *p, const struct probe *x, uint32_t timeout_ms, struct verify_result *v)
{
    uint8_t token[TOKEN_BYTES];
    struct fate want = expected(p, x);
    if (want.kind != FATE_REDIRECT || getrandom(token, sizeof(token), 0) != sizeof(token)) {
        note(v, "dns-zones", CHECK_SKIPPED, "these rules leave %s:%u of user %u alone", x->to, x->to_port, geteuid());
        return;
    }
    scope_close int listener = open_listener(x, want.port);
    uint16_t port = listener < 0 ? 0 : proxy_asks(p, x);
    if (!port) {
        note(v, "dns-zones", CHECK_SKIPPED, listener < 0 ? "port %u of %s is taken" : "asking as the proxy needs CAP_SETUID and a route"
             " (port %u, %s)", want.port, x->listen);
        return;
    }
    scope_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    union address from, to;
    make_address(AF_INET, "0.0.0.0", 0, &from);
    from.v4.sin_port = port;
    socklen_t n = make_address(AF_INET, x->to, x->to_port, &to);
    if (fd < 0 || bind(fd, &from.sa, sizeof(from.v4)) < 0 || connect(fd, &to.sa, n) < 0) {
        note(v, "dns-zones", CHECK_SKIPPED, "cannot ask from port %u: %s", ntohs(port), strerror(errno));
        return;
    }
    bool met = send(fd, token, sizeof(token), 0) == sizeof(token) &&
               same_token(listener, token, (int64_t)clock_mono_ms() + timeout_ms);
    note(v, "dns-zones", met ? CHECK_OK : CHECK_FAILED,
         met ? "%s:%u from port %u, which the proxy has just used, reaches port %u"
             : "%s:%u from port %u, which the proxy has just used, does not reach port %u",
         x->to, x->to_port, ntohs(port), want.port);
}

// The rules in the kernel against the plan, in whatever backend they stand.
static int compare_rules(struct plan *p, struct options *o, char *why, size_t why_size, bool *ret_same, struct err *err)
{
    scope_install struct install in = { 0 };
    int r = install_open(&in, o, (int64_t)clock_mono_ms() + o->timeout_ms, err);
    r = r ? r : install_find(&in, err);
    if (r) {
        return r;
    }
    if (in.backend == BACKEND_AUTO) {
        snprintf(why, why_size, "there are none in this network namespace");
        *ret_same = plan_is_empty(p);
        return 0;
    }
    plan_set_layout(p, in.backend == BACKEND_NFT_IP ? PLAN_IP : PLAN_INET);
    *ret_same = install_equals(&in, p, why, why_size);
    return 0;
}

static void check_structure(struct plan *p, struct options *o, struct verify_result *v)
{
    scope_nl struct nl route = { 0 };
    struct err err;
    char why[160];
    bool same = false;
    int r = compare_rules(p, o, why, sizeof(why), &same, &err);
    if (r == -EPERM || r == -EACCES) {
        note(v, "rules", CHECK_SKIPPED, "%.180s", r == -EPERM ? "reading them needs CAP_NET_ADMIN" : err.msg);
        return;
    }
    if (r) {
        note(v, "rules", CHECK_FAILED, "%.180s", err.msg);
        return;
    }
    note(v, "rules", same ? CHECK_OK : CHECK_FAILED, "%s", same ? "as these flags make them" : why);
    if (nl_open(&route, NETLINK_ROUTE, &err)) {
        note(v, "routing", CHECK_FAILED, "%.180s", err.msg);
        return;
    }
    same = route_check(&route, p, why, sizeof(why));
    note(v, "routing", same ? CHECK_OK : CHECK_FAILED, "%s", same ? "as these flags make it" : why);
}

void verify_run(struct plan *p, struct options *o, uint32_t timeout_ms, struct verify_result *ret)
{
    struct verify_result v = { 0 };
    uint16_t port = p->o->probe_port;
    // Where nobody is (RFC 5737, RFC 3849), when all DNS is captured and no nameserver of that family is known.
    char resolver[INET_ADDRSTRLEN] = "192.0.2.53", resolver6[INET6_ADDRSTRLEN] = "2001:db8::53";
    for (size_t i = p->o->resolvers.n; i > 0; i--) {
        const struct cidr *c = &p->o->resolvers.v[i - 1];
        inet_ntop(c->family, c->addr, c->family == AF_INET ? resolver : resolver6,
                  c->family == AF_INET ? sizeof(resolver) : sizeof(resolver6));
    }
    // 192.0.2.0/24 is nobody's (RFC 5737). What the proxy's user can prove is the hairpin, the others the way out.
    const struct probe probes[] = {
        { "hairpin", AF_INET, IPPROTO_TCP, "127.0.0.1", "127.0.0.6", port, "lo", "127.0.0.1" },
        { "hairpin6", AF_INET6, IPPROTO_TCP, "::1", "::6", port, "lo", "::1" },
        { "outbound", AF_INET, IPPROTO_TCP, NULL, "192.0.2.2", port, "eth0", "127.0.0.1" },
        { "dns", AF_INET, IPPROTO_UDP, NULL, resolver, 53, strncmp(resolver, "127.", 4) ? "eth0" : "lo", "127.0.0.1" },
        { "dns6", AF_INET6, IPPROTO_UDP, NULL, resolver6, 53, strcmp(resolver6, "::1") ? "eth0" : "lo", "::1" },
    };
    check_structure(p, o, &v);
    for (size_t i = 0; i < sizeof(probes) / sizeof(probes[0]) && !v.failed; i++) {
        if ((probes[i].family == AF_INET6 && !p->v6) || (probes[i].proto == IPPROTO_UDP && !p->o->redirect_dns)) {
            continue;
        }
        run_probe(p, &probes[i], timeout_ms, &v);
        if (probes[i].proto == IPPROTO_UDP && probes[i].family == AF_INET && !v.failed) {
            probe_zones(p, &probes[i], timeout_ms, &v);
        }
    }
    note(&v, "inbound", CHECK_SKIPPED, "cannot be called from inside: what goes by lo does not meet the inbound rules");
    *ret = v;
}

// SPDX-License-Identifier: Apache-2.0
// load: asks a proxy on 127.0.0.1 and prints one line of JSON with counts and latencies.
//
//   load MODE PORT [-c CONNECTIONS] [-d SECONDS] [-r RATE] [-p PATH] [-T CA CERT KEY]
//
// MODE http     GET PATH (default /128) with keep-alive
//      echo     128 bytes there and back on a kept connection
//      connect  a new connection for each 128-byte exchange
//      tls      a new mutually authenticated TLS connection (no resumption) with one GET each; needs -T
//      hold     opens CONNECTIONS with one GET each, prints the line, keeps them until its standard input ends
//
// Without -r each connection asks again as soon as it was answered. With -r, requests are due at fixed times, round robin over
// the connections, and a latency counts from the time at which the request was due: a stall is not left out of the statistics.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 20000,
    HEAD_MAX = 4096,
    ECHO_BYTES = 128,
    EVENTS_MAX = 256,
    ERRORS_MAX = 200, // then it gives up
    STEPS = 64,       // histogram cells per doubling: 1.6 %
    CELLS = 40 * STEPS,
};

enum mode { MODE_HTTP, MODE_ECHO, MODE_CONNECT, MODE_TLS, MODE_HOLD, MODES };
static const char *const mode_names[MODES] = { "http", "echo", "connect", "tls", "hold" };

enum state { IDLE, HANDSHAKE, BUSY };

struct client {
    int fd;
    SSL *ssl;
    enum state state;
    bool want_out;    // registered for EPOLLOUT too
    uint64_t due_ns;  // start of the current request
    uint64_t next_ns; // with a rate: when the next one is due
    unsigned late;    // with a rate: requests that are due and not sent
    size_t head_len;  // answer's head so far
    bool in_body;
    uint64_t left; // body bytes to come
    char head[HEAD_MAX];
};

static struct {
    enum mode mode;
    int port, connections;
    double seconds, rate;
    const char *path, *ca, *cert, *key;
} opt = { .connections = 32, .seconds = 1, .path = "/128" };

static int epfd;
static struct client *clients;
static SSL_CTX *tls;
static char request[512], scratch[256 * 1024];
static size_t request_len;
static uint64_t cells[CELLS], done, bytes, errors, start_ns, end_ns, max_ns, asked;
static bool over;

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

// --- latencies ---

static unsigned cell_of(uint64_t ns)
{
    if (ns < STEPS) {
        return (unsigned)ns;
    }
    unsigned shift = 63 - (unsigned)__builtin_clzll(ns) - 6;
    unsigned c = (shift + 1) * STEPS + (unsigned)(ns >> shift) - STEPS;
    return c < CELLS ? c : CELLS - 1;
}

static double cell_us(unsigned c)
{
    double ns = c < STEPS ? c : (double)((uint64_t)(c % STEPS + STEPS) << (c / STEPS - 1));
    return ns / 1000;
}

static double quantile_us(double q)
{
    uint64_t want = (uint64_t)(q * (double)done), sum = 0;
    for (unsigned c = 0; c < CELLS; c++) {
        sum += cells[c];
        if (sum > want) {
            return cell_us(c);
        }
    }
    return (double)max_ns / 1000;
}

static void count(const struct client *c)
{
    uint64_t ns = now() - c->due_ns;
    cells[cell_of(ns)]++;
    max_ns = ns > max_ns ? ns : max_ns;
    done++;
}

// --- connections ---

static void watch(struct client *c, int op, bool out)
{
    struct epoll_event e = { .events = EPOLLIN | (out ? (uint32_t)EPOLLOUT : 0), .data.ptr = c };
    if (epoll_ctl(epfd, op, c->fd, &e) < 0) {
        die("epoll_ctl");
    }
    c->want_out = out;
}

static void disconnect(struct client *c)
{
    if (c->ssl) {
        SSL_free(c->ssl);
        c->ssl = NULL;
    }
    if (c->fd >= 0) {
        close(c->fd);
        c->fd = -1;
    }
    c->state = IDLE;
}

static void dial(struct client *c)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    // Blocking: on loopback the handshake is the kernel's own work and takes microseconds.
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        die("connect");
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (opt.mode == MODE_TLS) {
        c->ssl = SSL_new(tls);
        SSL_set_fd(c->ssl, c->fd);
        SSL_set_connect_state(c->ssl);
        SSL_set_tlsext_host_name(c->ssl, "backend.bench");
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
    }
    watch(c, EPOLL_CTL_ADD, false);
}

static void failed(struct client *c, const char *why)
{
    if (errors++ == 0) {
        fprintf(stderr, "load: first error: %s (errno %d, %s)\n", why, errno, c->ssl ? ERR_reason_error_string(ERR_peek_error()) : "");
    }
    ERR_clear_error();
    if (errors >= ERRORS_MAX) {
        fprintf(stderr, "load: %d errors, giving up\n", ERRORS_MAX);
        over = true;
    }
    disconnect(c);
}

static void handshake(struct client *c);

static void ask(struct client *c, uint64_t due)
{
    if (c->fd < 0) {
        dial(c);
    }
    asked++;
    c->due_ns = due;
    c->head_len = 0;
    c->in_body = opt.mode == MODE_ECHO || opt.mode == MODE_CONNECT;
    c->left = c->in_body ? ECHO_BYTES : 0;
    if (c->ssl && !SSL_is_init_finished(c->ssl)) {
        c->state = HANDSHAKE;
        handshake(c);
        return;
    }
    c->state = BUSY;
    ssize_t n = c->ssl ? SSL_write(c->ssl, request, (int)request_len) : send(c->fd, request, request_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n != (ssize_t)request_len) {
        failed(c, "a request was not taken");
    }
}

static void handshake(struct client *c)
{
    int r = SSL_do_handshake(c->ssl);
    if (r == 1) {
        asked--;
        ask(c, c->due_ns);
        return;
    }
    int e = SSL_get_error(c->ssl, r);
    if (e != SSL_ERROR_WANT_READ) { // a client's flight always fits into an empty socket
        failed(c, "handshake");
    }
}

// The answer is whole.
static void answered(struct client *c)
{
    count(c);
    c->state = IDLE;
    if (opt.mode == MODE_CONNECT || opt.mode == MODE_TLS) {
        if (c->ssl) {
            SSL_shutdown(c->ssl);
        }
        disconnect(c);
    }
    if (over || opt.mode == MODE_HOLD) {
        return;
    }
    if (opt.rate == 0) {
        ask(c, now());
    } else if (c->late) {
        c->late--;
        uint64_t due = c->next_ns;
        c->next_ns += (uint64_t)(1e9 * opt.connections / opt.rate);
        ask(c, due);
    }
}

static bool parse_head(struct client *c, const char *end)
{
    size_t n = (size_t)(end - c->head);
    c->head[n] = '\0';
    const char *cl = strcasestr(c->head, "\r\ncontent-length:");
    if (strncmp(c->head, "HTTP/1.1 200", 12) != 0 || !cl) {
        return false;
    }
    c->left = strtoull(cl + 17, NULL, 10);
    c->in_body = true;
    return true;
}

// False: wrong answer.
static bool take(struct client *c, const char *p, size_t n)
{
    bytes += n;
    if (!c->in_body) {
        size_t k = n < HEAD_MAX - 1 - c->head_len ? n : HEAD_MAX - 1 - c->head_len;
        memcpy(c->head + c->head_len, p, k);
        size_t had = c->head_len;
        c->head_len += k;
        char *end = memmem(c->head, c->head_len, "\r\n\r\n", 4);
        if (!end) {
            return c->head_len < HEAD_MAX - 1;
        }
        n -= (size_t)(end + 4 - c->head) - had;
        if (!parse_head(c, end)) {
            return false;
        }
    }
    if (n > c->left) {
        return false;
    }
    c->left -= n;
    if (c->left == 0) {
        answered(c);
    }
    return true;
}

static void on_event(struct client *c)
{
    if (c->state == HANDSHAKE) {
        handshake(c);
        return;
    }
    do {
        ssize_t n = c->ssl ? SSL_read(c->ssl, scratch, sizeof(scratch)) : recv(c->fd, scratch, sizeof(scratch), MSG_DONTWAIT);
        if (n <= 0) {
            if (c->ssl ? SSL_get_error(c->ssl, (int)n) == SSL_ERROR_WANT_READ : n < 0 && errno == EAGAIN) {
                return;
            }
            failed(c, c->state == IDLE ? "closed while idle" : "closed before the answer was whole");
            if (!over && opt.rate == 0) {
                ask(c, now());
            }
            return;
        }
        if (c->state != BUSY || !take(c, scratch, (size_t)n)) {
            failed(c, "wrong answer");
            return;
        }
    } while (c->ssl && SSL_pending(c->ssl) > 0);
}

// --- the run ---

static void wait_events(uint64_t until)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t t = now(), ns = until > t ? until - t : 0;
    struct timespec ts = { .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };
    int n = epoll_pwait2(epfd, events, EVENTS_MAX, &ts, NULL);
    if (n < 0 && errno != EINTR) {
        die("epoll_pwait2");
    }
    for (int i = 0; i < n; i++) {
        struct client *c = events[i].data.ptr;
        if (c->fd >= 0) {
            on_event(c);
        }
    }
}

static void run_closed(void)
{
    for (int i = 0; i < opt.connections; i++) {
        ask(&clients[i], now());
    }
    while (!over && now() < end_ns) {
        wait_events(end_ns);
    }
}

static void run_rate(void)
{
    double step = 1e9 / opt.rate;
    for (int i = 0; i < opt.connections; i++) {
        dial(&clients[i]);
        clients[i].next_ns = start_ns + (uint64_t)(step * i);
    }
    for (uint64_t g = 0; !over; g++) {
        uint64_t due = start_ns + (uint64_t)(step * (double)g);
        if (due >= end_ns) {
            break;
        }
        while (now() < due && !over) {
            wait_events(due);
        }
        struct client *c = &clients[g % (uint64_t)opt.connections];
        if (c->state != IDLE) {
            c->late++;
        } else {
            c->next_ns = due + (uint64_t)(step * opt.connections);
            ask(c, due);
        }
    }
    uint64_t last = now() + 500000000; // what is on its way
    while (done + errors < asked && now() < last) {
        wait_events(last);
    }
}

static void run_hold(void)
{
    enum { AT_ONCE = 32 };
    int next = 0;
    while (!over && done < (uint64_t)opt.connections && now() < end_ns + 30000000000ull) {
        while (next < opt.connections && (uint64_t)next < done + AT_ONCE) {
            ask(&clients[next++], now());
        }
        wait_events(now() + 100000000);
    }
}

static void report(void)
{
    double s = (double)(now() - start_ns) / 1e9;
    printf("{\"requests\": %llu, \"errors\": %llu, \"bytes\": %llu, \"seconds\": %.4f, \"p50_us\": %.1f, \"p90_us\": %.1f, "
           "\"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f}\n",
           (unsigned long long)done, (unsigned long long)errors, (unsigned long long)bytes, s, quantile_us(0.5), quantile_us(0.9),
           quantile_us(0.99), quantile_us(0.999), (double)max_ns / 1000);
    fflush(stdout);
}

static void prepare(void)
{
    if (opt.mode == MODE_ECHO || opt.mode == MODE_CONNECT) {
        memset(request, 'e', ECHO_BYTES);
        request_len = ECHO_BYTES;
    } else {
        request_len = (size_t)snprintf(request, sizeof(request),
                                       "GET %s HTTP/1.1\r\nhost: backend.bench\r\nuser-agent: load\r\naccept: */*\r\n\r\n", opt.path);
    }
    if (opt.mode == MODE_TLS) {
        tls = SSL_CTX_new(TLS_client_method());
        if (!opt.ca || !tls || SSL_CTX_load_verify_locations(tls, opt.ca, NULL) != 1 ||
            SSL_CTX_use_certificate_chain_file(tls, opt.cert) != 1 || SSL_CTX_use_PrivateKey_file(tls, opt.key, SSL_FILETYPE_PEM) != 1) {
            fprintf(stderr, "load: tls needs -T CA CERT KEY\n");
            exit(2);
        }
        SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
        SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
        SSL_CTX_set1_groups_list(tls, "P-256");
        SSL_CTX_set_mode(tls, SSL_MODE_AUTO_RETRY);
    }
}

static int usage(void)
{
    fprintf(stderr, "usage: load http|echo|connect|tls|hold PORT [-c CONNECTIONS] [-d SECONDS] [-r RATE] [-p PATH] [-T CA CERT KEY]\n");
    return 2;
}

static bool options(int argc, char **argv)
{
    int m = 0;
    while (argc > 2 && m < MODES && strcmp(argv[1], mode_names[m]) != 0) {
        m++;
    }
    if (argc < 3 || m == MODES) {
        return false;
    }
    opt.mode = (enum mode)m;
    opt.port = (int)strtol(argv[2], NULL, 10);
    for (int i = 3; i < argc; i++) {
        char f = argv[i][0] == '-' ? argv[i][1] : 0;
        if (i + (f == 'T' ? 3 : 1) >= argc) {
            return false;
        }
        const char *v = argv[++i];
        switch (f) {
        case 'c':
            opt.connections = (int)strtol(v, NULL, 10);
            break;
        case 'd':
            opt.seconds = strtod(v, NULL);
            break;
        case 'r':
            opt.rate = strtod(v, NULL);
            break;
        case 'p':
            opt.path = v;
            break;
        case 'T':
            opt.ca = v;
            opt.cert = argv[++i];
            opt.key = argv[++i];
            break;
        default:
            return false;
        }
    }
    return opt.connections > 0 && opt.connections <= CONNECTIONS_MAX && opt.seconds > 0 && opt.rate >= 0;
}

int main(int argc, char **argv)
{
    if (!options(argc, argv)) {
        return usage();
    }
    prepare();
    prctl(PR_SET_TIMERSLACK, 1UL);
    epfd = epoll_create1(EPOLL_CLOEXEC);
    clients = calloc((size_t)opt.connections, sizeof(*clients));
    if (epfd < 0 || !clients) {
        die("start");
    }
    for (int i = 0; i < opt.connections; i++) {
        clients[i].fd = -1;
    }
    start_ns = now();
    end_ns = start_ns + (uint64_t)(opt.seconds * 1e9);
    if (opt.mode == MODE_HOLD) {
        run_hold();
    } else if (opt.rate > 0) {
        run_rate();
    } else {
        run_closed();
    }
    over = true;
    report();
    if (opt.mode == MODE_HOLD) {
        while (read(0, scratch, sizeof(scratch)) > 0) {
        }
    }
    return errors || done == 0 ? 1 : 0;
}

// SPDX-License-Identifier: Apache-2.0
#include "proxy/server/agent_commands.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/base/str.h"
#include "lib/http/client.h"

enum { ANSWER_MAX = 256 * 1024 * 1024, REQUEST_TIMEOUT_MS = 60000, HOST_MAX = 256 };

static unsigned long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (unsigned long)t.tv_sec * 1000 + (unsigned long)t.tv_nsec / 1000000;
}

int agent_flag_number(int argc, char **argv, int *i, const char *name, unsigned long max, unsigned long *ret)
{
    const char *arg = argv[*i], *value = NULL;
    size_t n = strlen(name);
    if (strncmp(arg, name, n) || (arg[n] && arg[n] != '=')) {
        return 0;
    }
    value = arg[n] ? arg + n + 1 : *i + 1 < argc ? argv[++*i] : "";
    uint64_t v;
    if (!str_to_u64(str_c(value), max, &v)) {
        fprintf(stderr, "%s: \"%s\" is not a number from 0 to %lu\n", name, value, max);
        return -1;
    }
    *ret = (unsigned long)v;
    return 1;
}

// One exchange with the first address of host that takes the connection. The status and the body (in a), or a negative code and err.
static int exchange(const char *host, const char *port, const char *method, const char *path, const char *body, unsigned long timeout_ms,
                    struct arena *a, struct str *ret_body, struct err *err)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    int code = getaddrinfo(host, port, &hints, &list);
    if (code) {
        return err_set(err, -EHOSTUNREACH, "%s: %s", host, gai_strerror(code));
    }
    struct http_client_req q = { .method = method, .path = str_c(path[0] == '/' ? path : arena_printf(a, "/%s", path).p), .body = str_c(body),
                                 .host = arena_printf(a, "%s:%s", host, port), .timeout_ms = (int)timeout_ms, .max_bytes = ANSWER_MAX };
    code = -EHOSTUNREACH;
    for (struct addrinfo *i = list; i && code < 0; i = i->ai_next) {
        if (addr_from_sockaddr(i->ai_addr, i->ai_addrlen, &q.to)) {
            code = http_client_do(&q, a, ret_body, err);
        }
    }
    freeaddrinfo(list);
    return code;
}

// http://HOST[:PORT][/PATH] into its parts.
static bool split_url(const char *url, char host[static HOST_MAX], char port[static 8], const char **ret_path)
{
    struct str rest = str_c(url);
    if (!str_starts(rest, STR("http://"))) {
        return false;
    }
    rest = str_skip(rest, 7);
    const char *slash = memchr(rest.p, '/', rest.n);
    struct str where = slash ? str_n(rest.p, (size_t)(slash - rest.p)) : rest;
    struct str name = str_split(&where, ':');
    if (!name.n || name.n >= HOST_MAX || where.n >= 8) {
        return false;
    }
    snprintf(host, HOST_MAX, "%.*s", STR_FMT(name));
    snprintf(port, 8, "%.*s", where.n ? (int)where.n : 2, where.n ? where.p : "80");
    *ret_path = slash ? slash : "/";
    return true;
}

static int run_wait(int argc, char **argv)
{
    unsigned long timeout_s = 60, request_ms = 500, period_ms = 500;
    const char *url = "http://localhost:15021/healthz/ready", *path;
    char host[HOST_MAX], port[8];
    for (int i = 0; i < argc; i++) {
        int rc = agent_flag_number(argc, argv, &i, "--timeoutSeconds", 86400, &timeout_s);
        rc = rc ? rc : agent_flag_number(argc, argv, &i, "--requestTimeoutMillis", 3600000, &request_ms);
        rc = rc ? rc : agent_flag_number(argc, argv, &i, "--periodMillis", 3600000, &period_ms);
        if (rc < 0) {
            return 1;
        }
        if (!rc && !strncmp(argv[i], "--url=", 6)) {
            url = argv[i] + 6;
        } else if (!rc && !strcmp(argv[i], "--url") && i + 1 < argc) {
            url = argv[++i];
        } else if (!rc) {
            fprintf(stderr, "wait: flag %s has no effect here\n", argv[i]);
        }
    }
    if (!split_url(url, host, port, &path)) {
        fprintf(stderr, "wait: --url: \"%s\" is not of the form http://HOST:PORT/PATH\n", url);
        return 1;
    }
    unsigned long end = now_ms() + timeout_s * 1000;
    for (;;) {
        struct arena a = { 0 };
        struct err err = { 0 };
        struct str body;
        int status = exchange(host, port, "GET", path, "", request_ms, &a, &body, &err);
        arena_fini(&a);
        if (status == 200) {
            return 0;
        }
        if (now_ms() + period_ms >= end) {
            fprintf(stderr, "wait: the proxy was not ready within %lu s: %s: %s\n", timeout_s, url, status < 0 ? err.msg : "not ready");
            return 1;
        }
        poll(NULL, 0, (int)period_ms);
    }
}

static int run_request(int argc, char **argv)
{
    static const unsigned long allowed[] = { 15000, 15004, 15020, 15021 };
    unsigned long port = 15000;
    const char *words[3] = { NULL, NULL, "" };
    int n = 0;
    for (int i = 0; i < argc; i++) {
        int rc = agent_flag_number(argc, argv, &i, "--debug-port", 65535, &port);
        if (rc < 0) {
            return 1;
        }
        if (!rc && argv[i][0] == '-') {
            fprintf(stderr, "request: flag %s has no effect here\n", argv[i]);
        } else if (!rc && n < 3) {
            words[n++] = argv[i];
        }
    }
    bool known = false;
    for (size_t i = 0; i < array_len(allowed); i++) {
        known = known || allowed[i] == port;
    }
    if (n < 2 || !known) {
        fprintf(stderr, "%s\n", known ? "usage: request [--debug-port=PORT] METHOD PATH [BODY]" : "request: --debug-port is one of 15000, 15004, 15020, 15021");
        return 1;
    }
    char number[8];
    snprintf(number, sizeof(number), "%lu", port);
    struct arena a = { 0 };
    struct err err = { 0 };
    struct str body = { 0 };
    int status = exchange("localhost", number, words[0], words[1], words[2], REQUEST_TIMEOUT_MS, &a, &body, &err), rc = 0;
    if (status < 0 || (status > 399 && status != 404)) { // pilot-agent prints a page that is not there, too
        fprintf(stderr, "request: %s %s: ", words[0], words[1]);
        status < 0 ? fprintf(stderr, "%s\n", err.msg) : fprintf(stderr, "status %d\n", status);
        rc = 1;
    } else {
        fwrite(body.p, 1, body.n, stdout);
        fputc('\n', stdout);
        rc = fflush(stdout) ? 1 : 0;
    }
    arena_fini(&a);
    return rc;
}

// remora-init beside this program, whatever name this was called by.
static int run_init(char **argv)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - sizeof("remora-init"));
    char *slash = n > 0 ? memrchr(path, '/', (size_t)n) : NULL;
    if (slash) {
        memcpy(slash + 1, "remora-init", sizeof("remora-init"));
        execv(path, argv);
    }
    execvp("remora-init", argv);
    fprintf(stderr, "istio-iptables: remora-init, which does this, cannot be run: %s\n", strerror(errno));
    return 126;
}

bool agent_command(int argc, char **argv, int *ret_status)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *called = argc > 0 ? slash ? slash + 1 : argv[0] : "", *first = argc > 1 ? argv[1] : "";
    if (!strcmp(called, "istio-iptables")) {
        *ret_status = run_init(argv);
    } else if (!strcmp(first, "istio-iptables")) {
        *ret_status = run_init(argv + 1);
    } else if (!strcmp(first, "wait")) {
        *ret_status = run_wait(argc - 2, argv + 2);
    } else if (!strcmp(first, "request")) {
        *ret_status = run_request(argc - 2, argv + 2);
    } else {
        return false;
    }
    return true;
}

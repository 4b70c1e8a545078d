// SPDX-License-Identifier: Apache-2.0
// wait: until the proxy says that it is ready; for pods whose containers have no order of their own.
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "init-net/commands.h"
#include "init-net/eval.h"
#include "init-net/report.h"
#include "lib/base/clock.h"
#include "lib/base/scope.h"

enum { ATTEMPT_MS = 1000, PAUSE_MS = 50 };

// One attempt. NULL when ready, else what was wrong.
static const char *ask(uint8_t family, const uint8_t *addr, uint16_t port, struct str path, char *why, size_t why_size)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
    memcpy(&v4.sin_addr, addr, 4);
    memcpy(&v6.sin6_addr, addr, 16);
    scope_close int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = { .tv_sec = ATTEMPT_MS / 1000 };
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (fd < 0 || connect(fd, family == AF_INET ? (const struct sockaddr *)&v4 : (const struct sockaddr *)&v6,
                          family == AF_INET ? sizeof(v4) : sizeof(v6)) < 0) {
        snprintf(why, why_size, "%s", strerror(errno));
        return why;
    }
    if (!path.n) {
        return NULL;
    }
    char text[1024];
    int n = snprintf(text, sizeof(text), "GET %.*s HTTP/1.1\r\nHost: remora-init\r\nConnection: close\r\n\r\n",
                     path.n > 800 ? 800 : (int)path.n, path.p);
    if (send(fd, text, (size_t)n, MSG_NOSIGNAL) != n) {
        return "the connection broke";
    }
    size_t got = 0;
    while (got < 12) { // "HTTP/1.1 200"
        ssize_t k = recv(fd, text + got, sizeof(text) - 1 - got, 0);
        if (k <= 0) {
            return "no answer to the HTTP request";
        }
        got += (size_t)k;
    }
    text[12] = '\0';
    if (strncmp(text, "HTTP/1.", 7) == 0 && strcmp(text + 8, " 200") == 0) {
        return NULL;
    }
    snprintf(why, why_size, "the answer is %.12s", text);
    return why;
}

int cmd_wait(struct options *o, const struct facts *facts)
{
    (void)facts;
    uint8_t family, addr[16];
    uint16_t port = o->wait_port;
    struct err err;
    char why[128];
    report_warnings(o);
    if (eval_address(o->wait_host, &family, addr, &port, &err)) {
        report_message(o, "error", "--host: %s", err.msg);
        return EXIT_FLAGS;
    }
    uint64_t start = clock_mono_ms();
    for (;;) {
        const char *problem = ask(family, addr, port, o->wait_path, why, sizeof(why));
        uint64_t passed = clock_mono_ms() - start;
        if (!problem) {
            report_message(o, "info", "port %u is ready after %llu ms", port, (unsigned long long)passed);
            return EXIT_OK;
        }
        if (passed >= o->timeout_ms) {
            report_message(o, "error", "port %u is not ready after %llu ms: %s", port, (unsigned long long)passed, problem);
            return EXIT_APPLY;
        }
        nanosleep(&(struct timespec){ .tv_nsec = PAUSE_MS * 1000000 }, NULL);
    }
}

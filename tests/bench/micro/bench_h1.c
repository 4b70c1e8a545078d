// SPDX-License-Identifier: Apache-2.0
// Nanoseconds per HTTP/1 head: parse of a browser-like request of ten fields, parse of a typical answer, and writing both.
// Pure code on one thread; `bench_h1 [seconds per case]`.
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/http/h1_parser.h"

static const char request[] =
    "GET /productpage/reviews/17?u=normal&lang=en HTTP/1.1\r\nHost: reviews.default.svc.cluster.local:9080\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate\r\n"
    "X-Request-Id: 6c9a3a5e-8f13-9a3e-b4a0-0d2f5d1f9f10\r\nX-B3-Traceid: 80f198ee56343ba864fe8b2a57d3eff7\r\n"
    "X-B3-Spanid: e457b5a2e4d86bd1\r\nX-B3-Sampled: 1\r\nCookie: session=eyJ1c2VyIjoiamFzb24ifQ\r\nend-user: jason\r\n\r\n";
static const char response[] =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Sat, 21 Nov 2026 04:00:31 GMT\r\nServer: istio-envoy\r\n"
    "X-Envoy-Upstream-Service-Time: 12\r\nContent-Length: 128\r\n\r\n";

struct bench {
    struct arena arena;
    struct h1_parser p;
    struct buf in, out;
};

static void parse(struct bench *b, const char *text, size_t n)
{
    arena_reset(&b->arena, true);
    h1_parser_next(&b->p, &b->arena);
    buf_append(&b->in, text, n);
    if (h1_parser_run(&b->p, &b->in) != H1_HEAD) {
        fprintf(stderr, "the parser refused the message: %s\n", h1_error_text(b->p.error));
        exit(1);
    }
}

static void parse_request(struct bench *b)
{
    parse(b, request, sizeof(request) - 1);
}

static void parse_response(struct bench *b)
{
    parse(b, response, sizeof(response) - 1);
}

static void write_request(struct bench *b)
{
    h1_write_request(&b->out, &b->p.req, &(struct h1_write_opts){ 0 });
    buf_clear(&b->out);
}

static void write_response(struct bench *b)
{
    h1_write_response(&b->out, &b->p.resp, &(struct h1_write_opts){ 0 });
    buf_clear(&b->out);
}

static void copy_only(struct bench *b)
{
    arena_reset(&b->arena, true);
    buf_append(&b->in, request, sizeof(request) - 1);
    char *p = arena_alloc(&b->arena, sizeof(request));
    buf_peek(&b->in, 0, p, sizeof(request) - 1);
    buf_clear(&b->in);
}

static void measure(struct bench *b, const char *what, double seconds, void (*fn)(struct bench *))
{
    uint64_t begin = clock_mono_ns(), now = begin, runs = 0;
    while ((double)(now - begin) < seconds * 1e9) {
        for (int i = 0; i < 1000; i++) {
            fn(b);
        }
        runs += 1000;
        now = clock_mono_ns();
    }
    printf("%-28s %8.1f ns\n", what, (double)(now - begin) / (double)runs);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 1;
    struct bench b = { 0 };
    h1_parser_init(&b.p, true, NULL, &b.arena);
    measure(&b, "request: bytes only", seconds, copy_only);
    measure(&b, "request: parse", seconds, parse_request);
    parse_request(&b);
    measure(&b, "request: write", seconds, write_request);
    h1_parser_init(&b.p, false, NULL, &b.arena);
    measure(&b, "response: parse", seconds, parse_response);
    parse_response(&b);
    measure(&b, "response: write", seconds, write_response);
    arena_fini(&b.arena);
    buf_cache_free();
    return 0;
}

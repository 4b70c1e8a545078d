// SPDX-License-Identifier: Apache-2.0
// Runs tests/conformance/h1/cases.txt: each case whole, cut at every position, and byte by byte, must give the same verdict.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/conformance/h1/replay.h"

#define CASES "tests/conformance/h1/cases.txt"

enum { LINE_MAX_BYTES = 4096, BYTES_MAX = 200 * 1024 };

struct one_case {
    char id[32], opts[64], verdict[16]; // verdict: "reject", "forward", "?"
    char *send, *want;
    char *lenient;        // what goes out with h1_limits.lenient where the strict verdict is to reject; n_lenient 0 = rejected too
    size_t n_send, n_want, n_lenient;
    int line;
};

static unsigned hex_of(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 0x20) - 'a' + 10);
}

// Appends the unescaped text. "\*N:TEXT;" repeats TEXT N times.
static size_t unescape(const char *s, size_t n_s, char *out, size_t n)
{
    for (size_t i = 0; i < n_s; i++) {
        if (s[i] != '\\') {
            out[n++] = s[i];
            continue;
        }
        char c = s[++i];
        if (c == 'x') {
            out[n++] = (char)(hex_of(s[i + 1]) << 4 | hex_of(s[i + 2]));
            i += 2;
        } else if (c == '*') {
            char *colon;
            unsigned long times = strtoul(s + i + 1, &colon, 10);
            const char *semi = memchr(colon, ';', n_s - (size_t)(colon - s));
            assert_non_null(semi);
            for (; times; times--) {
                n = unescape(colon + 1, (size_t)(semi - colon) - 1, out, n);
                assert_true(n < BYTES_MAX - LINE_MAX_BYTES);
            }
            i = (size_t)(semi - s);
        } else {
            out[n++] = c == 'r' ? '\r' : c == 'n' ? '\n' : c == 't' ? '\t' : c == '0' ? '\0' : c;
        }
    }
    return n;
}

static void print_escaped(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c == '\r' || c == '\n' || c == '\t') {
            printf("\\%c", c == '\r' ? 'r' : c == '\n' ? 'n' : 't');
        } else if (c < 0x20 || c > 0x7e || c == '\\') {
            printf("\\x%02x", c);
        } else {
            putchar(c);
        }
    }
    putchar('\n');
}

static bool option(const struct one_case *c, const char *name)
{
    return strstr(c->opts, name) != NULL;
}

static struct replay run(const struct one_case *c, bool lenient, size_t first, size_t step)
{
    struct replay_opts o = { .request = option(c, "request"), .head = option(c, " head"), .connect = option(c, " connect"),
                             .limits = h1_limits_default, .first = first, .step = step };
    o.limits.allow_http10 = option(c, " http10");
    o.limits.allow_absolute_url = !option(c, " noabsolute");
    o.limits.allow_chunked_length = option(c, " chunkedlength");
    o.limits.lenient = lenient;
    return replay(&o, c->send, c->n_send);
}

static bool is(struct str out, const char *want, size_t n)
{
    return out.n == n && (n == 0 || memcmp(out.p, want, n) == 0);
}

static bool as_wanted(const struct one_case *c, bool lenient, const struct replay *r, struct str out)
{
    bool reject = strcmp(c->verdict, "reject") == 0;
    if (reject && lenient) { // the reason may be another one
        return c->n_lenient ? !r->error && is(out, c->lenient, c->n_lenient) : r->error != H1_OK;
    }
    return reject ? r->error && strcmp(c->want, h1_error_text(r->error)) == 0 : !r->error && is(out, c->want, c->n_want);
}

// 0 when the verdict is as wanted.
static int judge(const struct one_case *c, bool lenient, struct replay *r, const char *how, size_t at)
{
    struct str out = buf_pullup(&r->out, r->out.len);
    bool ok = as_wanted(c, lenient, r, out);
    if (!ok) {
        printf("%s:%d: case %s%s %s %zu: got %s ", CASES, c->line, c->id, lenient ? " lenient" : "", how, at, r->error ? "reject" : "forward");
        if (r->error) {
            puts(h1_error_text(r->error));
        } else {
            print_escaped(out.p, out.n);
        }
    }
    buf_clear(&r->out);
    return !ok;
}

static int run_case(const struct one_case *c, bool lenient)
{
    struct replay r = run(c, lenient, 0, 0);
    if (judge(c, lenient, &r, "whole", 0)) {
        return 1;
    }
    r = run(c, lenient, 1, 1);
    if (judge(c, lenient, &r, "byte by byte", 1)) {
        return 1;
    }
    for (size_t cut = 1; cut < c->n_send && cut < 2000; cut++) {
        r = run(c, lenient, cut, 0);
        if (judge(c, lenient, &r, "cut at", cut)) {
            return 1;
        }
    }
    return 0;
}

static void conformance_cases(void **state)
{
    (void)state;
    FILE *f = fopen(CASES, "re");
    assert_non_null(f); // run from the repository's root
    static char line[LINE_MAX_BYTES];
    struct one_case c = { .send = malloc(BYTES_MAX), .want = malloc(BYTES_MAX), .lenient = malloc(BYTES_MAX) };
    int n_cases = 0, bad = 0, at_line = 0;
    while (fgets(line, sizeof(line), f)) {
        at_line++;
        size_t n = strcspn(line, "\n");
        line[n] = '\0';
        if (strncmp(line, "case ", 5) == 0) {
            assert_int_equal(sscanf(line, "case %31s %63[^\n]", c.id, c.opts), 2);
            c.n_send = c.n_want = c.n_lenient = 0;
            c.line = at_line;
            c.verdict[0] = '\0';
        } else if (strncmp(line, "send ", 5) == 0) {
            c.n_send = unescape(line + 5, n - 5, c.send, c.n_send);
        } else if (strncmp(line, "want ", 5) == 0) {
            size_t skip = 5;
            if (!c.verdict[0]) {
                assert_int_equal(sscanf(line, "want %15s", c.verdict), 1);
                skip += strlen(c.verdict) + (line[skip + strlen(c.verdict)] == ' ');
            }
            c.n_want = unescape(line + skip, n - skip, c.want, c.n_want);
            c.want[c.n_want] = '\0';
        } else if (strncmp(line, "lenient ", 8) == 0) {
            c.n_lenient = unescape(line + 8, n - 8, c.lenient, c.n_lenient);
        } else if (n == 0 && c.verdict[0]) {
            n_cases++;
            bad += run_case(&c, false);
            bad += run_case(&c, true);
            c.verdict[0] = '\0';
        }
    }
    fclose(f);
    free(c.send);
    free(c.want);
    free(c.lenient);
    printf("%d cases\n", n_cases);
    assert_int_equal(bad, 0);
    assert_true(n_cases >= 450);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(conformance_cases) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

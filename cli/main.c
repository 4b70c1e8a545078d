// SPDX-License-Identifier: Apache-2.0
// remoractl: looks into proxies and the control plane.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/output.h"

// no-color.org, and terminals that know no escapes.
static bool may_color(void)
{
    const char *none = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(none && *none) && !(term && strcmp(term, "dumb") == 0);
}

static void flush(struct cli *c)
{
    output_flush(STDOUT_FILENO, &c->out);
    output_flush(STDERR_FILENO, &c->notes);
}

static void wait_ms(unsigned ms)
{
    struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };
    while (nanosleep(&t, &t) && errno == EINTR) {
    }
}

int main(int argc, char **argv)
{
    struct arena a;
    arena_init(&a, 1 << 16, 0);
    struct cli c = { .arena = &a, .now_s = time(NULL), .color = may_color(), .flush = flush, .wait_ms = wait_ms };
    int code = cli_main(argc, argv, &c);
    int r = output_flush(STDOUT_FILENO, &c.out);
    output_flush(STDERR_FILENO, &c.notes);
    if (r && r != -EPIPE) {
        fprintf(stderr, "error: cannot write the result: %s\n", strerror(-r));
    }
    arena_fini(&a);
    buf_cache_free();
    return r ? CLI_FAILED : code;
}

// SPDX-License-Identifier: Apache-2.0
// Runs command lines of remoractl in-process.
#ifndef TESTS_UNIT_CLI_SUPPORT_H
#define TESTS_UNIT_CLI_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cli/commands.h"
#include "cli/describe.h"
#include "lib/base/check.h"

// 2027-01-01: all but one of the certificates in tests/golden/cli/certs are valid then.
enum { TEST_NOW_S = 1798761600 };

struct result {
    int code;
    struct str out, notes; // NUL behind the end; in the arena
};

// Runs "pc cluster --fqdn x": words separated by single spaces.
static inline struct result run_words(struct arena *a, const char *words, bool color)
{
    struct cli c = { .arena = a, .now_s = TEST_NOW_S, .color = color };
    char *argv[24] = { arena_strdup(a, "remoractl") };
    int argc = 1;
    struct str rest = str_c(words);
    while (rest.n) {
        assert_true(argc < (int)array_len(argv));
        argv[argc++] = (char *)(uintptr_t)arena_str(a, str_split(&rest, ' ')).p;
    }
    struct result r = { .code = cli_main(argc, argv, &c) };
    r.out = describe_take(&c.out, a);
    r.notes = describe_take(&c.notes, a);
    return r;
}

#endif

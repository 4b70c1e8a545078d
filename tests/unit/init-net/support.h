// SPDX-License-Identifier: Apache-2.0
// What the init-net tests share: options from a command line in one string, with invented facts and environment.
#ifndef TESTS_UNIT_INIT_NET_SUPPORT_H
#define TESTS_UNIT_INIT_NET_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "init-net/options.h"

// Environment of the test: "NAME=value" strings, NULL at the end.
static const char *const *test_env;

static inline const char *test_get_env(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; test_env && test_env[i]; i++) {
        if (strncmp(test_env[i], name, n) == 0 && test_env[i][n] == '=') {
            return test_env[i] + n + 1;
        }
    }
    return NULL;
}

static inline struct facts test_facts(void)
{
    return (struct facts){
        .get_env = test_get_env,
        .passwd = STR("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"),
        .group = STR("root:x:0:\nstaff:x:50:\n"),
        .resolv_readable = true,
        .resolv = STR("# test\nnameserver 10.96.0.10\nsearch x\n"),
        .have_v4 = true,
        .v6_stack = true,
    };
}

// Words separated by blanks; '' is the empty word. The first one is argv[0].
static inline int test_parse_with(const char *line, const struct facts *facts, struct arena *a, struct options *ret,
                                  struct err *err)
{
    enum { WORDS_MAX = 64 };
    char *argv[WORDS_MAX + 1] = { 0 };
    int argc = 0;
    struct str rest = str_c(line);
    while (rest.n && argc < WORDS_MAX) {
        struct str word = str_split(&rest, ' ');
        if (word.n) {
            argv[argc++] = arena_strdup(a, str_is(word, "''") ? "" : arena_str(a, word).p);
        }
    }
    *err = (struct err){ 0 };
    return options_parse(argc, argv, facts, a, ret, err);
}

static inline int test_parse(const char *line, struct arena *a, struct options *ret, struct err *err)
{
    struct facts facts = test_facts();
    return test_parse_with(line, &facts, a, ret, err);
}

#define BASE_FLAGS "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x '' -b * -d 15090,15021,15020"

#endif

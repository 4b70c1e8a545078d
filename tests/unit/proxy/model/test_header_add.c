// SPDX-License-Identifier: Apache-2.0
// What a level's list of fields makes of a message: first what overwrites, then what is added, conditions asked before.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "lib/base/check.h"
#include "proxy/model/route_table.h"

static const char *text(const struct headers *h, struct arena *a)
{
    struct str s = STR("");
    for (struct hdr *x = headers_first(h); x; x = headers_next(h, x)) {
        s = arena_printf(a, "%.*s%.*s=%.*s ", STR_FMT(s), STR_FMT(x->name), STR_FMT(x->value));
    }
    return s.p;
}

static void adds(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct headers h;
    struct http_request req = { .host = STR("old"), .path = STR("/old") };
    headers_init(&h, &a);
    headers_add(&h, STR("x-is"), STR("was"));
    const struct header_add v[] = {
        { .name = STR("x-new"), .action = HA_APPEND_IF_EXISTS_OR_ADD },
        { .name = STR("x-new"), .action = HA_OVERWRITE_IF_EXISTS_OR_ADD },
        { .name = STR("x-new"), .action = HA_ADD_IF_ABSENT },    // nobody had it before
        { .name = STR("x-new"), .action = HA_OVERWRITE_IF_EXISTS },
        { .name = STR("x-is"), .action = HA_ADD_IF_ABSENT },
        { .name = STR("x-is"), .action = HA_APPEND_IF_EXISTS_OR_ADD },
        { .name = STR("x-is"), .action = HA_OVERWRITE_IF_EXISTS },
        { .name = STR("x-empty"), .action = HA_APPEND_IF_EXISTS_OR_ADD },
        { .name = STR("x-kept"), .action = HA_APPEND_IF_EXISTS_OR_ADD, .keep_empty = true },
        { .name = STR("host"), .action = HA_APPEND_IF_EXISTS_OR_ADD },
        { .name = STR(":path"), .action = HA_OVERWRITE_IF_EXISTS_OR_ADD },
    };
    struct str values[] = { STR("added"), STR("set"), STR("absent"), STR("exists"), STR("no"), STR("more"), STR("is"), STR(""), STR(""), STR("new"), STR("/new") };
    header_adds_take(v, values, array_len(v), &h, &req);
    assert_string_equal(text(&h, &a), "x-is=is x-new=set x-new=added x-new=absent x-is=more x-kept= ");
    assert_true(str_is(req.host, "new") && str_is(req.path, "/new"));
    arena_fini(&a);
}

static void removals(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct headers h;
    headers_init(&h, &a);
    headers_add(&h, STR("x-a"), STR("1"));
    headers_add(&h, STR("x-b"), STR("2"));
    struct str names[] = { STR("X-A"), STR("host"), STR("x-none") };
    const struct header_ops ops = { .remove = names, .remove_count = 3 };
    header_ops_remove(&ops, &h);
    assert_string_equal(text(&h, &a), "x-b=2 ");
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(adds), cmocka_unit_test(removals) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// `remoractl analyze` over tests/golden/analyze. `REMORA_GOLDEN_WRITE=1 make unit T=cli` writes expected.txt anew; tests/integration/test_control.py
// compares its codes with what istioctl said about the same files.
#include "tests/unit/cli/support.h"

#include "lib/base/file.h"

static void the_same_as_last_time(void **state)
{
    (void)state;
    static const char *const files[] = { "conflicts", "matches", "references", "rules" };
    struct arena a = { 0 };
    struct str want, got = { 0 };
    struct err err = { 0 };
    for (size_t i = 0; i < array_len(files); i++) { // each is a world of its own
        struct result r = run_words(&a, arena_printf(&a, "analyze tests/golden/analyze/%s.yaml", files[i]).p, false);
        assert_int_equal(r.code, strcmp(files[i], "matches") ? 79 : 0);
        got = arena_printf(&a, "%.*s%.*s", STR_FMT(got), STR_FMT(r.out));
    }
    if (getenv("REMORA_GOLDEN_WRITE")) {
        assert_int_equal(file_write_atomic("tests/golden/analyze/expected.txt", got, 0644, &err), 0);
    }
    assert_int_equal(file_read("tests/golden/analyze/expected.txt", 1 << 20, &a, &want, &err), 0);
    assert_true(want.n > 1000);
    if (!str_eq(want, got)) {
        fail_msg("now:\n%s", got.p);
    }
    arena_fini(&a);
}

static void formats_and_exit_codes(void **state)
{
    (void)state;
    static const struct {
        const char *words, *out, *notes;
        int code;
    } cases[] = {
        { "analyze examples/bookinfo", "No problem found in 4 files.\n", "", 0 },
        { "analyze tests/golden/control/config", "\n", "", 79 },
        { "analyze -o json tests/golden/analyze/matches.yaml", "\"code\": \"IST0130\"", "", 0 },
        { "analyze -o yaml tests/golden/analyze/matches.yaml", "- code: IST0130", "", 0 },
        { "analyze tests/golden/analyze/matches.yaml", "[IST0131]", "", 0 }, // no error among them
        { "analyze --failure-threshold warning tests/golden/analyze/matches.yaml", "[IST0131]", "", 79 },
        { "analyze --failure-threshold none tests/golden/analyze/matches.yaml", "", "Info, Warning or Error", 1 },
        { "analyze", "", "FILE or FOLDER is wanted", 1 },
        { "analyze /nonexistent", "", "/nonexistent", 1 },
        { "analyze Makefile", "", "error: Makefile: line", 65 },
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        struct arena a = { 0 };
        struct result r = run_words(&a, cases[i].words, false);
        if (r.code != cases[i].code || !strstr(r.out.p ? r.out.p : "", cases[i].out) || !strstr(r.notes.p ? r.notes.p : "", cases[i].notes)) {
            fail_msg("%s: %d\n%s\n%s", cases[i].words, r.code, r.out.p, r.notes.p);
        }
        arena_fini(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(the_same_as_last_time), cmocka_unit_test(formats_and_exit_codes) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

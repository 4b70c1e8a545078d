// SPDX-License-Identifier: Apache-2.0
// Command lines: what is understood, and what is said about the rest.
#include "tests/unit/cli/support.h"

static struct arena a;

static int done(void **state)
{
    (void)state;
    arena_fini(&a);
    return 0;
}

static void expect(const char *words, int code, const char *in_notes)
{
    struct result r = run_words(&a, words, false);
    if (r.code != code || str_find_str(r.notes, str_c(in_notes)) < 0) {
        fail_msg("remoractl %s: status %d, said \"%s\"; wanted %d and \"%s\"", words, r.code, r.notes.p, code, in_notes);
    }
}

static void test_usage(void **state)
{
    (void)state;
    expect("", CLI_USAGE, "usage: remoractl");
    expect("pc", CLI_USAGE, "cluster");
    expect("nonsense", CLI_USAGE, "no command nonsense");
    expect("pc nonsense", CLI_USAGE, "no command nonsense");
    expect("help nonsense", CLI_USAGE, "no such command");
    expect("pc c --nonsense", CLI_USAGE, "--nonsense: there is no such option");
    expect("pc c -Z", CLI_USAGE, "-Z: there is no such option");
    expect("pc c -", CLI_USAGE, "no such option");
    expect("pc c --status HEALTHY", CLI_USAGE, "remoractl proxy-config cluster does not take --status");
    expect("ps --fqdn x", CLI_USAGE, "remoractl proxy-status does not take --fqdn");
    expect("pc c -f", CLI_USAGE, "-f needs a value: FILE");
    expect("pc c --file=", CLI_USAGE, "the name is empty");
    expect("pc c --port 70000", CLI_USAGE, "from 1 to 65535");
    expect("pc c --port x", CLI_USAGE, "--port x");
    expect("pc c -o xml", CLI_USAGE, "--output xml: table, json or yaml");
    expect("pc l --verbose=maybe", CLI_USAGE, "true or false");
    expect("pc c --color=red", CLI_USAGE, "auto, always or never");
    expect("pc c -f x -a :15000", CLI_USAGE, "only one can be the source");
    expect("pc c reviews.default", CLI_USAGE, "kubectl port-forward reviews.default 15000");
}

static void test_sources(void **state)
{
    (void)state;
    expect("pc c -f tests/golden/cli/nonexistent.json", CLI_FAILED, "nonexistent.json");
    expect("pc c -f tests/golden/cli/make-dump", CLI_FAILED, "make-dump");
    expect("pc c -f tests/golden/cli/clusters.json", CLI_FAILED, "not a config dump");
    expect("pc secret -f tests/golden/cli/clusters.json", CLI_FAILED, "not a config dump");
    expect("pc c -f tests/golden/cli/trust-domains.json", CLI_FAILED, "has no ClustersConfigDump");
    expect("pc eds -f tests/golden/cli/trust-domains.json", CLI_FAILED, "include_eds");
    expect("pc b -f tests/golden/cli/trust-domains.json", CLI_FAILED, "has no BootstrapConfigDump");
    expect("pc endpoint -f tests/golden/cli/dump.json", CLI_FAILED, "this is a config dump");
    expect("pc endpoint -f tests/golden/cli/syncz.json", CLI_FAILED, "cluster_statuses");
    expect("ps -f tests/golden/cli/dump.json", CLI_FAILED, "has no \"proxies\"");
    expect("pc c --address 0.0.0.0", CLI_FAILED, "--listen-address");
    expect("pc c --address 127.0.0.1:0", CLI_FAILED, "HOST:PORT");
    expect("pc c --address unix:///nonexistent/admin.sock", CLI_FAILED, "is the proxy running");
    expect("ps --control unix:///nonexistent/control.sock", CLI_FAILED, "is remora-control running");
    expect("pc log --level loud", CLI_FAILED, "levels are trace");
    expect("pc log --level a/b:debug", CLI_FAILED, "no name of a component");
    expect("pc log --level debug -r", CLI_FAILED, "only one can be done");
}

static void test_help(void **state)
{
    (void)state;
    assert_true(str_find_str(run_words(&a, "help", false).out, STR("proxy-config (pc) knows:")) > 0);
    assert_true(str_find_str(run_words(&a, "pc c --help", false).out, STR("--fqdn TEXT")) > 0);
    assert_true(str_find_str(run_words(&a, "pc c -h", false).out, STR("--status")) < 0);
    assert_true(str_find_str(run_words(&a, "help pc endpoint", false).out, STR("--status STATUS")) > 0);
    assert_true(str_find_str(run_words(&a, "pc help", false).out, STR("bootstrap")) > 0);
    assert_string_equal(run_words(&a, "version", false).out.p, "remoractl " REMORA_VERSION "\n");
    assert_string_equal(run_words(&a, "--version", false).out.p, "remoractl " REMORA_VERSION "\n");
    assert_string_equal(run_words(&a, "version -o yaml", false).out.p, "clientVersion: \"" REMORA_VERSION "\"\n");
}

static void test_forms_of_options(void **state)
{
    static const char *const same[] = {
        "pc cluster -f tests/golden/cli/dump.json --port 443 --fqdn api",
        "proxy-config clusters --file tests/golden/cli/dump.json --fqdn=api --port=443",
        "pc c -ftests/golden/cli/dump.json --port 443 --fqdn api -o table",
        "pc c -f=tests/golden/cli/dump.json --port 443 --fqdn api -oshort",
    };
    (void)state;
    struct str want = run_words(&a, same[0], false).out;
    assert_true(want.n > 0 && str_find_str(want, STR("api.example.com")) > 0);
    for (size_t i = 1; i < array_len(same); i++) {
        assert_true(str_eq(run_words(&a, same[i], false).out, want));
    }
}

static void test_color(void **state)
{
    const char *words = "pc ep -f tests/golden/cli/clusters.json --port 7000";
    (void)state;
    assert_true(str_find(run_words(&a, words, true).out, '\033') > 0);
    assert_true(str_find(run_words(&a, words, false).out, '\033') < 0);
    assert_true(str_find(run_words(&a, arena_printf(&a, "%s --color always", words).p, false).out, '\033') > 0);
    assert_true(str_find(run_words(&a, arena_printf(&a, "%s --color=never", words).p, true).out, '\033') < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_usage, done), cmocka_unit_test_teardown(test_sources, done),
        cmocka_unit_test_teardown(test_help, done),  cmocka_unit_test_teardown(test_forms_of_options, done),
        cmocka_unit_test_teardown(test_color, done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

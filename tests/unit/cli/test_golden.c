// SPDX-License-Identifier: Apache-2.0
// Tables of whole dumps against tests/golden/cli. `REMORA_GOLDEN_WRITE=1 make unit T=cli` writes them anew; those marked istioctl
// were compared with what istioctl prints for the same file and were the same, byte for byte.
#include "tests/unit/cli/support.h"

#include "lib/base/file.h"

static const struct {
    const char *golden, *words;
} cases[] = {
    // istioctl
    { "cluster.txt", "pc cluster -f tests/golden/cli/dump.json" },
    { "cluster-fqdn-port.txt", "pc c -f tests/golden/cli/dump.json --fqdn reviews --port 9080" },
    { "listener.txt", "pc listener -f tests/golden/cli/dump.json" },
    { "listener-short.txt", "pc l -f tests/golden/cli/dump.json --verbose=false" },
    { "listener-type.txt", "pc l -f tests/golden/cli/dump.json --type http+tcp --listen-address 0.0.0.0" },
    { "route.txt", "pc route -f tests/golden/cli/dump.json" },
    { "route-short.txt", "pc r --file=tests/golden/cli/dump.json --verbose=false" },
    { "route-name.txt", "pc r --file=tests/golden/cli/dump.json --name 7" },
    { "endpoint.txt", "pc endpoint -f tests/golden/cli/clusters.json" },
    { "endpoint-status.txt", "pc ep -f tests/golden/cli/clusters.json --status unhealthy --port 7000" },
    { "eds.txt", "pc eds -f tests/golden/cli/dump.json" },
    { "secret.txt", "pc secret -f tests/golden/cli/dump.json" },
    { "trust-domains.txt", "pc s -f tests/golden/cli/trust-domains.json" },
    { "bootstrap.txt", "pc bootstrap -o short -f tests/golden/cli/dump.json" },
    { "authz.txt", "x authz check -f tests/golden/cli/authz.json" },
    { "all.txt", "pc all --with-headers -f tests/golden/cli/dump.json" },
    // ours
    { "cluster.yaml", "pc c -o yaml -f tests/golden/cli/dump.json --fqdn reviews --subset v1" },
    { "route.json", "pc r -o json -f tests/golden/cli/dump.json --name 7" },
    { "authz.yaml", "authz check -o yaml -f tests/golden/cli/authz.json" },
    { "ps.txt", "ps -f tests/golden/cli/syncz.json" },
};

static void check(struct arena *a, const char *golden, const char *words)
{
    char path[128];
    struct str want;
    struct err err;
    struct result r = run_words(a, words, false);
    assert_int_equal(r.code, CLI_OK);
    snprintf(path, sizeof(path), "tests/golden/cli/%s", golden);
    if (getenv("REMORA_GOLDEN_WRITE")) {
        assert_int_equal(file_write_atomic(path, r.out, 0644, &err), 0);
    }
    assert_int_equal(file_read(path, 1 << 20, a, &want, &err), 0);
    assert_true(want.n > 0);
    if (!str_eq(want, r.out)) {
        print_error("%s differs; remoractl %s says:\n%s", path, words, r.out.p);
    }
    assert_true(str_eq(want, r.out));
}

static void test_golden(void **state)
{
    (void)state;
    for (size_t i = 0; i < array_len(cases); i++) {
        struct arena a = { 0 };
        check(&a, cases[i].golden, cases[i].words);
        arena_fini(&a);
    }
}

// What istioctl's own -o json and -o yaml print is read as well: lists, keys in lowerCamelCase.
static void test_list_of_resources(void **state)
{
    struct arena a = { 0 };
    (void)state;
    struct result r = run_words(&a, "pc c -f tests/golden/cli/istioctl-clusters.json", false);
    assert_int_equal(r.code, CLI_OK);
    assert_string_equal(r.out.p, "SERVICE FQDN            PORT     SUBSET     DIRECTION     TYPE             DESTINATION RULE\n"
                                 "InboundPassthrough      -        -          -             ORIGINAL_DST     \n"
                                 "reviews.default.svc     9080     v1         outbound      EDS              reviews.default\n");
    arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_list_of_resources),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

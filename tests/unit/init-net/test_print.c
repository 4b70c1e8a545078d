// SPDX-License-Identifier: Apache-2.0
// Dry-run texts against tests/golden/init. `REMORA_GOLDEN_WRITE=1 make unit T=init-net` writes them anew.
#include "tests/unit/init-net/support.h"

#include "init-net/plan.h"
#include "init-net/print.h"

static struct arena a;

static const struct {
    const char *name, *line;
    bool v4, v6;
    const char *env[4];
} cases[] = {
    { "base", "remora-init " BASE_FLAGS, true, false, { NULL } },
    { "istio", "remora-init istio-iptables " BASE_FLAGS, true, false, { NULL } },
    { "dual-stack", "remora-init " BASE_FLAGS " --dual-stack", true, true, { NULL } },
    { "tproxy", "remora-init " BASE_FLAGS " -m TPROXY --dual-stack --drop-invalid", true, true, { NULL } },
    { "tproxy-no-inbound", "remora-init -m TPROXY -i *", true, false, { NULL } },
    { "dns", "remora-init " BASE_FLAGS " --redirect-dns", true, false, { NULL } },
    { "dns-all", "remora-init " BASE_FLAGS " --redirect-dns --capture-all-dns --dual-stack", true, true, { NULL } },
    { "lists",
      "remora-init -u 1337,1338 -g 1337,7 -b 80,443,8000-8100 -i 10.0.0.0/9,10.128.0.0/9,fd00::/8 -x 10.1.0.0/16,10.2.3.4/32 "
      "-q 5432 -o 22,2000:2010 -c net+,eth1 -k vm0 --dual-stack",
      true, true, { "ISTIO_OUTBOUND_OWNER_GROUPS=2000,2001", NULL } },
    { "istio-many", "istio-iptables -u 1,2 -g 3 -i 127.1.2.3/32,10.0.0.0/8 -b * --redirect-dns", true, false,
      { "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE=888,889", NULL } },
    { "ipv6-drop", "remora-init " BASE_FLAGS " --ipv6=drop -c net1", true, true, { NULL } },
    { "nothing", "remora-init", true, false, { NULL } },
    { "own", "remora-init " BASE_FLAGS " --proxy-mark 0x539/0xfff --hairpin=off --established=syn-only "
             "--nat-priority-offset=5", true, false, { NULL } },
};

static void compare(const char *name, const char *ext, struct buf *b)
{
    char path[256];
    snprintf(path, sizeof(path), "tests/golden/init/%s.%s", name, ext);
    struct str got = buf_pullup(b, buf_len(b));
    if (getenv("REMORA_GOLDEN_WRITE")) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(got.p, 1, got.n, f), got.n);
        fclose(f);
    } else {
        static char want[1 << 18];
        FILE *f = fopen(path, "r");
        assert_non_null(f);
        size_t n = fread(want, 1, sizeof(want) - 1, f);
        fclose(f);
        want[n] = '\0';
        char *text = arena_str(&a, got).p ? arena_strdup(&a, arena_str(&a, got).p) : NULL;
        assert_string_equal(text, want);
    }
    buf_clear(b);
}

static void texts_are_as_before(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct facts f = test_facts();
        struct options o;
        struct err err;
        struct plan p;
        struct buf b = { 0 };
        f.have_v4 = cases[i].v4;
        f.have_v6 = cases[i].v6;
        f.resolv = STR("nameserver 10.96.0.10\nnameserver 10.96.0.11\n");
        test_env = cases[i].env;
        int r = test_parse_with(cases[i].line, &f, &a, &o, &err);
        if (r) {
            fail_msg("%s: %s", cases[i].name, err.msg);
        }
        plan_build(&o, &a, &p);
        print_nft(&p, plan_hash(&p), &b);
        print_routes(&p, &b);
        compare(cases[i].name, "nft", &b);
        print_iptables(&p, &b);
        compare(cases[i].name, "iptables", &b);
        if (i == 0) {
            print_json(&p, &b);
            compare(cases[i].name, "json", &b);
        }
    }
    test_env = NULL;
}

static void hash_tells_configurations_apart(void **state)
{
    (void)state;
    static const char *const lines[] = { "r " BASE_FLAGS, "r " BASE_FLAGS " -z 15007", "r " BASE_FLAGS " -c net1",
                                         "r " BASE_FLAGS " --ipv6=on", "r " BASE_FLAGS " -m TPROXY",
                                         "r " BASE_FLAGS " -m TPROXY -r 134", "r " BASE_FLAGS " --nat-priority-offset=0" };
    uint64_t seen[16];
    size_t n = sizeof(lines) / sizeof(lines[0]);
    for (size_t i = 0; i < n; i++) {
        struct options o;
        struct err err;
        struct plan p;
        assert_int_equal(test_parse(lines[i], &a, &o, &err), 0);
        plan_build(&o, &a, &p);
        seen[i] = plan_hash(&p);
        assert_true(seen[i] == plan_hash(&p));
        for (size_t k = 0; k < i; k++) {
            assert_true(seen[i] != seen[k]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_as_before),
        cmocka_unit_test(hash_tells_configurations_apart),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    arena_fini(&a);
    return r;
}

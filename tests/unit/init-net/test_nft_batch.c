// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/init-net/support.h"

#include <errno.h>

#include "init-net/nft_batch.h"

static void a_refused_rule_is_named_with_its_flag(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct options o;
    struct plan p;
    struct err err;
    assert_int_equal(test_parse("r " BASE_FLAGS, &a, &o, &err), 0);
    plan_build(&o, &a, &p);
    const struct rule *r = NULL;
    for (size_t i = 0; i < p.n; i++) {
        if (strcmp(p.rules[i].origin, "-d") == 0) {
            r = &p.rules[i];
        }
    }
    assert_non_null(r);
    assert_int_equal(nft_refused(&p, r, "set", -EOPNOTSUPP, "no sets today", &err), -EOPNOTSUPP);
    assert_non_null(strstr(err.msg, "the kernel refused the set of rule 2 in chain inbound (-d: inbound ports left alone)"));
    assert_non_null(strstr(err.msg, "sets (nft_set_hash, nft_set_rbtree)"));
    assert_non_null(strstr(err.msg, "no sets today"));
    assert_non_null(strstr(err.msg, "tcp dport { 15020-15021, 15090 }"));
    arena_fini(&a);
}

// Whichever rule it is: number, chain, flag, meaning, and what the kernel would have to have.
static void every_rule_can_be_named(void **state)
{
    (void)state;
    static const char *const lines[] = { "r " BASE_FLAGS " -o 22 -x 10.0.0.0/8 -c net1 -k vm0 --redirect-dns --ipv6=on --proxy-mark 7",
                                         "r " BASE_FLAGS " -m TPROXY --drop-invalid --ipv6=drop", "r -i 10.0.0.0/8 -q 80,443 -b 1,2" };
    static const struct {
        enum action_kind action;
        const char *word;
    } needs[] = { { ACTION_REDIRECT, "CONFIG_NFT_REDIR" }, { ACTION_TPROXY, "CONFIG_NFT_TPROXY" },
                  { ACTION_ZONE, "CONFIG_NF_CONNTRACK_ZONES" }, { ACTION_CT_SAVE, "CONFIG_NF_CONNTRACK_MARK" } };
    struct arena a = { 0 };
    size_t met = 0;
    for (size_t l = 0; l < sizeof(lines) / sizeof(lines[0]); l++) {
        struct options o;
        struct plan p;
        struct err err;
        assert_int_equal(test_parse(lines[l], &a, &o, &err), 0);
        plan_build(&o, &a, &p);
        for (size_t i = 0; i < p.n; i++) {
            const struct rule *r = &p.rules[i];
            char where[64];
            snprintf(where, sizeof(where), "rule %zu in chain %s", plan_rule_number(&p, r), plan_chains[r->chain].name);
            assert_int_equal(nft_refused(&p, r, "rule", -ENOENT, "", &err), -ENOENT);
            assert_non_null(strstr(err.msg, where));
            assert_non_null(strstr(err.msg, r->comment));
            assert_non_null(strstr(err.msg, r->origin));
            assert_non_null(strstr(err.msg, "the kernel lacks"));
            for (size_t k = 0; k < sizeof(needs) / sizeof(needs[0]); k++) {
                if (needs[k].action == r->action) {
                    assert_non_null(strstr(err.msg, needs[k].word));
                    met |= 1u << k;
                }
            }
        }
    }
    assert_int_equal(met, 15);
    arena_fini(&a);
}

static void only_what_is_missing_leads_to_another_backend(void **state)
{
    (void)state;
    assert_true(nft_is_lacking(-ENOENT) && nft_is_lacking(-EOPNOTSUPP) && nft_is_lacking(-EAFNOSUPPORT) &&
                nft_is_lacking(-EPROTONOSUPPORT));
    assert_false(nft_is_lacking(0) || nft_is_lacking(-EPERM) || nft_is_lacking(-EINVAL) || nft_is_lacking(-EBUSY) ||
                 nft_is_lacking(-EEXIST));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refused_rule_is_named_with_its_flag),
        cmocka_unit_test(every_rule_can_be_named),
        cmocka_unit_test(only_what_is_missing_leads_to_another_backend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

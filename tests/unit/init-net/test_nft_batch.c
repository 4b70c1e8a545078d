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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refused_rule_is_named_with_its_flag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

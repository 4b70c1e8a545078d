// SPDX-License-Identifier: Apache-2.0
// What iptables-save says, read as remora-init reads it: ours and others', the script that would remove them, and the rules
// back in the model (explain --live), through which packets then walk.
// fuzz-modules: init-net lib/base
#include "init-net/eval.h"
#include "init-net/ipt_text.h"
#include "init-net/live.h"
#include "lib/base/check.h"

static void check_script(const struct ipt_saved *s, struct arena *a)
{
    static const struct ipt_content nothing;
    struct ipt_script script = { 0 };
    for (int t = 0; t < IPT_TABLES; t++) {
        struct ipt_content all = ipt_content_join(&s->ours[t], &s->foreign[t], a);
        ipt_script_add(&script, (enum ipt_table)t, &all, &nothing);
        ipt_script_add(&script, (enum ipt_table)t, &nothing, &all);
    }
    struct str text = buf_pullup(&script.text, buf_len(&script.text));
    size_t lines = 0;
    for (size_t i = 0; i < text.n; i++) {
        lines += text.p[i] == '\n';
    }
    CHECK(lines == script.n); // each line knows its rule
    ipt_script_fini(&script);
}

static void check_rules(struct str text, struct arena *a)
{
    static const struct options o;
    struct err err = { 0 };
    for (int v6 = 0; v6 < 2; v6++) {
        struct plan p = { .o = &o, .a = a };
        if (live_read_ipt(text, v6 ? AF_INET6 : AF_INET, &p, &err)) {
            CHECK(err.msg[0]);
            continue;
        }
        // Chains that call each other in a circle are refused by the kernel; nobody shows them to us.
        for (size_t i = 0; i < p.n; i++) {
            if (p.rules[i].action == ACTION_JUMP && p.rules[i].target <= p.rules[i].chain) {
                return;
            }
        }
        for (unsigned i = 0; i < 8; i++) {
            struct packet k = { .dir = i & 1 ? DIR_IN : DIR_OUT,
                                .family = v6 ? AF_INET6 : AF_INET,
                                .proto = i & 2 ? IPPROTO_UDP : IPPROTO_TCP,
                                .dport = i & 4 ? 53 : 15008,
                                .iif = "lo",
                                .oif = "lo",
                                .has_owner = !(i & 1),
                                .uid = 1337 };
            eval_packet(&p, &k, NULL, NULL);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct ipt_saved s;
    if (size > 8192) {
        return 0;
    }
    arena_init(&a, 0, 0);
    struct str text = arena_str(&a, str_n(data, size));
    ipt_from_save(text, &a, &s);
    check_script(&s, &a);
    check_rules(text, &a);
    arena_fini(&a);
    return 0;
}

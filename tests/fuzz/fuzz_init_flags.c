// SPDX-License-Identifier: Apache-2.0
// remora-init's command line and environment, through to all that is made of them: plan, texts, kernel messages, the
// evaluator. The first byte says what the place is like; then lines: "$NAME=value" is a variable, others are arguments.
// fuzz-modules: init-net lib/base
#include "init-net/eval.h"
#include "init-net/nft_expr.h"
#include "init-net/print.h"
#include "lib/base/check.h"

enum { WORDS_MAX = 64, VARIABLES_MAX = 32, INPUT_MAX = 4096 };

static const char *variables[VARIABLES_MAX];
static size_t n_variables;

static const char *fuzz_env(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < n_variables; i++) {
        if (strncmp(variables[i], name, n) == 0 && variables[i][n] == '=') {
            return variables[i] + n + 1;
        }
    }
    return NULL;
}

static void check_fates(const struct plan *p)
{
    static const char *const interfaces[] = { "lo", "eth0", "net1" };
    static const struct str targets[] = { STR_INIT("10.96.5.5:80"), STR_INIT("127.0.0.1:53"), STR_INIT("[fd00::5]:15008") };
    for (unsigned i = 0; i < 72; i++) {
        struct packet k = { .dir = i & 1 ? DIR_IN : DIR_OUT, .proto = i & 2 ? IPPROTO_UDP : IPPROTO_TCP,
                            .iif = interfaces[i / 4 % 3], .oif = interfaces[i / 4 % 3], .has_owner = !(i & 1),
                            .uid = i < 36 ? 1337 : 1000, .gid = i < 36 ? 1337 : 1000 };
        struct err err;
        CHECK(eval_address(targets[i / 12 % 3], &k.family, k.dst, &k.dport, &err) == 0);
        struct fate f = eval_packet(p, &k, NULL, NULL);
        CHECK(f.kind != FATE_REDIRECT || f.port == p->o->outbound_port || f.port == p->o->inbound_port || f.port == DNS_PORT);
        CHECK(f.kind != FATE_TPROXY || f.port == p->o->inbound_port);
        CHECK(f.kind == FATE_PASS || f.rule);
    }
}

static void check_texts(const struct plan *p)
{
    static void (*const printers[])(const struct plan *, struct buf *) = { print_iptables, print_json, print_routes };
    struct buf out = { 0 };
    print_nft(p, plan_hash(p), &out);
    struct str text = buf_pullup(&out, buf_len(&out));
    ptrdiff_t depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < text.n; i++) {
        quoted = quoted != (text.p[i] == '"');
        depth += quoted ? 0 : (text.p[i] == '{') - (text.p[i] == '}');
        CHECK(depth >= 0 && !(quoted && text.p[i] == '\n'));
    }
    CHECK(depth == 0 && !quoted);
    buf_clear(&out);
    for (size_t i = 0; i < array_len(printers); i++) {
        printers[i](p, &out);
        buf_clear(&out);
    }
}

// What the kernel would get, in one inet table or in an ip and an ip6 one.
static void build_messages(struct plan *p, enum plan_layout layout)
{
    uint8_t families[2];
    uint32_t next_set_id = 0;
    plan_set_layout(p, layout);
    size_t n = plan_tables(p, families);
    for (size_t k = 0; k < n; k++) {
        for (size_t i = 0; i < p->n; i++) {
            struct nft_sets sets;
            if (plan_chain_in(p, families[k], p->rules[i].chain) && plan_rule_is_for(&p->rules[i], families[k])) {
                nftnl_rule_free(nft_rule_build(families[k], &p->rules[i], &next_set_id, &sets));
                nft_sets_free(&sets);
            }
        }
    }
}

static void check_plan(const struct options *o, struct arena *a)
{
    struct plan p, again;
    plan_build(o, a, &p);
    plan_build(o, a, &again);
    CHECK(plan_hash(&p) == plan_hash(&again));
    build_messages(&p, PLAN_INET);
    check_texts(&p);
    check_fates(&p);
    build_messages(&p, PLAN_IP);
    check_texts(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct options o;
    struct err err = { 0 };
    char *argv[WORDS_MAX + 1] = { 0 };
    int argc = 0;
    if (size == 0 || size > INPUT_MAX) {
        return 0;
    }
    arena_init(&a, 16384, 0);
    struct facts f = {
        .get_env = fuzz_env,
        .passwd = STR("root:x:0:0:root:/root:/bin/sh\nistio-proxy:x:1338:1338::/:\n"),
        .group = STR("root:x:0:\nstaff:x:50:\n"),
        .resolv = STR("nameserver 10.96.0.10\nnameserver fd00:96::10\n"),
        .have_v4 = data[0] & 1, .have_v6 = data[0] & 2, .v6_stack = data[0] & 4, .v6_lo_off = data[0] & 8,
        .resolv_readable = data[0] & 16,
    };
    n_variables = 0;
    argv[argc++] = data[0] & 32 ? "istio-iptables" : "remora-init";
    struct str rest = str_n(data + 1, size - 1);
    while (rest.n) {
        char *word = (char *)arena_str(&a, str_split(&rest, '\n')).p;
        if (word[0] == '$' && n_variables < VARIABLES_MAX) {
            variables[n_variables++] = word + 1;
        } else if (argc < WORDS_MAX) {
            argv[argc++] = word;
        }
    }
    int code = options_parse(argc, argv, &f, &a, &o, &err);
    CHECK(code == 0 || ((code == EXIT_APPLY || code == EXIT_FLAGS) && err.msg[0]));
    if (code == 0 && o.command != CMD_HELP && o.command != CMD_VERSION) {
        check_plan(&o, &a);
    }
    arena_fini(&a);
    return 0;
}

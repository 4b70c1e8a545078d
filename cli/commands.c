// SPDX-License-Identifier: Apache-2.0
#include "cli/commands.h"

#include <errno.h>
#include <stdio.h>

#include "cli/options.h"
#include "cli/output.h"

#define COMMON (OPT(OUTPUT) | OPT(HELP))
#define TABLE (COMMON | OPT(NO_HEADERS) | OPT(COLOR))
#define SAVED (OPT(ADDRESS) | OPT(TIMEOUT) | OPT(FILE))
#define CLUSTERS (OPT(FQDN) | OPT(PORT) | OPT(SUBSET) | OPT(DIRECTION))
#define LISTENERS (OPT(LISTEN_ADDRESS) | OPT(PORT) | OPT(TYPE) | OPT(VERBOSE))
#define ROUTES (OPT(NAME) | OPT(VERBOSE))
#define ENDPOINTS (OPT(ENDPOINT_ADDRESS) | OPT(PORT) | OPT(STATUS) | OPT(CLUSTER))
#define ALL (CLUSTERS | LISTENERS | ROUTES | ENDPOINTS | OPT(WITH_HEADERS))
#define STATUS (TABLE | OPT(CONTROL) | OPT(TIMEOUT) | OPT(FILE))
#define ROLLOUT (OPT(HELP) | OPT(ADDRESS) | OPT(TIMEOUT) | OPT(SUBSET) | OPT(NAME) | OPT(ROUTE) | OPT(STEPS) | OPT(INTERVAL) | OPT(MIN_REQUESTS) | OPT(MAX_FAILED))
#define EXPLAIN (TABLE | SAVED | OPT(HEADER) | OPT(DST) | OPT(SOURCE) | OPT(LISTENER))
#define LOG (OPT(HELP) | OPT(ADDRESS) | OPT(TIMEOUT) | OPT(LEVEL) | OPT(RESET))

static const struct command pc_commands[] = {
    { "cluster", { "clusters", "c" }, "upstream clusters", TABLE | SAVED | CLUSTERS, cmd_pc_cluster, NULL, NULL },
    { "listener", { "listeners", "l" }, "listeners and where their filter chains lead", TABLE | SAVED | LISTENERS, cmd_pc_listener, NULL, NULL },
    { "route", { "routes", "r" }, "HTTP routes", TABLE | SAVED | ROUTES, cmd_pc_route, NULL, NULL },
    { "endpoint", { "endpoints", "ep" }, "endpoints in use, with their health", TABLE | SAVED | ENDPOINTS, cmd_pc_endpoint, NULL, NULL },
    { "eds", { NULL, NULL }, "endpoints as configured", TABLE | SAVED | ENDPOINTS, cmd_pc_eds, NULL, NULL },
    { "secret", { "secrets", "s" }, "certificates in use", TABLE | SAVED, cmd_pc_secret, NULL, NULL },
    { "bootstrap", { "b", NULL }, "what the proxy was started with, as JSON", COMMON | SAVED, cmd_pc_bootstrap, NULL, NULL },
    { "all", { "a", NULL }, "all of these in one", TABLE | SAVED | ALL, cmd_pc_all, NULL, NULL },
    { "log", { "o", NULL }, "log levels: shows them, or sets them", LOG, cmd_pc_log, NULL, NULL },
    { 0 },
};

static const struct command authz_commands[] = {
    { "check", { NULL, NULL }, "AuthorizationPolicies that a proxy enforces", TABLE | SAVED, cmd_authz_check, NULL, NULL },
    { 0 },
};

const struct command cli_commands[] = {
    { "proxy-config", { "pc", NULL }, "what a proxy is configured with", 0, NULL, pc_commands, NULL },
    { "proxy-status", { "ps", NULL }, "proxies connected to remora-control, and which configuration they took", STATUS, cmd_ps, NULL, NULL },
    { "analyze", { NULL, NULL }, "mistakes in Istio YAML, with the codes of istioctl analyze", COMMON | OPT(THRESHOLD), cmd_analyze, NULL, "FILE|FOLDER…" },
    { "authz", { NULL, NULL }, "AuthorizationPolicies that a proxy enforces (x authz, as in istioctl, is the same)", 0, NULL, authz_commands, NULL },
    { "explain", { NULL, NULL }, "which way a request would take through a proxy, and why not another", EXPLAIN, cmd_explain, NULL, "[METHOD] URL" },
    { "rollout", { NULL, NULL }, "moves traffic to a subset step by step, and back when it fails", ROLLOUT, cmd_rollout, NULL, "FILE" },
    { "dump", { NULL, NULL }, "all that a proxy tells, in one file for -f", COMMON | OPT(ADDRESS) | OPT(TIMEOUT), cmd_dump, NULL, NULL },
    { "version", { NULL, NULL }, "version of this program", COMMON, cmd_version, NULL, NULL },
    { 0 },
};

static const struct command *find(const struct command *list, const char *name)
{
    for (const struct command *k = list; k->name; k++) {
        if (strcmp(name, k->name) == 0 || (k->aliases[0] && strcmp(name, k->aliases[0]) == 0) ||
            (k->aliases[1] && strcmp(name, k->aliases[1]) == 0)) {
            return k;
        }
    }
    return NULL;
}

static void help_list(struct buf *out, const struct command *list)
{
    for (const struct command *k = list; k->name; k++) {
        char alias[32];
        snprintf(alias, sizeof(alias), "%s%s%s", k->aliases[0] ? k->aliases[0] : "", k->aliases[1] ? ", " : "",
                 k->aliases[1] ? k->aliases[1] : "");
        buf_printf(out, "  %-14s %-14s %s\n", k->name, alias, k->summary);
    }
}

static void help_all(struct buf *out)
{
    buf_printf(out, "remoractl looks into remora (and Envoy) proxies and remora-control.\n\n"
                    "usage: remoractl COMMAND [OPTION…]\n\n");
    help_list(out, cli_commands);
    buf_printf(out, "  %-14s %-14s %s\n\nproxy-config (pc) knows:\n", "help", "", "this page, or the page of a COMMAND");
    help_list(out, pc_commands);
    buf_printf(out, "\nexamples:\n"
                    "  remoractl pc cluster --fqdn reviews          of the proxy at 127.0.0.1:15000\n"
                    "  remoractl pc endpoint --address :15000 -o json\n"
                    "  curl -s ADMIN/config_dump | remoractl pc route -f -\n"
                    "  remoractl ps                                 of the control plane at 127.0.0.1:15014\n"
                    "\nexit status: 0 done, 1 failed, 2 wrong usage\n");
}

static void help_one(struct buf *out, const struct command *group, const struct command *k)
{
    buf_printf(out, "usage: remoractl %s%s%s %s%s%s\n\n%s\n\n", group ? group->name : "", group ? " " : "", k->name,
               k->sub ? "COMMAND [OPTION…]" : "[OPTION…]", k->words ? " " : "", k->words ? k->words : "", k->summary);
    if (k->sub) {
        help_list(out, k->sub);
    } else {
        options_help(k->options, out);
    }
}

static int usage(struct cli *c, const char *text)
{
    buf_printf(&c->notes, "error: %s\n", text);
    return CLI_USAGE;
}

// remoractl help [COMMAND [COMMAND]]
static int cmd_help(struct cli *c, int argc, char **argv)
{
    const struct command *group = NULL, *k = argc > 0 ? find(cli_commands, argv[0]) : NULL;
    if (k && k->sub && argc > 1) {
        group = k;
        k = find(group->sub, argv[1]);
    }
    if (argc == 0) {
        help_all(&c->out);
    } else if (k) {
        help_one(&c->out, group, k);
    } else {
        return usage(c, "there is no such command; remoractl help lists them");
    }
    return CLI_OK;
}

// What is no option: remoractl has no pods, so istioctl's POD argument gets a word on what to do instead.
static int stray(const char *word, const char *command, struct err *err)
{
    return err_set(err, -EINVAL,
                   "%s: %s takes no names. For a pod, first: kubectl port-forward %s 15000; then --address 127.0.0.1:15000 (the default)",
                   word, command, word);
}

static int parse(struct cli *c, const struct command *k, const char *full_name, int argc, char **argv, struct err *err)
{
    uint64_t given = 0;
    c->words = arena_array(c->arena, const char *, (size_t)argc + 1);
    for (int i = 0; i < argc;) {
        if (argv[i][0] != '-' || (k->words && !argv[i][1])) {
            if (!k->words) {
                return stray(argv[i], full_name, err);
            }
            if (c->word_count == CLI_WORDS_MAX) {
                return err_set(err, -EINVAL, "more than %d words", CLI_WORDS_MAX);
            }
            c->words[c->word_count++] = argv[i++];
            continue;
        }
        given |= options_bit(argv[i]);
        int r = options_take(&c->o, k->options, full_name, argc, argv, &i, err);
        if (r) {
            return r;
        }
    }
    return options_finish(&c->o, given, err);
}

static int run(struct cli *c, const struct command *group, const struct command *k, int argc, char **argv)
{
    struct err err = { 0 };
    char full_name[64];
    snprintf(full_name, sizeof(full_name), "remoractl %s%s%s", group ? group->name : "", group ? " " : "", k->name);
    if (parse(c, k, full_name, argc, argv, &err)) {
        return usage(c, err.msg);
    }
    if (c->o.help) {
        help_one(&c->out, group, k);
        return CLI_OK;
    }
    if (c->o.color.n && !str_is(c->o.color, "auto")) {
        c->color = str_is(c->o.color, "always");
    }
    if (k->run(c, &err)) {
        buf_printf(&c->notes, "error: %s\n", err.msg);
        return CLI_FAILED;
    }
    return c->code;
}

static bool is_help(const char *word)
{
    return strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

int cli_main(int argc, char **argv, struct cli *c)
{
    options_init(&c->o);
    if (argc < 2) {
        help_all(&c->notes);
        return CLI_USAGE;
    }
    if (argc > 2 && (!strcmp(argv[1], "x") || !strcmp(argv[1], "experimental")) && !strcmp(argv[2], "authz")) { // where istioctl has it
        argc--;
        argv++;
    }
    if (is_help(argv[1])) {
        return cmd_help(c, argc - 2, argv + 2);
    }
    const struct command *group = NULL, *k = find(cli_commands, strcmp(argv[1], "--version") == 0 ? "version" : argv[1]);
    int used = 2;
    if (k && k->sub) {
        group = k;
        if (argc < 3 || is_help(argv[2])) {
            help_one(argc < 3 ? &c->notes : &c->out, NULL, group);
            return argc < 3 ? CLI_USAGE : CLI_OK;
        }
        k = find(group->sub, argv[used++]);
    }
    if (!k) {
        char text[160];
        snprintf(text, sizeof(text), "there is no command %.100s; remoractl help lists them", argv[used - 1]);
        return usage(c, text);
    }
    return run(c, group, k, argc - used, argv + used);
}

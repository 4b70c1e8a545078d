// SPDX-License-Identifier: Apache-2.0
#include "cli/options.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>

#include "lib/base/check.h"

enum kind { KIND_TEXT, KIND_NUMBER, KIND_SWITCH, KIND_HEADER };

static const struct option_def {
    const char *name;
    char letter; // 0: none
    enum kind kind;
    size_t offset;
    uint32_t max;      // of numbers
    const char *value; // how help names it
    const char *help;
} defs[OPT_COUNT] = {
#define AT(member) offsetof(struct cli_options, member)
    [OPT_ADDRESS] = { "address", 'a', KIND_TEXT, AT(address), 0, "HOST:PORT",
                      "admin address of the proxy (127.0.0.1:15000; unix:///PATH too)" },
    [OPT_CONTROL] = { "control", 0, KIND_TEXT, AT(control), 0, "HOST:PORT", "monitoring address of remora-control (127.0.0.1:15014)" },
    [OPT_FILE] = { "file", 'f', KIND_TEXT, AT(file), 0, "FILE", "read a saved answer instead; - is standard input" },
    [OPT_OUTPUT] = { "output", 'o', KIND_TEXT, AT(output), 0, "FORMAT", "table (or short), json, yaml" },
    [OPT_COLOR] = { "color", 0, KIND_TEXT, AT(color), 0, "WHEN", "auto (on a terminal, unless NO_COLOR is set), always, never" },
    [OPT_TIMEOUT] = { "timeout", 0, KIND_NUMBER, AT(timeout_ms), 3600000, "MS", "longest wait for an answer, in milliseconds (10000)" },
    [OPT_FQDN] = { "fqdn", 0, KIND_TEXT, AT(fqdn), 0, "TEXT", "clusters whose name contains TEXT" },
    [OPT_PORT] = { "port", 0, KIND_NUMBER, AT(port), 65535, "N", "only this port" },
    [OPT_SUBSET] = { "subset", 0, KIND_TEXT, AT(subset), 0, "TEXT", "clusters whose name contains TEXT as subset; rollout: the one to move to" },
    [OPT_DIRECTION] = { "direction", 0, KIND_TEXT, AT(direction), 0, "WORD", "inbound or outbound clusters" },
    [OPT_LISTEN_ADDRESS] = { "listen-address", 0, KIND_TEXT, AT(listen_address), 0, "IP", "listeners on this address" },
    [OPT_ENDPOINT_ADDRESS] = { "endpoint-address", 0, KIND_TEXT, AT(endpoint_address), 0, "IP", "endpoints at this address" },
    [OPT_TYPE] = { "type", 0, KIND_TEXT, AT(type), 0, "TYPE", "listeners of this type: HTTP, TCP, HTTP+TCP, UNKNOWN" },
    [OPT_NAME] = { "name", 0, KIND_TEXT, AT(name), 0, "NAME", "the route configuration of this name; rollout: the VirtualService" },
    [OPT_STATUS] = { "status", 0, KIND_TEXT, AT(status), 0, "STATUS", "endpoints with this status: HEALTHY, UNHEALTHY, …" },
    [OPT_CLUSTER] = { "cluster", 0, KIND_TEXT, AT(cluster), 0, "NAME", "endpoints of this cluster" },
    [OPT_VERBOSE] = { "verbose", 0, KIND_SWITCH, AT(verbose), 0, NULL, "matches and destinations (true); =false for a short table" },
    [OPT_WITH_HEADERS] = { "with-headers", 0, KIND_SWITCH, AT(with_headers), 0, NULL, "a heading above each table" },
    [OPT_NO_HEADERS] = { "no-headers", 0, KIND_SWITCH, AT(no_headers), 0, NULL, "tables without the row of column names" },
    [OPT_LEVEL] = { "level", 0, KIND_TEXT, AT(level), 0, "LEVELS", "LEVEL, or COMPONENT:LEVEL,COMPONENT:LEVEL…" },
    [OPT_RESET] = { "reset", 'r', KIND_SWITCH, AT(reset), 0, NULL, "all components back to warning" },
    [OPT_ROUTE] = { "route", 0, KIND_TEXT, AT(route), 0, "NAME", "the http route of this name (the first one with the subset)" },
    [OPT_STEPS] = { "steps", 0, KIND_TEXT, AT(steps), 0, "LIST", "percentages, one after the other (1,5,25,50,100)" },
    [OPT_INTERVAL] = { "interval", 0, KIND_NUMBER, AT(interval_ms), 86400000, "MS", "shortest time of one step, in milliseconds (30000)" },
    [OPT_MIN_REQUESTS] = { "min-requests", 0, KIND_NUMBER, AT(min_requests), 1000000000, "N", "requests that a step must see before the next (20)" },
    [OPT_MAX_FAILED] = { "max-failed", 0, KIND_TEXT, AT(max_failed), 0, "PERCENT", "failed requests of a step that are still good (1)" },
    [OPT_THRESHOLD] = { "failure-threshold", 0, KIND_TEXT, AT(threshold), 0, "LEVEL", "exit with 79 from this level on: Info, Warning, Error (Error)" },
    [OPT_HEADER] = { "header", 'H', KIND_HEADER, AT(headers), 0, "NAME: VALUE", "a header field of the request; may be given several times" },
    [OPT_DST] = { "dst", 0, KIND_TEXT, AT(dst), 0, "IP[:PORT]", "the address that the client connects to, which its name alone does not tell" },
    [OPT_SOURCE] = { "source", 0, KIND_TEXT, AT(source), 0, "IP", "the client's address (127.0.0.1)" },
    [OPT_LISTENER] = { "listener", 0, KIND_TEXT, AT(listener), 0, "NAME", "begin with this listener" },
    [OPT_HELP] = { "help", 'h', KIND_SWITCH, AT(help), 0, NULL, "this page" },
};

void options_init(struct cli_options *o)
{
    *o = (struct cli_options){ .address = STR("127.0.0.1:15000"), .control = STR("127.0.0.1:15014"), .timeout_ms = 10000,
                                .steps = STR("1,5,25,50,100"), .max_failed = STR("1"), .interval_ms = 30000, .min_requests = 20, .verbose = true };
}

// The option that a word names; *ret_value is what is attached to it (=value, or behind the letter), p NULL when nothing is.
static int find(const char *word, struct str *ret_value)
{
    struct str rest = str_c(word + 1);
    if (rest.n == 0) {
        return -1; // "-" alone
    }
    if (rest.p[0] != '-') {
        for (int i = 0; i < OPT_COUNT; i++) {
            if (defs[i].letter == rest.p[0]) {
                struct str value = str_skip(rest, 1);
                bool equals = value.n && value.p[0] == '=';
                *ret_value = value.n ? str_skip(value, equals) : (struct str){ 0 };
                return i;
            }
        }
        return -1;
    }
    rest = str_skip(rest, 1);
    struct str name = str_split(&rest, '=');
    for (int i = 0; i < OPT_COUNT; i++) {
        if (str_is(name, defs[i].name)) {
            *ret_value = rest;
            return i;
        }
    }
    return -1;
}

static int store(struct cli_options *o, const struct option_def *d, struct str value, struct err *err)
{
    void *at = (char *)o + d->offset;
    uint64_t n = 0;
    switch (d->kind) {
    case KIND_TEXT:
        *(struct str *)at = value;
        return 0;
    case KIND_HEADER:
        if (o->header_count == CLI_HEADERS_MAX || str_find(value, ':') <= 0) {
            return err_set(err, -EINVAL, "--%s %.*s: \"name: value\" is wanted, at most %d times", d->name, STR_FMT(value), CLI_HEADERS_MAX);
        }
        o->headers[o->header_count++] = value;
        return 0;
    case KIND_NUMBER:
        if (!str_to_u64(value, d->max, &n) || n == 0) {
            return err_set(err, -EINVAL, "--%s %.*s: a number from 1 to %u is wanted", d->name, STR_FMT(value), d->max);
        }
        *(uint32_t *)at = (uint32_t)n;
        return 0;
    case KIND_SWITCH:
        if (!str_is(value, "true") && !str_is(value, "false")) {
            return err_set(err, -EINVAL, "--%s=%.*s: true or false is wanted", d->name, STR_FMT(value));
        }
        *(bool *)at = str_is(value, "true");
        return 0;
    }
    return -EINVAL;
}

int options_take(struct cli_options *o, uint64_t takes, const char *command, int argc, char **argv, int *i, struct err *err)
{
    struct str value = { 0 };
    const char *word = argv[*i];
    int id = find(word, &value);
    if (id < 0) {
        return err_set(err, -EINVAL, "%s: there is no such option; %s --help lists them", word, command);
    }
    const struct option_def *d = &defs[id];
    if (!(takes & (UINT64_C(1) << id))) {
        return err_set(err, -EINVAL, "%s does not take --%s; %s --help lists what it takes", command, d->name, command);
    }
    ++*i;
    if (!value.p && d->kind == KIND_SWITCH) {
        value = STR("true");
    } else if (!value.p) {
        if (*i >= argc) {
            return err_set(err, -EINVAL, "%s needs a value: %s", word, d->value);
        }
        value = str_c(argv[(*i)++]);
    }
    return store(o, d, value, err);
}

int options_finish(struct cli_options *o, uint64_t given, struct err *err)
{
    static const struct {
        const char *name;
        enum cli_format format;
    } formats[] = { { "table", FORMAT_TABLE }, { "short", FORMAT_TABLE }, { "json", FORMAT_JSON }, { "yaml", FORMAT_YAML } };
    if ((given & OPT(FILE)) && (given & (OPT(ADDRESS) | OPT(CONTROL)))) {
        return err_set(err, -EINVAL, "--file and --%s: only one can be the source", given & OPT(ADDRESS) ? "address" : "control");
    }
    if ((given & OPT(FILE)) && !o->file.n) {
        return err_set(err, -EINVAL, "--file: the name is empty");
    }
    if (o->color.n && !str_is(o->color, "auto") && !str_is(o->color, "always") && !str_is(o->color, "never")) {
        return err_set(err, -EINVAL, "--color %.*s: auto, always or never is wanted", STR_FMT(o->color));
    }
    if (!(given & OPT(OUTPUT))) {
        return 0;
    }
    for (size_t i = 0; i < array_len(formats); i++) {
        if (str_is(o->output, formats[i].name)) {
            o->format = formats[i].format;
            return 0;
        }
    }
    return err_set(err, -EINVAL, "--output %.*s: table, json or yaml is wanted", STR_FMT(o->output));
}

uint64_t options_bit(const char *word)
{
    struct str value;
    int id = find(word, &value);
    return id < 0 ? 0 : UINT64_C(1) << id;
}

void options_help(uint64_t takes, struct buf *out)
{
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct option_def *d = &defs[i];
        if (takes & (UINT64_C(1) << i)) {
            char left[48];
            snprintf(left, sizeof(left), "--%s%s%s", d->name, d->value ? " " : "", d->value ? d->value : "");
            buf_printf(out, "  %c%c %-28s %s\n", d->letter ? '-' : ' ', d->letter ? d->letter : ' ', left, d->help);
        }
    }
}

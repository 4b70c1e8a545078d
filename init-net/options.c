// SPDX-License-Identifier: Apache-2.0
#include "init-net/options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/mem.h"

enum type {
    T_PORT,
    T_PORTS,
    T_PORTS_STAR,
    T_CIDRS,
    T_CIDRS_STAR,
    T_UIDS,
    T_GIDS,
    T_GIDS_STAR,
    T_NAMES,
    T_BOOL,
    T_U32,
    T_U16,
    T_DURATION,
    T_STR,
    T_MARK,
    T_OFFSET,
    T_LOOPBACK,
    T_LOG_LEVEL,
    T_NO_EFFECT,
    T_NO_EFFECT_BOOL,
    T_CHOICE_FIRST, // the rest name one of a few words, see choices
    T_MODE = T_CHOICE_FIRST,
    T_DRY_RUN,
    T_IPTABLES,
    T_IPV6,
    T_COMPAT,
    T_HAIRPIN,
    T_ESTABLISHED,
    T_OUTPUT,
    T_DIR,
    T_BACKEND,
};

enum { ANY = ~0, APPLY = 1 << CMD_APPLY, CLEANUP = 1 << CMD_CLEANUP, EXPLAIN = 1 << CMD_EXPLAIN, WAIT = 1 << CMD_WAIT };

struct flag {
    const char *name; // NULL: variable only
    char letter;
    const char *env, *env2;
    enum type type;
    size_t offset;
    const char *preset; // NULL: decided elsewhere
    int commands;
    const char *help;
};

static const struct flag flags[] = {
#define FLAG(name, letter, env, env2, type, member, preset, commands, help)                                            \
    { name, letter, env, env2, type, offsetof(struct options, member), preset, commands, help },
#include "init-net/flags.def"
#undef FLAG
};
enum { FLAGS = sizeof(flags) / sizeof(flags[0]) };

static const char *const command_names[CMD_COUNT] = {
    [CMD_APPLY] = "apply", [CMD_CLEANUP] = "cleanup", [CMD_CHECK] = "check",   [CMD_VERIFY] = "verify",
    [CMD_EXPLAIN] = "explain", [CMD_STATS] = "stats", [CMD_DOCTOR] = "doctor", [CMD_WAIT] = "wait",
    [CMD_HELP] = "help", [CMD_VERSION] = "version",
};

const char *options_command_name(enum command c)
{
    return command_names[c];
}

// Words of the choice types, in the order of their enums; the bool-like ones are handled apart.
static const struct {
    enum type type;
    const char *words[6];
} choices[] = {
    { T_MODE, { "REDIRECT", "TPROXY" } },
    { T_IPV6, { "auto", "on", "off", "drop" } },
    { T_COMPAT, { "none", "istio" } },
    { T_HAIRPIN, { "uid", "all", "off" } },
    { T_ESTABLISHED, { "adopt", "capture", "syn-only" } },
    { T_OUTPUT, { "text", "json" } },
    { T_DIR, { "out", "in" } },
    { T_BACKEND, { "auto", "nft", "nft-ip", "iptables", "iptables-legacy", "iptables-nft" } },
};

// Where a value came from decides what a bad one does.
enum source { FROM_PRESET, FROM_ENV, FROM_LINE };

struct value {
    struct str text;
    enum source source;
    const char *variable; // FROM_ENV
};

struct parse {
    struct options *o;
    const struct facts *facts;
    struct arena *a;
    struct value v[FLAGS];
    struct err *err;
};

int options_warn(struct options *o, struct err *err, const char *fmt, ...)
{
    char text[ERR_MSG_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (o->strict) {
        return err_set(err, -EINVAL, "%s", text);
    }
    if (o->n_warnings == o->cap_warnings) {
        size_t cap = o->cap_warnings ? o->cap_warnings * 2 : 8;
        struct str *v = arena_array(o->arena, struct str, cap);
        if (o->n_warnings) {
            memcpy(v, o->warnings, o->n_warnings * sizeof(*v));
        }
        o->warnings = v;
        o->cap_warnings = cap;
    }
    o->warnings[o->n_warnings++] = arena_str(o->arena, str_c(text));
    return 0;
}

static const char *flag_label(const struct flag *f, const struct value *v, char *buf, size_t n)
{
    if (v->source == FROM_ENV || !f->name) {
        return v->variable ? v->variable : f->env;
    }
    if (f->letter) {
        snprintf(buf, n, "-%c/--%s", f->letter, f->name);
    } else {
        snprintf(buf, n, "--%s", f->name);
    }
    return buf;
}

static int flag_by_name(struct str name)
{
    for (int i = 0; i < FLAGS; i++) {
        if (flags[i].name && str_is(name, flags[i].name)) {
            return i;
        }
    }
    return -1;
}

static int flag_by_letter(char c)
{
    for (int i = 0; i < FLAGS; i++) {
        if (flags[i].letter == c) {
            return i;
        }
    }
    return -1;
}

bool options_given(const struct options *o, const char *name)
{
    for (int i = 0; i < FLAGS; i++) {
        const char *own = flags[i].name ? flags[i].name : flags[i].env;
        if (strcmp(own, name) == 0) {
            return (o->given[i / 64] >> (i % 64)) & 1;
        }
    }
    CHECK(!"flag name");
    return false;
}

// Flags that stand alone (--dry-run) or with "=value" only, as pflag's booleans do.
static bool value_optional(enum type t)
{
    return t == T_BOOL || t == T_DRY_RUN || t == T_NO_EFFECT_BOOL;
}

static void set_value(struct parse *p, int i, struct str text)
{
    p->v[i] = (struct value){ .text = text, .source = FROM_LINE };
    p->o->given[i / 64] |= 1ull << (i % 64);
}

static int bad_line(struct parse *p, const char *what, const char *why)
{
    err_set(p->err, -EINVAL, "%s: %s; see remora-init help", what, why);
    return EXIT_FLAGS;
}

// One --name, --name=value or --name value. *ix moves over a value taken from the next argument.
static int take_long(struct parse *p, int argc, char **argv, int *ix)
{
    struct str rest = str_skip(str_c(argv[*ix]), 2);
    bool has_value = str_find(rest, '=') >= 0;
    struct str name = str_split(&rest, '=');
    int i = flag_by_name(name);
    if (i < 0 && str_is(name, "help")) {
        p->o->command = CMD_HELP;
        return 0;
    }
    if (i < 0) {
        return bad_line(p, argv[*ix], "unknown flag");
    }
    if (!has_value && value_optional(flags[i].type)) {
        set_value(p, i, STR("true"));
        return 0;
    }
    if (!has_value) {
        if (*ix + 1 >= argc) {
            return bad_line(p, argv[*ix], "needs a value");
        }
        rest = str_c(argv[++*ix]);
    }
    set_value(p, i, rest);
    return 0;
}

// One -abc group: letters without value, the last one may take the rest or the next argument ("-p15001", "-p=1", "-p 1").
static int take_short(struct parse *p, int argc, char **argv, int *ix)
{
    const char *arg = argv[*ix];
    for (const char *c = arg + 1; *c; c++) {
        int i = flag_by_letter(*c);
        if (i < 0 && *c == 'h') {
            p->o->command = CMD_HELP;
            return 0;
        }
        if (i < 0) {
            return bad_line(p, arg, "unknown flag");
        }
        if (value_optional(flags[i].type) && c[1] != '=') {
            set_value(p, i, STR("true"));
            continue;
        }
        if (c[1]) {
            set_value(p, i, str_c(c + 1 + (c[1] == '=')));
        } else if (*ix + 1 < argc) {
            set_value(p, i, str_c(argv[++*ix]));
        } else {
            return bad_line(p, arg, "needs a value");
        }
        return 0;
    }
    return 0;
}

static bool ends_with(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    return strcmp(slash ? slash + 1 : path, name) == 0;
}

// Sets command and istio_call; returns the index of the first argument behind them.
static int take_command(struct parse *p, int argc, char **argv)
{
    struct options *o = p->o;
    if (argc > 0 && (ends_with(argv[0], "istio-iptables") || ends_with(argv[0], "istio-clean-iptables"))) {
        o->istio_call = true;
    }
    int ix = 1;
    if (ix < argc && (strcmp(argv[ix], "istio-iptables") == 0 || strcmp(argv[ix], "istio-clean-iptables") == 0)) {
        o->istio_call = true;
        ix++;
    }
    if (o->istio_call) {
        o->command = ends_with(argv[ix - 1], "istio-clean-iptables") ? CMD_CLEANUP : CMD_APPLY;
        return ix;
    }
    if (ix < argc && argv[ix][0] != '-') {
        for (int c = 0; c < CMD_COUNT; c++) {
            if (strcmp(argv[ix], command_names[c]) == 0) {
                o->command = (enum command)c;
                return ix + 1;
            }
        }
        bad_line(p, argv[ix], "unknown command");
        return -1;
    }
    return ix;
}

static int take_line(struct parse *p, int argc, char **argv, size_t *ret_extra, const char **ret_first_extra)
{
    int ix = take_command(p, argc, argv);
    if (ix < 0) {
        return EXIT_FLAGS;
    }
    bool only_positional = false;
    for (; ix < argc; ix++) {
        const char *arg = argv[ix];
        int r = 0;
        if (only_positional || arg[0] != '-' || !arg[1]) {
            *ret_first_extra = (*ret_extra)++ ? *ret_first_extra : arg;
        } else if (strcmp(arg, "--") == 0) {
            only_positional = true;
        } else if (arg[1] == '-') {
            r = take_long(p, argc, argv, &ix);
        } else {
            r = take_short(p, argc, argv, &ix);
        }
        if (r) {
            return r;
        }
    }
    return 0;
}

static void take_env(struct parse *p)
{
    for (int i = 0; i < FLAGS; i++) {
        const char *names[] = { flags[i].env, flags[i].env2 };
        p->v[i] = (struct value){ .text = str_c(flags[i].preset), .source = FROM_PRESET };
        for (size_t k = 0; k < array_len(names); k++) {
            const char *text = names[k] ? p->facts->get_env(names[k]) : NULL;
            if (text) {
                p->v[i] = (struct value){ .text = str_c(text), .source = FROM_ENV, .variable = names[k] };
                p->o->given[i / 64] |= 1ull << (i % 64);
            }
        }
    }
}

static bool parse_bool(struct str s, bool *ret)
{
    // The spellings of Go's strconv.ParseBool.
    static const char *const yes[] = { "1", "t", "T", "TRUE", "true", "True" };
    static const char *const no[] = { "0", "f", "F", "FALSE", "false", "False" };
    for (size_t i = 0; i < array_len(yes); i++) {
        if (str_is(s, yes[i]) || str_is(s, no[i])) {
            *ret = str_is(s, yes[i]);
            return true;
        }
    }
    return false;
}

bool options_duration(struct str text, uint32_t *ret_ms)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = { { "ms", 1 }, { "us", 0.001 }, { "ns", 0.000001 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 } };
    double total = 0;
    if (str_is(text, "0")) {
        *ret_ms = 0;
        return true;
    }
    if (text.n == 0 || text.n > 32) {
        return false;
    }
    while (text.n) {
        double v = 0, scale = 1;
        size_t digits = 0;
        bool dot = false;
        for (; text.n && ((*text.p >= '0' && *text.p <= '9') || (*text.p == '.' && !dot)); text = str_skip(text, 1)) {
            if (*text.p == '.') {
                dot = true;
                continue;
            }
            digits++;
            scale /= dot ? 10 : 1;
            v = dot ? v + (*text.p - '0') * scale : v * 10 + (*text.p - '0');
        }
        size_t u = 0;
        while (u < array_len(units) && !str_starts(text, str_c(units[u].unit))) {
            u++;
        }
        if (!digits || u == array_len(units)) {
            return false;
        }
        total += v * units[u].ms;
        text = str_skip(text, strlen(units[u].unit));
    }
    if (total > 24.0 * 3600 * 1000) {
        return false;
    }
    *ret_ms = (uint32_t)total;
    return true;
}

// Decimal, or hexadecimal behind 0x.
static bool parse_u32(struct str s, uint32_t *ret)
{
    uint64_t v = 0;
    if (!str_starts(s, STR("0x"))) {
        if (!str_to_u64(s, UINT32_MAX, &v)) {
            return false;
        }
        *ret = (uint32_t)v;
        return true;
    }
    s = str_skip(s, 2);
    if (s.n == 0 || s.n > 8) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        char c = (char)(s.p[i] | 0x20);
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
        v = v * 16 + (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    *ret = (uint32_t)v;
    return true;
}

static bool parse_mark(struct str s, struct mark *ret)
{
    if (s.n == 0) {
        *ret = (struct mark){ 0 };
        return true;
    }
    struct mark m = { .mask = UINT32_MAX };
    bool has_mask = str_find(s, '/') >= 0;
    struct str value = str_split(&s, '/');
    if (!parse_u32(value, &m.value) || (has_mask && !parse_u32(s, &m.mask)) || !m.mask || (m.value & ~m.mask)) {
        return false;
    }
    *ret = m;
    return true;
}

static bool parse_offset(struct str s, uint32_t *ret)
{
    bool minus = str_starts(s, STR("-"));
    uint64_t v;
    if (!str_to_u64(str_skip(s, minus), 1000, &v)) {
        return false;
    }
    *ret = minus ? 0u - (uint32_t)v : (uint32_t)v;
    return true;
}

// 0, or -EINVAL with the reason.
static int parse_loopback(struct str s, struct cidr *ret, struct err *err)
{
    struct cidr c;
    int r = cidr_parse(s, &c, err);
    if (r == 0 && (c.family != AF_INET || c.addr[0] != 127 || c.len < 8)) {
        r = err_set(err, -EINVAL, "must be an IPv4 network within 127.0.0.0/8");
    }
    if (r == 0) {
        *ret = c;
    }
    return r;
}

// "info", "default:debug", "a:warn,b:none": the most talkative level named wins.
static bool parse_log_level(struct str s, struct options *o)
{
    static const char *const words[] = { "none", "error", "fatal", "warn", "info", "debug" };
    size_t best = 0;
    bool any = false;
    while (s.n) {
        struct str item = str_trim(str_split(&s, ','));
        ptrdiff_t colon = str_find(item, ':');
        struct str level = colon >= 0 ? str_skip(item, (size_t)colon + 1) : item;
        size_t i = 0;
        while (i < array_len(words) && !str_is(level, words[i])) {
            i++;
        }
        if (i == array_len(words)) {
            return false;
        }
        best = i > best ? i : best;
        any = true;
    }
    o->log_quiet = any && best < 3;
    o->log_no_info = any && best < 4;
    o->log_debug = best == 5;
    return true;
}

static int choice_index(enum type t, struct str s)
{
    for (size_t i = 0; i < array_len(choices); i++) {
        if (choices[i].type != t) {
            continue;
        }
        for (int k = 0; k < 6 && choices[i].words[k]; k++) {
            if (str_is(s, choices[i].words[k])) {
                return k;
            }
        }
    }
    return -1;
}

static void choice_words(enum type t, char *buf, size_t n)
{
    buf[0] = '\0';
    for (size_t i = 0; i < array_len(choices); i++) {
        for (int k = 0; choices[i].type == t && k < 6 && choices[i].words[k]; k++) {
            size_t used = strlen(buf);
            snprintf(buf + used, n - used, "%s%s", k ? ", " : "", choices[i].words[k]);
        }
    }
}

static int parse_dry_run(struct str s, uint32_t *ret)
{
    static const char *const words[] = { NULL, "nft", "iptables", "json" };
    bool b;
    for (uint32_t i = 1; i < array_len(words); i++) {
        if (str_is(s, words[i])) {
            *ret = i;
            return 0;
        }
    }
    if (!parse_bool(s, &b)) {
        return -EINVAL;
    }
    *ret = b ? DRY_NFT : DRY_NONE;
    return 0;
}

// Types whose bad value istio-iptables' flag parser itself refuses (exit 255) or, in a variable, passes over.
static bool is_typed(enum type t)
{
    return t == T_BOOL || t == T_U16 || t == T_DURATION || t == T_DRY_RUN;
}

// Converts one value into its member. 0, or -EINVAL with the bare reason in err.
static int convert(struct parse *p, int i, struct err *err)
{
    const struct flag *f = &flags[i];
    struct str s = p->v[i].text;
    void *at = (char *)p->o + f->offset;
    uint64_t n;
    switch (f->type) {
    case T_PORT:
    case T_U16:
        if (!str_to_u64(s, 65535, &n) || (f->type == T_PORT && n == 0)) {
            return err_set(err, -EINVAL, "not a port number");
        }
        *(uint16_t *)at = (uint16_t)n;
        return 0;
    case T_PORTS:
    case T_PORTS_STAR:
        return port_list_parse(s, f->type == T_PORTS_STAR, p->a, at, err);
    case T_CIDRS:
    case T_CIDRS_STAR:
        return cidr_list_parse(s, f->type == T_CIDRS_STAR, p->a, at, err);
    case T_UIDS:
        return id_list_parse(s, false, p->facts->passwd, "user", p->a, at, err);
    case T_GIDS:
    case T_GIDS_STAR:
        return id_list_parse(s, f->type == T_GIDS_STAR, p->facts->group, "group", p->a, at, err);
    case T_NAMES:
        return name_list_parse(s, p->a, at, err);
    case T_BOOL:
        return parse_bool(s, at) ? 0 : err_set(err, -EINVAL, "must be true or false");
    case T_U32:
        return parse_u32(s, at) ? 0 : err_set(err, -EINVAL, "not a number");
    case T_DURATION:
        return options_duration(s, at) ? 0 : err_set(err, -EINVAL, "not a duration like 5s or 300ms");
    case T_STR:
        *(struct str *)at = s;
        return 0;
    case T_MARK:
        return parse_mark(s, at) ? 0 : err_set(err, -EINVAL, "not a mark like 0x539 or 0x539/0xfff");
    case T_OFFSET:
        return parse_offset(s, at) ? 0 : err_set(err, -EINVAL, "not a number from -1000 to 1000");
    case T_LOOPBACK:
        return parse_loopback(s, at, err);
    case T_LOG_LEVEL:
        return parse_log_level(s, p->o)
                   ? 0
                   : err_set(err, -EINVAL, "levels are none, error, warn, info and debug");
    case T_DRY_RUN:
        return parse_dry_run(s, at) == 0 ? 0 : err_set(err, -EINVAL, "must be nft, iptables, json, true or false");
    case T_IPTABLES:
        *(struct str *)at = s;
        return s.n == 0 || str_is(s, "legacy") || str_is(s, "nft")
                   ? 0
                   : err_set(err, -EINVAL, "must be legacy or nft");
    case T_NO_EFFECT:
    case T_NO_EFFECT_BOOL:
        return 0;
    default:
        break;
    }
    int k = choice_index(f->type, s);
    char words[128];
    if (k < 0 && s.n == 0) {
        k = 0;
    }
    if (k < 0) {
        choice_words(f->type, words, sizeof(words));
        return err_set(err, -EINVAL, "must be one of %s", words);
    }
    if (f->type == T_COMPAT) {
        *(bool *)at = k;
    } else {
        *(uint32_t *)at = (uint32_t)k;
    }
    return 0;
}

// istio-iptables takes any word for the mode and means REDIRECT; a variable with a bad bool or duration is passed over.
static bool is_forgiven(const struct flag *f, const struct value *v)
{
    return f->type == T_MODE || f->type == T_LOG_LEVEL || (v->source == FROM_ENV && is_typed(f->type));
}

static int convert_all(struct parse *p)
{
    for (int i = 0; i < FLAGS; i++) {
        const struct flag *f = &flags[i];
        struct value *v = &p->v[i];
        char label[64];
        struct err why;
        if (v->source == FROM_PRESET && !f->preset) {
            continue;
        }
        if (v->source == FROM_LINE && !(f->commands & (1 << p->o->command)) && p->o->command != CMD_HELP &&
            !p->o->istio_call) {
            err_set(p->err, -EINVAL, "%s has no meaning with '%s'; see remora-init help",
                    flag_label(f, v, label, sizeof(label)), command_names[p->o->command]);
            return EXIT_FLAGS;
        }
        if (convert(p, i, &why) == 0) {
            continue;
        }
        const char *name = flag_label(f, v, label, sizeof(label));
        if (is_forgiven(f, v)) {
            const char *used = f->type == T_MODE ? "REDIRECT" : f->preset;
            if (options_warn(p->o, p->err, "%s: '%.*s': %s; '%s' is used", name, STR_FMT(v->text), why.msg, used)) {
                return EXIT_APPLY;
            }
            v->text = str_c(f->preset);
            convert(p, i, &why);
            continue;
        }
        if (str_starts(str_c(why.msg), STR("item "))) {
            err_set(p->err, -EINVAL, "%s: %s", name, why.msg);
        } else {
            err_set(p->err, -EINVAL, "%s: '%.*s': %s", name, STR_FMT(v->text), why.msg);
        }
        return is_typed(f->type) ? EXIT_FLAGS : EXIT_APPLY;
    }
    return 0;
}

// Strict decides what a warning is, so it is known before all others.
static int convert_strict_first(struct parse *p)
{
    int i = flag_by_name(STR("strict"));
    struct err why;
    if (convert(p, i, &why) < 0 && p->v[i].source == FROM_LINE) {
        err_set(p->err, -EINVAL, "--strict: %s", why.msg);
        return EXIT_FLAGS;
    }
    return 0;
}

static int resolve_owners(struct parse *p)
{
    struct options *o = p->o;
    if (!options_given(o, "proxy-uid")) {
        const char *user = p->facts->get_env("ENVOY_USER");
        uint32_t uid = 1337;
        id_find(p->facts->passwd, str_c(user ? user : "istio-proxy"), &uid);
        o->proxy_uids = (struct id_list){ .n = 1, .v = arena_array(p->a, uint32_t, 1) };
        o->proxy_uids.v[0] = uid;
    }
    if (!options_given(o, "proxy-gid")) {
        o->proxy_gids = o->proxy_uids;
    }
    if (!o->groups.all && o->groups.n > 64) {
        err_set(p->err, -EINVAL, "ISTIO_OUTBOUND_OWNER_GROUPS: %zu groups, at most 64 are allowed", o->groups.n);
        return EXIT_APPLY;
    }
    return 0;
}

void options_resolvers(struct str text, struct arena *a, struct cidr_list *ret, size_t *ret_skipped)
{
    enum { RESOLVERS_MAX = 64 };
    struct cidr_list l = { .v = arena_array(a, struct cidr, RESOLVERS_MAX) };
    size_t skipped = 0;
    while (text.n && l.n < RESOLVERS_MAX) {
        struct str line = str_trim(str_split(&text, '\n'));
        if (!str_starts(line, STR("nameserver")) || line.n < 11 || (line.p[10] != ' ' && line.p[10] != '\t')) {
            continue;
        }
        struct str word = str_trim(str_skip(line, 10));
        for (size_t i = 0; i < word.n; i++) {
            if (word.p[i] == ' ' || word.p[i] == '\t' || word.p[i] == '\r') {
                word.n = i;
            }
        }
        char addr[INET6_ADDRSTRLEN + 1];
        struct cidr c = { 0 };
        snprintf(addr, sizeof(addr), "%.*s", STR_FMT(word));
        if (inet_pton(AF_INET, addr, c.addr) == 1) {
            c.family = AF_INET;
            c.len = 32;
        } else if (inet_pton(AF_INET6, addr, c.addr) == 1) {
            c.family = AF_INET6;
            c.len = 128;
        } else {
            skipped++;
            continue;
        }
        bool known = false;
        for (size_t i = 0; i < l.n; i++) {
            known = known || cidr_contains(&l.v[i], c.family, c.addr);
        }
        if (!known) {
            l.v[l.n++] = c;
        }
    }
    *ret = l;
    *ret_skipped = skipped;
}

static int resolve_dns(struct parse *p)
{
    struct options *o = p->o;
    size_t skipped = 0;
    if (!o->redirect_dns) {
        if (o->capture_all_dns) {
            return options_warn(o, p->err, "--capture-all-dns has no effect without --redirect-dns");
        }
        return 0;
    }
    if (!p->facts->resolv_readable) {
        return err_set(p->err, -EINVAL, "--redirect-dns: /etc/resolv.conf cannot be read");
    }
    options_resolvers(p->facts->resolv, p->a, &o->resolvers, &skipped);
    if (skipped && options_warn(o, p->err, "%zu nameserver(s) in /etc/resolv.conf are no plain address (a scope like "
                                           "fe80::1%%eth0, perhaps); their DNS is not captured", skipped)) {
        return -EINVAL;
    }
    if (o->capture_all_dns) {
        return 0;
    }
    struct cidr_list v4 = cidr_list_family(&o->resolvers, AF_INET, p->a);
    if (o->resolvers.n == 0 || (v4.n == 0 && !o->v6)) {
        o->redirect_dns = false;
        return options_warn(o, p->err, "DNS capture is off: /etc/resolv.conf names no nameserver %s",
                            o->resolvers.n ? "of an address family that is captured" : "at all");
    }
    return 0;
}

// Section "derived" of istio-iptables: an IPv4 address turns IPv6 off, unless --dual-stack.
static int resolve_ipv6(struct parse *p)
{
    struct options *o = p->o;
    const struct facts *f = p->facts;
    bool needs_rules = (o->command == CMD_APPLY && !o->cleanup_only && !o->dry_run && !o->skip_rule_apply);
    if (o->ipv6 == IPV6_AUTO) {
        if (!f->have_v4 && !f->have_v6 && needs_rules) {
            return err_set(p->err, -EADDRNOTAVAIL,
                           "no valid local IP address found: no interface but lo has one; say --ipv6=on or "
                           "--ipv6=off if that is meant");
        }
        o->v6 = f->have_v6 && (o->dual_stack || !f->have_v4);
        if (o->v6 && f->v6_lo_off) {
            o->v6 = false;
            return options_warn(o, p->err, "IPv6 is disabled on lo (net.ipv6.conf.lo.disable_ipv6): IPv6 is left alone");
        }
        if (o->dual_stack && !f->have_v6 && needs_rules) {
            return options_warn(o, p->err, "--dual-stack: no interface but lo has an IPv6 address%s; only IPv4 is captured",
                                !f->v6_stack ? " (this kernel has no IPv6)" : f->v6_lo_off ? " (IPv6 is disabled)" : "");
        }
        return 0;
    }
    o->v6 = o->ipv6 == IPV6_ON;
    o->v6_drop = o->ipv6 == IPV6_DROP;
    if (o->v6 && needs_rules && !f->v6_stack) {
        o->v6 = false;
        return options_warn(o, p->err, "--ipv6=on: this kernel has no IPv6; only IPv4 is captured");
    }
    return 0;
}

static bool has_v6_network(const struct cidr_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].family == AF_INET6) {
            return true;
        }
    }
    return false;
}

// What istio-iptables passes over in silence.
static int warn_ineffective(struct parse *p)
{
    struct options *o = p->o;
    const struct {
        bool when;
        const char *text;
    } cases[] = {
        { o->inbound_exclude.n && !o->inbound_ports.all, "-d has no effect: it is only read when -b is '*'" },
        { o->outbound_ports.n && o->cidrs.all, "-q has no effect: -i '*' captures all ports already" },
        { !o->v6 && has_v6_network(&o->cidrs), "-i names IPv6 networks, but IPv6 is left alone (--ipv6)" },
        { !o->v6 && has_v6_network(&o->cidrs_exclude), "-x names IPv6 networks, but IPv6 is left alone (--ipv6)" },
        { !o->groups.all && o->groups_exclude.n,
          "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE has no effect: it is only read when the included groups are '*'" },
        { o->mode == MODE_REDIRECT && (options_given(o, "istio-inbound-tproxy-mark") ||
                                       options_given(o, "istio-inbound-tproxy-route-table")),
          "-t and -r have no effect in REDIRECT mode" },
        { o->force_iptables.n != 0 && o->backend != BACKEND_AUTO, "--force-iptables-binary has no effect beside --backend" },
        { o->nat_priority_offset != UINT32_MAX && (o->force_iptables.n || o->backend >= BACKEND_IPTABLES),
          "--nat-priority-offset has no effect with iptables: its tables have fixed priorities" },
        { o->reject_quic && (port_list_has(&o->outbound_exclude, 443) ||
                             (!o->cidrs.all && o->cidrs.n == 0 && !port_list_has(&o->outbound_ports, 443))),
          "--reject-quic has no effect: TCP to port 443 is not captured" },
        { o->run_validation == false && o->skip_rule_apply, "--skip-rule-apply without --run-validation does nothing" },
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        if (cases[i].when && options_warn(o, p->err, "%s", cases[i].text)) {
            return -EINVAL;
        }
    }
    for (int i = 0; i < FLAGS; i++) {
        bool no_effect = flags[i].type == T_NO_EFFECT || flags[i].type == T_NO_EFFECT_BOOL;
        if (no_effect && p->v[i].source == FROM_LINE &&
            options_warn(o, p->err, "--%s has no effect here", flags[i].name)) {
            return -EINVAL;
        }
    }
    return 0;
}

static int check_numbers(struct parse *p)
{
    struct options *o = p->o;
    bool iptables = o->backend >= BACKEND_IPTABLES || (o->backend == BACKEND_AUTO && o->force_iptables.n) ||
                    o->dry_run == DRY_IPTABLES;
    if (iptables && (o->guard_admin || o->reject_quic)) {
        return err_set(p->err, -EINVAL, "--guard-admin and --reject-quic need nftables; they cannot be had with "
                                        "--force-iptables-binary, --backend=iptables… or --dry-run=iptables");
    }
    if (o->outbound_port == o->inbound_port) {
        return err_set(p->err, -EINVAL, "-p and -z name the same port %u", o->outbound_port);
    }
    if (o->mode == MODE_TPROXY) {
        if (o->tproxy_mark == 0 || o->tproxy_mark == TPROXY_SELF_MARK) {
            return err_set(p->err, -EINVAL, "-t: the mark must not be 0 or %d (which marks calls of the pod to itself)",
                           TPROXY_SELF_MARK);
        }
        if (o->tproxy_table == 0 || (o->tproxy_table >= 253 && o->tproxy_table <= 255)) {
            return err_set(p->err, -EINVAL, "-r: tables 0 and 253 to 255 belong to the system");
        }
    }
    return 0;
}

int options_parse(int argc, char **argv, const struct facts *facts, struct arena *a, struct options *ret,
                  struct err *err)
{
    struct options o = { .command = CMD_APPLY, .arena = a };
    o.loopback6 = (struct cidr){ .family = AF_INET6, .len = 128, .addr = { [15] = 1 } };
    struct parse p = { .o = &o, .facts = facts, .a = a, .err = err };
    size_t extra = 0;
    const char *first_extra = "";
    take_env(&p);
    int r = take_line(&p, argc, argv, &extra, &first_extra);
    if (r) {
        return r;
    }
    if (o.command == CMD_HELP || o.command == CMD_VERSION) {
        *ret = o;
        return 0;
    }
    r = convert_strict_first(&p);
    bool strict = o.strict;
    r = r ? r : convert_all(&p);
    o.strict = strict;
    if (r) {
        return r;
    }
    o.compat_istio = options_given(&o, "compat") ? o.compat_istio : o.istio_call;
    r = resolve_owners(&p);
    if (r) {
        return r;
    }
    if (extra && options_warn(&o, err, "argument '%s' is ignored", first_extra)) {
        return EXIT_FLAGS;
    }
    if (resolve_ipv6(&p) || resolve_dns(&p) || warn_ineffective(&p) || check_numbers(&p)) {
        return EXIT_APPLY;
    }
    *ret = o;
    return 0;
}

struct str options_netns(int argc, char **argv, const struct facts *facts, struct arena *a)
{
    struct options o = { .command = CMD_APPLY, .arena = a };
    struct err err;
    struct parse p = { .o = &o, .facts = facts, .a = a, .err = &err };
    size_t extra = 0;
    const char *first_extra = "";
    take_env(&p);
    if (take_line(&p, argc, argv, &extra, &first_extra)) {
        return str_n(NULL, 0);
    }
    struct str own = p.v[flag_by_name(STR("netns"))].text;
    return own.n ? own : p.v[flag_by_name(STR("network-namespace"))].text;
}

void options_help(struct buf *out)
{
    buf_printf(out, "remora-init [command] [flags]   sends a pod's TCP through a proxy\n"
                    "remora-init istio-iptables [flags]   the same with istio-iptables' habits\n\n"
                    "commands: apply (default), cleanup, check, verify, explain, stats, doctor, wait, help, version\n\n");
    for (int i = 0; i < FLAGS; i++) {
        const struct flag *f = &flags[i];
        char letter[8] = "    ";
        if (f->letter) {
            snprintf(letter, sizeof(letter), "-%c, ", f->letter);
        }
        buf_printf(out, "  %s%s%s", f->name ? letter : "    ", f->name ? "--" : "$", f->name ? f->name : f->env);
        if (f->name && f->env) {
            buf_printf(out, "  $%s", f->env);
        }
        if (f->env2) {
            buf_printf(out, " $%s", f->env2);
        }
        buf_printf(out, "\n        %s", f->help);
        if (f->preset && f->preset[0] && strcmp(f->preset, "false") != 0) {
            buf_printf(out, " (default %s)", f->preset);
        }
        buf_append(out, "\n", 1);
    }
}

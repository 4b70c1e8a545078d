// SPDX-License-Identifier: Apache-2.0
#include "proxy/server/options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/check.h"
#include "lib/base/str.h"

enum flag_kind { FLAG_VALUE, FLAG_BOOL, FLAG_IGNORED_VALUE, FLAG_IGNORED_BOOL };

// One line per flag; handling of the value is in take_value.
static const struct flag {
    const char *name, *alias;
    enum flag_kind kind;
    const char *help;
} flags[] = {
    { "--config-path", "-c", FLAG_VALUE, "bootstrap file, JSON or YAML (envoy.config.bootstrap.v3.Bootstrap)" },
    { "--config-yaml", NULL, FLAG_VALUE, "bootstrap text in place of a file" },
    { "--concurrency", NULL, FLAG_VALUE, "worker threads (default: usable CPUs)" },
    { "--log-level", "-l", FLAG_VALUE, "trace, debug, info, warning, error, critical or off (default info)" },
    { "--component-log-level", NULL, FLAG_VALUE, "levels by component, as upstream:debug,http:trace" },
    { "--mode", NULL, FLAG_VALUE, "serve (default) or validate: check the bootstrap file and exit" },
    { "--service-node", NULL, FLAG_VALUE, "node id sent to the control plane" },
    { "--service-cluster", NULL, FLAG_VALUE, "node cluster sent to the control plane" },
    { "--drain-time-s", NULL, FLAG_VALUE, "longest time for connections to finish after SIGTERM (default 5)" },
    { "--log-json", NULL, FLAG_BOOL, "log lines as JSON" },
    { "--version", NULL, FLAG_BOOL, "print the version and exit" },
    { "--help", "-h", FLAG_BOOL, "this text" },
    { "--drain-strategy", NULL, FLAG_IGNORED_VALUE, NULL },
    { "--parent-shutdown-time-s", NULL, FLAG_IGNORED_VALUE, NULL },
    { "--local-address-ip-version", NULL, FLAG_IGNORED_VALUE, NULL },
    { "--file-flush-interval-msec", NULL, FLAG_IGNORED_VALUE, NULL },
    { "--log-format", NULL, FLAG_IGNORED_VALUE, NULL },
    { "--base-id", NULL, FLAG_IGNORED_VALUE, NULL },
    { "--restart-epoch", NULL, FLAG_IGNORED_VALUE, NULL },
    { "--log-format-escaped", NULL, FLAG_IGNORED_BOOL, NULL },
    { "--disable-hot-restart", NULL, FLAG_IGNORED_BOOL, NULL },
    { "--use-dynamic-base-id", NULL, FLAG_IGNORED_BOOL, NULL },
    { "--allow-unknown-static-fields", NULL, FLAG_IGNORED_BOOL, NULL },
    // pilot-agent's, after `sidecar`
    { "--domain", NULL, FLAG_IGNORED_VALUE, NULL },
    { "--proxyLogLevel", NULL, FLAG_VALUE, NULL },
    { "--proxyComponentLogLevel", NULL, FLAG_VALUE, NULL },
    { "--log_output_level", NULL, FLAG_IGNORED_VALUE, NULL },
};

const char *options_help(void)
{
    static char text[4096];
    if (text[0]) {
        return text;
    }
    size_t n = (size_t)snprintf(text, sizeof(text),
                                "remora-proxy: the data plane of remora\n\n"
                                "  remora-proxy -c FILE [flags]     run from a bootstrap file\n"
                                "  remora-proxy sidecar [flags]     run as a mesh sidecar; configured by the environment\n"
                                "  remora-proxy wait | request METHOD PATH | istio-iptables …   as pilot-agent's in a pod\n\nFlags:\n");
    for (size_t i = 0; i < array_len(flags) && n < sizeof(text); i++) {
        if (flags[i].help) {
            n += (size_t)snprintf(text + n, sizeof(text) - n, "  %-22s %s%s%s\n", flags[i].name, flags[i].help,
                                  flags[i].alias ? "; also " : "", flags[i].alias ? flags[i].alias : "");
        }
    }
    return text;
}

static int take_number(const char *flag, const char *v, uint64_t max, uint64_t *ret, struct err *err)
{
    if (!str_to_u64(str_c(v), max, ret)) {
        return err_set(err, -EINVAL, "%s: \"%s\" is not a number from 0 to %llu", flag, v, (unsigned long long)max);
    }
    return 0;
}

static int take_level(const char *flag, const char *v, struct options *o, struct err *err)
{
    int l = log_level_parse(v);
    if (l < 0) {
        return err_set(err, -EINVAL, "%s: unknown level \"%s\"; one of trace, debug, info, warning, error, critical, off", flag, v);
    }
    o->log_level = (enum log_level)l;
    return 0;
}

static int take_mode(const char *v, struct options *o, struct err *err)
{
    if (!strcmp(v, "validate")) {
        o->mode = o->mode == RUN_HELP || o->mode == RUN_VERSION ? o->mode : RUN_VALIDATE;
    } else if (strcmp(v, "serve")) {
        return err_set(err, -EINVAL, "--mode: \"%s\" is neither serve nor validate", v);
    }
    return 0;
}

static int take_value(const struct flag *f, const char *v, struct options *o, struct err *err)
{
    const char *n = f->name;
    uint64_t num = 0;
    int rc = 0;
    if (!strcmp(n, "--config-path")) {
        o->config_path = v;
    } else if (!strcmp(n, "--config-yaml")) {
        o->config_yaml = v;
    } else if (!strcmp(n, "--service-node")) {
        o->service_node = v;
    } else if (!strcmp(n, "--service-cluster")) {
        o->service_cluster = v;
    } else if (!strcmp(n, "--component-log-level") || !strcmp(n, "--proxyComponentLogLevel")) {
        o->component_log_level = v;
    } else if (!strcmp(n, "--log-level") || !strcmp(n, "--proxyLogLevel")) {
        rc = take_level(n, v, o, err);
    } else if (!strcmp(n, "--mode")) {
        rc = take_mode(v, o, err);
    } else if (!strcmp(n, "--concurrency")) {
        rc = take_number(n, v, 1024, &num, err);
        o->concurrency = rc ? o->concurrency : (int)num;
    } else if (!strcmp(n, "--drain-time-s")) {
        rc = take_number(n, v, 86400, &num, err);
        o->drain_time_ms = rc ? o->drain_time_ms : num * 1000;
    }
    return rc;
}

static void take_bool(const struct flag *f, struct options *o)
{
    if (!strcmp(f->name, "--help")) {
        o->mode = RUN_HELP;
    } else if (!strcmp(f->name, "--version")) {
        o->mode = RUN_VERSION;
    } else if (!strcmp(f->name, "--log-json")) {
        o->log_json = true;
    }
}

// The flag that arg names ("--x", "--x=v", "-x"); *ret_value is behind '=' or NULL.
static const struct flag *find_flag(const char *arg, const char **ret_value)
{
    const char *eq = strchr(arg, '=');
    size_t n = eq ? (size_t)(eq - arg) : strlen(arg);
    for (size_t i = 0; i < array_len(flags); i++) {
        const struct flag *f = &flags[i];
        if ((strlen(f->name) == n && !strncmp(f->name, arg, n)) || (f->alias && !strcmp(f->alias, arg))) {
            *ret_value = eq ? eq + 1 : NULL;
            return f;
        }
    }
    return NULL;
}

static int take_flag(int argc, char **argv, int *i, bool sidecar, struct options *o, struct err *err)
{
    const char *v = NULL;
    const struct flag *f = find_flag(argv[*i], &v);
    if (!f) {
        if (sidecar) { // pilot-agent's own flags come and go between releases
            fprintf(stderr, "remora-proxy: flag %s has no effect here\n", argv[*i]);
            bool value_follows = !strchr(argv[*i], '=') && *i + 1 < argc && argv[*i + 1][0] != '-';
            *i += value_follows;
            return 0;
        }
        return err_set(err, -EINVAL, "unknown flag %s; see --help", argv[*i]);
    }
    bool wants_value = f->kind == FLAG_VALUE || f->kind == FLAG_IGNORED_VALUE;
    if (wants_value && !v) {
        if (*i + 1 >= argc) {
            return err_set(err, -EINVAL, "%s needs a value", f->name);
        }
        v = argv[++*i];
    }
    if (!wants_value && v) {
        return err_set(err, -EINVAL, "%s takes no value", f->name);
    }
    if (f->kind == FLAG_IGNORED_VALUE || f->kind == FLAG_IGNORED_BOOL) {
        if (!sidecar) {
            fprintf(stderr, "remora-proxy: flag %s has no effect here\n", f->name);
        }
        return 0;
    }
    if (f->kind == FLAG_BOOL) {
        take_bool(f, o);
        return 0;
    }
    return take_value(f, v, o, err);
}

int options_parse(int argc, char **argv, struct options *ret, struct err *err)
{
    struct options o = { .mode = RUN_FILE, .log_level = LOG_INFO, .drain_time_ms = OPTIONS_DRAIN_MS };
    bool sidecar = false;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            if (!strcmp(argv[i], "proxy") && i == 1) {
                continue; // `proxy sidecar`: pilot-agent's spelling
            }
            if (strcmp(argv[i], "sidecar") || sidecar) {
                return err_set(err, -EINVAL, "unexpected argument \"%s\"; see --help", argv[i]);
            }
            sidecar = true;
            o.mode = o.mode == RUN_FILE ? RUN_SIDECAR : o.mode;
            continue;
        }
        int rc = take_flag(argc, argv, &i, sidecar, &o, err);
        if (rc) {
            return rc;
        }
    }
    if (sidecar && (o.mode == RUN_VALIDATE || o.config_path || o.config_yaml)) {
        return err_set(err, -EINVAL, "sidecar is configured by the environment: -c, --config-yaml and --mode validate do not go with it");
    }
    if (o.config_path && o.config_yaml && o.mode != RUN_HELP && o.mode != RUN_VERSION) {
        return err_set(err, -EINVAL, "--config-yaml stands in place of -c FILE: give one of them");
    }
    bool needs_file = o.mode == RUN_FILE || o.mode == RUN_VALIDATE;
    if (needs_file && !o.config_path && !o.config_yaml) {
        return err_set(err, -EINVAL, "no configuration: give -c FILE, or `sidecar` to be configured by the environment");
    }
    *ret = o;
    return 0;
}

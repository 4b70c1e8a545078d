// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/server/options.h"

enum { ARGS_MAX = 16 };

// The words of a command line, without quoting.
static int parse(const char *line, struct options *o, struct err *err)
{
    static char text[512];
    char *argv[ARGS_MAX] = { "remora-proxy" };
    int argc = 1;
    snprintf(text, sizeof(text), "%s", line);
    for (char *w = text, *end; *w && argc < ARGS_MAX; w = end) {
        argv[argc++] = w;
        end = w + strcspn(w, " ");
        end += *end ? (*end = 0, 1) : 0;
    }
    return options_parse(argc, argv, o, err);
}

static void mistakes_name_the_flag(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } v[] = {
        { "", "no configuration" },
        { "--mode validate", "no configuration" },
        { "-c", "--config-path needs a value" },
        { "--concurrency", "--concurrency needs a value" },
        { "-c x --concurrency many", "--concurrency: \"many\" is not a number" },
        { "-c x --concurrency -1", "--concurrency: \"-1\" is not a number" },
        { "-c x --concurrency 100000", "--concurrency: \"100000\" is not a number from 0 to 1024" },
        { "-c x -l loud", "--log-level: unknown level \"loud\"" },
        { "-c x --mode init_only", "--mode: \"init_only\" is neither serve nor validate" },
        { "-c x --drain-time-s 1h", "--drain-time-s: \"1h\" is not a number" },
        { "-c x --no-such-flag", "unknown flag --no-such-flag" },
        { "-c x extra", "unexpected argument \"extra\"" },
        { "sidecar sidecar", "unexpected argument \"sidecar\"" },
        { "-c x --log-json=no", "--log-json takes no value" },
        { "-c x --config-yaml y", "give one of them" },
        { "sidecar -c x", "sidecar is configured by the environment" },
        { "sidecar --mode validate", "sidecar is configured by the environment" },
        { "--mode=validate proxy sidecar", "unexpected argument \"proxy\"" },
        { "--mode=validate sidecar", "sidecar is configured by the environment" },
    };
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
        struct options o = { .concurrency = 77 };
        struct err err = { 0 };
        if (!parse(v[i].line, &o, &err) || !strstr(err.msg, v[i].says)) {
            fail_msg("\"%s\": \"%s\" does not say \"%s\"", v[i].line, err.msg, v[i].says);
        }
        assert_int_equal(o.concurrency, 77); // untouched
    }
}

static void what_is_given_is_taken(void **state)
{
    (void)state;
    struct options o;
    struct err err = { 0 };
    assert_int_equal(parse("-c boot.yaml --concurrency 3 --log-level=debug --component-log-level http:trace --service-node n --service-cluster=c --drain-time-s 9", &o, &err), 0);
    assert_int_equal(o.mode, RUN_FILE);
    assert_string_equal(o.config_path, "boot.yaml");
    assert_int_equal(o.concurrency, 3);
    assert_int_equal(o.log_level, LOG_DEBUG);
    assert_string_equal(o.component_log_level, "http:trace");
    assert_string_equal(o.service_node, "n");
    assert_string_equal(o.service_cluster, "c");
    assert_int_equal(o.drain_time_ms, 9000);
    assert_int_equal(parse("--config-yaml {}", &o, &err), 0);
    assert_string_equal(o.config_yaml, "{}");
    assert_int_equal(o.drain_time_ms, 5000);
    assert_int_equal(o.concurrency, 0);
    assert_int_equal(parse("--mode validate --config-path=x", &o, &err), 0);
    assert_int_equal(o.mode, RUN_VALIDATE);
    assert_int_equal(parse("--config-path x --mode serve --log-json", &o, &err), 0);
    assert_true(o.mode == RUN_FILE && o.log_json);
    // Envoy's flags that have no meaning here do not stop it.
    assert_int_equal(parse("-c x --base-id 1 --disable-hot-restart --parent-shutdown-time-s 60 --drain-strategy immediate", &o, &err), 0);
}

static void as_pilot_agent_is_called(void **state)
{
    (void)state;
    struct options o;
    struct err err = { 0 };
    assert_int_equal(parse("proxy sidecar --domain default.svc.cluster.local --proxyLogLevel=warning --proxyComponentLogLevel=misc:error "
                           "--log_output_level=default:info --concurrency 2", &o, &err), 0);
    assert_int_equal(o.mode, RUN_SIDECAR);
    assert_int_equal(o.log_level, LOG_WARN);
    assert_int_equal(o.concurrency, 2);
    // Flags that other releases have, with a value behind '=' or a space.
    assert_int_equal(parse("sidecar --stsPort 15463 --someBool --outlierLogPath=/dev/stdout --concurrency 1", &o, &err), 0);
    assert_int_equal(o.concurrency, 1);
}

static void help_and_version_win(void **state)
{
    (void)state;
    struct options o;
    struct err err = { 0 };
    assert_int_equal(parse("--help", &o, &err), 0);
    assert_int_equal(o.mode, RUN_HELP);
    assert_int_equal(parse("--version -c x --mode validate", &o, &err), 0);
    assert_int_equal(o.mode, RUN_VERSION);
    assert_int_equal(parse("--help sidecar", &o, &err), 0);
    assert_int_equal(o.mode, RUN_HELP);
    assert_non_null(strstr(options_help(), "--concurrency"));
    assert_null(strstr(options_help(), "--base-id"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_name_the_flag),
        cmocka_unit_test(what_is_given_is_taken),
        cmocka_unit_test(as_pilot_agent_is_called),
        cmocka_unit_test(help_and_version_win),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

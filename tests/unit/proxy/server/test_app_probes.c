// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "proxy/server/app_probes.h"

static void what_the_injector_writes(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct err err = { 0 };
    struct app_probe *v = NULL;
    size_t n = 7;
    assert_int_equal(app_probes_parse(STR("{\"/app-health/app/readyz\":{\"httpGet\":{\"path\":\"/ready?x=1\",\"port\":8080,\"scheme\":\"HTTP\"},\"timeoutSeconds\":3},"
                                          "\"/app-health/db/livez\":{\"tcpSocket\":{\"port\":5432}},"
                                          "\"/app-lifecycle/app/prestopz\":{\"httpGet\":{\"path\":\"bye\",\"port\":8080}},"
                                          "\"/app-health/app/startupz\":{\"httpGet\":{\"port\":8443,\"scheme\":\"HTTPS\"}},"
                                          "\"/app-health/rpc/livez\":{\"grpc\":{\"port\":9000,\"service\":null}}}"),
                                      &a, &v, &n, &err), 0);
    assert_int_equal(n, 5);
    assert_true(str_is(v[0].path, "/app-health/app/readyz") && str_is(v[0].target, "/ready?x=1"));
    assert_true(v[0].kind == APP_PROBE_HTTP && v[0].port == 8080 && v[0].timeout_ms == 3000);
    assert_true(v[1].kind == APP_PROBE_TCP && v[1].port == 5432 && v[1].timeout_ms == 1000);
    assert_true(v[2].kind == APP_PROBE_HTTP && str_is(v[2].target, "/bye"));
    assert_true(v[3].kind == APP_PROBE_UNSUPPORTED && str_is(v[3].target, "/"));
    assert_true(v[4].kind == APP_PROBE_UNSUPPORTED && v[4].port == 9000);
    assert_int_equal(app_probes_parse(STR(""), &a, &v, &n, &err), 0);
    assert_int_equal(n, 0);
    arena_fini(&a);
}

static void what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *text, *reason;
    } v[] = {
        { "[]", "map" },
        { "{", "" },
        { "{\"/health\":{\"tcpSocket\":{\"port\":1}}}", "path" },
        { "{\"/app-health/readyz\":{\"tcpSocket\":{\"port\":1}}}", "path" },
        { "{\"/app-lifecycle/a/readyz\":{\"tcpSocket\":{\"port\":1}}}", "path" },
        { "{\"/app-health/a/readyz\":{}}", "httpGet" },
        { "{\"/app-health/a/readyz\":{\"tcpSocket\":{\"port\":1},\"httpGet\":{\"port\":1}}}", "one of" },
        { "{\"/app-health/a/readyz\":{\"tcpSocket\":{\"port\":\"web\"}}}", "port" },
        { "{\"/app-health/a/readyz\":{\"tcpSocket\":{\"port\":70000}}}", "port" },
        { "{\"/app-health/a/readyz\":{\"tcpSocket\":{}}}", "port" },
        { "{\"/app-health/a/readyz\":{\"tcpSocket\":{\"port\":1},\"timeoutSeconds\":-1}}", "timeoutSeconds" },
    };
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
        struct arena a = { 0 };
        struct err err = { 0 };
        struct app_probe *p = NULL;
        size_t n = 7;
        if (app_probes_parse(str_c(v[i].text), &a, &p, &n, &err) >= 0 || !strstr(err.msg, v[i].reason) || p || n != 7) {
            fail_msg("%s: \"%s\"", v[i].text, err.msg);
        }
        arena_fini(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(what_the_injector_writes), cmocka_unit_test(what_is_wrong) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "proxy/server/sidecar.h"

static void life_times(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t seconds; // -1 = refused
    } v[] = {
        { "", 0 }, { "90", 90 }, { "90s", 90 }, { "30m", 1800 }, { "24h", 86400 }, { "24h0m0s", 86400 }, { "1h30m", 5400 }, { "1h5s", 3605 },
        { "2160h", 90 * 86400 }, { "2161h", -1 }, { "day", -1 }, { "h", -1 }, { "500ms", -1 }, { "1.5h", -1 }, { "-1h", -1 }, { "5s1h", -1 }, { "1h ", -1 },
    };
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
        uint64_t s = 7;
        int rc = sidecar_parse_ttl(str_c(v[i].text), &s);
        if (v[i].seconds < 0 ? rc == 0 || s != 7 : rc != 0 || s != (uint64_t)v[i].seconds) {
            fail_msg("\"%s\": code %d, %llu s", v[i].text, rc, (unsigned long long)s);
        }
    }
}

// Istio's injector mounts the folder empty: only all three files are a workload's own credentials.
static void credentials_in_a_folder(void **state)
{
    (void)state;
    static const char *const names[] = { "cert-chain.pem", "key.pem", "root-cert.pem" };
    char dir[] = "/tmp/remora-credentials-XXXXXX", path[128];
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < 3; i++) {
        assert_false(sidecar_has_credentials(dir));
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fclose(f);
    }
    assert_true(sidecar_has_credentials(dir));
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
    assert_false(sidecar_has_credentials(dir));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(life_times), cmocka_unit_test(credentials_in_a_folder) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

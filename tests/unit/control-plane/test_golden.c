// SPDX-License-Identifier: Apache-2.0
// What one proxy gets for tests/golden/control/config. `REMORA_GOLDEN_WRITE=1 make unit T=control-plane` writes the files anew;
// tests/integration/test_control.py compares them with what a real istiod sent for the same folder.
#include "tests/unit/control-plane/common.h"

#include "lib/base/file.h"
#include "lib/base/json.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proto/types.h"

static struct cp_set *compile(void)
{
    static struct cp_label app = { STR_INIT("app"), STR_INIT("client") };
    struct cp_config *c = NULL;
    struct cp_set *s = NULL;
    struct err err = { 0 };
    struct cp_node n = mesh_node("10.7.0.9");
    n.name = STR("client");
    n.cluster_id = STR("Kubernetes");
    n.labels = (struct cp_labels){ &app, 1 };
    if (cp_load("tests/golden/control/config", &c, &err) || cp_compile(c, &n, &mesh_options, &s, &err)) {
        fail_msg("%s", err.msg);
    }
    cp_config_free(c);
    return s;
}

static struct str text_of(const struct cp_set *s, enum cp_type t, struct arena *a)
{
    struct buf b = { 0 };
    struct json_writer w;
    jw_init(&w, &b, 1);
    jw_array(&w);
    for (size_t i = 0; i < s->n[t]; i++) {
        ProtobufCMessage *m = NULL;
        assert_int_equal(pb_unpack(types_find(cp_type_url(t)), s->v[t][i].bytes, a, &m, NULL), 0);
        pb_json_write(&w, m, 0);
    }
    jw_array_end(&w);
    buf_append(&b, "\n", 1);
    struct str out = arena_str(a, buf_pullup(&b, buf_len(&b)));
    buf_clear(&b);
    return out;
}

static void the_same_as_last_time(void **state)
{
    (void)state;
    struct cp_set *s = compile();
    for (int t = 0; t < CP_TYPE_COUNT; t++) {
        struct arena a = { 0 };
        struct str want = { 0 }, got = text_of(s, (enum cp_type)t, &a);
        struct err err = { 0 };
        char path[128];
        snprintf(path, sizeof(path), "tests/golden/control/%s.json", cp_type_short((enum cp_type)t));
        if (getenv("REMORA_GOLDEN_WRITE")) {
            assert_int_equal(file_write_atomic(path, got, 0644, &err), 0);
        }
        assert_int_equal(file_read(path, 4 << 20, &a, &want, &err), 0);
        assert_true(want.n > 1000);
        if (!str_eq(want, got)) {
            size_t i = 0;
            while (i < want.n && i < got.n && want.p[i] == got.p[i]) {
                i++;
            }
            size_t from = i > 400 ? i - 400 : 0;
            fail_msg("%s differs at byte %zu (see the head of this test). Now:\n%.800s", path, i, got.p + from);
        }
        arena_fini(&a);
    }
    cp_set_unref(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(the_same_as_last_time) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// verify, and --run-validation behind an apply.
#include "init-net/commands.h"
#include "init-net/plan.h"
#include "init-net/report.h"
#include "init-net/verify.h"

static const char *const words[] = { "ok", "failed", "skipped" };

static void show_text(const struct options *o, const struct verify_result *v)
{
    for (size_t i = 0; i < v->n; i++) {
        const struct check *c = &v->checks[i];
        report_message(o, c->state == CHECK_FAILED ? "error" : "info", "verify: %s: %s: %s", c->name, words[c->state],
                       c->text);
    }
    if (!v->failed && !v->probed) {
        report_message(o, "info", "verify: no connection could be tried as this user; only what is shown above was checked");
    }
}

void cmd_verify_put(struct json_writer *w, const struct verify_result *v)
{
    jw_kv_bool(w, "probed", v->probed);
    jw_key(w, STR("checks"));
    jw_array(w);
    for (size_t i = 0; i < v->n; i++) {
        jw_object(w);
        jw_kv(w, "name", str_c(v->checks[i].name));
        jw_kv(w, "result", str_c(words[v->checks[i].state]));
        jw_kv(w, "text", str_c(v->checks[i].text));
        jw_object_end(w);
    }
    jw_array_end(w);
}

int cmd_verify_run(struct options *o, struct verify_result *ret)
{
    struct plan p;
    plan_build(o, o->arena, &p);
    verify_run(&p, o, o->probe_timeout_ms, ret);
    if (o->output == OUTPUT_TEXT) {
        show_text(o, ret);
    }
    return ret->failed ? EXIT_VALIDATION : EXIT_OK;
}

int cmd_verify(struct options *o, const struct facts *facts)
{
    (void)facts;
    struct verify_result v;
    int code = cmd_verify_run(o, &v);
    report_warnings(o);
    if (o->output == OUTPUT_JSON) {
        struct json_writer w;
        struct buf out = { 0 };
        report_begin(o, &w, &out, v.failed ? "failed" : "verified");
        cmd_verify_put(&w, &v);
        report_end(o, &w, &out);
    }
    return code;
}

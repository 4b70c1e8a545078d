// SPDX-License-Identifier: Apache-2.0
// remoractl proxy-config log: shows and changes log levels through POST /logging
#include <errno.h>

#include "cli/commands.h"
#include "cli/describe.h"
#include "cli/source.h"
#include "lib/base/check.h"

// The level as Envoy's admin spells it, NULL when there is none of this name.
static const char *level_of(struct str word)
{
    static const char *const levels[] = { "trace", "debug", "info", "warning", "error", "critical", "off" };
    for (size_t i = 0; i < array_len(levels); i++) {
        if (str_is(word, levels[i])) {
            return levels[i];
        }
    }
    return str_is(word, "warn") ? "warning" : NULL;
}

// "LEVEL" or "COMPONENT:LEVEL" ('=' too) as a query; the component is checked by the proxy.
static int query_of(struct str item, struct arena *a, const char **ret, struct err *err)
{
    struct str rest = item, component = str_split(&rest, str_find(item, ':') >= 0 ? ':' : '=');
    const char *level = level_of(rest.p ? rest : component);
    if (!level) {
        return err_set(err, -EINVAL, "--level %.*s: levels are trace, debug, info, warning, error, critical, off", STR_FMT(item));
    }
    if (!rest.p) {
        component = STR("level");
    }
    for (size_t i = 0; i < component.n; i++) {
        char ch = component.p[i];
        if (!((ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') || ch == '_' || ch == '-')) {
            return err_set(err, -EINVAL, "--level %.*s: this is no name of a component; remoractl pc log lists them", STR_FMT(item));
        }
    }
    *ret = arena_printf(a, "/logging?%.*s=%s", STR_FMT(component), level).p;
    return 0;
}

int cmd_pc_log(struct cli *c, struct err *err)
{
    struct str rest = c->o.reset ? STR("warning") : c->o.level, answer = { 0 };
    if (c->o.reset && c->o.level.n) {
        return err_set(err, -EINVAL, "--level and --reset: only one can be done");
    }
    int r = 0;
    if (!rest.n) {
        r = source_post(c, "/logging", &answer, err);
    }
    while (rest.n && !r) {
        const char *path = NULL;
        r = query_of(str_split(&rest, ','), c->arena, &path, err);
        r = r ? r : source_post(c, path, &answer, err);
    }
    if (r == 0) {
        buf_append_str(&c->out, answer);
    }
    return r;
}

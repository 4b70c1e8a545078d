// SPDX-License-Identifier: Apache-2.0
// remoractl proxy-status: /debug/syncz of remora-control
#include <errno.h>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/source.h"
#include "lib/base/check.h"

static const char *const types[] = { "CDS", "LDS", "EDS", "RDS" };

static struct str status_of(const struct json *proxy, const char *type)
{
    struct str s = dump_str(dump_get(dump_get(proxy, "types"), type), "status");
    return s.n ? s : STR("IGNORED");
}

static void add_row(struct table *t, const struct json *proxy, struct str control)
{
    struct str cells[4 + array_len(types)] = { dump_str(proxy, "proxy"), dump_str(proxy, "cluster_id") };
    size_t n = 2;
    for (size_t i = 0; i < array_len(types); i++) {
        cells[n++] = status_of(proxy, types[i]);
    }
    cells[n++] = control;
    cells[n] = dump_str(proxy, "version");
    table_row(t, cells);
}

// What a proxy refused, and why: more than a word in a table can say. Set off from the table by an empty line.
static void write_errors(struct buf *out, const struct json *proxy, bool *any)
{
    const struct json *list = dump_get(proxy, "types");
    struct str name = dump_str(proxy, "proxy");
    for (const struct json *m = list ? list->first : NULL; m; m = m->next) {
        struct str why = dump_str(m, "last_error"), status = dump_str(m, "status");
        if (why.n && !str_is(status, "SYNCED")) {
            buf_printf(out, "%s%.*s rejected %.*s version %u (version %u is in force): %.*s\n", *any ? "" : "\n", STR_FMT(name),
                       STR_FMT(m->key), dump_u32(m, "sent_version"), dump_u32(m, "acked_version"), STR_FMT(why));
            *any = true;
        }
    }
}

static void write_table(struct cli *c, const struct json *answer, const struct json *proxies)
{
    struct str control = dump_str(answer, "control_plane"), config_error = dump_str(answer, "config_error");
    struct table t;
    bool any = false;
    table_init(&t, c->arena, 5);
    table_header(&t, "NAME\tCLUSTER\tCDS\tLDS\tEDS\tRDS\tISTIOD\tVERSION");
    for (const struct json *m = proxies->first; m; m = m->next) {
        add_row(&t, m, control);
    }
    output_table(c, &t);
    for (const struct json *m = proxies->first; m; m = m->next) {
        write_errors(&c->out, m, &any);
    }
    if (config_error.n) {
        buf_printf(&c->out, "\nthe files on disk are not in force (version %u of the configuration is): %.*s\n",
                   dump_u32(answer, "config_version"), STR_FMT(config_error));
    }
    if (proxies->count == 0) {
        cli_note(c, "no proxy is connected");
    }
}

int cmd_ps(struct cli *c, struct err *err)
{
    struct json *answer;
    int r = source_control(c, "/debug/syncz", &answer, err);
    if (r) {
        return r;
    }
    const struct json *proxies = dump_get(answer, "proxies");
    if (!proxies || proxies->type != JSON_ARRAY) {
        return err_set(err, -EINVAL,
                       "the answer has no \"proxies\"; is this remora-control's monitoring address? (an istiod needs: istioctl ps)");
    }
    if (c->o.format == FORMAT_TABLE) {
        write_table(c, answer, proxies);
    } else {
        output_tree(c, answer);
    }
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
// remoractl proxy-config all
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/source.h"
#include "lib/base/check.h"

int cmd_pc_all(struct cli *c, struct err *err)
{
    static const struct {
        const char *heading;
        int (*write)(struct cli *c, const struct json *dump, struct err *err);
    } parts[] = {
        { "BOOTSTRAP INFO", table_bootstrap }, { "CLUSTER INFO", table_clusters }, { "LISTENER INFO", table_listeners },
        { "ROUTE INFO", table_routes },        { "SECRET INFO", table_secrets },   { "ENDPOINTS INFO", table_eds },
    };
    struct json *dump;
    int r = source_admin(c, "/config_dump?include_eds=true", &dump, err);
    if (r) {
        return r;
    }
    if (c->o.format != FORMAT_TABLE) {
        output_tree(c, dump);
        return 0;
    }
    c->kinds = true;
    for (size_t i = 0; i < array_len(parts) && !r; i++) {
        if (i) {
            buf_append(&c->out, "\n", 1);
        }
        if (c->o.with_headers) {
            buf_printf(&c->out, "------ %s ------\n\n", parts[i].heading);
        }
        r = parts[i].write(c, dump, err);
    }
    return r;
}

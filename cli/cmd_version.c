// SPDX-License-Identifier: Apache-2.0
#include "cli/commands.h"
#include "cli/output.h"

int cmd_version(struct cli *c, struct err *err)
{
    (void)err;
    if (c->o.format == FORMAT_TABLE) {
        buf_printf(&c->out, "remoractl %s\n", REMORA_VERSION);
        return 0;
    }
    struct json version = { .type = JSON_STRING, .key = STR("clientVersion"), .text = STR(REMORA_VERSION) };
    struct json object = { .type = JSON_OBJECT, .first = &version, .count = 1 };
    output_tree(c, &object);
    return 0;
}

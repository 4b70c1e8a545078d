// SPDX-License-Identifier: Apache-2.0
// remoractl proxy-config bootstrap
#include <errno.h>

#include "cli/commands.h"
#include "cli/describe.h"
#include "cli/output.h"
#include "cli/source.h"
#include "lib/base/check.h"

// "1.40.0/Clean/RELEASE/BoringSSL" from core.v3.BuildVersion.
static struct str version_text(const struct json *build, struct arena *a)
{
    static const struct {
        const char *key, *before;
    } parts[] = { { "build.label", "-" }, { "revision.status", "/" }, { "build.type", "/" }, { "ssl.version", "/" } };
    const struct json *version = dump_get(build, "version"), *metadata = dump_get(build, "metadata");
    struct buf b = { 0 };
    buf_printf(&b, "%u.%u.%u", dump_u32(version, "major_number"), dump_u32(version, "minor_number"), dump_u32(version, "patch"));
    for (size_t i = 0; i < array_len(parts); i++) {
        const struct json *m = dump_get(metadata, parts[i].key);
        if (m) {
            buf_printf(&b, "%s%.*s", parts[i].before, STR_FMT(m->text));
        }
    }
    return describe_take(&b, a);
}

static int find_section(const struct json *dump, const struct json **ret, struct err *err)
{
    *ret = dump_get(dump, "configs") ? dump_section(dump, "BootstrapConfigDump") : dump_get(dump, "bootstrap") ? dump : NULL;
    return *ret ? 0 : err_set(err, -ENOENT, "the dump has no BootstrapConfigDump; save a whole one with: curl ADMIN/config_dump");
}

int table_bootstrap(struct cli *c, const struct json *dump, struct err *err)
{
    const struct json *section;
    int r = find_section(dump, &section, err);
    if (r) {
        return r;
    }
    const struct json *node = dump_path(section, "bootstrap.node"), *metadata = dump_get(node, "metadata");
    struct str istio = dump_str(metadata, "ISTIO_VERSION"), sha = dump_str(metadata, "ISTIO_PROXY_SHA"), rest = sha;
    struct table t;
    table_init(&t, c->arena, 1);
    t.columns = 2;
    str_split(&rest, ':');
    sha = rest.p ? str_split(&rest, ':') : sha; // "istio-proxy:SHA"
    if (istio.n) {
        table_row(&t, (struct str[]){ STR("Istio Version:"), istio });
    }
    if (sha.n) {
        table_row(&t, (struct str[]){ STR("Istio Proxy Version:"), sha });
    }
    table_row(&t, (struct str[]){ STR("Envoy Version:"), version_text(dump_get(node, "user_agent_build_version"), c->arena) });
    output_table(c, &t);
    return 0;
}

int cmd_pc_bootstrap(struct cli *c, struct err *err)
{
    struct json *dump;
    const struct json *section;
    int r = source_admin(c, "/config_dump?mask=bootstrap", &dump, err);
    if (r) {
        return r;
    }
    if (c->o.output.n && c->o.format == FORMAT_TABLE) {
        return table_bootstrap(c, dump, err);
    }
    r = find_section(dump, &section, err);
    if (r == 0) {
        output_tree(c, output_without_type(section, c->arena));
    }
    return r;
}

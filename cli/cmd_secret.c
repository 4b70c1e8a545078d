// SPDX-License-Identifier: Apache-2.0
// remoractl proxy-config secret
#include <errno.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/source.h"
#include "lib/base/base64.h"
#include "lib/base/check.h"
#include "lib/tls/cert.h"

// One certificate: a secret is one, a SPIFFE validator has one per trust domain.
struct row {
    struct str name, trust_domain;
    const char *state;
    bool parsed;
    struct cert_info cert;
};

struct rows {
    struct row *v;
    size_t n, cap;
};

static void add(struct rows *l, const struct row *r, struct arena *a)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 8;
        struct row *v = arena_array(a, struct row, cap);
        if (l->n) {
            memcpy(v, l->v, l->n * sizeof(*v));
        }
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = *r;
}

// The first certificate of a PEM text: the leaf of a chain. Others may be broken without harm here.
static bool parse_first(struct str pem, struct arena *a, struct cert_info *ret)
{
    static const struct str end = STR_INIT("-----END CERTIFICATE-----");
    struct cert_info *list;
    size_t n;
    ptrdiff_t at = str_find_str(pem, end);
    if (at < 0 || cert_parse_bundle(str_n(pem.p, (size_t)at + end.n), a, &list, &n, NULL) || n == 0) {
        return false;
    }
    *ret = list[0];
    return true;
}

static struct str trust_domain_of(const struct cert_info *cert)
{
    static const struct str scheme = STR_INIT("spiffe://");
    for (size_t i = 0; i < cert->san_count; i++) {
        if (cert->sans[i].type == SAN_URI && str_starts(cert->sans[i].value, scheme)) {
            struct str rest = str_skip(cert->sans[i].value, scheme.n);
            return str_split(&rest, '/');
        }
    }
    return STR("");
}

// base64 as ProtoJSON has bytes; a text in place of it is taken as it is.
static void add_pem(struct rows *l, struct row *r, const struct json *source, struct arena *a)
{
    struct str bytes = dump_str(source, "inline_bytes"), text = dump_str(source, "inline_string"), pem;
    if (bytes.n) {
        text = base64_decode(a, bytes, &pem) ? pem : bytes;
    }
    r->parsed = parse_first(text, a, &r->cert);
    if (r->parsed && !r->trust_domain.n) {
        r->trust_domain = trust_domain_of(&r->cert);
    }
    add(l, r, a);
}

static void add_secret(struct rows *l, const struct json *entry, const char *state, struct arena *a)
{
    const struct json *secret = dump_get(entry, "secret"), *context = dump_get(secret, "validation_context");
    const struct json *chain = dump_path(secret, "tls_certificate.certificate_chain"), *ca = dump_get(context, "trusted_ca");
    const struct json *domains = dump_path(context, "custom_validator_config.typed_config.trust_domains");
    struct row r = { .name = dump_str(entry, "name"), .state = state };
    if (str_is(dump_str(entry, "version_info"), "uninitialized")) {
        r.state = "UNINITIALIZED";
    }
    if (chain || ca || !domains) {
        add_pem(l, &r, chain ? chain : ca, a);
        return;
    }
    for (const struct json *m = domains->first; m; m = m->next) {
        struct row one = r;
        one.trust_domain = dump_str(m, "name");
        add_pem(l, &one, dump_get(m, "trust_bundle"), a);
    }
}

static struct str time_text(int64_t s, struct arena *a)
{
    char text[32];
    time_t t = (time_t)s;
    struct tm tm;
    if (!gmtime_r(&t, &tm) || !strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm)) {
        return STR("");
    }
    return arena_str(a, str_c(text));
}

// 32 digits at least, as istioctl prints them.
static struct str serial_text(struct str hex, struct arena *a)
{
    while (hex.n > 1 && hex.p[0] == '0') {
        hex = str_skip(hex, 1);
    }
    static const char zeros[] = "00000000000000000000000000000000";
    int pad = hex.n < sizeof(zeros) - 1 ? (int)(sizeof(zeros) - 1 - hex.n) : 0;
    return arena_printf(a, "%.*s%.*s", pad, zeros, STR_FMT(hex));
}

static void add_row(struct cli *c, struct table *t, const struct row *r)
{
    const struct cert_info *cert = &r->cert;
    struct str name = c->kinds ? arena_printf(c->arena, "secret/%.*s", STR_FMT(r->name)) : r->name;
    struct str cells[8] = { name, STR(""), str_c(r->state), STR("false"), STR(""), STR(""), STR(""), r->trust_domain };
    if (r->parsed) {
        bool valid = c->now_s > cert->not_before_s && c->now_s < cert->not_after_s;
        cells[1] = cert->is_ca ? STR("CA") : STR("Cert Chain");
        cells[3] = valid ? STR("true") : STR("false");
        cells[4] = serial_text(cert->serial_hex, c->arena);
        cells[5] = time_text(cert->not_after_s, c->arena);
        cells[6] = time_text(cert->not_before_s, c->arena);
    }
    table_row(t, cells);
}

static int find_section(const struct json *dump, const struct json **ret, struct err *err)
{
    *ret = dump_section(dump, "SecretsConfigDump");
    if (!*ret && !dump_get(dump, "configs") && !dump_get(dump, "dynamic_active_secrets")) {
        return err_set(err, -EINVAL, "this is not a config dump (it has no \"configs\"); save one with: curl ADMIN/config_dump");
    }
    if (!*ret) {
        *ret = dump; // `pc secret -o json` prints the section alone; without one there are no secrets
    }
    return 0;
}

int table_secrets(struct cli *c, const struct json *dump, struct err *err)
{
    static const struct {
        const char *member, *state;
    } lists[] = { { "dynamic_warming_secrets", "WARMING" }, { "dynamic_active_secrets", "ACTIVE" } };
    const struct json *section;
    struct rows rows = { 0 };
    int r = find_section(dump, &section, err);
    if (r) {
        return r;
    }
    bool domains = true;
    for (size_t i = 0; i < array_len(lists); i++) {
        const struct json *list = dump_get(section, lists[i].member);
        for (const struct json *m = list ? list->first : NULL; m; m = m->next) {
            add_secret(&rows, m, lists[i].state, c->arena);
        }
    }
    if (rows.n == 0) {
        buf_printf(&c->out, "No active or warming secrets found.\n");
        return 0;
    }
    for (size_t i = 0; i < rows.n; i++) {
        domains = domains && rows.v[i].trust_domain.n;
    }
    struct table t;
    table_init(&t, c->arena, 5);
    table_header(&t, domains ? "RESOURCE NAME\tTYPE\tSTATUS\tVALID CERT\tSERIAL NUMBER\tNOT AFTER\tNOT BEFORE\tTRUST DOMAIN"
                             : "RESOURCE NAME\tTYPE\tSTATUS\tVALID CERT\tSERIAL NUMBER\tNOT AFTER\tNOT BEFORE");
    for (size_t i = 0; i < rows.n; i++) {
        add_row(c, &t, &rows.v[i]);
    }
    output_table(c, &t);
    return 0;
}

int cmd_pc_secret(struct cli *c, struct err *err)
{
    struct json *dump;
    const struct json *section;
    int r = source_admin(c, "/config_dump?mask=dynamic_active_secrets,dynamic_warming_secrets", &dump, err);
    if (r || c->o.format == FORMAT_TABLE) {
        return r ? r : table_secrets(c, dump, err);
    }
    r = find_section(dump, &section, err);
    if (r == 0) {
        static const struct json none = { .type = JSON_OBJECT };
        output_tree(c, section == dump && dump_get(dump, "configs") ? &none : output_without_type(section, c->arena));
    }
    return r;
}

// SPDX-License-Identifier: Apache-2.0
// remoractl explain METHOD URL: asks a proxy which way a request would take, and why not another.
#include <errno.h>

#include "cli/commands.h"
#include "cli/dump.h"
#include "cli/output.h"
#include "cli/source.h"

// name=percent-encoded value, with what goes before.
static void add(struct buf *b, const char *name, struct str value)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:";
    if (!value.n) {
        return;
    }
    buf_printf(b, "%s%s=", b->len > 9 ? "&" : "?", name);
    for (size_t i = 0; i < value.n; i++) {
        if (memchr(plain, value.p[i], sizeof(plain) - 1)) {
            buf_append(b, &value.p[i], 1);
        } else {
            buf_printf(b, "%%%02X", (unsigned char)value.p[i]);
        }
    }
}

static struct str page(struct cli *c, const char *method, const char *url)
{
    struct buf b = { 0 };
    buf_append_str(&b, STR("/explain"));
    add(&b, "method", str_c(method));
    add(&b, "url", str_c(url));
    add(&b, "dst", c->o.dst);
    add(&b, "source", c->o.source);
    add(&b, "listener", c->o.listener);
    for (size_t i = 0; i < c->o.header_count; i++) {
        add(&b, "header", c->o.headers[i]);
    }
    char *out = arena_alloc(c->arena, b.len + 1);
    size_t n = buf_peek(&b, 0, out, b.len);
    out[n] = '\0';
    buf_clear(&b);
    return str_n(out, n);
}

static void show(struct cli *c, const struct json *answer)
{
    struct table t;
    table_init(&t, c->arena, 5);
    table_header(&t, "STEP\tVERDICT\tNAME\tWHY");
    const struct json *steps = json_get(answer, "steps");
    for (const struct json *s = steps ? steps->first : NULL; s; s = s->next) {
        table_row(&t, (const struct str[]){ json_str(s, "step"), json_str(s, "verdict"), json_str(s, "name"), json_str(s, "why") });
    }
    output_table(c, &t);
    if (!c->o.no_headers) {
        buf_printf(&c->out, "\n%.*s: %.*s\n", STR_FMT(json_str(answer, "request")), STR_FMT(json_str(answer, "result")));
    }
}

int cmd_explain(struct cli *c, struct err *err)
{
    if (c->word_count < 1 || c->word_count > 2) {
        return err_set(err, -EINVAL, "explain wants a method (GET where it is left out) and an address: remoractl explain GET http://reviews:9080/x");
    }
    struct json *answer;
    const char *method = c->word_count == 2 ? c->words[0] : "GET", *url = c->words[c->word_count - 1];
    int rc = source_admin(c, page(c, method, url).p, &answer, err);
    if (rc) {
        return rc;
    }
    if (c->o.format == FORMAT_TABLE) {
        show(c, answer);
    } else {
        output_tree(c, answer);
    }
    return 0;
}

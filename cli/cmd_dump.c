// SPDX-License-Identifier: Apache-2.0
// remoractl dump: the pages of the admin port in one file, to keep or to send to somebody. Every `pc` command reads it with -f.
// Proxies leave private keys out of their pages themselves.
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/source.h"
#include "lib/base/check.h"

static const struct page {
    const char *name, *path;
    bool text; // not JSON
} pages[] = {
    { "server_info", "/server_info", false },
    { "config_dump", "/config_dump?include_eds=true", false },
    { "clusters", "/clusters?format=json", false },
    { "listeners", "/listeners?format=json", false },
    { "certs", "/certs", false },
    { "memory", "/memory", false },
    { "stats", "/stats", true },
};

static int read_page(struct cli *c, const struct page *p, struct json *ret, struct err *err)
{
    struct json *tree = NULL;
    struct str text = { 0 };
    int r = p->text ? source_text(c, p->path, &text, err) : source_admin(c, p->path, &tree, err);
    if (r == 0 && p->text) {
        *ret = (struct json){ .type = JSON_STRING, .text = text };
    } else if (r == 0) {
        *ret = *tree;
    }
    return r;
}

int cmd_dump(struct cli *c, struct err *err)
{
    struct json members[array_len(pages)] = { 0 }, all = { .type = JSON_OBJECT }, **last = &all.first;
    for (size_t i = 0; i < array_len(pages); i++) {
        struct err why = { 0 };
        int r = read_page(c, &pages[i], &members[i], &why);
        if (r && i == 0) { // nobody there: the others would only repeat it
            return err_set(err, r, "%s", why.msg);
        }
        if (r) {
            cli_note(c, "left out: %s", why.msg);
            continue;
        }
        members[i].key = str_c(pages[i].name);
        members[i].next = NULL;
        *last = &members[i];
        last = &members[i].next;
        all.count++;
    }
    output_tree(c, &all);
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
// Tables and trees as text. Tables look as Go's text/tabwriter makes them, since that is what istioctl's users' scripts read:
// columns padded with spaces to the widest cell plus a gutter, nothing behind the last cell.
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include "cli/cli.h"
#include "cli/dump.h"

enum { TABLE_COLUMNS_MAX = 10 };

struct table {
    struct arena *arena; // borrowed
    int gutter;          // spaces between columns
    size_t columns;
    struct str *cells; // rows * columns
    size_t rows, cap;
    size_t headers; // 1 when the first row is one
};

// No columns yet: the first row decides.
void table_init(struct table *t, struct arena *a, int gutter);
// Header row: names separated by '\t'.
void table_header(struct table *t, const char *names);
// A row of t->columns cells. Control characters become '?': names come from the network and go to a terminal.
void table_row(struct table *t, const struct str *cells);
// Appends to out. color: words of bad and good states get colours. show_headers: false leaves the header row out, and its
// width out of account.
void table_write(const struct table *t, struct buf *out, bool color, bool show_headers);
// table_write with the options of the command line.
void output_table(struct cli *c, const struct table *t);

// A list of resources as JSON (four spaces) or YAML, as c->o.format says.
void output_list(struct cli *c, const struct dump_list *l);
// One tree likewise.
void output_tree(struct cli *c, const struct json *n);
// The members of an object but "@type".
const struct json *output_without_type(const struct json *n, struct arena *a);

// Writes all of b to a descriptor and empties it. 0 or -errno.
int output_flush(int fd, struct buf *b);

#endif

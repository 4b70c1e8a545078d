// SPDX-License-Identifier: Apache-2.0
// fuzz-modules: lib/base
// What json_parse takes, jw_tree writes so that it is taken again and written the same.
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct str write_tree(struct buf *b, const struct json *n, int indent)
{
    struct json_writer w;
    jw_init(&w, b, indent);
    jw_tree(&w, n);
    return buf_pullup(b, b->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a, b = { 0 }; // b without limit: the tree's text may be larger than the input
    struct json *n, *again;
    struct err err;
    arena_init(&a, 0, 1 << 20);
    if (json_parse(str_n(data, size), &a, &n, &err) == 0) {
        struct buf one = { 0 }, two = { 0 };
        struct str s = write_tree(&one, n, 2);
        CHECK(json_parse(s, &b, &again, &err) == 0);
        CHECK(str_eq(s, write_tree(&two, again, 2)));
        buf_clear(&one);
        buf_clear(&two);
    }
    arena_fini(&a);
    arena_fini(&b);
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
// fuzz-modules: lib/base
// What yaml_parse takes, yaml_write writes so that it is read as the same tree.
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t count_nodes(const struct json *n, size_t limit)
{
    size_t sum = 1;
    for (const struct json *m = n->first; m && sum < limit; m = m->next) {
        sum += count_nodes(m, limit - sum);
    }
    return sum;
}

static void check_same(const struct json *a, const struct json *b)
{
    CHECK(a->count == b->count && str_eq(a->key, b->key));
    // A null and its several spellings are one; a document of "~" is written "null".
    CHECK(a->type == b->type && (a->type == JSON_NULL || a->type == JSON_BOOL || str_eq(a->text, b->text)));
    CHECK(a->type != JSON_BOOL || a->boolean == b->boolean);
    const struct json *q = b->first;
    for (const struct json *p = a->first; p; p = p->next, q = q->next) {
        CHECK(q);
        check_same(p, q);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a, b = { 0 };
    struct json *docs, *again;
    struct err err;
    arena_init(&a, 0, 1 << 20);
    if (yaml_parse(str_n(data, size), &a, &docs, &err) == 0) {
        for (const struct json *n = docs->first; n; n = n->next) {
            if (count_nodes(n, 10000) >= 10000) {
                continue; // many aliases: writing would only take long
            }
            struct buf out = { 0 };
            yaml_write(&out, n);
            CHECK(yaml_parse(buf_pullup(&out, out.len), &b, &again, &err) == 0);
            CHECK(again->count == 1);
            check_same(n, again->first);
            buf_clear(&out);
        }
    }
    arena_fini(&a);
    arena_fini(&b);
    return 0;
}

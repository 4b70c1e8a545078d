// SPDX-License-Identifier: Apache-2.0
// Claims as google.protobuf.Struct: what is written is what protobuf takes (but for NUL in text, which our reader of messages does not), and reads
// back as the same JSON; nothing is written beyond its room. Places of tokens in paths: taking a parameter out leaves none of that name.
#include "lib/base/check.h"
#include "proto/pb_util.h"
#include "proxy/core/metadata.h"
#include "proxy/filters/http/jwt_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_claims(struct str text, struct arena *a)
{
    static const struct str split[] = { STR_INIT("scope"), STR_INIT("a") };
    struct json *object = NULL;
    if (json_parse(text, a, &object, NULL) || object->type != JSON_OBJECT) {
        return;
    }
    struct str bytes = jwt_struct_bytes(object, split, 2, a);
    Google__Protobuf__Struct *m = NULL;
    struct err err = { 0 };
    if (pb_unpack_as(Google__Protobuf__Struct, google__protobuf__struct, bytes, a, &m, &err)) {
        CHECK(memchr(text.p, '\\', text.n)); // \u0000
        return;
    }
    CHECK(m->n_fields == object->count);
    struct buf one = { 0 }, two = { 0 };
    const struct metadata_value v = { .kind = MV_STRUCT, .bytes = bytes }, w = { .kind = MV_STRUCT, .bytes = pb_pack(&m->base, a) };
    metadata_json(&v, &one);
    metadata_json(&w, &two);
    CHECK(str_eq(buf_pullup(&one, one.len), buf_pullup(&two, two.len)));
    buf_clear(&one);
    buf_clear(&two);
}

static void check_path(struct str path, struct arena *a)
{
    struct jwt_location at = { .place = JWT_IN_PARAM, .name = STR("t") };
    const struct jwt_locations l = { &at, 1 };
    struct http_request r = { .path = arena_str(a, path) };
    struct jwt_found v[JWT_TOKENS_MAX];
    bool more;
    headers_init(&r.headers, a);
    headers_add(&r.headers, STR("cookie"), r.path);
    headers_add(&r.headers, STR("authorization"), r.path);
    (void)jwt_extract(&l, &r, a, v, &more);
    jwt_remove(&at, &r, a);
    CHECK(r.path.n <= path.n && jwt_extract(&l, &r, a, v, &more) == 0);
    at = (struct jwt_location){ .place = JWT_IN_COOKIE, .name = STR("t") };
    (void)jwt_extract(&l, &r, a, v, &more);
    at = (struct jwt_location){ .place = JWT_IN_HEADER, .name = STR("authorization"), .prefix = STR("B ") };
    if (jwt_extract(&l, &r, a, v, &more)) {
        CHECK(v[0].token.p >= r.headers.v[1].value.p && v[0].token.p + v[0].token.n <= r.headers.v[1].value.p + r.headers.v[1].value.n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena a = { 0 };
    check_claims(str_n(data, n), &a);
    check_path(str_n(data, n), &a);
    arena_fini(&a);
    return 0;
}

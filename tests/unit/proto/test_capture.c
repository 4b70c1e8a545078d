// SPDX-License-Identifier: Apache-2.0
// Real responses of a real istiod: all of them decode, every Any in them has a type we know, and pb
// → JSON → pb loses nothing. Reads tests/golden/istiod, and the folder named by REMORA_CAPTURE when
// that is set.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <ftw.h>

#include "envoy/service/discovery/v3/discovery.pb-c.h"
#include "lib/base/check.h"
#include "lib/base/file.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proto/types.h"
#include "udpa/type/v1/typed_struct.pb-c.h"

enum { FILES_MAX = 500 };

static char *files[FILES_MAX];
static size_t n_files;

struct tally {
    size_t any, typed_structs, unknown_fields, resources;
};

static int collect(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    if (type == FTW_F && n_files < FILES_MAX) {
        files[n_files++] = strdup(path);
    }
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int setup(void **state)
{
    (void)state;
    const char *more = getenv("REMORA_CAPTURE");
    if (nftw("tests/golden/istiod", collect, 16, FTW_PHYS) != 0 ||
        (more && nftw(more, collect, 16, FTW_PHYS) != 0)) {
        print_error("captures not readable; run from the repository's root\n");
        return -1;
    }
    qsort(files, n_files, sizeof(files[0]), by_name);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    while (n_files) {
        free(files[--n_files]);
    }
    return 0;
}

static void walk(const ProtobufCMessage *m, struct arena *a, struct tally *t);

static void walk_any(const Google__Protobuf__Any *any, struct arena *a, struct tally *t)
{
    ProtobufCMessage *m, *content;
    struct err err;
    t->any++;
    if (pb_any_unpack(any, NULL, a, &m, &err) < 0) {
        fail_msg("%s: %s", any->type_url, err.msg);
    }
    walk(m, a, t);
    const ProtobufCMessageDescriptor *plain = types_find(str_c(any->type_url));
    if (plain != m->descriptor) { // a TypedStruct was converted
        t->typed_structs++;
        assert_int_equal(pb_unpack(plain, pb_bytes(any->value), a, &content, &err), 0);
        walk(content, a, t);
        const Udpa__Type__V1__TypedStruct *ts =
            (const void *)content; // the only kind that istiod sends
        if (pb_json_from_struct(ts->value, m->descriptor, 0, a, &m, &err) < 0) {
            fail_msg("%s: %s", ts->type_url, err.msg); // a member that our message lacks
        }
    }
}

static void walk(const ProtobufCMessage *m, struct arena *a, struct tally *t)
{
    t->unknown_fields += m->n_unknown_fields;
    if (m->n_unknown_fields) {
        print_error("%s has the unknown field %u\n", m->descriptor->name, m->unknown_fields[0].tag);
    }
    if (m->descriptor == &google__protobuf__any__descriptor) {
        walk_any((const Google__Protobuf__Any *)m, a, t);
        return;
    }
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        const char *q = (const char *)m + f->quantifier_offset, *p = (const char *)m + f->offset;
        if (f->type != PROTOBUF_C_TYPE_MESSAGE) {
            continue;
        }
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            for (size_t j = 0; j < *(const size_t *)(const void *)q; j++) {
                walk((*(ProtobufCMessage * *const *)(const void *)p)[j], a, t);
            }
        } else if ((!(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) ||
                    *(const uint32_t *)(const void *)q == f->id) &&
                   *(ProtobufCMessage *const *)(const void *)p) {
            walk(*(ProtobufCMessage *const *)(const void *)p, a, t);
        }
    }
}

// Bytes that our encoder leaves out and others write: key and value of a map entry that have
// default values.
static size_t left_out;

static void count_defaults(const ProtobufCMessage *entry)
{
    for (unsigned i = 0; i < 2; i++) {
        const ProtobufCFieldDescriptor *f = &entry->descriptor->fields[i];
        if (f->type == PROTOBUF_C_TYPE_STRING &&
            **(char *const *)(const void *)((const char *)entry + f->offset) == 0) {
            left_out += 2;
        }
    }
}

// Packs m with the content of every Any packed anew by us: Go's encoder orders fields differently.
// As many bytes as came at each level show that nothing was lost.
static struct str normal_form(ProtobufCMessage *m, struct arena *a)
{
    if (m->descriptor == &google__protobuf__any__descriptor) {
        Google__Protobuf__Any *any = (Google__Protobuf__Any *)m;
        const ProtobufCMessageDescriptor *desc = types_find(str_c(any->type_url));
        ProtobufCMessage *content;
        assert_int_equal(pb_unpack(desc, pb_bytes(any->value), a, &content, NULL), 0);
        size_t before = left_out;
        struct str s = normal_form(content, a);
        assert_true(any->value.len == s.n || any->value.len == s.n + (left_out - before));
        any->value.len = s.n;
        any->value.data = (uint8_t *)s.p;
        return pb_pack(m, a);
    }
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        char *q = (char *)m + f->quantifier_offset, *p = (char *)m + f->offset;
        if (f->type != PROTOBUF_C_TYPE_MESSAGE) {
            continue;
        }
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            for (size_t j = 0; j < *(size_t *)(void *)q; j++) {
                ProtobufCMessage *e = (*(ProtobufCMessage ***)(void *)p)[j];
                normal_form(e, a);
                if (pb_field_is_map(m->descriptor, f)) {
                    count_defaults(e);
                }
            }
        } else if ((!(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) || *(uint32_t *)(void *)q == f->id) &&
                   *(ProtobufCMessage **)(void *)p) {
            normal_form(*(ProtobufCMessage **)(void *)p, a);
        }
    }
    return pb_pack(m, a);
}

// pb → JSON → pb gives the same bytes.
static void round_trip(ProtobufCMessage *m, size_t wire_bytes, const char *path)
{
    left_out = 0;
    struct arena a = { 0 };
    struct buf out = { 0 };
    struct json_writer w;
    jw_init(&w, &out, 1);
    pb_json_write(&w, m, 0);
    struct str text = buf_pullup(&out, buf_len(&out)), before = normal_form(m, &a);
    ProtobufCMessage *back;
    struct err err;
    if (pb_json_parse(text, m->descriptor, 0, &a, &back, &err) < 0) {
        fail_msg("%s: %s", path, err.msg);
    }
    struct str after = pb_pack(back, &a);
    assert_true(wire_bytes == before.n || wire_bytes == before.n + left_out);
    assert_true(str_eq(before, after));
    buf_clear(&out);
    arena_fini(&a);
}

static void check_response(const char *path, bool delta, struct str bytes, struct tally *t)
{
    struct arena a = { 0 };
    struct err err;
    const ProtobufCMessageDescriptor *desc =
        delta ? &envoy__service__discovery__v3__delta_discovery_response__descriptor
              : &envoy__service__discovery__v3__discovery_response__descriptor;
    ProtobufCMessage *m;
    if (pb_unpack(desc, bytes, &a, &m, &err) < 0) {
        fail_msg("%s: %s", path, err.msg);
    }
    walk(m, &a, t);
    if (delta) {
        const Envoy__Service__Discovery__V3__DeltaDiscoveryResponse *r = (const void *)m;
        t->resources += r->n_resources;
        assert_non_null(types_find(str_c(r->type_url)));
    } else {
        const Envoy__Service__Discovery__V3__DiscoveryResponse *r = (const void *)m;
        t->resources += r->n_resources;
        assert_non_null(types_find(str_c(r->type_url)));
    }
    round_trip(m, bytes.n, path);
    arena_fini(&a);
}

static void test_responses(void **state)
{
    (void)state;
    struct tally t = { 0 };
    size_t n = 0;
    for (size_t i = 0; i < n_files; i++) {
        struct arena a = { 0 };
        struct str bytes;
        struct err err;
        if (!str_ends(str_c(files[i]), STR(".response.pb"))) {
            continue;
        }
        assert_int_equal(file_read(files[i], 64 << 20, &a, &bytes, &err), 0);
        check_response(files[i], strstr(files[i], "/delta/") != NULL, bytes, &t);
        arena_fini(&a);
        n++;
    }
    print_message("%zu responses, %zu resources, %zu Any, %zu TypedStruct\n", n, t.resources, t.any,
                  t.typed_structs);
    assert_true(n >= 11 && t.resources > 150 && t.any > 1000 && t.typed_structs > 100);
    assert_int_equal(t.unknown_fields, 0);
}

// The JSON of another implementation reads as a list of Any, and our JSON of the same reads back
// equal.
static void test_json_resources(void **state)
{
    (void)state;
    static const char *const types[] = { "CDS.json", "EDS.json",  "LDS.json", "RDS.json",
                                         "NDS.json", "ECDS.json", "SDS.json" };
    size_t n = 0;
    for (size_t i = 0; i < n_files; i++) {
        const char *base = strrchr(files[i], '/') + 1;
        bool resources = false;
        for (size_t k = 0; k < array_len(types); k++) {
            resources |= strcmp(base, types[k]) == 0;
        }
        struct arena a = { 0 };
        struct str text;
        struct json *list;
        struct err err;
        if (!resources) {
            continue;
        }
        assert_int_equal(file_read(files[i], 64 << 20, &a, &text, &err), 0);
        assert_int_equal(json_parse(text, &a, &list, &err), 0);
        for (const struct json *e = list->first; e; e = e->next, n++) {
            ProtobufCMessage *m;
            if (pb_json_read(e, &google__protobuf__any__descriptor, 0, &a, &m, &err) < 0) {
                fail_msg("%s: %s", files[i], err.msg);
            }
            round_trip(m, protobuf_c_message_get_packed_size(m), files[i]);
        }
        arena_fini(&a);
    }
    assert_true(n >= 19);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_json_resources),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

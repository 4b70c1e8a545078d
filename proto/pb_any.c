// SPDX-License-Identifier: Apache-2.0
// What an Any holds, be it packed or in a TypedStruct. istiod wraps its own filters in the latter,
// and EnvoyFilters often do.
#include <errno.h>

#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proto/types.h"
#include "udpa/type/v1/typed_struct.pb-c.h"
#include "xds/type/v3/typed_struct.pb-c.h"

static struct str name_of_url(const char *url)
{
    struct str s = str_c(url);
    for (size_t i = s.n; i-- > 0;) {
        if (s.p[i] == '/') {
            return str_skip(s, i + 1);
        }
    }
    return s;
}

Google__Protobuf__Any *pb_any_pack(const ProtobufCMessage *m, struct arena *a)
{
    Google__Protobuf__Any *any = pb_new_as(a, Google__Protobuf__Any, google__protobuf__any);
    struct str url = types_url(m->descriptor), bytes = pb_pack(m, a);
    if (!any || !url.p || !bytes.p) {
        return NULL;
    }
    any->type_url = (char *)url.p; // static; nothing frees or writes a message of an arena
    any->value = (ProtobufCBinaryData){ .data = (uint8_t *)bytes.p, .len = bytes.n };
    return any;
}

// The two TypedStructs have the same fields under different names.
static bool typed_struct(const ProtobufCMessage *m, const char **ret_url,
                         const Google__Protobuf__Struct **ret_value)
{
    if (m->descriptor == &udpa__type__v1__typed_struct__descriptor) {
        const Udpa__Type__V1__TypedStruct *ts = (const Udpa__Type__V1__TypedStruct *)m;
        *ret_url = ts->type_url;
        *ret_value = ts->value;
        return true;
    }
    if (m->descriptor == &xds__type__v3__typed_struct__descriptor) {
        const Xds__Type__V3__TypedStruct *ts = (const Xds__Type__V3__TypedStruct *)m;
        *ret_url = ts->type_url;
        *ret_value = ts->value;
        return true;
    }
    return false;
}

static int unknown_type(const char *url, struct err *err)
{
    return url[0] ? err_set(err, -ENOENT, "unknown type \"%s\"", url)
                  : err_set(err, -EINVAL, "the type URL is empty");
}

static int unpack(const Google__Protobuf__Any *any, const ProtobufCMessageDescriptor *expected,
                  unsigned json_flags, struct arena *a, ProtobufCMessage **ret, struct err *err)
{
    if (!any) {
        return err_set(err, -EINVAL, "missing; expected %s",
                       expected ? expected->name : "a typed value");
    }
    const ProtobufCMessageDescriptor *desc = types_find(str_c(any->type_url));
    if (!desc) {
        return unknown_type(any->type_url, err);
    }
    ProtobufCMessage *m;
    int r = pb_unpack(desc, pb_bytes(any->value), a, &m, err);
    if (r < 0) {
        return r;
    }
    const char *url;
    const Google__Protobuf__Struct *value;
    if (desc != expected && typed_struct(m, &url, &value)) {
        desc = types_find(str_c(url));
        if (!desc) {
            return unknown_type(url, err);
        }
        r = pb_json_from_struct(value, desc, json_flags, a, &m, err);
        if (r < 0) {
            return err_wrap(err, "%s", desc->name);
        }
    }
    if (expected && desc != expected) {
        return err_set(err, -EINVAL, "type %s, expected %s", desc->name, expected->name);
    }
    *ret = m;
    return 0;
}

int pb_any_unpack(const Google__Protobuf__Any *any, const ProtobufCMessageDescriptor *expected,
                  struct arena *a, ProtobufCMessage **ret, struct err *err)
{
    return unpack(any, expected, PB_JSON_IGNORE_UNKNOWN, a, ret, err);
}

int pb_any_unpack_whole(const Google__Protobuf__Any *any, const ProtobufCMessageDescriptor *expected,
                        const char *skip, struct arena *a, ProtobufCMessage **ret, struct err *err)
{
    ProtobufCMessage *m;
    int r = unpack(any, expected, 0, a, &m, err);
    r = r ? r : pb_whole(m, NULL, skip, err);
    *ret = r ? *ret : m;
    return r;
}

struct str pb_any_type_name(const Google__Protobuf__Any *any, struct arena *a)
{
    if (!any) {
        return (struct str){ 0 };
    }
    const ProtobufCMessageDescriptor *desc = types_find(str_c(any->type_url));
    ProtobufCMessage *m;
    const char *url;
    const Google__Protobuf__Struct *value;
    bool maybe = desc == &udpa__type__v1__typed_struct__descriptor ||
                 desc == &xds__type__v3__typed_struct__descriptor;
    if (maybe && pb_unpack(desc, pb_bytes(any->value), a, &m, NULL) == 0 &&
        typed_struct(m, &url, &value)) {
        return name_of_url(url);
    }
    return name_of_url(any->type_url);
}

// SPDX-License-Identifier: Apache-2.0
// Whether a decoded message has anything in it that our trimmed definitions do not know: what is not known is not done, and somebody asked for it.
// And whether its durations and percentages are such: none of xDS may be negative; a duration that is would pass for one that is not there.
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "envoy/type/v3/percent.pb-c.h"
#include "proto/pb_util.h"

struct place { // where in the message: "a.b[3]"
    char text[512]; // cut when longer
    size_t n;
    struct err *err;
};

static int whole(const ProtobufCMessage *m, const char *skip, struct place *p);

__attribute__((format(printf, 2, 3))) static int say(const struct place *p, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(p->err, -EINVAL, "%s%s%s", p->text, p->n ? ": " : "", text);
}

// Goes into a field; the result is where to come back to. index < 0: not repeated.
static size_t enter(struct place *p, const char *name, int64_t index)
{
    size_t before = p->n, room = sizeof(p->text) - p->n;
    int n = snprintf(p->text + p->n, room, index < 0 ? "%s%s" : "%s%s[%lld]", p->n ? "." : "", name, (long long)index);
    p->n += (size_t)n < room ? (size_t)n : room - 1;
    return before;
}

static void leave(struct place *p, size_t before)
{
    p->n = before;
    p->text[before] = 0;
}

static int check_value(const ProtobufCFieldDescriptor *f, const void *v, int64_t index, struct place *p)
{
    size_t before = enter(p, f->name, index);
    int r = 0;
    if (f->type == PROTOBUF_C_TYPE_ENUM) {
        int value = *(const int *)v;
        r = protobuf_c_enum_descriptor_get_value(f->descriptor, value) ? 0 : say(p, "unknown value %d", value);
    } else {
        const ProtobufCMessage *m = *(ProtobufCMessage *const *)v;
        r = m ? whole(m, NULL, p) : 0;
        if (m && m->descriptor == &google__protobuf__duration__descriptor && !pb_duration_valid((const void *)m)) {
            r = say(p, "must be 0s or more, and well-formed");
        }
        if (m && m->descriptor == &envoy__type__v3__percent__descriptor) {
            double value = ((const Envoy__Type__V3__Percent *)(const void *)m)->value;
            r = value >= 0 && value <= 100 ? r : say(p, "must be 0 to 100");
        }
    }
    leave(p, before);
    return r;
}

static int check_field(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, struct place *p)
{
    const char *base = (const char *)m;
    const void *q = base + f->quantifier_offset, *at = base + f->offset;
    if (f->label != PROTOBUF_C_LABEL_REPEATED) {
        bool other = (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) && *(const uint32_t *)q != f->id;
        return other ? 0 : check_value(f, at, -1, p);
    }
    const char *v = *(const char *const *)at;
    size_t size = f->type == PROTOBUF_C_TYPE_ENUM ? sizeof(int) : sizeof(void *);
    for (size_t i = 0; i < *(const size_t *)q; i++) {
        int r = check_value(f, v + i * size, (int64_t)i, p);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int whole(const ProtobufCMessage *m, const char *skip, struct place *p)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;
    if (m->n_unknown_fields) {
        return say(p, "field number %u of %s: not known here", (unsigned)m->unknown_fields[0].tag, d->short_name);
    }
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        bool look = f->type == PROTOBUF_C_TYPE_MESSAGE || f->type == PROTOBUF_C_TYPE_ENUM;
        int r = look && !(skip && !strcmp(skip, f->name)) ? check_field(m, f, p) : 0;
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int pb_whole(const ProtobufCMessage *m, const char *at, const char *skip, struct err *err)
{
    struct place p = { .err = err };
    if (at) {
        (void)enter(&p, at, -1);
    }
    return whole(m, skip, &p);
}

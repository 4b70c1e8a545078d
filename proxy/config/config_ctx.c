// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/config_ctx.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int cfg_fail_(struct err *err, const char *field, const char *fmt, ...)
{
    char text[ERR_MSG_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(err, -EINVAL, "%s: %s", field, text);
}

int cfg_in(struct err *err, const char *fmt, ...)
{
    char prefix[256], old[ERR_MSG_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(prefix, sizeof(prefix), fmt, ap);
    va_end(ap);
    memcpy(old, err->msg, sizeof(old));
    return err_set(err, err->code ? err->code : -EINVAL, "%s.%s", prefix, old);
}

static bool scalar_is_set(const ProtobufCFieldDescriptor *f, const void *p)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING: {
        const char *s = *(char *const *)p;
        return s && s[0];
    }
    case PROTOBUF_C_TYPE_MESSAGE:
        return *(void *const *)p != NULL;
    case PROTOBUF_C_TYPE_BYTES:
        return ((const ProtobufCBinaryData *)p)->len != 0;
    case PROTOBUF_C_TYPE_BOOL:
        return *(const protobuf_c_boolean *)p != 0;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return *(const uint64_t *)p != 0;
    case PROTOBUF_C_TYPE_DOUBLE:
        return *(const double *)p != 0;
    default: // 32-bit integers, enum, float: zero bits are the default
        return *(const uint32_t *)p != 0;
    }
}

static bool field_is_set(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    const char *base = (const char *)m;
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        return *(const size_t *)(const void *)(base + f->quantifier_offset) != 0;
    }
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        return *(const uint32_t *)(const void *)(base + f->quantifier_offset) == f->id;
    }
    return scalar_is_set(f, base + f->offset);
}

int cfg_known(const ProtobufCMessage *m, const char *const *known, size_t n, struct err *err)
{
    if (m->n_unknown_fields) { // our .proto files leave out much of Envoy's; what is left out is not done
        return err_set(err, -EINVAL, "field number %u of %s: not known here", (unsigned)m->unknown_fields[0].tag, m->descriptor->short_name);
    }
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        if (!field_is_set(m, f)) {
            continue;
        }
        bool found = false;
        for (size_t k = 0; k < n && !found; k++) {
            found = !strcmp(known[k], f->name);
        }
        if (!found) {
            return cfg_fail(err, f->name, "not supported yet");
        }
    }
    return 0;
}

int cfg_one_line(const ProtobufCMessage *m, struct err *err)
{
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        if (f->type != PROTOBUF_C_TYPE_STRING || f->label == PROTOBUF_C_LABEL_REPEATED || !field_is_set(m, f)) {
            continue;
        }
        if (strpbrk(*(char *const *)(const void *)((const char *)m + f->offset), "\r\n")) { // pb_check has seen to NUL
            return cfg_fail(err, f->name, "must not have line ends");
        }
    }
    return 0;
}

static void grow(struct arena *a, void **v, size_t *cap, size_t count, size_t size)
{
    if (count < *cap) {
        return;
    }
    size_t want = *cap ? *cap * 2 : 4;
    void *p = arena_zalloc(a, want * size);
    if (count) {
        memcpy(p, *v, count * size);
    }
    *v = p;
    *cap = want;
}

// A chain may be dropped for its equal of the former version, with its arena.
static struct arena *keeper(const struct config_ctx *ctx)
{
    return ctx->names_arena ? ctx->names_arena : ctx->arena;
}

void config_ctx_add_slot(struct config_ctx *ctx, struct tls_slot *slot)
{
    for (size_t i = 0; i < ctx->slot_count; i++) {
        if (ctx->slots[i] == slot) {
            return;
        }
    }
    grow(keeper(ctx), (void **)&ctx->slots, &ctx->slot_cap, ctx->slot_count, sizeof(*ctx->slots));
    ctx->slots[ctx->slot_count++] = slot;
}

void config_ctx_add_rds(struct config_ctx *ctx, struct str name)
{
    for (size_t i = 0; i < ctx->rds_count; i++) {
        if (str_eq(ctx->rds_names[i], name)) {
            return;
        }
    }
    grow(keeper(ctx), (void **)&ctx->rds_names, &ctx->rds_cap, ctx->rds_count, sizeof(*ctx->rds_names));
    ctx->rds_names[ctx->rds_count++] = arena_str(keeper(ctx), name);
}

void config_ctx_add_cluster(struct config_ctx *ctx, struct str name)
{
    if (!ctx->names_arena || !name.n) {
        return;
    }
    for (size_t i = 0; i < ctx->cluster_count; i++) {
        if (str_eq(ctx->cluster_names[i], name)) {
            return;
        }
    }
    grow(ctx->names_arena, (void **)&ctx->cluster_names, &ctx->cluster_cap, ctx->cluster_count, sizeof(*ctx->cluster_names));
    ctx->cluster_names[ctx->cluster_count++] = arena_str(ctx->names_arena, name);
}

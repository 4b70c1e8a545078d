// SPDX-License-Identifier: Apache-2.0
#include "proxy/core/stream_info.h"

#include "lib/base/arena.h"
#include "proxy/core/facts.h"

static const struct {
    const char *short_text, *long_text;
} names[RF_COUNT] = {
#define RESPONSE_FLAG(id, s, l) { s, l },
#include "proxy/core/response_flags.def"
#undef RESPONSE_FLAG
};

const char *response_flags_text(uint32_t flags, bool long_names, char out[RF_TEXT_MAX])
{
    size_t n = 0;
    for (unsigned i = 0; i < RF_COUNT; i++) {
        if (!(flags & (1u << i))) {
            continue;
        }
        const char *t = long_names ? names[i].long_text : names[i].short_text;
        size_t len = strlen(t);
        if (n + len + 2 > RF_TEXT_MAX) {
            break; // dozens of flags at once: the first ones tell enough
        }
        if (n) {
            out[n++] = ',';
        }
        memcpy(out + n, t, len);
        n += len;
    }
    if (n == 0) {
        out[n++] = '-';
    }
    out[n] = '\0';
    return out;
}

uint32_t response_flag_parse(struct str short_name)
{
    for (unsigned i = 0; i < RF_COUNT; i++) {
        if (str_is(short_name, names[i].short_text)) {
            return 1u << i;
        }
    }
    return 0;
}

enum { FIELDS_MAX = 32 }; // of a namespace, before they are encoded

struct dynamic_field {
    struct str key;
    struct metadata_value value;
    struct dynamic_field *next;
};

// The entry of a namespace, made when there is none; NULL beyond limits.
static struct dynamic_metadata *entry_of(struct dynamic_metadata **list, struct arena *a, struct str space)
{
    size_t spaces = 0;
    for (; *list; list = &(*list)->next, spaces++) {
        if (str_eq((*list)->space, space)) {
            return *list;
        }
    }
    struct dynamic_metadata *m = spaces < DYNAMIC_METADATA_SPACES_MAX ? arena_new(a, struct dynamic_metadata) : NULL;
    if (m) {
        m->space = arena_str(a, space);
        m->arena = a;
        *list = m;
    }
    return m;
}

// Fields become bytes; a newer one comes before an older one of the same name.
static void encode_fields(struct dynamic_metadata *m)
{
    struct str all = STR("");
    for (const struct dynamic_field *f = m->fields; f; f = f->next) {
        all = metadata_struct_merge(metadata_struct_of(f->key, &f->value, m->arena), all, m->arena);
    }
    m->bytes = m->fields ? metadata_struct_merge(m->bytes, all, m->arena) : m->bytes;
    m->fields = NULL;
    m->field_count = 0;
}

bool dynamic_metadata_merge(struct dynamic_metadata **list, struct arena *a, struct str space, struct str struct_bytes)
{
    struct dynamic_metadata *m = entry_of(list, a, space);
    if (!m) {
        return false;
    }
    encode_fields(m);
    struct str merged = str_n(NULL, 0);
    if (m->bytes.n + struct_bytes.n <= DYNAMIC_METADATA_BYTES_MAX) {
        merged = metadata_struct_merge(m->bytes, struct_bytes, a);
    }
    if (!merged.n && m->bytes.n + struct_bytes.n) {
        return false;
    }
    m->bytes = merged;
    return true;
}

void dynamic_metadata_note(struct dynamic_metadata **list, struct arena *a, struct str space, struct str key, const struct metadata_value *v)
{
    struct dynamic_metadata *m = entry_of(list, a, space);
    struct dynamic_field *f = m && key.n + v->bytes.n < DYNAMIC_METADATA_BYTES_MAX / 2 ? arena_alloc(a, sizeof(*f)) : NULL;
    if (!f) {
        return;
    }
    if (m->field_count == FIELDS_MAX) {
        encode_fields(m);
    }
    *f = (struct dynamic_field){ .key = key, .value = *v, .next = m->fields };
    m->fields = f;
    m->field_count++;
}

bool stream_info_metadata_merge(struct stream_info *info, struct arena *a, struct str space, struct str struct_bytes)
{
    return dynamic_metadata_merge(&info->dynamic, a, space, struct_bytes);
}

void stream_info_metadata_text(struct stream_info *info, struct arena *a, struct str space, struct str key, struct str value)
{
    const struct metadata_value v = { .kind = MV_TEXT, .bytes = value.n < DYNAMIC_METADATA_BYTES_MAX ? arena_str(a, value) : value };
    dynamic_metadata_note(&info->dynamic, a, space, arena_str(a, key), &v);
}

void stream_info_metadata_bool(struct stream_info *info, struct arena *a, struct str space, struct str key, bool value)
{
    const struct metadata_value v = { .kind = MV_BOOL, .boolean = value };
    dynamic_metadata_note(&info->dynamic, a, space, arena_str(a, key), &v);
}

static struct metadata_value find_in(struct dynamic_metadata *m, const struct str *path, size_t n_path)
{
    if (!n_path) {
        encode_fields(m);
    }
    for (const struct dynamic_field *f = m->fields; f; f = f->next) {
        if (str_eq(f->key, path[0])) {
            return n_path == 1 ? f->value
                   : f->value.kind == MV_STRUCT ? metadata_struct_find(f->value.bytes, path + 1, n_path - 1)
                                                : (struct metadata_value){ .kind = MV_NONE };
        }
    }
    return metadata_struct_find(m->bytes, path, n_path);
}

struct metadata_value stream_info_metadata_find(const struct stream_info *info, struct str space, const struct str *path, size_t n_path)
{
    struct metadata_value v = { .kind = MV_NONE };
    for (struct dynamic_metadata *m = info->dynamic; m; m = m->next) {
        if (str_eq(m->space, space)) {
            v = find_in(m, path, n_path);
            break;
        }
    }
    for (const struct connection_fact *f = info->facts; f && v.kind == MV_NONE && n_path == 1; f = f->next) {
        if (str_eq(f->space, space) && str_eq(f->key, path[0])) {
            v = (struct metadata_value){ .kind = MV_TEXT, .bytes = f->value };
        }
    }
    return v;
}

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

void dynamic_metadata_merge(struct dynamic_metadata **list, struct arena *a, struct str space, struct str struct_bytes)
{
    struct dynamic_metadata **at = list;
    size_t spaces = 0;
    while (*at && !str_eq((*at)->space, space)) {
        at = &(*at)->next;
        spaces++;
    }
    struct str old = *at ? (*at)->bytes : STR("");
    if (struct_bytes.n > DYNAMIC_METADATA_BYTES_MAX - old.n || (!*at && spaces >= DYNAMIC_METADATA_SPACES_MAX)) {
        return;
    }
    if (!*at) {
        *at = arena_new(a, struct dynamic_metadata);
        (*at)->space = arena_str(a, space);
    }
    (*at)->bytes = metadata_struct_merge(old, struct_bytes, a);
}

void stream_info_metadata_merge(struct stream_info *info, struct arena *a, struct str space, struct str struct_bytes)
{
    dynamic_metadata_merge(&info->dynamic, a, space, struct_bytes);
}

void stream_info_metadata_text(struct stream_info *info, struct arena *a, struct str space, struct str key, struct str value)
{
    const struct metadata_value v = { .kind = MV_TEXT, .bytes = value };
    stream_info_metadata_merge(info, a, space, metadata_struct_of(key, &v, a));
}

void stream_info_metadata_bool(struct stream_info *info, struct arena *a, struct str space, struct str key, bool value)
{
    const struct metadata_value v = { .kind = MV_BOOL, .boolean = value };
    stream_info_metadata_merge(info, a, space, metadata_struct_of(key, &v, a));
}

struct metadata_value stream_info_metadata_find(const struct stream_info *info, struct str space, const struct str *path, size_t n_path)
{
    struct metadata_value v = { .kind = MV_NONE };
    for (const struct dynamic_metadata *m = info->dynamic; m; m = m->next) {
        if (str_eq(m->space, space)) {
            v = metadata_struct_find(m->bytes, path, n_path);
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

// SPDX-License-Identifier: Apache-2.0
#include "proto/types.h"

#include "lib/base/check.h"

#define TYPE(c_name, full_name, short_name)                                                        \
    extern const ProtobufCMessageDescriptor c_name##__descriptor;
#include "proto/types.def"
#undef TYPE

// In byte order of the full names, so that the descriptor of a URL is found by halving.
static const struct type_entry entries[] = {
#define TYPE(c_name, full_name, short)                                                             \
    { TYPES_URL_PREFIX full_name, &(TYPES_URL_PREFIX full_name)[sizeof(TYPES_URL_PREFIX) - 1],     \
      short, &c_name##__descriptor },
#include "proto/types.def"
#undef TYPE
};

static const struct type_entry *find_name(struct str name)
{
    size_t lo = 0, hi = array_len(entries);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int c = str_cmp(name, str_c(entries[mid].name));
        if (c == 0) {
            return &entries[mid];
        }
        if (c < 0) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    return NULL;
}

const ProtobufCMessageDescriptor *types_find(struct str type_url)
{
    if (str_starts(type_url, STR(TYPES_URL_PREFIX))) {
        type_url = str_skip(type_url, sizeof(TYPES_URL_PREFIX) - 1);
    }
    const struct type_entry *e = find_name(type_url);
    return e ? e->desc : NULL;
}

const struct type_entry *types_entry(const ProtobufCMessageDescriptor *desc)
{
    const struct type_entry *e = find_name(str_c(desc->name));
    return e && e->desc == desc ? e : NULL;
}

struct str types_url(const ProtobufCMessageDescriptor *desc)
{
    const struct type_entry *e = types_entry(desc);
    return str_c(e ? e->url : NULL);
}

const struct type_entry *types_by_short_name(struct str short_name)
{
    for (size_t i = 0; i < array_len(entries); i++) {
        if (str_is(short_name, entries[i].short_name)) {
            return &entries[i];
        }
    }
    return NULL;
}

const struct type_entry *types_all(size_t *ret_n)
{
    *ret_n = array_len(entries);
    return entries;
}

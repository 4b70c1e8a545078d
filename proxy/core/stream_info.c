// SPDX-License-Identifier: Apache-2.0
#include "proxy/core/stream_info.h"

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

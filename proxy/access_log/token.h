// SPDX-License-Identifier: Apache-2.0
// Inside of proxy/access_log: what an operator is when compiled, and the value it gives.
#ifndef PROXY_ACCESS_LOG_TOKEN_H
#define PROXY_ACCESS_LOG_TOKEN_H

#include "proxy/access_log/format.h"

enum token_arg { ARG_NONE, ARG_OPTIONAL, ARG_TEXT, ARG_HEADER };
enum { TOKEN_SCRATCH = 256 };

struct format_value {
    enum { VALUE_NONE, VALUE_TEXT, VALUE_NUMBER, VALUE_JSON } kind;
    struct str text;  // borrowed from the stream, static, or in scratch
    uint64_t number;
    struct buf owned; // VALUE_JSON: text is in it; whoever asked clears it
    char scratch[TOKEN_SCRATCH];
};

struct header_ref { // which header an operator reads
    enum { REF_NONE, REF_HEADER, REF_METHOD, REF_PATH, REF_AUTHORITY, REF_SCHEME, REF_STATUS } kind;
    enum hdr_id id;
    struct str name; // lower case
};

struct format_op {
    const struct token *token; // NULL: literal text
    struct str text;           // literal, or the argument
    struct header_ref header, alternative;
    uint32_t max_len;          // of text; UINT32_MAX = no limit
    enum metadata_of metadata; // METADATA_COUNT = that of the request itself
};

struct token {
    const char *name;
    // Fills v, whose kind is VALUE_NONE at entry.
    void (*eval)(const struct format_op *op, const struct format_ctx *c, struct format_value *v);
    enum token_arg arg;
};
extern const struct token format_tokens[];
extern const size_t format_token_count;

// Time by a strftime format with Envoy's additions: %f %1f…%9f fractions of a second, %s seconds since 1970, %E3S and %E*S seconds
// with fraction. Bytes written into out (cut at cap).
size_t format_time(uint64_t wall_ms, uint64_t nanos_of_ms, struct str fmt, char *out, size_t cap);

#endif

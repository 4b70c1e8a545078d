// SPDX-License-Identifier: Apache-2.0
// Command operators (%REQ(X)%, %START_TIME%, …) compiled once, evaluated against a stream. Used by access logs, header additions and local
// replies. Operators are listed in tokens.def.
#ifndef PROXY_ACCESS_LOG_FORMAT_H
#define PROXY_ACCESS_LOG_FORMAT_H

#include "lib/base/json.h"
#include "proxy/core/stream_info.h"

struct format;

// What operators may read. Unset members print "-".
struct format_ctx {
    const struct stream_info *info;
    const struct http_request *req;
    const struct http_response *resp;
    const struct headers *resp_trailers;
    struct str original_path;
    struct str local_reply_body;
};
// Error: "unknown operator %FOO%; known: …".
int format_compile(struct str text, struct arena *a, struct format **ret, struct err *err);
// JSON format: a tree whose string leaves are formats; a leaf that is one single numeric operator prints as a number.
int format_compile_json(const struct json *tree, struct arena *a, struct format **ret, struct err *err);
// JSON formats: members without a value are left out (SubstitutionFormatString.omit_empty_values); text formats: they print nothing.
void format_omit_empty(struct format *f);
// format_text makes bodies of it, in which "-" stands for operators without a value.
void format_is_body(struct format *f);
// For logs. Bytes that could end the field or the line (controls, '"', '\\') are written as escapes in text formats. Text formats: appended as they are; JSON formats: one object and a newline.
void format_write(const struct format *f, const struct format_ctx *ctx, struct buf *out);
// For header values and bodies: operators without a value give nothing (but see format_is_body), nothing is escaped; JSON formats as format_write. In the arena; the empty view at its limit.
struct str format_text(const struct format *f, const struct format_ctx *ctx, struct arena *a);
// True when text holds an operator (a '%' that is not "%%").
bool format_has_operator(struct str text);
// Envoy's default text format.
extern const char format_default_text[];

#endif

// SPDX-License-Identifier: Apache-2.0
// JSON (RFC 8259) into a tree in an arena, YAML (via libyaml) into the same tree, and a streaming writer.
// Every node knows its line and column, so that an error can name the place.
#ifndef LIB_BASE_JSON_H
#define LIB_BASE_JSON_H

#include "lib/base/arena.h"
#include "lib/base/buf.h"
#include "lib/base/err.h"

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

enum { JSON_DEPTH_MAX = 64, JSON_NODES_MAX = 2000000, YAML_ALIASES_MAX = 1000 };

struct json {
    enum json_type type;
    bool boolean;
    bool plain;        // YAML plain scalar (unquoted): "8080" may be number or string as the schema asks
    struct str text;   // string value, or the number/scalar as written
    struct str key;    // when a member of an object
    struct json *first; // first child (array element or object member), in order
    struct json *next;  // next sibling
    size_t count;       // children
    int line, col;      // 1-based, 0 unknown
};

// Whole text must be one JSON value. Duplicate object keys are an error. Errors: "line L, column C: …".
int json_parse(struct str text, struct arena *a, struct json **ret, struct err *err);
// All YAML documents of a text as a JSON_ARRAY of roots (empty documents skipped). Anchors and aliases work within limits;
// unknown tags and duplicate keys are errors.
int yaml_parse(struct str text, struct arena *a, struct json **ret, struct err *err);
// JSON when the first non-space byte is '{' or '[', YAML (single document) otherwise.
int json_or_yaml_parse(struct str text, struct arena *a, struct json **ret, struct err *err);
// Member of an object or NULL. n may be NULL.
struct json *json_get(const struct json *n, const char *key);
// Member path "a.b.c"; NULL when absent.
struct json *json_path(const struct json *n, const char *path);
// String member or empty view.
struct str json_str(const struct json *n, const char *key);

// Writer: keeps nesting, commas and indentation. indent: spaces per level, 0 for compact.
struct json_writer {
    struct buf *out; // borrowed
    int indent;
    int depth;
    bool need_comma[JSON_DEPTH_MAX * 2];
    bool after_key;
};
void jw_init(struct json_writer *w, struct buf *out, int indent);
void jw_object(struct json_writer *w);
void jw_object_end(struct json_writer *w);
void jw_array(struct json_writer *w);
void jw_array_end(struct json_writer *w);
void jw_key(struct json_writer *w, struct str key);
void jw_str(struct json_writer *w, struct str s); // escaped; invalid UTF-8 becomes U+FFFD
void jw_bool(struct json_writer *w, bool b);
void jw_i64(struct json_writer *w, int64_t v);
void jw_u64(struct json_writer *w, uint64_t v);
void jw_double(struct json_writer *w, double v);
void jw_null(struct json_writer *w);
void jw_raw(struct json_writer *w, struct str s); // a value already in JSON
void jw_tree(struct json_writer *w, const struct json *n);
// Member helpers.
void jw_kv(struct json_writer *w, const char *key, struct str v);
void jw_kv_bool(struct json_writer *w, const char *key, bool v);
void jw_kv_u64(struct json_writer *w, const char *key, uint64_t v);
// A tree as YAML text (block style), for -o yaml.
void yaml_write(struct buf *out, const struct json *n);

#endif

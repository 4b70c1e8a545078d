// SPDX-License-Identifier: Apache-2.0
// YAML through libyaml's events into the JSON tree. Plain scalars follow the YAML 1.2 core schema's null and booleans and JSON's
// numbers; anything else is text (so `on`, `yes` and `0644` stay as written; the schema's owner sees `plain` and decides).
// An alias shares the children of its anchor, so memory does not grow; what a reader would visit is counted against the limits.
#include <errno.h>

#include <yaml.h>

#include "lib/base/check.h"
#include "lib/base/json.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"
#include "lib/base/utf8.h"

struct anchor { // in the arena
    struct json *node;  // NULL while its own content is still being read
    size_t weight;      // nodes a reader visits below it, itself included
    int height;         // levels of nesting
};

struct reader {
    yaml_parser_t parser;
    struct arena *arena;
    struct err *err;
    struct map anchors; // of the current document: name → struct anchor
    size_t nodes;       // as a reader of the tree would count them
    int aliases;
};

static int fail_mark(struct reader *y, yaml_mark_t m, int code, const char *what)
{
    return err_set(y->err, code, "line %zu, column %zu: %s", m.line + 1, m.column + 1, what);
}

static int next_event(struct reader *y, yaml_event_t *ev)
{
    if (yaml_parser_parse(&y->parser, ev)) {
        return 0;
    }
    yaml_parser_t *p = &y->parser;
    // Errors of libyaml's reader (bad UTF-8, control characters) carry no mark, only how far it has read.
    yaml_mark_t at = p->error == YAML_READER_ERROR ? p->mark : p->problem_mark;
    return fail_mark(y, at, p->error == YAML_MEMORY_ERROR ? -ENOMEM : -EINVAL, p->problem ? p->problem : "not YAML");
}

static struct json *node_new(struct reader *y, enum json_type type, yaml_mark_t m)
{
    if (++y->nodes > JSON_NODES_MAX) {
        fail_mark(y, m, -E2BIG, "more values than the limit of 2000000 (aliases counted out)");
        return NULL;
    }
    struct json *n = arena_new(y->arena, struct json);
    if (!n) {
        fail_mark(y, m, -E2BIG, "more values than the memory limit allows");
        return NULL;
    }
    n->type = type;
    n->line = (int)m.line + 1;
    n->col = (int)m.column + 1;
    return n;
}

// The tag's name when it is one of YAML's own ("str", "map", …), "" for none or "!", NULL for an unknown one.
static const char *core_tag(const yaml_char_t *tag)
{
    static const char prefix[] = "tag:yaml.org,2002:";
    static const char *const known[] = { "str", "int", "float", "bool", "null", "map", "seq" };
    const char *t = (const char *)tag;
    if (!t || strcmp(t, "!") == 0) {
        return "";
    }
    if (strncmp(t, prefix, sizeof(prefix) - 1) != 0) {
        return NULL;
    }
    for (size_t i = 0; i < array_len(known); i++) {
        if (strcmp(t + sizeof(prefix) - 1, known[i]) == 0) {
            return known[i];
        }
    }
    return NULL;
}

static bool is_one_of(struct str s, const char *a, const char *b, const char *c)
{
    return str_is(s, a) || str_is(s, b) || str_is(s, c);
}

static enum json_type resolve(struct str s, bool *ret_boolean)
{
    if (s.n == 0 || str_is(s, "~") || is_one_of(s, "null", "Null", "NULL")) {
        return JSON_NULL;
    }
    bool yes = is_one_of(s, "true", "True", "TRUE");
    if (yes || is_one_of(s, "false", "False", "FALSE")) {
        *ret_boolean = yes;
        return JSON_BOOL;
    }
    return json_is_number(s) ? JSON_NUMBER : JSON_STRING;
}

static int read_scalar(struct reader *y, const yaml_event_t *ev, struct json **ret)
{
    struct json *n = node_new(y, JSON_STRING, ev->start_mark);
    if (!n) {
        return -E2BIG;
    }
    const char *tag = core_tag(ev->data.scalar.tag);
    if (!tag || strcmp(tag, "map") == 0 || strcmp(tag, "seq") == 0) {
        return fail_mark(y, ev->start_mark, -EINVAL, "a tag that is not known here; leave it out");
    }
    n->text = arena_str(y->arena, str_n(ev->data.scalar.value, ev->data.scalar.length));
    if (!n->text.p) {
        return fail_mark(y, ev->start_mark, -E2BIG, "more text than the memory limit allows");
    }
    n->plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !ev->data.scalar.tag;
    if (n->plain || (tag[0] && strcmp(tag, "str") != 0)) {
        n->type = resolve(n->text, &n->boolean);
    }
    bool fits = tag[0] == '\0' || strcmp(tag, "str") == 0 || (strcmp(tag, "null") == 0 && n->type == JSON_NULL) ||
                (strcmp(tag, "bool") == 0 && n->type == JSON_BOOL) ||
                ((strcmp(tag, "int") == 0 || strcmp(tag, "float") == 0) && n->type == JSON_NUMBER);
    if (!fits) {
        return fail_mark(y, ev->start_mark, -EINVAL, "the value does not fit its tag");
    }
    *ret = n;
    return 0;
}

static int read_node(struct reader *y, yaml_event_t *ev, int depth, struct json **ret, int *ret_height);

// *ret = a node of its own with the content of the anchor.
static int read_alias(struct reader *y, const yaml_event_t *ev, int depth, struct json **ret, int *ret_height)
{
    if (++y->aliases > YAML_ALIASES_MAX) {
        return fail_mark(y, ev->start_mark, -E2BIG, "more than 1000 aliases");
    }
    const struct anchor *an = map_get(&y->anchors, str_c((const char *)ev->data.alias.anchor));
    if (!an || !an->node) {
        return fail_mark(y, ev->start_mark, -EINVAL,
                         an ? "an alias inside the value it stands for" : "an alias without its anchor");
    }
    if (depth + an->height > JSON_DEPTH_MAX) {
        return fail_mark(y, ev->start_mark, -E2BIG, "nested deeper than 64 levels");
    }
    struct json *n = node_new(y, an->node->type, ev->start_mark);
    if (!n) {
        return -E2BIG;
    }
    y->nodes += an->weight - 1;
    if (y->nodes > JSON_NODES_MAX) {
        return fail_mark(y, ev->start_mark, -E2BIG, "more values than the limit of 2000000 (aliases counted out)");
    }
    int line = n->line, col = n->col;
    *n = *an->node;
    n->next = NULL;
    n->key = (struct str){ 0 };
    n->line = line;
    n->col = col;
    *ret = n;
    *ret_height = an->height;
    return 0;
}

static int read_sequence(struct reader *y, struct json *arr, int depth, int *ret_height)
{
    struct json **tail = &arr->first;
    for (;;) {
        yaml_event_t ev;
        int r = next_event(y, &ev);
        if (r < 0) {
            return r;
        }
        bool end = ev.type == YAML_SEQUENCE_END_EVENT;
        int height = 0;
        r = end ? 0 : read_node(y, &ev, depth, tail, &height);
        yaml_event_delete(&ev);
        if (end || r < 0) {
            return r;
        }
        tail = &(*tail)->next;
        arr->count++;
        *ret_height = height > *ret_height ? height : *ret_height;
    }
}

// The key of the next member, or end.
static int read_key(struct reader *y, struct str *ret_key, yaml_mark_t *ret_mark, bool *ret_end)
{
    yaml_event_t ev;
    int r = next_event(y, &ev);
    if (r < 0) {
        return r;
    }
    *ret_mark = ev.start_mark;
    if (ev.type == YAML_MAPPING_END_EVENT) {
        *ret_end = true;
    } else if (ev.type != YAML_SCALAR_EVENT || ev.data.scalar.anchor) {
        r = fail_mark(y, ev.start_mark, -EINVAL, "a key must be plain text");
    } else {
        *ret_key = arena_str(y->arena, str_n(ev.data.scalar.value, ev.data.scalar.length));
        if (!ret_key->p) {
            r = fail_mark(y, ev.start_mark, -E2BIG, "more text than the memory limit allows");
        } else if (ev.data.scalar.style == YAML_PLAIN_SCALAR_STYLE && str_is(*ret_key, "<<")) {
            r = fail_mark(y, ev.start_mark, -EINVAL, "merge keys (<<) are not taken; write the members out");
        }
    }
    yaml_event_delete(&ev);
    return r;
}

static int read_members(struct reader *y, struct json *obj, int depth, struct map *seen, int *ret_height)
{
    struct json **tail = &obj->first;
    for (;;) {
        struct str key = { 0 };
        yaml_mark_t at;
        bool end = false;
        int r = read_key(y, &key, &at, &end);
        if (r < 0 || end) {
            return r;
        }
        if (map_put(seen, key, obj)) {
            return err_set(y->err, -EINVAL, "line %zu, column %zu: the key \"%.*s\" is there twice", at.line + 1,
                           at.column + 1, (int)(key.n < 100 ? key.n : 100), key.p);
        }
        yaml_event_t ev;
        r = next_event(y, &ev);
        if (r < 0) {
            return r;
        }
        int height = 0;
        r = read_node(y, &ev, depth, tail, &height);
        yaml_event_delete(&ev);
        if (r < 0) {
            return r;
        }
        (*tail)->key = key;
        tail = &(*tail)->next;
        obj->count++;
        *ret_height = height > *ret_height ? height : *ret_height;
    }
}

static int read_collection(struct reader *y, yaml_event_t *ev, int depth, struct json **ret, int *ret_height)
{
    bool map = ev->type == YAML_MAPPING_START_EVENT;
    const char *tag = core_tag(map ? ev->data.mapping_start.tag : ev->data.sequence_start.tag);
    if (!tag || (tag[0] && strcmp(tag, map ? "map" : "seq") != 0)) {
        return fail_mark(y, ev->start_mark, -EINVAL, "a tag that is not known here; leave it out");
    }
    if (depth >= JSON_DEPTH_MAX) {
        return fail_mark(y, ev->start_mark, -E2BIG, "nested deeper than 64 levels");
    }
    struct json *n = node_new(y, map ? JSON_OBJECT : JSON_ARRAY, ev->start_mark);
    if (!n) {
        return -E2BIG;
    }
    int r, height = 0;
    if (map) {
        struct map seen = { 0 };
        r = read_members(y, n, depth + 1, &seen, &height);
        map_fini(&seen);
    } else {
        r = read_sequence(y, n, depth + 1, &height);
    }
    if (r < 0) {
        return r;
    }
    *ret = n;
    *ret_height = height + 1;
    return 0;
}

static const yaml_char_t *anchor_of(const yaml_event_t *ev)
{
    return ev->type == YAML_SCALAR_EVENT           ? ev->data.scalar.anchor
           : ev->type == YAML_MAPPING_START_EVENT  ? ev->data.mapping_start.anchor
           : ev->type == YAML_SEQUENCE_START_EVENT ? ev->data.sequence_start.anchor
                                                   : NULL;
}

// The node that begins with ev; depth: levels it is in already.
static int read_node(struct reader *y, yaml_event_t *ev, int depth, struct json **ret, int *ret_height)
{
    if (ev->type == YAML_ALIAS_EVENT) {
        return read_alias(y, ev, depth, ret, ret_height);
    }
    struct anchor *an = NULL;
    if (anchor_of(ev)) {
        an = arena_new(y->arena, struct anchor);
        if (!an) {
            return fail_mark(y, ev->start_mark, -E2BIG, "more values than the memory limit allows");
        }
        map_put(&y->anchors, str_c((const char *)anchor_of(ev)), an); // a later one of the same name replaces it
    }
    size_t before = y->nodes;
    struct json *n = NULL;
    int height = 0;
    int r = ev->type == YAML_SCALAR_EVENT ? read_scalar(y, ev, &n) : read_collection(y, ev, depth, &n, &height);
    if (r < 0) {
        return r;
    }
    if (an) {
        *an = (struct anchor){ .node = n, .weight = y->nodes - before, .height = height };
    }
    *ret = n;
    *ret_height = height;
    return 0;
}

static bool is_empty_document(const struct json *n)
{
    return n->type == JSON_NULL && n->plain && n->text.n == 0;
}

static int read_documents(struct reader *y, struct json *docs)
{
    struct json **tail = &docs->first;
    for (;;) {
        yaml_event_t ev;
        int r = next_event(y, &ev);
        if (r < 0) {
            return r;
        }
        yaml_event_type_t type = ev.type;
        struct json *n = NULL;
        int height = 0;
        switch (type) {
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
        case YAML_STREAM_END_EVENT:
        case YAML_NO_EVENT:
            break;
        case YAML_DOCUMENT_START_EVENT:
            map_fini(&y->anchors); // anchors end with their document (YAML 1.2 §3.2.2.2)
            break;
        default:
            r = read_node(y, &ev, 0, &n, &height);
        }
        yaml_event_delete(&ev);
        if (r < 0 || type == YAML_STREAM_END_EVENT || type == YAML_NO_EVENT) {
            return r;
        }
        if (n && !is_empty_document(n)) {
            *tail = n;
            tail = &n->next;
            docs->count++;
        }
    }
}

int yaml_parse(struct str text, struct arena *a, struct json **ret, struct err *err)
{
    struct reader y = { .arena = a, .err = err };
    struct json *docs = arena_new(a, struct json);
    if (!docs || !yaml_parser_initialize(&y.parser)) {
        return err_set(err, -ENOMEM, "not enough memory to read YAML");
    }
    docs->type = JSON_ARRAY;
    docs->line = docs->col = 1;
    yaml_parser_set_input_string(&y.parser, (const unsigned char *)(text.p ? text.p : ""), text.n);
    int r = read_documents(&y, docs);
    map_fini(&y.anchors);
    yaml_parser_delete(&y.parser);
    if (r < 0) {
        return r;
    }
    *ret = docs;
    return 0;
}

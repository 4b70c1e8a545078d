// SPDX-License-Identifier: Apache-2.0
// remoractl analyze: mistakes in Istio YAML, with the codes of istioctl analyze. The files that are named are the whole world: what they refer
// to must be among them.
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/commands.h"
#include "control-plane/analyze.h"
#include "lib/base/file.h"

enum { FILES_MAX = 4096, FILE_BYTES_MAX = 8 * 1024 * 1024, DEPTH_MAX = 16, BUFFER_BYTES = 65536 };
// istioctl's exit codes for the table.
enum { EXIT_BAD_FILE = 65, EXIT_FOUND = 79 };

struct files {
    struct cli *c;
    struct cp_source v[FILES_MAX];
    size_t n;
};

static int add_text(struct files *f, const char *name, struct str text, struct err *err)
{
    if (f->n == FILES_MAX) {
        return err_set(err, -E2BIG, "%s: more than %d files", name, FILES_MAX);
    }
    f->v[f->n++] = (struct cp_source){ .name = arena_strdup(f->c->arena, name), .text = text };
    return 0;
}

static int add_stdin(struct files *f, struct err *err)
{
    struct buf b = { 0 };
    ssize_t n;
    do {
        size_t room;
        char *p = buf_reserve(&b, BUFFER_BYTES, &room);
        n = read(STDIN_FILENO, p, room);
        buf_commit(&b, n > 0 ? (size_t)n : 0);
    } while ((n > 0 && buf_len(&b) <= FILE_BYTES_MAX) || (n < 0 && errno == EINTR));
    struct str text = arena_str(f->c->arena, buf_pullup(&b, buf_len(&b)));
    buf_clear(&b);
    if (n < 0 || text.n > FILE_BYTES_MAX) {
        return n < 0 ? err_errno(err, errno, "standard input") : err_set(err, -EFBIG, "standard input is too long");
    }
    return add_text(f, "-", text, err);
}

static int add_file(struct files *f, const char *path, struct err *err)
{
    struct str text;
    return file_read(path, FILE_BYTES_MAX, f->c->arena, &text, err) ? err->code : add_text(f, path, text, err);
}

static bool is_yaml(const char *name)
{
    struct str s = str_c(name);
    return str_ends(s, STR(".yaml")) || str_ends(s, STR(".yml")) || str_ends(s, STR(".json"));
}

static int add_path(struct files *f, const char *path, int depth, struct err *err);

static int add_folder(struct files *f, const char *path, int depth, struct err *err)
{
    struct dirent **v = NULL;
    int n = scandir(path, &v, NULL, alphasort), rc = 0;
    if (n < 0) {
        return err_errno(err, errno, path);
    }
    for (int i = 0; i < n; i++) {
        char full[4096];
        struct stat st;
        bool fits = snprintf(full, sizeof(full), "%s/%s", path, v[i]->d_name) < (int)sizeof(full);
        if (!rc && fits && v[i]->d_name[0] != '.' && stat(full, &st) == 0 && (S_ISDIR(st.st_mode) || is_yaml(full))) {
            rc = add_path(f, full, depth + 1, err);
        }
        free(v[i]);
    }
    free(v);
    return rc;
}

static int add_path(struct files *f, const char *path, int depth, struct err *err)
{
    struct stat st;
    if (strcmp(path, "-") == 0) {
        return add_stdin(f, err);
    }
    if (stat(path, &st)) {
        return err_errno(err, errno, path);
    }
    if (S_ISDIR(st.st_mode)) {
        return depth < DEPTH_MAX ? add_folder(f, path, depth, err) : 0;
    }
    return add_file(f, path, err);
}

static void write_table(struct cli *c, const struct cp_finding *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (v[i].code) {
            buf_printf(&c->out, "%s [%s] (%.*s %s:%d) %.*s\n", cp_level_name(v[i].level), v[i].code, STR_FMT(v[i].origin), v[i].file, v[i].line,
                       STR_FMT(v[i].text));
        }
    }
}

static void write_json(struct buf *out, const struct cp_finding *v, size_t n, int indent)
{
    struct json_writer w;
    jw_init(&w, out, indent);
    jw_array(&w);
    for (size_t i = 0; i < n; i++) {
        char reference[4200];
        if (!v[i].code) {
            continue;
        }
        snprintf(reference, sizeof(reference), "%s:%d", v[i].file, v[i].line);
        jw_object(&w);
        jw_kv(&w, "code", str_c(v[i].code));
        jw_kv(&w, "level", str_c(cp_level_name(v[i].level)));
        jw_kv(&w, "message", v[i].text);
        jw_kv(&w, "origin", v[i].origin);
        jw_kv(&w, "reference", str_c(reference));
        jw_object_end(&w);
    }
    jw_array_end(&w);
    buf_append(out, "\n", 1);
}

static int write_yaml(struct cli *c, const struct cp_finding *v, size_t n, struct err *err)
{
    struct buf b = { 0 };
    struct json *tree = NULL;
    write_json(&b, v, n, 0);
    int rc = json_parse(arena_str(c->arena, buf_pullup(&b, buf_len(&b))), c->arena, &tree, err);
    buf_clear(&b);
    if (!rc) {
        yaml_write(&c->out, tree);
    }
    return rc;
}

static int threshold(struct cli *c, enum cp_level *ret, struct err *err)
{
    *ret = CP_ERROR;
    for (int l = CP_ERROR; l <= CP_INFO; l++) {
        if (str_eq_nocase(c->o.threshold, str_c(cp_level_name((enum cp_level)l)))) {
            *ret = (enum cp_level)l;
            return 0;
        }
    }
    return c->o.threshold.n ? err_set(err, -EINVAL, "--failure-threshold %.*s: Info, Warning or Error is wanted", STR_FMT(c->o.threshold)) : 0;
}

static int show(struct cli *c, const struct cp_finding *v, size_t n, size_t files, struct err *err)
{
    size_t broken = 0;
    for (size_t i = 0; i < n; i++) {
        if (!v[i].code) {
            buf_printf(&c->notes, "error: %s: %.*s\n", v[i].file, STR_FMT(v[i].text));
            broken++;
        }
    }
    if (c->o.format == FORMAT_JSON) {
        write_json(&c->out, v, n, 2);
    } else if (c->o.format == FORMAT_YAML) {
        return write_yaml(c, v, n, err);
    } else if (n == broken) {
        buf_printf(&c->out, broken ? "" : "No problem found in %zu files.\n", files);
    } else {
        write_table(c, v, n);
    }
    return 0;
}

int cmd_analyze(struct cli *c, struct err *err)
{
    struct files *f = arena_new(c->arena, struct files);
    struct cp_finding *v = NULL;
    enum cp_level worst;
    f->c = c;
    if (!c->word_count) {
        return err_set(err, -EINVAL, "FILE or FOLDER is wanted: what to look at (- is standard input)");
    }
    if (threshold(c, &worst, err)) {
        return err->code;
    }
    for (size_t i = 0; i < c->word_count; i++) {
        if (add_path(f, c->words[i], 0, err)) {
            return err->code;
        }
    }
    size_t n = cp_analyze(f->v, f->n, c->arena, &v);
    for (size_t i = 0; i < n && c->o.format == FORMAT_TABLE; i++) { // as istioctl: JSON and YAML always end with 0
        if (v[i].code && v[i].level <= worst) {
            c->code = EXIT_FOUND;
        } else if (!v[i].code && !c->code) {
            c->code = EXIT_BAD_FILE;
        }
    }
    return show(c, v, n, f->n, err);
}

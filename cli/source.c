// SPDX-License-Identifier: Apache-2.0
#include "cli/source.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/base/file.h"
#include "lib/http/client.h"

enum { BYTES_MAX = 1 << 30 };

static int read_stdin(struct arena *a, struct str *ret, struct err *err)
{
    struct buf b = { 0 };
    for (;;) {
        size_t room;
        char *p = buf_reserve(&b, BUF_SLICE_BYTES / 2, &room);
        ssize_t n = read(STDIN_FILENO, p, room);
        int saved = errno;
        buf_commit(&b, n > 0 ? (size_t)n : 0);
        if (n == 0) {
            break;
        }
        if ((n < 0 && saved != EINTR) || b.len > BYTES_MAX) {
            buf_clear(&b);
            return n < 0 ? err_errno(err, saved, "read standard input")
                         : err_set(err, -EFBIG, "standard input: more than %d bytes", BYTES_MAX);
        }
    }
    char *text = arena_alloc(a, b.len + 1);
    size_t n = buf_peek(&b, 0, text, b.len);
    text[n] = '\0';
    buf_clear(&b);
    *ret = str_n(text, n);
    return 0;
}

// In a `remoractl dump` the page that path asks for: its member of that name. Otherwise n itself.
static struct json *page_of(struct json *n, const char *path)
{
    struct str rest = str_c(path + 1), name = str_split(&rest, '?');
    for (struct json *m = json_get(n, "server_info") ? n->first : NULL; m; m = m->next) {
        if (str_eq(m->key, name)) {
            return m;
        }
    }
    return n;
}

static int read_file(struct cli *c, const char *page, struct json **ret, struct err *err)
{
    struct str text;
    bool is_stdin = str_is(c->o.file, "-");
    const char *path = is_stdin ? "standard input" : arena_str(c->arena, c->o.file).p;
    int r = is_stdin ? read_stdin(c->arena, &text, err) : file_read(path, BYTES_MAX, c->arena, &text, err);
    if (r) {
        return r;
    }
    if (!str_trim(text).n) {
        return err_set(err, -EINVAL, "%s is empty; save a dump with: curl ADMIN/config_dump", path);
    }
    struct json *root;
    r = json_or_yaml_parse(text, c->arena, &root, err);
    if (r) {
        return err_wrap(err, "%s is neither JSON nor YAML", path);
    }
    *ret = page_of(root, page);
    return 0;
}

// Names are looked up; addr_parse knows the rest.
static int resolve(struct arena *a, struct str text, const char *option, struct addr *ret, struct err *err)
{
    if (addr_parse(text, ret)) {
        return 0;
    }
    struct str rest = text, host = str_split(&rest, ':');
    uint64_t port;
    if (!str_to_u64(rest, 65535, &port) || port == 0) {
        return err_set(err, -EINVAL, "%s %.*s: write HOST:PORT or unix:///PATH%s", option, STR_FMT(text),
                       strcmp(option, "--address") == 0 ? " (to filter by address: --listen-address, --endpoint-address)" : "");
    }
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *list = NULL;
    int r = getaddrinfo(host.n ? arena_str(a, host).p : "127.0.0.1", NULL, &hints, &list);
    if (r) {
        return err_set(err, -EINVAL, "%s %.*s: %s", option, STR_FMT(text), gai_strerror(r));
    }
    bool ok = addr_from_sockaddr(list->ai_addr, list->ai_addrlen, ret);
    ret->port = (uint16_t)port;
    freeaddrinfo(list);
    return ok ? 0 : err_set(err, -EINVAL, "%s %.*s: no usable address", option, STR_FMT(text));
}

struct call {
    const char *method, *path;
    struct str at;
    const char *option, *hint; // whose address, and what to say when nobody listens
};

static int call(struct cli *c, const struct call *q, struct str *ret, struct err *err)
{
    struct http_client_req r = { .method = q->method, .path = str_c(q->path), .timeout_ms = (int)c->o.timeout_ms, .max_bytes = BYTES_MAX };
    char host[ADDR_TEXT_MAX];
    int status = resolve(c->arena, q->at, q->option, &r.to, err);
    if (status) {
        return status;
    }
    r.host = r.to.family == AF_UNIX ? STR("localhost") : str_c(addr_text(&r.to, host));
    status = http_client_do(&r, c->arena, ret, err);
    if (status < 0) {
        if (err->code == -ECONNREFUSED || err->code == -ENOENT) {
            size_t n = strlen(err->msg);
            snprintf(err->msg + n, sizeof(err->msg) - n, "\n%s", q->hint);
        }
        return status;
    }
    if (status != 200) {
        struct str body = *ret, line = str_split(&body, '\n');
        return err_set(err, -EPROTO, "%s %s at %.*s was answered with %d: %.*s", q->method, q->path, STR_FMT(q->at), status,
                       (int)(line.n > 200 ? 200 : line.n), line.p);
    }
    return 0;
}

static const char admin_hint[] = "is the proxy running in this network namespace? --address HOST:PORT names another admin address, "
                                 "-f FILE reads a saved dump";

static int fetch(struct cli *c, const struct call *q, struct json **ret, struct err *err)
{
    struct str text;
    int r = call(c, q, &text, err);
    if (r) {
        return r;
    }
    r = json_parse(text, c->arena, ret, err);
    return r ? err_wrap(err, "the answer of %.*s to %s is not JSON", STR_FMT(q->at), q->path) : 0;
}

int source_admin(struct cli *c, const char *path, struct json **ret, struct err *err)
{
    if (c->o.file.n) {
        return read_file(c, path, ret, err);
    }
    const struct call q = { .method = "GET", .path = path, .at = c->o.address, .option = "--address", .hint = admin_hint };
    return fetch(c, &q, ret, err);
}

int source_text(struct cli *c, const char *path, struct str *ret, struct err *err)
{
    const struct call q = { .method = "GET", .path = path, .at = c->o.address, .option = "--address", .hint = admin_hint };
    return call(c, &q, ret, err);
}

int source_control(struct cli *c, const char *path, struct json **ret, struct err *err)
{
    if (c->o.file.n) {
        return read_file(c, path, ret, err);
    }
    const struct call q = { .method = "GET",
                            .path = path,
                            .at = c->o.control,
                            .option = "--control",
                            .hint = "is remora-control running? --control HOST:PORT names another monitoring address" };
    return fetch(c, &q, ret, err);
}

int source_post(struct cli *c, const char *path, struct str *ret, struct err *err)
{
    const struct call q = { .method = "POST", .path = path, .at = c->o.address, .option = "--address", .hint = admin_hint };
    return call(c, &q, ret, err);
}

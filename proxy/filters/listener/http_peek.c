// SPDX-License-Identifier: Apache-2.0
#include "proxy/filters/listener/http_peek.h"

#include "lib/base/check.h"

// IANA's registry of methods. A method of one's own makes a connection to a port of undeclared protocol plain TCP, which still works.
static const struct str methods[] = {
    STR_INIT("GET"), STR_INIT("POST"), STR_INIT("PUT"), STR_INIT("HEAD"), STR_INIT("DELETE"), STR_INIT("OPTIONS"), STR_INIT("PATCH"),
    STR_INIT("CONNECT"), STR_INIT("TRACE"), STR_INIT("ACL"), STR_INIT("BASELINE-CONTROL"), STR_INIT("BIND"), STR_INIT("CHECKIN"),
    STR_INIT("CHECKOUT"), STR_INIT("COPY"), STR_INIT("LABEL"), STR_INIT("LINK"), STR_INIT("LOCK"), STR_INIT("MERGE"),
    STR_INIT("MKACTIVITY"), STR_INIT("MKCALENDAR"), STR_INIT("MKCOL"), STR_INIT("MKREDIRECTREF"), STR_INIT("MKWORKSPACE"),
    STR_INIT("MOVE"), STR_INIT("ORDERPATCH"), STR_INIT("PROPFIND"), STR_INIT("PROPPATCH"), STR_INIT("QUERY"), STR_INIT("REBIND"),
    STR_INIT("REPORT"), STR_INIT("SEARCH"), STR_INIT("UNBIND"), STR_INIT("UNCHECKOUT"), STR_INIT("UNLINK"), STR_INIT("UNLOCK"),
    STR_INIT("UPDATE"), STR_INIT("UPDATEREDIRECTREF"), STR_INIT("VERSION-CONTROL"),
};

// -1: a method no longer possible; 0: bytes end within one; else the length of the method.
static int method_length(struct str b)
{
    bool possible = false;
    for (size_t i = 0; i < array_len(methods); i++) {
        struct str m = methods[i];
        if (b.n > m.n && b.p[m.n] == ' ' && memcmp(b.p, m.p, m.n) == 0) {
            return (int)m.n;
        }
        possible = possible || (b.n <= m.n && memcmp(b.p, m.p, b.n) == 0);
    }
    return possible ? 0 : -1;
}

// rest: what follows the method and its space.
static enum http_peek_result peek_line(struct str rest)
{
    size_t i = 0;
    while (i < rest.n && (unsigned char)rest.p[i] > ' ') {
        i++;
    }
    if (i == rest.n) {
        return HTTP_PEEK_MORE; // within the target
    }
    if (i == 0 || rest.p[i] != ' ') {
        return HTTP_PEEK_NOT_HTTP; // no target, or (a line end) no version: HTTP/0.9 or another protocol
    }
    struct str version = str_skip(rest, i + 1), want = STR("HTTP/1.");
    size_t n = version.n < want.n ? version.n : want.n;
    if (memcmp(version.p, want.p, n) != 0) {
        return HTTP_PEEK_NOT_HTTP;
    }
    if (version.n <= want.n) {
        return HTTP_PEEK_MORE;
    }
    return version.p[want.n] == '1' ? HTTP_PEEK_11 : version.p[want.n] == '0' ? HTTP_PEEK_10 : HTTP_PEEK_NOT_HTTP;
}

enum http_peek_result http_peek(struct str bytes)
{
    if (bytes.n == 0) {
        return HTTP_PEEK_MORE;
    }
    struct str preface = STR("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    if (memcmp(bytes.p, preface.p, bytes.n < preface.n ? bytes.n : preface.n) == 0) {
        // "P" alone may also become a method; both wait.
        return bytes.n >= preface.n ? HTTP_PEEK_2 : HTTP_PEEK_MORE;
    }
    int method = method_length(bytes);
    if (method <= 0) {
        return method < 0 ? HTTP_PEEK_NOT_HTTP : HTTP_PEEK_MORE;
    }
    return peek_line(str_skip(bytes, (size_t)method + 1));
}

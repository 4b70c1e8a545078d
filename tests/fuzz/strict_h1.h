// SPDX-License-Identifier: Apache-2.0
// A second reader of HTTP/1 for differential fuzzing: RFC 9112 over a whole buffer, one byte after the other, knowing nothing of
// lib/http. It doubts where tests/conformance/h1/strict.py doubts, and shares no code with it or with what it judges.
#ifndef TESTS_FUZZ_STRICT_H1_H
#define TESTS_FUZZ_STRICT_H1_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { STRICT_MESSAGES_MAX = 64 };

struct strict_message {
    uint64_t digest;   // start line (method and target, or status) and body
    size_t body;
};

struct strict {
    const char *p;
    size_t n, at;
    bool request, head, eof; // eof: the connection ends behind the bytes
    const char *doubt;       // NULL = none
    struct strict_message v[STRICT_MESSAGES_MAX];
    unsigned count;          // complete ones
    bool closed;             // a message said that nothing is read behind it
    // the message under way
    bool v10, close, keep_alive, has_length, chunked, te_seen, connect;
    unsigned hosts, status;
    uint64_t length, digest;
    size_t body;
};

static inline int strict_at(const struct strict *s, size_t i)
{
    return i < s->n ? (unsigned char)s->p[i] : -1;
}

static inline bool strict_token(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c > 0 && c < 127 && strchr("!#$%&'*+-.^_`|~", c));
}

static inline void strict_mix(struct strict *s, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        s->digest = (s->digest ^ (unsigned char)p[i]) * 1099511628211ull;
    }
    s->digest = (s->digest ^ 0x100) * 1099511628211ull;
}

static inline bool strict_is(const char *p, size_t n, const char *want)
{
    if (n != strlen(want)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        char c = p[i] >= 'A' && p[i] <= 'Z' ? (char)(p[i] + 32) : p[i];
        if (c != want[i]) {
            return false;
        }
    }
    return true;
}

static inline bool strict_doubt(struct strict *s, const char *why)
{
    s->doubt = why;
    return false;
}

// The line at s->at without its CRLF; s->at goes behind it. False: not complete (s->doubt NULL) or bad.
static inline bool strict_line(struct strict *s, const char **ret, size_t *ret_n)
{
    for (size_t i = s->at; i < s->n; i++) {
        int c = strict_at(s, i);
        if (c == '\n') {
            return strict_doubt(s, "bare LF");
        }
        if (c == '\r') {
            if (strict_at(s, i + 1) == -1) {
                return false;
            }
            if (strict_at(s, i + 1) != '\n') {
                return strict_doubt(s, "bare CR");
            }
            *ret = s->p + s->at;
            *ret_n = i - s->at;
            s->at = i + 2;
            return true;
        }
    }
    return false;
}

static inline bool strict_request_line(struct strict *s, const char *p, size_t n)
{
    size_t m = 0;
    while (m < n && strict_token((unsigned char)p[m])) {
        m++;
    }
    if (m == 0 || m >= n || p[m] != ' ') {
        return strict_doubt(s, "method");
    }
    size_t t = m + 1, e = t;
    while (e < n && p[e] > ' ' && p[e] < 127 && p[e] != '#') {
        e++;
    }
    s->connect = m == 7 && memcmp(p, "CONNECT", 7) == 0;
    bool star = e - t == 1 && p[t] == '*' && m == 7 && memcmp(p, "OPTIONS", 7) == 0;
    if (e == t || e >= n || p[e] != ' ' || (p[t] != '/' && !star && !s->connect)) {
        return strict_doubt(s, "target");
    }
    if (n - e != 9 || memcmp(p + e, " HTTP/1.", 8) != 0 || (p[n - 1] != '0' && p[n - 1] != '1')) {
        return strict_doubt(s, "version");
    }
    s->v10 = p[n - 1] == '0';
    strict_mix(s, p, m);
    strict_mix(s, p + t, e - t);
    return true;
}

static inline bool strict_status_line(struct strict *s, const char *p, size_t n)
{
    if (n < 13 || memcmp(p, "HTTP/1.", 7) != 0 || (p[7] != '0' && p[7] != '1') || p[8] != ' ' || p[12] != ' ') {
        return strict_doubt(s, "status line");
    }
    s->v10 = p[7] == '0';
    s->status = 0;
    for (int i = 9; i < 12; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return strict_doubt(s, "status");
        }
        s->status = s->status * 10 + (unsigned)(p[i] - '0');
    }
    for (size_t i = 13; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if ((c < ' ' && c != '\t') || c == 127) {
            return strict_doubt(s, "reason");
        }
    }
    strict_mix(s, p + 9, 3);
    return s->status >= 100 ? true : strict_doubt(s, "status");
}

static inline bool strict_length(struct strict *s, const char *p, size_t n)
{
    uint64_t v = 0;
    if (s->has_length || n == 0 || n > 19 || (n > 1 && p[0] == '0')) {
        return strict_doubt(s, "content-length");
    }
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return strict_doubt(s, "content-length");
        }
        v = v * 10 + (uint64_t)(p[i] - '0');
    }
    s->has_length = true;
    s->length = v;
    return v <= INT64_MAX ? true : strict_doubt(s, "content-length");
}

static inline bool strict_connection(struct strict *s, const char *p, size_t n)
{
    for (size_t i = 0; i <= n;) {
        size_t e = i;
        while (e < n && p[e] != ',') {
            e++;
        }
        size_t a = i, b = e;
        while (a < b && (p[a] == ' ' || p[a] == '\t')) {
            a++;
        }
        while (b > a && (p[b - 1] == ' ' || p[b - 1] == '\t')) {
            b--;
        }
        if (!strict_is(p + a, b - a, "close") && !strict_is(p + a, b - a, "keep-alive") && !strict_is(p + a, b - a, "upgrade") &&
            !strict_is(p + a, b - a, "te")) {
            return strict_doubt(s, "connection"); // others take fields away: another reading of the head
        }
        s->close |= strict_is(p + a, b - a, "close");
        s->keep_alive |= strict_is(p + a, b - a, "keep-alive");
        i = e + 1;
    }
    return true;
}

static inline bool strict_host(struct strict *s, const char *p, size_t n)
{
    if (s->hosts++) {
        return strict_doubt(s, "hosts");
    }
    for (size_t i = 0; i < n; i++) { // names of letters only: all else is a matter of taste
        if (!(p[i] >= 'a' && p[i] <= 'z') && !(p[i] >= '0' && p[i] <= '9') && p[i] != '.' && p[i] != '-') {
            return strict_doubt(s, "host");
        }
    }
    return true;
}

static inline bool strict_field(struct strict *s, const char *p, size_t n, bool trailer)
{
    size_t c = 0;
    while (c < n && strict_token((unsigned char)p[c])) {
        c++;
    }
    if (c == 0 || c >= n || p[c] != ':') {
        return strict_doubt(s, "field name");
    }
    size_t a = c + 1, b = n;
    while (a < b && (p[a] == ' ' || p[a] == '\t')) {
        a++;
    }
    while (b > a && (p[b - 1] == ' ' || p[b - 1] == '\t')) {
        b--;
    }
    for (size_t i = a; i < b; i++) {
        unsigned char x = (unsigned char)p[i];
        if ((x < ' ' && x != '\t') || x == 127) {
            return strict_doubt(s, "field value");
        }
    }
    bool length = strict_is(p, c, "content-length"), te = strict_is(p, c, "transfer-encoding"), host = strict_is(p, c, "host");
    bool connection = strict_is(p, c, "connection"), upgrade = strict_is(p, c, "upgrade");
    if (trailer) {
        return length || te || host || connection || upgrade ? strict_doubt(s, "trailer") : true;
    }
    if (te) {
        s->chunked = true;
        return s->te_seen || !strict_is(p + a, b - a, "chunked") ? strict_doubt(s, "transfer-encoding") : (s->te_seen = true);
    }
    return length ? strict_length(s, p + a, b - a) : connection ? strict_connection(s, p + a, b - a) : host && s->request ? strict_host(s, p + a, b - a) : true;
}

static inline bool strict_fields(struct strict *s, bool trailer)
{
    for (;;) {
        const char *p;
        size_t n;
        if (!strict_line(s, &p, &n)) {
            return false;
        }
        if (n == 0) {
            return true;
        }
        if (!strict_field(s, p, n, trailer)) {
            return false;
        }
    }
}

static inline bool strict_chunks(struct strict *s)
{
    for (;;) {
        const char *p;
        size_t n;
        uint64_t size = 0;
        if (!strict_line(s, &p, &n)) {
            return false;
        }
        for (size_t i = 0; i < n; i++) {
            const char *hex = "0123456789abcdef0123456789ABCDEF", *h = p[i] ? strchr(hex, p[i]) : NULL;
            if (!h || n > 15 || (n > 1 && p[0] == '0')) {
                return strict_doubt(s, "chunk size");
            }
            size = size * 16 + (uint64_t)((h - hex) & 15);
        }
        if (n == 0) {
            return strict_doubt(s, "chunk size");
        }
        if (size == 0) {
            return strict_fields(s, true);
        }
        if (s->n - s->at < size) {
            return false;
        }
        for (uint64_t i = 0; i < size; i++) {
            s->digest = (s->digest ^ (unsigned char)s->p[s->at + i]) * 1099511628211ull;
        }
        s->body += (size_t)size;
        s->at += (size_t)size;
        if (strict_at(s, s->at) == -1 || (strict_at(s, s->at) == '\r' && strict_at(s, s->at + 1) == -1)) {
            return false;
        }
        if (strict_at(s, s->at) != '\r' || strict_at(s, s->at + 1) != '\n') {
            return strict_doubt(s, "chunk end");
        }
        s->at += 2;
    }
}

// Body of n bytes.
static inline bool strict_plain(struct strict *s, uint64_t n)
{
    if (s->n - s->at < n) {
        return false;
    }
    for (uint64_t i = 0; i < n; i++) {
        s->digest = (s->digest ^ (unsigned char)s->p[s->at + i]) * 1099511628211ull;
    }
    s->body = (size_t)n;
    s->at += (size_t)n;
    return true;
}

static inline bool strict_body(struct strict *s)
{
    if (s->chunked && (s->has_length || s->v10)) {
        return strict_doubt(s, "framing");
    }
    if (s->request) {
        if (s->hosts == 0 && !s->v10) {
            return strict_doubt(s, "no host");
        }
        if (s->connect) {
            return strict_doubt(s, "CONNECT"); // what is behind it is no HTTP
        }
        s->closed = s->close || (s->v10 && !s->keep_alive);
        return s->chunked ? strict_chunks(s) : strict_plain(s, s->has_length ? s->length : 0);
    }
    s->closed = s->close || (s->v10 && !s->keep_alive);
    if (s->status < 200 || s->status == 204) {
        if (s->chunked || s->has_length) {
            return strict_doubt(s, "framing without body");
        }
        if (s->status == 101) {
            return strict_doubt(s, "101");
        }
        s->closed = s->closed && s->status >= 200;
        return true;
    }
    if (s->head || s->status == 304) {
        return true;
    }
    if (s->chunked) {
        return strict_chunks(s);
    }
    if (s->has_length) {
        return strict_plain(s, s->length);
    }
    s->closed = true;
    return s->eof && strict_plain(s, s->n - s->at);
}

// Reads all messages of s->p[0 … s->n).
static inline void strict_read(struct strict *s)
{
    while (!s->doubt && !s->closed && s->at < s->n && s->count < STRICT_MESSAGES_MAX) {
        const char *p;
        size_t n, begin = s->at;
        s->v10 = s->close = s->keep_alive = s->has_length = s->chunked = s->te_seen = s->connect = false;
        s->hosts = 0;
        s->length = 0;
        s->digest = 14695981039346656037ull;
        s->body = 0;
        bool ok = strict_line(s, &p, &n) && (s->request ? strict_request_line(s, p, n) : strict_status_line(s, p, n)) &&
                  strict_fields(s, false) && strict_body(s);
        if (!ok) {
            s->at = begin;
            s->closed = false;
            return;
        }
        s->v[s->count++] = (struct strict_message){ .digest = s->digest, .body = s->body };
    }
}

#endif

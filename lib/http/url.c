// SPDX-License-Identifier: Apache-2.0
#include "lib/http/url.h"

#include "lib/http/chars.h"

// Decimal 1…65535 without sign; an empty or zero port is refused because readers differ on what it means.
static bool parse_port(struct str s, uint16_t *ret)
{
    uint64_t v;
    if (s.n == 0 || s.n > 5 || !str_to_u64(s, 65535, &v) || v == 0) {
        return false;
    }
    *ret = (uint16_t)v;
    return true;
}

// The inside of an IP-literal: IPv6 with an optional zone (RFC 6874 "%25" or the bare "%" people write).
static bool ipv6_text_valid(struct str s)
{
    int colons = 0;
    size_t i = 0;
    for (; i < s.n && s.p[i] != '%'; i++) {
        if (s.p[i] == ':') {
            colons++;
        } else if (!ch_is(s.p[i], CH_HEX) && s.p[i] != '.') {
            return false;
        }
    }
    bool zone = i < s.n;
    for (size_t j = i + 1; j < s.n; j++) {
        if (!ch_is(s.p[j], CH_HOST)) {
            return false;
        }
    }
    return colons >= 2 && colons <= 7 && (!zone || s.n > i + 1);
}

bool url_split_authority(struct str a, struct str *ret_host, uint16_t *ret_port)
{
    if (a.n == 0) {
        return false;
    }
    struct str host;
    size_t end;
    if (a.p[0] == '[') {
        ptrdiff_t close = str_find(a, ']');
        if (close < 0) {
            return false;
        }
        host = str_n(a.p + 1, (size_t)close - 1);
        end = (size_t)close + 1;
        if (!ipv6_text_valid(host)) {
            return false;
        }
    } else {
        for (end = 0; end < a.n && ch_is(a.p[end], CH_HOST); end++) {
        }
        host = str_n(a.p, end);
        if (end == 0) {
            return false;
        }
    }
    uint16_t port = 0;
    if (end < a.n && (a.p[end] != ':' || !parse_port(str_skip(a, end + 1), &port))) {
        return false;
    }
    *ret_host = host;
    *ret_port = port;
    return true;
}

struct str url_split_path(struct str path, struct str *ret_query)
{
    ptrdiff_t hash = str_find(path, '#');
    if (hash >= 0) {
        path.n = (size_t)hash;
    }
    ptrdiff_t q = str_find(path, '?');
    *ret_query = q >= 0 ? str_n(path.p + q + 1, path.n - (size_t)q - 1) : (struct str){ 0 };
    if (q >= 0) {
        path.n = (size_t)q;
    }
    return path;
}

bool url_decode(struct str s, struct arena *a, struct str *ret)
{
    char *out = arena_alloc(a, s.n + 1);
    if (!out) {
        return false;
    }
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '%') {
            out[n++] = s.p[i];
            continue;
        }
        if (s.n - i < 3 || !ch_is(s.p[i + 1], CH_HEX) || !ch_is(s.p[i + 2], CH_HEX)) {
            return false;
        }
        out[n++] = (char)(ch_hex(s.p[i + 1]) << 4 | ch_hex(s.p[i + 2]));
        i += 2;
    }
    out[n] = '\0';
    *ret = str_n(out, n);
    return true;
}

// Normalises path into out (room for path.n bytes + 1); returns the length, or -1 when it climbs above the root.
static ptrdiff_t remove_dots(struct str path, bool merge_slashes, char *out)
{
    size_t n = 0; // out[0..n) ends without '/', each segment is "/" + text
    size_t i = 1; // behind the leading '/'
    for (;;) {
        size_t j = i;
        while (j < path.n && path.p[j] != '/') {
            j++;
        }
        struct str seg = str_n(path.p + i, j - i);
        bool last = j >= path.n;
        ptrdiff_t params = str_find(seg, ';'); // "..;x" is ".." to servers that know path parameters, so it must be to everybody
        struct str bare = params > 0 ? str_n(seg.p, (size_t)params) : seg;
        bool dot = str_is(bare, "."), dots = str_is(bare, "..");
        if (dots) {
            if (n == 0) {
                return -1;
            }
            while (out[--n] != '/') {
            }
        }
        if (dot || dots) {
            if (last) {
                out[n++] = '/';
            }
        } else if (seg.n || last || !merge_slashes) {
            out[n++] = '/';
            if (seg.n) {
                memcpy(out + n, seg.p, seg.n);
                n += seg.n;
            }
        }
        if (last) {
            return (ptrdiff_t)n;
        }
        i = j + 1;
    }
}

bool url_normalize_path(struct str pq, bool merge_slashes, struct arena *a, struct str *ret)
{
    if (pq.n == 0 || pq.p[0] != '/' || memchr(pq.p, '\0', pq.n)) {
        return false;
    }
    ptrdiff_t q = str_find(pq, '?');
    struct str path = str_n(pq.p, q >= 0 ? (size_t)q : pq.n);
    struct str tail = str_skip(pq, path.n);
    if (str_find_str(path, STR("/.")) < 0 && !(merge_slashes && str_find_str(path, STR("//")) >= 0)) {
        *ret = pq;
        return true;
    }
    char *out = arena_alloc(a, pq.n + 2);
    if (!out) {
        return false;
    }
    ptrdiff_t n = remove_dots(path, merge_slashes, out);
    if (n < 0) {
        return false;
    }
    if (tail.n) {
        memcpy(out + n, tail.p, tail.n);
    }
    out[(size_t)n + tail.n] = '\0';
    *ret = str_n(out, (size_t)n + tail.n);
    return true;
}

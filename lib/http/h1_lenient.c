// SPDX-License-Identifier: Apache-2.0
#include "lib/http/h1_lenient.h"

#include <string.h>

static bool blank(char c)
{
    return c == ' ' || c == '\t';
}

// Words of the request line with one SP in between. A line that begins with a blank keeps it: the strict parser refuses it.
static size_t squeeze(const char *line, size_t n, char *out)
{
    size_t k = 0;
    while (n > 0 && blank(line[n - 1])) {
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        if (!blank(line[i])) {
            out[k++] = line[i];
        } else if (i == 0 || !blank(line[i - 1])) {
            out[k++] = ' ';
        }
    }
    return k;
}

size_t h1_lenient_text(const char *raw, size_t n, bool request_line, bool trailers, char *out)
{
    size_t k = 0, number = trailers ? 1 : 0; // 0 = start line
    for (size_t at = 0; at < n;) {
        const char *lf = memchr(raw + at, '\n', n - at);
        const char *line = raw + at;
        size_t len = lf ? (size_t)(lf - line) : n - at;
        at += len + 1;
        if (len > 0 && line[len - 1] == '\r') {
            len--;
        }
        if (number > 1 && len > 0 && blank(line[0])) {
            k -= 2; // takes the CRLF back
            out[k++] = ' ';
            while (len > 0 && blank(line[0])) {
                line++;
                len--;
            }
        }
        if (number == 0 && request_line) {
            k += squeeze(line, len, out + k);
        } else {
            memcpy(out + k, line, len);
            k += len;
        }
        out[k++] = '\r';
        out[k++] = '\n';
        number++;
    }
    return k;
}

// SPDX-License-Identifier: Apache-2.0
// Whether the first bytes of a connection are HTTP, and which version. Pure; decides as early as the bytes allow, so that other protocols do
// not wait.
#ifndef PROXY_FILTERS_LISTENER_HTTP_PEEK_H
#define PROXY_FILTERS_LISTENER_HTTP_PEEK_H

#include "lib/base/str.h"

enum { HTTP_PEEK_BYTES_MAX = 64 * 1024 }; // request line; longer ones are not HTTP to us

enum http_peek_result { HTTP_PEEK_MORE, HTTP_PEEK_NOT_HTTP, HTTP_PEEK_10, HTTP_PEEK_11, HTTP_PEEK_2 };

// bytes: all that came so far, from the start. HTTP/1 (RFC 9112 §3) is known by a registered method, a target and the version; HTTP/2 by
// its preface (RFC 9113 §3.4).
enum http_peek_result http_peek(struct str bytes);

#endif

// SPDX-License-Identifier: Apache-2.0
// Private to lib/http: the parser's second half, which reads a complete head lying in one piece.
#ifndef LIB_HTTP_H1_FIELDS_H
#define LIB_HTTP_H1_FIELDS_H

#include "lib/http/h1_parser.h"

enum { H1_FIELDS_PAD = 16 }; // zero bytes that must follow the text

// text: len bytes ending with the empty line's CRLF, every LF behind a CR, H1_FIELDS_PAD readable zero bytes behind; it must live as
// long as the message, which will point into it. Fill p->req, p->resp or p->trailers, and p->body, body_left, keep_alive.
enum h1_error h1_parse_request_head(struct h1_parser *p, const char *text, size_t len);
enum h1_error h1_parse_response_head(struct h1_parser *p, const char *text, size_t len);
enum h1_error h1_parse_trailers(struct h1_parser *p, const char *text, size_t len);

#endif

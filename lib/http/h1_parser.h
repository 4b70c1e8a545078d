// SPDX-License-Identifier: Apache-2.0
// HTTP/1.0 and HTTP/1.1 parser (RFC 9112): pure and incremental; bytes in, events out; owns no socket, clock or thread.
// Strict where smuggling needs it: one meaning for every accepted message, everything doubtful is refused with a named reason.
#ifndef LIB_HTTP_H1_PARSER_H
#define LIB_HTTP_H1_PARSER_H

#include "lib/base/buf.h"
#include "lib/http/message.h"

enum {
    H1_HEAD_BYTES_MAX = 60 * 1024, // default limit of a head, Envoy's 60 KiB
    H1_HEADER_COUNT_MAX = 100,     // Envoy's default
    H1_TRAILER_BYTES_MAX = 16 * 1024,
    H1_CHUNK_LINE_MAX = 256,       // chunk size line with extensions
    H1_CHUNK_EXT_MAX = 16 * 1024,  // chunk extensions of one message together
    H1_CONNECTION_TOKENS_MAX = 32, // names in the Connection fields of one message
};

// Reasons for refusing; h1_error_text gives stable snake_case details as Envoy's response_code_details style
// ("http1.duplicate_content_length", …).
enum h1_error {
    H1_OK = 0,
    H1_ERR_REQUEST_LINE, H1_ERR_STATUS_LINE, H1_ERR_METHOD, H1_ERR_TARGET, H1_ERR_VERSION, H1_ERR_HEADER_NAME, H1_ERR_HEADER_VALUE,
    H1_ERR_OBS_FOLD, H1_ERR_BARE_LF, H1_ERR_BARE_CR, H1_ERR_NUL, H1_ERR_HOST_MISSING, H1_ERR_HOST_DUPLICATE, H1_ERR_HOST_INVALID,
    H1_ERR_CL_INVALID, H1_ERR_CL_DUPLICATE, H1_ERR_CL_AND_TE, H1_ERR_TE_UNSUPPORTED, H1_ERR_TE_HTTP10, H1_ERR_CHUNK_SIZE,
    H1_ERR_CHUNK_EXT, H1_ERR_CHUNK_END, H1_ERR_TRAILER, H1_ERR_HEAD_TOO_LARGE, H1_ERR_TOO_MANY_HEADERS, H1_ERR_CONNECTION_HEADER,
    H1_ERR_UNEXPECTED_EOF, H1_ERR_BODY_NOT_ALLOWED, H1_ERR_UNEXPECTED_BYTES,
    H1_ERR_HTTP10, // a request of HTTP/1.0 where limits.allow_http10 is off: 426 as Envoy
    H1_ERR_COUNT
};
const char *h1_error_text(enum h1_error e);
// Status for the local answer: 400, 431, 501 (unknown transfer coding), 505, 413, 426…
int h1_error_status(enum h1_error e);

enum h1_event {
    H1_NEED_MORE, // consumed what it could
    H1_HEAD,      // request or response head is in p->req / p->resp
    H1_DATA,      // body bytes are available: h1_take_body moves them
    H1_TRAILERS,  // p->trailers holds them (may be empty: not reported then)
    H1_END,       // message complete; h1_parser_next starts the next one
    H1_FAILED,    // p->error; the parser stays failed
};

enum h1_body { H1_BODY_NONE, H1_BODY_LENGTH, H1_BODY_CHUNKED, H1_BODY_UNTIL_CLOSE };

struct h1_limits {
    uint32_t head_bytes, header_count;
    bool allow_http10;       // accept_http_10; a request of 1.0 is refused with 426 otherwise
    bool allow_absolute_url; // default true (RFC 9112 §3.2.2)
    bool allow_chunked_length; // Http1ProtocolOptions: content-length beside chunked is dropped, and the connection closes afterwards
    // Takes what old programs write and what has one reading all the same: lines that end with LF, folded fields, up to eight empty lines in
    // front of a request, blanks between and behind the words of a request line, blanks behind a chunk size, equal Host or Content-Length
    // fields twice; trailers that are forbidden are dropped. All goes out in the strict form.
    bool lenient;
};
extern const struct h1_limits h1_limits_default;

struct h1_parser {
    bool is_request;
    uint8_t state;         // private
    enum h1_error error;
    struct h1_limits limits;
    struct arena *arena;   // borrowed: head and trailers of the current message
    union { // by is_request
        struct http_request req;
        struct http_response resp;
    };
    struct headers trailers;
    enum h1_body body;
    uint64_t body_left;    // of the content-length or of the current chunk
    bool keep_alive;       // connection may carry another message after this one
    bool head_request;     // response parser: the request was HEAD, so no body follows
    bool connect_request;  // response parser: the request was CONNECT
    // private
    size_t scan_off;         // how far the end of the head or trailers was searched
    size_t line_off;         // where the line in search began
    bool scan_cr;            // the byte before scan_off is CR
    bool started;            // something of this message was seen
    uint8_t skipped_lines;   // RFC 9112 §2.2: one empty line before a request is taken
    uint32_t chunk_left_ext; // bytes of chunk extensions still allowed in this message
};

// arena: where the next message's head goes; may be changed by h1_parser_next.
void h1_parser_init(struct h1_parser *p, bool is_request, const struct h1_limits *limits, struct arena *arena);
// Before the next message on the connection. head_request and connect_request stay as they are (1xx, then the final answer).
void h1_parser_next(struct h1_parser *p, struct arena *arena);
// Looks at in, consumes framing (heads, chunk lines, CRLFs) from it and reports one event. Body bytes stay in in until
// h1_take_body. Call again until H1_NEED_MORE, H1_END or H1_FAILED. 1xx responses (except 101) come as H1_HEAD followed by H1_END.
enum h1_event h1_parser_run(struct h1_parser *p, struct buf *in);
// After H1_DATA: moves up to max body bytes from in to out; returns the count.
size_t h1_take_body(struct h1_parser *p, struct buf *in, struct buf *out, size_t max);
// The peer ended its side. H1_END when that completes the message (H1_BODY_UNTIL_CLOSE) or between messages,
// H1_FAILED otherwise.
enum h1_event h1_parser_eof(struct h1_parser *p);
// Whether the parser stands between two messages (nothing of the next one seen).
bool h1_parser_idle(const struct h1_parser *p);

// Writers: append to out; framing is always generated here from content_length / chunked, so host, content-length,
// transfer-encoding and hop-by-hop fields that stand in the header list are left out. Header order and case are kept. A CR, LF
// or NUL in a value (a policy may have built it from input) goes out as a space (RFC 9110 §5.5), a field whose name is no token
// not at all. Expect and TE are written from expect_continue and te_trailers.
// The caller sets chunked when content_length < 0 and a body may follow (HTTP/1.1).
enum h1_names { // case of field names (Http1ProtocolOptions.HeaderKeyFormat)
    H1_NAMES_PLAIN,    // as they came; those that we write are lower case
    H1_NAMES_PRESERVE, // as they came; those that we write have capitals where the sender's framing fields had
    H1_NAMES_PROPER,   // Every-Word
};
struct h1_write_opts {
    enum h1_names names;
    bool chunked;
    bool close;       // Connection: close
    bool keep_alive_10; // HTTP/1.0 peer that asked for keep-alive
    bool upgrade;     // Connection: upgrade + Upgrade: req->upgrade / resp->upgrade
    bool head_request; // response to HEAD: no content-length is made up for a message without body
};
void h1_write_request(struct buf *out, const struct http_request *r, const struct h1_write_opts *o);
void h1_write_response(struct buf *out, const struct http_response *r, const struct h1_write_opts *o);
// The same with members of the message that the sender has settled otherwise.
struct h1_request_as {
    enum http_version version;
    int64_t content_length;
    bool expect_continue;
};
struct h1_response_as {
    enum http_version version;
    int64_t content_length;
    bool end_stream;
};
void h1_write_request_as(struct buf *out, const struct http_request *r, const struct h1_write_opts *o, const struct h1_request_as *as);
void h1_write_response_as(struct buf *out, const struct http_response *r, const struct h1_write_opts *o, const struct h1_response_as *as);
// Body bytes of src (all of it) as one chunk or as they are.
void h1_write_body(struct buf *out, struct buf *src, bool chunked);
// Last chunk with optional trailers.
void h1_write_end(struct buf *out, const struct headers *trailers, bool chunked);

#endif

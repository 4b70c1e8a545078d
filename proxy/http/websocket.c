// SPDX-License-Identifier: Apache-2.0
// The WebSocket handshake between versions of HTTP. HTTP/1.1 proves with a key and its digest that the server understood (RFC 6455 §4);
// extended CONNECT has neither (RFC 8441 §5). Where one side has them and the other has not, they are made or taken away here.
#include "lib/base/base64.h"
#include "lib/base/rand.h"
#include "lib/tls/digest.h"
#include "proxy/http/internal.h"

enum { KEY_BYTES = 16 };

static const char key_name[] = "sec-websocket-key";
static const char accept_name[] = "sec-websocket-accept";

static bool is_websocket(const struct http_request *req)
{
    return str_eq_nocase(req->upgrade, STR("websocket"));
}

void websocket_request(struct stream *s)
{
    struct http_request *req = &s->req;
    if (!is_websocket(req) || req->version != HTTP_2 || headers_get(&req->headers, str_c(key_name))) {
        return;
    }
    uint8_t key[KEY_BYTES];
    rand_bytes(key, sizeof(key));
    headers_add(&req->headers, str_c(key_name), base64_encode(&s->arena, str_n(key, sizeof(key))));
    s->ws_key_made = true;
}

// RFC 6455 §4.2.2: the digest of the key and a constant.
static struct str accept_of(struct str key, struct arena *a)
{
    uint8_t sha[SHA1_BYTES];
    struct str text = arena_printf(a, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", STR_FMT(key));
    return digest_sha1(text, sha) ? base64_encode(a, str_n(sha, sizeof(sha))) : str_n(NULL, 0);
}

void websocket_response(struct stream *s, struct http_response *resp)
{
    if (!s->tunnel || !is_websocket(&s->req)) {
        return;
    }
    if (s->req.version == HTTP_2) {
        if (s->ws_key_made) {
            headers_remove(&resp->headers, str_c(accept_name));
        }
        return;
    }
    struct str key = headers_value(&s->req.headers, str_c(key_name));
    if (key.n && !headers_get(&resp->headers, str_c(accept_name))) {
        headers_add(&resp->headers, str_c(accept_name), accept_of(key, &s->arena));
    }
}

// SPDX-License-Identifier: Apache-2.0
// X-Forwarded-Client-Cert elements, in Envoy's order of keys: By, Hash, Subject, URI, DNS.
#include "lib/base/buf.h"
#include "lib/tls/transport_tls.h"
#include "proxy/http/internal.h"

// Values with separators are quoted, and '"' is escaped, so that a certificate cannot forge further elements.
static void put(struct buf *b, const char *key, struct str v, bool always_quote)
{
    bool quote = always_quote;
    for (size_t i = 0; i < v.n && !quote; i++) {
        quote = v.p[i] == ',' || v.p[i] == ';' || v.p[i] == '=' || v.p[i] == '"';
    }
    buf_printf(b, "%s%s=", b->len ? ";" : "", key);
    if (!quote) {
        buf_append_str(b, v);
        return;
    }
    buf_append(b, "\"", 1);
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] == '"' || v.p[i] == '\\') {
            buf_append(b, "\\", 1);
        }
        buf_append(b, v.p + i, 1);
    }
    buf_append(b, "\"", 1);
}

struct str xfcc_element(const struct http_manager_cfg *cfg, const struct tls_info *tls, struct arena *a)
{
    struct buf b = { 0 };
    if (tls->local_uri.n) {
        put(&b, "By", tls->local_uri, false);
    }
    if (tls->peer_sha256.n) {
        put(&b, "Hash", tls->peer_sha256, false);
    }
    if (cfg->set_client_cert.subject) {
        put(&b, "Subject", tls->peer_subject, true);
    }
    if (cfg->set_client_cert.uri) {
        put(&b, "URI", tls->peer_uri, false);
    }
    for (struct str rest = tls->peer_dns; cfg->set_client_cert.dns && rest.n;) {
        put(&b, "DNS", str_split(&rest, ','), false);
    }
    struct str s = arena_str(a, buf_pullup(&b, b.len));
    buf_clear(&b);
    return s;
}

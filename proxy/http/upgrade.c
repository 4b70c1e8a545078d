// SPDX-License-Identifier: Apache-2.0
// Protocol upgrades. None is carried yet: they are refused before anything of them reaches an upstream. Where they will be accepted, the
// answer 101 turns stream and attempt into a tunnel (codec_send_response with 101 does so on our side).
#include "proxy/http/internal.h"

const char *upgrade_refused(struct http_request *req)
{
    if (!req->upgrade.n) {
        return NULL;
    }
    // RFC 9113 §3.1 took h2c away; a proxy that passes it on opens a tunnel past its own policy (threat class T10). Ignoring it is what
    // RFC 9110 §7.8 allows any server to do.
    if (str_eq_nocase(req->upgrade, STR("h2c"))) {
        req->upgrade = str_n(NULL, 0);
        headers_remove_id(&req->headers, HDR_HTTP2_SETTINGS);
        return NULL;
    }
    return "upgrade_failed";
}

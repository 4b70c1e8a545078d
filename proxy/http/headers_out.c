// SPDX-License-Identifier: Apache-2.0
// What the connection manager adds to every answer.
#include <time.h>

#include "proxy/http/internal.h"

// One format a second and worker, not one an answer.
struct str http_date(struct http_worker *hw, uint64_t wall_ms)
{
    uint64_t s = wall_ms / 1000;
    if (s != hw->date_s || !hw->date_len) {
        time_t t = (time_t)s;
        struct tm tm;
        gmtime_r(&t, &tm);
        hw->date_len = strftime(hw->date, sizeof(hw->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        hw->date_s = s;
    }
    return str_n(hw->date, hw->date_len);
}

void response_headers_prepare(struct http_response *resp, const struct stream *s)
{
    const struct http_manager_cfg *cfg = s->cfg;
    struct headers *h = &resp->headers;
    bool have_server = false, have_date = false;
    bool look = headers_may_have(h, HDR_BIT(HDR_SERVER) | HDR_BIT(HDR_DATE));
    for (struct hdr *x = look ? headers_first(h) : NULL; x; x = headers_next(h, x)) {
        if (x->id == HDR_SERVER) {
            if (cfg->server_header == SERVER_OVERWRITE && !have_server) {
                x->value = cfg->server_name;
            }
            have_server = true;
        } else if (x->id == HDR_DATE) {
            have_date = true;
        }
    }
    if (!have_server && (cfg->server_header != SERVER_PASS_THROUGH || s->local_reply)) {
        headers_add_id(h, HDR_SERVER, cfg->server_name);
    }
    if (!have_date) { // an upstream's own date is kept, as Envoy does
        headers_add_id(h, HDR_DATE, http_date(http_worker_of(s->worker), loop_wall_ms(s->worker->loop)));
    }
    if (cfg->always_set_request_id_in_response) {
        struct str id = headers_value_id(&s->req.headers, HDR_X_REQUEST_ID);
        if (id.n) {
            headers_set_id(h, HDR_X_REQUEST_ID, id);
        }
    }
    if (cfg->via.n) {
        struct str old = headers_value_id(h, HDR_VIA);
        headers_set_id(h, HDR_VIA, old.n ? arena_printf(h->arena, "%.*s, %.*s", STR_FMT(old), STR_FMT(cfg->via)) : cfg->via);
    }
}

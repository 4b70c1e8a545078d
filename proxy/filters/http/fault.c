// SPDX-License-Identifier: Apache-2.0
// envoy.filters.http.fault
#include <errno.h>

#include "envoy/extensions/filters/http/fault/v3/fault.pb-c.h"
#include "proxy/filters/http/filters.h"

static int fault_config_parse(struct config_ctx *ctx, const void *msg, struct arena *arena, void **ret_cfg, struct err *err)
{
    (void)ctx;
    (void)arena;
    const Envoy__Extensions__Filters__Http__Fault__V3__HTTPFault *m = msg;
    if (m && (m->delay || m->abort || m->response_rate_limit)) {
        return err_set(err, -ENOTSUP, "delay, abort, response_rate_limit: faults are not built in yet");
    }
    *ret_cfg = NULL;
    return 0;
}

const struct http_filter_ops http_filter_fault = {
    .ext = { .name = "envoy.filters.http.fault", .type_url = "envoy.extensions.filters.http.fault.v3.HTTPFault",
             .config_parse = fault_config_parse },
};

// SPDX-License-Identifier: Apache-2.0
// cleanup: everything that we ever put there goes, whatever the flags say. Others' rules stay.
#include <errno.h>

#include "init-net/commands.h"
#include "init-net/install.h"
#include "init-net/report.h"
#include "init-net/route.h"
#include "init-net/signals.h"
#include "lib/base/clock.h"

static int remove_all(struct options *o, bool *ret_rules, size_t *ret_routes, struct err *err)
{
    scope_install struct install in = { 0 };
    scope_nl struct nl route = { 0 };
    sigset_t before;
    int r = install_open(&in, o, (int64_t)clock_mono_ms() + o->timeout_ms, err);
    r = r ? r : nl_open(&route, NETLINK_ROUTE, err);
    if (r) {
        return r;
    }
    signals_hold(&before);
    r = install_remove(&in, ret_rules, err);
    // Rules first: without its route a tproxied packet would go nowhere.
    r = r ? r : route_prune(&route, NULL, o->takeover, ret_routes, err);
    signals_release(&before);
    return r;
}

int cmd_cleanup(struct options *o, const struct facts *facts)
{
    (void)facts;
    bool rules = false;
    size_t routes = 0;
    struct err err = { 0 };
    int r = remove_all(o, &rules, &routes, &err);
    if (r) {
        report_failed(o, &err);
        return EXIT_APPLY;
    }
    report_warnings(o);
    const char *result = rules || routes ? "removed" : "nothing to remove";
    if (o->output == OUTPUT_TEXT) {
        report_message(o, "info", "cleanup: %s (rules: %s, addresses and routing rules: %zu)", result,
                       rules ? "yes" : "none", routes);
        return EXIT_OK;
    }
    struct json_writer w;
    struct buf out = { 0 };
    report_begin(o, &w, &out, result);
    jw_kv_bool(&w, "rules_removed", rules);
    jw_kv_u64(&w, "routing_changes", routes);
    report_end(o, &w, &out);
    return EXIT_OK;
}

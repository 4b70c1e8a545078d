// SPDX-License-Identifier: Apache-2.0
// cleanup: everything that we ever put there goes, whatever the flags say. Others' rules stay.
#include <errno.h>

#include "init-net/commands.h"
#include "init-net/nft_batch.h"
#include "init-net/nft_state.h"
#include "init-net/report.h"
#include "init-net/route.h"
#include "init-net/signals.h"
#include "lib/base/clock.h"

static int remove_all(struct options *o, bool *ret_rules, size_t *ret_routes, struct err *err)
{
    scope_nl struct nl nft = { 0 };
    scope_nl struct nl route = { 0 };
    struct nft_state state;
    struct nft_foreign foreign[8];
    size_t n = 0;
    int r = nl_open(&nft, NETLINK_NETFILTER, err);
    r = r ? r : nl_open(&route, NETLINK_ROUTE, err);
    r = r ? r : nft_state_read(&nft, o->arena, &state, err);
    if (r) {
        return r;
    }
    for (size_t i = 0; i < state.n_tables && o->takeover && n < 8; i++) {
        const char *owner = nft_state_foreign_owner(&state.tables[i]);
        if (owner && str_is(STR("istio-iptables"), owner)) {
            foreign[n++] = (struct nft_foreign){ state.tables[i].family, state.tables[i].name };
        }
    }
    sigset_t before;
    signals_hold(&before);
    if (state.present || n) {
        r = nft_delete(&nft, foreign, n, (int64_t)clock_mono_ms() + o->timeout_ms, err);
    }
    // Rules first: without its route a tproxied packet would go nowhere.
    r = r ? r : route_prune(&route, NULL, ret_routes, err);
    signals_release(&before);
    *ret_rules = state.present;
    return r;
}

int cmd_cleanup(struct options *o, const struct facts *facts)
{
    (void)facts;
    bool rules = false;
    size_t routes = 0;
    struct err err = { 0 };
    int r = remove_all(o, &rules, &routes, &err);
    report_warnings(o);
    if (r) {
        report_message(o, "error", "%s", err.msg);
        return EXIT_APPLY;
    }
    const char *result = rules || routes ? "removed" : "nothing to remove";
    if (o->output == OUTPUT_TEXT) {
        report_message(o, "info", "cleanup: %s (table: %s, addresses and routing rules: %zu)", result,
                       rules ? "yes" : "none", routes);
        return EXIT_OK;
    }
    struct json_writer w;
    struct buf out = { 0 };
    report_begin(o, &w, &out, result);
    jw_kv_bool(&w, "table_removed", rules);
    jw_kv_u64(&w, "routing_changes", routes);
    report_end(o, &w, &out);
    return EXIT_OK;
}

// SPDX-License-Identifier: Apache-2.0
// The HTTP filter of role-based access control: answers, counters, metadata, routes of their own. What rules mean is tests/unit/proxy/authz's.
#include "envoy/extensions/filters/http/rbac/v3/rbac.pb-c.h"
#include "proto/pb_json.h"
#include "tests/unit/proxy/filters/http/mesh.h"

static struct mesh m;
static struct err err;

static int setup(void **state)
{
    (void)state;
    mesh_init(&m);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mesh_fini(&m);
    return 0;
}

static void *parse(bool route, const char *json)
{
    ProtobufCMessage *msg;
    void *cfg = NULL;
    const ProtobufCMessageDescriptor *d = route ? &envoy__extensions__filters__http__rbac__v3__rbacper_route__descriptor
                                                : &envoy__extensions__filters__http__rbac__v3__rbac__descriptor;
    if (pb_json_parse(str_c(json), d, 0, &m.l->arena, &msg, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    int rc = (route ? http_filter_rbac.route_config_parse : http_filter_rbac.ext.config_parse)(NULL, msg, &m.l->arena, &cfg, &err);
    return rc < 0 ? NULL : cfg;
}

static void front(const void *cfg)
{
    struct http_chain *h = &m.hcm->chain;
    memmove(h->filters + 1, h->filters, h->count * sizeof(*h->filters));
    h->filters[0] = (struct ext){ .ops = &http_filter_rbac.ext, .cfg = cfg, .name = STR("rbac") };
    h->count++;
}

#define PATH(prefix) "{\"permissions\":[{\"url_path\":{\"path\":{\"prefix\":\"" prefix "\"}}}],\"principals\":[{\"any\":true}]}"

static void ask(int c, const char *path, const char *want)
{
    char text[200];
    snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", path);
    world_send(c, text);
    mesh_expect(&m, c, want);
}

static uint64_t counted(enum stat_scope scope, const char *name, enum stat_any id)
{
    return stats_sum(m.x.stats, scope, str_c(name), id);
}

static void denied_allowed_and_tried(void **state)
{
    (void)state;
    mesh_log(&m, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %DYNAMIC_METADATA(envoy.filters.http.rbac)% %DYNAMIC_METADATA(envoy.common)%\n");
    m.route->kind = ROUTE_DIRECT;
    m.route->direct_status = 200;
    m.route->direct_body = STR("fine");
    front(parse(false, "{\"rules\":{\"action\":\"ALLOW\",\"policies\":{\"b\":" PATH("/ok") ",\"a\":" PATH("/log") "}},\"track_per_rule_stats\":true}"));
    front(parse(false, "{\"rules\":{\"action\":\"DENY\",\"policies\":{\"deny it\":" PATH("/deny") "}},\"rules_stat_prefix\":\"rp\","
                       "\"shadow_rules\":{\"policies\":{\"p\":" PATH("/ok") "}},\"shadow_rules_stat_prefix\":\"dry_\"}"));
    front(parse(false, "{\"rules\":{\"action\":\"LOG\",\"policies\":{\"x\":" PATH("/log") "}}}"));
    mesh_go(&m, 0, 0);
    int c = mesh_client(&m);
    ask(c, "/log", "fine");
    ask(c, "/ok", "fine");
    ask(c, "/deny?x=/ok", "RBAC: access denied");
    ask(c, "/no", "HTTP/1.1 403 Forbidden");
    close(c);
    world_turns(&m.x, 3);
    const char *log = mesh_logged(&m);
    assert_non_null(strstr(log, "200 - direct_response {\"dry_shadow_engine_result\":\"denied\",\"enforced_effective_policy_id\":\"a\",\"enforced_engine_result\":"));
    assert_non_null(strstr(log, "\"access_log_hint\":true"));
    assert_non_null(strstr(log, "\"dry_shadow_effective_policy_id\":\"p\""));
    assert_non_null(strstr(log, "403 - rbac_access_denied_matched_policy[deny_it] "));
    assert_non_null(strstr(log, "403 - rbac_access_denied_matched_policy[none] "));
    assert_non_null(strstr(log, "\"enforced_effective_policy_id\":\"a\""));
    assert_int_equal(counted(STAT_HTTP_RBAC, "hcm.rbac", STAT_ID_HTTP_RBAC_ALLOWED), 4 + 2); // LOG allows all
    assert_int_equal(counted(STAT_HTTP_RBAC, "hcm.rbac", STAT_ID_HTTP_RBAC_DENIED), 1);
    assert_int_equal(counted(STAT_HTTP_RBAC, "hcm.rbac.rp", STAT_ID_HTTP_RBAC_DENIED), 1);
    assert_int_equal(counted(STAT_HTTP_RBAC_SHADOW, "hcm.rbac.dry_", STAT_ID_HTTP_RBAC_SHADOW_DENIED), 3);
    assert_int_equal(counted(STAT_HTTP_RBAC_POLICY, "hcm.rbac.policy.a", STAT_ID_HTTP_RBAC_POLICY_ALLOWED), 1);
}

static void routes_have_their_own(void **state)
{
    (void)state;
    m.vhost->route_count = 3;
    for (int i = 0; i < 3; i++) {
        m.vhost->routes[i] = m.vhost->routes[0];
        m.vhost->routes[i].kind = ROUTE_DIRECT;
        m.vhost->routes[i].direct_status = 200;
        m.vhost->routes[i].direct_body = STR("fine");
    }
    m.vhost->routes[0].path = STR("/open");
    m.vhost->routes[1].path = STR("/none");
    struct ext *v = arena_array(&m.table->arena, struct ext, 2);
    v[0] = (struct ext){ .ops = &http_filter_rbac.ext, .cfg = parse(true, "{\"rbac\":{\"rules\":{\"policies\":{\"o\":" PATH("/open") "}}}}"), .name = STR("rbac") };
    v[1] = (struct ext){ .ops = &http_filter_rbac.ext, .cfg = parse(true, "{}"), .name = STR("rbac") };
    for (int i = 0; i < 2; i++) {
        m.vhost->routes[i].per_filter = &v[i];
        m.vhost->routes[i].per_filter_count = 1;
    }
    front(parse(false, "{\"rules\":{}}")); // present and empty: nobody
    mesh_go(&m, 0, 0);
    int c = mesh_client(&m);
    ask(c, "/open", "fine");
    ask(c, "/none", "fine");
    ask(c, "/x", "RBAC: access denied");
    close(c);
    assert_int_equal(counted(STAT_HTTP_RBAC, "hcm.rbac", STAT_ID_HTTP_RBAC_ALLOWED), 1); // where there are no rules, nothing is counted
}

static void what_is_refused(void **state)
{
    (void)state;
    assert_non_null(parse(false, "{}"));
    assert_null(parse(false, "{\"matcher\":\"\"}"));
    assert_string_equal(err.msg, "matcher: match trees are not supported; give rules");
    assert_null(parse(true, "{\"rbac\":{\"shadow_rules\":{\"policies\":{\"p\":{}}}}}"));
    assert_string_equal(err.msg, "rbac: shadow_rules: policies[p]: permissions: at least one is needed");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = { T(denied_allowed_and_tried), T(routes_have_their_own), T(what_is_refused) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

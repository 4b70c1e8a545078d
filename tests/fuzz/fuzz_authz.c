// SPDX-License-Identifier: Apache-2.0
// Fuzz target of authorization: a config.rbac.v3.RBAC (first byte odd: JSON, even: wire bytes; up to a NUL, or two bytes of length for wire) and behind
// it lines that make a request. Taken or refused, never anything else; and what was taken decides as its conditions do one by one, so that the sets
// which long lists become mean what the lists said.
// fuzz-modules: proxy/authz proxy/model proxy/core proto lib/regex lib/http lib/net lib/base
#include <stdlib.h>

#include "envoy/config/rbac/v3/rbac.pb-c.h"
#include "lib/base/buf.h"
#include "lib/base/check.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proxy/authz/authz.h"
#include "proxy/core/stream_info.h"
#include "proxy/model/matcher.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef Envoy__Config__Rbac__V3__RBAC rbac;
typedef Envoy__Config__Rbac__V3__Permission permission;
typedef Envoy__Config__Rbac__V3__Principal principal;

enum { LEAVES_MAX = 200 };

static struct arena arena;
static size_t leaves;

// One condition alone: nothing to fold.
static bool leaf_holds(permission *p, principal *w, const struct authz_subject *s)
{
    permission any_permission = ENVOY__CONFIG__RBAC__V3__PERMISSION__INIT;
    principal any_principal = ENVOY__CONFIG__RBAC__V3__PRINCIPAL__INIT;
    any_permission.rule_case = ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_ANY;
    any_permission.any = true;
    any_principal.identifier_case = ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_ANY;
    any_principal.any = true;
    p = p ? p : &any_permission;
    w = w ? w : &any_principal;
    Envoy__Config__Rbac__V3__Policy policy = ENVOY__CONFIG__RBAC__V3__POLICY__INIT;
    Envoy__Config__Rbac__V3__RBAC__PoliciesEntry entry = ENVOY__CONFIG__RBAC__V3__RBAC__POLICIES_ENTRY__INIT, *entries = &entry;
    rbac m = ENVOY__CONFIG__RBAC__V3__RBAC__INIT;
    policy.permissions = &p;
    policy.principals = &w;
    policy.n_permissions = policy.n_principals = 1;
    entry.key = "x";
    entry.value = &policy;
    m.policies = &entries;
    m.n_policies = 1;
    struct authz *z;
    CHECK(authz_parse(&m, s->request ? AUTHZ_OF_REQUEST : AUTHZ_OF_CONNECTION, &arena, &z, NULL) == 0);
    leaves++;
    return authz_decide(z, s).allowed;
}

static bool permission_holds(permission *p, const struct authz_subject *s)
{
    switch (p->rule_case) {
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_AND_RULES:
        for (size_t i = 0; i < p->and_rules->n_rules; i++) {
            if (!permission_holds(p->and_rules->rules[i], s)) {
                return false;
            }
        }
        return true;
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_OR_RULES:
        for (size_t i = 0; i < p->or_rules->n_rules; i++) {
            if (permission_holds(p->or_rules->rules[i], s)) {
                return true;
            }
        }
        return false;
    case ENVOY__CONFIG__RBAC__V3__PERMISSION__RULE_NOT_RULE:
        return !permission_holds(p->not_rule, s);
    default:
        return leaves < LEAVES_MAX && leaf_holds(p, NULL, s);
    }
}

static bool principal_holds(principal *p, const struct authz_subject *s)
{
    switch (p->identifier_case) {
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_AND_IDS:
        for (size_t i = 0; i < p->and_ids->n_ids; i++) {
            if (!principal_holds(p->and_ids->ids[i], s)) {
                return false;
            }
        }
        return true;
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_OR_IDS:
        for (size_t i = 0; i < p->or_ids->n_ids; i++) {
            if (principal_holds(p->or_ids->ids[i], s)) {
                return true;
            }
        }
        return false;
    case ENVOY__CONFIG__RBAC__V3__PRINCIPAL__IDENTIFIER_NOT_ID:
        return !principal_holds(p->not_id, s);
    default:
        return leaves < LEAVES_MAX && leaf_holds(NULL, p, s);
    }
}

static bool policy_holds(const Envoy__Config__Rbac__V3__Policy *p, const struct authz_subject *s)
{
    bool asked = false, by = false;
    for (size_t i = 0; i < p->n_permissions && !asked; i++) {
        asked = permission_holds(p->permissions[i], s);
    }
    for (size_t i = 0; i < p->n_principals && asked && !by; i++) {
        by = principal_holds(p->principals[i], s);
    }
    return asked && by;
}

// Some policy holds; names are not looked at twice, since of two with one name the last counts.
static void compare(const rbac *m, const struct authz *z, const struct authz_subject *s)
{
    struct authz_decision d = authz_decide(z, s);
    bool any = false;
    for (size_t i = 0; i < m->n_policies; i++) {
        for (size_t k = 0; k < i; k++) {
            if (!strcmp(m->policies[i]->key, m->policies[k]->key)) {
                return;
            }
        }
    }
    leaves = 0;
    for (size_t i = 0; i < m->n_policies && !any; i++) {
        any = policy_holds(m->policies[i]->value, s);
    }
    CHECK(leaves >= LEAVES_MAX || any == d.matched);
    CHECK(d.allowed == (m->action == ENVOY__CONFIG__RBAC__V3__RBAC__ACTION__LOG || d.matched == (m->action != ENVOY__CONFIG__RBAC__V3__RBAC__ACTION__DENY)));
}

static void ask(const rbac *m, const struct authz *z, struct str lines, bool request)
{
    struct headers h;
    headers_init(&h, &arena);
    struct str f[8];
    for (size_t i = 0; i < 8; i++) {
        f[i] = str_split(&lines, '\n');
    }
    while (lines.n && h.count < 20) {
        struct str value = str_split(&lines, '\n'), name = str_split(&value, ':');
        headers_add(&h, name, value);
    }
    struct stream_info info = { 0 };
    stream_info_metadata_merge(&info, &arena, STR("m"), f[7]); // not checked: what is no Struct has no values
    struct addr a = { .family = AF_INET, .port = 80, .ip = { 10, 1, 2, 3 } };
    const struct match_request r = { .method = f[0], .path = f[1], .authority = f[2], .scheme = STR("http"), .headers = &h, .arena = &arena };
    const struct authz_subject s = { .request = request ? &r : NULL, .local = &a, .direct_remote = &a, .source = &a, .remote = &a, .server_name = f[3],
                                     .tls = f[4].n > 0, .uris = &f[4], .uri_count = 1, .dns_names = &f[5], .dns_count = 1, .certificate_subject = f[6],
                                     .info = &info, .route_metadata = &f[7] };
    compare(m, z, &s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4 || size > 16384) {
        return 0;
    }
    arena_init(&arena, 0, 0);
    bool request = !(data[0] & 2);
    struct str rest = str_n(data + 1, size - 1), config, lines;
    ProtobufCMessage *m = NULL;
    int rc;
    if (data[0] & 1) {
        config = str_split(&rest, '\0');
        lines = rest;
        rc = pb_json_parse(config, &envoy__config__rbac__v3__rbac__descriptor, 0, &arena, &m, NULL);
    } else {
        size_t n = ((size_t)data[1] << 8 | data[2]) % (size - 2);
        config = str_n(data + 3, n);
        lines = str_n(data + 3 + n, size - 3 - n);
        rc = pb_unpack(&envoy__config__rbac__v3__rbac__descriptor, config, &arena, &m, NULL);
    }
    struct authz *z = NULL;
    if (rc == 0 && authz_parse(m, request ? AUTHZ_OF_REQUEST : AUTHZ_OF_CONNECTION, &arena, &z, NULL) == 0) {
        ask((const rbac *)m, z, lines, request);
    }
    arena_fini(&arena);
    buf_cache_free();
    return 0;
}

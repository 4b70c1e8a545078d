// SPDX-License-Identifier: Apache-2.0
// Names of counters and of metadata are Envoy's (filters.http.rbac.v3, filters.network.rbac.v3).
#include "proxy/authz/rules.h"

#include "lib/base/buf.h"
#include "proxy/core/stream_info.h"
#include "proxy/core/worker.h"
#include "proxy/stats/stats.h"

static struct str joined(struct arena *a, const char *prefix, const char *name)
{
    return arena_printf(a, "%s%s", prefix ? prefix : "", name);
}

static int side_parse(const void *rules, const char *prefix, enum authz_of of, const char *id, const char *result, struct arena *a,
                      struct authz_side *s, struct err *err)
{
    struct str p = str_c(prefix ? prefix : "");
    struct authz *z = NULL;
    if (rules) {
        int rc = authz_parse(rules, of, a, &z, err);
        if (rc < 0) {
            return rc;
        }
    }
    s->rules = z;
    s->id_key = joined(a, prefix, id);
    s->result_key = joined(a, prefix, result);
    p.n -= p.n && p.p[p.n - 1] == '.';
    s->stat_suffix = p.n ? arena_printf(a, ".%.*s", STR_FMT(p)) : STR("");
    return 0;
}

int authz_rules_parse(const struct authz_rules_cfg *c, enum authz_of of, struct arena *a, struct authz_rules **ret, struct err *err)
{
    struct authz_rules *r = arena_new(a, struct authz_rules);
    r->per_policy = c->per_policy;
    int rc = side_parse(c->rules, c->rules_prefix, of, "enforced_effective_policy_id", "enforced_engine_result", a, &r->enforced, err);
    if (rc < 0) {
        return err_wrap(err, "rules");
    }
    rc = side_parse(c->shadow_rules, c->shadow_prefix, of, "shadow_effective_policy_id", "shadow_engine_result", a, &r->shadow, err);
    if (rc < 0) {
        return err_wrap(err, "shadow_rules");
    }
    *ret = r;
    return 0;
}

// ---- counting ----

static enum stat_scope scope_of(const struct authz_question *q, bool shadow, bool policy)
{
    static const enum stat_scope scopes[2][2][2] = {
        [AUTHZ_OF_REQUEST] = { { STAT_HTTP_RBAC, STAT_HTTP_RBAC_POLICY }, { STAT_HTTP_RBAC_SHADOW, STAT_HTTP_RBAC_POLICY_SHADOW } },
        [AUTHZ_OF_CONNECTION] = { { STAT_TCP_RBAC, STAT_TCP_RBAC_POLICY }, { STAT_TCP_RBAC_SHADOW, STAT_TCP_RBAC_POLICY_SHADOW } },
    };
    return scopes[q->of][shadow][policy];
}

static unsigned id_of(enum stat_scope scope, bool allowed)
{
    static const struct { uint16_t allowed, denied; } ids[STAT_SCOPE_COUNT] = {
        [STAT_HTTP_RBAC] = { STAT_ID_HTTP_RBAC_ALLOWED, STAT_ID_HTTP_RBAC_DENIED },
        [STAT_HTTP_RBAC_SHADOW] = { STAT_ID_HTTP_RBAC_SHADOW_ALLOWED, STAT_ID_HTTP_RBAC_SHADOW_DENIED },
        [STAT_HTTP_RBAC_POLICY] = { STAT_ID_HTTP_RBAC_POLICY_ALLOWED, STAT_ID_HTTP_RBAC_POLICY_DENIED },
        [STAT_HTTP_RBAC_POLICY_SHADOW] = { STAT_ID_HTTP_RBAC_POLICY_SHADOW_ALLOWED, STAT_ID_HTTP_RBAC_POLICY_SHADOW_DENIED },
        [STAT_TCP_RBAC] = { STAT_ID_TCP_RBAC_ALLOWED, STAT_ID_TCP_RBAC_DENIED },
        [STAT_TCP_RBAC_SHADOW] = { STAT_ID_TCP_RBAC_SHADOW_ALLOWED, STAT_ID_TCP_RBAC_SHADOW_DENIED },
        [STAT_TCP_RBAC_POLICY] = { STAT_ID_TCP_RBAC_POLICY_ALLOWED, STAT_ID_TCP_RBAC_POLICY_DENIED },
        [STAT_TCP_RBAC_POLICY_SHADOW] = { STAT_ID_TCP_RBAC_POLICY_SHADOW_ALLOWED, STAT_ID_TCP_RBAC_POLICY_SHADOW_DENIED },
    };
    return allowed ? ids[scope].allowed : ids[scope].denied;
}

static struct stat_block *block_get(const struct authz_question *q, enum stat_scope scope, struct str suffix, struct str policy)
{
    struct buf name = { 0 };
    buf_printf(&name, "%.*s.rbac%.*s", STR_FMT(q->stat_base), STR_FMT(suffix));
    if (policy.n) {
        buf_printf(&name, ".policy.%.*s", STR_FMT(policy));
    }
    struct stat_block *b = stats_scope_get(q->worker->stats, scope, buf_pullup(&name, name.len));
    buf_clear(&name);
    return b;
}

static struct stat_block *block_of(const struct authz_question *q, struct authz_side *s, bool shadow)
{
    int i = q->worker->index;
    bool kept = i >= 0 && i < AUTHZ_WORKERS_KEPT;
    struct stat_block *b = kept ? atomic_load_explicit(&s->blocks[i], memory_order_relaxed) : NULL; // written by this worker only
    if (!b) {
        b = block_get(q, scope_of(q, shadow, false), s->stat_suffix, STR(""));
        if (kept) {
            atomic_store_explicit(&s->blocks[i], b, memory_order_relaxed);
        }
    }
    return b;
}

static void count(const struct authz_question *q, bool shadow, const struct authz_decision *d)
{
    struct authz_side *s = shadow ? &q->names->shadow : &q->names->enforced;
    stat_inc(block_of(q, s, shadow), (enum stat_any)id_of(scope_of(q, shadow, false), d->allowed));
    if (q->rules->per_policy && d->policy.n) {
        enum stat_scope scope = scope_of(q, shadow, true);
        stat_inc(block_get(q, scope, s->stat_suffix, d->policy), (enum stat_any)id_of(scope, d->allowed));
    }
}

// ---- metadata ----

static struct str space_of(const struct authz_question *q)
{
    return q->of == AUTHZ_OF_REQUEST ? STR("envoy.filters.http.rbac") : STR("envoy.filters.network.rbac");
}

// Names of policies and keys live as long as the configuration that the exchange holds.
static void note_text(const struct authz_question *q, struct str key, struct str value)
{
    const struct metadata_value v = { .kind = MV_TEXT, .bytes = value };
    dynamic_metadata_note(q->metadata, q->arena, space_of(q), key, &v);
}

static void note(const struct authz_question *q, const struct authz_side *names, const struct authz_decision *d)
{
    if (!q->metadata) {
        return;
    }
    if (d->policy.n) {
        note_text(q, names->id_key, d->policy);
    }
    note_text(q, names->result_key, d->allowed ? STR("allowed") : STR("denied"));
}

// Action LOG: for access log filters on metadata.
static void note_log(const struct authz_question *q, const struct authz_decision *d)
{
    if (q->metadata) {
        const struct metadata_value v = { .kind = MV_BOOL, .boolean = d->matched };
        dynamic_metadata_note(q->metadata, q->arena, STR("envoy.common"), STR("access_log_hint"), &v);
    }
}

// ---- questions ----

void authz_try_shadow(const struct authz_question *q)
{
    if (q->rules->shadow.rules) {
        struct authz_decision d = authz_decide(q->rules->shadow.rules, q->subject);
        count(q, true, &d);
        note(q, &q->names->shadow, &d);
    }
}

static const char *denied_by(struct arena *a, struct str policy)
{
    char *t = (char *)arena_printf(a, "rbac_access_denied_matched_policy[%.*s]", STR_FMT(policy.n ? policy : STR("none"))).p;
    for (char *c = t; *c; c++) { // logs are split at blanks
        *c = *c == ' ' || (*c >= '\t' && *c <= '\r') ? '_' : *c;
    }
    return t;
}

bool authz_enforce(const struct authz_question *q, const char **ret_details)
{
    const struct authz *z = q->rules->enforced.rules;
    if (!z) {
        return true;
    }
    struct authz_decision d = authz_decide(z, q->subject);
    if (authz_action_of(z) == AUTHZ_LOG) {
        note_log(q, &d);
    }
    count(q, false, &d);
    if (q->of == AUTHZ_OF_REQUEST) {
        note(q, &q->names->enforced, &d);
    }
    if (!d.allowed) {
        *ret_details = denied_by(q->arena, d.policy);
    }
    return d.allowed;
}

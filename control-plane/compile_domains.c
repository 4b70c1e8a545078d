// SPDX-License-Identifier: Apache-2.0
// Trust domains of the mesh, by all of which a policy's principals are known: the mesh's own one and its aliases, as Istio understands them.
#include "control-plane/compile_int.h"
#include "lib/base/check.h"

size_t cpc_domain_count(const struct compiler *k)
{
    return 1 + k->c->mesh.alias_count;
}

struct str cpc_domain(const struct compiler *k, size_t i)
{
    return i ? k->c->mesh.aliases[i - 1] : k->o->trust_domain;
}

// One ends as the other one's pattern says, or begins so.
static bool ends_as(struct str s, struct str pattern)
{
    return str_starts(pattern, STR("*")) && str_ends(s, str_skip(pattern, 1));
}

static bool begins_as(struct str s, struct str pattern)
{
    return str_ends(pattern, STR("*")) && str_starts(s, str_n(pattern.p, pattern.n - 1));
}

static bool is_ours(const struct compiler *k, struct str domain)
{
    bool found = str_is(domain, "cluster.local"); // means the mesh's own domain, whatever that is
    for (size_t i = 0; i < cpc_domain_count(k) && !found; i++) {
        struct str d = cpc_domain(k, i);
        found = str_eq(domain, d) || str_is(d, "*") || begins_as(domain, d) || begins_as(d, domain) || ends_as(domain, d) || ends_as(d, domain);
    }
    return found;
}

// DOMAIN/ns/NAMESPACE/sa/ACCOUNT. Others say nothing about domains.
static bool take_domain(struct str principal, struct str *ret)
{
    struct str rest = principal;
    *ret = str_split(&rest, '/');
    int parts = 1;
    for (; rest.p; parts++) {
        str_split(&rest, '/');
    }
    return parts == 5 && !str_is(*ret, "*");
}

static bool there(const struct str *v, size_t from, size_t n, struct str s)
{
    for (size_t i = from; i < n; i++) {
        if (str_eq(v[i], s)) {
            return true;
        }
    }
    return false;
}

const struct str *cpc_alias_principals(struct compiler *k, const struct str *v, size_t n, size_t *ret_n)
{
    struct str *out = arena_array(&k->scratch, struct str, n * cpc_domain_count(k) + 1);
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        struct str domain;
        if (!take_domain(v[i], &domain) || !is_ours(k, domain)) {
            out[m++] = v[i];
            continue;
        }
        size_t first = m;
        for (size_t d = 0; d < cpc_domain_count(k); d++) {
            struct str s = ends_as(cpc_domain(k, d), domain)
                               ? v[i]
                               : arena_printf(&k->scratch, "%.*s%.*s", STR_FMT(cpc_domain(k, d)), STR_FMT(str_skip(v[i], domain.n)));
            if (!there(out, first, m, s)) {
                out[m++] = s;
            }
        }
    }
    *ret_n = m;
    return out;
}

const struct str *cpc_alias_domains(struct compiler *k, const struct str *v, size_t n, size_t *ret_n)
{
    struct str *out = arena_array(&k->scratch, struct str, n * cpc_domain_count(k) + 1);
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        bool own = false;
        for (size_t d = 0; d < cpc_domain_count(k) && !own; d++) {
            own = str_eq(v[i], cpc_domain(k, d));
        }
        for (size_t d = 0; d < (own ? cpc_domain_count(k) : 1); d++) {
            struct str s = own ? cpc_domain(k, d) : v[i];
            if (!there(out, 0, m, s)) {
                out[m++] = s;
            }
        }
    }
    *ret_n = m;
    return out;
}

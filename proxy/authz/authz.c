// SPDX-License-Identifier: Apache-2.0
// Evaluation. The depth of the tree was bounded when it was made, so recursion is.
#include "proxy/authz/authz.h"

#include "lib/tls/transport_tls.h"
#include "proxy/authz/authz_int.h"
#include "proxy/core/stream_info.h"

static bool matches(const struct node *n, const struct authz_subject *s);

// ---- texts ----

// The path without query and fragment; a NULL view when there is none (CONNECT, connections).
static struct str path_of(const struct authz_subject *s)
{
    struct str p = s->request ? s->request->path : str_n(NULL, 0);
    for (size_t i = 0; i < p.n; i++) {
        if (p.p[i] == '?' || p.p[i] == '#') {
            return str_n(p.p, i);
        }
    }
    return p.n ? p : str_n(NULL, 0);
}

static bool text_fits(const struct node *n, struct str text)
{
    return n->kind == NODE_SET       ? text_set_has(n->set, text)
           : n->kind == NODE_AFFIXES ? affix_set_fits(n->affixes, text)
                                     : string_matcher_match(n->string, text);
}

static bool any_fits(const struct node *n, const struct str *v, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (text_fits(n, v[i])) {
            return true;
        }
    }
    return false;
}

// rbac.v3.Principal.Authenticated: URI SANs, DNS SANs, then the subject; the latter also where there is no certificate (it is empty then).
static bool principal_fits(const struct node *n, const struct authz_subject *s)
{
    return s->tls && (any_fits(n, s->uris, s->uri_count) || any_fits(n, s->dns_names, s->dns_count) || text_fits(n, s->certificate_subject));
}

static bool texts_match(const struct node *n, const struct authz_subject *s)
{
    if (n->input == IN_PRINCIPAL) {
        return principal_fits(n, s);
    }
    if (n->input == IN_SERVER_NAME) {
        return text_fits(n, s->server_name);
    }
    struct str path = path_of(s);
    return path.p && text_fits(n, path);
}

// ---- header fields ----

static bool in_set(const void *arg, struct str value)
{
    return text_set_has(arg, value);
}

static bool header_set_matches(const struct header_set *h, const struct authz_subject *s)
{
    return s->request && header_any_value(&h->name, s->request, in_set, &h->texts);
}

// ---- addresses ----

static const struct addr *address_of(const struct node *n, const struct authz_subject *s)
{
    const struct addr *a = n->input == IN_LOCAL           ? s->local
                           : n->input == IN_DIRECT_REMOTE ? s->direct_remote
                           : n->input == IN_SOURCE        ? s->source
                                                          : s->remote;
    return a && (a->family == AF_INET || a->family == AF_INET6) ? a : NULL;
}

static bool address_matches(const struct node *n, const struct authz_subject *s)
{
    const struct addr *a = address_of(n, s);
    return a && (n->kind == NODE_CIDR ? cidr_contains(n->cidr, a) : cidr_trie_find(n->cidrs, a) != NULL);
}

static bool port_matches(const struct node *n, const struct authz_subject *s)
{
    const struct addr *a = address_of(n, s);
    return a && a->port >= n->ports.from && a->port < n->ports.to;
}

// ---- metadata ----

static bool metadata_matches(const struct node *n, const struct authz_subject *s)
{
    const struct metadata_match *m = n->metadata;
    struct metadata_value v = { .kind = MV_NONE };
    if (n->input == IN_ROUTE) {
        if (!s->route_metadata) {
            return false; // also when it is inverted
        }
        v = metadata_find(*s->route_metadata, m->space, STR(""));
        v = v.kind == MV_STRUCT ? metadata_struct_find(v.bytes, m->path, m->path_count) : v;
    } else if (s->info) {
        return metadata_match(m, s->info);
    }
    return value_match(&m->value, &v) != m->invert;
}

// ---- the tree ----

static bool any_child(const struct node *n, const struct authz_subject *s)
{
    for (uint32_t i = 0; i < n->count; i++) {
        if (matches(&n->children[i], s)) {
            return true;
        }
    }
    return false;
}

static bool all_children(const struct node *n, const struct authz_subject *s)
{
    for (uint32_t i = 0; i < n->count; i++) {
        if (!matches(&n->children[i], s)) {
            return false;
        }
    }
    return true;
}

static bool matches(const struct node *n, const struct authz_subject *s)
{
    switch ((enum node_kind)n->kind) {
    case NODE_ANY:
        return true;
    case NODE_AND:
        return all_children(n, s);
    case NODE_OR:
        return any_child(n, s);
    case NODE_NOT:
        return !matches(n->children, s);
    case NODE_STRING:
    case NODE_SET:
    case NODE_AFFIXES:
        return texts_match(n, s);
    case NODE_HEADER:
        return s->request && header_matcher_match(n->header, s->request);
    case NODE_HEADER_SET:
        return header_set_matches(n->header_set, s);
    case NODE_CIDR:
    case NODE_CIDR_SET:
        return address_matches(n, s);
    case NODE_PORTS:
        return port_matches(n, s);
    case NODE_TLS:
        return s->tls;
    case NODE_TEMPLATE: {
        struct str path = path_of(s);
        return path.p && regex_full_match(n->path, path);
    }
    case NODE_METADATA:
        return metadata_matches(n, s);
    }
    return false;
}

void authz_subject_tls(struct authz_subject *s, const struct tls_info *t)
{
    if (t) {
        s->tls = true;
        s->uris = t->peer_uris;
        s->uri_count = t->peer_uri_count;
        s->dns_names = t->peer_dns_names;
        s->dns_count = t->peer_dns_count;
        s->certificate_subject = t->peer_subject;
    }
}

struct authz_decision authz_decide(const struct authz *z, const struct authz_subject *s)
{
    struct authz_decision d = { 0 };
    for (size_t i = 0; i < z->count && !d.matched; i++) {
        const struct authz_policy *p = &z->policies[i];
        if (any_child(&p->permissions, s) && any_child(&p->principals, s)) {
            d.matched = true;
            d.policy = p->name;
        }
    }
    d.allowed = z->action == AUTHZ_LOG || d.matched == (z->action == AUTHZ_ALLOW);
    return d;
}

enum authz_action authz_action_of(const struct authz *z)
{
    return z->action;
}

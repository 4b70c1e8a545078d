// SPDX-License-Identifier: Apache-2.0
// Checks of single values, shared by the kinds.
#include "control-plane/validate.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "control-plane/load_int.h"
#include "control-plane/validate_int.h"
#include "lib/base/check.h"
#include "lib/http/chars.h"
#include "lib/net/addr.h"
#include "lib/net/cidr.h"

enum { LABEL_MAX = 63, DOMAIN_MAX = 255 };

static void say(struct cp_validator *v, bool warning, const struct json *at, const char *fmt, va_list ap)
{
    char text[512];
    vsnprintf(text, sizeof(text), fmt, ap);
    struct str s = at && at->key.n ? arena_printf(v->a, "%.*s: %s", STR_FMT(at->key), text) : arena_str(v->a, str_c(text));
    if (!warning || !v->muted) {
        v->say(v->arg, warning, at, s);
    }
}

void va_error(struct cp_validator *v, const struct json *at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(v, false, at, fmt, ap);
    va_end(ap);
}

void va_warn(struct cp_validator *v, const struct json *at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(v, true, at, fmt, ap);
    va_end(ap);
}

const struct json *va_get(const struct json *n, const char *key)
{
    const struct json *m = json_get(n, key);
    return m && m->type != JSON_NULL ? m : NULL;
}

const struct json *va_first(const struct json *n, const char *key)
{
    const struct json *m = va_get(n, key);
    return m ? m->first : NULL;
}

double va_number(const struct json *n)
{
    char text[40] = "";
    if (n && n->text.n && n->text.n < sizeof(text)) {
        snprintf(text, sizeof(text), "%.*s", STR_FMT(n->text));
    }
    return strtod(text, NULL);
}

// ---- names ----

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// Begins and ends with a letter or digit; between them those and the characters of extra.
static bool is_word(struct str s, const char *extra)
{
    bool good = s.n > 0 && is_alnum(s.p[0]) && is_alnum(s.p[s.n - 1]);
    for (size_t i = 0; i < s.n && good; i++) {
        good = is_alnum(s.p[i]) || str_find(str_c(extra), s.p[i]) >= 0;
    }
    return good;
}

bool va_is_label(struct str s)
{
    return s.n <= LABEL_MAX && is_word(s, "-");
}

static bool is_number(struct str s)
{
    uint64_t x;
    return str_to_u64(s, UINT64_MAX, &x);
}

bool va_is_domain(struct str s)
{
    if (!s.n || s.n > DOMAIN_MAX) {
        return false;
    }
    for (struct str rest = s; rest.p;) {
        struct str label = str_split(&rest, '.');
        bool last = !rest.p;
        if (last && (is_number(label) || !label.n)) { // "example." is unambiguous; "10.0.0.1" is no name
            return !label.n;
        }
        if (!va_is_label(label)) {
            return false;
        }
    }
    return true;
}

bool va_is_wild_domain(struct str s)
{
    struct str rest = s, label = str_split(&rest, '.');
    if (!s.n || s.n > DOMAIN_MAX || label.n > LABEL_MAX) {
        return false;
    }
    bool star = str_starts(label, STR("*"));
    struct str word = str_skip(label, star ? (str_starts(label, STR("*-")) ? 2 : 1) : 0);
    return (va_is_label(word) || str_is(label, "*")) && (!rest.p || va_is_domain(rest));
}

bool va_is_ip(struct str s)
{
    struct addr a;
    return addr_parse_ip(s, 0, &a);
}

bool va_is_subnet(struct str s)
{
    struct cidr c;
    return str_find(s, '/') >= 0 ? cidr_parse(s, &c) : va_is_ip(s);
}

bool va_is_header(struct str s)
{
    return ch_all(s, CH_TOKEN);
}

bool va_hosts_meet(struct str a, struct str b)
{
    bool wa = str_starts(a, STR("*")), wb = str_starts(b, STR("*"));
    if (wa && wb && a.n < b.n) {
        return str_ends(b, str_skip(a, 1));
    }
    return wb ? str_ends(a, str_skip(b, 1)) : wa ? str_ends(b, str_skip(a, 1)) : str_eq(a, b);
}

bool va_host_within(struct str narrow, struct str wide)
{
    if (!str_starts(wide, STR("*"))) {
        return str_eq(narrow, wide);
    }
    return (!str_starts(narrow, STR("*")) || narrow.n >= wide.n) && str_ends(narrow, str_skip(wide, 1));
}

// ---- values ----

void va_duration(struct cp_validator *v, const struct json *n, const char *key)
{
    const struct json *m = va_get(n, key);
    double s;
    if (!m || !ld_parse_duration(m->text, &s)) {
        return; // that it is no duration at all is said elsewhere
    }
    long long ns = llround(s * 1e9);
    if (ns < 1000000) {
        va_error(v, m, "must be at least 1ms");
    } else if (ns % 1000000) {
        va_error(v, m, "must be whole milliseconds");
    }
}

// A label's key is "name" or "domain/name".
static bool is_label_key(struct str s)
{
    ptrdiff_t slash = str_find(s, '/');
    struct str name = slash >= 0 ? str_skip(s, (size_t)slash + 1) : s, domain = slash >= 0 ? str_n(s.p, (size_t)slash) : STR("x");
    bool good = is_word(name, "-_.") && name.n <= LABEL_MAX && domain.n && domain.n <= NAME_BYTES_MAX;
    while (good && domain.p) {
        good = is_word(str_split(&domain, '.'), "-");
    }
    return good;
}

void va_labels(struct cp_validator *v, const struct json *n, const char *key)
{
    for (const struct json *m = va_first(n, key); m; m = m->next) {
        if (!is_label_key(m->key)) {
            va_error(v, m, "is no name of a label");
        } else if (m->text.n && !is_word(m->text, "-_.")) {
            va_error(v, m, "\"%.*s\" is no value of a label", STR_FMT(m->text));
        }
    }
}

void va_port(struct cp_validator *v, const struct json *at, const struct json *number)
{
    double x = va_number(number);
    if (x < 1 || x > 65535) {
        va_error(v, number ? number : at, "must be a port from 1 to 65535");
    }
}

void va_gateways(struct cp_validator *v, const struct json *n)
{
    for (const struct json *g = va_first(n, "gateways"); g; g = g->next) {
        struct str name = g->text, ns = str_split(&name, '/');
        if (!name.p) { // as in Istio, nothing is looked at after the first short name
            if (str_find(g->text, '.') >= 0) {
                va_warn(v, g, "\"%.*s\": gateways are named NAMESPACE/NAME; names with dots are the older form", STR_FMT(g->text));
            }
            if (!va_is_domain(g->text)) {
                va_error(v, g, "\"%.*s\" is no name of a gateway", STR_FMT(g->text));
            }
            return;
        }
        if (!va_is_label(ns) || !va_is_label(name)) {
            va_error(v, g, "\"%.*s\" is no name of a gateway", STR_FMT(g->text));
        }
    }
}

void va_export(struct cp_validator *v, const struct json *spec, bool entry, bool selector)
{
    const struct json *list = va_get(spec, "exportTo");
    bool own = false;
    for (const struct json *e = list ? list->first : NULL; e; e = e->next) {
        struct str name = str_is(e->text, ".") ? v->ns : e->text;
        own |= str_eq(name, v->ns);
        if (str_is(name, "~") ? !entry : !str_is(name, "*") && !va_is_label(name)) {
            va_error(v, list, "\"%.*s\" is none of *, . and the name of a namespace", STR_FMT(e->text));
        }
        for (const struct json *f = list->first; f != e; f = f->next) {
            if (str_eq(str_is(f->text, ".") ? v->ns : f->text, name)) {
                va_error(v, list, "\"%.*s\" is named twice", STR_FMT(e->text));
            }
        }
        if ((str_is(name, "*") || str_is(name, "~")) && list->count > 1) {
            va_error(v, list, "%.*s goes with no other entry", STR_FMT(name));
        }
    }
    if (selector && list && list->count && (!own || list->count > 1)) {
        va_error(v, list, "a rule with a workloadSelector is for its own namespace alone");
    }
}

void va_selector(struct cp_validator *v, const struct json *selector, const char *labels, const char *note)
{
    const struct json *list = va_get(selector, labels);
    for (const struct json *m = list ? list->first : NULL; m; m = m->next) {
        if (!m->key.n || str_find(m->key, '*') >= 0 || str_find(m->text, '*') >= 0) {
            va_error(v, m, "selectors know no wildcards and no empty names");
        }
    }
    if (selector && (!list || !list->count)) {
        va_warn(v, selector, "%s", note);
    }
}

void cp_validate(struct cp_validator *v, const struct json *doc)
{
    static const struct json none = { .type = JSON_OBJECT };
    const struct json *spec = va_get(doc, "spec");
    struct str kind = json_str(doc, "kind");
    spec = spec ? spec : &none;
    va_dry_run(v, doc);
    if (str_is(kind, "VirtualService")) {
        va_virtual_service(v, spec);
    } else if (str_is(kind, "DestinationRule")) {
        va_destination_rule(v, spec);
    } else if (str_is(kind, "ServiceEntry")) {
        va_service_entry(v, spec);
    } else if (str_is(kind, "AuthorizationPolicy")) {
        va_authorization_policy(v, spec);
    } else if (str_is(kind, "RequestAuthentication")) {
        va_request_authentication(v, spec);
    } else if (str_is(kind, "PeerAuthentication")) {
        va_peer_authentication(v, spec);
    }
}

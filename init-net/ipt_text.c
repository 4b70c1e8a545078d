// SPDX-License-Identifier: Apache-2.0
#include "init-net/ipt_text.h"

#include <stdio.h>
#include <stdlib.h>

#include "init-net/foreign.h"
#include "lib/base/check.h"
#include "lib/base/hash.h"
#include "lib/base/mem.h"

const char *const ipt_table_names[IPT_TABLES] = { "raw", "mangle", "nat" };

enum { MARKER_DIGITS = 20, WORDS_MAX = 64 };

void ipt_lines_add(struct ipt_lines *l, struct arena *a, struct str text, const struct rule *rule)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 16;
        struct ipt_line *v = arena_array(a, struct ipt_line, cap);
        if (l->n) {
            memcpy(v, l->v, l->n * sizeof(*v));
        }
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = (struct ipt_line){ text, rule };
}

bool ipt_content_is_empty(const struct ipt_content *c)
{
    return c->chains.n == 0 && c->rules.n == 0 && c->hooks.n == 0;
}

static void add_lines(struct ipt_lines *to, const struct ipt_lines *from, struct arena *a)
{
    for (size_t i = 0; i < from->n; i++) {
        ipt_lines_add(to, a, from->v[i].text, from->v[i].rule);
    }
}

struct ipt_content ipt_content_join(const struct ipt_content *x, const struct ipt_content *y, struct arena *a)
{
    struct ipt_content both = { 0 };
    const struct ipt_content *parts[] = { x, y };
    for (size_t i = 0; i < 2; i++) {
        add_lines(&both.chains, &parts[i]->chains, a);
        add_lines(&both.rules, &parts[i]->rules, a);
        add_lines(&both.hooks, &parts[i]->hooks, a);
    }
    return both;
}

bool ipt_chain_is_ours(struct str name)
{
    return str_starts(name, STR("REMORA_"));
}

void ipt_marker(uint64_t plan_hash, uint64_t digest, char ret[21])
{
    snprintf(ret, MARKER_DIGITS + 1, "%010llx%010llx", (unsigned long long)(plan_hash >> 24), (unsigned long long)(digest >> 24));
}

// The digits of a marker chain, empty for another chain.
static struct str marker_of(struct str chain)
{
    struct str digits = str_skip(chain, strlen("REMORA_"));
    if (!ipt_chain_is_ours(chain) || digits.n != MARKER_DIGITS) {
        return str_n(NULL, 0);
    }
    for (size_t i = 0; i < digits.n; i++) {
        char c = digits.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return str_n(NULL, 0);
        }
    }
    return digits;
}

// --- reading ---

// A rule's words; what stands in quotes is one word. At most WORDS_MAX, more are left out.
struct words {
    struct str v[WORDS_MAX];
    size_t n;
};

static void split_words(struct str line, struct words *ret)
{
    ret->n = 0;
    while (line.n && ret->n < WORDS_MAX) {
        if (line.p[0] == ' ') {
            line = str_skip(line, 1);
            continue;
        }
        bool quoted = line.p[0] == '"';
        size_t n = quoted;
        while (n < line.n && line.p[n] != (quoted ? '"' : ' ')) {
            n += line.p[n] == '\\' && n + 1 < line.n ? 2 : 1;
        }
        ret->v[ret->n++] = str_n(line.p + quoted, n - quoted);
        line = str_skip(line, n + quoted < line.n ? n + quoted : line.n);
    }
}

// The word behind an option; empty when it is not there.
static struct str word_after(const struct words *w, const char *option)
{
    for (size_t i = 0; i + 1 < w->n; i++) {
        if (str_is(w->v[i], option)) {
            return w->v[i + 1];
        }
    }
    return str_n(NULL, 0);
}

static struct str target_of(const struct words *w)
{
    struct str j = word_after(w, "-j");
    return j.n ? j : word_after(w, "-g");
}

static void note_owner(struct ipt_saved *s, const char *owner)
{
    for (size_t i = 0; i < s->n_owners; i++) {
        if (strcmp(s->owners[i], owner) == 0) {
            return;
        }
    }
    if (s->n_owners < array_len(s->owners)) {
        s->owners[s->n_owners++] = owner;
    }
}

// istio-iptables also puts rules into the built-in chains that lead to no chain of its own: interfaces left alone, marks
// of TPROXY mode, conntrack zones of DNS capture.
static bool is_istio_leftover(const struct words *w, enum ipt_table t)
{
    struct str target = target_of(w);
    struct str mark = word_after(w, "--set-xmark");
    bool dns =
        str_is(word_after(w, "--dport"), "53") || str_is(word_after(w, "--sport"), "53") || str_is(word_after(w, "--sport"), "15053");
    if (str_is(target, "RETURN")) {
        bool interface = str_is(w->v[2], "-i") || str_is(w->v[2], "-o");
        bool upstream = t == IPT_MANGLE && str_is(w->v[3], "lo") && word_after(w, "--mark").n;
        return t != IPT_RAW && interface && (w->n == 6 || upstream);
    }
    if (t == IPT_MANGLE) {
        return (str_is(target, "MARK") && str_is(mark, "0x53a/0xffffffff")) || (str_is(target, "CONNMARK") && word_after(w, "--mark").n);
    }
    return t == IPT_RAW && str_is(target, "CT") && word_after(w, "--zone").n && dns;
}

struct reader {
    struct arena *a;
    struct ipt_saved *s;
    struct str tables[IPT_TABLES]; // the lines of each
    uint64_t digest;
    bool ambient; // see foreign_is_ambient
};

static const char *owner_of(const struct reader *r, struct str chain)
{
    return foreign_settle(foreign_chain_owner(chain), r->ambient);
}

static void digest_line(struct reader *r, struct str line)
{
    r->digest = hash_xx64(line.p, line.n, r->digest + 1);
}

static void read_chain(struct reader *r, enum ipt_table t, struct str line)
{
    struct str name = str_skip(line, 1);
    name = str_split(&name, ' ');
    const char *owner = owner_of(r, name);
    if (owner) {
        note_owner(r->s, owner);
        if (foreign_is_removable(owner)) {
            ipt_lines_add(&r->s->foreign[t].chains, r->a, name, NULL);
        }
    } else if (ipt_chain_is_ours(name)) {
        struct str marker = marker_of(name);
        ipt_lines_add(&r->s->ours[t].chains, r->a, name, NULL);
        if (marker.n) {
            r->s->marker = marker;
        } else {
            digest_line(r, name);
        }
    }
}

static void read_rule(struct reader *r, enum ipt_table t, struct str line, bool first, bool istio)
{
    struct words w;
    split_words(line, &w);
    if (w.n < 2) {
        return;
    }
    struct str chain = w.v[1], target = target_of(&w);
    const char *from = owner_of(r, chain), *to = owner_of(r, target);
    struct ipt_content *ours = &r->s->ours[t], *foreign = &r->s->foreign[t];
    if (ipt_chain_is_ours(chain)) {
        ipt_lines_add(&ours->rules, r->a, line, NULL);
        digest_line(r, line);
    } else if (ipt_chain_is_ours(target)) {
        ipt_lines_add(&ours->hooks, r->a, line, NULL);
        digest_line(r, line);
        r->s->displaced = r->s->displaced || !first;
    } else if (from) {
        if (foreign_is_removable(from)) {
            ipt_lines_add(&foreign->rules, r->a, line, NULL);
        }
    } else if ((to && foreign_is_removable(to)) || (!to && istio && is_istio_leftover(&w, t))) {
        ipt_lines_add(&foreign->hooks, r->a, line, NULL);
    }
}

static void read_rules(struct reader *r, enum ipt_table t, bool istio)
{
    struct str rest = r->tables[t], last_chain = { 0 };
    while (rest.n) {
        struct str line = str_trim(str_split(&rest, '\n'));
        if (!str_starts(line, STR("-A "))) {
            continue;
        }
        struct str chain = str_skip(line, 3);
        chain = str_split(&chain, ' ');
        read_rule(r, t, line, !str_eq(chain, last_chain), istio);
        last_chain = chain;
    }
}

void ipt_from_save(struct str text, struct arena *a, struct ipt_saved *ret)
{
    struct ipt_saved s = { 0 };
    struct reader r = { .a = a, .s = &s };
    struct str rest = text;
    int table = -1;
    bool istio = false;
    r.ambient = str_find_str(text, STR("\n:ISTIO_PRERT")) >= 0;
    while (rest.n) {
        struct str line = str_split(&rest, '\n');
        if (line.n && line.p[0] == '*') {
            table = -1;
            for (int t = 0; t < IPT_TABLES; t++) {
                if (str_is(str_trim(str_skip(line, 1)), ipt_table_names[t])) {
                    table = t;
                    r.tables[t] = rest;
                }
            }
        } else if (table >= 0 && str_is(str_trim(line), "COMMIT")) {
            r.tables[table].n = (size_t)(line.p - r.tables[table].p);
            table = -1;
        } else if (table >= 0 && line.n && line.p[0] == ':') {
            read_chain(&r, (enum ipt_table)table, line);
        }
    }
    for (size_t i = 0; i < s.n_owners; i++) {
        istio = istio || strcmp(s.owners[i], "istio-iptables") == 0;
    }
    for (int t = 0; t < IPT_TABLES; t++) {
        read_rules(&r, (enum ipt_table)t, istio);
    }
    s.digest = r.digest;
    *ret = s;
}

// --- writing ---

void ipt_script_fini(struct ipt_script *s)
{
    buf_clear(&s->text);
    free(s->rules);
    *s = (struct ipt_script){ 0 };
}

static void put(struct ipt_script *s, const struct rule *rule, const char *before, struct str text, const char *after)
{
    buf_append_str(&s->text, str_c(before));
    buf_append_str(&s->text, text);
    buf_append_str(&s->text, str_c(after));
    buf_append(&s->text, "\n", 1);
    mem_grow(&s->rules, &s->cap, s->n + 1, sizeof(*s->rules));
    s->rules[s->n++] = rule;
}

static bool has_name(const struct ipt_lines *l, struct str name)
{
    for (size_t i = 0; i < l->n; i++) {
        if (str_eq(l->v[i].text, name)) {
            return true;
        }
    }
    return false;
}

// A jump of ours comes first in its chain, another's rule (when we put it back) last.
static void put_hook(struct ipt_script *s, const struct ipt_line *l)
{
    struct words w;
    split_words(l->text, &w);
    if (ipt_chain_is_ours(target_of(&w))) {
        put(s, l->rule, "-I ", str_skip(l->text, 3), "");
    } else {
        put(s, l->rule, "", l->text, "");
    }
}

void ipt_script_add(struct ipt_script *s, enum ipt_table t, const struct ipt_content *from, const struct ipt_content *to)
{
    if (ipt_content_is_empty(from) && ipt_content_is_empty(to)) {
        return;
    }
    put(s, NULL, "*", str_c(ipt_table_names[t]), "");
    // Naming a chain empties it, there or not (iptables-restore(8), --noflush).
    for (size_t i = 0; i < from->chains.n; i++) {
        put(s, NULL, ":", from->chains.v[i].text, " - [0:0]");
    }
    for (size_t i = 0; i < to->chains.n; i++) {
        if (!has_name(&from->chains, to->chains.v[i].text)) {
            put(s, NULL, ":", to->chains.v[i].text, " - [0:0]");
        }
    }
    for (size_t i = 0; i < from->hooks.n; i++) {
        put(s, NULL, "-D ", str_skip(from->hooks.v[i].text, 3), "");
    }
    for (size_t i = 0; i < to->rules.n; i++) {
        put(s, to->rules.v[i].rule, "", to->rules.v[i].text, "");
    }
    for (size_t i = 0; i < to->hooks.n; i++) {
        put_hook(s, &to->hooks.v[i]);
    }
    for (size_t i = 0; i < from->chains.n; i++) {
        if (!has_name(&to->chains, from->chains.v[i].text)) {
            put(s, NULL, "-X ", from->chains.v[i].text, "");
        }
    }
    put(s, NULL, "COMMIT", str_n(NULL, 0), "");
}

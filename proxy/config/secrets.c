// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/secrets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/hash.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"

enum { SECRET_BYTES_MAX = 4 * 1024 * 1024, SLOT_ALPN_MAX = 16 };

// Where Linux distributions keep the bundle that "file-root:system" names.
static const char system_roots[] = "/etc/ssl/certs/ca-certificates.crt";

struct slot_ctl { // tls_slot.control
    struct slot_params p; // all views in arena
    struct arena arena;
};

void secret_store_init(struct secret_store *s)
{
    memset(s, 0, sizeof(*s));
    map_init(&s->secrets);
    map_init(&s->slots);
}

static void str_free(struct str *s)
{
    if (s->p) {
        explicit_bzero((char *)s->p, s->n);
        free((char *)s->p);
    }
    *s = str_n(NULL, 0);
}

static void str_store(struct str *to, struct str from)
{
    str_free(to);
    if (from.n) {
        *to = str_n(str_dup(from), from.n);
    }
}

static void secret_free(struct secret *x)
{
    str_free(&x->name);
    str_free(&x->chain);
    str_free(&x->key);
    str_free(&x->ca);
    str_free(&x->crl);
    str_free(&x->version);
    free(x);
}

void secret_store_fini(struct secret_store *s)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&s->slots, &i));) {
        tls_slot_unref(e->val);
    }
    for (size_t i = 0; (e = map_next(&s->secrets, &i));) {
        secret_free(e->val);
    }
    for (size_t i = 0; i < s->garbage_count; i++) {
        tls_ctx_unref(s->garbage[i]);
    }
    free(s->garbage);
    map_fini(&s->slots);
    map_fini(&s->secrets);
}

static void ctl_destroy(struct tls_slot *slot)
{
    struct slot_ctl *c = slot->control;
    if (c->p.key_pem.n) {
        explicit_bzero((char *)c->p.key_pem.p, c->p.key_pem.n);
    }
    arena_fini(&c->arena);
    free(c);
}

static struct secret *secret_find(const struct secret_store *s, struct str name)
{
    return name.n ? map_get(&s->secrets, name) : NULL;
}

// All but certificates and roots.
static struct tls_ctx_params plain_params(const struct slot_params *p)
{
    return (struct tls_ctx_params){
        .server = p->server,
        .verify_peer = p->verify_peer,
        .require_peer_cert = p->require_peer_cert,
        .min_version = p->min_version,
        .max_version = p->max_version,
        .ciphers = p->ciphers,
        .curves = p->curves,
        .alpn = p->alpn,
        .alpn_count = p->alpn_count,
        .policy = p->policy,
    };
}

// The context for parameters p with the secrets as they are now, *ret NULL when one of them is not there yet.
static int slot_make(const struct secret_store *s, const struct slot_params *p, const struct secret *replaced, struct tls_ctx **ret,
                     struct err *err)
{
    const struct secret *cert = secret_find(s, p->cert_name), *ca = secret_find(s, p->ca_name);
    if (replaced && str_eq(replaced->name, p->cert_name)) {
        cert = replaced;
    }
    if (replaced && str_eq(replaced->name, p->ca_name)) {
        ca = replaced;
    }
    *ret = NULL;
    if ((p->cert_name.n && !(cert && cert->present && cert->chain.n)) || (p->ca_name.n && !(ca && ca->present && ca->ca.n))) {
        return 0;
    }
    struct tls_ctx_params t = plain_params(p);
    t.cert_chain_pem = p->cert_name.n ? cert->chain : p->cert_pem;
    t.key_pem = p->cert_name.n ? cert->key : p->key_pem;
    t.ca_pem = p->ca_name.n ? ca->ca : p->ca_pem;
    t.crl_pem = p->ca_name.n && ca->crl.n ? ca->crl : p->crl_pem;
    return tls_ctx_new(&t, ret, err);
}
static void slot_fill(struct secret_store *s, struct tls_slot *slot, struct tls_ctx *ctx)
{
    // release pairs with tls_slot_get's acquire
    struct tls_ctx *old = atomic_exchange_explicit(&slot->ctx, ctx, memory_order_acq_rel);
    s->changed = true;
    if (old) {
        mem_grow(&s->garbage, &s->garbage_cap, s->garbage_count + 1, sizeof(*s->garbage));
        s->garbage[s->garbage_count++] = old;
    }
}

static void key_add(struct buf *b, struct str s)
{
    buf_printf(b, "%zu:", s.n);
    buf_append_str(b, s);
}

// Equal text, equal context.
static struct str slot_key(const struct slot_params *p, struct arena *a)
{
    struct buf b = { 0 };
    buf_printf(&b, "%d%d%d/%d/%d/", p->server, p->verify_peer, p->require_peer_cert, p->min_version, p->max_version);
    const struct tls_policy *y = &p->policy;
    buf_printf(&b, "%u%d%d%d%d%d/", y->session_s, y->no_tickets, y->no_session_ids, y->client_order, y->no_resumption, y->rsa_usage);
    key_add(&b, p->cert_name);
    key_add(&b, p->ca_name);
    key_add(&b, p->ciphers);
    key_add(&b, p->curves);
    const struct str inl[] = { p->cert_pem, p->key_pem, p->ca_pem, p->crl_pem };
    for (size_t i = 0; i < array_len(inl); i++) { // long and partly secret: their hash stands for them
        struct hash128 h = hash_content(inl[i].p, inl[i].n);
        buf_printf(&b, "%zu.%llx%llx,", inl[i].n, (unsigned long long)h.lo, (unsigned long long)h.hi);
    }
    for (size_t i = 0; i < p->alpn_count; i++) {
        key_add(&b, p->alpn[i]);
    }
    size_t n = buf_len(&b);
    struct str key = arena_str(a, buf_pullup(&b, n));
    buf_clear(&b);
    return key;
}

static void copy_params(struct slot_ctl *c, const struct slot_params *p)
{
    c->p = *p;
    struct str *views[] = { &c->p.cert_name, &c->p.ca_name, &c->p.cert_pem, &c->p.key_pem, &c->p.ca_pem, &c->p.crl_pem, &c->p.ciphers,
                            &c->p.curves };
    for (size_t i = 0; i < array_len(views); i++) {
        *views[i] = views[i]->n ? arena_str(&c->arena, *views[i]) : str_n(NULL, 0);
    }
    struct str *alpn = arena_array(&c->arena, struct str, p->alpn_count + 1);
    for (size_t i = 0; i < p->alpn_count; i++) {
        alpn[i] = arena_str(&c->arena, p->alpn[i]);
    }
    c->p.alpn = alpn;
}

// Secrets named by a path ("file-cert:CERT~KEY", "file-root:FILE", "file-root:system") are read here and now.
static int secret_from_files(struct secret_store *s, struct str name, struct err *err)
{
    struct arena a = { 0 };
    struct str one = str_n(NULL, 0), two = one, rest = name;
    str_split(&rest, ':');
    int rc;
    if (str_starts(name, STR("file-cert:"))) {
        struct str cert = str_split(&rest, '~');
        rc = file_read(arena_str(&a, cert).p, SECRET_BYTES_MAX, &a, &one, err);
        rc = rc ? rc : file_read(arena_str(&a, rest).p, SECRET_BYTES_MAX, &a, &two, err);
        rc = rc ? rc : secret_put(s, name, one, two, str_n(NULL, 0), str_n(NULL, 0), str_n(NULL, 0), true, err);
    } else {
        const char *path = str_is(rest, "system") ? system_roots : arena_str(&a, rest).p;
        rc = file_read(path, SECRET_BYTES_MAX, &a, &one, err);
        rc = rc ? rc : secret_put(s, name, str_n(NULL, 0), str_n(NULL, 0), one, str_n(NULL, 0), str_n(NULL, 0), true, err);
    }
    if (!rc) {
        secret_find(s, name)->from_file = true;
        s->gc_due = true;
    }
    if (two.n) {
        explicit_bzero((char *)two.p, two.n);
    }
    arena_fini(&a);
    return rc;
}

bool secret_known(const struct secret_store *s, struct str name)
{
    const struct secret *x = secret_find(s, name);
    return (x && x->present) || str_starts(name, STR("file-cert:")) || str_starts(name, STR("file-root:"));
}

// Makes sure that there is a record for the name; a path secret that cannot be read is an error of the resource that names it.
static int secret_want(struct secret_store *s, struct str name, bool from_xds, struct err *err)
{
    struct secret *x = secret_find(s, name);
    if (!name.n || (x && (x->present || !from_xds || x->from_xds))) {
        return 0;
    }
    if (!from_xds && (str_starts(name, STR("file-cert:")) || str_starts(name, STR("file-root:")))) {
        return secret_from_files(s, name, err);
    }
    if (!x) {
        x = mem_new(struct secret);
        str_store(&x->name, name);
        map_put(&s->secrets, name, x);
    }
    x->from_xds = from_xds;
    s->wanted_changed |= from_xds;
    s->gc_due = true;
    return 0;
}

int secret_slot_get(struct secret_store *s, const struct slot_params *p, bool cert_from_xds, bool ca_from_xds, struct tls_slot **ret,
                    struct err *err)
{
    if (p->alpn_count > SLOT_ALPN_MAX) {
        return err_set(err, -EINVAL, "alpn_protocols: more than %d entries", SLOT_ALPN_MAX);
    }
    if (secret_want(s, p->cert_name, cert_from_xds, err) || secret_want(s, p->ca_name, ca_from_xds, err)) {
        return err->code;
    }
    struct arena tmp = { 0 };
    struct str key = slot_key(p, &tmp);
    struct tls_slot *slot = map_get(&s->slots, key);
    int rc = 0;
    if (!slot) {
        struct tls_ctx *ctx = NULL;
        rc = slot_make(s, p, NULL, &ctx, err);
        if (!rc && !ctx) { // what is wrong in itself must not be found when a secret comes
            const struct tls_ctx_params plain = plain_params(p);
            rc = tls_ctx_check(&plain, err);
        }
        if (!rc) {
            struct slot_ctl *c = mem_new(struct slot_ctl);
            copy_params(c, p);
            slot = tls_slot_new();
            slot->control = c;
            slot->destroy = ctl_destroy;
            atomic_store_explicit(&slot->ctx, ctx, memory_order_release);
            map_put(&s->slots, key, slot);
        }
    }
    arena_fini(&tmp);
    if (!rc) {
        *ret = tls_slot_ref(slot);
    }
    return rc;
}

static bool uses(const struct tls_slot *slot, struct str name)
{
    const struct slot_ctl *c = slot->control;
    return name.n && (str_eq(c->p.cert_name, name) || str_eq(c->p.ca_name, name));
}

// A certificate where roots are wanted, or the other way round: the slot would be emptied.
static int check_kind(const struct tls_slot *slot, const struct secret *with, struct err *err)
{
    const struct slot_ctl *c = slot->control;
    bool as_cert = str_eq(c->p.cert_name, with->name), as_ca = str_eq(c->p.ca_name, with->name);
    if (as_cert && !with->chain.n) {
        return err_set(err, -EINVAL, "it is used as a certificate, but holds none");
    }
    return as_ca && !with->ca.n ? err_set(err, -EINVAL, "it is used as roots, but holds none") : 0;
}

// Refills every slot that uses name as if `with` were stored. First pass (fill false) only checks.
static int refill(struct secret_store *s, struct str name, const struct secret *with, bool fill, struct err *err)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&s->slots, &i));) {
        struct tls_slot *slot = e->val;
        struct tls_ctx *ctx = NULL;
        if (!uses(slot, name)) {
            continue;
        }
        int rc = with ? check_kind(slot, with, err) : 0;
        rc = rc ? rc : slot_make(s, &((struct slot_ctl *)slot->control)->p, with, &ctx, err);
        if (rc) {
            return rc;
        }
        if (fill) {
            slot_fill(s, slot, ctx);
        } else {
            tls_ctx_unref(ctx);
        }
    }
    return 0;
}

// Whether the texts are good in themselves, used or not: a certificate that waits for its roots is not to be found bad when those come.
static int check_alone(struct str chain, struct str key, struct str ca, struct str crl, struct err *err)
{
    struct tls_ctx_params p = { .cert_chain_pem = chain, .key_pem = key, .ca_pem = ca, .crl_pem = crl, .verify_peer = ca.n != 0 };
    struct tls_ctx *ctx = NULL;
    int rc = tls_ctx_new(&p, &ctx, err);
    if (!rc) {
        tls_ctx_unref(ctx);
    }
    return rc;
}

int secret_put(struct secret_store *s, struct str name, struct str chain, struct str key, struct str ca, struct str crl, struct str version,
               bool is_static, struct err *err)
{
    struct secret candidate = { .name = name, .chain = chain, .key = key, .ca = ca, .crl = crl, .present = true };
    int rc = check_alone(chain, key, ca, crl, err);
    rc = rc ? rc : refill(s, name, &candidate, false, err);
    if (rc) {
        return rc;
    }
    struct secret *x = secret_find(s, name);
    if (!x) {
        x = mem_new(struct secret);
        str_store(&x->name, name);
        map_put(&s->secrets, name, x);
    }
    str_store(&x->chain, chain);
    str_store(&x->key, key);
    str_store(&x->ca, ca);
    str_store(&x->crl, crl);
    str_store(&x->version, version);
    x->is_root = ca.n != 0;
    x->is_static = is_static;
    x->present = true;
    x->updated_ms = clock_wall_ms();
    log_info(LOGC_SECRET, 0, "secret_updated", "name=%.*s", STR_FMT(name));
    return refill(s, name, NULL, true, err);
}

void secret_del(struct secret_store *s, struct str name)
{
    // A certificate that the control plane takes away keeps serving until its replacement comes or it expires: a removed Secret is no reason to
    // drop all connections, and the resources that refer to it are removed by themselves.
    struct secret *x = secret_find(s, name);
    if (x && !x->from_xds && !x->is_static) {
        map_del(&s->secrets, name);
        secret_free(x);
    }
}

struct str *secret_wanted(const struct secret_store *s, size_t *ret_n)
{
    struct str *v = mem_zalloc(sizeof(*v) * (s->secrets.count + 1));
    size_t n = 0;
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&s->secrets, &i));) {
        struct secret *x = e->val;
        if (x->from_xds) {
            v[n++] = x->name;
        }
    }
    *ret_n = n;
    return v;
}

static void mark_used(const struct secret_store *s, struct str name)
{
    struct secret *x = secret_find(s, name);
    if (x) {
        x->used = true;
    }
}

// Names come and go with the resources of a control plane; what nobody refers to any more is neither kept nor asked for.
static void drop_unused(struct secret_store *s)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&s->slots, &i));) {
        const struct slot_ctl *c = ((struct tls_slot *)e->val)->control;
        mark_used(s, c->p.cert_name);
        mark_used(s, c->p.ca_name);
    }
    for (size_t i = 0; (e = map_next(&s->secrets, &i));) {
        struct secret *x = e->val;
        if ((x->from_xds || x->from_file) && !x->used) {
            s->wanted_changed |= x->from_xds;
            map_del(&s->secrets, e->key);
            secret_free(x);
        } else {
            x->used = false;
        }
    }
}

void secret_store_gc(struct secret_store *s)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&s->slots, &i));) {
        struct tls_slot *slot = e->val;
        if (atomic_load_explicit(&slot->refs.n, memory_order_acquire) == 1) {
            map_del(&s->slots, e->key);
            tls_slot_unref(slot);
            s->gc_due = true;
        }
    }
    if (s->gc_due) {
        s->gc_due = false;
        drop_unused(s);
    }
}

static void drop_ctx(void *ctx)
{
    tls_ctx_unref(ctx);
}

void secret_take_garbage(struct secret_store *s, struct arena *garbage)
{
    for (size_t i = 0; i < s->garbage_count; i++) {
        arena_on_free(garbage, drop_ctx, s->garbage[i]);
    }
    s->garbage_count = 0;
}

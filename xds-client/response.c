// SPDX-License-Identifier: Apache-2.0
#include "xds-client/response.h"

#include <errno.h>
#include <stdio.h>

#include "lib/base/check.h"
#include "lib/base/utf8.h"
#include "xds-client/limits.h"
#include "xds-client/resource_types.h"
#include "xds-client/wire.h"

#define RESOURCE_URL "type.googleapis.com/envoy.service.discovery.v3.Resource"

enum { STATUS_INTERNAL = 13 }; // google.rpc.Code

int xds_envelope_read(struct str bytes, struct xds_envelope *ret, struct err *err)
{
    struct xds_envelope e = { 0 };
    struct str url = { 0 };
    struct wire_field f;
    int rc;
    bool ok = true;
    while ((rc = wire_next(&bytes, &f)) > 0 && ok) {
        switch (f.number) {
        case XDS_ENVELOPE_VERSION:
            e.version = f.bytes;
            break;
        case XDS_ENVELOPE_TYPE:
            url = f.bytes;
            break;
        case XDS_ENVELOPE_NONCE:
            e.nonce = f.bytes;
            break;
        case XDS_ENVELOPE_RESOURCE:
            e.resources++;
            break;
        case XDS_ENVELOPE_REMOVED:
            e.removed++;
            break;
        default:
            continue;
        }
        ok = f.type == WIRE_BYTES;
    }
    // Version and nonce are echoed to the server.
    if (rc < 0 || !ok || !wire_is_text(e.version, XDS_VERSION_MAX_BYTES) || !wire_is_text(e.nonce, XDS_VERSION_MAX_BYTES)) {
        return err_set(err, -EBADMSG, "the server's answer is not a discovery response");
    }
    int t = xds_type_parse(url);
    if (t < 0) {
        struct str shown = wire_is_text(url, 256) ? url : STR("(not text)");
        return err_set(err, -ENOENT, "a response for the unknown type \"%.*s\"", STR_FMT(shown));
    }
    e.type = (enum xds_type)t;
    *ret = e;
    return 0;
}

bool xds_response_open(struct xds_response *r, const struct xds_envelope *e, size_t want, struct arena *a)
{
    bool fits = want <= XDS_RESOURCES_MAX;
    xds_response_init(r, e->type, fits ? want : 0, a);
    r->version = e->version;
    r->nonce = e->nonce;
    if (!fits) {
        r->error = arena_printf(a, "%zu resources in one response, more than the %d allowed", want, XDS_RESOURCES_MAX);
    }
    return fits;
}

void xds_response_init(struct xds_response *r, enum xds_type t, size_t want, struct arena *a)
{
    *r = (struct xds_response){ .type = t, .cap = want, .items = arena_array(a, struct xds_item, want ? want : 1) };
}

static struct xds_item *add(struct xds_response *r)
{
    CHECK(r->count < r->cap);
    return &r->items[r->count++];
}

void xds_response_add_refused(struct xds_response *r, struct str name, struct str reason, struct arena *a)
{
    struct xds_item *it = add(r);
    it->name = wire_is_text(name, XDS_NAME_MAX_BYTES) ? name : str_n(NULL, 0);
    it->refused = arena_str(a, reason);
}

// The string in field 1, where every named resource type has its name. -1 when the bytes are no message.
static int inner_name(struct str msg, struct str *ret)
{
    struct wire_field f;
    struct str name = { 0 };
    int rc;
    while ((rc = wire_next(&msg, &f)) > 0) {
        if (f.number == 1) {
            if (f.type != WIRE_BYTES) {
                return -1;
            }
            name = f.bytes;
        }
    }
    *ret = name;
    return rc;
}

// Fills it->name; returns why not.
static const char *resolve_name(const struct xds_response *r, struct xds_item *it, struct str wrapper)
{
    struct str inner = { 0 };
    struct str singleton = xds_type_singleton(r->type);
    if (inner_name(it->bytes, &inner) && !singleton.p) {
        it->name = wrapper;
        return "does not parse as a message of its type";
    }
    if (singleton.p) {
        it->name = wrapper.n ? wrapper : singleton;
    } else {
        it->name = wrapper.n ? wrapper : inner;
        if (inner.n == 0) {
            return "has no name";
        }
        if (!str_eq(it->name, inner)) {
            return "the name in the message differs from the name of the resource";
        }
    }
    return NULL;
}

void xds_response_add_message(struct xds_response *r, struct str bytes, struct str wrapper_name, struct arena *a)
{
    struct xds_item *it = add(r);
    it->bytes = bytes.p ? bytes : STR("");
    const char *why = resolve_name(r, it, wrapper_name);
    if (it->bytes.n > XDS_RESOURCE_MAX_BYTES) {
        it->refused = arena_printf(a, "%zu bytes, more than the %d allowed", it->bytes.n, XDS_RESOURCE_MAX_BYTES);
        it->bytes = STR("");
    } else if (why) {
        it->refused = arena_str(a, str_c(why));
    }
    if (!wire_is_text(it->name, XDS_NAME_MAX_BYTES)) {
        it->name = str_n(NULL, 0);
        it->refused = STR("the name is not text or longer than 4096 bytes");
    }
}

void xds_response_add_static(struct xds_response *r, struct str name, struct str bytes)
{
    struct xds_item *it = add(r);
    it->name = name;
    it->bytes = bytes;
    it->removed = !bytes.p;
}

static int parse_any(struct str any, struct str *ret_url, struct str *ret_value)
{
    struct wire_field f;
    struct str url = { 0 }, value = STR("");
    int rc;
    while ((rc = wire_next(&any, &f)) > 0) {
        if (f.number > 2) {
            continue;
        }
        if (f.type != WIRE_BYTES) {
            return -1;
        }
        *(f.number == 1 ? &url : &value) = f.bytes;
    }
    *ret_url = url;
    *ret_value = value;
    return rc;
}

static void add_any(struct xds_response *r, struct str any, struct str name, bool may_wrap, struct str wire_version, struct arena *a)
{
    struct str url, value;
    if (parse_any(any, &url, &value)) {
        xds_response_add_refused(r, name, STR("the Any does not parse"), a);
    } else if (may_wrap && str_eq(url, STR(RESOURCE_URL))) {
        xds_response_add_resource(r, value, a);
    } else if (xds_type_parse(url) != (int)r->type) {
        struct str inner = { 0 };
        struct str shown = wire_is_text(url, 256) ? url : STR("(not text)");
        (void)inner_name(value, &inner);
        xds_response_add_refused(r, name.n ? name : inner,
                                 arena_printf(a, "has type \"%.*s\" in a response for %s", STR_FMT(shown), xds_type_short(r->type)), a);
    } else {
        xds_response_add_message(r, value, name, a);
        r->items[r->count - 1].wire_version = wire_version;
    }
}

void xds_response_add_any(struct xds_response *r, struct str any, struct arena *a)
{
    add_any(r, any, str_n(NULL, 0), true, str_n(NULL, 0), a);
}

// envoy.service.discovery.v3.Resource
void xds_response_add_resource(struct xds_response *r, struct str resource, struct arena *a)
{
    struct str name = { 0 }, version = { 0 }, any = { 0 };
    bool ttl = false;
    struct wire_field f;
    int rc;
    while ((rc = wire_next(&resource, &f)) > 0) {
        if (f.type != WIRE_BYTES) {
            continue;
        }
        switch (f.number) {
        case 1:
            version = f.bytes;
            break;
        case 2:
            any = f.bytes;
            break;
        case 3:
            name = f.bytes;
            break;
        case 6:
            ttl = true;
            break;
        default:
            break; // aliases, cache_control, metadata: nothing here depends on them
        }
    }
    if (rc < 0) {
        xds_response_add_refused(r, name, STR("the Resource does not parse"), a);
    } else if (ttl) {
        // Keeping it for ever would be wrong, so say so.
        xds_response_add_refused(r, name, STR("ttl: resources that expire are not supported"), a);
    } else if (!any.p) {
        xds_response_add_refused(r, name, STR("resource: missing"), a);
    } else if (!wire_is_text(version, XDS_VERSION_MAX_BYTES)) {
        xds_response_add_refused(r, name, STR("version: not text or longer than 1024 bytes"), a);
    } else {
        add_any(r, any, name, false, version, a);
    }
}

void xds_response_add_removed(struct xds_response *r, struct str name)
{
    struct str singleton = xds_type_singleton(r->type);
    struct xds_item *it = add(r);
    it->removed = true;
    it->name = name.n == 0 && singleton.p ? singleton : name;
    if (!wire_is_text(name, XDS_NAME_MAX_BYTES)) {
        it->name = str_n(NULL, 0);
        it->refused = STR("removed_resources: a name is not text or longer than 4096 bytes");
    }
}

void xds_response_seal(struct xds_response *r, struct arena *a)
{
    size_t cap = 16;
    while (cap < r->count * 2) {
        cap *= 2;
    }
    uint32_t *slots = arena_array(a, uint32_t, cap); // index + 1 of an item
    for (size_t i = 0; i < r->count; i++) {
        struct xds_item *it = &r->items[i];
        if (it->name.n == 0) {
            continue;
        }
        size_t s = hash_str(it->name) & (cap - 1);
        while (slots[s] && !str_eq(r->items[slots[s] - 1].name, it->name)) {
            s = (s + 1) & (cap - 1);
        }
        if (!slots[s]) {
            slots[s] = (uint32_t)i + 1;
        } else if (!it->refused.p) {
            it->refused = it->removed ? STR("both sent and removed in one response") : STR("more than once in one response");
        }
    }
}

// See wire_is_text; reasons may quote anything and are cut at a byte.
static void make_text(char *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = utf8_len(str_n(p + i, n - i));
        if (!len || p[i] == '\0') {
            p[i] = '?';
            len = 1;
        }
        i += len;
    }
}

struct str xds_response_nack(const struct xds_response *r, struct arena *a)
{
    if (r->error.p) {
        return r->error;
    }
    enum { TAIL = 40 };
    char *text = arena_alloc(a, XDS_NACK_MAX_BYTES);
    size_t n = 0, left_out = 0;
    for (size_t i = 0; i < r->count; i++) {
        const struct xds_item *it = &r->items[i];
        if (!it->refused.p) {
            continue;
        }
        struct str name = it->name.n ? it->name : arena_printf(a, "%s[%zu]", it->removed ? "removed_resources" : "resources", i);
        size_t reason = it->refused.n < XDS_REASON_MAX_BYTES ? it->refused.n : XDS_REASON_MAX_BYTES;
        if (left_out || n + name.n + reason + 4 + TAIL > XDS_NACK_MAX_BYTES) {
            left_out++;
            continue;
        }
        n += (size_t)snprintf(text + n, XDS_NACK_MAX_BYTES - n, "%s%.*s: ", n ? "; " : "", STR_FMT(name));
        memcpy(text + n, it->refused.p, reason);
        n += reason;
    }
    if (left_out) {
        n += (size_t)snprintf(text + n, XDS_NACK_MAX_BYTES - n, "%sand %zu more", n ? "; " : "", left_out);
    }
    make_text(text, n);
    return str_n(text, n);
}

void xds_put_error_detail(struct buf *out, uint32_t field, struct str text)
{
    struct buf status = { 0 };
    wire_put_varint(&status, 1, STATUS_INTERNAL);
    wire_put_str(&status, 2, text);
    wire_put_message(out, field, &status);
}

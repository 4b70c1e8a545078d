// SPDX-License-Identifier: Apache-2.0
// PeerAuthentication.
#include <errno.h>

#include "control-plane/load_int.h"
#include "lib/base/check.h"

static int load_mode(struct loader *l, const struct json *n, enum cp_mtls *ret)
{
    static const struct {
        const char *name;
        enum cp_mtls mode;
    } modes[] = { { "UNSET", CP_MTLS_UNSET }, { "DISABLE", CP_MTLS_DISABLE }, { "PERMISSIVE", CP_MTLS_PERMISSIVE }, { "STRICT", CP_MTLS_STRICT } };
    struct str s = STR("UNSET");
    if (ld_members(l, n, "mode") || ld_str(l, n, "mode", &s)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < array_len(modes); i++) {
        if (str_is(s, modes[i].name)) {
            *ret = modes[i].mode;
            return 0;
        }
    }
    return ld_fail(l, json_get(n, "mode"), "\"%.*s\" is not one of UNSET, DISABLE, PERMISSIVE, STRICT", STR_FMT(s));
}

int ld_peer_authentication(struct loader *l, const struct json *spec)
{
    struct cp_peer_authentication p = { .meta = l->meta };
    const struct json *sel = json_get(spec, "selector"), *mtls = json_get(spec, "mtls"), *ports = json_get(spec, "portLevelMtls");
    if (ld_members(l, spec, "selector mtls portLevelMtls") ||
        (sel && (ld_members(l, sel, "matchLabels") || ld_labels(l, sel, "matchLabels", &p.selector))) ||
        (mtls && load_mode(l, mtls, &p.mode))) {
        return -EINVAL;
    }
    if (ports && ports->type != JSON_OBJECT) {
        return ld_fail(l, ports, "must be an object of ports");
    }
    if (ports && !p.selector.n) {
        return ld_fail(l, ports, "needs a selector: ports are those of workloads");
    }
    p.ports = arena_zalloc(l->a, sizeof(*p.ports) * ((ports ? ports->count : 0) + 1));
    for (const struct json *n = ports ? ports->first : NULL; n; n = n->next) {
        uint64_t v;
        if (!str_to_u64(n->key, 65535, &v)) {
            return ld_fail(l, n, "is not a port");
        }
        p.ports[p.port_count].port = (uint16_t)v;
        if (load_mode(l, n, &p.ports[p.port_count++].mode)) {
            return -EINVAL;
        }
    }
    *(struct cp_peer_authentication *)ld_grow(l, (void **)&l->c->peer_authentications, &l->c->peer_authentication_count, &l->pa_cap, sizeof(p)) = p;
    return 0;
}

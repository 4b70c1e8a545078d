// SPDX-License-Identifier: Apache-2.0
// metadata_match of a TCP proxy and of its weighted clusters → the criteria that subset load balancing looks for.
#include <stdlib.h>

#include "proto/pb_util.h"
#include "proxy/config/build.h"
#include "proxy/config/tcp_match.h"

static int by_key(const void *a, const void *b)
{
    const struct subset_key *x = a, *y = b;
    return str_cmp(x->key, y->key);
}

static bool has_key(const struct subset_key *v, size_t n, struct str key)
{
    for (size_t i = 0; i < n; i++) {
        if (str_eq(v[i].key, key)) {
            return true;
        }
    }
    return false;
}

// Namespace "envoy.lb" of md over the base criteria.
static int build_criteria(const Envoy__Config__Core__V3__Metadata *md, const struct subset_key *base, size_t base_count, struct arena *a,
                          const struct subset_key **ret, size_t *ret_count, struct err *err)
{
    const Google__Protobuf__Struct *st = pb_metadata_get(md, "envoy.lb");
    size_t own = st ? st->n_fields : 0, n = 0;
    struct subset_key *v = own + base_count ? arena_array(a, struct subset_key, own + base_count) : NULL;
    for (; n < own; n++) {
        struct str text = build_value_text(st->fields[n]->value, a);
        if (!text.p) {
            return cfg_fail(err, "metadata_match", "envoy.lb.%s: only strings, numbers and bools are compared", st->fields[n]->key);
        }
        v[n] = (struct subset_key){ .key = build_str(a, st->fields[n]->key), .value = text };
    }
    for (size_t i = 0; i < base_count; i++) {
        if (!has_key(v, own, base[i].key)) {
            v[n++] = base[i];
        }
    }
    if (n) {
        qsort(v, n, sizeof(*v), by_key);
    }
    *ret = v;
    *ret_count = n;
    return 0;
}

int build_tcp_match(const Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy *m, struct arena *a, struct tcp_proxy_cfg *c,
                    struct err *err)
{
    if (build_criteria(m->metadata_match, NULL, 0, a, &c->subset, &c->subset_count, err)) {
        return err->code;
    }
    for (size_t i = 0; i < c->weighted_count; i++) { // as many as in the message
        struct tcp_weighted *w = &c->weighted[i];
        if (build_criteria(m->weighted_clusters->clusters[i]->metadata_match, c->subset, c->subset_count, a, &w->subset, &w->subset_count,
                           err)) {
            return cfg_in(err, "weighted_clusters.clusters[%zu]", i);
        }
    }
    return 0;
}

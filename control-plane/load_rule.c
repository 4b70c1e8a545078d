// SPDX-License-Identifier: Apache-2.0
// DestinationRule.
#include <errno.h>

#include "control-plane/load_int.h"
#include "lib/base/check.h"

static int load_subset(struct loader *l, const struct json *n, struct cp_destination_rule *d, struct cp_subset *s)
{
    const struct json *tp = NULL;
    if (ld_members(l, n, "name labels trafficPolicy") || ld_str(l, n, "name", &s->name) || ld_labels(l, n, "labels", &s->labels) ||
        ld_object(l, n, "trafficPolicy", &tp)) {
        return -EINVAL;
    }
    s->has_policy = tp != NULL;
    if (tp && ld_traffic_policy(l, tp, &s->policy)) {
        return -EINVAL;
    }
    if (!s->name.n) {
        return ld_fail(l, n, "name: missing");
    }
    for (size_t i = 0; &d->subsets[i] != s; i++) {
        if (str_eq(d->subsets[i].name, s->name)) {
            return ld_fail(l, n, "name: there is a subset \"%.*s\" already", STR_FMT(s->name));
        }
    }
    return ld_name(l, n, "name", s->name);
}

int ld_destination_rule(struct loader *l, const struct json *spec)
{
    struct cp_destination_rule d = { .meta = l->meta };
    const struct json *tp = NULL, *subsets = NULL, *sel = NULL;
    if (ld_members(l, spec, "host trafficPolicy subsets exportTo workloadSelector") || ld_str(l, spec, "host", &d.host) ||
        ld_export(l, spec, &d.export) || ld_object(l, spec, "trafficPolicy", &tp) || (tp && ld_traffic_policy(l, tp, &d.policy)) ||
        ld_list(l, spec, "subsets", &subsets) || ld_object(l, spec, "workloadSelector", &sel) ||
        (sel && (ld_members(l, sel, "matchLabels") || ld_labels(l, sel, "matchLabels", &d.selector)))) {
        return -EINVAL;
    }
    if (!d.host.n) {
        return ld_fail(l, spec, "host: missing");
    }
    if (!str_is(d.host, "*") && ld_host(l, json_get(spec, "host"), "host", d.host)) {
        return -EINVAL;
    }
    d.has_policy = tp != NULL;
    d.subsets = arena_array(l->a, struct cp_subset, (subsets ? subsets->count : 0) + 1);
    for (const struct json *n = subsets ? subsets->first : NULL; n; n = n->next) {
        if (load_subset(l, n, &d, &d.subsets[d.subset_count++])) {
            return -EINVAL;
        }
    }
    *(struct cp_destination_rule *)ld_grow(l, (void **)&l->c->destination_rules, &l->c->destination_rule_count, &l->dr_cap, sizeof(d)) = d;
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
// Subsets (cluster.v3.Cluster.LbSubsetConfig): balancers over those endpoints whose "envoy.lb" metadata have what a route asks for. Made when a
// route first asks, kept until endpoints or their health change. What can be asked for is bounded: it stands in routes, not in requests.
#include <stdlib.h>

#include "lib/base/mem.h"
#include "proxy/upstream/balancer.h"

enum { SUBSETS_MAX = 4096, CRITERIA_MAX = 64 };

static char nobody; // no endpoint fits
#define SUBSET_NOBODY ((void *)&nobody)

void subsets_free(struct lb *root)
{
    struct map_entry *e;
    for (size_t i = 0; (e = map_next(&root->subsets, &i));) {
        if (e->val != SUBSET_NOBODY) {
            lb_free(e->val);
        }
    }
    map_fini(&root->subsets);
}

static bool has(const struct endpoint *e, const struct lb_criterion *want, bool list_as_any)
{
    for (size_t i = 0; e->more && i < e->more->lb_metadata_count; i++) {
        const struct lb_criterion *x = &e->more->lb_metadata[i];
        if ((!x->element || list_as_any) && str_eq(x->key, want->key) && str_eq(x->value, want->value)) {
            return true;
        }
    }
    return false;
}

static bool fits(const struct endpoint *e, const struct lb_criterion *want, size_t n, bool list_as_any)
{
    size_t i = 0;
    while (i < n && has(e, &want[i], list_as_any)) {
        i++;
    }
    return i == n;
}

// Key and value of each criterion with their lengths: one text for one subset.
static struct str subset_key(const struct lb_criterion *v, size_t n, bool single)
{
    size_t bytes = 1;
    for (size_t i = 0; i < n; i++) {
        bytes += v[i].key.n + v[i].value.n + 2 * sizeof(size_t);
    }
    char *p = mem_alloc(bytes), *at = p;
    *at++ = single ? '1' : '*';
    for (size_t i = 0; i < n; i++) {
        const struct str parts[] = { v[i].key, v[i].value };
        for (int k = 0; k < 2; k++) {
            memcpy(at, &parts[k].n, sizeof(size_t));
            at += sizeof(size_t);
            memcpy(at, parts[k].p, parts[k].n);
            at += parts[k].n;
        }
    }
    return str_n(p, bytes);
}

static struct lb *subset_build(struct cluster_worker *cw, const struct lb *root, const struct lb_criterion *v, size_t n, bool single)
{
    const struct subset_cfg *s = &root->cfg->subset;
    const struct endpoint **members = mem_alloc((root->member_count ? root->member_count : 1) * sizeof(struct endpoint *));
    size_t count = 0;
    for (size_t i = 0; i < root->member_count && !(single && count); i++) {
        if (fits(root->members[i], v, n, s->list_as_any)) {
            members[count++] = root->members[i];
        }
    }
    if (count == 0) {
        free(members);
        return NULL;
    }
    return lb_build(cw, root->cfg, root->set, members, count, !s->locality_weight_aware);
}

// NULL when no endpoint fits.
static struct lb *subset_get(struct cluster_worker *cw, struct lb *root, const struct lb_criterion *v, size_t n, bool single)
{
    struct str key = subset_key(v, n, single);
    struct lb *lb = map_get(&root->subsets, key);
    if (!lb && root->subsets.count < SUBSETS_MAX) {
        lb = subset_build(cw, root, v, n, single);
        map_put(&root->subsets, key, lb ? (void *)lb : SUBSET_NOBODY);
        if (lb) {
            stat_inc(cw->lb_stats, STAT_ID_CLUSTER_LB_SUBSETS_CREATED);
        }
    }
    free((char *)key.p);
    return (void *)lb == SUBSET_NOBODY ? NULL : lb;
}

// Both are in byte order.
static const struct subset_selector *selector_for(const struct subset_cfg *s, const struct lb_criterion *v, size_t n)
{
    for (size_t i = 0; i < s->selector_count; i++) {
        const struct subset_selector *x = &s->selectors[i];
        size_t k = 0;
        while (x->key_count == n && k < n && str_eq(x->keys[k], v[k].key)) {
            k++;
        }
        if (x->key_count == n && k == n) {
            return x;
        }
    }
    return NULL;
}

static struct lb *fall_back(struct cluster_worker *cw, struct lb *root, enum subset_fallback f)
{
    const struct subset_cfg *s = &root->cfg->subset;
    struct lb *lb = NULL;
    if (f == SUBSET_ANY_ENDPOINT) {
        lb = root;
    } else if (f == SUBSET_DEFAULT) {
        lb = subset_get(cw, root, s->default_subset, s->default_count, false);
    }
    if (lb && lb_any(lb)) {
        stat_inc(cw->lb_stats, STAT_ID_CLUSTER_LB_SUBSETS_FALLBACK);
        return lb;
    }
    if (s->panic_mode_any) {
        stat_inc(cw->lb_stats, STAT_ID_CLUSTER_LB_SUBSETS_FALLBACK_PANIC);
        return root;
    }
    return lb;
}

// SUBSET_KEYS: only those of the criteria whose keys are named. out may be v.
static size_t reduce(const struct subset_selector *x, const struct lb_criterion *v, size_t n, struct lb_criterion *out)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < x->fallback_key_count; k++) {
            if (str_eq(x->fallback_keys[k], v[i].key)) {
                out[count++] = v[i];
                break;
            }
        }
    }
    return count;
}

struct lb *subset_find(struct cluster_worker *cw, struct lb *root, const struct pick *p)
{
    const struct subset_cfg *s = &root->cfg->subset;
    struct lb_criterion v[CRITERIA_MAX];
    size_t n = p->subset_count <= CRITERIA_MAX ? p->subset_count : 0;
    for (size_t i = 0; i < n; i++) {
        v[i] = (struct lb_criterion){ p->subset[i].key, p->subset[i].value, false };
    }
    enum subset_fallback f = s->fallback;
    while (n > 0) {
        const struct subset_selector *x = selector_for(s, v, n);
        struct lb *lb = x ? subset_get(cw, root, v, n, x->single_host) : NULL;
        if (lb) {
            stat_inc(cw->lb_stats, STAT_ID_CLUSTER_LB_SUBSETS_SELECTED);
            return lb;
        }
        if (!x || x->fallback == SUBSET_NOT_DEFINED) {
            break;
        }
        f = x->fallback;
        if (f != SUBSET_KEYS) {
            break;
        }
        n = reduce(x, v, n, v); // fewer keys each time: proxy/config sees to it
    }
    return fall_back(cw, root, f);
}

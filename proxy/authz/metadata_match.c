// SPDX-License-Identifier: Apache-2.0
#include "proxy/authz/metadata_match.h"

#include <errno.h>

#include "envoy/type/matcher/v3/metadata.pb-c.h"

int metadata_match_parse(const void *msg, struct arena *a, const struct metadata_match **ret, struct err *err)
{
    const Envoy__Type__Matcher__V3__MetadataMatcher *m = msg;
    struct metadata_match *x = arena_new(a, struct metadata_match);
    struct str *path = arena_array(a, struct str, m->n_path + 1);
    if (!m->filter[0] || !m->n_path || !m->value) {
        return err_set(err, -EINVAL, "%s: is missing", !m->filter[0] ? "filter" : !m->n_path ? "path" : "value");
    }
    for (size_t i = 0; i < m->n_path; i++) {
        if (m->path[i]->segment_case != ENVOY__TYPE__MATCHER__V3__METADATA_MATCHER__PATH_SEGMENT__SEGMENT_KEY || !m->path[i]->key[0]) {
            return err_set(err, -EINVAL, "path[%zu].key: is missing", i);
        }
        path[i] = arena_str(a, str_c(m->path[i]->key));
    }
    x->space = arena_str(a, str_c(m->filter));
    x->path = path;
    x->path_count = m->n_path;
    x->invert = m->invert;
    int rc = value_match_parse(m->value, a, &x->value, err);
    if (rc < 0) {
        return err_wrap(err, "value");
    }
    *ret = x;
    return 0;
}

bool metadata_match(const struct metadata_match *m, const struct stream_info *info)
{
    const struct metadata_value v = stream_info_metadata_find(info, m->space, m->path, m->path_count);
    return value_match(&m->value, &v) != m->invert;
}

// SPDX-License-Identifier: Apache-2.0
#include "xds-client/resource_types.h"

#define PREFIX "type.googleapis.com/"

static const struct xds_type_info types[XDS_TYPE_COUNT] = {
#define XDS_TYPE(id, short_name_, url_, wildcard_, full_)                                                                                  \
    [XDS_##id] = { .short_name = short_name_, .url = STR_INIT(PREFIX url_), .wildcard = (wildcard_), .full_state = (full_) },
#include "xds-client/resource_types.def"
#undef XDS_TYPE
};

const struct xds_type_info *xds_type_info(enum xds_type t)
{
    return &types[t];
}

const char *xds_type_short(enum xds_type t)
{
    return types[t].short_name;
}

struct str xds_type_url(enum xds_type t)
{
    return types[t].url;
}

int xds_type_parse(struct str url)
{
    struct str bare = str_starts(url, STR(PREFIX)) ? str_skip(url, sizeof(PREFIX) - 1) : url;
    for (int t = 0; t < XDS_TYPE_COUNT; t++) {
        if (str_eq(bare, str_skip(types[t].url, sizeof(PREFIX) - 1))) {
            return t;
        }
    }
    return -1;
}

struct str xds_type_singleton(enum xds_type t)
{
    struct str url = types[t].url;
    if (t != XDS_NAMETABLE && t != XDS_PROXYCONFIG) {
        return str_n(NULL, 0);
    }
    size_t i = url.n;
    while (i > 0 && url.p[i - 1] != '.') {
        i--;
    }
    return str_skip(url, i);
}

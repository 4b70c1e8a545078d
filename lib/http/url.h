// SPDX-License-Identifier: Apache-2.0
// Paths and authorities: split, normalise, percent-decode (RFC 3986). Pure.
#ifndef LIB_HTTP_URL_H
#define LIB_HTTP_URL_H

#include "lib/base/arena.h"

// Host and port of an authority: "h", "h:80", "[::1]:80". port 0 when absent. false when malformed.
bool url_split_authority(struct str authority, struct str *ret_host, uint16_t *ret_port);
// Path without query and fragment; *ret_query behind '?', p NULL when there is none.
struct str url_split_path(struct str path, struct str *ret_query);
// %XX decoding; false on a broken escape.
bool url_decode(struct str s, struct arena *a, struct str *ret);
// Dot segments removed (RFC 3986 §5.2.4) and, with merge_slashes, runs of '/' folded; the query is untouched. false when the path
// climbs above the root or has a NUL: the request must be refused.
bool url_normalize_path(struct str path_and_query, bool merge_slashes, struct arena *a, struct str *ret);

#endif

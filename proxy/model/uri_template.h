// SPDX-License-Identifier: Apache-2.0
// Path templates of routes and permissions: "/a/{name}/*/**" (path.match.uri_template, path.rewrite.uri_template). Compiled into a regular expression with
// a group for each variable, and a substitution for it.
#ifndef PROXY_MODEL_URI_TEMPLATE_H
#define PROXY_MODEL_URI_TEMPLATE_H

#include "lib/base/arena.h"
#include "lib/base/err.h"

enum { URI_TEMPLATE_VARIABLES_MAX = 5 };

struct uri_template {
    struct str regex;                                  // of the whole path, RE2 syntax
    struct str variables[URI_TEMPLATE_VARIABLES_MAX];  // names; group 1 is the first
    size_t variable_count;
};

// Syntax: "/" and segments; "*" is one segment, "**" any number of them and must be last, "{x}" is "{x=*}", "{x=pattern}" names what the
// pattern takes. Views into text or the arena. Errors name the place.
int uri_template_parse(struct str text, struct arena *a, struct uri_template *ret, struct err *err);
// What "/{x}/text" makes of the groups of t, as a substitution of lib/regex ("/\1/text"). Variables must be those of t.
int uri_template_rewrite(struct str text, const struct uri_template *t, struct arena *a, struct str *ret, struct err *err);

#endif

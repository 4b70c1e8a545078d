// SPDX-License-Identifier: Apache-2.0
// What Istio's analyzer finds in VirtualServices, DestinationRules, ServiceEntries and policies, from files alone: the same codes, our own words.
// Pure: texts in, findings out. Objects of other kinds are looked at only as far as these refer to them (Gateway, Service, Pod, …).
#ifndef CONTROL_PLANE_ANALYZE_H
#define CONTROL_PLANE_ANALYZE_H

#include "lib/base/arena.h"
#include "lib/base/str.h"

enum cp_level { CP_ERROR, CP_WARNING, CP_INFO };
struct cp_source { // one file
    const char *name;
    struct str text; // YAML, one or more documents
};
struct cp_finding {
    enum cp_level level;
    const char *code; // "IST0101"; NULL: the file cannot be read as YAML
    const char *file;
    int line;
    struct str origin; // "VirtualService default/reviews"
    struct str text;
};
const char *cp_level_name(enum cp_level l);
// Findings in arena, worst first, then by code, origin, line. Texts and names must live as long as the arena.
size_t cp_analyze(const struct cp_source *v, size_t n, struct arena *a, struct cp_finding **ret);

#endif

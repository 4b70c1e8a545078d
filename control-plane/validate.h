// SPDX-License-Identifier: Apache-2.0
// What Istio's validation says about VirtualServices, DestinationRules, ServiceEntries and policies: the same verdicts, our own words. Istiod refuses an
// object with an error; a warning lets it through. Pure. Fields that do not exist, or hold another type, are the loader's business.
#ifndef CONTROL_PLANE_VALIDATE_H
#define CONTROL_PLANE_VALIDATE_H

#include "lib/base/arena.h"
#include "lib/base/json.h"

struct cp_validator {
    struct arena *a;
    struct str ns; // the object's
    // at: the node that is wrong, for its line. text lives in the arena.
    void (*say)(void *arg, bool warning, const struct json *at, struct str text);
    void *arg;
    bool muted; // Istio loses the warnings of some places
};
// doc: a whole object; other kinds have nothing to say.
void cp_validate(struct cp_validator *v, const struct json *doc);

#endif

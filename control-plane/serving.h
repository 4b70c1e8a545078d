// SPDX-License-Identifier: Apache-2.0
// The control plane's own certificate over time: made at the start, made anew at half of its life. Loop's thread.
#ifndef CONTROL_PLANE_SERVING_H
#define CONTROL_PLANE_SERVING_H

#include "control-plane/ca.h"
#include "lib/event/loop.h"

enum { SERVING_LOOK_MS = 3600 * 1000 }; // between two looks at the wall clock, which also goes on while a machine sleeps

struct serving {
    const struct ca *ca;      // borrowed
    const struct str *sans;   // borrowed
    size_t san_count;
    struct loop *loop;
    // A new pair is to be shown from now on; both borrowed during the call.
    void (*use)(void *arg, struct str cert_pem, struct str key_pem);
    void *arg;
    // private
    struct timer timer;
    uint64_t renew_wall_ms;   // half of the life of the present one
};
// The members above are set. Makes the first pair into a (use is not called for it) and begins to look after it.
int serving_start(struct serving *s, struct arena *a, struct str *ret_cert, struct str *ret_key, struct err *err);
// Nothing when it was never started.
void serving_stop(struct serving *s);

#endif

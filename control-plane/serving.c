// SPDX-License-Identifier: Apache-2.0
#include "control-plane/serving.h"

#include <errno.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/tls/cert.h"

static int make(struct serving *s, struct arena *a, struct str *ret_cert, struct str *ret_key, struct err *err)
{
    struct cert_info *info;
    size_t n;
    int rc = ca_serving_cert(s->ca, s->sans, s->san_count, a, ret_cert, ret_key, err);
    rc = rc ? rc : cert_parse_bundle(*ret_cert, a, &info, &n, err);
    if (rc || n == 0) {
        return rc ? rc : err_set(err, -EINVAL, "the serving certificate is empty");
    }
    // By its length, not by its dates: it ends before its time when the root does.
    int64_t life_s = info[0].not_after_s - info[0].not_before_s;
    s->renew_wall_ms = loop_wall_ms(s->loop) + (life_s > 0 ? (uint64_t)life_s * 1000 / 2 : 0);
    return 0;
}

static void look(struct timer *t)
{
    struct serving *s = container_of(t, struct serving, timer);
    timer_set(s->loop, t, SERVING_LOOK_MS);
    if (loop_wall_ms(s->loop) < s->renew_wall_ms) {
        return;
    }
    struct arena a = { 0 };
    struct err err = { 0 };
    struct str cert, key;
    if (make(s, &a, &cert, &key, &err)) {
        log_error(LOGC_CA, 0, "serving_certificate_not_renewed", "reason=\"%s\" (tried again in an hour)", err.msg);
    } else {
        log_info(LOGC_CA, 0, "serving_certificate_renewed", "next_in_s=%llu",
                 (unsigned long long)(s->renew_wall_ms - loop_wall_ms(s->loop)) / 1000);
        s->use(s->arg, cert, key);
        explicit_bzero((char *)key.p, key.n);
    }
    arena_fini(&a);
}

int serving_start(struct serving *s, struct arena *a, struct str *ret_cert, struct str *ret_key, struct err *err)
{
    int rc = make(s, a, ret_cert, ret_key, err);
    if (!rc) {
        timer_init(&s->timer, look);
        timer_set(s->loop, &s->timer, SERVING_LOOK_MS);
    }
    return rc;
}

void serving_stop(struct serving *s)
{
    if (s->timer.fn) {
        timer_cancel(&s->timer);
    }
}

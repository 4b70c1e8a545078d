// SPDX-License-Identifier: Apache-2.0
#include "lib/base/clock.h"

#include <stdio.h>
#include <time.h>

uint64_t clock_mono_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t clock_mono_ms(void)
{
    return clock_mono_ns() / 1000000u;
}

uint64_t clock_wall_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

void clock_rfc3339(uint64_t wall_ms, char *out)
{
    time_t t = (time_t)(wall_ms / 1000);
    struct tm tm = { .tm_mday = 1 };
    gmtime_r(&t, &tm); // leaves the zeroed tm when the year does not fit
    char date[CLOCK_RFC3339_MAX];
    size_t n = strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    date[n] = '\0';
    snprintf(out, CLOCK_RFC3339_MAX, "%.20s.%03uZ", date, (unsigned)(wall_ms % 1000));
}

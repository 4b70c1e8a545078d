// SPDX-License-Identifier: Apache-2.0
// Time. Monotonic for intervals, wall for what people read. Loops cache both once per turn (lib/event/loop.h).
#ifndef LIB_BASE_CLOCK_H
#define LIB_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

uint64_t clock_mono_ns(void);
uint64_t clock_mono_ms(void);
uint64_t clock_wall_ms(void); // since 1970
enum { CLOCK_RFC3339_MAX = 32 };
// "2026-11-21T04:00:31.123Z" into out (CLOCK_RFC3339_MAX bytes).
void clock_rfc3339(uint64_t wall_ms, char *out);

#endif

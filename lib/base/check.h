// SPDX-License-Identifier: Apache-2.0
// CHECK guards invariants of our own code, never input: a failure is a bug, so it stops the process with the place.
#ifndef LIB_BASE_CHECK_H
#define LIB_BASE_CHECK_H

__attribute__((noreturn, cold)) void check_failed(const char *expr, const char *file, int line);

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (__builtin_expect(!(x), 0)) {                                                                               \
            check_failed(#x, __FILE__, __LINE__);                                                                      \
        }                                                                                                              \
    } while (0)

// Checked builds (SAN=…, DEBUG=1) only: too dear for the hot path.
#ifdef REMORA_CHECKED
#define DCHECK(x) CHECK(x)
#else
#define DCHECK(x) ((void)0)
#endif

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#define array_len(a) (sizeof(a) / sizeof((a)[0]))

#endif

// SPDX-License-Identifier: Apache-2.0
// Loading, relocating and initialising gRPC, OpenSSL and the protobuf tables touches megabytes of code that runs once. Those pages count as resident until memory is
// short; a sidecar multiplies that by the number of pods. Only segments without write permission are touched: a private page that was written would be lost.
#include "proxy/server/trim.h"

#include <link.h>
#include <malloc.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/buf.h"

enum { SURPLUS_MAX = 4 * 1024 * 1024, RELEASE_AFTER_MS = 2000 };

static int drop_segments(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    uintptr_t page = *(const uintptr_t *)arg;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || (p->p_flags & PF_W)) {
            continue;
        }
        uintptr_t begin = (info->dlpi_addr + p->p_vaddr + page - 1) & ~(page - 1);
        uintptr_t end = (info->dlpi_addr + p->p_vaddr + p->p_memsz) & ~(page - 1);
        if (end > begin) {
            madvise((void *)begin, end - begin, MADV_DONTNEED); // failing costs nothing but the memory
        }
    }
    return 0;
}

void trim_after_start(void)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    malloc_trim(0);
    dl_iterate_phdr(drop_segments, &page);
}

// Freed slices lie between others in the heap, so that free() alone gives nothing back. Trimming costs a walk over the heap: not more than
// every RELEASE_AFTER_MS, and only for what stayed unused all that time.
static void on_surplus(struct timer *timer)
{
    (void)timer;
    if (buf_surplus() > SURPLUS_MAX) {
        buf_release();
        malloc_trim(0);
    }
}

static void on_turn(struct loop_hook *h)
{
    struct trim_worker *t = container_of(h, struct trim_worker, hook);
    if (__builtin_expect(buf_surplus() > SURPLUS_MAX, 0) && !timer_pending(&t->timer)) {
        timer_set(t->loop, &t->timer, RELEASE_AFTER_MS);
    }
}

void trim_worker_init(struct trim_worker *t, struct loop *l)
{
    *t = (struct trim_worker){ .hook.fn = on_turn, .loop = l };
    timer_init(&t->timer, on_surplus);
    loop_add_hook(l, &t->hook);
}

void trim_worker_fini(struct trim_worker *t)
{
    loop_del_hook(&t->hook);
    timer_cancel(&t->timer);
}

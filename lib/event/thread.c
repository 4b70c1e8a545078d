// SPDX-License-Identifier: Apache-2.0
#include "lib/event/thread.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/mem.h"
#include "lib/base/scope.h"

struct start {
    void *(*fn)(void *arg);
    void *arg;
    char name[16];
};

static void *thread_main(void *p)
{
    struct start s = *(struct start *)p;
    free(p);
    pthread_setname_np(pthread_self(), s.name);
    void *r = s.fn(s.arg);
    buf_cache_free();
    return r;
}

int thread_start(pthread_t *ret, const char *name, void *(*fn)(void *arg), void *arg, struct err *err)
{
    struct start *s = mem_zalloc(sizeof(*s));
    s->fn = fn;
    s->arg = arg;
    snprintf(s->name, sizeof(s->name), "%s", name);
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); // inherited by the new thread from its first instruction
    pthread_t t;
    int r = pthread_create(&t, NULL, thread_main, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0) {
        free(s);
        err_errno(err, r, "cannot start a thread");
        return -r;
    }
    *ret = t;
    return 0;
}

// CPUs that the cpu.max file allows, rounded up; 0 when it sets no limit or cannot be read.
static int cpu_max(const char *path)
{
    scope_fclose FILE *f = fopen(path, "re");
    long long quota, period;
    if (!f || fscanf(f, "%lld %lld", &quota, &period) != 2 || quota <= 0 || period <= 0) {
        return 0; // "max 100000" does not begin with a number
    }
    long long n = (quota + period - 1) / period;
    return n > 4096 ? 4096 : (int)n;
}

// The least cpu.max from this process's cgroup (cgroup v2: the line "0::/path") up to the root; 0 when none limits.
static int cgroup_cpus(void)
{
    scope_fclose FILE *f = fopen("/proc/self/cgroup", "re");
    char line[1024], path[1200];
    int least = 0;
    while (f && fgets(line, sizeof(line), f)) {
        if (strncmp(line, "0::/", 4) != 0) {
            continue;
        }
        line[strcspn(line, "\n")] = '\0';
        char *group = line + 3;
        while (*group) {
            snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cpu.max", group);
            int n = cpu_max(path);
            least = n && (!least || n < least) ? n : least;
            *strrchr(group, '/') = '\0'; // the parent; group begins with '/'
        }
    }
    int n = cpu_max("/sys/fs/cgroup/cpu.max"); // the container's own group, as a container sees it
    return n && (!least || n < least) ? n : least;
}

int thread_cpu_count(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    int limit = cgroup_cpus();
    n = limit && limit < n ? limit : n;
    return n > 0 ? n : 1;
}

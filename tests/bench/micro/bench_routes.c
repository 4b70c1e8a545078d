// SPDX-License-Identifier: Apache-2.0
// Nanoseconds per look-up of a virtual host and its route, with 10 and with 10,000 virtual hosts, as istiod makes them: six domains each, and
// two wildcard hosts. Pure code on one thread; `bench_routes [seconds per case]`.
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/clock.h"
#include "proxy/model/route_table.h"

enum { DOMAINS = 6, HOSTS_MAX = 10000, ASKED = 1024 };

static void fill_host(struct route_table *t, struct virtual_host *v, size_t i)
{
    static const char *const forms[DOMAINS] = { "svc-%zu", "svc-%zu.ns", "svc-%zu.ns.svc", "svc-%zu.ns.svc.cluster.local",
                                                "svc-%zu.ns.svc.cluster.local.", "10.96.%zu.1" };
    struct arena *a = &t->arena;
    v->name = arena_printf(a, "svc-%zu.ns.svc.cluster.local:9080", i);
    v->domains = arena_array(a, struct str, DOMAINS);
    for (int k = 0; k < DOMAINS; k++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        v->domains[v->domain_count++] = arena_printf(a, forms[k], i);
#pragma GCC diagnostic pop
    }
    v->routes = arena_array(a, struct route, 1);
    v->routes[v->route_count++] = (struct route){ .path_kind = PATH_PREFIX, .path = STR("/"), .case_sensitive = true };
}

static struct route_table *make(size_t n)
{
    static const char *const wild[] = { "*.example.com", "api.*" };
    struct route_table *t = route_table_new();
    t->ignore_port = true;
    t->vhosts = arena_array(&t->arena, struct virtual_host, n + 2);
    for (; t->vhost_count < n; t->vhost_count++) {
        fill_host(t, &t->vhosts[t->vhost_count], t->vhost_count);
    }
    for (int i = 0; i < 2; i++) {
        struct virtual_host *v = &t->vhosts[t->vhost_count++];
        fill_host(t, v, HOSTS_MAX + (size_t)i);
        v->domains[0] = str_c(wild[i]);
    }
    struct err err = { 0 };
    if (route_table_seal(t, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    return t;
}

// kind 0: hosts that are there; 1: by wildcard; 2: hosts that nobody has.
static void run(const struct route_table *t, size_t n, int kind, double seconds)
{
    static const char *const kinds[] = { "exact", "wildcard", "none" };
    struct arena a;
    arena_init(&a, 0, 0);
    struct str hosts[ASKED];
    for (size_t i = 0; i < ASKED; i++) {
        size_t k = i * 7919 % n;
        hosts[i] = kind == 0   ? arena_printf(&a, "svc-%zu.ns.svc.cluster.local:9080", k)
                   : kind == 1 ? arena_printf(&a, "shop-%zu.example.com", k)
                               : arena_printf(&a, "other-%zu.ns", k);
    }
    struct headers h;
    headers_init(&h, &a);
    uint64_t count = 0, hits = 0, start = clock_mono_ns(), end = start + (uint64_t)(seconds * 1e9);
    while (clock_mono_ns() < end) {
        for (size_t i = 0; i < ASKED; i++, count++) {
            const struct match_request r = { .method = STR("GET"), .path = STR("/reviews/1?x=y"), .authority = hosts[i], .headers = &h, .arena = &a };
            const struct virtual_host *v = route_table_vhost(t, hosts[i]);
            hits += v && virtual_host_route(v, &r);
        }
    }
    double ns = (double)(clock_mono_ns() - start) / (double)count;
    printf("%6zu virtual hosts  %-8s  %6.1f ns  (%s)\n", n, kinds[kind], ns, hits == (kind == 2 ? 0 : count) ? "all as expected" : "WRONG RESULTS");
    arena_fini(&a);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 1.0;
    static const size_t sizes[] = { 10, 100, 1000, HOSTS_MAX };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct route_table *t = make(sizes[i]);
        for (int kind = 0; kind < 3; kind++) {
            run(t, sizes[i], kind, seconds);
        }
        route_table_unref(t);
    }
    return 0;
}

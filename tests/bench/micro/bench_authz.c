// SPDX-License-Identifier: Apache-2.0
// Nanoseconds per authorization decision: policies as istiod makes them, with lists of 1 to 1,000 principals, namespaces, paths and ranges, asked by
// somebody who is last on the list or not on it. Pure code on one thread; `bench_authz [seconds per case [case]]`.
#include <stdio.h>
#include <stdlib.h>

#include "envoy/config/rbac/v3/rbac.pb-c.h"
#include "lib/base/buf.h"
#include "lib/base/clock.h"
#include "proto/pb_json.h"
#include "proxy/authz/authz.h"
#include "proxy/model/matcher.h"

struct kind {
    const char *name, *format; // one alternative, with its number
    bool permission;
};
static const struct kind kinds[] = {
    { "principals", "{\"authenticated\":{\"principal_name\":{\"exact\":\"spiffe://cluster.local/ns/shop/sa/sa-%zu\"}}}", false },
    { "namespaces", "{\"authenticated\":{\"principal_name\":{\"safe_regex\":{\"regex\":\".*/ns/ns-%zu/.*\"}}}}", false },
    { "ranges", "{\"remote_ip\":{\"address_prefix\":\"10.%zu.0.0\",\"prefix_len\":32}}", false },
    { "paths", "{\"url_path\":{\"path\":{\"exact\":\"/api/v1/thing-%zu\"}}}", true },
    { "prefixes", "{\"url_path\":{\"path\":{\"prefix\":\"/api/v1/thing-%zu/\"}}}", true },
    { "policies", NULL, false }, // one principal each
};

static void alternative(struct buf *b, const struct kind *k, size_t i)
{
    char text[200];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, sizeof(text), k->format ? k->format : kinds[0].format, i);
#pragma GCC diagnostic pop
    buf_append_str(b, str_c(text));
}

static void list(struct buf *b, const struct kind *k, size_t from, size_t n)
{
    const char *outer = k->permission ? "and_rules\":{\"rules" : "and_ids\":{\"ids", *inner = k->permission ? "or_rules\":{\"rules" : "or_ids\":{\"ids";
    buf_printf(b, "{\"%s\":[{\"%s\":[", outer, inner);
    for (size_t i = from; i < from + n; i++) {
        buf_append_str(b, i > from ? STR(",") : STR(""));
        alternative(b, k, i);
    }
    buf_append_str(b, STR("]}}]}}"));
}

static void policy(struct buf *b, const struct kind *k, size_t i, size_t from, size_t n)
{
    struct str any = STR("{\"any\":true}");
    buf_printf(b, "%s\"ns[shop]-policy[p]-rule[%zu]\":{\"permissions\":[", i ? "," : "", i);
    if (k->permission) {
        list(b, k, from, n);
    } else {
        buf_append_str(b, any);
    }
    buf_append_str(b, STR("],\"principals\":["));
    if (k->permission) {
        buf_append_str(b, any);
    } else {
        list(b, k, from, n);
    }
    buf_append_str(b, STR("]}"));
}

static struct authz *make(const struct kind *k, size_t n, struct arena *a)
{
    struct buf b = { 0 };
    struct err err = { 0 };
    ProtobufCMessage *m;
    struct authz *z = NULL;
    buf_append_str(&b, STR("{\"policies\":{"));
    for (size_t i = 0; i < (k->format ? 1 : n); i++) {
        policy(&b, k, i, i, k->format ? n : 1);
    }
    buf_append_str(&b, STR("}}"));
    if (pb_json_parse(buf_pullup(&b, b.len), &envoy__config__rbac__v3__rbac__descriptor, 0, a, &m, &err) || authz_parse(m, AUTHZ_OF_REQUEST, a, &z, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    buf_clear(&b);
    return z;
}

static void run(const struct kind *k, size_t n, bool hit, double seconds)
{
    struct arena a = { 0 };
    struct headers h;
    headers_init(&h, &a);
    const struct authz *z = make(k, n, &a);
    size_t last = hit ? n - 1 : 5000;
    struct str uri = k == &kinds[1] ? arena_printf(&a, "spiffe://cluster.local/ns/ns-%zu/sa/default", last)
                                    : arena_printf(&a, "spiffe://cluster.local/ns/shop/sa/sa-%zu", last);
    struct addr from = { .family = AF_INET, .ip = { 10, (uint8_t)last } };
    struct str path = arena_printf(&a, k == &kinds[4] ? "/api/v1/thing-%zu/x?y" : "/api/v1/thing-%zu?y", last);
    const struct match_request r = { .method = STR("GET"), .path = path, .authority = STR("shop"), .headers = &h, .arena = &a };
    const struct authz_subject s = { .request = &r, .remote = &from, .tls = true, .uris = &uri, .uri_count = 1, .certificate_subject = STR("") };
    uint64_t count = 0, hits = 0, start = clock_mono_ns(), end = start + (uint64_t)(seconds * 1e9);
    do {
        for (int i = 0; i < 256; i++, count++) {
            hits += authz_decide(z, &s).allowed;
        }
    } while (clock_mono_ns() < end);
    double ns = (double)(clock_mono_ns() - start) / (double)count;
    printf("%-10s  %5zu  %-4s  %8.1f ns  (%s)\n", k->name, n, hit ? "last" : "none", ns, hits == (hit ? count : 0) ? "all as expected" : "WRONG RESULTS");
    arena_fini(&a);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 0.3;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        static const size_t sizes[] = { 1, 10, 100, 1000 };
        for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
            if ((argc > 2 && !str_is(str_c(kinds[i].name), argv[2])) || (i == 2 && sizes[k] > 200)) {
                continue;
            }
            run(&kinds[i], sizes[k], true, seconds);
            run(&kinds[i], sizes[k], false, seconds);
        }
    }
    return 0;
}

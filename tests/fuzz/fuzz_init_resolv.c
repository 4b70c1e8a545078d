// SPDX-License-Identifier: Apache-2.0
// resolv.conf and the kernel's address tables: what was taken is bounded, without duplicates, and can be written and read
// again.
// fuzz-modules: init-net lib/base
#include <arpa/inet.h>

#include "init-net/options.h"
#include "lib/base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct cidr_list l, again;
    struct buf out = { 0 };
    size_t skipped;
    struct str text = str_n(data, size);
    arena_init(&a, 16384, 0);
    facts_scan_fib_trie(text);
    facts_scan_if_inet6(text);
    options_resolvers(text, &a, &l, &skipped);
    CHECK(l.n <= 64 && skipped <= size / 11);
    for (size_t i = 0; i < l.n; i++) {
        char addr[INET6_ADDRSTRLEN];
        CHECK(l.v[i].len == (l.v[i].family == AF_INET ? 32 : 128));
        buf_printf(&out, "nameserver %s\n", inet_ntop(l.v[i].family, l.v[i].addr, addr, sizeof(addr)));
    }
    options_resolvers(buf_pullup(&out, buf_len(&out)), &a, &again, &skipped);
    CHECK(skipped == 0 && again.n == l.n);
    CHECK(l.n == 0 || memcmp(again.v, l.v, l.n * sizeof(*l.v)) == 0);
    buf_clear(&out);
    arena_fini(&a);
    return 0;
}

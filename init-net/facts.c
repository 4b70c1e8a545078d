// SPDX-License-Identifier: Apache-2.0
#include "init-net/facts.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/file.h"
#include "lib/base/mem.h"

enum { FACT_FILE_BYTES = 4 << 20 }; // passwd, resolv.conf and the /proc tables are far smaller

// Files of /proc say size 0, so this reads to the end rather than by size.
static bool read_text(const char *root, const char *path, struct arena *a, struct str *ret)
{
    struct str full = arena_printf(a, "%s%s", root, path);
    FILE *f = fopen(full.p, "re");
    if (!f) {
        return false;
    }
    size_t cap = 4096, n = 0;
    char *text = mem_alloc(cap);
    size_t got;
    while ((got = fread(text + n, 1, cap - n, f)) > 0 && n < FACT_FILE_BYTES) {
        n += got;
        if (n == cap) {
            cap *= 2;
            text = mem_realloc(text, cap);
        }
    }
    fclose(f);
    *ret = arena_str(a, str_n(text, n));
    free(text);
    return true;
}

bool facts_scan_fib_trie(struct str text)
{
    char last[INET_ADDRSTRLEN] = "";
    while (text.n) {
        struct str line = str_trim(str_split(&text, '\n'));
        ptrdiff_t at = str_find_str(line, STR("-- "));
        if (at >= 0) {
            struct str addr = str_skip(line, (size_t)at + 3);
            snprintf(last, sizeof(last), "%.*s", STR_FMT(addr));
            continue;
        }
        if (!str_starts(line, STR("/32 host LOCAL"))) {
            continue;
        }
        uint8_t ip[4];
        if (inet_pton(AF_INET, last, ip) == 1 && ip[0] != 127 && !(ip[0] == 169 && ip[1] == 254)) {
            return true;
        }
    }
    return false;
}

bool facts_scan_if_inet6(struct str text)
{
    // Columns: address, ifindex, prefix length, scope (00 global, 10 host, 20 link), flags, name.
    while (text.n) {
        struct str line = str_trim(str_split(&text, '\n'));
        str_split(&line, ' ');
        str_split(&line, ' ');
        str_split(&line, ' ');
        struct str scope = str_split(&line, ' ');
        if (str_is(scope, "10") || str_is(scope, "20") || scope.n != 2) {
            continue;
        }
        // Our own ::6 on lo counts as global for the kernel; it says nothing about the pod.
        if (!str_is(str_trim(str_skip(line, 2)), "lo")) {
            return true;
        }
    }
    return false;
}

static const char *get_env(const char *name)
{
    return getenv(name);
}

void facts_gather(const char *root, struct arena *a, struct facts *ret)
{
    struct facts f = { .get_env = get_env, .uid = geteuid() };
    struct str text = { 0 };
    read_text(root, "/etc/passwd", a, &f.passwd);
    read_text(root, "/etc/group", a, &f.group);
    f.resolv_readable = read_text(root, "/etc/resolv.conf", a, &f.resolv);
    if (read_text(root, "/proc/net/fib_trie", a, &text)) {
        f.have_v4 = facts_scan_fib_trie(text);
    }
    if (read_text(root, "/proc/net/if_inet6", a, &text)) {
        f.v6_stack = true;
        f.have_v6 = facts_scan_if_inet6(text);
    }
    if (read_text(root, "/proc/sys/net/ipv6/conf/lo/disable_ipv6", a, &text)) {
        f.v6_lo_off = str_is(str_trim(str_split(&text, '\n')), "1");
    }
    *ret = f;
}

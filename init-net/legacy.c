// SPDX-License-Identifier: Apache-2.0
#include "init-net/legacy.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

// The kernel gives way to libc where both define the same, but only when libc came first.
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>

#include "init-net/foreign.h"
#include "init-net/ipt_text.h"
#include "lib/base/check.h"
#include "lib/base/mem.h"
#include "lib/base/scope.h"

enum { ENTRIES_MAX = 64 << 20 };

static void note_chain(struct legacy_found *f, struct str name)
{
    const char *owner = foreign_chain_owner(name);
    f->ours = f->ours || ipt_chain_is_ours(name);
    f->ambient = f->ambient || foreign_is_ambient(name);
    for (size_t i = 0; owner && i < f->n_owners; i++) {
        owner = strcmp(f->owners[i], owner) == 0 ? NULL : owner;
    }
    if (owner && f->n_owners < array_len(f->owners)) {
        f->owners[f->n_owners++] = owner;
    }
}

// A chain begins with an entry whose target is ERROR and carries the chain's name (struct xt_error_target).
static void look_at_target(struct legacy_found *f, const char *target, size_t room)
{
    struct xt_error_target t;
    if (room < sizeof(t)) {
        return;
    }
    memcpy(&t, target, sizeof(t));
    if (strncmp(t.target.u.user.name, XT_ERROR_TARGET, sizeof(t.target.u.user.name)) == 0) {
        note_chain(f, str_n(t.errorname, strnlen(t.errorname, sizeof(t.errorname))));
    }
}

// target_offset and next_offset stand at the same place behind the addresses of struct ipt_entry and ip6t_entry, but the
// structures differ in size.
static void walk(struct legacy_found *f, bool v6, const char *entries, size_t size)
{
    size_t head = v6 ? sizeof(struct ip6t_entry) : sizeof(struct ipt_entry);
    size_t at_target = v6 ? offsetof(struct ip6t_entry, target_offset) : offsetof(struct ipt_entry, target_offset);
    size_t at_next = v6 ? offsetof(struct ip6t_entry, next_offset) : offsetof(struct ipt_entry, next_offset);
    for (size_t at = 0; at + head <= size;) {
        uint16_t target, next;
        memcpy(&target, entries + at + at_target, 2);
        memcpy(&next, entries + at + at_next, 2);
        if (next < head || next > size - at || target > next) {
            return;
        }
        look_at_target(f, entries + at + target, (size_t)next - target);
        at += next;
    }
}

static void read_table(struct legacy_found *f, bool v6, const char *table)
{
    scope_close int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;
    struct ipt_getinfo info = { 0 }; // same layout and number for both families
    socklen_t n = sizeof(info);
    snprintf(info.name, sizeof(info.name), "%.31s", table);
    if (fd < 0 || getsockopt(fd, level, IPT_SO_GET_INFO, &info, &n) < 0 || info.size > ENTRIES_MAX) {
        return;
    }
    size_t head = offsetof(struct ipt_get_entries, entrytable);
    scope_free char *buf = mem_zalloc(head + info.size);
    struct ipt_get_entries *get = (struct ipt_get_entries *)buf;
    memcpy(get->name, info.name, sizeof(info.name));
    get->size = info.size;
    n = (socklen_t)(head + info.size);
    if (getsockopt(fd, level, IPT_SO_GET_ENTRIES, buf, &n) == 0) {
        walk(f, v6, buf + head, info.size);
    }
}

// In an ambient mesh none of Istio's chains is istio-iptables'; one owner may then stand there twice.
static void settle_owners(struct legacy_found *f)
{
    for (size_t i = 0; i < f->n_owners; i++) {
        f->owners[i] = foreign_settle(f->owners[i], f->ambient);
    }
}

void legacy_scan(struct legacy_found *ret)
{
    static const char *const files[] = { "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names" };
    *ret = (struct legacy_found){ 0 };
    for (int v6 = 0; v6 < 2; v6++) {
        char line[64];
        scope_fclose FILE *f = fopen(files[v6], "re");
        ret->hidden = ret->hidden || (!f && errno == EACCES);
        while (f && fgets(line, sizeof(line), f)) {
            line[strcspn(line, "\n")] = '\0';
            bool nat = strcmp(line, "nat") == 0;
            ret->nat_in_use = ret->nat_in_use || nat;
            if (nat || strcmp(line, "mangle") == 0 || strcmp(line, "raw") == 0) {
                read_table(ret, v6, line);
            }
        }
    }
    settle_owners(ret);
}

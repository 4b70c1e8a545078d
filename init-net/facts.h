// SPDX-License-Identifier: Apache-2.0
// What the options need to know about the place they run in. Gathered from files only: no socket is opened, so a dry run
// works without privileges. Tests fill it by hand.
#ifndef INIT_NET_FACTS_H
#define INIT_NET_FACTS_H

#include "lib/base/arena.h"

struct facts {
    const char *(*get_env)(const char *name); // NULL when unset
    struct str passwd;                        // text of /etc/passwd, empty when unreadable
    struct str group;                         // text of /etc/group
    bool resolv_readable;
    struct str resolv; // text of /etc/resolv.conf
    bool have_v4;      // an IPv4 address beyond loopback and link-local (169.254.0.0/16)
    bool have_v6;      // an IPv6 address beyond ::1 and fe80::/10
    bool v6_stack;     // the kernel has IPv6 at all
    bool v6_lo_off;    // net.ipv6.conf.lo.disable_ipv6 is 1
    uint32_t uid;      // effective uid of the caller
};

// Reads files below root ("" for the real ones; tests give a directory). Texts live in the arena. Files that are
// missing leave their fact empty.
void facts_gather(const char *root, struct arena *a, struct facts *ret);
// True when a text of /proc/net/fib_trie holds a local IPv4 address as have_v4 wants it.
bool facts_scan_fib_trie(struct str text);
// True when a text of /proc/net/if_inet6 holds an address as have_v6 wants it.
bool facts_scan_if_inet6(struct str text);

#endif

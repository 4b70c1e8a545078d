// SPDX-License-Identifier: Apache-2.0
#include "init-net/adopt.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack_tcp.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "init-net/nl.h"
#include "lib/base/check.h"
#include "lib/base/mem.h"
#include "lib/base/scope.h"

// TCP states as sock_diag numbers them (net/tcp_states.h).
enum { STATE_ESTABLISHED = 1, STATE_FIN_WAIT1 = 4, STATE_FIN_WAIT2 = 5, STATE_CLOSE_WAIT = 8, STATE_LAST_ACK = 9 };

enum { ENTRY_TIMEOUT_S = 432000 }; // nf_conntrack_tcp_timeout_established's default

struct connection {
    uint8_t family;
    uint8_t local[16], remote[16];
    uint16_t local_port, remote_port; // network order
};

struct connections {
    struct connection *v; // owned
    size_t n, cap;
};

static void take_mapped(struct connection *c)
{
    static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff }; // RFC 4291 §2.5.5.2
    if (c->family == AF_INET6 && memcmp(c->local, prefix, 12) == 0 && memcmp(c->remote, prefix, 12) == 0) {
        c->family = AF_INET;
        memmove(c->local, c->local + 12, 4);
        memmove(c->remote, c->remote + 12, 4);
    }
}

static int on_socket(const struct nlmsghdr *msg, void *arg)
{
    struct connections *list = arg;
    const struct inet_diag_msg *d = mnl_nlmsg_get_payload(msg);
    if (mnl_nlmsg_get_payload_len(msg) < sizeof(*d) || list->n >= ADOPT_MAX) {
        return MNL_CB_OK;
    }
    struct connection c = { .family = d->idiag_family, .local_port = d->id.idiag_sport,
                            .remote_port = d->id.idiag_dport };
    memcpy(c.local, d->id.idiag_src, 16);
    memcpy(c.remote, d->id.idiag_dst, 16);
    take_mapped(&c);
    mem_grow(&list->v, &list->cap, list->n + 1, sizeof(*list->v));
    list->v[list->n++] = c;
    return MNL_CB_OK;
}

// Are there TCP sockets at all? In an init container there are none, and listing them means a walk over the whole hash
// table of the host. When unsure: yes.
static bool has_sockets(const char *path, const char *name)
{
    char line[256];
    bool none = false;
    size_t n = strlen(name);
    scope_fclose FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        none = none || (strncmp(line, name, n) == 0 && strncmp(line + n, " inuse 0 ", 9) == 0) ||
               (strncmp(line, name, n) == 0 && strcmp(line + n, " inuse 0\n") == 0);
    }
    return !none;
}

static int list_sockets(struct connections *list, struct err *err)
{
    scope_nl struct nl nl = { 0 };
    static const uint8_t families[] = { AF_INET, AF_INET6 };
    int r = nl_open(&nl, NETLINK_SOCK_DIAG, err);
    for (size_t i = 0; i < 2 && r == 0; i++) {
        char buf[256];
        struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);
        msg->nlmsg_type = SOCK_DIAG_BY_FAMILY;
        msg->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
        struct inet_diag_req_v2 *req = mnl_nlmsg_put_extra_header(msg, sizeof(*req));
        req->sdiag_family = families[i];
        req->sdiag_protocol = IPPROTO_TCP;
        req->idiag_states = 1u << STATE_ESTABLISHED | 1u << STATE_FIN_WAIT1 | 1u << STATE_FIN_WAIT2 |
                            1u << STATE_CLOSE_WAIT | 1u << STATE_LAST_ACK;
        r = nl_request(&nl, msg, on_socket, list);
        if (r == -ENOENT && families[i] == AF_INET6) {
            r = 0; // no IPv6 here
        }
        if (r && r != -EINTR) {
            return err_set(err, r, "cannot list open connections: %s", strerror(-r));
        }
        r = 0; // a dump that was disturbed lacks at most what was just made
    }
    return r;
}

static void set_addresses(struct nf_conntrack *ct, const struct connection *c)
{
    if (c->family == AF_INET) {
        nfct_set_attr(ct, ATTR_ORIG_IPV4_SRC, c->local);
        nfct_set_attr(ct, ATTR_ORIG_IPV4_DST, c->remote);
        nfct_set_attr(ct, ATTR_REPL_IPV4_SRC, c->remote);
        nfct_set_attr(ct, ATTR_REPL_IPV4_DST, c->local);
    } else {
        nfct_set_attr(ct, ATTR_ORIG_IPV6_SRC, c->local);
        nfct_set_attr(ct, ATTR_ORIG_IPV6_DST, c->remote);
        nfct_set_attr(ct, ATTR_REPL_IPV6_SRC, c->remote);
        nfct_set_attr(ct, ATTR_REPL_IPV6_DST, c->local);
    }
}

static struct nf_conntrack *make_entry(const struct connection *c)
{
    struct nf_conntrack *ct = nfct_new();
    CHECK(ct);
    nfct_set_attr_u8(ct, ATTR_ORIG_L3PROTO, c->family);
    nfct_set_attr_u8(ct, ATTR_REPL_L3PROTO, c->family);
    nfct_set_attr_u8(ct, ATTR_ORIG_L4PROTO, IPPROTO_TCP);
    nfct_set_attr_u8(ct, ATTR_REPL_L4PROTO, IPPROTO_TCP);
    set_addresses(ct, c);
    nfct_set_attr_u16(ct, ATTR_ORIG_PORT_SRC, c->local_port);
    nfct_set_attr_u16(ct, ATTR_ORIG_PORT_DST, c->remote_port);
    nfct_set_attr_u16(ct, ATTR_REPL_PORT_SRC, c->remote_port);
    nfct_set_attr_u16(ct, ATTR_REPL_PORT_DST, c->local_port);
    nfct_set_attr_u32(ct, ATTR_STATUS, IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED);
    nfct_set_attr_u32(ct, ATTR_TIMEOUT, ENTRY_TIMEOUT_S);
    nfct_set_attr_u8(ct, ATTR_TCP_STATE, TCP_CONNTRACK_ESTABLISHED);
    // The windows are unknown, so the tracking of both sides must be lenient.
    nfct_set_attr_u8(ct, ATTR_TCP_FLAGS_ORIG, IP_CT_TCP_FLAG_BE_LIBERAL);
    nfct_set_attr_u8(ct, ATTR_TCP_MASK_ORIG, IP_CT_TCP_FLAG_BE_LIBERAL);
    nfct_set_attr_u8(ct, ATTR_TCP_FLAGS_REPL, IP_CT_TCP_FLAG_BE_LIBERAL);
    nfct_set_attr_u8(ct, ATTR_TCP_MASK_REPL, IP_CT_TCP_FLAG_BE_LIBERAL);
    return ct;
}

// One entry; 0, -EEXIST when conntrack knows the connection already, or another errno.
static int add_entry(struct nl *nl, const struct connection *c)
{
    char buf[2048];
    struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);
    msg->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW;
    msg->nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
    struct nfgenmsg *nfg = mnl_nlmsg_put_extra_header(msg, sizeof(*nfg));
    nfg->nfgen_family = c->family;
    nfg->version = NFNETLINK_V0;
    struct nf_conntrack *ct = make_entry(c);
    int r = nfct_nlmsg_build(msg, ct) < 0 ? -EINVAL : 0;
    nfct_destroy(ct);
    return r ? r : nl_request(nl, msg, NULL, NULL);
}

int adopt_connections(size_t *ret_adopted, struct err *err)
{
    struct connections list = { 0 };
    scope_nl struct nl nl = { 0 };
    size_t adopted = 0;
    if (!has_sockets("/proc/net/sockstat", "TCP:") && !has_sockets("/proc/net/sockstat6", "TCP6:")) {
        *ret_adopted = 0;
        return 0;
    }
    int r = list_sockets(&list, err);
    if (r == 0 && list.n) {
        r = nl_open(&nl, NETLINK_NETFILTER, err);
    }
    for (size_t i = 0; i < list.n && r == 0; i++) {
        int code = add_entry(&nl, &list.v[i]);
        adopted += code == 0;
        if (code && code != -EEXIST) {
            r = err_set(err, code, "cannot make conntrack entries: %s", strerror(-code));
        }
    }
    free(list.v);
    if (r == 0) {
        *ret_adopted = adopted;
    }
    return r;
}

// SPDX-License-Identifier: Apache-2.0
#include "init-net/adopt.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/sock_diag.h>
#include <stdbool.h>
#include <string.h>

#include "init-net/nl.h"
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
        r = 0; // a dump that was disturbed has nearly all; what is missing was just made
    }
    return r;
}

static void put_tuple(struct nlmsghdr *msg, uint16_t type, const struct connection *c, bool reply)
{
    bool v4 = c->family == AF_INET;
    const uint8_t *src = reply ? c->remote : c->local, *dst = reply ? c->local : c->remote;
    struct nlattr *tuple = mnl_attr_nest_start(msg, type);
    struct nlattr *ip = mnl_attr_nest_start(msg, CTA_TUPLE_IP);
    mnl_attr_put(msg, v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, v4 ? 4 : 16, src);
    mnl_attr_put(msg, v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, v4 ? 4 : 16, dst);
    mnl_attr_nest_end(msg, ip);
    struct nlattr *proto = mnl_attr_nest_start(msg, CTA_TUPLE_PROTO);
    mnl_attr_put_u8(msg, CTA_PROTO_NUM, IPPROTO_TCP);
    mnl_attr_put_u16(msg, CTA_PROTO_SRC_PORT, reply ? c->remote_port : c->local_port);
    mnl_attr_put_u16(msg, CTA_PROTO_DST_PORT, reply ? c->local_port : c->remote_port);
    mnl_attr_nest_end(msg, proto);
    mnl_attr_nest_end(msg, tuple);
}

// One entry; 0, -EEXIST when conntrack knows the connection already, or another errno.
static int add_entry(struct nl *nl, const struct connection *c)
{
    char buf[1024];
    // The windows are unknown, so the tracking of both sides must be lenient.
    static const struct nf_ct_tcp_flags liberal = { .flags = IP_CT_TCP_FLAG_BE_LIBERAL,
                                                    .mask = IP_CT_TCP_FLAG_BE_LIBERAL };
    struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);
    msg->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW;
    msg->nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
    struct nfgenmsg *nfg = mnl_nlmsg_put_extra_header(msg, sizeof(*nfg));
    nfg->nfgen_family = c->family;
    nfg->version = NFNETLINK_V0;
    put_tuple(msg, CTA_TUPLE_ORIG, c, false);
    put_tuple(msg, CTA_TUPLE_REPLY, c, true);
    mnl_attr_put_u32(msg, CTA_STATUS, htonl(IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED));
    mnl_attr_put_u32(msg, CTA_TIMEOUT, htonl(ENTRY_TIMEOUT_S));
    struct nlattr *info = mnl_attr_nest_start(msg, CTA_PROTOINFO);
    struct nlattr *tcp = mnl_attr_nest_start(msg, CTA_PROTOINFO_TCP);
    mnl_attr_put_u8(msg, CTA_PROTOINFO_TCP_STATE, TCP_CONNTRACK_ESTABLISHED);
    mnl_attr_put(msg, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, sizeof(liberal), &liberal);
    mnl_attr_put(msg, CTA_PROTOINFO_TCP_FLAGS_REPLY, sizeof(liberal), &liberal);
    mnl_attr_nest_end(msg, tcp);
    mnl_attr_nest_end(msg, info);
    return nl_request(nl, msg, NULL, NULL);
}

int adopt_connections(size_t *ret_adopted, struct err *err)
{
    struct connections list = { 0 };
    scope_nl struct nl nl = { 0 };
    size_t adopted = 0;
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

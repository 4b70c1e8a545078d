// SPDX-License-Identifier: Apache-2.0
#include "init-net/nl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/base/scope.h"

int nl_open(struct nl *nl, int bus, struct err *err)
{
    *nl = (struct nl){ 0 };
    struct mnl_socket *s = mnl_socket_open2(bus, SOCK_CLOEXEC);
    if (!s || mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) < 0) {
        int e = errno;
        if (s) {
            mnl_socket_close(s);
        }
        return err_set(err, -e, "cannot open a netlink socket: %s%s", strerror(e),
                       e == EPROTONOSUPPORT ? " (the kernel lacks this netlink family)" : "");
    }
    // Extended error texts; kernels without them ignore the wish.
    int on = 1;
    mnl_socket_setsockopt(s, NETLINK_EXT_ACK, &on, sizeof(on));
    nl->s = s;
    nl->seq = 1;
    return 0;
}

void nl_close(struct nl *nl)
{
    if (nl->s) {
        mnl_socket_close(nl->s);
        nl->s = NULL;
    }
}

// Marks of a dump that changed under the reader are taken off, so that the whole of it is read: what an abandoned dump
// leaves in the socket would stand before the answer to the next request, which the kernel refuses as long as it is not
// over (netlink(7), NLM_F_DUMP_INTR). Returns whether there was one.
static bool take_disturbed(char *buf, size_t n)
{
    bool disturbed = false;
    int left = (int)n;
    for (struct nlmsghdr *m = (void *)buf; mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left)) {
        disturbed = disturbed || (m->nlmsg_flags & NLM_F_DUMP_INTR);
        m->nlmsg_flags &= (uint16_t)~NLM_F_DUMP_INTR;
    }
    return disturbed;
}

int nl_request(struct nl *nl, struct nlmsghdr *msg, mnl_cb_t cb, void *arg)
{
    unsigned port = mnl_socket_get_portid(nl->s);
    uint32_t seq = ++nl->seq;
    msg->nlmsg_seq = seq;
    if (mnl_socket_sendto(nl->s, msg, msg->nlmsg_len) < 0) {
        return -errno;
    }
    scope_free char *buf = mem_alloc(NL_MSG_MAX);
    bool disturbed = false;
    for (;;) {
        ssize_t n = mnl_socket_recvfrom(nl->s, buf, NL_MSG_MAX);
        if (n < 0) {
            return -errno;
        }
        disturbed = take_disturbed(buf, (size_t)n) || disturbed;
        int r = mnl_cb_run(buf, (size_t)n, seq, port, cb, arg);
        if (r < 0) {
            return -errno;
        }
        if (r == MNL_CB_STOP) {
            return disturbed ? -EINTR : 0;
        }
    }
}

bool nl_again(int code, uint64_t *until_ms)
{
    enum { PATIENCE_MS = 5000, WAIT_NS = 1000000 };
    uint64_t now = clock_mono_ms();
    *until_ms = *until_ms ? *until_ms : now + PATIENCE_MS;
    if (code != -EINTR || now >= *until_ms) {
        return false;
    }
    nanosleep(&(struct timespec){ .tv_nsec = WAIT_NS }, NULL);
    return true;
}

// SPDX-License-Identifier: Apache-2.0
// doctor: what remora-init needs from the kernel and from its container, and what to do where it is missing.
// Features are tried by sending rules that use them to the kernel, which checks and forgets them.
#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <linux/capability.h>
#include <netinet/in.h> // before what includes linux/in.h
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdio.h>
#include <stdlib.h>

#include "init-net/commands.h"
#include "init-net/foreign.h"
#include "init-net/install.h"
#include "init-net/nft_batch.h"
#include "init-net/nft_state.h"
#include "init-net/plan.h"
#include "init-net/report.h"
#include "lib/base/check.h"
#include "lib/base/clock.h"

struct finding {
    const char *what;
    enum { GOOD, MISSING, NOTE } state;
    char text[256];
};

struct doctor {
    struct options *o;
    const struct facts *facts;
    struct finding v[24];
    size_t n;
};

__attribute__((format(printf, 4, 5))) static void find(struct doctor *d, const char *what, int state, const char *fmt, ...)
{
    if (d->n == array_len(d->v)) {
        return;
    }
    struct finding *f = &d->v[d->n++];
    f->what = what;
    f->state = state;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->text, sizeof(f->text), fmt, ap);
    va_end(ap);
}

// A line "Name:\tvalue" of /proc/self/status.
static bool status_value(const char *name, char *ret, size_t n)
{
    char line[256];
    size_t len = strlen(name);
    bool found = false;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && !found && fgets(line, sizeof(line), f)) {
        if (strncmp(line, name, len) == 0 && line[len] == ':') {
            struct str v = str_trim(str_c(line + len + 1));
            snprintf(ret, n, "%.*s", v.n && v.p[v.n - 1] == '\n' ? (int)v.n - 1 : (int)v.n, v.p);
            found = true;
        }
    }
    if (f) {
        fclose(f);
    }
    return found;
}

static void look_at_process(struct doctor *d)
{
    char value[64];
    if (status_value("CapEff", value, sizeof(value))) {
        bool has = (strtoull(value, NULL, 16) >> CAP_NET_ADMIN) & 1;
        find(d, "CAP_NET_ADMIN", has ? GOOD : MISSING, "%s",
             has ? "held" : "not held: add it to the container's securityContext.capabilities");
    }
    if (status_value("Seccomp", value, sizeof(value)) && strcmp(value, "0") != 0) {
        find(d, "seccomp", NOTE, "a filter is active (mode %s); it must allow socket(AF_NETLINK)", value);
    }
    FILE *f = fopen("/proc/self/uid_map", "re");
    unsigned long long inside = 0, outside = 0, count = 0;
    if (f) {
        if (fscanf(f, "%llu %llu %llu", &inside, &outside, &count) == 3 && (outside || count < UINT32_MAX)) {
            find(d, "user namespace", NOTE, "users are mapped (%llu is %llu outside); nftables takes the numbers of the "
                 "namespace that owns the network", inside, outside);
        }
        fclose(f);
    }
}

// Would the kernel take the rules that these flags make?
static void try_rules(struct doctor *d, struct nl *nl, const char *what, const char *flags, const char *advice)
{
    char *argv[16] = { 0 };
    int argc = 0;
    struct facts facts = *d->facts;
    struct options o;
    struct plan p;
    struct err err;
    struct str rest = str_c(flags);
    facts.have_v4 = facts.v6_stack = facts.resolv_readable = true;
    facts.v6_lo_off = false;
    while (rest.n && argc < 15) {
        argv[argc++] = (char *)arena_str(d->o->arena, str_split(&rest, ' ')).p;
    }
    if (options_parse(argc, argv, &facts, d->o->arena, &o, &err)) {
        find(d, what, MISSING, "%.250s", err.msg);
        return;
    }
    plan_build(&o, d->o->arena, &p);
    plan_set_layout(&p, o.backend == BACKEND_NFT_IP ? PLAN_IP : PLAN_INET);
    int r = nft_apply(nl, &p, 0, NFT_VALIDATE, NULL, (int64_t)clock_mono_ms() + 2000, &err);
    if (r) {
        find(d, what, MISSING, "%s (%s)", advice, nft_hint(r));
    } else {
        find(d, what, GOOD, "the kernel takes it");
    }
}

// A nat chain of somebody else that is asked before ours, or as it happens (equal priority: the one loaded last).
static int on_base_chain(const struct nlmsghdr *msg, void *arg)
{
    struct doctor *d = arg;
    struct nftnl_chain *c = nftnl_chain_alloc();
    CHECK(c);
    if (nftnl_chain_nlmsg_parse(msg, c) == 0 && nftnl_chain_is_set(c, NFTNL_CHAIN_HOOKNUM) &&
        nftnl_chain_is_set(c, NFTNL_CHAIN_TYPE) && strcmp(nftnl_chain_get_str(c, NFTNL_CHAIN_TYPE), "nat") == 0) {
        const char *table = nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE);
        uint32_t hook = nftnl_chain_get_u32(c, NFTNL_CHAIN_HOOKNUM);
        int32_t priority = nftnl_chain_get_s32(c, NFTNL_CHAIN_PRIO);
        int32_t ours = -100 + (int32_t)d->o->nat_priority_offset;
        if (strcmp(table, PLAN_TABLE) != 0 && priority <= ours && (hook == NF_INET_PRE_ROUTING || hook == NF_INET_LOCAL_OUT)) {
            find(d, "hook", NOTE, "nat chain %s of table %s (priority %d) %s ours (%d): what it redirects does not reach the proxy; "
                 "choose a lower --nat-priority-offset", nftnl_chain_get_str(c, NFTNL_CHAIN_NAME), table, priority,
                 priority < ours ? "comes before" : "comes before or behind, as it happens,", ours);
        }
    }
    nftnl_chain_free(c);
    return MNL_CB_OK;
}

static void look_at_hooks(struct doctor *d, struct nl *nl)
{
    char buf[256];
    struct nlmsghdr *msg = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, NLM_F_DUMP, 0);
    int r = nl_request(nl, msg, on_base_chain, d);
    if (r && r != -EINTR) { // disturbed: seen all the same
        find(d, "hook", NOTE, "the chains of others cannot be listed: %s", strerror(-r));
    }
}

// --established=adopt makes conntrack entries: is the interface for them there?
static void look_at_ctnetlink(struct doctor *d, struct nl *nl)
{
    char buf[256];
    struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);
    msg->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_STATS;
    msg->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    struct nfgenmsg *nfg = mnl_nlmsg_put_extra_header(msg, sizeof(*nfg));
    *nfg = (struct nfgenmsg){ .nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0 };
    int r = nl_request(nl, msg, NULL, NULL);
    find(d, "ctnetlink", r ? NOTE : GOOD, r ? "conntrack entries cannot be made (%s): use --established=syn-only where connections "
         "are open before the rules" : "answers", strerror(-r));
}

static void look_at_kernel(struct doctor *d)
{
    scope_nl struct nl nl = { 0 };
    struct err err;
    struct nft_state s;
    if (nl_open(&nl, NETLINK_NETFILTER, &err)) {
        find(d, "nf_tables", MISSING, "%.250s", err.msg);
        return;
    }
    if (nft_state_read(&nl, d->o->arena, &s, &err)) {
        find(d, "nf_tables", MISSING, "%.250s", err.msg);
        return;
    }
    find(d, "nf_tables", GOOD, "answers; %zu tables in this namespace", s.n_tables);
    try_rules(d, &nl, "redirect", "doctor -i * -b * -d 1,2 --ipv6=on", "inet nat needs Linux 5.2 with nft_redir");
    try_rules(d, &nl, "tproxy", "doctor -m TPROXY -b * --ipv6=on --drop-invalid", "TPROXY mode needs nft_tproxy");
    try_rules(d, &nl, "dns capture", "doctor --redirect-dns --capture-all-dns -i *",
              "DNS capture needs nft_ct with conntrack zones");
    try_rules(d, &nl, "networks", "doctor -i 10.0.0.0/8,192.168.0.0/16 -b *", "lists of networks need interval sets");
    look_at_ctnetlink(d, &nl);
    look_at_hooks(d, &nl);
}

// What carries or could carry the rules, and who else redirects.
static void look_at_backends(struct doctor *d)
{
    scope_install struct install in = { 0 };
    struct err err;
    struct others others;
    int64_t deadline = (int64_t)clock_mono_ms() + 5000;
    if (install_open(&in, d->o, deadline, &err)) {
        return; // said already
    }
    for (int legacy = 0; legacy < 2; legacy++) {
        struct ipt t;
        int r = ipt_open(&t, legacy, d->o->arena, deadline, &err);
        find(d, legacy ? "iptables-legacy" : "iptables-nft", r ? NOTE : GOOD, r ? "%.200s" : "its programs are here%s",
             r ? err.msg : in.nft_there ? "" : " and will be used");
    }
    install_find_others(&in, &others);
    for (size_t i = 0; i < others.n; i++) {
        const struct other *x = &others.v[i];
        find(d, "other redirector", NOTE, "%s has %s in %s; both redirect%s", x->owner, x->what, x->where,
             foreign_is_removable(x->owner) ? "; --takeover removes its rules" : "");
    }
    if (install_find(&in, &err)) {
        find(d, "our rules", NOTE, "%.250s", err.msg);
    } else if (in.backend == BACKEND_AUTO) {
        find(d, "our rules", NOTE, "not there: nothing was applied yet");
    } else {
        find(d, "our rules", GOOD, "by %s%s%s", install_backend_name(in.backend), in.state.comment[0] ? "; " : "",
             in.state.comment);
    }
}

static void look_at_network(struct doctor *d)
{
    const struct facts *f = d->facts;
    find(d, "addresses", f->have_v4 || f->have_v6 ? GOOD : NOTE, "IPv4 %s, IPv6 %s", f->have_v4 ? "yes" : "no",
         f->have_v6 ? "yes" : (f->v6_stack ? "no" : "not in this kernel"));
    if (f->v6_lo_off) {
        find(d, "IPv6 on lo", NOTE, "disabled; for --ipv6=on set net.ipv6.conf.lo.disable_ipv6=0");
    }
}

int cmd_doctor(struct options *o, const struct facts *facts)
{
    static const char *const words[] = { "ok", "missing", "note" };
    struct doctor d = { .o = o, .facts = facts };
    bool bad = false;
    look_at_process(&d);
    look_at_kernel(&d);
    look_at_backends(&d);
    look_at_network(&d);
    struct buf out = { 0 };
    struct json_writer w;
    for (size_t i = 0; i < d.n; i++) {
        bad = bad || d.v[i].state == MISSING;
    }
    if (o->output == OUTPUT_JSON) {
        report_begin(o, &w, &out, bad ? "missing" : "ok");
        jw_key(&w, STR("findings"));
        jw_array(&w);
    }
    for (size_t i = 0; i < d.n; i++) {
        if (o->output == OUTPUT_JSON) {
            jw_object(&w);
            jw_kv(&w, "what", str_c(d.v[i].what));
            jw_kv(&w, "result", str_c(words[d.v[i].state]));
            jw_kv(&w, "text", str_c(d.v[i].text));
            jw_object_end(&w);
        } else {
            buf_printf(&out, "%-8s %-17s %s\n", words[d.v[i].state], d.v[i].what, d.v[i].text);
        }
    }
    if (o->output == OUTPUT_JSON) {
        jw_array_end(&w);
        report_end(o, &w, &out);
    } else {
        report_write(1, &out);
    }
    return bad ? EXIT_APPLY : EXIT_OK;
}

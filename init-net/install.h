// SPDX-License-Identifier: Apache-2.0
// The rules as they stand in a network namespace, whatever put them there: nf_tables directly (one inet table, or ip and
// ip6 tables), iptables-nft or iptables-legacy. Chooses the backend and carries a plan into it.
#ifndef INIT_NET_INSTALL_H
#define INIT_NET_INSTALL_H

#include "init-net/ipt.h"
#include "init-net/legacy.h"
#include "init-net/nft_state.h"

struct install {
    struct options *o; // borrowed
    int64_t deadline_ms;
    struct nl nft;          // owned
    bool nft_there;         // nf_tables answers
    struct err nft_missing; // why not
    struct nft_state state;
    struct legacy_found legacy;
    struct ipt ipt;       // programs of the iptables variant that was looked at last
    int lock;             // owned; -1: not taken, see install_lock in the .c
    enum backend backend; // BACKEND_AUTO until one was chosen or found
};

// Opens the kernel and looks at everything that is there. A kernel without nf_tables is no error; that the
// question could not be asked is one (-EPERM without the capability).
int install_open(struct install *in, struct options *o, int64_t deadline_ms, struct err *err);
void install_close(struct install *in);
static inline void scope_install_(struct install *in)
{
    install_close(in);
}
#define scope_install __attribute__((cleanup(scope_install_)))

// The backends that --backend and --force-iptables-binary allow, best first. Returns how many.
size_t install_candidates(const struct install *in, enum backend ret[4]);
// Prepares the plan for a backend, and for iptables reads what its programs show.
int install_choose(struct install *in, struct plan *p, enum backend b, struct err *err);
// After install_choose: is the plan there exactly, and nothing of ours anywhere else? On false, why says what differs.
bool install_equals(const struct install *in, const struct plan *p, char *why, size_t why_size);
// After install_choose: writes the plan, all of it or nothing. Then removes what is ours in other backends, and with
// --takeover what other redirectors made. A code of nft_is_lacking means that nothing was changed and another backend may
// work.
int install_write(struct install *in, const struct plan *p, struct err *err);
// After install_choose: would it be taken? Changes nothing.
int install_check(struct install *in, const struct plan *p, struct err *err);
// Removes all that is ours in every backend (with --takeover others' rules too). *ret_found: was there anything?
int install_remove(struct install *in, bool *ret_found, struct err *err);
// Where our rules stand: sets in->backend (BACKEND_AUTO: nowhere) and reads iptables' where it is that. -EACCES when they are
// nowhere that we may look, but could be in iptables-legacy.
int install_find(struct install *in, struct err *err);
// Names other redirectors whose rules are there, one warning each; in strict mode the first is an error. With --takeover
// those that can be removed are not mentioned.
int install_warn_foreign(struct install *in, struct err *err);
// Another redirector whose rules are there.
struct other {
    const char *owner, *where; // "linkerd", "iptables-nft"
    char what[128];            // a table or chain, as an example
};
struct others {
    struct other v[16];
    size_t n;
};
void install_find_others(const struct install *in, struct others *ret);
// Is nothing of ours there, in any backend?
bool install_is_empty(const struct install *in);
// Is there anything that --takeover would remove?
bool install_has_removable(const struct install *in);
// "nftables", "nftables-ip", "iptables-nft", "iptables-legacy", "none".
const char *install_backend_name(enum backend b);

#endif

// SPDX-License-Identifier: Apache-2.0
// The command line and environment of istio-iptables, and our own additions, turned into plain values.
// Order of precedence as there: default < variable < second variable < command line.
#ifndef INIT_NET_OPTIONS_H
#define INIT_NET_OPTIONS_H

#include "init-net/facts.h"
#include "init-net/lists.h"
#include "lib/base/buf.h"

enum command {
    CMD_APPLY,
    CMD_CLEANUP,
    CMD_CHECK,
    CMD_VERIFY,
    CMD_EXPLAIN,
    CMD_STATS,
    CMD_DOCTOR,
    CMD_WAIT,
    CMD_HELP,
    CMD_VERSION,
    CMD_COUNT
};

enum intercept_mode { MODE_REDIRECT, MODE_TPROXY };
enum ipv6_mode { IPV6_AUTO, IPV6_ON, IPV6_OFF, IPV6_DROP };
enum dry_run { DRY_NONE, DRY_NFT, DRY_IPTABLES, DRY_JSON };
enum hairpin { HAIRPIN_UID, HAIRPIN_ALL, HAIRPIN_OFF };
enum established { ESTABLISHED_ADOPT, ESTABLISHED_CAPTURE, ESTABLISHED_SYN_ONLY };
enum backend {
    BACKEND_AUTO,            // the first that works: nft, nft-ip, then iptables
    BACKEND_NFT,             // nf_tables: table inet, or on old kernels tables ip and ip6
    BACKEND_NFT_IP,          // nf_tables: tables ip and ip6
    BACKEND_IPTABLES,        // whichever variant is there
    BACKEND_IPTABLES_LEGACY, // iptables-legacy-restore
    BACKEND_IPTABLES_NFT,    // iptables-nft-restore
};
enum output { OUTPUT_TEXT, OUTPUT_JSON };
enum direction { DIR_OUT, DIR_IN };

// Process exit codes, as istio-iptables has them.
enum { EXIT_OK = 0, EXIT_APPLY = 1, EXIT_VALIDATION = 126, EXIT_FLAGS = 255 };

// Numbers that have no flag in istio-iptables either.
enum { DNS_PORT = 15053, TPROXY_SELF_MARK = 1338, DNS_ZONE_PROXY = 1, DNS_ZONE_APP = 2 };

struct mark {
    uint32_t value, mask; // mask 0: not given
};

// The packet of `explain`.
struct packet_options {
    uint32_t dir; // enum direction
    struct str proto, src, dst;
    uint32_t uid, gid, mark;
    struct str iif, oif;
};

struct options {
    enum command command;
    bool istio_call; // called as istio-iptables
    bool compat_istio;
    bool strict;

    uint16_t outbound_port, inbound_port, tunnel_port;
    struct id_list proxy_uids, proxy_gids;
    struct mark proxy_mark;
    enum intercept_mode mode;
    uint32_t tproxy_mark, tproxy_table;

    struct port_list inbound_ports, inbound_exclude; // -b, -d
    struct port_list outbound_ports, outbound_exclude; // -q, -o
    struct cidr_list cidrs, cidrs_exclude;           // -i, -x
    struct name_list exclude_interfaces, kubevirt_interfaces;
    struct id_list groups, groups_exclude;
    struct cidr loopback4, loopback6;

    bool redirect_dns, capture_all_dns; // redirect_dns: after the resolvers were read, so really on
    struct cidr_list resolvers;         // /32 and /128
    bool drop_invalid;
    bool dual_stack;
    uint32_t ipv6; // enum ipv6_mode as asked for
    bool v6;       // decided: rules for IPv6
    bool v6_drop;  // decided: TCP over IPv6 is dropped

    uint32_t dry_run;     // enum dry_run
    struct str dry_run_file;
    uint32_t hairpin;     // enum hairpin
    uint32_t established; // enum established
    bool guard_admin, reject_quic;
    uint32_t output;      // enum output
    bool run_validation, skip_rule_apply, cleanup_only, force_apply, reconcile, native_nftables, cni_mode, takeover;
    uint32_t backend; // enum backend
    struct str force_iptables, netns;
    struct str pretend_missing; // for tests: parts of the kernel that shall count as missing
    uint16_t probe_port;
    uint32_t probe_timeout_ms, timeout_ms;
    uint32_t nat_priority_offset; // added to dstnat/-100, as two's complement
    bool log_json;
    bool log_quiet, log_no_info, log_debug; // errors only; warnings too; everything

    struct packet_options packet;
    bool live; // explain what is in the kernel
    uint16_t wait_port;
    struct str wait_path, wait_host;

    struct arena *arena;    // borrowed; owns all lists
    size_t n_warnings;
    struct str *warnings;   // arena
    size_t cap_warnings;
    uint64_t given[2];      // bit i: flag i was set by variable or command line
};

// Parses. argv[0] decides whether the program was called as istio-iptables. Returns 0, or the exit code to end with
// (EXIT_FLAGS for a bad command line, EXIT_APPLY for a bad value) and the reason in err.
// Values live in the arena, which must outlive *ret. Opens nothing.
int options_parse(int argc, char **argv, const struct facts *facts, struct arena *a, struct options *ret,
                  struct err *err);
// The network namespace asked for (--netns, --network-namespace, NETWORK_NAMESPACE), empty for none. Looked up before
// options_parse, because the facts must be gathered inside it. A bad command line gives none; options_parse will say why.
struct str options_netns(int argc, char **argv, const struct facts *facts, struct arena *a);
// Adds a warning. In strict mode the caller gets -EINVAL with the same words in err, else 0.
__attribute__((format(printf, 3, 4))) int options_warn(struct options *o, struct err *err, const char *fmt, ...);
// Was the flag (long name, or variable name of those that have no flag) set by anyone?
bool options_given(const struct options *o, const char *name);
// Text of the help page, all flags with variable and default, into out.
void options_help(struct buf *out);
// Names of a command ("apply").
const char *options_command_name(enum command c);
// "5s", "300ms", "1m30s" as Go's time.ParseDuration reads them. false when malformed or more than a day.
bool options_duration(struct str text, uint32_t *ret_ms);
// nameserver lines of resolv.conf(5): adds /32 and /128 entries, without duplicates. Entries that are no plain address
// (fe80::1%eth0) are counted in *ret_skipped.
void options_resolvers(struct str text, struct arena *a, struct cidr_list *ret, size_t *ret_skipped);

#endif

# SPDX-License-Identifier: Apache-2.0
"""remora-init's backends: which one is taken, moving from one to another, all or nothing through iptables, and the rules of
other redirectors. Needs root; skips with a reason where a variant of iptables is missing."""

import functools
import json
import os
import shutil
import struct
import subprocess

import pytest

from init_place import (BASE, BINARY, NET, POD, REASON, ask, fresh, place, remora, result, rules,  # noqa: F401
                        sh)

pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

BACKENDS = {"nft": "nftables", "nft-ip": "nftables-ip", "iptables-legacy": "iptables-legacy", "iptables-nft": "iptables-nft"}
FULL = ["-m", "TPROXY", "--dual-stack", "--redirect-dns", "--drop-invalid"]


PROBE = """*raw
-A OUTPUT -p udp --dport 53 -m owner --uid-owner 1 -j CT --zone 2
COMMIT
*mangle
-A PREROUTING -p tcp -m multiport --dports 1,2 -m conntrack --ctstate INVALID -j TPROXY --on-port 1 --tproxy-mark 0x1
-A OUTPUT -m connmark --mark 0x1 -j CONNMARK --restore-mark
COMMIT
*nat
-A OUTPUT -p tcp -m mark ! --mark 0x1 -j REDIRECT --to-ports 1
COMMIT
"""


@functools.cache
def why_not_iptables(variant):
    """Is a variant installed, and does this kernel have what it needs?"""
    for program in (f"iptables-{variant}-restore", f"ip6tables-{variant}-restore"):
        if not shutil.which(program):
            return f"{program} is not installed"
        done = subprocess.run(["unshare", "-n", program], input=PROBE, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{program} does not work here: {done.stderr.strip()}"
    return None


def need(backend):
    reason = why_not_iptables(backend.partition("-")[2]) if backend.startswith("iptables") else None
    if reason:
        pytest.skip(reason)


def iptables(variant, text, v6=False, namespace=POD):
    program = f"{'ip6' if v6 else 'ip'}tables-{variant}-restore"
    subprocess.run(["ip", "netns", "exec", namespace, program, "--noflush"], input=text, text=True, check=True)


def saved(variant, v6=False, namespace=POD):
    program = f"{'ip6' if v6 else 'ip'}tables-{variant}-save"
    text = subprocess.run(["ip", "netns", "exec", namespace, program], capture_output=True, text=True, check=True).stdout
    return [line for line in text.splitlines()
            if line.startswith("-A") or (line.startswith(":") and " ACCEPT " not in line)]


def ours(namespace=POD):
    """In which backends our rules stand."""
    found = set()
    tables = subprocess.run(["ip", "netns", "exec", namespace, "nft", "list", "tables"], capture_output=True, text=True,
                            check=True).stdout.splitlines()
    found |= {"nftables"} if "table inet remora" in tables else set()
    found |= {"nftables-ip"} if "table ip remora" in tables or "table ip6 remora" in tables else set()
    for variant in ("legacy", "nft"):
        for v6 in (False, True):
            if not why_not_iptables(variant) and any("REMORA_" in line for line in saved(variant, v6, namespace)):
                found.add(f"iptables-{variant}")
    return found


@pytest.fixture(autouse=True)
def no_iptables_rules(fresh):  # noqa: F811
    """What a test left in the tables of iptables would be foreign rules for the next one."""
    yield
    empty = "".join(f"*{table}\nCOMMIT\n" for table in ("raw", "mangle", "nat"))
    for variant in ("legacy", "nft"):
        for program in (f"iptables-{variant}", f"ip6tables-{variant}"):
            if not why_not_iptables(variant) and saved(variant, program.startswith("ip6")):
                subprocess.run(["ip", "netns", "exec", POD, f"{program}-restore"], input=empty, text=True, check=True)


def captured():
    assert ask(POD, "tcp", ("8.8.8.8", 443), 1000, 1000)["listener"] == 15001
    assert ask(NET, "tcp", ("10.244.0.5", 8080))["listener"] == 15006
    assert ask(NET, "tcp", ("fd00::5", 8080))["listener"] == 15006


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_again_is_unchanged_and_drift_is_repaired(backend):
    need(backend)
    flags = [*BASE, *FULL, f"--backend={backend}"]
    assert result(flags)["backend"] == BACKENDS[backend]
    for _ in range(2):
        assert result(flags)["result"] == "unchanged"
    captured()
    if backend.startswith("iptables"):
        variant = backend.partition("-")[2]
        before = saved(variant)
        for drift in ("*nat\n-D REMORA_CAPTURE -j REMORA_TO_OUT\nCOMMIT\n", "*mangle\n-I PREROUTING -j ACCEPT\nCOMMIT\n",
                      "*raw\n-A REMORA_OUT -j ACCEPT\nCOMMIT\n"):
            iptables(variant, drift)
            assert result(flags)["result"] == "applied"
            assert result(flags)["result"] == "unchanged"
        iptables(variant, "*mangle\n-D PREROUTING -j ACCEPT\nCOMMIT\n")
        assert saved(variant) == before
    else:
        family = "ip" if backend == "nft-ip" else "inet"
        sh(f"ip netns exec {POD} nft add rule {family} remora outbound counter accept")
        assert result(flags)["result"] == "applied"
        assert result(flags)["result"] == "unchanged"
    assert ours() == {BACKENDS[backend]}


@pytest.mark.parametrize("first, second", [(a, b) for a in BACKENDS for b in BACKENDS if a != b])
def test_from_one_backend_to_another_nothing_stays(first, second):
    need(first)
    need(second)
    result([*BASE, *FULL, f"--backend={first}"])
    assert ours() == {BACKENDS[first]}
    assert result([*BASE, "--ipv6=on", f"--backend={second}"])["result"] == "applied"
    assert ours() == {BACKENDS[second]}
    captured()
    variants = [v for v in ("legacy", "nft") if not why_not_iptables(v)]
    assert not any("TPROXY" in line for v in variants for line in saved(v))
    remora(["cleanup"], check=0)
    assert ours() == set()
    assert "nothing to remove" in remora(["cleanup"], check=0).stderr


def test_a_kernel_without_inet_nat_gets_two_tables():
    missing = {"REMORA_PRETEND_MISSING": "inet"}
    for want in ("applied", "unchanged"):
        done = result([*BASE, *FULL], env=missing)
        assert (done["backend"], done["result"]) == ("nftables-ip", want)
    captured()
    assert "table ip6 remora" in rules() and "table inet" not in rules()
    # A family that is left alone has no table.
    result([*BASE, "--ipv6=off"], env=missing)
    assert ours() == {"nftables-ip"} and "table ip6 remora" not in rules()


def test_a_kernel_without_nf_tables_gets_iptables_legacy():
    need("iptables-legacy")
    missing = {"REMORA_PRETEND_MISSING": "nf_tables"}
    for want in ("applied", "unchanged"):
        done = result([*BASE, *FULL], env=missing)
        assert (done["backend"], done["result"]) == ("iptables-legacy", want)
    captured()
    remora(["check", *BASE], env=missing, check=0)
    remora(["cleanup"], env=missing, check=0)
    assert ours() == set()
    done = remora([*BASE, "--backend=nft"], env=missing, check=1)
    assert "no nf_tables" in done.stderr
    # The usual directories are looked through, too: an init container may have no PATH.
    remora(BASE, prefix=["env", "PATH=/nonexistent"], env=missing, check=0)
    assert ours() == {"iptables-legacy"}


# socket(AF_NETLINK, …, NETLINK_NETFILTER) fails with EPROTONOSUPPORT, as on a kernel without nfnetlink (linux/seccomp.h).
WITHOUT_NFNETLINK = """
import ctypes, os, struct, sys
step = lambda code, jt, jf, k: struct.pack("HBBI", code, jt, jf, k)
load, equal, ret = 0x20, 0x15, 0x06
program = (step(load, 0, 0, 0) + step(equal, 0, 5, %d) + step(load, 0, 0, 16) + step(equal, 0, 3, 16) +
           step(load, 0, 0, 32) + step(equal, 0, 1, 12) + step(ret, 0, 0, 0x00050000 | 93) + step(ret, 0, 0, 0x7fff0000))
buf = ctypes.create_string_buffer(program)
fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buf))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(22, 2, ctypes.c_char_p(fprog), 0, 0):
    sys.exit(77)
os.execvp(sys.argv[1], sys.argv[1:])
"""
SYS_SOCKET = {"x86_64": 41, "aarch64": 198}


def test_without_nfnetlink_iptables_legacy_is_taken():
    need("iptables-legacy")
    machine = os.uname().machine
    if machine not in SYS_SOCKET:
        pytest.skip(f"the number of socket(2) on {machine} is not known here")
    prefix = ["python3", "-c", WITHOUT_NFNETLINK % SYS_SOCKET[machine]]
    done = remora([*BASE, *FULL, "--output", "json"], prefix=prefix)
    if done.returncode == 77:
        pytest.skip("no seccomp filters here")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["backend"], said["result"]) == ("iptables-legacy", "applied")
    captured()
    assert json.loads(remora([*BASE, *FULL, "--output", "json"], prefix=prefix, check=0).stdout)["result"] == "unchanged"
    remora(["verify", *BASE, *FULL], prefix=prefix, check=0)
    remora(["stats"], prefix=prefix, check=0)
    done = remora(["doctor"], prefix=prefix)
    assert "nf_tables" in done.stdout
    remora(["cleanup"], prefix=prefix, check=0)
    assert ours() == set()


def test_the_binary_that_istio_forces_is_used():
    for variant in ("legacy", "nft"):
        need(f"iptables-{variant}")
        done = result(["istio-iptables", *BASE, f"--force-iptables-binary={variant}"])
        assert done["backend"] == f"iptables-{variant}"


@pytest.fixture
def bin_dir(tmp_path):
    """A directory of our own for programs in front of PATH."""
    return tmp_path


@pytest.mark.parametrize("variant", ["legacy", "nft"])
@pytest.mark.parametrize("before", ["nothing", "rules"])
def test_a_table_that_is_refused_takes_the_others_back(bin_dir, variant, before):
    need(f"iptables-{variant}")
    backend = f"--backend=iptables-{variant}"
    if before == "rules":
        result([*BASE, "--redirect-dns", backend])
    there = (saved(variant), saved(variant, True), ours())
    addresses = subprocess.run(["ip", "-n", POD, "-6", "addr", "show", "lo"], capture_output=True, text=True, check=True).stdout
    real = shutil.which(f"iptables-{variant}-restore")
    fake = bin_dir / f"iptables-{variant}-restore"
    # raw and mangle go in, then nat has a rule that no kernel takes: only the once, so that putting back works.
    fake.write_text(f"""#!/bin/sh
if [ -e {bin_dir}/done ]; then exec {real} "$@"; fi
: > {bin_dir}/done
sed 's/-j REDIRECT --to-ports 15053/-j NOSUCHTARGET/' | {real} "$@"
""")
    fake.chmod(0o755)
    env = {"PATH": f"{bin_dir}:{os.environ['PATH']}"}
    done = remora([*BASE, *FULL, backend, "-d", "7777"], env=env, check=1)
    assert (bin_dir / "done").exists()
    assert "NOSUCHTARGET" in done.stderr or "DNS to the proxy's resolver" in done.stderr
    now = (saved(variant), saved(variant, True), ours())
    assert [sorted(x) for x in now] == [sorted(x) for x in there]
    assert addresses == subprocess.run(["ip", "-n", POD, "-6", "addr", "show", "lo"], capture_output=True, text=True,
                                       check=True).stdout
    if before == "rules":
        assert result([*BASE, "--redirect-dns", backend])["result"] == "unchanged"


def fake_program(folder, name, text):
    """A program in front of PATH."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_kernel_without_ip6tables_gets_rules_for_ipv4(bin_dir):
    need("iptables-legacy")
    env = fake_program(bin_dir, "ip6tables-legacy-save", "exit 1")
    flags = [*BASE, "--backend=iptables-legacy"]
    remora([*flags, "--ipv6=off"], env=env, check=0)
    assert ours() == {"iptables-legacy"}
    before = saved("legacy")
    done = remora([*flags, "--ipv6=on"], env=env, check=1)
    assert "--ipv6=off" in done.stderr and saved("legacy") == before


def test_a_program_that_does_not_end_is_ended(bin_dir):
    need("iptables-legacy")
    env = fake_program(bin_dir, "iptables-legacy-restore", f"""if [ -e {bin_dir}/done ]; then
exec {shutil.which("iptables-legacy-restore")} "$@"; fi
: > {bin_dir}/done
exec sleep 60""")
    done = remora([*BASE, "--backend=iptables-legacy", "--timeout=2s"], env=env, check=1)
    assert "did not end in time" in done.stderr and ours() == set()


def test_dry_run_shows_what_the_backend_would_get():
    for backend, words in (("nft", "table inet remora"), ("nft-ip", "table ip remora"), ("iptables-nft", "*nat"),
                           ("iptables-legacy", ":REMORA_PRE")):
        assert words in remora([*BASE, "-n", f"--backend={backend}"], check=0).stdout
    text = remora([*BASE, *FULL, "-n", "--backend=nft-ip"], check=0).stdout
    subprocess.run(["ip", "netns", "exec", POD, "nft", "-f", "-"], input=text, text=True, check=True)
    sh(f"ip netns exec {POD} nft delete table ip remora")
    sh(f"ip netns exec {POD} nft delete table ip6 remora")


# --- others ---

ISTIO = """*mangle
:ISTIO_INBOUND - [0:0]
:ISTIO_DIVERT - [0:0]
:ISTIO_TPROXY - [0:0]
-A PREROUTING -i net1 -j RETURN
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A PREROUTING -p tcp -m mark --mark 0x539 -j CONNMARK --save-mark
-A OUTPUT -o net1 -j RETURN
-A OUTPUT -o lo -p tcp -m mark --mark 0x539 -j RETURN
-A OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m owner --uid-owner 1337 -j MARK --set-mark 1338
-A OUTPUT -m connmark --mark 0x539 -j CONNMARK --restore-mark
-A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY
-A ISTIO_DIVERT -j MARK --set-mark 1337
-A ISTIO_DIVERT -j ACCEPT
-A ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp -j TPROXY --on-port 15006 --tproxy-mark 0x539/0xffffffff
COMMIT
*nat
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
COMMIT
*raw
:ISTIO_OUTPUT_DNS - [0:0]
-A OUTPUT -j ISTIO_OUTPUT_DNS
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --uid-owner 1337 -j CT --zone 1
COMMIT
"""
LINKERD = """*nat
:PROXY_INIT_REDIRECT - [0:0]
:PROXY_INIT_OUTPUT - [0:0]
-A PREROUTING -m comment --comment "proxy-init/install-proxy-init-prerouting" -j PROXY_INIT_REDIRECT
-A OUTPUT -m comment --comment "proxy-init/install-proxy-init-output" -j PROXY_INIT_OUTPUT
-A PROXY_INIT_REDIRECT -p tcp -m comment --comment "proxy-init/redirect-all" -j REDIRECT --to-ports 4143
-A PROXY_INIT_OUTPUT -m owner --uid-owner 2102 -j RETURN
-A PROXY_INIT_OUTPUT -p tcp -j REDIRECT --to-ports 4140
COMMIT
"""
CONSUL = """*nat
:CONSUL_PROXY_INBOUND - [0:0]
:CONSUL_PROXY_IN_REDIRECT - [0:0]
:CONSUL_PROXY_OUTPUT - [0:0]
:CONSUL_PROXY_REDIRECT - [0:0]
:CONSUL_DNS_REDIRECT - [0:0]
-A CONSUL_PROXY_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A CONSUL_PROXY_OUTPUT -j CONSUL_PROXY_REDIRECT
-A CONSUL_PROXY_IN_REDIRECT -p tcp -j REDIRECT --to-ports 20000
-A CONSUL_PROXY_INBOUND -p tcp -j CONSUL_PROXY_IN_REDIRECT
-A OUTPUT -p tcp -j CONSUL_PROXY_OUTPUT
-A PREROUTING -p tcp -j CONSUL_PROXY_INBOUND
-A OUTPUT -p udp --dport 53 -j CONSUL_DNS_REDIRECT
COMMIT
"""
AMBIENT = """*nat
:ISTIO_OUTPUT - [0:0]
:ISTIO_PRERT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_PRERT -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
COMMIT
*mangle
:ISTIO_OUTPUT - [0:0]
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark
COMMIT
"""
OTHERS = {"istio-iptables": ISTIO, "linkerd": LINKERD, "Consul": CONSUL}
BYSTANDER = """*nat
:CNI-X - [0:0]
-A PREROUTING -p tcp --dport 4444 -j CNI-X
-A CNI-X -j RETURN
COMMIT
*mangle
-A OUTPUT -j MARK --set-mark 9
COMMIT
"""


@pytest.mark.parametrize("owner, variant, backend", [
    ("istio-iptables", "legacy", "nft"), ("istio-iptables", "nft", "nft"), ("istio-iptables", "legacy", "iptables-legacy"),
    ("istio-iptables", "nft", "iptables-nft"), ("istio-iptables", "legacy", "iptables-nft"),
    ("istio-iptables", "nft", "iptables-legacy"), ("linkerd", "legacy", "nft"), ("linkerd", "nft", "nft-ip"),
    ("Consul", "nft", "nft"), ("Consul", "legacy", "iptables-legacy")])
def test_rules_of_others_are_named_and_taken_over(owner, variant, backend):
    need(f"iptables-{variant}")
    need(backend)
    iptables(variant, BYSTANDER)
    alone = saved(variant)
    iptables(variant, OTHERS[owner])
    both = saved(variant)
    flags = [*BASE, f"--backend={backend}", "--ipv6=off"]
    done = remora([*flags, "--strict"], check=1)
    assert owner in done.stderr and "--takeover" in done.stderr
    assert ours() == set() and saved(variant) == both
    done = remora(flags, check=0)
    assert f"{owner} has rules here" in done.stderr and f"iptables-{variant}" in done.stderr
    assert [line for line in both if line not in saved(variant)] == []
    done = result([*flags, "--takeover"])
    left = [line for line in saved(variant) if "REMORA_" not in line]
    assert left == alone
    assert ask(POD, "tcp", ("8.8.8.8", 443), 1000, 1000)["listener"] == 15001
    assert result([*flags, "--takeover"])["result"] == "unchanged"


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_an_ambient_mesh_is_named_and_never_taken_over(variant):
    """Its chains bear names of istio-iptables, but the pod needs them."""
    need(f"iptables-{variant}")
    iptables(variant, AMBIENT)
    before = saved(variant)
    done = remora([*BASE, "--takeover"], check=0)
    assert "Istio ambient has rules here" in done.stderr and "istio-iptables" not in done.stderr
    assert saved(variant) == before
    remora(["cleanup", "--takeover"], check=0)
    assert saved(variant) == before


def test_tables_of_consul_are_taken_over():
    sh(f"ip netns exec {POD} nft add table inet consul_tproxy")
    assert "Consul has rules here (table consul_tproxy in nftables)" in remora(BASE, check=0).stderr
    remora([*BASE, "--takeover"], check=0)
    assert "consul_tproxy" not in rules()


def test_cleanup_takes_others_only_when_told():
    need("iptables-nft")
    iptables("nft", LINKERD)
    result([*BASE, "--backend=iptables-nft"])
    said = {f["what"]: f["text"] for f in result(["doctor"])["findings"]}
    assert "linkerd" in said["other redirector"] and "--takeover" in said["other redirector"]
    assert "by iptables-nft" in said["our rules"] and "programs are here" in said["iptables-nft"]
    remora(["cleanup"], check=0)
    assert any("PROXY_INIT" in line for line in saved("nft"))
    remora(["cleanup", "--takeover"], check=0)
    assert not any("PROXY_INIT" in line for line in saved("nft"))


def test_stats_and_verify_know_the_backend():
    for backend in BACKENDS:
        need(backend)
        flags = [*BASE, f"--backend={backend}"]
        result(flags)
        ask(POD, "tcp", ("8.8.8.8", 443), 1000, 1000)
        counted = json.loads(remora(["stats", "--output", "json"], check=0).stdout)
        assert counted["backend"] == BACKENDS[backend]
        # iptables keeps no comments; with the flags the meaning is known all the same.
        meant = {r["meaning"]: r["packets"] for r in result(["stats", *flags])["rules"]}
        assert meant["-p: to the proxy's outbound port"] == 1 and meant["-u: traffic of the proxy itself"] == 0
        assert any(r["packets"] == 1 and ("15001" in r["meaning"] or "outbound port" in r["meaning"]) for r in counted["rules"])
        said = json.loads(remora(["verify", *flags, "--output", "json"], check=0).stdout)
        assert {c["name"]: c["result"] for c in said["checks"]}["rules"] == "ok"
        remora(["verify", *BASE, "-d", "1"], check=126)


def fwmark_rules(family):
    out = subprocess.run(["ip", "-n", POD, family, "rule", "show"], capture_output=True, text=True, check=True).stdout
    return [line for line in out.splitlines() if "fwmark" in line]


@pytest.mark.parametrize("mode", ["TPROXY", "REDIRECT"])
def test_routing_rules_of_istio_are_taken_over_too(mode):
    """It adds one more with each run."""
    need("iptables-nft")
    iptables("nft", ISTIO)
    try:
        for family in ("-4", "-6"):
            sh(f"ip -n {POD} {family} route add local default dev lo table 133")
            for _ in range(3):
                subprocess.run(["ip", "-n", POD, family, "rule", "add", "fwmark", "1337", "lookup", "133"], check=False,
                               capture_output=True)
        sh(f"ip -n {POD} rule add fwmark 7 lookup 133")
        assert fwmark_rules("-4") and fwmark_rules("-6")
        flags = [*BASE, "-m", mode, "--ipv6=on", "--takeover"]
        assert result(flags)["result"] == "applied"
        assert result(flags)["result"] == "unchanged"
        captured()
        want = ["proto 114"] if mode == "TPROXY" else []
        for family in ("-4", "-6"):
            assert len([line for line in fwmark_rules(family) if "0x539" in line]) == len(want)
        assert any("fwmark 0x7" in line for line in fwmark_rules("-4"))
    finally:
        sh(f"ip -n {POD} rule del fwmark 7 lookup 133")
        for family in ("-4", "-6"):
            subprocess.run(["ip", "-n", POD, family, "route", "flush", "table", "133"], check=False, capture_output=True)
            for _ in fwmark_rules(family):
                subprocess.run(["ip", "-n", POD, family, "rule", "del", "fwmark", "1337"], check=False, capture_output=True)


LIVE_FLAGS = [
    ["-d", "9000-9100,15020", "-o", "22,8000:8100", "-c", "net+"],
    [*FULL, "-t", "77", "-r", "99", "-k", "vm0", "--proxy-mark", "0x500/0xf00"],
    ["-i", "10.0.0.0/9,10.128.0.0/9,8.8.0.0/16", "-x", "10.96.0.0/13,10.2.3.4/32", "-q", "443,5000-6000", "--dual-stack"],
    ["-u", "1337,1338", "-g", "7,2337", "-b", "80,8000:8100,9090", "--hairpin=all", "--established=syn-only"],
    ["--compat=istio", "-u", "1337,1338", "-g", "7", "--redirect-dns", "--capture-all-dns", "--ipv6=drop"],
]
LIVE_PACKETS = [
    ["--dst", "8.8.8.8:443"], ["--dst", "10.97.1.1:80"], ["--dst", "10.10.1.1:5432", "--gid", "7"], ["--dst", "8.8.8.8:22"],
    ["--dst", "[2001:db8::1]:80"], ["--dst", "10.244.0.5:8080", "--oif", "lo", "--uid", "1338"],
    ["--dst", "10.244.0.5:9090", "--oif", "lo", "--mark", "0x1500"], ["--dst", "10.96.0.10:53", "--proto", "udp"],
    ["--dir", "in", "--dst", "10.244.0.5:9050"], ["--dir", "in", "--dst", "10.244.0.5:80", "--iif", "net1"],
    ["--dir", "in", "--dst", "[fd00::5]:8080"], ["--dir", "in", "--dst", "1.1.1.1:80", "--iif", "vm0"],
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_explain_live_reads_what_the_kernel_has(backend):
    """The rules read back decide as those of the flags do; a flag given to `explain --live` changes nothing."""
    need(backend)
    for number, flags in enumerate(LIVE_FLAGS):
        result([*BASE, *flags, f"--backend={backend}"])
        for packet in LIVE_PACKETS[number % 2::2]:
            def fate(args, packet=packet):
                said = json.loads(remora(["explain", *packet, *args, "--output", "json"], check=0).stdout)
                return said["fate"], said["ct_zone"]
            assert fate(["--live", "-b", "1", "-i", ""]) == fate([*BASE, *flags]), (flags, packet)


def test_explain_live_names_what_it_cannot_read():
    done = remora(["explain", "--live", "--dst", "8.8.8.8:443"], check=1)
    assert "nothing was applied" in done.stderr
    result(BASE)
    sh(f"ip netns exec {POD} nft add rule inet remora outbound ip ttl 7 counter accept")
    done = remora(["explain", "--live", "--dst", "8.8.8.8:443"], check=1)
    assert "chain outbound" in done.stderr and "not one that remora-init writes" in done.stderr
    # Somebody's rule in our words is simply part of what is there.
    result(BASE)
    sh(f"ip netns exec {POD} nft insert rule inet remora outbound tcp dport 443 counter return comment mine")
    said = json.loads(remora(["explain", "--live", "--dst", "8.8.8.8:443", "--output", "json"], check=0).stdout)
    assert said["fate"] == "not touched"


# --- with little privilege ---

ONLY_NET_ADMIN = ["setpriv", "--reuid", "65532", "--regid", "65532", "--clear-groups", "--no-new-privs", "--inh-caps",
                  "-all,+net_admin", "--ambient-caps", "-all,+net_admin", "--bounding-set", "-all,+net_admin"]
ROOT_WITHOUT_THE_REST = ["setpriv", "--no-new-privs", "--bounding-set", "-all,+net_admin,+net_raw", "--inh-caps",
                         "-all,+net_admin,+net_raw"]
READ_ONLY = ["unshare", "-m", "sh", "-c", 'mount -o bind / /mnt && mount -o remount,bind,ro /mnt && mount --rbind /proc /mnt/proc '
             '&& mount -t tmpfs -o ro none /mnt/run && mount -t tmpfs none /mnt/tmp && cp "$0" /mnt/tmp/program '
             '&& exec chroot /mnt "$@"']


@pytest.mark.parametrize("backend", ["nft", "nft-ip", "iptables-nft"])
def test_net_admin_alone_is_enough(backend):
    need(backend)
    flags = [*BASE, *FULL, f"--backend={backend}"]
    assert result(flags, prefix=ONLY_NET_ADMIN)["result"] == "applied"
    captured()
    assert result(flags, prefix=ONLY_NET_ADMIN)["result"] == "unchanged"
    for command in (["check", *flags], ["stats"], ["explain", "--live", "--dst", "8.8.8.8:443"], ["verify", *flags]):
        remora(command, prefix=ONLY_NET_ADMIN, check=0)
    remora(["cleanup"], prefix=ONLY_NET_ADMIN, check=0)
    assert ours() == set()


def test_a_file_capability_is_handed_on_to_iptables_and_nothing_else(tmp_path):
    """Whoever may run the program may not have another one run with its capability."""
    need("iptables-nft")
    program = tmp_path / "remora-init"
    shutil.copy(BINARY, program)
    for folder in (tmp_path, *tmp_path.parents[:2]):  # pytest's own, closed to other users
        folder.chmod(0o755)
    if os.statvfs(tmp_path).f_flag & os.ST_NOSUID:
        pytest.skip(f"{tmp_path} is mounted nosuid: file capabilities do not count there")
    try:
        os.setxattr(program, "security.capability", struct.pack("<5I", 0x02000000, 1 << 12, 0, 0, 0))  # VFS_CAP_REVISION_2
    except OSError as e:
        pytest.skip(f"no file capabilities at {tmp_path}: {e}")
    fake = tmp_path / "iptables-nft-restore"
    fake.write_text("#!/bin/sh\necho FAKE >&2\nexit 1\n")
    fake.chmod(0o755)
    user = ["setpriv", "--reuid", "65532", "--regid", "65532", "--clear-groups", "env", f"PATH={tmp_path}:{os.environ['PATH']}",
            "XTABLES_LIBDIR=/nonexistent"]
    remora([*BASE, "--backend=iptables-nft"], program=str(program), prefix=user, check=0)
    assert ours() == {"iptables-nft"}


def test_iptables_legacy_needs_root_and_says_so():
    need("iptables-legacy")
    done = remora([*BASE, "--backend=iptables-legacy"], prefix=ONLY_NET_ADMIN, check=1)
    assert "user 0" in done.stderr
    # Nor can others see whether there are such rules: no verdict then, and no wrong one.
    said = json.loads(remora(["verify", *BASE, "--output", "json"], prefix=ONLY_NET_ADMIN).stdout)
    assert {c["name"]: c["result"] for c in said["checks"]}["rules"] == "skipped"
    done = remora([*BASE, "--backend=iptables-legacy"], prefix=ROOT_WITHOUT_THE_REST, check=0)
    assert ours() == {"iptables-legacy"}
    without_raw = [word.replace(",+net_raw", "") for word in ROOT_WITHOUT_THE_REST]
    done = remora([*BASE, "-d", "1", "--backend=iptables-legacy"], prefix=without_raw, check=1)
    assert "CAP_NET_RAW" in done.stderr


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_read_only_root_is_enough(backend):
    need(backend)
    probe = subprocess.run([*READ_ONLY, "/bin/true", "sh", "-c", "! touch /run/x 2>/dev/null && ! touch /x 2>/dev/null"],
                           capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("cannot make a read-only root here")
    line = ["nsenter", f"--net=/run/netns/{POD}", *READ_ONLY, BINARY, "/tmp/program", *BASE, *FULL, f"--backend={backend}", "--output",
            "json"]
    for want in ("applied", "unchanged"):
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["result"] == want
    captured()

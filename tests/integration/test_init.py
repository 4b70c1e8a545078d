# SPDX-License-Identifier: Apache-2.0
"""remora-init: every row of tests/golden/init/fates.tsv as a real connection, the evaluator against the kernel on
random flags, through every backend."""

import json
import random
import shutil
import subprocess

import pytest

from init_place import *  # noqa: F403


# --- fates ---

NFT_ONLY = ("--guard-admin", "--reject-quic")
BACKENDS = {"nft": None, "nft-ip": None, "iptables-nft": "iptables-nft-restore", "iptables-legacy": "iptables-legacy-restore"}


def need(backend):
    program = BACKENDS[backend]
    if program and not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    if backend == "iptables-legacy":
        done = subprocess.run(["ip", "netns", "exec", BARE, "iptables-legacy", "-t", "nat", "-L"], capture_output=True,
                              check=False)
        if done.returncode:
            pytest.skip("this kernel has no iptables-legacy")


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_row_of_the_table(backend):
    need(backend)
    groups = {}
    for row in read_table():
        groups.setdefault(row.group(), []).append(row)
    wrong = []
    for (flags, env, resolvers), rows in groups.items():
        done = remora([*BASE, *flags, f"--backend={backend}"], env=dict(env), resolvers=resolvers)
        if backend.startswith("iptables") and any(f in NFT_ONLY for f in flags):
            assert done.returncode == 1 and "need nftables" in done.stderr
            continue
        forget_connections()
        assert done.returncode == 0, (flags, done.stderr)
        for row in rows:
            problem = complaint(row, send(row))
            if problem:
                wrong.append(f"row {row.id} ({' '.join(row.flags)}): {problem}")
    assert not wrong, "\n".join(wrong)


def random_flags(rng):
    flags = list(BASE)
    for choice in (["-m", "TPROXY"], ["--dual-stack"], ["-b", rng.choice(["", "8080", "8000-9000", "8080,9090"])],
                   ["-d", rng.choice(["", "9090", "8080,15020"])], ["-i", rng.choice(["", "10.0.0.0/8", "8.8.8.8/32,fd00::/8"])],
                   ["-x", rng.choice(["8.8.8.8/32", "10.96.0.0/16,1.1.1.1/32"])], ["-q", "443"], ["-o", rng.choice(["80", "53"])],
                   ["-c", rng.choice(["net1", "eth0", "net*"])], ["-k", "vm0"], ["--redirect-dns"], ["--capture-all-dns"],
                   ["--drop-invalid"], ["--hairpin=all"], ["--hairpin=off"], ["-u", "1337,1338"], ["-g", "2337"],
                   ["--compat=istio"], ["-e", "9090"], ["--established=syn-only"]):
        if rng.random() < 0.25:
            flags += choice
    return flags


OUT_TARGETS = [("eth0", "10.96.5.5:80"), ("eth0", "8.8.8.8:443"), ("eth0", "1.1.1.1:80"), ("eth0", "[2001:db8::1]:80"),
               ("eth0", "10.96.0.10:53"), ("net1", "192.168.50.1:80"), ("lo", "10.244.0.5:8080"), ("lo", "10.244.0.5:9090"),
               ("lo", "10.244.0.5:15008"), ("lo", "127.0.0.1:8080"), ("lo", "127.0.0.2:8080"), ("lo", "[fd00::5]:8080"),
               ("lo", "[::1]:8080"), ("lo", "127.0.0.53:53"), ("lo", "127.0.0.1:15000")]
IN_TARGETS = [("eth0", "10.244.0.5:8080"), ("eth0", "10.244.0.5:9090"), ("eth0", "10.244.0.5:15020"),
              ("eth0", "[fd00::5]:8080"), ("net1", "192.168.50.5:8080"), ("vm0", "10.244.0.5:8080"),
              ("eth0", "10.244.0.5:15008")]
UDP_TARGETS = [("eth0", "10.96.0.10:53"), ("eth0", "8.8.8.8:53"), ("lo", "127.0.0.53:53"), ("eth0", "8.8.8.8:443")]


def random_packet(rng):
    direction = rng.choice(["out", "out", "in"])
    proto = "udp" if direction == "out" and rng.random() < 0.2 else "tcp"
    interface, destination = rng.choice(UDP_TARGETS if proto == "udp" else OUT_TARGETS if direction == "out" else IN_TARGETS)
    owner = "-"
    if direction == "out":
        owner = f"{rng.choice([1000, 1337, 1338, 0])}/{rng.choice([1000, 1337, 2337])}"
    return "\t".join(["random", "-", "-", "-", direction, interface, proto, owner, "-", destination, "?"])


@pytest.mark.parametrize("backend, seed", [*(("nft", n) for n in range(20)), *(
    (backend, n) for backend in list(BACKENDS)[1:] for n in range(20, 25))])
def test_evaluator_and_kernel_agree_on_random_flags(backend, seed):
    need(backend)
    rng = random.Random(seed)
    flags = [*random_flags(rng), f"--backend={backend}"]
    if backend.startswith("nft"):
        flags += [f for f in NFT_ONLY if rng.random() < 0.3]
    remora(flags, check=0)
    for _ in range(14):
        row = Row(random_packet(rng))
        host, port = row.destination
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        done = remora(["explain", *flags, "--output", "json", "--dir", row.direction, "--proto", row.proto, "--uid",
                       str(row.uid), "--gid", str(row.gid), "--iif", row.interface, "--oif", row.interface, "--dst",
                       target], check=0)
        said = json.loads(done.stdout)
        word = said["fate"].split(" ")[0]
        row.fate = {"not": "pass", "dropped": "drop", "rejected": "reject"}.get(word, f"{word}:{said.get('port')}")
        problem = complaint(row, send(row))
        assert problem is None, f"{' '.join(flags)}: {target} {row.direction} {row.interface} {row.uid}/{row.gid}: {problem}"


def test_dns_survives_reuse_of_a_source_port():
    remora([*BASE, "--redirect-dns"], check=0)
    port = ("10.244.0.5", 40001)
    assert ask(POD, "udp", ("10.96.0.10", 53), 1337, 1337, source=port)["who"] == "net"
    assert ask(POD, "udp", ("10.96.0.10", 53), 1000, 1000, source=port)["listener"] == 15053
    assert ask(POD, "udp", ("10.96.0.10", 53), 1337, 1337, source=port)["who"] == "net"

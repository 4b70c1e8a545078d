# SPDX-License-Identifier: Apache-2.0
"""make interop-init: the real istio-iptables (tests/interop/istio-iptables, built from its Go module) beside remora-init.

All its backends go through the table of fates with real connections, deviations are listed and must be true; random flags
give the same fates; command lines end with the same exit codes; --takeover removes all of it; and the time that applying takes is shown side by side."""

import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from init_place import *  # noqa: E402,F403
from test_init import random_flags, random_packet  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent / "istio-iptables"
BACKENDS = {"nft": ["--native-nftables"], "iptables-nft": ["--force-iptables-binary", "nft"],
            "iptables-legacy": ["--force-iptables-binary", "legacy"]}
OURS_ALONE = ("--ipv6", "--hairpin", "--proxy-mark", "--established", "--nat-priority-offset", "--strict", "--guard-admin",
              "--reject-quic")


@pytest.fixture(scope="session")
def istio():
    """The program; built once."""
    if not shutil.which("go"):
        pytest.skip("Go is not installed: istio-iptables cannot be built")
    out = pathlib.Path(os.environ.get("ISTIO_IPTABLES", ROOT / "build/interop/istio-iptables"))
    out.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["go", "build", "-o", str(out), "."], cwd=HERE, capture_output=True, text=True, check=False,
                          env={**os.environ, "GOTOOLCHAIN": "local"}, timeout=1200)
    if done.returncode:
        pytest.skip(f"istio-iptables cannot be built from its Go module: {done.stderr.strip().splitlines()[-1]}")
    return str(out)


@pytest.fixture(params=BACKENDS)
def backend(request):
    tool = {"nft": "nft", "iptables-nft": "iptables-nft", "iptables-legacy": "iptables-legacy"}[request.param]
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    wipe()
    if request.param == "iptables-legacy" and in_pod(tool, "-t", "nat", "-L").returncode:
        pytest.skip("this kernel has no iptables-legacy")
    yield request.param
    wipe()


def in_pod(*command):
    return subprocess.run(["ip", "netns", "exec", POD, *command], capture_output=True, text=True, check=False)


def wipe():
    """All rules of the pod's namespace, whoever made them, and the routing that goes with them. (--cleanup-only of
    istio-iptables leaves some of it.)"""
    in_pod("nft", "flush", "ruleset")
    for tool in ("iptables-legacy", "ip6tables-legacy"):
        for table in ("raw", "mangle", "nat"):
            if table in in_pod("cat", f"/proc/net/ip{'6' if '6' in tool else ''}_tables_names").stdout.split():
                in_pod(tool, "-t", table, "-F")
                in_pod(tool, "-t", table, "-X")
    for family in ("-4", "-6"):
        for line in in_pod("ip", family, "rule").stdout.splitlines():
            if "fwmark" in line:
                table = line.split("lookup ")[1].split()[0]
                in_pod("ip", family, "rule", "del", "fwmark", line.split("fwmark ")[1].split()[0], "lookup", table)
                in_pod("ip", family, "route", "flush", "table", table)
    in_pod("ip", "addr", "del", "::6/128", "dev", "lo")
    forget_connections()


def read_deviations(backend):
    kind = "nft" if backend == "nft" else "iptables"
    lines = [line.split("\t") for line in (HERE / "deviations.tsv").read_text().splitlines() if line[:1] not in ("", "#")]
    return {row: fate for row, who, fate, _ in lines if who in ("all", kind)}


def same_flags(flags):
    """--compat=istio asks for what istio-iptables does anyway. None: rows about flags that it does not have."""
    theirs = [f for f in flags if f != "--compat=istio"]
    return None if any(f.startswith(OURS_ALONE) for f in theirs) else theirs


def seen_fate(row, answer):
    if "error" in answer:
        return f"error: {answer['error']}"
    if answer["who"] == owner_of(row.destination[0]) and answer["listener"] == row.destination[1]:
        return "pass"
    return f"{'tproxy' if answer['local'] == list(row.destination) else 'redirect'}:{answer['listener']}"


def test_the_table_of_fates(istio, backend):
    deviations = read_deviations(backend)
    groups, wrong, rows = {}, [], 0
    for row in read_table():
        if same_flags(row.flags) is not None:
            groups.setdefault(row.group(), []).append(row)
    for (flags, env, resolvers), group in groups.items():
        wipe()
        done = remora([*BASE, *same_flags(flags), *BACKENDS[backend]], env=dict(env), resolvers=resolvers, program=istio)
        for row in group:
            rows += 1
            expected = deviations.get(row.id)
            if done.returncode:
                fate = "refused"
            else:
                answer = send(row)
                fate = row.fate if complaint(row, answer) is None else seen_fate(row, answer)
            if fate != (expected or row.fate):
                wrong.append(f"row {row.id} ({' '.join(row.flags)}): {expected or row.fate} expected, {fate} seen"
                             f"{' (' + done.stdout[-200:] + ')' if done.returncode else ''}")
            elif expected == row.fate:
                wrong.append(f"row {row.id}: listed as a deviation, but it is none")
    assert not wrong, "\n".join(wrong)
    assert rows > 200


def known_to_differ(flags, row):
    """What the list of deviations says, in general."""
    tproxy = "TPROXY" in flags
    tunnel = 9090 if "-e" in flags else 15008
    return (tproxy and (row.destination[1] == tunnel or row.interface == "vm0")) or any(f in flags for f in (
        "net*", "8000-9000"))


@pytest.mark.parametrize("seed", range(100, 112))
def test_random_flags_give_the_same_fates(istio, seed):
    """remora-init --compat=istio and istio-iptables with iptables-nft on the same flags and packets."""
    if not shutil.which("iptables-nft"):
        pytest.skip("iptables-nft is not installed")
    rng = random.Random(seed)
    flags = random_flags(rng)
    while same_flags(flags) is None or known_to_differ(flags, Row("-\t-\t-\t-\t-\t-\t-\t-\t-\t0:0\t-")):
        flags = random_flags(rng)
    rows = [row for row in (Row(random_packet(rng)) for _ in range(40)) if not known_to_differ(flags, row)]
    answers = []
    for program, more in ((BINARY, ["--compat=istio"]), (istio, BACKENDS["iptables-nft"])):
        wipe()
        remora([*same_flags(flags), *more], program=program, check=0)
        answers.append([seen_fate(row, send(row)) for row in rows])
    wipe()
    for row, ours, theirs in zip(rows, *answers):
        assert ours == theirs, (f"{' '.join(flags)}: {row.direction} {row.interface} {row.proto} {row.uid}/{row.gid} "
                                f"{row.destination}: {ours} with remora-init, {theirs} with istio-iptables")


# Arguments behind BASE, environment, exit code of istio-iptables, of remora-init, why they differ.
EXITS = [
    ("", {}, 0, 0, ""),
    ("--no-such-flag", {}, 255, 255, ""),
    ("--redirect-dns=maybe", {}, 255, 255, ""),
    ("--probe-timeout soon", {}, 255, 255, ""),
    ("--iptables-probe-port 70000", {}, 255, 255, ""),
    ("-d", {}, 255, 255, ""),
    ("-p abc", {}, 1, 1, ""),
    ("-z 99999", {}, 1, 1, ""),
    ("-d 15020,70000", {}, 1, 1, ""),
    ("-d ,8080,,9090,", {}, 0, 0, ""),
    ("-d http", {}, 0, 1, "service names need the name service database, which ours never reads"),
    ("-i 10.0.0.0", {}, 1, 1, ""),
    ("-i 10.1.2.3/8", {}, 0, 0, ""),
    ("-i *,10.0.0.0/8", {}, 1, 1, ""),
    ("-x *", {}, 1, 1, ""),
    ("-q *", {}, 1, 1, ""),
    ("-c abcdefghijklmnop", {}, 1, 1, ""),
    ("-u nobody", {}, 1, 0, "the group is the user's number, so there is no group 'nobody' to look for"),
    ("-u root", {}, 0, 0, ""),
    ("-m FOO", {}, 0, 0, ""),
    ("positional arguments", {}, 0, 0, ""),
    ("--force-iptables-binary other", {}, 1, 1, ""),
    ("-m TPROXY -t abc", {}, 1, 1, ""),
    ("-t abc", {}, 0, 1, "a number is a number in every mode"),
    ("", {"DROP_INVALID": "yes"}, 0, 0, ""),
    ("", {"PROBE_TIMEOUT": "soon"}, 0, 0, ""),
    ("", {"IPTABLES_PROBE_PORT": "70000"}, 0, 0, ""),
    ("", {"ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "10.0.0.0/8"}, 1, 1, ""),
    ("", {"ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.0.0.1/7"}, 1, 1, ""),
    ("", {"ISTIO_OUTBOUND_OWNER_GROUPS": ",".join(str(i) for i in range(65))}, 1, 1, ""),
    ("", {"ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": ",".join(str(i) for i in range(65))}, 0, 0, ""),
    ("--log_output_level=default:info --log_as_json", {}, 0, 0, ""),
    ("--skip-rule-apply", {}, 0, 0, ""),
]


@pytest.mark.parametrize("line, env, theirs, ours, why", EXITS)
def test_command_lines_end_alike(istio, line, env, theirs, ours, why):
    wipe()
    got = {}
    for name, program, more in (("istio-iptables", istio, BACKENDS["nft"]), ("remora-init", BINARY, [])):
        command = [*BASE, *more, *line.split()]
        got[name] = remora(command if program == istio else ["istio-iptables", *command], env=env, program=program)
        wipe()
    said = {name: (done.stdout + done.stderr)[-300:] for name, done in got.items()}
    assert (got["istio-iptables"].returncode, got["remora-init"].returncode) == (theirs, ours), said
    assert bool(why) == (theirs != ours)


def rules_of_istio():
    """What names it, or is left of what it puts into the built-in chains, and its routing rules."""
    found = []
    for program in ("iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"):
        if shutil.which(f"{program}-save"):
            lines = in_pod(f"{program}-save").stdout.splitlines()
            found += [line for line in lines if line.startswith("-A") and "REMORA" not in line]
    found += [line for line in in_pod("nft", "list", "tables").stdout.splitlines() if "istio" in line]
    for family in ("-4", "-6"):
        lines = in_pod("ip", "-details", family, "rule").stdout.splitlines()
        found += [line for line in lines if "fwmark" in line and "proto 114" not in line]
    return found


@pytest.mark.parametrize("ours", ["nft", "iptables-legacy"])
@pytest.mark.parametrize("mode", ["REDIRECT", "TPROXY"])
def test_what_it_made_is_taken_over(istio, backend, mode, ours):
    """Applied twice (it adds a routing rule each time), with everything it can put in; then ours instead, and nothing of it."""
    flags = [*BASE, "-m", mode, "-c", "net1", "-o", "22", "--redirect-dns", "--drop-invalid", "-k", "vm0", "--dual-stack"]
    for _ in range(2):
        remora([*flags, *BACKENDS[backend]], program=istio, check=0)
    assert rules_of_istio()
    line = [*BASE, "-m", mode, "--dual-stack", f"--backend={ours}"]
    assert "istio-iptables has rules here" in remora(line, check=0).stderr
    assert rules_of_istio()
    remora([*line, "--takeover"], check=0)
    assert rules_of_istio() == []
    assert ask(POD, "tcp", ("8.8.8.8", 443), 1000, 1000)["listener"] == 15001
    assert ask(NET, "tcp", ("10.244.0.5", 8080))["listener"] == 15006


def traces_of_istio():
    """Chains, tables and routing rules that are not ours."""
    text = rules() + "".join(in_pod(f"{ip}tables-legacy-save").stdout for ip in ("ip", "ip6"))
    found = {word for word in text.replace('"', " ").split() if word.startswith(("ISTIO_", "istio-"))}
    for family in ("-4", "-6"):
        found |= {line for line in in_pod("ip", family, "rule").stdout.splitlines() if "fwmark" in line and "proto 114" not in line}
    return found


@pytest.mark.parametrize("flags", [[], ["-m", "TPROXY", "--dual-stack", "--redirect-dns", "--drop-invalid", "-c", "net1", "-k", "vm0"]])
def test_takeover_from_the_real_one(istio, backend, flags):
    for command in (["cleanup"], [*BASE, *flags]):
        wipe()
        remora([*BASE, *flags, *BACKENDS[backend]], program=istio, check=0)
        assert traces_of_istio()
        done = remora([*BASE, *flags, "--strict"], check=1)  # without --takeover: named, and nothing changed
        assert "istio-iptables" in done.stderr and "table inet remora" not in rules()
        remora([*command, "--takeover"], check=0)
        assert traces_of_istio() == set()
    assert ask(POD, "tcp", ("8.8.8.8", 443), 1000, 1000)["listener"] == 15001
    assert ask(NET, "tcp", ("10.244.0.5", 8080))["listener"] == 15006


def run_in_pod(command):
    """Milliseconds that a program takes, from start to end, in a namespace where all modules are loaded."""
    def run():
        null = os.open(os.devnull, os.O_WRONLY)
        start = time.perf_counter()
        pid = os.posix_spawn(command[0], command, {"PATH": os.environ["PATH"]},
                             file_actions=[(os.POSIX_SPAWN_DUP2, null, fd) for fd in (1, 2)])
        _, status = os.waitpid(pid, 0)
        ms = (time.perf_counter() - start) * 1000
        os.close(null)
        return ms, status
    ms, status = inside(POD, run)
    assert status == 0, (command, status)
    return ms


def test_time_to_apply(istio, capsys):
    """Not judged, only shown: at least 20 runs each, the program's whole life."""
    runs = int(os.environ.get("REMORA_INTEROP_RUNS", "20"))
    flags = [*BASE, "--log_output_level=default:none"]
    cases = {"remora-init, first rules": ([BINARY, *flags], wipe, []),
             "remora-init, same again": ([BINARY, *flags], lambda: None, []),
             "remora-init, other rules instead": ([BINARY, *flags], lambda: None, [["-d", "1"], ["-d", "2"]])}
    for name, more in BACKENDS.items():
        if shutil.which("nft" if name == "nft" else name):
            cases[f"istio-iptables, {name}, first rules"] = ([istio, *flags, *more], wipe, [])
    lines = []
    for name, (command, before, variants) in cases.items():
        took = []
        for i in range(runs + 2):
            before()
            took.append(run_in_pod([*command, *(variants[i % 2] if variants else [])]))
        took = sorted(took[2:])  # the first ones load modules and fill caches
        lines.append(f"  {name:46} median {statistics.median(took):7.2f}  least {took[0]:7.2f}  most {took[-1]:7.2f}")
        wipe()
    with capsys.disabled():
        print(f"\n\ntime to apply, ms of the whole program, {runs} runs each in a warm namespace:", *lines, sep="\n")

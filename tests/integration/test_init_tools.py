# SPDX-License-Identifier: Apache-2.0
"""remora-init: dry runs, check, verify, stats, doctor, wait."""

import json
import os
import re
import shutil
import struct
import subprocess
import time

import pytest

from init_place import *  # noqa: F403


@pytest.mark.parametrize("what, line", [("nft", "chain nat_out"), ("iptables", "*nat"), ("json", '"hash"')])
def test_dry_run_needs_no_privileges_and_changes_nothing(what, line):
    done = remora([*BASE, f"--dry-run={what}", "--dual-stack"], prefix=["setpriv", "--reuid", "65532", "--clear-groups",
                                                                         "--bounding-set", "-all"], check=0)
    assert line in done.stdout
    assert trace_of_us() == []


def test_dry_run_text_loads_and_is_what_apply_makes():
    for extra in ([], ["-m", "TPROXY", "--dual-stack", "--redirect-dns", "-x", "10.1.0.0/16,10.2.0.0/16"]):
        text = remora([*BASE, *extra, "-n"], check=0).stdout
        subprocess.run(["ip", "netns", "exec", BARE, "nft", "-f", "-"], input=text, text=True, check=True)
        remora([*BASE, *extra], check=0)

        def chains(namespace):
            body = rules(namespace).split("\tchain ")[1:]
            return sorted(without_counters(c).rstrip("} ") for c in body)

        assert chains(BARE) == chains(POD)
        sh(f"ip netns exec {BARE} nft delete table inet remora")


def test_dry_run_of_a_cleanup_removes_nothing_and_shows_no_rules():
    remora(BASE, check=0)
    done = remora(["istio-iptables", *BASE, "--cleanup-only", "--dry-run"], check=0)
    assert "chain " not in done.stdout and "delete table inet remora" in done.stdout
    assert trace_of_us() == ["table"]


def test_dry_run_opens_no_socket():
    if subprocess.run(["which", "strace"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not installed")
    done = remora([*BASE, "-n"], prefix=["strace", "-f", "-e", "trace=socket"],
                  env={"ASAN_OPTIONS": "detect_leaks=0"}, check=0)
    assert "socket(" not in done.stderr


@pytest.mark.parametrize("command", [["apply"], ["check"], ["cleanup"], ["doctor"]])
def test_only_the_kernel_is_talked_to(command):
    """No name service, no network, no other program; verify and wait are there for connections."""
    if subprocess.run(["which", "strace"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not installed")
    flags = [] if command in (["cleanup"], ["doctor"]) else [*BASE, "--redirect-dns", "-u", "root"]
    done = remora([*command, *flags], prefix=["strace", "-f", "-e", "trace=socket,connect,execve,openat"],
                  env={"ASAN_OPTIONS": "detect_leaks=0"}, check=0)
    calls = [line for line in done.stderr.splitlines() if re.match(r"(\[pid +\d+\] )?(socket|connect|execve)\(", line)]
    assert len([c for c in calls if "execve" in c]) == 1, calls
    assert any("AF_NETLINK" in c for c in calls) and all("AF_NETLINK" in c for c in calls if "execve" not in c), calls
    assert "nsswitch" not in done.stderr and "libnss" not in done.stderr


def test_check_asks_the_kernel_and_commits_nothing():
    remora(["check", *BASE, "--redirect-dns"], check=0)
    assert trace_of_us() == []


def test_what_the_kernel_refuses_is_named_and_nothing_changes():
    result(BASE)
    before, traces = rules(), trace_of_us()
    # nat cannot stand before conntrack (priority -200), which only the kernel knows.
    done = remora([*BASE, "-m", "TPROXY", "--nat-priority-offset=-150"], check=1)
    assert "the kernel refused chain nat_" in done.stderr
    assert rules() == before
    assert trace_of_us() == traces
    assert remora(["check", *BASE, "--nat-priority-offset=-150"]).returncode == 1


# --- verify, adopt, wait, stats, doctor ---

AS_PROXY = ["setpriv", "--reuid", "1337", "--regid", "1337", "--clear-groups", "--bounding-set", "-all"]
AS_GROUP = ["setpriv", "--reuid", "13", "--regid", "1337", "--clear-groups", "--bounding-set", "-all"]


def checks(done):
    said = json.loads(done.stdout)
    return said["probed"], {c["name"]: c["result"] for c in said["checks"]}


def test_verify_proves_what_its_user_can_prove(quiet_pod):
    flags = [*BASE, "--redirect-dns"]
    remora(flags, namespace=quiet_pod, check=0)
    for _ in range(2):
        probed, got = checks(remora(["verify", *flags, "--output", "json"], namespace=quiet_pod, check=0))
        assert probed and (got["rules"], got["outbound"], got["dns"], got["hairpin"]) == ("ok", "ok", "ok", "skipped")
        assert got["dns-zones"] == "ok"
        probed, got = checks(remora(["verify", *flags, "--output", "json"], namespace=quiet_pod, prefix=AS_PROXY, check=0))
        assert probed and (got["rules"], got["hairpin"], got["outbound"]) == ("skipped", "ok", "skipped")
    probed, got = checks(remora(["verify", *flags, "--output", "json"], namespace=quiet_pod, prefix=AS_GROUP, check=0))
    assert not probed and "failed" not in got.values()


def test_verify_sees_that_zones_do_not_work(quiet_pod):
    """Somebody puts all DNS into one zone, ahead of our rules: these are as planned, and yet do not do their work."""
    flags = [*BASE, "--redirect-dns"]
    remora(flags, namespace=quiet_pod, check=0)
    subprocess.run(["ip", "netns", "exec", quiet_pod, "nft", "-f", "-"], text=True, check=True, input="""
table inet one_zone {
    chain out { type filter hook output priority -310; udp dport 53 ct zone set 7; }
}""")
    _, got = checks(remora(["verify", *flags, "--output", "json", "--probe-timeout", "3s"], namespace=quiet_pod, check=126))
    assert (got["rules"], got["dns"], got["dns-zones"]) == ("ok", "ok", "failed")
    probed, got = checks(remora(["verify", *flags, "--output", "json"], namespace=quiet_pod, check=0, prefix=[
        "setpriv", "--reuid", "77", "--regid", "77", "--clear-groups", "--bounding-set", "-all"]))
    assert probed and got["dns-zones"] == "skipped"


def test_verify_dns_over_ipv6(quiet_pod):
    sh(f"ip -n {quiet_pod} addr add fd00:77::1/64 dev q0 nodad")
    sh(f"ip -n {quiet_pod} -6 route add default via fd00:77::2")
    flags = [*BASE, "--redirect-dns", "--dual-stack"]
    remora(flags, namespace=quiet_pod, resolvers=("fd00:96::10",), check=0)
    _, got = checks(remora(["verify", *flags, "--output", "json"], namespace=quiet_pod, resolvers=("fd00:96::10",), check=0))
    assert (got["dns"], got["dns6"]) == ("skipped", "ok")


def test_json_says_all_in_one_line(quiet_pod):
    """What was done and what validation found; or what is wrong."""
    said = result([*BASE, "--run-validation"], namespace=quiet_pod)
    assert said["result"] == "applied" and said["backend"] == "nftables" and said["ipv4"] and not said["ipv6"]
    assert said["probed"] and {c["name"]: c["result"] for c in said["checks"]}["outbound"] == "ok"
    assert len(said["hash"]) == 16 and said["rules"] > 10 and said["warnings"] == [] and said["duration_ms"] >= 0
    done = remora([*BASE, "--run-validation", "--skip-rule-apply", "--output", "json"], namespace=BARE, check=126)
    assert {c["name"]: c["result"] for c in json.loads(done.stdout)["checks"]}["rules"] == "failed"
    nobody = ["setpriv", "--reuid", "77", "--clear-groups", "--bounding-set", "-all"]
    for command in ("apply", "cleanup", "check", "stats"):
        flags = [] if command in ("cleanup", "stats") else BASE
        done = remora([command, *flags, "--output", "json"], namespace=quiet_pod, prefix=nobody, check=1)
        said = json.loads(done.stdout)
        assert said["result"] == "failed" and "CAP_NET_ADMIN" in said["error"], said


def test_validation_container_of_the_cni(quiet_pod):
    line = ["istio-iptables", *BASE, "--run-validation", "--skip-rule-apply"]
    start = time.monotonic()
    done = remora([*line, "--probe-timeout", "30s"], namespace=quiet_pod, prefix=AS_PROXY, check=126)
    assert "hairpin: failed" in done.stderr
    assert time.monotonic() - start < 25, "waited for its time-out although the call was refused"
    remora(["verify", *BASE], namespace=quiet_pod, check=126)
    remora(BASE, namespace=quiet_pod, check=0)
    remora(line, namespace=quiet_pod, prefix=AS_PROXY, check=0)


def test_verify_fails_when_rules_differ(quiet_pod):
    remora([*BASE, "--run-validation"], namespace=quiet_pod, check=0)
    sh(f"ip netns exec {quiet_pod} nft insert rule inet remora outbound accept")
    done = remora(["verify", *BASE], namespace=quiet_pod, check=126)
    assert "differs" in done.stderr or "more than" in done.stderr


def test_validation_beside_a_running_proxy_looks_at_the_rules_only():
    remora(BASE, check=0)
    done = remora([*BASE, "--run-validation", "--skip-rule-apply"], check=0)
    assert "is taken" in done.stderr and "rules: ok" in done.stderr


def test_stats_count_what_happened():
    remora(BASE, check=0)
    ask(POD, "tcp", ("8.8.8.8", 443), 1000, 1000)
    ask(NET, "tcp", ("10.244.0.5", 8080))
    counted = {r["meaning"]: r["packets"] for r in result(["stats"])["rules"]}
    assert counted["-p: to the proxy's outbound port"] == 1
    assert counted["-z: to the proxy's inbound port"] == 1
    remora(["cleanup"], check=0)
    remora(["stats"], check=1)


def test_doctor_finds_all_there_and_the_capability_missing():
    said = {f["what"]: f["result"] for f in result(["doctor"])["findings"]}
    for what in ("CAP_NET_ADMIN", "nf_tables", "redirect", "tproxy", "dns capture", "networks"):
        assert said[what] == "ok", said
    assert said["ctnetlink"] == "ok" and "hook" not in said
    for priority, word in ((-101, "as it happens"), (-150, "comes before ours")):
        subprocess.run(["ip", "netns", "exec", POD, "nft", "-f", "-"], text=True, check=True, input=f"""
table inet rival {{
    chain out {{ type nat hook output priority {priority}; }}
    chain late {{ type nat hook output priority -90; }}
}}""")
        hooks = [f["text"] for f in result(["doctor"])["findings"] if f["what"] == "hook"]
        sh(f"ip netns exec {POD} nft delete table inet rival")
        assert len(hooks) == 1 and word in hooks[0] and "chain out of table rival" in hooks[0], hooks
    done = remora(["doctor"], prefix=AS_PROXY, check=1)
    assert "securityContext" in done.stdout


def test_wait_for_a_ready_port():
    done = remora(["wait", "--timeout", "150ms", "--port", "15999"], check=1)
    assert "not ready" in done.stderr
    remora(["wait", "--timeout", "20s", "--port", "8080", "--path", ""], check=0)
    done = remora(["wait", "--timeout", "150ms", "--port", "8080"], check=1)
    assert "HTTP" in done.stderr or "answer" in done.stderr


def test_the_documents_name_every_flag_of_the_help():
    """tools/gen-init-docs writes them; here the program itself is the witness."""
    words = set(re.findall(r"(?m)^ {2,6}(?:-(\w), )?(?:--([\w-]+)|\$(\w+))", remora(["help"], check=0).stdout))
    assert len(words) > 60
    page = (ROOT / "docs/man/remora-init.8").read_text().replace("\\-", "-")
    guide = (ROOT / "docs/user/init.md").read_text()
    for letter, name, variable in words:
        assert f"\\fB--{name}\\fR" in page if name else f"\\fB${variable}\\fR" in page, (name, variable)
        assert f"`--{name}`" in guide if name else f"`{variable}`" in guide, (name, variable)
        assert not letter or f"\\fB-{letter}\\fR, " in page and f"`-{letter}`" in guide, name


# Flag, its variable, a value, what else must be said for it to show in the rules.
VARIABLES = [
    ("-z", "INBOUND_CAPTURE_PORT", "15106", ""), ("-e", "INBOUND_TUNNEL_PORT", "15108", ""), ("-u", "PROXY_UID", "7,8", ""),
    ("-g", "PROXY_GID", "9", ""), ("-m", "ISTIO_INBOUND_INTERCEPTION_MODE", "TPROXY", ""),
    ("-t", "ISTIO_INBOUND_TPROXY_MARK", "77", "-m TPROXY"), ("-r", "ISTIO_INBOUND_TPROXY_ROUTE_TABLE", "99", "-m TPROXY"),
    ("-b", "ISTIO_INBOUND_PORTS", "8080,9000-9100", ""), ("-d", "ISTIO_LOCAL_EXCLUDE_PORTS", "7", "-b *"),
    ("-c", "ISTIO_EXCLUDE_INTERFACES", "net+", ""), ("-i", "ISTIO_SERVICE_CIDR", "10.0.0.0/8", ""),
    ("-x", "ISTIO_SERVICE_EXCLUDE_CIDR", "10.1.0.0/16", "-i *"), ("-q", "ISTIO_OUTBOUND_PORTS", "443", ""),
    ("-o", "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE", "25", "-i *"), ("-k", "KUBE_VIRT_INTERFACES", "vm0", "-i *"),
    ("--redirect-dns", "REDIRECT_DNS", "true", "-i *"), ("--redirect-dns", "ISTIO_META_DNS_CAPTURE", "true", "-i *"),
    ("--capture-all-dns", "CAPTURE_ALL_DNS", "true", "--redirect-dns -i *"), ("--drop-invalid", "DROP_INVALID", "1", ""),
    ("--drop-invalid", "INVALID_DROP", "T", ""), ("--dual-stack", "DUAL_STACK", "true", "-i *"),
    ("--dual-stack", "ISTIO_DUAL_STACK", "true", "-i *"), ("--ipv6", "REMORA_IPV6", "drop", ""),
    ("--compat", "REMORA_COMPAT", "istio", "-u 1,2"), ("--hairpin", "REMORA_HAIRPIN", "off", "-i *"),
    ("--proxy-mark", "REMORA_PROXY_MARK", "0x1/0xf", "-i *"), ("--nat-priority-offset", "REMORA_NAT_PRIORITY_OFFSET", "5", "-i *"),
    ("--established", "REMORA_ESTABLISHED", "syn-only", "-i *"), ("--guard-admin", "REMORA_GUARD_ADMIN", "true", ""),
    ("--reject-quic", "REMORA_REJECT_QUIC", "true", "-i *")]


@pytest.mark.parametrize("flag, variable, value, more", VARIABLES)
def test_a_variable_means_what_its_flag_means(flag, variable, value, more):
    base = [] if flag in ("-b", "-i", "-q") else ["-b", "*", *(more.split() or ["-i", "*"])]

    def text(args, env=None):
        return remora([*base, *args, "-n"], env=env, check=0).stdout

    spelled = text([f"{flag}={value}" if flag.startswith("--") else f"{flag}{value}"])
    assert text([], {variable: value}) == spelled != text([])
    other = {"true": "false", "1": "0", "T": "F"}.get(value)
    if other:  # the command line wins
        assert text([f"{flag}={other}"], {variable: value}) == text([])


def test_the_second_variable_wins_over_the_first():
    env = {"REDIRECT_DNS": "true", "ISTIO_META_DNS_CAPTURE": "false", "DROP_INVALID": "false", "INVALID_DROP": "true"}
    assert remora([*BASE, "-n"], env=env, check=0).stdout == remora([*BASE, "-n", "--drop-invalid"], check=0).stdout


def test_every_rule_has_a_counter_and_says_what_it_is_for():
    remora([*BASE, "-m", "TPROXY", "--dual-stack", "--redirect-dns", "--drop-invalid", "-k", "vm0", "-c", "net1", "-o", "25", "-x",
            "10.1.0.0/16", "--guard-admin", "--reject-quic", "--established=syn-only", "--proxy-mark", "0x1"], check=0)
    lines = [line.strip() for line in rules().splitlines()]
    ours = [line for line in lines if line and not re.match(r"table |chain |type |elements|}|comment \"remora", line)]
    assert len(ours) > 40
    assert [line for line in ours if "counter packets" not in line or not re.search(r'comment "[^"]{5,}"', line)] == []


# --- the image ---

def test_the_image_needs_nothing_but_program_and_libraries(tmp_path):
    """What Dockerfile.init puts into its image, as root directory, with the /proc of a container."""
    done = subprocess.run([ROOT / "tools/image-root", BINARY, tmp_path / "image", "istio-iptables"], text=True, check=True,
                          capture_output=True)
    if "libasan" not in done.stdout:
        assert int(done.stdout.split()[-3]) < 8_000_000, done.stdout
    (tmp_path / "image/proc").mkdir()
    prefix = ["sh", "-c", 'mount --bind "$1" "$1" && mount --bind /proc "$1/proc" && mount -o remount,ro,bind "$1" && exec chroot "$@"',
              "sh", str(tmp_path / "image")]
    remora(BASE, program="/usr/local/bin/istio-iptables", prefix=prefix, check=0)
    assert "table" in trace_of_us()


def test_a_file_capability_is_enough_and_its_absence_no_obstacle(tmp_path):
    """As in the image: CAP_NET_ADMIN permitted, not effective; any user, no ambient set."""
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
    user = ["setpriv", "--reuid", "65532", "--regid", "65532", "--clear-groups"]
    remora(BASE, program=str(program), prefix=user, check=0)
    assert "table" in trace_of_us()
    user += ["--bounding-set", "-all"]
    remora([*BASE, "--dry-run"], program=str(program), prefix=user, check=0)
    assert "CAP_NET_ADMIN" in remora([*BASE, "--force-apply"], program=str(program), prefix=user, check=1).stderr

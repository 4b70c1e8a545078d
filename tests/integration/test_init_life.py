# SPDX-License-Identifier: Apache-2.0
"""remora-init: the life of the rules. Applied twice, changed, broken, removed, replaced under load, beside others."""

import contextlib
import json
import multiprocessing
import os
import pathlib
import select
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest

from init_place import *  # noqa: F403


@pytest.mark.parametrize("extra", [[], ["-m", "TPROXY", "--dual-stack"]])
def test_the_same_again_changes_nothing_and_keeps_counters(extra):
    assert result([*BASE, *extra])["result"] == "applied"
    ask(POD, "tcp", ("8.8.8.8", 443), 1000, 1000)
    before, traces = rules(), trace_of_us()
    assert "packets 1 " in before
    for _ in range(3):
        again = result([*BASE, *extra])
        assert (again["result"], again["routing_changes"]) == ("unchanged", 0)
    assert (rules(), trace_of_us()) == (before, traces)
    if extra:
        assert len([t for t in traces if t.startswith("rule")]) == 2


def test_force_apply_writes_again():
    result(BASE)
    assert result([*BASE, "--force-apply"])["result"] == "applied"


def test_drift_is_repaired():
    result(BASE)
    want = without_counters(rules())
    sh(f"ip netns exec {POD} nft add rule inet remora outbound counter accept")
    assert without_counters(rules()) != want
    assert result(BASE)["result"] == "applied"
    assert without_counters(rules()) == want
    sh(f"ip netns exec {POD} nft flush chain inet remora inbound")
    assert result(BASE)["result"] == "applied"
    assert without_counters(rules()) == want


def test_changed_flags_are_applied():
    result(BASE)
    assert ask(NET, "tcp", ("10.244.0.5", 9090))["listener"] == 15006
    assert result([*BASE, "-d", "9090"])["result"] == "applied"
    assert ask(NET, "tcp", ("10.244.0.5", 9090))["listener"] == 9090


def test_from_tproxy_to_redirect_nothing_stays():
    result([*BASE, "-m", "TPROXY", "--dual-stack"])
    result([*BASE, "-m", "TPROXY", "--dual-stack", "-t", "77"])
    assert sorted({t.split("fwmark ")[1].split()[0] for t in trace_of_us() if t.startswith("rule")}) == ["0x4d"]
    assert ask(NET, "tcp", ("10.244.0.5", 8080))["listener"] == 15006
    result([*BASE, "-m", "TPROXY"])
    assert ask(NET, "tcp", ("10.244.0.5", 8080))["listener"] == 15006
    result(BASE)
    assert trace_of_us() == ["table"]
    assert "mangle" not in rules()


def test_cleanup_is_independent_of_flags():
    sh(f"ip netns exec {POD} nft add table inet neighbour")
    result([*BASE, "-m", "TPROXY", "--dual-stack", "--redirect-dns", "-t", "99", "-r", "200"])
    assert len(trace_of_us()) >= 6
    done = remora(["istio-iptables", "--cleanup-only"], check=0)
    assert "removed" in done.stderr
    assert trace_of_us() == []
    assert "neighbour" in rules()
    remora(["cleanup"], check=0)
    sh(f"ip netns exec {POD} nft delete table inet neighbour")


def test_a_bad_value_changes_nothing_and_is_named():
    result(BASE)
    before = rules()
    done = remora([*BASE, "-d", "15020,70000"], check=1)
    assert "-d/--istio-local-exclude-ports: item 2 '70000'" in done.stderr
    assert rules() == before
    done = remora([*BASE, "--no-such-flag"])
    assert done.returncode == 255 and "--no-such-flag" in done.stderr


def test_without_the_capability_it_says_so():
    done = remora(BASE, prefix=["setpriv", "--reuid", "65532", "--clear-groups", "--bounding-set", "-all"], check=1)
    assert "CAP_NET_ADMIN" in done.stderr


def test_net_admin_alone_is_enough():
    prefix = ["setpriv", "--reuid", "65532", "--regid", "65532", "--clear-groups", "--no-new-privs", "--inh-caps",
              "-all,+net_admin", "--ambient-caps", "-all,+net_admin", "--bounding-set", "-all,+net_admin"]
    remora([*BASE, "-m", "TPROXY", "--dual-stack"], prefix=prefix, check=0)
    assert ask(NET, "tcp", ("fd00::5", 8080))["listener"] == 15006


def test_many_values_go_in_one_batch():
    nets = ",".join(f"10.{i // 250}.{i % 250}.0/24" for i in range(1000))
    ports = ",".join(str(20000 + 2 * i) for i in range(500))
    groups = ",".join(str(3000 + i) for i in range(64))
    env = {"ISTIO_OUTBOUND_OWNER_GROUPS": groups}
    assert result([*BASE, "-x", nets, "-d", ports, "-o", ports], env=env)["result"] == "applied"
    assert ask(POD, "tcp", ("8.8.8.8", 443), 1000, 3063)["listener"] == 15001
    assert result([*BASE, "-x", nets, "-d", ports, "-o", ports], env=env)["result"] == "unchanged"


def test_no_address_is_an_error_unless_ipv6_is_said():
    done = remora(BASE, namespace=BARE, check=1)
    assert "no valid local IP address" in done.stderr
    remora([*BASE, "--ipv6=off"], namespace=BARE, check=0)
    remora(["cleanup"], namespace=BARE, check=0)


def test_resolvers_that_cannot_be_captured_are_warned_about():
    done = remora([*BASE, "--redirect-dns"], resolvers=("fd00:96::10", "fe80::1%eth0"), check=0)
    assert "DNS capture is off" in done.stderr and "plain address" in done.stderr
    assert "15053" not in rules()


def test_another_nat_table_loaded_later_does_not_win():
    result(BASE)
    subprocess.run(["ip", "netns", "exec", POD, "nft", "-f", "-"], text=True, check=True, input="""
table inet rival {
    chain out { type nat hook output priority -100; tcp dport 443 redirect to :9090; }
}""")
    try:
        assert ask(POD, "tcp", ("8.8.8.8", 443), 1000, 1000)["listener"] == 15001
    finally:
        sh(f"ip netns exec {POD} nft delete table inet rival")


def test_rules_of_istio_are_seen_and_taken_over():
    sh(f"ip netns exec {POD} nft add table inet istio-proxy-nat")
    done = remora(BASE, check=0)
    assert "istio-proxy-nat" in done.stderr and "--takeover" in done.stderr
    assert remora([*BASE, "--strict"]).returncode == 1
    remora([*BASE, "--takeover"], check=0)
    assert "istio-proxy-nat" not in rules() and "remora" in rules()


def test_netns_is_entered():
    remora([*BASE, "--netns", f"/run/netns/{POD}"], namespace=BARE, check=0)
    assert "table" in trace_of_us(POD) and trace_of_us(BARE) == []


class Echo:
    """A server that answers in capitals, and one connection to it, by a user who is not the proxy, that stays open."""

    def __init__(self, server, client, address, listen=None):
        listener = inside(server, listen_tcp, *(listen or address))
        ask_r, self.ask_w = os.pipe()
        self.answer_r, answer_w = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                listener.close()
                enter(client)
                os.setgid(1000)
                os.setuid(1000)
                self.call(connect_tcp(address), ask_r, answer_w)
            finally:
                os._exit(0)
        os.close(ask_r)
        os.close(answer_w)
        self.accepted, _ = listener.accept()
        self.accepted.settimeout(PATIENCE_S)
        listener.close()

    @staticmethod
    def call(s, ask_r, answer_w):
        while data := os.read(ask_r, 100):
            try:
                s.sendall(data)
                os.write(answer_w, s.recv(100) or b"closed")
            except OSError:
                os.write(answer_w, b"broken")

    def say(self, text):
        """The answer as the client has it, or b"broken"."""
        os.write(self.ask_w, text)
        ready, _, _ = select.select([self.accepted, self.answer_r], [], [], PATIENCE_S)
        if self.accepted in ready:
            with contextlib.suppress(OSError):
                self.accepted.sendall(self.accepted.recv(100).upper())
        return os.read(self.answer_r, 100)

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.accepted.close()
        os.close(self.ask_w)
        os.close(self.answer_r)


@pytest.fixture
def echo():
    made = []

    def make(*args, **kw):
        made.append(Echo(*args, **kw))
        return made[-1]
    yield make
    for e in made:
        e.end()


@pytest.mark.parametrize("mode, survives", [("adopt", True), ("syn-only", True), ("capture", False)])
def test_connections_that_were_open_before(quiet_pod, far, echo, mode, survives):
    """In a namespace where conntrack slept until now; one connection out, one in, by IPv4, IPv6 and IPv4 on an IPv6 socket."""
    echoes = [echo(far, quiet_pod, ("10.78.0.2", 7777)), echo(quiet_pod, far, ("10.78.0.1", 7778)),
              echo(far, quiet_pod, ("fd00:78::2", 7777)), echo(quiet_pod, far, ("fd00:78::1", 7778)),
              echo(quiet_pod, far, ("10.78.0.1", 7779), listen=("::", 7779))]
    assert [e.say(b"one") for e in echoes] == [b"ONE"] * 5
    done = result([*BASE, "--dual-stack", f"--established={mode}"], namespace=quiet_pod)
    assert done["adopted_connections"] == (5 if mode == "adopt" else 0)
    got = [e.say(b"two") for e in echoes]
    assert got == [b"TWO"] * 5 if survives else b"TWO" not in got, got
    # New ones are captured all the same: nobody listens on 15001.
    assert "refused" in ask(quiet_pod, "tcp", ("10.78.0.2", 7777), 1000, 1000).get("error", "")


@pytest.mark.parametrize("mode", ["adopt", "capture"])
def test_captured_connections_survive_the_loss_of_the_conntrack_table(quiet_pod, far, echo, mode):
    result([*BASE, f"--established={mode}"], namespace=quiet_pod)
    out = echo(quiet_pod, quiet_pod, ("10.78.0.2", 7777), listen=("0.0.0.0", 15001))
    came = echo(quiet_pod, far, ("10.78.0.1", 7778), listen=("0.0.0.0", 15006))
    for text in (b"one", b"two", b"three"):
        assert [out.say(text), came.say(text)] == [text.upper()] * 2
        forget_connections(quiet_pod)


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def send_out_of_window(s):
    """A segment of the connection of s, a gigabyte ahead of where it stands."""
    repair, queue, seq = 19, 20, 21  # TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ of linux/tcp.h
    s.setsockopt(socket.IPPROTO_TCP, repair, 1)
    s.setsockopt(socket.IPPROTO_TCP, queue, 2)  # TCP_SEND_QUEUE
    at = s.getsockopt(socket.IPPROTO_TCP, seq) & 0xffffffff
    s.setsockopt(socket.IPPROTO_TCP, repair, -1)  # TCP_REPAIR_OFF_NO_WP
    (src, sport), (dst, dport) = s.getsockname(), s.getpeername()
    segment = struct.pack("!HHIIBBHHH", sport, dport, at + (1 << 30) & 0xffffffff, 1, 5 << 4, 0x10, 1024, 0, 0)
    pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack("!BBH", 0, 6, len(segment))
    segment = segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.sendto(segment, (dst, 0))


@pytest.mark.parametrize("flags, resets", [([], 1), (["--drop-invalid"], 0)])
def test_a_segment_out_of_the_window_draws_a_reset_unless_invalid_is_dropped(quiet_pod, far, flags, resets):
    result([*BASE, *flags], namespace=quiet_pod)
    subprocess.run(["ip", "netns", "exec", far, "nft", "-f", "-"], text=True, check=True, input="""
table inet watch {
    chain in { type filter hook prerouting priority -400; tcp flags & rst == rst counter; }
}""")
    with inside(quiet_pod, listen_tcp, "0.0.0.0", 15006) as listener, \
            inside(far, connect_tcp, ("10.78.0.1", 8080)) as client, listener.accept()[0] as server:
        server.settimeout(PATIENCE_S)
        inside(far, send_out_of_window, client)
        # The connection goes on; its answer comes behind the reset, if there is one.
        client.sendall(b"on")
        assert server.recv(10) == b"on"
        server.sendall(b"and on")
        assert client.recv(10) == b"and on"
        seen = subprocess.run(["ip", "netns", "exec", far, "nft", "list", "chain", "inet", "watch", "in"], text=True,
                              check=True, capture_output=True).stdout
        assert f"packets {resets} " in seen, seen


@pytest.mark.parametrize("flags", [[], ["-m", "TPROXY"]])
def test_one_client_port_to_two_ports_of_the_pod(quiet_pod, far, flags):
    """Both end at 15006 from the same address and port; behind a redirect conntrack rewrites the port that the proxy sees."""
    result([*BASE, *flags], namespace=quiet_pod)

    def listen():
        s = socket.socket()
        # Only for TPROXY: behind a redirect a transparent socket takes the second SYN for its own, and the client waits.
        s.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1 if flags else 0)
        s.bind(("", 15006))
        s.listen()
        s.settimeout(PATIENCE_S)
        return s
    open_now, peers = [], set()
    try:
        listener = inside(quiet_pod, listen)
        open_now.append(listener)
        for port in (8080, 9090, 7001):
            client = inside(far, connect_tcp, ("10.78.0.1", port), ("10.78.0.2", 40100))
            accepted, peer = listener.accept()
            open_now += [client, accepted]
            peers.add(peer[1])
            assert original_dst(accepted) == ["10.78.0.1", port]
            client.sendall(b"%d" % port)
            assert accepted.recv(10) == b"%d" % port
    finally:
        for s in open_now:
            s.close()
    assert 40100 in peers and len(peers) == (1 if flags else 3)


# --- namespaces of users, nodes without IPv6 ---

@pytest.fixture
def user_pod():
    """A pod whose users are mapped: 1337 inside is 101337 outside. Its network belongs to its user namespace."""
    name = f"{PREFIX}-user"
    keeper = subprocess.Popen(["unshare", "-U", "-n", "sleep", "1000"])
    try:
        deadline = time.monotonic() + PATIENCE_S
        while os.readlink(f"/proc/{keeper.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            if keeper.poll() is not None:
                pytest.skip("unshare -U does not work here: no user namespaces")
            assert time.monotonic() < deadline, "unshare -U -n takes too long"
            time.sleep(0.01)
        for kind in ("uid_map", "gid_map"):
            pathlib.Path(f"/proc/{keeper.pid}/{kind}").write_text("0 100000 65536\n")
        sh(f"ip netns attach {name} {keeper.pid}")
        sh(f"ip -n {name} link set lo up")
        far = f"{PREFIX}-ufar"
        sh(f"ip netns add {far}")
        sh(f"ip -n {far} link set lo up")
        link(name, "f0", far, "f1", ["10.78.0.1/24"], ["10.78.0.2/24"])
        yield name, far, ["nsenter", "-t", str(keeper.pid), "-U", "-n"]
    finally:
        for ns in (name, f"{PREFIX}-ufar"):
            subprocess.run(["ip", "netns", "del", ns], capture_output=True, check=False)
        keeper.kill()
        keeper.wait()


def test_rules_for_a_pod_in_a_user_namespace(user_pod):
    """Loaded from outside or inside, the numbers of -u are those of the pod."""
    name, far, into = user_pod
    assert result(BASE, namespace=name)["result"] == "applied"
    call = "import socket; print(socket.create_connection(('10.78.0.2', 7777), 10).recv(10).decode())"
    with inside(far, listen_tcp, "10.78.0.2", 7777) as outside, inside(name, listen_tcp, "0.0.0.0", 15001) as proxy:
        for user, want in (("1337", outside), ("1000", proxy)):
            caller = subprocess.Popen([*into, "-S", user, "-G", user, "/usr/bin/python3", "-c", call],
                                      stdout=subprocess.PIPE, text=True)
            with want.accept()[0] as c:
                c.sendall(b"here")
            assert caller.communicate()[0] == "here\n"
    done = subprocess.run([*into, BINARY, *BASE, "--output", "json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["result"] == "unchanged"
    subprocess.run([*into, BINARY, *BASE, "-m", "TPROXY"], capture_output=True, check=True)
    assert trace_of_us(name)
    subprocess.run([*into, BINARY, "cleanup"], capture_output=True, check=True)
    assert trace_of_us(name) == []
    for command in ([*BASE, "-m", "TPROXY"], ["verify", *BASE, "-m", "TPROXY"], ["cleanup"]):
        remora([*command, "--netns", f"/run/netns/{name}"], namespace=BARE, check=0)
        assert bool(trace_of_us(name)) == (command != ["cleanup"]) and trace_of_us(BARE) == []


def test_a_node_without_ipv6_gets_rules_for_ipv4(quiet_pod):
    for where in ("all", "default", "lo"):
        sh(f"ip netns exec {quiet_pod} sysctl -qw net.ipv6.conf.{where}.disable_ipv6=1")
    done = remora([*BASE, "--dual-stack", "--redirect-dns"], namespace=quiet_pod, check=0)
    assert "IPv6" in done.stderr and "warn" in done.stderr
    assert "::" not in rules(quiet_pod)
    before = trace_of_us(quiet_pod)
    done = remora([*BASE, "--ipv6=on"], namespace=quiet_pod, check=1)
    assert "net.ipv6.conf.lo.disable_ipv6" in done.stderr
    assert trace_of_us(quiet_pod) == before


# --- interrupted, disturbed, hurried ---

def state():
    """Chains and routing; the order in which nft lists tables and chains says only when they were made."""
    tables = rules().split("\ntable ")
    return sorted(without_counters(f"{t.split('{')[0]} {c}").rstrip("} ") for t in tables for c in t.split("\tchain ")[1:]), trace_of_us()


@pytest.mark.parametrize("backend, calls, step", [("nft", "sendto", 1), ("iptables-nft", "sendto,poll,wait4", 2)])
def test_a_signal_finds_nothing_or_all(backend, calls, step):
    """SIGTERM at the system calls that change something or wait for it: what is left is the state before or the new one."""
    if subprocess.run(["strace", "-V"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not there")
    if backend != "nft" and not shutil.which(f"{backend}-restore"):
        pytest.skip(f"{backend} is not installed")
    flags = [*BASE, "-m", "TPROXY", "--dual-stack", "--redirect-dns", f"--backend={backend}"]
    quiet = {"ASAN_OPTIONS": "detect_leaks=0"}
    remora(flags, check=0)
    whole = state()
    remora(["cleanup"], check=0)
    nothing = state()
    seen, number = set(), 1
    while number < 200:
        done = remora(flags, env=quiet, prefix=["strace", "-o", "/dev/null", "-e", f"trace={calls}", "-e",
                                                f"inject={calls}:signal=SIGTERM:when={number}"])
        now = state()
        assert now in (nothing, whole), f"call {number}: {now}"
        seen.add(now == whole)
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM), done
        remora(["cleanup"], check=0)
        number += step
    assert seen == {True, False} and number > 5, number
    assert result(flags)["result"] == "unchanged"


def change_all_the_time(ready):
    """Makes and deletes a table, one transaction after the other, some thousand times a second. Does not return."""
    def message(kind, family, group, attributes=b""):
        return struct.pack("=IHHIIBBH", 20 + len(attributes), kind, 1, 0, 0, family, 0, socket.htons(group)) + attributes
    begin, end, new_table, delete_table, netfilter_tables = 16, 17, 10 << 8 | 0, 10 << 8 | 2, 10
    name = struct.pack("=HH8s", 9, 1, b"busy")
    batch = b"".join([message(begin, 0, netfilter_tables), message(new_table, 1, 0, name),
                      message(delete_table, 1, 0, name), message(end, 0, netfilter_tables)])
    enter(POD)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as s:
        s.bind((0, 0))
        ready.set()
        while True:
            s.send(batch)


@pytest.mark.parametrize("tables", [0, 300])
def test_another_writer_does_not_disturb(tables):
    """Somebody else changes the rules all the time: the kernel may ask for the transaction again, and says of lists that
    they changed while they were read; with many tables, in the middle of one."""
    def all_tables(verb):
        subprocess.run(["ip", "netns", "exec", POD, "nft", "-f", "-"], check=True, text=True,
                       input="".join(f"{verb} table inet other{i}\n" for i in range(tables)))
    all_tables("add")
    ready = multiprocessing.Event()
    writer = multiprocessing.Process(target=change_all_the_time, args=(ready,))
    writer.start()
    try:
        assert ready.wait(10)
        for i in range(20):
            assert result([*BASE, "-d", str(1000 + i)])["result"] == "applied"
    finally:
        writer.kill()
        writer.join()
        all_tables("delete")


def test_several_at_once_leave_the_rules_of_one():
    variants = [[*BASE, "-d", str(1000 + i), *(["-m", "TPROXY"] if i % 2 else [])] for i in range(6)]
    whole = []
    for flags in variants:
        remora(flags, check=0)
        whole.append(without_counters(rules()))
    remora(["cleanup"], check=0)
    for _ in range(3):
        running = [subprocess.Popen(["nsenter", f"--net=/run/netns/{POD}", BINARY, *flags, "--log_output_level=error"])
                   for flags in variants]
        assert [p.wait(60) for p in running] == [0] * len(running)
        assert without_counters(rules()) in whole


def call_again_and_again(counts_w, stop_r):
    counts = {"proxy": 0, "escaped": 0, "failed": 0}
    try:
        enter(POD)
        os.setgid(1000)
        os.setuid(1000)
        while not select.select([stop_r], [], [], 0)[0]:
            try:
                with socket.create_connection(("8.8.8.8", 443), timeout=PATIENCE_S) as s:
                    who = json.loads(s.recv(4096))
                    counts["proxy" if who["listener"] == 15001 else "escaped"] += 1
            except OSError as e:
                counts["failed"] += 1
                counts["why"] = repr(e)
    except BaseException as e:  # noqa: BLE001 - the child must never return into pytest
        counts["why"] = repr(e)
    finally:
        os.write(counts_w, json.dumps(counts).encode())
        os._exit(0)


def storm(replacements):
    """Counts what becomes of connections that are made all the time while the rules are replaced."""
    remora(BASE, check=0)
    counts_r, counts_w = os.pipe()
    stop_r, stop_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        call_again_and_again(counts_w, stop_r)
    try:
        for i in range(replacements):
            subprocess.run(["nsenter", f"--net=/run/netns/{POD}", BINARY, *BASE, "-d", str(1000 + i % 2),
                            "--log_output_level=none"], check=True)
    finally:
        os.write(stop_w, b"!")
        counts = json.loads(os.read(counts_r, 4096))
        os.waitpid(pid, 0)
        for fd in (counts_r, counts_w, stop_r, stop_w):
            os.close(fd)
    return counts


def test_replacing_under_a_storm_of_connections_lets_nothing_escape():
    """REMORA_INIT_STORM says how many replacements; make bench-init does 500."""
    counts = storm(int(os.environ.get("REMORA_INIT_STORM", "100")))
    assert counts["escaped"] == 0 and counts["failed"] == 0 and counts["proxy"] > 0, counts

# SPDX-License-Identifier: Apache-2.0
"""remora-init in network namespaces: every row of tests/golden/init/fates.tsv as a real connection, the evaluator
against the kernel on random flags, and the life of the rules (twice the same, changed, broken, removed).

REMORA_INIT names the binary (default build/bin/remora-init). Needs root; skips with a reason otherwise."""

import ctypes
import encodings.idna  # noqa: F401 - probes without privileges could not load it any more
import json
import os
import pathlib
import random
import select
import shlex
import signal
import socket
import struct
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("REMORA_INIT", str(ROOT / "build/bin/remora-init"))
TABLE = ROOT / "tests/golden/init/fates.tsv"
BASE = ["-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*",
        "-d", "15090,15021,15020"]
PREFIX = f"rminit-{os.getpid()}"
POD, NET, NET2, VM, BARE = (f"{PREFIX}-{n}" for n in ("pod", "net", "net2", "vm", "bare"))
POD_ADDRESSES = {"10.244.0.5", "fd00::5", "192.168.50.5", "10.0.2.1", "::1", "::6"}
SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST has the same number
IP_TRANSPARENT, IPV6_TRANSPARENT, SO_MARK = 19, 75, 36
libc = ctypes.CDLL(None, use_errno=True)


def why_not():
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    if not os.access(BINARY, os.X_OK):
        return f"{BINARY} is not built"
    probe = subprocess.run(["ip", "netns", "add", f"{PREFIX}-probe"], capture_output=True, text=True)
    if probe.returncode:
        return f"cannot make a network namespace: {probe.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", f"{PREFIX}-probe"], check=False)
    return None


REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


# --- the place ---

def sh(line):
    subprocess.run(shlex.split(line), check=True, capture_output=True)


def enter(namespace):
    with open(f"/run/netns/{namespace}", "rb") as f:
        if libc.setns(f.fileno(), 0x40000000):
            raise OSError(ctypes.get_errno(), "setns")


def link(a, dev_a, b, dev_b, addresses_a, addresses_b):
    sh(f"ip link add {dev_a} netns {a} type veth peer name {dev_b} netns {b}")
    for ns, dev, addresses in ((a, dev_a, addresses_a), (b, dev_b, addresses_b)):
        for address in addresses:
            sh(f"ip -n {ns} addr add {address} dev {dev} {'nodad' if ':' in address else ''}")
        sh(f"ip -n {ns} link set {dev} up")


def build_place():
    for ns in (POD, NET, NET2, VM, BARE):
        sh(f"ip netns add {ns}")
        sh(f"ip -n {ns} link set lo up")
        for line in ("net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0", "net.ipv4.ip_forward=1"):
            sh(f"ip netns exec {ns} sysctl -qw {line}")
    link(POD, "eth0", NET, "p0", ["10.244.0.5/24", "fd00::5/64"], ["10.244.0.1/24", "fd00::1/64"])
    link(POD, "net1", NET2, "p1", ["192.168.50.5/24"], ["192.168.50.1/24"])
    link(POD, "vm0", VM, "eth0", ["10.0.2.1/24"], ["10.0.2.2/24"])
    for address in ("10.96.5.5", "8.8.8.8", "1.1.1.1", "10.96.0.10", "2001:db8::1", "fd00:96::10"):
        sh(f"ip -n {NET} addr add {address}/{128 if ':' in address else 32} dev lo")
    sh(f"ip -n {POD} route add default via 10.244.0.1")
    sh(f"ip -n {POD} -6 route add default via fd00::1")
    sh(f"ip -n {VM} route add default via 10.0.2.1")


def tear_down_place():
    for ns in (POD, NET, NET2, VM, BARE):
        subprocess.run(["ip", "netns", "del", ns], capture_output=True, check=False)


# --- the servers: they say who they are and what they see ---

def original_dst(s):
    try:
        if s.family == socket.AF_INET:
            raw = s.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
            return [socket.inet_ntoa(raw[4:8]), struct.unpack("!H", raw[2:4])[0]]
        raw = s.getsockopt(41, SO_ORIGINAL_DST, 28)
        return [socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack("!H", raw[2:4])[0]]
    except OSError:
        return None


def serve(namespace, name, tcp_ports, udp_addresses, uid):
    enter(namespace)
    if uid:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    poll = select.poll()
    sockets = {}

    def add(s, port):
        s.setblocking(False)
        sockets[s.fileno()] = (s, port)
        poll.register(s.fileno(), select.POLLIN)

    for family in (socket.AF_INET, socket.AF_INET6):
        for port in tcp_ports:
            s = socket.socket(family, socket.SOCK_STREAM)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                s.setsockopt(41, socket.IPV6_V6ONLY, 1)
                s.setsockopt(41, IPV6_TRANSPARENT, 1)
            else:
                s.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
            s.bind(("", port))
            s.listen(512)
            add(s, port)
    for address, port in udp_addresses:
        s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        s.bind((address, port))
        add(s, port)
    return poll, sockets, name


def serve_forever(poll, sockets, name, ready):
    os.write(ready, b"!")
    while True:
        for fd, _ in poll.poll():
            s, port = sockets[fd]
            try:
                if s.type == socket.SOCK_STREAM:
                    c, _ = s.accept()
                    answer = {"who": name, "listener": port, "local": list(c.getsockname()[:2]),
                              "original": original_dst(c)}
                    c.sendall(json.dumps(answer).encode())
                    c.close()
                else:
                    _, peer = s.recvfrom(2048)
                    answer = {"who": name, "listener": port, "local": list(s.getsockname()[:2])}
                    s.sendto(json.dumps(answer).encode(), peer)
            except OSError:
                pass


def start_server(namespace, name, tcp_ports, udp_addresses, uid=0):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            serve_forever(*serve(namespace, name, tcp_ports, udp_addresses, uid), w)
        except BaseException as e:  # noqa: BLE001 - the child must never return into pytest
            os.write(2, f"server {name}: {e}\n".encode())
        finally:
            os._exit(1)
    os.close(w)
    if os.read(r, 1) != b"!":
        raise RuntimeError(f"server {name} did not start")
    os.close(r)
    return pid


def ask(namespace, proto, destination, uid=0, gid=0, mark=0, source=None, timeout=1.0):
    """One connection from a process of its own, so that it has the user, the group and the namespace asked for."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            enter(namespace)
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            family = socket.AF_INET6 if ":" in destination[0] else socket.AF_INET
            s = socket.socket(family, socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM)
            if mark:
                s.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
            if source:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(source)
            s.settimeout(timeout)
            s.connect(destination)
            if proto == "udp":
                s.send(b"who?")
            answer = s.recv(4096)
            os.write(w, answer or b'{"error": "closed"}')
        except OSError as e:
            os.write(w, json.dumps({"error": str(e) or type(e).__name__}).encode())
        finally:
            os._exit(0)
    os.close(w)
    data = b""
    while chunk := os.read(r, 4096):
        data += chunk
    os.close(r)
    os.waitpid(pid, 0)
    return json.loads(data or b'{"error": "no answer"}')


# --- the program ---

def remora(args, namespace=POD, env=None, resolvers=("10.96.0.10",), prefix=(), check=None, timeout=40):
    """Runs remora-init inside a namespace with a resolv.conf of its own."""
    conf = pathlib.Path(f"/tmp/{PREFIX}-resolv.conf")
    conf.write_text("".join(f"nameserver {r}\n" for r in resolvers))
    full = ["unshare", "-m", "--propagation", "private", "sh", "-c",
            'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"', "sh", str(conf),
            "nsenter", f"--net=/run/netns/{namespace}", *prefix, BINARY, *args]
    clean = {"PATH": os.environ["PATH"], **(env or {})}
    done = subprocess.run(full, capture_output=True, text=True, env=clean, timeout=timeout, check=False)
    if check is not None:
        assert done.returncode == check, (args, done.returncode, done.stdout, done.stderr)
    return done


def rules(namespace=POD):
    return subprocess.run(["ip", "netns", "exec", namespace, "nft", "list", "ruleset"], capture_output=True, text=True,
                          check=True).stdout


def without_counters(text):
    words = text.split()
    return " ".join("n" if i and words[i - 1] in ("packets", "bytes") else w for i, w in enumerate(words))


def trace_of_us(namespace=POD):
    """Everything that remora-init can leave behind."""
    found = []
    if "remora" in rules(namespace):
        found.append("table")
    for family in ("-4", "-6"):
        out = subprocess.run(["ip", "-n", namespace, family, "rule"], capture_output=True, text=True, check=True).stdout
        found += [f"rule {line}" for line in out.splitlines() if "fwmark" in line]
        out = subprocess.run(["ip", "-n", namespace, family, "route", "show", "table", "all", "proto", "114"],
                             capture_output=True, text=True, check=False).stdout
        found += [f"route {line}" for line in out.splitlines()]
    if "::6/128" in subprocess.run(["ip", "-n", namespace, "addr", "show", "lo"], capture_output=True, text=True,
                                   check=True).stdout:
        found.append("::6")
    return found


def parse_address(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


class Row:
    def __init__(self, line):
        (self.id, flags, env, resolvers, self.direction, self.interface, self.proto, owner, source, destination,
         self.fate) = line.split("\t")
        self.flags = [] if flags == "-" else shlex.split(flags)
        self.env = {} if env == "-" else dict([env.split("=", 1)])
        self.resolvers = ("10.96.0.10",) if resolvers == "-" else tuple(resolvers.split(","))
        self.destination = parse_address(destination)
        self.uid = self.gid = self.mark = 0
        if owner != "-":
            ids, _, mark = owner.partition("@")
            self.uid, self.gid = (int(x) for x in ids.split("/"))
            self.mark = int(mark, 0) if mark else 0
        self.source = None
        if source.startswith(":"):
            self.source = ("", int(source[1:]))
        elif source != "-":
            self.source = (source.strip("[]"), 0)

    def group(self):
        return (tuple(self.flags), tuple(self.env.items()), self.resolvers)


def read_table():
    return [Row(line) for line in TABLE.read_text().splitlines() if line and not line.startswith("#")]


def send(row):
    namespace = POD if row.direction == "out" else {"eth0": NET, "net1": NET2, "vm0": VM}[row.interface]
    return ask(namespace, row.proto, row.destination, row.uid, row.gid, row.mark, row.source,
               timeout=0.4 if row.fate == "drop" else 2.0)


def owner_of(address):
    if address in POD_ADDRESSES or address.startswith("127."):
        return "pod"
    return "net2" if address.startswith("192.168.") else "net"


def complaint(row, answer):
    """What is wrong with the answer, or None."""
    kind, _, port = row.fate.partition(":")
    if kind == "drop":
        return None if "timed out" in answer.get("error", "") else f"not dropped: {answer}"
    if "error" in answer:
        return f"{row.fate} expected, got {answer['error']}"
    want_who = owner_of(row.destination[0]) if kind == "pass" else "pod"
    want_port = row.destination[1] if kind == "pass" else int(port)
    if answer["who"] != want_who or answer["listener"] != want_port:
        return f"{row.fate} expected, reached port {answer['listener']} of {answer['who']}"
    if kind == "redirect" and row.proto == "tcp" and answer["original"] != list(row.destination):
        return f"SO_ORIGINAL_DST is {answer['original']}"
    if kind in ("tproxy", "pass") and answer["local"] != list(row.destination):
        return f"local address is {answer['local']}"
    return None


@pytest.fixture(scope="module", autouse=True)
def place():
    if REASON:
        yield
        return
    servers = []
    tcp = {port for row in read_table() for port in [row.destination[1]]}
    tcp |= {int(row.fate.partition(":")[2]) for row in read_table() if ":" in row.fate}
    try:
        build_place()
        servers.append(start_server(POD, "pod", sorted(tcp), [
            ("127.0.0.53", 53), ("10.244.0.5", 8080)]))
        # The proxy's resolver: its answers are told apart by its user, and it must not bind the wildcard.
        servers.append(start_server(POD, "pod", [], [("127.0.0.1", 15053), ("::1", 15053)], uid=1337))
        servers.append(start_server(NET, "net", sorted(tcp), [
            ("10.96.0.10", 53), ("8.8.8.8", 53), ("8.8.8.8", 443), ("fd00:96::10", 53)]))
        servers.append(start_server(NET2, "net2", [80, 8080], []))
        yield
    finally:
        for pid in servers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        tear_down_place()
        pathlib.Path(f"/tmp/{PREFIX}-resolv.conf").unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def fresh(place):
    remora(["cleanup"], check=0)
    yield
    remora(["cleanup", "--takeover"], check=0)


# --- fates ---

def test_every_row_of_the_table():
    groups = {}
    for row in read_table():
        groups.setdefault(row.group(), []).append(row)
    wrong = []
    for (flags, env, resolvers), rows in groups.items():
        done = remora([*BASE, *flags], env=dict(env), resolvers=resolvers)
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
               ("lo", "[::1]:8080"), ("lo", "127.0.0.53:53")]
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


@pytest.mark.parametrize("seed", range(20))
def test_evaluator_and_kernel_agree_on_random_flags(seed):
    rng = random.Random(seed)
    flags = random_flags(rng)
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
        row.fate = {"not": "pass", "dropped": "drop"}.get(word, f"{word}:{said.get('port')}")
        problem = complaint(row, send(row))
        assert problem is None, f"{' '.join(flags)}: {target} {row.direction} {row.interface} {row.uid}/{row.gid}: {problem}"


def test_dns_survives_reuse_of_a_source_port():
    remora([*BASE, "--redirect-dns"], check=0)
    port = ("10.244.0.5", 40001)
    assert ask(POD, "udp", ("10.96.0.10", 53), 1337, 1337, source=port)["who"] == "net"
    assert ask(POD, "udp", ("10.96.0.10", 53), 1000, 1000, source=port)["listener"] == 15053
    assert ask(POD, "udp", ("10.96.0.10", 53), 1337, 1337, source=port)["who"] == "net"


# --- the life of the rules ---

def result(args, **kw):
    return json.loads(remora([*args, "--output", "json"], check=0, **kw).stdout)


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


def test_dry_run_opens_no_socket():
    if subprocess.run(["which", "strace"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not installed")
    done = remora([*BASE, "-n"], prefix=["strace", "-f", "-e", "trace=socket"],
                  env={"ASAN_OPTIONS": "detect_leaks=0"}, check=0)
    assert "socket(" not in done.stderr


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


def test_many_values_go_in_one_batch():
    nets = ",".join(f"10.{i // 250}.{i % 250}.0/24" for i in range(1000))
    ports = ",".join(str(20000 + 2 * i) for i in range(500))
    groups = ",".join(str(3000 + i) for i in range(64))
    env = {"ISTIO_OUTBOUND_OWNER_GROUPS": groups}
    start = time.monotonic()
    done = result([*BASE, "-x", nets, "-d", ports, "-o", ports], env=env)
    assert done["duration_ms"] < 500, done
    assert time.monotonic() - start < 5
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


# --- verify, adopt, wait, stats, doctor ---

AS_PROXY = ["setpriv", "--reuid", "1337", "--regid", "1337", "--clear-groups", "--bounding-set", "-all"]
AS_GROUP = ["setpriv", "--reuid", "13", "--regid", "1337", "--clear-groups", "--bounding-set", "-all"]


@pytest.fixture
def quiet_pod():
    """A pod where nobody listens on the proxy's ports."""
    name = f"{PREFIX}-quiet"
    sh(f"ip netns add {name}")
    try:
        sh(f"ip -n {name} link set lo up")
        sh(f"ip link add q0 netns {name} type veth peer name q1 netns {name}")
        sh(f"ip -n {name} link set q1 up")
        sh(f"ip -n {name} link set q0 up")
        sh(f"ip -n {name} addr add 10.77.0.1/24 dev q0")
        sh(f"ip -n {name} route add default via 10.77.0.2")
        yield name
    finally:
        sh(f"ip netns del {name}")


def checks(done):
    said = json.loads(done.stdout)
    return said["probed"], {c["name"]: c["result"] for c in said["checks"]}


def test_verify_proves_what_its_user_can_prove(quiet_pod):
    flags = [*BASE, "--redirect-dns"]
    remora(flags, namespace=quiet_pod, check=0)
    for _ in range(2):
        probed, got = checks(remora(["verify", *flags, "--output", "json"], namespace=quiet_pod, check=0))
        assert probed and (got["rules"], got["outbound"], got["dns"], got["hairpin"]) == ("ok", "ok", "ok", "skipped")
        probed, got = checks(remora(["verify", *flags, "--output", "json"], namespace=quiet_pod, prefix=AS_PROXY, check=0))
        assert probed and (got["rules"], got["hairpin"], got["outbound"]) == ("skipped", "ok", "skipped")
    probed, got = checks(remora(["verify", *flags, "--output", "json"], namespace=quiet_pod, prefix=AS_GROUP, check=0))
    assert not probed and "failed" not in got.values()


def test_validation_container_of_the_cni(quiet_pod):
    line = ["istio-iptables", *BASE, "--run-validation", "--skip-rule-apply"]
    start = time.monotonic()
    done = remora(line, namespace=quiet_pod, prefix=AS_PROXY, check=126)
    assert "hairpin: failed" in done.stderr and time.monotonic() - start < 3
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


class Echo:
    """A server that answers line by line, and one connection to it that stays open."""

    def __init__(self, server, client, address):
        self.ready, ready = os.pipe()
        ask_r, self.ask_w = os.pipe()
        self.answer_r, answer_w = os.pipe()
        self.pids = [self.fork(self.serve, server, address, ready)]
        os.read(self.ready, 1)
        self.pids.append(self.fork(self.call, client, address, ask_r, answer_w))

    @staticmethod
    def fork(function, *args):
        pid = os.fork()
        if pid == 0:
            try:
                function(*args)
            finally:
                os._exit(0)
        return pid

    @staticmethod
    def serve(namespace, address, ready):
        enter(namespace)
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(address)
        s.listen()
        os.write(ready, b"!")
        c, _ = s.accept()
        while data := c.recv(100):
            c.sendall(data.upper())

    @staticmethod
    def call(namespace, address, ask_r, answer_w):
        enter(namespace)
        os.setgid(1000)
        os.setuid(1000)
        s = socket.socket()
        s.connect(address)
        s.settimeout(1.5)
        while data := os.read(ask_r, 100):
            try:
                s.sendall(data)
                os.write(answer_w, s.recv(100) or b"closed")
            except OSError:
                os.write(answer_w, b"broken")

    def say(self, text):
        os.write(self.ask_w, text)
        return os.read(self.answer_r, 100)

    def end(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.parametrize("mode, survives", [("adopt", True), ("syn-only", True), ("capture", False)])
def test_connections_that_were_open_before(quiet_pod, mode, survives):
    """In a namespace where conntrack slept until now; one connection out, one in."""
    far = f"{PREFIX}-far"
    sh(f"ip netns add {far}")
    echoes = []
    try:
        sh(f"ip -n {far} link set lo up")
        link(quiet_pod, "f0", far, "f1", ["10.78.0.1/24"], ["10.78.0.2/24"])
        echoes = [Echo(far, quiet_pod, ("10.78.0.2", 7777)), Echo(quiet_pod, far, ("10.78.0.1", 7778))]
        assert [e.say(b"one") for e in echoes] == [b"ONE", b"ONE"]
        done = result([*BASE, f"--established={mode}"], namespace=quiet_pod)
        assert done["adopted_connections"] == (2 if mode == "adopt" else 0)
        got = [e.say(b"two") for e in echoes]
        assert (got == [b"TWO", b"TWO"]) == survives, got
        # New ones are captured all the same: nobody listens on 15001.
        assert "refused" in ask(quiet_pod, "tcp", ("10.78.0.2", 7777), 1000, 1000).get("error", "")
    finally:
        for e in echoes:
            e.end()
        sh(f"ip netns del {far}")


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
    done = remora(["doctor"], prefix=AS_PROXY, check=1)
    assert "securityContext" in done.stdout


def test_wait_for_a_ready_port():
    done = remora(["wait", "--timeout", "150ms", "--port", "15999"], check=1)
    assert "not ready" in done.stderr
    remora(["wait", "--timeout", "2s", "--port", "8080", "--path", ""], check=0)
    done = remora(["wait", "--timeout", "150ms", "--port", "8080"], check=1)
    assert "HTTP" in done.stderr or "answer" in done.stderr


def test_replacing_under_load_lets_nothing_escape():
    result(BASE)
    stop = time.monotonic() + 3
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        counts = {"proxy": 0, "escaped": 0, "failed": 0}
        try:
            enter(POD)
            os.setgid(1000)
            os.setuid(1000)
            while time.monotonic() < stop:
                try:
                    with socket.create_connection(("8.8.8.8", 443), timeout=2) as s:
                        who = json.loads(s.recv(4096))
                        counts["proxy" if who["listener"] == 15001 else "escaped"] += 1
                except OSError:
                    counts["failed"] += 1
        except BaseException as e:  # noqa: BLE001 - the child must never return into pytest
            counts["error"] = repr(e)
        finally:
            os.write(w, json.dumps(counts).encode())
            os._exit(0)
    os.close(w)
    replaced = 0
    while time.monotonic() < stop:
        subprocess.run(["nsenter", f"--net=/run/netns/{POD}", BINARY, *BASE, "-d", str(1000 + replaced % 2),
                        "--log_output_level=none"], check=True)
        replaced += 1
    counts = json.loads(os.read(r, 4096))
    os.waitpid(pid, 0)
    os.close(r)
    assert counts["escaped"] == 0 and counts["failed"] == 0 and counts["proxy"] > 50, (counts, replaced)
    assert replaced > 20

# SPDX-License-Identifier: Apache-2.0
"""What the tests of remora-init share: the namespaces (a pod with three interfaces, networks and a virtual machine around it),
servers that say who they are and what they see, a client with any user and group, the table of fates.

REMORA_INIT names the binary (default build/bin/remora-init). Needs root; skips with a reason otherwise. A test file takes
`from init_place import *`: the fixtures place and fresh are autouse."""

import concurrent.futures
import contextlib
import ctypes
import encodings.idna  # noqa: F401 - probes without privileges could not load it any more
import json
import os
import pathlib
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
PATIENCE_S = 10  # for what must come: only a broken program waits this long
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


def inside(namespace, function, *args):
    """function(*args) in a thread that has entered the namespace: sockets that it makes live there ever after."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: (enter(namespace), function(*args))[1]).result()


def forget_connections(namespace=POD):
    """Empties the conntrack table. Between two sets of rules: what one of them did to a flow holds for whoever takes the same
    port again, and a test that meets the port of a former one (UDP: for 30 s) would see the fate of then."""
    header = struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 5, 1, 0, 0, 0, 0)  # IPCTNL_MSG_CT_DELETE, REQUEST|ACK, no tuple

    def flush():
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as s:
            s.bind((0, 0))
            s.send(header)
            return struct.unpack_from("=i", s.recv(4096), 16)[0]
    assert inside(namespace, flush) == 0


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
    pathlib.Path(f"/tmp/{PREFIX}-resolv.conf").unlink(missing_ok=True)


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


def ask(namespace, proto, destination, uid=0, gid=0, mark=0, source=None, timeout=PATIENCE_S):
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

def remora(args, namespace=POD, env=None, resolvers=("10.96.0.10",), prefix=(), check=None, timeout=40,
           program=BINARY):
    """Runs remora-init, or another program, inside a namespace with a resolv.conf of its own."""
    conf = pathlib.Path(f"/tmp/{PREFIX}-resolv.conf")
    conf.write_text("".join(f"nameserver {r}\n" for r in resolvers))
    full = ["unshare", "-m", "--propagation", "private", "sh", "-c",
            'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"', "sh", str(conf),
            "nsenter", f"--net=/run/netns/{namespace}", *prefix, program, *args]
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
               timeout=0.4 if row.fate == "drop" else PATIENCE_S)


def owner_of(address):
    if address in POD_ADDRESSES or address.startswith("127."):
        return "pod"
    return "net2" if address.startswith("192.168.") else "net"


def complaint(row, answer):
    """What is wrong with the answer, or None."""
    kind, _, port = row.fate.partition(":")
    if kind == "drop":
        return None if "timed out" in answer.get("error", "") else f"not dropped: {answer}"
    if kind == "reject":  # sending a datagram fails at once, before its ICMP answer is read
        said = answer.get("error", "")
        return None if "refused" in said or "not permitted" in said else f"not refused: {answer}"
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


@pytest.fixture(autouse=True)
def fresh(place):
    remora(["cleanup"], check=0)
    forget_connections()
    yield
    remora(["cleanup", "--takeover"], check=0)


def result(args, **kw):
    return json.loads(remora([*args, "--output", "json"], check=0, **kw).stdout)


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


@pytest.fixture
def far(quiet_pod):
    """A network behind the quiet pod: 10.78.0.2 and fd00:78::2 there, 10.78.0.1 and fd00:78::1 in the pod."""
    name = f"{PREFIX}-far"
    sh(f"ip netns add {name}")
    try:
        sh(f"ip -n {name} link set lo up")
        link(quiet_pod, "f0", name, "f1", ["10.78.0.1/24", "fd00:78::1/64"], ["10.78.0.2/24", "fd00:78::2/64"])
        yield name
    finally:
        sh(f"ip netns del {name}")


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listen_tcp(address, port):
    s = socket.socket(family_of(address))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port))
    s.listen()
    s.settimeout(PATIENCE_S)
    return s


def connect_tcp(destination, source=None):
    s = socket.socket(family_of(destination[0]))
    s.settimeout(PATIENCE_S)
    if source:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(source)
    s.connect(destination)
    return s

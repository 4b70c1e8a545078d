# SPDX-License-Identifier: Apache-2.0
"""Hosts on a bridge, each a network namespace, and the remora processes in them. Used by the demo and by the integration
tests. Nothing outside the namespaces is touched: the bridge itself stands in one of them (the hub).

Python's standard library and the programs `ip` and `setpriv` are all that is needed."""

import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

CLONE_NEWNET = 0x40000000
PROXY_UID = 1337  # Istio's; remora-init leaves this user's connections alone
INIT_ARGS = ["-p", "15001", "-z", "15006", "-u", str(PROXY_UID), "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*",
             "-d", "15090,15021,15020"]
HOSTS, HOSTS_OURS = pathlib.Path("/etc/hosts"), "# made for the network namespaces of remora, and removed with them\n"
libc = ctypes.CDLL(None, use_errno=True)


class MeshError(Exception):
    """What went wrong, for the user: one or more plain lines."""


def run(argv, **kw):
    """A short command; its text when it fails becomes a MeshError."""
    p = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, **kw)
    if p.returncode:
        raise MeshError(f"{' '.join(map(str, argv))}: {(p.stderr or p.stdout).strip() or f'exit status {p.returncode}'}")
    return p.stdout


def wait_for(what, fn, timeout, pause=0.02):
    """Calls fn until it returns something true. OSError counts as "not yet"."""
    end = time.monotonic() + timeout
    last = None
    while True:
        try:
            value = fn()
            if value:
                return value
        except OSError as e:
            last = e
        if time.monotonic() >= end:
            raise MeshError(f"waited {timeout:g} s for {what}" + (f" ({last})" if last else ""))
        time.sleep(pause)


class Place:
    """Namespaces PREFIX-NAME joined by the bridge br0 in PREFIX-net, whose address is the first of the network."""

    def __init__(self, prefix, network="10.42.0"):
        self.prefix, self.network = prefix, network
        self.hub = "net"
        self.hub_ip = f"{network}.1"
        self.hosts = {}   # name → address
        self.procs = []   # running Process
        self.names = {}   # host names for /etc/hosts in every namespace

    def ns(self, name):
        return f"{self.prefix}-{name}"

    def build(self, hosts, names):
        self.names = names
        if not HOSTS.exists():  # a minimal system; `ip netns exec` needs a file to put its own over
            HOSTS.write_text(HOSTS_OURS)
        self._add(self.hub)
        hub = self.ns(self.hub)
        run(["ip", "-n", hub, "link", "add", "br0", "type", "bridge"])
        run(["ip", "-n", hub, "addr", "add", f"{self.hub_ip}/24", "dev", "br0"])
        run(["ip", "-n", hub, "link", "set", "br0", "up"])
        for i, (name, address) in enumerate(hosts.items()):
            self._add(name)
            ns = self.ns(name)
            run(["ip", "link", "add", "eth0", "netns", ns, "type", "veth", "peer", "name", f"port{i}", "netns", hub])
            run(["ip", "-n", hub, "link", "set", f"port{i}", "master", "br0", "up"])
            run(["ip", "-n", ns, "addr", "add", f"{address}/24", "dev", "eth0"])
            run(["ip", "-n", ns, "link", "set", "eth0", "up"])
            run(["ip", "-n", ns, "route", "add", "default", "via", self.hub_ip])
            self.hosts[name] = address
        return self

    def _add(self, name):
        ns = self.ns(name)
        run(["ip", "netns", "add", ns])
        run(["ip", "-n", ns, "link", "set", "lo", "up"])
        etc = pathlib.Path("/etc/netns") / ns  # `ip netns exec` shows these files as /etc/…
        etc.mkdir(parents=True, exist_ok=True)
        lines = ["127.0.0.1 localhost", "::1 localhost"] + [f"{ip} {host}" for host, ip in self.names.items()]
        (etc / "hosts").write_text("\n".join(lines) + "\n")

    def call(self, name, fn, *args):
        """fn(*args) on a thread inside a namespace; sockets made there stay there."""
        box = {}

        def body():
            try:
                with open(f"/run/netns/{self.ns(name)}", "rb") as f:
                    if libc.setns(f.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"setns {self.ns(name)}")
                box["value"] = fn(*args)
            except BaseException as e:  # handed to the caller
                box["error"] = e

        t = threading.Thread(target=body, daemon=True)
        t.start()
        t.join()
        if "error" in box:
            raise box["error"]
        return box.get("value")

    def connect(self, name, address, port, timeout=5):
        return self.call(name, socket.create_connection, (address, port), timeout)

    def argv(self, name, argv, uid=None):
        cmd = ["ip", "netns", "exec", self.ns(name)]
        if uid is not None:
            cmd += ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
        return cmd + [str(a) for a in argv]

    def spawn(self, label, name, argv, log, uid=None, env=None, cwd=None, **kw):
        p = Process(label, self.argv(name, argv, uid), log, env, cwd, **kw)
        self.procs.append(p)
        return p

    def stop(self, procs=None, grace=2.0):
        """SIGTERM to all at once, SIGKILL to what is left after grace seconds."""
        procs = list(self.procs if procs is None else procs)
        for p in procs:
            p.signal(signal.SIGTERM)
        end = time.monotonic() + grace
        for p in procs:
            p.wait(max(0.0, end - time.monotonic()))
        for p in procs:
            p.kill()
            if p in self.procs:
                self.procs.remove(p)

    def close(self, grace=1.0):
        self.stop(grace=grace)
        remove_namespaces(self.prefix)


class Process:
    """A child with its log file. Its own session, so that Ctrl-C reaches only us, who then end it."""

    def __init__(self, label, argv, log, env=None, cwd=None, stdin=subprocess.DEVNULL, stdout=None):
        self.label, self.log = label, pathlib.Path(log)
        with open(log, "ab") as out:
            self.p = subprocess.Popen(argv, stdin=stdin, stdout=stdout or out, stderr=out, env=env, cwd=cwd, start_new_session=True)

    @property
    def pid(self):
        return self.p.pid

    def alive(self):
        return self.p.poll() is None

    def signal(self, number):
        if self.alive():
            try:
                os.killpg(self.p.pid, number)
            except ProcessLookupError:
                pass

    def wait(self, timeout):
        try:
            return self.p.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def kill(self):
        self.signal(signal.SIGKILL)
        self.p.wait()

    def tail(self, n=15):
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-n:])
        except OSError as e:
            return str(e)


def namespaces(prefix):
    out = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    return [line.split()[0] for line in out.splitlines() if line.startswith(prefix + "-")]


def remove_namespaces(prefix):
    """Ends every process in the namespaces of this prefix, and removes them. Whatever is there or not, it leaves nothing."""
    for ns in namespaces(prefix):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            pids = subprocess.run(["ip", "netns", "pids", ns], capture_output=True, text=True, check=False).stdout.split()
            for pid in pids:
                try:
                    os.kill(int(pid), sig)
                except (ProcessLookupError, ValueError):
                    pass
            if pids and sig == signal.SIGTERM:
                time.sleep(0.1)
        subprocess.run(["ip", "netns", "del", ns], capture_output=True, check=False)
    etc = pathlib.Path("/etc/netns")
    if etc.is_dir():
        for d in etc.glob(prefix + "-*"):
            shutil.rmtree(d, ignore_errors=True)
        try:
            etc.rmdir()  # only when nobody else uses it
            if HOSTS.read_text() == HOSTS_OURS:
                HOSTS.unlink()
        except OSError:
            pass


def http(place, name, address, port, path="/", headers=None, method="GET", body=b"", timeout=5):
    """One HTTP/1.1 request on a connection of its own from a namespace: (status, headers in lower case, body)."""
    s = place.connect(name, address, port, timeout)
    with s:
        s.settimeout(timeout)
        return http_on(s, f"{address}:{port}", path, headers, method, body)


def http_on(sock, host, path="/", headers=None, method="GET", body=b""):
    headers = {"Host": host, "Connection": "close", **(headers or {})}
    if body:
        headers["Content-Length"] = len(body)
    lines = [f"{method} {path} HTTP/1.1"] + [f"{k}: {v}" for k, v in headers.items()]
    sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    data = b""
    while True:
        part = sock.recv(65536)
        if not part:
            break
        data += part
    head, sep, rest = data.partition(b"\r\n\r\n")
    if not sep:
        raise ConnectionError("closed before an answer" if not data else f"no HTTP answer: {data[:40]!r}")
    first, *fields = head.decode("latin-1").split("\r\n")
    got = {}
    for f in fields:
        k, _, v = f.partition(":")
        got[k.strip().lower()] = v.strip()
    if got.get("transfer-encoding", "").lower() == "chunked":
        rest = unchunk(rest)
    return int(first.split()[1]), got, rest


def unchunk(data):
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        n = int(size.split(b";")[0], 16)
        if n == 0:
            return out
        out, data = out + data[:n], data[n + 2:]
    raise ConnectionError("chunked body ended early")


class Sidecars:
    """remora-control in the hub and remora-init + remora-proxy in the hosts, from the programs in `binaries`."""

    def __init__(self, place, folder, binaries):
        self.place, self.folder = place, pathlib.Path(folder)
        self.bin = self.folder / "bin"  # a copy: user 1337 may not be able to enter the build folder
        self.bin.mkdir()
        for name in ("remora-init", "remora-control", "remora-proxy", "remoractl"):
            if (pathlib.Path(binaries) / name).exists():
                shutil.copy2(pathlib.Path(binaries) / name, self.bin / name)
        self.state = self.folder / "state"
        self.config = self.folder / "config"
        self.control = None

    def log(self, label):
        return self.folder / "logs" / f"{label}.log"

    def start_control(self, *extra):
        ip = self.place.hub_ip
        self.control = self.place.spawn(
            "remora-control", self.place.hub,
            [self.bin / "remora-control", "serve", "--config", self.config, "--state", self.state, "--grpc-addr", "127.0.0.1:15010",
             "--secure-addr", f"{ip}:15012", "--http-addr", "127.0.0.1:15014", "--san", ip, *extra], self.log("remora-control"))
        wait_for("remora-control to be ready", self.control_ready, 15)

    def control_ready(self):
        if not self.control.alive():
            raise MeshError(f"remora-control ended with status {self.control.p.returncode}; {self.control.log}:\n{self.control.tail()}")
        return http(self.place, self.place.hub, "127.0.0.1", 15014, "/ready", timeout=2)[0] == 200

    def init(self, name):
        p = subprocess.run(self.place.argv(name, [self.bin / "remora-init", *INIT_ARGS]), stdin=subprocess.DEVNULL, capture_output=True,
                           text=True, timeout=30, check=False)
        self.log(f"{name}-init").write_text(p.stdout + p.stderr)
        if p.returncode:
            raise MeshError(f"remora-init in {self.place.ns(name)} failed ({p.returncode}): {(p.stderr or p.stdout).strip()}")

    def start_proxy(self, name, app, version, account, token=None, more=None, **config):
        """The environment and the files that Istio's injector gives to a sidecar; the working directory stands for "/". more: variables; config: of
        PROXY_CONFIG."""
        home = self.folder / "proxies" / name
        tokens = home / "var/run/secrets/tokens"
        tokens.mkdir(parents=True, exist_ok=True)
        token = token or run([self.bin / "remora-control", "token", "--state", self.state, "--namespace", "default",
                              "--service-account", account])
        (tokens / "istio-token").write_text(token.strip())
        root = home / "root-cert.pem"
        shutil.copy(self.state / "root-cert.pem", root)
        for d in [home, *home.rglob("*")]:
            os.chown(d, PROXY_UID, PROXY_UID)
            d.chmod(0o700 if d.is_dir() else 0o600)
        control = f"{self.place.hub_ip}:15012"
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(home), "POD_NAME": name, "POD_NAMESPACE": "default",
               "INSTANCE_IP": self.place.hosts[name], "POD_IP": self.place.hosts[name], "SERVICE_ACCOUNT": account,
               "ISTIO_META_CLUSTER_ID": "Kubernetes", "ISTIO_METAJSON_LABELS": json.dumps({"app": app, "version": version}),
               "PROXY_CONFIG": json.dumps({"discoveryAddress": control, **config}), "CA_ADDR": control, "XDS_ROOT_CA": str(root),
               "CA_ROOT_CA": str(root), **(more or {})}
        for k in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
            if k in os.environ:
                env[k] = os.environ[k]
        return self.place.spawn(f"{name} proxy", name, [self.bin / "remora-proxy", "sidecar"], self.log(f"{name}-proxy"), PROXY_UID, env, home)

    def wait_proxy(self, p, name, timeout=20):
        def ready():
            if not p.alive():
                raise MeshError(f"remora-proxy in {self.place.ns(name)} ended with status {p.p.returncode}; {p.log}:\n{p.tail()}")
            return http(self.place, name, "127.0.0.1", 15021, "/healthz/ready", timeout=2)[0] == 200
        wait_for(f"the sidecar of {name} to be ready (log: {p.log})", ready, timeout)

    def admin(self, name, path):
        return http(self.place, name, "127.0.0.1", 15000, path)[2].decode()


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        for line in f:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


def edit(path, old, new):
    """Replaces text in a file as a careful editor does: a new file, moved over the old one. Returns the moment of the move."""
    path = pathlib.Path(path)
    text = path.read_text()
    if old not in text:
        raise MeshError(f"{path} does not contain {old!r}")
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text.replace(old, new))
    os.rename(fresh, path)
    return time.monotonic()


def interpreter():
    return "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable

# SPDX-License-Identifier: Apache-2.0
"""What the integration tests share: free ports, a remora-proxy from a bootstrap, backends that do as they are told, and a client
that sends exactly the bytes it is given."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("REMORA_BIN", ROOT / "build/bin"))
sys.path.insert(0, str(ROOT / "tests/demo"))

from mesh import MeshError, remove_namespaces, unchunk, wait_for  # noqa: E402,F401  (used by the tests)

LOOPBACK = "127.0.0.1"
HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
TCP_PROXY = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
ROUTER = {"name": "envoy.filters.http.router",
          "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
DOWN_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
UP_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_held, _held_lock = [], threading.Lock()


@contextlib.contextmanager
def a_world(make, prefix):
    """make(folder).up() in namespaces of this prefix, and nothing of it afterwards. The folder is open to user 1337, which pytest's own are not."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="remora-world-"))
    folder.chmod(0o755)
    w = make(folder)
    try:
        w.up()
        yield w
    finally:
        for log in sorted((folder / "logs").iterdir()):  # shown when something failed
            print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:]))
        w.place.close()
        remove_namespaces(prefix)
        shutil.rmtree(folder, ignore_errors=True)


def free_port():
    """A port nobody listens on. Kept bound (not listening) by nobody: the next bind may race, so ports are drawn below the
    ephemeral range, at random."""
    for _ in range(200):
        with _held_lock:
            port = random.randint(18000, 31000)
            if port in _held:
                continue
            with socket.socket() as s:
                try:
                    s.bind((LOOPBACK, port))
                except OSError:
                    continue
            _held.append(port)
            return port
    raise RuntimeError("no free port")


# --- bootstrap pieces, in Envoy's shapes ---

def address(port, host=LOOPBACK):
    return {"socket_address": {"address": host, "port_value": port}}


def cluster(name, ports, tls=None, **more):
    c = {"name": name, "type": "STATIC", "connect_timeout": "1s", "lb_policy": "ROUND_ROBIN",
         "load_assignment": {"cluster_name": name, "endpoints": [
             {"lb_endpoints": [{"endpoint": {"address": address(p)}} for p in ports]}]}}
    if tls:
        c["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": UP_TLS, **tls}}
    return {**c, **more}


def http2_upstream(common=None, **options):
    """For cluster(): HTTP/2 with these Http2ProtocolOptions, and what HTTP/1.1 has, too."""
    o = {"@type": f"type.googleapis.com/{HTTP_OPTIONS}", "explicit_http_config": {"http2_protocol_options": options}}
    if common:
        o["common_http_protocol_options"] = common
    return {"typed_extension_protocol_options": {HTTP_OPTIONS: o}}


def route(cluster_name, prefix="/", match=None, **action):
    return {"match": {"prefix": prefix, **(match or {})}, "route": {"cluster": cluster_name, **action}}


def hcm(routes, domains=("*",), virtual_hosts=None, **more):
    vh = virtual_hosts or [{"name": "all", "domains": list(domains), "routes": routes}]
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": HCM, "stat_prefix": "in", "http_filters": [ROUTER], "route_config": {"name": "local", "virtual_hosts": vh}, **more}}


def tcp_proxy(cluster_name, **more):
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": TCP_PROXY, "stat_prefix": "tcp", "cluster": cluster_name, **more}}


def listener(port, network_filter, tls=None, name=None, **more):
    chain = {"filters": [network_filter]}
    if tls:
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": DOWN_TLS, **tls}}
    return {"name": name or f"l{port}", "address": address(port), "filter_chains": [chain], **more}


def tls_files(folder, sans=None):
    """common_tls_context of the files that mint-certs made; sans: SAN prefixes or exact names that the peer must have."""
    context = {"tls_certificates": [{"certificate_chain": {"filename": f"{folder}/cert-chain.pem"},
                                     "private_key": {"filename": f"{folder}/key.pem"}}],
               "validation_context": {"trusted_ca": {"filename": f"{folder}/root-cert.pem"}}}
    if sans:
        context["validation_context"]["match_typed_subject_alt_names"] = [
            {"san_type": "URI", "matcher": {"exact": s}} for s in sans]
    return {"common_tls_context": context}


def mint(folder, out, identity):
    subprocess.run([ROOT / "tools/mint-certs", "-o", out, str(folder), identity], check=True, capture_output=True)
    return pathlib.Path(folder) / out


class Proxy:
    """remora-proxy -c FILE. Waits until it is ready; stop() ends it and checks that it ended by itself with status 0."""

    def __init__(self, folder, listeners, clusters, *, concurrency=1, wait=True, limits=None, args=("--drain-time-s", "1"), env=None, as_yaml=False, **bootstrap):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.admin_port = free_port()
        self.config = {"node": {"id": "test", "cluster": "test"}, "admin": {"address": address(self.admin_port)},
                       "static_resources": {"listeners": listeners, "clusters": clusters}, **bootstrap}
        path = self.folder / ("bootstrap.yaml" if as_yaml else "bootstrap.json")
        path.write_text(to_yaml(self.config) if as_yaml else json.dumps(self.config, indent=1))
        self.log = self.folder / "proxy.log"

        def before_exec():  # makes a fork of the process with all its threads, at which a gRPC server beside aborts now and then
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (limits, limits))
        with open(self.log, "ab") as out:
            self.p = subprocess.Popen([BIN / "remora-proxy", "-c", path, "--concurrency", str(concurrency), *args], stdin=subprocess.DEVNULL,
                                      stdout=out, stderr=out, preexec_fn=before_exec if limits else None, env={**os.environ, **(env or {})}, cwd=self.folder)
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout=10):
        def ready():
            if self.p.poll() is not None:
                raise MeshError(f"remora-proxy ended with status {self.p.returncode}:\n{self.text()}")
            return self.get("/ready").strip() == "LIVE"
        wait_for(f"remora-proxy to be ready; log:\n{self.text()}", ready, timeout)

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def get(self, path, method="GET"):
        r = urllib.request.Request(f"http://{LOOPBACK}:{self.admin_port}{path}", method=method)
        with urllib.request.urlopen(r, timeout=5) as answer:
            return answer.read().decode()

    def stat(self, name):
        for line in self.get("/stats").splitlines():
            k, _, v = line.rpartition(": ")
            if k == name:
                return int(v)
        return None

    def stat_like(self, *parts):
        """Sum of the counters whose name holds every part."""
        total = 0
        for line in self.get("/stats").splitlines():
            k, _, v = line.rpartition(": ")
            if all(x in k for x in parts) and v.isdigit():
                total += int(v)
        return total

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.p.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_kib(self):
        for line in pathlib.Path(f"/proc/{self.p.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0

    def stop(self, timeout=8):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
        try:
            self.p.wait(timeout)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
            raise MeshError(f"remora-proxy did not end {timeout} s after SIGTERM:\n{self.text()}") from None
        if self.p.returncode != 0:
            raise MeshError(f"remora-proxy ended with status {self.p.returncode}:\n{self.text()[-4000:]}")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind:  # the test has failed already: end quietly
            self.p.kill()
            self.p.wait()
            print(self.text()[-3000:])
        else:
            self.stop()
        return False


def to_yaml(x, depth=0):
    """Enough YAML for a bootstrap: block style, JSON scalars."""
    pad = "  " * depth
    if isinstance(x, dict) and x:
        return "".join(f"{pad}{json.dumps(k) if not k.isidentifier() else k}:" +
                       (f" {json.dumps(v)}\n" if not isinstance(v, (dict, list)) or not v else "\n" + to_yaml(v, depth + 1))
                       for k, v in x.items())
    if isinstance(x, list) and x:
        return "".join(f"{pad}-" + (f" {json.dumps(v)}\n" if not isinstance(v, (dict, list)) or not v else "\n" + to_yaml(v, depth + 1))
                       for v in x)
    return pad + json.dumps(x) + "\n"


# --- backends ---

class Backend:
    """A TCP server; fn(connection, self) runs on a thread for each connection. `seen` is what fn chose to remember."""

    def __init__(self, fn, port=None, tls=None):
        self.fn, self.tls = fn, tls
        self.seen, self.connections = [], 0
        self.sock = socket.create_server((LOOPBACK, port or free_port()), backlog=512)
        self.port = self.sock.getsockname()[1]
        self.open = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(c)
            threading.Thread(target=self._one, args=(c,), daemon=True).start()

    def _one(self, c):
        try:
            c.settimeout(10)
            if self.tls:
                c = self.tls.wrap_socket(c, server_side=True)
            self.fn(c, self)
        except OSError:
            pass
        finally:
            c.close()

    def close(self):
        # shutdown wakes accept(); close alone would leave the thread in it and the port listening
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()
        for c in self.open:
            c.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
        return False


def read_message(f):
    """One HTTP/1 message from a file object: (first line, [(name, value)], body). None at the end."""
    first = f.readline()
    if not first:
        return None
    headers = []
    while True:
        line = f.readline()
        if line in (b"\r\n", b""):
            break
        k, _, v = line.decode("latin-1").partition(":")
        headers.append((k.strip().lower(), v.strip()))
    h = dict(headers)
    if h.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while True:
            n = int(f.readline().split(b";")[0], 16)
            if n == 0:
                while True:
                    line = f.readline()
                    if line in (b"\r\n", b""):
                        break
                    k, _, v = line.decode("latin-1").partition(":")
                    headers.append(("trailer " + k.strip().lower(), v.strip()))
                break
            body += f.read(n)
            f.readline()
    else:
        body = f.read(int(h.get("content-length", 0)))
    return first.decode("latin-1").strip(), headers, body


def web(name="a", answer=None):
    """A backend function: answers every request with 200 and its name, or with what answer(first, headers, body) gives."""
    def fn(c, backend):
        f = c.makefile("rb")
        while True:
            m = read_message(f)
            if m is None:
                return
            backend.seen.append(m)
            raw = answer(*m) if answer else None
            if raw is None:
                raw = f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\nX-Name: {name}\r\n\r\n{name}".encode()
            c.sendall(raw)
    return fn


def in_front_of(proxy, backend, answer, upstream):
    """(port, proxy) in front of answer(first, headers, body); no limit on connections and requests. upstream: "HTTP/1.1" or "HTTP/2"."""
    most = {"circuit_breakers": {"thresholds": [{"max_connections": 9999, "max_pending_requests": 9999, "max_requests": 9999}]}}
    port, b = free_port(), backend(web(answer=answer))
    to, kw = b.port, dict(most)
    if upstream == "HTTP/2":  # a second proxy, whose flow control is a real one's
        to = free_port()
        proxy([listener(to, hcm([route("a", timeout="0s")]))], [cluster("a", [b.port], **most)])
        kw.update(http2_upstream())
    return port, proxy([listener(port, hcm([route("a", timeout="0s")]))], [cluster("a", [to], **kw)])


def echo(c, backend):
    while True:
        data = c.recv(65536)
        if not data:
            c.shutdown(socket.SHUT_WR)
            return
        c.sendall(data)


# --- client ---

def flood_until(stop):
    """A handler that sends until nobody takes it for half a second, or stop (threading.Event) is set; backend.seen: the bytes of each send."""
    def flood(c, backend):
        c.settimeout(0.5)
        block = b"x" * 65536
        while not stop.is_set():
            try:
                backend.seen.append(c.send(block))
            except TimeoutError:
                return
    return flood


def connect(port, timeout=5):
    s = socket.create_connection((LOOPBACK, port), timeout)
    s.settimeout(timeout)
    return s


class Answer:
    def __init__(self, first, headers, body):
        self.status = int(first.split()[1])
        self.first, self.headers, self.fields, self.body = first, dict(headers), headers, body

    def __repr__(self):
        return f"{self.first} {self.headers} {self.body[:200]!r}"


def read_answer(f, head=False):
    """One response; interim 1xx ones are passed over. None when the connection ended before one began."""
    while True:
        first = f.readline()
        if not first:
            return None
        headers = []
        while True:
            line = f.readline()
            if line in (b"\r\n", b""):
                break
            k, _, v = line.decode("latin-1").partition(":")
            headers.append((k.strip().lower(), v.strip()))
        status = int(first.split()[1])
        if status // 100 == 1 and status != 101:
            continue
        h = dict(headers)
        if head or status in (204, 304):
            body = b""
        elif h.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while True:
                line = f.readline()
                if not line:
                    raise ConnectionError("chunked body ended early")
                n = int(line.split(b";")[0], 16)
                if n == 0:
                    while True:
                        line = f.readline()
                        if line in (b"\r\n", b""):
                            break
                        k, _, v = line.decode("latin-1").partition(":")
                        headers.append(("trailer " + k.strip().lower(), v.strip()))
                    break
                body += f.read(n)
                f.readline()
        elif "content-length" in h:
            body = f.read(int(h["content-length"]))
            if len(body) < int(h["content-length"]):
                raise ConnectionError(f"body of {h['content-length']} bytes ended after {len(body)}")
        else:
            body = f.read()
        return Answer(first.decode("latin-1").strip(), headers, body)


def ask(port, path="/", method="GET", headers=None, body=None, host="test"):
    """One request on a connection of its own."""
    with connect(port) as s:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"] + [f"{k}: {v}" for k, v in (headers or {}).items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        s.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))
        return read_answer(s.makefile("rb"), method == "HEAD")


def send_raw(port, data, wait=3.0):
    """Sends bytes, and reads until the other side closes or says nothing for `wait` seconds. (bytes, closed)."""
    with connect(port, wait) as s:
        try:
            s.sendall(data)
        except OSError:
            pass
        out = b""
        while True:
            try:
                part = s.recv(65536)
            except TimeoutError:
                return out, False
            except OSError:
                return out, True
            if not part:
                return out, True
            out += part


def eventually(fn, timeout=5, what="condition"):
    return wait_for(what, fn, timeout)


def sleep(seconds):
    time.sleep(seconds)

# SPDX-License-Identifier: Apache-2.0
"""Runs the same Envoy-shaped files and requests through Envoy or remora-proxy, and notes what client, upstream and access log saw."""

import base64
import json
import pathlib
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import yaml

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

import harness  # noqa: E402

try:
    import hpack  # noqa: F401
    import http2
except ImportError:  # python3-hpack is not there
    http2 = None
try:
    import authz
except ImportError:  # python3-grpcio is not there
    authz = None
try:
    import limits
except ImportError:
    limits = None

VECTORS = HERE.parent / "golden/jose"  # tokens and key sets
LOOPBACK = "127.0.0.1"
BACKENDS = ("a", "b", "c", "m")  # each echoes what it sees; m is for mirrors and takes no step of a case's script
RECORD_S = 3                     # for log entries of Envoy; those that do not come are recorded as missing
WAIT_S = 20                      # for anything that must come; generous, since other work may hold the machine
LOG = ("CASE", "%RESPONSE_CODE%", "%RESPONSE_FLAGS%", "%RESPONSE_CODE_DETAILS%", "%ROUTE_NAME%", "%UPSTREAM_CLUSTER%",
       "%UPSTREAM_REQUEST_ATTEMPT_COUNT%")
LOG_NAMES = ("case", "code", "flags", "details", "route", "cluster", "attempts")
MORE_LOG = ("%PROTOCOL%", "%UPSTREAM_PROTOCOL%", "%GRPC_STATUS%", "%BYTES_RECEIVED%", "%BYTES_SENT%")  # of files that name bridges
MORE_LOG_NAMES = ("protocol", "upstream_protocol", "grpc", "received", "sent")
H2_OPTIONS = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


# --- backends ---

class Scripts:
    """What the backends do with each case, and what they saw of it."""

    def __init__(self):
        self.lock = threading.Condition()
        self.steps, self.seen = {}, {}

    def begin(self, case, steps):
        with self.lock:
            self.steps[case], self.seen[case] = list(steps), []

    def early(self, case):
        """Whether the next step answers before the request has ended."""
        steps = self.steps.get(case)
        return bool(steps) and isinstance(steps[0], dict) and bool(steps[0].get("early") or steps[0].get("tunnel"))

    def expecting(self, case):
        """Whether the next step asks for the body with 100."""
        steps = self.steps.get(case)
        return bool(steps) and isinstance(steps[0], dict) and steps[0].get("asks", False)

    def next(self, case, name, request, take=True):
        with self.lock:
            self.seen.setdefault(case, []).append(request)
            self.lock.notify_all()
            steps = self.steps.get(case)
            return steps.pop(0) if take and steps and name != "m" else {}

    def expect(self, request):
        """The request is left without a whole answer: how the proxy gives it up is waited for."""
        with self.lock:
            request.setdefault("end", None)

    def end(self, request, how):
        with self.lock:
            request["end"] = how
            self.lock.notify_all()

    def wait(self, case, n):
        with self.lock:
            self.lock.wait_for(lambda: len(self.seen[case]) >= n and all(r.get("end", "") is not None for r in self.seen[case]), WAIT_S)
            return list(self.seen[case])


def answer(name, step):
    if isinstance(step, int):
        step = {"status": step}
    tunnel = step.get("tunnel")
    status = step.get("status", 200 if tunnel == "connect" else 101 if tunnel else 200)
    body = step.get("body", name).encode()
    first = ""
    for i in step.get("interim", []):
        i = {"status": i} if isinstance(i, int) else i
        first += "\r\n".join([f"HTTP/1.1 {i['status']} X", *i.get("headers", [])]) + "\r\n\r\n"
    lines = [f"HTTP/1.1 {status} X", f"x-backend: {name}"]
    for h in step.get("headers", []) + step.get("headers1", []):
        lines.append(h)
    if "trailers" in step:
        lines.append("transfer-encoding: chunked")
        body = chunked(body, step["trailers"])
    elif tunnel or status in (204, 304):
        body = b""
    elif not step.get("no_length"):
        lines.append(f"content-length: {step.get('length', len(body))}")
    return (first + "\r\n".join(lines)).encode() + b"\r\n\r\n", body


def chunked(body, trailers):
    return (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n" + "".join(t + "\r\n" for t in trailers).encode() + b"\r\n"


def read_head(f):
    """A head alone: the body stays unread."""
    first, headers = f.readline(), []
    while (line := f.readline()) not in (b"\r\n", b""):
        k, _, v = line.decode("latin-1").partition(":")
        headers.append((k.strip().lower(), v.strip()))
    return first.decode("latin-1").strip(), headers, b""


class Again:
    """Lines that were read already, and what follows them."""

    def __init__(self, head, f):
        self.lines, self.f = head.splitlines(True), f

    def readline(self):
        return self.lines.pop(0) if self.lines else self.f.readline()

    def read(self, *n):
        return self.f.read(*n)


def head_bytes(f):
    lines = [f.readline()]
    while lines[-1] not in (b"\r\n", b""):
        lines.append(f.readline())
    return b"".join(lines)


def is_http2(c):
    got = b""
    while len(got) < 4 and b"PRI ".startswith(got):
        more = c.recv(4, socket.MSG_PEEK)
        if len(more) == len(got):
            return False
        got = more
    return got == b"PRI "


def serve(name, scripts, h2):
    def fn(c, _backend):
        if h2 is not None and is_http2(c):
            http2.Server(c, name, scripts, h2).run()
            return
        f = c.makefile("rb")
        while True:
            head = head_bytes(f)
            if not head.strip():
                return
            case = dict(read_head(Again(head, f))[1]).get("x-case", "")
            if scripts.expecting(case):
                c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            try:
                line, headers, body = (read_head if scripts.early(case) else harness.read_message)(Again(head, f))
            except ValueError:  # cut off within a chunked body
                return
            step = scripts.next(case, name, {"to": name, "line": line, "headers": headers, "body": body.decode("latin-1")})
            if step == "stall":  # until the proxy gives up
                f.read(1)
                return
            if step == "reset":
                c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                c.close()
                f.close()
                return
            if step == "close" or (isinstance(step, dict) and ("goaway" in step or "rst" in step)):
                return
            head, data = answer(name, step)
            half = isinstance(step, dict) and step.get("half")
            if isinstance(step, dict) and "wait_ms" in step:
                time.sleep(step["wait_ms"] / 1000)
            if line.startswith("HEAD "):
                data = b""
            c.sendall(head + data)
            if isinstance(step, dict) and step.get("tunnel"):
                capitals(c, f)
                return
            if half == "stall":
                f.read(1)
                return
            if half or (isinstance(step, dict) and step.get("close")):
                return
    return fn


def capitals(c, f):
    """The far end of a tunnel: gives back in capitals what comes; ends where it reads "bye"."""
    while data := f.read1(65536):
        c.sendall(data.upper())
        if b"bye" in data:
            c.shutdown(socket.SHUT_WR)


# --- files ---

def cluster(name, ports, **more):
    return harness.cluster(name, ports, **{"connect_timeout": "5s", **more})


def cors_and_fault(filters):
    known = {"cors": "cors.v3.Cors", "fault": "fault.v3.HTTPFault", "router": "router.v3.Router", "grpc_stats": "grpc_stats.v3.FilterConfig",
             "grpc_web": "grpc_web.v3.GrpcWeb", "jwt_authn": "jwt_authn.v3.JwtAuthentication", "ext_authz": "ext_authz.v3.ExtAuthz", "local_ratelimit": "local_ratelimit.v3.LocalRateLimit", "ratelimit": "ratelimit.v3.RateLimit",
             "rbac": "rbac.v3.RBAC"}
    out = []
    for f in filters:
        name, cfg = (f, {}) if isinstance(f, str) else next(iter(f.items()))
        out.append({"name": f"envoy.filters.http.{name}",
                    "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.filters.http.{known[name]}", **cfg}})
    return out


def build_hcm(spec, name, log):
    cfg = {"@type": harness.HCM, "stat_prefix": name, "http_filters": cors_and_fault(spec.get("filters", ["router"])),
           "access_log": [{"name": "envoy.access_loggers.file", "typed_config": {
               "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": str(log),
               "log_format": {"text_format_source": {"inline_string": "\t".join(("%REQ(X-CASE)%",) + LOG[1:] + (MORE_LOG if "bridges" in spec else ())) + "\n"}}}}],
           "route_config": {"name": name, "virtual_hosts": spec.get("virtual_hosts", []), **spec.get("route_config", {})},
           **spec.get("hcm", {})}
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": cfg}


class Setup:
    """One file's proxy, with its backends."""

    def __init__(self, spec, program, kind, folder, up="1"):
        self.spec, self.kind, self.folder, self.up = spec, kind, pathlib.Path(folder), up
        self.scripts = Scripts()
        self.backends = {n: harness.Backend(serve(n, self.scripts, spec.get("h2", {}) if up == "2" else None)) for n in BACKENDS}
        self.authz = authz.Server() if spec.get("authz") else None
        self.limits = limits.Server() if spec.get("limits") else None
        self.dead = socket.socket()
        self.dead.bind((LOOPBACK, 0))  # bound and not listening: connections are refused
        self.ports, self.tls = {}, set()
        self.log = self.folder / "access.log"
        self.log.write_text("")
        self.program = program
        self._start()

    def _names(self):
        names = {f"@{n}@": b.port for n, b in self.backends.items()}
        names["@dead@"] = self.dead.getsockname()[1]
        if self.authz:
            names["@authz@"] = self.authz.port
        if self.limits:
            names["@limits@"] = self.limits.port
        for n, p in self.ports.items():
            names[f"@{n}@"] = p
        return names

    def _config(self):
        listeners = []
        shared = {k: self.spec[k] for k in ("virtual_hosts", "route_config", "hcm", "filters", "bridges") if k in self.spec}
        for name, over in (self.spec.get("listeners") or {"main": {}}).items():
            merged = {**shared, **over, "hcm": {**shared.get("hcm", {}), **over.get("hcm", {})},
                      "route_config": {**shared.get("route_config", {}), **over.get("route_config", {})}}
            self.ports[name] = harness.free_port()
            tls = None
            if over.get("tls"):
                tls = harness.tls_files(self._certificate())
                tls["common_tls_context"]["alpn_protocols"] = over["tls"]
                self.tls.add(name)
            listeners.append(harness.listener(self.ports[name], build_hcm(merged, name, self.log), tls, name=name, **over.get("listener", {})))
        b = {n: x.port for n, x in self.backends.items()}
        more = self._protocol()
        clusters = [cluster(n, [p], **more) for n, p in b.items()]
        clusters += [cluster("ab", [b["a"], b["b"]], **more), cluster("dead", [self.dead.getsockname()[1]], **more), cluster("empty", [], **more)]
        if self.authz:
            clusters.append(cluster("authz", [self.authz.port], **harness.http2_upstream()))
        if self.limits:
            clusters.append(cluster("limits", [self.limits.port], **harness.http2_upstream()))
        clusters += [{**more, **c} for c in self.spec.get("clusters", [])]
        self.admin = harness.free_port()
        config = {"node": {"id": "parity", "cluster": "parity"}, "admin": {"address": harness.address(self.admin)},
                  "static_resources": {"listeners": listeners, "clusters": clusters}, **self.spec.get("bootstrap", {})}
        text = json.dumps(config, indent=1)
        for mark, port in self._names().items():
            text = text.replace(f'"{mark}"', str(port)).replace(mark, str(port))
        return text

    def _certificate(self):
        place = self.folder / "tls"
        return place if place.exists() else harness.mint(self.folder, "tls", "spiffe://cluster.local/ns/test/sa/test")

    def _protocol(self):
        """What all clusters of the file have in common."""
        options = self.spec.get("protocol_options", {})
        if self.up == "2":
            options = {**options, "explicit_http_config": {"http2_protocol_options": self.spec.get("h2", {}).get("options", {})}}
        elif options:
            options = {"explicit_http_config": {"http_protocol_options": {}}, **options}
        more = self.spec.get("cluster", {})
        if options:
            more = {**more, "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": H2_OPTIONS, **options}}}
        return more

    def _start(self):
        path = self.folder / "bootstrap.json"
        path.write_text(self._config())
        args = ["-c", str(path), "--concurrency", "1"]
        if self.kind == "envoy":
            args += ["--disable-hot-restart", "-l", "warning", "--file-flush-interval-msec", "20"]
        else:
            args += ["--drain-time-s", "0"]
        self.out = self.folder / "proxy.log"
        with open(self.out, "wb") as out:
            self.p = subprocess.Popen([self.program, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.folder)

        def ready():
            if self.p.poll() is not None:
                raise harness.MeshError(f"{self.program} ended with status {self.p.returncode}:\n{self.out.read_text(errors='replace')[-3000:]}")
            for port in [self.admin, *self.ports.values()]:
                socket.create_connection((LOOPBACK, port), 1).close()
            return True
        harness.wait_for(f"{self.program} to listen", ready, WAIT_S)

    def close(self):
        self.p.terminate()
        try:
            self.p.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
        for b in self.backends.values():
            b.close()
        for x in filter(None, (self.authz, self.limits)):
            x.close()
        self.dead.close()
        if self.kind == "remora" and self.p.returncode != 0:  # also what a sanitizer found
            raise harness.MeshError(f"{self.program} ended with status {self.p.returncode}:\n{self.out.read_text(errors='replace')[-4000:]}")

    # --- one case ---

    def run(self, case):
        name = case["name"]
        self.scripts.begin(name, case.get("backend", []))
        if self.authz:
            self.authz.begin(name, case.get("authz", []))
        if self.limits:
            self.limits.begin(case.get("limits", []))
        ask = self._ask2 if case.get("down") == "2" else self._ask
        kept = {}
        try:
            answers = [ask(case, kept) for _ in range(case.get("repeat", 1))]
        finally:
            for c in kept.values():
                c.close()
        seen = self.scripts.wait(name, case.get("seen", 0))
        seen = sorted(seen, key=lambda r: r["to"] == "m")
        clean = self._clean
        if case.get("unfinished"):  # how much of it went upstream is a matter of chance
            seen = []
        checks = {}
        if self.authz and case.get("asked") != "perhaps":
            checks["checks"] = [self._check(c) for c in self.authz.wait(name, case.get("asked", 0))]
        if self.limits and case.get("asked") != "perhaps":
            # Envoy says its own address in x-forwarded-for of calls of its own; remora says none there
            checks["asked"] = [{**q, "metadata": clean(tidy([m for m in q["metadata"] if m[0] != "x-forwarded-for"]))}
                               for q in self.limits.wait(case.get("asked", 0))]
        return {**checks, "answers": [a and {**a, "headers": clean(tidy(a["headers"])), "body": clean(a["body"])} for a in answers],
                "upstream": [{"to": r["to"], "line": clean(r["line"]), "headers": clean(tidy(r["headers"], i)), "body": r["body"],
                              **({"end": r["end"]} if "end" in r else {})} for i, r in enumerate(seen)]}

    def _check(self, c):
        """A question to the authorization server, in a form that two proxies can agree on."""
        http = c["message"].get("attributes", {}).get("request", {}).get("http", {})
        fields = list(http.pop("headers", {}).items())
        fields += [(h["key"], base64.b64decode(h["raw_value"]).decode("latin-1")) for h in http.pop("header_map", {}).get("headers", [])]
        d = {**c, "headers": self._clean(tidy(fields))}
        # Envoy also says x-forwarded-for, with an address of the machine
        d["metadata"] = tidy([x.split(": ", 1) for x in c["metadata"] if not x.startswith("x-forwarded-for:")])
        text = self._clean(re.sub(r'"port_value": (\d+)', r'"port_value": "\1"', json.dumps(c["message"])))
        text = re.sub(r'"port_value": "\d+"', '"port_value": "PORT"', text)
        text = re.sub(r'"size": "\d{5,}"', '"size": "MANY"', text)
        text = re.sub(r'"ext_authz_duration": [\d.]+', '"ext_authz_duration": "MS"', text)
        text = re.sub(r'"id": "\d+"', '"id": "ID"', re.sub(r'"time": "[^"]*"', '"time": "TIME"', text))
        return {**d, "message": json.loads(re.sub(OWN, "OWN", text))}

    def _clean(self, x):
        """Takes out what differs from run to run."""
        if isinstance(x, list):
            return [self._clean(y) for y in x]
        for token, mark in self.spec.get("tokens", {}).items():
            x = x.replace(token, mark)
        for mark, port in self._names().items():
            x = re.sub(rf"\b{port}\b", mark, x)
        return x

    def _connect(self, case):
        port = self.ports[case.get("via", next(iter(self.ports)))]
        s = socket.create_connection((LOOPBACK, port), WAIT_S, source_address=(case["from"], 0) if "from" in case else None)
        s.settimeout(WAIT_S)
        return s

    def _tls(self, case):
        if case.get("via", next(iter(self.ports))) not in self.tls:
            return None
        return http2.context(case.get("alpn", ["h2"] if case.get("down") == "2" else ["http/1.1"]))

    def _marks(self, text):
        for mark, p in self._names().items():
            text = text.replace(mark, str(p))
        return text

    def _seen_by_backend(self, case):
        with self.scripts.lock:
            self.scripts.lock.wait_for(lambda: self.scripts.seen[case["name"]], WAIT_S)

    @staticmethod
    def _body(case):
        body = case.get("body")
        return body["text"] * body["times"] if isinstance(body, dict) else body

    def _request1(self, case):
        """(head, body) in HTTP/1."""
        method, _, path = case["request"].partition(" ")
        lines = [f"{method} {path} HTTP/{case.get('version', '1.1')}"]
        if case.get("host", "test.local") is not None:
            lines.append(f"host: {case.get('host', 'test.local')}")
        lines.append(f"x-case: {case['name']}")
        lines += case.get("headers", []) + case.get("headers1", [])
        body, trailers = self._body(case), case.get("trailers")
        data = (body or "").encode("latin-1")
        if trailers is not None:
            lines.append("transfer-encoding: chunked")
            data = chunked(data, trailers)
        elif body is not None:
            lines.append(f"content-length: {len(body) + (100 if case.get('unfinished') else 0)}")
        return self._marks("\r\n".join(lines)).encode("latin-1") + b"\r\n\r\n", data

    def _ask(self, case, kept):
        head, data = self._request1(case)
        s, f = kept.get("s"), kept.get("f")
        if not s:
            s, tls = self._connect(case), self._tls(case)
            if tls:
                s = tls.wrap_socket(s, server_hostname="test.local")
            f = s.makefile("rb")
        if case.get("keep"):
            kept.update(s=s, f=f)
        try:
            s.sendall(head + (b"" if case.get("continue") else data))
            if "cancel" in case:
                self._seen_by_backend(case)
                if case.get("cancel_at") == "head":
                    f.read(1)
                return {"status": 0, "headers": [], "body": "(cancelled)"}
            return read_answer(f, case["request"].startswith("HEAD "), (lambda: s.sendall(data)) if case.get("continue") else None,
                               (lambda: speak(s, f, case["tunnel"])) if "tunnel" in case else None)
        except (ConnectionError, TimeoutError):
            return {"status": 0, "headers": [], "body": "(incomplete)"}
        finally:
            if not case.get("keep"):
                f.close()
                s.close()

    def _ask2(self, case, kept):
        method, _, path = case["request"].partition(" ")
        head = {":method": method, ":scheme": "https" if case.get("via", next(iter(self.ports))) in self.tls else "http"}
        if case.get("host", "test.local") is not None:
            head[":authority"] = case.get("host", "test.local")
        head[":path"] = path
        head = {k: v for k, v in {**head, **case.get("pseudo", {})}.items() if v is not None}
        pairs = [(k, self._marks(v)) for k, v in head.items()] + [("x-case", case["name"])]
        pairs += http2.fields([self._marks(h) for h in case.get("headers", []) + case.get("headers2", [])])
        body = self._body(case)
        if body is not None and case.get("length"):
            pairs.append(("content-length", str(len(body))))
        client = kept.get("c")
        if client and client.w.goaway:
            client.close()
            client = None
        client = client or http2.Client(self._connect(case), self._tls(case))
        try:
            a = client.ask(case, pairs, body, lambda: self._seen_by_backend(case))
        finally:
            if case.get("keep"):
                kept["c"] = client
            else:
                client.close()
        return {**a, **({"alpn": client.alpn} if client.alpn else {})}

    def log_lines(self, want):
        """Access log entries by case; waits until each case has as many as `want` says."""
        def complete():
            lines = self.log.read_text(errors="replace").splitlines()
            names = [x.split("\t")[0] for x in lines]
            return (lines or [""]) if all(names.count(n) >= k for n, k in want.items()) else None
        try:
            lines = harness.wait_for("access log entries", complete, WAIT_S if self.kind == "remora" else RECORD_S)
        except harness.MeshError:
            lines = self.log.read_text(errors="replace").splitlines()
        out = {}
        for line in filter(None, lines):
            entry = dict(zip(LOG_NAMES + MORE_LOG_NAMES, self._clean(line.split("\t"))))
            out.setdefault(entry.pop("case"), []).append(entry)
        return out


def speak(s, f, parts):
    """Sends one part after the other through a tunnel, each after the answer to the one before; what came of each."""
    got = []
    for p in parts:
        s.sendall(p.encode())
        data = b""
        while len(data) < len(p) and (more := f.read1(65536)):
            data += more
        got.append(data.decode("latin-1"))
    return {"tunnel": got, "ended": "bye" in parts[-1] and f.read(1) == b""}


class Kept:
    """Reads lines and keeps them; sees the 100 that a client waits for."""

    def __init__(self, f, go_on):
        self.f, self.go_on, self.lines, self.interim = f, go_on, [], []

    def readline(self):
        line = self.f.readline()
        self.lines.append(line)
        if self.go_on and line in (b"\r\n", b"") and any(x.startswith(b"HTTP/1.1 100") for x in self.lines):
            self.go_on()
            self.go_on = None
        return line

    def read(self, *n):
        return self.f.read(*n)

    def heads(self):
        """[(status, [(name, value)])] up to the final answer's."""
        out, inside = [], False
        for line in self.lines:
            text = line.decode("latin-1").rstrip("\r\n")
            if not inside and text.startswith("HTTP/1."):
                inside = True
                out.append((int(text.split()[1]), []))
            elif not text:
                inside = False
                if out and (out[-1][0] // 100 != 1 or out[-1][0] == 101):
                    break
            elif inside:
                k, _, v = text.partition(":")
                out[-1][1].append((k.strip().lower(), v.strip()))
        return out


def read_answer(f, head, go_on=None, switched=None):
    """As harness.read_answer, with all header fields. go_on() sends the body after 100, switched() speaks through a tunnel."""
    first = f.readline()
    if switched and first.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200")):
        _, headers, _ = read_head(Again(first, f))
        return {"status": int(first.split()[1]), "headers": headers, "body": "", **switched()}
    kept = Kept(Again(first, f), go_on)
    a = harness.read_answer(kept, head)
    if a is None:
        return None
    heads = kept.heads()
    out = {"status": a.status, "headers": heads[-1][1] + [(k, v) for k, v in a.fields if k.startswith("trailer ")],
           "body": a.body.decode("latin-1")}
    interim = [[f":status: {n}"] + [f"{k}: {v}" for k, v in h] for n, h in heads[:-1]]
    return {**out, "interim": interim} if interim else out


def own_address():
    """An address of this machine other than loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))
            return s.getsockname()[0]
        except OSError:
            return LOOPBACK


OWN = f"({re.escape(own_address())}|{re.escape(LOOPBACK)})"
UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
VOLATILE = {"date": "DATE", "x-envoy-upstream-service-time": "MS"}


def tidy(headers, nth=0):
    """Sorted "name: value" lines; fields of one name keep their order. Values that change from run to run become marks."""
    out = []
    for k, v in headers:
        if k == "x-case":
            continue
        if k in VOLATILE and v:
            v = VOLATILE[k]
        if k == "x-envoy-expected-rq-timeout-ms" and nth:
            v = "LEFT"  # of what the first attempt began with
        if k == "x-forwarded-for":  # a client on loopback: Envoy puts an address of the machine, remora the loopback one
            v = re.sub(rf"(^|,){OWN}$", r"\1OWN", v)
        if k == "set-cookie":
            v = re.sub(r'="[0-9a-f]{16}"', '="MADE"', v)  # a cookie for hashing
        if UUID.match(v):
            v = "UUID"
        if k in ("x-ratelimit-reset", "retry-after") and v.isdigit() and int(v) > 600:  # a loaded machine takes seconds between requests
            v = str(-(-int(v) // 600) * 600)
        if k.startswith("x-ms-"):  # a case's own header that holds milliseconds or a time
            v = re.sub(r"\d+", "N", v)
        out.append((k, v))
    out.sort(key=lambda kv: kv[0])
    return [f"{k}: {v}" for k, v in out]


BRIDGES = ("1-1", "2-1", "1-2", "2-2")  # the client's version of HTTP, and the upstream's


def vectors():
    """Marks of tokens and key sets, and what they stand for."""
    tokens = {f"@token:{k}@": v["token"] for k, v in json.loads((VECTORS / "tokens.json").read_text()).items()}
    return {**tokens, **{f"@keys:{k}@": json.dumps(v) for k, v in json.loads((VECTORS / "keys.json").read_text()).items()}}


def put_vectors(x, marks):
    if isinstance(x, str):
        return re.sub(r"@(token|keys):\w+@", lambda m: marks[m.group()], x)
    if isinstance(x, list):
        return [put_vectors(y, marks) for y in x]
    return {k: put_vectors(v, marks) for k, v in x.items()} if isinstance(x, dict) else x


def load(path):
    """The file, with one case for each bridge; a file that names no bridges is for HTTP/1.1 on both sides."""
    text = path.read_text()
    spec = yaml.safe_load(text)
    if "@token:" in text:
        marks = vectors()
        used = {m: marks[m] for m in set(re.findall(r"@token:\w+@", text))}
        spec = put_vectors(spec, marks)
        spec["tokens"] = {v: m for m, v in sorted(used.items(), key=lambda t: -len(t[1])) if len(v) > 60}
    if "bridges" in spec:
        cases = []
        for c in spec["cases"]:
            for b in c.get("bridges", spec["bridges"]):
                differs = [d for d in c.get("differs", []) if b in d.get("bridges", BRIDGES)]
                cases.append({**c, "name": f"{c['name']} {b}", "down": b[0], "up": b[2], "differs": differs, "meant": spec.get("meant", [])})
        spec["cases"] = cases
    elif "meant" in spec:
        spec["cases"] = [{**c, "meant": spec["meant"]} for c in spec["cases"]]
    names = [c["name"] for c in spec["cases"]]
    if len(set(names)) != len(names):
        raise ValueError(f"{path}: two cases of one name: {sorted(n for n in names if names.count(n) > 1)}")
    return spec


def lines_of(case, kind, want):
    """How many access log entries to wait for: as the case says, else as were recorded."""
    n = case.get("log_lines", len(want[case["name"]]["log"]) / case.get("repeat", 1) if want and case["name"] in want else 1)
    return int(case.get("repeat", 1) * (n[kind] if isinstance(n, dict) else n))


def observe(path, program, kind, only=None, want=None):
    """{case: what was seen} for the file."""
    spec = load(path)
    cases = [c for c in spec["cases"] if not only or only in c["name"]]
    got = {}
    for up in sorted({c.get("up", "1") for c in cases}):
        mine = [c for c in cases if c.get("up", "1") == up]
        with tempfile.TemporaryDirectory(prefix="rm-parity-") as folder:
            setup = Setup(spec, program, kind, folder, up)
            try:
                with ThreadPoolExecutor(spec.get("at_a_time", 1)) as pool:
                    got.update(zip([c["name"] for c in mine], pool.map(setup.run, mine)))
                logs = setup.log_lines({c["name"]: lines_of(c, kind, want) for c in mine})
            finally:
                setup.close()
        for c in mine:
            entries = got[c["name"]]["log"] = logs.get(c["name"], [])
            if "bridges" in spec and not got[c["name"]]["upstream"]:  # nobody waited for the body
                for e in entries:
                    e.pop("received", None)
    return got


def observe_all(paths, program, kind, only=None, wants=None, at_once=3):
    """{path: future of observe()}, several files at a time: they wait more than they work."""
    pool = ThreadPoolExecutor(at_once)
    try:
        return {p: pool.submit(observe, p, program, kind, only, (wants or {}).get(p)) for p in paths}
    finally:
        pool.shutdown(wait=False)


def flatten(x, at=""):
    """{path: leaf}: lists of "name: value" lines become one entry per header name."""
    out = {}
    if isinstance(x, dict):
        for k, v in x.items():
            out.update(flatten(v, f"{at}.{k}" if at else k))
    elif isinstance(x, list) and at.endswith("headers"):
        for line in x:
            k, _, v = line.partition(": ")
            out.setdefault(f"{at}.{k.rstrip(':')}", []).append(v)
    elif isinstance(x, list):
        out[f"{at}.count"] = len(x)
        for i, v in enumerate(x):
            out.update(flatten(v, f"{at}[{i}]"))
    else:
        out[at] = x
    return out


def differences(want, got):
    a, b = flatten(want), flatten(got)
    return {k: (a.get(k), b.get(k)) for k in sorted({*a, *b}) if a.get(k) != b.get(k)}


def matches(pattern, path):
    """Patterns of `differs`: a path where [*] stands for any index, or the beginning of one."""
    p, x = re.sub(r"\[\d+\]", "[*]", pattern), re.sub(r"\[\d+\]", "[*]", path)
    return x == p or x.startswith((p + ".", p + "["))


def meant(m, case, where, pair):
    """Whether an entry of the file's `meant` is about this difference; remembers that it was used."""
    here = (re.fullmatch(m["where"], where) and re.fullmatch(m.get("cases", ".*"), case["name"]) and
            pair == (m.get("envoy", pair[0]), m.get("remora", pair[1])))
    m["used"] = bool(here or m.get("used"))
    return bool(here)


def unused(cases):
    """Lines about entries of the files' `meant` that no difference of these cases needs; after judge() was called for all of them."""
    entries = {id(m): m for c in cases for m in c.get("meant", [])}
    return [f"meant: {m['where']}: nothing of it differs; take it off the list" for m in entries.values() if not m.get("used")]


def judge(case, want, got):
    """Lines about what differs without being listed, and about what is listed and does not differ (any more)."""
    diff = {k: d for k, d in differences(want, got).items() if not any([meant(m, case, k, d) for m in case.get("meant", [])])}
    listed = {d["where"]: d["why"] for d in case.get("differs", [])}
    lines = [f"{k}: Envoy {w!r}, remora {g!r}" for k, (w, g) in diff.items() if not any(matches(p, k) for p in listed)]
    for p in listed:
        if not any(matches(p, k) for k in diff):
            lines.append(f"{p}: is listed as different and is the same; take it off the list")
    return lines

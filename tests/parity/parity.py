# SPDX-License-Identifier: Apache-2.0
"""Runs the same Envoy-shaped files and requests through Envoy or remora-proxy, and notes what client, upstream and access log saw."""

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

import yaml

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

import harness  # noqa: E402

LOOPBACK = "127.0.0.1"
BACKENDS = ("a", "b", "c", "m")  # each echoes what it sees; m is for mirrors and takes no step of a case's script
WAIT_S = 20                      # for anything that must come; generous, since other work may hold the machine
LOG = ("CASE", "%RESPONSE_CODE%", "%RESPONSE_FLAGS%", "%RESPONSE_CODE_DETAILS%", "%ROUTE_NAME%", "%UPSTREAM_CLUSTER%",
       "%UPSTREAM_REQUEST_ATTEMPT_COUNT%")
LOG_NAMES = ("case", "code", "flags", "details", "route", "cluster", "attempts")


# --- backends ---

class Scripts:
    """What the backends do with each case, and what they saw of it."""

    def __init__(self):
        self.lock = threading.Condition()
        self.steps, self.seen = {}, {}

    def begin(self, case, steps):
        with self.lock:
            self.steps[case], self.seen[case] = list(steps), []

    def next(self, case, name, request):
        with self.lock:
            self.seen.setdefault(case, []).append(request)
            self.lock.notify_all()
            steps = self.steps.get(case)
            return steps.pop(0) if steps and name != "m" else {}

    def wait(self, case, n):
        with self.lock:
            self.lock.wait_for(lambda: len(self.seen[case]) >= n, WAIT_S)
            return list(self.seen[case])


def answer(name, step):
    if isinstance(step, int):
        step = {"status": step}
    status = step.get("status", 200)
    body = step.get("body", name).encode()
    lines = [f"HTTP/1.1 {status} X", f"x-backend: {name}"]
    for h in step.get("headers", []):
        lines.append(h)
    if not step.get("no_length"):
        lines.append(f"content-length: {step.get('length', len(body))}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n", body


def serve(name, scripts):
    def fn(c, _backend):
        f = c.makefile("rb")
        while True:
            m = harness.read_message(f)
            if m is None:
                return
            line, headers, body = m
            case = next((v for k, v in headers if k == "x-case"), "")
            step = scripts.next(case, name, {"to": name, "line": line, "headers": headers, "body": body.decode("latin-1")})
            if step == "stall":  # until the proxy gives up
                f.read(1)
                return
            if step == "reset":
                c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                c.close()
                f.close()
                return
            if step == "close":
                return
            head, data = answer(name, step)
            half = isinstance(step, dict) and step.get("half")
            if isinstance(step, dict) and "wait_ms" in step:
                time.sleep(step["wait_ms"] / 1000)
            if line.startswith("HEAD "):
                data = b""
            c.sendall(head + data)
            if half == "stall":
                f.read(1)
                return
            if half == "close" or (isinstance(step, dict) and step.get("close")):
                return
    return fn


# --- files ---

def cluster(name, ports, **more):
    return harness.cluster(name, ports, **{"connect_timeout": "5s", **more})


def cors_and_fault(filters):
    known = {"cors": "cors.v3.Cors", "fault": "fault.v3.HTTPFault", "router": "router.v3.Router", "grpc_stats": "grpc_stats.v3.FilterConfig"}
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
               "log_format": {"text_format_source": {"inline_string": "\t".join(("%REQ(X-CASE)%",) + LOG[1:]) + "\n"}}}}],
           "route_config": {"name": name, "virtual_hosts": spec.get("virtual_hosts", []), **spec.get("route_config", {})},
           **spec.get("hcm", {})}
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": cfg}


class Setup:
    """One file's proxy, with its backends."""

    def __init__(self, spec, program, kind, folder):
        self.spec, self.kind, self.folder = spec, kind, pathlib.Path(folder)
        self.scripts = Scripts()
        self.backends = {n: harness.Backend(serve(n, self.scripts)) for n in BACKENDS}
        self.dead = socket.socket()
        self.dead.bind((LOOPBACK, 0))  # bound and not listening: connections are refused
        self.ports = {}
        self.log = self.folder / "access.log"
        self.log.write_text("")
        self.program = program
        self._start()

    def _names(self):
        names = {f"@{n}@": b.port for n, b in self.backends.items()}
        names["@dead@"] = self.dead.getsockname()[1]
        for n, p in self.ports.items():
            names[f"@{n}@"] = p
        return names

    def _config(self):
        listeners = []
        shared = {k: self.spec[k] for k in ("virtual_hosts", "route_config", "hcm", "filters") if k in self.spec}
        for name, over in (self.spec.get("listeners") or {"main": {}}).items():
            merged = {**shared, **over, "hcm": {**shared.get("hcm", {}), **over.get("hcm", {})},
                      "route_config": {**shared.get("route_config", {}), **over.get("route_config", {})}}
            self.ports[name] = harness.free_port()
            listeners.append(harness.listener(self.ports[name], build_hcm(merged, name, self.log), name=name, **over.get("listener", {})))
        b = {n: x.port for n, x in self.backends.items()}
        clusters = [cluster(n, [p]) for n, p in b.items()]
        clusters += [cluster("ab", [b["a"], b["b"]]), cluster("dead", [self.dead.getsockname()[1]]), cluster("empty", [])]
        clusters += self.spec.get("clusters", [])
        self.admin = harness.free_port()
        config = {"node": {"id": "parity", "cluster": "parity"}, "admin": {"address": harness.address(self.admin)},
                  "static_resources": {"listeners": listeners, "clusters": clusters}, **self.spec.get("bootstrap", {})}
        text = json.dumps(config, indent=1)
        for mark, port in self._names().items():
            text = text.replace(f'"{mark}"', str(port)).replace(mark, str(port))
        return text

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
        self.dead.close()
        if self.kind == "remora" and self.p.returncode != 0:  # also what a sanitizer found
            raise harness.MeshError(f"{self.program} ended with status {self.p.returncode}:\n{self.out.read_text(errors='replace')[-4000:]}")

    # --- one case ---

    def run(self, case):
        self.scripts.begin(case["name"], case.get("backend", []))
        answers = [self._ask(case) for _ in range(case.get("repeat", 1))]
        seen = self.scripts.wait(case["name"], case.get("seen", 0))
        seen = sorted(seen, key=lambda r: r["to"] == "m")
        clean = self._clean
        return {"answers": [a if a is None else {"status": a.status, "headers": clean(tidy(a.headers_list)), "body": clean(a.body.decode("latin-1"))}
                            for a in answers],
                "upstream": [{"to": r["to"], "line": clean(r["line"]), "headers": clean(tidy(r["headers"], i)), "body": r["body"]}
                             for i, r in enumerate(seen)]}

    def _clean(self, x):
        """Takes out what differs from run to run."""
        if isinstance(x, list):
            return [self._clean(y) for y in x]
        for mark, port in self._names().items():
            x = re.sub(rf"\b{port}\b", mark, x)
        return x

    def _ask(self, case):
        port = self.ports[case.get("via", next(iter(self.ports)))]
        method, _, path = case["request"].partition(" ")
        version = case.get("version", "1.1")
        lines = [f"{method} {path} HTTP/{version}"]
        if case.get("host", "test.local") is not None:
            lines.append(f"host: {case.get('host', 'test.local')}")
        lines.append(f"x-case: {case['name']}")
        lines += case.get("headers", [])
        body = case.get("body")
        if isinstance(body, dict):
            body = body["text"] * body["times"]
        if body is not None:
            lines.append(f"content-length: {len(body)}")
        text = "\r\n".join(lines)
        for mark, p in self._names().items():
            text = text.replace(mark, str(p))
        with socket.create_connection((LOOPBACK, port), WAIT_S, source_address=(case["from"], 0) if "from" in case else None) as s:
            s.settimeout(WAIT_S)
            s.sendall(text.encode("latin-1") + b"\r\n\r\n" + (body or "").encode("latin-1"))
            try:
                return read_answer(s.makefile("rb"), method == "HEAD")
            except ConnectionError as e:
                return Broken(str(e))

    def log_lines(self, want):
        """Access log entries by case; waits until each case has as many as `want` says."""
        def complete():
            lines = self.log.read_text(errors="replace").splitlines()
            names = [x.split("\t")[0] for x in lines]
            return (lines or [""]) if all(names.count(n) >= k for n, k in want.items()) else None
        try:
            lines = harness.wait_for("access log entries", complete, WAIT_S)
        except harness.MeshError:
            lines = self.log.read_text(errors="replace").splitlines()
        out = {}
        for line in filter(None, lines):
            entry = dict(zip(LOG_NAMES, self._clean(line.split("\t"))))
            out.setdefault(entry.pop("case"), []).append(entry)
        return out


class Broken:
    status, headers_list, body = 0, [], b""

    def __init__(self, why):
        self.body = b"(incomplete)"


def read_answer(f, head):
    """As harness.read_answer, with all header fields."""
    kept = []

    class Recorder:
        def readline(self):
            line = f.readline()
            kept.append(line)
            return line

        def read(self, *n):
            return f.read(*n)
    a = harness.read_answer(Recorder(), head)
    if a is None:
        return None
    a.headers_list = []
    for line in kept:
        text = line.decode("latin-1").rstrip("\r\n")
        if text.startswith("HTTP/1."):
            a.headers_list = []  # what came with a 1xx is passed over
            continue
        if not text:
            if a.headers_list:
                break
            continue
        k, _, v = text.partition(":")
        a.headers_list.append((k.strip().lower(), v.strip()))
    return a




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
        if k.startswith("x-ms-"):  # a case's own header that holds milliseconds or a time
            v = re.sub(r"\d+", "N", v)
        out.append((k, v))
    out.sort(key=lambda kv: kv[0])
    return [f"{k}: {v}" for k, v in out]


def load(path):
    spec = yaml.safe_load(path.read_text())
    names = [c["name"] for c in spec["cases"]]
    if len(set(names)) != len(names):
        raise ValueError(f"{path}: two cases of one name: {sorted(n for n in names if names.count(n) > 1)}")
    return spec


def lines_of(case, kind):
    n = case.get("log_lines", 1)
    return n[kind] if isinstance(n, dict) else n


def observe(path, program, kind, only=None):
    """{case: what was seen} for the file."""
    spec = load(path)
    cases = [c for c in spec["cases"] if not only or only in c["name"]]
    with tempfile.TemporaryDirectory(prefix="rm-parity-") as folder:
        setup = Setup(spec, program, kind, folder)
        try:
            got = {c["name"]: setup.run(c) for c in cases}
            logs = setup.log_lines({c["name"]: c.get("repeat", 1) * lines_of(c, kind) for c in cases})
        finally:
            setup.close()
    for name, g in got.items():
        g["log"] = logs.get(name, [])
    return got


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


def judge(case, want, got):
    """Lines about what differs without being listed, and about what is listed and does not differ (any more)."""
    diff = differences(want, got)
    listed = {d["where"]: d["why"] for d in case.get("differs", [])}
    lines = [f"{k}: Envoy {w!r}, remora {g!r}" for k, (w, g) in diff.items() if not any(matches(p, k) for p in listed)]
    for p in listed:
        if not any(matches(p, k) for k in diff):
            lines.append(f"{p}: is listed as different and is the same; take it off the list")
    return lines

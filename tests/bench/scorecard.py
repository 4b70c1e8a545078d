# SPDX-License-Identifier: Apache-2.0
"""scorecard.py --build FOLDER [--quick] [--rows tcp,http] [--products envoy,remora] [--rounds N] [--seconds S] [--json FILE]

Side by side: what a unit of work costs each proxy in processor time, memory and latency. The proxies run on one processor,
backends and load on another, each product on the loopback of its own network namespace. Products take turns of less than a
second, and a goal is judged by the median over the rounds of the quotient of two products in the same round, so that other
work on the machine spoils both alike.

Exit status: 0 when every goal holds, 1 when one does not, 2 when one could not be measured.
"""
import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request

import peers
from peers import cpu_ns, memory_kb, spawn, stop, wait_port

# row: (title, unit, load mode, port, load's arguments, processes whose time counts)
CPU_ROWS = {
    "tcp": ("TCP, kept connection, 128 bytes there and back", "echo", peers.TCP, [], ("client",)),
    "http": ("HTTP/1.1, kept connection, 128-byte answer", "http", peers.HTTP, [], ("client",)),
    "http_pair": ("the same through two proxies with mTLS between", "http", peers.HTTP_OUT, [], ("client", "server")),
    "h2": ("HTTP/2 on both sides, 8 connections with 16 streams each, 128-byte answer", "h2", peers.H2, [], ("client",)),
    "h2_pair": ("the same through two proxies with mTLS between", "h2", peers.H2_OUT, [], ("client", "server")),
    "tcp_pair": ("TCP, 128 bytes, through two proxies with mTLS between", "echo", peers.TCP_OUT, [], ("client", "server")),
    "tcp_connect": ("TCP, a new connection for each 128 bytes", "connect", peers.TCP, ["-c", "8"], ("client",)),
    "tcp_1mib": ("TCP, 1 MiB answer", "http", peers.BULK, ["-c", "8", "-p", "/1048576"], ("client",)),
    "handshake": ("a new mTLS connection (full handshake, P-256) with one request", "tls", peers.HTTP_IN, ["-c", "8"], ("server",)),
}
HELD = 2000  # idle client connections
SETTLE_S = 3   # before memory is read: products give start-up memory back
ENOUGH, TRIES = 30, 3  # a run with fewer requests says nothing and is done again

# goal: (words, row, product, compared with (None: an absolute bound), bound)
GOALS = (
    ("HTTP/1.1: at most 0.3 of Envoy's processor time per request", "http", "remora", "envoy", 0.3),
    ("HTTP/1.1: at most HAProxy's", "http", "remora", "haproxy", 1.0),
    ("HTTP/2: at most 0.36 of Envoy's", "h2", "remora", "envoy", 0.36),
    ("HTTP/2: at most HAProxy's", "h2", "remora", "haproxy", 1.0),
    ("HTTP/1.1 through an mTLS pair: at most 0.33 of Envoy's", "http_pair", "remora", "envoy", 0.33),
    ("HTTP/1.1 through an mTLS pair: at most HAProxy's", "http_pair", "remora", "haproxy", 1.0),
    ("HTTP/2 through an mTLS pair: at most 0.45 of Envoy's", "h2_pair", "remora", "envoy", 0.45),
    ("TCP: at most 1.1 of the bare forwarder's", "tcp", "remora", "forwarder", 1.1),
    ("1 MiB answer: at most the forwarder's", "tcp_1mib", "remora", "forwarder", 1.0),
    ("idle resident memory with the xDS client connected: at most 16 MB", "idle_xds", "remora", None, 16.0),
    ("memory per idle HTTP/1.1 client connection: at most 0.5 KB", "idle_conn", "remora", None, 0.5),
)


class Bench:
    def __init__(self, args):
        self.args = args
        self.root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        self.build = os.path.abspath(args.build)
        self.work = f"{self.build}/bench/work"
        os.makedirs(self.work, exist_ok=True)
        self.certs = peers.mint(self.root, self.work)
        peers.write_bootstraps(self.work, self.certs)
        self.values = {}   # row → product → one number per round
        self.missing = {}  # product or (row, product) → why
        self.versions = {}
        self.products = []
        self.running = {}  # product's name → client, server → processes
        self.backends = []

    def choose(self):
        for cls in peers.PRODUCTS:
            if self.args.products and cls.name not in self.args.products:
                self.missing[cls.name] = "left out by --products"
                continue
            try:
                p = cls({"work": self.work, "certs": self.certs, "build": self.build})
                self.versions[p.name] = p.version()
            except (peers.Missing, OSError) as e:
                self.missing[cls.name] = str(e)
                continue
            self.products.append(p)
            if p.note:
                self.missing[("tcp", p.name)] = p.note

    def load(self, product, mode, port, seconds, extra=(), check=True):
        if mode == "h2":
            return self.h2load(product, port, seconds)
        cmd = [f"{self.build}/bench/load", mode, str(port), "-d", str(seconds), *extra]
        if mode == "tls":
            cmd += ["-T", f"{self.certs}/root-cert.pem", f"{self.certs}/client/cert-chain.pem", f"{self.certs}/client/key.pem"]
        r = subprocess.run(cmd, capture_output=True, text=True, preexec_fn=peers.pinned(peers.LOAD_CPU, product.ns),
                           timeout=seconds + 30, check=False)
        if r.returncode and check:
            raise RuntimeError(f"{mode} load: {r.stderr.strip()[-300:]} {r.stdout.strip()[-200:]}")
        return json.loads(r.stdout) if r.stdout else {}

    def h2load(self, product, port, seconds):
        cmd = ["h2load", "-c", "8", "-m", "16", "-D", f"{round(seconds * 1000)}ms", f"http://127.0.0.1:{port}/128"]
        r = subprocess.run(cmd, capture_output=True, text=True, preexec_fn=peers.pinned(peers.LOAD_CPU, product.ns),
                           timeout=seconds + 30, check=False)
        m = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored", r.stdout)
        if not m:
            raise RuntimeError(f"h2load: {(r.stderr + r.stdout).strip()[-300:]}")
        return {"requests": int(m[1]), "errors": int(m[2]) + int(m[3])}

    def wants(self, product, row):
        return row in product.rows and (not self.args.rows or row in self.args.rows)

    def note(self, row, product, value):
        self.values.setdefault(row, {}).setdefault(product, []).append(value)

    def fails(self, row, product, why):
        self.missing[(row, product)] = str(why)
        print(f"  {product}: {row}: {why}", file=sys.stderr)

    # --- processor time and latency ---

    def start(self, product):
        """False: it does not run, and is measured no further."""
        started = self.running.setdefault(product.name, {})
        try:
            for which in ("server", "client") if product.pair else ("client",):
                started[which] = product.start(which)
        except RuntimeError as e:
            self.fails("start", product.name, e)
            return False
        for row, (_, mode, port, extra, _) in CPU_ROWS.items():
            if self.wants(product, row) and (row, product.name) not in self.missing:
                self.load(product, mode, port, 0.3, extra, check=False)  # warms up: pools, caches, TLS sessions
        return True

    def cpu_row(self, product, row):
        _, mode, port, extra, which = CPU_ROWS[row]
        procs = [p for w in which for p in self.running[product.name][w]]
        for attempt in range(TRIES):
            before = cpu_ns(procs)
            r = self.load(product, mode, port, self.args.seconds, extra, check=attempt + 1 == TRIES)
            time.sleep(0.03)  # the proxy sees the ends of the connections
            used_us = (cpu_ns(procs) - before) / 1000
            if r.get("requests", 0) >= ENOUGH and r["errors"] == 0:
                break  # else other work on the machine had the processors
        self.note(row, product.name, used_us / r["requests"])

    def latency_row(self, product):
        r = self.load(product, "http", peers.HTTP, self.args.seconds * 2, ["-r", str(self.args.rate)])
        self.note("latency_p50", product.name, r["p50_us"])
        self.note("latency_p99", product.name, r["p99_us"])

    def measure(self, product, row):
        if not self.wants(product, row) or (row, product.name) in self.missing:
            return
        try:
            if row == "latency":
                self.latency_row(product)
            else:
                self.cpu_row(product, row)
        except (RuntimeError, subprocess.TimeoutExpired) as e:
            self.fails(row, product.name, e)

    def rounds(self):
        up = [p for p in self.products if self.start(p)]
        for n in range(self.args.rounds):
            print(f"round {n + 1} of {self.args.rounds}", file=sys.stderr)
            for row in list(CPU_ROWS) + ["latency"]:
                for product in up if n % 2 == 0 else reversed(up):
                    self.measure(product, row)
        self.stop_all()

    def stop_all(self):
        stop([p for whiches in self.running.values() for procs in whiches.values() for p in procs])
        self.running = {}

    # --- memory ---

    def hold(self, product, procs):
        rss0, _ = memory_kb(procs)
        h = spawn([f"{self.build}/bench/load", "hold", str(peers.HTTP), "-c", str(HELD)], peers.LOAD_CPU, f"{self.work}/hold.log",
                  product.ns, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            line = h.stdout.readline()
            if not line or json.loads(line)["requests"] != HELD:
                raise RuntimeError(f"of {HELD} connections to hold: {line.strip()}")
            time.sleep(1)
            rss1, _ = memory_kb(procs)
            self.note("idle_conn", product.name, (rss1 - rss0) / HELD)
        finally:
            h.stdin.close()
            h.wait()
            h.stdout.close()

    def memory(self, product):
        procs = []
        try:
            procs = product.start("small")
            time.sleep(SETTLE_S)
            rss, anon = memory_kb(procs)
            if self.wants(product, "idle"):
                self.note("idle", product.name, rss / 1024)
                self.note("idle_anon", product.name, anon / 1024)
            # What one busy moment leaves behind anyway (code, buffers, pools) is there before connections are counted.
            self.load(product, "http", peers.HTTP, 0.5, check=False)
            time.sleep(SETTLE_S)
            if self.wants(product, "idle"):
                self.note("idle_after", product.name, memory_kb(procs)[0] / 1024)
            if self.wants(product, "idle_conn"):
                self.hold(product, procs)
        except RuntimeError as e:
            self.fails("memory", product.name, e)
        finally:
            stop(procs)

    def idle_xds(self):
        cmd = ["unshare", "-n", sys.executable, os.path.abspath(__file__), "--build", self.build, "--idle-xds"]
        try:
            r = subprocess.run(cmd, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as e:
            self.fails("idle_xds", "remora", e)
            return
        if r.returncode:
            self.fails("idle_xds", "remora", r.stderr.strip()[-400:] or f"unshare ended with {r.returncode}")
            return
        got = json.loads(r.stdout)
        self.note("idle_xds", "remora", got["resident_kb"] / 1024)
        self.note("idle_xds_anon", "remora", got["anonymous_kb"] / 1024)
        self.note("idle_xds_peak", "remora", got["peak_kb"] / 1024)

    # --- everything ---

    def start_h2_backend(self, product, log):
        if not shutil.which("nghttpd") or not shutil.which("h2load"):
            for row in ("h2", "h2_pair"):
                self.missing[(row, product.name)] = "no nghttpd or h2load; apt-get install nghttp2-server nghttp2-client"
            return
        files = f"{self.work}/files"
        os.makedirs(files, exist_ok=True)
        with open(f"{files}/128", "w") as f:
            f.write("x" * 128)
        back = spawn(["nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", files, str(peers.BACK_H2)], peers.LOAD_CPU, log, product.ns)
        self.backends.append(back)
        wait_port(peers.BACK_H2, back, log)

    def run(self):
        try:
            for product in self.products:
                product.ns = peers.Namespace()
                log = f"{self.work}/backend.log"
                back = spawn([f"{self.build}/bench/backend", str(peers.BACK_HTTP), str(peers.BACK_ECHO)], peers.LOAD_CPU, log, product.ns)
                self.backends.append(back)
                wait_port(peers.BACK_HTTP, back, log)
                self.start_h2_backend(product, log)
            if any(not self.args.rows or r in self.args.rows for r in list(CPU_ROWS) + ["latency"]):
                self.rounds()
            for product in self.products:
                if self.wants(product, "idle") or self.wants(product, "idle_conn"):
                    self.memory(product)
            if any(p.name == "remora" for p in self.products) and (not self.args.rows or "idle_xds" in self.args.rows):
                self.idle_xds()
        finally:
            self.stop_all()
            stop(self.backends)
            for product in self.products:
                if product.ns:
                    product.ns.close()

    # --- results ---

    def median(self, row, product):
        v = self.values.get(row, {}).get(product)
        return statistics.median(v) if v else None

    def quotient(self, row, a, b):
        x, y = self.values.get(row, {}).get(a, []), self.values.get(row, {}).get(b, [])
        if not x or not y:
            return None
        if len(x) != len(y):
            return statistics.median(x) / statistics.median(y)
        return statistics.median(p / q for p, q in zip(x, y))

    def verdicts(self):
        out = []
        for words, row, product, other, bound in GOALS:
            got = self.quotient(row, product, other) if other else self.median(row, product)
            out.append({"goal": words, "row": row, "bound": bound, "measured": got, "holds": None if got is None else got <= bound})
        return out


def cell(v, digits):
    return "–" if v is None else f"{v:.{digits}f}"


def print_table(b):
    names = [c.name for c in peers.PRODUCTS]
    rows = [(r, CPU_ROWS[r][0], "µs", 1) for r in CPU_ROWS]
    rows += [("latency_p50", f"latency at {b.args.rate} HTTP/1.1 requests a second: median", "µs", 0),
             ("latency_p99", "  99 of 100 are faster than", "µs", 0),
             ("idle", "resident memory, idle, an HTTP and a TCP listener", "MB", 1), ("idle_anon", "  of it anonymous", "MB", 1),
             ("idle_after", "  and after half a second of full HTTP/1.1 load", "MB", 1),
             ("idle_xds", "resident memory, idle sidecar: xDS over mTLS, 2 workers", "MB", 1),
             ("idle_xds_anon", "  of it anonymous", "MB", 1), ("idle_xds_peak", "  the most since its start", "MB", 1),
             ("idle_conn", f"memory per idle HTTP/1.1 client connection ({HELD} held)", "KB", 2)]
    print(f"\n{'':64}{'':4}" + "".join(f"{n:>11}" for n in names))
    for row, title, unit, digits in rows:
        if row in b.values:
            print(f"{title:64}{unit:>4}" + "".join(f"{cell(b.median(row, n), digits):>11}" for n in names))
    print("\nProcessor time is user + system of the proxy's processes per request (exchange, connection); medians of "
          f"{b.args.rounds} rounds of {b.args.seconds} s.")
    print("Measured: " + ", ".join(v for v in b.versions.values() if v) + ".")
    for who, why in b.missing.items():
        print(f"Not measured: {who if isinstance(who, str) else who[1] + ' ' + who[0]}: {why}")


def print_verdicts(verdicts):
    print()
    for v in verdicts:
        state = "not measured" if v["holds"] is None else f"{v['measured']:.2f}  {'holds' if v['holds'] else 'MISSED'}"
        print(f"  {v['goal']:70} {state}")


def machine():
    model = ""
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"processors": os.cpu_count(), "model": model, "kernel": platform.release(), "load_average": os.getloadavg()}


# --- a sidecar as in a pod: certificate from the CA, configuration over mTLS. It wants Istio's ports, so it gets a network namespace ---

ADDRESS = "10.211.0.1"
XDS_YAML = f"""apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: back, namespace: bench}}
spec:
  hosts: [back.bench]
  addresses: [240.1.2.3]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: {ADDRESS}, ports: {{http: {peers.BACK_HTTP}}}}}]
"""


def ready(proc):
    try:
        with urllib.request.urlopen("http://127.0.0.1:15021/healthz/ready", timeout=1) as r:
            return r.status == 200
    except OSError:
        return proc.poll() is not None


def idle_xds(build):
    work = f"{build}/bench/work"
    shutil.rmtree(f"{work}/pod", ignore_errors=True)
    os.makedirs(f"{work}/pod/var/run/secrets/tokens")
    os.makedirs(f"{work}/xds", exist_ok=True)
    with open(f"{work}/xds/service.yaml", "w") as f:
        f.write(XDS_YAML)
    for args in (["link", "set", "lo", "up"], ["addr", "add", f"{ADDRESS}/32", "dev", "lo"]):
        subprocess.run(["ip", *args], check=True)
    log, control = f"{work}/xds.log", f"127.0.0.1:{peers.XDS}"
    exe = f"{build}/bin/remora-control"
    procs = [spawn([exe, "serve", "--config", f"{work}/xds", "--state", f"{work}/xds-state", "--grpc-addr", "off", "--secure-addr",
                    control, "--http-addr", "off"], peers.LOAD_CPU, log)]
    try:
        wait_port(peers.XDS, procs[0], log)
        token = subprocess.run([exe, "token", "--state", f"{work}/xds-state", "--namespace", "bench", "--service-account", "bench"],
                               capture_output=True, text=True, check=True).stdout
        with open(f"{work}/pod/var/run/secrets/tokens/istio-token", "w") as f:
            f.write(token.strip())
        root = f"{work}/xds-state/root-cert.pem"
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "POD_NAME": "bench", "POD_NAMESPACE": "bench", "INSTANCE_IP": ADDRESS,
               "POD_IP": ADDRESS, "SERVICE_ACCOUNT": "bench", "ISTIO_META_CLUSTER_ID": "Kubernetes", "CA_ADDR": control,
               "PROXY_CONFIG": json.dumps({"discoveryAddress": control}), "XDS_ROOT_CA": root, "CA_ROOT_CA": root}
        proxy = spawn([f"{build}/bin/remora-proxy", "sidecar", "--concurrency", "2"], peers.PROXY_CPU, log, env=env, cwd=f"{work}/pod")
        procs.append(proxy)
        until = time.time() + 20
        while not ready(proxy) and time.time() < until:
            time.sleep(0.05)
        if proxy.poll() is not None or time.time() >= until:
            with open(log) as f:
                raise RuntimeError(f"the sidecar is not ready: {f.read()[-300:]}")
        time.sleep(SETTLE_S)
        rss, anon = memory_kb([proxy])
        print(json.dumps({"resident_kb": rss, "anonymous_kb": anon, "peak_kb": peers.peak_kb(proxy)}))
    finally:
        stop(procs)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--build", required=True)
    a.add_argument("--quick", action="store_true", help="under 90 seconds")
    a.add_argument("--rows", type=lambda s: s.split(","))
    a.add_argument("--products", type=lambda s: s.split(","))
    a.add_argument("--rounds", type=int)
    a.add_argument("--seconds", type=float)
    a.add_argument("--rate", type=int, default=3000)
    a.add_argument("--json")
    a.add_argument("--fetch", action="store_true", help="only fetch what is to be fetched")
    a.add_argument("--idle-xds", action="store_true", help=argparse.SUPPRESS)
    args = a.parse_args()
    if args.idle_xds:
        idle_xds(os.path.abspath(args.build))
        return 0
    if (os.cpu_count() or 1) < 2:
        print("bench: needs two processors, one for the proxy and one for the load", file=sys.stderr)
        return 2
    args.rounds = args.rounds or (3 if args.quick else 9)
    args.seconds = args.seconds or (0.25 if args.quick else 0.4)
    b = Bench(args)
    b.choose()
    if args.fetch:
        return 0
    try:
        b.run()
    except peers.Missing as e:
        print(f"bench: {e}", file=sys.stderr)
        return 2
    print_table(b)
    verdicts = b.verdicts()
    print_verdicts(verdicts)
    out = args.json or f"{b.build}/bench/scorecard.json"
    with open(out, "w") as f:
        json.dump({"machine": machine(), "rounds": args.rounds, "seconds": args.seconds, "versions": b.versions, "values": b.values,
                   "missing": {k if isinstance(k, str) else f"{k[1]} {k[0]}": v for k, v in b.missing.items()}, "goals": verdicts}, f, indent=1)
    print(f"\nAll numbers: {os.path.relpath(out)}")
    if any(v["holds"] is False for v in verdicts):
        return 1
    return 2 if any(v["holds"] is None for v in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())

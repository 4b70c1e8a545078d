# SPDX-License-Identifier: Apache-2.0
"""A control plane that changes routes, clusters and endpoints all the time under load: no request fails, no client connection is
closed, memory does not grow. Short and slow here; `make resilience` runs it with 1,000 updates and 2,000 requests a second."""

import json
import os
import subprocess
import threading
import time

import pytest

from harness import LOOPBACK, address, ask, free_port, wait_for, web

grpc = pytest.importorskip("grpc", reason="python3-grpcio is not installed")

from xdswire import TYPES, URLS, Server, encode  # noqa: E402

SECONDS = float(os.environ.get("REMORA_CHURN_SECONDS", "4"))
LONG = SECONDS > 10
UPDATES, REQUESTS = (1000, 2000) if LONG else (200, 200)
SERVICES, VARIANTS = 50, 4
LOAD = os.path.join(os.path.dirname(os.environ.get("REMORA_BIN", "build/bin")), "bench/load")


# --- messages, by hand: a thousand a second ---

def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def part(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def response(kind, name, body, n):
    """DeltaDiscoveryResponse with one resource."""
    version = b"%d" % n
    resource = part(1, version) + part(2, part(1, URLS[kind].encode()) + part(2, body)) + part(3, name.encode())
    return part(1, version) + part(2, resource) + part(4, URLS[kind].encode()) + part(5, b"%s%d" % (kind.encode(), n))


ADS = "config_source { ads {} resource_api_version: V3 }"


def cluster_text(i, variant):
    return (f'name: "c{i}" type: EDS connect_timeout {{ seconds: {5 + variant} }} '
            f'eds_cluster_config {{ eds_config {{ ads {{}} resource_api_version: V3 }} }}')


def endpoints_text(i, variant, ports):
    chosen = [p for k, p in enumerate(ports) if k != variant % len(ports)]
    return f'cluster_name: "c{i}" endpoints {{ ' + " ".join(
        f'lb_endpoints {{ endpoint {{ address {{ socket_address {{ address: "{LOOPBACK}" port_value: {p} }} }} }} }}' for p in chosen) + " }"


def routes_text(variant):
    def action(i):
        other = (i + 1 + variant) % SERVICES
        return (f'route {{ weighted_clusters {{ clusters {{ name: "c{i}" weight {{ value: {50 + 10 * variant} }} }} '
                f'clusters {{ name: "c{other}" weight {{ value: {50 - 10 * variant} }} }} }} }}')
    return 'name: "r" virtual_hosts { name: "v" domains: "*" ' + " ".join(
        f'routes {{ match {{ prefix: "/{i}/" }} {action(i)} }}' for i in range(SERVICES)) + ' routes { match { prefix: "/" } ' + action(0) + " } }"


def listener_text(port):
    hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    return (f'name: "l" address {{ socket_address {{ address: "{LOOPBACK}" port_value: {port} }} }} filter_chains {{ filters {{ '
            f'name: "hcm" typed_config {{ [{hcm}] {{ stat_prefix: "x" rds {{ route_config_name: "r" {ADS} }} '
            'http_filters { name: "envoy.filters.http.router" '
            'typed_config { [type.googleapis.com/envoy.extensions.filters.http.router.v3.Router] { } } } } } } }')


class Churn:
    def __init__(self, server, ports):
        self.server, self.sent = server, 0
        self.clusters = [encode(TYPES["cds"], cluster_text(0, v)) for v in range(VARIANTS)]
        self.routes = [encode(TYPES["rds"], routes_text(v)) for v in range(VARIANTS)]
        self.endpoints = [encode(TYPES["eds"], endpoints_text(0, v, ports)) for v in range(VARIANTS)]

    def first(self, port):
        """Everything once, so that the proxy is ready."""
        for i in range(SERVICES):
            self.push("cds", i, 0)
        self.server.send(response("lds", "l", encode(TYPES["lds"], listener_text(port)), 1))
        for i in range(SERVICES):
            self.push("eds", i, 0)
        self.push("rds", 0, 0)

    def named(self, body, i):
        """The message of service 0 with another name; the name is its first field."""
        name = f"c{i}".encode()
        old = body[2:2 + body[1]]
        assert body[1] < 128 and old.startswith(b"c")
        return body[:1] + bytes([len(name)]) + name + body[2 + body[1]:]

    def push(self, kind, i, variant):
        self.sent += 1
        if kind == "rds":
            body, name = self.routes[variant], "r"
        else:
            body, name = self.named((self.clusters if kind == "cds" else self.endpoints)[variant], i), f"c{i}"
        self.server.send(response(kind, name, body, self.sent + 10))

    def run(self, seconds, rate):
        """In turn an assignment, a cluster and the route table, each with a content that differs from the one before."""
        start, n, before = time.monotonic(), 0, self.sent
        while (passed := time.monotonic() - start) < seconds:
            while n < passed * rate:
                self.push(("eds", "cds", "rds")[n % 3], n // 3 % SERVICES, n // 3 // SERVICES % VARIANTS if n % 3 != 2 else n // 3 % VARIANTS)
                n += 1
            time.sleep(0.005)
        return (self.sent - before) / (time.monotonic() - start)


def drain_requests(server, done):
    """Reads the proxy's acknowledgements away; counts refusals."""
    refused = 0
    while not done.is_set() or not server.requests.empty():
        try:
            _, m = server.requests.get(timeout=0.1)
            refused += b"INVALID" in m or b"error" in m
        except Exception:
            pass
    server.refused = refused


def python_load(port, seconds, rate, results):
    import http.client
    conn, end, n = http.client.HTTPConnection(LOOPBACK, port, timeout=10), time.monotonic() + seconds, 0
    start = time.monotonic()
    while time.monotonic() < end:
        time.sleep(max(0, start + n / rate - time.monotonic()))
        n += 1
        try:
            conn.request("GET", f"/{n % SERVICES}/")
            r = conn.getresponse()
            r.read()
            results.append(r.status)
        except OSError as e:
            results.append(type(e).__name__)
            conn.close()


def heavy_load(port, seconds):
    r = subprocess.run([LOAD, "http", str(port), "-d", str(seconds), "-r", str(REQUESTS), "-c", "32", "-p", "/7/"], capture_output=True,
                       text=True, timeout=seconds + 60, check=False)
    out = json.loads(r.stdout)
    return out["requests"], out["errors"], r.stderr


def test_configuration_changes_all_the_time(proxy, backend):
    ports = [backend(web(n)).port for n in "abc"] if not LONG else [free_port() for _ in range(3)]
    programs = []
    if LONG:  # the backend of the benchmarks; Python's would be the limit
        exe = os.path.join(os.path.dirname(LOAD), "backend")
        programs = [subprocess.Popen([exe, str(p), str(free_port())], stdin=subprocess.DEVNULL) for p in ports]
    server, done = Server(free_port()), threading.Event()
    try:
        port = free_port()
        xds = {"name": "xds", "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": "xds", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(server.port)}}]}]}}
        source = {"ads": {}, "resource_api_version": "V3"}
        p = proxy([], [xds], wait=False, concurrency=2, dynamic_resources={
            "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
            "cds_config": source, "lds_config": source})
        churn = Churn(server, ports)
        server.hear("cds", 10)
        churn.first(port)
        p.wait_ready()
        wait_for("the listener", lambda: ask(port, "/7/").status == 200, 10)
        threading.Thread(target=drain_requests, args=(server, done), daemon=True).start()
        results, rate = [], []
        changes = threading.Thread(target=lambda: rate.append(churn.run(SECONDS, UPDATES)))
        memory = []
        watch = threading.Thread(target=lambda: [(time.sleep(SECONDS / 8), memory.append(p.resident_kib())) for _ in range(7)])
        changes.start()
        watch.start()
        if LONG:
            asked, failed, why = heavy_load(port, SECONDS)
        else:
            python_load(port, SECONDS, REQUESTS, results)
            asked, failed, why = len(results), sum(r != 200 for r in results), set(map(str, results))
        changes.join()
        watch.join()
        accepted = {k: p.stat(f"cluster_manager.{k}.update_success") for k in ("cds",)}
        refused = p.stat_like("update_rejected")
        closed = p.stat_like("http.x.downstream_cx_destroy_local")
        print(f"\n{rate[0]:.0f} configuration updates a second for {SECONDS:g} s under {REQUESTS} requests/s\n"
              f"  requests, failed         {asked}, {failed} {why if failed else ''}\n"
              f"  updates refused          {refused}; clusters accepted {accepted['cds']}\n"
              f"  client connections that the proxy closed  {closed}\n"
              f"  resident KiB over time   {' '.join(map(str, memory))}")
        assert failed == 0 and asked > 0.5 * SECONDS * REQUESTS
        assert refused == 0 and closed == 0
        assert accepted["cds"] > 0.2 * SECONDS * UPDATES / 3
        assert max(memory[4:]) < 1.1 * max(memory[:3]) + 2048
        if LONG:
            assert rate[0] > 0.9 * UPDATES
    finally:
        done.set()
        server.stop()
        for b in programs:
            b.kill()
            b.wait()

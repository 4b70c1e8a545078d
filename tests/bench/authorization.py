#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""authorization.py BUILD [ROUNDS]: processor time of the proxy for a request that an authorization server is asked about, over HTTP and gRPC, beside one
without: Envoy and remora in turns, with one file. Needs `make programs bench-programs`, Go, and Envoy (the variable ENVOY, or what make bench keeps)."""

import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time

BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build").resolve()
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 7
ROOT = pathlib.Path(__file__).resolve().parents[2]
BACKEND, SERVER, AUTHZ = 24190, 24191, 24192
LISTENERS = {"none": 24200, "http": 24201, "grpc": 24202}
OFFSET = {"envoy": 0, "remora": 100}
API = "type.googleapis.com/envoy.extensions."


def filters(kind):
    service = {"http": {"http_service": {"server_uri": {"uri": "http://x", "cluster": "server", "timeout": "10s"}}},
               "grpc": {"transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "10s"}}}
    router = [{"name": "envoy.filters.http.router", "typed_config": {"@type": API + "filters.http.router.v3.Router"}}]
    if kind == "none":
        return router
    return [{"name": "envoy.filters.http.ext_authz", "typed_config": {"@type": API + "filters.http.ext_authz.v3.ExtAuthz", **service[kind]}}, *router]


def listener(port, kind):
    manager = {"@type": API + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": kind, "http_filters": filters(kind),
               "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "back"}}]}]}}
    return {"name": kind, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}


def cluster(name, port, **more):
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    return {"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}, **more}


def config(product):
    h2 = {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": API + "upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}}
    return {"node": {"id": "bench", "cluster": "bench"}, "static_resources": {
        "listeners": [listener(port + OFFSET[product], kind) for kind, port in LISTENERS.items()],
        "clusters": [cluster("back", BACKEND), cluster("server", SERVER), cluster("authz", AUTHZ, **h2)]}}


def start(cpu, *args):
    return subprocess.Popen(["taskset", "-c", str(cpu), *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def await_port(port):
    for _ in range(300):
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nobody listens on port {port}")


def cpu_s(p):
    return sum(int(pathlib.Path(f"/proc/{p.pid}/task/{t}/schedstat").read_text().split()[0]) for t in os.listdir(f"/proc/{p.pid}/task")) / 1e9


def measure(p, port):
    before = cpu_s(p)
    out = subprocess.run(["taskset", "-c", "1", BUILD / "bench/load", "http", str(port), "-c", "32", "-d", "0.5"], capture_output=True, text=True, check=True).stdout
    return (cpu_s(p) - before) / json.loads(out)["requests"] * 1e6


def main():
    always = BUILD / "bench/always"
    subprocess.run(["go", "build", "-o", always, "./always"], cwd=ROOT / "tests/interop/istio", check=True)
    programs = {"envoy": os.environ.get("ENVOY", BUILD / "cache/envoy/envoy"), "remora": BUILD / "bin/remora-proxy"}
    running = [start(1, BUILD / "bench/backend", BACKEND, BACKEND + 5), start(1, BUILD / "bench/backend", SERVER, SERVER + 5), start(1, always, AUTHZ)]
    try:
        proxies, seen = {}, {}
        for name, program in programs.items():
            path = BUILD / f"bench/authorization-{name}.json"
            path.write_text(json.dumps(config(name)))
            proxies[name] = start(0, program, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error")
            running.append(proxies[name])
        for port in (AUTHZ, *(p + o for p in LISTENERS.values() for o in OFFSET.values())):
            await_port(port)
        for _ in range(ROUNDS):
            for kind, port in LISTENERS.items():
                for name, p in proxies.items():
                    seen.setdefault((kind, name), []).append(measure(p, port + OFFSET[name]))
        for kind in LISTENERS:
            e, r = seen[kind, "envoy"], seen[kind, "remora"]
            print(f"{kind}: Envoy {statistics.median(e):.1f} us, remora {statistics.median(r):.1f} us, {statistics.median(b / a for a, b in zip(e, r)):.2f} of it")
    finally:
        for p in running:
            p.kill()


if __name__ == "__main__":
    main()

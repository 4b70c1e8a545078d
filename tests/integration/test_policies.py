# SPDX-License-Identifier: Apache-2.0
"""Policies as a user writes them, in force: remora-control reads them, sidecars decide. Two callers of different identity, a server with an HTTP and
a TCP port, and a host outside the mesh that says what CUSTOM policies ask about and gives out keys."""

import base64
import contextlib
import json
import os
import shutil
import time

import pytest

from harness import BIN, ROOT, a_world, wait_for
from mesh import Place, Sidecars, http, interpreter
from test_mesh import REASON

pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
PREFIX = f"rmp{os.getpid()}"
ALICE, BOB, SERVER, OUTSIDE = "10.42.0.11", "10.42.0.12", "10.42.0.21", "10.42.0.99"
WEB, CACHE = "10.96.1.20", "10.96.1.40"

WORLD = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: web}}
spec:
  hosts: [web.default.svc.cluster.local]
  addresses: [{WEB}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 9080, name: http, protocol: HTTP}}]
  workloadSelector: {{labels: {{app: web}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: cache}}
spec:
  hosts: [cache.default.svc.cluster.local]
  addresses: [{CACHE}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 6379, name: tcp, protocol: TCP}}]
  workloadSelector: {{labels: {{app: web}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: outside}}
spec:
  hosts: [outside.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 8000, name: http, protocol: HTTP}}, {{number: 9000, name: grpc, protocol: GRPC}}]
  endpoints: [{{address: {OUTSIDE}}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    extensionProviders:
    - name: guard
      envoyExtAuthzHttp:
        service: outside.example
        port: 8000
        timeout: 5s
        includeRequestHeadersInCheck: [x-word]
        headersToUpstreamOnAllow: [x-guard]
        headersToDownstreamOnDeny: [x-guard]
    - name: guard-grpc
      envoyExtAuthzGrpc: {{service: outside.example, port: 9000, timeout: 5s}}
""" + "".join(f"""---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}}}
spec: {{address: {address}, labels: {{app: {app}, security.istio.io/tlsMode: istio}}, serviceAccount: {name}}}
""" for name, address, app in (("alice", ALICE, "caller"), ("bob", BOB, "caller"), ("server", SERVER, "web")))

# Lets pass what says the word, under any path; /keys is the set of keys.
GUARD = """
import http.server, pathlib, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        keys = self.path == "/keys"
        body = pathlib.Path(sys.argv[2]).read_bytes() if keys else b"guarded"
        self.send_response(200 if keys or self.headers.get("x-word") == "please" else 403)
        self.send_header("x-guard", "seen")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
class Server(socketserver.ThreadingTCPServer):  # an HTTPServer asks for its own name first, and here is nobody to ask
    allow_reuse_address = daemon_threads = True
Server(("", int(sys.argv[1])), Handler).serve_forever()
"""

# The same word for requests; of connections it lets pass those of alice. CheckResponse is {status: {code: 7}} or {status: {}}.
GRPC_GUARD = """
import sys, threading
from concurrent import futures
import grpc
def check(data, context):
    good = b"please" in data if b"HTTP/1" in data else b"sa/alice" in data
    return bytes.fromhex("0a00" if good else "0a020807")
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization",
                                                                      {"Check": grpc.unary_unary_rpc_method_handler(check)}),))
server.add_insecure_port("0.0.0.0:" + sys.argv[1])
server.start()
threading.Event().wait()
"""


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Makes tokens, ES256."""

    def __init__(self, kid):
        from cryptography.hazmat.primitives.asymmetric import ec
        self.key, self.kid = ec.generate_private_key(ec.SECP256R1()), kid
        n = self.key.public_key().public_numbers()
        self.keys = json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256", "x": b64(n.x.to_bytes(32, "big")),
                                          "y": b64(n.y.to_bytes(32, "big"))}]})

    def token(self, **claims):
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils
        parts = [b64(json.dumps(p).encode()) for p in ({"alg": "ES256", "kid": self.kid}, {"iss": "https://issuer.example", "sub": "me",
                                                                                            "exp": int(time.time()) + 3600, **claims})]
        r, s = utils.decode_dss_signature(self.key.sign(".".join(parts).encode(), ec.ECDSA(hashes.SHA256())))
        return ".".join([*parts, b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))])


class World:
    def __init__(self, folder):
        self.folder = folder
        (folder / "logs").mkdir()
        (folder / "proxies").mkdir()
        self.place = Place(PREFIX)
        self.mesh = Sidecars(self.place, folder, BIN)
        self.mesh.config.mkdir()
        (self.mesh.config / "world.yaml").write_text(WORLD)
        shutil.copy(ROOT / "tests/demo/apps.py", folder / "apps.py")
        self.issuer = Issuer("k1")
        (folder / "keys.json").write_text(self.issuer.keys)

    def up(self):
        self.place.build({"alice": ALICE, "bob": BOB, "server": SERVER, "outside": OUTSIDE}, {})
        (self.folder / "guard.py").write_text(GUARD)
        (self.folder / "grpc_guard.py").write_text(GRPC_GUARD)
        for host, *argv in (("server", "apps.py", "web", "web", "v1", "9080"), ("server", "apps.py", "redis", "6379"),
                            ("outside", "guard.py", "8000", self.folder / "keys.json")):
            self.place.spawn(f"{host} {argv[0]}", host, [interpreter(), self.folder / argv[0], *argv[1:]], self.mesh.log(f"{host}-{argv[1]}"), 65534)
        self.mesh.start_control()
        proxies = {}
        for name, app in (("alice", "caller"), ("bob", "caller"), ("server", "web")):
            self.mesh.init(name)
            proxies[name] = self.mesh.start_proxy(name, app, "v1", name, concurrency=1)  # so that a caller has one connection
        for name, p in proxies.items():
            self.mesh.wait_proxy(p, name)
        self.wait(200)
        wait_for("the guard", lambda: http(self.place, "outside", "127.0.0.1", 8000, "/keys")[0] == 200, 20, 0.05)

    def policies(self, *texts, alice=200, bob=200):
        """Puts these in force, in place of those before, and waits until both get these answers. A connection that is open meanwhile answers one more
        request as before, and is closed then: so whoever is let pass asks once more."""
        fresh = self.mesh.config / ".policies.new"
        fresh.write_text("\n---\n".join(texts))
        os.rename(fresh, self.mesh.config / "policies.yaml")
        for status, who in sorted([(alice, "alice"), (bob, "bob")], reverse=True):
            self.wait(status, who)
            self.ask(who)

    def ask(self, who="alice", path="/", method="GET", token=None, **headers):
        headers = {k.replace("_", "-"): v for k, v in headers.items()}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return http(self.place, who, WEB, 9080, path, {"Host": "web:9080", **headers}, method, timeout=10)

    def status(self, *args, **kw):
        return self.ask(*args, **kw)[0]

    def wait(self, status, *args, **kw):
        wait_for(f"status {status}", lambda: self.status(*args, **kw) == status, 20, 0.05)

    def cache_answers(self, who, address=CACHE):
        with contextlib.suppress(OSError), self.place.connect(who, address, 6379) as s:
            s.settimeout(10)
            s.sendall(b"PING\r\n")
            return s.recv(100) == b"+PONG\r\n"
        return False


@pytest.fixture(scope="module")
def world():
    pytest.importorskip("cryptography")
    with a_world(World, PREFIX) as w:
        yield w


@pytest.fixture(autouse=True)
def nothing_in_force(world):
    world.policies()


def policy(kind, name, spec, notes=""):
    return f"apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, annotations: {{{notes}}}}}\nspec: {spec}"


def allow(spec, **kw):
    return policy("AuthorizationPolicy", "allow", spec, **kw)


def test_denied_by_principal(world):
    world.policies(policy("AuthorizationPolicy", "no-bob", "{action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/bob]}}]}]}"), bob=403)
    assert world.ask("bob")[2] == b"RBAC: access denied"
    assert world.status("alice") == 200
    assert world.cache_answers("alice") and not world.cache_answers("bob")
    world.policies()
    assert world.cache_answers("bob")


def test_allowed_by_path_and_account(world):
    world.policies(allow("{selector: {matchLabels: {app: web}}, rules: [{from: [{source: {serviceAccounts: [alice]}}], to: [{operation: "
                         "{methods: [GET], paths: [\"/books/{*}/pages\", \"/open*\"]}}]}, {to: [{operation: {ports: [\"6379\"]}}]}]}"), alice=403, bob=403)
    assert [world.status("alice", path) for path in ("/books/1/pages", "/opened", "/open?x", "/books/1/2/pages", "/books//pages", "/")] == \
        [200, 200, 200, 403, 403, 403]
    assert world.status("alice", "/open", "POST") == 403
    assert world.status("bob", "/open") == 403
    assert world.cache_answers("bob")  # the port is allowed to all
    world.policies()
    world.policies(allow("{rules: [{to: [{operation: {methods: [GET]}}]}]}"))
    wait_for("what has no method to be refused", lambda: not world.cache_answers("alice"), 20, 0.05)


def test_an_empty_policy_allows_nothing(world):
    world.policies(allow("{}"), alice=403, bob=403)
    assert not world.cache_answers("alice")


def test_claims_of_tokens(world):
    keys = json.dumps(world.issuer.keys)
    world.policies(policy("RequestAuthentication", "issuer", f"{{jwtRules: [{{issuer: \"https://issuer.example\", jwks: {keys}}}]}}"),
                   allow("{rules: [{from: [{source: {requestPrincipals: [\"https://issuer.example/*\"]}}], "
                         "when: [{key: \"request.auth.claims[groups]\", values: [readers]}]}]}"), alice=403, bob=403)
    good = world.issuer.token(groups=["writers", "readers"])
    assert world.status(token=good) == 200
    assert world.status(token=world.issuer.token(groups=["writers"])) == 403
    assert world.status(token=world.issuer.token()) == 403
    assert world.status(token=world.issuer.token(groups=["readers"], exp=1)) == 401
    assert world.status(token=Issuer("k1").token(groups=["readers"])) == 401
    assert world.status(token=good[:-2]) == 401


def test_keys_are_fetched_where_they_are(world):
    world.policies(policy("RequestAuthentication", "issuer", "{jwtRules: [{issuer: \"https://issuer.example\", jwksUri: \"http://outside.example:8000/keys\"}]}"),
                   allow("{rules: [{from: [{source: {requestPrincipals: [\"*\"]}}]}]}"), alice=403, bob=403)
    world.wait(200, token=world.issuer.token())
    assert world.status(token=Issuer("k1").token()) == 401


def test_keys_that_do_not_come_let_nobody_in(world):
    world.policies(policy("RequestAuthentication", "issuer", "{jwtRules: [{issuer: \"https://issuer.example\", jwksUri: \"https://127.0.0.1:9/keys\"}]}"),
                   policy("AuthorizationPolicy", "no-bob", "{action: DENY, rules: [{from: [{source: {serviceAccounts: [bob]}}]}]}"), bob=403)
    assert world.status(token=world.issuer.token()) == 401
    assert world.status() == 200  # nobody asked for a token


def test_a_port_without_mutual_tls(world):
    """Callers of the mesh know which ports take it and which do not; others reach the latter alone."""
    world.policies(policy("PeerAuthentication", "mostly", "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {6379: {mode: DISABLE}}}"))

    def refused():
        with contextlib.suppress(OSError):
            http(world.place, "outside", SERVER, 9080, timeout=5)
            return False
        return True
    wait_for("plain text to be refused", refused, 20, 0.05)
    wait_for("alice to come in plain text", lambda: world.cache_answers("alice"), 20, 0.05)
    assert world.cache_answers("outside", SERVER) and world.cache_answers("bob") and world.status() == 200


def test_another_program_decides(world):
    world.policies(policy("AuthorizationPolicy", "ask", "{action: CUSTOM, provider: {name: guard}, rules: [{to: [{operation: {paths: [/guarded*, /headers]}}]}]}"),
                   policy("AuthorizationPolicy", "no-bob", "{action: DENY, rules: [{from: [{source: {serviceAccounts: [bob]}}]}]}"), bob=403)
    status, headers, body = world.ask(path="/guarded")
    assert (status, headers.get("x-guard"), body) == (403, "seen", b"guarded")
    world.wait(200, path="/guarded", x_word="please")
    assert json.loads(world.ask(path="/headers", x_word="please")[2])["headers"]["x-guard"] == "seen"
    assert world.status(path="/open/../guarded") == 403  # what is asked about is the path as the server gets it
    assert world.status("bob", "/guarded", x_word="please") == 403  # the others hold as well


def test_another_program_decides_by_grpc(world):
    pytest.importorskip("grpc")
    guard = world.place.spawn("guard by gRPC", "outside", [interpreter(), world.folder / "grpc_guard.py", "9000"], world.mesh.log("outside-9000"), 65534)
    try:
        wait_for("the guard", lambda: world.place.connect("outside", "127.0.0.1", 9000).close() is None, 20, 0.05)
        world.policies(policy("AuthorizationPolicy", "ask", "{action: CUSTOM, provider: {name: guard-grpc}, rules: [{to: [{operation: {paths: [/guarded]}}]}, "
                              "{to: [{operation: {ports: [\"6379\"]}}]}]}"),
                       policy("AuthorizationPolicy", "no-bob", "{action: DENY, rules: [{to: [{operation: {ports: [\"9080\"]}}], from: [{source: "
                              "{serviceAccounts: [bob]}}]}]}"), bob=403)
        assert world.status() == 200 and world.status(path="/guarded") == 403
        assert world.status(path="/guarded", x_word="please") == 200
        assert world.status("bob", "/guarded", x_word="please") == 403
        assert world.cache_answers("alice") and not world.cache_answers("bob")
    finally:
        world.place.stop([guard])
    assert not world.cache_answers("alice")  # nobody to ask: nothing passes
    assert world.status(path="/guarded", x_word="please") == 403 and world.status() == 200


def test_a_dry_run_stops_nothing(world):
    world.policies(policy("AuthorizationPolicy", "try", "{action: DENY, rules: [{}]}", notes="istio.io/dry-run: \"true\""),
                   policy("AuthorizationPolicy", "no-bob", "{action: DENY, rules: [{from: [{source: {serviceAccounts: [bob]}}]}]}"), bob=403)
    stats = http(world.place, "server", "127.0.0.1", 15000, "/stats?filter=dry_run")[2].decode()
    assert any("rbac.istio_dry_run_deny_.shadow_denied: " in line and not line.endswith(" 0") for line in stats.splitlines())


def test_a_policy_that_is_not_understood_changes_nothing(world):
    world.policies(policy("AuthorizationPolicy", "no-bob", "{action: DENY, rules: [{from: [{source: {serviceAccounts: [bob]}}]}]}"), bob=403)
    log = world.mesh.log("remora-control")
    at = len(log.read_text())
    world.policies(policy("AuthorizationPolicy", "no-bob", "{action: DENY, rules: [{from: [{source: {serviceAccount: [bob]}}]}]}"), bob=403)
    wait_for("remora-control to name the place", lambda: "policies.yaml:4: serviceAccount: unknown" in log.read_text()[at:], 20)
    assert world.status("bob") == 403 and world.status("alice") == 200
    world.policies()

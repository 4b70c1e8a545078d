# SPDX-License-Identifier: Apache-2.0
"""External authorization where things go wrong: servers that are slow, dead or wrong, clients that leave, bodies that wait, many at once; mutual
TLS; connections; and what istiod makes of CUSTOM policies. What each answer does stands in tests/parity/cases/ext_authz_*.yaml."""

import json
import pathlib
import socket
import ssl
import struct
import sys
import threading
import urllib.parse

import pytest

from harness import ask, cluster, connect, echo, eventually, free_port, hcm, http2_upstream, listener, mint, read_answer, route, tcp_proxy, tls_files, web

grpc = pytest.importorskip("grpc", reason="python3-grpcio is not installed; run tools/install-deps test")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "parity"))
import authz  # noqa: E402

TYPE = "type.googleapis.com/envoy.extensions.filters."
LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"


def answer(status, body):
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


def over_http(**more):
    service = {"server_uri": {"uri": "http://authz", "cluster": "authz", "timeout": "20s"}}
    return {"@type": TYPE + "http.ext_authz.v3.ExtAuthz", "http_service": {**service, **more.pop("service", {})}, **more}


def over_grpc(kind="http", **more):
    service = {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "20s"}
    return {"@type": f"{TYPE}{kind}.ext_authz.v3.ExtAuthz", "transport_api_version": "V3", "grpc_service": {**service, **more.pop("service", {})}, **more}


def asking(port, *filters, tls=None, **more):
    """A listener that asks before it passes requests on to cluster "a"."""
    m = hcm([route("a")], **more)
    http = m["typed_config"]["http_filters"]
    http[:0] = [{"name": "envoy.filters.http." + f["@type"].split(".")[-3], "typed_config": f} for f in filters]
    return listener(port, m, tls)


@pytest.fixture
def decide():
    """start(**) → the gRPC server of tests/parity; closed after the test."""
    made = []

    def start(**kw):
        made.append(authz.Server(**kw))
        return made[-1]
    yield start
    for s in made:
        s.close()


def grpc_cluster(server, tls=None):
    return cluster("authz", [server.port], tls, **http2_upstream())


# --- servers that fail ---

def stall(c, _):
    c.recv(65536)
    c.recv(1)


def slam(c, _):
    c.recv(65536)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def say(data):
    def fn(c, _):
        c.recv(65536)
        c.sendall(data)
    return fn


def flood(c, _):
    c.recv(65536)
    c.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    piece = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    while True:
        c.sendall(piece)


FAULTS = {"slow": stall, "resets": slam, "closes": say(b""), "garbage": say(b"\x00\xffnot http\r\n\r\n"), "half a head": say(b"HTTP/1.1 200 OK\r\nx"),
          "half a body": say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"), "endless": flood,
          "many fields": say(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5000 + b"\r\n")}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_fails_lets_nobody_in(proxy, backend, fault):
    a, server, closed, opened = backend(web()), backend(FAULTS[fault]), free_port(), free_port()
    service = {"server_uri": {"uri": "http://authz", "cluster": "authz", "timeout": "1s"}} if fault == "slow" else {}
    p = proxy([asking(closed, over_http(service=service), stat_prefix="closed"),
               asking(opened, over_http(service=service, failure_mode_allow=True), stat_prefix="opened")],
              [cluster("a", [a.port]), cluster("authz", [server.port])])
    assert ask(closed).status == 403
    assert a.connections == 0
    assert ask(opened).status == 200
    assert p.stat("http.closed.ext_authz.error") == 1 and p.stat("http.opened.ext_authz.failure_mode_allowed") == 1
    eventually(lambda: p.stat("cluster.authz.upstream_rq_active") == 0, 10, "the calls to end")


GRPC_FAULTS = {"status": 14, "garbage": {"bytes": "ffff"}, "truncated": {"bytes": "0a05"}, "not utf-8": {"bytes": "0a0412020aff"}, "slow": "stall"}


@pytest.mark.parametrize("fault", GRPC_FAULTS)
def test_a_grpc_server_that_fails_lets_nobody_in(proxy, backend, decide, fault):
    a, server, port = backend(web()), decide(), free_port()
    p = proxy([asking(port, over_grpc(service={"timeout": "1s"} if fault == "slow" else {}), stat_prefix="in")], [cluster("a", [a.port]), grpc_cluster(server)])
    server.begin("", [GRPC_FAULTS[fault], {"ok": None}])
    assert ask(port).status == 403
    assert a.connections == 0 and p.stat("http.in.ext_authz.error") == 1
    if fault != "slow":  # the connection to the server is still good
        assert ask(port).status == 200 and p.stat("http.in.ext_authz.ok") == 1


def test_an_answer_larger_than_allowed_is_none(proxy, backend, decide):
    a, server, port = backend(web()), decide(), free_port()
    service = {"envoy_grpc": {"cluster_name": "authz", "max_receive_message_length": 100}}
    proxy([asking(port, over_grpc(service=service))], [cluster("a", [a.port]), grpc_cluster(server)])
    server.begin("", [{"ok": {"headers": [{"header": {"key": "x-big", "value": "v" * 200}}]}}, {"ok": {"headers": [{"header": {"key": "x", "value": "v"}}]}}])
    assert [ask(port).status, ask(port).status] == [403, 200]


def test_servers_come_and_go(proxy, backend, decide):
    """Fails while nobody listens, works when somebody does, and fails again."""
    a, port, place = backend(web()), free_port(), free_port()
    proxy([asking(port, over_http())], [cluster("a", [a.port]), cluster("authz", [place])])
    assert ask(port).status == 403
    server = backend(say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"), port=place)
    assert ask(port).status == 200
    server.close()
    assert ask(port).status == 403


# --- clients, bodies ---

def test_a_client_that_leaves_takes_its_question_along(proxy, backend):
    gone = threading.Event()

    def slow(c, _):
        c.recv(65536)
        if c.recv(1) == b"":
            gone.set()
    a, server, port = backend(web()), backend(slow), free_port()
    p = proxy([asking(port, over_http())], [cluster("a", [a.port]), cluster("authz", [server.port])])
    with connect(port) as s:
        s.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        eventually(lambda: p.stat("cluster.authz.upstream_rq_active") == 1, 10, "the question")
    assert gone.wait(10)
    eventually(lambda: p.stat("cluster.authz.upstream_rq_active") == 0, 10, "the question to be given up")
    assert a.connections == 0


def test_an_upload_waits_for_the_decision(proxy, backend):
    """What comes of the body meanwhile is bounded, and nothing of it gets lost."""
    ready, decided = threading.Event(), threading.Event()

    def server_fn(c, _):
        c.recv(65536)
        ready.set()
        decided.wait(20)
        c.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    total, got = 32 << 20, []

    def count(c, b):
        f = c.makefile("rb")
        while f.readline() not in (b"\r\n", b""):
            pass
        n = 0
        while n < total and (part := f.read(min(1 << 16, total - n))):
            n += len(part)
        got.append(n)
        c.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    a, server, port = backend(count), backend(server_fn), free_port()
    p = proxy([asking(port, over_http())], [cluster("a", [a.port]), cluster("authz", [server.port])])
    before = p.resident_kib()
    s = connect(port, 30)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    s.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % total)
    sender = threading.Thread(target=lambda: [s.sendall(b"x" * (1 << 20)) for _ in range(total >> 20)], daemon=True)
    sender.start()
    assert ready.wait(10)
    sender.join(1)
    assert sender.is_alive() and not got
    assert p.resident_kib() - before < 8 << 10
    decided.set()
    assert read_answer(s.makefile("rb")).status == 200
    assert got == [total]
    s.close()


def test_a_body_up_to_the_limit_is_held_and_shown(proxy, backend, decide):
    """More than what usually may wait: with_request_body says so."""
    a, server, port = backend(web(answer=lambda line, headers, body: answer(200, str(len(body))))), decide(), free_port()
    p = proxy([asking(port, over_grpc(with_request_body={"max_request_bytes": 300000, "pack_as_bytes": True}), stat_prefix="in")],
              [cluster("a", [a.port]), grpc_cluster(server)])
    assert ask(port, method="POST", body=b"x" * 300000).body == b"300000"
    assert len(server.wait("", 1)[0]["message"]["attributes"]["request"]["http"]["raw_body"]) == 400000  # base64
    assert ask(port, method="POST", body=b"x" * 300001).status == 413
    assert p.stat("http.in.downstream_rq_too_large") == 1
    assert len(server.wait("", 1)) == 1


def test_a_body_may_wait_behind_two_filters(proxy, backend, decide):
    """The first one lets less of it come than the second one wants to see."""
    fault = {"@type": TYPE + "http.fault.v3.HTTPFault", "delay": {"fixed_delay": "0.3s", "percentage": {"numerator": 100}}}
    a, server, port = backend(web(answer=lambda line, headers, body: answer(200, str(len(body))))), decide(), free_port()
    proxy([asking(port, fault, over_grpc(with_request_body={"max_request_bytes": 3000000, "pack_as_bytes": True}))],
          [cluster("a", [a.port]), grpc_cluster(server)])
    assert ask(port, method="POST", body=b"x" * 2000000).body == b"2000000"


def test_an_answer_may_not_blow_a_request_up(proxy, backend, decide):
    a, server, port = backend(web()), decide(), free_port()
    p = proxy([asking(port, over_grpc(), stat_prefix="in")], [cluster("a", [a.port]), grpc_cluster(server)])
    server.begin("", [{"ok": {"headers": [{"header": {"key": f"x-{i}", "value": "v"}} for i in range(200)]}},
                      {"ok": {"headers": [{"header": {"key": "x", "value": "v" * 100000}}]}}])
    assert [ask(port).status for _ in range(3)] == [500, 500, 200]
    assert p.stat("http.in.ext_authz.invalid") == 2 and a.connections == 1


def test_a_websocket_goes_through_after_the_decision(proxy, backend, decide):
    def shout(c, _):
        f = c.makefile("rb")
        while f.readline() not in (b"\r\n", b""):
            pass
        c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        c.sendall(c.recv(5).upper())
    a, server, port = backend(shout), decide(), free_port()
    filters = over_grpc(with_request_body={"max_request_bytes": 10})  # which has no meaning for a conversation
    proxy([asking(port, filters, upgrade_configs=[{"upgrade_type": "websocket"}])], [cluster("a", [a.port]), grpc_cluster(server)])
    server.begin("", [{"denied": {}}])
    for status in (403, 101):
        with connect(port, 10) as s:
            s.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello")
            f = s.makefile("rb")
            assert f.readline().split()[1] == str(status).encode()
            while status == 101 and f.readline() not in (b"\r\n", b""):
                pass
            assert status == 403 or f.read(5) == b"HELLO"


def test_many_at_once(proxy, backend, decide):
    """Each request gets its own answer."""
    a, server, port = backend(web()), decide(), free_port()
    p = proxy([asking(port, over_grpc(), stat_prefix="in")], [cluster("a", [a.port]), grpc_cluster(server)], concurrency=2)
    wrong = []
    names = [f"{t}-{i}" for t in range(16) for i in range(25)]
    for n in names:
        if int(n.split("-")[1]) % 2:
            server.begin(n, [{"denied": {"status": {"code": "Unauthorized"}, "body": n}}])

    def run(t):
        for i in range(25):
            n = f"{t}-{i}"
            got = ask(port, headers={"x-case": n})
            if (got.status, got.body) != ((401, n.encode()) if i % 2 else (200, b"a")):
                wrong.append((n, got.status, got.body))
    threads = [threading.Thread(target=run, args=(t,)) for t in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert (p.stat("http.in.ext_authz.ok"), p.stat("http.in.ext_authz.denied")) == (16 * 13, 16 * 12)


def test_the_proxy_ends_while_questions_wait(proxy, backend):
    a, server, port = backend(web()), backend(stall), free_port()
    p = proxy([asking(port, over_http())], [cluster("a", [a.port]), cluster("authz", [server.port])])
    with connect(port) as s:
        s.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        eventually(lambda: p.stat("cluster.authz.upstream_rq_active") == 1, 10, "the question")
        p.stop(20)


def test_configurations_change_while_questions_wait(proxy, backend, decide, tmp_path):
    """Listeners and the server's cluster go away under them: what waits ends one way or the other, and what comes next is good."""
    a, server, web_port, tcp_port = backend(web()), decide(), free_port(), free_port()
    kinds = {"lds": "listener.v3.Listener", "cds": "cluster.v3.Cluster"}

    def put(name, version, resources):
        (tmp_path / "next").write_text(json.dumps({"version_info": version, "resources": [
            {"@type": "type.googleapis.com/envoy.config." + kinds[name], **r} for r in resources]}))
        (tmp_path / "next").rename(tmp_path / name)
    put("cds", "1", [cluster("a", [a.port]), grpc_cluster(server)])
    put("lds", "1", [asking(web_port, over_grpc()), tcp(tcp_port, tmp_path, over_grpc("network", stat_prefix="in"))])
    p = proxy([], [], args=("--drain-time-s", "60"), dynamic_resources={
        f"{k}_config": {"path_config_source": {"path": str(tmp_path / k)}, "resource_api_version": "V3"} for k in kinds})
    server.begin("", [{"wait_ms": 1500, "ok": None}, {"wait_ms": 1500, "ok": None}])
    request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with connect(web_port, 20) as one, connect(tcp_port, 20) as two:
        for s in (one, two):
            s.sendall(request)
        assert len(server.wait("", 2)) == 2
        put("lds", "2", [asking(web_port)])

        def unasked():
            before = len(server.asked[""])
            return ask(web_port).status == 200 and len(server.asked[""]) == before
        eventually(unasked, 20, "the second version")
        put("cds", "2", [cluster("a", [a.port])])
        for s in (one, two):
            try:
                assert s.recv(100)[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 403", b"")
            except ConnectionResetError:
                pass
    assert ask(web_port).status == 200


# --- mutual TLS ---

@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    return {n: mint(folder, n, f"spiffe://cluster.local/ns/test/sa/{n}") for n in ("server", "client", "authz")}


def client_context(folder):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_NONE
    ctx.load_cert_chain(folder / "cert-chain.pem", folder / "key.pem")
    return ctx


def test_who_asks_is_said(proxy, backend, decide, certs, tmp_path):
    a, server, port = backend(web()), decide(), free_port()
    tls = tls_files(certs["server"])
    tls["require_client_certificate"] = True
    proxy([asking(port, over_grpc(include_peer_certificate=True, include_tls_session=True), tls=tls)], [cluster("a", [a.port]), grpc_cluster(server)])
    with connect(port) as raw, client_context(certs["client"]).wrap_socket(raw, server_hostname="shop.test") as s:
        s.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert read_answer(s.makefile("rb")).status == 200
        der = s.getpeername()
    seen = server.wait("", 1)[0]["message"]["attributes"]
    assert seen["source"]["principal"] == "spiffe://cluster.local/ns/test/sa/client"
    assert seen["destination"]["principal"] == "spiffe://cluster.local/ns/test/sa/server"
    assert seen["tls_session"] == {"sni": "shop.test"}
    pem = urllib.parse.unquote(seen["source"]["certificate"])
    first = (certs["client"] / "cert-chain.pem").read_text().split("-----END")[0]
    assert pem.split("-----END")[0].split() == first[first.index("-----BEGIN"):].split() and der


def test_a_server_over_mutual_tls(proxy, backend, certs, tmp_path):
    a, port = backend(web()), free_port()
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(certs["authz"] / "cert-chain.pem", certs["authz"] / "key.pem")
    ctx.load_verify_locations(certs["authz"] / "root-cert.pem")
    ctx.verify_mode = ssl.CERT_REQUIRED
    server = backend(web(answer=lambda line, headers, body: answer(401 if "/no" in line else 200, "who?")), tls=ctx)
    proxy([asking(port, over_http())],
          [cluster("a", [a.port]), cluster("authz", [server.port], tls_files(certs["server"], ["spiffe://cluster.local/ns/test/sa/authz"]))])
    assert [ask(port, path).status for path in ("/no", "/yes")] == [401, 200]


# --- CUSTOM policies, as istiod encodes them ---

def test_custom_policies_choose_who_is_asked(proxy, backend, decide):
    rbac = {"@type": TYPE + "http.rbac.v3.RBAC", "shadow_rules_stat_prefix": "istio_ext_authz_",
            "shadow_rules": {"action": "DENY", "policies": {"istio-ext-authz-mine-ns[foo]-policy[bar]-rule[0]": {
                "permissions": [{"and_rules": {"rules": [{"url_path": {"path": {"prefix": "/admin"}}}]}}], "principals": [{"any": True}]}}}}
    enabled = {"filter": "envoy.filters.http.rbac", "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
               "value": {"string_match": {"prefix": "istio-ext-authz-mine"}}}
    other = {**enabled, "value": {"string_match": {"prefix": "istio-ext-authz-theirs"}}}
    a, server, port = backend(web()), decide(), free_port()
    p = proxy([asking(port, rbac, over_grpc(filter_enabled_metadata=enabled), over_grpc(filter_enabled_metadata=other, stat_prefix="theirs"), stat_prefix="in")],
              [cluster("a", [a.port]), grpc_cluster(server)])
    server.begin("", [{"denied": {}}])
    assert [ask(port, path).status for path in ("/", "/admin", "/other", "/admin/x")] == [200, 403, 200, 200]
    assert len(server.wait("", 2)) == 2
    assert p.stat("http.in.ext_authz.disabled") == 2 and p.stat("http.in.ext_authz.theirs.disabled") == 3


def test_custom_policies_of_connections(proxy, backend, decide, tmp_path):
    a, server, asked, other = backend(echo), decide(), free_port(), free_port()
    rbac = {"@type": TYPE + "network.rbac.v3.RBAC", "stat_prefix": "tcp.", "shadow_rules_stat_prefix": "istio_ext_authz_",
            "shadow_rules": {"action": "DENY", "policies": {"istio-ext-authz-mine-ns[foo]-policy[bar]-rule[0]": {
                "permissions": [{"and_rules": {"rules": [{"or_rules": {"rules": [{"destination_port": asked}]}}]}}], "principals": [{"any": True}]}}}}
    enabled = {"filter": "envoy.filters.network.rbac", "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
               "value": {"string_match": {"prefix": "istio-ext-authz-mine"}}}
    p = proxy([tcp(port, tmp_path, rbac, over_grpc("network", stat_prefix="in", filter_enabled_metadata=enabled)) for port in (asked, other)],
              [cluster("a", [a.port]), grpc_cluster(server)])
    server.begin("", [{"denied": {}}])
    assert [exchange(asked), exchange(other), exchange(asked)] == [b"", b"hello", b"hello"]
    assert len(server.wait("", 2)) == 2
    assert (p.stat("ext_authz.in.total") or 0, p.stat("ext_authz.in.denied")) == (2, 1)


# --- connections ---

def tcp(port, tmp_path, *filters, tls=None):
    log = {"name": "envoy.access_loggers.file", "typed_config": {"@type": LOG, "path": str(tmp_path / "tcp.log"), "log_format": {
        "text_format_source": {"inline_string": "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %DYNAMIC_METADATA(envoy.filters.network.ext_authz:user)%\n"}}}}
    x = listener(port, tcp_proxy("a", access_log=[log]), tls)
    x["filter_chains"][0]["filters"][:0] = [{"name": "envoy.filters.network." + f["@type"].split(".")[-3], "typed_config": f} for f in filters]
    return x


def exchange(port, data=b"hello"):
    """What the other side says to data, b"" when it ends or resets."""
    try:
        with connect(port, 10) as s:
            s.sendall(data)
            return s.recv(100)
    except OSError:
        return b""


def test_connections(proxy, backend, decide, tmp_path):
    a, server, port = backend(echo), decide(), free_port()
    p = proxy([tcp(port, tmp_path, over_grpc("network", stat_prefix="in"))], [cluster("a", [a.port]), grpc_cluster(server)])
    server.begin("", [{"ok": None, "metadata": {"user": "me"}}, {"denied": {}}, 14, {"bytes": "ff"}, {"ok": None}])
    assert [exchange(port) for _ in range(5)] == [b"hello", b"", b"", b"", b"hello"]
    assert a.connections == 2
    eventually(lambda: p.stat("ext_authz.in.total") == 5, 10, "the statistics")
    assert [p.stat(f"ext_authz.in.{n}") for n in ("ok", "denied", "error", "cx_closed", "active")] == [2, 1, 2, 3, 0]
    lines = eventually(lambda: len(t := (tmp_path / "tcp.log").read_text().splitlines()) == 5 and t, 10, "the log")
    assert sorted(lines) == ["- - -", "- - me", "UAEX ext_authz_denied -", "UAEX ext_authz_error -", "UAEX ext_authz_error -"]
    said = server.wait("", 5)[0]["message"]["attributes"]
    assert "request" not in said and said["destination"]["address"]["socket_address"]["port_value"] == port


def test_connections_without_a_server(proxy, backend, decide, tmp_path):
    a, dead, closed, opened = backend(echo), free_port(), free_port(), free_port()
    p = proxy([tcp(closed, tmp_path, over_grpc("network", stat_prefix="closed")),
               tcp(opened, tmp_path, over_grpc("network", stat_prefix="opened", failure_mode_allow=True))],
              [cluster("a", [a.port]), cluster("authz", [dead], **http2_upstream())])
    assert (exchange(closed), exchange(opened)) == (b"", b"hello")
    assert p.stat("ext_authz.closed.cx_closed") == 1 and p.stat("ext_authz.opened.failure_mode_allowed") == 1


def test_a_server_that_speaks_first_says_nothing_before_the_decision(proxy, backend, decide, tmp_path):
    def banner(c, _):
        c.sendall(b"welcome")
        c.recv(1)
    a, server, port = backend(banner), decide(), free_port()
    p = proxy([tcp(port, tmp_path, over_grpc("network", stat_prefix="in"))], [cluster("a", [a.port]), grpc_cluster(server)])
    server.begin("", [{"denied": {}}, "stall", {"ok": None}])
    with connect(port, 10) as s:
        assert s.recv(10) == b""
    with connect(port, 10) as s:
        eventually(lambda: p.stat("ext_authz.in.active") == 1, 10, "the question")
        assert len(server.wait("", 2)) == 2 and a.connections == 0
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: p.stat("ext_authz.in.active") == 0, 10, "the question to be given up")
    with connect(port, 10) as s:
        assert s.recv(10) == b"welcome"


def test_connections_of_requests(proxy, backend, decide, tmp_path):
    """In front of the HTTP manager; and the proxy ends while a question waits."""
    a, server, port = backend(web()), decide(), free_port()
    x = asking(port)
    x["filter_chains"][0]["filters"].insert(0, {"name": "envoy.filters.network.ext_authz", "typed_config": over_grpc("network", stat_prefix="in")})
    p = proxy([x], [cluster("a", [a.port]), grpc_cluster(server)])
    server.begin("", [{"ok": None}, {"denied": {}}, "stall"])
    assert ask(port).status == 200
    assert exchange(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") == b""
    with connect(port, 10) as s:
        s.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        eventually(lambda: p.stat("ext_authz.in.active") == 1, 10, "the question")
        p.stop(20)


def test_who_connects_is_said(proxy, backend, decide, certs, tmp_path):
    a, server, port = backend(echo), decide(), free_port()
    tls = tls_files(certs["server"])
    tls["require_client_certificate"] = True
    proxy([tcp(port, tmp_path, over_grpc("network", stat_prefix="in", include_peer_certificate=True), tls=tls)], [cluster("a", [a.port]), grpc_cluster(server)])
    with connect(port) as raw, client_context(certs["client"]).wrap_socket(raw) as s:
        s.sendall(b"hello")
        assert s.recv(10) == b"hello"
    said = server.wait("", 1)[0]["message"]["attributes"]["source"]
    assert said["principal"] == "spiffe://cluster.local/ns/test/sa/client" and said["certificate"].startswith("-----BEGIN%20CERTIFICATE-----%0A")

# SPDX-License-Identifier: Apache-2.0
"""ALPN between Istio's peers: `istio-peer-exchange` spoken on TCP connections in both directions, with peers made here and between two proxies;
`istio.alpn` on HTTP, and pools kept apart by what they offer."""

import ssl
import struct

import pytest

from harness import (ROUTER, ask, cluster, connect, echo, eventually, free_port, hcm, listener, mint, read_answer, route, tcp_proxy,
                     tls_files, web)

MX = {"name": "istio.metadata_exchange", "typed_config": {
    "@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange",
    "value": {"protocol": "istio-peer-exchange"}}}
ALPN_FILTER = "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"
LOG = {"name": "log", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "log_format": {"text_format_source": {"inline_string":
                   "PEERS %FILTER_STATE(downstream_peer)% %FILTER_STATE(wasm.downstream_peer_id)% / %FILTER_STATE(upstream_peer:PLAIN)% "
                   "%FILTER_STATE(upstream_peer_id)% BYTES %BYTES_RECEIVED% %BYTES_SENT%\n"}}}}
MAGIC = struct.pack("!I", 0x3D230467)


def node(name):
    return {"id": f"sidecar~10.0.0.1~{name}-1.ns~ns.svc.cluster.local", "cluster": f"{name}.ns", "metadata": {
        "NAME": f"{name}-1", "NAMESPACE": "ns", "WORKLOAD_NAME": name, "CLUSTER_ID": "k8s", "SECRET": "inner-secret",
        "LABELS": {"service.istio.io/canonical-name": f"canon-{name}", "service.istio.io/canonical-revision": "v7", "app": name, "inner": "label"}}}


# --- protobuf by hand: google.protobuf.Any of a Struct of texts and Structs ---

def field(number, data):
    n, out = len(data), bytes([number << 3 | 2])
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n]) + data


def struct_of(values):
    def value(v):
        return field(5, struct_of(v)) if isinstance(v, dict) else field(3, v.encode())
    return b"".join(field(1, field(1, k.encode()) + field(2, value(v))) for k, v in sorted(values.items()))


def message(values):
    body = field(1, b"type.googleapis.com/google.protobuf.Struct") + field(2, struct_of(values))
    return MAGIC + struct.pack("!I", len(body)) + body


THEIRS = message({"x-envoy-peer-metadata": {"NAME": "fake-1", "NAMESPACE": "other", "WORKLOAD_NAME": "fake", "CLUSTER_ID": "far", "LABELS": {
    "service.istio.io/canonical-name": "canon-fake", "service.istio.io/canonical-revision": "v1"}}, "x-envoy-peer-metadata-id": "sidecar~fake"})
THEIR_NAMES = "k8s.deployment.name=fake,service.name=canon-fake,service.version=v1,k8s.namespace.name=other,k8s.cluster.name=far"


def names(name):
    return (f"k8s.deployment.name={name},service.name=canon-{name},service.version=v7,k8s.namespace.name=ns,k8s.cluster.name=k8s,app.name={name} "
            f"sidecar~10.0.0.1~{name}-1.ns~ns.svc.cluster.local")


def exactly(s, n):
    got = b""
    while len(got) < n:
        part = s.recv(n - len(got))
        if not part:
            raise AssertionError(f"end after {len(got)} of {n} bytes: {got!r}")
        got += part
    return got


def read_message(s):
    head = exactly(s, 8)
    assert head[:4] == MAGIC
    return exactly(s, struct.unpack("!I", head[4:])[0])


@pytest.fixture
def ids(tmp_path):
    return {n: mint(tmp_path / "certs", n, f"spiffe://cluster.local/ns/default/sa/{n}") for n in ("a", "b")}


def with_alpn(context, *names_):
    context["common_tls_context"]["alpn_protocols"] = list(names_)
    return context


def inbound(port, ids, to, mx=True, **more):
    lst = listener(port, tcp_proxy(to, access_log=[LOG]), with_alpn({"require_client_certificate": True, **tls_files(ids["b"])},
                                                                    "istio-peer-exchange", "h2", "http/1.1"), **more)
    if mx:
        lst["filter_chains"][0]["filters"].insert(0, MX)
    return lst


def outbound_cluster(name, port, ids, mx=True, *more):
    return cluster(name, [port], with_alpn(tls_files(ids["a"]), "istio-peer-exchange", "istio", *more), **({"filters": [MX]} if mx else {}))


def context(ids, who, *alpn):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if who == "a" else ssl.PROTOCOL_TLS_SERVER)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    ctx.load_cert_chain(ids[who] / "cert-chain.pem", ids[who] / "key.pem")
    ctx.set_alpn_protocols(list(alpn))
    return ctx


# --- inbound, with a client made here ---

@pytest.mark.parametrize("step", [1000, 1])
def test_client_that_tells(proxy, backend, ids, step):
    app = backend(echo)
    port = free_port()
    p = proxy([inbound(port, ids, "app")], [cluster("app", [app.port])], node=node("srv"))
    with context(ids, "a", "istio-peer-exchange", "istio").wrap_socket(connect(port, 15)) as s:
        assert s.selected_alpn_protocol() == "istio-peer-exchange"
        data = THEIRS + b"hello"
        for i in range(0, len(data), step):
            s.sendall(data[i:i + step])
        mine = read_message(s)
        assert b"canon-srv" in mine and b"srv-1" in mine and b"sidecar~10.0.0.1~srv-1.ns" in mine
        assert b"inner" not in mine  # other metadata is nobody's business
        assert exactly(s, 5) == b"hello"
    eventually(lambda: f"PEERS {THEIR_NAMES} sidecar~fake / - - BYTES 5 5" in p.text(), 15, "the access log")
    assert p.stat("tcp.tcp.metadata_exchange.metadata_added") == 1


def test_client_that_does_not_tell(proxy, backend, ids):
    """It negotiated, and begins with payload all the same: nothing of that is lost."""
    app = backend(echo)
    port = free_port()
    p = proxy([inbound(port, ids, "app")], [cluster("app", [app.port])])
    for payload in (b"hello", b"=", b"=#\x04", MAGIC + b"\0\0"):
        with context(ids, "a", "istio-peer-exchange").wrap_socket(connect(port, 15)) as s:
            s.sendall(payload)
            read_message(s)
            if len(payload) != 5:
                try:
                    s.unwrap()  # the end of the client's bytes: what waited for more is payload
                except (OSError, ssl.SSLError):
                    pass
                continue
            assert exactly(s, 5) == b"hello"
    assert p.stat("tcp.tcp.metadata_exchange.initial_header_not_found") == 1


def test_message_without_end_is_refused(proxy, backend, ids):
    app = backend(lambda c, b: b.seen.append(c.recv(100)))
    port = free_port()
    p = proxy([inbound(port, ids, "app")], [cluster("app", [app.port])])
    with context(ids, "a", "istio-peer-exchange").wrap_socket(connect(port, 15)) as s:
        read_message(s)
        s.sendall(MAGIC + b"\x7f\xff\xff\xff")
        with pytest.raises((OSError, ssl.SSLError, AssertionError)):
            exactly(s, 1)
    eventually(lambda: p.stat("tcp.tcp.metadata_exchange.header_not_found") == 1, 15, "the counter")
    eventually(lambda: set(app.seen) <= {b""}, 15, "the application to see no byte")


def test_other_alpn_and_no_filter(proxy, backend, ids):
    """Nothing is exchanged without the filter or without the ALPN."""
    app = backend(echo)
    port, bare = free_port(), free_port()
    proxy([inbound(port, ids, "app"), inbound(bare, ids, "app", mx=False)], [cluster("app", [app.port])])
    for where, alpn in ((port, "istio"), (bare, "istio-peer-exchange")):
        with context(ids, "a", alpn).wrap_socket(connect(where, 15)) as s:
            assert s.selected_alpn_protocol() is None
            s.sendall(b"hello")
            assert exactly(s, 5) == b"hello"


# --- outbound, with a server made here ---

def test_server_that_tells_and_speaks_first(proxy, backend, ids):
    def fn(c, b):
        c.sendall(THEIRS + b"220 ready\r\n")
        b.seen.append(read_message(c))
        c.sendall(c.recv(100))
    b = backend(fn, tls=context(ids, "b", "istio-peer-exchange"))
    port = free_port()
    p = proxy([listener(port, tcp_proxy("b", access_log=[LOG]))], [outbound_cluster("b", b.port, ids)], node=node("cli"))
    with connect(port, 15) as s:
        assert exactly(s, 11) == b"220 ready\r\n"
        s.sendall(b"EHLO")
        assert exactly(s, 4) == b"EHLO"
    assert b"canon-cli" in b.seen[0]
    eventually(lambda: f"PEERS - - / {THEIR_NAMES} sidecar~fake BYTES 4 15" in p.text(), 15, "the access log")


def test_message_is_no_first_word_of_a_server(proxy, backend, ids):
    """A sniffed port: the peer's metadata alone does not make its server speak first."""
    from test_server_first import sniffed, stat

    def fn(c, b):
        c.sendall(THEIRS)
        read_message(c)
        f = c.makefile("rb")
        while f.readline() not in (b"\r\n", b""):
            pass
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    b = backend(fn, tls=context(ids, "b", "istio-peer-exchange"))
    w = backend(web("site"))
    port = free_port()
    p = proxy([sniffed(port, "w", "b")], [outbound_cluster("b", b.port, ids), cluster("w", [w.port])])
    with connect(port, 15) as s:
        eventually(lambda: (p.stat("tcp.tcp.metadata_exchange.metadata_added") or 0) == 1, 15, "the probe to hear of its peer")
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(s.makefile("rb")).body == b"site"
    assert stat(p, port, "detected") == 0


# --- two proxies ---

def test_pair_of_proxies(proxy, backend, ids):
    app = backend(echo)
    inner, outer = free_port(), free_port()
    server = proxy([inbound(inner, ids, "app")], [cluster("app", [app.port])], node=node("srv"))
    client = proxy([listener(outer, tcp_proxy("b", access_log=[LOG]))], [outbound_cluster("b", inner, ids)], node=node("cli"))
    payload = bytes(range(256)) * 2000
    for _ in range(3):
        with connect(outer, 20) as s:
            s.sendall(payload)
            assert exactly(s, len(payload)) == payload
    n = len(payload)
    eventually(lambda: server.text().count(f"PEERS {names('cli')} / - - BYTES {n} {n}") == 3, 15, "the server's access log")
    eventually(lambda: client.text().count(f"PEERS - - / {names('srv')} BYTES {n} {n}") == 3, 15, "the client's access log")


# --- HTTP ---

def alpn_filter(*h1):
    return {"name": "istio.alpn", "typed_config": {"@type": ALPN_FILTER, "alpn_override": [
        {"upstream_protocol": "HTTP11", "alpn_override": list(h1)}, {"upstream_protocol": "HTTP2", "alpn_override": ["istio-h2", "istio", "h2"]}]}}


def test_alpn_of_http(proxy, backend, ids):
    """istio.alpn decides what is offered; without it the configured names, but never the one that needs metadata first; one pool for each offer."""
    chosen = []

    def fn(c, b):
        chosen.append(c.selected_alpn_protocol())
        web("b")(c, b)
    b = backend(fn, tls=context(ids, "b", "istio-peer-exchange", "istio-http/1.1", "istio", "http/1.1"))
    plain, istio, other = free_port(), free_port(), free_port()
    p = proxy([listener(plain, hcm([route("b")])),
               listener(istio, hcm([route("b")], http_filters=[alpn_filter("istio-http/1.1", "istio", "http/1.1"), ROUTER])),
               listener(other, hcm([route("b")], http_filters=[alpn_filter("http/1.1"), ROUTER]))], [outbound_cluster("b", b.port, ids)])
    for _ in range(2):
        for port in (plain, istio, other):
            assert ask(port).status == 200
    assert chosen == ["istio", "istio-http/1.1", "http/1.1"]
    assert p.stat("cluster.b.upstream_cx_total") == 3


def test_alpn_override_can_be_switched_off_for_a_cluster(proxy, backend, ids):
    chosen = []

    def fn(c, b):
        chosen.append(c.selected_alpn_protocol())
        web("b")(c, b)
    b = backend(fn, tls=context(ids, "b", "istio-http/1.1", "http/1.1", "mine"))
    port = free_port()
    c = cluster("b", [b.port], with_alpn(tls_files(ids["a"]), "mine"), metadata={"filter_metadata": {"istio": {"alpn_override": "false"}}})
    proxy([listener(port, hcm([route("b")], http_filters=[alpn_filter("istio-http/1.1"), ROUTER]))], [c])
    assert ask(port).status == 200
    assert chosen == ["mine"]

# SPDX-License-Identifier: Apache-2.0
"""Where a TCP connection goes, and how long it lasts: SNI (chains with wildcards, sni_cluster) with TLS passed through as it is, weights,
metadata_match, idle time-outs and the longest life of a connection."""

import ssl
import time

import pytest

from harness import address, cluster, connect, echo, eventually, free_port, listener, mint, tcp_proxy

TLS_INSPECTOR = {"name": "envoy.filters.listener.tls_inspector", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}
SNI_CLUSTER = {"name": "envoy.filters.network.sni_cluster", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.filters.network.sni_cluster.v3.SniCluster"}}


def says(name):
    """A backend that sends its name and waits for the end."""
    def fn(c, b):
        c.sendall(name.encode())
        while c.recv(4096):
            pass
    return fn


def read_all(s):
    got = b""
    while True:
        part = s.recv(4096)
        if not part:
            return got
        got += part


@pytest.fixture
def tls_backends(backend, tmp_path):
    """start(name) → a TLS server with a certificate of its own that says its name."""
    def start(name):
        folder = mint(tmp_path / "certs", name, f"spiffe://cluster.local/ns/default/sa/{name}")
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(folder / "cert-chain.pem", folder / "key.pem")
        return backend(says(name), tls=ctx)
    return start


def ask_tls(port, sni):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    with ctx.wrap_socket(connect(port, 15), server_hostname=sni) as s:
        return s.recv(100).decode()


def test_pass_through_by_sni(proxy, tls_backends):
    names = ["exact", "wild", "wilder", "other"]
    b = {n: tls_backends(n) for n in names}
    port = free_port()
    matches = {"exact": ["www.example.com"], "wild": ["*.example.com"], "wilder": ["*.com"]}
    lst = listener(port, tcp_proxy("other"), listener_filters=[TLS_INSPECTOR])
    lst["default_filter_chain"] = lst.pop("filter_chains")[0]
    lst["filter_chains"] = [{"filter_chain_match": {"server_names": v, "transport_protocol": "tls"}, "filters": [tcp_proxy(k)]}
                            for k, v in matches.items()]
    proxy([lst], [cluster(n, [b[n].port]) for n in names])
    for sni, want in (("www.example.com", "exact"), ("WWW.Example.COM", "exact"), ("a.example.com", "wild"), ("a.b.example.com", "wild"),
                      ("example.com", "wilder"), ("x.org", "other"), (None, "other")):
        assert ask_tls(port, sni) == want, sni


def test_sni_names_the_cluster(proxy, tls_backends):
    a, b = tls_backends("a"), tls_backends("b")
    port = free_port()
    lst = listener(port, tcp_proxy("b"), listener_filters=[TLS_INSPECTOR])
    lst["filter_chains"][0]["filters"].insert(0, SNI_CLUSTER)
    p = proxy([lst], [cluster("outbound_.9080_._.a.default.svc.cluster.local", [a.port]), cluster("b", [b.port])])
    assert ask_tls(port, "outbound_.9080_._.a.default.svc.cluster.local") == "a"
    assert ask_tls(port, None) == "b"
    with pytest.raises((OSError, ssl.SSLError)):
        ask_tls(port, "nobody")
    assert p.stat("tcp.tcp.downstream_cx_no_route") == 1


def test_weights(proxy, backend):
    a, b = backend(says("a")), backend(says("b"))
    port = free_port()
    f = tcp_proxy("x", weighted_clusters={"clusters": [{"name": "a", "weight": 3}, {"name": "b", "weight": 1}]})
    del f["typed_config"]["cluster"]
    p = proxy([listener(port, f)], [cluster("a", [a.port]), cluster("b", [b.port])])
    n = 400
    count = {"a": 0, "b": 0}
    for _ in range(n):
        with connect(port, 15) as s:
            count[s.recv(1).decode()] += 1
    # 300 expected, standard deviation 8.7: seven of them either way
    assert 240 <= count["a"] <= 360
    assert p.stat("cluster.a.upstream_cx_total") == count["a"] and p.stat("cluster.b.upstream_cx_total") == count["b"]


def test_metadata_match(proxy, backend):
    b = {v: backend(says(v)) for v in ("v1", "v2", "v3")}
    ports = [free_port() for _ in range(3)]
    c = cluster("c", [])
    c["load_assignment"]["endpoints"] = [{"lb_endpoints": [
        {"endpoint": {"address": address(b[v].port)}, "metadata": {"filter_metadata": {"envoy.lb": {"version": v, "stage": "prod"}}}} for v in b]}]
    c["lb_subset_config"] = {"fallback_policy": "NO_FALLBACK", "subset_selectors": [{"keys": ["version"]}, {"keys": ["stage", "version"]}]}

    def wants(**kv):
        return {"filter_metadata": {"envoy.lb": kv}}
    weighted = tcp_proxy("x", metadata_match=wants(stage="prod", version="v1"),
                         weighted_clusters={"clusters": [{"name": "c", "weight": 1, "metadata_match": wants(version="v3")}]})
    del weighted["typed_config"]["cluster"]
    proxy([listener(ports[0], tcp_proxy("c", metadata_match=wants(version="v2"))), listener(ports[1], weighted),
           listener(ports[2], tcp_proxy("c", metadata_match=wants(version="v9")))], [c])
    for port, want in ((ports[0], b"v2"), (ports[1], b"v3"), (ports[2], b"")):
        for _ in range(6):
            with connect(port, 15) as s:
                assert s.recv(10) == want


def test_idle_timeout(proxy, backend):
    b = backend(echo)
    port = free_port()
    p = proxy([listener(port, tcp_proxy("a", idle_timeout="1s"))], [cluster("a", [b.port])])
    with connect(port, 30) as s:
        s.sendall(b"x")
        assert read_all(s) == b"x"
    assert p.stat("tcp.tcp.idle_timeout") == 1


@pytest.mark.parametrize("jitter", [None, 50])
def test_longest_life(proxy, backend, jitter):
    b = backend(echo)
    port = free_port()
    more = {"max_downstream_connection_duration_jitter_percentage": {"value": jitter}} if jitter else {}
    proxy([listener(port, tcp_proxy("a", max_downstream_connection_duration="1s", **more))], [cluster("a", [b.port])])
    with connect(port, 30) as s:
        began = time.monotonic()
        s.sendall(b"x")
        assert read_all(s) == b"x"
        assert time.monotonic() - began > 0.9


def test_half_close_with_bytes_in_flight(proxy, backend):
    """The client ends its side first; the server's answer of 8 MiB still arrives whole, over a slow reader."""
    size = 8 << 20

    def fn(c, b):
        while c.recv(4096):
            pass
        c.sendall(b"y" * size)
    b = backend(fn)
    port = free_port()
    p = proxy([listener(port, tcp_proxy("a"))], [cluster("a", [b.port])])
    with connect(port, 30) as s:
        s.sendall(b"request")
        s.shutdown(1)
        time.sleep(0.3)
        assert read_all(s) == b"y" * size
    eventually(lambda: p.stat("cluster.a.upstream_cx_active") == 0, 15, "the connection to end")

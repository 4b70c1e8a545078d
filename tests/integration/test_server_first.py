# SPDX-License-Identifier: Apache-2.0
"""Ports of undeclared protocol, as istiod configures them: an HTTP chain and a TCP chain behind inspectors that wait for the client. A server
that speaks first is heard at once, whatever the listener's time-out is, and HTTP on the same listener stays HTTP."""

import socket

import pytest

from harness import (ask, cluster, connect, echo, eventually, free_port, hcm, listener, mint, read_answer, route, tcp_proxy, tls_files, web)

A, B = "spiffe://cluster.local/ns/default/sa/a", "spiffe://cluster.local/ns/default/sa/b"
INSPECTOR = {"name": "envoy.filters.listener.http_inspector", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"}}
TLS_INSPECTOR = {"name": "envoy.filters.listener.tls_inspector", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}


def sniffed(port, http_cluster, tcp_cluster, timeout="0s", **more):
    """The shape of an outbound listener for a port whose protocol nobody declared."""
    lst = listener(port, hcm([route(http_cluster)]), name=f"sniffed{port}")
    lst["filter_chains"][0]["filter_chain_match"] = {"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]}
    lst["default_filter_chain"] = {"filters": [tcp_proxy(tcp_cluster)]}
    lst.update({"listener_filters": [TLS_INSPECTOR, INSPECTOR], "listener_filters_timeout": timeout, "continue_on_listener_filters_timeout": True})
    return {**lst, **more}


def stat(p, port, name):
    return p.stat(f"listener.127.0.0.1_{port}.server_first.{name}") or 0


def smtp(c, b):
    """Greets, and answers each line."""
    b.seen.append(b"")
    c.sendall(b"220 ready\r\n")
    f = c.makefile("rb")
    for line in f:
        b.seen[-1] += line
        c.sendall(b"250 " + line)


def talk(port):
    with connect(port, 15) as s:
        f = s.makefile("rb")
        assert f.readline() == b"220 ready\r\n"
        s.sendall(b"EHLO x\r\n")
        assert f.readline() == b"250 EHLO x\r\n"


def test_greeting_without_a_stall_and_learned(proxy, backend):
    b = backend(smtp)
    port = free_port()
    p = proxy([sniffed(port, "c", "c")], [cluster("c", [b.port])])  # 0s: the inspectors would wait for ever
    talk(port)
    assert (stat(p, port, "detected"), stat(p, port, "known")) == (1, 0)
    talk(port)
    assert (stat(p, port, "detected"), stat(p, port, "known"), stat(p, port, "wasted")) == (2, 1, 0)
    eventually(lambda: p.stat("cluster.c.upstream_cx_active") == 0, 10, "upstream connections to end")
    assert b.connections == 2 and p.stat("tcp.tcp.downstream_cx_total") == 2


def test_silent_http_client_is_still_http(proxy, backend):
    b = backend(web("site"))
    port = free_port()
    p = proxy([sniffed(port, "c", "c")], [cluster("c", [b.port])])
    with connect(port, 15) as s:
        eventually(lambda: stat(p, port, "probes") == 1 and b.connections == 1, 10, "the probe")
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        r = read_answer(s.makefile("rb"))
        assert r.status == 200 and r.body == b"site"
    eventually(lambda: stat(p, port, "wasted") == 1, 10, "the probe to be counted as wasted")
    assert stat(p, port, "detected") == 0
    assert p.stat("http.in.downstream_rq_total") == 1


def test_prompt_client_needs_no_probe(proxy, backend):
    b = backend(web("site"))
    port = free_port()
    p = proxy([sniffed(port, "c", "c")], [cluster("c", [b.port])])
    for _ in range(5):
        with socket.socket() as s:  # the request arrives with the connection
            s.settimeout(15)
            s.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT: harmless where it does nothing
            s.connect(("127.0.0.1", port))
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert read_answer(s.makefile("rb")).status == 200
    assert p.stat("http.in.downstream_rq_total") == 5


def test_probe_serves_the_tcp_client_that_spoke_first(proxy, backend):
    b = backend(echo)
    port = free_port()
    p = proxy([sniffed(port, "c", "c")], [cluster("c", [b.port])])
    with connect(port, 15) as s:
        eventually(lambda: b.connections == 1, 10, "the probe")
        s.sendall(b"\x05binary")
        assert s.recv(100) == b"\x05binary"
        assert b.connections == 1
        assert stat(p, port, "used_by_client") == 1 and stat(p, port, "wasted") == 0


def test_an_http2_server_that_sends_settings_first_is_not_server_first(proxy, backend):
    def settings(c, b):
        c.sendall(b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64")
        b.seen.append(c.recv(100))
    b = backend(settings)
    w = backend(web("site"))
    port = free_port()
    p = proxy([sniffed(port, "w", "c")], [cluster("c", [b.port]), cluster("w", [w.port])])
    with connect(port, 15) as s:
        eventually(lambda: stat(p, port, "wasted") == 1, 10, "the probe to be given up")
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(s.makefile("rb")).body == b"site"
    assert stat(p, port, "detected") == 0
    eventually(lambda: b.seen == [b""], 10, "the HTTP/2 server to see an end without a byte")


def test_dead_upstream(proxy, backend):
    """Nobody there: the client goes on waiting (it may speak HTTP yet), and is served once somebody is."""
    dead = free_port()
    port = free_port()
    p = proxy([sniffed(port, "c", "c")], [cluster("c", [dead])])
    with connect(port, 20) as s:
        eventually(lambda: stat(p, port, "connect_fail") >= 1, 10, "a failed probe")
        backend(smtp, port=dead)
        assert s.recv(100) == b"220 ready\r\n"


def test_known_server_that_is_gone_closes_the_client(proxy, backend):
    b = backend(smtp)
    port = free_port()
    p = proxy([sniffed(port, "c", "c")], [cluster("c", [b.port])])
    talk(port)
    b.close()
    with connect(port, 15) as s:
        assert s.recv(100) == b""
    assert p.stat("cluster.c.upstream_cx_connect_fail") >= 1


def test_circuit_breaker_counts_probes(proxy, backend):
    """max_connections 1: a silent client's probe takes the place, and gives it back when the client turns out to speak HTTP."""
    b = backend(web("site"))
    port = free_port()
    one = {"circuit_breakers": {"thresholds": [{"max_connections": 1}]}}
    p = proxy([sniffed(port, "c", "c")], [cluster("c", [b.port], **one)])
    with connect(port, 15) as s:
        eventually(lambda: p.stat("cluster.c.upstream_cx_active") == 1, 10, "the probe")
        with connect(port, 15) as second:
            eventually(lambda: stat(p, port, "connect_fail") == 1, 10, "the second probe to find no place")
            assert p.stat("cluster.c.upstream_cx_overflow") >= 1
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert read_answer(s.makefile("rb")).status == 200
            second.close()
    eventually(lambda: p.stat("cluster.c.upstream_rq_active") == 0, 10, "everything to end")


def test_time_out_takes_the_probe(proxy, backend):
    """Both sides silent until the listener's time-out: the TCP chain goes on with the connection that is there."""
    b = backend(echo)
    port = free_port()
    p = proxy([sniffed(port, "c", "c", timeout="1s")], [cluster("c", [b.port])])
    with connect(port, 15) as s:
        eventually(lambda: p.stat("tcp.tcp.downstream_cx_total") == 1, 10, "the time-out")
        s.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert s.recv(100) == b"GET / HTTP/1.1\r\n\r\n"
    assert b.connections == 1


def test_no_probe_where_the_listener_would_close(proxy, backend):
    b = backend(smtp)
    port = free_port()
    p = proxy([sniffed(port, "c", "c", timeout="1s", continue_on_listener_filters_timeout=False)], [cluster("c", [b.port])])
    with connect(port, 15) as s:
        assert s.recv(100) == b""
    assert b.connections == 0 and stat(p, port, "probes") == 0


def test_behind_a_proxy_header(proxy, backend):
    """The header is a load balancer's; the client behind it is as silent as ever."""
    from test_proxy_protocol import FILTER, v1, v2
    b = backend(smtp)
    port = free_port()
    lst = sniffed(port, "c", "c")
    lst["listener_filters"].insert(0, {"name": "envoy.filters.listener.proxy_protocol", "typed_config": {"@type": FILTER}})
    p = proxy([lst], [cluster("c", [b.port])])
    for head in (v1(), v2()):
        with connect(port, 15) as s:
            s.sendall(head)
            assert s.recv(100) == b"220 ready\r\n"
            s.sendall(b"QUIT\r\n")
            assert s.recv(100) == b"250 QUIT\r\n"
    assert (stat(p, port, "detected"), stat(p, port, "known")) == (2, 1)


def test_switched_off(proxy, backend):
    b = backend(smtp)
    port = free_port()
    runtime = {"layers": [{"name": "static", "static_layer": {"remora.server_first": False}}]}
    p = proxy([sniffed(port, "c", "c", timeout="1s")], [cluster("c", [b.port])], layered_runtime=runtime)
    talk(port)  # by the time-out
    assert stat(p, port, "probes") == 0
    assert p.stat(f"listener.127.0.0.1_{port}.downstream_pre_cx_timeout") == 1


def test_silent_client_that_goes_takes_the_probe_along(proxy, backend):
    b = backend(echo)
    port = free_port()
    p = proxy([sniffed(port, "c", "c")], [cluster("c", [b.port])])
    with connect(port, 15):
        eventually(lambda: b.connections == 1, 10, "the probe")
    eventually(lambda: p.stat("cluster.c.upstream_cx_active") == 0, 10, "the probe to end")
    assert p.stat("listener.127.0.0.1_%d.downstream_pre_cx_active" % port) == 0


@pytest.mark.parametrize("mode", ["istio", "disabled"])
def test_auto_mtls_and_a_server_that_speaks_first(proxy, backend, tmp_path, mode):
    """Outbound and inbound sidecar, both sniffing; the endpoint's metadata says whether it takes mutual TLS."""
    ids = {"a": mint(tmp_path / "certs", "a", A), "b": mint(tmp_path / "certs", "b", B)}
    app = backend(smtp)
    inner, outer = free_port(), free_port()
    strict = {"require_client_certificate": True, **tls_files(ids["b"], [A])}
    inbound = sniffed(inner, "app", "app")
    inbound["filter_chains"] = [
        {"name": "tls", "filter_chain_match": {"transport_protocol": "tls"}, "filters": [tcp_proxy("app")],
         "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
             "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", **strict}}}]
    proxy([inbound], [cluster("app", [app.port])])
    c = cluster("b", [inner])
    endpoint = c["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    if mode == "istio":
        endpoint["metadata"] = {"filter_metadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}}
    c["transport_socket_matches"] = [
        {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", **tls_files(ids["a"], [B])}}},
        {"name": "tlsMode-disabled", "match": {}, "transport_socket": {"name": "envoy.transport_sockets.raw_buffer", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}]
    p = proxy([sniffed(outer, "b", "b")], [c])
    for _ in range(2):
        talk(outer)
    assert stat(p, outer, "detected") == 2
    assert (p.stat("cluster.b.ssl.handshake") == 2) == (mode == "istio")


def test_many_at_once(proxy, backend):
    """HTTP and server-first connections mixed on two workers; none is taken for the other."""
    mail, site = backend(smtp), backend(web("site"))
    mport, sport = free_port(), free_port()
    p = proxy([sniffed(mport, "m", "m"), sniffed(sport, "s", "s")], [cluster("m", [mail.port]), cluster("s", [site.port])], concurrency=2)
    idle = [connect(sport, 20) for _ in range(20)]
    mails = [connect(mport, 20) for _ in range(20)]
    for s in mails:
        assert s.recv(100) == b"220 ready\r\n"
    for _ in range(20):
        assert ask(sport).body == b"site"
    for s in idle:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(s.makefile("rb")).body == b"site"
    for s in idle + mails:
        s.close()
    eventually(lambda: p.stat("cluster.m.upstream_cx_active") == 0, 10, "all mail connections to end")
    assert stat(p, sport, "detected") == 0

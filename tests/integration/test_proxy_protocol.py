# SPDX-License-Identifier: Apache-2.0
"""PROXY protocol, in (listener filter) and out (transport socket), versions 1 and 2, and two proxies in a row."""

import json
import socket
import struct

import pytest

from harness import (LOOPBACK, ask, cluster, connect, echo, eventually, free_port, hcm, listener, mint, read_answer, route, tcp_proxy, tls_files,
                     web)

SIG = b"\r\n\r\n\0\r\nQUIT\n"
FILTER = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
SOCKET = "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
RAW = {"name": "envoy.transport_sockets.raw_buffer", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}
STDOUT_LOG = {"name": "log", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "log_format": {"text_format_source": {"inline_string": "CLIENT %DOWNSTREAM_REMOTE_ADDRESS% DIRECT %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%\n"}}}}


def v1(src="192.0.2.7", dst="198.51.100.1", sport=4242, dport=443, family="TCP4"):
    return f"PROXY {family} {src} {dst} {sport} {dport}\r\n".encode()


def v2(src="192.0.2.7", dst="198.51.100.1", sport=4242, dport=443, tlvs=b""):
    body = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack("!HH", sport, dport) + tlvs
    return SIG + b"\x21\x11" + struct.pack("!H", len(body)) + body


def proxied(port, network_filter, **config):
    return listener(port, network_filter, listener_filters=[
        {"name": "envoy.filters.listener.proxy_protocol", "typed_config": {"@type": FILTER, **config}}])


def wrap(inner=None, **config):
    return {"name": "envoy.transport_sockets.upstream_proxy_protocol", "typed_config": {
        "@type": SOCKET, "config": config, "transport_socket": inner or RAW}}


def get(port, head=b"", pieces=1):
    with connect(port, 15) as s:
        data = head + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        step = max(1, len(head) // pieces)
        for i in range(0, len(head), step):
            s.sendall(data[i:i + step] if i + step < len(head) else data[i:])
            if i + step >= len(head):
                break
        if not head:
            s.sendall(data)
        return read_answer(s.makefile("rb"))


@pytest.mark.parametrize("head", [v1(), v1("2001:db8::7", "2001:db8::1", family="TCP6"), v2(), v2(tlvs=b"\x02\0\3foo\xe0\0\0")])
@pytest.mark.parametrize("pieces", [1, 9])
def test_addresses_come_from_the_header(proxy, backend, head, pieces):
    b = backend(web())
    port = free_port()
    p = proxy([proxied(port, hcm([route("a")], use_remote_address=True, access_log=[STDOUT_LOG]))], [cluster("a", [b.port])])
    assert get(port, head, pieces).status == 200
    client = "2001:db8::7" if b"TCP6" in head else "192.0.2.7"
    assert dict(b.seen[0][1])["x-forwarded-for"] == client
    text = f"[{client}]:4242" if ":" in client else f"{client}:4242"
    eventually(lambda: f"CLIENT {text} DIRECT 127.0.0.1" in p.text(), 10, "the access log")
    assert p.stat(f"listener.127.0.0.1_{port}.proxy_protocol.found") == 1


@pytest.mark.parametrize("head", [b"", v1(dport=70000), v1(family="TCP6"), SIG + b"\x31\x11\0\x0c" + bytes(12), v2()[:20],
                                  b"PROXY TCP4 " + b"1" * 200 + b"\r\n"])
def test_without_a_good_header_closed(proxy, backend, head):
    b = backend(web())
    port = free_port()
    p = proxy([proxied(port, hcm([route("a")]))], [cluster("a", [b.port])])
    with connect(port, 15) as s:
        s.sendall(head + (b"" if head == v2()[:20] else b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
        s.shutdown(socket.SHUT_WR)
        try:
            assert s.recv(100) == b""
        except ConnectionResetError:
            pass
    assert not b.seen
    eventually(lambda: p.stat(f"listener.127.0.0.1_{port}.proxy_protocol.error") == 1, 10, "the error to be counted")


def test_local_command_keeps_the_connections_own_addresses(proxy, backend):
    b = backend(web())
    port = free_port()
    proxy([proxied(port, hcm([route("a")], use_remote_address=True))], [cluster("a", [b.port])])
    for head in (SIG + b"\x20\0\0\0", b"PROXY UNKNOWN\r\n"):
        assert get(port, head).status == 200
    assert [dict(r[1])["x-forwarded-for"] for r in b.seen] == [LOOPBACK, LOOPBACK]


def test_allow_requests_without(proxy, backend):
    b = backend(web())
    port = free_port()
    proxy([proxied(port, hcm([route("a")], use_remote_address=True), allow_requests_without_proxy_protocol=True)], [cluster("a", [b.port])])
    assert get(port, v2()).status == 200
    assert ask(port).status == 200
    assert [dict(r[1])["x-forwarded-for"] for r in b.seen] == ["192.0.2.7", LOOPBACK]


@pytest.mark.parametrize("allow", [False, True])
def test_time_out_lets_nobody_in_without_a_header(proxy, backend, allow):
    """continue_on_listener_filters_timeout is for what only looks; a header that must be there must be there."""
    b = backend(lambda c, b: c.sendall(b"hello"))
    port = free_port()
    lst = proxied(port, tcp_proxy("a"), allow_requests_without_proxy_protocol=allow)
    lst.update({"listener_filters_timeout": "1s", "continue_on_listener_filters_timeout": True})
    proxy([lst], [cluster("a", [b.port])])
    with connect(port, 15) as s:
        s.sendall(b"PROXY TCP4 1.")
        assert s.recv(10) == (b"hello" if allow else b"")
    assert b.connections == allow


def test_disallowed_version(proxy, backend):
    b = backend(web())
    port = free_port()
    proxy([proxied(port, hcm([route("a")]), disallowed_versions=["V1"])], [cluster("a", [b.port])])
    assert get(port, v2()).status == 200
    with connect(port, 15) as s:
        s.sendall(v1())
        assert s.recv(10) == b""


def test_original_destination_of_the_header(proxy, backend):
    """An ORIGINAL_DST cluster goes where the header says."""
    b = backend(echo)
    port = free_port()
    proxy([proxied(port, tcp_proxy("a"))], [{"name": "a", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "1s"}])
    with connect(port, 15) as s:
        s.sendall(v1(dst=LOOPBACK, dport=b.port) + b"hello")
        assert s.recv(100) == b"hello"


def head_of(c, b):
    """Notes what arrived before the payload "hi", then echoes that."""
    got = b""
    while not got.endswith(b"hi"):
        part = c.recv(4096)
        if not part:
            break
        got += part
    b.seen.append(got[:-2])
    c.sendall(b"hi")


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_header_to_the_upstream(proxy, backend, version):
    b = backend(head_of)
    port = free_port()
    proxy([listener(port, tcp_proxy("a"))], [cluster("a", [b.port], transport_socket=wrap(version=version))])
    with connect(port, 15) as s:
        mine = s.getsockname()[1]
        s.sendall(b"hi")
        assert s.recv(10) == b"hi"
    make = v1 if version == "V1" else v2
    assert b.seen == [make(LOOPBACK, LOOPBACK, mine, port)]


def test_header_for_each_client_of_an_http_cluster(proxy, backend):
    """Connections with a header are not shared by clients."""
    def fn(c, b):
        f = c.makefile("rb")
        line = f.readline()
        while True:
            first = f.readline()
            if not first:
                return
            while f.readline() not in (b"\r\n", b""):
                pass
            b.seen.append(line.split()[4])
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    b = backend(fn)
    port = free_port()
    proxy([listener(port, hcm([route("a")]))], [cluster("a", [b.port], transport_socket=wrap(version="V1"))])
    with connect(port, 15) as one, connect(port, 15) as two:
        ports = [str(s.getsockname()[1]).encode() for s in (one, two)]
        files = [one.makefile("rb"), two.makefile("rb")]
        for _ in range(2):
            for s, f in zip((one, two), files):
                s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert read_answer(f).status == 200
    assert b.seen == ports * 2
    assert b.connections == 2


def test_header_comes_before_the_handshake_and_tlvs_go_through(proxy, backend, tmp_path):
    """Client → PROXY in → proxy → PROXY out around mutual TLS → proxy that takes both → application."""
    ids = {n: mint(tmp_path / "certs", n, f"spiffe://cluster.local/ns/default/sa/{n}") for n in ("a", "b")}
    app = backend(head_of)
    inner, outer = free_port(), free_port()
    end = listener(inner, tcp_proxy("app"), {"require_client_certificate": True, **tls_files(ids["b"])}, listener_filters=[
        {"name": "envoy.filters.listener.proxy_protocol", "typed_config": {"@type": FILTER, "pass_through_tlvs": {"match_type": "INCLUDE_ALL"}}}])
    proxy([end], [cluster("app", [app.port], transport_socket=wrap(version="V2", pass_through_tlvs={"match_type": "INCLUDE", "tlv_type": [224, 226]}))])
    tls = {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", **tls_files(ids["a"])}}
    added = [{"type": 226, "value": "YWRk"}]
    proxy([proxied(outer, tcp_proxy("b"), pass_through_tlvs={"match_type": "INCLUDE", "tlv_type": [224]})],
          [cluster("b", [inner], transport_socket=wrap(tls, version="V2", pass_through_tlvs={"match_type": "INCLUDE_ALL"}, added_tlvs=added))])
    with connect(outer, 15) as s:
        s.sendall(v2(tlvs=b"\xe0\0\2ok\xe1\0\2no") + b"hi")
        assert s.recv(10) == b"hi"
    assert app.seen == [v2(tlvs=b"\xe2\0\3add\xe0\0\2ok")]


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_rules_make_metadata(proxy, backend, kind):
    log = {"name": "log", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        "log_format": {"text_format_source": {"inline_string": "TLV %DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:name)% "
                                              "%DYNAMIC_METADATA(mine:id)% %DYNAMIC_METADATA(mine:none)%\n"}}}}
    b = backend(web())
    port = free_port()
    rules = [{"tlv_type": 2, "on_tlv_present": {"key": "name"}},
             {"tlv_type": 5, "on_tlv_present": {"metadata_namespace": "mine", "key": "id", "value_string_encoding": "BASE64"}}]
    f = hcm([route("a")], access_log=[log]) if kind == "http" else tcp_proxy("a", access_log=[log])
    p = proxy([proxied(port, f, rules=rules)], [cluster("a", [b.port])])
    assert get(port, v2(tlvs=b"\x02\0\4a\nb\xff\x05\0\3\0\1\2\x07\0\0")).status == 200
    eventually(lambda: "TLV a!b! AAEC -" in p.text(), 15, "the access log")
    with connect(port, 15) as s:
        s.sendall(v2(tlvs=b"\x02\0\x09short"))  # wanted, and broken
        assert s.recv(10) == b""


def test_metadata_outlives_a_changed_listener(proxy, backend, tmp_path):
    """Another filter chain comes: the connection goes on under the new version of its listener, with what its header said."""
    log = {"name": "log", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        "log_format": {"text_format_source": {"inline_string": "TLV %DYNAMIC_METADATA(mine:name)%\n"}}}}
    b = backend(echo)
    port, lds = free_port(), tmp_path / "lds.json"
    front = proxied(port, tcp_proxy("a", access_log=[log]), rules=[{"tlv_type": 2, "on_tlv_present": {"metadata_namespace": "mine", "key": "name"}}])
    front = {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", **front}

    def put(version):
        (tmp_path / "next").write_text(json.dumps({"version_info": version, "resources": [front]}))
        (tmp_path / "next").rename(lds)
    put("1")
    p = proxy([], [cluster("a", [b.port])], dynamic_resources={
        "lds_config": {"path_config_source": {"path": str(lds)}, "resource_api_version": "V3"}})
    with connect(port, 15) as s:
        s.sendall(v2(tlvs=b"\x02\0\4name") + b"hi")
        assert s.recv(10) == b"hi"
        for i in range(2, 5):  # the version that made the connection is freed some turns later
            front["filter_chains"].append({"name": f"more{i}", "filters": [tcp_proxy("a", stat_prefix=f"more{i}")], "filter_chain_match": {
                "source_prefix_ranges": [{"address_prefix": f"192.0.2.{i}", "prefix_len": 32}]}})
            put(str(i))
            eventually(lambda n=i: p.stat("listener_manager.lds.update_success") >= n, 15, "the listener's next version")
        s.sendall(b"ho")
        assert s.recv(10) == b"ho"
    eventually(lambda: "TLV name" in p.text(), 15, "the access log")

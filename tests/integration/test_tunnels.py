# SPDX-License-Identifier: Apache-2.0
"""Ends of tunnels, and what ConnectConfig and UpgradeConfig say: PROXY headers, POST in the place of CONNECT, filters of their own."""

import os
import socket
import struct

import pytest

from harness import ROUTER, Backend, ask, cluster, connect, echo, eventually, free_port, hcm, listener, route, web

h2wire = pytest.importorskip("h2wire", reason="python3-h2's hpack is needed")
from h2wire import dial, next_request, request, server  # noqa: E402
from test_upgrade import H2_OPTIONS, WAIT, WEBSOCKET, H1Client, H2Client, H2Stream, accept_of, h1_connect, read_message  # noqa: E402

LOG = {"name": "log", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": "access.log",
    "log_format": {"text_format_source": {"inline_string": "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"}}}}
FAULT = {"name": "envoy.filters.http.fault", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
    "abort": {"http_status": 418, "percentage": {"numerator": 100}}}}


def logged(p, n=1):
    eventually(lambda: (p.folder / "access.log").exists() and (p.folder / "access.log").read_text().count("\n") >= n, WAIT, "the log")
    return (p.folder / "access.log").read_text().splitlines()


def switching(then, up_h2):
    """A WebSocket server: then(backend, write, end, reset) after the switch; what it hears later is in backend.seen."""
    def h1(c, b):
        _, headers, _ = read_message(c.makefile("rb"))
        c.sendall(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  f"Sec-WebSocket-Accept: {accept_of(dict(headers)['sec-websocket-key'])}\r\n\r\n".encode())

        def reset():
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            c.close()
        then(b, c.sendall, lambda: c.shutdown(1), reset)
        c.settimeout(WAIT)
        while part := c.recv(65536):
            b.seen.append(part)
        b.seen.append("end")

    def h2(w, b):
        n = next_request(w, set())
        w.headers(n, [(":status", "200")], end=False)
        then(b, lambda data: w.data(n, data), lambda: w.data(n, b"", True), lambda: w.send(3, 0, n, b"\0\0\0\2"))
        s = w.stream(n)
        w.until(lambda: s["end"] or s["reset"] is not None, WAIT)
        b.seen.append("end" if s["end"] else f"reset {s['reset']}")
        w.until(lambda: False, WAIT)
    return server(h2, {8: 1}) if up_h2 else h1


def websocket_proxy(proxy, backend, fn, up_h2, **more):
    port = free_port()
    b = backend(fn)
    p = proxy([listener(port, hcm([route("a")], access_log=[LOG], **WEBSOCKET, **more))],
              [cluster("a", [b.port], **(H2_OPTIONS if up_h2 else {}))])
    return p, port, b


@pytest.mark.parametrize("up_h2", [False, True])
@pytest.mark.parametrize("down", [H1Client, H2Client])
def test_an_upgrade_is_over_when_its_server_ends(proxy, backend, down, up_h2):
    """As in Envoy; the client's end is not waited for, and both sides see an orderly end."""
    def bye(b, write, end, reset):
        write(b"bye")
        end()
    p, port, b = websocket_proxy(proxy, backend, switching(bye, up_h2), up_h2)
    c = down(port)
    c.open()
    assert c.read(3) == b"bye"
    with pytest.raises(EOFError):
        c.read(1)
    if down is H2Client:
        assert c.w.streams[1]["end"]
    eventually(lambda: b.seen == ["end"], WAIT, "the server to see the end")
    eventually(lambda: p.stat("http.in.downstream_rq_active") == 0 and p.stat("cluster.a.upstream_rq_active") == 0, WAIT, "the end of all")
    assert logged(p) == ["101 - via_upstream"]
    c.close()


@pytest.mark.parametrize("up_h2", [False, True])
@pytest.mark.parametrize("down", [H1Client, H2Client])
def test_a_server_that_breaks(proxy, backend, down, up_h2):
    p, port, b = websocket_proxy(proxy, backend, switching(lambda b, write, end, reset: (write(b"part"), b.seen.append("sent"), eventually(
        lambda: len(b.seen) > 1, WAIT, "the client"), reset()), up_h2), up_h2)
    c = down(port)
    c.open()
    assert c.read(4) == b"part"
    b.seen.append("heard")
    with pytest.raises((EOFError, ConnectionError)):
        c.read(1)
    if down is H2Client:  # RFC 9113 §8.5: CONNECT_ERROR; the server's own RST_STREAM is passed on as our failure
        assert c.w.streams[1]["reset"] == (2 if up_h2 else 10)
    want = "UR upstream_reset_after_response_started{remote_reset}" if up_h2 else "UC upstream_reset_after_response_started{connection_termination}"
    assert logged(p) == ["101 " + want]
    c.close()


@pytest.mark.parametrize("up_h2", [False, True])
@pytest.mark.parametrize("down", [H1Client, H2Client])
@pytest.mark.parametrize("limit", [{"stream_idle_timeout": "1s"}, {"common_http_protocol_options": {"max_stream_duration": "1s"}}])
def test_limits_of_a_tunnel(proxy, backend, down, up_h2, limit):
    p, port, b = websocket_proxy(proxy, backend, switching(lambda b, write, end, reset: None, up_h2), up_h2, **limit)
    c = down(port)
    c.open()
    with pytest.raises((EOFError, ConnectionError)):
        c.read(1)
    eventually(lambda: b.seen in (["end"], ["reset 8"]), WAIT, "the server to see the end")
    assert logged(p) == ["101 SI stream_idle_timeout" if "stream_idle_timeout" in limit else "101 - max_duration_timeout"]
    c.close()


@pytest.mark.parametrize("up_h2", [False, True])
def test_upgrade_of_a_post(proxy, backend, up_h2):
    """Other methods than GET upgrade, too (SPDY to kube-apiserver, Docker's attach), with a body over HTTP/1.1 only."""
    port = free_port()

    def h1(c, b):
        b.seen.append(read_message(c.makefile("rb")))
        c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n")
        echo(c, b)

    def h2(w, b):
        n = next_request(w, set())
        b.seen.append(dict(w.streams[n]["headers"][0]))
        w.headers(n, [(":status", "200")], end=False)
        w.data(n, w.got(n, 5))
        w.until(lambda: False, WAIT)
    b = backend(server(h2, {8: 1}) if up_h2 else h1)
    proxy([listener(port, hcm([route("a")], upgrade_configs=[{"upgrade_type": "tcp"}]))], [cluster("a", [b.port], **(H2_OPTIONS if up_h2 else {}))])
    for body in (b"", b"{}"):
        with connect(port, WAIT) as s:
            f = s.makefile("rb")
            s.sendall(f"POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            status = int(f.readline().split()[1])
            if up_h2 and body:
                assert status == 502
                continue
            assert status == 101
            while f.readline() not in (b"\r\n", b""):
                pass
            s.sendall(b"hello")
            assert f.read(5) == b"hello"
            seen = b.seen.pop()
            if up_h2:
                assert seen[":method"] == "CONNECT" and seen[":protocol"] == "tcp" and "content-length" not in seen
            else:
                assert seen[0] == "POST /x HTTP/1.1" and seen[2] == body


# --- ConnectConfig ---

def connect_listener(port, config, match=None):
    return listener(port, hcm([{"match": match or {"connect_matcher": {}}, "route": {
        "cluster": "a", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": config}]}}]))


def keep(c, b):
    """Remembers everything it hears, then says bye."""
    data = b""
    while part := c.recv(65536):
        data += part
    b.seen.append(data)
    c.sendall(b"bye")


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_proxy_header_of_a_connect(proxy, backend, version):
    port = free_port()
    b = backend(keep)
    proxy([connect_listener(port, {"proxy_protocol_config": {"version": version}})], [cluster("a", [b.port])])
    for _ in range(2):  # connections of CONNECT are not shared
        s, f, status = h1_connect(port)
        assert status == 200
        mine = s.getsockname()[1]
        s.sendall(b"payload")
        s.shutdown(1)
        assert f.read() == b"bye"
        s.close()
        if version == "V1":
            assert b.seen.pop() == f"PROXY TCP4 127.0.0.1 127.0.0.1 {mine} {port}\r\npayload".encode()
        else:
            assert b.seen.pop() == b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([127, 0, 0, 1] * 2) + struct.pack(">HH", mine, port) + b"payload"


@pytest.mark.parametrize("length", [True, False])
def test_post_in_the_place_of_connect(proxy, backend, length):
    """allow_post: its body is the tunnel, both ways at once."""
    port = free_port()
    b = backend(echo)
    p = proxy([connect_listener(port, {"allow_post": True}, {"prefix": "/"})], [cluster("a", [b.port])])
    with connect(port, WAIT) as s:
        f = s.makefile("rb")
        s.sendall(b"POST /any HTTP/1.1\r\nHost: x\r\n" + (b"Content-Length: 10\r\n\r\n" if length else b"Transfer-Encoding: chunked\r\n\r\n"))

        def say(text):
            s.sendall(text if length else f"{len(text):x}\r\n".encode() + text + b"\r\n")
        say(b"hello")
        first, headers = f.readline(), []
        while (line := f.readline()) != b"\r\n":
            headers.append(line)
        assert first.startswith(b"HTTP/1.1 200") and b"transfer-encoding: chunked\r\n" in headers
        assert f.readline() == b"5\r\n" and f.readline() == b"hello\r\n"  # before the request has ended
        say(b"world")
        assert f.readline() == b"5\r\n" and f.readline() == b"world\r\n"
        if not length:
            s.sendall(b"0\r\n\r\n")
        assert f.readline() == b"0\r\n"
    w = dial(port)
    c = H2Stream(w, 1)
    w.until(lambda: w.peer, WAIT)
    w.headers(1, request("POST"), end=False)
    big = os.urandom(60_000)
    c.write(big)
    assert w.head(1)[":status"] == "200" and c.read(60_000) == big
    c.end()
    assert w.body(1) == big
    w.headers(3, request("POST"))  # no body at all: an end at once
    assert w.answer(3)[0] == 200 and w.body(3) == b""
    assert b.connections == 3
    eventually(lambda: p.stat("cluster.a.upstream_cx_active") == 0, WAIT, "the end of the connections")
    w.headers(5, request("PUT"), end=True)  # no CONNECT, no POST: an ordinary request, which the server here answers with itself
    assert int(w.head(5)[":status"]) == 502
    w.close()


def test_post_is_over_when_its_server_ends(proxy, backend):
    port = free_port()
    b = backend(lambda c, b: (c.recv(100), c.sendall(b"bye")))
    p = proxy([connect_listener(port, {"allow_post": True, "proxy_protocol_config": {}}, {"prefix": "/"})], [cluster("a", [b.port])])
    w = dial(port)
    w.headers(1, request("POST"), end=False)
    assert w.head(1)[":status"] == "200" and w.body(1) == b"bye"
    eventually(lambda: p.stat("cluster.a.upstream_cx_active") == 0 and p.stat("http.in.downstream_rq_active") == 0, WAIT, "the end")
    w.close()


# --- UpgradeConfig.filters ---

def test_filters_of_an_upgrade(proxy, backend):
    port, other = free_port(), free_port()
    b = backend(switching(lambda b, write, end, reset: (write(b"bye"), end()), False))
    plain = Backend(web("plain"))
    clusters = [cluster("a", [b.port]), cluster("p", [plain.port])]
    routes = [route("a", "/chat"), route("p")]
    proxy([listener(port, hcm(routes, http_filters=[FAULT, ROUTER], upgrade_configs=[{"upgrade_type": "websocket", "filters": [ROUTER]}])),
           listener(other, hcm(routes, upgrade_configs=[{"upgrade_type": "websocket", "filters": [FAULT, ROUTER]}]))], clusters)
    assert ask(port, "/").status == 418
    c = H1Client(port)
    c.open()
    assert c.read(3) == b"bye"
    c.close()
    assert ask(other, "/").status == 200
    c = H1Client(other)
    assert c.answer()[0] == 418
    c.close()
    plain.close()
    assert b.connections == 1


@pytest.mark.parametrize("kind", ["websocket", "connect"])
def test_a_server_that_says_no_error_behind_its_end(proxy, backend, kind):
    """RFC 9113 §8.1: END_STREAM and then RST_STREAM with NO_ERROR is an orderly end, of tunnels too."""
    def bye(w, b):
        n = next_request(w, set())
        w.headers(n, [(":status", "200")], end=False)
        w.data(n, b"bye", True)
        w.send(3, 0, n, b"\0\0\0\0")
        w.until(lambda: False, WAIT)
    port = free_port()
    upgrades = {"upgrade_configs": [{"upgrade_type": "CONNECT"}]}
    b = backend(server(bye, {8: 1}))
    p = proxy([listener(port, hcm([{"match": {"connect_matcher": {}}, "route": {"cluster": "a", **upgrades}}, route("a")], access_log=[LOG],
                                  **WEBSOCKET))], [cluster("a", [b.port], **H2_OPTIONS)])
    if kind == "websocket":
        c = H1Client(port)
        c.open()
        assert c.f.read() == b"bye"
        c.close()
    else:
        s, f, status = h1_connect(port)
        assert status == 200 and f.read() == b"bye"
        s.sendall(b"to nobody")
        s.shutdown(1)
        s.close()
    assert logged(p)[0].split()[1:] == ["-", "via_upstream"]
    eventually(lambda: p.stat("cluster.a.upstream_rq_active") == 0, WAIT, "the end")

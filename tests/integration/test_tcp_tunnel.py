# SPDX-License-Identifier: Apache-2.0
"""tcp_proxy's tunneling_config: TCP carried in CONNECT or POST over HTTP/1.1 and HTTP/2; and when and how often it connects and logs."""

import os
import socket
import struct
import threading

import pytest

from harness import cluster, connect, echo, eventually, flood_until, free_port, hcm, listener, tcp_proxy

h2wire = pytest.importorskip("h2wire", reason="python3-h2's hpack is needed")
from h2wire import next_request, server  # noqa: E402
from test_upgrade import H2_OPTIONS, WAIT, connect_listener, read_message  # noqa: E402

LOG = {"name": "log", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": "access.log",
    "log_format": {"text_format_source": {
        "inline_string": "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n"}}}}


def log_lines(p, n=1):
    log = p.folder / "access.log"
    eventually(lambda: log.exists() and log.read_text().count("\n") >= n, WAIT, f"{n} log entries")
    return log.read_text().splitlines()


def pair(proxy, port, target, h2=False, post=False, **tunnel):
    """client → proxy with a tunnel → proxy that ends it → target."""
    inner = free_port()
    if post:
        proxy([listener(inner, hcm([{"match": {"prefix": "/"}, "route": {"cluster": "a", "upgrade_configs": [
            {"upgrade_type": "CONNECT", "connect_config": {"allow_post": True}}]}}]))], [cluster("a", [target])])
    else:
        proxy([connect_listener(inner, True)], [cluster("a", [target])])
    return proxy([listener(port, tcp_proxy("t", access_log=[LOG], tunneling_config={"hostname": "any.where:443", "use_post": post, **tunnel}))],
                 [cluster("t", [inner], **(H2_OPTIONS if h2 else {}))])


@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("h2", [False, True])
def test_bytes_through_a_tunnel(proxy, backend, h2, post):
    port = free_port()
    b = backend(echo)
    p = pair(proxy, port, b.port, h2, post)
    big = os.urandom(1 << 20) * 3
    for _ in range(2):
        with connect(port, WAIT) as s:
            s.sendall(b"hello")
            assert s.recv(5) == b"hello"
            t = threading.Thread(target=lambda: (s.sendall(big), s.shutdown(1)))
            t.start()
            got = b""
            while part := s.recv(1 << 16):
                got += part
            t.join()
            assert got == big
    eventually(lambda: p.stat("cluster.t.upstream_rq_active") == 0 and p.stat("tcp.tcp.downstream_cx_active") in (0, None), WAIT, "the end")
    assert [x.split()[:3] for x in log_lines(p, 2)] == [["-", str(len(big) + 5), str(len(big) + 5)]] * 2
    assert h2 or post or p.stat("cluster.t.upstream_cx_total") == 2
    assert not h2 or p.stat("cluster.t.upstream_cx_total") == 1  # streams of one connection


@pytest.mark.parametrize("h2", [False, True])
def test_each_side_of_a_tunnel_ends_on_its_own(proxy, backend, h2):
    heard = []

    def bye_then_listen(c, b):
        c.sendall(b"bye")
        c.shutdown(1)
        data = b""
        while part := c.recv(65536):
            data += part
        heard.append(data)
    port = free_port()
    p = pair(proxy, port, backend(bye_then_listen).port, h2)
    with connect(port, WAIT) as s:
        assert s.makefile("rb").read() == b"bye"
        s.sendall(b"still here")
        s.shutdown(1)
        eventually(lambda: heard == [b"still here"], WAIT, "the server to hear the rest")
    assert log_lines(p)[0].startswith("- 10 3 ")
    eventually(lambda: p.stat("cluster.t.upstream_rq_active") == 0, WAIT, "the end")


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("h2", [False, True])
def test_a_side_that_breaks(proxy, backend, h2, who):
    ends = []

    def fn(c, b):
        c.sendall(b"up")
        if who == "server":
            c.recv(1)
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        try:
            while c.recv(1):
                pass
            ends.append("end")
        except ConnectionError:
            ends.append("reset")
    port = free_port()
    p = pair(proxy, port, backend(fn).port, h2)
    s = connect(port, WAIT)
    assert s.recv(2) == b"up"
    if who == "server":
        s.sendall(b"x")
        with pytest.raises(ConnectionError):
            s.recv(1)
        assert log_lines(p)[0].startswith("UC ")
    else:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
        eventually(lambda: ends, WAIT, "the server to hear it")
        assert log_lines(p)[0].startswith("DC ")
    s.close()


def test_what_the_request_says(proxy, backend):
    """hostname and headers with operators; each attempt may go to another proxy."""
    def refuse(c, b):
        b.seen.append(read_message(c.makefile("rb")))
        c.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")

    def accept(c, b):
        b.seen.append(read_message(c.makefile("rb")))
        c.sendall(b"HTTP/1.1 200 OK\r\n\r\nwelcome")
        c.recv(1)
    no, yes, port, only_no = backend(refuse), backend(accept), free_port(), free_port()
    tunnel = {"hostname": "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%:443", "headers_to_add": [
        {"header": {"key": "X-Who", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}, {"header": {"key": "x-who", "value": "two"}},
        {"header": {"key": "x-once", "value": "a"}}, {"header": {"key": "x-once", "value": "b"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
        {"header": {"key": "x-absent", "value": "a"}, "append_action": "OVERWRITE_IF_EXISTS"},
        {"header": {"key": "x-once", "value": "c"}, "append_action": "ADD_IF_ABSENT"}, {"header": {"key": "x-empty", "value": ""}}]}
    p = proxy([listener(port, tcp_proxy("t", max_connect_attempts=2, tunneling_config=tunnel,
                                        backoff_options={"base_interval": "0.01s", "max_interval": "0.02s"})),
               listener(only_no, tcp_proxy("no", access_log=[LOG], tunneling_config=tunnel))],
              [cluster("t", [no.port, yes.port]), cluster("no", [no.port])])
    for _ in range(2):  # wherever it begins, it ends at the one that agrees
        with connect(port, WAIT) as s:
            assert s.recv(100) == b"welcome"
    for seen in (no.seen[0], yes.seen[0], yes.seen[1]):
        assert seen == ("CONNECT 127.0.0.1:443 HTTP/1.1", [("host", "127.0.0.1:443"), ("x-who", "127.0.0.1"), ("x-who", "two"), ("x-once", "b")], b"")
    with connect(only_no, WAIT) as s:
        assert s.recv(1) == b""
    flags, _, _, host, why = log_lines(p)[0].split()
    assert set(flags.split(",")) == {"UF", "URX"} and host.endswith(f":{no.port}") and why == "tunnel_response:403"


def test_nobody_reads(proxy, backend):
    """Back-pressure through the tunnel: what nobody reads stops the sender, and memory stays small."""
    stop = threading.Event()
    port = free_port()
    b = backend(flood_until(stop))
    p = pair(proxy, port, b.port, True)
    before = p.resident_kib()
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    s.connect(("127.0.0.1", port))
    eventually(lambda: sum(b.seen) > 200_000, WAIT, "the flood to begin")
    eventually(lambda: not any(c.fileno() >= 0 for c in b.open), WAIT, "the flood to be stopped")
    grown = p.resident_kib() - before
    stop.set()
    s.close()
    assert grown < 2048, grown


def test_idle_and_refused_tunnels(proxy, backend):
    """idle_timeout holds in a tunnel; an HTTP/2 proxy that resets the stream is a failed attempt."""
    def quiet(w, b):
        n = next_request(w, set())
        w.headers(n, [(":status", "200")], end=False)
        s = w.stream(n)
        w.until(lambda: s["end"] or s["reset"] is not None, WAIT)
        b.seen.append(s["reset"])

    def reset(w, b):
        w.send(3, 0, next_request(w, set()), b"\0\0\0\2")
        w.until(lambda: False, WAIT)
    port, other = free_port(), free_port()
    b, r = backend(server(quiet)), backend(server(reset))
    p = proxy([listener(port, tcp_proxy("t", idle_timeout="0.5s", access_log=[LOG], tunneling_config={"hostname": "t:1"})),
               listener(other, tcp_proxy("r", tunneling_config={"hostname": "t:1"}))],
              [cluster("t", [b.port], **H2_OPTIONS), cluster("r", [r.port], **H2_OPTIONS)])
    with connect(port, WAIT) as s:
        assert s.recv(1) == b""
    eventually(lambda: b.seen == [8], WAIT, "the proxy to hear of it")
    assert p.stat("tcp.tcp.idle_timeout") == 1 and log_lines(p)[0].startswith("- 0 0 ")
    with connect(other, WAIT) as s:
        assert s.recv(1) == b""


def test_connect_when_the_client_speaks(proxy, backend):
    port = free_port()
    b = backend(echo)
    p = proxy([listener(port, tcp_proxy("a", upstream_connect_mode="ON_DOWNSTREAM_DATA", max_early_data_bytes=1024, idle_timeout="3s"))],
              [cluster("a", [b.port])])
    s = connect(port, WAIT)
    eventually(lambda: p.stat("tcp.tcp.downstream_cx_total") == 1, WAIT, "the connection")
    assert p.stat("cluster.a.upstream_cx_total") in (0, None) and b.connections == 0
    big = b"x" * 300_000  # more than may be kept: the rest waits in the kernel
    t = threading.Thread(target=lambda: (s.sendall(big), s.shutdown(1)))
    t.start()
    assert s.makefile("rb").read() == big
    t.join()
    s.close()
    assert b.connections == 1
    with connect(port, WAIT) as s:
        assert s.recv(1) == b""  # a client that never speaks
    assert p.stat("tcp.tcp.idle_timeout") == 1 and b.connections == 1


def test_entries_while_a_connection_lasts(proxy, backend):
    port = free_port()
    b = backend(echo)
    p = proxy([listener(port, tcp_proxy("a", access_log=[LOG], access_log_options={
        "flush_access_log_on_start": True, "flush_access_log_on_connected": True, "access_log_flush_interval": "0.3s"}))],
        [cluster("a", [b.port])])
    with connect(port, WAIT) as s:
        s.sendall(b"hello")
        assert s.recv(5) == b"hello"
        lines = log_lines(p, 3)  # start, connected, and one by the interval
        host = f"127.0.0.1:{b.port}"
        assert lines[0] == "- 0 0 - -" and lines[1] == f"- 0 0 {host} -"
        eventually(lambda: f"- 5 5 {host} -" in log_lines(p), WAIT, "an entry with the bytes")
    eventually(lambda: p.stat("cluster.a.upstream_cx_active") == 0, WAIT, "the end")
    assert p.stat("tcp.tcp.downstream_cx_rx_bytes_total") == 5

# SPDX-License-Identifier: Apache-2.0
"""Peers that break the rules, on purpose or not: the defined answer, nothing leaked to the other side, nothing kept, no spinning."""

import os
import pathlib
import socket
import ssl
import time

import pytest

from harness import (ask, cluster, connect, eventually, free_port, hcm, listener, mint, read_answer, read_message, route, send_raw, tcp_proxy,
                     tls_files, web)

HEAD = b"POST /x HTTP/1.1\r\nHost: h\r\n"

# what: (bytes, statuses that are right). A request that is refused must not reach the application, nor what follows it.
SMUGGLING = {
    "length and chunked": (HEAD + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: h\r\n\r\n", {400}),
    "chunked and length": (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n", {400}),
    "two lengths": (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", {400}),
    "length with a sign": (HEAD + b"Content-Length: +5\r\n\r\nhello", {400}),
    "length list": (HEAD + b"Content-Length: 5,5\r\n\r\nhello", {400}),
    "length too large": (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nhello", {400}),
    "unknown transfer coding": (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", {400, 501}),
    "chunked twice": (HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", {400, 501}),
    "chunked not last": (HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", {400, 501}),
    "vertical tab before chunked": (HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", {400, 501}),
    "chunked in HTTP/1.0": (b"POST /x HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400, 426}),
    "bare LF line ends": (b"GET /x HTTP/1.1\nHost: h\n\n", {400}),
    "bare LF in a header": (HEAD + b"A: b\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", {400}),
    "bare CR in a header": (HEAD + b"A: b\rC: d\r\nContent-Length: 0\r\n\r\n", {400}),
    "folded header": (HEAD + b"A: b\r\n Content-Length: 5\r\nContent-Length: 0\r\n\r\n", {400}),
    "folded first header": (b"GET /x HTTP/1.1\r\n Host: h\r\n\r\n", {400}),
    "NUL in a value": (HEAD + b"A: b\x00c\r\nContent-Length: 0\r\n\r\n", {400}),
    "NUL in a name": (HEAD + b"A\x00b: c\r\nContent-Length: 0\r\n\r\n", {400}),
    "space before the colon": (HEAD + b"Content-Length : 5\r\n\r\nhello", {400}),
    "no colon": (HEAD + b"nonsense\r\n\r\n", {400}),
    "empty name": (HEAD + b": x\r\n\r\n", {400}),
    "no host": (b"GET /x HTTP/1.1\r\n\r\n", {400}),
    "two hosts": (b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {400}),
    "space in the target": (b"GET /x y HTTP/1.1\r\nHost: h\r\n\r\n", {400}),
    "two spaces": (b"GET  /x HTTP/1.1\r\nHost: h\r\n\r\n", {400}),
    "no version": (b"GET /x\r\nHost: h\r\n\r\n", {400}),
    "version 1.2x": (b"GET /x HTTP/1.2x\r\nHost: h\r\n\r\n", {400, 505}),
    "lower-case method with brackets": (b"g{et /x HTTP/1.1\r\nHost: h\r\n\r\n", {400}),
    "chunk size with 0x": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", {400}),
    "chunk size too large": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n", {400}),
    "chunk longer than it says": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n", {400}),
    "chunk line ended by LF": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", {400}),
    "chunk extension with LF": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n", {400}),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    from harness import BIN, Backend, Proxy
    if not (BIN / "remora-proxy").exists():
        pytest.skip(f"{BIN / 'remora-proxy'} is not built")
    with Backend(web()) as b:
        port = free_port()
        http = hcm([route("a")], request_headers_timeout="0.5s", max_request_headers_kb=60)
        with Proxy(tmp_path_factory.mktemp("hostile"), [listener(port, http)], [cluster("a", [b.port])]) as p:
            yield p, port, b


@pytest.mark.parametrize("what", SMUGGLING)
def test_ambiguous_requests_are_refused(site, what):
    p, port, b = site
    raw, right = SMUGGLING[what]
    before = [m[0] for m in b.seen]
    data, closed = send_raw(port, raw, 1.5)
    assert data, "closed without an answer"
    assert int(data.split()[1]) in right, data[:200]
    assert closed
    assert data.count(b"HTTP/1.1 ") == 1, "more than one answer"
    time.sleep(0.02)
    assert not [m for m in b.seen[len(before):] if "evil" in m[0]]
    assert p.p.poll() is None


def test_head_of_1_mib_is_431(site):
    p, port, b = site
    n = len(b.seen)
    before = p.resident_kib()
    data, closed = send_raw(port, b"GET / HTTP/1.1\r\nHost: h\r\nX-Big: " + b"a" * (1 << 20) + b"\r\n\r\n")
    assert closed and (not data or data.split()[1] == b"431")
    data, closed = send_raw(port, b"GET / HTTP/1.1\r\nHost: h\r\nX-Big: " + b"a" * 70000 + b"\r\n\r\n")
    assert closed and data.split()[1] == b"431"
    assert len(b.seen) == n
    assert p.resident_kib() - before < 4096


def test_too_many_headers_is_431(site):
    _, port, b = site
    n = len(b.seen)
    data, closed = send_raw(port, b"GET / HTTP/1.1\r\nHost: h\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(1000)) + b"\r\n")
    assert data.split()[1] == b"431" and closed
    assert len(b.seen) == n


def test_half_a_request_times_out(site):
    p, port, b = site
    n = len(b.seen)
    start = time.monotonic()
    data, closed = send_raw(port, b"GET / HTTP/1.1\r\nHos", 4)
    assert closed and 0.3 < time.monotonic() - start < 3
    assert not data or data.split()[1] == b"408"
    assert len(b.seen) == n


def test_half_a_body_then_gone_leaves_nothing(site):
    p, port, b = site
    for _ in range(20):
        with connect(port) as s:
            s.sendall(HEAD + b"Content-Length: 100\r\n\r\nhalf")
            time.sleep(0.005)
    eventually(lambda: p.stat("http.in.downstream_cx_active") == 0, what="the connections to be gone")
    eventually(lambda: p.stat("http.in.downstream_rq_active") == 0, what="the requests to be gone")
    eventually(lambda: p.stat("cluster.a.upstream_rq_active") == 0, what="the upstream requests to be gone")
    assert ask(port).status == 200


def test_one_byte_at_a_time(site):
    _, port, _ = site
    with connect(port) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for c in b"POST /slow HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n":
            s.sendall(bytes([c]))
        assert read_answer(s.makefile("rb")).status == 200


RESPONSES = {
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    "folded header": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 5\r\n\r\nhello",
    "NUL": b"HTTP/1.1 200 OK\r\nA: b\x00\r\nContent-Length: 5\r\n\r\nhello",
    "no HTTP at all": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello",
    "endless head": b"HTTP/1.1 200 OK\r\nA: " + b"a" * 300000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("what", RESPONSES)
def test_ambiguous_answers_become_502_or_503(proxy, backend, what):
    def fn(c, b):
        read_message(c.makefile("rb"))
        b.seen.append(1)
        c.sendall(RESPONSES[what])
        time.sleep(0.2)
    b = backend(fn)
    port = free_port()
    proxy([listener(port, hcm([route("a")]))], [cluster("a", [b.port])])
    with connect(port) as s:
        f = s.makefile("rb")
        for _ in range(2):
            s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            r = read_answer(f)
            assert r.status in (502, 503), r
    assert b.connections == 2, "the connection must not be used again"


def test_answer_nobody_asked_for_is_not_given_to_the_next(proxy, backend):
    """Bytes after a complete answer: the connection is dropped, the next request does not get them."""
    def fn(c, b):
        f = c.makefile("rb")
        while read_message(f):
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    b = backend(fn)
    port = free_port()
    proxy([listener(port, hcm([route("a")]))], [cluster("a", [b.port])])
    bodies = []
    for _ in range(5):
        r = ask(port)
        bodies.append((r.status, r.body))
        time.sleep(0.02)
    assert (200, b"evil") not in bodies and (200, b"good") in bodies


def test_out_of_file_descriptors_does_not_spin(proxy, backend):
    b = backend(web())
    port = free_port()
    p = proxy([listener(port, hcm([route("a")]))], [cluster("a", [b.port])], limits=64)
    with connect(port) as established:
        f = established.makefile("rb")

        def works_here():
            established.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            return read_answer(f).status == 200
        assert works_here()
        socks = [connect(port) for _ in range(120)]
        eventually(lambda: "accept_failed" in p.text(), 10, what="the descriptors to be used up")
        start, began = p.cpu_seconds(), time.monotonic()
        for _ in range(10):
            time.sleep(0.25)
            assert works_here(), "established work was harmed"
        share = (p.cpu_seconds() - start) / (time.monotonic() - began)
        assert share < 0.06, f"{100 * share:.1f} % of a CPU"  # 0.4 % when nothing else runs; one clock tick is 0.4 %
        assert p.p.poll() is None
        for s in socks:
            s.close()

    def works():
        r = ask(port)
        return r and r.status == 200
    eventually(works, 10, "service after the flood")


def memory_kib(p):
    """What only this process holds: heap, not pages of the program."""
    for line in pathlib.Path(f"/proc/{p.p.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1])
    raise AssertionError("no Anonymous in smaps_rollup")


def endless(c, b):
    """Answers with 20 MiB."""
    if read_message(c.makefile("rb")):
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (20 << 20))
        block = b"x" * (1 << 20)
        for _ in range(20):
            c.sendall(block)


def standing_still_kib(p, before, clients):
    """Waits until all clients' requests are under way and nothing moves; what each of them holds then in KiB, above before."""
    eventually(lambda: p.stat("http.in.downstream_rq_active") == clients, 30, what="all requests to be under way")

    def all_stand_still():
        sent = p.stat("http.in.downstream_cx_tx_bytes_total"), memory_kib(p)
        time.sleep(0.5)
        return sent == (p.stat("http.in.downstream_cx_tx_bytes_total"), memory_kib(p)) and sent[1] > before + clients * 8
    eventually(all_stand_still, 60, what="all answers to stand still")
    return (memory_kib(p) - before) / clients


def test_clients_that_do_not_read_cost_little_and_it_comes_back(proxy, backend):
    clients = 150
    b = backend(endless)
    port = free_port()
    none = {"max_connections": 1000, "max_pending_requests": 1000, "max_requests": 1000}
    p = proxy([listener(port, hcm([route("a", timeout="0s")]))], [cluster("a", [b.port], circuit_breakers={"thresholds": [none]})])
    before, socks = memory_kib(p), []
    for _ in range(clients):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", port))
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        socks.append(s)
    each = standing_still_kib(p, before, clients)
    assert each <= 96, f"{each:.0f} KiB for each client"
    for s in socks:
        s.close()
    eventually(lambda: memory_kib(p) < before + 4096, 20, what="the memory to come back")  # 2 s by design


def test_http2_clients_that_do_not_read_cost_little_and_it_comes_back(proxy, backend):
    """They open their windows widely, so that only the kernel's buffers hold the answers up."""
    h2wire = pytest.importorskip("h2wire", reason="python3-h2's hpack is needed")
    clients = 150
    b = backend(endless)
    port = free_port()
    none = {"max_connections": 1000, "max_pending_requests": 1000, "max_requests": 1000}
    p = proxy([listener(port, hcm([route("a", timeout="0s")]))], [cluster("a", [b.port], circuit_breakers={"thresholds": [none]})])
    before, wires = memory_kib(p), []
    for _ in range(clients):
        w = h2wire.dial(port, own=((4, 1 << 30),), rcvbuf=4096)
        w.send(h2wire.WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big"))
        w.headers(1, h2wire.request())
        wires.append(w)
    each = standing_still_kib(p, before, clients)
    assert each <= 96, f"{each:.0f} KiB for each client"
    for w in wires:
        w.close()
    eventually(lambda: memory_kib(p) < before + 4096, 20, what="the memory to come back")  # 2 s by design


def test_idle_clients_cost_little(proxy, backend):
    """Some 460 bytes each; the bound leaves room for the heap's own book-keeping."""
    def ask_on(s):
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        got = b""
        while not got.endswith(b"\r\n\r\na"):
            part = s.recv(4096)
            assert part
            got += part
    b = backend(web())
    port = free_port()
    p = proxy([listener(port, hcm([route("a")]))], [cluster("a", [b.port])])
    socks = []
    try:
        for count in (100, 500):  # the first ones pay for what is made once
            before = memory_kib(p)
            for _ in range(count):
                socks.append(connect(port))
                ask_on(socks[-1])
        each = (memory_kib(p) - before) * 1024 / 500
        assert each < 1400, f"{each:.0f} bytes for each"
    finally:
        for s in socks:
            s.close()


BODY = int(os.environ.get("REMORA_BODY_MIB", "64")) << 20  # 1024 for the figure in the goals


def drip(s, size, p, before):
    """Reads size bytes with pauses; the most memory that the proxy held meanwhile."""
    left, peak, buf, next_look = size, 0, bytearray(1 << 20), size
    while left:
        if left <= next_look:
            time.sleep(0.02)
            peak = max(peak, memory_kib(p) - before)
            next_look = left - size // 16
        n = s.recv_into(buf, min(left, len(buf)))
        assert n, f"ended with {left} bytes to come"
        left -= n
    return peak


def test_slow_reader_of_a_large_answer_holds_little(proxy, backend):
    def flood(c, b):
        read_message(c.makefile("rb"))
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY)
        for _ in range(BODY >> 20):
            c.sendall(bytes(1 << 20))
    b = backend(flood)
    port = free_port()
    p = proxy([listener(port, hcm([route("a", timeout="0s")]))], [cluster("a", [b.port])])
    before = memory_kib(p)
    with connect(port, 30) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += s.recv(1)
        time.sleep(0.3)
        peak = drip(s, BODY, p, before)
    assert peak < 2048, f"{peak} KiB"


def test_slow_reader_of_a_large_request_holds_little(proxy, backend):
    peaks = []

    def slow(c, b):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += c.recv(1)
        time.sleep(0.3)
        peaks.append(drip(c, BODY, p, before))
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    b = backend(slow)
    port = free_port()
    p = proxy([listener(port, hcm([route("a", timeout="0s")]))], [cluster("a", [b.port])])
    before = memory_kib(p)
    with connect(port, 30) as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % BODY)
        for _ in range(BODY >> 20):
            s.sendall(bytes(1 << 20))
        assert read_answer(s.makefile("rb")).status == 200
    assert peaks[0] < 2048, f"{peaks[0]} KiB"


def test_tcp_flood_of_half_open_connections(proxy, backend):
    b = backend(lambda c, b: c.recv(1))
    port = free_port()
    p = proxy([listener(port, tcp_proxy("a"))], [cluster("a", [b.port])])
    socks = [connect(port) for _ in range(300)]
    eventually(lambda: b.connections == 300, what="all of them to arrive")
    for s in socks:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()
    eventually(lambda: p.stat("cluster.a.upstream_cx_active") == 0, what="all of them to be gone")


def test_handshake_that_stops_is_cut(proxy, backend, tmp_path):
    """A client that says hello and then nothing costs the memory of a handshake: transport_socket_connect_timeout (15 s by default)."""
    server = mint(tmp_path / "ca", "server", "spiffe://cluster.local/ns/a/sa/server")
    port = free_port()
    b = backend(web())
    l = listener(port, hcm([route("a")]), tls=tls_files(server))
    l["filter_chains"][0]["transport_socket_connect_timeout"] = "0.5s"
    proxy([l], [cluster("a", [b.port])])
    hello, answer = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(answer, hello).do_handshake()
    with connect(port, 15) as s:
        s.sendall(hello.read())
        while True:  # the server's flight, then the end
            try:
                if not s.recv(65536):
                    break
            except ConnectionResetError:
                break

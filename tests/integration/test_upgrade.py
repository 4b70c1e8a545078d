# SPDX-License-Identifier: Apache-2.0
"""WebSocket and CONNECT through remora-proxy: HTTP/1.1 upgrades, extended CONNECT (RFC 8441), and each turned into the other."""

import base64
import hashlib
import os
import struct
import threading
import time

import pytest

from harness import (Backend, ask, cluster, connect, echo, eventually, flood_until, free_port, hcm, http2_upstream, listener, read_answer,
                     read_message, route, web)

h2wire = pytest.importorskip("h2wire", reason="python3-h2's hpack is needed")
from h2wire import DATA, END_STREAM, RST_STREAM, Reset, dial, frame, next_request, request, server  # noqa: E402

H2_OPTIONS = http2_upstream(allow_connect=True)
WEBSOCKET = {"upgrade_configs": [{"upgrade_type": "websocket"}], "http2_protocol_options": {"allow_connect": True}}
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
WAIT = 15


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()


# --- WebSocket frames (RFC 6455 §5), enough for an echo ---

def ws_frame(op, payload, fin=True, mask=None):
    n = len(payload)
    head = bytes([(0x80 if fin else 0) | op])
    bit = 0x80 if mask else 0
    head += bytes([bit | n]) if n < 126 else bytes([bit | 126]) + struct.pack(">H", n) if n < 65536 else bytes([bit | 127]) + struct.pack(">Q", n)
    if mask:
        pad = (mask * (n // 4 + 1))[:n]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(n, "big") if n else b""
    return head + (mask or b"") + payload


def ws_read(read):
    """One frame from read(n): (opcode, fin, payload)."""
    a, b = read(2)
    n = b & 127
    if n == 126:
        n, = struct.unpack(">H", read(2))
    elif n == 127:
        n, = struct.unpack(">Q", read(8))
    mask = read(4) if b & 128 else None
    payload = read(n) if n else b""
    if mask and n:
        pad = (mask * (n // 4 + 1))[:n]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(n, "big")
    return a & 15, bool(a & 128), payload


def ws_echo(read, write):
    """Echoes messages, each in the fragments that it came in, until a close frame."""
    while True:
        try:
            op, fin, payload = ws_read(read)
        except (EOFError, ValueError):
            return
        if op == 9:
            write(ws_frame(10, payload))
        elif op == 8:
            write(ws_frame(8, payload))
            return
        elif op != 10:
            write(ws_frame(op, payload, fin))


def ws_server_h1(c, backend):
    f = c.makefile("rb")
    first, headers, _ = read_message(f)
    h = dict(headers)
    backend.seen.append((first, h))
    c.sendall(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              f"Sec-WebSocket-Accept: {accept_of(h['sec-websocket-key'])}\r\n\r\n".encode())

    def read(n):
        out = f.read(n)
        if len(out) < n:
            raise EOFError
        return out
    ws_echo(read, c.sendall)


class H2Stream:
    """Bytes of one stream as a file, with the windows kept."""

    def __init__(self, w, n):
        self.w, self.n, self.at = w, n, 0
        self.left = {0: 65535, n: w.peer.get(4, 65535)}
        self.seen = 0

    def windows(self):
        for sid, n in self.w.window_updates[self.seen:]:
            if sid in self.left:
                self.left[sid] += n
        self.seen = len(self.w.window_updates)
        return min(self.left[0], self.left[self.n])

    def write(self, data):
        while data:
            assert self.w.until(lambda: self.windows() > 0, WAIT), f"no window: {self.left} {self.w.closed}"
            k = min(len(data), 16384, self.windows())
            self.left[0] -= k
            self.left[self.n] -= k
            self.w.send(DATA, 0, self.n, data[:k])
            data = data[k:]

    def read(self, n):
        s = self.w.stream(self.n)
        if not self.w.until(lambda: len(s["data"]) >= self.at + n or s["end"] or s["reset"] is not None, WAIT) or len(s["data"]) < self.at + n:
            raise EOFError
        out = s["data"][self.at:self.at + n]
        self.at += n
        return out

    def end(self):
        self.w.send(DATA, END_STREAM, self.n)


def ws_server_h2(w, backend):
    known = set()
    while (n := next_request(w, known)) is not None:
        backend.seen.append(dict(w.streams[n]["headers"][0]))
        w.headers(n, [(":status", "200"), ("x-from", "h2")], end=False)
        s = H2Stream(w, n)
        ws_echo(s.read, s.write)
        s.end()


class H1Client:
    def __init__(self, port, early=b"", path="/chat"):
        self.sock = connect(port, WAIT)
        self.f = self.sock.makefile("rb")
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                          f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode() + early)

    def answer(self):
        first = self.f.readline().decode().split()
        headers = {}
        while (line := self.f.readline()) not in (b"\r\n", b""):
            k, _, v = line.decode().partition(":")
            headers[k.lower()] = v.strip()
        return int(first[1]), headers

    def open(self):
        status, h = self.answer()
        assert status == 101 and h["upgrade"] == "websocket" and "upgrade" in h["connection"].lower()
        assert h["sec-websocket-accept"] == accept_of(KEY)

    def write(self, data):
        self.sock.sendall(data)

    def read(self, n):
        out = self.f.read(n)
        if len(out) < n:
            raise EOFError
        return out

    def close(self):
        self.f.close()
        self.sock.close()


class H2Client(H2Stream):
    def __init__(self, port, early=b"", path="/chat"):
        w = dial(port)
        assert w.until(lambda: 8 in w.peer or w.peer, WAIT) and w.peer.get(8) == 1, w.peer  # SETTINGS_ENABLE_CONNECT_PROTOCOL
        super().__init__(w, 1)
        w.headers(1, [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "test"), (":path", path),
                      ("sec-websocket-version", "13")], end=False)
        if early:
            self.write(early)

    def open(self):
        h = self.w.head(1)
        assert h[":status"] == "200" and "sec-websocket-accept" not in h and "upgrade" not in h and "connection" not in h, h

    def close(self):
        self.w.close()


def talk(c, big=2_000_000):
    mask = b"\x01\x02\x03\x04"
    c.write(ws_frame(1, b"hello", mask=mask))
    assert ws_read(c.read) == (1, True, b"hello")
    c.write(ws_frame(9, b"ping", mask=mask))
    assert ws_read(c.read) == (10, True, b"ping")
    payload = os.urandom(1024) * (big // 1024)
    writer = threading.Thread(target=c.write, args=(ws_frame(2, payload, mask=mask),)) if isinstance(c, H1Client) else None
    if writer:
        writer.start()
    else:  # one thread reads and writes here: pieces small enough not to lock up
        c.write(ws_frame(2, payload[:100_000], mask=mask))
        payload = payload[:100_000]
    assert ws_read(c.read) == (2, True, payload)
    if writer:
        writer.join()
    parts = [os.urandom(n) for n in (0, 1, 125, 126, 4096, 65536)]  # one message in fragments, byte by byte at first
    for i, p in enumerate(parts):
        raw = ws_frame(2 if i == 0 else 0, p, fin=i + 1 == len(parts), mask=mask)
        for b in range(min(len(raw), 20)):
            c.write(raw[b:b + 1])
        c.write(raw[20:])
        assert ws_read(c.read) == (2 if i == 0 else 0, i + 1 == len(parts), p)
    c.write(ws_frame(8, b"\x03\xe8", mask=mask))
    assert ws_read(c.read) == (8, True, b"\x03\xe8")
    with pytest.raises(EOFError):  # and the end
        c.read(1)


@pytest.mark.parametrize("up_h2", [False, True])
@pytest.mark.parametrize("down", [H1Client, H2Client])
def test_websocket(proxy, backend, down, up_h2):
    port = free_port()
    b = backend(server(ws_server_h2, {8: 1}) if up_h2 else ws_server_h1)
    p = proxy([listener(port, hcm([route("a")], **WEBSOCKET))], [cluster("a", [b.port], **(H2_OPTIONS if up_h2 else {}))])
    for _ in range(2):
        c = down(port)
        c.open()
        talk(c)
        c.close()
    if up_h2:
        assert b.seen[0][":method"] == "CONNECT" and b.seen[0][":protocol"] == "websocket" and b.seen[0][":path"] == "/chat"
        assert "upgrade" not in b.seen[0] and "connection" not in b.seen[0]
    else:
        first, h = b.seen[0]
        assert first == "GET /chat HTTP/1.1" and h["upgrade"] == "websocket" and h["sec-websocket-version"] == "13"
        assert len(base64.b64decode(h["sec-websocket-key"])) == 16
    eventually(lambda: p.stat("http.in.downstream_rq_active") == 0 and p.stat("cluster.a.upstream_rq_active") == 0, WAIT, "the end of all")


def test_last_words_in_front_of_a_server_s_reset(proxy, backend):
    """A server that is done says so with RST_STREAM NO_ERROR right behind its end (RFC 9113 §8.1): nothing before that is lost."""
    def last_words(w, _):
        n = next_request(w, set())
        w.headers(n, [(":status", "200")], end=False)
        assert w.until(lambda: w.stream(n)["data"], WAIT)
        w.sock.sendall(frame(DATA, END_STREAM, n, b"last words") + frame(RST_STREAM, 0, n, bytes(4)))
        w.until(lambda: False, 1)
    port = free_port()
    b = backend(server(last_words, {8: 1}))
    proxy([listener(port, hcm([route("a")], **WEBSOCKET))], [cluster("a", [b.port], **H2_OPTIONS)])
    c = H1Client(port)
    c.open()
    c.write(b"?")
    assert c.f.read() == b"last words"
    c.close()


@pytest.mark.parametrize("pair", ["h1", "h2"])
def test_websocket_through_a_pair(proxy, backend, pair):
    """client → proxy → proxy → server; between the two HTTP/1.1 or extended CONNECT."""
    inner, outer = free_port(), free_port()
    b = backend(ws_server_h1)
    proxy([listener(inner, hcm([route("o")], **WEBSOCKET))], [cluster("o", [b.port])])
    proxy([listener(outer, hcm([route("i")], **WEBSOCKET))], [cluster("i", [inner], **(H2_OPTIONS if pair == "h2" else {}))])
    for down in (H1Client, H2Client):
        c = down(outer)
        c.open()
        talk(c)
        c.close()


def test_extended_connect_is_not_offered_by_default(proxy, backend):
    port = free_port()
    proxy([listener(port, hcm([route("a")], upgrade_configs=WEBSOCKET["upgrade_configs"]))], [cluster("a", [backend(ws_server_h1).port])])
    with dial(port) as w:
        w.headers(1, [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "test"), (":path", "/")], end=False)
        with pytest.raises(Reset):
            w.head(1)
        assert 8 not in w.peer
        assert w.closed is None


def test_upstream_without_extended_connect(proxy, backend):
    """RFC 8441 §3: who does not offer it is not asked."""
    port = free_port()
    b = backend(server(lambda w, backend: w.until(lambda: False, WAIT)))
    proxy([listener(port, hcm([route("a")], **WEBSOCKET))], [cluster("a", [b.port], **H2_OPTIONS)])
    c = H1Client(port)
    assert c.answer()[0] == 502
    c.close()


@pytest.mark.parametrize("status", [200, 204, 403, 426, 500])
@pytest.mark.parametrize("down", ["h1", "h2"])
def test_upstream_that_does_not_switch(proxy, backend, down, status):
    """What the client sent early never reaches it (threat class T9), and the client does not believe that it was switched."""
    got = []

    def refuse(c, b):
        read_message(c.makefile("rb"))
        c.sendall(f"HTTP/1.1 {status} X\r\n".encode() + (b"" if status == 204 else b"Content-Length: 2\r\n") + b"\r\n" +
                  (b"" if status == 204 else b"no"))
        c.settimeout(0.5)
        try:
            got.append(c.recv(1))
        except TimeoutError:
            got.append(b"")
    port = free_port()
    b = backend(refuse)
    proxy([listener(port, hcm([route("a")], **WEBSOCKET))], [cluster("a", [b.port])])
    early = ws_frame(1, b"hello", mask=b"abcd")
    if down == "h1":
        c = H1Client(port, early)
        assert c.answer()[0] == status
        c.close()
    else:
        c = H2Client(port, early)
        want = 502 if status < 300 else status
        assert int(c.w.head(1)[":status"]) == want
        c.close()
    eventually(lambda: got, WAIT, "what the backend hears")
    assert got == [b""]


@pytest.mark.parametrize("up_h2", [False, True])
@pytest.mark.parametrize("down", [H1Client, H2Client])
def test_early_bytes_wait_for_the_switch(proxy, backend, down, up_h2):
    """The client talks before the answer; the server hears it after its 101, complete and in order."""
    go, quiet = threading.Event(), []

    def late_h1(c, b):
        f = c.makefile("rb")
        read_message(f)
        c.settimeout(0.3)
        try:
            quiet.append(c.recv(1))
        except TimeoutError:
            quiet.append(None)
        c.settimeout(WAIT)
        go.wait(WAIT)
        c.sendall(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        b.seen.append(c.recv(5))
        c.sendall(b"world")

    def late_h2(w, b):
        n = next_request(w, set())
        w.drain(0.3, 1)
        quiet.append(w.streams[n]["data"] or None)
        go.wait(WAIT)
        w.headers(n, [(":status", "200")], end=False)
        b.seen.append(w.got(n, 5))
        w.data(n, b"world", True)
        w.until(lambda: False, WAIT)
    port = free_port()
    b = backend(server(late_h2, {8: 1}) if up_h2 else late_h1)
    proxy([listener(port, hcm([route("a")], **WEBSOCKET))], [cluster("a", [b.port], **(H2_OPTIONS if up_h2 else {}))])
    c = down(port, b"hello")
    eventually(lambda: quiet, WAIT, "the request at the server")
    assert quiet == [None]
    go.set()
    c.open()
    assert c.read(5) == b"world"
    assert b.seen == [b"hello"]
    c.close()


def test_upgrade_policy(proxy, backend):
    """Which upgrades pass: the listener's list, changed by the route; others and h2c never."""
    port = free_port()
    b = backend(ws_server_h1)
    proxy([listener(port, hcm([route("a", "/off", upgrade_configs=[{"upgrade_type": "websocket", "enabled": False}]),
                               route("a", "/foo", upgrade_configs=[{"upgrade_type": "foo"}]), route("a")], **WEBSOCKET))],
          [cluster("a", [b.port])])
    c = H1Client(port, path="/off")
    assert c.answer()[0] == 403
    c.close()
    with connect(port, WAIT) as s:  # not in a list
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n")
        assert read_answer(s.makefile("rb")).status == 403
    c = H1Client(port)
    c.open()
    c.close()
    other = Backend(web("plain"))
    port2 = free_port()
    proxy([listener(port2, hcm([route("a")], **WEBSOCKET))], [cluster("a", [other.port])])
    a = ask(port2, "/", headers={"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"})
    assert a.status == 200
    assert not {"upgrade", "http2-settings"} & {k for k, _ in other.seen[0][1]}
    other.close()


# --- CONNECT ---

def connect_listener(port, terminate, **more):
    config = {"upgrade_type": "CONNECT", **({"connect_config": {}} if terminate else {})}
    return listener(port, hcm([{"match": {"connect_matcher": {}}, "route": {"cluster": "a", "upgrade_configs": [config]}}, route("a")], **more))


def h1_connect(port, target="any.where:443", early=b""):
    s = connect(port, WAIT)
    f = s.makefile("rb")
    s.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode() + early)
    first = f.readline().decode()
    while f.readline() not in (b"\r\n", b""):
        pass
    return s, f, int(first.split()[1])


@pytest.mark.parametrize("down", ["h1", "h2"])
def test_connect_ends_here(proxy, backend, down):
    """connect_config: the payload goes to the cluster as it is; each side ends on its own."""
    port = free_port()
    heard = []

    def until_end_then_say(c, b):
        c.sendall(b"first")  # the server may speak first
        data = b""
        while part := c.recv(65536):
            data += part
        heard.append(data)
        c.sendall(b"bye")  # after the client's end
    b = backend(until_end_then_say)
    proxy([connect_listener(port, True)], [cluster("a", [b.port])])
    sent = os.urandom(300_000)
    if down == "h1":
        s, f, status = h1_connect(port, early=b"early ")
        assert status == 200 and f.read(5) == b"first"
        s.sendall(sent)
        s.shutdown(1)
        assert f.read() == b"bye"
        s.close()
    else:
        w = dial(port)
        w.until(lambda: w.peer, WAIT)
        c = H2Stream(w, 1)
        w.headers(1, [(":method", "CONNECT"), (":authority", "any.where:443")], end=False)
        c.write(b"early ")
        assert w.head(1)[":status"] == "200" and c.read(5) == b"first"
        c.write(sent)
        c.end()
        assert w.body(1) == b"firstbye"
        w.close()
    assert heard == [b"early " + sent]


def test_server_ends_first_and_still_listens(proxy, backend):
    port = free_port()
    heard = []

    def bye_then_listen(c, b):
        c.sendall(b"bye")
        c.shutdown(1)
        data = b""
        while part := c.recv(65536):
            data += part
        heard.append(data)
    b = backend(bye_then_listen)
    p = proxy([connect_listener(port, True)], [cluster("a", [b.port])])
    s, f, status = h1_connect(port)
    assert status == 200 and f.read() == b"bye"
    s.sendall(b"still here")
    s.shutdown(1)
    eventually(lambda: heard, WAIT, "the server to hear the rest")
    s.close()
    w = dial(port)
    w.headers(1, [(":method", "CONNECT"), (":authority", "any.where:443")], end=False)
    assert w.head(1)[":status"] == "200" and w.body(1) == b"bye"
    w.data(1, b"here too", True)
    eventually(lambda: len(heard) == 2, WAIT, "the server to hear the rest")
    w.close()
    assert heard == [b"still here", b"here too"]
    eventually(lambda: p.stat("cluster.a.upstream_cx_active") == 0, WAIT, "the end of the connections")


def test_connect_is_passed_on(proxy, backend):
    """Without connect_config the next proxy gets the CONNECT; here over both versions to one that ends it."""
    inner = free_port()
    proxy([connect_listener(inner, True)], [cluster("a", [backend(echo).port])])
    for up_h2 in (False, True):
        outer = free_port()
        proxy([connect_listener(outer, False)], [cluster("a", [inner], **(H2_OPTIONS if up_h2 else {}))])
        s, f, status = h1_connect(outer)
        assert status == 200
        s.sendall(b"over and over")
        assert f.read(13) == b"over and over"
        s.shutdown(1)
        assert f.read() == b""
        s.close()
        w = dial(outer)
        w.headers(1, [(":method", "CONNECT"), (":authority", "any.where:443")], end=False)
        assert w.head(1)[":status"] == "200"
        w.data(1, b"again", True)
        assert w.body(1) == b"again"
        w.close()


def test_connect_that_nobody_configured(proxy, backend):
    b = backend(web("a"))
    port = free_port()
    p = proxy([listener(port, hcm([route("a")]))], [cluster("a", [b.port])])
    assert h1_connect(port, early=b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")[2] == 404
    w = dial(port)
    w.headers(1, [(":method", "CONNECT"), (":authority", "any.where:443")], end=False)
    assert w.head(1)[":status"] == "404"
    assert w.get(3)[0] == 200  # the connection goes on
    w.close()
    assert len(b.seen) == 1 and p.p.poll() is None


def test_connect_to_nobody(proxy):
    port = free_port()
    proxy([connect_listener(port, True)], [cluster("a", [free_port()])])
    assert h1_connect(port)[2] == 503


def test_slow_tunnel_is_bounded(proxy, backend):
    """A server that floods a client which does not read: memory stays small."""
    stop = threading.Event()
    port = free_port()
    b = backend(flood_until(stop))
    p = proxy([connect_listener(port, True)], [cluster("a", [b.port])])
    before = p.resident_kib()
    w = dial(port, rcvbuf=8192)
    w.headers(1, [(":method", "CONNECT"), (":authority", "any.where:443")], end=False)
    assert w.head(1)[":status"] == "200"
    eventually(lambda: b.seen and sum(b.seen) > 200_000, WAIT, "the flood to begin")
    time.sleep(1)
    grown = p.resident_kib() - before
    stop.set()
    w.close()
    assert grown < 2048, grown

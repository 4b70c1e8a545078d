# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 frame by frame: a client and a scripted server that do exactly what a test says, also what RFC 9113 forbids."""

import socket
import struct
import threading
import time

import pytest

from harness import LOOPBACK, connect

hpack = pytest.importorskip("hpack")

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIO = 1, 1, 4, 8, 32
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, ENHANCE_YOUR_CALM = 0, 1, 2, 3, 11
WAIT = 15  # generous: a loaded machine is slow


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(values=()):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", k, v) for k, v in dict(values).items()))


def literal(name, value):
    """A field without indexing and without Huffman: any bytes."""
    def text(s):
        s = s if isinstance(s, bytes) else s.encode("latin-1")
        return integer(len(s), 7) + s
    return b"\x00" + text(name) + text(value)


def integer(n, bits, first=0):
    top = (1 << bits) - 1
    if n < top:
        return bytes([first | n])
    out = [first | top]
    n -= top
    while n >= 128:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out + [n])


def block(fields):
    return b"".join(literal(k, v) for k, v in fields)


def request(method="GET", path="/", authority="test", scheme="http", extra=()):
    return [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path), *extra]


class Reset(Exception):
    def __init__(self, code):
        super().__init__(f"RST_STREAM {code}")
        self.code = code


class Wire:
    """One connection. Frames are read when something is waited for."""

    def __init__(self, sock, client=True, own=(), hello=True):
        self.sock, self.client = sock, client
        self.buf, self.frames = b"", []
        self.closed = self.goaway = None
        self.peer = {}
        self.pings, self.window_updates = [], []
        self.streams = {}
        self.block = None  # (stream, flags, bytes) of a header block that CONTINUATION goes on with
        self.decoder = hpack.Decoder()
        self.decoder.max_header_list_size = 1 << 20
        self.auto = True  # acknowledge SETTINGS and PING, give windows back
        self.lock = threading.Lock()
        if hello:
            self.raw((PREFACE if client else b"") + settings(own))

    def raw(self, data):
        try:
            with self.lock:
                self.sock.sendall(data)
            return True
        except OSError:
            return False

    def send(self, kind, flags=0, stream=0, payload=b""):
        return self.raw(frame(kind, flags, stream, payload))

    def headers(self, stream, fields, end=True, flags=END_HEADERS):
        return self.send(HEADERS, flags | (END_STREAM if end else 0), stream, block(fields))

    def data(self, stream, payload=b"", end=False):
        """Ignores windows: for what fits into them."""
        for i in range(0, max(len(payload), 1), 16384):
            part = payload[i:i + 16384]
            self.send(DATA, END_STREAM if end and i + 16384 >= len(payload) else 0, stream, part)

    def stream(self, n):
        return self.streams.setdefault(n, {"headers": [], "data": b"", "end": False, "reset": None})

    def step(self, timeout):
        """One frame, or None at the end or after the time."""
        end = time.monotonic() + timeout
        while self.closed is None:
            if len(self.buf) >= 9:
                n = int.from_bytes(self.buf[:3], "big")
                if len(self.buf) >= 9 + n:
                    kind, flags, sid = self.buf[3], self.buf[4], int.from_bytes(self.buf[5:9], "big") & 0x7fffffff
                    payload, self.buf = self.buf[9:9 + n], self.buf[9 + n:]
                    self.take(kind, flags, sid, payload)
                    return kind, flags, sid, payload
            left = end - time.monotonic()
            if left <= 0:
                return None
            self.sock.settimeout(left)
            try:
                part = self.sock.recv(65536)
            except TimeoutError:
                return None
            except OSError:
                self.closed = "reset"
                return None
            if not part:
                self.closed = "end"
            self.buf += part
        return None

    def take(self, kind, flags, sid, payload):
        s = self.stream(sid)
        if kind == SETTINGS and not flags & ACK:
            for i in range(0, len(payload), 6):
                k, v = struct.unpack(">HI", payload[i:i + 6])
                self.peer[k] = v
            if self.auto:
                self.send(SETTINGS, ACK)
        elif kind == PING:
            self.pings.append((flags, payload))
            if self.auto and not flags & ACK:
                self.send(PING, ACK, 0, payload)
        elif kind == GOAWAY:
            self.goaway = (int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big"))
        elif kind == RST_STREAM:
            s["reset"] = int.from_bytes(payload, "big")
        elif kind == WINDOW_UPDATE:
            self.window_updates.append((sid, int.from_bytes(payload, "big")))
        elif kind in (HEADERS, CONTINUATION):
            if kind == CONTINUATION:
                assert self.block and self.block[0] == sid
                flags, payload = flags | self.block[1], self.block[2] + payload
            self.block = None if flags & END_HEADERS else (sid, flags, payload)
            if self.block is None:
                s["headers"].append([(k.decode("latin-1"), v.decode("latin-1")) for k, v in self.decoder.decode(payload, raw=True)])
                s["end"] |= bool(flags & END_STREAM)
        elif kind == DATA:
            s["data"] += payload
            s["end"] |= bool(flags & END_STREAM)
            if self.auto and payload:
                self.send(WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload)))
                if not flags & END_STREAM:
                    self.send(WINDOW_UPDATE, 0, sid, struct.pack(">I", len(payload)))

    def until(self, fn, timeout=WAIT):
        """Reads until fn() is true. False: it is not, and the connection ended or the time is over."""
        end = time.monotonic() + timeout
        while not fn():
            if self.step(max(0.0, end - time.monotonic())) is None:
                return bool(fn())
        return True

    def drain(self, quiet=0.3, timeout=WAIT):
        end = time.monotonic() + timeout
        while time.monotonic() < end and self.step(quiet) is not None:
            pass

    def head(self, n, timeout=WAIT):
        """The (next final) head of stream n as a dict. Reset is an exception."""
        s = self.stream(n)

        def there():
            return s["reset"] is not None or any(dict(h).get(":status", "200")[0] != "1" for h in s["headers"])
        assert self.until(there, timeout), f"no answer on stream {n}; closed={self.closed} goaway={self.goaway}"
        for h in s["headers"]:
            if dict(h).get(":status", "200")[0] != "1":
                return dict(h)
        raise Reset(s["reset"])

    def body(self, n, timeout=WAIT):
        s = self.stream(n)
        assert self.until(lambda: s["end"] or s["reset"] is not None, timeout), f"stream {n} did not end; closed={self.closed}"
        if not s["end"]:
            raise Reset(s["reset"])
        return s["data"]

    def answer(self, n):
        """(status, headers, body) of a whole answer."""
        h = self.head(n)
        return int(h[":status"]), h, self.body(n)

    def get(self, n, path="/", **kw):
        self.headers(n, request(path=path, **kw))
        return self.answer(n)

    def got(self, n, size, timeout=WAIT):
        """At least size bytes of stream n."""
        s = self.stream(n)
        assert self.until(lambda: len(s["data"]) >= size or s["reset"] is not None, timeout), (len(s["data"]), size, self.closed)
        return s["data"]

    def ended(self, timeout=WAIT):
        """Whether the other side closes the connection."""
        self.until(lambda: False, timeout)
        return self.closed is not None

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
        return False


def dial(port, own=(), tls=None, hello=True, rcvbuf=None):
    if rcvbuf:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        s.settimeout(WAIT)
        s.connect((LOOPBACK, port))
    else:
        s = connect(port, WAIT)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls:
        s = tls.wrap_socket(s, server_hostname="test")
    return Wire(s, True, own, hello)


def server(fn, own=()):
    """A backend function: fn(wire, backend) plays the server behind the preface."""
    def run(c, backend):
        c.settimeout(WAIT)
        got = b""
        while len(got) < len(PREFACE):
            part = c.recv(len(PREFACE) - len(got))
            if not part:
                return
            got += part
        assert got == PREFACE, got
        w = Wire(c, False, own)
        fn(w, backend)
    return run


def next_request(w, known, timeout=WAIT):
    """Number of a stream whose request head came and that is not in the set known; added to it. None at the end."""
    def fresh():
        return [n for n, s in w.streams.items() if n and s["headers"] and n not in known]
    if not w.until(fresh, timeout):
        return None
    n = min(fresh())
    known.add(n)
    return n

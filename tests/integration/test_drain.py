# SPDX-License-Identifier: Apache-2.0
"""SIGTERM under mixed traffic: whatever can finish within the grace time does, those who come are told to go elsewhere, and the
process is gone when the time is over."""

import signal
import socket
import threading
import time

import pytest

from harness import ask, cluster, connect, echo, eventually, free_port, hcm, listener, read_answer, read_message, route, tcp_proxy

h2wire = pytest.importorskip("h2wire", reason="python3-h2's hpack is needed")
from h2wire import dial, request  # noqa: E402

GRACE_S = 6
PIECES, PIECE_S = 8, 0.25  # a streamed answer takes two seconds


def backend_of_all(c, backend):
    """/stream: an answer in pieces. An upgrade: an echo. Else a short answer."""
    f = c.makefile("rb")
    while True:
        m = read_message(f)
        if m is None:
            return
        first, headers, _ = m
        backend.seen.append(first)
        if "upgrade" in dict(headers):
            c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            return echo(c, backend)
        if "/stream" in first:
            c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for i in range(PIECES):
                c.sendall(b"5\r\npart%d\r\n" % i)
                time.sleep(PIECE_S)
            c.sendall(b"0\r\n\r\n")
        else:
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


WHOLE = b"".join(b"part%d" % i for i in range(PIECES))


class Unary:
    """Requests one after the other, each on a kept connection while the server keeps it, until nobody listens any more."""

    def __init__(self, port):
        self.port, self.ok, self.told, self.lost, self.refused = port, 0, 0, [], False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.refused:
            try:
                s = connect(self.port, 10)
            except OSError:
                self.refused = True
                return
            with s:
                f, kept = s.makefile("rb"), True
                while kept:
                    try:
                        s.sendall(b"GET /unary HTTP/1.1\r\nHost: x\r\n\r\n")
                        a = read_answer(f)
                    except OSError as e:
                        a = None
                        self.lost.append(str(e))
                    if a is None or a.status != 200:
                        self.lost.append(str(a))
                        break
                    self.ok += 1
                    kept = a.headers.get("connection", "").lower() != "close"
                    self.told += not kept
                    time.sleep(0.01)


def stream_h1(port, out):
    a = ask(port, "/stream")
    out.append(a.body if a else None)


def tunnel(port, out, hello):
    """Echoes for two seconds, then ends by itself."""
    with connect(port, 10) as s:
        f = s.makefile("rb")
        if hello:
            s.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while f.readline() not in (b"\r\n", b""):
                pass
        for i in range(PIECES):
            s.sendall(b"ping%d\n" % i)
            if f.readline() != b"ping%d\n" % i:
                out.append(f"ended before message {i}")
                return
            time.sleep(PIECE_S)
        s.shutdown(socket.SHUT_WR)
        out.append("whole" if f.read() == b"" else "odd end")


def test_nothing_that_can_finish_is_dropped(proxy, backend):
    b, e = backend(backend_of_all), backend(echo)
    http, tcp = free_port(), free_port()
    p = proxy([listener(http, hcm([route("b", timeout="0s")], upgrade_configs=[{"upgrade_type": "websocket"}])), listener(tcp, tcp_proxy("e"))],
              [cluster("b", [b.port]), cluster("e", [e.port])], concurrency=2, args=["--drain-time-s", str(GRACE_S)])
    unary = [Unary(http) for _ in range(3)]
    done = {"stream": [], "websocket": [], "tcp": []}
    threads = [threading.Thread(target=stream_h1, args=(http, done["stream"]), daemon=True) for _ in range(5)]
    threads += [threading.Thread(target=tunnel, args=(http, done["websocket"], True), daemon=True) for _ in range(5)]
    threads += [threading.Thread(target=tunnel, args=(tcp, done["tcp"], False), daemon=True) for _ in range(5)]
    for t in threads:
        t.start()
    eventually(lambda: sum("/stream" in x for x in b.seen) == 5 and sum("/ws" in x for x in b.seen) == 5 and e.connections == 5,
               what="all to be under way")
    with dial(http) as w:
        w.headers(1, request(path="/stream"))
        assert int(w.head(1)[":status"]) == 200
        goaways = []
        take = w.take

        def note(kind, flags, sid, payload):
            if kind == h2wire.GOAWAY:
                goaways.append(int.from_bytes(payload[:4], "big"))
            take(kind, flags, sid, payload)
        w.take = note
        begin = time.monotonic()
        p.p.send_signal(signal.SIGTERM)
        assert "DRAINING" in eventually_ready(p)
        assert w.body(1) == WHOLE
        w.ended(5)
        # RFC 9113 §6.8: first "no new streams, please" with the highest number, then what was really taken.
        assert goaways == [0x7fffffff, 1]
    for t in threads:
        t.join(20)
    p.p.wait(20)
    took = time.monotonic() - begin
    print(f"\nSIGTERM under traffic, grace {GRACE_S} s: gone after {took:.1f} s; unary {sum(u.ok for u in unary)} answered, "
          f"{sum(u.told for u in unary)} told to go elsewhere, {sum(len(u.lost) for u in unary)} lost; "
          f"streams {len(done['stream'])}, websockets {len(done['websocket'])}, TCP {len(done['tcp'])} whole, and one stream of HTTP/2")
    assert p.p.returncode == 0, p.text()[-2000:]
    assert took <= GRACE_S + 1 + 2  # 2 for a busy machine
    assert done == {"stream": [WHOLE] * 5, "websocket": ["whole"] * 5, "tcp": ["whole"] * 5}
    for u in unary:
        u.thread.join(10)
        assert u.refused and u.ok and u.told and not u.lost, (u.ok, u.told, u.lost)


def eventually_ready(p):
    """What /ready says once it no longer says LIVE."""
    import urllib.error
    said = []

    def changed():
        try:
            said.append(p.get("/ready"))
        except urllib.error.HTTPError as e:
            said.append(e.read().decode())
        return "LIVE" not in said[-1]
    eventually(changed, what="/ready to change")
    return said[-1]


def test_what_cannot_finish_ends_with_the_grace_time(proxy, backend):
    def forever(c, b):
        read_message(c.makefile("rb"))
        b.seen.append(1)
        time.sleep(60)
    b = backend(forever)
    port = free_port()
    p = proxy([listener(port, hcm([route("b", timeout="0s")]))], [cluster("b", [b.port])], args=["--drain-time-s", "2"])
    with connect(port, 10) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: b.seen, what="the request to arrive")
        begin = time.monotonic()
        p.p.send_signal(signal.SIGTERM)
        p.p.wait(15)
        assert 1.9 <= time.monotonic() - begin <= 2 + 1 + 2 and p.p.returncode == 0


def test_graceful_drain_by_admin_goes_on_accepting(proxy, backend):
    b = backend(backend_of_all)
    port = free_port()
    p = proxy([listener(port, hcm([route("b")]))], [cluster("b", [b.port])], args=["--drain-time-s", "30"])
    p.get("/drain_listeners?graceful&skip_exit", "POST")
    eventually(lambda: ask(port).headers.get("connection") == "close", what="answers to say so")
    assert ask(port).status == 200
    p.get("/drain_listeners", "POST")

    def refused():
        try:
            ask(port)
            return False
        except OSError:
            return True
    eventually(refused, what="nobody to listen")
    assert p.p.poll() is None


def test_an_answer_that_has_begun_keeps_its_connection_for_one_more(proxy, backend):
    """Its head did not say that the connection ends: the client's next request, sent with the last byte, is answered and told."""
    go_on = threading.Event()

    def halves(c, _backend):
        f = c.makefile("rb")
        while read_message(f):
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
            go_on.wait(30)
            c.sendall(b"cd")
    b, port = backend(halves), free_port()
    p = proxy([listener(port, hcm([route("b")]))], [cluster("b", [b.port])], args=["--drain-time-s", "30"])
    with connect(port, 30) as s:
        f = s.makefile("rb")
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = b"".join(iter(f.readline, b"\r\n"))
        assert b"200" in head and b"close" not in head.lower() and f.read(2) == b"ab"
        p.get("/drain_listeners?graceful&skip_exit", "POST")
        eventually(lambda: ask_close(port, go_on), 20, "the drain to have begun")
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert f.read(2) == b"cd"
        second = read_answer(f)
        assert second.status == 200 and second.headers["connection"] == "close" and f.read() == b""


def ask_close(port, go_on):
    """Whether answers on new connections say that they are the last."""
    go_on.set()
    answer = ask(port)
    return answer is not None and answer.headers.get("connection") == "close"

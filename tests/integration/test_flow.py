# SPDX-License-Identifier: Apache-2.0
"""Flow control from end to end: who does not read holds little of the proxy's memory, in all four bridges and both directions, and holds up
nobody else."""

import pathlib
import socket
import threading
import time

import pytest

from harness import ask, cluster, connect, eventually, free_port, hcm, http2_upstream, listener, read_message, route

h2wire = pytest.importorskip("h2wire", reason="python3-h2's hpack is needed")
from h2wire import DATA, dial, next_request, request, server  # noqa: E402

H2 = http2_upstream()
GIB = 1 << 30
LIMIT_KIB = 2048
WAIT = 15


def anon_kib(p):
    for line in pathlib.Path(f"/proc/{p.p.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    return 0


class Windows:
    """How much may be sent on a stream of a Wire."""

    def __init__(self, w, n):
        self.w, self.n, self.seen = w, n, 0
        self.left = {0: 65535, n: w.peer.get(4, 65535)}

    def wait(self, timeout):
        def room():
            for sid, k in self.w.window_updates[self.seen:]:
                if sid in self.left:
                    self.left[sid] += k
            self.seen = len(self.w.window_updates)
            return min(self.left.values())
        if not self.w.until(lambda: room() > 0, timeout):
            return 0
        return room()

    def send(self, data):
        self.left[0] -= len(data)
        self.left[self.n] -= len(data)
        self.w.send(DATA, 0, self.n, data)


def flood_h1(sent, stop):
    """Answers any request with a body of a GiB, as far as it is taken."""
    def fn(c, b):
        if b"/small" in c.recv(65536):
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            return
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIB)
        c.settimeout(0.2)
        part = b"x" * 65536
        while not stop.is_set():
            try:
                sent[0] += c.send(part)
            except TimeoutError:
                pass
    return fn


def flood_h2(sent, stop):
    def fn(w, b):
        known = set()
        while (n := next_request(w, known)) is not None:
            if dict(w.streams[n]["headers"][0])[":path"] == "/small":
                w.headers(n, [(":status", "200")], end=False)
                w.data(n, b"ok", True)
                continue
            w.headers(n, [(":status", "200")], end=False)
            win = Windows(w, n)
            while not stop.is_set():
                k = min(win.wait(0.2), 16384)
                if k:
                    win.send(b"x" * k)
                    sent[0] += k
                elif w.closed:
                    return
                elif any(m not in known for m in w.streams if m):
                    break  # another one wants something
    return server(fn)


def still(sent):
    """Waits until no more is taken; how much was."""
    last, since = -1, time.monotonic()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if sent[0] != last:
            last, since = sent[0], time.monotonic()
        elif last > 0 and time.monotonic() - since > 0.7:
            return last
        time.sleep(0.05)
    raise AssertionError(f"it does not stop: {sent[0]} bytes")


@pytest.mark.parametrize("up_h2", [False, True])
@pytest.mark.parametrize("down_h2", [False, True])
def test_slow_reader_of_a_gibibyte(proxy, backend, down_h2, up_h2):
    sent, stop, port = [0], threading.Event(), free_port()
    b = backend((flood_h2 if up_h2 else flood_h1)(sent, stop))
    p = proxy([listener(port, hcm([route("a", timeout="0s")]))], [cluster("a", [b.port], **(H2 if up_h2 else {}))])
    assert ask(port, "/small").body == b"ok"
    before = anon_kib(p)
    if down_h2:
        w = dial(port, {4: 1 << 20}, rcvbuf=16384)
        w.auto = False
        w.headers(1, request())
        w.until(lambda: w.stream(1)["data"], WAIT)
        s = w.sock
    else:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        s.settimeout(WAIT)
        s.connect(("127.0.0.1", port))
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        s.recv(1000)
    taken = still(sent)
    grown = anon_kib(p) - before
    assert grown < LIMIT_KIB, (grown, taken)
    assert ask(port, "/small").body == b"ok"  # others go on
    if not down_h2:  # and so does this one, when it reads again
        got = 0
        while got < 3_000_000:
            part = s.recv(65536)
            assert part
            got += len(part)
    stop.set()
    s.close()


@pytest.mark.parametrize("up_h2", [False, True])
@pytest.mark.parametrize("down_h2", [False, True])
def test_slow_reader_of_an_upload(proxy, backend, down_h2, up_h2):
    """The server takes the head and nothing else."""
    stop, port, begun = threading.Event(), free_port(), threading.Event()

    def deaf_h1(c, b):
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        c.recv(2000)
        begun.set()
        stop.wait(60)

    def deaf_h2(w, b):
        w.auto = False
        next_request(w, set())
        begun.set()
        while not stop.is_set() and w.closed is None:
            w.step(0.2)
    b = backend(server(deaf_h2) if up_h2 else deaf_h1)
    p = proxy([listener(port, hcm([route("a", timeout="0s")]))], [cluster("a", [b.port], **(H2 if up_h2 else {}))])
    before, sent = anon_kib(p), [0]

    def upload():
        if down_h2:
            with dial(port) as w:
                w.until(lambda: w.peer, WAIT)
                w.headers(1, request("POST"), end=False)
                win = Windows(w, 1)
                while not stop.is_set():
                    k = min(win.wait(0.2), 16384)
                    if k:
                        win.send(b"x" * k)
                        sent[0] += k
        else:
            with connect(port, 0.2) as s:
                s.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % GIB)
                while not stop.is_set():
                    try:
                        sent[0] += s.send(b"x" * 65536)
                    except TimeoutError:
                        pass
                    except ConnectionError:
                        if not stop.is_set():  # the backend lets go then
                            raise
    t = threading.Thread(target=upload)
    t.start()
    try:
        assert begun.wait(WAIT)
        taken = still(sent)
        grown = anon_kib(p) - before
    finally:
        stop.set()
        t.join()
    assert grown < LIMIT_KIB, (grown, taken)


def test_one_slow_upload_does_not_starve_others(proxy, backend):
    """Streams of one client connection: one whose server does not read fills at most its own window of the connection's."""
    stop = threading.Event()

    def fn(c, b):
        f = c.makefile("rb")
        first = f.readline()
        if b"/deaf" in first:
            stop.wait(60)
            return
        while f.readline() not in (b"\r\n", b""):
            pass
        n = int(f.readline(), 16)  # chunked
        total = 0
        while n:
            total += len(f.read(n))
            f.readline()
            n = int(f.readline(), 16)
        answer = b"%d" % total
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(answer), answer))
    port = free_port()
    b = backend(fn)
    proxy([listener(port, hcm([route("a", timeout="0s")]))], [cluster("a", [b.port])])
    with dial(port) as w:
        w.until(lambda: w.peer, WAIT)
        w.headers(1, request("POST", "/deaf"), end=False)
        deaf = Windows(w, 1)
        blocked = 0
        while (k := min(deaf.wait(0.7), 16384)) > 0:
            deaf.send(b"x" * k)
            blocked += k
        assert deaf.left[1] == 0 and deaf.left[0] > 256 * 1024, deaf.left  # its own window is used up, the connection's is not
        conn = deaf.left[0]
        for n in (3, 5, 7):  # others upload more than a window each
            w.headers(n, request("POST", f"/{n}"), end=False)
            win = Windows(w, n)
            win.seen, win.left[0] = len(w.window_updates), conn
            unsent = 1_000_000
            while unsent:
                k = min(win.wait(WAIT), 16384, unsent)
                assert k > 0, (n, unsent, win.left)
                win.send(b"y" * k)
                unsent -= k
            w.send(DATA, 1, n)
            conn = win.left[0]
            assert w.answer(n)[2] == b"1000000"
            for sid, k in w.window_updates[win.seen:]:
                conn += k if sid == 0 else 0
        stop.set()

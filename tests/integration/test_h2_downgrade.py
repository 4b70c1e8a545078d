# SPDX-License-Identifier: Apache-2.0
"""The HTTP/2 → HTTP/1 cases (tests/conformance/h2) through the real proxy: what reaches the other side must have one reading."""

import importlib.util
import socket
import sys
import threading

import pytest

from harness import ROOT, cluster, connect, free_port, hcm, http2_upstream, listener, route

h2wire = pytest.importorskip("h2wire", reason="python3-h2's hpack is needed")
from h2wire import DATA, END_HEADERS, END_STREAM, HEADERS, block, dial, frame, next_request, server  # noqa: E402

sys.path.insert(0, str(ROOT / "tests/conformance/h1"))
import strict  # noqa: E402

# By its file: the other folder has a module of this name.
_spec = importlib.util.spec_from_file_location("h2_corpus", ROOT / "tests/conformance/h2/corpus.py")
corpus = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(corpus)
WAIT = 15


class Origin:
    """Keeps every byte, per connection; answers each request that the strict reader can read."""

    def __init__(self):
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.sock.getsockname()[1]
        self.conns, self.lock = [], threading.Lock()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            record = {"data": b"", "at": 0, "closed": False}
            with self.lock:
                self.conns.append(record)
            threading.Thread(target=self.one, args=(c, record), daemon=True).start()

    def one(self, c, record):
        try:
            while part := c.recv(65536):
                with self.lock:
                    record["data"] += part
                try:
                    while (m := strict.read_request(record["data"], record["at"])) is not None:
                        record["at"] = m.end
                        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" if m.method != b"HEAD" else b"HTTP/1.1 200 OK\r\n\r\n")
                except strict.Doubt:
                    pass
        except OSError:
            pass
        finally:
            record["closed"] = True
            c.close()

    def take(self):
        """What came since the last call: (messages, doubts, [left-over bytes])."""
        messages, doubts, left = [], [], []
        with self.lock:
            for r in self.conns:
                data, r["data"], r["at"] = r["data"], b"", 0
                at = 0
                try:
                    while at < len(data):
                        m = strict.read_request(data, at)
                        if m is None:
                            left.append(data[at:])
                            break
                        messages.append(m)
                        at = m.end
                except strict.Doubt as d:
                    doubts.append((str(d), data))
            self.conns = [r for r in self.conns if not r["closed"]]
        return messages, doubts, left

    def close(self):
        self.sock.close()


def send_case(w, case, n):
    """The case on stream n."""
    more = case.body is not None or case.trailers
    w.send(HEADERS, END_HEADERS | (0 if more else END_STREAM), n, block(case.fields))
    if case.body is not None:
        last = not case.trailers
        w.send(DATA, END_STREAM if last else 0, n, case.body)
    if case.trailers:
        w.send(HEADERS, END_HEADERS | (END_STREAM if case.end else 0), n, block(case.trailers))


def check(case, m):
    want = case.want
    problems = []

    def same(what, got, wanted):
        if got != wanted:
            problems.append(f"{what}: {got!r}, wanted {wanted!r}")
    for k, v in want.items():
        if k in ("method", "target", "status", "body"):
            same(k, getattr(m, k), v)
        elif k == "host":
            same(k, m.first(b"host"), v)
        elif k == "field":
            same(k, m.all(v[0]), [v[1]])
        elif k == "fields":
            same(k, m.all(v[0]), v[1])
        elif k == "trailer":
            same(k, m.trailers, [v])
        elif k == "no-trailer" and any(t[0] == v for t in m.trailers):
            problems.append(f"trailer {v!r} came through")
    return problems


MARK = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/marker")]


def judge_request(case, port, origin):
    """None, or what is wrong."""
    with dial(port) as w:
        send_case(w, case, 1)
        s = w.stream(1)
        w.until(lambda: s["end"] or s["reset"] is not None, WAIT if case.end else 0.3)
        if w.closed is None:
            w.headers(3, MARK)
            w.until(lambda: w.stream(3)["end"] or w.stream(3)["reset"] is not None, WAIT)
        status = int(dict(s["headers"][0])[":status"]) if s["headers"] else None
        alive = w.closed is None
    messages, doubts, left = origin.take()
    marks = [m for m in messages if m.target == b"/marker"]
    mine = [m for m in messages if m.target != b"/marker"]
    if doubts:
        return f"ambiguous: {doubts}"
    if alive and len(marks) != 1:
        return f"the marker came {len(marks)} times: {messages}"
    if case.want == corpus.REJECT:
        if mine or (status is not None and status < 300):
            return f"accepted though malformed: {mine} status={status}"
        return None
    if len(mine) != 1 or status is None or status >= 300:
        return f"refused or multiplied: {mine} status={status} reset={s['reset']} left={left}"
    return "; ".join(check(case, mine[0])) or None


def test_requests_have_one_reading(proxy):
    origin, port = Origin(), free_port()
    p = proxy([listener(port, hcm([route("a")]))], [cluster("a", [origin.port])])
    cases = corpus.requests()
    bad = [f"{c}: {e}" for c in cases if (e := judge_request(c, port, origin))]
    origin.close()
    assert not bad, "\n".join(bad)
    assert p.p.poll() is None
    assert sum(c.want == corpus.REJECT for c in cases) >= 110 and sum(c.want != corpus.REJECT for c in cases) >= 35


def test_responses_have_one_reading(proxy, backend):
    cases = corpus.responses()
    current = []

    def play(w, b):
        known = set()
        while (n := next_request(w, known)) is not None:
            if dict(w.streams[n]["headers"][0])[":path"] == "/marker":
                w.headers(n, [(":status", "200"), ("x-marker", "1"), ("content-length", "0")])
            else:
                send_case(w, current[-1], n)
    b = backend(server(play))
    port = free_port()
    p = proxy([listener(port, hcm([route("a")]))], [cluster("a", [b.port], **http2_upstream())])
    bad = [f"{c}: {e}" for c in cases if (e := judge_response(c, port, current))]
    assert not bad, "\n".join(bad)
    assert p.p.poll() is None and len(cases) >= 50


def judge_response(case, port, current):
    current.append(case)
    data, messages, eof = b"", [], False
    with connect(port, WAIT) as s:
        s.sendall(b"GET /case HTTP/1.1\r\nHost: test\r\n\r\nGET /marker HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        try:
            while part := s.recv(65536):
                data += part
        except OSError:
            pass
        eof = True
    at = 0
    try:
        while at < len(data) and len(messages) < 3:
            m = strict.read_response(data, at, eof=eof)
            if m is None:
                break
            messages.append(m)
            at = m.end
    except strict.Doubt as d:
        return f"ambiguous: {d}: {data!r}"
    complete = [m for m in messages if not m.first(b"x-marker")]
    if len(complete) > 1 or (messages and messages[0].first(b"x-marker")):
        return f"more than one message: {data!r}"
    if case.want == corpus.REJECT:
        if complete and complete[0].status < 500:
            return f"accepted though malformed: {data!r}"
        return None
    if len(complete) != 1 or len(messages) != 2:
        return f"not one answer and the marker: {data!r}"
    return "; ".join(check(case, complete[0])) or None

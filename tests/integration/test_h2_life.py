# SPDX-License-Identifier: Apache-2.0
"""The life of HTTP/2 connections: options that are configured, keepalive, time-outs, ends that lose no request."""

import shutil
import socket
import struct
import subprocess
import threading
import time

import pytest

from harness import HTTP_OPTIONS, MeshError, ask, cluster, eventually, free_port, hcm, http2_upstream, listener, route, web

h2wire = pytest.importorskip("h2wire", reason="python3-h2's hpack is needed")
from h2wire import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, NO_ERROR, PING, PRIORITY,  # noqa: E402
                    PROTOCOL_ERROR, Reset, SETTINGS, WINDOW_UPDATE, block, dial, frame, next_request, request, server)

WAIT = 15


def answering(w, backend):
    """Answers every request with its path."""
    known = set()
    while (n := next_request(w, known)) is not None:
        head = dict(w.streams[n]["headers"][0])
        backend.seen.append((n, head))
        w.headers(n, [(":status", "200")], end=False)
        w.data(n, head[":path"].encode(), True)


def start(proxy, backend, fn=None, common=None, h2=None, cluster_more=None, **more):
    port = free_port()
    b = backend(fn or web("a"))
    p = proxy([listener(port, hcm([route("a")], **({"http2_protocol_options": h2} if h2 is not None else {}),
                                  **({"common_http_protocol_options": common} if common else {}), **more))],
              [cluster("a", [b.port], **(cluster_more or {}))])
    return port, p, b


# --- keepalive ---

def test_downstream_keepalive(proxy, backend):
    """A client that answers PINGs stays; one that is silent is cut; one that says anything else stays, too."""
    keep = {"connection_keepalive": {"interval": "0.3s", "timeout": "0.5s", "interval_jitter": {"value": 0}}}
    port, p, _ = start(proxy, backend, h2=keep)
    with dial(port) as good, dial(port) as mute:
        mute.auto = False
        begun = time.monotonic()
        assert good.until(lambda: len(good.pings) >= 3, WAIT) and good.closed is None
        assert time.monotonic() - begun >= 0.6
        assert mute.ended()
        assert good.get(1)[0] == 200
        assert p.stat("http.in.downstream_cx_active") == 1


def test_upstream_keepalive(proxy, backend):
    """An upstream that does not answer PING is left, and its request fails; the next one gets a new connection."""
    quiet = threading.Event()

    def mute(w, b):
        if b.connections == 1:
            w.auto = False
            n = next_request(w, set())
            b.seen.append(n)
            w.until(lambda: False, WAIT)
            quiet.set()
        else:
            answering(w, b)
    keep = {"connection_keepalive": {"interval": "0.2s", "timeout": "0.4s"}}
    port, p, b = start(proxy, backend, server(mute), cluster_more=http2_upstream(**keep))
    a = ask(port, "/x")
    assert a.status == 503 and quiet.wait(WAIT)
    assert ask(port, "/y").body == b"/y"


def test_upstream_ping_before_a_stream_behind_silence(proxy, backend):
    def run(w, b):
        known = set()
        while (n := next_request(w, known)) is not None:
            b.seen.append(len(w.pings))
            w.headers(n, [(":status", "200")])
    port, _, b = start(proxy, backend, server(run),
                       cluster_more=http2_upstream(connection_keepalive={"connection_idle_interval": "0.5s", "timeout": "10s"}))
    assert ask(port).status == 200 and ask(port).status == 200
    time.sleep(1)
    assert ask(port).status == 200
    assert b.seen == [0, 0, 1] and b.connections == 1


@pytest.mark.parametrize("bad", [{"connection_keepalive": {"interval": "1s"}}, {"connection_keepalive": {"timeout": "0s"}},
                                 {"connection_keepalive": {"interval": "0s", "timeout": "1s"}}, {"hpack_table_size": 1 << 20},
                                 {"enable_huffman_encoding": False}, {"initial_stream_window_size": 100}, {"max_concurrent_streams": 0},
                                 {"custom_settings_parameters": [{"identifier": 99, "value": 1}]}, {"allow_metadata": True}])
def test_options_that_are_refused(proxy, backend, bad):
    with pytest.raises(MeshError):
        start(proxy, backend, h2=bad)


# --- numbers ---

def test_hpack_table_size(proxy, backend):
    port, _, _ = start(proxy, backend, server(answering), h2={"hpack_table_size": 8192}, cluster_more=http2_upstream(hpack_table_size=16384))
    with dial(port) as w:
        assert w.get(1, "/a")[2] == b"/a"
        assert w.peer.get(1) == 8192  # SETTINGS_HEADER_TABLE_SIZE
    port2, _, _ = start(proxy, backend)
    with dial(port2) as w:
        assert w.get(1)[0] == 200 and 1 not in w.peer
    inner, _, _ = start(proxy, backend, h2={"hpack_table_size": 0})  # smaller than usual: both encoders have to follow
    outer = free_port()
    proxy([listener(outer, hcm([route("a")]))], [cluster("a", [inner], **http2_upstream(hpack_table_size=100))])
    for _ in range(5):
        assert ask(outer, "/again", headers={"X-Long": "y" * 300}).status == 200


def test_settings_are_announced(proxy, backend):
    port, _, _ = start(proxy, backend, h2={"max_concurrent_streams": 7, "initial_stream_window_size": 70000,
                                           "initial_connection_window_size": 200000})
    with dial(port) as w:
        assert w.get(1)[0] == 200
        assert w.peer[3] == 7 and w.peer[4] == 70000
        assert (0, 200000 - 65535) in w.window_updates


def flood(port, frames, until_closed=True):
    """(whether it was cut, the GOAWAY's code)"""
    with dial(port) as w:
        w.until(lambda: w.peer, WAIT)
        w.raw(frames)
        cut = w.ended(WAIT if until_closed else 0.5)
        return cut, w.goaway and w.goaway[1]


OPEN = frame(HEADERS, END_HEADERS, 1, block(request("POST", extra=[("content-length", "10")])))
LIMITS = {"max_consecutive_inbound_frames_with_empty_payload": 3, "max_inbound_priority_frames_per_stream": 10,
          "max_inbound_window_update_frames_per_data_frame_sent": 1, "max_outbound_control_frames": 20}


@pytest.mark.parametrize("fine, flooding", [
    (OPEN + frame(DATA, 0, 1) * 3 + frame(DATA, 0, 1, b"x") + frame(DATA, 0, 1) * 3, OPEN + frame(DATA, 0, 1) * 4),
    (frame(PRIORITY, 0, 5, b"\0\0\0\0\x10") * 10, frame(PRIORITY, 0, 5, b"\0\0\0\0\x10") * 11),
    (frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 5, frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 6),
    (frame(PING, 0, 0, b"12345678") * 15, frame(PING, 0, 0, b"12345678") * 60),
], ids=["empty", "priority", "window", "control"])
def test_flood_numbers(proxy, backend, fine, flooding):
    port, p, _ = start(proxy, backend, h2=LIMITS)
    assert flood(port, fine, False) == (False, None)
    assert flood(port, flooding) == (True, ENHANCE_YOUR_CALM)
    assert p.p.poll() is None


def test_flood_numbers_by_default(proxy, backend):
    """Envoy's: one empty frame in a row, 100 PRIORITY a stream, 10 WINDOW_UPDATE a DATA frame."""
    port, _, _ = start(proxy, backend)
    assert flood(port, OPEN + frame(DATA, 0, 1), False) == (False, None)
    assert flood(port, OPEN + frame(DATA, 0, 1) * 2) == (True, ENHANCE_YOUR_CALM)
    assert flood(port, frame(PRIORITY, 0, 5, b"\0\0\0\0\x10") * 101) == (True, ENHANCE_YOUR_CALM)


BAD = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/"), ("Upper", "x")]


@pytest.mark.parametrize("h2, more, ends", [
    (None, {}, False),
    ({"override_stream_error_on_invalid_http_message": True}, {}, False),
    ({"override_stream_error_on_invalid_http_message": False}, {}, True),
    ({"stream_error_on_invalid_http_messaging": True}, {"stream_error_on_invalid_http_message": False}, False),
    (None, {"stream_error_on_invalid_http_message": False}, True),
    (None, {"stream_error_on_invalid_http_message": True}, False),
])
def test_invalid_message(proxy, backend, h2, more, ends):
    port, _, b = start(proxy, backend, h2=h2, **more)
    with dial(port) as w:
        w.headers(1, BAD)
        if ends:
            assert w.ended() and w.goaway[1] == PROTOCOL_ERROR
        else:
            with pytest.raises(Reset) as e:
                w.head(1)
            assert e.value.code == PROTOCOL_ERROR
            assert w.get(3)[0] == 200
    assert len(b.seen) == (0 if ends else 1)


# --- time ---

def test_headers_timeout(proxy, backend):
    """request_headers_timeout: a block that is begun and not ended."""
    port, p, _ = start(proxy, backend, request_headers_timeout="0.5s")
    with dial(port) as w:
        assert w.get(1)[0] == 200
        time.sleep(0.8)  # nothing is begun: no time-out
        assert w.get(3)[0] == 200
        w.send(HEADERS, END_STREAM, 5, block(request()))  # without END_HEADERS
        assert w.ended(8) and w.goaway[1] == ENHANCE_YOUR_CALM
    assert p.stat("http.in.downstream_rq_header_timeout") == 1


def test_idle_timeout(proxy, backend):
    port, p, _ = start(proxy, backend, common={"idle_timeout": "0.5s"})
    with dial(port) as w:
        assert w.get(1)[0] == 200
        assert w.ended() and w.goaway[1] == NO_ERROR
    assert p.stat("http.in.downstream_cx_idle_timeout") == 1


def test_upstream_idle_timeout(proxy, backend):
    ended = threading.Event()

    def run(w, b):
        answering(w, b)
        ended.set()
    port, _, b = start(proxy, backend, server(run), cluster_more=http2_upstream({"idle_timeout": "0.5s"}))
    assert ask(port, "/a").body == b"/a"
    assert ended.wait(WAIT)
    assert ask(port, "/b").body == b"/b" and b.connections == 2


def test_max_connection_duration(proxy, backend):
    """The connection ends; a request that is under way is answered first."""
    hold = threading.Event()

    def slow(c, b):
        def answer(first, headers, body):
            if "/slow" in first:
                hold.wait(WAIT)
        web("a", answer)(c, b)
    port, p, _ = start(proxy, backend, slow, common={"max_connection_duration": "0.5s"})
    with dial(port) as w:
        w.headers(1, request(path="/slow"))
        assert w.until(lambda: w.goaway is not None, WAIT)
        assert w.goaway == (0x7fffffff, NO_ERROR)
        w.until(lambda: w.goaway[0] != 0x7fffffff, WAIT)
        assert w.goaway == (1, NO_ERROR)
        hold.set()
        assert w.answer(1)[0] == 200
        assert w.ended()
    assert p.stat("http.in.downstream_cx_max_duration_reached") == 1


def test_request_between_the_two_goaways_is_served(proxy, backend):
    port, _, _ = start(proxy, backend, common={"max_requests_per_connection": 1})
    with dial(port) as w:
        w.auto = False  # the answer to our PING waits, so the last GOAWAY does
        w.headers(1, request())
        assert w.until(lambda: w.goaway is not None, WAIT) and w.goaway[0] == 0x7fffffff
        w.headers(3, request(path="/late"))
        assert w.answer(1)[0] == 200 and w.answer(3)[0] == 200
        assert w.until(lambda: w.goaway[0] == 3, WAIT)
        assert w.ended()


def test_upstream_max_requests(proxy, backend):
    port, p, b = start(proxy, backend, server(answering), cluster_more=http2_upstream({"max_requests_per_connection": 2}))
    for i in range(6):
        assert ask(port, f"/{i}").body == f"/{i}".encode()
    assert b.connections == 3


def test_upstream_goaway_loses_nothing(proxy, backend):
    """A server that takes some streams and refuses later ones with GOAWAY: those are sent again, also POST."""
    def run(w, b):
        known = set()
        if b.connections > 1:
            answering(w, b)
            return
        numbers = [next_request(w, known)]  # the first one settles the connection
        w.headers(numbers[0], [(":status", "200")])
        numbers = [next_request(w, known) for _ in range(4)]
        keep = sorted(numbers)[:2]
        w.send(7, 0, 0, struct.pack(">II", keep[-1], NO_ERROR))
        for n in keep:
            head = dict(w.streams[n]["headers"][0])
            w.headers(n, [(":status", "200")], end=False)
            w.data(n, head[":path"].encode(), True)
        w.until(lambda: False, WAIT)
    port, p, b = start(proxy, backend, server(run), cluster_more=http2_upstream())
    assert ask(port, "/first").status == 200
    with dial(port) as w:
        for n in (1, 3, 5, 7):
            w.headers(n, request("POST", f"/{n}"))
        for n in (1, 3, 5, 7):
            assert w.answer(n)[2] == f"/{n}".encode()
    assert b.connections == 2


@pytest.mark.skipif(not shutil.which("h2load"), reason="nghttp2-client is needed")
@pytest.mark.parametrize("where", ["downstream", "upstream", "pair"])
def test_ends_under_load_lose_nothing(proxy, backend, where):
    """Connections that end after a few requests, at any side, while requests come."""
    few = {"max_requests_per_connection": 20}
    if where == "pair":  # the inner proxy says GOAWAY to the outer one
        inner, _, _ = start(proxy, backend, common=few)
        port = free_port()
        proxy([listener(port, hcm([route("i")]))], [cluster("i", [inner], **http2_upstream())])
    else:
        b_fn = server(answering) if where == "upstream" else None
        port, _, _ = start(proxy, backend, b_fn, common=few if where == "downstream" else None,
                           cluster_more=http2_upstream(few) if where == "upstream" else None)
    if where == "downstream":  # h2load does not come back after GOAWAY: one connection for each batch
        for _ in range(10):
            r = subprocess.run(["nghttp", "-n", "-m", "20", "-v", f"http://127.0.0.1:{port}/x"], capture_output=True, text=True, timeout=30)
            assert r.stdout.count(":status: 200") == 20, r.stdout[-2000:]
        return
    r = subprocess.run(["h2load", "-n", "1500", "-c", "4", "-m", "10", f"http://127.0.0.1:{port}/x"], capture_output=True, timeout=120, text=True)
    assert " 1500 succeeded, 0 failed, 0 errored" in r.stdout and "1500 2xx" in r.stdout, r.stdout


# --- messages ---

def test_content_length_zero_with_a_body(proxy, backend):
    """Nothing of it reaches the server; with an empty body it is a request like others."""
    port, _, b = start(proxy, backend)
    with dial(port) as w:
        w.headers(1, request("POST", "/liar", extra=[("content-length", "0")]), end=False)
        w.drain(0.2)
        w.data(1, b"smuggled", True)
        with pytest.raises(Reset) as e:
            w.head(1)
        assert e.value.code == PROTOCOL_ERROR
        w.headers(3, request("POST", "/empty", extra=[("content-length", "0")]), end=False)
        w.data(3, b"", True)
        assert w.answer(3)[0] == 200
        w.headers(5, request("POST", "/plain", extra=[("content-length", "0")]))
        assert w.answer(5)[0] == 200
    assert [m[0] for m in b.seen] == ["POST /empty HTTP/1.1", "POST /plain HTTP/1.1"]
    assert all(dict(m[1])["content-length"] == "0" for m in b.seen)


@pytest.mark.parametrize("said, sent", [(5, b"four"), (3, b"four"), (1 << 40, b"four")])
def test_content_length_that_lies(proxy, backend, said, sent):
    """The server must not take what it got for a whole message."""
    got = []

    def recorder(c, b):
        c.settimeout(2)
        data = b""
        try:
            while part := c.recv(65536):
                data += part
        except OSError:
            pass
        got.append(data)
    port, _, _ = start(proxy, backend, recorder)
    with dial(port) as w:
        w.headers(1, request("POST", extra=[("content-length", str(said))]), end=False)
        w.data(1, sent, True)
        with pytest.raises(Reset):
            w.head(1)
    eventually(lambda: got or said == 3, WAIT, "the end of the upstream connection")
    for data in got:
        _, _, body = data.partition(b"\r\n\r\n")
        assert len(body) < said


def test_use_downstream_protocol(proxy, backend):
    """The upstream connection speaks what the client speaks."""
    def either(c, b):
        first = c.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL)
        b.seen.append(first)
        (server(answering) if first == b"PRI " else web("a"))(c, b)
    options = {"typed_extension_protocol_options": {HTTP_OPTIONS: {
        "@type": f"type.googleapis.com/{HTTP_OPTIONS}", "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}}}
    port, _, b = start(proxy, backend, either, cluster_more=options)
    assert ask(port, "/").body == b"a"
    with dial(port) as w:
        assert w.get(1, "/two")[2] == b"/two"
    assert b.seen[0] == b"GET " and b"PRI " in b.seen

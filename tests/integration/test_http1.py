# SPDX-License-Identifier: Apache-2.0
"""What is special about HTTP/1: names of fields on the wire, HTTP/1.0 clients, 100-continue, half-closed connections."""
import socket
import time

import pytest

from harness import cluster, connect, eventually, free_port, hcm, listener, read_answer, read_message, route, send_raw

PRESERVE = {"stateful_formatter": {"name": "preserve", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"}}}
PROPER = {"proper_case_words": {}}


@pytest.fixture
def site(proxy, backend):
    """make(fn, hcm options, cluster options) → proxy, port, backend; fn(connection, backend) as harness.Backend."""
    def make(fn, options=None, cluster_options=None):
        b = backend(fn)
        port = free_port()
        p = proxy([listener(port, hcm([route("a", timeout="30s")], **(options or {})))], [cluster("a", [b.port], **(cluster_options or {}))])
        return p, port, b
    return make


def raw_backend(answer=b"HTTP/1.1 200 OK\r\nX-cAsE: 1\r\nContent-Length: 2\r\nx-lower: 2\r\n\r\nok"):
    """Remembers the bytes of each head and what comes with it, and answers."""
    def fn(c, b):
        while True:
            got = b""
            while b"\r\n\r\n" not in got:
                part = c.recv(65536)
                if not part:
                    return
                got += part
            b.seen.append(got)
            c.sendall(answer)
    return fn


def head_of(data):
    return data.split(b"\r\n\r\n")[0].split(b"\r\n")


REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\nX-MiXed-CaSe: 1\r\nx-low: 2\r\n\r\n"


def test_case_of_names_is_kept(site):
    _, port, b = site(raw_backend())
    with connect(port) as s:
        s.sendall(REQUEST)
        got = s.recv(65536)
    assert b"X-MiXed-CaSe: 1" in head_of(b.seen[0]) and b"x-low: 2" in head_of(b.seen[0])
    assert b"X-cAsE: 1" in head_of(got) and b"x-lower: 2" in head_of(got)


def test_preserve_case_covers_the_names_we_write(site):
    _, port, b = site(raw_backend(), {"http_protocol_options": {"header_key_format": PRESERVE}},
                      {"http_protocol_options": {"header_key_format": PRESERVE}})
    with connect(port) as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nX-MiXed-CaSe: 1\r\n\r\na")
        got = s.recv(65536)
        assert {b"Host: h", b"Content-Length: 1", b"X-MiXed-CaSe: 1"} <= set(head_of(b.seen[0]))
        assert {b"Content-Length: 2", b"X-cAsE: 1", b"x-lower: 2"} <= set(head_of(got))
    with connect(port) as s:
        s.sendall(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\na")
        s.recv(65536)
        assert {b"host: h", b"content-length: 1"} <= set(head_of(b.seen[1]))


def test_proper_case(site):
    _, port, b = site(raw_backend(), {"http_protocol_options": {"header_key_format": PROPER}},
                      {"http_protocol_options": {"header_key_format": PROPER}})
    with connect(port) as s:
        s.sendall(b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nx-low: 2\r\n\r\n")
        got = s.recv(65536)  # answered before the body
    names = [line.split(b":")[0] for line in head_of(b.seen[0])[1:]]
    assert {b"Host", b"X-Low", b"Transfer-Encoding", b"X-Request-Id"} <= set(names)
    assert not [n for n in names if n[:1].islower()]
    names = [line.split(b":")[0] for line in head_of(got)[1:]]
    assert {b"X-Lower", b"Content-Length", b"Server", b"Date"} <= set(names) and not [n for n in names if n[:1].islower()]


# --- HTTP/1.0 ---

def test_http10_without_host_takes_the_default(site):
    _, port, b = site(raw_backend(), {"http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "old.example"}})
    data, closed = send_raw(port, b"GET / HTTP/1.0\r\n\r\n")
    assert closed and data.startswith(b"HTTP/1.0 200 OK\r\n") and data.endswith(b"ok")
    assert head_of(b.seen[0])[0] == b"GET / HTTP/1.1" and b"host: old.example" in head_of(b.seen[0])


def test_http10_without_host_and_default_is_refused(site):
    _, port, b = site(raw_backend(), {"http_protocol_options": {"accept_http_10": True}})
    data, closed = send_raw(port, b"GET / HTTP/1.0\r\n\r\n")
    assert closed and data.split()[1] == b"400" and not b.seen


def test_http10_client_gets_no_chunks(site):
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\n, x\r\n0\r\nX-Trailer: 1\r\n\r\n"
    _, port, _ = site(raw_backend(chunked), {"http_protocol_options": {"accept_http_10": True}})
    for keep_alive in (b"", b"Connection: keep-alive\r\n"):
        data, closed = send_raw(port, b"GET / HTTP/1.0\r\nHost: h\r\n" + keep_alive + b"\r\n")
        head, _, body = data.partition(b"\r\n\r\n")
        assert closed and body == b"hello, x"
        assert b"transfer-encoding" not in head.lower() and b"connection: close" in head.lower()


def test_http10_keep_alive(site):
    def fn(c, b):
        f = c.makefile("rb")
        while read_message(f):
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    _, port, _ = site(fn, {"http_protocol_options": {"accept_http_10": True}})
    with connect(port) as s:
        f = s.makefile("rb")
        for _ in range(3):
            s.sendall(b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
            r = read_answer(f)
            assert r.body == b"ok" and r.headers["connection"] == "keep-alive" and r.first.startswith("HTTP/1.0")


def test_http10_upstream(site):
    """An answer that ends with the connection becomes chunks for a client of HTTP/1.1."""
    def fn(c, b):
        read_message(c.makefile("rb"))
        c.sendall(b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nuntil the end")
    _, port, b = site(fn)
    with connect(port) as s:
        f = s.makefile("rb")
        for _ in range(2):
            s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            r = read_answer(f)
            assert r.body == b"until the end" and r.headers["transfer-encoding"] == "chunked"
    assert b.connections == 2


# --- 100-continue ---

EXPECT = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"


def test_body_that_does_not_wait_for_100(site):
    def fn(c, b):
        b.seen.append(read_message(c.makefile("rb")))
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    _, port, b = site(fn)
    with connect(port) as s:
        s.sendall(EXPECT + b"abc")
        assert read_answer(s.makefile("rb")).status == 200
    assert b.seen[0][2] == b"abc" and "expect" not in dict(b.seen[0][1])


def test_proxied_100_continue_is_the_upstreams_word(site):
    def fn(c, b):
        f = c.makefile("rb")
        head = []
        while not head or head[-1] != b"\r\n":
            head.append(f.readline())
        b.seen.append(b"".join(head))
        c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        b.seen.append(f.read(3))
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    _, port, b = site(fn, {"proxy_100_continue": True})
    with connect(port) as s:
        f = s.makefile("rb")
        s.sendall(EXPECT)
        assert f.readline().startswith(b"HTTP/1.1 100") and f.readline() == b"\r\n"
        s.sendall(b"abc")
        assert read_answer(f).status == 200
    assert b"expect: 100-continue" in b.seen[0].lower() and b.seen[1] == b"abc"


def test_upstream_refuses_the_expectation(site):
    def fn(c, b):
        f = c.makefile("rb")
        while f.readline() not in (b"\r\n", b""):
            pass
        c.sendall(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        b.seen.append(f.read())
    _, port, b = site(fn, {"proxy_100_continue": True})
    data, closed = send_raw(port, EXPECT)
    assert closed and data.split()[1] == b"417"
    eventually(lambda: b.seen == [b""], 10, "the upstream connection to end without a body")


# --- ends ---

def test_client_that_ends_its_side_is_gone(site):
    """As Envoy: a client that half-closes has given up; the upstream hears of it at once."""
    def fn(c, b):
        read_message(c.makefile("rb"))
        b.seen.append("request")
        b.seen.append(c.recv(1))
    p, port, b = site(fn)
    with connect(port) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: b.seen == ["request"], 10, "the request to arrive")
        s.shutdown(socket.SHUT_WR)
        eventually(lambda: len(b.seen) == 2, 10, "the upstream to hear of the end")
    eventually(lambda: p.stat("http.in.downstream_rq_active") == 0, 10, "the request to be gone")


def test_answer_is_whole_when_the_client_ends_behind_it(site):
    """The end of the client's side behind complete answers loses nothing of them."""
    _, port, _ = site(raw_backend(b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n" + b"x" * 400000))
    with connect(port, 10) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        f = s.makefile("rb")
        assert f.readline().startswith(b"HTTP/1.1 200")
        time.sleep(0.2)  # the rest is under way; what the kernel holds now is far less than all
        assert len(read_body(f)) == 400000


def read_body(f):
    while f.readline() not in (b"\r\n", b""):
        pass
    return f.read(400000)

# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 through remora-proxy with a static, Envoy-shaped bootstrap on loopback."""

import hashlib
import json
import re
import signal
import socket
import threading
import time

import pytest

from harness import (Backend, Proxy, ask, cluster, connect, eventually, free_port, hcm, listener, read_answer, read_message, route,
                     send_raw, web)


@pytest.fixture
def simple(proxy, backend):
    """One listener, one route, one backend that answers 200 with its name."""
    def make(answer=None, **hcm_options):
        b = backend(web("a", answer))
        port = free_port()
        p = proxy([listener(port, hcm([route("a")], **hcm_options))], [cluster("a", [b.port])])
        return p, port, b
    return make


def test_round_robin_is_even(proxy, backend):
    a, b = backend(web("a")), backend(web("b"))
    port = free_port()
    proxy([listener(port, hcm([route("both")]))], [cluster("both", [a.port, b.port])])
    got = [ask(port).body for _ in range(20)]
    assert got.count(b"a") == got.count(b"b") == 10
    assert all(x != y for x, y in zip(got, got[1:]))


def test_yaml_bootstrap_is_the_same(proxy, backend):
    b = backend(web("a"))
    port = free_port()
    proxy([listener(port, hcm([route("a")]))], [cluster("a", [b.port])], as_yaml=True)
    assert ask(port).status == 200


def test_no_route_is_404(proxy, backend):
    b = backend(web())
    port = free_port()
    proxy([listener(port, hcm([route("a", "/known")], domains=["known.example"]))], [cluster("a", [b.port])])
    assert ask(port, "/known", host="known.example").status == 200
    assert ask(port, "/other", host="known.example").status == 404
    assert ask(port, "/known", host="other.example").status == 404
    assert len(b.seen) == 1


def test_refusing_upstream_is_503_with_the_reason(proxy):
    port = free_port()
    p = proxy([listener(port, hcm([route("a")]))], [cluster("a", [free_port()])])
    r = ask(port)
    assert r.status == 503
    assert b"upstream connect error" in r.body
    assert p.stat("cluster.a.upstream_cx_connect_fail") >= 1


def test_no_endpoint_is_503(proxy):
    port = free_port()
    proxy([listener(port, hcm([route("a")]))], [cluster("a", [])])
    r = ask(port)
    assert r.status == 503 and b"no healthy upstream" in r.body


def test_connect_failure_is_tried_on_another_host(proxy, backend):
    b = backend(web())
    port = free_port()
    retry = {"retry_on": "connect-failure", "num_retries": 2}
    proxy([listener(port, hcm([route("a", retry_policy=retry)]))], [cluster("a", [free_port(), b.port])])
    assert [ask(port).status for _ in range(10)] == [200] * 10


def test_keep_alive_on_both_sides(simple):
    _, port, b = simple()
    with connect(port) as s:
        f = s.makefile("rb")
        for _ in range(50):
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_answer(f).status == 200
    assert len(b.seen) == 50
    assert b.connections == 1


def test_connection_close_is_kept(simple):
    _, port, _ = simple()
    data, closed = send_raw(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert data.startswith(b"HTTP/1.1 200") and closed


def test_pipelined_requests_are_answered_in_order(simple):
    def answer(first, headers, body):
        path = first.split()[1]
        if path == "/1":
            time.sleep(0.1)
        return f"HTTP/1.1 200 OK\r\nContent-Length: {len(path)}\r\n\r\n{path}".encode()
    _, port, _ = simple(answer)
    with connect(port) as s:
        s.sendall(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(1, 6)))
        f = s.makefile("rb")
        assert [read_answer(f).body for _ in range(5)] == [b"/1", b"/2", b"/3", b"/4", b"/5"]


def test_chunked_both_ways_with_trailers(simple):
    def answer(first, headers, body):
        return (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n5;x=y\r\npedia\r\n0\r\n\r\n")
    _, port, b = simple(answer)
    with connect(port) as s:
        s.sendall(b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        time.sleep(0.05)
        s.sendall(b"A\r\n0123456789\r\n0\r\n\r\n")
        r = read_answer(s.makefile("rb"))
    assert r.status == 200 and r.body == b"wikipedia"
    assert b.seen[0][2] == b"abc0123456789"
    assert "content-length" not in dict(b.seen[0][1])


@pytest.mark.parametrize("size", [0, 1, 65536, 8 << 20])
def test_bodies_of_any_size_arrive_whole(simple, size):
    blob = (b"0123456789abcdef" * (size // 16 + 1))[:size]

    def answer(first, headers, body):
        return b"HTTP/1.1 200 OK\r\nX-Sum: %s\r\nContent-Length: %d\r\n\r\n" % (hashlib.sha256(body).hexdigest().encode(), size) + blob
    _, port, _ = simple(answer)
    r = ask(port, method="POST", body=blob)
    assert r.headers["x-sum"] == hashlib.sha256(blob).hexdigest()
    assert r.body == blob


def test_head_204_304_have_no_body(simple):
    def answer(first, headers, body):
        code = first.split()[1].strip("/")
        if first.startswith("HEAD"):
            return b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        return f"HTTP/1.1 {code} X\r\n\r\n".encode()
    _, port, _ = simple(answer)
    with connect(port) as s:
        f = s.makefile("rb")
        s.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        r = read_answer(f, head=True)
        assert r.status == 200 and r.headers["content-length"] == "1000"
        for code in (204, 304):
            s.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % code)
            assert read_answer(f).status == code


def test_expect_continue(simple):
    _, port, b = simple()
    with connect(port) as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        first = s.recv(4096)
        assert first.startswith(b"HTTP/1.1 100")
        s.sendall(b"abc")
        assert read_answer(s.makefile("rb")).status == 200
    assert b.seen[0][2] == b"abc"


def test_hop_by_hop_headers_stop_here(simple):
    _, port, b = simple()
    ask(port, headers={"Connection": "x-secret", "X-Secret": "1", "Keep-Alive": "timeout=5", "Proxy-Connection": "close", "X-Kept": "2"})
    got = dict(b.seen[0][1])
    assert got.get("x-kept") == "2"
    assert not {"x-secret", "keep-alive", "proxy-connection"} & set(got)


def test_upgrade_that_is_not_configured_is_refused(simple):
    _, port, b = simple()
    data, _ = send_raw(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 1)
    assert data.split()[1] == b"403"
    assert not b.seen


def test_weights_and_header_match(proxy, backend):
    a, b = backend(web("a")), backend(web("b"))
    port = free_port()
    weighted = {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": [
        {"name": "a", "weight": 80}, {"name": "b", "weight": 20}]}}}
    tester = route("b", match={"headers": [{"name": "end-user", "string_match": {"exact": "jason"}}]})
    proxy([listener(port, hcm([tester, weighted]))], [cluster("a", [a.port]), cluster("b", [b.port])])
    assert {ask(port, headers={"end-user": "jason"}).body for _ in range(20)} == {b"b"}
    with connect(port) as s:
        f = s.makefile("rb")
        got = []
        for _ in range(1000):
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            got.append(read_answer(f).body)
    assert 150 < got.count(b"b") < 252  # 99.99 % of Binomial(1000, 0.2)


def test_hanging_upstream_is_504_after_the_route_timeout(proxy, backend):
    def hang(c, b):
        while c.recv(65536):
            pass
    b = backend(hang)
    port = free_port()
    p = proxy([listener(port, hcm([route("a", timeout="0.3s")]))], [cluster("a", [b.port])])
    start = time.monotonic()
    r = ask(port)
    assert r.status == 504 and b"timeout" in r.body
    assert 0.25 < time.monotonic() - start < 2
    assert p.stat("cluster.a.upstream_rq_timeout") == 1


def test_reset_before_the_answer_is_503(proxy, backend):
    def reset(c, b):
        read_message(c.makefile("rb"))
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    b = backend(reset)
    port = free_port()
    proxy([listener(port, hcm([route("a")]))], [cluster("a", [b.port])])
    assert ask(port).status == 503


def test_reset_half_way_through_the_body_reaches_the_client(proxy, backend):
    def half(c, b):
        read_message(c.makefile("rb"))
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        time.sleep(0.1)
    b = backend(half)
    port = free_port()
    proxy([listener(port, hcm([route("a")]))], [cluster("a", [b.port])])
    with pytest.raises(ConnectionError):
        ask(port)


def test_answer_before_the_request_ends(proxy, backend):
    def early(c, b):
        c.recv(100)
        c.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        time.sleep(0.3)
    b = backend(early)
    port = free_port()
    proxy([listener(port, hcm([route("a")]))], [cluster("a", [b.port])])
    with connect(port) as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc")
        assert read_answer(s.makefile("rb")).status == 413


def test_sigterm_finishes_what_is_under_way(proxy, backend):
    def slow(first, headers, body):
        time.sleep(0.8)
        return None
    b = backend(web("a", slow))
    port = free_port()
    p = proxy([listener(port, hcm([route("a")]))], [cluster("a", [b.port])], args=["--drain-time-s", "5"])
    got = []
    t = threading.Thread(target=lambda: got.append(ask(port)))
    t.start()
    eventually(lambda: b.seen, what="the request to arrive")
    p.p.send_signal(signal.SIGTERM)
    t.join(5)
    assert got and got[0].status == 200
    p.stop()


def test_http10_client(simple):
    _, port, b = simple()
    data, closed = send_raw(port, b"GET / HTTP/1.0\r\nHost: x\r\n\r\n", 1)
    assert data.split()[1] == b"426" and closed and not b.seen  # Envoy's answer unless accept_http_10


# --- admin ---

def test_admin_pages_parse(simple):
    p, port, _ = simple()
    ask(port)
    assert p.get("/ready").strip() == "LIVE"
    info = json.loads(p.get("/server_info"))
    assert info["state"] == "LIVE" and info["node"]["id"] == "test"
    dump = json.loads(p.get("/config_dump"))
    types = [c["@type"].rsplit(".", 1)[1] for c in dump["configs"]]
    assert {"BootstrapConfigDump", "ClustersConfigDump", "ListenersConfigDump"} <= set(types)
    assert "a::default_priority::max_connections::1024" in p.get("/clusters")
    hosts = json.loads(p.get("/clusters?format=json"))["cluster_statuses"]
    assert [c["name"] for c in hosts] == ["a"] and len(hosts[0]["host_statuses"]) == 1
    assert f":{port}" in p.get("/listeners")
    json.loads(p.get("/listeners?format=json"))
    json.loads(p.get("/certs"))
    assert p.stat("cluster.a.upstream_rq_total") == 1
    json.loads(p.get("/stats?format=json"))
    line = re.compile(r'^(# (TYPE|HELP) .*|[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*="(\\.|[^"\\])*",?)*\})? \S+)$')
    text = p.get("/stats/prometheus")
    bad = [x for x in text.splitlines() if x and not line.match(x)]
    assert not bad and "envoy_cluster_upstream_rq_total" in text
    assert "info" in p.get("/logging", "POST")


def test_quitquitquit(simple):
    p, _, _ = simple()
    assert p.get("/quitquitquit", "POST").strip() == "OK"
    assert p.p.wait(8) == 0


# --- bad bootstraps ---

def start_bad(tmp_path, change):
    config = {"listeners": [listener(free_port(), hcm([route("a")]))], "clusters": [cluster("a", [1])]}
    change(config)
    p = Proxy(tmp_path / "bad", config["listeners"], config["clusters"], wait=False)
    try:
        return p.p.wait(10), p.text()
    finally:
        if p.p.poll() is None:
            p.p.kill()


def test_unknown_field_is_refused_by_name(tmp_path):
    status, text = start_bad(tmp_path, lambda c: c["clusters"][0].update(no_such_field=1))
    assert status != 0 and "no_such_field" in text


def test_unknown_filter_is_refused_by_name(tmp_path):
    def change(c):
        c["listeners"][0]["filter_chains"][0]["filters"][0]["name"] = "x"
        c["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"] = {"@type": "type.googleapis.com/no.such.Filter"}
    status, text = start_bad(tmp_path, change)
    assert status != 0 and "no.such.Filter" in text


def test_taken_port_is_named(tmp_path, backend):
    b = backend(web())
    p = Proxy(tmp_path / "taken", [listener(b.port, hcm([route("a")]))], [cluster("a", [1])], wait=False)
    try:
        assert p.p.wait(10) != 0
        assert str(b.port) in p.text()
    finally:
        if p.p.poll() is None:
            p.p.kill()


def test_validate_mode(tmp_path, backend):
    port = free_port()
    good = Proxy(tmp_path / "good", [listener(port, hcm([route("a")]))], [cluster("a", [1])], wait=False, args=["--mode", "validate"])
    assert good.p.wait(10) == 0, good.text()


def test_backend_fixture_closes():
    b = Backend(web())
    b.close()
    with pytest.raises(OSError):
        connect(b.port)

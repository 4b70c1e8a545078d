# SPDX-License-Identifier: Apache-2.0
"""Routing under conditions that tests/parity does not make: clients that leave, chance, redirects and attempts that overlap."""

import socket
import threading

import pytest

import harness
from harness import ask, cluster, connect, eventually, hcm, listener, read_message


def holding(gate, seen, answers):
    """A backend that answers request n (from 0, over all connections) with answers[n], or waits for the gate where that is None."""
    lock = threading.Lock()

    def fn(c, backend):
        f = c.makefile("rb")
        while (m := read_message(f)) is not None:
            with lock:
                n = len(seen)
                seen.append(m)
            raw = answers[n] if n < len(answers) else b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
            if raw is None:
                gate.wait(20)
                return
            c.sendall(raw)
    return fn


def test_client_leaves_while_attempts_overlap(proxy, backend):
    gate, seen = threading.Event(), []
    b = backend(holding(gate, seen, [None] * 6))
    port = harness.free_port()
    policy = {"retry_on": "5xx", "num_retries": 2, "per_try_timeout": "0.1s", "retry_back_off": {"base_interval": "0.002s", "max_interval": "0.004s"}}
    p = proxy([listener(port, hcm([harness.route("b", timeout="0s", hedge_policy={"hedge_on_per_try_timeout": True}, retry_policy=policy)]))],
              [cluster("b", [b.port])])
    for k in (1, 2):
        with connect(port) as s:
            s.sendall(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            eventually(lambda k=k: len(seen) >= 3 * k, 15, "three attempts side by side")
        eventually(lambda: p.stat("cluster.b.upstream_rq_active") == 0, 15, "no request left behind")
    assert p.stat("cluster.b.upstream_rq_retry") == 4
    eventually(lambda: p.stat("cluster.b.circuit_breakers.default.rq_retry_open") in (0, None), 5)
    gate.set()
    assert ask(port).body == b"ok"


def test_first_of_overlapping_attempts_wins_and_the_other_is_given_up(proxy, backend):
    gate, seen = threading.Event(), []
    b = backend(holding(gate, seen, [None]))
    port = harness.free_port()
    policy = {"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.2s"}
    p = proxy([listener(port, hcm([harness.route("b", timeout="20s", hedge_policy={"hedge_on_per_try_timeout": True}, retry_policy=policy)]))],
              [cluster("b", [b.port])])
    assert ask(port, method="POST", body=b"data").body == b"ok"
    assert [m[2] for m in seen] == [b"data", b"data"]
    eventually(lambda: p.stat("cluster.b.upstream_rq_active") == 0 and p.stat("cluster.b.upstream_cx_active") == 1, 10)
    gate.set()


def test_client_leaves_while_a_redirect_is_followed(proxy, backend):
    gate, seen = threading.Event(), []
    moved = b"HTTP/1.1 302 X\r\nlocation: http://h/again\r\ncontent-length: 0\r\n\r\n"
    b = backend(holding(gate, seen, [moved, None, moved]))
    port = harness.free_port()
    p = proxy([listener(port, hcm([harness.route("b", internal_redirect_policy={"max_internal_redirects": 1})]))], [cluster("b", [b.port])])
    with connect(port) as s:
        s.sendall(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody")
        eventually(lambda: len(seen) == 2, 15, "the second request")
    eventually(lambda: p.stat("cluster.b.upstream_rq_active") == 0, 15, "no request left behind")
    gate.set()
    assert ask(port, method="POST", body=b"body").body == b"ok"
    assert [m[0].split()[1] for m in seen] == ["/", "/again", "/", "/again"]
    assert [m[2] for m in seen] == [b"body"] * 4


@pytest.mark.parametrize("location, target", [
    ("http://h/x/../secret", "/secret"), ("http://h/./x", "/x"), ("http://other:81/x", "/x"), ("http://h/../x", None), ("http://h/a%2Fb", None),
    ("http://h/x y", None), ("http://h/x HTTP/1.1", None), ("http://h\tx/x", None), ("http://h x/x", None), ("http://h:99999/x", None)])
def test_redirect_target_is_a_request_target(proxy, backend, location, target):
    """What an upstream says in Location is read and spelled as a client's target is, before policies see it and before it goes anywhere."""
    b = backend(harness.web("b", lambda first, headers, body: f"HTTP/1.1 302 X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()
                            if " /from " in first else None))
    port = harness.free_port()
    proxy([listener(port, hcm([harness.route("b", internal_redirect_policy={"max_internal_redirects": 1})], normalize_path=True,
                              path_with_escaped_slashes_action="REJECT_REQUEST"))], [cluster("b", [b.port])])
    a = ask(port, "/from")
    assert a.status == (200 if target else 302)
    assert [m[0].split()[1] for m in b.seen] == ["/from"] + ([target] if target else [])


def test_long_body_is_not_kept_and_a_reused_connection_is_safe(proxy, backend):
    """A body beyond the limit is sent once; POST is never sent twice on a connection closed under it, GET is."""
    closes = []

    def fn(c, _b):
        f = c.makefile("rb")
        while (m := read_message(f)) is not None:
            closes.append(m[0].split()[0])
            if len(closes) in (2, 4):
                c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return
            c.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    b = backend(fn)
    port = harness.free_port()
    proxy([listener(port, hcm([harness.route("b")]))], [cluster("b", [b.port])])
    assert ask(port).status == 200
    assert ask(port).status == 200                             # the second one met the reset and was sent again
    assert ask(port, method="POST", body=b"x").status == 503   # the fourth is not
    assert closes == ["GET", "GET", "GET", "POST"]


def test_shares_are_kept(proxy, backend):
    """2,000 requests each: 30/70 of weights and 20 % of a fraction, within seven standard deviations (a good proxy is outside once in 10^11 runs)."""
    backends = {n: backend(harness.web(n)) for n in "abc"}
    port = harness.free_port()
    routes = [harness.route("c", "/part", match={"runtime_fraction": {"default_value": {"numerator": 20}}}), harness.route("a", "/part"),
              {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": [{"name": "a", "weight": 30}, {"name": "b", "weight": 70}]}}}]
    proxy([listener(port, hcm(routes))], [cluster(n, [x.port]) for n, x in backends.items()])
    n = 2000

    def count(path):
        got = {}
        with connect(port, 20) as s:
            f = s.makefile("rb")
            for _ in range(n // 100):
                s.sendall(f"GET {path} HTTP/1.1\r\nhost: h\r\n\r\n".encode() * 100)
                for _ in range(100):
                    body = harness.read_answer(f).body.decode()
                    got[body] = got.get(body, 0) + 1
        return got
    for path, who, share in (("/w", "a", 0.3), ("/part", "c", 0.2)):
        got = count(path)
        assert sum(got.values()) == n
        assert abs(got[who] - n * share) < 7 * (n * share * (1 - share)) ** 0.5, got

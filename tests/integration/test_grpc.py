# SPDX-License-Identifier: Apache-2.0
"""gRPC through remora-proxy with grpcio on both sides: every kind of call, deadlines, answers made by the proxy, and the grpc-web bridge."""

import base64
import concurrent.futures
import struct
import threading
import time

import pytest

from harness import ROUTER, ask, cluster, eventually, free_port, hcm, http2_upstream, listener, mint, read_message, route, tls_files, web

grpc = pytest.importorskip("grpc")

H2_OPTIONS = http2_upstream()
GRPC_WEB = {"name": "envoy.filters.http.grpc_web",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"}}
WAIT = 20  # generous: a loaded machine is slow


class Servicer(grpc.GenericRpcHandler):
    """Messages are plain bytes."""

    def __init__(self):
        self.deadlines, self.cancelled, self.metadata = [], threading.Event(), []

    def service(self, details):
        def unary(request, context):
            self.deadlines.append(context.time_remaining())
            self.metadata = list(context.invocation_metadata())
            context.set_trailing_metadata((("x-trailer", "t"),))
            return b"got " + request

        def fail(request, context):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no way, " + request.decode())

        def slow(request, context):
            self.deadlines.append(context.time_remaining())
            context.add_callback(self.cancelled.set)
            self.cancelled.wait(WAIT)
            return b"late"

        def collect(requests, context):
            return b"+".join(requests)

        def many(request, context):
            for i in range(int(request)):
                yield b"%d" % i

        def chat(requests, context):
            for r in requests:
                yield b"re " + r
        return {"/t.T/Unary": grpc.unary_unary_rpc_method_handler(unary),
                "/t.T/Fail": grpc.unary_unary_rpc_method_handler(fail),
                "/t.T/Slow": grpc.unary_unary_rpc_method_handler(slow),
                "/t.T/Collect": grpc.stream_unary_rpc_method_handler(collect),
                "/t.T/Many": grpc.unary_stream_rpc_method_handler(many),
                "/t.T/Chat": grpc.stream_stream_rpc_method_handler(chat)}.get(details.method)


@pytest.fixture
def server():
    s = grpc.server(concurrent.futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    servicer = Servicer()
    s.add_generic_rpc_handlers((servicer,))
    servicer.port = s.add_insecure_port("127.0.0.1:0")
    s.start()
    yield servicer
    servicer.cancelled.set()
    s.stop(0).wait(WAIT)


@pytest.fixture
def channel():
    made = []

    def open_(port):
        made.append(grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]))
        return made[-1]
    yield open_
    for c in made:
        c.close()


def front(proxy, upstream_port, filters=(ROUTER,), **action):
    port = free_port()
    p = proxy([listener(port, hcm([route("a", **action)], http_filters=list(filters)))], [cluster("a", [upstream_port], **H2_OPTIONS)])
    return port, p


def all_kinds(c):
    assert c.unary_unary("/t.T/Unary")(b"x", timeout=WAIT) == b"got x"
    assert c.stream_unary("/t.T/Collect")(iter([b"a", b"b", b"c"]), timeout=WAIT) == b"a+b+c"
    assert list(c.unary_stream("/t.T/Many")(b"100", timeout=WAIT)) == [b"%d" % i for i in range(100)]
    sent = threading.Semaphore(1)  # a conversation: each word waits for the answer to the one before

    def words():
        for i in range(20):
            assert sent.acquire(timeout=WAIT)
            yield b"%d" % i
    for i, r in enumerate(c.stream_stream("/t.T/Chat")(words(), timeout=WAIT)):
        assert r == b"re %d" % i
        sent.release()
    big = b"x" * 3_000_000
    assert c.unary_unary("/t.T/Unary")(big, timeout=WAIT) == b"got " + big
    with pytest.raises(grpc.RpcError) as e:  # trailers-only
        c.unary_unary("/t.T/Fail")("a%ü".encode(), timeout=WAIT)
    assert e.value.code() == grpc.StatusCode.FAILED_PRECONDITION and e.value.details() == "no way, a%ü"
    with pytest.raises(grpc.RpcError) as e:
        c.unary_unary("/t.T/None")(b"", timeout=WAIT)
    assert e.value.code() == grpc.StatusCode.UNIMPLEMENTED
    _, call = c.unary_unary("/t.T/Unary").with_call(b"x", timeout=WAIT, metadata=(("x-bin-bin", b"\x00\x01"), ("x-a", "b")))
    assert ("x-trailer", "t") in call.trailing_metadata()


def test_every_kind(proxy, server, channel):
    port, _ = front(proxy, server.port)
    all_kinds(channel(port))
    assert ("x-bin-bin", b"\x00\x01") in server.metadata and ("x-a", "b") in server.metadata


def test_every_kind_through_a_pair(proxy, server, channel, tmp_path):
    """client → proxy → mutual TLS → proxy → server."""
    ca = tmp_path / "ca"
    down = tls_files(mint(ca, "server", "spiffe://cluster.local/ns/a/sa/server"))
    down["require_client_certificate"] = True
    down["common_tls_context"]["alpn_protocols"] = ["h2"]
    up = tls_files(mint(ca, "client", "spiffe://cluster.local/ns/a/sa/client"), ["spiffe://cluster.local/ns/a/sa/server"])
    up["common_tls_context"]["alpn_protocols"] = ["h2"]
    inbound, outbound = free_port(), free_port()
    proxy([listener(inbound, hcm([route("o")]), tls=down)], [cluster("o", [server.port], **H2_OPTIONS)])
    proxy([listener(outbound, hcm([route("i")]))], [cluster("i", [inbound], tls=up, **H2_OPTIONS)])
    all_kinds(channel(outbound))


def test_many_calls_at_a_time(proxy, server, channel):
    port, p = front(proxy, server.port)
    c = channel(port)
    calls = [c.unary_unary("/t.T/Unary").future(b"%d" % i, timeout=WAIT * 2) for i in range(500)]
    assert [x.result() for x in calls] == [b"got %d" % i for i in range(500)]
    assert p.stat("cluster.a.upstream_cx_total") <= 2


def failure(c, method="/t.T/Unary", timeout=WAIT):
    with pytest.raises(grpc.RpcError) as e:
        c.unary_unary(method)(b"x", timeout=timeout)
    return e.value


def test_answers_of_the_proxy(proxy, channel):
    """HTTP status → grpc-status, as Envoy maps; the text in grpc-message."""
    port = free_port()
    proxy([listener(port, hcm([
        {"match": {"prefix": f"/s{s}/"}, "direct_response": {"status": s, "body": {"inline_string": "why: 50% ü"}}}
        for s in (400, 401, 403, 404, 429, 502, 503, 504, 500, 418)] + [route("a", "/a/"), route("gone", "/g/")]))],
        [cluster("a", [free_port()], **H2_OPTIONS)])
    c = channel(port)
    code = grpc.StatusCode
    for status, want in ((400, code.INTERNAL), (401, code.UNAUTHENTICATED), (403, code.PERMISSION_DENIED), (404, code.UNIMPLEMENTED),
                         (429, code.UNAVAILABLE), (502, code.UNAVAILABLE), (503, code.UNAVAILABLE), (504, code.UNAVAILABLE),
                         (500, code.UNKNOWN), (418, code.UNKNOWN)):
        e = failure(c, f"/s{status}/x")
        assert e.code() == want and e.details() == "why: 50% ü", status
    assert failure(c, "/a/x").code() == code.UNAVAILABLE  # nobody listens
    assert failure(c, "/g/x").code() == code.UNAVAILABLE  # no such cluster
    assert failure(c, "/other").code() == code.UNIMPLEMENTED


def test_header_max_ends_the_call(proxy, server, channel):
    """max_stream_duration.grpc_timeout_header_max is below what the client asks for."""
    port, _ = front(proxy, server.port, timeout="0s", max_stream_duration={"grpc_timeout_header_max": "0.5s"})
    begun = time.monotonic()
    e = failure(channel(port), "/t.T/Slow")
    assert e.code() == grpc.StatusCode.DEADLINE_EXCEEDED  # of whoever is first: the server knows the limit, too
    assert time.monotonic() - begun < WAIT / 2
    assert server.cancelled.wait(WAIT)  # the server hears of it


def test_header_max_is_told(proxy, backend):
    status, message, seen = ask_silent(proxy, backend, "30S", timeout="0s", max_stream_duration={"max_stream_duration": "9s", "grpc_timeout_header_max": "0.5s"})
    assert (status, message) == ("4", "downstream duration timeout") and seen["grpc-timeout"] == "500m"


def ask_silent(proxy, backend, asked, **action):
    """A gRPC call over HTTP/1 to a server that never answers (a gRPC server would watch the deadline itself). (answer, what it got)."""
    def silent(c, b):
        b.seen.append(dict(read_message(c.makefile("rb"))[1]))
        c.recv(1)
    b = backend(silent)
    port = free_port()
    proxy([listener(port, hcm([route("a", **action)]))], [cluster("a", [b.port])])
    a = ask(port, "/t.T/Slow", "POST", {"Content-Type": "application/grpc", "TE": "trailers", "Grpc-Timeout": asked}, frame(b"x"))
    return a.headers["grpc-status"], a.headers["grpc-message"], b.seen[0]


def test_header_max_zero_takes_the_clients_time(proxy, backend):
    status, message, seen = ask_silent(proxy, backend, "300m", timeout="0s", max_stream_duration={"grpc_timeout_header_max": "0s"})
    assert (status, message) == ("4", "downstream duration timeout") and seen["grpc-timeout"] == "300m"


def test_without_header_max_the_header_means_nothing(proxy, backend):
    status, message, seen = ask_silent(proxy, backend, "1H", timeout="0.5s")
    assert (status, message) == ("14", "upstream request timeout") and seen["grpc-timeout"] == "1H"


@pytest.mark.parametrize("asked, limit, told", [("400m", "5s", "400m"), ("1H", "0.4s", "400m"), ("300001u", "0s", "301m"),
                                                ("bad", "0.4s", "400m")])
def test_max_grpc_timeout(proxy, backend, asked, limit, told):
    """As Istio sends it: the route's time-out does not count, the header does up to the limit, and the upstream hears the result."""
    status, message, seen = ask_silent(proxy, backend, asked, timeout="0.001s", max_grpc_timeout=limit)
    assert (status, message) == ("14", "upstream request timeout") and seen["grpc-timeout"] == told


def test_cancel_reaches_the_server(proxy, server, channel):
    port, p = front(proxy, server.port, timeout="0s")
    call = channel(port).unary_unary("/t.T/Slow").future(b"x")
    eventually(lambda: server.deadlines, WAIT, "the call at the server")
    call.cancel()
    assert server.cancelled.wait(WAIT)
    eventually(lambda: p.stat("cluster.a.upstream_rq_active") == 0, WAIT, "the end of the upstream request")


# --- grpc-web ---

def frame(message, flags=0):
    return struct.pack(">BI", flags, len(message)) + message


def frames(body):
    out = []
    while body:
        flags, n = struct.unpack(">BI", body[:5])
        assert len(body) >= 5 + n
        out.append((flags, body[5:5 + n]))
        body = body[5 + n:]
    return out


def unbase64(text):
    """base64 that is padded wherever a message ends."""
    out = b""
    for i in range(0, len(text), 4):
        out += base64.b64decode(text[i:i + 4], validate=True)
    return out


def web_ask(port, path, body, text=False, **headers):
    t = "application/grpc-web-text" if text else "application/grpc-web+proto"
    a = ask(port, path, "POST", {"Content-Type": t, "Accept": t, "X-Grpc-Web": "1", **headers}, base64.b64encode(body) if text else body)
    return a, (unbase64(a.body) if text else a.body)


@pytest.mark.parametrize("text", [False, True])
def test_grpc_web(proxy, server, text):
    port, _ = front(proxy, server.port, filters=(GRPC_WEB, ROUTER))
    for message in (b"", b"y", b"yz", b"z" * 1000, b"w" * 200_000):
        a, body = web_ask(port, "/t.T/Unary", frame(message), text)
        assert a.status == 200
        assert a.headers["content-type"] == ("application/grpc-web-text+proto" if text else "application/grpc-web+proto")
        (f0, answer), (f1, trailers) = frames(body)
        assert (f0, answer) == (0, b"got " + message)
        assert f1 == 0x80
        fields = dict(line.split(":", 1) for line in trailers.decode().split("\r\n") if line)
        assert fields["grpc-status"] == "0" and fields["x-trailer"] == "t"
    _, body = web_ask(port, "/t.T/Many", frame(b"50"), text)  # a server's stream
    got = frames(body)
    assert [m for f, m in got if f == 0] == [b"%d" % i for i in range(50)] and got[-1][0] == 0x80
    a, body = web_ask(port, "/t.T/Fail", frame(b"q"), text)  # an error, wherever its status is said
    status = a.headers.get("grpc-status") or dict(x.split(":", 1) for x in frames(body)[-1][1].decode().split("\r\n") if x)["grpc-status"]
    assert status == "9"


def test_grpc_web_refuses_what_is_not_base64(proxy, server):
    port, _ = front(proxy, server.port, filters=(GRPC_WEB, ROUTER))
    for bad in (b"AAA", b"A===", b"AA=A", b"????", b"AAAA\n"):
        a = ask(port, "/t.T/Unary", "POST", {"Content-Type": "application/grpc-web-text"}, bad)
        assert a.headers.get("grpc-status") == "13" or a.status == 400, bad
    assert web_ask(port, "/t.T/Unary", frame(b"x"), True)[0].status == 200


def test_grpc_web_leaves_others_alone(proxy, server, backend):
    port = free_port()
    proxy([listener(port, hcm([route("w", "/web"), route("a")], http_filters=[GRPC_WEB, ROUTER]))],
          [cluster("a", [server.port], **H2_OPTIONS), cluster("w", [backend(web("plain")).port])])
    assert ask(port, "/web").body == b"plain"
    a, _ = web_ask(port, "/web", frame(b"x"))  # an answer that is no gRPC
    assert a.status == 200 and a.body == b"plain" and "content-type" not in a.headers

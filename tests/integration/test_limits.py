# SPDX-License-Identifier: Apache-2.0
"""Rate limits with real traffic: what Istio's documentation has EnvoyFilters send, buckets that two workers share, a rate limit server that comes
and goes. What single requests and answers look like is compared with Envoy (tests/parity)."""

import concurrent.futures
import pathlib
import subprocess
import sys
import threading
import time

import pytest

import harness
from harness import ROUTER, ask, cluster, connect, eventually, hcm, http2_upstream, listener, route, tcp_proxy, web

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "parity"))
LOCAL = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
TYPED_STRUCT = "type.googleapis.com/udpa.type.v1.TypedStruct"
HOUR = "3600s"  # no token comes back while a test runs


def typed_struct(url, value):
    """How istiod sends what an EnvoyFilter has as `typed_config`."""
    return {"@type": TYPED_STRUCT, "type_url": url, "value": value}


def bucket(tokens, **more):
    return {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": HOUR, **more}


def local_limit(tokens, **more):
    """The filter of "Enabling Rate Limits using Envoy", local rate limit."""
    on = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {"stat_prefix": "http_local_rate_limiter", "token_bucket": {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": HOUR},
            "filter_enabled": {"runtime_key": "local_rate_limit_enabled", **on}, "filter_enforced": {"runtime_key": "local_rate_limit_enforced", **on},
            "response_headers_to_add": [{"append_action": "APPEND_IF_EXISTS_OR_ADD", "header": {"key": "x-local-rate-limit", "value": "true"}}], **more}


def local_filter(config):
    return {"name": "envoy.filters.http.local_ratelimit", "typed_config": config}


def statuses(port, n, path="/", **kw):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(port, path, **kw), range(n)))
    return answers, [a.status for a in answers]


def test_local_limit_of_istios_documentation(proxy, backend):
    port = harness.free_port()
    p = proxy([listener(port, hcm([route("b")], http_filters=[local_filter(typed_struct(LOCAL, local_limit(10))), ROUTER]))],
              [cluster("b", [backend(web()).port])], concurrency=2)
    answers, seen = statuses(port, 40)
    assert seen.count(200) == 10 and seen.count(429) == 30  # exactly, whichever worker a connection came to
    limited = next(a for a in answers if a.status == 429)
    assert limited.body == b"local_rate_limited" and limited.headers["x-local-rate-limit"] == "true"
    prefix = "http_local_rate_limiter.http_local_rate_limit."
    assert [p.stat(prefix + k) for k in ("enabled", "ok", "rate_limited", "enforced")] == [40, 10, 30, 30]


def sent_by_istiod():
    """The local_ratelimit filter of an inbound chain in what a real istiod sent (tests/golden/istiod), as JSON."""
    pytest.importorskip("google.protobuf", reason="python3-protobuf is not installed; run tools/install-deps test")
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
    manager = "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto"
    made = subprocess.run(["protoc", "-Iproto", "--include_imports", "-o", "/dev/stdout", "envoy/service/discovery/v3/discovery.proto",
                           "envoy/config/listener/v3/listener.proto", manager, "udpa/type/v1/typed_struct.proto"], cwd=harness.ROOT, capture_output=True, check=True)
    pool = descriptor_pool.DescriptorPool()
    for f in descriptor_pb2.FileDescriptorSet.FromString(made.stdout).file:
        pool.Add(f)

    def unpack(name, data):
        return message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName(name)).FromString(data)
    golden = harness.ROOT / "tests/golden/istiod/delta/reviews-v1/03-LDS.response.pb"
    for r in unpack("envoy.service.discovery.v3.DeltaDiscoveryResponse", golden.read_bytes()).resources:
        for chain in unpack("envoy.config.listener.v3.Listener", r.resource.value).filter_chains:
            for f in chain.filters:
                if f.typed_config.type_url.endswith(".HttpConnectionManager"):
                    hcm_sent = unpack("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", f.typed_config.value)
                    for h in hcm_sent.http_filters:
                        if h.name == "envoy.filters.http.local_ratelimit":
                            assert h.typed_config.type_url == TYPED_STRUCT
                            t = unpack("udpa.type.v1.TypedStruct", h.typed_config.value)
                            return typed_struct(t.type_url, json_format.MessageToDict(t.value))
    raise AssertionError("no such filter")


def test_what_istiod_sent_limits(proxy, backend):
    config = sent_by_istiod()
    assert config["value"]["token_bucket"] == {"max_tokens": 10, "tokens_per_fill": 10, "fill_interval": "60s"}
    port = harness.free_port()
    proxy([listener(port, hcm([route("b")], http_filters=[local_filter(config), ROUTER]))], [cluster("b", [backend(web()).port])], concurrency=2)
    began = time.monotonic()
    answers, seen = statuses(port, 60)
    assert 10 <= seen.count(200) <= 11 + (time.monotonic() - began) / 6
    if seen.count(200) < 60:  # a machine that took minutes for this has seen tokens come back
        assert next(a for a in answers if a.status == 429).headers["x-local-rate-limit"] == "true"


def test_local_limit_of_one_virtual_host(proxy, backend):
    """The documentation's second form: the filter does nothing by itself, a virtual host has a limit, and one path a smaller one."""
    port = harness.free_port()
    per_path = local_limit(20, descriptors=[{"entries": [{"key": "header_match", "value": "productpage"}], "token_bucket": bucket(3)}])
    limits = [{"actions": [{"header_value_match": {"descriptor_value": "productpage", "headers": [{"name": ":path", "string_match": {"prefix": "/product"}}]}}]}]
    hosts = [{"name": "limited", "domains": ["limited.test"], "rate_limits": limits, "routes": [route("b")],
              "typed_per_filter_config": {"envoy.filters.http.local_ratelimit": typed_struct(LOCAL, per_path)}},
             {"name": "free", "domains": ["*"], "routes": [route("b")]}]
    proxy([listener(port, hcm([], virtual_hosts=hosts, http_filters=[local_filter(typed_struct(LOCAL, {"stat_prefix": "x"})), ROUTER]))],
          [cluster("b", [backend(web()).port])], concurrency=2)
    assert statuses(port, 30)[1].count(200) == 30
    assert statuses(port, 10, "/productpage", host="limited.test")[1].count(200) == 3
    assert statuses(port, 30, host="limited.test")[1].count(200) == 17  # what /productpage took from all of them


def test_tokens_come_back(proxy, backend):
    port = harness.free_port()
    config = {"@type": LOCAL, **local_limit(1, token_bucket={"max_tokens": 1, "fill_interval": "2s"})}
    proxy([listener(port, hcm([route("b")], http_filters=[local_filter(config), ROUTER]))], [cluster("b", [backend(web()).port])])
    assert ask(port).status == 200
    eventually(lambda: ask(port).status == 200, 30, "a token")


def test_connections_over_the_limit_are_closed(proxy, backend, tmp_path):
    shared, alone = [harness.free_port(), harness.free_port()], harness.free_port()

    def limited(port, **more):
        f = {"name": "envoy.filters.network.local_ratelimit", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "net",
            "token_bucket": bucket(5), **more}}
        made = listener(port, tcp_proxy("b", access_log=[{"name": "f", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": str(log),
            "log_format": {"text_format_source": {"inline_string": "%RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS%\n"}}}}]))
        made["filter_chains"][0]["filters"].insert(0, f)
        return made
    log = tmp_path / "access.log"
    p = proxy([limited(shared[0], share_key="k"), limited(shared[1], share_key="k"), limited(alone)],
              [cluster("b", [backend(harness.echo).port])], concurrency=2)

    def passes(port):
        with connect(port) as s:
            try:
                s.sendall(b"hello")
                return s.recv(5) == b"hello"
            except ConnectionError:
                return False
    assert sum(passes(shared[i % 2]) for i in range(12)) == 5
    assert sum(passes(alone) for _ in range(8)) == 5
    assert p.stat("local_rate_limit.net.rate_limited") == 10
    eventually(lambda: log.read_text().splitlines().count("URX -") == 10, 20, "as many lines of the log")


def test_open_connections_over_the_limit_are_closed(proxy, backend):
    port = harness.free_port()
    f = {"name": "envoy.filters.network.connection_limit", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit", "stat_prefix": "open", "max_connections": 3}}
    made = listener(port, tcp_proxy("b"))
    made["filter_chains"][0]["filters"].insert(0, f)
    p = proxy([made], [cluster("b", [backend(harness.echo).port])], concurrency=2)

    def opened():
        s = connect(port, 20)
        try:
            s.sendall(b"hello")
            if s.recv(5) == b"hello":
                return s
        except ConnectionError:
            pass
        s.close()
        return None
    held = [opened() for _ in range(6)]
    assert [s is not None for s in held] == [True] * 3 + [False] * 3
    assert p.stat("connection_limit.open.limited_connections") == 3
    eventually(lambda: p.stat("connection_limit.open.active_connections") == 3, 10, "only those that are open")
    held[0].close()
    held[0] = eventually(opened, 20, "a place for another connection")
    for s in filter(None, held):
        s.close()
    eventually(lambda: p.stat("connection_limit.open.active_connections") == 0, 10, "nothing open")


# --- a server that keeps the limits ---

class Counting:
    """Lets `limit` requests of each descriptor pass, and holds what comes while `gate` is clear."""

    def __init__(self, limit, port=0):
        import grpc
        import limits
        self.limits, self.limit, self.seen = limits, limit, {}
        self.lock, self.gate, self.held = threading.Lock(), threading.Event(), threading.Event()
        self.gate.set()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        handler = grpc.unary_unary_rpc_method_handler(self._limit)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(limits.SERVICE, {limits.METHOD: handler}),))
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.server.start()

    def _limit(self, data, _context):
        m = self.limits.message("RateLimitRequest").FromString(data)
        if not self.gate.is_set():
            self.held.set()
            self.gate.wait(30)
        r = self.limits.message("RateLimitResponse")()
        r.overall_code = 1
        for d in m.descriptors:
            key = (m.domain,) + tuple((e.key, e.value) for e in d.entries)
            with self.lock:
                self.seen[key] = self.seen.get(key, 0) + 1
                if self.seen[key] > self.limit:
                    r.overall_code = 2
        return r.SerializeToString()

    def close(self):
        self.gate.set()
        self.server.stop(0).wait()


@pytest.fixture
def server():
    pytest.importorskip("grpc", reason="python3-grpcio is not installed; run tools/install-deps test")
    made = []

    def start(*a, **kw):
        made.append(Counting(*a, **kw))
        return made[-1]
    yield start
    for s in made:
        s.close()


def asking(proxy, backend, port, server_port, **more):
    """The filter and the route entries of the documentation's global rate limit."""
    config = {"domain": "ratelimit", "failure_mode_deny": True, "timeout": "10s", "rate_limit_service": {
        "grpc_service": {"envoy_grpc": {"cluster_name": "outbound|8081||ratelimit.default.svc.cluster.local", "authority": "ratelimit.default.svc.cluster.local"}},
        "transport_api_version": "V3"}, **more}
    f = {"name": "envoy.filters.http.ratelimit", "typed_config": typed_struct("type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit", config)}
    host = {"name": "inbound|http|9080", "domains": ["*"], "routes": [route("b")],
            "rate_limits": [{"actions": [{"request_headers": {"header_name": ":path", "descriptor_key": "PATH"}}]},
                            {"actions": [{"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}]}]}
    return proxy([listener(port, hcm([], virtual_hosts=[host], http_filters=[f, ROUTER]))],
                 [cluster("b", [backend(web()).port]), cluster("outbound|8081||ratelimit.default.svc.cluster.local", [server_port], **http2_upstream())],
                 concurrency=2)


def test_global_limit_of_istios_documentation(proxy, backend, server):
    s, port = server(5), harness.free_port()
    p = asking(proxy, backend, port, s.port)
    answers, seen = statuses(port, 20, "/productpage")
    assert seen.count(200) == 5 and seen.count(429) == 15
    assert next(a for a in answers if a.status == 429).headers["x-envoy-ratelimited"] == "true"
    assert statuses(port, 3, "/other")[1] == [200] * 3
    assert s.seen == {("ratelimit", ("PATH", "/productpage")): 20, ("ratelimit", ("PATH", "/other")): 3}
    assert [p.stat(f"cluster.b.ratelimit.{k}") for k in ("ok", "over_limit", "error")] == [8, 15, 0]


def test_bytes_that_are_no_text_do_not_make_a_question_unreadable(proxy, backend, server):
    """The server would refuse the message, and where a failure lets pass, such a client would have no limit."""
    s, port = server(1), harness.free_port()
    asking(proxy, backend, port, s.port, failure_mode_deny=False)
    seen = [harness.send_raw(port, b"GET /%d HTTP/1.1\r\nhost: h\r\nx-user: a\xffb\r\nconnection: close\r\n\r\n" % i, 20)[0].split(b" ")[1] for i in range(3)]
    assert seen == [b"200", b"429", b"429"]
    assert s.seen[("ratelimit", ("user", "a!b"))] == 3


def test_server_goes_and_comes_back(proxy, backend, server):
    s, port = server(1000, port=harness.free_port()), harness.free_port()  # below the ephemeral ports: nobody takes it meanwhile
    p = asking(proxy, backend, port, s.port)
    assert ask(port).status == 200
    s.close()
    eventually(lambda: ask(port).status == 500, 20, "refusal without a server")
    again = server(1000, port=s.port)
    eventually(lambda: ask(port).status == 200, 30, "the server's return")
    assert again.seen and p.stat("cluster.b.ratelimit.error") >= 1


def test_client_leaves_while_the_server_thinks(proxy, backend, server):
    s, port = server(1000), harness.free_port()
    p = asking(proxy, backend, port, s.port)
    s.gate.clear()
    with connect(port) as c:
        c.sendall(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        assert s.held.wait(20)
    eventually(lambda: p.stat("cluster.outbound|8081||ratelimit.default.svc.cluster.local.upstream_rq_active") == 0, 15, "no question left behind")
    assert p.stat("cluster.b.upstream_rq_total") in (0, None)
    s.gate.set()
    assert ask(port).status == 200


def test_proxy_ends_while_the_server_thinks(proxy, backend, server):
    s, port = server(1000), harness.free_port()
    p = asking(proxy, backend, port, s.port)
    s.gate.clear()
    with connect(port) as c:
        c.sendall(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        assert s.held.wait(20)
        p.stop()  # checks that it ended well

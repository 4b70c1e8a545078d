# SPDX-License-Identifier: Apache-2.0
"""Clusters from outside: health checks, subsets, ejection, dropping, connections of endpoints that leave."""

import json
import socket
import ssl
import threading
import time

import harness
import pytest
from harness import (Backend, Proxy, address, ask, cluster, connect, free_port, hcm, listener, mint, read_answer, route, tcp_proxy, tls_files,
                     web)


def wait_for(what, probe):
    return harness.wait_for(what, probe, 20)


def one_listener(port, routes, **more):
    return [listener(port, hcm(routes, **more))]


def names(port, n, path="/", headers=None):
    """How often each backend answered n requests; None: 503."""
    seen = {}
    for _ in range(n):
        a = ask(port, path, headers=headers)
        name = a.body.decode() if a.status == 200 else None
        seen[name] = seen.get(name, 0) + 1
    return seen


def health_flags(proxy):
    """Endpoint port → health flags, of /clusters."""
    flags = {}
    for line in proxy.get("/clusters").splitlines():
        parts = line.split("::")
        if len(parts) > 3 and parts[2] == "health_flags":
            flags[int(parts[1].rpartition(":")[2])] = parts[3]
    return flags


def hang_up(connection):
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class Checked:
    """A backend whose /health answers what `status` says."""

    def __init__(self, name, status=200):
        self.status, self.name, self.checks = status, name, []
        self.backend = Backend(web(name, self.answer))
        self.port = self.backend.port

    def answer(self, first, headers, body):
        if "/health" not in first:
            return None
        self.checks.append((first, dict(headers)))
        return f"HTTP/1.1 {self.status} X\r\nContent-Length: 2\r\n\r\nok".encode()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.backend.close()


def check(**kind):
    return {"timeout": "15s", "interval": "0.1s", "no_traffic_interval": "0.1s", "unhealthy_threshold": 2, "healthy_threshold": 2, **kind}


def test_http_health_checks_take_hosts_out_and_in(tmp_path):
    port = free_port()
    with Checked("a") as a, Checked("b", 503) as b:
        c = cluster("c", [a.port, b.port], common_lb_config={"healthy_panic_threshold": {"value": 0}}, health_checks=[check(http_health_check={
            "path": "/health?x=1", "host": "probe.example", "request_headers_to_add": [{"header": {"key": "x-probe", "value": "yes"}}]})])
        with Proxy(tmp_path, one_listener(port, [route("c")]), [c]) as p:
            # The first round is over before the proxy is ready.
            assert health_flags(p) == {a.port: "healthy", b.port: "/failed_active_hc"}
            assert names(port, 10) == {"a": 10}
            first, headers = a.checks[0]
            assert first == "GET /health?x=1 HTTP/1.1" and headers["host"] == "probe.example" and headers["x-probe"] == "yes"
            assert headers["user-agent"] == "Envoy/HC"
            b.status = 200
            wait_for("b to come back", lambda: health_flags(p)[b.port] == "healthy")
            assert set(names(port, 10)) == {"a", "b"}
            a.status = 500
            wait_for("a to go", lambda: health_flags(p)[a.port] == "/failed_active_hc")
            assert names(port, 10) == {"b": 10}
            a.backend.close()
            for connection in a.backend.open:
                hang_up(connection)
            b.status = 404
            wait_for("b to go", lambda: health_flags(p)[b.port] == "/failed_active_hc")
            assert names(port, 3) == {None: 3}
            wait_for("checks without an answer", lambda: p.stat("cluster.c.health_check.network_failure") > 0)
            assert p.stat("cluster.c.health_check.healthy") == 0
            assert p.stat("cluster.c.health_check.attempt") >= p.stat("cluster.c.health_check.success") > 0
            hosts = json.loads(p.get("/clusters?format=json"))["cluster_statuses"][0]["host_statuses"]
            assert all(h["health_status"]["failed_active_health_check"] for h in hosts)


def test_health_checks_reuse_their_connection(tmp_path):
    for reuse in (True, False):
        with Checked("a") as a:
            c = cluster("c", [a.port], health_checks=[check(http_health_check={"path": "/health"}, reuse_connection=reuse)])
            with Proxy(tmp_path / str(reuse), one_listener(free_port(), [route("c")]), [c]):
                wait_for("five checks", lambda: len(a.checks) >= 5)
                assert (a.backend.connections == 1) == reuse


def test_expected_and_retriable_statuses(tmp_path):
    port = free_port()
    with Checked("a", 299) as a:
        http = {"path": "/health", "expected_statuses": [{"start": 290, "end": 300}], "retriable_statuses": [{"start": 500, "end": 600}]}
        c = cluster("c", [a.port], common_lb_config={"healthy_panic_threshold": {"value": 0}}, health_checks=[check(http_health_check=http)])
        with Proxy(tmp_path, one_listener(port, [route("c")]), [c]) as p:
            assert health_flags(p)[a.port] == "healthy"
            failures = p.stat("cluster.c.health_check.failure")
            a.status = 503
            wait_for("a to go", lambda: health_flags(p)[a.port] == "/failed_active_hc")
            assert p.stat("cluster.c.health_check.failure") >= failures + 2  # not at once


def test_tcp_health_checks(tmp_path):
    state = {"greeting": b"+PO"}

    def redis(c, backend):
        while c.recv(64):
            c.sendall(state["greeting"])
            c.sendall(b"NG\r\n")
    with Backend(redis) as b:
        tcp = {"send": {"text": b"PING\r\n".hex()}, "receive": [{"text": b"+PONG".hex()}]}
        c = cluster("c", [b.port], health_checks=[check(tcp_health_check=tcp, timeout="0.3s")])
        with Proxy(tmp_path, one_listener(free_port(), [route("c")]), [c]) as p:
            wait_for("the right answer to count", lambda: health_flags(p)[b.port] == "healthy")
            state["greeting"] = b"-LO"
            wait_for("the wrong answer to count", lambda: health_flags(p)[b.port] == "/failed_active_hc")
            state["greeting"] = b"+PO"
            wait_for("the right answer to count", lambda: health_flags(p)[b.port] == "healthy")


def test_tcp_health_check_that_only_connects(tmp_path):
    with Backend(web("a")) as b:
        c = cluster("c", [b.port, free_port()], health_checks=[check(tcp_health_check={})])
        with Proxy(tmp_path, one_listener(free_port(), [route("c")]), [c]) as p:
            assert sorted(health_flags(p).values()) == ["/failed_active_hc", "healthy"]


def grpc_health(state):
    """A gRPC server that answers Check with state["serving"]."""
    import h2.config
    import h2.connection
    import h2.events

    def fn(c, backend):
        conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        conn.initiate_connection()
        c.sendall(conn.data_to_send())
        while True:
            data = c.recv(65536)
            if not data:
                return
            for e in conn.receive_data(data):
                if isinstance(e, h2.events.RequestReceived):
                    backend.seen.append(dict(e.headers))
                if isinstance(e, h2.events.DataReceived):
                    state["request"] = e.data
                if isinstance(e, h2.events.StreamEnded):
                    conn.send_headers(e.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
                    conn.send_data(e.stream_id, b"\0\0\0\0\2\x08" + bytes([state["serving"]]))
                    conn.send_headers(e.stream_id, [("grpc-status", "0")], end_stream=True)
            c.sendall(conn.data_to_send())
    return fn


def test_grpc_health_checks(tmp_path):
    pytest.importorskip("h2")
    state = {"serving": 1}
    with Backend(grpc_health(state)) as b:
        c = cluster("c", [b.port], health_checks=[check(grpc_health_check={"service_name": "shop.Cart", "authority": "cart"})])
        with Proxy(tmp_path, one_listener(free_port(), [route("c")]), [c]) as p:
            assert health_flags(p)[b.port] == "healthy"
            head = {(k if isinstance(k, str) else k.decode()): (v if isinstance(v, str) else v.decode()) for k, v in b.seen[0].items()}
            assert head[":path"] == "/grpc.health.v1.Health/Check" and head[":authority"] == "cart"
            assert state["request"] == b"\0\0\0\0\x0b\x0a\x09shop.Cart"
            state["serving"] = 2  # NOT_SERVING
            wait_for("NOT_SERVING to count", lambda: health_flags(p)[b.port] == "/failed_active_hc")


def lb(port, **metadata):
    return {"endpoint": {"address": address(port)}, "metadata": {"filter_metadata": {"envoy.lb": metadata}}}


def subset_cluster(ports, fallback, **more):
    v = [lb(ports[0], version="1", stage="prod"), lb(ports[1], version="2", stage="prod"), lb(ports[2], version="2", stage="dev")]
    return {"name": "c", "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": v}]},
            "lb_subset_config": {"fallback_policy": fallback, "subset_selectors": [{"keys": ["stage", "version"]}, {"keys": ["version"]}], **more}}


def wanting(prefix, **criteria):
    return route("c", prefix=prefix, metadata_match={"filter_metadata": {"envoy.lb": criteria}})


def test_subsets_by_route(tmp_path):
    port = free_port()
    with Backend(web("a")) as a, Backend(web("b")) as b, Backend(web("c")) as c:
        ports = [a.port, b.port, c.port]
        routes = [wanting("/one", version="1"), wanting("/two-dev", version="2", stage="dev"), wanting("/two", version="2"),
                  wanting("/three", version="3"), wanting("/stage", stage="dev"),
                  {"match": {"prefix": "/weighted"}, "route": {
                      "metadata_match": {"filter_metadata": {"envoy.lb": {"version": "2"}}},
                      "weighted_clusters": {"clusters": [{"name": "c", "weight": 1, "metadata_match": {
                          "filter_metadata": {"envoy.lb": {"stage": "dev"}}}}]}}},
                  route("c")]
        for fallback, more, rest in (("NO_FALLBACK", {}, {None}), ("ANY_ENDPOINT", {}, {"a", "b", "c"}),
                                     ("DEFAULT_SUBSET", {"default_subset": {"version": "1"}}, {"a"})):
            with Proxy(tmp_path / fallback, one_listener(port, routes), [subset_cluster(ports, fallback, **more)]) as p:
                assert names(port, 6, "/one") == {"a": 6}
                assert names(port, 6, "/two") == {"b": 3, "c": 3}
                assert names(port, 6, "/two-dev") == {"c": 6}
                assert names(port, 6, "/weighted") == {"c": 6}
                for path in ("/three", "/stage", "/"):  # no such host; no such selector; nothing asked
                    assert set(names(port, 6, path)) == rest, path
                assert p.stat("cluster.c.lb_subsets_selected") == 24


def test_drop_overload(tmp_path):
    port = free_port()
    with Backend(web("a")) as a:
        c = cluster("c", [a.port])
        c["load_assignment"]["policy"] = {"drop_overloads": [{"category": "throttle", "drop_percentage": {"numerator": 999999, "denominator": "MILLION"}}]}
        with Proxy(tmp_path, one_listener(port, [route("c")]), [c]) as p:
            answer = ask(port)
            assert (answer.status, answer.body, answer.headers["x-envoy-drop-overload"]) == (503, b"drop overload", "true")
            assert p.stat("cluster.c.upstream_rq_drop_overload") == 1
            assert not a.seen


def test_outliers_are_ejected_and_come_back(tmp_path):
    port = free_port()
    state = {"status": 500}

    def sick(first, headers, body):
        return f"HTTP/1.1 {state['status']} X\r\nContent-Length: 4\r\n\r\nsick".encode()
    with Backend(web("a")) as a, Backend(web("b", sick)) as b:
        c = cluster("c", [a.port, b.port], outlier_detection={"consecutive_5xx": 3, "interval": "0.2s", "base_ejection_time": "0.2s",
                                                              "max_ejection_percent": 50, "enforcing_success_rate": 0})
        with Proxy(tmp_path, one_listener(port, [route("c")]), [c]) as p:
            wait_for("b to be ejected", lambda: (ask(port), p.stat("cluster.c.outlier_detection.ejections_enforced_consecutive_5xx"))[1])
            state["status"] = 200
            wait_for("b to come back", lambda: ask(port).body == b"sick")
            wait_for("nobody to be out", lambda: p.stat("cluster.c.outlier_detection.ejections_active") == 0)
            assert p.stat("cluster.c.outlier_detection.ejections_enforced_total") >= 1


def test_refused_connections_are_avoided(tmp_path):
    """A host where nobody listens costs few attempts, not its share."""
    port = free_port()
    with Backend(web("a")) as a, Backend(web("b")) as b:
        c = cluster("c", [a.port, b.port, free_port()])
        with Proxy(tmp_path, one_listener(port, [route("c", retry_policy={"retry_on": "connect-failure", "num_retries": 2})]), [c]) as p:
            began = time.monotonic()
            assert set(names(port, 150)) <= {"a", "b"}
            # Six to come to a try a second; without it there would be 50.
            assert p.stat("cluster.c.upstream_cx_connect_fail") <= 10 + (time.monotonic() - began)


def test_retry_budget(tmp_path):
    port = free_port()

    def broken(first, headers, body):
        return b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"
    with Backend(web("a", broken)) as a:
        c = cluster("c", [a.port], circuit_breakers={"thresholds": [{"retry_budget": {
            "budget_percent": {"value": 10}, "min_retry_concurrency": 5, "budget_interval": "3600s"}}]})
        with Proxy(tmp_path, one_listener(port, [route("c", retry_policy={"retry_on": "5xx", "num_retries": 1, "retry_back_off": {
                "base_interval": "0.001s"}})]), [c], concurrency=2) as p:
            for _ in range(100):
                assert ask(port).status == 503
            assert 8 <= p.stat("cluster.c.upstream_rq_retry") <= 10
            assert p.stat("cluster.c.upstream_rq_retry_overflow") >= 90
            assert len(a.seen) == 100 + p.stat("cluster.c.upstream_rq_retry")


def test_circuit_breaker_gauges(tmp_path):
    port = free_port()
    hold = threading.Event()

    def slow(first, headers, body):
        if "/slow" in first:
            hold.wait(20)
        return None
    with Backend(web("a", slow)) as a:
        c = cluster("c", [a.port], circuit_breakers={"thresholds": [
            {"max_connections": 1, "max_pending_requests": 1, "max_requests": 5, "track_remaining": True},
            {"priority": "HIGH", "max_requests": 7, "track_remaining": True}]})
        with Proxy(tmp_path, one_listener(port, [route("c")]), [c]) as p:
            gauge = lambda name: p.stat("cluster.c.circuit_breakers." + name)  # noqa: E731
            ask(port)
            assert (gauge("default.cx_open"), gauge("default.remaining_cx")) == (1, 0)
            assert (gauge("default.rq_open"), gauge("default.remaining_rq"), gauge("high.remaining_rq")) == (0, 5, 7)
            with connect(port) as one, connect(port) as two:
                for s in (one, two):
                    s.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
                wait_for("one to wait for the connection", lambda: gauge("default.rq_pending_open") == 1)
                assert (gauge("default.remaining_pending"), gauge("default.remaining_rq")) == (0, 3)
                assert ask(port).status == 503
                hold.set()
                for s in (one, two):
                    assert read_answer(s.makefile("rb")).status == 200
            assert gauge("default.rq_pending_open") == 0
            assert p.stat("cluster.c.membership_total") == p.stat("cluster.c.membership_healthy") == 1


def test_connections_of_failed_hosts_are_closed(tmp_path):
    port, web_port = free_port(), free_port()

    def either(c, backend):
        f = c.makefile("rb")
        while True:
            line = f.readline()
            if not line:
                return
            if line.startswith(b"GET"):  # a health check, or a request
                while f.readline() not in (b"\r\n", b""):
                    pass
                status = backend.status if b"/health" in line else 200
                c.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
            else:
                c.sendall(line)
    with Backend(either) as b:
        b.status = 200
        c = cluster("c", [b.port], close_connections_on_host_health_failure=True, health_checks=[check(http_health_check={"path": "/health"})])
        with Proxy(tmp_path, [listener(port, tcp_proxy("c")), listener(web_port, hcm([route("c")]))], [c]) as p:
            assert ask(web_port).status == 200
            with connect(port, 20) as s:
                s.sendall(b"hello\n")
                assert s.recv(64) == b"hello\n"
                before = p.stat("cluster.c.upstream_cx_active")
                assert before == 2
                b.status = 503
                assert s.recv(64) == b""
            wait_for("both connections to end", lambda: p.stat("cluster.c.upstream_cx_active") == 0)


class Dns(threading.Thread):
    """Answers A and AAAA questions from `names`: name → (list of addresses, TTL)."""

    def __init__(self, names):
        super().__init__(daemon=True)
        self.names, self.asked = names, 0
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                q, peer = self.sock.recvfrom(4096)
            except OSError:
                return
            self.asked += 1
            labels, at = [], 12
            while q[at]:
                labels.append(q[at + 1:at + 1 + q[at]].decode())
                at += 1 + q[at]
            kind = int.from_bytes(q[at + 1:at + 3], "big")
            found, ttl = self.names.get(".".join(labels).lower(), (None, 0))
            records = b""
            for a in found or []:
                v6 = ":" in a
                if v6 == (kind == 28):
                    raw = socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, a)
                    records += b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\1" + ttl.to_bytes(4, "big") + len(raw).to_bytes(2, "big") + raw
            count = sum((":" in a) == (kind == 28) for a in found or [])
            head = q[:2] + (b"\x81\x80" if found is not None else b"\x81\x83") + b"\0\1" + count.to_bytes(2, "big") + b"\0\0\0\0"
            self.sock.sendto(head + q[12:at + 5] + records, peer)


def dns_cluster(kind, port, dns, **more):
    cares = {"@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "resolvers": [address(dns.port)]}
    return {"name": "c", "type": kind, "connect_timeout": "2s", "dns_refresh_rate": "0.2s",
            "typed_dns_resolver_config": {"name": "envoy.network.dns_resolver.cares", "typed_config": cares},
            "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port, "shop.test")}}]}]}, **more}


def test_strict_dns_follows_its_name(tmp_path):
    port = free_port()
    dns = Dns({"shop.test": (["127.0.0.1"], 1)})
    with Backend(web("a")) as a:
        with Proxy(tmp_path, one_listener(port, [route("c")]), [dns_cluster("STRICT_DNS", a.port, dns, dns_lookup_family="V4_ONLY")]) as p:
            assert ask(port).body == b"a"
            dns.names["shop.test"] = (["127.0.0.1", "127.0.0.2"], 1)
            wait_for("both addresses", lambda: p.stat("cluster.c.membership_total") == 2)
            dns.names["shop.test"] = (["127.0.0.2"], 1)
            wait_for("the other address", lambda: "127.0.0.1:" not in p.get("/clusters"))
            dns.names["shop.test"] = (None, 1)
            wait_for("no address", lambda: p.stat("cluster.c.membership_total") == 0)
            assert ask(port).status == 503
            assert p.stat("cluster.c.update_success") >= 3 and p.stat("cluster.c.update_empty") >= 1


def test_logical_dns_tries_all_addresses(tmp_path):
    """Nobody listens on ::1: the first address is refused, the second one serves."""
    port = free_port()
    dns = Dns({"shop.test": (["127.0.0.1", "::1"], 1)})
    with Backend(web("a")) as a:
        c = dns_cluster("LOGICAL_DNS", a.port, dns, dns_lookup_family="ALL",
                        upstream_connection_options={"happy_eyeballs_config": {"first_address_family_version": "V6"}})
        with Proxy(tmp_path, one_listener(port, [route("c")]), [c]) as p:
            for _ in range(5):
                assert ask(port).body == b"a"
            assert p.stat("cluster.c.membership_total") == 1
            assert p.stat("cluster.c.upstream_cx_connect_fail") == 0


def test_additional_addresses(tmp_path):
    port = free_port()
    with Backend(web("a")) as a:
        c = cluster("c", [free_port()])
        c["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["additional_addresses"] = [{"address": address(a.port)}]
        with Proxy(tmp_path, one_listener(port, [route("c")]), [c]):
            assert ask(port).body == b"a"


def test_health_checks_over_tls(tmp_path):
    """Checks use the cluster's transport: the right name in the certificate is healthy, a wrong one is not."""
    client, server = "spiffe://t/ns/a/sa/client", "spiffe://t/ns/a/sa/server"
    mint(tmp_path, "client", client)
    folder = mint(tmp_path, "server", server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert-chain.pem", folder / "key.pem")
    context.load_verify_locations(folder / "root-cert.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    for name, flag in ((server, "healthy"), (client, "/failed_active_hc")):
        with Backend(web("a"), tls=context) as b:
            c = cluster("c", [b.port], tls=tls_files(tmp_path / "client", [name]), health_checks=[check(http_health_check={"path": "/health"})])
            with Proxy(tmp_path / flag.strip("/"), one_listener(free_port(), [route("c")]), [c]) as p:
                assert health_flags(p)[b.port] == flag

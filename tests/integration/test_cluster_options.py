# SPDX-License-Identifier: Apache-2.0
"""Options of clusters and routes that change what upstreams see, or what is counted."""

import ssl
import subprocess
import threading

from harness import ROOT, Backend, Proxy, ask, cluster, free_port, hcm, listener, route, wait_for, web

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def tls_server(folder, names):
    """A TLS server context whose certificate has these DNS and IP names; .heard collects the server names that clients ask for."""
    subprocess.run([ROOT / "tools/mint-certs", "-o", "server", str(folder), "-", *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server/cert-chain.pem", folder / "server/key.pem")
    heard = []
    context.sni_callback = lambda sock, name, ctx: heard.append(name)
    return context, heard


def names_cluster(folder, port, sni=None, **options):
    tls = {"common_tls_context": {"validation_context": {"trusted_ca": {"filename": f"{folder}/root-cert.pem"}}}}
    if sni:
        tls["sni"] = sni
    return cluster("c", [port], tls=tls, typed_extension_protocol_options={OPTIONS: {
        "@type": f"type.googleapis.com/{OPTIONS}", "upstream_http_protocol_options": options, "explicit_http_config": {"http_protocol_options": {}}}})


def test_server_name_and_certificate_follow_the_host(tmp_path):
    """auto_sni asks for the request's host, auto_san_validation wants a certificate of that name: what istiod says for TLS without names."""
    port = free_port()
    context, heard = tls_server(tmp_path, ["one.test", "*.wild.test", "127.0.0.1"])
    with Backend(web("a"), tls=context) as b:
        c = names_cluster(tmp_path, b.port, auto_sni=True, auto_san_validation=True)
        rewritten = route("c", "/rewritten", host_rewrite_literal="sub.wild.test:443")
        with Proxy(tmp_path / "p", [listener(port, hcm([rewritten, route("c")]))], [c]) as p:
            assert ask(port, host="one.test:8080").status == 200
            assert ask(port, host="one.test").status == 200
            assert ask(port, host="ONE.test").status == 200
            refused = ask(port, host="other.test")
            assert refused.status == 503 and p.stat("cluster.c.ssl.fail_verify_san") == 1
            assert ask(port, "/rewritten", host="other.test").status == 200
            assert ask(port, host="127.0.0.1").status == 200
            assert ask(port, host="[::1]:80").status == 503
            assert heard == ["one.test", "ONE.test", "other.test", "sub.wild.test", None, None]
            # Connections are used again, but only for the same name.
            n = b.connections
            assert ask(port, host="one.test").status == 200 and ask(port, host="other.test").status == 503
            assert b.connections == n + 1


def test_server_name_from_a_field(tmp_path):
    """override_auto_sni_header, and the name of the TLS context where the request gives none that can be asked for."""
    port = free_port()
    context, heard = tls_server(tmp_path, ["one.test"])
    with Backend(web("a"), tls=context) as b:
        c = names_cluster(tmp_path, b.port, sni="fixed.test", auto_sni=True, override_auto_sni_header="x-name")
        with Proxy(tmp_path / "p", [listener(port, hcm([route("c")]))], [c]):
            assert ask(port, host="h.test", headers={"X-Name": "field.test:1"}).status == 200
            assert ask(port, host="h.test").status == 200
            assert ask(port, host="10.0.0.1").status == 200
            assert heard == ["field.test", "h.test", "fixed.test"]


def test_requests_counted_by_virtual_cluster_and_route(tmp_path):
    """virtual_clusters and Route.stat_prefix, with the figures that Envoy 1.40 gave for the same requests."""
    port = free_port()
    answers = {"/x/1": [503, 200], "/x/2": [503, 503]}

    def answer(first, _headers, _body):
        status = (answers.get(first.split()[1]) or [200]).pop(0)
        return f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode()
    with Backend(web("a", answer)) as b:
        vhost = {"name": "v.h", "domains": ["*"], "virtual_clusters": [
            {"name": "gets", "headers": [{"name": ":method", "string_match": {"exact": "GET"}}, {"name": ":path", "string_match": {"prefix": "/x"}}]},
            {"name": "never", "headers": [{"name": "x-n", "present_match": True}]}],
            "routes": [{**route("a", "/x", retry_policy={"retry_on": "5xx", "num_retries": 1}), "stat_prefix": "p1"},
                       {**route("dead", "/dead"), "stat_prefix": "dead"},
                       {"match": {"prefix": "/d"}, "stat_prefix": "direct", "direct_response": {"status": 403}}]}
        config = hcm([], virtual_hosts=[vhost])
        clusters = [cluster("a", [b.port]), cluster("dead", [free_port()])]
        with Proxy(tmp_path, [listener(port, config)], clusters) as p:
            statuses = [ask(port, path, method).status for method, path in (("GET", "/x/0"), ("GET", "/x/1"), ("GET", "/x/2"), ("POST", "/x/0"),
                                                                            ("GET", "/dead"), ("GET", "/direct"))]
            assert statuses == [200, 200, 503, 200, 503, 403]
            want = {"vhost.v.h.route.p1.": {"total": 6, "completed": 4, "200": 3, "503": 1, "2xx": 3, "5xx": 1, "retry": 2, "retry_success": 1,
                                            "retry_limit_exceeded": 1},
                    "vhost.v.h.route.dead.": {"total": 0, "completed": 1, "503": 1},
                    "vhost.v.h.vcluster.gets.": {"total": 5, "completed": 3, "200": 2, "503": 1, "retry": 2},
                    "vhost.v.h.vcluster.other.": {"total": 1, "completed": 2, "200": 1, "503": 1},
                    "cluster.a.": {"200": 3, "503": 3, "5xx": 3}}
            got = {prefix: {k: p.stat(f"{prefix}upstream_rq_{k}") for k in v} for prefix, v in want.items()}
            assert got == want
            text = p.get("/stats/prometheus")
            assert 'envoy_vhost_vcluster_upstream_rq{envoy_response_code="503",envoy_virtual_host="v.h",envoy_virtual_cluster="gets"} 1\n' in text
            assert 'envoy_vhost_route_upstream_rq_total{envoy_virtual_host="v.h",envoy_route="p1"} 6\n' in text
            assert "route.direct" not in p.get("/stats")


def test_grpc_answers_are_counted_by_status(tmp_path):
    """In trailers or where there is nothing but a head: cluster.NAME.grpc.*, which `remoractl rollout` reads."""
    port = free_port()
    answers = [b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 14\r\ncontent-length: 0\r\n\r\n",
               b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\ngrpc-status: 0\r\n\r\n",
               b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\ngrpc-status: 77\r\n\r\n",
               b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]
    with Backend(web("a", lambda *_: answers.pop(0))) as b:
        with Proxy(tmp_path, [listener(port, hcm([route("c")]))], [cluster("c", [b.port])]) as p:
            for _ in range(4):
                assert ask(port, "/s/m", "POST", {"content-type": "application/grpc", "TE": "trailers"}, b"").status == 200
            assert {k: p.stat(f"cluster.c.grpc.{k}") for k in ("success", "failure", "total", "0", "14", "2")} == {
                "success": 1, "failure": 2, "total": 3, "0": 1, "14": 1, "2": 0}
            assert p.get("/stats?filter=upstream_rq_(completed%7C5xx)%7Cgrpc.[0-9]").count("cluster.c.grpc.14: 1\n") == 1


def test_limit_of_connections_to_one_host(tmp_path):
    """per_host_thresholds: a host gets no more connections than that, however many requests wait."""
    port, gate = free_port(), threading.Event()

    def answer(*_):
        gate.wait(20)
        return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    with Backend(web("a", answer)) as b:
        c = cluster("c", [b.port], circuit_breakers={"per_host_thresholds": [{"max_connections": 2}]})
        with Proxy(tmp_path, [listener(port, hcm([route("c")]))], [c]) as p:
            got = []
            threads = [threading.Thread(target=lambda: got.append(ask(port).status)) for _ in range(5)]
            for t in threads:
                t.start()
            wait_for("all requests to wait", lambda: p.stat("cluster.c.upstream_rq_pending_active") == 3 and b.connections == 2, 20)
            assert p.stat("cluster.c.upstream_cx_overflow") > 0
            gate.set()
            for t in threads:
                t.join(20)
            assert got == [200] * 5 and b.connections == 2


def test_retries_leave_canaries_out(tmp_path):
    """omit_canary_hosts: what failed once is tried again where no canary is."""
    port, bad = free_port(), b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"
    with Backend(web("x", lambda *_: bad)) as x, Backend(web("y", lambda *_: bad)) as y, Backend(web("z")) as z:
        c = cluster("c", [x.port, y.port, z.port])
        for e in c["load_assignment"]["endpoints"][0]["lb_endpoints"][:2]:
            e["metadata"] = {"filter_metadata": {"envoy.lb": {"canary": True}}}
        retry = {"retry_on": "5xx", "num_retries": 1, "host_selection_retry_max_attempts": 5,
                 "retry_host_predicate": [{"name": "envoy.retry_host_predicates.omit_canary_hosts", "typed_config": {
                     "@type": "type.googleapis.com/envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"}}]}
        with Proxy(tmp_path, [listener(port, hcm([route("c", retry_policy=retry)]))], [c]):
            assert [ask(port).status for _ in range(12)] == [200] * 12
            assert x.connections or y.connections  # a first attempt may well go to a canary

# SPDX-License-Identifier: Apache-2.0
"""Authorization by the policies that a real istiod sent (tests/golden/authz/istiod.json): clients with certificates, connections, changes under traffic."""

import json
import socket
import ssl
import struct
import threading

import pytest

from harness import LOOPBACK, ROOT, cluster, connect, echo, eventually, free_port, hcm, listener, mint, read_answer, route, tcp_proxy, tls_files, web

POLICIES = json.loads((ROOT / "tests/golden/authz/istiod.json").read_text())
SNI = "outbound_.9080_._.reviews.default.svc.cluster.local"
CLIENTS = {"productpage": "spiffe://cluster.local/ns/default/sa/bookinfo-productpage", "ratings": "spiffe://cluster.local/ns/default/sa/bookinfo-ratings",
           "stranger": "spiffe://cluster.local/ns/other/sa/default"}
ROUTER = {"name": "envoy.filters.http.router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
LOG = "%PROTOCOL% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% %BYTES_SENT% " \
      "%DYNAMIC_METADATA(envoy.filters.http.rbac)% %DYNAMIC_METADATA(envoy.common)%\n"
DEFAULT = {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"}


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    return {n: mint(folder, n, i) for n, i in {**CLIENTS, "server": "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"}.items()}


def policy(name):
    return {"name": "envoy.filters.network.rbac" if name.startswith("network") else "envoy.filters.http.rbac", "typed_config": POLICIES[name]}


def allow(*principals, action="ALLOW"):
    """An RBAC filter as istiod makes it of a list of principals."""
    ids = [{"authenticated": {"principal_name": {"exact": CLIENTS[p]}}} for p in principals]
    rule = {"permissions": [{"and_rules": {"rules": [{"any": True}]}}], "principals": [{"and_ids": {"ids": [{"or_ids": {"ids": ids}}]}}]}
    return {"name": "envoy.filters.http.rbac", "typed_config": {**DEFAULT, "rules": {"action": action, "policies": {"ns[default]-policy[list]-rule[0]": rule}}}}


def access_log(folder):
    return [{"name": "f", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": str(folder / "log"),
                                           "log_format": {"text_format_source": {"inline_string": LOG}}}}]


def inbound(port, filters, certs):
    """A listener as in front of a workload: PROXY headers stand for the original destination, certificates are required."""
    tls = {**tls_files(certs["server"]), "require_client_certificate": True}
    front = listener(port, filters[-1], tls, listener_filters=[
        {"name": "envoy.filters.listener.proxy_protocol", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}},
        {"name": "envoy.filters.listener.tls_inspector", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}])
    front["filter_chains"][0]["filters"] = filters
    return front


def dial(port, certs, who, to_port=9080):
    s = connect(port, 15)
    addresses = socket.inet_aton("10.244.0.7") + socket.inet_aton("10.42.0.21") + struct.pack("!HH", 40000, to_port)
    s.sendall(b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", len(addresses)) + addresses)
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    c.load_cert_chain(certs[who] / "cert-chain.pem", certs[who] / "key.pem")
    return c.wrap_socket(s, server_hostname=SNI)


def get(s, path="/", method="GET", host="reviews.default"):
    s.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode())
    return read_answer(s.makefile("rb"))


def test_requests_by_policies_of_istiod(proxy, backend, certs, tmp_path):
    b, port = backend(web()), free_port()
    filters = [policy("http reviews-audit"), policy("http reviews-deny"), allow("productpage", "stranger"), ROUTER]
    p = proxy([inbound(port, [hcm([route("a")], http_filters=filters, access_log=access_log(tmp_path))], certs)], [cluster("a", [b.port])])
    with dial(port, certs, "productpage") as s:
        assert get(s, "/audit").body == b"a"
        assert get(s, "/dry").status == 200  # would be denied
        assert get(s, "/x", "POST").status == 200
    with dial(port, certs, "stranger") as s:
        assert get(s, "/x").status == 200
        denied = get(s, "/x", "POST")  # not of namespace default, not for x.example.com
        assert (denied.status, denied.body) == (403, b"RBAC: access denied")
        assert get(s, "/x", "POST", "X.example.com").status == 200
    with dial(port, certs, "ratings") as s:
        assert get(s, "/x").status == 403  # on nobody's list
    assert len(b.seen) == 5

    def log():
        lines = (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []
        return lines if len(lines) == 7 else None
    lines = eventually(log, 15, "seven lines of log")
    assert '"access_log_hint":true' in lines[0] and '"access_log_hint":false' in lines[1]
    assert '"istio_dry_run_deny_shadow_effective_policy_id":"ns[default]-policy[reviews-dry-run]-rule[0]"' in lines[1]
    assert '"istio_dry_run_deny_shadow_engine_result":"denied"' in lines[1] and '"istio_dry_run_deny_shadow_engine_result":"allowed"' in lines[2]
    assert " 403 rbac_access_denied_matched_policy[ns[default]-policy[reviews-deny]-rule[0]] " in lines[4]
    assert " 403 rbac_access_denied_matched_policy[none] " in lines[6]
    assert p.stat("http.in.rbac.denied") == 2 and p.stat("http.in.rbac.istio_dry_run_deny_.shadow_denied") == 1


def test_connections_by_policies_of_istiod(proxy, backend, certs, tmp_path):
    b, port = backend(echo), free_port()
    p = proxy([inbound(port, [policy("network mongo-l4"), tcp_proxy("a", access_log=access_log(tmp_path))], certs)], [cluster("a", [b.port])])
    with dial(port, certs, "ratings", 27017) as s:
        s.sendall(b"hello")
        assert s.recv(10) == b"hello"
    for who, to_port in (("productpage", 27017), ("ratings", 27018)):
        with dial(port, certs, who, to_port) as s:
            try:
                s.sendall(b"hello")
                assert s.recv(10) == b""
            except OSError:  # reset, since it had sent something
                pass
    assert b.connections == 1  # those who are denied never reach the workload
    eventually(lambda: (p.stat("tcp.rbac.allowed"), p.stat("tcp.rbac.denied")) == (1, 2), 15, "three decisions")
    eventually(lambda: (tmp_path / "log").exists() and (tmp_path / "log").read_text().count("rbac_access_denied_matched_policy[none] 0 ") == 2, 15, "the log")


def test_a_server_that_speaks_first_says_nothing_to_the_denied(proxy, backend, certs):
    greeted, port = threading.Event(), free_port()

    def greet(c, _backend):
        greeted.set()
        c.sendall(b"220 hello\r\n")
        c.recv(1)
    b = backend(greet)
    proxy([inbound(port, [policy("network mongo-l4"), tcp_proxy("a")], certs)], [cluster("a", [b.port])])
    with dial(port, certs, "stranger", 27017) as s:
        assert s.recv(100) == b""
    assert not greeted.is_set()
    with dial(port, certs, "ratings", 27017) as s:
        assert s.recv(100) == b"220 hello\r\n"


def test_the_denied_are_not_probed_for(proxy, backend):
    """Where a listener connects ahead of a silent client to hear whether the server speaks first, it does so only for those who may."""
    b = backend(lambda c, _backend: (c.sendall(b"220 hello\r\n"), c.recv(1)))

    def sniffed(source):
        rules = {"action": "DENY", "policies": {"p": {"permissions": [{"any": True}], "principals": [{"source_ip": {"address_prefix": source, "prefix_len": 32}}]}}}
        rbac = {"name": "envoy.filters.network.rbac", "typed_config": {**POLICIES["network nothing"], "rules": rules}}
        front = listener(free_port(), tcp_proxy("a"), listener_filters=[{"name": "envoy.filters.listener.http_inspector", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"}}],
            listener_filters_timeout="1s", continue_on_listener_filters_timeout=True)
        front["filter_chains"][0]["filters"].insert(0, rbac)
        return front
    denied, fine = sniffed("127.0.0.1"), sniffed("192.0.2.1")
    ports = [x["address"]["socket_address"]["port_value"] for x in (denied, fine)]
    p = proxy([denied, fine], [cluster("a", [b.port])])
    with connect(ports[0], 15) as s:
        assert s.recv(100) == b""
    assert b.connections == 0 and not p.stat(f"listener.127.0.0.1_{ports[0]}.server_first.probes")
    with connect(ports[1], 15) as s:
        assert s.recv(100) == b"220 hello\r\n"


def test_the_denied_may_be_kept_waiting(proxy, backend, certs):
    """delay_deny: not closed at once, read nothing of, closed in the end, and gone with the proxy."""
    b, port, slow = backend(echo), free_port(), free_port()
    rules = {**POLICIES["network nothing"], "delay_deny": "0.3s"}
    long = {**rules, "delay_deny": "600s"}
    chains = [inbound(p, [{"name": "envoy.filters.network.rbac", "typed_config": r}, tcp_proxy("a")], certs) for p, r in ((port, rules), (slow, long))]
    p = proxy(chains, [cluster("a", [b.port])])
    with dial(port, certs, "ratings") as s:
        assert s.recv(10) == b""
    with dial(slow, certs, "ratings") as s:
        s.sendall(b"x" * 1000)
        s.settimeout(0.5)
        with pytest.raises(TimeoutError):
            s.recv(10)
        eventually(lambda: p.stat("tcp.rbac.denied") == 2, 15, "two decisions")
        p.stop()
    assert b.connections == 0


def test_a_policy_changes_while_traffic_runs(proxy, backend, certs, tmp_path):
    """First productpage may, then ratings: every answer is one of the two, nobody is cut off, and what was taken away does not come back."""
    b, port, lds = backend(web()), free_port(), tmp_path / "lds.json"

    def put(version, *principals):
        front = inbound(port, [hcm([route("a")], http_filters=[allow(*principals), ROUTER])], certs)
        (tmp_path / "next").write_text(json.dumps({"version_info": version, "resources": [
            {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", **front}]}))
        (tmp_path / "next").rename(lds)
    put("1", "productpage")
    # a drain longer than the test: a connection goes on by the policy that it began with, until the client ends it
    p = proxy([], [cluster("a", [b.port])], args=("--drain-time-s", "60"), dynamic_resources={
        "lds_config": {"path_config_source": {"path": str(lds)}, "resource_api_version": "V3"}})
    stop, seen, problems = threading.Event(), {"productpage": [], "ratings": []}, []

    def ask(who):
        try:
            while not stop.is_set():
                with dial(port, certs, who) as s:
                    for _ in range(20):
                        answer = get(s)
                        seen[who].append(answer.status)
                        if "close" in answer.headers.get("connection", ""):
                            break
        except (OSError, ValueError, EOFError) as e:
            problems.append(f"{who}: {e!r}")
    threads = [threading.Thread(target=ask, args=(w,)) for w in seen]
    for t in threads:
        t.start()
    try:
        eventually(lambda: 200 in seen["productpage"] and 403 in seen["ratings"], 20, "answers by the first policy")
        put("2", "ratings")
        eventually(lambda: problems or (seen["productpage"][-1] == 403 and seen["ratings"][-1] == 200), 20, "answers by the second policy")
    finally:
        stop.set()
        for t in threads:
            t.join(20)
    assert not problems
    assert set(seen["productpage"]) | set(seen["ratings"]) == {200, 403}
    for who, was, became in (("productpage", 200, 403), ("ratings", 403, 200)):  # no going back
        assert seen[who] == sorted(seen[who], key=lambda x, w=was: x != w), who
        assert seen[who][0] == was and seen[who][-1] == became
    assert p.stat("listener_manager.lds.update_success") == 2


def test_rules_of_a_route(proxy, backend):
    """RBACPerRoute takes the place of the listener's rules; switched off, nothing is asked."""
    b, port = backend(web()), free_port()
    open_route = route("a", "/open", )
    open_route["typed_per_filter_config"] = {"envoy.filters.http.rbac": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
                                                                       "rbac": {"rules": {"action": "DENY"}}}}
    off = route("a", "/off")
    off["typed_per_filter_config"] = {"envoy.filters.http.rbac": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}}
    nobody = {"name": "envoy.filters.http.rbac", "typed_config": {**DEFAULT, "rules": {}}}
    proxy([listener(port, hcm([open_route, off, route("a")], http_filters=[nobody, ROUTER]))], [cluster("a", [b.port])])
    with socket.create_connection((LOOPBACK, port), 15) as s:
        assert [get(s, path).status for path in ("/open", "/off", "/")] == [200, 200, 403]

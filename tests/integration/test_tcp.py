# SPDX-License-Identifier: Apache-2.0
"""TCP through remora-proxy: bytes as they are, half-closes kept, and mutual TLS between two proxies."""

import socket
import ssl
import threading
import time

import pytest

from harness import (DOWN_TLS, ask, cluster, connect, echo, eventually, free_port, hcm, listener, mint, read_answer, route, send_raw,
                     tcp_proxy, tls_files, web)

A, B = "spiffe://cluster.local/ns/default/sa/a", "spiffe://cluster.local/ns/default/sa/b"


def pump(s, payload):
    """Sends payload and half-closes, while reading all that comes back."""
    got = bytearray()

    def read():
        while True:
            part = s.recv(1 << 18)
            if not part:
                return
            got.extend(part)
    t = threading.Thread(target=read)
    t.start()
    s.sendall(payload)
    s.shutdown(socket.SHUT_WR)
    t.join(20)
    return bytes(got)


def test_echo_of_16_mib(proxy, backend):
    b = backend(echo)
    port = free_port()
    proxy([listener(port, tcp_proxy("a"))], [cluster("a", [b.port])])
    payload = bytes(range(256)) * (64 * 1024)
    with connect(port, 20) as s:
        assert pump(s, payload) == payload


def test_half_close_both_ways(proxy, backend):
    def fn(c, b):
        said = b""
        while True:
            part = c.recv(4096)
            if not part:
                break
            said += part
        b.seen.append(said)
        time.sleep(0.2)
        c.sendall(b"after your end: " + said)
    b = backend(fn)
    port = free_port()
    proxy([listener(port, tcp_proxy("a"))], [cluster("a", [b.port])])
    with connect(port) as s:
        assert pump(s, b"hello") == b"after your end: hello"


def test_server_first(proxy, backend):
    b = backend(lambda c, b: c.sendall(b"220 ready\r\n"))
    port = free_port()
    proxy([listener(port, tcp_proxy("a"))], [cluster("a", [b.port])])
    with connect(port) as s:
        assert s.recv(100) == b"220 ready\r\n"
        assert s.recv(100) == b""


def test_refusing_upstream_closes_the_client(proxy):
    port = free_port()
    p = proxy([listener(port, tcp_proxy("a"))], [cluster("a", [free_port()])])
    data, closed = send_raw(port, b"hello")
    assert closed and data == b""
    assert p.stat("cluster.a.upstream_cx_connect_fail") >= 1


def test_reset_is_passed_on(proxy, backend):
    def fn(c, b):
        c.recv(10)
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    b = backend(fn)
    port = free_port()
    proxy([listener(port, tcp_proxy("a"))], [cluster("a", [b.port])])
    data, closed = send_raw(port, b"hello")
    assert closed and data == b""


def test_many_connections_come_and_go(proxy, backend):
    b = backend(echo)
    port = free_port()
    p = proxy([listener(port, tcp_proxy("a"))], [cluster("a", [b.port])], concurrency=2)
    for _ in range(3):
        socks = [connect(port) for _ in range(100)]
        for i, s in enumerate(socks):
            s.sendall(b"%d" % i)
        assert [s.recv(10) for s in socks] == [b"%d" % i for i in range(100)]
        for s in socks:
            s.close()
    eventually(lambda: p.stat("cluster.a.upstream_cx_active") == 0, what="all connections to be gone")


# --- mutual TLS ---

@pytest.fixture
def ids(tmp_path):
    folder = tmp_path / "certs"
    return {"a": mint(folder, "a", A), "b": mint(folder, "b", B)}


def strict(folder, sans=None):
    return {"require_client_certificate": True, **tls_files(folder, sans)}


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_mtls_pair(proxy, backend, ids, kind):
    b = backend(web("behind") if kind == "http" else echo)
    inner, outer = free_port(), free_port()
    xfcc = {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"uri": True}}
    proxy([listener(inner, hcm([route("app")], **xfcc) if kind == "http" else tcp_proxy("app"), strict(ids["b"], [A]))],
          [cluster("app", [b.port])])
    proxy([listener(outer, hcm([route("b")]) if kind == "http" else tcp_proxy("b"))],
          [cluster("b", [inner], tls=tls_files(ids["a"], [B]))])
    if kind == "http":
        r = ask(outer, headers={"x-forwarded-client-cert": "URI=spiffe://forged"})
        assert r.status == 200 and r.body == b"behind"
        xfcc = dict(b.seen[0][1])["x-forwarded-client-cert"]
        assert f"URI={A}" in xfcc and f"By={B}" in xfcc and "forged" not in xfcc
    else:
        payload = b"0123456789" * 400000
        with connect(outer, 20) as s:
            assert pump(s, payload) == payload


TLS_INSPECTOR = {"name": "envoy.filters.listener.tls_inspector", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}


def test_a_hello_that_was_looked_at_is_no_payload(proxy, backend, ids):
    b = backend(echo)
    port = free_port()
    p = proxy([listener(port, tcp_proxy("app"), tls_files(ids["b"]), listener_filters=[TLS_INSPECTOR])], [cluster("app", [b.port])])
    with tls_client(port) as s:
        s.sendall(b"x" * 100)
        assert len(s.recv(200)) == 100
    eventually(lambda: p.stat("tcp.tcp.downstream_cx_tx_bytes_total") == 100, what="the session to be counted")
    assert p.stat("tcp.tcp.downstream_cx_rx_bytes_total") == 100


def test_server_with_the_wrong_identity_gets_nothing(proxy, backend, ids):
    b = backend(web())
    inner, outer = free_port(), free_port()
    proxy([listener(inner, hcm([route("app")]), strict(ids["b"]))], [cluster("app", [b.port])])
    proxy([listener(outer, hcm([route("b")]))], [cluster("b", [inner], tls=tls_files(ids["a"], ["spiffe://cluster.local/ns/x/sa/y"]))])
    assert ask(outer).status == 503
    assert not b.seen


def test_wrong_identities_are_counted(proxy, ids):
    inner, outer = free_port(), free_port()
    proxy([listener(inner, hcm([route("app")]), strict(ids["b"]))], [cluster("app", [1])])
    p = proxy([listener(outer, hcm([route("b")]))], [cluster("b", [inner], tls=tls_files(ids["a"], ["spiffe://cluster.local/ns/x/sa/y"]))])
    assert ask(outer).status == 503
    assert p.stat("cluster.b.ssl.fail_verify_san") >= 1


def test_client_with_the_wrong_identity_gets_nothing(proxy, backend, ids):
    b = backend(web())
    inner, outer = free_port(), free_port()
    proxy([listener(inner, hcm([route("app")]), strict(ids["b"], ["spiffe://cluster.local/ns/x/sa/y"]))], [cluster("app", [b.port])])
    proxy([listener(outer, hcm([route("b")]))], [cluster("b", [inner], tls=tls_files(ids["a"]))])
    assert ask(outer).status == 503
    assert not b.seen


def tls_client(port, folder=None, **options):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    for k, v in options.items():
        setattr(ctx, k, v)
    if folder:
        ctx.load_cert_chain(folder / "cert-chain.pem", folder / "key.pem")
    return ctx.wrap_socket(connect(port))


def test_strict_refuses_no_certificate_foreign_certificate_and_plaintext(proxy, backend, ids, tmp_path):
    b = backend(web())
    port = free_port()
    p = proxy([listener(port, hcm([route("app")]), strict(ids["b"]))], [cluster("app", [b.port])])
    foreign = mint(tmp_path / "foreign", "a", A)  # the right name from another CA
    for folder in (None, foreign):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with tls_client(port, folder) as s:
                s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                if not s.recv(100):
                    raise ConnectionError
    data, closed = send_raw(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert closed and b"HTTP" not in data
    assert not b.seen
    with tls_client(port, ids["a"]) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(s.makefile("rb")).status == 200
    eventually(lambda: p.stat_like("ssl.fail_verify") + p.stat_like("ssl.connection_error") >= 2, what="the failures to be counted")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_tls_is_refused(proxy, backend, ids):
    b = backend(web())
    port = free_port()
    proxy([listener(port, hcm([route("app")]), strict(ids["b"]))], [cluster("app", [b.port])])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tls_client(port, ids["a"], maximum_version=ssl.TLSVersion.TLSv1_1).close()


def second_resumes(port, version):
    """Whether a client's second connection goes on with the session of its first."""
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    ctx.minimum_version = ctx.maximum_version = version
    session = None
    for _ in range(2):
        with ctx.wrap_socket(connect(port), session=session) as s:
            s.sendall(b"x")
            assert s.recv(1) == b"x"  # tickets of TLS 1.3 come with the first bytes
            session = s.session
            reused = s.session_reused
    return reused


@pytest.mark.parametrize("fields, over_12, over_13", [
    ({}, True, True),
    ({"session_timeout": "60s"}, True, True),
    ({"disable_stateless_session_resumption": True}, True, False),
    ({"disable_stateful_session_resumption": True}, False, True),
    ({"disable_stateless_session_resumption": True, "disable_stateful_session_resumption": True}, False, False),
])
def test_resumption_as_configured(proxy, backend, ids, fields, over_12, over_13):
    b = backend(echo)
    port = free_port()
    tls = tls_files(ids["b"])
    del tls["common_tls_context"]["validation_context"]  # nobody is asked for a certificate
    proxy([listener(port, tcp_proxy("app"), {**tls, **fields})], [cluster("app", [b.port])])
    assert second_resumes(port, ssl.TLSVersion.TLSv1_2) == over_12
    assert second_resumes(port, ssl.TLSVersion.TLSv1_3) == over_13


@pytest.mark.parametrize("fields, cipher", [({}, "ECDHE-ECDSA-AES128-GCM-SHA256"),
                                            ({"prefer_client_ciphers": True}, "ECDHE-ECDSA-AES256-GCM-SHA384")])
def test_whose_ciphers_are_preferred(proxy, backend, ids, fields, cipher):
    b = backend(echo)
    port = free_port()
    tls = tls_files(ids["b"])
    tls["common_tls_context"]["tls_params"] = {"cipher_suites": ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"]}
    proxy([listener(port, tcp_proxy("app"), {**tls, **fields})], [cluster("app", [b.port])])
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    ctx.maximum_version = ssl.TLSVersion.TLSv1_2
    ctx.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256")
    with ctx.wrap_socket(connect(port)) as s:
        assert s.cipher()[0] == cipher


def test_missing_certificate_fails_closed(tmp_path, proxy, backend, ids):
    """Files that are not there: the proxy says so and serves nothing in plaintext."""
    from harness import Proxy
    b = backend(web())
    port = free_port()
    p = Proxy(tmp_path / "p", [listener(port, hcm([route("app")]), strict(tmp_path / "nowhere"))], [cluster("app", [b.port])], wait=False)
    try:
        p.p.wait(3)
        assert p.p.returncode != 0
        assert "nowhere" in p.text()
    except Exception:
        data, _ = send_raw(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1)
        assert not data
        raise
    finally:
        if p.p.poll() is None:
            p.p.kill()
    assert not b.seen


def test_half_a_handshake_does_not_stay_for_ever(proxy, backend, ids):
    b = backend(web())
    port = free_port()
    tls = strict(ids["b"])
    lst = listener(port, hcm([route("app")]), tls)
    lst["filter_chains"][0]["transport_socket_connect_timeout"] = "0.5s"
    proxy([lst], [cluster("app", [b.port])])
    assert DOWN_TLS in str(lst)
    data, closed = send_raw(port, b"\x16\x03\x01\x02\x00\x01\x00", 3)
    assert closed and b"HTTP" not in data


def test_limit_on_all_connections(proxy, backend):
    b = backend(echo)
    one, two, free = free_port(), free_port(), free_port()
    p = proxy([listener(one, tcp_proxy("a")), listener(two, tcp_proxy("a")), listener(free, tcp_proxy("a"), ignore_global_conn_limit=True)],
              [cluster("a", [b.port])],
              overload_manager={"resource_monitors": [{
                  "name": "envoy.resource_monitors.global_downstream_max_connections",
                  "typed_config": {"@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                                   "max_active_downstream_connections": 2}}]})

    def served(s):
        try:
            s.sendall(b"x")
            return s.recv(1) == b"x"
        except ConnectionError:
            return False

    first, second = connect(one), connect(two)
    assert served(first) and served(second)
    with connect(two) as third:
        assert not served(third)
    with connect(free) as other:
        assert served(other)
    eventually(lambda: p.stat_like("downstream_global_cx_overflow") == 1, 10, "it is counted")
    first.close()

    def again():
        with connect(one) as s:
            return served(s)
    eventually(again, 10, "a place is free again")
    second.close()

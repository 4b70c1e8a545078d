# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 through remora-proxy with real peers: curl, nghttp, h2load and nghttpd; all four bridges, and a pair over mutual TLS."""

import shutil
import subprocess
import time

import pytest

from harness import HTTP_OPTIONS, ask, cluster, eventually, free_port, hcm, http2_upstream, listener, mint, route, tls_files, web

pytestmark = pytest.mark.skipif(not all(map(shutil.which, ("curl", "nghttp", "nghttpd", "h2load"))),
                                reason="curl and nghttp2's programs are needed")

H2_OPTIONS = http2_upstream()
SAME_OPTIONS = {"typed_extension_protocol_options": {HTTP_OPTIONS: {
    "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
    "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}}}
BIG = 3 * 1024 * 1024 + 17


def curl(port, *args, path="/", h2=True, data=None):
    cmd = ["curl", "-sS", "-m", "10", "-o", "-", "-w", "\n%{http_version} %{http_code}"]
    if h2:
        cmd.append("--http2-prior-knowledge")
    r = subprocess.run([*cmd, *args, f"http://127.0.0.1:{port}{path}"], input=data, capture_output=True)
    assert r.returncode == 0, r.stderr.decode()
    body, _, last = r.stdout.rpartition(b"\n")
    version, status = last.decode().split()
    return body, version, int(status)


@pytest.fixture
def h2_server(tmp_path):
    """start(*options) → port of an nghttpd that serves a folder with files "small" and "big" and answers POST with its body's echo."""
    made = []

    def start(*options):
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        (root / "small").write_bytes(b"small file")
        (root / "big").write_bytes(bytes(range(256)) * (BIG // 256) + b"x" * (BIG % 256))
        port = free_port()
        made.append(subprocess.Popen(["nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", str(root), *options, str(port)],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

        def up():
            try:
                import socket
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True
            except OSError:
                return False
        eventually(up, what="nghttpd")
        return port
    yield start
    for p in made:
        p.terminate()
        p.wait(5)


def big_file():
    return bytes(range(256)) * (BIG // 256) + b"x" * (BIG % 256)


@pytest.mark.parametrize("down_h2", [False, True])
@pytest.mark.parametrize("up_h2", [False, True])
def test_bridges(proxy, backend, h2_server, down_h2, up_h2):
    port = free_port()
    if up_h2:
        upstream = cluster("a", [h2_server("--echo-upload")], **H2_OPTIONS)
    else:
        b = backend(web("a"))
        upstream = cluster("a", [b.port])
    proxy([listener(port, hcm([route("a")]))], [upstream])
    body, version, status = curl(port, path="/small", h2=down_h2)
    assert status == 200 and version == ("2" if down_h2 else "1.1")
    if up_h2:
        assert body == b"small file"
        assert curl(port, path="/big", h2=down_h2)[0] == big_file()
        sent = big_file()
        assert curl(port, "--data-binary", "@-", path="/", h2=down_h2, data=sent)[0] == sent
        assert curl(port, "-T", "-", "-X", "POST", path="/", h2=down_h2, data=sent)[0] == sent  # no content-length
    else:
        assert body == b"a"
        sent = b"x" * 100000
        assert curl(port, "--data-binary", "@-", path="/", h2=down_h2, data=sent)[2] == 200
        assert b.seen[-1][2] == sent
    assert curl(port, "-I", path="/small", h2=down_h2)[2] == 200


def h2load(port, requests, clients, streams, path="/small", scheme="http"):
    r = subprocess.run(["h2load", "-n", str(requests), "-c", str(clients), "-m", str(streams), f"{scheme}://127.0.0.1:{port}{path}"],
                       capture_output=True, timeout=60, text=True)
    line = next(x for x in r.stdout.splitlines() if x.startswith("requests:"))
    return line


@pytest.mark.parametrize("up_h2", [False, True])
def test_many_streams(proxy, backend, h2_server, up_h2):
    port = free_port()
    upstream = cluster("a", [h2_server()], **SAME_OPTIONS) if up_h2 else cluster("a", [backend(web("a")).port])
    proxy([listener(port, hcm([route("a")]))], [upstream])
    line = h2load(port, 3000, 4, 50)
    assert " 3000 succeeded, 0 failed, 0 errored" in line, line


def test_upstream_max_concurrent_streams(proxy, h2_server):
    """A server that takes two streams at a time."""
    port = free_port()
    p = proxy([listener(port, hcm([route("a")]))], [cluster("a", [h2_server("-m", "2")], **H2_OPTIONS)])
    line = h2load(port, 500, 2, 20)
    assert " 500 succeeded, 0 failed, 0 errored" in line, line
    assert p.p.poll() is None


def test_few_upstream_connections(proxy, h2_server):
    port = free_port()
    p = proxy([listener(port, hcm([route("a")]))], [cluster("a", [h2_server()], **H2_OPTIONS)])
    assert " 2000 succeeded" in h2load(port, 2000, 8, 10)
    assert p.stat("cluster.a.upstream_cx_total") <= 2


def test_nghttp_trailers_and_priorities(proxy, h2_server):
    port = free_port()
    proxy([listener(port, hcm([route("a")]))], [cluster("a", [h2_server("--trailer", "x-sum: 7")], **H2_OPTIONS)])
    r = subprocess.run(["nghttp", "-v", "-n", f"http://127.0.0.1:{port}/small"], capture_output=True, timeout=10, text=True)
    assert "x-sum: 7" in r.stdout, r.stdout


def test_codec_type_http2_refuses_http1(proxy, backend):
    port = free_port()
    proxy([listener(port, hcm([route("a")], codec_type="HTTP2"))], [cluster("a", [backend(web("a")).port])])
    assert curl(port)[2] == 200
    r = subprocess.run(["curl", "-sS", "-m", "5", "--http1.1", f"http://127.0.0.1:{port}/"], capture_output=True)
    assert r.returncode != 0


@pytest.mark.parametrize("same", [False, True])
def test_pair_over_mutual_tls(proxy, backend, h2_server, tmp_path, same):
    """client → proxy → (mTLS, h2) → proxy → server."""
    ca = tmp_path / "ca"
    server = mint(ca, "server", "spiffe://cluster.local/ns/a/sa/server")
    client = mint(ca, "client", "spiffe://cluster.local/ns/a/sa/client")
    origin = h2_server("--echo-upload")
    inbound, outbound = free_port(), free_port()
    down = tls_files(server)
    down["require_client_certificate"] = True
    down["common_tls_context"]["alpn_protocols"] = ["h2", "http/1.1"]
    up = tls_files(client, ["spiffe://cluster.local/ns/a/sa/server"])
    up["common_tls_context"]["alpn_protocols"] = ["istio-peer-exchange", "istio", "h2"]
    proxy([listener(inbound, hcm([route("o")]), tls=down)], [cluster("o", [origin], **H2_OPTIONS)])
    p = proxy([listener(outbound, hcm([route("i")]))], [cluster("i", [inbound], tls=up, **(SAME_OPTIONS if same else H2_OPTIONS))])
    assert curl(outbound, path="/small")[0] == b"small file"
    assert curl(outbound, path="/small", h2=False)[0] == b"small file"
    assert curl(outbound, path="/big")[0] == big_file()
    sent = big_file()
    assert curl(outbound, "--data-binary", "@-", data=sent)[0] == sent
    assert " 2000 succeeded, 0 failed, 0 errored" in h2load(outbound, 2000, 4, 25)
    assert p.stat("cluster.i.upstream_cx_total") <= 6


def test_max_requests_per_connection(proxy, h2_server):
    """GOAWAY in two steps: what was taken is answered, and the connection ends. (curl 7.88 cannot reuse an HTTP/2 connection here.)"""
    port = free_port()
    p = proxy([listener(port, hcm([route("a")], common_http_protocol_options={"max_requests_per_connection": 50}))],
              [cluster("a", [h2_server()], **H2_OPTIONS)])
    r = subprocess.run(["nghttp", "-v", "-n", "-m", "50", f"http://127.0.0.1:{port}/small"], capture_output=True, text=True, timeout=20)
    assert r.stdout.count(":status: 200") == 50
    assert "recv GOAWAY" in r.stdout
    eventually(lambda: p.stat("http.in.downstream_cx_active") == 0, what="the connection's end")


def test_slow_reader_is_bounded(proxy, h2_server, tmp_path):
    """A client that does not read a large answer holds little memory of the proxy."""
    port = free_port()
    p = proxy([listener(port, hcm([route("a")]))], [cluster("a", [h2_server()], **H2_OPTIONS)])
    before = p.resident_kib()
    slow = [subprocess.Popen(["curl", "-sS", "--http2-prior-knowledge", "--limit-rate", "1K", "-o", "/dev/null",
                              f"http://127.0.0.1:{port}/big"]) for _ in range(4)]
    time.sleep(1.5)
    grown = p.resident_kib() - before
    for s in slow:
        s.kill()
        s.wait()
    assert grown < 4 * 2048, grown
    eventually(lambda: ask(port, "/small").status == 200, what="still serving")

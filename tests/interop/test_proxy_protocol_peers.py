# SPDX-License-Identifier: Apache-2.0
"""make interop-proxy-protocol: HAProxy and nginx as Debian ships them send PROXY headers to remora and take remora's."""

import pathlib
import shutil
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from conftest import backend, proxy  # noqa: E402,F401  (fixtures)
from harness import LOOPBACK, cluster, connect, free_port, hcm, mint, read_answer, route, tcp_proxy, listener, tls_files, web  # noqa: E402
from test_proxy_protocol import proxied, wrap  # noqa: E402

needs_haproxy = pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed; `tools/install-deps bench` installs it")
needs_nginx = pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed; `tools/install-deps bench` installs it")


@pytest.fixture
def start(tmp_path):
    made = []

    def begin(name, port, text, *command):
        conf = tmp_path / f"{name}.conf"
        conf.write_text(text)
        log = open(tmp_path / f"{name}.log", "wb")
        p = subprocess.Popen([str(c).replace("CONF", str(conf)) for c in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=tmp_path)
        made.append(p)
        end = time.monotonic() + 20
        while True:
            try:
                connect(port, 1).close()
                return
            except OSError:
                assert p.poll() is None and time.monotonic() < end, (tmp_path / f"{name}.log").read_text()
                time.sleep(0.05)
    yield begin
    for p in made:
        p.terminate()
    for p in made:
        p.wait(20)


def haproxy(start, port, bind, server, extra=""):
    start("haproxy", port, f"""global
  maxconn 100
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend f
  bind {LOOPBACK}:{port} {bind}
  {extra}
  default_backend b
backend b
  server s {server}
""", "haproxy", "-f", "CONF", "-db")


def get(port):
    with connect(port, 20) as s:
        mine = s.getsockname()
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return read_answer(s.makefile("rb")), mine


@needs_haproxy
@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"])
def test_haproxy_to_remora(proxy, backend, start, how):  # noqa: F811
    app, port, front = backend(web()), free_port(), free_port()
    log = {"name": "log", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        "log_format": {"text_format_source": {"inline_string": "CLIENT %DOWNSTREAM_REMOTE_ADDRESS% AT %DOWNSTREAM_LOCAL_ADDRESS%\n"}}}}
    p = proxy([proxied(port, hcm([route("a")], access_log=[log]))], [cluster("a", [app.port])])
    haproxy(start, front, "", f"{LOOPBACK}:{port} {how}", "unique-id-format %ci" if "unique" in how else "")
    r, mine = get(front)
    assert r.status == 200
    end = time.monotonic() + 15
    while f"CLIENT {mine[0]}:{mine[1]} AT {LOOPBACK}:{front}" not in p.text():
        assert time.monotonic() < end, p.text()
        time.sleep(0.05)


@needs_haproxy
@pytest.mark.parametrize("version", ["V1", "V2"])
@pytest.mark.parametrize("tls", [False, True])
def test_remora_to_haproxy(proxy, backend, start, tmp_path, version, tls):  # noqa: F811
    app, port, back = backend(web()), free_port(), free_port()
    ids = {n: mint(tmp_path / "certs", n, f"spiffe://cluster.local/ns/default/sa/{n}") for n in ("a", "b")}
    pem = tmp_path / "b.pem"
    pem.write_text((ids["b"] / "cert-chain.pem").read_text() + (ids["b"] / "key.pem").read_text())
    inner = {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", **tls_files(ids["a"])}} if tls else None
    haproxy(start, back, f"accept-proxy{f' ssl crt {pem}' if tls else ''}", f"{LOOPBACK}:{app.port}",
            "http-request set-header x-seen %[src]:%[src_port]->%[dst]:%[dst_port]")
    for f in (hcm([route("a")]), tcp_proxy("a")):
        port = free_port()
        proxy([listener(port, f)], [cluster("a", [back], transport_socket=wrap(inner, version=version))])
        r, mine = get(port)
        assert r.status == 200
        assert dict(app.seen[-1][1])["x-seen"] == f"{mine[0]}:{mine[1]}->{LOOPBACK}:{port}"


@needs_nginx
@pytest.mark.parametrize("version", ["V1", "V2"])
def test_remora_to_nginx(proxy, start, version):  # noqa: F811
    port, back = free_port(), free_port()
    start("nginx", back, f"""daemon off; master_process off; pid nginx.pid; error_log stderr;
events {{ worker_connections 64; }}
http {{ access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
  server {{ listen {LOOPBACK}:{back} proxy_protocol; return 200 "$proxy_protocol_addr $proxy_protocol_port"; }} }}
""", "nginx", "-c", "CONF", "-p", ".")
    proxy([listener(port, hcm([route("a")]))], [cluster("a", [back], transport_socket=wrap(version=version))])
    r, mine = get(port)
    assert r.status == 200 and r.body.decode() == f"{mine[0]} {mine[1]}"

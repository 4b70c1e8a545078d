# SPDX-License-Identifier: Apache-2.0
"""Clients that others wrote: curl, nghttp, h2load, Python's standard library, Node and Go, over plain text and TLS, to an HTTP/1.1 backend."""

import http.client
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

import harness  # noqa: E402
from conftest_peers import needs, peers  # noqa: E402,F401

BIG = b"remora " * (1 << 17)


def run(*args, **kw):
    r = subprocess.run([str(a) for a in args], capture_output=True, timeout=120, check=False, **kw)
    assert r.returncode == 0, (args, r.stdout[-1500:], r.stderr[-1500:])
    return r.stdout


@needs("curl")
@pytest.mark.parametrize("how,version", [(["--http1.1"], "1.1"), (["--http2-prior-knowledge"], "2"), (["--http2"], "1.1")])
def test_curl_plain(peers, how, version):
    write = ["-s", "-S", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"]
    assert run("curl", *how, *write, f"http://127.0.0.1:{peers.plain}/echo") == f"200 {version}".encode()
    assert run("curl", *how, "-s", "--data-binary", "@-", "-H", "Expect: 100-continue", f"http://127.0.0.1:{peers.plain}/echo", input=BIG) == BIG
    assert run("curl", *how, "-s", "-T", "-", f"http://127.0.0.1:{peers.plain}/echo", input=BIG) == BIG  # of unknown length


@needs("curl")
@pytest.mark.parametrize("how,version", [(["--http1.1"], "1.1"), (["--http2"], "2")])
def test_curl_tls(peers, how, version):
    tls = ["-k", *how, "-s", "-S"]
    url = f"https://127.0.0.1:{peers.tls}/echo"
    assert run("curl", *tls, "-o", "/dev/null", "-w", "%{http_code} %{http_version}", url) == f"200 {version}".encode()
    assert run("curl", *tls, "--data-binary", "@-", url, input=BIG) == BIG


@needs("nghttp")
def test_nghttp(peers):
    out = run("nghttp", "-nv", "-m", "20", f"http://127.0.0.1:{peers.plain}/echo").decode()
    assert len(re.findall(r":status: 200", out)) == 20 and "RST_STREAM" not in out


@needs("h2load")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_h2load(peers, scheme):
    port = peers.plain if scheme == "http" else peers.tls
    out = run("h2load", "-n", "10000", "-c", "10", "-m", "20", f"{scheme}://127.0.0.1:{port}/echo").decode()
    assert "10000 succeeded, 0 failed, 0 errored, 0 timeout" in out, out


def test_python(peers):
    c = http.client.HTTPConnection("127.0.0.1", peers.plain, timeout=10)
    for _ in range(50):
        c.request("POST", "/echo", body=iter([b"a" * 1000] * 20), headers={"Transfer-Encoding": "chunked"}, encode_chunked=True)
        r = c.getresponse()
        assert r.status == 200 and len(r.read()) == 20000


@needs("node")
def test_node(peers):
    assert run("node", HERE / "clients/client.js", peers.plain, peers.tls, peers.root).strip() == b"ok"


@needs("go")
def test_go(peers, tmp_path):
    shutil.copy(HERE / "clients/main.go", tmp_path)
    assert run("go", "run", "main.go", peers.plain, peers.tls, peers.root, cwd=tmp_path).strip() == b"ok"

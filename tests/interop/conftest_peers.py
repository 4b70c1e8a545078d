# SPDX-License-Identifier: Apache-2.0
"""What test_clients.py needs: one proxy with a plain and a TLS listener in front of a backend that sends bodies back."""

import shutil
import types

import pytest

import harness
from harness import Backend, cluster, free_port, hcm, listener, mint, route, tls_files, web


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"no {program} program here")


def echo_body(first, headers, body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    ids = mint(folder, "server", "spiffe://test/ns/a/sa/server")
    server_tls = tls_files(ids)
    server_tls["common_tls_context"]["alpn_protocols"] = ["h2", "http/1.1"]
    server_tls["common_tls_context"].pop("validation_context", None)
    plain, tls = free_port(), free_port()
    with Backend(web("e", echo_body)) as b:
        p = harness.Proxy(folder / "proxy", [listener(plain, hcm([route("b")])), listener(tls, hcm([route("b")]), server_tls)],
                          [cluster("b", [b.port])])
        yield types.SimpleNamespace(plain=plain, tls=tls, root=ids / "root-cert.pem", proxy=p)
        p.stop()

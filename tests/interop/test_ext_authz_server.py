# SPDX-License-Identifier: Apache-2.0
"""make interop-ext-authz: Istio's sample authorization server (samples/extauthz, built from the Go module istio.io/istio) behind the ext_authz filters, over gRPC and HTTP."""

import pathlib
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import harness  # noqa: E402
from go_programs import build  # noqa: E402
from harness import LOOPBACK, ask, cluster, eventually, free_port, hcm, http2_upstream, listener, route, web  # noqa: E402

FILTER = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
FILTERS = {
    "grpc": {"transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": "grpc"}, "timeout": "20s"}},
    # as istiod makes it of includeRequestHeadersInCheck and headersTo…
    "http": {"http_service": {"server_uri": {"uri": "http://x", "cluster": "http", "timeout": "20s"},
                              "authorization_request": {"allowed_headers": {"patterns": [{"exact": "x-ext-authz", "ignore_case": True}]},
                                                        "headers_to_add": [{"key": "x-ext-authz-additional-header-override", "value": "here"}]},
                              "authorization_response": {"allowed_upstream_headers": {"patterns": [{"prefix": "x-ext-authz-", "ignore_case": True}]},
                                                         "allowed_client_headers": {"patterns": [{"prefix": "x-ext-authz-", "ignore_case": True}]}}}},
}


@pytest.fixture(scope="module")
def server():
    program = build("istio", extauthz="istio.io/istio/samples/extauthz/cmd/extauthz")["extauthz"]
    ports = {"grpc": free_port(), "http": free_port()}
    p = subprocess.Popen([program, "-grpc", str(ports["grpc"]), "-http", str(ports["http"])], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def up():
        for port in ports.values():
            socket.create_connection((LOOPBACK, port), 1).close()
        return True
    eventually(up, 20, "the authorization server")
    yield ports
    p.terminate()
    p.wait()


@pytest.mark.parametrize("kind", FILTERS)
def test_allows_and_denies(server, kind, tmp_path):
    port = free_port()
    m = hcm([route("a")])
    m["typed_config"]["http_filters"].insert(0, {"name": "envoy.filters.http.ext_authz", "typed_config": {"@type": FILTER, **FILTERS[kind]}})
    with harness.Backend(web()) as a, harness.Proxy(tmp_path, [listener(port, m)], [cluster("a", [a.port]), cluster("http", [server["http"]]),
                                                                                  cluster("grpc", [server["grpc"]], **http2_upstream())]) as p:
        check(kind, port, a, p)


def check(kind, port, a, p):
    for _ in range(20):
        assert ask(port, "/x?y=1", headers={"x-ext-authz": "allow"}).status == 200
    seen = dict(a.seen[-1][1])
    assert seen["x-ext-authz-check-result"] == "allowed"
    if kind == "http":
        assert seen["x-ext-authz-additional-header-override"] == "here"
    count = len(a.seen)
    got = ask(port, "/x?y=1", headers={"x-ext-authz": "no", "x-ext-authz-check-result": "allowed"})
    assert got.status == 403 and b"denied by ext_authz" in got.body and got.headers["x-ext-authz-check-result"] == "denied"
    assert len(a.seen) == count
    assert p.stat_like("ext_authz.ok") == 40 and p.stat_like("ext_authz.denied") == 2  # of the filter and of the cluster

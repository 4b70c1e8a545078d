# SPDX-License-Identifier: Apache-2.0
"""gRPC's own interop client and server (Go module google.golang.org/grpc/interop) with remora-proxy between: over h2c, over TLS, and through
a pair of proxies with mutual TLS. REMORA_GRPC_INTEROP: folder with the programs "client" and "server"."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import harness  # noqa: E402
from harness import cluster, eventually, free_port, hcm, listener, mint, route, tls_files  # noqa: E402

PROGRAMS = pathlib.Path(os.environ.get("REMORA_GRPC_INTEROP", "/nonexistent"))
SOAK = os.environ.get("REMORA_SOAK_CALLS", "10000")
CASES = ("empty_unary large_unary client_streaming server_streaming ping_pong empty_stream timeout_on_sleeping_server cancel_after_begin "
         "cancel_after_first_response status_code_and_message special_status_message custom_metadata unimplemented_method "
         "unimplemented_service").split()
EXT = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
H2 = {"typed_extension_protocol_options": {EXT: {"@type": f"type.googleapis.com/{EXT}", "explicit_http_config": {"http2_protocol_options": {}}}}}
# As Istio's routes are: no time-out but the client's.
ROUTE = {"timeout": "0s", "max_grpc_timeout": "0s"}

pytestmark = pytest.mark.skipif(not (os.access(PROGRAMS / "client", os.X_OK) and os.access(PROGRAMS / "server", os.X_OK)),
                                reason="gRPC's interop programs are not built (no Go, or no network)")


def public_certificate(folder):
    """A certificate for "localhost" and its own authority."""
    folder.mkdir(parents=True)

    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=folder)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "root-cert.pem",
            "-subj", "/CN=interop test", "-days", "2", "-addext", "basicConstraints=critical,CA:TRUE")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem", "-out", "leaf.csr", "-subj", "/CN=localhost")
    (folder / "ext").write_text("subjectAltName=DNS:localhost\n")
    openssl("x509", "-req", "-in", "leaf.csr", "-CA", "root-cert.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "cert-chain.pem", "-days", "2",
            "-extfile", "ext")
    return folder


@pytest.fixture(scope="module")
def way(tmp_path_factory):
    """name → (port, flags of the client)."""
    folder = tmp_path_factory.mktemp("grpc")
    origin = free_port()
    server = subprocess.Popen([PROGRAMS / "server", "-port", str(origin)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    proxies = []
    try:
        def listens():
            socket.create_connection((harness.LOOPBACK, origin), 1).close()
            return True
        eventually(listens, 30, "the interop server")
        plain, tls, outer, inner = (free_port() for _ in range(4))
        public = public_certificate(folder / "public")
        down = tls_files(public)
        down["common_tls_context"].pop("validation_context")
        down["common_tls_context"]["alpn_protocols"] = ["h2"]
        inbound = tls_files(mint(folder / "ca", "server", "spiffe://cluster.local/ns/a/sa/server"))
        inbound["require_client_certificate"] = True
        inbound["common_tls_context"]["alpn_protocols"] = ["h2"]
        outbound = tls_files(mint(folder / "ca", "client", "spiffe://cluster.local/ns/a/sa/client"), ["spiffe://cluster.local/ns/a/sa/server"])
        outbound["common_tls_context"]["alpn_protocols"] = ["h2"]
        proxies.append(harness.Proxy(folder / "a", [listener(plain, hcm([route("o", **ROUTE)])), listener(tls, hcm([route("o", **ROUTE)]), tls=down),
                                                    listener(inner, hcm([route("o", **ROUTE)]), tls=inbound)], [cluster("o", [origin], **H2)]))
        proxies.append(harness.Proxy(folder / "b", [listener(outer, hcm([route("i", **ROUTE)]))], [cluster("i", [inner], tls=outbound, **H2)]))
        yield {"h2c": (plain, []), "pair": (outer, []),
               "tls": (tls, ["-use_tls", "-use_test_ca", "-ca_file", str(public / "root-cert.pem"), "-server_host_override", "localhost"])}
    finally:
        server.terminate()
        server.wait(10)
        for p in proxies:
            p.stop()


def run(way, name, case, *more, timeout=60):
    port, flags = way[name]
    r = subprocess.run([PROGRAMS / "client", "-server_host", harness.LOOPBACK, "-server_port", str(port), "-test_case", case, *flags, *more],
                       capture_output=True, text=True, timeout=timeout)
    assert r.returncode == 0, f"{r.stdout[-2000:]}\n{r.stderr[-2000:]}"
    return r.stdout + r.stderr


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["h2c", "tls", "pair"])
def test_interop(way, name, case):
    run(way, name, case)


@pytest.mark.parametrize("case", ["rpc_soak", "channel_soak"])
def test_soak(way, case):
    """Through the pair; not one call may fail. channel_soak makes a connection for each call, so it is shorter."""
    n = SOAK if case == "rpc_soak" else str(max(1, int(SOAK) // 20))
    run(way, "pair", case, "-soak_iterations", n, "-soak_max_failures", "0", "-soak_num_threads", "10", "-soak_request_size", "1000",
        "-soak_response_size", "1000", "-soak_overall_timeout_seconds", "540", "-soak_per_iteration_max_acceptable_latency_ms", "30000", timeout=580)

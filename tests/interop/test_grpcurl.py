# SPDX-License-Identifier: Apache-2.0
"""make interop-clients: grpcurl (Go module, pinned in grpcurl/go.mod) to gRPC's interop test service with health and reflection (grpcurl/main.go):
over h2c, over TLS, and through a pair of proxies with mutual TLS."""

import json
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import harness  # noqa: E402
from go_programs import build  # noqa: E402
from harness import cluster, eventually, free_port, hcm, listener, mint, route, tls_files  # noqa: E402
from test_grpc_interop import H2, ROUTE, public_certificate  # noqa: E402

WAYS = ("h2c", "tls", "pair")
SERVICE = "grpc.testing.TestService"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """call(way, *arguments) runs grpcurl."""
    programs = build("grpcurl", grpcurl="github.com/fullstorydev/grpcurl/cmd/grpcurl", server=".")
    folder, ports = tmp_path_factory.mktemp("grpcurl"), {n: free_port() for n in ("origin", "h2c", "tls", "pair", "inner")}
    server = subprocess.Popen([programs["server"], str(ports["origin"])], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    proxies = []
    try:
        public = public_certificate(folder / "public")
        down = tls_files(public)
        down["common_tls_context"].pop("validation_context")
        inbound = tls_files(mint(folder / "ca", "server", "spiffe://cluster.local/ns/a/sa/server"))
        inbound["require_client_certificate"] = True
        outbound = tls_files(mint(folder / "ca", "client", "spiffe://cluster.local/ns/a/sa/client"), ["spiffe://cluster.local/ns/a/sa/server"])
        for context in (down, inbound, outbound):
            context["common_tls_context"]["alpn_protocols"] = ["h2"]
        chain = hcm([route("o", **ROUTE)])
        proxies.append(harness.Proxy(folder / "a", [listener(ports["h2c"], chain), listener(ports["tls"], chain, tls=down),
                                                    listener(ports["inner"], chain, tls=inbound)], [cluster("o", [ports["origin"]], **H2)]))
        proxies.append(harness.Proxy(folder / "b", [listener(ports["pair"], hcm([route("i", **ROUTE)]))], [cluster("i", [ports["inner"]], tls=outbound, **H2)]))
        flags = {"h2c": ["-plaintext"], "pair": ["-plaintext"], "tls": ["-cacert", public / "root-cert.pem", "-authority", "localhost"]}

        def call(way, *arguments, code=0, options=(), data=None):
            what = [*options, *(["-d", "@"] if data else [])]
            done = subprocess.run([programs["grpcurl"], "-max-time", "60", *flags[way], *what, f"{harness.LOOPBACK}:{ports[way]}", *arguments],
                                  capture_output=True, text=True, timeout=120, check=False, input=data)
            assert done.returncode == code, f"{done.returncode}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
            return done.stdout + done.stderr
        eventually(lambda: subprocess.run([programs["grpcurl"], "-plaintext", f"{harness.LOOPBACK}:{ports['origin']}", "list"], capture_output=True,
                                          timeout=20, check=False).returncode == 0, 60, "the service")
        yield call
    finally:
        server.terminate()
        server.wait(10)
        for p in proxies:
            p.stop()


def messages(text):
    """The JSON values that follow each other in grpcurl's output."""
    decoder, out = json.JSONDecoder(), []
    while text.strip():
        value, end = decoder.raw_decode(text.lstrip())
        out.append(value)
        text = text.lstrip()[end:]
    return out


@pytest.mark.parametrize("way", WAYS)
def test_reflection(world, way):
    assert {SERVICE, "grpc.health.v1.Health"} <= set(world(way, "list").split())
    assert f"{SERVICE}.FullDuplexCall" in world(way, "list", SERVICE)
    assert "message Payload {" in world(way, "describe", "grpc.testing.Payload")


@pytest.mark.parametrize("way", WAYS)
def test_health(world, way):
    assert messages(world(way, "grpc.health.v1.Health/Check", data=json.dumps({"service": SERVICE}))) == [{"status": "SERVING"}]
    missing = world(way, "grpc.health.v1.Health/Check", data='{"service": "nobody"}', code=64 + 5)
    assert "Code: NotFound" in missing


@pytest.mark.parametrize("way", WAYS)
def test_unary(world, way):
    assert messages(world(way, f"{SERVICE}/EmptyCall")) == [{}]
    wanted = {"response_size": 300000, "payload": {"body": "AAAA" * 50000}}
    answer = messages(world(way, f"{SERVICE}/UnaryCall", options=["-max-msg-sz", "10000000"], data=json.dumps(wanted)))
    assert len(answer) == 1 and len(answer[0]["payload"]["body"]) == 400000
    failed = {"response_status": {"code": 9, "message": "not now: \u00e9\u2713 100%"}}
    assert "Message: not now: \u00e9\u2713 100%" in world(way, f"{SERVICE}/UnaryCall", data=json.dumps(failed), code=64 + 9)
    assert "Code: Unimplemented" in world(way, f"{SERVICE}/UnimplementedCall", code=64 + 12)


@pytest.mark.parametrize("way", WAYS)
def test_streams(world, way):
    sizes = [31415, 9, 2653, 58979]
    wanted = {"response_parameters": [{"size": n} for n in sizes]}
    lengths = [len(m["payload"]["body"]) for m in messages(world(way, f"{SERVICE}/StreamingOutputCall", data=json.dumps(wanted)))]
    assert lengths == [-(-n // 3) * 4 for n in sizes]
    up = "".join(json.dumps({"payload": {"body": "AAAA" * n}}) for n in (1000, 1, 20000))
    assert messages(world(way, f"{SERVICE}/StreamingInputCall", data=up)) == [{"aggregatedPayloadSize": 3 * 21001}]
    both = "".join(json.dumps({"response_parameters": [{"size": n}]}) for n in sizes)
    assert len(messages(world(way, f"{SERVICE}/FullDuplexCall", data=both))) == len(sizes)


@pytest.mark.parametrize("way", WAYS)
def test_metadata(world, way):
    said = world(way, f"{SERVICE}/UnaryCall", options=["-v", "-H", "x-grpc-test-echo-initial: hello", "-H", "x-grpc-test-echo-trailing-bin: q6ur"])
    assert "x-grpc-test-echo-initial: hello" in said.partition("Response trailers received:")[0]
    assert "x-grpc-test-echo-trailing-bin: q6ur" in said.partition("Response trailers received:")[2]

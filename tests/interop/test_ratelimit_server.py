# SPDX-License-Identifier: Apache-2.0
"""make interop-ratelimit: envoyproxy/ratelimit (Go module, pinned in ratelimit/go.mod; its counters in miniredis, ratelimit/main.go) behind the
filter that Istio's documentation has an EnvoyFilter make, with the limits of that documentation."""

import concurrent.futures
import os
import pathlib
import subprocess
import sys
import urllib.request

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import harness  # noqa: E402
from go_programs import build  # noqa: E402
from harness import LOOPBACK, ROUTER, ask, cluster, eventually, free_port, hcm, http2_upstream, listener, route, web  # noqa: E402

# A year in place of a minute: its window does not turn while the test runs (but for new year's eve).
LIMITS = """domain: ratelimit
descriptors:
  - key: PATH
    value: "/productpage"
    rate_limit: {name: product, unit: year, requests_per_unit: 3}
  - key: PATH
    rate_limit: {unit: year, requests_per_unit: 100}
  - key: user
    rate_limit: {unit: year, requests_per_unit: 2}
"""


@pytest.fixture(scope="module")
def limiter(tmp_path_factory):
    """The port of gRPC."""
    programs = build("ratelimit", redis=".", ratelimit="github.com/envoyproxy/ratelimit/src/service_cmd")
    folder = tmp_path_factory.mktemp("ratelimit")
    (folder / "limits/config").mkdir(parents=True)
    (folder / "limits/config/config.yaml").write_text(LIMITS)
    redis, http, grpc, debug = (free_port() for _ in range(4))
    env = {**os.environ, "LOG_LEVEL": "warn", "USE_STATSD": "false", "REDIS_SOCKET_TYPE": "tcp", "REDIS_URL": f"{LOOPBACK}:{redis}", "RUNTIME_ROOT": str(folder),
           "RUNTIME_SUBDIRECTORY": "limits", "RUNTIME_WATCH_ROOT": "false", "HOST": LOOPBACK, "GRPC_HOST": LOOPBACK, "DEBUG_HOST": LOOPBACK, "PORT": str(http),
           "GRPC_PORT": str(grpc), "DEBUG_PORT": str(debug)}
    running = [subprocess.Popen([programs["redis"], str(redis)])]
    try:
        harness.eventually(lambda: not harness.connect(redis).close(), 30, "miniredis")
        running.append(subprocess.Popen([programs["ratelimit"]], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        eventually(lambda: urllib.request.urlopen(f"http://{LOOPBACK}:{http}/healthcheck", timeout=5).read() == b"OK", 60, "the rate limit server")
        yield grpc
    finally:
        for p in running:
            p.kill()
            p.wait(10)


@pytest.fixture
def port(limiter, tmp_path):
    b = harness.Backend(web())
    port = free_port()
    config = {"domain": "ratelimit", "failure_mode_deny": True, "timeout": "10s", "enable_x_ratelimit_headers": "DRAFT_VERSION_03", "rate_limit_service": {
        "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}}, "transport_api_version": "V3"}}
    f = {"name": "envoy.filters.http.ratelimit", "typed_config": {
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit", "value": config}}
    limits = [{"actions": [{"request_headers": {"header_name": ":path", "descriptor_key": "PATH"}}]},
              {"actions": [{"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}]},
              {"actions": [{"generic_key": {"descriptor_value": "unlimited"}}]}]
    host = {"name": "inbound|http|9080", "domains": ["*"], "routes": [route("b")], "rate_limits": limits}
    p = harness.Proxy(tmp_path / "proxy", [listener(port, hcm([], virtual_hosts=[host], http_filters=[f, ROUTER]))],
                      [cluster("b", [b.port]), cluster("limits", [limiter], **http2_upstream())], concurrency=2)
    yield port
    p.stop()
    b.close()


def test_limit_of_one_path(port):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(port, "/productpage"), range(12)))
    assert sorted(a.status for a in answers) == [200] * 3 + [429] * 9
    limited = next(a for a in answers if a.status == 429)
    assert limited.headers["x-envoy-ratelimited"] == "true"
    assert limited.headers["x-ratelimit-limit"].startswith("3, 3;w=31536000") and limited.headers["x-ratelimit-remaining"] == "0"
    assert sorted(a.headers["x-ratelimit-remaining"] for a in answers if a.status == 200) == ["0", "1", "2"]


def test_limit_of_each_other_path(port):
    a = ask(port, "/reviews")
    assert a.status == 200 and a.headers["x-ratelimit-limit"] == "100, 100;w=31536000" and a.headers["x-ratelimit-remaining"] == "99"


def test_the_nearest_limit_of_several(port):
    seen = [ask(port, "/details", headers={"x-user": "jo"}) for _ in range(3)]
    assert [a.status for a in seen] == [200, 200, 429]
    assert seen[0].headers["x-ratelimit-remaining"] == "1"
    assert ask(port, "/details", headers={"x-user": "ann"}).status == 200

# SPDX-License-Identifier: Apache-2.0
"""The HTTP/1 ambiguity cases (tests/conformance/h1) through the real proxy: what reaches the other side must have one reading."""
import asyncio
import sys

import pytest

from harness import ROOT, cluster, free_port, hcm, listener, route

sys.path.insert(0, str(ROOT / "tests/conformance/h1"))
import corpus  # noqa: E402
import wire  # noqa: E402

LANES = 8


def start(proxy, **more):
    """A listener and a cluster of each kind for each lane."""
    def make(upstreams):
        listeners, clusters, ports = [], [], []
        for i, upstream in enumerate(upstreams):
            lane = {}
            for kind, options in wire.KINDS.items():
                lane[kind] = free_port()
                name = f"lane{i}{kind}"
                clusters.append(cluster(name, [upstream], http_protocol_options=options))
                listeners.append(listener(lane[kind], hcm([route(name)], stat_prefix=name, http_protocol_options=options,
                                                          codec_type="HTTP1" if kind else "AUTO",
                                                          upgrade_configs=[{"upgrade_type": "websocket"}])))
            ports.append(lane)
        p = proxy(listeners, clusters, **more)
        return ports, lambda: None if p.p.poll() is None else pytest.fail(f"the proxy ended:\n{p.text()[-3000:]}")
    return make


def run(proxy, cases, **more):
    return asyncio.run(wire.run_all(cases, LANES, start(proxy, **more)))


def complain(results):
    return "\n".join(repr(r) for r in results if r.verdict not in ("clean", "rejected", "skipped"))


def test_requests_have_one_reading_at_the_origin(proxy):
    results = run(proxy, [c for c in corpus.load() if c.request])
    assert not complain(results), complain(results)
    assert sum(r.verdict == "rejected" for r in results) >= 200 and sum(r.verdict == "clean" for r in results) >= 80


def test_responses_have_one_reading_at_the_client(proxy):
    results = run(proxy, [c for c in corpus.load() if not c.request])
    assert not complain(results), complain(results)
    assert sum(r.verdict == "rejected" for r in results) >= 30 and sum(r.verdict == "clean" for r in results) >= 20


def test_lenient_reading_is_one_reading_too(proxy):
    """The runtime key lets through what old programs write; what reaches the other side is as strict as ever."""
    runtime = {"layers": [{"name": "compat", "static_layer": {"remora.http1.lenient": True}}]}
    results = run(proxy, [c.in_lenient_reading() for c in corpus.load()], layered_runtime=runtime)
    assert not complain(results), complain(results)
    assert sum(r.verdict == "clean" for r in results if r.case.lenient is not None) >= 30

# SPDX-License-Identifier: Apache-2.0
"""The admin page /explain and `remoractl explain`: the way of a request, and why the others lose."""

import json
import os
import subprocess
import urllib.error
import urllib.parse

import pytest

import harness
from harness import BIN, address, cluster, hcm, listener, tcp_proxy

CTL = BIN / "remoractl"


def steps(answer, step, verdict=None):
    return {s["name"]: s["why"] for s in answer["steps"] if s["step"] == step and verdict in (None, s["verdict"])}


@pytest.fixture
def mesh(proxy):
    a, b = harness.free_port(), harness.free_port()
    web, tcp = harness.free_port(), harness.free_port()
    vhosts = [
        {"name": "reviews", "domains": ["reviews", "reviews.default"], "routes": [
            {"name": "jason", "match": {"prefix": "/", "headers": [{"name": "end-user", "string_match": {"exact": "jason"}}]}, "route": {"cluster": "outbound|9080|v2|reviews"}},
            {"name": "beta", "match": {"path": "/beta", "query_parameters": [{"name": "on", "present_match": True}]}, "route": {"cluster": "v1"}},
            {"name": "half", "match": {"prefix": "/half", "runtime_fraction": {"default_value": {"numerator": 50}}}, "route": {"cluster": "v1"}},
            {"name": "canary", "match": {"prefix": "/canary"}, "route": {"weighted_clusters": {"clusters": [{"name": "v1", "weight": 90}, {"name": "outbound|9080|v2|reviews", "weight": 10}]}}},
            {"name": "subset", "match": {"prefix": "/subset"}, "route": {"cluster": "subsets", "metadata_match": {"filter_metadata": {"envoy.lb": {"version": "v2"}}}}},
            {"name": "moved", "match": {"prefix": "/moved"}, "redirect": {"host_redirect": "x"}},
            {"name": "lost", "match": {"prefix": "/lost"}, "route": {"cluster": "nowhere"}},
            {"name": "default", "match": {"prefix": "/"}, "route": {"cluster": "v1"}},
            {"name": "never", "match": {"prefix": "/"}, "route": {"cluster": "v1"}}]},
        {"name": "wild", "domains": ["*.default"], "routes": [harness.route("v1")]}]
    meta = {"metadata": {"filter_metadata": {"envoy.lb": {"version": "v2"}}}}
    subsets = cluster("subsets", [], lb_subset_config={"fallback_policy": "NO_FALLBACK", "subset_selectors": [{"keys": ["version"]}]})
    subsets["load_assignment"]["endpoints"] = [{"lb_endpoints": [{"endpoint": {"address": address(a)}}, {"endpoint": {"address": address(b)}, **meta}]}]
    v1 = cluster("v1", [a])
    v1["load_assignment"]["endpoints"] = [
        {"priority": 0, "lb_endpoints": [{"endpoint": {"address": address(a)}}, {"endpoint": {"address": address(b)}, "health_status": "UNHEALTHY"}]},
        {"priority": 1, "lb_endpoints": [{"endpoint": {"address": address(b, "127.0.0.2")}}]}]
    p = proxy([listener(web, hcm([], virtual_hosts=vhosts, route_config={"name": "r", "virtual_hosts": vhosts, "validate_clusters": False}), name="web"),
               listener(tcp, tcp_proxy("v1"), name="tcp")], [v1, subsets, cluster("outbound|9080|v2|reviews", [b])])
    p.web, p.tcp, p.a, p.b = web, tcp, a, b

    def explain(url, **more):
        q = [("url", url)] + [(k, v) for k, v in more.items() if k != "headers"] + [("header", h) for h in more.get("headers", [])]
        return json.loads(p.get("/explain?" + urllib.parse.urlencode(q, quote_via=urllib.parse.quote)))
    p.explain = explain
    return p


def test_way_of_a_request_and_why_others_lose(mesh):
    r = mesh.explain(f"http://reviews:{mesh.web}/x", headers=["end-user: jason"])
    assert list(steps(r, "listener", "taken")) == ["web"]
    assert r["result"] == "no cluster" or "no virtual host" in r["result"]  # the port is part of the authority here
    r = mesh.explain(f"http://reviews:{mesh.web}/x", headers=["host: reviews.default", "end-user: jason"])
    assert list(steps(r, "virtual host", "taken")) == ["reviews"]
    assert "less specific" in steps(r, "virtual host", "lost")["wild"]
    assert list(steps(r, "route", "taken")) == ["[0] jason"]
    assert "comes later" in steps(r, "route", "lost")["[7] default"]
    assert "too" in steps(r, "route", "lost")["[7] default"] and "does not fit" in steps(r, "route", "lost")["[1] beta"]
    assert list(steps(r, "subset", "taken")) == ["v2"]
    assert list(steps(r, "endpoint", "taken")) == [f"127.0.0.1:{mesh.b}"]


def test_reasons(mesh):
    host = ["host: reviews"]
    base = f"http://reviews:{mesh.web}"
    r = mesh.explain(base + "/beta", headers=host)
    lost = steps(r, "route", "lost")
    assert "header end-user" in lost["[0] jason"] and "query" in lost["[1] beta"] and "begin with /half" in lost["[2] half"]
    assert list(steps(r, "route", "taken")) == ["[7] default"]
    endpoints = steps(r, "endpoint", "lost")
    assert "unhealthy" in endpoints[f"127.0.0.1:{mesh.b}"] and "priority 1" in endpoints[f"127.0.0.2:{mesh.b}"]
    assert "chance" in steps(mesh.explain(base + "/half", headers=host), "route", "note")["[2] half"]
    r = mesh.explain(base + "/canary", headers=host)
    assert "90 of 100" in steps(r, "cluster", "taken")["v1"] and "10 of 100" in steps(r, "cluster", "note")["outbound|9080|v2|reviews"]
    r = mesh.explain(base + "/subset", headers=host)
    assert "version=v2" in steps(r, "subset", "taken")
    assert steps(r, "endpoint", "lost") == {f"127.0.0.1:{mesh.a}": "not in the subset"}
    assert mesh.explain(base + "/moved", headers=host)["result"] == "301: redirect"
    assert "no cluster" in mesh.explain(base + "/lost", headers=host)["result"]
    assert "404" in mesh.explain(base + "/", headers=["host: other"])["result"]
    assert "TCP proxy" in steps(mesh.explain(f"http://x:{mesh.tcp}/"), "action")


def test_wrong_questions(mesh):
    for q in ("", "?url=", "?url=http://a/&header=nocolon", "?url=http://a/&dst=name"):
        with pytest.raises(urllib.error.HTTPError) as e:
            mesh.get("/explain" + q)
        assert e.value.code == 400 and e.value.read()


@pytest.mark.skipif(not os.access(CTL, os.X_OK), reason=f"{CTL} is not built")
def test_remoractl_explain(mesh):
    def run(*args):
        return subprocess.run([CTL, "explain", "--address", f"127.0.0.1:{mesh.admin_port}", *args], capture_output=True, text=True, timeout=30, check=False)
    r = run("GET", f"http://reviews:{mesh.web}/x?y=1&z", "-H", "Host: reviews", "-H", "End-User: jason")
    assert r.returncode == 0, r.stderr
    assert "STEP" in r.stdout and "[0] jason" in r.stdout and r.stdout.rstrip().endswith("cluster outbound|9080|v2|reviews")
    r = run(f"http://reviews:{mesh.web}/x", "-H", "host: reviews", "-o", "json")
    assert json.loads(r.stdout)["result"] == "cluster v1"
    assert "result: cluster v1" in run(f"http://reviews:{mesh.web}/x", "-H", "host: reviews", "-o", "yaml").stdout
    assert run().returncode == 2 or "explain wants" in run().stderr
    assert "name: value" in run(f"http://reviews:{mesh.web}/", "-H", "bad").stderr


def test_path_and_host_as_the_manager_makes_them(proxy):
    """What a request is matched by is what the connection manager has made of it."""
    port, other = harness.free_port(), harness.free_port()
    vhosts = [{"name": "v", "domains": ["shop"], "routes": [{"name": "admin", "match": {"prefix": "/admin"}, "direct_response": {"status": 403}}, harness.route("c")]}]
    p = proxy([listener(port, hcm([], virtual_hosts=vhosts, normalize_path=True, merge_slashes=True, strip_any_host_port=True,
                                  path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT"))], [cluster("c", [other])])

    def explain(path):
        return json.loads(p.get("/explain?url=" + urllib.parse.quote(f"http://shop:{port}{path}")))
    r = explain("/x/..//admin/./a")
    assert list(steps(r, "route", "taken")) == ["[0] admin"] and list(steps(r, "path")) == ["/admin/a"] and list(steps(r, "host")) == ["shop"]
    assert explain("/x%2fy")["result"] == "307: path normalised"
    assert list(steps(explain("/x"), "path")) == []

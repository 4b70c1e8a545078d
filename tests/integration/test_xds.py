# SPDX-License-Identifier: Apache-2.0
"""The xDS streams from both ends: remora-control heard by a client of ours, remora-proxy fed by a control plane of ours."""

import http.client
import os
import shutil
import subprocess

import pytest

from harness import BIN, LOOPBACK, ROOT, address, ask, eventually, free_port, wait_for, web

grpc = pytest.importorskip("grpc", reason="python3-grpcio is not installed")
if shutil.which("protoc") is None:
    pytest.skip("protoc is not installed", allow_module_level=True)

from mesh import edit  # noqa: E402
from xdswire import URLS, Client, Server, encode, field  # noqa: E402

NODE = ('id: "sidecar~10.42.0.11~productpage.default~default.svc.cluster.local" cluster: "productpage.default" '
        'metadata { fields { key: "NAMESPACE" value { string_value: "default" } } '
        'fields { key: "LABELS" value { struct_value { fields { key: "app" value { string_value: "productpage" } } } } } }')


# --- remora-control ---

class Control:
    def __init__(self, folder):
        self.config, self.log = folder / "config", folder / "control.log"
        shutil.copytree(ROOT / "examples/bookinfo", self.config)
        self.grpc_port, self.http_port = free_port(), free_port()
        with open(self.log, "ab") as out:
            self.p = subprocess.Popen([BIN / "remora-control", "serve", "--config", self.config, "--state", folder / "state", "--grpc-addr",
                                       f"{LOOPBACK}:{self.grpc_port}", "--secure-addr", f"{LOOPBACK}:{free_port()}", "--http-addr",
                                       f"{LOOPBACK}:{self.http_port}"], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        wait_for("remora-control", lambda: ask(self.http_port, "/ready").status == 200, 10)
        self.clients = []

    def client(self, delta):
        c = Client(self.grpc_port, delta, NODE)
        self.clients.append(c)
        return c

    def close(self):
        for c in self.clients:
            c.close()
        self.p.terminate()
        try:
            assert self.p.wait(8) == 0, self.log.read_text()[-2000:]
        finally:
            if self.p.poll() is None:
                self.p.kill()


@pytest.fixture
def control(tmp_path):
    if not os.access(BIN / "remora-control", os.X_OK):
        pytest.skip(f"{BIN / 'remora-control'} is not built")
    c = Control(tmp_path)
    yield c
    c.close()


CANARY = "outbound|9080|v2|reviews.default.svc.cluster.local"


def test_sotw_serves_everything_and_stays_silent_after_the_ack(control):
    c = control.client(False)
    c.subscribe("cds")
    r = c.hear()
    assert {CANARY, "PassthroughCluster", "BlackHoleCluster"} <= set(r.resources)
    c.ack("cds", r)
    c.subscribe("lds")
    r = c.hear()
    assert {"virtualOutbound", "virtualInbound"} <= set(r.resources)
    c.ack("lds", r)
    c.subscribe("eds", [CANARY])
    r = c.hear()
    assert set(r.resources) == {CANARY} and "10.42.0.22" in field(r.text("eds", CANARY), "address")
    c.ack("eds", r, [CANARY])
    c.subscribe("rds", ["9080"])
    r = c.hear()
    assert "reviews.default.svc.cluster.local:9080" in field(r.text("rds", "9080"), "name")
    c.ack("rds", r, ["9080"])
    assert c.hear(0.5) is None


def test_sotw_pushes_only_types_that_changed(control):
    c = control.client(False)
    for kind, names in (("cds", ()), ("rds", ("9080",))):
        c.subscribe(kind, names)
        c.ack(kind, c.hear(), names)
    edit(control.config / "reviews.yaml", "weight: 90", "weight: 70")
    r = c.hear()
    assert r.type == URLS["rds"] and "value: 70" in r.text("rds", "9080")
    c.ack("rds", r, ["9080"])
    assert c.hear(0.5) is None


def test_delta_sends_what_changed_and_what_is_gone(control):
    c = control.client(True)
    c.subscribe("cds", ["*"])
    r = c.hear()
    assert CANARY in r.resources
    c.ack("cds", r)
    assert c.hear(0.3) is None
    third = CANARY.replace("v2", "v3")
    subset = "  - name: v3\n    labels:\n      version: v3\n"
    edit(control.config / "reviews.yaml", "  subsets:\n", "  subsets:\n" + subset)
    r = c.hear()
    assert set(r.resources) == {third} and not r.removed
    c.ack("cds", r)
    edit(control.config / "reviews.yaml", subset, "")
    r = c.hear()
    assert r.removed == [third] and not r.resources
    c.ack("cds", r)
    edit(control.config / "reviews.yaml", "simple: ROUND_ROBIN", "simple: RANDOM")
    r = c.hear()
    assert r.resources and all("reviews" in n for n in r.resources) and not r.removed
    c.ack("cds", r)
    assert c.hear(0.3) is None


def test_a_subset_that_is_still_routed_to_cannot_be_removed(control):
    c = control.client(True)
    c.subscribe("cds", ["*"])
    c.ack("cds", c.hear())
    edit(control.config / "reviews.yaml", "  - name: v2\n    labels:\n      version: v2\n", "")
    assert c.hear(1.0) is None
    assert "v2" in control.log.read_text()


def test_delta_reconnect_is_told_what_is_gone(control):
    c = control.client(True)
    c.subscribe("cds", ["*"])
    r = c.hear()
    c.ack("cds", r)
    c.close()
    known = " ".join(f'initial_resource_versions {{ key: "{k}" value: "{v}" }}' for k, (v, _) in r.resources.items())
    again = control.client(True)
    again.subscribe("cds", ["*"], more=known + ' initial_resource_versions { key: "outbound|1||gone" value: "1" }')
    assert again.hear().removed == ["outbound|1||gone"]


def test_garbage_does_not_harm_control(control):
    c = control.client(True)
    c.out.put(b"\xff\xff\xff\xff")
    try:
        c.hear(2)
    except grpc.RpcError:
        pass
    good = control.client(True)
    good.subscribe("cds", ["*"])
    assert CANARY in good.hear().resources
    assert control.p.poll() is None


# --- remora-proxy ---

def bootstrap(delta):
    return {"dynamic_resources": {
        "ads_config": {"api_type": "DELTA_GRPC" if delta else "GRPC", "transport_api_version": "V3",
                       "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
        "cds_config": {"ads": {}, "resource_api_version": "V3"}, "lds_config": {"ads": {}, "resource_api_version": "V3"}}}


# What Envoy wants of a gRPC cluster.
XDS_OPTIONS = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}}}}


def xds_cluster(port, options=None):
    return {"name": "xds", "type": "STATIC", "connect_timeout": "1s", **(options or {}),
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]}}


def cluster_text(name, port, more=""):
    return (f'name: "{name}" type: STATIC connect_timeout {{ seconds: 1 }} {more} load_assignment {{ cluster_name: "{name}" endpoints {{ '
            f'lb_endpoints {{ endpoint {{ address {{ socket_address {{ address: "127.0.0.1" port_value: {port} }} }} }} }} }} }}')


def listener_text(name, port, cluster):
    hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    return (f'name: "{name}" address {{ socket_address {{ address: "127.0.0.1" port_value: {port} }} }} filter_chains {{ filters {{ '
            f'name: "hcm" typed_config {{ [{hcm}] {{ stat_prefix: "x" route_config {{ name: "r" virtual_hosts {{ name: "v" domains: "*" '
            f'routes {{ match {{ prefix: "/" }} route {{ cluster: "{cluster}" }} }} }} }} http_filters {{ name: "envoy.filters.http.router" '
            'typed_config { [type.googleapis.com/envoy.extensions.filters.http.router.v3.Router] { } } } } } } }')


@pytest.fixture
def server():
    s = Server(free_port())
    yield s
    s.stop()


def is_ack(text):
    return bool(field(text, "response_nonce")) and "error_detail" not in text


def is_nack(text):
    return "error_detail" in text


def test_delta_good_applied_bad_refused_by_name_and_the_old_one_kept(server, proxy, backend):
    b = backend(web("a"))
    port = free_port()
    p = proxy([], [xds_cluster(server.port)], wait=False, **bootstrap(True))
    server.hear("cds")
    server.send_delta("cds", {"a": cluster_text("a", b.port)}, "n1")
    server.hear("cds", want=is_ack)
    server.hear("lds")
    server.send_delta("lds", {"one": listener_text("one", port, "a")}, "n2")
    server.hear("lds", want=is_ack)
    p.wait_ready()
    wait_for("the listener", lambda: ask(port).status == 200, 5)

    # one good new cluster beside a change of "a" that cannot be: refused by name, the good one in force, the old "a" too
    server.send_delta("cds", {"good": cluster_text("good", b.port),
                              "a": f'name: "a" type: STATIC connect_timeout {{ seconds: 1 }} lb_policy: 99 '}, "n3", version="2")
    nack = server.hear("cds", want=is_nack)
    assert field(nack, "response_nonce") == ["n3"]
    said = "".join(field(nack, "message"))
    assert "a" in said and ("lb_policy" in said or "99" in said), said
    assert ask(port).status == 200
    assert "good::" in p.get("/clusters")
    assert p.stat("cluster_manager.cds.update_rejected") == 1

    # and then a listener whose filter nobody knows
    other = free_port()
    server.send_delta("lds", {"two": f'name: "two" address {{ socket_address {{ address: "127.0.0.1" port_value: {other} }} }} '
                              'filter_chains { filters { name: "mystery" } }'}, "n4", version="2")
    nack = server.hear("lds", want=is_nack)
    assert "two" in "".join(field(nack, "message"))
    with pytest.raises(OSError):
        ask(other)
    assert ask(port).status == 200


def chain_text(name, source, cluster):
    hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    return (f'filter_chains {{ name: "{name}" filter_chain_match {{ source_prefix_ranges {{ address_prefix: "{source}" prefix_len {{ value: 32 }} }} }} '
            f'filters {{ name: "hcm" typed_config {{ [{hcm}] {{ stat_prefix: "x" route_config {{ name: "r" virtual_hosts {{ name: "v" domains: "*" '
            f'routes {{ match {{ prefix: "/" }} route {{ cluster: "{cluster}" }} }} }} }} http_filters {{ name: "envoy.filters.http.router" '
            'typed_config { [type.googleapis.com/envoy.extensions.filters.http.router.v3.Router] { } } } } } } }')


class Kept:
    """A client's connection from one of the loopback's addresses that is used again and again."""

    def __init__(self, port, source):
        self.c = http.client.HTTPConnection(LOOPBACK, port, timeout=20, source_address=(source, 0))
        self.c.connect()
        self.local = self.c.sock.getsockname()

    def get(self):
        """The body, and whether the proxy goes on with the connection."""
        try:
            self.c.request("GET", "/")
            r = self.c.getresponse()
            body = r.read().decode()
        except (http.client.HTTPException, OSError):
            return None, False
        assert r.status == 200
        return body, r.getheader("connection") != "close" and self.c.sock is not None and self.c.sock.getsockname() == self.local


def test_only_connections_of_changed_filter_chains_are_drained(server, proxy, backend):
    backends = {"a": backend(web("a")).port, "b": backend(web("b")).port}
    port = free_port()
    front = f'name: "one" address {{ socket_address {{ address: "127.0.0.1" port_value: {port} }} }} '
    p = proxy([], [xds_cluster(server.port)], wait=False, **bootstrap(True))
    server.hear("cds")
    server.send_delta("cds", {n: cluster_text(n, at) for n, at in backends.items()}, "n1")
    server.hear("cds", want=is_ack)
    server.hear("lds")
    server.send_delta("lds", {"one": front + chain_text("first", "127.0.0.1", "a") + chain_text("second", "127.0.0.2", "a")}, "n2")
    server.hear("lds", want=is_ack)
    p.wait_ready()
    first, second = Kept(port, "127.0.0.1"), Kept(port, "127.0.0.2")
    assert first.get() == ("a", True) and second.get() == ("a", True)

    # the second chain goes elsewhere, a third one is new, and they stand in another order
    server.send_delta("lds", {"one": front + chain_text("third", "127.0.0.3", "b") + chain_text("second", "127.0.0.2", "b") +
                              chain_text("first", "127.0.0.1", "a")}, "n3", version="2")
    server.hear("lds", want=is_ack)
    wait_for("the drain of the second chain", lambda: not second.get()[1], 20)
    assert Kept(port, "127.0.0.2").get() == ("b", True)
    assert first.get() == ("a", True)

    # a change of something else concerns every connection
    server.send_delta("lds", {"one": front + "per_connection_buffer_limit_bytes { value: 65536 } " + chain_text("first", "127.0.0.1", "a")}, "n4",
                      version="3")
    server.hear("lds", want=is_ack)
    wait_for("the drain of the first chain", lambda: not first.get()[1], 20)


def test_sotw_nack_names_the_version_in_force(server, proxy, backend):
    b = backend(web("a"))
    port = free_port()
    p = proxy([], [xds_cluster(server.port)], wait=False, **bootstrap(False))
    server.hear("cds")
    server.send_sotw("cds", [cluster_text("a", b.port)], "n1", "v1")
    ack = server.hear("cds", want=is_ack)
    assert field(ack, "version_info") == ["v1"]
    server.hear("lds")
    server.send_sotw("lds", [listener_text("one", port, "a")], "n2", "v1")
    server.hear("lds", want=is_ack)
    p.wait_ready()
    wait_for("the listener", lambda: ask(port).status == 200, 5)
    server.send_sotw("cds", ['name: "a" type: STATIC connect_timeout { seconds: 1 } lb_policy: 99'], "n3", "v2")
    nack = server.hear("cds", want=is_nack)
    assert field(nack, "response_nonce") == ["n3"] and field(nack, "version_info") == ["v1"]
    assert ask(port).status == 200
    # a listener that is no longer named is gone
    server.send_sotw("lds", [], "n4", "v2")
    server.hear("lds", want=is_ack)

    def gone():
        try:
            ask(port)
            return False
        except OSError:
            return True
    eventually(gone, what="the listener to be gone")


def test_garbage_from_the_control_plane_changes_nothing(server, proxy, backend):
    b = backend(web("a"))
    port = free_port()
    p = proxy([], [xds_cluster(server.port)], wait=False, **bootstrap(True))
    server.hear("cds")
    server.send_delta("cds", {"a": cluster_text("a", b.port)}, "n1")
    server.hear("lds")
    server.send_delta("lds", {"one": listener_text("one", port, "a")}, "n2")
    p.wait_ready()
    wait_for("the listener", lambda: ask(port).status == 200, 5)
    for junk in (b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"", encode("envoy.service.discovery.v3.DeltaDiscoveryResponse",
                                                                          'type_url: "type.googleapis.com/no.such.Type" nonce: "x"')):
        server.send(junk)
        assert ask(port).status == 200
    assert p.p.poll() is None
    # it still listens to reason, on this stream or on the next
    wait_for("a stream", lambda: server.streams, 5)

    def reasonable():
        other = free_port()
        server.send_delta("lds", {"two": listener_text("two", other, "a")}, "n9", version="9")
        try:
            wait_for("it", lambda: ask(other).status == 200, 0.7)
            return True
        except Exception:
            return False
    eventually(reasonable, 15, "the next good message to be taken")


def test_control_plane_gone_and_back(server, proxy, backend):
    b = backend(web("a"))
    port = free_port()
    p = proxy([], [xds_cluster(server.port)], wait=False, **bootstrap(True))
    server.hear("cds")
    server.send_delta("cds", {"a": cluster_text("a", b.port)}, "n1")
    server.hear("lds")
    server.send_delta("lds", {"one": listener_text("one", port, "a")}, "n2")
    p.wait_ready()
    wait_for("the listener", lambda: ask(port).status == 200, 5)
    server.stop()
    assert [ask(port).status for _ in range(20)] == [200] * 20
    fresh = Server(server.port)
    try:
        again = fresh.hear("cds", 20)
        assert "initial_resource_versions" in again and '"a"' in again
        assert ask(port).status == 200
        fresh.send_delta("cds", {}, "m1", removed=["nobody"])
        fresh.hear("cds", want=is_ack)
    finally:
        fresh.stop()


def test_bootstrap_as_envoy_wants_it(server, proxy):
    proxy([], [xds_cluster(server.port, {"typed_extension_protocol_options": XDS_OPTIONS})], wait=False, **bootstrap(True))
    server.hear("cds")


def test_no_control_plane_at_start_is_not_ready(proxy):
    p = proxy([], [xds_cluster(free_port())], wait=False, **bootstrap(True))

    def state():
        try:
            return p.get("/ready")
        except Exception as e:
            return getattr(e, "code", None) and f"code {e.code}"
    assert wait_for("the admin port", state, 5) == "code 503"

# SPDX-License-Identifier: Apache-2.0
"""A small mesh in network namespaces: remora-init, remora-control and sidecars as a user runs them, and what goes wrong in one."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from harness import BIN, ROOT, a_world, wait_for
from mesh import Place, Sidecars, edit, http, interpreter

PREFIX = f"rmi{os.getpid()}"
APPS = ROOT / "tests/demo/apps.py"
# two workloads of the example, and somebody outside the mesh
WORKLOADS = {"productpage": ("10.42.0.11", "productpage", "v1", "bookinfo-productpage"),
             "reviews-v1": ("10.42.0.21", "reviews", "v1", "bookinfo-reviews"),
             "reviews-v2": ("10.42.0.22", "reviews", "v2", "bookinfo-reviews")}
OUTSIDE = "10.42.0.99"
REVIEWS, REDIS = "10.96.1.20", "10.96.1.40"


def why_not():
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    for name in ("remora-init", "remora-control", "remora-proxy"):
        if not (BIN / name).exists():
            return f"{BIN / name} is not built"
    p = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False)
    return f"cannot make a network namespace: {p.stderr.strip()}" if p.returncode else None


REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


class World:
    def __init__(self, folder):
        self.folder = folder
        (folder / "logs").mkdir()
        (folder / "proxies").mkdir()
        self.place = Place(PREFIX)
        self.mesh = Sidecars(self.place, folder, BIN)
        shutil.copytree(ROOT / "examples/bookinfo", self.mesh.config)
        shutil.copy(APPS, folder / "apps.py")
        self.proxies = {}

    def up(self):
        self.place.build({n: w[0] for n, w in WORKLOADS.items()} | {"outside": OUTSIDE}, {"reviews": REVIEWS})
        for name, w in WORKLOADS.items():
            self.app(name, "web", w[1], w[2], "9080")
        self.app("outside", "web", "outside", "v0", "9080")
        self.app("outside", "redis", "7000")
        self.mesh.start_control()
        for name in WORKLOADS:
            self.mesh.init(name)
            self.start_proxy(name)
        for name, p in self.proxies.items():
            self.mesh.wait_proxy(p, name)
        self.wait_status(200)

    def app(self, host, *args):
        self.place.spawn(f"{host} app", host, [interpreter(), self.folder / "apps.py", *args], self.mesh.log(f"{host}-{args[0]}"), 65534)

    def start_proxy(self, name, token=None, more=None):
        _, app, version, account = WORKLOADS[name]
        self.proxies[name] = self.mesh.start_proxy(name, app, version, account, token, more)

    def restart(self, name, more):
        """With more variables."""
        self.place.stop([self.proxies[name]], grace=10)
        self.start_proxy(name, more=more)
        self.mesh.wait_proxy(self.proxies[name], name)

    def ask(self, path="/", address=REVIEWS, port=9080, host="reviews:9080", source="productpage", **headers):
        return http(self.place, source, address, port, path, {"Host": host, **headers}, timeout=5)

    def versions(self, n=200):
        count = {}
        for _ in range(n):
            status, headers, _ = self.ask()
            key = headers.get("x-version", str(status)) if status == 200 else str(status)
            count[key] = count.get(key, 0) + 1
        return count

    def wait_status(self, status, timeout=15, **kw):
        wait_for(f"status {status}", lambda: self.ask(**kw)[0] == status, timeout, 0.05)

    def edit(self, name, old, new):
        return edit(self.mesh.config / name, old, new)

    def edition(self):
        return self.ask()[1].get("x-canary")

    def control_log(self):
        return self.mesh.log("remora-control").read_text()


@pytest.fixture(scope="module")
def world():
    with a_world(World, PREFIX) as w:
        yield w


@pytest.fixture(autouse=True)
def restored(request):
    """Each test starts from the example as it is, with everything running, and leaves it so."""
    if REASON:
        yield
        return
    w = request.getfixturevalue("world")
    yield
    for f in w.mesh.config.iterdir():
        if not (ROOT / "examples/bookinfo" / f.name).exists():
            f.unlink()
    for f in (ROOT / "examples/bookinfo").glob("*.yaml"):
        if (w.mesh.config / f.name).read_text() != f.read_text() or w.mesh.control is None or not w.mesh.control.alive():
            fresh = w.mesh.config / f".{f.name}.new"
            shutil.copy(f, fresh)
            os.rename(fresh, w.mesh.config / f.name)
    if not w.mesh.control.alive():
        w.mesh.start_control()

    def as_before():
        got = w.versions(60)
        return w.edition() == "90-10" and set(got) == {"v1", "v2"} and got["v1"] > got["v2"]
    wait_for("the example to be in force again", as_before, 20, 0.05)


# --- interception ---

def test_virtual_address_reaches_a_workload(world):
    status, headers, _ = world.ask()
    assert status == 200 and headers["x-app"] == "reviews"


def test_unknown_destination_is_passed_through(world):
    status, headers, _ = world.ask(address=OUTSIDE, host="outside:9080")
    assert status == 200 and headers["x-app"] == "outside"


def test_unknown_tcp_destination_is_passed_through(world):
    with world.place.connect("productpage", OUTSIDE, 7000) as s:
        s.sendall(b"PING\r\n")
        assert s.recv(100) == b"+PONG\r\n"


def test_unknown_destination_that_refuses(world):
    with pytest.raises(OSError):
        with world.place.connect("productpage", OUTSIDE, 7999) as s:
            s.settimeout(5)
            s.sendall(b"hello")
            if not s.recv(10):
                raise ConnectionResetError


@pytest.mark.parametrize("port", [15001, 15006])
def test_calling_the_proxy_ports_directly_does_not_loop(world, port):
    before = world.proxies["productpage"].pid
    with contextlib.suppress(OSError):
        with world.place.connect("productpage", "10.42.0.11", port) as s:
            s.settimeout(2)
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while s.recv(4096):
                pass
    open_files = len(os.listdir(f"/proc/{before}/fd"))
    assert open_files < 200
    assert world.ask()[0] == 200


def test_application_calls_itself(world):
    status, headers, _ = http(world.place, "reviews-v1", "127.0.0.1", 9080)
    assert status == 200 and headers["x-app"] == "reviews"


def test_a_service_without_workload_answers_503_or_closes(world):
    with pytest.raises(OSError):
        with world.place.connect("productpage", REDIS, 6379) as s:
            s.settimeout(5)
            s.sendall(b"PING\r\n")
            if not s.recv(10):
                raise ConnectionResetError


# --- identity ---

def test_both_ends_know_each_other(world):
    xfcc = json.loads(world.ask("/headers")[2])["headers"]["x-forwarded-client-cert"]
    assert "By=spiffe://cluster.local/ns/default/sa/bookinfo-reviews" in xfcc
    assert "URI=spiffe://cluster.local/ns/default/sa/bookinfo-productpage" in xfcc


def test_an_application_cannot_forge_its_identity(world):
    xfcc = json.loads(world.ask("/headers", **{"x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/default/sa/admin"})[2])
    assert "sa/admin" not in xfcc["headers"]["x-forwarded-client-cert"]


def plaintext(world):
    try:
        return http(world.place, "outside", "10.42.0.21", 9080)[0]
    except OSError:
        return None


def test_strict_permissive_strict(world):
    assert plaintext(world) is None
    world.edit("security.yaml", "mode: STRICT", "mode: PERMISSIVE")
    wait_for("plaintext to be served", lambda: plaintext(world) == 200, 10, 0.05)
    assert world.ask()[0] == 200
    world.edit("security.yaml", "mode: PERMISSIVE", "mode: STRICT")
    wait_for("plaintext to be refused", lambda: plaintext(world) is None, 10, 0.05)


def test_a_sidecar_without_a_valid_token_never_gets_ready(world):
    name = "reviews-v2"
    world.place.stop([world.proxies[name]], grace=8)
    good = subprocess.run([BIN / "remora-control", "token", "--state", world.mesh.state, "--namespace", "default", "--service-account",
                           WORKLOADS[name][3]], capture_output=True, text=True, check=True).stdout.strip()
    world.start_proxy(name, token=good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB"))
    try:
        time.sleep(1.5)
        for port, path in ((15021, "/healthz/ready"), (9080, "/")):  # not ready, and nothing is served, in plaintext least of all
            try:
                status = http(world.place, "outside", WORKLOADS[name][0], port, path, timeout=2)[0]
            except OSError:
                status = None
            assert status != 200
        assert world.proxies[name].alive()  # it keeps trying
    finally:
        world.place.stop([world.proxies[name]], grace=8)
        world.start_proxy(name)
        world.mesh.wait_proxy(world.proxies[name], name)


# --- configuration ---

def test_canary_edit_takes_effect_without_a_failed_request(world):
    count = world.versions(100)
    assert set(count) == {"v1", "v2"} and count["v1"] > count["v2"]
    world.edit("reviews.yaml", "weight: 90", "weight: 0")
    world.edit("reviews.yaml", "weight: 10", "weight: 100")
    statuses = [world.ask()[0] for _ in range(100)]
    wait_for("only v2", lambda: set(world.versions(20)) == {"v2"}, 10)
    assert set(statuses) == {200}


@pytest.mark.parametrize("old, new, field", [
    ("weight: 90", "weight: ninety", "weight"),
    ("weight: 90", "wieght: 90", "wieght"),
    ("kind: VirtualService", "kind: VirtualServant", "VirtualServant"),
    ("      weight: 90\n", "      weight: [90\n", ""),
])
def test_bad_yaml_keeps_the_old_configuration_and_names_the_place(world, old, new, field):
    text = (world.mesh.config / "reviews.yaml").read_text()
    line = text[:text.index(old)].count("\n") + 1
    at = len(world.control_log())
    world.edit("reviews.yaml", old, new)

    def complained():
        return "reviews.yaml:" in world.control_log()[at:]
    wait_for("remora-control to name the file", complained, 5)
    said = next(x for x in world.control_log()[at:].splitlines() if "reviews.yaml:" in x)
    assert field in said
    number = int(re.search(r"reviews\.yaml:(?: line )?(\d+)", said)[1])
    assert abs(number - line) <= (2 if "[" in new else 0), said
    assert world.edition() == "90-10"
    p = subprocess.run([BIN / "remora-control", "check", "--config", world.mesh.config], capture_output=True, text=True, check=False)
    assert p.returncode == 1 and re.search(rf"reviews\.yaml:(?: line )?{number}\b", p.stderr)
    world.edit("reviews.yaml", new, old)
    world.edit("reviews.yaml", "x-canary: 90-10", "x-canary: mended")
    wait_for("the mended file", lambda: world.edition() == "mended", 5)


def test_a_workload_that_is_removed_gets_no_more_requests(world):
    text = (world.mesh.config / "workloads.yaml").read_text()
    world.edit("reviews.yaml", "weight: 10\n", "weight: 50\n")
    world.edit("reviews.yaml", "weight: 90", "weight: 50")
    wait_for("both versions", lambda: world.versions(30).get("v2", 0) > 3, 10)
    world.edit("workloads.yaml", text, "---".join(p for p in text.split("---") if "name: reviews-v2" not in p))
    wait_for("v2 to be out of service", lambda: "v2" not in world.versions(30), 10)
    assert set(world.versions(60)) == {"v1", "503"}  # the canary half has nobody: it says so


def test_control_plane_killed_and_back(world):
    world.mesh.control.signal(signal.SIGKILL)
    world.mesh.control.wait(5)
    assert set(world.versions(50)) <= {"v1", "v2"}
    world.edit("reviews.yaml", "x-canary: 90-10", "x-canary: after-restart")
    assert world.edition() == "90-10"
    world.mesh.start_control()
    wait_for("the sidecars to take up the new configuration", lambda: world.edition() == "after-restart", 20, 0.1)
    sync = json.loads(http(world.place, "net", "127.0.0.1", 15014, "/debug/syncz")[2])
    assert len(sync) >= 1


def test_syncz_and_metrics_of_control(world):
    def all_there():
        text = http(world.place, "net", "127.0.0.1", 15014, "/debug/syncz")[2].decode()
        return json.loads(text) and all(name in text for name in WORKLOADS)
    wait_for("every sidecar in /debug/syncz", all_there, 20, 0.1)
    metrics = http(world.place, "net", "127.0.0.1", 15014, "/metrics")[2].decode()
    assert "# TYPE" in metrics and "push" in metrics


# --- ports of the sidecar ---

def test_readiness_and_metrics_ports(world):
    address = WORKLOADS["reviews-v1"][0]
    assert http(world.place, "outside", address, 15021, "/healthz/ready")[0] == 200
    status, _, body = http(world.place, "outside", address, 15090, "/stats/prometheus")
    assert status == 200 and b"envoy_cluster_upstream" in body
    assert http(world.place, "outside", address, 15020, "/stats/prometheus")[0] == 200
    with pytest.raises(OSError):  # the admin page is for the pod itself alone
        http(world.place, "outside", address, 15000, "/ready", timeout=2)


def test_probes_of_the_application(world):
    """As Istio's injector rewrites them: the kubelet asks the agent's port, which asks the application at the pod's address, STRICT or not."""
    world.restart("reviews-v1", {"ISTIO_KUBE_APP_PROBERS": json.dumps({
        "/app-health/app/readyz": {"httpGet": {"path": "/ready", "port": 9080, "scheme": "HTTP"}, "timeoutSeconds": 10},
        "/app-health/app/livez": {"tcpSocket": {"port": 9080}, "timeoutSeconds": 10},
        "/app-health/gone/livez": {"tcpSocket": {"port": 9}, "timeoutSeconds": 10},
        "/app-health/gone/readyz": {"httpGet": {"port": 9}, "timeoutSeconds": 10}})})
    address = WORKLOADS["reviews-v1"][0]
    status, _, body = http(world.place, "outside", address, 15020, "/app-health/app/readyz", {"x-probe": "1"}, timeout=20)
    assert status == 200 and b"reviews" in body
    assert http(world.place, "outside", address, 15020, "/app-health/app/livez", timeout=20)[0] == 200
    assert http(world.place, "outside", address, 15020, "/app-health/gone/livez", timeout=20)[0] == 500
    assert http(world.place, "outside", address, 15020, "/app-health/gone/readyz", timeout=20)[0] == 500
    assert http(world.place, "outside", address, 15020, "/app-health/other/readyz", timeout=20)[0] == 400
    world.restart("reviews-v1", {})


def test_pilot_agent_request(world):
    """As tools and preStop hooks call it in the container."""
    def request(*args):
        return subprocess.run([str(a) for a in world.place.argv("reviews-v1", [world.mesh.bin / "remora-proxy", "request", *args])], capture_output=True,
                              text=True, timeout=60, check=False)
    info = request("GET", "server_info")
    assert info.returncode == 0 and json.loads(info.stdout)["state"] == "LIVE"
    assert request("--debug-port=15020", "GET", "/healthz/ready").returncode == 0
    wrong = request("GET", "logging")  # POST only
    assert wrong.returncode == 1 and "405" in wrong.stderr and wrong.stdout == ""


def test_the_hook_of_a_native_sidecar(world):
    """preStop drains inbound connections while the application still calls others; the signal then ends the sidecar at once."""
    name = "productpage"
    hook = subprocess.run([str(a) for a in world.place.argv(name, [world.mesh.bin / "remora-proxy", "request", "--debug-port=15020", "POST", "drain"])],
                          capture_output=True, text=True, timeout=60, check=False)
    assert hook.returncode == 0, hook.stderr
    assert [world.ask()[0] for _ in range(5)] == [200] * 5  # outbound goes on
    world.place.connect("outside", WORKLOADS[name][0], 9080).close()  # and inbound is still accepted
    p = world.proxies[name]
    p.signal(signal.SIGTERM)
    assert p.wait(20) == 0, p.tail()
    assert not re.search(r"\bdraining limit_ms", p.log.read_text()) and "exiting" in p.tail(1)
    world.place.procs.remove(p)
    world.start_proxy(name)
    world.mesh.wait_proxy(world.proxies[name], name)
    world.wait_status(200)


def test_restart_of_a_sidecar(world):
    name = "reviews-v1"
    p = world.proxies[name]
    p.signal(signal.SIGTERM)
    assert p.wait(10) == 0, p.tail()
    world.place.procs.remove(p)
    world.start_proxy(name)
    world.mesh.wait_proxy(world.proxies[name], name)
    wait_for("v1 to be back", lambda: world.versions(20).get("v1", 0) > 5, 10)

# SPDX-License-Identifier: Apache-2.0
"""The container images, built from the Dockerfiles of this tree, in pods laid out as Istio's injector does it: read-only roots, its
users, capabilities, volumes, environment and arguments. Needs root, buildah, runc and mmdebstrap."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
sys.path.insert(0, str(HERE))

import harness  # noqa: E402,F401
import oci  # noqa: E402
from mesh import PROXY_UID, Place, Sidecars, http, interpreter, remove_namespaces, wait_for  # noqa: E402

PREFIX = f"rim{os.getpid()}"
WORKLOADS = {"productpage": ("10.42.0.11", "productpage", "v1", "bookinfo-productpage"),
             "reviews-v1": ("10.42.0.21", "reviews", "v1", "bookinfo-reviews")}
REVIEWS = "10.96.1.20"
# istio-init as the injector of Istio writes it: these arguments, root, everything dropped but two capabilities
INIT_ARGS = ["istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*",
             "-d", "15090,15021,15020", "--log_output_level=default:info"]
INIT_CAPABILITIES = ["CAP_NET_ADMIN", "CAP_NET_RAW"]
PROXY_ARGS = ["proxy", "sidecar", "--domain", "default.svc.cluster.local", "--proxyLogLevel=warning",
              "--proxyComponentLogLevel=misc:error", "--log_output_level=default:info"]
REASON = oci.why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(scope="module")
def images():
    folder = pathlib.Path(os.environ.get("REMORA_IMAGES") or tempfile.mkdtemp(prefix="remora-images-"))
    made = oci.Images(folder)
    if not os.environ.get("REMORA_IMAGES_BUILT"):  # those that are there are taken
        made.build(harness.ROOT)
    yield made
    made.close()


@pytest.fixture(scope="module")
def roots(images):
    return {n: images.root(f"localhost/remora-{n}") for n in ("init:latest", "init:iptables", "proxy:latest", "control:latest")}


class Pods(Sidecars):
    """The demo's mesh, every program of ours in a container."""

    def __init__(self, place, folder, images, roots):
        super().__init__(place, folder, folder)  # no programs of the build
        self.images, self.roots, self.containers = images, roots, []
        self.volume = self.folder / "volume"
        self.volume.mkdir()
        os.chown(self.volume, PROXY_UID, PROXY_UID)
        self.state = self.volume / "state"

    def container(self, image, label, host, **kw):
        c = oci.Container(self.images, self.roots[image], f"localhost/remora-{image}", label, self.place.ns(host),
                          self.folder / "bundles" / host, **kw)
        self.containers.append(c)
        return c

    def control_volumes(self):
        return [("/etc/remora/config", self.config, "ro"), ("/var/lib/remora", self.volume, "rw")]

    def start_control(self, *extra):
        cmd = self.images.config("localhost/remora-control:latest")["Cmd"]
        c = self.container("control:latest", "control", self.place.hub, mounts=self.control_volumes(),
                           args=[*cmd, "--san", self.place.hub_ip, *extra])
        self.control = c.process
        wait_for("remora-control to be ready", self.control_ready, 30)

    def run_init(self, host, label="istio-init", image="init:latest", **kw):
        c = self.container(image, label, host, **{"args": INIT_ARGS, "capabilities": INIT_CAPABILITIES, "uid": 0, **kw})
        return c.wait(), c.log()

    def start_pod(self, name):
        """init container, then the sidecar, with the volumes that the injector gives it."""
        _, app, version, account = WORKLOADS[name]
        code, log = self.run_init(name)
        assert code == 0, log
        home = self.folder / "pods" / name
        for d in ("tokens", "istio", "pod"):
            (home / d).mkdir(parents=True)
        token = self.container("control:latest", f"token-{len(self.containers)}", self.place.hub, mounts=self.control_volumes(),
                               args=["token", "--state", "/var/lib/remora/state", "--namespace", "default", "--service-account", account])
        assert token.wait() == 0, token.log()
        (home / "tokens/istio-token").write_text(token.log().strip())
        shutil.copy(self.state / "root-cert.pem", home / "istio/root-cert.pem")
        (home / "pod/labels").write_text(f'app="{app}"\nversion="{version}"\n')
        (home / "pod/annotations").write_text("")
        for f in home.rglob("*"):
            os.chown(f, 0, PROXY_UID)  # fsGroup
            f.chmod(0o750 if f.is_dir() else 0o640)
        control = f"{self.place.hub_ip}:15012"
        env = {"PILOT_CERT_PROVIDER": "istiod", "CA_ADDR": control, "POD_NAME": name, "POD_NAMESPACE": "default",
               "INSTANCE_IP": self.place.hosts[name], "SERVICE_ACCOUNT": account, "HOST_IP": self.place.hub_ip, "ISTIO_CPU_LIMIT": "2",
               "PROXY_CONFIG": json.dumps({"discoveryAddress": control}), "ISTIO_META_POD_PORTS": '[{"containerPort":9080}]',
               "ISTIO_META_APP_CONTAINERS": app, "ISTIO_META_CLUSTER_ID": "Kubernetes", "ISTIO_META_NODE_NAME": "node",
               "ISTIO_META_INTERCEPTION_MODE": "REDIRECT", "ISTIO_META_WORKLOAD_NAME": name, "ISTIO_META_MESH_ID": "cluster.local",
               "TRUST_DOMAIN": "cluster.local"}
        return self.container("proxy:latest", "istio-proxy", name, args=PROXY_ARGS, env=env, mounts=[
            ("/var/run/secrets/tokens", home / "tokens", "ro"), ("/var/run/secrets/istio", home / "istio", "ro"),
            ("/etc/istio/pod", home / "pod", "ro")])

    def close(self):
        for c in self.containers:
            c.remove()


@pytest.fixture(scope="module")
def mesh(images, roots):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="remora-pods-"))
    folder.chmod(0o755)
    (folder / "logs").mkdir()
    place = Place(PREFIX)
    pods = Pods(place, folder, images, roots)
    try:
        shutil.copytree(harness.ROOT / "examples/bookinfo", pods.config)
        shutil.copy(harness.ROOT / "tests/demo/apps.py", folder)
        place.build({n: w[0] for n, w in WORKLOADS.items()} | {"outside": "10.42.0.99"}, {"reviews": REVIEWS})
        for name, w in WORKLOADS.items():
            place.spawn(f"{name} app", name, [interpreter(), folder / "apps.py", "web", w[1], w[2], "9080"], pods.log(f"{name}-web"), 65534)
        pods.start_control()
        pods.sidecars = {name: pods.start_pod(name) for name in WORKLOADS}
        for name, c in pods.sidecars.items():
            pods.wait_proxy(c.process, name, 30)
        yield pods
    finally:
        for c in pods.containers:  # shown when something failed
            print(f"--- {c.name}\n" + "\n".join(c.log().splitlines()[-15:]))
        pods.close()
        place.close()
        remove_namespaces(PREFIX)
        shutil.rmtree(folder, ignore_errors=True)


def ruleset(place, name):
    text = subprocess.run(["ip", "netns", "exec", place.ns(name), "nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    return re.sub(r"packets \d+ bytes \d+", "packets 0 bytes 0", text)


def ask(mesh, **kw):
    return http(mesh.place, "productpage", REVIEWS, 9080, "/", {"Host": "reviews:9080"}, timeout=5, **kw)


def test_sizes_and_users(images):
    size = images.layers_bytes("localhost/remora-init:latest")
    assert size < 3_500_000, f"the init image holds {size} bytes"
    assert images.config("localhost/remora-init:latest")["User"] == "0:0"
    for name in ("proxy", "control"):
        assert images.config(f"localhost/remora-{name}:latest")["User"] == "1337:1337"


def test_nothing_but_programs_of_ours_in_the_init_image(roots):
    programs = {p.name for p in pathlib.Path(roots["init:latest"]).rglob("*") if p.is_file() and os.access(p, os.X_OK) and "bin" in p.parts}
    assert programs == {"remora-init", "istio-iptables"}


def test_traffic_between_pods_is_intercepted_and_authenticated(mesh):
    wait_for("an answer", lambda: ask(mesh)[0] == 200, 20)
    status, headers, _ = ask(mesh)
    assert (status, headers.get("x-version")) == (200, "v1")
    stats = mesh.admin("reviews-v1", "/stats?filter=ssl.handshake")
    assert any(int(line.rsplit(":", 1)[1]) > 0 for line in stats.splitlines()), stats
    certificates = mesh.admin("productpage", "/certs")
    assert "spiffe://cluster.local/ns/default/sa/bookinfo-productpage" in certificates


def test_plain_text_from_outside_is_refused_where_it_must_be(mesh):
    with pytest.raises(OSError):
        http(mesh.place, "outside", mesh.place.hosts["reviews-v1"], 9080, "/", timeout=5)


def test_the_sidecar_ends_by_sigterm_and_comes_back(mesh):
    old = mesh.sidecars["reviews-v1"]
    assert old.stop(30) == 0, old.log()[-2000:]
    shutil.rmtree(mesh.folder / "pods/reviews-v1")
    mesh.sidecars["reviews-v1"] = new = mesh.start_pod("reviews-v1")
    mesh.wait_proxy(new.process, "reviews-v1", 30)
    wait_for("an answer", lambda: ask(mesh)[0] == 200, 20)


def test_init_says_what_it_lacks(mesh):
    code, log = mesh.run_init("outside", "powerless", capabilities=[])
    assert code != 0 and "CAP_NET_ADMIN" in log, log
    assert "remora" not in ruleset(mesh.place, "outside")


def test_init_as_a_user_other_than_root(mesh):
    """The file's capability gives NET_ADMIN back where the pod allows it and privileges may be gained."""
    code, log = mesh.run_init("outside", "user", uid=1337, no_new_privileges=False)
    assert code == 0, log
    as_user = ruleset(mesh.place, "outside")
    assert "table inet remora" in as_user
    code, log = mesh.run_init("outside", "again")
    assert code == 0 and "unchanged" in log, log
    assert ruleset(mesh.place, "outside") == as_user
    code, log = mesh.run_init("outside", "cleanup", args=["cleanup"])
    assert code == 0 and "remora" not in ruleset(mesh.place, "outside"), log


def test_the_image_with_iptables_uses_it(mesh):
    code, log = mesh.run_init("outside", "iptables", "init:iptables", args=[*INIT_ARGS, "--backend=iptables-nft"],
                              mounts=[("/run", None, "rw")])
    assert code == 0, log
    try:
        rules = ruleset(mesh.place, "outside")
        assert "table ip nat" in rules and "redirect to :15001" in rules and "table inet remora" not in rules
    finally:
        code, log = mesh.run_init("outside", "iptables-cleanup", "init:iptables", args=["cleanup"], mounts=[("/run", None, "rw")])
    assert code == 0, log

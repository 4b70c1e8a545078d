# SPDX-License-Identifier: Apache-2.0
"""A mesh of Istio's own without Kubernetes: istiod (unchanged) over a stand-in for the API server and a folder of files, and pods that are network
namespaces. What stands in a pod comes from `istioctl kube-inject` with the injection template of Istio's chart: arguments, environment, mounts and
users of both containers. The sidecar is remora-proxy under the name pilot-agent, or Istio's own: pilot-agent and Envoy."""

import http.client
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

import yaml

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))

from mesh import MeshError, Place, http as http_once, resident_mib, wait_for  # noqa: E402

# A container without a container engine: the machine's programs and libraries, a root that is read-only but for the pod's volumes, the user, its
# capabilities and no new ones. Runs in the mount namespace that `ip netns exec` has made.
ENTER = """set -e
root=$1; programs=$2; user=$3; caps=$4; shift 4
mount --bind "$root" "$root"
for d in usr/bin usr/sbin usr/lib usr/lib64 usr/share; do [ ! -d /$d ] || mount --bind -o ro /$d "$root/$d"; done
for d in proc sys dev; do mount --rbind /$d "$root/$d"; done
mount --bind "$programs" "$root/usr/local/bin"
while [ "$1" != -- ]; do mount --bind "$root$1" "$root$1"; shift; done
shift
mount -o remount,bind,ro "$root"
exec chroot "$root" /usr/bin/setpriv --reuid=$user --regid=$user --clear-groups --no-new-privs --bounding-set=$caps --inh-caps=$caps -- "$@"
"""
KUBECONFIG = """apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "http://{0}:16443"}}}}]
users: [{{name: u, user: {{}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""
ISTIOD = {"POD_NAME": "istiod", "POD_NAMESPACE": "istio-system", "CLUSTER_ID": "Kubernetes", "ISTIO_KUBE_CLIENT_CONTENT_TYPE": "json",
          "ENABLE_LEADER_ELECTION": "false", "PILOT_ENABLE_GATEWAY_API": "false", "INJECTION_WEBHOOK_CONFIG_NAME": "",
          "VALIDATION_WEBHOOK_CONFIG_NAME": "", "PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION": "false"}
# What a stock Envoy can take: it has none of Istio's own filters
STOCK = {"PILOT_ENABLE_METADATA_EXCHANGE": "false", "PILOT_DISABLE_MX_ALPN": "true", "PILOT_ENABLE_ALPN_FILTER": "false"}
NETWORK = "10.44.0"
ADDRESSES = {"istiod": f"{NETWORK}.2", "stock": f"{NETWORK}.3"}


class Pod:
    def __init__(self, name, ip, app, version="v1", ports=(("http", 8080), ("tcp", 9000)), namespace="default", injected=True, stock=False,
                 annotations=None, probes=None):
        self.name, self.app, self.version, self.namespace, self.injected, self.stock = name, app, version, namespace, injected, stock
        self.ip, self.ports, self.annotations = f"{NETWORK}.{ip}", ports, annotations or {}
        self.spec = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": {"app": app, "version": version},
                                                                      "annotations": self.annotations},
                     "spec": {"serviceAccountName": app, "nodeName": "node-a",
                              "containers": [{"name": "app", "image": "app", "ports": [{"name": n, "containerPort": p} for n, p in ports], **(probes or {})}]}}
        self.ready = True

    def object(self):
        o = json.loads(json.dumps(self.spec))
        o["status"] = {"phase": "Running", "podIP": self.ip, "podIPs": [{"ip": self.ip}], "hostIP": f"{NETWORK}.1",
                       "conditions": [{"type": "Ready", "status": "True" if self.ready else "False"}]}
        return o


def service(name, address, ports, selector, **more):
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
            "spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"], "selector": {"app": selector},
                     "ports": [{"name": n, "port": p, "targetPort": t, "protocol": "TCP"} for n, p, t in ports], **more}}


def slice_of(s, pods):
    name, ports = s["metadata"]["name"], s["spec"]["ports"]
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": f"{name}-1", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": p["name"], "port": p["targetPort"], "protocol": "TCP"} for p in ports],
            "endpoints": [{"addresses": [p.ip], "nodeName": "node-a", "targetRef": {"kind": "Pod", "name": p.name, "namespace": p.namespace},
                           "conditions": {"ready": p.ready, "serving": p.ready, "terminating": False}}
                          for p in pods if p.app == s["spec"]["selector"]["app"]]}


class IstioMesh:
    """programs: istiod, istioctl, kubestub, xdscap [and pilot-agent]; module: folder of istio.io/istio's source; binaries: remora's programs."""

    def __init__(self, prefix, folder, programs, module, binaries, pods, services, envoy=None, mesh_config=""):
        self.folder, self.programs, self.module, self.envoy = pathlib.Path(folder), programs, pathlib.Path(module), envoy
        self.pods, self.services = {p.name: p for p in pods}, services
        self.config, self.kube, self.logs = (self.folder / n for n in ("config", "kube", "logs"))
        for d in (self.config, self.kube, self.logs):
            d.mkdir(parents=True)
        (self.folder / "mesh.yaml").write_text(
            "trustDomain: cluster.local\naccessLogFile: /dev/stdout\ndefaultConfig: {discoveryAddress: istiod.istio-system.svc:15012}\n" + mesh_config)
        (self.folder / "mesh-stock.yaml").write_text(
            (self.folder / "mesh.yaml").read_text().replace("istiod.istio", "istiod-stock.istio") + "defaultProviders: {accessLogging: [envoy]}\n")
        names = {"istiod.istio-system.svc": ADDRESSES["istiod"], "istiod-stock.istio-system.svc": ADDRESSES["stock"]}
        names.update({f"{s['metadata']['name']}.default.svc.cluster.local": s["spec"]["clusterIP"] for s in services
                      if s["spec"]["clusterIP"] != "None"})
        self.place = Place(prefix, NETWORK)
        self.place.build({**ADDRESSES, **{p.name: p.ip for p in pods}}, names)
        self.names, self.control, self.sidecars = names, {}, {}
        self._programs(pathlib.Path(binaries))
        self._authority()
        self.injected = {p.name: self.inject(p, p.stock) for p in pods if p.injected}
        for name, o in self.injected.items():
            self.pods[name].spec["metadata"].update({k: o["metadata"][k] for k in ("labels", "annotations")})
        self.write_kube()

    # --- files ---

    def _programs(self, binaries):
        """The two images' programs."""
        for product in ("remora", "envoy"):
            (self.folder / product).mkdir()
        shutil.copy2(binaries / "remora-proxy", self.folder / "remora")
        shutil.copy2(binaries / "remora-init", self.folder / "remora")
        os.symlink("remora-proxy", self.folder / "remora/pilot-agent")
        if self.envoy:
            shutil.copy2(self.programs["pilot-agent"], self.folder / "envoy")
            shutil.copy2(self.envoy, self.folder / "envoy/envoy")

    def _authority(self):
        """A plugged-in authority, as both istiods share it."""
        ca = self.folder / "ca"
        ca.mkdir()
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/O=cluster.local",
                        "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", ca / "ca-key.pem", "-out", ca / "ca-cert.pem"],
                       check=True, capture_output=True)
        for name in ("root-cert.pem", "cert-chain.pem"):
            shutil.copy(ca / "ca-cert.pem", ca / name)

    def write_kube(self):
        """Pods, services and endpoints for the stand-in, which reads them each second."""
        objects = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n, "labels": {"kubernetes.io/metadata.name": n}}}
                   for n in ("default", "other", "istio-system")]
        objects += [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a", "labels": {
            "topology.kubernetes.io/region": "r1", "topology.kubernetes.io/zone": "z1"}}}]
        objects += [p.object() for p in self.pods.values()] + self.services + [slice_of(s, self.pods.values()) for s in self.services]
        fresh = self.kube / ".objects.new"
        fresh.write_text(yaml.safe_dump_all(objects))
        fresh.rename(self.kube / "objects.yaml")

    def apply(self, name, text):
        fresh = self.folder / "fresh.yaml"
        fresh.write_text(text)
        fresh.rename(self.config / f"{name}.yaml")

    def delete(self, name):
        (self.config / f"{name}.yaml").unlink()

    # --- the control plane ---

    def start_api(self):
        hub = self.place.hub
        self.place.spawn("kubestub", hub, [self.programs["kubestub"], "-addr", "0.0.0.0:16443", "-dir", self.kube], self.logs / "kubestub.log")
        wait_for("the stand-in for the API server", lambda: self.place.connect(hub, "127.0.0.1", 16443).close() or True, 20)

    def start_istiod(self, which="istiod", env=None):
        kubeconfig = self.folder / "kubeconfig"
        kubeconfig.write_text(KUBECONFIG.format(self.place.hub_ip))
        stock = which == "stock"
        p = self.place.spawn(which, which, [
            self.programs["istiod"], "discovery", "--registries=Kubernetes", "--kubeconfig", kubeconfig, "--configDir", self.config, "--meshConfig",
            self.folder / ("mesh-stock.yaml" if stock else "mesh.yaml"), "--networksConfig", "/nonexistent"], self.logs / f"{which}.log",
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "ROOT_CA_DIR": str(self.folder / "ca"), **ISTIOD,
                 "REVISION": "stock" if stock else "default", **(STOCK if stock else {}), **(env or {})}, cwd=self.folder)
        self.control[which] = p

        def ready():
            if not p.alive():
                raise MeshError(f"{which} ended: {p.tail()}")
            return http_once(self.place, which, "127.0.0.1", 8080, "/ready", timeout=2)[0] == 200
        wait_for(f"{which} to be ready", ready, 60)
        return p

    # --- pods ---

    def inject(self, pod, stock):
        """The pod's object after Istio's injector."""
        work = self.folder / "inject"
        work.mkdir(exist_ok=True)
        chart = self.module / "manifests/charts/istio-control/istio-discovery"
        values = yaml.safe_load((chart / "values.yaml").read_text())
        values = {**values.get("_internal_defaults_do_not_set", values), "revision": "stock" if stock else ""}
        (work / "values.json").write_text(json.dumps(values))
        (work / "inject.yaml").write_text(yaml.safe_dump({
            "policy": "enabled", "defaultTemplates": ["sidecar"], "templates": {"sidecar": (chart / "files/injection-template.yaml").read_text()}}))
        (work / "pod.yaml").write_text(yaml.safe_dump(pod.spec))
        done = subprocess.run([self.programs["istioctl"], "kube-inject", "-f", work / "pod.yaml", "--meshConfigFile",
                               self.folder / ("mesh-stock.yaml" if stock else "mesh.yaml"), "--injectConfigFile", work / "inject.yaml", "--valuesFile",
                               work / "values.json", "--revision", "stock" if stock else "default"], check=True, capture_output=True, text=True, timeout=120)
        return next(d for d in yaml.safe_load_all(done.stdout) if d)

    def container(self, pod, injected, c):
        """(root folder, environment, volumes): what the kubelet makes of a container's entry."""
        root = self.folder / "pods" / pod.name
        meta, fields = injected["metadata"], {
            "metadata.name": pod.name, "metadata.namespace": pod.namespace, "status.podIP": pod.ip, "status.hostIP": self.place.hub_ip,
            "spec.serviceAccountName": pod.app, "spec.nodeName": "node-a"}
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME": pod.name, "HOME": "/home",
               "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        limits = {"limits.cpu": "2", "limits.memory": str(1 << 30)}
        for e in c.get("env", []):
            source = e.get("valueFrom", {})
            env[e["name"]] = (fields[source["fieldRef"]["fieldPath"]] if "fieldRef" in source else
                              limits[source["resourceFieldRef"]["resource"]] if source else e.get("value", ""))
        for name in os.environ:
            if name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
                env[name] = os.environ[name]
        for d in ("proc", "sys", "dev", "tmp", "etc", "var/lib/istio/envoy", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/share", "usr/local/bin", "home"):
            (root / d).mkdir(parents=True, exist_ok=True)
        for d in ("bin", "sbin", "lib", "lib64"):
            if not (root / d).is_symlink():
                os.symlink(f"usr/{d}", root / d)
        hosts = ["127.0.0.1 localhost", f"{pod.ip} {pod.name}"] + [f"{ip} {n}" for n, ip in self.names.items()]
        (root / "etc/hosts").write_text("\n".join(hosts) + "\n")
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nistio-proxy:x:1337:1337::/home:/bin/sh\n")
        (root / "etc/resolv.conf").write_text(f"search {pod.namespace}.svc.cluster.local svc.cluster.local cluster.local\nnameserver {self.place.hub_ip}\n")
        for name in ("ld.so.cache", "nsswitch.conf"):
            if pathlib.Path("/etc", name).exists():
                shutil.copy(pathlib.Path("/etc", name), root / "etc" / name)
        shutil.copy(self.module / "tools/packaging/common/envoy_bootstrap.json", root / "var/lib/istio/envoy/envoy_bootstrap_tmpl.json")
        volumes = [m["mountPath"] for m in c.get("volumeMounts", [])]
        for v in volumes:
            (root / v[1:]).mkdir(parents=True, exist_ok=True)
            (root / v[1:]).chmod(0o777)
        if volumes:
            pod_info = root / "etc/istio/pod"
            for kind in ("labels", "annotations"):
                (pod_info / kind).write_text("".join(f"{k}={json.dumps(v)}\n" for k, v in sorted(meta[kind].items())))
            (root / "var/run/secrets/istio/root-cert.pem").write_text(self.root_cert(pod.namespace))
            self.write_token(pod)
        return root, env, volumes

    def root_cert(self, namespace):
        """What istiod published for pods to mount."""
        def get():
            status, _, body = http_once(self.place, self.place.hub, "127.0.0.1", 16443, f"/api/v1/namespaces/{namespace}/configmaps/istio-ca-root-cert")
            return status == 200 and json.loads(body)["data"]["root-cert.pem"]
        return wait_for("istiod to publish its root certificate", get, 30)

    def write_token(self, pod, ttl="12h"):
        folder = self.folder / "pods" / pod.name / "var/run/secrets/tokens"
        token = subprocess.run([self.programs["xdscap"], "token", "-key", self.folder / "jwt-key.pem", "-ns", pod.namespace, "-sa", pod.app, "-ttl", ttl],
                               check=True, capture_output=True, text=True).stdout.strip()
        fresh = folder / ".fresh"
        fresh.write_text(token)
        fresh.chmod(0o644)
        fresh.rename(folder / "istio-token")

    def spawn(self, pod, product, injected, c, argv, label, **kw):
        root, env, volumes = self.container(pod, injected, c)
        security = c["securityContext"]
        caps = ",".join(["-all", *("+" + n.lower() for n in security["capabilities"].get("add", []))])
        script, log = self.folder / "enter.sh", self.logs / f"{label}.log"
        script.write_text(ENTER)
        log.touch()
        log.chmod(0o666)  # Envoy opens /dev/stdout anew, as its user
        return self.place.spawn(label, pod.name, ["/bin/sh", script, root, self.folder / product, security["runAsUser"], caps, *volumes, "--",
                                                  "/usr/local/bin/pilot-agent", *argv], log, env=env, **kw)

    def start_sidecar(self, name, product="remora", wait=True, env=None):
        """Both containers of the injector: the one that sets the rules, and the sidecar."""
        pod, injected = self.pods[name], json.loads(json.dumps(self.injected[name]))
        if not self.sidecars.get(name):
            init = next(c for c in injected["spec"]["initContainers"] if c["name"] == "istio-init")
            p = self.spawn(pod, "remora", injected, init, init["args"], f"{name}-init")
            if p.wait(30) != 0:
                raise MeshError(f"istio-init of {name}: {p.tail()}")
            self.place.procs.remove(p)
        c = next(c for c in injected["spec"]["containers"] if c["name"] == "istio-proxy")
        c["env"] += [{"name": k, "value": v} for k, v in (env or {}).items()]
        argv = [a.replace("$(POD_NAMESPACE)", pod.namespace) for a in c["args"]]
        p = self.spawn(pod, product, injected, c, argv, f"{name}-{product}")
        self.sidecars[name] = p
        if wait:
            self.wait_sidecar(name)
        return p

    def wait_sidecar(self, name, timeout=60):
        p = self.sidecars[name]

        def ready():
            if not p.alive():
                raise MeshError(f"the sidecar of {name} ended with status {p.p.returncode}:\n{p.tail()}")
            return http_once(self.place, name, self.pods[name].ip, 15021, "/healthz/ready", timeout=3)[0] == 200
        wait_for(f"the sidecar of {name} to be ready (log: {p.log})", ready, timeout)

    def stop_sidecar(self, name):
        p = self.sidecars[name]
        self.place.stop([p], grace=15)
        return p

    def start_app(self, name):
        p = self.pods[name]
        self.place.spawn(f"{name}-app", name, [sys.executable, HERE / "istio/app.py", name, json.dumps(dict(p.ports))], self.logs / f"{name}-app.log")
        for _, port in p.ports:
            wait_for(f"the application in {name}", lambda port=port: self.place.connect(name, "127.0.0.1", port).close() or True, 20)

    # --- questions ---

    def admin(self, name, path, method="GET"):
        return http_once(self.place, name, "127.0.0.1", 15000, path, method=method, timeout=30)[2].decode()

    def dump(self, name, path):
        path = pathlib.Path(path)
        path.write_text(self.admin(name, "/config_dump?include_eds"))
        return path

    def istioctl(self, *args, place=None, check=True):
        argv = [self.programs["istioctl"], *args]
        if place:
            argv = self.place.argv(place, argv)
        done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=120, check=False,
                              env={**os.environ, "HOME": str(self.folder), "KUBECONFIG": str(self.folder / "kubeconfig")})
        if check and done.returncode:
            raise MeshError(f"istioctl {' '.join(map(str, args))}: {done.stderr}{done.stdout}")
        return done.stdout

    def proxy_status(self, which="istiod"):
        """Rows of `istioctl proxy-status` with a certificate of this istiod's authority: {proxy: {column: cell}}."""
        certs = self.folder / f"operator-{which}"
        if not certs.exists():
            certs.mkdir()
            (certs / "token").write_text(subprocess.run([self.programs["xdscap"], "token", "-key", self.folder / "jwt-key.pem", "-ns", "istio-system", "-sa",
                                                         "default"], check=True, capture_output=True, text=True).stdout.strip())
            name = "istiod-stock" if which == "stock" else "istiod"
            done = subprocess.run([str(a) for a in self.place.argv(which, [
                self.programs["xdscap"], "csr", "-root", self.folder / "ca/root-cert.pem", "-addr", "127.0.0.1:15012", "-server-name",
                f"{name}.istio-system.svc", "-token", certs / "token", "-out", certs / "c", "-san", "spiffe://cluster.local/ns/istio-system/sa/default"])],
                capture_output=True, text=True, timeout=60, check=False)
            if done.returncode:
                raise MeshError(done.stderr + done.stdout)
            for old, new in (("c-key.pem", "key.pem"), ("c-cert-chain.pem", "cert-chain.pem"), ("c-root-cert.pem", "root-cert.pem")):
                (certs / old).rename(certs / new)
        text = self.istioctl("proxy-status", "--xds-address", "127.0.0.1:15012", "--authority", "istiod.istio-system.svc", "--cert-dir", certs, "--revision",
                             "default", "--verbosity", "1", place=which)
        head, *rows = [[c.strip() for c in re.split(r"\s{2,}", line.strip())] for line in text.splitlines() if line.strip()]
        return {r[0]: dict(zip(head, r)) for r in rows}

    def stats(self, name, text="", usedonly=True):
        found = {}
        for line in self.admin(name, "/stats?" + ("usedonly" if usedonly else "")).splitlines():
            key, _, value = line.rpartition(": ")
            if text in key and value.isdigit():
                found[key] = int(value)
        return found

    def ask(self, name, host, port=80, path="/", address=None, timeout=10, **kw):
        """One request on a connection of its own from the pod's application: (status, headers, body as JSON or bytes)."""
        address = address or self.names.get(f"{host}.default.svc.cluster.local") or host
        status, headers, body = http_once(self.place, name, address, port, path, {"Host": host, **kw.pop("headers", {})}, timeout=timeout, **kw)
        try:
            return status, headers, json.loads(body)
        except ValueError:
            return status, headers, body

    def echo(self, name, address, port, data=b"hello\n", timeout=10):
        with self.place.connect(name, address, port, timeout) as s:
            s.settimeout(timeout)
            s.sendall(data)
            got = b""
            while b"\n" not in got:
                part = s.recv(65536)
                if not part:
                    break
                got += part
            return got

    def resident(self, name):
        """MiB of all processes of the sidecar's container."""
        p, children = self.sidecars[name], []
        for d in pathlib.Path("/proc").iterdir():
            if d.name.isdigit():
                try:
                    if os.getsid(int(d.name)) == p.pid:
                        children.append(int(d.name))
                except OSError:
                    pass
        return sum(resident_mib(c) for c in children), children

    def cpu_seconds(self, name):
        """User and system time of all processes of the sidecar's container."""
        ticks = 0
        for pid in self.resident(name)[1]:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def close(self):
        self.place.close()


class Traffic(threading.Thread):
    """Requests one after the other on kept-alive connections from a pod until stop(); counts who answered, and what went wrong."""

    def __init__(self, mesh, pod, host, path="/", port=80, pause=0.005, address=None):
        super().__init__(daemon=True)
        self.address = address or mesh.names[f"{host}.default.svc.cluster.local"]
        self.mesh, self.pod, self.host, self.path, self.port, self.pause = mesh, pod, host, path, port, pause
        self.answers, self.failures, self.over = {}, [], threading.Event()
        self.start()

    def run(self):
        c = None
        while not self.over.is_set():
            try:
                if c is None:
                    c = http.client.HTTPConnection(self.host, self.port, timeout=20)
                    c.sock = self.mesh.place.connect(self.pod, self.address, self.port, 20)
                c.request("GET", self.path, headers={"Host": self.host})
                r = c.getresponse()
                body = r.read()
                who = json.loads(body)["pod"] if r.status == 200 else f"{r.status} {body[:80]!r}"
                if r.status != 200:
                    self.failures.append(who)
                self.answers[who] = self.answers.get(who, 0) + 1
                if r.will_close:
                    c.close()
                    c = None
            except (OSError, http.client.HTTPException, ValueError) as e:
                self.failures.append(repr(e))
                c = None
            self.over.wait(self.pause)

    def stop(self):
        self.over.set()
        self.join(30)
        return self

    def since(self, seconds, pods=None):
        """Answers of the next seconds."""
        before = dict(self.answers)
        time.sleep(seconds)
        return {k: v - before.get(k, 0) for k, v in self.answers.items() if v > before.get(k, 0)}

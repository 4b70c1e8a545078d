#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""record.py PROGRAMS BASE OUT [MESH [LABELS]]: what istiod sends one sidecar for each of the folders' cases. Runs in a network namespace of its own
(unshare -n), since the programs bind fixed ports. Reads {"case": YAML} from standard input; writes OUT/CASE/{CDS,EDS,LDS,RDS}.json, or
OUT/CASE/refused when istiod does not take the files. MESH: text of a MeshConfig; LABELS: of the sidecar."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.request

NAMESPACES = "\n---\n".join(f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {n}}}" for n in ("default", "other", "foo", "istio-system"))
KUBECONFIG = """apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:16443"}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""
ENVIRONMENT = {"POD_NAME": "istiod", "POD_NAMESPACE": "istio-system", "REVISION": "default", "CLUSTER_ID": "Kubernetes",
               "ISTIO_KUBE_CLIENT_CONTENT_TYPE": "json", "ENABLE_LEADER_ELECTION": "false", "PILOT_ENABLE_GATEWAY_API": "false",
               "INJECTION_WEBHOOK_CONFIG_NAME": "", "VALIDATION_WEBHOOK_CONFIG_NAME": "", "PILOT_DEBOUNCE_AFTER": "20ms",
               "PILOT_ENABLE_XDS_CACHE": "false"}  # what is cached by versions of PeerAuthentications, which files do not have, is old
MARK = """apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: mark, namespace: default}}
spec: {{hosts: [mark{}.test], resolution: STATIC, ports: [{{number: 1, name: http, protocol: HTTP}}], endpoints: [{{address: 10.0.0.1}}]}}
"""


def wait_ready(process):
    for _ in range(300):
        assert process.poll() is None, "istiod ended"
        try:
            if urllib.request.urlopen("http://127.0.0.1:18080/ready", timeout=1).status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("istiod is not ready")


def dump(xdscap, out, wait, labels):
    subprocess.run([xdscap, "dump", "-mode", "delta", "-out", out, "-ip", "10.7.0.9", "-name", "client", "-ns", "default", "-sa", "client", "-labels",
                    labels, "-wait", wait], check=True, capture_output=True)
    return json.loads((out / "CDS.json").read_text())


def take(programs, config, cases, out, labels):
    for number, (name, text) in enumerate(cases.items()):
        (config / "case.yaml").write_text(text)
        (config / "mark.yaml").write_text(MARK.format(number))
        target, wanted = out / name, f"outbound|1||mark{number}.test"
        for _ in range(12):
            if any(r.get("name") == wanted for r in dump(programs / "xdscap", target, "250ms", labels)):
                dump(programs / "xdscap", target, "250ms", labels)  # the first one may have seen the change happen
                break
        else:
            shutil.rmtree(target)
            target.mkdir()
            (target / "refused").write_text("")
        print(name, flush=True)


def main():
    programs, base, out = map(pathlib.Path, sys.argv[1:4])
    mesh = sys.argv[4] if len(sys.argv) > 4 else ""
    labels = sys.argv[5] if len(sys.argv) > 5 else "app=client"
    cases, work = json.load(sys.stdin), out / "work"
    config, kube = work / "config", work / "kube"
    config.mkdir(parents=True)
    kube.mkdir()
    shutil.copy(base, config / "base.yaml")
    (kube / "namespaces.yaml").write_text(NAMESPACES)
    (work / "kubeconfig").write_text(KUBECONFIG)
    (work / "mesh.yaml").write_text("trustDomain: cluster.local\n" + mesh)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with open(work / "log", "wb") as log:
        stub = subprocess.Popen([programs / "kubestub", "-addr", "127.0.0.1:16443", "-dir", kube], stdout=log, stderr=log)
        istiod = subprocess.Popen(
            [programs / "istiod", "discovery", "--registries=Kubernetes", "--kubeconfig", work / "kubeconfig", "--configDir", config, "--meshConfig",
             work / "mesh.yaml", "--networksConfig", "/nonexistent", "--httpAddr", "127.0.0.1:18080", "--httpsAddr", "127.0.0.1:15017",
             "--monitoringAddr", "127.0.0.1:15014", "--grpcAddr", "127.0.0.1:15010", "--secureGRPCAddr", "127.0.0.1:15012", "--ctrlz_address",
             "127.0.0.1"], stdout=log, stderr=log, cwd=work, env={**os.environ, **ENVIRONMENT})
        try:
            wait_ready(istiod)
            take(programs, config, cases, out, labels)
        finally:
            istiod.kill()
            stub.kill()


if __name__ == "__main__":
    main()

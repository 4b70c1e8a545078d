# SPDX-License-Identifier: Apache-2.0
"""Cases of AuthorizationPolicies, RequestAuthentications and PeerAuthentications: the filters of the inbound chains that `remora-control compile` makes
of each, beside those of a real istiod, field by field.

policies/cases/GROUP.yaml: the ConfigMap istio (the mesh's settings), then the cases, each behind a line `# case: NAME`, on top of policies/base.yaml.
istiod_policies.json is what istiod sent the sidecar 10.7.0.9 (app=client, version=v1; "refused": istiod does not take the files), recorded by
`make interop-istiod`. DIFFERENCES lists what is not the same, with the reason."""

import json
import pathlib
import subprocess

import yaml

HERE = pathlib.Path(__file__).resolve().parent
CASES = HERE / "policies/cases"
BASE = HERE / "policies/base.yaml"
RECORDED = HERE / "istiod_policies.json"
REFUSED = "refused"
LABELS = "app=client,version=v1"
# istiod gets keys itself unless it is told to let the proxies do it, as remora-control does
ENVIRONMENT = {"PILOT_JWT_ENABLE_REMOTE_JWKS": "envoy"}
TELEMETRY = ("istio.", "envoy.filters.http.grpc_stats")
POLICY = ("envoy.filters.http.rbac", "envoy.filters.network.rbac", "envoy.filters.http.ext_authz", "envoy.filters.network.ext_authz",
          "envoy.filters.http.jwt_authn")

# (case, end of a path, or of the refusal) → why
DIFFERENCES = {
    ("policies/custom-unknown-provider", 'has the name "nobody"'): "istiod lets nothing of it pass; here the file is refused and what was in force stays",
    ("policies/custom-provider-without-service", "is no known service"): "the same",
    ("policies/odd-header-key", "is no attribute that conditions know"): "istiod leaves out the condition",
    ("policies/jwt-no-keys", "no usable key"): "a proxy would refuse the whole listener",
    ("policies/jwt-uri-outside", "remote_jwks.http_uri.cluster"): "a cluster of its own, with TLS, where istiod names one that does not exist",
    ("policies/jwt-uri-and-keys", ".local_jwks"): "keys that are here win over those behind a URI, as in istiod where it gets keys itself",
    ("policies/jwt-uri-and-keys", ".remote_jwks"): "the same",
}


def groups():
    """GROUP → (mesh's settings as YAML of a ConfigMap, {NAME: YAML})"""
    found = {}
    for file in sorted(CASES.glob("*.yaml")):
        head, *parts = file.read_text().split("# case: ")
        cases = {}
        for part in parts:
            name, _, text = part.partition("\n")
            assert name not in cases, name
            cases[name] = text
        found[file.stem] = (head, cases)
    return found


def mesh_config(head):
    """The MeshConfig in a ConfigMap."""
    return yaml.safe_load(head)["data"]["mesh"]


def normal(x):
    """Numbers and durations in one form; default values left out, but not messages whose presence says something."""
    if isinstance(x, dict):
        return {k: normal(v) for k, v in x.items() if v not in ([], None, "", False) and (v != {} or k not in ("policies",))}
    if isinstance(x, list):
        return [normal(v) for v in x]
    if isinstance(x, str) and x.isdigit():
        return int(x)
    if isinstance(x, str) and x.endswith("s") and x[:-1].replace(".", "", 1).isdigit():
        return f"{float(x[:-1]):g}s"
    return x


def tls_names(chain):
    """Prefixes of the peers' names that a chain takes."""
    common = chain.get("transport_socket", {}).get("typed_config", {}).get("common_tls_context", {})
    context = common.get("combined_validation_context", {}).get("default_validation_context", {})
    return [m.get("prefix") for m in context.get("match_subject_alt_names", [])]


def place(chain):
    m = chain.get("filter_chain_match", {})
    return " ".join([str(m.get("destination_port", "*")), m.get("transport_protocol", ""), ",".join(m.get("application_protocols", []))])


def filters_of(listeners):
    """What policies make of virtualInbound: {"http": filters, "tcp": filters, "chains": places with their names of peers, "inspectors": where they are off}"""
    listeners = listeners if isinstance(listeners, list) else listeners.get("resources", listeners.values())
    inbound = next(r for r in (x.get("resource", x) for x in listeners) if r["name"] == "virtualInbound")
    found = {"http": [], "tcp": [], "chains": [], "inspectors": {f["name"]: normal(f.get("filter_disabled", "nowhere")) for f in inbound["listener_filters"]}}
    for chain in inbound["filter_chains"]:
        if "blackhole" in chain["name"]:
            continue
        manager = next((f["typed_config"] for f in chain["filters"] if f["name"].endswith("http_connection_manager")), None)
        filters = [f for f in (manager["http_filters"] if manager else chain["filters"]) if not f["name"].startswith(TELEMETRY)]
        kind = "http" if manager else "tcp"
        first = next((i for i, f in enumerate(filters) if f["name"] not in POLICY), len(filters))
        assert all(f["name"] not in POLICY for f in filters[first:]), "a policy's filter stands behind others"
        policies = [normal(f) for f in filters[:first]]
        if kind not in found["chains"] and not any(c.startswith(kind) for c in found["chains"]):
            found[kind] = policies
        assert found[kind] == policies, f"{place(chain)} is not as the other chains"
        found["chains"].append(f"{kind} {place(chain)} {' '.join(tls_names(chain))}".strip())
    found["chains"].sort()
    return found


def ours(program, head, text, folder):
    """What remora-control makes of a case, or its refusal as text."""
    folder = pathlib.Path(folder)
    (folder / "base.yaml").write_text(BASE.read_text())
    (folder / "mesh.yaml").write_text(head)
    (folder / "case.yaml").write_text(text)
    done = subprocess.run([program, "compile", "--config", folder, "--address", "10.7.0.9", "--labels", LABELS], capture_output=True, text=True,
                          timeout=60, check=False)
    return filters_of(json.loads(done.stdout)["LDS"]) if done.returncode == 0 else done.stderr.strip()


def differences(a, b, path=""):
    """(path, istiod's, ours)"""
    if isinstance(a, dict) and isinstance(b, dict):
        for k in sorted(set(a) | set(b)):
            yield from differences(a.get(k), b.get(k), f"{path}.{k}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b)):
            yield from differences(x, y, f"{path}[{i}]")
    elif a != b:
        yield path, a, b


def compare(theirs, mine):
    """Lines about what is not as in istiod."""
    if theirs == REFUSED or isinstance(mine, str):
        return [] if theirs == REFUSED and isinstance(mine, str) else ["istiod refuses it" if theirs == REFUSED else f"refused: {mine}"]
    return [f"{path}: istiod {json.dumps(a)[:200]}, ours {json.dumps(b)[:200]}" for path, a, b in differences(theirs, mine)]


def unexpected(name, bad, met):
    """Those of bad that DIFFERENCES does not list; what it lists and was met goes into met."""
    left = []
    for line in bad:
        listed = {d for d in DIFFERENCES if d[0] == name and (line.partition(": ")[0].endswith(d[1]) or (line.startswith("refused") and d[1] in line))}
        met |= listed
        left += [] if listed else [line]
    return left


def record(found):
    """found: GROUP/NAME → filters, or REFUSED"""
    RECORDED.write_text("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(found[n], sort_keys=True)}" for n in sorted(found)) + "\n}\n")


def recorded():
    return json.loads(RECORDED.read_text())

# SPDX-License-Identifier: Apache-2.0
"""Small cases of VirtualServices, DestinationRules and ServiceEntries: what `remora-control compile` makes of each, beside what a real istiod sent.

cases/GROUP.yaml holds them, each behind a line `# case: NAME`, on top of config/services.yaml. istiod_cases.json is what istiod sent the sidecar
10.7.0.9 (app=client), in shapes.py's normal form: "base" whole, of each case what differs from it (null: what is gone; "refused": istiod does not take the files). `make interop-istiod` records it. DIFFERENCES lists what is not the same, with the reason."""

import json
import pathlib
import shutil
import subprocess

import shapes

HERE = pathlib.Path(__file__).resolve().parent
BASE = HERE / "config/services.yaml"
RECORDED = HERE / "istiod_cases.json"
REFUSED = "refused"

# (case, end of "TYPE RESOURCE PATH", or of the refusal) → why
DIFFERENCES = {
    ("routes/destination-without-port", ".routes[0].route.cluster"):
        "a host without port 9080 leads to its only port, where istiod names a cluster that does not exist",
    ("routes/destination-without-port", ".routes[0].decorator.operation"): "see the cluster",
    ("routes/mirrors", "request_mirror_policies[1].cluster"): "a host without that port: its only port, as for routes",
    ("routes/redirect-code-304", "redirectCode: must be 301, 302, 303, 307 or 308"): "istiod sends 301 in its place",
    ("rules/hash-nothing", "exactly one of httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName is needed"):
        "istiod makes a hash ring that nothing is hashed for",
    ("rules/outlier-old", "consecutiveErrors: unknown or unsupported field"): "istiod warns and takes no notice of it",
    ("rules/pool-http-of-tcp", "common_tls_context.alpn_protocols[len]"): "h2UpgradePolicy does not concern a TCP port: h2 is not offered to its peers",
    ("rules/tls-istio-mutual-external", "combined_validation_context.default_validation_context"):
        "a peer whose account is not known must at least have a name of this mesh; for istiod any certificate of the root does",
    ("services/static-protocols", "LDS 10.55.0.1_84 .filter_chains[0].filters[len]"): "mongo_proxy counts commands; the bytes are the same without it",
}


def texts():
    """GROUP/NAME → YAML"""
    found = {"base": ""}
    for file in sorted((HERE / "cases").glob("*.yaml")):
        for part in file.read_text().split("# case: ")[1:]:
            name, _, text = part.partition("\n")
            assert f"{file.stem}/{name}" not in found, name
            found[f"{file.stem}/{name}"] = text
    return found


def normal(resources):
    """{TYPE: {name: resource}} without what is not compared, virtual hosts by name. resources: {TYPE: as shapes.by_name takes it}"""
    out = {}
    for kind in shapes.TYPES:
        named = shapes.by_name(resources[kind])
        out[kind] = {n: shapes.normal(r) for n, r in named.items() if n not in shapes.NOT_COMPARED and "mark" not in n and n != "1" and not n.endswith("_1")}
    for r in out["RDS"].values():
        r["virtual_hosts"] = {v["name"]: v for v in r["virtual_hosts"]}
    return out


def ours(program, text, folder):
    """What remora-control makes of a case, or its refusal as text."""
    folder = pathlib.Path(folder)
    shutil.copy(BASE, folder / "base.yaml")
    (folder / "case.yaml").write_text(text)
    done = subprocess.run([program, "compile", "--config", folder, "--address", "10.7.0.9", "--labels", "app=client"], capture_output=True, text=True,
                          timeout=60, check=False)
    return normal(json.loads(done.stdout)) if done.returncode == 0 else done.stderr.strip()


def changes(a, b):
    """What makes a into b; null is a member that is gone."""
    if not isinstance(a, dict) or not isinstance(b, dict):
        return b
    return {k: changes(a.get(k), b.get(k)) for k in sorted(set(a) | set(b)) if a.get(k) != b.get(k)}


def changed(a, by):
    if not isinstance(a, dict) or not isinstance(by, dict):
        return by
    whole = {**a, **{k: changed(a.get(k), v) for k, v in by.items()}}
    return {k: v for k, v in whole.items() if v is not None}


def record(found):
    """found: case → normal form, or REFUSED"""
    base, out = found["base"], {}
    for name, sets in found.items():
        if name == "base" or sets == REFUSED:
            out[name] = sets
            continue
        out[name] = changes(base, sets)
    lines = [f"{json.dumps(n)}: {json.dumps(out[n], sort_keys=True)}" for n in sorted(out)]
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def recorded():
    found = json.loads(RECORDED.read_text())
    return {n: by if n == "base" or by == REFUSED else changed(found["base"], by) for n, by in found.items()}


def compare(name, theirs, mine):
    """Lines about what is not as in istiod."""
    if theirs == REFUSED or isinstance(mine, str):
        return [] if theirs == REFUSED and isinstance(mine, str) else ["istiod refuses it" if theirs == REFUSED else f"refused: {mine}"]
    bad = []
    for kind in shapes.TYPES:
        for n in sorted(set(mine[kind]) ^ set(theirs[kind])):
            bad.append(f"{kind} {n} only {'ours' if n in mine[kind] else 'istiod'}")
        for n in sorted(set(mine[kind]) & set(theirs[kind])):
            bad += [f"{kind} {n} {path}" for path, _, _ in shapes.differences(theirs[kind][n], mine[kind][n]) if not shapes.expected(kind, n, path)]
    return bad


def unexpected(name, bad, met):
    """Those of bad that DIFFERENCES does not list; what it lists and was met goes into met."""
    left = []
    for line in bad:
        listed = {d for d in DIFFERENCES if d[0] == name and (line.endswith(d[1]) or (line.startswith("refused") and d[1] in line))}
        met |= listed
        left += [] if listed else [line]
    return left

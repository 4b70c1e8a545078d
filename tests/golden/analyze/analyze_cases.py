# SPDX-License-Identifier: Apache-2.0
"""The cases of `remoractl analyze`: cases/CODE.yaml holds many small worlds, each behind a line `# case: NAME`. cases.tsv is what Istio's analyzers
say about each (recorded by `make interop-analyze`), differences.tsv where remoractl does something else, and why."""

import json
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
KINDS = ("VirtualService", "DestinationRule", "ServiceEntry", "AuthorizationPolicy", "RequestAuthentication", "PeerAuthentication")
# Codes that Istio puts at a field's line where it can; the others it puts at the object's first line, which says nothing.
AT_FIELDS = {"IST0101", "IST0109", "IST0112", "IST0132", "IST0134", "IST0140", "IST0165", "IST0177"}


def texts():
    """CODE/NAME → YAML"""
    found = {}
    for file in sorted((HERE / "cases").glob("*.yaml")):
        for part in file.read_text().split("# case: ")[1:]:
            name, _, text = part.partition("\n")
            assert f"{file.stem}/{name}" not in found, name
            found[f"{file.stem}/{name}"] = text
    return found


def write(folder):
    """One file per case: CODE/NAME → its path."""
    paths = {}
    for name, text in texts().items():
        path = pathlib.Path(folder) / (name.replace("/", "-") + ".yaml")
        path.write_text(text)
        paths[name] = path
    return paths


def rows(findings, text):
    """(level, code, object, line) of a tool's JSON. The line is empty for an object's first line."""
    starts, out = set(), set()
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith(("apiVersion", "---")):
            starts.add(number)
    for m in findings:
        if m["origin"].split(" ")[0] not in KINDS:
            continue
        line = m["reference"].rpartition(":")[2] if m["code"] in AT_FIELDS else ""
        out.add((m["level"], m["code"], m["origin"], "" if line and int(line) in starts else line))
    return out


def remoractl(program, path, text):
    done = subprocess.run([program, "analyze", "-o", "json", str(path)], capture_output=True, text=True, check=True, timeout=60)
    return rows([m for m in json.loads(done.stdout) if m["code"] != "REM0001"], text)


def same_places(ours, theirs):
    """ours, with the lines taken away that theirs does not have either."""
    bare = {r[:3] for r in theirs if not r[3]}
    return {r if r[:3] not in bare else (*r[:3], "") for r in ours}


def read(name):
    return [line.split("\t") for line in (HERE / name).read_text().splitlines() if not line.startswith("#")]


def recorded():
    out = {name: set() for name in texts()}
    for case, *row in read("cases.tsv"):
        out[case].add(tuple(row))
    return out


def wanted(name, rows):
    """What of rows remoractl says: of workloads (IST0127) nothing, where the files have none at all."""
    known = any(f"\nkind: {kind}\n" in texts()[name] for kind in ("Pod", "WorkloadEntry"))
    return {r for r in rows if known or r[1] != "IST0127"}


def record(found):
    lines = ["\t".join((case, *row)) for case in sorted(found) for row in sorted(found[case])]
    (HERE / "cases.tsv").write_text("# case, level, code, object and line of what Istio's analyzers say; make interop-analyze\n" + "\n".join(lines) + "\n")


def differences():
    """case → ({rows that only Istio has}, {rows that only remoractl has})"""
    out = {}
    for case, who, level, code, thing, line, _reason in read("differences.tsv"):
        out.setdefault(case, (set(), set()))[who == "remora"].add((level, code, thing, line))
    return out

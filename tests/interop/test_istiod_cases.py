# SPDX-License-Identifier: Apache-2.0
"""make interop-istiod: a real istiod (istio/istiod, with a stand-in for a Kubernetes API server) over tests/golden/control/cases. What it sends must be
what istiod_cases.json holds, which `make test` compares remora-control with. REMORA_GOLDEN_WRITE=1 records it anew."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "golden/control"))

import control_cases as cases  # noqa: E402
import policy_cases  # noqa: E402
from go_programs import build  # noqa: E402


@pytest.fixture(scope="module")
def programs():
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("a network namespace of its own needs root and unshare: istiod binds fixed ports")
    return build("istio", istiod="./istiod", kubestub="./kubestub", xdscap="./xdscap")


def run(programs, base, out, texts, *args, env=None):
    subprocess.run(["unshare", "-n", sys.executable, HERE / "istio/record.py", programs["istiod"].parent, base, out, *args], input=json.dumps(texts),
                   text=True, check=True, timeout=1200, stdout=subprocess.DEVNULL, env={**os.environ, **(env or {})})


def test_istiod_sends_what_is_recorded(programs, tmp_path):
    run(programs, cases.BASE, tmp_path, {name.replace("/", "-"): text for name, text in cases.texts().items()})
    found = {}
    for name in cases.texts():
        out = tmp_path / name.replace("/", "-")
        found[name] = cases.REFUSED if (out / "refused").exists() else cases.normal(
            {kind: json.loads((out / f"{kind}.json").read_text()) for kind in cases.shapes.TYPES})
    if os.environ.get("REMORA_GOLDEN_WRITE"):
        cases.record(found)
    assert found == cases.recorded()


def test_istiod_makes_of_policies_what_is_recorded(programs, tmp_path):
    found = {}
    for group, (head, texts) in policy_cases.groups().items():
        out = tmp_path / group
        out.mkdir()
        run(programs, policy_cases.BASE, out, texts, policy_cases.mesh_config(head), policy_cases.LABELS, env=policy_cases.ENVIRONMENT)
        for name in texts:
            refused = (out / name / "refused").exists()
            found[f"{group}/{name}"] = policy_cases.REFUSED if refused else policy_cases.filters_of(json.loads((out / name / "LDS.json").read_text()))
    if os.environ.get("REMORA_GOLDEN_WRITE"):
        policy_cases.record(found)
    assert found == policy_cases.recorded()

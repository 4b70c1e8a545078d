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
from go_programs import build  # noqa: E402


def test_istiod_sends_what_is_recorded(tmp_path):
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("a network namespace of its own needs root and unshare: istiod binds fixed ports")
    programs = build("istio", istiod="./istiod", kubestub="./kubestub", xdscap="./xdscap")
    texts = {name.replace("/", "-"): text for name, text in cases.texts().items()}
    subprocess.run(["unshare", "-n", sys.executable, HERE / "istio/record.py", programs["istiod"].parent, cases.BASE, tmp_path], input=json.dumps(texts),
                   text=True, check=True, timeout=1200, stdout=subprocess.DEVNULL)
    found = {}
    for name in cases.texts():
        out = tmp_path / name.replace("/", "-")
        found[name] = cases.REFUSED if (out / "refused").exists() else cases.normal(
            {kind: json.loads((out / f"{kind}.json").read_text()) for kind in cases.shapes.TYPES})
    if os.environ.get("REMORA_GOLDEN_WRITE"):
        cases.record(found)
    assert found == cases.recorded()

# SPDX-License-Identifier: Apache-2.0
"""make interop-analyze: the real istioctl, and all of Istio's analyzers (istio/analyze), over tests/golden/analyze/cases. What they say must be what
cases.tsv holds, which `make test` compares remoractl with. REMORA_GOLDEN_WRITE=1 records it anew."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "golden/analyze"))

import analyze_cases as cases  # noqa: E402
from go_programs import build  # noqa: E402

# What `istioctl analyze --use-kube=false` leaves to clusters: it reads no Services and Pods.
OF_CLUSTERS = {"IST0101", "IST0112", "IST0127", "IST0140", "IST0149", "IST0171", "IST0173", "IST0174"}


@pytest.fixture(scope="module")
def programs():
    return build("istio", istioctl="./istioctl", analyze="./analyze")


@pytest.fixture(scope="module")
def found(programs, tmp_path_factory):
    """case → what all analyzers say"""
    paths = cases.write(tmp_path_factory.mktemp("cases"))
    done = subprocess.run([programs["analyze"], *map(str, paths.values())], capture_output=True, text=True, check=True, timeout=600)
    said, texts = json.loads(done.stdout), cases.texts()
    return paths, {name: cases.rows(said[str(path)], texts[name]) for name, path in paths.items()}


def test_the_analyzers_say_what_is_recorded(found):
    if os.environ.get("REMORA_GOLDEN_WRITE"):
        cases.record(found[1])
    assert found[1] == cases.recorded()


def test_istioctl_says_the_same_of_files_alone(programs, found):
    texts, wrong = cases.texts(), []
    for name, path in found[0].items():
        done = subprocess.run([programs["istioctl"], "analyze", "--use-kube=false", "-A", "-o", "json", str(path)], capture_output=True, text=True,
                              timeout=60, check=False)
        if name == "IST0106/timeout-word":  # istioctl cannot read such an object, and says so in words
            assert "failed parsing" in done.stderr
            continue
        said = cases.rows(json.loads(done.stdout or "[]"), texts[name])
        if said - found[1][name] or any(r[1] not in OF_CLUSTERS for r in found[1][name] - said):
            wrong.append((name, sorted(said), sorted(found[1][name])))
    assert not wrong, "\n".join(map(str, wrong))


def test_istioctl_lists_the_same_policies(programs):
    golden = HERE.parent / "golden/cli"
    done = subprocess.run([programs["istioctl"], "x", "authz", "check", "-f", golden / "authz.json"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == (golden / "authz.txt").read_text()

# SPDX-License-Identifier: Apache-2.0
"""remora against what Envoy was seen to do with the same files and requests (tests/parity; recorded, so no Envoy is needed here)."""

import json
import os
import pathlib
import sys

import pytest

import harness

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "parity"))
yaml = pytest.importorskip("yaml", reason="python3-yaml is not installed; run tools/install-deps test")
import parity  # noqa: E402

FILES = sorted((parity.HERE / "cases").glob("*.yaml"))
REMORA = harness.BIN / "remora-proxy"


@pytest.fixture(scope="module")
def observed(request):
    """What remora does with the files that are asked for, as futures."""
    paths = [i.callspec.params["path"] for i in request.session.items if i.fspath == request.fspath and hasattr(i, "callspec")]
    return parity.observe_all([p for p in paths if can_run(p)], REMORA, "remora", wants={p: recorded(p) for p in paths})


def recorded(path):
    return json.loads((parity.HERE / "expected" / (path.stem + ".json")).read_text())


def can_run(path):
    spec = parity.yaml.safe_load(path.read_text())
    needs = {"bridges": parity.http2, "authz": parity.authz, "limits": parity.limits}
    return all(have is not None for key, have in needs.items() if key in spec)


@pytest.mark.skipif(not os.access(REMORA, os.X_OK), reason=f"{REMORA} is not built")
@pytest.mark.parametrize("path", FILES, ids=[p.stem for p in FILES])
def test_same_as_envoy(path, observed):
    if not can_run(path):
        pytest.skip("python3-h2 or python3-grpcio is not installed; run tools/install-deps test")
    want = recorded(path)
    cases = {c["name"]: c for c in parity.load(path)["cases"]}
    assert set(cases) == set(want), "cases without a recording, or the other way round; run make parity-record"
    got = observed[path].result()
    problems = {name: lines for name in cases if (lines := parity.judge(cases[name], want[name], got[name]))}
    if lines := parity.unused(cases.values()):
        problems["all of them"] = lines
    assert not problems, "\n".join(f"{name}:\n    " + "\n    ".join(lines) for name, lines in problems.items())


def test_there_are_enough_cases():
    assert sum(len(parity.load(p)["cases"]) for p in FILES) >= 1500

# SPDX-License-Identifier: Apache-2.0
"""`remoractl analyze` says what Istio's analyzers said about the same files: tests/golden/analyze."""

import os
import pathlib
import sys

import harness

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "golden/analyze"))

import analyze_cases as cases  # noqa: E402


def test_the_same_as_istio(tmp_path):
    different, texts = cases.differences(), cases.texts()
    theirs = {name: cases.wanted(name, rows) for name, rows in cases.recorded().items()}
    paths, wrong = cases.write(tmp_path), []
    assert len(paths) >= 300
    for name, path in paths.items():
        ours = cases.same_places(cases.remoractl(os.path.join(harness.BIN, "remoractl"), path, texts[name]), theirs[name])
        if (theirs[name] - ours, ours - theirs[name]) != different.get(name, (set(), set())):
            wrong.append((name, "only Istio", sorted(theirs[name] - ours), "only remoractl", sorted(ours - theirs[name])))
    assert not wrong, "\n".join(map(str, wrong))
    assert set(different) <= set(paths)


def test_a_near_miss_has_no_finding():
    for name, rows in cases.recorded().items():
        code = name.partition("/")[0]
        assert (code not in {r[1] for r in rows}) == name.endswith("-ok") or name in cases.differences(), name

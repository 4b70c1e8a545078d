# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import harness  # noqa: E402


def needs_program(name):
    return pytest.mark.skipif(not os.access(harness.BIN / name, os.X_OK), reason=f"{harness.BIN / name} is not built")


@pytest.fixture
def proxy(tmp_path):
    """make(listeners, clusters, **options) starts a proxy; all of them are ended, and must end well, after the test."""
    if not os.access(harness.BIN / "remora-proxy", os.X_OK):
        pytest.skip(f"{harness.BIN / 'remora-proxy'} is not built")
    made = []

    def make(listeners, clusters, **kw):
        p = harness.Proxy(tmp_path / f"proxy{len(made)}", listeners, clusters, **kw)
        made.append(p)
        return p
    yield make
    problems = []
    for p in made:
        try:
            if p.p.poll() is None:
                p.stop()
        except harness.MeshError as e:
            problems.append(str(e))
    assert not problems, "\n".join(problems)


@pytest.fixture
def backend():
    """start(fn) → Backend; closed after the test."""
    made = []

    def start(fn, **kw):
        b = harness.Backend(fn, **kw)
        made.append(b)
        return b
    yield start
    for b in made:
        b.close()

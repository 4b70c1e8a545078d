# SPDX-License-Identifier: Apache-2.0
"""Builds the Go programs of tests/interop/istio into REMORA_ISTIO (default: build/interop/istio); skips with a reason where that is not possible."""

import os
import pathlib
import shutil
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).resolve().parent / "istio"


def build(*names):
    if not shutil.which("go"):
        pytest.skip("Go is not installed: Istio's programs cannot be built")
    out = pathlib.Path(os.environ.get("REMORA_ISTIO", SOURCE.parents[2] / "build/interop/istio"))
    out.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["nice", "go", "build", "-o", f"{out}/", *(f"./{n}" for n in names)], cwd=SOURCE, capture_output=True, text=True, check=False,
                          env={**os.environ, "GOTOOLCHAIN": "local"}, timeout=3600)
    if done.returncode:
        pytest.skip(f"Istio's programs cannot be built from their Go module: {done.stderr.strip().splitlines()[-1]}")
    return {n: out / n for n in names}

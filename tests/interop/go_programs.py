# SPDX-License-Identifier: Apache-2.0
"""Builds Go programs of a module beside this file into REMORA_INTEROP/MODULE (default: build/interop/MODULE); skips with a reason where that is
not possible. The modules' go.mod and go.sum pin all versions."""

import os
import pathlib
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent


def build(module, **packages):
    """packages: name of the program → its package. Returns name → path."""
    if not shutil.which("go"):
        pytest.skip(f"Go is not installed: the programs of {module} cannot be built")
    out = pathlib.Path(os.environ.get("REMORA_INTEROP", HERE.parents[1] / "build/interop")) / module
    out.mkdir(parents=True, exist_ok=True)
    for name, package in packages.items():
        done = subprocess.run(["nice", "go", "build", "-o", out / name, package], cwd=HERE / module, capture_output=True, text=True, check=False,
                              env={**os.environ, "GOTOOLCHAIN": "local"}, timeout=3600)
        if done.returncode:
            pytest.skip(f"{name} cannot be built from its Go module: {done.stderr.strip().splitlines()[-1]}")
    return {name: out / name for name in packages}

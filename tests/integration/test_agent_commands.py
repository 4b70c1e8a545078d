# SPDX-License-Identifier: Apache-2.0
"""What manifests and hooks of Istio call in the sidecar's image: `istio-iptables`, `pilot-agent wait`, `pilot-agent request`."""

import os
import shutil
import subprocess

import harness
from harness import free_port


def call(*argv, timeout=60):
    return subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=timeout, check=False)


def test_istio_iptables_by_argument_and_by_name(tmp_path):
    for name in ("remora-proxy", "remora-init"):
        shutil.copy2(harness.BIN / name, tmp_path)
    os.symlink("remora-proxy", tmp_path / "pilot-agent")
    os.symlink("remora-proxy", tmp_path / "istio-iptables")
    by_argument = call(tmp_path / "pilot-agent", "istio-iptables", "--help")
    by_name = call(tmp_path / "istio-iptables", "--help")
    assert by_argument.returncode == by_name.returncode == 0
    assert by_argument.stdout == by_name.stdout == call(tmp_path / "remora-init", "--help").stdout
    assert call(tmp_path / "pilot-agent", "istio-iptables", "--no-such-flag").returncode == 255  # with istio-iptables' habits


def test_wait(tmp_path):
    port = free_port()
    late = call(harness.BIN / "remora-proxy", "wait", "--timeoutSeconds=1", "--periodMillis", "100", f"--url=http://127.0.0.1:{port}/ready")
    assert late.returncode == 1 and "Connection refused" in late.stderr
    p = harness.Proxy(tmp_path / "p", [], [])
    try:
        done = call(harness.BIN / "remora-proxy", "wait", "--timeoutSeconds=30", "--requestTimeoutMillis=5000",
                    f"--url=http://localhost:{p.admin_port}/ready")
        assert (done.returncode, done.stderr) == (0, "")
        assert call(harness.BIN / "remora-proxy", "wait", "--timeoutSeconds=1", f"--url=http://127.0.0.1:{p.admin_port}/nothing").returncode == 1
    finally:
        p.stop(20)

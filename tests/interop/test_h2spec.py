# SPDX-License-Identifier: Apache-2.0
"""make interop-h2spec: h2spec (Go module, pinned in h2spec/go.mod) in strict mode, over TLS, over plain text to an HTTP/2 listener, and to one that
tells HTTP/1 from HTTP/2 by the first bytes. There, what does not begin as HTTP/2 does is HTTP/1: one case is answered in that."""

import pathlib
import re
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import harness  # noqa: E402
from go_programs import build  # noqa: E402
from harness import Backend, cluster, free_port, hcm, listener, mint, route, tls_files, web  # noqa: E402


@pytest.fixture(scope="module")
def ports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("h2spec")
    tls = tls_files(mint(folder / "ca", "server", "spiffe://test/ns/a/sa/server"))
    tls["common_tls_context"]["alpn_protocols"] = ["h2", "http/1.1"]
    tls["common_tls_context"].pop("validation_context", None)
    ports = {name: free_port() for name in ("tls", "http2", "sniffed")}
    with Backend(web("hello")) as b:
        p = harness.Proxy(folder / "proxy", [listener(ports["tls"], hcm([route("a")]), tls=tls), listener(ports["sniffed"], hcm([route("a")])),
                                             listener(ports["http2"], hcm([route("a")], codec_type="HTTP2"))], [cluster("a", [b.port])])
        yield ports
        p.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the backend sees messages that are cut off
@pytest.mark.parametrize("name,flags,failing", [("tls", ["-t", "-k"], []), ("http2", [], []), ("sniffed", [], ["Sends invalid connection preface"])])
def test_h2spec(ports, name, flags, failing):
    program = build("h2spec", h2spec="github.com/summerwind/h2spec/cmd/h2spec")["h2spec"]
    done = subprocess.run([program, "-S", "-h", harness.LOOPBACK, "-p", str(ports[name]), "-o", "5", *flags], capture_output=True, timeout=300, check=False)
    out = done.stdout.replace(b"\0", b"").decode(errors="replace")
    total, passed = re.search(r"(\d+) tests, (\d+) passed, 0 skipped", out).groups()
    print(f"{name}: {passed} of {total}")
    assert {line.split(":", 1)[1].strip() for line in out.splitlines() if "×" in line} == set(failing)
    assert (int(total), int(passed)) == (146, 146 - len(failing))

# SPDX-License-Identifier: Apache-2.0
"""The tools that judge: each must say no to what it is there for. And the demo's own measuring instruments."""

import importlib.machinery
import importlib.util
import shutil
import struct
import subprocess

import pytest

from harness import ROOT, mint
from capture import Capture, certificates, spiffe_names, tls_records


@pytest.fixture
def tree(tmp_path):
    """A small tree with copies of the checks, under git."""
    (tmp_path / "tools").mkdir()
    for name in ("check-layers", "check-banned", "check-headers", "check-size"):
        shutil.copy(ROOT / "tools" / name, tmp_path / "tools" / name)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)

    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    def check(name, *args):
        p = subprocess.run([tmp_path / "tools" / name, *args], capture_output=True, text=True, check=False)
        return p.returncode, p.stdout + p.stderr
    return write, check


def test_layers_refuse_an_edge_upwards(tree):
    write, check = tree
    write("lib/base/a.h", "")
    write("proxy/core/b.h", '#include "lib/base/a.h"\n')
    assert check("check-layers")[0] == 0
    write("lib/base/c.h", '#include "lib/base/a.h"\n#include "proxy/core/b.h"\n')
    rc, said = check("check-layers")
    assert rc == 1 and 'lib/base/c.h:2: lib/base may not include proxy/core ("proxy/core/b.h")' in said


def test_layers_refuse_cycles_wrapped_libraries_and_lost_paths(tree):
    write, check = tree
    write("lib/base/a.h", '#include "lib/base/b.h"\n')
    write("lib/base/b.h", '#include "lib/base/a.h"\n')
    write("proxy/core/c.c", "#include <grpc/grpc.h>\n")
    write("proxy/core/d.c", '#include "d.h"\n')
    rc, said = check("check-layers")
    assert rc == 1
    assert "lib/base/a.h -> lib/base/b.h -> lib/base/a.h" in said
    assert "proxy/core/c.c:1: <grpc/grpc.h>" in said
    assert 'proxy/core/d.c:1: "d.h" is not a path' in said


def test_banned_calls_are_named_with_their_place(tree):
    write, check = tree
    write("lib/base/a.c", '// strcpy(a, b) in a comment is fine\nint my_atoi(int);\nint f(char *a) { return my_atoi(1); }\n')
    assert check("check-banned")[0] == 0
    write("lib/base/b.c", "void g(char *a)\n{\n    strcpy(a, a);\n    x = atoi(a);\n}\n")
    rc, said = check("check-banned")
    assert rc == 1 and "lib/base/b.c:3: strcpy is banned" in said and "lib/base/b.c:4: atoi is banned" in said


def test_headers_must_compile_alone(tree):
    write, check = tree
    write("lib/base/a.h", "struct a { int x; };\n")
    assert check("check-headers", "build")[0] == 0
    write("lib/base/b.h", "static inline size_t b(void) { return 1; }\n")
    rc, said = check("check-headers", "build")
    assert rc == 1 and "lib/base/b.h does not compile alone" in said


@pytest.mark.skipif(shutil.which("pmccabe") is None, reason="pmccabe is not installed")
def test_size_asks_and_does_not_fail(tree):
    write, check = tree
    write("lib/base/a.c", "int f(void)\n{\n" + "    ;\n" * 300 + "    return 0;\n}\n")
    rc, said = check("check-size")
    assert rc == 0 and "lib/base/a.c" in said and "f: 30" in said


def test_install_deps_knows_its_groups():
    p = subprocess.run([ROOT / "tools/install-deps", "nonsense"], capture_output=True, text=True, check=False)
    assert p.returncode == 2 and "nonsense" in p.stderr
    p = subprocess.run([ROOT / "tools/install-deps", "--check", "build", "test"], capture_output=True, text=True, check=False)
    assert p.returncode == 0 and p.stdout == ""  # these tests could not run otherwise


# --- the demo's instruments ---

@pytest.fixture(scope="module")
def demo():
    loader = importlib.machinery.SourceFileLoader("demo", str(ROOT / "tests/demo/demo"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("demo", loader))
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("n, p", [(2000, 0.1), (2000, 0.5), (200, 0.1), (50, 0.5)])
def test_binomial_bounds_hold_what_they_say_and_no_more(demo, n, p):
    from fractions import Fraction
    from math import comb
    q = Fraction(p).limit_denominator(10)
    pmf = [comb(n, k) * q ** k * (1 - q) ** (n - k) for k in range(n + 1)]
    low, high = demo.binomial_bounds(n, p)
    assert float(sum(pmf[low:high + 1])) >= 0.999
    assert float(sum(pmf[:low + 1])) > 0.0005 and float(sum(pmf[high:])) > 0.0005  # one narrower would be too narrow


def record(kind, body, version=0x0303):
    return struct.pack("!BHH", kind, version, len(body)) + body


def test_tls_records_or_not():
    good = record(22, b"\1\0\0\0") + record(20, b"\1") + record(23, b"x" * 100)
    assert [r[0] for r in tls_records(good)] == [22, 20, 23]
    assert tls_records(b"GET / HTTP/1.1\r\n\r\n") is None
    assert tls_records(good + b"GET / HTTP/1.1\r\n") is None


def test_certificate_is_read_from_a_handshake(tmp_path):
    import ssl
    name = "spiffe://cluster.local/ns/default/sa/someone"
    leaf = mint(tmp_path, "x", name)
    der = ssl.PEM_cert_to_DER_cert((leaf / "cert-chain.pem").read_text())
    certs = len(der).to_bytes(3, "big") + der
    body = len(certs).to_bytes(3, "big") + certs
    message = b"\x02\0\0\2ab" + b"\x0b" + len(body).to_bytes(3, "big") + body
    data = record(22, message[:50]) + record(22, message[50:]) + record(20, b"\1")  # a message may span records
    assert [spiffe_names(c) for c in certificates(data)] == [[name]]
    assert certificates(record(23, message)) == []


def test_streams_are_put_together_in_order():
    def frame(seq, payload, flags=0x18):
        tcp = struct.pack("!HHIIBBHHH", 1000, 9080, seq, 0, 0x50, flags, 0, 0, 0) + payload
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
        return b"\0" * 12 + b"\x08\0" + ip + tcp
    c = Capture(None)
    c.frames = [frame(99, b"", 2), frame(105, b"world"), frame(100, b"hello"), frame(100, b"hello")]
    s, = c.streams()
    assert s.data == b"helloworld" and s.whole and (s.src, s.dport) == ("10.0.0.1", 9080)
    c.frames.pop(2)
    c.frames.pop()
    assert not c.streams()[0].whole and c.contains(b"world") and not c.contains(b"hello")

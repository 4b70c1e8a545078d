# SPDX-License-Identifier: Apache-2.0
"""Reads cases.txt (README.md beside this file)."""
import copy
import pathlib

CASES = pathlib.Path(__file__).with_name("cases.txt")


class Case:
    def __init__(self, name, options, line):
        self.name, self.options, self.line = name, options, line
        self.what, self.verdict, self.proxy = "", "", ""
        self.send = self.want = b""
        self.mended = False  # read leniently: the first of several messages may have been acceptable
        self.lenient = None  # bytes that go out in the lenient reading; None = as in the strict one

    @property
    def request(self):
        return "request" in self.options

    @property
    def rejected(self):
        return self.verdict == "reject"


    def in_lenient_reading(self):
        other = copy.copy(self)
        other.mended = True
        if self.lenient is not None:
            other.verdict, other.want = "forward", self.lenient
        return other


def unescape(text):
    """The escapes of cases.txt; \\*N:TEXT; repeats."""
    raw, out, i = text.encode("latin-1"), bytearray(), 0
    while i < len(raw):
        if raw[i] != 0x5c:
            out.append(raw[i])
            i += 1
            continue
        c = raw[i + 1:i + 2]
        if c == b"x":
            out.append(int(raw[i + 2:i + 4], 16))
            i += 4
        elif c == b"*":
            colon, semi = raw.index(b":", i), raw.index(b";", i)
            out += unescape(raw[colon + 1:semi].decode("latin-1")) * int(raw[i + 2:colon])
            i = semi + 1
        else:
            out += {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0"}.get(c, c)
            i += 2
    return bytes(out)


def load(path=CASES):
    cases, case = [], None
    for number, line in enumerate(path.read_text(encoding="latin-1").split("\n"), 1):
        word, _, rest = line.partition(" ")
        if word == "case":
            name, *options = rest.split()
            case = Case(name, options, number)
            cases.append(case)
        elif word == "what":
            case.what = rest
        elif word == "send":
            case.send += unescape(rest)
        elif word == "lenient":
            case.lenient = (case.lenient or b"") + unescape(rest)
        elif word == "proxy":
            case.proxy = rest
        elif word == "want":
            if not case.verdict:
                case.verdict, _, rest = rest.partition(" ")
            case.want += unescape(rest)
    return cases

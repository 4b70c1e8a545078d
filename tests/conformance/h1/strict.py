# SPDX-License-Identifier: Apache-2.0
"""A reader of HTTP/1 that doubts: RFC 9112 to the letter, and nothing that some known program reads in another way. It shares no code and
no author's shortcuts with lib/http: it judges the bytes that a proxy let through."""
import re

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
TARGET = re.compile(rb"[!$%&'()*+,\-./0-9:;=?@A-Z_a-z~\[\]|^`{}\"\\<>]+")  # no fragment, no control byte, nothing above 0x7e
HOST = re.compile(rb"(\[[0-9a-fA-F:.]+\]|[!$%&'()*+,;=\-._~0-9A-Za-z]*)(:[0-9]+)?")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
LENGTH = re.compile(rb"0|[1-9][0-9]{0,18}")
CHUNK_SIZE = re.compile(rb"(0|[1-9A-Fa-f][0-9A-Fa-f]{0,14})")
FRAMING = {b"content-length", b"transfer-encoding"}
NOT_IN_TRAILERS = FRAMING | {b"host", b"connection", b"te", b"trailer", b"upgrade", b"expect", b"authorization", b"cookie", b"set-cookie",
                             b"content-type", b"cache-control"}


class Doubt(Exception):
    """The bytes have no reading, or more than one."""


class Message:
    def __init__(self):
        self.method = self.target = self.status = None
        self.version = None
        self.headers, self.trailers = [], []  # (lower-case name, value)
        self.names = []                       # as spelled
        self.body, self.framing = b"", "none"
        self.end = 0                          # offset behind it

    def all(self, name):
        return [v for k, v in self.headers if k == name]

    def first(self, name):
        return (self.all(name) or [None])[0]

    def __repr__(self):
        return f"{(self.method or b'').decode('latin-1')}{self.status or ''} {self.target!r} {self.framing} body={self.body[:80]!r}"


def _lines(data, at):
    """Lines up to the empty one: (lines, offset behind), or None when it is not there yet."""
    end = data.find(b"\r\n\r\n", at)
    if data[at:at + 2] == b"\r\n":
        return [], at + 2
    if end < 0:
        text = data[at:]
        if b"\n" in text.replace(b"\r\n", b"") or re.search(rb"\r[^\n]", text) or b"\0" in text:
            raise Doubt("bare CR, bare LF or NUL in an unfinished head")
        return None
    lines = data[at:end].split(b"\r\n")
    for line in lines:
        if b"\r" in line or b"\n" in line or b"\0" in line:
            raise Doubt(f"bare CR, bare LF or NUL: {line[:80]!r}")
    return lines, end + 4


def _fields(lines, names):
    out = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not TOKEN.fullmatch(name):
            raise Doubt(f"field name: {line[:80]!r}")
        if not VALUE.fullmatch(value):
            raise Doubt(f"control byte in a value: {line[:80]!r}")
        names.append(name)
        out.append((name.lower(), value.strip(b" \t")))
    return out


def _framing(m):
    length, coding = m.all(b"content-length"), m.all(b"transfer-encoding")
    if len(length) + len(coding) > 1:
        raise Doubt(f"framing said more than once: {length + coding}")
    if length:
        if not LENGTH.fullmatch(length[0]) or int(length[0]) >= 1 << 63:
            raise Doubt(f"content-length: {length[0][:40]!r}")
        return "length", int(length[0])
    if coding:
        if coding[0].lower() != b"chunked" or m.version == b"1.0":
            raise Doubt(f"transfer-encoding: {coding[0][:40]!r} in HTTP/{m.version.decode()}")
        return "chunked", 0
    return "none", 0


def _options(m):
    for value in m.all(b"connection"):
        for option in value.split(b","):
            option = option.strip(b" \t").lower()
            if not TOKEN.fullmatch(option):
                raise Doubt(f"connection: {value[:60]!r}")
            if option in FRAMING | {b"host", b"authorization", b"cookie"} or option.startswith((b"x-forwarded-", b"x-envoy-")):
                raise Doubt(f"connection names {option!r}")


def _chunks(data, at, m):
    """Offset behind the chunked body, or None."""
    while True:
        end = data.find(b"\n", at)
        if end < 0:
            if not re.fullmatch(rb"[0-9a-fA-F]*\r?", data[at:]):
                raise Doubt(f"chunk size: {data[at:at + 40]!r}")
            return None
        line = data[at:end + 1]
        if not line.endswith(b"\r\n") or not CHUNK_SIZE.fullmatch(line[:-2]):
            raise Doubt(f"chunk size: {line[:40]!r}")
        size, at = int(line[:-2], 16), end + 1
        if size == 0:
            break
        if len(data) < at + size + 2:
            return None
        if data[at + size:at + size + 2] != b"\r\n":
            raise Doubt("no CRLF behind a chunk")
        m.body += data[at:at + size]
        at += size + 2
    found = _lines(data, at)
    if found is None:
        return None
    m.trailers = _fields(found[0], [])
    for name, _ in m.trailers:
        if name in NOT_IN_TRAILERS or name.startswith((b"x-forwarded-", b"x-envoy-")):
            raise Doubt(f"trailer {name!r}")
    return found[1]


def _body(data, at, m, eof):
    """Sets m.body and m.end. False: not complete."""
    if m.framing == "chunked":
        m.end = _chunks(data, at, m)
        return m.end is not None
    if m.framing == "close":
        m.body, m.end = data[at:], len(data)
        return eof
    m.body = data[at:at + m.length]
    m.end = at + m.length
    return len(data) >= m.end


def read_request(data, at=0):
    """The request at data[at:]: a Message, or None when it is not complete."""
    found = _lines(data, at)
    if found is None:
        return None
    if not found[0]:
        raise Doubt("empty line in front of a request")
    m = Message()
    parts = found[0][0].split(b" ")
    if len(parts) != 3 or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Doubt(f"request line: {found[0][0][:80]!r}")
    m.method, m.target, m.version = parts[0], parts[1], parts[2][5:]
    if not TOKEN.fullmatch(m.method) or not TARGET.fullmatch(m.target):
        raise Doubt(f"request line: {found[0][0][:80]!r}")
    if not (m.target.startswith(b"/") or m.method == b"CONNECT" or (m.method == b"OPTIONS" and m.target == b"*")):
        raise Doubt(f"a target in another form than origin-form: {m.target[:60]!r}")
    m.headers = _fields(found[0][1:], m.names)
    hosts = m.all(b"host")
    if len(hosts) > 1 or (not hosts and m.version == b"1.1"):
        raise Doubt(f"{len(hosts)} Host fields")
    if hosts and not HOST.fullmatch(hosts[0]):
        raise Doubt(f"host: {hosts[0][:60]!r}")
    _options(m)
    m.framing, m.length = _framing(m)
    if m.method == b"CONNECT" and (m.framing == "chunked" or m.length):
        raise Doubt("CONNECT with a body")
    return m if _body(data, found[1], m, False) else None


def read_response(data, at=0, method=b"GET", eof=False):
    """The response at data[at:]; eof: the connection has ended behind data. A Message, or None when it is not complete."""
    found = _lines(data, at)
    if found is None:
        return None
    if not found[0]:
        raise Doubt("empty line in front of a response")
    m = Message()
    line = re.fullmatch(rb"HTTP/1\.([01]) ([1-9][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)", found[0][0])
    if not line:
        raise Doubt(f"status line: {found[0][0][:80]!r}")
    m.version, m.status = b"1." + line[1], int(line[2])
    m.headers = _fields(found[0][1:], m.names)
    _options(m)
    m.framing, m.length = _framing(m)
    if m.status < 200 or m.status == 204:
        if m.framing != "none":
            raise Doubt(f"framing in {m.status}")
        m.framing = "tunnel" if m.status == 101 else "none"
    elif method == b"CONNECT" and m.status < 300:
        m.framing = "tunnel"
    elif method == b"HEAD" or m.status == 304:
        m.framing, m.length = "none", 0
    elif m.framing == "none":
        m.framing = "close"
    if m.framing == "tunnel":
        m.body, m.end = data[found[1]:], len(data)
        return m if eof else None
    return m if _body(data, found[1], m, eof) else None


def requests(data):
    """(complete requests, bytes left behind them, Doubt or None)."""
    out, at = [], 0
    try:
        while at < len(data):
            m = read_request(data, at)
            if m is None:
                break
            out.append(m)
            at = m.end
    except Doubt as d:
        return out, data[at:], d
    return out, data[at:], None


def responses(data, methods, eof):
    """As requests, for the answers to requests with these methods."""
    out, at, final = [], 0, 0
    try:
        while at < len(data):
            if final >= len(methods):
                raise Doubt(f"bytes that answer no request: {data[at:at + 80]!r}")
            m = read_response(data, at, methods[final], eof)
            if m is None:
                break
            out.append(m)
            final += m.status >= 200 or m.status == 101
            at = m.end
    except Doubt as d:
        return out, data[at:], d
    return out, data[at:], None

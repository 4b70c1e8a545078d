# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 messages that turn into two things, or into something malformed, when a proxy writes them as HTTP/1. Each case: id, what, fields in
order as bytes, body (DATA behind the head; None: the head ends the stream), trailers, and the verdict we want: "reject" (the other side must
not see a complete message) or what the HTTP/1 message must say."""

HEAD = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"test"), (b":path", b"/p"))
POST = ((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"test"), (b":path", b"/p"))
REJECT = "reject"


class Case:
    def __init__(self, name, what, fields, body=None, trailers=None, want=REJECT, end=True):
        self.name, self.what, self.fields, self.body, self.trailers, self.want, self.end = name, what, fields, body, trailers, want, end

    def __repr__(self):
        return f"{self.name} {self.what}"


def head(**change):
    """HEAD with pseudo fields changed (None: left out)."""
    out = []
    for k, v in HEAD:
        new = change.get(k[1:].decode(), v)
        if new is not None:
            out.append((k, new))
    return tuple(out)


def requests():
    out = []

    def add(group, what, fields, body=None, trailers=None, want=REJECT, **kw):
        n = sum(c.name[0] == group for c in out) + 1
        out.append(Case(f"{group}{n:02}", what, tuple(fields), body, trailers, want, **kw))

    # A: pseudo fields as a set
    add("A", "plain", HEAD, want={"method": b"GET", "target": b"/p", "host": b"test"})
    add("A", "any order", HEAD[::-1], want={"target": b"/p"})
    for missing in (":method", ":scheme", ":path", ":authority"):
        add("A", f"without {missing}", head(**{missing[1:]: None}))
    for k, v in HEAD:
        add("A", f"{k.decode()} twice", (*HEAD, (k, v)))
        add("A", f"{k.decode()} twice, different", (*HEAD, (k, v + b"x")))
    add("A", "pseudo behind a field", (*HEAD[:3], (b"a", b"b"), HEAD[3]))
    add("A", ":status in a request", (*HEAD, (b":status", b"200")))
    add("A", "unknown pseudo", (*HEAD, (b":foo", b"bar")))
    add("A", ":protocol that was not offered", ((b":method", b"CONNECT"), (b":protocol", b"websocket"), *HEAD[1:]))
    add("A", "upper-case pseudo", ((b":METHOD", b"GET"), *HEAD[1:]))
    add("A", "pseudo without a name", (*HEAD, (b":", b"x")))

    # B: method, path, scheme
    for m in (b"", b"GE T", b"GET /x HTTP/1.1\r\nA:", b"G\0T", b"GET\t", b"G\xc3\xa9T", b"GET\r\n\r\nGET", b"(GET)", b"GET:"):
        add("B", f"method {m!r}", head(method=m))
    for m in (b"PURGE", b"M-SEARCH", b"get"):
        add("B", f"method {m!r}", head(method=m), want={"method": m})
    for p in (b"", b"p", b"*", b"http://other/p", b"//x/y z", b"/a b", b"/a\tb", b"/a\r\nb: c", b"/a\nb", b"/a\0b", b"/a\x7f", b"/\xc3\xa9", b"/a#b",
              b"/a HTTP/1.1\r\nHost: evil\r\n\r\nGET /b", b" /p", b"/p ", b"?q"):
        add("B", f"path {p!r}", head(path=p))
    for p in (b"/a%0d%0ab", b"/a;b=c?d=e&f", b"/" + b"x" * 4000, b"//x", b"/a?b?c", b"/a?x=http://y/"):
        add("B", f"path {p[:30]!r}", head(path=p), want={"target": p})
    add("B", "OPTIONS *", head(method=b"OPTIONS", path=b"*"))  # no route has it
    for s in (b"", b"ht tp", b"http\r\n", b"javascript", b"http ", b"://", b"file", b"http://other/"):
        add("B", f"scheme {s!r}", head(scheme=s))
    for s in (b"https", b"HTTP", b"Https"):
        add("B", f"scheme {s!r}", head(scheme=s), want={"target": b"/p"})

    # C: authority and host
    for a in (b"", b"a b", b"a/b", b"a\r\nx: y", b"a\0b", b"user@test", b"a,b", b"test:", b"test:x", b"test:99999", b"test:80:80", b"[::1", b"::1",
              b"a?b", b"a#b", b"a\\b", b"test\x7f", b"t\xc3\xa9st", b"test/admin?", b"[::1]x", b"\ttest"):
        add("C", f"authority {a!r}", head(authority=a))
    for a in (b"test:8080", b"[::1]:80", b"a.b-c.d", b"TEST"):
        add("C", f"authority {a!r}", head(authority=a), want={"host": a})
    add("C", "host beside an equal authority", (*HEAD, (b"host", b"test")), want={"host": b"test"})
    add("C", "host beside another authority", (*HEAD, (b"host", b"evil")))
    add("C", "host in place of authority", (*head(authority=None), (b"host", b"test")), want={"host": b"test"})
    add("C", "host twice", (*HEAD, (b"host", b"test"), (b"host", b"test")))
    add("C", "bad host in place of authority", (*head(authority=None), (b"host", b"a/b")))

    # D: names
    for n in (b"Upper", b"", b"a b", b"a:", b"a\r\nb", b"a\n", b"a\0", b"\x7f", b"a\xc3\xa9", b"(a)", b"a\t", b" a", b"a,b", b"a/b", b"a=b", b"\"a\""):
        add("D", f"name {n!r}", (*HEAD, (n, b"v")))
    for n in (b"a_b", b"a.b", b"a!#$%&'*+^`|~", b"x" * 200):
        add("D", f"name {n[:20]!r}", (*HEAD, (n, b"v")), want={"field": (n, b"v")})

    # E: values
    for v in (b"a\r\nb: c", b"a\nb", b"a\rb", b"a\0b", b"\x01", b"a\x7f", b" a", b"a ", b"\ta", b"a\t", b"a\r\n\r\nGET /evil HTTP/1.1\r\nHost: e\r\n\r\n",
              b"\x1b[0m", b"a\x0bb", b"a\x0cb", b"\n"):
        add("E", f"value {v[:30]!r}", (*HEAD, (b"a", v)))
    for v in (b"", b"a\tb", b"\xc3\xa9", b"\x80\xff", b"a, b; c=\"d\"", b"x" * 8000):
        add("E", f"value {v[:20]!r}", (*HEAD, (b"a", v)), want={"field": (b"a", v)})
    add("E", "cookie in pieces", (*HEAD, (b"cookie", b"a=1"), (b"cookie", b"b=2")), want={"field": (b"cookie", b"a=1; b=2")})
    add("E", "cookie piece with CRLF", (*HEAD, (b"cookie", b"a=1"), (b"cookie", b"b=2\r\nc: d")))

    # F: fields of the connection
    for n, v in ((b"connection", b"close"), (b"connection", b"keep-alive, content-length"), (b"keep-alive", b"timeout=5"), (b"proxy-connection", b"close"),
                 (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"identity"), (b"transfer-encoding", b"gzip, chunked"), (b"transfer-encoding", b""),
                 (b"upgrade", b"websocket"), (b"upgrade", b"h2c"), (b"http2-settings", b"AAA"), (b"te", b"gzip"), (b"te", b"trailers, gzip"), (b"te", b"chunked")):
        add("F", f"{n.decode()}: {v.decode()}", (*HEAD, (n, v)))
        if n == b"transfer-encoding":
            add("F", f"{n.decode()}: {v.decode()} with a body", (*POST, (n, v)), b"0\r\n\r\nGET /evil HTTP/1.1\r\nHost: e\r\n\r\n")
    add("F", "te: trailers", (*HEAD, (b"te", b"trailers")), want={"target": b"/p"})
    add("F", "expect of another kind", (*POST, (b"expect", b"200-ok")), b"abc", want={"body": b"abc"})

    # G: lengths
    add("G", "no length", POST, b"hello", want={"body": b"hello"})
    add("G", "right length", (*POST, (b"content-length", b"5")), b"hello", want={"body": b"hello"})
    add("G", "empty body", (*POST, (b"content-length", b"0")), want={"body": b""})
    add("G", "empty DATA", (*POST, (b"content-length", b"0")), b"", want={"body": b""})
    for n, body in ((b"4", b"hello"), (b"6", b"hello"), (b"0", b"hello"), (b"5", None), (b"5", b""), (b"1", b"GET /evil HTTP/1.1\r\nHost: e\r\n\r\n")):
        add("G", f"length {n.decode()}, {len(body or b'')} bytes", (*POST, (b"content-length", n)), body)
    for n in (b"", b"+5", b"-5", b"0x5", b"5 ", b" 5", b"5,5", b"5, 5", b"5.0", b"five", b"99999999999999999999", b"9223372036854775808", b"5\0", b"5\r\nx: y",
              b"5;", b"\xd9\xa5"):
        add("G", f"length {n!r}", (*POST, (b"content-length", n)), b"hello")
    add("G", "length twice", (*POST, (b"content-length", b"5"), (b"content-length", b"5")), b"hello")
    add("G", "length twice, different", (*POST, (b"content-length", b"5"), (b"content-length", b"6")), b"hello")
    add("G", "length with leading zeros", (*POST, (b"content-length", b"05")), b"hello", want={"body": b"hello"})
    add("G", "GET with a body", (*HEAD, (b"content-length", b"5")), b"hello", want={"body": b"hello"})

    # H: trailers
    add("H", "a trailer", POST, b"hello", ((b"x-sum", b"5"),), want={"body": b"hello", "trailer": (b"x-sum", b"5")})
    for n, v in ((b":path", b"/evil"), (b"Upper", b"x"), (b"a b", b"x"), (b"a", b"x\r\ny: z"), (b"a", b"\0"), (b"connection", b"close"),
                 (b"transfer-encoding", b"chunked"), (b"upgrade", b"x"), (b"content-length", b"99")):
        add("H", f"trailer {n!r}: {v!r}", POST, b"hello", ((n, v),))
    for n, v in ((b"host", b"evil"), (b"authorization", b"x"), (b"x-forwarded-for", b"1.2.3.4"), (b"cookie", b"a=b")):
        add("H", f"trailer {n.decode()}", POST, b"hello", ((n, v),), want={"body": b"hello", "no-trailer": n})
    add("H", "trailers without END_STREAM", POST, b"hello", ((b"a", b"b"),), end=False)
    return out


OK = ((b":status", b"200"),)


def responses():
    """Answers of an HTTP/2 server to an HTTP/1 client. want: as above; REJECT: the client gets an error, or an answer that is cut off."""
    out = []

    def add(what, fields, body=None, trailers=None, want=REJECT, **kw):
        out.append(Case(f"R{len(out) + 1:02}", what, tuple(fields), body, trailers, want, **kw))
    add("plain", OK, b"hello", want={"status": 200, "body": b"hello"})
    add("right length", (*OK, (b"content-length", b"5")), b"hello", want={"status": 200, "body": b"hello"})
    add("no body", OK, want={"status": 200, "body": b""})
    add("204", ((b":status", b"204"),), want={"status": 204})
    add("trailers", OK, b"hello", ((b"x-sum", b"5"),), want={"body": b"hello", "trailer": (b"x-sum", b"5")})
    add("set-cookie twice", (*OK, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")), b"x", want={"fields": (b"set-cookie", [b"a=1", b"b=2"])})
    for s in (b"", b"20", b"2000", b"099", b"1", b"abc", b"200 OK", b"200\r\nx: y", b"-20", b" 200", b"101", b"2 0", b"+20"):
        add(f"status {s!r}", ((b":status", s),), b"x")
    add("status twice", (*OK, *OK), b"x")
    add("no status", ((b"a", b"b"),), b"x")
    add("request pseudo", (*OK, (b":path", b"/")), b"x")
    add("pseudo behind a field", ((b"a", b"b"), *OK), b"x")
    for n in (b"Upper", b"a b", b"a\r\nb", b"a:", b"", b"a\0"):
        add(f"name {n!r}", (*OK, (n, b"v")), b"x")
    for v in (b"a\r\nSet-Cookie: x=y", b"a\nb", b"a\0b", b"a\r\n\r\n<html>", b" a", b"\x01"):
        add(f"value {v!r}", (*OK, (b"a", v)), b"x")
    for n, v in ((b"connection", b"close"), (b"transfer-encoding", b"chunked"), (b"upgrade", b"websocket"), (b"keep-alive", b"x"), (b"te", b"trailers"),
                 (b"proxy-connection", b"x")):
        add(f"{n.decode()}: {v.decode()}", (*OK, (n, v)), b"x")
    for n, body in ((b"4", b"hello"), (b"6", b"hello"), (b"5", None), (b"+5", b"hello"), (b"5,5", b"hello"), (b"", b"hello"), (b"0", b"hello"),
                    (b"99999999999999999999", b"hello"), (b"5\r\n", b"hello")):
        add(f"length {n!r}, {len(body or b'')} bytes", (*OK, (b"content-length", n)), body)
    add("length twice", (*OK, (b"content-length", b"5"), (b"content-length", b"5")), b"hello")
    add("body behind 204", ((b":status", b"204"),), b"HTTP/1.1 200 OK\r\n\r\n")
    add("204, then an empty DATA", ((b":status", b"204"),), b"", want={"status": 204})
    add("length 0, then an empty DATA", (*OK, (b"content-length", b"0")), b"", want={"status": 200, "body": b""})
    add("trailer with CRLF", OK, b"hello", ((b"a", b"b\r\nc: d"),))
    add("trailer content-length", OK, b"hello", ((b"content-length", b"99"),))
    add("trailer set-cookie", OK, b"hello", ((b"set-cookie", b"a=b"),), want={"body": b"hello", "no-trailer": b"set-cookie"})
    add("trailer transfer-encoding", OK, b"hello", ((b"transfer-encoding", b"chunked"),))
    add("trailer :status", OK, b"hello", ((b":status", b"500"),))
    return out

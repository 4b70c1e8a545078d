# SPDX-License-Identifier: Apache-2.0
"""Sends the cases through a running proxy over real sockets, and lets the strict reader judge what reaches the other side.

Cases run on lanes. A lane is a listener of the proxy, whose only upstream is an origin in this process; one case at a time is on it, so
all bytes that its origin gets belong to that case. After each case a marker request goes over the same lane, and where it is still open
over the same connections: whatever the case left behind would become part of the marker or of its answer."""
import asyncio
import re

import strict

MARK = b"/remora-marker-"
KINDS = {"": {}, "http10": {"accept_http_10": True, "default_host_for_http_10": "ten"}, "noabsolute": {"allow_absolute_url": False},
         "chunkedlength": {"allow_chunked_length": True}}  # option of a case → http_protocol_options that it needs on both sides
PATIENCE = 15.0  # seconds until an answer that must come is given up on
LINGER = 0.25    # how long a peer without known verdicts may think about an answer


class Origin:
    """The upstream of one lane: keeps every byte, answers each request that can be read without doubt."""

    def __init__(self):
        self.server = self.port = None
        self.conns = []       # [bytearray, ...] of the case under way, one per connection
        self.writers = set()
        self.answer = None    # raw response for the first request that is no marker
        self.close_after = False
        self.answered = None

    async def start(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self):
        self.server.close()
        for w in list(self.writers):
            w.close()

    def begin(self, answer=None, close_after=False):
        self.conns = [b for b in self.conns if b.writer_open]
        for b in self.conns:
            b.clear()
            b.done = 0
        self.answer, self.close_after, self.answered = answer, close_after, asyncio.Event()

    async def _serve(self, reader, writer):
        got = Bytes()
        self.conns.append(got)
        self.writers.add(writer)
        try:
            while True:
                part = await reader.read(65536)
                if not part:
                    break
                got += part
                if not await self._answer(got, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            got.writer_open = False
            self.writers.discard(writer)
            writer.close()

    async def _answer(self, got, writer):
        """False: the connection is to end."""
        messages, _, doubt = strict.requests(bytes(got))
        for m in messages[got.done:]:
            got.done += 1
            if m.target.startswith(MARK):
                body = m.target[len(MARK):]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            elif self.answer is not None:
                writer.write(self.answer)
                self.answered.set()
                if self.close_after:
                    await writer.drain()
                    return False
            else:
                body = b"" if m.method in (b"HEAD", b"CONNECT") else b"ok"
                status = b"405 No" if m.method == b"CONNECT" else b"200 OK"
                writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()
        return doubt is None


class Bytes(bytearray):
    def __init__(self):
        super().__init__()
        self.done, self.writer_open = 0, True


class Client:
    """A downstream connection that keeps all it gets."""

    def __init__(self, reader, writer):
        self.reader, self.writer, self.got, self.eof = reader, writer, b"", False

    @classmethod
    async def open(cls, port):
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data):
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            pass

    async def read_until(self, enough, timeout):
        """Reads until enough(), the end, or timeout seconds without a byte. Whether it was enough or the end."""
        while not self.eof and not enough():
            try:
                part = await asyncio.wait_for(self.reader.read(65536), timeout)
            except asyncio.TimeoutError:
                return False
            except ConnectionError:
                part = b""
            if not part:
                self.eof = True
            self.got += part
        return True

    def close(self):
        self.writer.close()


class Result:
    def __init__(self, case):
        self.case, self.verdict, self.why = case, "", ""

    def set(self, verdict, why=""):
        self.verdict, self.why = verdict, why
        return self

    def __repr__(self):
        return f"{self.case.name} ({self.case.what}, cases.txt:{self.case.line}): {self.verdict} {self.why}"


def methods_of(data, n=1):
    """Methods of the requests in raw bytes, as far as they can be seen, for reading the answers."""
    found = [m.method for m in strict.requests(data)[0]]
    word = re.match(rb"(?:\r\n)?([A-Z]+) ", data)
    return (found or [word[1] if word else b"GET"]) + [b"GET"] * n


class Lane:
    """One case at a time. ports: {kind: port}; kinds are "" and the options of cases.txt. known: the proxy is ours, verdicts are known."""

    def __init__(self, ports, origin, known):
        self.ports, self.origin, self.known, self.marks = ports, origin, known, 0

    async def marker(self, client=None, method=b"GET"):
        """The text of what went wrong with a request behind the case, "" = nothing."""
        self.marks += 1
        text = b"%d-%d" % (id(self), self.marks)
        fresh = client is None
        try:
            if fresh:
                client = await Client.open(self.ports[""])
            client.got = b""
            await client.send(b"GET %s%s HTTP/1.1\r\nHost: marker\r\n\r\n" % (MARK, text))
            await client.read_until(lambda: strict.responses(client.got, [b"GET"], False)[0], PATIENCE)
            messages, rest, doubt = strict.responses(client.got, [b"GET"], client.eof)
        except strict.Doubt as d:
            return f"the next answer is in doubt: {d}"
        except ConnectionError:
            messages, rest, doubt = [], b"", "no connection"
        finally:
            if fresh and client:
                client.close()
        if not messages and not client.got and not fresh:
            return await self.marker()  # the proxy was about to close it
        if len(messages) != 1 or rest or doubt or messages[0].body != text:
            return f"the next request got {client.got[:200]!r} {doubt or ''}"
        return ""

    async def settled(self):
        """Waits until every request that was begun at the origin is complete or given up."""
        for _ in range(int(PATIENCE * 50)):
            if not any(got.writer_open and strict.requests(bytes(got))[1] for got in self.origin.conns):
                return
            await asyncio.sleep(0.02)

    # ---- requests ----

    async def run_request(self, case):
        self.origin.begin()
        r = Result(case)
        kind = next((k for k in KINDS if k in case.options), "")
        if case.send.startswith(b"PRI "):
            kind = "http10"  # HTTP/1 only: a listener for both protocols rightly begins HTTP/2
        expected, _, _ = strict.requests(case.want) if not case.rejected else ([], b"", None)
        cut = case.want == b"http1.unexpected_end" or not case.send
        client = await Client.open(self.ports[kind])
        await client.send(case.send)
        methods = methods_of(case.send, 4)

        def complete():
            found = [m for m in strict.responses(client.got, methods, False)[0] if m.status >= 200]
            return not case.rejected and len(found) >= max(1, len(expected))
        if not cut:
            await client.read_until(complete, PATIENCE if self.known else LINGER)
        marker = await self.marker()
        client.close()
        if cut:
            await self.settled()
        answers, rest, doubt = strict.responses(client.got, methods, client.eof)
        r.closed, r.answers = client.eof, answers
        if rest or doubt:
            return r.set("ambiguous", f"the client got {client.got[:200]!r}: {doubt or 'left over'}")
        return self.judge_request(case, r, marker, expected, cut)

    def judge_request(self, case, r, marker, expected, cut):
        forwarded = []
        for got in self.origin.conns:
            messages, rest, doubt = strict.requests(bytes(got))
            if doubt:
                return r.set("ambiguous", f"{doubt}; the origin got {bytes(got)[:300]!r}")
            if rest and got.writer_open and self.known:
                return r.set("ambiguous", f"unfinished: {rest[:200]!r}")
            forwarded += [m for m in messages if not m.target.startswith(MARK)]
        if marker:
            return r.set("ambiguous", marker)
        allowed = strict.requests(case.send)[0]
        r.forwarded = forwarded
        if case.rejected:
            refused_behind = r.closed and r.answers and r.answers[-1].status >= 400
            if len(forwarded) > len(allowed) and not (case.mended and refused_behind):
                return r.set("accepted", f"the origin got {forwarded!r}")
            if not cut and self.known and (not r.closed or not r.answers or r.answers[-1].status < 400):
                return r.set("wrong", f"answers {r.answers!r} closed={r.closed}")
            return r.set("rejected")
        return self.compare_request(case, r, forwarded, expected)

    def compare_request(self, case, r, forwarded, expected):
        last = r.answers[-1].status if r.answers else 0
        if case.proxy and self.known:
            ok = last == int(case.proxy) and not forwarded
            return r.set("rejected" if ok else "wrong", "" if ok else f"{last} and {forwarded!r}, not {case.proxy}")
        if not forwarded and expected:
            return r.set("wrong" if self.known else "rejected", f"answers {r.answers!r}")
        if len(forwarded) != len(expected):
            return r.set("wrong", f"{len(forwarded)} messages, not {len(expected)}: {forwarded!r}")
        for got, want in zip(forwarded, expected):
            why = differs(got, want, self.known)
            if why:
                return r.set("wrong", why)
        return r.set("clean")

    # ---- responses ----

    async def run_response(self, case):
        r = Result(case)
        if "connect" in case.options:
            return r.set("skipped", "CONNECT is not forwarded")
        method = b"HEAD" if "head" in case.options else b"GET"
        switch = case.send.startswith(b"HTTP/1.1 101")
        want, _, _ = strict.responses(case.want, [method], True) if not case.rejected else ([], b"", None)
        raw, _, _ = strict.responses(case.send, [method], False)
        whole = any(m.status >= 200 for m in raw)  # ends by itself, without the connection's end
        self.origin.begin(case.send, not whole)
        client = await Client.open(self.ports[next((k for k in KINDS if k in case.options), "")])
        await client.send(method + b" /case HTTP/1.1\r\nHost: h\r\n" +
                          (b"Connection: upgrade\r\nUpgrade: websocket\r\n" if switch else b"") + b"\r\n")
        await client.read_until(lambda: any(m.status >= 200 for m in strict.responses(client.got, [method], False)[0]),
                                PATIENCE if self.known else LINGER)
        answers, rest, doubt = strict.responses(client.got, [method], client.eof)
        got = client.got
        final = [m for m in answers if m.status >= 200 or m.status == 101]
        said_close = any(b"close" in o.lower() for m in final for o in m.all(b"connection"))
        marker = await self.marker(None if client.eof or said_close or not final or final[0].framing == "tunnel" else client)
        client.close()
        if doubt:
            return r.set("ambiguous", f"{doubt}; the client got {got[:300]!r}")
        if marker:
            return r.set("ambiguous", marker)
        return self.judge_response(case, r, final, rest, want, whole)

    def judge_response(self, case, r, final, rest, want, whole):
        if not final:  # nothing, or an answer that was cut off in a way that shows
            return r.set("rejected" if case.rejected or not self.known else "wrong", f"left {rest[:100]!r}")
        local = final[0].status in (502, 503, 504) and not case.send.startswith(b"HTTP/1.1 50")
        if local:
            return r.set("rejected" if case.rejected or not self.known else "wrong", f"{final[0]!r}")
        if case.rejected:  # a good answer with bad bytes behind it is passed on, the rest is not
            return r.set("rejected" if whole else "accepted", f"{final[0]!r}")
        want = [m for m in want if m.status >= 200 or m.status == 101]
        why = differs(final[0], want[0], self.known) if want else "an answer where none was wanted"
        return r.set("wrong" if why else "clean", why)

    async def run(self, case):
        try:
            if case.request:
                return await self.run_request(case)
            return await self.run_response(case)
        except strict.Doubt as d:
            return Result(case).set("ambiguous", str(d))


def differs(got, want, known):
    """What a forwarded message says differently from the wanted one; "" = nothing. A proxy may add fields of its own."""
    for what in ("method", "target", "status", "body", "trailers"):
        if getattr(got, what) != getattr(want, what) and (known or what != "trailers"):
            return f"{what} is {getattr(got, what)!r}, not {getattr(want, what)!r}"
    if not known:
        return ""
    said_empty = want.framing == "none" and got.framing == "length" and not got.length  # the router's client says that a POST has no content
    if got.framing != want.framing and not said_empty:
        return f"framing is {got.framing}, not {want.framing}"
    left = list(got.headers)
    for field in want.headers:
        if field == (b"host", b"") or field[0] in (b"connection", b"expect", b"x-request-id", b"x-forwarded-for", b"x-forwarded-proto"):
            continue
        if field not in left:
            return f"field {field!r} is not in {got.headers!r}"
        left.remove(field)
    return ""


async def _run(cases, ports, origins, known):
    lanes = [Lane(p, o, known) for p, o in zip(ports, origins)]
    queue, results = list(reversed(cases)), []

    async def work(lane):
        while queue:
            results.append(await lane.run(queue.pop()))
    await asyncio.gather(*(work(lane) for lane in lanes))
    return results


async def run_all(cases, lane_count, start, known=True):
    """start(upstream ports) → [{kind: listener port}] and a function that ends the proxy. Returns the results in the order of the cases."""
    origins = [Origin() for _ in range(lane_count)]
    for o in origins:
        await o.start()
    ports, stop = start([o.port for o in origins])
    try:
        results = await _run(cases, ports, origins, known)
    finally:
        stop()
        for o in origins:
            await o.stop()
    order = {c.name: i for i, c in enumerate(cases)}
    return sorted(results, key=lambda r: order[r.case.name])

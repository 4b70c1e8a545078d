# SPDX-License-Identifier: Apache-2.0
"""The HTTP/2 client and backend of the parity cases, frame by frame (tests/integration/h2wire.py), so that they can also do what a library would not."""

import heapq
import socket
import ssl
import struct
import time

import h2wire

WAIT_S = 20
QUIET_S = 2  # for what may come or not: a case that waits for nothing fails on its recording, never on time
CODES = ("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM",
         "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED")


def code(x):
    return CODES.index(x) if isinstance(x, str) else x


def name(n):
    return CODES[n] if n < len(CODES) else str(n)


def fields(lines):
    """[(name, value)] of "name: value" lines; a pseudo field's name begins with a colon."""
    out = []
    for line in lines:
        k, _, v = line[1:].partition(":")
        out.append((line[0] + k, v.strip()))
    return out


# --- backend ---

class Server:
    """One connection of a backend: answers each stream as the case's next step says."""

    def __init__(self, sock, backend, scripts, h2):
        own = {8: 1} if h2.get("connect") else {}
        own.update(h2.get("settings", {}))
        got = b""
        while len(got) < len(h2wire.PREFACE):
            part = sock.recv(len(h2wire.PREFACE) - len(got))
            if not part:
                raise ConnectionError("no preface")
            got += part
        self.w, self.backend, self.scripts = h2wire.Wire(sock, False, own), backend, scripts
        self.done, self.requests, self.steps, self.later, self.n = set(), {}, {}, [], 0

    def run(self):
        w = self.w
        while True:
            wait = max(0.0, self.later[0][0] - time.monotonic()) if self.later else WAIT_S
            got = w.step(wait)
            while self.later and self.later[0][0] <= time.monotonic():
                heapq.heappop(self.later)[2]()
            if got:
                self.look(got[2])
            if w.closed is not None:
                break
        for sid, r in self.requests.items():
            if not self.answered(sid):
                self.scripts.end(r, "closed")

    def answered(self, sid):
        return self.steps.get(sid) == "whole"

    def look(self, sid):
        s = self.w.streams.get(sid)
        if not sid or not s or not s["headers"]:
            return
        if s["reset"] is not None:
            if sid not in self.requests:
                self.done.add(sid)
                self.requests[sid] = self.request(s)
                self.requests[sid]["body"] = "(incomplete)"
                self.scripts.next(self.case(s), self.backend, self.requests[sid], take=False)
            if not self.answered(sid):
                self.scripts.end(self.requests[sid], "reset " + name(s["reset"]))
            return
        if sid in self.done:
            if self.steps.get(sid) == "tunnel" and s["data"]:
                self.tunnel(sid, s)
            return
        case = self.case(s)
        if s["end"] or self.scripts.early(case):
            self.done.add(sid)
            self.requests[sid] = r = self.request(s)
            self.start(sid, s, self.scripts.next(case, self.backend, r), r)

    @staticmethod
    def case(s):
        return dict(s["headers"][0]).get("x-case", "")

    def request(self, s):
        head = s["headers"][0]
        h = dict(head)
        rest = [(k, v) for k, v in head if k not in (":method", ":path")]
        trailers = [("trailer " + k, v) for block in s["headers"][1:] for k, v in block]
        return {"to": self.backend, "line": f"{h[':method']} {h.get(':path', '-')} HTTP/2", "headers": rest + trailers,
                "body": s["data"].decode("latin-1") if s["end"] else ""}

    def start(self, sid, s, step, r):
        step = {"status": step} if isinstance(step, int) else {step: True} if isinstance(step, str) else step
        w = self.w
        if "stall" in step:
            self.scripts.expect(r)
        elif "reset" in step:
            self.steps[sid] = "whole"
            w.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            w.closed = "own"
            w.close()
        elif "close" in step and len(step) == 1:
            self.steps[sid] = "whole"
            self.hang_up()
        elif "rst" in step:
            self.steps[sid] = "whole"
            w.send(h2wire.RST_STREAM, 0, sid, struct.pack(">I", code(step["rst"])))
        elif "goaway" in step:
            self.steps[sid] = "whole"
            w.send(h2wire.GOAWAY, 0, 0, struct.pack(">II", sid if step.get("last", "below") == "this" else sid - 2 if sid > 2 else 0, code(step["goaway"])))
            if "status" in step:
                self.answer(sid, s, step, r)
            else:
                self.hang_up()
        elif "wait_ms" in step:
            self.n += 1
            heapq.heappush(self.later, (time.monotonic() + step["wait_ms"] / 1000, self.n, lambda: self.answer(sid, s, step, r)))
        else:
            self.answer(sid, s, step, r)

    def hang_up(self):
        """Ends the connection in order: closing with bytes unread would reset it, and what was sent would be lost."""
        w = self.w
        w.closed = "own"
        try:
            w.sock.shutdown(socket.SHUT_WR)
            w.sock.settimeout(WAIT_S)
            while w.sock.recv(65536):
                pass
        except OSError:
            pass
        w.close()

    def answer(self, sid, s, step, r):
        w = self.w
        if s["reset"] is not None:
            return
        for i in step.get("interim", []):
            i = {"status": i} if isinstance(i, int) else i
            w.headers(sid, [(":status", str(i["status"])), *fields(i.get("headers", []))], False)
        if step.get("frames") is not None:  # raw: [kind, flags, text]
            for kind, flags, text in step["frames"]:
                w.send(kind, flags, sid, text.encode("latin-1"))
        method = dict(s["headers"][0])[":method"]
        body = step.get("body", self.backend).encode()
        status = step.get("status", 200)
        if step.get("tunnel"):
            status = 200
        head = [(":status", str(status)), ("x-backend", self.backend), *fields(step.get("headers", []))]
        if "length" in step:
            head.append(("content-length", str(step["length"])))
        if "fields" in step:
            head = fields(step["fields"])
        if step.get("tunnel"):
            self.steps[sid] = "tunnel"
            w.headers(sid, head, False)
            self.tunnel(sid, s)
            return
        half = step.get("half")
        empty = method == "HEAD" or (not body and "trailers" not in step) or status in (204, 304)
        w.headers(sid, head, empty and not half)
        if empty and not half:
            self.steps[sid] = "whole"
        elif half:
            if body and method != "HEAD":
                w.data(sid, body)
            if half == "stall":
                self.scripts.expect(r)
            elif half == "close":
                self.steps[sid] = "whole"
                self.hang_up()
            else:
                self.steps[sid] = "whole"
                w.send(h2wire.RST_STREAM, 0, sid, struct.pack(">I", code(half)))
        else:
            self.steps[sid] = "whole"
            if body:
                w.data(sid, body, "trailers" not in step)
            if "trailers" in step:
                w.headers(sid, fields(step["trailers"]), True)
        if step.get("close"):
            self.hang_up()

    def tunnel(self, sid, s):
        """Gives back what came, in capitals; ends where it reads "bye"."""
        data, s["data"] = s["data"], b""
        if data:
            end = b"bye" in data
            self.w.data(sid, data.upper(), end)
            if end:
                self.steps[sid] = "whole"


# --- client ---

class Client:
    """One connection of a client."""

    def __init__(self, sock, tls=None):
        self.alpn = None
        if tls:
            sock = tls.wrap_socket(sock, server_hostname="test.local")
            self.alpn = sock.selected_alpn_protocol()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.w, self.next = h2wire.Wire(sock, True), 1
        self.w.until(lambda: self.w.peer, WAIT_S)

    def ask(self, case, head, body, wait_seen):
        """One request; what came back as a dict."""
        w, sid = self.w, self.next
        self.next += 2
        trailers, unfinished = case.get("trailers"), case.get("unfinished")
        open_ = bool(body or trailers or unfinished or case.get("tunnel") or case.get("continue") or body == "")
        last = not (trailers or unfinished or case.get("tunnel"))
        if body and not case.get("continue"):  # one write, so that one read gets it
            data = body.encode("latin-1")
            parts = [data[i:i + 16384] for i in range(0, len(data), 16384)]
            out = h2wire.frame(h2wire.HEADERS, h2wire.END_HEADERS, sid, h2wire.block(head))
            out += b"".join(h2wire.frame(h2wire.DATA, h2wire.END_STREAM if last and p is parts[-1] else 0, sid, p) for p in parts)
            w.raw(out)
        else:
            w.headers(sid, head, not open_ or (body == "" and last))
        if case.get("continue"):
            w.until(lambda: w.stream(sid)["headers"] or w.stream(sid)["reset"] is not None, WAIT_S)
        if case.get("tunnel"):
            return self.tunnel(sid, case["tunnel"])
        if body and case.get("continue"):
            w.data(sid, body.encode("latin-1"), last)
        if trailers:
            w.headers(sid, fields(trailers), not unfinished)
        if "cancel" in case:
            return self.cancel(sid, case, wait_seen)
        s = w.stream(sid)
        w.until(lambda: s["end"] or s["reset"] is not None or (w.goaway and w.goaway[0]), WAIT_S)
        if case.get("unfinished"):  # what follows a whole answer to half a request
            w.until(lambda: s["reset"] is not None, QUIET_S)
        if not s["end"] and s["reset"] is None:
            w.until(lambda: False, WAIT_S)
        return self.result(sid)

    def cancel(self, sid, case, wait_seen):
        s = self.w.stream(sid)
        wait_seen()
        if case.get("cancel_at") == "head":
            self.w.until(lambda: s["headers"], WAIT_S)
        if case["cancel"] == "connection":
            self.w.close()
        else:
            self.w.send(h2wire.RST_STREAM, 0, sid, struct.pack(">I", code(case["cancel"])))
        return {"status": 0, "headers": [], "body": "(cancelled)"}

    def tunnel(self, sid, parts):
        """Sends one part after the other, each after the answer to the one before; what came of each."""
        w, s, got = self.w, self.w.stream(sid), []
        w.until(lambda: any(dict(h).get(":status", "1")[0] != "1" for h in s["headers"]) or s["reset"] is not None, WAIT_S)
        if s["headers"] and not s["end"] and s["reset"] is None and dict(s["headers"][-1])[":status"] == "200":
            for p in parts:
                before = len(s["data"])
                w.data(sid, p.encode(), False)
                w.until(lambda n=before + len(p): len(s["data"]) >= n or s["end"] or s["reset"] is not None, WAIT_S)
                got.append(s["data"][before:].decode("latin-1"))
            if "bye" in parts[-1]:
                w.until(lambda: s["end"] or s["reset"] is not None, WAIT_S)
            if s["reset"] is None:
                w.data(sid, b"", True)
        elif not s["end"]:
            w.until(lambda: s["end"] or s["reset"] is not None, WAIT_S)
        return {**self.result(sid), "tunnel": got, "ended": s["end"]}

    def result(self, sid):
        w, s = self.w, self.w.stream(sid)
        final = next((i for i, h in enumerate(s["headers"]) if dict(h).get(":status", "200")[0] != "1"), None)
        whole = s["end"] and final is not None
        out = {"status": 0, "headers": [], "body": "" if final is None else s["data"].decode("latin-1") if whole else "(incomplete)"}
        if final is not None:
            head = s["headers"][final]
            out["status"] = int(dict(head)[":status"])
            out["headers"] = [(k, v) for k, v in head if k != ":status"]
            out["headers"] += [("trailer " + k, v) for h in s["headers"][final + 1:] for k, v in h]
        interim = [[f"{k}: {v}" for k, v in h] for h in s["headers"][:final]]
        if interim:
            out["interim"] = interim
        if s["reset"] is not None:
            out["reset"] = name(s["reset"])
        elif not whole:
            out["connection"] = "closed" if w.closed else "open"
        if w.goaway:
            out["goaway"] = name(w.goaway[1])
        return out

    def close(self):
        self.w.close()


def context(alpn):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    if alpn:
        c.set_alpn_protocols(alpn)
    return c

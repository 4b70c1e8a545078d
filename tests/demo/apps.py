#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ordinary applications that know nothing of a mesh, and an ordinary client.

  apps.py web NAME VERSION PORT     an HTTP application: productpage, reviews, ratings
  apps.py redis PORT                a TCP service that speaks a little of the Redis protocol
  apps.py load URL [options]        sends requests over several connections and says what each one got
  apps.py get URL [COUNT]           sends requests and counts who answered: to play with"""

import argparse
import asyncio
import collections
import http.client
import json
import sys
import threading
import time
import urllib.parse

HEAD_MAX = 65536


# --- HTTP server ---

class Web:
    def __init__(self, name, version):
        self.name, self.version, self.broken = name, version, False

    async def serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
                method, path, _ = first.split(" ", 2)
                headers = {}
                for f in fields:
                    k, _, v = f.partition(":")
                    headers[k.strip().lower()] = v.strip()
                body = await self.body(reader, headers)
                status, answer = await self.answer(method, path, headers, body)
                close = headers.get("connection", "").lower() == "close"
                writer.write(f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-App: {self.name}\r\nX-Version: {self.version}\r\n"
                             f"Content-Length: {len(answer)}\r\n{'Connection: close' + chr(13) + chr(10) if close else ''}\r\n".encode()
                             + answer)
                await writer.drain()
                if close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            writer.close()

    async def body(self, reader, headers):
        if headers.get("transfer-encoding", "").lower() == "chunked":
            out = b""
            while True:
                n = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
                out += (await reader.readexactly(n + 2))[:n]
                if n == 0:
                    return out
        return await reader.readexactly(int(headers.get("content-length", 0)))

    async def answer(self, method, path, headers, body):
        me = {"app": self.name, "version": self.version}
        if method == "POST" and path in ("/break", "/mend"):
            self.broken = path == "/break"
        elif self.broken:
            return "500 Internal Server Error", json.dumps(me).encode()
        try:
            if path == "/headers":
                me["headers"] = headers
            elif path == "/echo":
                return "200 OK", body
            elif path == "/productpage":
                me["reviews"] = await fetch("reviews", 9080, "/reviews/0")
            elif path.startswith("/reviews/") and self.version != "v1":
                me["ratings"] = await fetch("ratings", 9080, "/ratings/0")
            elif path.startswith("/ratings/"):
                me["stars"] = [5, 4]
        except (OSError, asyncio.IncompleteReadError, ValueError) as e:
            return "502 Bad Gateway", json.dumps({**me, "error": str(e)}).encode()
        return "200 OK", json.dumps(me).encode()


async def fetch(host, port, path):
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        data = await asyncio.wait_for(reader.read(-1), 10)
        head, _, body = data.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0] + b" ":
            raise ValueError(f"{host} answered {head.split(bytes([13]))[0].decode('latin-1')}")
        return json.loads(body)
    finally:
        writer.close()


# --- a little Redis ---

class Redis:
    def __init__(self):
        self.data = {}

    async def serve(self, reader, writer):
        try:
            while True:
                words = await self.command(reader)
                writer.write(self.reply(words))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    async def command(self, reader):
        line = (await reader.readuntil(b"\r\n"))[:-2]
        if not line.startswith(b"*"):
            return line.split()
        words = []
        for _ in range(int(line[1:])):
            n = int((await reader.readuntil(b"\r\n"))[1:-2])
            words.append((await reader.readexactly(n + 2))[:n])
        return words

    def reply(self, words):
        verb = words[0].upper() if words else b""
        if verb == b"PING":
            return b"+PONG\r\n"
        if verb == b"ECHO" and len(words) == 2:
            return b"$%d\r\n%s\r\n" % (len(words[1]), words[1])
        if verb == b"SET" and len(words) == 3:
            self.data[words[1]] = words[2]
            return b"+OK\r\n"
        if verb == b"GET" and len(words) == 2:
            v = self.data.get(words[1])
            return b"$-1\r\n" if v is None else b"$%d\r\n%s\r\n" % (len(v), v)
        return b"-ERR unknown command\r\n"


async def listen(serve, port):
    server = await asyncio.start_server(serve, None, port, limit=HEAD_MAX, backlog=512)
    async with server:
        await server.serve_forever()


# --- client ---

class Load:
    """Worker threads, each with one connection at a time. Nothing is tried twice: what fails is counted as failed."""

    def __init__(self, a):
        self.a = a
        u = urllib.parse.urlsplit(a.url)
        self.host, self.port, self.path = u.hostname, u.port or 80, u.path or "/"
        self.headers = dict(h.split(":", 1) for h in a.header)
        self.lock = threading.Lock()
        self.left = a.count
        self.stop = threading.Event()
        self.rows = []  # start, end (monotonic seconds), status or 0, version, x-canary, error

    def take(self):
        with self.lock:
            if self.stop.is_set() or self.left == 0:
                return False
            self.left -= 1
            return True

    def worker(self, index):
        conn, rows = None, []
        pause = self.a.connections / self.a.rate if self.a.rate else 0
        due = time.monotonic() + index * pause / self.a.connections
        while self.take():
            if pause:
                now = time.monotonic()
                if due > now:
                    time.sleep(due - now)
                due = max(due + pause, now - 1)
            start = time.monotonic()
            try:
                if conn is None:
                    conn = http.client.HTTPConnection(self.host, self.port, timeout=10)
                conn.request("GET", self.path, headers=self.headers)
                r = conn.getresponse()
                r.read()
                rows.append((start, time.monotonic(), r.status, r.getheader("x-version", ""), r.getheader("x-canary", ""), ""))
                if r.will_close or self.a.close:
                    conn.close()
                    conn = None
            except (OSError, http.client.HTTPException) as e:
                rows.append((start, time.monotonic(), 0, "", "", f"{type(e).__name__}: {e}"))
                if conn:
                    conn.close()
                conn = None
        if conn:
            conn.close()
        with self.lock:
            self.rows += rows

    def run(self):
        threads = [threading.Thread(target=self.worker, args=(i,)) for i in range(self.a.connections)]
        for t in threads:
            t.start()
        if self.a.until_eof:
            sys.stdin.read()  # until our parent closes it
            self.stop.set()
        for t in threads:
            t.join()
        self.rows.sort()
        return self.rows


def summary(rows):
    count = collections.Counter(r[3] or "?" for r in rows if r[2] == 200)
    failed = collections.Counter(r[5] or f"status {r[2]}" for r in rows if r[2] != 200)
    return count, failed


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="what", required=True)
    web = sub.add_parser("web")
    web.add_argument("name")
    web.add_argument("version")
    web.add_argument("port", type=int)
    red = sub.add_parser("redis")
    red.add_argument("port", type=int)
    load = sub.add_parser("load")
    get = sub.add_parser("get")
    for s in (load, get):
        s.add_argument("url")
        s.add_argument("--header", action="append", default=[], metavar="NAME:VALUE")
    get.add_argument("count", type=int, nargs="?", default=20)
    load.add_argument("--count", type=int, default=-1)
    load.add_argument("--connections", type=int, default=8)
    load.add_argument("--rate", type=float, default=0, help="requests a second over all connections (0: as fast as answers come)")
    load.add_argument("--close", action="store_true", help="a new connection for each request")
    load.add_argument("--until-eof", action="store_true", help="go on until standard input is closed")
    load.add_argument("--out", required=True, help="file for the rows, as JSON")
    a = p.parse_args()
    if a.what == "web":
        asyncio.run(listen(Web(a.name, a.version).serve, a.port))
    elif a.what == "redis":
        asyncio.run(listen(Redis().serve, a.port))
    elif a.what == "load":
        rows = Load(a).run()
        with open(a.out, "w", encoding="utf-8") as f:
            json.dump(rows, f)
    else:
        a.connections, a.rate, a.close, a.until_eof = min(4, a.count), 0, False, False
        count, failed = summary(Load(a).run())
        for version, n in sorted(count.items()):
            print(f"{n:6d} answered by {version}")
        for why, n in failed.items():
            print(f"{n:6d} failed: {why}")
        sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)

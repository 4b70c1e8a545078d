# SPDX-License-Identifier: Apache-2.0
"""Backends that fail one at a time under load. Short here; `make resilience` runs the same for 18 seconds and prints the figures.

Load and backends share this process and its clock. What is judged are counts: who failed, what ran twice, how often it was tried."""

import asyncio
import contextlib
import os
import random
import socket
import struct
import time

from harness import LOOPBACK, cluster, free_port, hcm, listener, route

SECONDS = float(os.environ.get("REMORA_CHAOS_SECONDS", "4"))
RATE = int(os.environ.get("REMORA_CHAOS_RATE", "400" if SECONDS > 10 else "200"))
OUTAGE_S, CALM_S = 0.4, 0.3
# What istiod sends with every route that has no retries of its own.
ISTIO_RETRIES = {"retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                 "retriable_status_codes": [503], "num_retries": 2, "host_selection_retry_max_attempts": "5",
                 "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {
                     "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}]}


def reset(writer):
    """Ends a connection with RST, as a process that dies with unread input does."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Backend:
    """An HTTP/1.1 server that can refuse connections, reset them, or stall."""

    def __init__(self, port):
        self.port, self.mode, self.server = port, "on", None
        self.writers, self.tasks, self.ran, self.status = set(), set(), [], 200
        self.back_on = asyncio.Event()
        self.back_on.set()

    async def listen(self):
        self.server = await asyncio.start_server(self.serve, LOOPBACK, self.port, backlog=512, reuse_address=True)

    async def fail(self, mode):
        self.mode = mode
        if mode == "refuse":
            self.server.close()
        if mode == "stall":
            self.back_on.clear()
            return
        for w in list(self.writers):
            reset(w)

    async def recover(self):
        if self.mode == "refuse":
            await self.listen()
        self.mode = "on"
        self.back_on.set()

    async def close(self):
        for t in list(self.tasks):
            t.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def serve(self, reader, writer):
        task = asyncio.create_task(self.serve_one(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def serve_one(self, reader, writer):
        self.writers.add(writer)
        try:
            if self.mode == "reset":
                reset(writer)
                return
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                await reader.readexactly(body)
                if self.mode == "reset":
                    reset(writer)
                    return
                self.ran.append(head.partition(b"x-id: ")[2].partition(b"\r\n")[0])
                await self.back_on.wait()
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\nok" % self.status)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()


class Load:
    """RATE requests a second, each due at its own time whatever became of the others; every fifth is a POST."""

    def __init__(self, port, rate, posts=True):
        self.port, self.rate, self.posts = port, rate, posts
        self.idle, self.results = [], []  # results: (sent at, method, id, status or why not)

    async def one(self, n):
        method = "POST" if self.posts and n % 5 == 4 else "GET"
        text = f"{method} /{n} HTTP/1.1\r\nhost: chaos\r\nx-id: {n}\r\n" + ("content-length: 2\r\n\r\nhi" if method == "POST" else "\r\n")
        at, result = time.monotonic(), "?"
        try:
            r, w = self.idle.pop() if self.idle else await asyncio.open_connection(LOOPBACK, self.port)
            w.write(text.encode())
            head = await asyncio.wait_for(r.readuntil(b"\r\n\r\n"), 15)
            result = int(head.split()[1])
            await r.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0))
            if b"connection: close" in head.lower():
                w.close()
            else:
                self.idle.append((r, w))
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as e:
            result = type(e).__name__
        self.results.append((at, method, str(n).encode(), result))

    async def run(self, seconds):
        start, tasks = time.monotonic(), []
        for n in range(int(seconds * self.rate)):
            wait = start + n / self.rate - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(self.one(n)))
        await asyncio.gather(*tasks)
        for _, w in self.idle:
            w.close()


async def outages(backends, until, log):
    rng = random.Random(7)
    modes = ["refuse", "reset", "stall"]
    while time.monotonic() + OUTAGE_S + CALM_S < until:
        await asyncio.sleep(CALM_S)
        b, mode = rng.choice(backends), modes[len(log) % 3]
        await b.fail(mode)
        await asyncio.sleep(OUTAGE_S)
        await b.recover()
        log.append(mode)


def report(title, rows):
    """Shown by `make resilience` (pytest -s)."""
    print(f"\n{title}")
    for k, v in rows.items():
        print(f"  {k:44} {v}")


def chaos_config(ports, retries):
    entry = free_port()
    return entry, [listener(entry, hcm([route("c", retry_policy=retries, timeout="10s")]))], [cluster("c", ports)]


def test_one_backend_at_a_time_fails(proxy):
    ports = [free_port() for _ in range(3)]
    entry, listeners, clusters = chaos_config(ports, ISTIO_RETRIES)
    p = proxy(listeners, clusters)
    load, log = Load(entry, RATE), []

    async def story():
        backends = [Backend(port) for port in ports]
        for b in backends:
            await b.listen()
        chaos = asyncio.create_task(outages(backends, time.monotonic() + SECONDS, log))
        await load.run(SECONDS)
        await chaos
        for b in backends:
            await b.close()
        return [i for b in backends for i in b.ran]
    ran = asyncio.run(story())
    gets = [r for r in load.results if r[1] == "GET"]
    failed = [r for r in gets if r[3] != 200]
    posts = [r for r in load.results if r[1] == "POST"]
    posted = {r[2] for r in posts}
    twice = {i for i in posted if ran.count(i) > 1}
    attempts = p.stat("cluster.c.upstream_rq_total")
    report("one of three backends refuses, resets or stalls at a time", {
        "outages": f"{len(log)} in {SECONDS:g} s at {RATE} requests/s",
        "idempotent requests, failed": f"{len(gets)}, {len(failed)} ({100 * len(failed) / len(gets):.3f} %) {sorted({str(r[3]) for r in failed})}",
        "POSTs, failed": f"{len(posts)}, {sum(r[3] != 200 for r in posts)}",
        "POSTs that ran twice": len(twice),
        "attempts per request": f"{attempts / len(load.results):.3f}"})
    assert len(log) >= int(SECONDS / (OUTAGE_S + CALM_S)) - 3
    assert len(failed) <= 0.0005 * len(gets), failed[:5]
    assert not twice
    assert attempts <= 1.2 * len(load.results)


def test_retries_do_not_add_to_an_overload(proxy):
    """Every backend answers 503: the retry budget, on by default, holds the attempts; and all is well once they are back. (The
    budget allows 10 retries a second whatever the rate is; 500 requests a second are beyond that.)"""
    ports = [free_port() for _ in range(3)]
    entry, listeners, clusters = chaos_config(ports, {**ISTIO_RETRIES, "retry_on": "5xx"})
    p = proxy(listeners, clusters)
    load, seconds = Load(entry, 500, posts=False), 4.0
    back = []

    async def story():
        backends = [Backend(port) for port in ports]
        for b in backends:
            await b.listen()
            b.status = 503

        async def recover():
            await asyncio.sleep(seconds / 2)
            back.append((time.monotonic(), p.stat("cluster.c.upstream_rq_total")))
            for b in backends:
                b.status = 200
        await asyncio.gather(load.run(seconds), recover())
        for b in backends:
            await b.close()
    asyncio.run(story())
    at, attempts = back[0]
    asked = sum(r[0] < at for r in load.results)
    late = [r for r in load.results if r[3] != 200 and r[0] > at + 2]
    last = max((r[0] - at for r in load.results if r[3] != 200), default=0)
    report("all backends answer 503, and come back", {
        "requests, attempts while they failed": f"{asked}, {attempts} ({attempts / asked:.2f} each)",
        "last failure after they were back": f"{max(last, 0):.3f} s"})
    assert attempts <= 1.2 * asked + 20  # in flight at that moment
    assert not late

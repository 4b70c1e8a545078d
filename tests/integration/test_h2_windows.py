# SPDX-License-Identifier: Apache-2.0
"""Clients that open their windows in any order and by any amount: no stream is forgotten, none gets another's bytes."""

import os
import random
import struct

import pytest

from harness import in_front_of

h2wire = pytest.importorskip("h2wire", reason="python3-h2's hpack is needed")
from h2wire import ACK, DATA, RST_STREAM, SETTINGS, WINDOW_UPDATE, dial, request, settings  # noqa: E402

INITIAL_WINDOW_SIZE = 4
SEEDS = int(os.environ.get("REMORA_WINDOW_SEEDS", "4"))  # more of them look for stalls, e.g. 200
SIZES = (0, 1, 100, 512, 2000, 16_384, 70_000, 300_000)
LARGE = 1 << 20


def content(n):
    """n bytes of which each part tells where it stands and in an answer of which length."""
    return b"".join(b"%08d of %07d\n" % (i, n) for i in range(0, n, 20))[:n]


def sized(first, headers, body):
    n = int(first.split()[1][1:])
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n + content(n)


class Client:
    """A connection that reads and opens windows when its dice say so."""

    def __init__(self, port, rnd):
        self.rnd = rnd
        self.first = rnd.choice((0, 1, 100, 1000, 16_383, 65_535, 200_000))
        self.wire = dial(port, ((INITIAL_WINDOW_SIZE, self.first),))
        self.wire.auto = False
        self.asked, self.left_alone = {}, set()
        self.updates = self.data_frames = 0

    def window(self, stream, n):
        self.updates += 1
        self.wire.send(WINDOW_UPDATE, 0, stream, struct.pack(">I", n))

    def read(self, seconds=0.0):
        got = self.wire.step(seconds)
        if got and got[0] == SETTINGS and not got[1] & ACK:
            self.wire.send(SETTINGS, ACK)
        self.data_frames += bool(got) and got[0] == DATA
        return got

    def ended(self, n):
        s = self.wire.stream(n)
        return s["end"] or s["reset"] is not None

    def waiting(self):
        return [n for n in self.asked if n not in self.left_alone and not self.ended(n)]

    def act(self):
        rnd, waits = self.rnd, self.waiting()
        what = rnd.random()
        # More are a flood: 2 for a stream and 20 for a frame of DATA are allowed; finish() needs half of that.
        may_open = self.updates < len(self.asked) + 10 * self.data_frames
        if what < 0.25 and len(waits) < 60:
            n = 1 + 2 * len(self.asked)
            self.asked[n] = rnd.choice(SIZES)
            self.wire.headers(n, request(path=f"/{self.asked[n]}"))
        elif what < 0.55 and waits and may_open:
            self.window(rnd.choice(waits), rnd.choice((1, 10, 1000, 20_000, 100_000)))
        elif what < 0.65 and may_open:
            self.window(0, rnd.choice((1, 1000, 50_000)))
        elif 0.65 <= what < 0.68:
            self.first = rnd.choice((0, 10, 5000, 65_535))
            self.wire.raw(settings(((INITIAL_WINDOW_SIZE, self.first),)))
        elif 0.68 <= what < 0.70 and waits:
            n = rnd.choice(waits)
            self.left_alone.add(n)
            self.wire.send(RST_STREAM, 0, n, struct.pack(">I", 8))
        else:
            for _ in range(rnd.randrange(40)):
                if not self.read(rnd.choice((0.0, 0.002))):
                    break

    def finish(self):
        """Everything opened: each stream that was not given up ends, with its own bytes."""
        self.window(0, 1 << 30)
        for n in self.waiting():
            self.window(n, LARGE)
        while self.waiting():
            assert self.read(15.0), f"closed={self.wire.closed} goaway={self.wire.goaway} streams wait: {[(n, self.asked[n], len(self.wire.stream(n)['data'])) for n in self.waiting()]}"
        for n, size in self.asked.items():
            s = self.wire.stream(n)
            if n not in self.left_alone:
                assert s["reset"] is None and dict(s["headers"][0])[":status"] == "200", (n, s["reset"], s["headers"])
            assert s["data"] == content(size)[:len(s["data"])] and (n in self.left_alone or len(s["data"]) == size), (n, size, len(s["data"]))


@pytest.mark.parametrize("upstream", ["HTTP/1.1", "HTTP/2"])
def test_windows_in_any_order(proxy, backend, upstream):
    port, p = in_front_of(proxy, backend, sized, upstream)
    for seed in range(SEEDS):
        rnd = random.Random(seed)
        clients = [Client(port, rnd) for _ in range(2)]
        try:
            for _ in range(rnd.randrange(50, 300)):
                rnd.choice(clients).act()
            for c in clients:
                c.finish()
        except AssertionError as e:
            raise AssertionError(f"seed {seed}: {e}") from e
        finally:
            for c in clients:
                c.wire.close()
    assert p.p.poll() is None

# SPDX-License-Identifier: Apache-2.0
"""Bytes off the wire: a packet socket on the bridge, TCP streams put together from it, and as much of TLS as is needed to
say "these are TLS records" and, up to TLS 1.2, "this certificate went by". Nothing here asks remora."""

import collections
import re
import socket
import struct
import threading

ETH_P_ALL = 3
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_STATISTICS, PACKET_MR_PROMISC = 263, 1, 6, 1
SO_RCVBUFFORCE = 33
HANDSHAKE, CHANGE_CIPHER_SPEC, ALERT, APPLICATION_DATA = 22, 20, 21, 23

Stream = collections.namedtuple("Stream", "src sport dst dport data whole")


class Capture:
    """with Capture(place) as c: …; then c.streams(), c.contains(bytes). One copy of each frame that the bridge forwards."""

    def __init__(self, place, device="br0"):
        self.place, self.device = place, device
        self.frames, self.dropped = [], 0
        self.done = threading.Event()

    def __enter__(self):
        self.sock = self.place.call(self.place.hub, self._open)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        return self

    def _open(self):
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        try:
            s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        except OSError:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        s.bind((self.device, ETH_P_ALL))
        # A bridge shows itself what it forwards only in promiscuous mode (net/bridge/br_input.c).
        s.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, struct.pack("IHH8s", socket.if_nametoindex(self.device), PACKET_MR_PROMISC, 0, b""))
        s.settimeout(0.1)
        return s

    def _read(self):
        while True:
            try:
                frame = self.sock.recv(1 << 17)
            except TimeoutError:
                if self.done.is_set():
                    return
                continue
            self.frames.append(frame)

    def __exit__(self, *exc):
        self.done.set()
        self.thread.join()
        _, self.dropped = struct.unpack("II", self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self.sock.close()
        return False

    def contains(self, what):
        return any(what in f for f in self.frames)

    def streams(self):
        """Every TCP direction seen, with its payload in order. whole: it starts at the SYN and has no gap."""
        parts = {}
        for f in self.frames:
            if len(f) < 54 or f[12:14] != b"\x08\x00" or f[23] != 6:  # IPv4, TCP
                continue
            ihl = (f[14] & 15) * 4
            ip_len = struct.unpack_from("!H", f, 16)[0]
            tcp = 14 + ihl
            sport, dport, seq = struct.unpack_from("!HHI", f, tcp)
            flags = f[tcp + 13]
            start = tcp + (f[tcp + 12] >> 4) * 4
            end = 14 + ip_len if ip_len else len(f)
            key = (socket.inet_ntoa(f[26:30]), sport, socket.inet_ntoa(f[30:34]), dport)
            p = parts.setdefault(key, {"syn": None, "segs": {}})
            if flags & 2:
                p["syn"] = seq
                p["segs"] = {}
            elif end > start:
                old = p["segs"].get(seq, b"")
                if end - start > len(old):
                    p["segs"][seq] = f[start:end]
        return [self._join(k, p) for k, p in parts.items()]

    @staticmethod
    def _join(key, p):
        if not p["segs"]:
            return Stream(*key, b"", p["syn"] is not None)
        base = (p["syn"] + 1) & 0xffffffff if p["syn"] is not None else min(p["segs"])
        data, whole = bytearray(), p["syn"] is not None
        for off, seg in sorted(((s - base) & 0xffffffff, d) for s, d in p["segs"].items()):
            if off > len(data):
                whole = False
                break
            data[off:] = seg if off + len(seg) >= len(data) else data[off:]
        return Stream(*key, bytes(data), whole)


def tls_records(data):
    """(type, version, body) of each record; None when the bytes are not TLS records from the first to the last."""
    out, i = [], 0
    while i + 5 <= len(data):
        kind, version, n = struct.unpack_from("!BHH", data, i)
        if kind not in (HANDSHAKE, CHANGE_CIPHER_SPEC, ALERT, APPLICATION_DATA) or version >> 8 != 3 or n > (1 << 14) + 256:
            return None
        out.append((kind, version, data[i + 5:i + 5 + n]))
        i += 5 + n
    return out


def certificates(data):
    """DER of the certificates that go by in clear (TLS up to 1.2: handshake type 11, RFC 5246 §7.4.2), leaf first."""
    flight = b""
    for kind, _, body in tls_records(data) or []:
        if kind == CHANGE_CIPHER_SPEC:
            break
        if kind == HANDSHAKE:
            flight += body
    i = 0
    while i + 4 <= len(flight):
        n = int.from_bytes(flight[i + 1:i + 4], "big")
        if flight[i] == 11:
            body, certs, k = flight[i + 4:i + 4 + n], [], 3
            while k + 3 <= len(body):
                size = int.from_bytes(body[k:k + 3], "big")
                certs.append(body[k + 3:k + 3 + size])
                k += 3 + size
            return certs
        i += 4 + n
    return []


def spiffe_names(der):
    """URI names of a certificate: context tag 6 and a length of one byte before the text (RFC 5280 §4.2.1.6)."""
    return [der[m.end():m.end() + m.group(1)[0]].decode("ascii", "replace") for m in re.finditer(rb"\x86(.)(?=spiffe://)", der, re.S)]

# SPDX-License-Identifier: Apache-2.0
"""xDS messages as text, turned into bytes by protoc from the project's own .proto files, and gRPC without generated code."""

import functools
import glob
import queue
import re
import subprocess
import threading
import time
from concurrent import futures

import grpc

from harness import ROOT

SERVICE = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
TYPES = {"cds": "envoy.config.cluster.v3.Cluster", "lds": "envoy.config.listener.v3.Listener",
         "eds": "envoy.config.endpoint.v3.ClusterLoadAssignment", "rds": "envoy.config.route.v3.RouteConfiguration"}
URLS = {k: "type.googleapis.com/" + v for k, v in TYPES.items()}


@functools.lru_cache(None)
def protos():
    names = ["envoy/service/discovery/v3/discovery.proto", "envoy/config/cluster/v3/cluster.proto", "envoy/config/listener/v3/listener.proto",
             "envoy/config/endpoint/v3/endpoint.proto", "envoy/config/route/v3/route.proto"]
    extra = glob.glob("envoy/extensions/**/*.proto", root_dir=ROOT / "proto", recursive=True)
    return [n for n in names if (ROOT / "proto" / n).exists()] + [e for e in extra if re.search("http_connection_manager|router|tcp_proxy", e)]


@functools.lru_cache(256)
def encode(message, text):
    p = subprocess.run(["protoc", "-Iproto", f"--encode={message}", *protos()], input=text.encode(), capture_output=True, cwd=ROOT, check=False)
    assert p.returncode == 0, p.stderr.decode()
    return p.stdout


def decode(message, data):
    p = subprocess.run(["protoc", "-Iproto", f"--decode={message}", *protos()], input=data, capture_output=True, cwd=ROOT, check=False)
    assert p.returncode == 0, p.stderr.decode()
    return p.stdout.decode()


def field(text, name):
    """The values of a top-level or nested scalar field, in order."""
    return [a if a is not None and a != "" else b for a, b in re.findall(rf'^\s*{name}: (?:"((?:\\.|[^"\\])*)"|(\S+))$', text, re.M)]


def parse(data):
    """Protobuf wire format → {field number: [values]}; length-delimited values stay bytes."""
    out, i = {}, 0

    def varint():
        nonlocal i
        v = shift = 0
        while True:
            b = data[i]
            i += 1
            v |= (b & 127) << shift
            shift += 7
            if b < 128:
                return v
    while i < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            v = varint()
        elif kind == 2:
            n = varint()
            v, i = data[i:i + n], i + n
        else:
            n = {1: 8, 5: 4}[kind]
            v, i = data[i:i + n], i + n
        out.setdefault(key >> 3, []).append(v)
    return out


class Response:
    """What both kinds of response have: resources as {name: (version, bytes)}, removed names, type, version, nonce."""

    def __init__(self, data, delta):
        m = parse(data)

        def text(n):
            return m.get(n, [b""])[-1].decode()
        self.resources, self.removed = {}, []
        if delta:  # DeltaDiscoveryResponse: 1 version, 2 resources, 4 type, 5 nonce, 6 removed; Resource: 1 version, 2 Any, 3 name
            self.version, self.type, self.nonce = text(1), text(4), text(5)
            self.removed = [r.decode() for r in m.get(6, [])]
            for r in map(parse, m.get(2, [])):
                self.resources[r[3][0].decode()] = (r.get(1, [b""])[0].decode(), parse(r[2][0])[2][0])
        else:  # DiscoveryResponse: 1 version, 2 Any, 4 type, 5 nonce. The name is field 1 of all four kinds of resource
            self.version, self.type, self.nonce = text(1), text(4), text(5)
            for r in map(parse, m.get(2, [])):
                body = r[2][0]
                self.resources[parse(body)[1][0].decode()] = (self.version, body)

    def text(self, kind, name):
        return decode(TYPES[kind], self.resources[name][1])


class Client:
    """An xDS client that says exactly what the test says: delta=True or state of the world."""

    def __init__(self, port, delta, node):
        self.delta, self.node = delta, node
        self.request = "envoy.service.discovery.v3." + ("DeltaDiscoveryRequest" if delta else "DiscoveryRequest")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)])
        self.out, self.got = queue.Queue(), queue.Queue()
        call = self.channel.stream_stream(SERVICE + ("DeltaAggregatedResources" if delta else "StreamAggregatedResources"))
        self.stream = call(iter(self.out.get, None))
        self.first = True
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for m in self.stream:
                self.got.put(m)
        except grpc.RpcError as e:
            self.got.put(e)

    def say(self, text):
        node = f"node {{ {self.node} }} " if self.first else ""
        self.first = False
        self.out.put(encode(self.request, node + text))

    def hear(self, timeout=5):
        """The next Response, or None when there is none within the time."""
        try:
            m = self.got.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(m, grpc.RpcError):
            raise m
        return Response(m, self.delta)

    def subscribe(self, kind, names=(), version="", nonce="", more=""):
        if self.delta:
            self.say(f'type_url: "{URLS[kind]}" ' + "".join(f'resource_names_subscribe: "{n}" ' for n in names) + more)
        else:
            self.say(f'type_url: "{URLS[kind]}" version_info: "{version}" response_nonce: "{nonce}" '
                     + "".join(f'resource_names: "{n}" ' for n in names) + more)

    def ack(self, kind, response, names=()):
        if self.delta:
            self.say(f'type_url: "{URLS[kind]}" response_nonce: "{response.nonce}"')
        else:
            self.subscribe(kind, names, response.version, response.nonce)

    def close(self):
        self.out.put(None)
        self.stream.cancel()
        self.channel.close()


class Server:
    """A control plane in the test's hands: every request is queued in `requests`, send() pushes a message. delta and SotW."""

    def __init__(self, port):
        self.requests, self.streams, self.lock = queue.Queue(), [], threading.Lock()
        self.opened, self.backlog = 0, []
        handlers = {"DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(lambda it, c: self._stream(True, it, c)),
                    "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(lambda it, c: self._stream(False, it, c))}
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE.strip("/"), handlers)])
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.server.start()

    def _stream(self, delta, requests, context):
        out = queue.Queue()
        with self.lock:
            self.streams.append(out)
            self.opened += 1

        def read():
            try:
                for m in requests:
                    self.requests.put((delta, m))
            except Exception:  # the stream ended
                pass
            out.put(None)
        threading.Thread(target=read, daemon=True).start()
        yield from iter(out.get, None)

    def hear(self, kind, timeout=5, want=None):
        """The first request of that type as text (for which want(text) holds) that was not heard yet."""
        end = time.monotonic() + timeout
        while True:
            for i, text in enumerate(self.backlog):
                if URLS[kind] in field(text, "type_url") and (want is None or want(text)):
                    return self.backlog.pop(i)
            try:
                delta, m = self.requests.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no such {kind} request within {timeout} s; there were: {self.backlog}") from None
            self.backlog.append(decode("envoy.service.discovery.v3." + ("DeltaDiscoveryRequest" if delta else "DiscoveryRequest"), m))

    def send_delta(self, kind, resources, nonce, removed=(), version="1"):
        """resources: {name: message text}"""
        parts = [f'type_url: "{URLS[kind]}" nonce: "{nonce}" system_version_info: "{version}"']
        for name, text in resources.items():
            parts.append(f'resources {{ name: "{name}" version: "{version}" resource {{ [{URLS[kind]}] {{ {text} }} }} }}')
        parts += [f'removed_resources: "{r}"' for r in removed]
        self.send(encode("envoy.service.discovery.v3.DeltaDiscoveryResponse", " ".join(parts)))

    def send_sotw(self, kind, resources, nonce, version):
        parts = [f'type_url: "{URLS[kind]}" nonce: "{nonce}" version_info: "{version}"']
        parts += [f"resources {{ [{URLS[kind]}] {{ {text} }} }}" for text in resources]
        self.send(encode("envoy.service.discovery.v3.DiscoveryResponse", " ".join(parts)))

    def send(self, data):
        with self.lock:
            self.streams[-1].put(data)

    def stop(self):
        self.server.stop(0).wait(3)

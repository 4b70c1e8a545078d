# SPDX-License-Identifier: Apache-2.0
"""A rate limit server (envoy.service.ratelimit.v3) over gRPC: it answers as a case says, and keeps what it was asked."""

import functools
import subprocess
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from harness import ROOT

SERVICE, METHOD = "envoy.service.ratelimit.v3.RateLimitService", "ShouldRateLimit"


@functools.lru_cache(None)
def message(name):
    """The class of a message of our own .proto files."""
    p = subprocess.run(["protoc", "-Iproto", "--include_imports", "-o", "/dev/stdout", "envoy/service/ratelimit/v3/rls.proto"], cwd=ROOT,
                       capture_output=True, check=True)
    pool = descriptor_pool.DescriptorPool()
    for f in descriptor_pb2.FileDescriptorSet.FromString(p.stdout).file:
        pool.Add(f)
    return message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName(f"envoy.service.ratelimit.v3.{name}"))


class Server:
    """Steps: what RateLimitResponse has in JSON (nothing said: OK), a number (the status of gRPC), {bytes: hex}, "stall", or {"wait_ms": n, …}.
    Cases run one after the other, since a question does not say which one it belongs to."""

    def __init__(self):
        self.lock = threading.Condition()
        self.steps, self.asked = [], []
        self.closing = threading.Event()
        self.server = grpc.server(futures.ThreadPoolExecutor(16))
        handler = grpc.unary_unary_rpc_method_handler(self._limit)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def begin(self, steps):
        with self.lock:
            self.steps, self.asked = list(steps), []

    def wait(self, n):
        with self.lock:
            self.lock.wait_for(lambda: len(self.asked) >= n, 20)
            return list(self.asked)

    def _limit(self, data, context):
        d = json_format.MessageToDict(message("RateLimitRequest").FromString(data), preserving_proto_field_name=True)
        again = json_format.ParseDict(d, message("RateLimitRequest")()).SerializeToString(deterministic=True)
        with self.lock:
            self.asked.append({"message": d, "metadata": sorted((k, v) for k, v in context.invocation_metadata()),
                               **({} if again == data else {"bytes": data.hex()})})
            self.lock.notify_all()
            step = {} if not self.steps else "stall" if self.steps[0] == "stall" else self.steps.pop(0)  # all that follow stall, too
        if isinstance(step, dict) and "wait_ms" in step:
            time.sleep(step["wait_ms"] / 1000)
        if step == "stall":
            self.closing.wait(60)
            step = {}
        if isinstance(step, int):
            context.abort(grpc.StatusCode((step, {7: "permission denied", 14: "unavailable", 2: "unknown", 13: "internal"}[step])), "told to")
        if "bytes" in step:
            return bytes.fromhex(step["bytes"])
        d = {"overall_code": "OK", **{k: v for k, v in step.items() if k != "wait_ms"}}
        return json_format.ParseDict(d, message("RateLimitResponse")()).SerializeToString()

    def close(self):
        self.closing.set()
        self.server.stop(0).wait()

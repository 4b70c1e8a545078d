# SPDX-License-Identifier: Apache-2.0
"""An authorization server (envoy.service.auth.v3) over gRPC: it answers as a case says, and keeps what it was asked."""

import base64
import functools
import subprocess
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from harness import ROOT

METHOD = "Check"
SERVICE = "envoy.service.auth.v3.Authorization"


@functools.lru_cache(None)
def message(name):
    """The class of a message of our own .proto files."""
    p = subprocess.run(["protoc", "-Iproto", "--include_imports", "-o", "/dev/stdout", "envoy/service/auth/v3/external_auth.proto"], cwd=ROOT,
                       capture_output=True, check=True)
    files = descriptor_pb2.FileDescriptorSet.FromString(p.stdout)
    pool = descriptor_pool.DescriptorPool()
    for f in files.file:
        pool.Add(f)
    return message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName(f"envoy.service.auth.v3.{name}"))


def unknown(m):
    """Numbers of fields that our .proto files do not have, at any depth."""
    found = [u.field_number for u in m.UnknownFields()]
    for f, v in m.ListFields():
        values = v if f.label == f.LABEL_REPEATED else [v]
        if f.message_type and f.message_type.GetOptions().map_entry:
            values = list(v.values())
        for x in values:
            if hasattr(x, "ListFields"):
                found += unknown(x)
    return found


def response(step):
    """{ok: OkHttpResponse}, {denied: …} with status 7 unless `code` is given, {error: …}; metadata: of the answer."""
    d = {"status": {"code": step.get("code", 0 if "ok" in step else 7)}}
    for k, field in (("ok", "ok_response"), ("denied", "denied_response"), ("error", "error_response"), ("metadata", "dynamic_metadata")):
        if k in step and step[k] is not None:
            d[field] = step[k]
            if "body" in step[k] and field != "dynamic_metadata":  # bytes in our .proto
                d[field] = {**step[k], "body": base64.b64encode(step[k]["body"].encode("latin-1")).decode()}
    return json_format.ParseDict(d, message("CheckResponse")()).SerializeToString()


def case_of(m):
    http = m.attributes.request.http
    fields = {**{h.key: h.raw_value.decode("latin-1") for h in http.header_map.headers}, **http.headers}
    return fields.get("x-case", "")


class Server:
    """Steps of a case: what response() takes, a number (the status of gRPC), {bytes: hex}, "stall", or {"wait_ms": n, …}."""

    def __init__(self):
        self.lock = threading.Condition()
        self.steps, self.asked = {}, {}
        self.closing = threading.Event()
        self.server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        handler = grpc.unary_unary_rpc_method_handler(self._check)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def begin(self, case, steps):
        with self.lock:
            self.steps[case], self.asked[case] = list(steps), []

    def wait(self, case, n):
        with self.lock:
            self.lock.wait_for(lambda: len(self.asked[case]) >= n, 20)
            return list(self.asked[case])

    def _check(self, data, context):
        m = message("CheckRequest").FromString(data)
        d = json_format.MessageToDict(m, preserving_proto_field_name=True)
        odd = unknown(m)
        case = case_of(m)
        with self.lock:
            self.asked.setdefault(case, []).append({"message": d, "metadata": sorted(f"{k}: {v}" for k, v in context.invocation_metadata()),
                                                    **({"unknown": odd} if odd else {})})
            self.lock.notify_all()
            steps = self.steps.get(case)
            step = steps.pop(0) if steps else {"ok": None}
        if isinstance(step, dict) and "wait_ms" in step:
            time.sleep(step["wait_ms"] / 1000)
        if step == "stall":
            self.closing.wait(60)
            step = {"code": 7}
        if isinstance(step, int):
            context.abort(grpc.StatusCode((step, {7: "permission denied", 14: "unavailable", 2: "unknown", 13: "internal"}[step])), "told to")
        if "bytes" in step:
            return bytes.fromhex(step["bytes"])
        return response(step)

    def close(self):
        self.closing.set()
        self.server.stop(0).wait(20)

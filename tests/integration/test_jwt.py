# SPDX-License-Identifier: Apache-2.0
"""Tokens: key sets that are fetched, and who waits for them. What tokens must be is compared with Envoy (tests/parity/cases/jwt.yaml)."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import harness
import pytest
from harness import ROOT, Backend, Proxy, cluster, connect, free_port, hcm, listener, read_answer, route, web

VECTORS = ROOT / "tests/golden/jose"
KEYS = json.loads((VECTORS / "keys.json").read_text())
TOKENS = {k: v["token"] for k, v in json.loads((VECTORS / "tokens.json").read_text()).items()}
TYPE = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3."


def ask(port, path="/", method="GET", headers=None, body=b""):
    with connect(port, 30) as s:
        lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}"] + [f"{k}: {v}" for k, v in (headers or {}).items()]
        s.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return read_answer(s.makefile("rb"))


def authorization(token):
    return {"Authorization": f"Bearer {TOKENS[token]}"}


def jwt_filter(**config):
    return {"name": "envoy.filters.http.jwt_authn", "typed_config": {"@type": TYPE + "JwtAuthentication", **config}}


def only(provider, **more):
    """Every request needs a token of this one provider."""
    return jwt_filter(providers={"p": provider}, rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}], **more)


def remote(uri="http://keys.example:81/set?x=1", **more):
    return {"issuer": "https://issuer.example", "remote_jwks": {"http_uri": {"uri": uri, "cluster": "keys", "timeout": "20s"}, **more}}


def start(tmp_path, f, backend, keys_port, **more):
    port = free_port()
    config = hcm([route("a")], http_filters=[f, harness.ROUTER])
    return port, Proxy(tmp_path, [listener(port, config)], [cluster("a", [backend.port]), cluster("keys", [keys_port])], **more)


class KeyServer:
    """Answers with `answer`, a key set or a raw answer, or a list of them, of which the last one stays; holds requests back while `gate` is clear."""

    def __init__(self, answer):
        self.answer, self.seen, self.gate = answer, [], threading.Event()
        self.gate.set()
        self.backend = Backend(web("keys", self._fn))
        self.port = self.backend.port

    def _fn(self, first, headers, body):
        self.seen.append((first, dict(headers)))
        assert self.gate.wait(30)
        answer = self.answer
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, bytes):
            return answer
        text = json.dumps(answer).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.gate.set()
        self.backend.close()


@pytest.fixture
def backend():
    with Backend(web("a")) as b:
        yield b


def wait_for(what, probe):
    return harness.wait_for(what, probe, 20)


def test_keys_are_fetched_once_and_kept(tmp_path, backend):
    with KeyServer(KEYS["all"]) as keys:
        port, proxy = start(tmp_path, only(remote()), backend, keys.port, concurrency=2)
        with proxy:
            assert ask(port).status == 401
            assert keys.seen == []  # no token, nothing to verify
            assert ask(port, headers=authorization("not_yet")).body == b"Jwt not yet valid"
            assert keys.seen == []  # nor for one that cannot be good
            for token in ("rs256", "es256", "eddsa", "rs256", "kid"):
                for _ in range(3):
                    assert ask(port, headers=authorization(token)).status == 200
            assert ask(port, headers=authorization("rs256_signature_changed")).body == b"Jwt verification fails"
            assert len(keys.seen) == 1
            first, headers = keys.seen[0]
            assert first == "GET /set?x=1 HTTP/1.1"
            assert headers["host"] == "keys.example:81"
            assert proxy.stat("http.in.jwt_authn.jwks_fetch_success") == 1
            assert proxy.stat("http.in.jwt_authn.jwks_fetch_failed") in (0, None)
            assert proxy.stat("http.in.jwt_authn.allowed") == 15
            assert proxy.stat("http.in.jwt_authn.denied") == 3
            assert 'envoy_http_jwt_authn_allowed{envoy_http_conn_manager_prefix="in"} 15' in proxy.get("/stats/prometheus")


def test_listeners_share_what_they_fetch(tmp_path, backend):
    ports = [free_port(), free_port()]
    with KeyServer(KEYS["all"]) as keys:
        config = hcm([route("a")], http_filters=[only(remote()), harness.ROUTER])
        clusters = [cluster("a", [backend.port]), cluster("keys", [keys.port])]
        with Proxy(tmp_path, [listener(p, config) for p in ports], clusters, concurrency=2):
            assert [ask(p, headers=authorization("rs256")).status for p in ports * 3] == [200] * 6
            assert len(keys.seen) == 1


def test_requests_wait_for_one_fetch(tmp_path, backend):
    """Of two workers, with bodies behind the heads; all of them with one fetch."""
    with KeyServer(KEYS["all"]) as keys:
        keys.gate.clear()
        port, proxy = start(tmp_path, only(remote()), backend, keys.port, concurrency=2)
        with proxy, ThreadPoolExecutor(24) as pool:
            answers = [pool.submit(ask, port, "/", "POST", authorization("rs256" if i % 2 else "kid_wrong"), b"x" * 1000) for i in range(24)]
            wait_for("the fetch", lambda: keys.seen)
            wait_for("all to wait", lambda: proxy.stat("http.in.downstream_rq_active") == 24)
            assert not any(a.done() for a in answers)
            keys.gate.set()
            got = [a.result(20) for a in answers]
            assert [a.status for a in got] == [200 if i % 2 else 401 for i in range(24)]
            assert {a.body for a in got if a.status == 401} == {b"Jwks doesn't have key to match kid or alg from Jwt"}
            assert len(keys.seen) == 1
            assert all(len(body) == 1000 for _, _, body in backend.seen)


def test_clients_that_leave_while_keys_come(tmp_path, backend):
    with KeyServer(KEYS["all"]) as keys:
        keys.gate.clear()
        port, proxy = start(tmp_path, only(remote()), backend, keys.port)
        with proxy:
            waiting = [connect(port, 30) for _ in range(5)]
            for s in waiting:
                s.sendall(f"GET / HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {TOKENS['rs256']}\r\n\r\n".encode())
            wait_for("all to wait", lambda: proxy.stat("http.in.downstream_rq_active") == 5)
            for s in waiting[:4]:
                s.close()
            wait_for("four to be gone", lambda: proxy.stat("http.in.downstream_rq_active") == 1)
            keys.gate.set()
            assert read_answer(waiting[4].makefile("rb")).status == 200
            waiting[4].close()
            assert len(backend.seen) == 1


def test_the_proxy_ends_while_keys_come(tmp_path, backend):
    with KeyServer(KEYS["all"]) as keys:
        keys.gate.clear()
        port, proxy = start(tmp_path, only(remote()), backend, keys.port, concurrency=2)
        with proxy:
            waiting = [connect(port, 30) for _ in range(6)]
            for s in waiting:
                s.sendall(f"GET / HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {TOKENS['rs256']}\r\n\r\n".encode())
            wait_for("all to wait", lambda: proxy.stat("http.in.downstream_rq_active") == 6)
            proxy.stop(30)
            assert backend.seen == []
        for s in waiting:
            s.close()


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html",
    b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"keys\":[]}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b" " * 2000000,
    b"nonsense\r\n\r\n",
], ids=["500", "404", "nothing", "no json", "no keys", "too long", "no http"])
def test_keys_that_do_not_come_let_nobody_in(tmp_path, backend, answer):
    with KeyServer(answer) as keys:
        port, proxy = start(tmp_path, only(remote()), backend, keys.port)
        with proxy:
            a = ask(port, headers=authorization("rs256"))
            assert (a.status, a.body) == (401, b"Jwks remote fetch is failed")
            assert a.headers["www-authenticate"] == 'Bearer realm="http://test/", error="invalid_token"'
            assert proxy.stat("http.in.jwt_authn.jwks_fetch_failed") == 1
            keys.answer = KEYS["all"]  # the next request asks again
            assert ask(port, headers=authorization("rs256")).status == 200
            assert len(backend.seen) == 1


def test_nobody_there_for_keys(tmp_path, backend):
    with KeyServer({}) as keys:
        port, proxy = start(tmp_path, only(remote()), backend, keys.port)
        keys.backend.close()
        with proxy:
            assert ask(port, headers=authorization("rs256")).body == b"Jwks remote fetch is failed"
    provider = remote()
    provider["remote_jwks"]["http_uri"]["cluster"] = "nowhere"
    port, proxy = start(tmp_path / "x", only(provider), backend, 1)
    with proxy:
        assert ask(port, headers=authorization("rs256")).body == b"Jwks remote fetch is failed"
    assert backend.seen == []


def test_a_fetch_that_stalls_ends_in_time(tmp_path, backend):
    provider = remote()
    provider["remote_jwks"]["http_uri"]["timeout"] = "0.3s"
    with KeyServer(KEYS["all"]) as keys:
        keys.gate.clear()
        port, proxy = start(tmp_path, only(provider), backend, keys.port)
        with proxy:
            assert ask(port, headers=authorization("rs256")).body == b"Jwks remote fetch is failed"


def test_a_failed_fetch_is_retried_as_configured(tmp_path, backend):
    policy = {"num_retries": 2, "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.02s"}}
    busy = b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"
    with KeyServer([busy, busy, KEYS["all"]]) as keys:
        port, proxy = start(tmp_path, only(remote(retry_policy=policy)), backend, keys.port)
        with proxy:
            assert ask(port, headers=authorization("rs256")).status == 200
            assert len(keys.seen) == 3


def test_new_keys_replace_the_old(tmp_path, backend):
    """A cached token is no longer good when its key is gone."""
    provider = {**remote(cache_duration="1s"), "forward": True, "jwt_cache_config": {"jwt_cache_size": 10}}
    with KeyServer(KEYS["other"]) as keys:
        port, proxy = start(tmp_path, only(provider), backend, keys.port)
        with proxy:
            assert ask(port, headers=authorization("kid")).status == 401
            keys.answer = KEYS["all"]
            wait_for("the new keys", lambda: ask(port, headers=authorization("kid")).status == 200)
            keys.answer = KEYS["other"]
            wait_for("the old keys to go", lambda: ask(port, headers=authorization("kid")).status == 401)
            keys.answer = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
            wait_for("the end of those", lambda: ask(port, headers=authorization("kid")).body == b"Jwks remote fetch is failed")


def test_keys_fetched_ahead_outlive_their_server(tmp_path, backend):
    provider = remote(cache_duration="1s", async_fetch={"failed_refetch_duration": "1s"})
    with KeyServer(KEYS["all"]) as keys:
        port, proxy = start(tmp_path, only(provider), backend, keys.port, concurrency=2)
        with proxy:
            wait_for("the first fetch", lambda: keys.seen)
            assert ask(port, headers=authorization("rs256")).status == 200
            wait_for("the fetch to be counted", lambda: proxy.stat("http.in.jwt_authn.jwks_fetch_success"))
            wait_for("fetches that nobody asked for", lambda: len(keys.seen) >= 3)
            keys.answer = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
            wait_for("failed ones", lambda: (proxy.stat("http.in.jwt_authn.jwks_fetch_failed") or 0) >= 2)
            assert ask(port, headers=authorization("rs256")).status == 200


def test_keys_ahead_are_asked_for_until_they_come(tmp_path, backend):
    provider = remote(async_fetch={"fast_listener": True, "failed_refetch_duration": "1s"})
    with KeyServer([b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", KEYS["all"]]) as keys:
        port, proxy = start(tmp_path, only(provider), backend, keys.port, concurrency=2)
        with proxy:
            wait_for("a fetch that failed, and one that did not", lambda: len(keys.seen) > 1)
            assert ask(port, headers=authorization("rs256")).status == 200
            assert len(keys.seen) == 2


def test_keys_from_files_and_the_environment(tmp_path, backend):
    (tmp_path / "keys.json").write_text(json.dumps(KEYS["rsa"]))
    providers = {"f": {"local_jwks": {"filename": str(tmp_path / "keys.json")}}, "e": {"local_jwks": {"environment_variable": "SET_OF_KEYS"}}}
    f = jwt_filter(providers=providers, rules=[{"match": {"prefix": f"/{p}"}, "requires": {"provider_name": p}} for p in providers], stat_prefix="own")
    port, proxy = start(tmp_path, f, backend, 1, env={"SET_OF_KEYS": json.dumps(KEYS["ec"])})
    with proxy:
        assert [ask(port, p, headers=authorization(t)).status for p in ("/f", "/e") for t in ("rs256", "es256")] == [200, 401, 401, 200]
        assert proxy.stat("http.in.jwt_authn.own.denied") == 2
        assert proxy.stat("http.in.jwt_authn.own.allowed") == 2
        assert 'envoy_http_jwt_authn_denied{envoy_http_conn_manager_prefix="in",envoy_jwt_authn_prefix="own"} 2' in proxy.get("/stats/prometheus")


def test_a_policy_sees_the_claims(tmp_path, backend):
    """RBAC behind the filter, as istiod writes it."""
    provider = {"issuer": "https://issuer.example", "local_jwks": {"inline_string": json.dumps(KEYS["all"])}, "payload_in_metadata": "payload",
                "normalize_payload_in_metadata": {"space_delimited_claims": ["scope"]}}

    def claim(path, matcher):
        return {"metadata": {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": k} for k in ["payload", *path]], "value": matcher}}
    rules = {"policies": {
        "scope": {"permissions": [{"any": True}], "principals": [claim(["scope"], {"list_match": {"one_of": {"string_match": {"exact": "write"}}}})]},
        "sub": {"permissions": [{"any": True}], "principals": [claim(["sub"], {"string_match": {"exact": "bob"}})]},
        "deep": {"permissions": [{"header": {"name": ":path", "string_match": {"prefix": "/deep"}}}],
                 "principals": [claim(["nested", "a.b"], {"string_match": {"exact": "dotted"}})]}}}
    rbac = {"name": "envoy.filters.http.rbac", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": rules}}
    port = free_port()
    config = hcm([route("a")], http_filters=[only(provider), rbac, harness.ROUTER])
    with Proxy(tmp_path, [listener(port, config)], [cluster("a", [backend.port])]):
        assert {t: ask(port, "/x", headers=authorization(t)).status for t in ("rich", "bob", "rs256")} == {"rich": 200, "bob": 200, "rs256": 403}
        assert ask(port, "/deep", headers=authorization("rich")).status == 200
        assert ask(port, "/deep").status == 401


def test_a_listener_without_usable_keys_is_refused(tmp_path, backend):
    f = only({"issuer": "x", "local_jwks": {"inline_string": '{"keys": []}'}})
    port = free_port()
    with Proxy(tmp_path, [listener(port, hcm([route("a")], http_filters=[f, harness.ROUTER]))], [cluster("a", [backend.port])], wait=False) as proxy:
        assert wait_for("the end", lambda: proxy.p.poll()) != 0
        assert "Jwks doesn't have any valid public key: [keys] is empty" in proxy.text()
        proxy.p.returncode = 0

"""The configurations in ``examples/proxies``, each in the real proxy, before an API that knows no tokens."""

from __future__ import annotations

import os
import re
import runpy
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from confusion_apps import AUDIENCE, AUTHORITY, LEVELS, RULES, starlette_app
from confusion_table import PLAIN, SUSPICIOUS, Spelling
from environment import ROOT, skip_or_fail
from scopeguard import DPoP, Guard, Issuer
from scopeguard.asgi import GuardMiddleware
from scopeguard.devserver.uvicorn_server import Serving
from scopeguard.server.authorize import Proxy, ProxyRequests, Settings, answer
from scopeguard.server.forwarded_fields import ASGIForwarded, Proxies
from scopeguard.testing import FakeAuthority, ProofKey

PATIENCE: Final = 20.0
EXAMPLES: Final = ROOT / "examples" / "proxies"
generate: Final[Any] = SimpleNamespace(**runpy.run_path(str(EXAMPLES / "generate.py")))
FILES: Final = {
    "nginx": "nginx.conf",
    "envoy": "envoy.json",
    "caddy": "Caddyfile",
    "haproxy": "haproxy.cfg",
    "traefik": "traefik.yaml",
}
_HANDLER: Final = re.compile(rb"(?im)^x-handler: *([\w-]+)")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})")


class Scene:
    """A proxy, the API behind it, and tokens of the levels of :data:`confusion_apps.LEVELS`."""

    def __init__(self, kind: str, folder: Path, stack: ExitStack) -> None:
        self.kind = kind
        self.authority = FakeAuthority(AUTHORITY, audience=AUDIENCE)
        self.headers: list[tuple[bytes, bytes]] = []
        unreachable = Issuer("https://down.test", audience=AUDIENCE)
        guard = Guard(
            self.authority.issuer,
            unreachable,
            transport=self.authority.transport,
            clock=self.authority.clock,
            dpop=DPoP(base_url="https://api.test"),
            resource="https://api.test",
        )
        peers = ("127.0.0.1",)
        middleware = GuardMiddleware(answer, guard=guard, rules=RULES)
        authorize = ProxyRequests(
            ASGIForwarded(middleware, Proxies(peers)), Settings(proxy=Proxy[kind.upper()], trusted=peers)
        )
        self.authorize = self._serve(authorize, stack)
        self.api = self._serve(self._app(), stack)
        places = generate.Places(proxy=_free_port(), api=self.api, authorize=self.authorize)
        self.port = places.proxy
        self.tokens = ("", self.authority.mint("read"), self.authority.mint("read secret", subject="al\u00edce %"))
        run_proxy(kind, places, folder, stack)

    def _serve(self, app: Any, stack: ExitStack) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        stack.enter_context(Serving(app, listener))
        port: int = listener.getsockname()[1]
        return port

    def _app(self) -> Any:
        app = starlette_app()

        async def call_app(scope: Any, receive: Any, send: Any) -> None:
            self.headers = scope["headers"]
            await app(scope, receive, send)

        return call_app

    def ask(self, spelling: Spelling, level: int) -> tuple[int, list[str]]:
        got = send(self.port, spelling.wire("starlette", self.tokens[level]))
        status = _STATUS.match(got)
        return (int(status[1]) if status else 0), [name.decode() for name in _HANDLER.findall(got)]

    def get(self, path: str, level: int, *lines: str) -> bytes:
        spelling = Spelling(name=path, target=path.encode(), headers=tuple(line.encode() for line in lines))
        return send(self.port, spelling.wire("starlette", self.tokens[level]))

    def claims(self) -> dict[str, list[str]]:
        """Return the claims fields that the API received, and all fields whose names could be read as theirs."""
        found: dict[str, list[str]] = {}
        for name, value in self.headers:
            plain = name.decode().lower().replace("_", "-")
            if plain.startswith("x-auth-") and value:
                found.setdefault(plain, []).append(value.decode())
        return found


def run_proxy(kind: str, places: Any, folder: Path, stack: ExitStack) -> None:
    """Run the proxy *kind* at *places* until the end of *stack*."""
    program = shutil.which(kind) or shutil.which(kind, path=str(Path(sys.executable).parent))
    if program is None:
        skip_or_fail(f"no {kind}: make system and the extra dev install the proxies")
    text = generate.FILES[FILES[kind]](places)
    file = folder / FILES[kind]
    if kind == "nginx":
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        text = text.replace("http {", "http {" + "".join(f"{k}_temp_path {folder}/{k};" for k in kinds), 1)
        flags = ["-p", str(folder), "-g", f"daemon off; master_process off; pid {folder}/pid; error_log stderr;"]
    elif kind == "envoy":
        flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    elif kind == "caddy":
        flags = ["--adapter", "caddyfile"]
    elif kind == "haproxy":
        flags = ["-db"]
        shutil.copy(EXAMPLES / "haproxy.lua", folder)
    else:
        flags = []
        (folder / "traefik-routes.yaml").write_text(generate.traefik_routes(places), "utf-8")
    file.write_text(text, "utf-8")
    named = {"caddy": ["run", "--config"], "haproxy": ["-f"], "traefik": ["--configFile"]}.get(kind, ["-c"])
    output = folder / "output.txt"
    environment = {**os.environ, "HOME": str(folder)}
    with output.open("wb") as log:
        process = subprocess.Popen(
            [program, *named, str(file), *flags], stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
    stack.callback(process.wait, PATIENCE)
    stack.callback(process.kill)
    deadline = time.monotonic() + PATIENCE
    while not _is_ready(kind, places.proxy):
        assert process.poll() is None, output.read_text("utf-8", "replace")
        assert time.monotonic() < deadline, output.read_text("utf-8", "replace")
        select.select([], [], [], 0.02)


def send(port: int, request: bytes) -> bytes:
    """Return the answer to *request*, until the proxy closes or has sent a head."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        try:
            connection.sendall(request)
            while b"\r\n\r\n" not in got and (data := connection.recv(65536)):
                got += data
        except ConnectionError:
            pass
    return got


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _is_ready(kind: str, port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            pass
    except OSError:
        return False
    # Traefik listens before it knows its routes. This path has none of the API.
    return kind != "traefik" or b" 404 " not in send(port, b"GET /secret HTTP/1.0\r\n\r\n")


@pytest.fixture(scope="module", params=[*FILES])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(request.param, tmp_path_factory.mktemp(request.param), stack)


@pytest.mark.parametrize("name", [*generate.FILES])
def test_the_files_are_what_the_command_writes(name: str):
    write: Callable[[Any], str] = generate.FILES[name]
    assert (EXAMPLES / name).read_text("utf-8") == write(generate.Places())


@pytest.mark.rule("H-02", "H-06", "H-08")
def test_no_spelling_of_a_path_passes_a_proxy_without_its_scopes(scene: Scene):
    # At once, because Caddy and uvicorn wait for each other's acknowledgements.
    with ThreadPoolExecutor(8) as threads:
        wrong = [line for lines in threads.map(partial(_wrong, scene), (*PLAIN, *SUSPICIOUS)) for line in lines]
    assert not wrong, "\n".join(wrong)


def _wrong(scene: Scene, spelling: Spelling) -> list[str]:
    """Return the levels at which a handler answers that the policy forbids, or the plainly named one does not."""
    found = []
    for level in range(3 if spelling.reaches is not None else 2):  # with all scopes, no handler is forbidden
        status, handlers = scene.ask(spelling, level)
        if spelling.reaches is None:
            good = all(LEVELS[handler] <= level for handler in handlers)
        elif level >= LEVELS[spelling.reaches]:
            good = (status, handlers) == (200, [spelling.reaches])
        else:
            good = (status, handlers) == (401 if level == 0 else 403, [])
        if not good:
            found.append(f"{spelling.name}, level {level}: {status} {handlers}")
    return found


def test_claims_of_the_token_replace_those_of_the_client(scene: Scene):
    forged = [f"{name}: admin" for name in generate.CLAIMS]
    assert b" 200 " in scene.get("/secret", 2, *forged)
    assert scene.claims() == {
        "x-auth-subject": ["al%C3%ADce%20%25"],
        "x-auth-client": [scene.claims()["x-auth-client"][0]],
        "x-auth-scopes": ["read secret"],
        "x-auth-issuer": [AUTHORITY],
    }
    assert "admin" not in str(scene.claims())


def test_claims_of_a_client_do_not_pass_without_a_token(scene: Scene):
    assert b" 200 " in scene.get("/public", 0, *[f"{name}: admin" for name in generate.CLAIMS])
    assert scene.claims() == {}


@pytest.mark.parametrize("name", ["X_Auth_Subject", "X-Auth_Subject", "x_auth-subject"])
def test_claims_of_a_client_do_not_pass_with_underscores(scene: Scene, name: str):
    scene.headers = []
    got = scene.get("/public", 0, f"{name}: admin")
    assert got[9:12] == (b"400" if scene.kind == "envoy" else b"200")
    assert scene.claims() == {}


def test_descriptions_of_a_client_do_not_replace_those_of_the_proxy(scene: Scene):
    lines = ("X-Original-URI: /public", "X-Forwarded-Uri: /public", "X-Original-Method: GET", "X-Forwarded-Method: GET")
    assert scene.get("/secret", 0, *lines, "X-Forwarded-Host: other", "X-Original-Host: other")[9:12] in (
        b"401",
        b"403",
    )


def test_refusals_keep_their_challenge(scene: Scene):
    for level, status, error in ((0, b"401", b"Bearer"), (1, b"403", b"insufficient_scope")):
        got = scene.get("/secret", level)
        challenges = re.findall(rb"(?im)^www-authenticate: *(.*)\r$", got)
        assert got[9:12] == status
        assert len(challenges) == 1
        assert error in challenges[0]


def test_a_malformed_token_gets_400_or_401_and_not_500(scene: Scene):
    got = scene.get("/secret", 0, "Authorization: Bearer a b")
    assert got[9:12] in (b"400", b"401")


def test_a_body_passes_to_the_api_only(scene: Scene):
    spelling = Spelling(name="", target=b"/dual", method=b"POST", headers=(b"Content-Length: 5",), body=b"hello")
    assert scene.ask(spelling, 2) == (200, ["dual-post"])
    assert scene.ask(spelling, 1) == (403, [])


def test_an_outage_of_the_authorization_server_is_503(scene: Scene):
    token = FakeAuthority("https://down.test", audience=AUDIENCE, clock=scene.authority.clock).mint("read secret")
    got = scene.get("/secret", 0, f"Authorization: Bearer {token}")
    assert got[9:12] == b"503"
    # Envoy takes a 503 for a failure of the question, and drops its fields.
    assert bool(re.search(rb"(?im)^retry-after: *\d+\r$", got)) is (scene.kind != "envoy")


def test_a_proof_of_possession_is_for_the_original_request(scene: Scene):
    key = ProofKey()
    for uri, status in (("https://api.test/items/other", b"200"), ("https://api.test/dual", b"401")):
        headers = scene.authority.dpop("read", key=key, method="GET", uri=uri)
        got = scene.get("/items/other?x=1", 0, *(f"{name}: {value}" for name, value in headers.items()))
        assert got[9:12] == status


def test_resource_metadata_is_a_page_of_scopeguard(scene: Scene):
    got = scene.get(generate.METADATA, 0)
    if scene.kind != "envoy":  # its configuration does not publish the metadata
        assert (got[9:12], AUTHORITY.encode() in got) == (b"200", True)
    for rest in ("/../../secret", "/%2e%2e/%2e%2e/secret", "x", "/..;/secret"):
        got = scene.get(generate.METADATA + rest, 0)
        assert set(_HANDLER.findall(got)) <= ({b"catch-all"} if scene.kind == "envoy" else set())


def test_nothing_passes_while_scopeguard_does_not_run(scene: Scene, tmp_path: Path):
    with ExitStack() as stack:
        places = generate.Places(proxy=_free_port(), api=scene.api, authorize=_free_port())
        run_proxy(scene.kind, places, tmp_path, stack)
        got = send(places.proxy, Spelling(name="", target=b"/public").wire("starlette", ""))
    assert got[9:12] == (b"500" if scene.kind == "traefik" else b"503")


def test_haproxy_denies_after_an_error_in_lua(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def break_action(places: Any) -> str:
        text: str = generate.haproxy(places)
        return text.replace(f"http://127.0.0.1:{places.authorize}/authorize", "nonsense")

    monkeypatch.setitem(generate.FILES, "haproxy.cfg", break_action)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # never answers
        places = generate.Places(proxy=_free_port(), api=listener.getsockname()[1], authorize=_free_port())
        run_proxy("haproxy", places, tmp_path, stack)
        got = send(places.proxy, Spelling(name="", target=b"/public").wire("starlette", ""))
    assert got[9:12] == b"503"
    assert "runtime error" in (tmp_path / "output.txt").read_text("utf-8")

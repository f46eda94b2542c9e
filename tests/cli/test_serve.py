"""``scopeguard serve`` and ``scopeguard devserver`` as processes: an app behind a guard, and who gives it tokens."""

from __future__ import annotations

import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from scopeguard.devserver import Authority, Client, DevServer, KeyRing

PATIENCE = 30.0  # seconds of real time

APPS = """
import sys, threading

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            print(message["type"], file=sys.stderr, flush=True)
            await send({"type": message["type"] + ".complete"})
            if message["type"].endswith("shutdown"):
                return
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    body = " ".join([scope["scheme"], scope["client"][0], scope["user"].display_name]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})

def make_wsgi():
    waiting = threading.Event()
    def wsgi(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            print("begun", file=sys.stderr, flush=True)
            waiting.wait(1)
        token = environ["scopeguard.access_token"]
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{environ['wsgi.url_scheme']} {environ['REMOTE_ADDR']} {token.client_id}".encode()]
    return wsgi
"""
CONFIG = """
resource = "https://api.test"
realm = "served"
public = ["/healthz"]
[[issuers]]
url = "env:AUTHORITY"
[[rules]]
path = "/query"
authenticated = true
token_sources = ["header", "query"]
[[rules]]
path = "/{rest:path}"
any_of = ["read"]
"""
KINDS = [pytest.param(("apps:asgi",), id="asgi"), pytest.param(("apps:make_wsgi", "--wsgi", "--factory"), id="wsgi")]


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    client = Client(client_id="robot", secret="a password", scopes=["read"])
    with DevServer(Authority(audience="https://api.test", clients=[client], keys=KeyRing("ES256"))) as server:
        yield server.authority


def token(authority: Authority) -> str:
    form = {"grant_type": "client_credentials", "client_id": "robot", "client_secret": "a password"}
    answer = httpx.post(f"{authority.issuer}/token", data=form, trust_env=False)
    return str(answer.json()["access_token"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "apps.py").write_text(APPS, "utf-8")
    (tmp_path / "api.toml").write_text(CONFIG, "utf-8")
    return tmp_path


def serve(start: Callable[..., Any], folder: Path, issuer: str, *what: str) -> tuple[Any, str]:
    command = start("serve", *what, "--config", "api.toml", "--port", "0", cwd=folder, env={"AUTHORITY": issuer})
    line = command.wait_for(" on http://")
    command.wait_for("everything else: ")
    found = re.search(r"on (http://127\.0\.0\.1:\d+), realm 'served'", line)
    assert found is not None
    return command, found[1]


@pytest.mark.parametrize("what", KINDS)
def test_an_app_is_guarded_without_a_change_and_tokens_stay_out_of_the_log(
    what: tuple[str, ...],
    start: Callable[..., Any],
    folder: Path,
    authority: Authority,
    no_leaks: Callable[[str], None],
):
    command, url = serve(start, folder, authority.issuer, *what)
    good = token(authority)
    forged = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", "Forwarded": "for=192.0.2.7;proto=https"}
    with httpx.Client(base_url=url, trust_env=False) as client:
        refused = client.get("/a")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (
            401,
            'Bearer realm="served", scope="read"',
        )
        assert "server" not in refused.headers
        granted = client.get("/b", headers={"Authorization": f"Bearer {good}", **forged})
        assert granted.text == "http 127.0.0.1 robot"
        assert client.get("/query", params={"access_token": good}).status_code == 200
        assert client.get("/stray", params={"access_token": good}).status_code == 401
        assert client.get("/new%0Aline", headers={"Authorization": f"Bearer {good}"}).status_code in (200, 403)
        assert client.get("/healthz").status_code in (200, 500)  # the app of this test wants a token itself
    assert command.end(signal.SIGTERM) == 0
    no_leaks(command.output)
    logged = [line.partition("127.0.0.1 ")[2] for line in command.lines if "127.0.0.1 GET" in line]
    assert logged[:4] == ["GET /a 401", "GET /b 200", "GET /query 200", "GET /stray 401"]
    assert logged[4].startswith("GET /new%0Aline ")


def test_the_configuration_is_read_back_at_the_start(start: Callable[..., Any], folder: Path, authority: Authority):
    command, url = serve(start, folder, authority.issuer, "apps:asgi")
    assert httpx.get(url, trust_env=False).status_code == 401
    assert command.end(signal.SIGINT) == 0
    assert [line.strip() for line in command.lines[1:6]] == [
        f"issuer {authority.issuer}, audience https://api.test, keys: discovered",
        "any method /healthz: public, no token",
        "any method /query: any valid token (tokens from: header, query)",
        "any method /{rest:path}: all_of('read')",
        "everything else: denied",
    ]
    assert "lifespan.startup" in command.lines
    assert "lifespan.shutdown" in command.lines
    assert not [line for line in command.lines if line.startswith("warning: ")]


def test_an_app_that_cannot_start_is_a_failure(start: Callable[..., Any], folder: Path, authority: Authority):
    (folder / "apps.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database here'})\n"
    )
    command, _ = serve(start, folder, authority.issuer, "apps:app")
    command.wait_for("no database here")
    assert command.process.wait(PATIENCE) == 3


def test_what_may_surprise_is_said_at_the_start(start: Callable[..., Any], folder: Path):
    (folder / "api.toml").write_text(
        'resource = "https://api.test"\nrealm = "served"\n[[issuers]]\nurl = "env:AUTHORITY"'
    )
    command, url = serve(start, folder, "http://127.0.0.1:1", "apps:asgi")
    command.wait_for("no [[rules]]: any valid token opens every route")
    assert command.end(signal.SIGINT) == 0
    warned = [line for line in command.lines if line.startswith("warning: ")]
    assert len(warned) == 3
    assert "no keys yet, and requests with a token are answered 503" in warned[0]
    assert "nothing is public" in warned[1]
    assert url in command.lines[0]


def test_a_websocket_is_logged_without_its_query(
    start: Callable[..., Any], folder: Path, authority: Authority, no_leaks: Callable[[str], None]
):
    command, url = serve(start, folder, authority.issuer, "apps:asgi")
    good = token(authority)
    socket_url = url.replace("http:", "ws:")
    with suppress(Exception), connect(f"{socket_url}/query?access_token={good}") as websocket:
        websocket.recv()
    with pytest.raises(InvalidStatus), connect(f"{socket_url}/stray?access_token={good}"):
        pass
    command.end(signal.SIGTERM)
    no_leaks(command.output)
    assert "WEBSOCKET /query accepted" in command.output
    assert "WEBSOCKET /stray 401" in command.output


def test_a_request_that_is_being_answered_is_answered_to_its_end(
    start: Callable[..., Any], folder: Path, authority: Authority
):
    command, url = serve(start, folder, authority.issuer, "apps:make_wsgi", "--wsgi", "--factory")
    answers: list[httpx.Response] = []
    headers = {"Authorization": f"Bearer {token(authority)}"}

    def ask() -> None:
        answers.append(httpx.get(f"{url}/slow", headers=headers, trust_env=False, timeout=30))

    asking = threading.Thread(target=ask)
    asking.start()
    command.wait_for("begun")
    assert command.end(signal.SIGTERM) == 0
    asking.join()
    assert [answer.status_code for answer in answers] == [200]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_the_development_server_prints_lines_that_get_tokens(
    start: Callable[..., Any], shell: Callable[[str], str], no_leaks: Callable[[str], None]
):
    port = str(_free_port())
    command = start("devserver", "--port", port, "--client", "robot:it's secret:read urn:x:write", "--lifetime", "60")
    command.wait_for("Started server process")
    assert "FOR DEVELOPMENT ONLY" in command.output
    assert f'url = "http://127.0.0.1:{port}"' in command.output
    (line,) = [line.strip() for line in command.lines if "TOKEN=" in line]
    assert re.fullmatch(r"ey[\w.-]+\n", shell(f'{line}\necho "$TOKEN"'))
    assert command.end(signal.SIGINT) == 0
    no_leaks(command.output)

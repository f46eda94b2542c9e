"""``scopeguard serve`` in a process of its own: apps, a configuration, and what tests ask of it."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from scopeguard.devserver import Authority, Client, DevServer, KeyRing

PATIENCE = 30.0  # seconds of real time

# /stream: a line, and when the body of the request has ended another one. /slow: "begun" on stderr, and the answer
# when the file "go" is there. /large: 8 MB. /revoke: the token of the request is revoked.
APPS = """
import asyncio, os, sys, time

def say(text):
    sys.stderr.write(f"{text}\\n")  # at once: workers that say something at the same time share a line otherwise
    sys.stderr.flush()

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            say(message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"].endswith("shutdown"):
                return
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    path = scope["path"]
    if path == "/slow":
        say("begun")
        while not os.path.exists("go"):
            await asyncio.sleep(0.02)
    if path == "/crash":
        raise ValueError("of the app")
    if path == "/revoke":
        token = dict(scope["headers"])[b"authorization"].decode().partition(" ")[2]
        await scope["state"]["scopeguard.guard"].arevoke(token=token)
    body = " ".join([scope["scheme"], (scope["client"] or ["-"])[0], scope["user"].display_name,
                     "prefix=" + scope.get("root_path", ""), "told=" + str(told(scope)), str(os.getpid())]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    if path == "/stream":
        await send({"type": "http.response.body", "body": b"first\\n", "more_body": True})
        while (await receive()).get("more_body", False):
            pass
        body = b"last\\n"
    if path == "/large":
        body = b"x" * 8_000_000
    await send({"type": "http.response.body", "body": body})

def told(scope):
    return sum(name.startswith(b"x-") or name == b"forwarded" for name, value in scope["headers"])

class Chunks:
    def __init__(self, path):
        self.path = path
    def __iter__(self):
        yield b"first\\n"
        say("begun")
        while not os.path.exists("go"):
            time.sleep(0.02)
        yield b"last\\n"

def make_wsgi():
    def wsgi(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/slow":
            say("begun")
            while not os.path.exists("go"):
                time.sleep(0.02)
        if path == "/crash":
            raise ValueError("of the app")
        token = environ.get("scopeguard.access_token")
        start_response("200 OK", [("Content-Type", "text/plain")])
        if path == "/stream":
            return Chunks(path)
        if path == "/large":
            return [b"x" * 1_000_000] * 8
        if path == "/file":
            return environ["wsgi.file_wrapper"](open("apps.py", "rb"))
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        told = sum(name.startswith("HTTP_X_") or name == "HTTP_FORWARDED" for name in environ)
        return [" ".join([environ["wsgi.url_scheme"], environ["REMOTE_ADDR"], token.client_id if token else "",
                          "prefix=" + environ["SCRIPT_NAME"], "told=" + str(told), str(os.getpid())]).encode()]
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
ASGI = ("apps:asgi",)
WSGI = ("apps:make_wsgi", "--wsgi", "--factory")
KINDS = [pytest.param(ASGI, id="asgi"), pytest.param(WSGI, id="wsgi")]


def dev_server() -> DevServer:
    client = Client(client_id="robot", secret="a password", scopes=["read"])
    return DevServer(Authority(audience="https://api.test", clients=[client], keys=KeyRing("ES256")))


def token(authority: Authority) -> str:
    form = {"grant_type": "client_credentials", "client_id": "robot", "client_secret": "a password"}
    answer = httpx.post(f"{authority.issuer}/token", data=form, trust_env=False, timeout=PATIENCE)
    return str(answer.json()["access_token"])


def write(path: Path, text: str) -> None:
    """Write a file atomically, as editors and deployments do."""
    new = path.with_suffix(".new")
    new.write_text(text, "utf-8")
    os.replace(new, path)


def prepare(folder: Path) -> Path:
    write(folder / "apps.py", APPS)
    write(folder / "api.toml", CONFIG)
    return folder


def serve(start: Callable[..., Any], folder: Path, issuer: str, *what: str) -> tuple[Any, str]:
    """The running command, and its URL: it accepts connections."""
    command = start("serve", *what, "--config", "api.toml", "--port", "0", cwd=folder, env={"AUTHORITY": issuer})
    line = command.wait_for(" on http://")
    command.wait_for("everything else: ")
    found = re.search(r"on (http://127\.0\.0\.1:\d+), realm 'served'", line)
    assert found is not None
    return command, found[1]


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"not in time: {what}", pytrace=False)
        time.sleep(0.01)


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except OSError:
        return True
    return False

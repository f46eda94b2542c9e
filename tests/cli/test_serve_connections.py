"""Idle connections do not block others, and a websocket needs no further package.

Fault: connections that cost a client nothing (without a request, with half of one, kept alive after
one) use up all connections.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from environment import ROOT
from scopeguard.devserver import Authority
from scopeguard.server.connections import LimitReached, allowed_connections, limit_connections
from serving import ASGI, KINDS, PATIENCE, dev_server, port_of, prepare, serve, token

LIMIT = 40
IDLE = 200


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with dev_server() as server:
        yield server.authority


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(tmp_path)


STRANGERS = {
    "silent": b"",
    "half a request": b"GET /healthz HTTP/1.1\r\nHost: a\r\n",
    "kept alive": b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("what", KINDS)
def test_idle_connections_are_closed_for_new_ones(
    what: tuple[str, ...], start: Callable[..., Any], folder: Path, authority: Authority
):
    command, url = serve(start, folder, authority.issuer, *what, "--connections", str(LIMIT))
    headers = {"Authorization": f"Bearer {token(authority)}"}
    with ExitStack() as stack, httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as regular:
        assert regular.get("/a", headers=headers).status_code == 200
        for opening in STRANGERS.values():
            for _ in range(IDLE):
                stranger = socket.create_connection(("127.0.0.1", port_of(url)), timeout=PATIENCE)
                stack.enter_context(stranger)
                stranger.sendall(opening)
                if opening.endswith(b"\r\n\r\n"):
                    assert stranger.recv(65536).startswith(b"HTTP/1.1 401")
            with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as newcomer:
                assert newcomer.get("/a", headers=headers).status_code == 200
        stack.enter_context(stranger)
        assert regular.get("/a", headers=headers).status_code == 200
    line = command.wait_for("the limit of --connections")
    assert f"{LIMIT} connections are open" in line
    assert "WARNING" in line


@pytest.mark.parametrize("what", KINDS)
def test_busy_connections_are_not_closed(
    what: tuple[str, ...], start: Callable[..., Any], folder: Path, authority: Authority
):
    command, url = serve(start, folder, authority.issuer, *what, "--connections", "5")
    good = token(authority)
    with ExitStack() as stack:
        slow = stack.enter_context(socket.create_connection(("127.0.0.1", port_of(url)), timeout=PATIENCE))
        slow.sendall(f"GET /slow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {good}\r\n\r\n".encode())
        command.wait_for("begun")
        for _ in range(20):
            stack.enter_context(socket.create_connection(("127.0.0.1", port_of(url)), timeout=PATIENCE))
        command.wait_for("the limit of --connections")
        (folder / "go").touch()
        assert slow.recv(65536).startswith(b"HTTP/1.1 200")


# -- parts


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_warning_is_logged_once_a_minute_with_a_count(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    clock = Clock()
    monkeypatch.setattr("scopeguard.server.connections.time", clock)
    warning = LimitReached(7)
    warning.report(1)
    for _ in range(5):
        warning.report(2)
    clock.now = 60.0
    warning.report(3)
    counts = [re.findall(r"^7 .* closed (\d+) ", record.getMessage()) for record in caplog.records]
    assert counts == [["1"], ["13"]]


@pytest.mark.parametrize(("files", "expected"), [(1024, 768), (65536, 1000), (-1, 1000), (1, 1)])
def test_connection_limit_leaves_file_descriptors_for_the_app(
    files: int, expected: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("resource.getrlimit", lambda what: (files, files))
    assert allowed_connections(1000) == expected


class FakeTransport:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class FakeProtocol:
    """The parts of uvicorn's protocol that are used."""

    connections: set[Any]

    def __init__(self) -> None:
        self.cycle: Any = None
        self.connections = EVERY
        self.transport = FakeTransport()

    def connection_made(self, transport: Any) -> None:
        del transport
        EVERY.add(self)

    def data_received(self, data: bytes) -> None:
        del data

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        EVERY.discard(self)


EVERY: set[Any] = set()


class Cycle:
    def __init__(self, *, complete: bool) -> None:
        self.response_complete = complete


def open_connection(kind: type[Any]) -> Any:
    connection = kind()
    connection.connection_made(None)
    return connection


def test_longest_idle_connection_is_closed_first_and_no_busy_one():
    kind = limit_connections(FakeProtocol, 3)
    busy, first, second = (open_connection(kind) for _ in range(3))
    busy.cycle = Cycle(complete=False)
    second.cycle = Cycle(complete=True)
    first.data_received(b"x")
    open_connection(kind)
    assert [connection.transport.closed for connection in (busy, first, second)] == [False, False, True]


def test_connection_that_became_a_websocket_is_not_counted():
    kind = limit_connections(FakeProtocol, 2)
    upgraded, idle = open_connection(kind), open_connection(kind)
    EVERY.discard(upgraded)
    open_connection(kind)
    assert not upgraded.transport.closed
    assert not idle.transport.closed


def test_no_connection_is_closed_if_all_are_busy():
    kind = limit_connections(FakeProtocol, 2)
    all_ = [open_connection(kind) for _ in range(2)]
    for connection in all_:
        connection.cycle = Cycle(complete=False)
    late = open_connection(kind)
    assert not any(connection.transport.closed for connection in (*all_, late))
    all_[0].connection_lost(None)
    late.data_received(b"x")


# -- websockets

_WITHOUT_WEBSOCKETS = """
import sys
sys.modules["websockets"] = None  # as in an environment that has the extra and nothing else
"""


def test_the_extra_brings_a_library_for_websockets():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert any(requirement.startswith("wsproto") for requirement in extras["cli"])


def test_a_websocket_needs_only_what_the_extra_brings(
    start: Callable[..., Any], folder: Path, authority: Authority, tmp_path: Path
):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_WITHOUT_WEBSOCKETS, "utf-8")
    path = f"{tmp_path / 'site'}{os.pathsep}{ROOT}"
    environment = {"AUTHORITY": authority.issuer, "PYTHONPATH": path}
    command = start("serve", *ASGI, "--config", "api.toml", "--port", "0", cwd=folder, env=environment)
    port = int(re.findall(r"on http://127\.0\.0\.1:(\d+),", command.wait_for(" on http://"))[0])
    key = base64.b64encode(os.urandom(16)).decode()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(
            f"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\nAuthorization: Bearer {token(authority)}\r\n\r\n".encode()
        )
        received = b""
        while b"\r\n\r\n" not in received:
            data = connection.recv(65536)
            assert data, received
            received += data
    head = received.partition(b"\r\n\r\n")[0]  # Frames may follow it.
    assert head.startswith(b"HTTP/1.1 101 ")
    # RFC 6455 section 4.2.2
    proof = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False).digest()
    assert f"sec-websocket-accept: {base64.b64encode(proof).decode()}".lower() in head.decode().lower()

"""SIGTERM: no new request is accepted, running ones are completed, and the exit status is 0."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from loopback import Loopback
from scopeguard.devserver import Authority
from serving import (
    ASGI,
    KINDS,
    PATIENCE,
    WSGI,
    dev_server,
    port_of,
    prepare,
    refuses_connections,
    serve,
    wait_until,
    write,
)
from serving import token as token_of


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with dev_server() as server:
        yield server.authority


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(tmp_path)


class Asking:
    """A GET in a thread."""

    def __init__(self, url: str, token: str) -> None:
        self.answer: httpx.Response | Exception | None = None
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self.answer = httpx.get(self._url, headers=self._headers, trust_env=False, timeout=PATIENCE)
        except httpx.HTTPError as error:
            self.answer = error

    def wait_for_answer(self) -> httpx.Response:
        self._thread.join(PATIENCE)
        assert isinstance(self.answer, httpx.Response), self.answer
        return self.answer


def request(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode()


def rest_of(connection: socket.socket) -> bytes:
    received = b""
    while data := connection.recv(1 << 20):
        received += data
    return received


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("what", KINDS)
def test_long_request_is_completed_and_no_other_starts(
    what: tuple[str, ...], workers: str, start: Callable[..., Any], folder: Path, authority: Authority
):
    command, url = serve(start, folder, authority.issuer, *what, "--workers", workers)
    for _ in range(int(workers)):
        command.wait_for("ready")
    with httpx.Client(trust_env=False, timeout=PATIENCE) as idle:  # An idle persistent connection.
        assert idle.get(f"{url}/healthz").status_code in (200, 500)
        asking = Asking(f"{url}/slow", token_of(authority))
        command.wait_for("begun")
        command.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(port_of(url)), "the server has stopped listening")
        assert asking.answer is None
        (folder / "go").touch()
        assert asking.wait_for_answer().status_code == 200
        assert command.process.wait(PATIENCE) == 0
    assert command.end(signal.SIGTERM) == 0
    if what == ASGI:
        logged = command.output
        # The last one: of two workers, the one without a request may end first.
        assert logged.index(" GET /slow 200 ") < logged.rindex("lifespan.shutdown")


HANGING = """
resource = "https://api.test"
realm = "served"
[[issuers]]
url = "env:AUTHORITY"
validate = "introspection"
[issuers.introspection]
client_id = "api"
client_secret = "a password of the API"
endpoint = "env:AUTHORITY"
timeout = 600
retries = 0
[[rules]]
path = "/{rest:path}"
authenticated = true
"""


@pytest.mark.parametrize("what", KINDS)
def test_requests_waiting_for_a_hanging_authority_do_not_delay_the_shutdown(
    what: tuple[str, ...], start: Callable[..., Any], folder: Path
):
    """Its time limit is ten minutes. Each of them is answered 503."""
    write(folder / "api.toml", HANGING)
    with Loopback(lambda connection, request: connection.hold()) as hanging:
        command, url = serve(start, folder, hanging.url, *what, "--grace", "600")
        command.wait_for("ready")
        asking = [Asking(f"{url}/", f"opaque-{number}") for number in range(4)]
        wait_until(lambda: len(hanging.requests) == 4, "the authority is asked")
        command.process.send_signal(signal.SIGTERM)
        assert {request.wait_for_answer().status_code for request in asking} == {503}
        assert command.process.wait(PATIENCE) == 0


def test_stream_is_completed_with_uvicorn(start: Callable[..., Any], folder: Path, authority: Authority):
    command, url = serve(start, folder, authority.issuer, *ASGI)
    head = (
        f"POST /stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token_of(authority)}\r\nContent-Length: 4\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=PATIENCE) as connection:
        connection.sendall(head.encode())
        received = b""
        while b"first" not in received:
            received += connection.recv(65536)
        command.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(port_of(url)), "the server has stopped listening")
        connection.sendall(b"done")
        assert b"last\n" in rest_of(connection)
    assert command.process.wait(PATIENCE) == 0


def test_stream_is_completed_with_waitress(start: Callable[..., Any], folder: Path, authority: Authority):
    command, url = serve(start, folder, authority.issuer, *WSGI)
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=PATIENCE) as connection:
        connection.sendall(request("/stream", token_of(authority)))
        command.wait_for("begun")
        command.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(port_of(url)), "the server has stopped listening")
        (folder / "go").touch()
        received = rest_of(connection)
    assert b"first\n" in received
    assert b"last\n" in received
    assert command.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("what", KINDS)
def test_slow_client_receives_the_whole_response(
    what: tuple[str, ...], start: Callable[..., Any], folder: Path, authority: Authority
):
    command, url = serve(start, folder, authority.issuer, *what)
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=PATIENCE) as connection:
        connection.sendall(request("/large", token_of(authority)))
        received = connection.recv(1000)
        command.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(port_of(url)), "the server has stopped listening")
        received += rest_of(connection)
    assert len(received.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"").replace(b"x", b"")) < 200
    assert received.count(b"x") >= 8_000_000
    assert command.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("what", KINDS)
def test_request_that_outlasts_the_grace_period_is_aborted(
    what: tuple[str, ...], start: Callable[..., Any], folder: Path, authority: Authority
):
    command, url = serve(start, folder, authority.issuer, *what, "--grace", "1")
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=PATIENCE) as connection:
        connection.sendall(request("/slow", token_of(authority)))
        command.wait_for("begun")
        assert command.end(signal.SIGTERM) == 0
        assert b"200" not in rest_of(connection)
    assert "cut off 1 requests" in command.output or "Cancel 1 running task" in command.output


def test_socket_file_is_removed_and_an_abandoned_one_is_replaced(
    start: Callable[..., Any], folder: Path, authority: Authority
):
    arguments = ("--config", "api.toml", "--uds", "api.sock")
    for what, workers in ((ASGI, "1"), (WSGI, "1"), (ASGI, "2")):
        with socket.socket(socket.AF_UNIX) as abandoned:
            here = os.getcwd()
            os.chdir(folder)  # The path of a Unix socket has a short limit.
            try:
                abandoned.bind("api.sock")
            finally:
                os.chdir(here)
        command = start(
            "serve", *what, *arguments, "--workers", workers, cwd=folder, env={"AUTHORITY": authority.issuer}
        )
        command.wait_for(" on unix:api.sock")
        for _ in range(int(workers)):
            command.wait_for("ready")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(folder / "api.sock"))) as client:
            headers = {"Authorization": f"Bearer {token_of(authority)}", "X-Forwarded-For": "192.0.2.7"}
            assert client.get("http://api.test/a", headers=headers).text.split()[2:5] == ["robot", "prefix=", "told=0"]
        other = start("serve", *what, *arguments, cwd=folder, env={"AUTHORITY": authority.issuer})
        other.wait_for("Error: --uds: cannot listen on api.sock: Address already in use")
        assert other.process.wait(PATIENCE) == 2
        assert command.end(signal.SIGTERM) == 0
        assert not (folder / "api.sock").exists()
    (folder / "api.sock").write_text("of somebody")
    command = start("serve", *ASGI, *arguments, cwd=folder, env={"AUTHORITY": authority.issuer})
    assert command.process.wait(PATIENCE) == 2
    assert (folder / "api.sock").read_text() == "of somebody"

"""``serve --workers``: several processes, restarted after a crash, stopped together, and ended with their parent."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from scopeguard.devserver import Authority
from serving import (
    ASGI,
    KINDS,
    PATIENCE,
    dev_server,
    port_of,
    prepare,
    refuses_connections,
    serve,
    token,
    wait_until,
    write,
)


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with dev_server() as server:
        yield server.authority


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(tmp_path)


FAILING = """
async def asgi(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database here"})
"""


def wait_for_worker(command: Any) -> int:
    """Return the process id of the next worker that is ready."""
    return int(command.wait_for(" is ready").partition(" worker ")[2].split()[0])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("what", KINDS)
def test_all_workers_answer_and_stop(
    what: tuple[str, ...], start: Callable[..., Any], folder: Path, authority: Authority
):
    command, url = serve(start, folder, authority.issuer, *what, "--workers", "3")
    workers = {wait_for_worker(command) for _ in range(3)}
    headers = {"Authorization": f"Bearer {token(authority)}"}
    answered: set[int] = set()

    def all_have_answered() -> bool:
        answered.add(
            int(httpx.get(f"{url}/a", headers=headers, trust_env=False, timeout=PATIENCE).text.rpartition(" ")[2])
        )
        return answered == workers

    wait_until(all_have_answered, "an answer of each worker")
    assert command.process.pid not in workers
    assert command.end(signal.SIGTERM) == 0
    assert not [pid for pid in workers if is_alive(pid)]
    assert not [line for line in command.lines if "killed" in line or "Traceback" in line]


def test_a_worker_that_crashes_is_replaced_after_a_pause(start: Callable[..., Any], folder: Path, authority: Authority):
    command, url = serve(start, folder, authority.issuer, *ASGI, "--workers", "2")
    first, second = wait_for_worker(command), wait_for_worker(command)
    os.kill(first, signal.SIGKILL)
    assert f"worker {first} was ended by SIGKILL; another one starts in 1 s" in command.wait_for("was ended")
    third = wait_for_worker(command)
    os.kill(second, signal.SIGKILL)
    assert "another one starts in 2 s" in command.wait_for("was ended")
    headers = {"Authorization": f"Bearer {token(authority)}"}
    assert httpx.get(f"{url}/a", headers=headers, trust_env=False, timeout=PATIENCE).text.endswith(f" {third}")
    assert command.end(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("app", "said", "status"),
    [
        ("raise RuntimeError('no settings')", "RuntimeError: no settings", 1),
        ("other = 1", "Error: apps:asgi: apps has no attribute asgi", 2),
        (FAILING, "no database here", 3),
    ],
)
def test_app_that_cannot_start_is_reported_once(
    app: str, said: str, status: int, start: Callable[..., Any], folder: Path, authority: Authority
):
    write(folder / "apps.py", app)
    command, _ = serve(start, folder, authority.issuer, *ASGI, "--workers", "3")
    command.wait_for("before it was ready")
    assert command.process.wait(PATIENCE) == status
    assert sum(said in line for line in command.lines) == 1


def test_workers_end_when_their_parent_is_killed(start: Callable[..., Any], folder: Path, authority: Authority):
    command, url = serve(start, folder, authority.issuer, *ASGI, "--workers", "2")
    for _ in range(2):
        wait_for_worker(command)
    command.process.kill()
    command.process.wait(PATIENCE)
    wait_until(lambda: refuses_connections(port_of(url)), "nobody listens any more")
    for _ in range(2):
        command.wait_for("lifespan.shutdown")


def test_ctrl_c_twice_does_not_wait(start: Callable[..., Any], folder: Path, authority: Authority):
    command, url = serve(start, folder, authority.issuer, *ASGI, "--workers", "2", "--grace", "600")
    workers = [wait_for_worker(command) for _ in range(2)]
    headers = {"Authorization": f"Bearer {token(authority)}"}
    head = f"GET /slow HTTP/1.1\r\nHost: a\r\nAuthorization: {headers['Authorization']}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=PATIENCE) as connection:
        connection.sendall(head.encode())
        command.wait_for("begun")
        command.process.send_signal(signal.SIGINT)
        wait_until(lambda: refuses_connections(port_of(url)), "the server has stopped listening")
        command.process.send_signal(signal.SIGINT)
        with suppress(ConnectionResetError):
            assert connection.recv(65536) == b""
    assert command.process.wait(PATIENCE) == 0
    assert not [pid for pid in workers if is_alive(pid)]

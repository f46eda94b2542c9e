"""A real server in a process of its own on loopback, and what a socket says to it byte for byte."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from environment import ROOT, plain_environment
from warm_start import Process, WarmInterpreter

HOST: Final = "127.0.0.1"
PATIENCE: Final = 40.0
"""Seconds after which a server that does not come up, or a socket that stays silent, is given up."""

ASGI_SERVERS: Final = {
    "uvicorn-h11": ("uvicorn", "{app}", "--port", "{port}", "--http", "h11", "--no-access-log", "--ws", "websockets"),
    "uvicorn-httptools": ("uvicorn", "{app}", "--port", "{port}", "--http", "httptools", "--no-access-log"),
    "hypercorn": ("hypercorn", "{app}", "--bind", "127.0.0.1:{port}"),
    "granian": ("granian", "{app}", "--interface", "asgi", "--port", "{port}"),
}
WSGI_SERVERS: Final = {
    "gunicorn": ("gunicorn", "{app}", "--bind", "127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "4"),
    "waitress": ("waitress", "--listen", "127.0.0.1:{port}", "{app}"),
    "granian-wsgi": ("granian", "{app}", "--interface", "wsgi", "--port", "{port}"),
}


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server."""

    port: int
    log: Path

    @property
    def output(self) -> str:
        """Everything it has printed so far."""
        return self.log.read_text("utf-8", "replace")

    def connect(self) -> socket.socket:
        """A new connection to it."""
        return socket.create_connection((HOST, self.port), timeout=PATIENCE)

    def send(self, request: bytes, *, head_only: bool = False) -> bytes:
        """Return the answer to *request* on a new connection: everything until the server closes it, or only a head."""
        answer = b""
        with self.connect() as connection:
            try:
                connection.sendall(request)
                while not (head_only and b"\r\n\r\n" in answer) and (data := connection.recv(65536)):
                    answer += data
            except ConnectionError:
                pass  # the server may close without reading the rest
        return answer


def server_environment() -> dict[str, str]:
    """The environment of servers, and of interpreters that start them: the modules of ``tests/support`` are found."""
    return {**plain_environment(), "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests" / "support")))}


@contextmanager
def server_process(
    command: Sequence[str],
    folder: Path,
    *,
    app: str,
    environment: Mapping[str, str],
    python: str = sys.executable,
    interpreter: WarmInterpreter | None = None,
) -> Iterator[ServerProcess]:
    """*command*, a module and its arguments, for the length of a block: it serves *app* of ``tests/support``.

    It is forked from *interpreter*, if there is one.
    """
    port = _free_port()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "output.txt"
    line = [part.format(port=port, app=app) for part in command]
    with log.open("wb") as output:
        process: Process
        if interpreter is not None:
            process = interpreter.start(*line, cwd=folder, environment=environment, output=output.fileno())
        else:
            process = subprocess.Popen(
                [python, "-m", *line],
                env={**server_environment(), "PYTHONUNBUFFERED": "1", **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        server = ServerProcess(port, log)
        try:
            _wait_until_it_listens(process, server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:  # the stream has no reader any more
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_it_listens(process: Process, server: ServerProcess) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if server.send(b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n"):
                return
        except OSError:
            select.select([], [], [], 0.05)
    raise AssertionError(f"the server did not come up: {server.output[-3000:]}")

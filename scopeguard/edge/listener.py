"""Sockets that servers accept connections on."""

from __future__ import annotations

import socket


def listen(host: str, port: int, *, backlog: int | None = None) -> socket.socket:
    """Return a socket that listens at *host* and *port* and knows that its protocol is TCP.

    A socket from ``socket.create_server`` does not know its protocol, and asyncio then leaves Nagle's algorithm on: a
    response whose head and body are written separately waits 40 ms for an acknowledgement.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=backlog)
    return socket.socket(fileno=listener.detach())  # asks the system for its protocol

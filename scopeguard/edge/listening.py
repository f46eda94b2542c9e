"""Sockets that servers accept connections on."""

from __future__ import annotations

import socket


def listening(host: str, port: int, *, backlog: int | None = None) -> socket.socket:
    """A socket that listens there, and knows that it speaks TCP.

    One from ``socket.create_server`` does not say so, and then asyncio leaves Nagle's algorithm on: a response whose
    head and body are written one after the other waits 40 ms for an acknowledgement.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=backlog)
    return socket.socket(fileno=listener.detach())  # asks the system for its protocol

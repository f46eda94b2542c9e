"""A limit on the open connections of a worker. At the limit, idle connections are closed to admit new ones.

Without it, idle connections could shut other clients out. The limits of the servers do not prevent that: waitress stops
accepting until its clean-up finds idle connections minutes later, and uvicorn is limited only by the number of files
that the process may open.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

log: Final = logging.getLogger("scopeguard.serve")

_QUIET: Final = 60.0  # seconds between two warnings
_SPARE: Final = 0.25  # the part of the files that the app, keys and logs may use


class LimitReached:
    """Logs that the limit was reached, at most once a minute."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._closed = 0
        self._next = float("-inf")

    def report(self, count: int) -> None:
        """Count *count* closed connections, and log if a line is due."""
        self._closed += count
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _QUIET
            log.warning(
                "%d connections are open, the limit of --connections: closed %d that were idle or slow to send a "
                "request, the longest idle first",
                self._limit,
                self._closed,
            )
            self._closed = 0


def allowed_connections(connections: int) -> int:
    """Return *connections*, or less if the process may not open that many files (``ulimit -n``)."""
    try:
        import resource  # noqa: PLC0415 - missing on Windows
    except ImportError:
        return connections
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return connections
    most = max(1, int(files * (1 - _SPARE)))
    if connections > most:
        log.warning(
            "--connections: %d instead of %d, because this process may open %d files (ulimit -n)",
            most,
            connections,
            files,
        )
    return min(connections, most)


def limit_connections(protocol: type[Any], limit: int) -> type[Any]:
    """Return a subclass of *protocol*, one of uvicorn's for HTTP, with at most *limit* connections.

    At the limit, each new connection closes the one that has been idle longest. Connections with a request in progress
    are never closed: if all have one, the limit is exceeded. Websockets do not count.
    """
    open_: dict[Any, None] = {}  # ordered by last activity, most recent last
    warning = LimitReached(limit)

    def connection_made(self: Any, transport: Any) -> None:
        protocol.connection_made(self, transport)
        if len(open_) >= limit:
            make_room()
        open_[self] = None

    def data_received(self: Any, data: bytes) -> None:
        if self in open_:
            del open_[self]
            open_[self] = None
        protocol.data_received(self, data)

    def connection_lost(self: Any, exc: Exception | None) -> None:
        open_.pop(self, None)
        protocol.connection_lost(self, exc)

    def make_room() -> None:
        for connection in list(open_):
            if connection not in connection.connections:  # now a websocket
                del open_[connection]
            elif connection.cycle is None or connection.cycle.response_complete:
                del open_[connection]
                connection.transport.close()
                warning.report(1)
            if len(open_) < limit:
                return

    hooks = {hook.__name__: hook for hook in (connection_made, data_received, connection_lost)}
    return type(f"Limited{protocol.__name__}", (protocol,), hooks)  # the base class is known at run time only

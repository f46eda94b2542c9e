"""Limit the open connections of a worker: at the limit, idle connections are closed for new ones.

Otherwise idle connections could shut all other clients out. At its own limit waitress stops accepting until its
clean-up finds idle connections minutes later. uvicorn has no limit except the number of files that the process may
open.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

log: Final = logging.getLogger("scopeguard.serve")

_QUIET: Final = 60.0  # seconds between two warnings
_SPARE: Final = 0.25  # of the files that a process may open: for the app, keys and logs


class LimitReached:
    """Log that the limit was reached, at most once a minute."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._closed = 0
        self._next = float("-inf")

    def closed(self, count: int) -> None:
        """Report that *count* connections were closed."""
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


def possible(connections: int) -> int:
    """Return *connections*, or fewer if the process may not open that many files (``ulimit -n``)."""
    try:
        import resource  # noqa: PLC0415 - Windows has none
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


def limited(protocol: type[Any], limit: int) -> type[Any]:
    """Return *protocol*, one of uvicorn's for HTTP, with room for *limit* connections at once.

    A connection counts until it is closed or becomes a websocket. When there are *limit*, the one that has been idle
    longest, with no request in progress, is closed for each new one. Where all have one, none is closed.
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
                warning.closed(1)
            if len(open_) < limit:
                return

    hooks = {hook.__name__: hook for hook in (connection_made, data_received, connection_lost)}
    return type(f"Limited{protocol.__name__}", (protocol,), hooks)  # the base class is known at run time only

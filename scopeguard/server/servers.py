"""Serve an app with uvicorn (ASGI) or waitress (WSGI) until told to stop, then finish the requests in progress."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer, create_server

from scopeguard.server.connections import LimitReached, limited, possible

log: Final = logging.getLogger("scopeguard.serve")

STARTUP_FAILED: Final = 3
_TICK: Final = 1.0
_IDLE_TIMEOUT: Final = 120  # seconds, after which waitress closes a connection without a request
_CLEANUP_INTERVAL: Final = 10  # seconds


class _Uvicorn(uvicorn.Server):
    """uvicorn's server with callbacks for start and shutdown."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._ending = ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending()
        await super().shutdown(sockets=sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()


def serve_asgi(
    app: Any,
    listener: socket.socket,
    *,
    grace: int,
    connections: int,
    ready: Callable[[], None],
    ending: Callable[[], None],
) -> None:
    """Serve *app* on *listener* with at most *connections* at once until SIGTERM or SIGINT.

    The previous handlers of these signals are called at the end. *ending* is called when the server stops accepting
    requests; it must return at once.

    Raises :class:`SystemExit` when the lifespan of the app fails.
    """
    config = uvicorn.Config(
        app,
        interface="asgi3",
        # uvicorn's own lines show query strings, also of websockets. scopeguard.server.forwarded finds the caller.
        access_log=False,
        log_config=None,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=grace,
    )
    config.load()
    config.http_protocol_class = limited(config.http_protocol_class, possible(connections))
    server = _Uvicorn(config, ready, ending)
    server.run(sockets=[listener])
    if not server.started:
        raise SystemExit(STARTUP_FAILED)  # uvicorn has logged the reason


class _Waitress:
    """waitress with a shutdown that finishes responses: its own stops sending at once."""

    def __init__(self, app: Any, listener: socket.socket, *, threads: int, grace: int, connections: int) -> None:
        self._map: dict[int, Any] = {}
        self._grace = grace
        self._told = 0
        self._limit = connections
        self._warning = LimitReached(connections)
        # scopeguard.server.forwarded has already removed untrusted forwarded headers.
        self._server = create_server(
            app,
            map=self._map,
            sockets=[listener],
            threads=threads,
            ident="",
            clear_untrusted_proxy_headers=False,
            # At its limit waitress would stop accepting. _make_room() closes idle connections instead.
            connection_limit=sys.maxsize,
            channel_timeout=_IDLE_TIMEOUT,
            cleanup_interval=_CLEANUP_INTERVAL,
        )

    def stop(self, *_: object) -> None:
        """Handle a signal: stop gracefully, or at once on the second."""
        self._told += 1
        for server in self._of(BaseWSGIServer):
            server.pull_trigger()

    def run(self, ending: Callable[[], None]) -> None:
        """Serve until told to stop, call *ending*, and finish the requests in progress."""
        while not self._told:
            self._turn(_TICK)
        ending()
        self._turn(0)  # reads the requests that have already arrived
        for server in self._of(BaseWSGIServer):
            wasyncore.dispatcher.close(server)  # its trigger is needed until the last response is sent
        deadline = time.monotonic() + self._grace
        while (open_ := self._of(HTTPChannel)) and self._told < 2 and time.monotonic() < deadline:
            for channel in open_:
                if channel.request is None and not channel.requests and not channel.total_outbufs_len:
                    channel.handle_close()
            self._turn(min(_TICK, max(0.0, deadline - time.monotonic())))
        cut_off = len(self._of(HTTPChannel))
        if cut_off:
            log.warning("cut off %d requests that did not end in time", cut_off)
            return
        self._server.task_dispatcher.shutdown()

    def _turn(self, timeout: float) -> None:
        wasyncore.loop(timeout=timeout, map=self._map, count=1, use_poll=True)
        if len(self._map) > self._limit:
            self._make_room()

    def _make_room(self) -> None:
        """Close the longest-idle connections, a few more than necessary so that the search is not repeated each time.

        A connection with a request in progress is never closed.
        """
        channels = self._of(HTTPChannel)
        waiting = sorted(
            (channel for channel in channels if not channel.requests and not channel.total_outbufs_len),
            # A connection that sent half a request long ago is as idle as one that sent nothing.
            key=lambda channel: channel.last_activity,
        )
        chosen = waiting[: max(0, len(channels) - self._limit + self._limit // 20)]
        for channel in chosen:
            channel.handle_close()
        if chosen:
            self._warning.closed(len(chosen))

    def _of(self, kind: type[Any]) -> list[Any]:
        return [found for found in list(self._map.values()) if isinstance(found, kind)]


def serve_wsgi(
    app: Any,
    listener: socket.socket,
    *,
    threads: int,
    grace: int,
    connections: int,
    ready: Callable[[], None],
    ending: Callable[[], None],
) -> None:
    """Serve *app* on *listener* with *threads* and at most *connections* at once until SIGTERM or SIGINT.

    *ending* is called when the server stops accepting requests; it must return at once.
    """
    server = _Waitress(app, listener, threads=threads, grace=grace, connections=possible(connections))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.stop)
    ready()
    server.run(ending)

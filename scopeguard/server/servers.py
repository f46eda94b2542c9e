"""Runs an app on uvicorn (ASGI) or waitress (WSGI) until a signal, then finishes the requests in progress."""

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

from scopeguard.server.connections import LimitReached, allowed_connections, limit_connections

log: Final = logging.getLogger("scopeguard.serve")

STARTUP_FAILED: Final = 3
_TICK: Final = 1.0
_IDLE_TIMEOUT: Final = 120  # seconds, after which waitress closes a connection without a request
_CLEANUP_INTERVAL: Final = 10  # seconds


class _Uvicorn(uvicorn.Server):
    """uvicorn's server with callbacks for start and shutdown."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], on_shutdown: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._on_shutdown = on_shutdown

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_shutdown()
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
    on_shutdown: Callable[[], None],
) -> None:
    """Serve *app* on *listener* with at most *connections* at once until SIGTERM or SIGINT.

    The previous handlers of these signals are called at the end. *grace* is in seconds. *ready* is called when the
    server accepts requests, *on_shutdown* when it stops accepting them. Both must return at once.

    Raises :class:`SystemExit` if the lifespan of the app fails.
    """
    config = uvicorn.Config(
        app,
        interface="asgi3",
        # uvicorn's access log shows query strings. scopeguard.server.forwarded_fields replaces its proxy headers.
        access_log=False,
        log_config=None,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=grace,
    )
    config.load()
    config.http_protocol_class = limit_connections(config.http_protocol_class, allowed_connections(connections))
    server = _Uvicorn(config, ready, on_shutdown)
    server.run(sockets=[listener])
    if not server.started:
        raise SystemExit(STARTUP_FAILED)  # uvicorn has logged the reason


class _Waitress:
    """A waitress server whose shutdown is changed to finish responses in progress."""

    def __init__(self, app: Any, listener: socket.socket, *, threads: int, grace: int, connections: int) -> None:
        self._map: dict[int, Any] = {}
        self._grace = grace
        self._signals = 0
        self._limit = connections
        self._warning = LimitReached(connections)
        # clear_untrusted_proxy_headers is off because scopeguard.server.forwarded_fields removes these headers.
        self._server = create_server(
            app,
            map=self._map,
            sockets=[listener],
            threads=threads,
            ident="",
            clear_untrusted_proxy_headers=False,
            # At its limit, waitress would stop accepting. _make_room() closes idle connections instead.
            connection_limit=sys.maxsize,
            channel_timeout=_IDLE_TIMEOUT,
            cleanup_interval=_CLEANUP_INTERVAL,
        )

    def stop(self, *_: object) -> None:
        """Handle a signal: stop gracefully at the first, at once at the second."""
        self._signals += 1
        for server in self._dispatchers_of(BaseWSGIServer):
            server.pull_trigger()

    def run(self, on_shutdown: Callable[[], None]) -> None:
        """Serve until a signal, call *on_shutdown*, and finish the requests in progress."""
        while not self._signals:
            self._poll(_TICK)
        on_shutdown()
        self._poll(0)  # reads the requests that have already arrived
        for server in self._dispatchers_of(BaseWSGIServer):
            wasyncore.dispatcher.close(server)  # its trigger is needed until the last response is sent
        deadline = time.monotonic() + self._grace
        while (open_ := self._dispatchers_of(HTTPChannel)) and self._signals < 2 and time.monotonic() < deadline:
            for channel in open_:
                if channel.request is None and not channel.requests and not channel.total_outbufs_len:
                    channel.handle_close()
            self._poll(min(_TICK, max(0.0, deadline - time.monotonic())))
        unfinished = len(self._dispatchers_of(HTTPChannel))
        if unfinished:
            log.warning("cut off %d requests that did not end in time", unfinished)
            return
        self._server.task_dispatcher.shutdown()

    def _poll(self, timeout: float) -> None:
        wasyncore.loop(timeout=timeout, map=self._map, count=1, use_poll=True)
        if len(self._map) > self._limit:
            self._make_room()

    def _make_room(self) -> None:
        """Close the connections that have been idle longest. Never close one with a request in progress.

        It closes 5 % more than necessary, so that not every new connection needs a search.
        """
        channels = self._dispatchers_of(HTTPChannel)
        idle = sorted(
            # Connections with an incomplete request are included: a slow sender is as idle as a silent one.
            (channel for channel in channels if not channel.requests and not channel.total_outbufs_len),
            key=lambda channel: channel.last_activity,
        )
        chosen = idle[: max(0, len(channels) - self._limit + self._limit // 20)]
        for channel in chosen:
            channel.handle_close()
        if chosen:
            self._warning.report(len(chosen))

    def _dispatchers_of(self, kind: type[Any]) -> list[Any]:
        return [found for found in list(self._map.values()) if isinstance(found, kind)]


def serve_wsgi(
    app: Any,
    listener: socket.socket,
    *,
    threads: int,
    grace: int,
    connections: int,
    ready: Callable[[], None],
    on_shutdown: Callable[[], None],
) -> None:
    """Serve *app* on *listener* with *threads* and at most *connections* at once until SIGTERM or SIGINT.

    *grace* is in seconds. *ready* is called when the server accepts requests, *on_shutdown* when it stops accepting
    them. Both must return at once.
    """
    server = _Waitress(app, listener, threads=threads, grace=grace, connections=allowed_connections(connections))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.stop)
    ready()
    server.run(on_shutdown)

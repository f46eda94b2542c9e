"""The servers that ``scopeguard serve`` runs an app on, each until it is told to stop, and then to the end of what it
has begun: uvicorn for ASGI, waitress for WSGI."""

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
    """Says when it has begun, and when it begins to end."""

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
    """Serve *app* on *listener*, over so many *connections* at once, until SIGTERM or SIGINT, whose handlers of before
    are called at the end. *ending* is called when no more requests are taken; it must return at once.

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
        raise SystemExit(STARTUP_FAILED)  # uvicorn has said why


class _Waitress:
    """waitress, whose own ending stops sending at once: long responses would be cut off."""

    def __init__(self, app: Any, listener: socket.socket, *, threads: int, grace: int, connections: int) -> None:
        self._map: dict[int, Any] = {}
        self._grace = grace
        self._told = 0
        self._limit = connections
        self._warning = LimitReached(connections)
        # Of forwarded headers, what is to reach the app has been decided before.
        self._server = create_server(
            app,
            map=self._map,
            sockets=[listener],
            threads=threads,
            ident="",
            clear_untrusted_proxy_headers=False,
            # Never reached: at our own limit there is room again after each turn, and its own would stop accepting.
            connection_limit=sys.maxsize,
            channel_timeout=_IDLE_TIMEOUT,
            cleanup_interval=_CLEANUP_INTERVAL,
        )

    def stop(self, *_: object) -> None:
        """The handler of signals. The second one means: at once."""
        self._told += 1
        for server in self._of(BaseWSGIServer):
            server.pull_trigger()

    def run(self, ending: Callable[[], None]) -> None:
        """Serve until told to stop, call *ending*, and end what has begun."""
        while not self._told:
            self._turn(_TICK)
        ending()
        self._turn(0)  # what has arrived is read: it has begun
        for server in self._of(BaseWSGIServer):
            wasyncore.dispatcher.close(server)  # its trigger is needed until the last response is out
        deadline = time.monotonic() + self._grace
        while (open_ := self._of(HTTPChannel)) and self._told < 2 and time.monotonic() < deadline:
            for channel in open_:
                if channel.request is None and not channel.requests and not channel.total_outbufs_len:
                    channel.handle_close()
            self._turn(min(_TICK, max(0.0, deadline - time.monotonic())))
        cut_off = len(self._of(HTTPChannel))
        if cut_off:
            log.warning("cut off: %d requests that did not end in time", cut_off)
            return
        self._server.task_dispatcher.shutdown()

    def _turn(self, timeout: float) -> None:
        wasyncore.loop(timeout=timeout, map=self._map, count=1, use_poll=True)
        if len(self._map) > self._limit:
            self._make_room()

    def _make_room(self) -> None:
        """Close the connections that have been idle longest, a few more than the limit demands, so that not every new
        one has to look for another. One on which a request is being answered stays, whatever their number."""
        channels = self._of(HTTPChannel)
        waiting = sorted(
            (channel for channel in channels if not channel.requests and not channel.total_outbufs_len),
            # Not by whether a request has begun: half of one, sent long ago, is as idle as none.
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
    """Serve *app* on *listener* with *threads*, over so many *connections* at once, until SIGTERM or SIGINT.

    *ending* is called when no more requests are taken; it must return at once.
    """
    server = _Waitress(app, listener, threads=threads, grace=grace, connections=possible(connections))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.stop)
    ready()
    server.run(ending)

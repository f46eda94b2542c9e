"""The servers that ``scopeguard serve`` runs an app on, each until it is told to stop, and then to the end of what it
has begun: uvicorn for ASGI, waitress for WSGI."""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer, create_server

log: Final = logging.getLogger("scopeguard.serve")

STARTUP_FAILED: Final = 3
_TICK: Final = 1.0


class _Uvicorn(uvicorn.Server):
    """Says when it has begun."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()


def serve_asgi(app: Any, listener: socket.socket, *, grace: int, ready: Callable[[], None]) -> None:
    """Serve *app* on *listener* until SIGTERM or SIGINT, whose handlers of before are called at the end. Raises
    :class:`SystemExit` when the lifespan of the app fails."""
    config = uvicorn.Config(
        app,
        interface="asgi3",
        # uvicorn's own lines show query strings, of websockets too; and who a caller is, scopeguard.cli.forwarded says.
        access_log=False,
        log_config=None,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=grace,
    )
    server = _Uvicorn(config, ready)
    server.run(sockets=[listener])
    if not server.started:
        raise SystemExit(STARTUP_FAILED)  # uvicorn has said why


class _Waitress:
    """waitress, whose own ending stops sending at once: long responses would be cut off."""

    def __init__(self, app: Any, listener: socket.socket, *, threads: int, grace: int) -> None:
        self._map: dict[int, Any] = {}
        self._grace = grace
        self._told = 0
        # Of forwarded headers, what is to reach the app has been decided before.
        self._server = create_server(
            app,
            map=self._map,
            sockets=[listener],
            threads=threads,
            ident="",
            clear_untrusted_proxy_headers=False,
        )

    def stop(self, *_: object) -> None:
        """The handler of signals. The second one means: at once."""
        self._told += 1
        for server in self._of(BaseWSGIServer):
            server.pull_trigger()

    def run(self) -> None:
        """Serve until told to stop, and end what has begun."""
        while not self._told:
            self._turn(_TICK)
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

    def _of(self, kind: type[Any]) -> list[Any]:
        return [found for found in list(self._map.values()) if isinstance(found, kind)]


def serve_wsgi(app: Any, listener: socket.socket, *, threads: int, grace: int, ready: Callable[[], None]) -> None:
    """Serve *app* on *listener* with *threads* until SIGTERM or SIGINT."""
    server = _Waitress(app, listener, threads=threads, grace=grace)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.stop)
    ready()
    server.run()

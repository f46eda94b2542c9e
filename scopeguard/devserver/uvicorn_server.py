"""Serve an app on a loopback port for development: without lifespan events, websockets and access log."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Any, Self

import uvicorn


class Serving:
    """Serves *app* on *listener*, by :meth:`run` or in a thread for the length of a ``with`` block."""

    def __init__(self, app: Any, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._listener = listener
        self._thread = threading.Thread(target=self.run, name="scopeguard-devserver", daemon=True)

    def run(self) -> None:
        """Serve until interrupted."""
        self._server.run(sockets=[self._listener])

    def __enter__(self) -> Self:
        # The socket listens already, so connections wait in its queue until uvicorn is ready.
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()  # uvicorn does not close it if it was stopped before it started

"""Replaces the configuration of a running server.

The new file is read and checked completely before anything changes. If it is wrong, the error is logged and the old
configuration stays. Then the keys of new and changed issuers are fetched. While an authorization server is unavailable,
the old configuration stays as well: without its keys, accepted tokens would suddenly get 503. Unchanged issuers keep
their keys and introspection answers. A request in progress keeps its guard.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from scopeguard.asgi import ASGIApp, Receive, Scope, Send
from scopeguard.core.starting import take_over
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.guard import Guard, engine_of
from scopeguard.state.backoff import Backoff
from scopeguard.wsgi import Environ, StartResponse, WSGIApp

App = TypeVar("App")

log: Final = logging.getLogger("scopeguard.serve")

NOT_RELOADED: Final = "not reloaded, the previous configuration stays in force: %s"

_BACKOFF: Final = Backoff(first=1.0, longest=30.0)


class Switch(Generic[App]):
    """An app that passes requests to the current app, protected by the current *guard*. *wrap* protects the app."""

    def __init__(self, guard: Guard, wrap: Callable[[Guard], App]) -> None:
        self.guard: Guard = guard
        self.wrap: Callable[[Guard], App] = wrap
        self.app: App = wrap(guard)

    def replace(self, guard: Guard, app: App) -> None:
        """Send new requests to *app*. Requests in progress keep the old guard."""
        self.app = app
        self.guard = guard


class ASGISwitch(Switch[ASGIApp]):
    """A switch for an ASGI app. The lifespan runs once, because all guards wrap the same app."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class WSGISwitch(Switch[WSGIApp]):
    """A switch for a WSGI app."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return self.app(environ, start_response)


class Reloader:
    """Reloads the configuration when :meth:`request` is called. *read* reads it and returns the new guard.

    It works in a thread, so requests continue meanwhile and a signal handler may call :meth:`request`.
    """

    def __init__(self, switch: Switch[Any], read: Callable[[], Guard]) -> None:
        self._switch = switch
        self._read = read
        self._requests: SimpleQueue[None] = SimpleQueue()  # put() is safe in a signal handler

    def start(self) -> None:
        """Reload on SIGHUP from now on. Call this in the main thread."""
        threading.Thread(target=self._work, name="scopeguard-reload", daemon=True).start()
        hangup = getattr(signal, "SIGHUP", None)  # missing on Windows
        if hangup is not None:
            signal.signal(hangup, lambda *_: self.request())

    def request(self) -> None:
        """Request a reload. Returns at once."""
        self._requests.put(None)

    def _work(self) -> None:
        while True:
            self._requests.get()
            try:
                self._reload()
            except ConfigurationError as problem:
                log.error(NOT_RELOADED, problem)  # noqa: TRY400 - the message is complete; a traceback would hide it
            except Exception as bug:  # must not prevent later reloads
                log.exception(NOT_RELOADED, type(bug).__name__)

    def _reload(self) -> None:
        guard = self._read()
        app = self._switch.wrap(guard)
        pause = _BACKOFF.first
        while True:
            try:
                take_over(engine_of(guard), engine_of(self._switch.guard))
            except AuthorityUnavailable as problem:
                log.warning(
                    "not reloaded yet, the previous configuration stays in force: %s; next attempt in %.0f s",
                    problem,
                    pause,
                )
            else:
                break
            try:
                self._requests.get(timeout=pause)
            except Empty:
                pause = _BACKOFF.next_pause(pause)
            else:  # a newer reload was requested meanwhile
                self.request()
                guard.close()
                return
        self._switch.replace(guard, app)
        count = 0 if guard.rules is None else len(guard.rules.all)
        log.info("reloaded: %d issuers, %d rules", len(guard.issuers), count)

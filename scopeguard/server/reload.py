"""Another configuration for a server that goes on running.

A reload never makes the answers worse. The new file is read and checked whole before anything changes; what is wrong
with it is logged, and the old one stays. Then the keys of new and changed issuers are fetched: with an authority that
is away, switching at once would answer 503 to tokens that were judged a moment ago, so the old configuration stays in
force, whole, until the new one can judge. Unchanged issuers keep their keys and answers. Requests that have begun end
with the guard they began with.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from scopeguard.asgi import ASGIApp, Receive, Scope, Send
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.guard import Guard
from scopeguard.wsgi import Environ, StartResponse, WSGIApp

App = TypeVar("App")

log: Final = logging.getLogger("scopeguard.serve")

KEPT: Final = "not reloaded, the configuration of before stays in force: %s"

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0


class Switch(Generic[App]):
    """The app of the moment behind the *guard* of the moment; *wrap* puts one behind the other."""

    def __init__(self, guard: Guard, wrap: Callable[[Guard], App]) -> None:
        self.guard: Guard = guard
        self.wrap: Callable[[Guard], App] = wrap
        self.app: App = wrap(guard)

    def turn(self, guard: Guard, app: App) -> None:
        """Requests that begin from now on go to *app*. The old guard ends with the last request that uses it."""
        self.app = app
        self.guard = guard


class ASGISwitch(Switch[ASGIApp]):
    """An ASGI app. The lifespan goes to the app at whose start it began: there is one app, and guards pass it on."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class WSGISwitch(Switch[WSGIApp]):
    """A WSGI app."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return self.app(environ, start_response)


class Reloader:
    """Turns *switch* when :meth:`ask` was called. *read* makes the new guard.

    The work is done in a thread of its own: requests go on, and a signal handler may ask.
    """

    def __init__(self, switch: Switch[Any], read: Callable[[], Guard]) -> None:
        self._switch = switch
        self._read = read
        self._asked: SimpleQueue[None] = SimpleQueue()  # its put() may be called in a signal handler

    def begin(self) -> None:
        """Reload on SIGHUP from now on; to be called in the main thread."""
        threading.Thread(target=self._work, name="scopeguard-reload", daemon=True).start()
        hangup = getattr(signal, "SIGHUP", None)  # Windows has none
        if hangup is not None:
            signal.signal(hangup, lambda *_: self.ask())

    def ask(self) -> None:
        """Reload soon."""
        self._asked.put(None)

    def _work(self) -> None:
        while True:
            self._asked.get()
            try:
                self._reload()
            except ConfigurationError as problem:
                log.error(KEPT, problem)  # noqa: TRY400 - it says all; a traceback would hide it
            except Exception as bug:  # whatever it is, it must not be the last reload
                log.exception(KEPT, type(bug).__name__)

    def _reload(self) -> None:
        guard = self._read()
        app = self._switch.wrap(guard)
        pause = _FIRST_PAUSE
        while True:
            try:
                guard.take_over(self._switch.guard)
            except AuthorityUnavailable as problem:
                log.warning(
                    "not reloaded yet, the configuration of before stays in force: %s; next attempt in %.0f s",
                    problem,
                    pause,
                )
            else:
                break
            try:
                self._asked.get(timeout=pause)
            except Empty:
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:  # the file is another one again
                self.ask()
                guard.close()
                return
        self._switch.turn(guard, app)
        count = 0 if guard.rules is None else len(guard.rules.all)
        log.info("reloaded: %d issuers, %d rules", len(guard.issuers), count)

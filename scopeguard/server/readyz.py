"""The readiness probe of ``scopeguard serve --readyz PATH``.

The response is 200 ``ready`` or 503 ``not ready`` with the obstacles. It names no issuer, because anyone may send the
request. A probe does no I/O itself. If it finds that keys are missing, it starts to fetch them in the background:
while probes fail, no request arrives that would do so. A failure pauses the fetches of its issuer as usual, so that
frequent probes cause no more fetches.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Final

from scopeguard.asgi import ASGIApp, Receive, Scope, Send
from scopeguard.core.engine import Engine
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.keys import warm
from scopeguard.guard import Guard, engine_of
from scopeguard.server.reload import Switch
from scopeguard.state.issuers import IssuerRecord
from scopeguard.state.readiness import Obstacle, Readiness
from scopeguard.wsgi import Environ, StartResponse, WSGIApp

log: Final = logging.getLogger("scopeguard.serve")

_METHODS: Final = ("GET", "HEAD")
_WITHOUT_KEYS: Final = (Obstacle.NO_KEYS, Obstacle.KEYS_TOO_OLD)


class Probe:
    """Answers readiness probes about the current guard of *switch*."""

    def __init__(self, switch: Switch[ASGIApp] | Switch[WSGIApp]) -> None:
        self._switch = switch
        self._fetching = threading.Lock()

    def answer(self) -> tuple[int, bytes]:
        """Return the status and the body."""
        guard = self._switch.guard
        readiness = guard.ready()
        if readiness.ready:
            return 200, b"ready\n"
        self._fetch_keys(guard, readiness)
        return 503, f"not ready: {', '.join(readiness.obstacles)}\n".encode("ascii")

    def _fetch_keys(self, guard: Guard, readiness: Readiness) -> None:
        """Start to fetch the keys that are missing according to *readiness*, unless a fetch runs or has to wait."""
        engine = engine_of(guard)
        now = engine.clock.monotonic()
        due = [
            record
            for record, state in zip(engine.issuers.all, readiness.issuers, strict=True)
            if state.obstacle in _WITHOUT_KEYS and not any(each.ring.pause(now) for each in (record, *record.others))
        ]
        if due and self._fetching.acquire(blocking=False):
            threading.Thread(target=self._warm, args=(engine, due), name="scopeguard-readyz", daemon=True).start()

    def _warm(self, engine: Engine, records: Iterable[IssuerRecord]) -> None:
        try:
            for record in records:
                try:
                    engine.perform(warm(record, engine.clock))
                except AuthorityUnavailable as error:
                    log.warning("not ready: %s", error)
        finally:
            self._fetching.release()


def headers_of(body: bytes) -> list[tuple[str, str]]:
    """Return the header fields of the response with *body*."""
    return [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    ]


class ASGIReadyz:
    """ASGI middleware that answers GET and HEAD requests for *path*. All other requests go to *app*."""

    def __init__(self, app: ASGIApp, path: str, probe: Probe) -> None:
        self._app = app
        self._path = path
        self._probe = probe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] not in _METHODS:
            await self._app(scope, receive, send)
            return
        status, body = self._probe.answer()
        headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers_of(body)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


class WSGIReadyz:
    """WSGI middleware that answers GET and HEAD requests for *path*. All other requests go to *app*."""

    def __init__(self, app: WSGIApp, path: str, probe: Probe) -> None:
        self._app = app
        self._path = path
        self._probe = probe

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method: str = environ["REQUEST_METHOD"]
        if environ.get("PATH_INFO", "") != self._path or method not in _METHODS:
            return self._app(environ, start_response)
        status, body = self._probe.answer()
        start_response("200 OK" if status == 200 else "503 Service Unavailable", headers_of(body))
        return [b"" if method == "HEAD" else body]

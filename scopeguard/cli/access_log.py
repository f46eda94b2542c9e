"""One line for each request: who, what, which answer. No query string, so no token that somebody put there (B-31)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import quote

from scopeguard.asgi import ASGIApp, Message, Receive, Scope, Send
from scopeguard.wsgi import Environ, StartResponse, WSGIApp

log: Final = logging.getLogger("scopeguard.access")

_AS_IT_IS: Final = "/:@!$&'()*+,;=~-._"


def _line(client: str | None, method: str, path: str, answer: object) -> None:
    # Quoted again: a decoded path may hold line ends and escape sequences.
    log.info("%s %s %s %s", client or "-", method, quote(path, safe=_AS_IT_IS, errors="replace"), answer)


class ASGIAccessLog:
    """*app*, with a line when each of its responses begins, and when a websocket is accepted or refused."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        client = scope["client"][0] if scope.get("client") else None
        method = scope.get("method", "WEBSOCKET")
        told = False

        async def telling(message: Message) -> None:
            nonlocal told
            answer = _ANSWERS.get(message["type"])
            if answer is not None and not told:
                told = True
                _line(client, method, scope["path"], message.get("status", answer))
            await send(message)

        await self._app(scope, receive, telling)


_ANSWERS: Final = {
    "http.response.start": "",
    "websocket.http.response.start": "",
    "websocket.accept": "accepted",
    "websocket.close": "refused",
}


class WSGIAccessLog:
    """*app*, with a line when each of its responses begins."""

    def __init__(self, app: WSGIApp) -> None:
        self._app = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def telling(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], Any]:
            path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace")
            _line(environ.get("REMOTE_ADDR"), environ["REQUEST_METHOD"], path, status.partition(" ")[0])
            write: Callable[[bytes], Any] = start_response(status, headers, *rest)
            return write

        return self._app(environ, telling)

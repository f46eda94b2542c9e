"""A Starlette app behind an ASGI middleware that calls the token verifier of a library, as apps write it by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class ScopeMissingError(Exception):
    """The token is valid and lacks the scope."""


def protect(verify: Callable[[str], Awaitable[Any]], invalid: type[Exception]) -> Any:
    """Return the app. *verify* gets the ``Authorization`` field and returns claims. It raises *invalid* for a bad
    token and :class:`ScopeMissingError` for one without the scope.
    """

    class BearerAuth:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await self.app(scope, receive, send)
                return
            authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            try:
                claims = await verify(authorization.decode("latin-1"))
            except invalid:
                response = JSONResponse({"error": "invalid_token"}, 401, {"WWW-Authenticate": "Bearer"})
                await response(scope, receive, send)
            except ScopeMissingError:
                await JSONResponse({"error": "insufficient_scope"}, 403)(scope, receive, send)
            else:
                scope.setdefault("state", {})["claims"] = claims
                await self.app(scope, receive, send)

    async def rows(request: Any) -> Response:
        return JSONResponse({})

    return Starlette(routes=[Route("/rows", rows)], middleware=[Middleware(BearerAuth)])

"""Refusals in FastAPI: an exception that ends a request with the response of the guard."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from starlette.requests import HTTPConnection

from scopeguard.adapter.cors import expose_headers
from scopeguard.asgi import Scope
from scopeguard.core.decision import Denied, Unavailable
from scopeguard.core.engine import Engine
from scopeguard.request import HeaderList
from scopeguard.spec.response_headers import private_headers
from scopeguard.starlette import Refusal

IN_QUERY_KEY: Final = "scopeguard.fastapi.in_query"
"""The key in the scope of a request whose query had a token."""


class AccessRefused(Exception):
    """Ends a request with the response of the guard.

    An app needs no handler for it. A handler that it registers for this class is called instead of scopeguard's::

        @app.exception_handler(AccessRefused)
        async def refuse(request, error):
            return error.response  # or another response, made from error.refusal
    """

    __module__ = "scopeguard.fastapi"  # where apps import it from

    def __init__(self, refusal: Denied | Unavailable, response: Refusal) -> None:
        super().__init__(str(refusal.error))
        self.refusal = refusal
        self.response = response


def make_refusal(refusal: Denied | Unavailable, scope: Scope, engine: Engine) -> AccessRefused:
    """Return the exception for *refusal*, and let Starlette respond to it where the app has no handler of its own."""
    response = refusal.response
    if engine.passes_preflights() and HeaderList(scope["headers"]).get_all("origin"):
        response = replace(response, headers=tuple(expose_headers(response.headers)))
    if IN_QUERY_KEY in scope:
        response = replace(response, headers=tuple(private_headers(list(response.headers))))
    # Starlette looks for a handler in this dict when it catches the exception. A handler of the app stays in place.
    # If a later version has no such dict, the response is 500, which is a refusal.
    handlers, _ = scope.get("starlette.exception_handlers", ({}, {}))
    handlers.setdefault(AccessRefused, _respond)
    return AccessRefused(refusal, Refusal(response))


async def _respond(connection: HTTPConnection, error: AccessRefused) -> Refusal:
    del connection
    return error.response

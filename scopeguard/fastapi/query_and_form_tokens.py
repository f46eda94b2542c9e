"""Tokens in the query and in forms, and API keys, in requests that FastAPI has begun to process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

import anyio
from fastapi import Response
from starlette.requests import HTTPConnection, Request

from scopeguard.adapter.token_removal import remove_from_scope
from scopeguard.config.token_sources import TokenSources
from scopeguard.core.engine import Engine
from scopeguard.errors import RequestTimedOut, RequestTooLarge
from scopeguard.reasons import Reason
from scopeguard.request import RequestView
from scopeguard.spec.credentials import declared_length, without_access_token
from scopeguard.spec.response_headers import private_headers, uncached_headers


def strip_query_token(connection: HTTPConnection, response: Response) -> None:
    """Remove the token from the URL that the endpoint and the access log read.

    Also keep the response out of shared caches and the URL out of Referer headers.
    """
    connection.scope["query_string"] = without_access_token(connection.scope["query_string"])
    for cached in ("_query_params", "_url"):  # FastAPI has read the query before it calls dependencies
        vars(connection).pop(cached, None)
    for name, value in private_headers([]):
        response.headers[name] = value


def keep_private(response: Response, view: RequestView, engine: Engine) -> None:
    """Keep *response* out of shared caches if *view* has a credential in a field beside ``Authorization``."""
    if engine.has_other_field(view.headers):
        for name, value in uncached_headers([]):
            response.headers[name] = value


def hide_fields(connection: HTTPConnection, sources: TokenSources) -> None:
    """Remove API keys, and tokens in the forwarded field and the subprotocols, from the fields."""
    fields = connection.scope["headers"]
    remove_from_scope(connection.scope, sources)
    if connection.scope["headers"] is not fields:
        vars(connection).pop("_headers", None)  # the fields that FastAPI has read before


def make_form_reader(request: Request, sources: TokenSources) -> Callable[[int], Awaitable[bytes]]:
    """Return a function that reads the body of *request*. Its argument is the limit in bytes.

    The function raises :class:`~scopeguard.errors.RequestTooLarge` for a longer body or one without
    ``Content-Length``, and :class:`~scopeguard.errors.RequestTimedOut` after ``form_timeout`` seconds.
    """

    async def read(limit: int) -> bytes:
        # Starlette reads a body only as a whole, without a limit. So the Content-Length must be given: the server
        # makes sure that the body is not longer.
        length = declared_length(request.headers.get("content-length", ""))
        if length is None or length > limit:
            raise RequestTooLarge(Reason.FORM_TOO_LARGE, limit=limit)
        try:
            with anyio.fail_after(sources.form_timeout):
                return await _read_body(request)
        except TimeoutError:
            raise RequestTimedOut(Reason.FORM_TOO_SLOW, seconds=sources.form_timeout) from None

    return read


async def _read_body(request: Request) -> bytes:
    try:
        return await request.body()
    except RuntimeError:
        # The endpoint has Form parameters: FastAPI has parsed the body and kept no copy. Encoding the fields restores
        # the parameters in their order. It does not restore which bytes the client did not percent-encode.
        fields = (await request.form()).multi_items()
        return urlencode([(name, value) for name, value in fields if isinstance(value, str)]).encode("ascii")

"""Translate aiohttp requests for the guard, remove tokens from them, and translate refusals into responses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from scopeguard.adapter.asgi_types import Scope
from scopeguard.adapter.route_access import RouteAccess
from scopeguard.adapter.token_removal import remove_field, remove_from_scope
from scopeguard.config.token_sources import TokenSources
from scopeguard.core.decision import Report
from scopeguard.errors import InvalidRequest, RequestTimedOut, RequestTooLarge
from scopeguard.guard import Guard
from scopeguard.reasons import Reason
from scopeguard.request import HeaderList, ProofNotes, RequestView
from scopeguard.spec.certificate_fields import thumbprint
from scopeguard.spec.challenge import Response
from scopeguard.spec.credentials import without_access_token
from scopeguard.tokens import AccessToken

TOKEN_KEY: Final = "access_token"
"""The key in a request of its token, ``None`` for an anonymous caller."""
STATE_KEY: Final = "scopeguard.aiohttp"
"""The key in a request of the :class:`RequestState` of the innermost guard that has checked it."""
PROOFS_KEY: Final = "scopeguard.proofs"
"""The key in a request of the :class:`~scopeguard.request.ProofNotes` that all guards of a request share."""


class RequestState:
    """The progress and the result of the check of a request, for the decorators and the signal before a response."""

    __slots__ = (
        "guard",
        "has_other_field",
        "is_checked",
        "is_finished",
        "is_in_query",
        "is_passed",
        "report",
        "route",
        "subprotocol",
        "token",
    )

    def __init__(self, guard: Guard, route: RouteAccess) -> None:
        self.guard: Guard = guard
        self.route: RouteAccess = route
        self.token: AccessToken | None = None
        self.is_checked: bool = False
        self.is_passed: bool = False  # a preflight, which needs no token
        self.is_in_query: bool = False
        self.is_finished: bool = False  # the response has the headers of the guard
        self.has_other_field: bool = False
        self.subprotocol: str | None = None
        self.report: Report | None = None


def put(request: web.BaseRequest, key: str, value: object) -> None:
    """Set *key* of *request*. Newer versions of aiohttp warn about text as a key. Older ones accept nothing else."""
    inner: Any = request
    inner._state[key] = value


def raw_path(request: web.BaseRequest) -> bytes:
    """Return the target of the request line, which may begin with an origin and end with a query."""
    return request.raw_path.encode("utf-8", "surrogateescape")


def query_of(request: web.BaseRequest) -> bytes:
    """Return the raw query string."""
    return request.rel_url.raw_query_string.encode("utf-8", "surrogateescape")


def is_websocket(request: web.BaseRequest) -> bool:
    """Return whether *request* is the handshake of a websocket."""
    return request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket"


def request_view(request: web.BaseRequest, *, with_proofs: bool = False) -> RequestView:
    """Return *request* as the guard reads it."""
    return RequestView(
        method=request.method,
        path=request.path,
        headers=HeaderList(request.raw_headers),
        query=query_of(request),
        secure=request.secure,
        client=request.remote or None,
        is_websocket=is_websocket(request),
        raw_path=raw_path(request).partition(b"?")[0] if with_proofs else None,  # debuggers show the request
        proofs=_shared_notes(request) if with_proofs else None,
        certificate=_certificate(request) if with_proofs else None,
    )


def _shared_notes(request: web.BaseRequest) -> ProofNotes:
    notes: ProofNotes | None = request.get(PROOFS_KEY)
    if notes is None:
        notes = ProofNotes()
        put(request, PROOFS_KEY, notes)
    return notes


def _certificate(request: web.BaseRequest) -> str | None:
    """Return the thumbprint of the client certificate, or ``None`` if aiohttp does not end TLS or none was sent."""
    connection: Any = request.get_extra_info("ssl_object")
    der = None if connection is None else connection.getpeercert(binary_form=True)
    return thumbprint(der) if der else None


async def read_form(request: web.BaseRequest, limit: int, seconds: float) -> bytes:
    """Return the body, of at most *limit* bytes. The app can still call ``request.post()`` and ``request.read()``.

    Raises :class:`RequestTooLarge` for a longer body, :class:`InvalidRequest` for one that is incomplete, and
    :class:`RequestTimedOut` if it does not arrive within *seconds*.
    """
    declared = request.content_length
    if declared is not None and declared > limit:
        raise RequestTooLarge(Reason.FORM_TOO_LARGE, limit=limit)
    inner: Any = request
    if inner._read_bytes is None:
        body = bytearray()
        try:
            async with asyncio.timeout(seconds):
                while len(body) <= limit and (chunk := await request.content.read(limit + 1 - len(body))):
                    body += chunk
        except TimeoutError:
            raise RequestTimedOut(Reason.FORM_TOO_SLOW) from None
        except (web.RequestPayloadError, OSError):
            raise InvalidRequest(Reason.FORM_INCOMPLETE) from None
        # request.read() would read a body without a length up to the limit of the app. The app may have no limit.
        inner._read_bytes = bytes(body)
    found: bytes = inner._read_bytes
    if len(found) > limit:
        raise RequestTooLarge(Reason.FORM_TOO_LARGE, limit=limit)
    return found


def remove_tokens(request: web.BaseRequest, sources: TokenSources, *, in_query: bool) -> str | None:
    """Remove tokens and API keys from the URL and the fields that the app and the access log read.

    Returns the subprotocol to select if the app selects none.
    """
    inner: Any = request
    if in_query:
        left = without_access_token(query_of(request)).decode("utf-8", "surrogateescape")
        url = URL.build(path=request.rel_url.raw_path, query_string=left, encoded=True)
        inner._message = inner._message._replace(path=str(url), url=url)
        inner._rel_url = url
        for name in ("url", "rel_url", "path_qs", "raw_path", "query", "query_string"):
            inner._cache.pop(name, None)
    in_fields = sources.in_forwarded or sources.api_keys is not None
    if not in_fields and not (sources.in_subprotocol and is_websocket(request)):
        return None
    scope: Scope = {"type": "websocket" if is_websocket(request) else "http", "headers": list(request.raw_headers)}
    subprotocol = remove_from_scope(scope, sources)
    _set_fields(request, scope["headers"])
    return subprotocol


def remove_key(request: web.BaseRequest, field: bytes | None) -> None:
    """Remove *field*, the one for API keys, from *request*. It is ``None`` if the guard accepts no keys."""
    if field is not None and field.decode("ascii") in request.headers:
        scope: Scope = {"headers": list(request.raw_headers)}
        remove_field(scope, field)
        _set_fields(request, scope["headers"])


def _set_fields(request: web.BaseRequest, fields: list[tuple[bytes, bytes]]) -> None:
    inner: Any = request
    headers = CIMultiDict((name.decode("utf-8"), value.decode("utf-8", "surrogateescape")) for name, value in fields)
    inner._headers = CIMultiDictProxy(headers)
    inner._message = inner._message._replace(headers=inner._headers, raw_headers=tuple(fields))
    inner._cache.pop("raw_headers", None)
    inner._cache.pop("headers", None)


def to_response(answer: Response) -> web.Response:
    """Return *answer*, a refusal or a document of the guard, as an aiohttp response."""
    return web.Response(status=answer.status, headers=CIMultiDict(answer.headers), body=answer.body or None)


def publish_route(request: web.Request, report: Report) -> None:
    """Add the route that aiohttp has matched to *report*."""
    resource = request.match_info.route.resource
    report.publish(None if resource is None else resource.canonical)


def replace_headers(response: web.StreamResponse, headers: Iterable[tuple[str, str]]) -> None:
    """Give *response* the fields *headers* instead of its own."""
    fields = CIMultiDict(headers)
    response.headers.clear()
    response.headers.extend(fields)

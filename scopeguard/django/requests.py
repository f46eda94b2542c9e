"""What the guard reads of a Django request."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scopeguard.adapter.token_removal import remove_field, remove_key
from scopeguard.asgi import GUARD_KEY as ASGI_GUARD_KEY
from scopeguard.asgi import debug_answer as asgi_debug_answer
from scopeguard.asgi import query_of
from scopeguard.asgi import request_view as asgi_view
from scopeguard.config.token_sources import TokenSources
from scopeguard.errors import InvalidRequest, RequestTooLarge
from scopeguard.reasons import Reason
from scopeguard.request import RequestView
from scopeguard.spec.challenge import Response
from scopeguard.spec.credentials import declared_length, without_access_token
from scopeguard.wsgi import ENVIRON_KEY, GUARD_KEY, strip_query_token
from scopeguard.wsgi import debug_answer as wsgi_debug_answer
from scopeguard.wsgi import raw_path as wsgi_raw_path
from scopeguard.wsgi import request_view as wsgi_view

if TYPE_CHECKING:
    from scopeguard.adapter.debug_page import DebugPage


def raw_path(request: Any) -> bytes | None:
    """Return the path as the client sent it, or ``None`` if the server does not provide it."""
    scope = getattr(request, "scope", None)
    if scope is None:
        return wsgi_raw_path(request.META)
    raw: bytes | None = scope.get("raw_path")
    return raw


def request_view(request: Any, *, with_proofs: bool = False) -> RequestView:
    """Return *request* as the guard reads it.

    The path is the one that Django routes on. ``SECURE_PROXY_SSL_HEADER`` of the settings decides whether the request
    is secure.
    """
    scope = getattr(request, "scope", None)
    if scope is None:
        view = wsgi_view(request.META, with_proofs=with_proofs)
    else:
        view = asgi_view(scope, request.method, with_proofs=with_proofs)
    return replace(view, path=request.path_info, secure=request.is_secure())


def debug_answer(page: DebugPage, request: Any) -> Response | None:
    """Return the response to a request for *page*; ``None`` for another path, and for another machine or site."""
    scope = getattr(request, "scope", None)
    return wsgi_debug_answer(page, request.META) if scope is None else asgi_debug_answer(page, scope)


def outer_guard(request: Any) -> tuple[Any, Any]:
    """Return the guard and the token of a ``GuardMiddleware`` around the application, or ``None`` for each."""
    scope = getattr(request, "scope", None)
    if scope is None:
        return request.META.get(GUARD_KEY), request.META.get(ENVIRON_KEY)
    state = scope.get("state") or {}
    return state.get(ASGI_GUARD_KEY), state.get("access_token")


def read_form(request: Any, limit: int) -> bytes:
    """Return the body, of at most *limit* bytes. Views can read it again, and ``request.POST`` works.

    Raises :class:`~scopeguard.errors.RequestTooLarge` for a longer body and
    :class:`~scopeguard.errors.InvalidRequest` for one that is shorter than its ``Content-Length``.
    """
    length = request.META.get("CONTENT_LENGTH") or ""
    declared = declared_length(length) if length else None
    if length and declared is None:
        raise InvalidRequest(Reason.FORM_INCOMPLETE)
    if declared is not None and declared > limit:
        raise RequestTooLarge(Reason.FORM_TOO_LARGE, limit=limit)
    if hasattr(request, "_body"):  # another middleware has read it
        body: bytes = request.body
    else:
        # request.body would read a body without Content-Length to its end, whatever its size.
        body = request.read(limit + 1)
        request._stream.close()  # a temporary file in ASGI, which Django closes when it reads the body itself
        request._body = body
        request._stream = io.BytesIO(body)
    if len(body) > limit:
        raise RequestTooLarge(Reason.FORM_TOO_LARGE, limit=limit)
    if declared is not None and len(body) < declared:
        raise InvalidRequest(Reason.FORM_INCOMPLETE)
    return body


def hide_token(request: Any, sources: TokenSources, *, in_query: bool) -> None:
    """Remove a token in the URL or the forwarded field, and an API key, from what views and logs read."""
    scope = getattr(request, "scope", None)
    if in_query:
        strip_query_token(request.META)
        request.__dict__.pop("GET", None)
        if scope is not None:
            scope["query_string"] = without_access_token(query_of(scope))
    if sources.in_forwarded:
        request.META.pop("HTTP_X_FORWARDED_AUTHORIZATION", None)
        request.__dict__.pop("headers", None)
        if scope is not None:
            remove_field(scope, b"x-forwarded-authorization")
    if sources.api_keys is not None:
        hide_key(request, sources.api_keys.header_field.encode("ascii"))


def hide_key(request: Any, field: bytes | None) -> None:
    """Remove *field*, the one for API keys, from what views and logs read. It is ``None`` without keys."""
    if field is not None:
        remove_key(request.META, field)
        request.__dict__.pop("headers", None)
        scope = getattr(request, "scope", None)
        if scope is not None:
            remove_field(scope, field)

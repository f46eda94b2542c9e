"""Browsers on other origins: their preflights, and refusals that their scripts can read (the Fetch standard, CORS).

scopeguard has no CORS policy of its own: which origins may read what is a matter of the app's CORS middleware. Where
that stands inside the guard it never sees a refusal, so it is asked about the origin, with a preflight of our making.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any, Final

Headers = list[tuple[str, str]]

PREFLIGHT_KEY: Final = "scopeguard.preflight"
"""In an environ: the request is a preflight that was passed on without a token."""

log: Final = logging.getLogger("scopeguard")

# RFC 9449 section 8.2, and what the Fetch standard does not let scripts read unless it is named.
_EXPOSED: Final = ("WWW-Authenticate", "DPoP-Nonce", "Retry-After")
TIME_LIMIT: Final = 2.0
"""How long an ASGI app may take to start its answer to a preflight about a refused request, in seconds."""
_ALLOWED: Final = ("access-control-allow-origin", "access-control-allow-credentials", "vary")


def exposed(headers: Iterable[tuple[str, str]]) -> Headers:
    """*headers* of a response, and one that lets scripts read what says how to go on."""
    given = list(headers)
    present = {name.lower() for name, _ in given}
    already = ",".join(value for name, value in given if name.lower() == "access-control-expose-headers").lower()
    names = [name for name in _EXPOSED if name.lower() in present and name.lower() not in already]
    return [*given, ("Access-Control-Expose-Headers", ", ".join(names))] if names else given


def exposing(
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> Callable[[MutableMapping[str, Any]], Awaitable[None]]:
    """*send* of an ASGI app, for :func:`exposed` headers."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in exposed(given)]
            message = {**message, "headers": headers}
        await send(message)

    return sending


def exposing_responses(start_response: Callable[..., Any]) -> Callable[..., Any]:
    """*start_response* of a WSGI app, for :func:`exposed` headers."""

    def starting(status: str, headers: Headers, *rest: Any) -> Any:
        return start_response(status, exposed(headers), *rest)

    return starting


async def allowed_by_asgi_app(
    app: Callable[..., Awaitable[None]], scope: MutableMapping[str, Any], origin: bytes
) -> Headers:
    """Return the headers that let *origin* read a refusal which *app* never sees.

    The app is asked by a preflight, and cancelled when it starts its response or after :data:`TIME_LIMIT`. Nothing is
    returned where the app fails, is late, or leaves CORS to middleware outside.
    """
    from scopeguard.edge.aio import TimedOut, response_start  # noqa: PLC0415 - imported when an ASGI guard is made

    headers = [(name, value) for name, value in scope["headers"] if name.lower() == b"host"]
    headers += [
        (b"origin", origin),
        (b"access-control-request-method", scope["method"].encode("latin-1")),
        (b"access-control-request-headers", b"authorization"),
    ]
    preflight = {**scope, "method": "OPTIONS", "headers": headers, "query_string": b""}
    try:
        answer = await response_start(app, preflight, TIME_LIMIT)
    except TimedOut:
        log.warning("cors: the app did not answer a preflight within %s s", TIME_LIMIT)
        return []
    except Exception:
        log.warning("cors: the app failed to answer a preflight", exc_info=True)
        return []
    given = [] if answer is None else answer.get("headers", ())
    return _allowed([(name.decode("latin-1"), value.decode("latin-1")) for name, value in given])


def allowed_by_wsgi_app(app: Callable[..., Iterable[bytes]], environ: dict[str, Any], origin: str) -> Headers:
    """Return the headers that let *origin* read a refusal which *app* never sees.

    The app is asked by a preflight. Its answer is closed when it has called ``start_response``: the body is not read.
    How long the app takes until then is not limited, because nothing can interrupt it.
    """
    found: list[Headers] = []
    kept = {
        name: value
        for name, value in environ.items()
        # What frameworks keep in it belongs to the request that was refused.
        if name == "HTTP_HOST" or not name.startswith(("HTTP_", "CONTENT_", "werkzeug.", "scopeguard."))
    }
    preflight = {
        **kept,
        "REQUEST_METHOD": "OPTIONS",
        "QUERY_STRING": "",
        "CONTENT_LENGTH": "0",
        "HTTP_ORIGIN": origin,
        "HTTP_ACCESS_CONTROL_REQUEST_METHOD": environ["REQUEST_METHOD"],
        "HTTP_ACCESS_CONTROL_REQUEST_HEADERS": "authorization",
        "wsgi.input": io.BytesIO(),
        PREFLIGHT_KEY: True,
    }

    def start_response(status: str, headers: Headers, *rest: Any) -> Callable[[bytes], None]:
        del status, rest
        found.append(headers)
        return _refuse_to_write

    try:
        answer = app(preflight, start_response)
        try:
            if not found:
                # A generator runs when it is asked for its first part. PEP 3333: "the start_response() callable must be
                # invoked before the iterable yields its first body bytestring".
                next(iter(answer), None)
        finally:
            getattr(answer, "close", bool)()
    except Exception:
        if not found:  # else it is about the end that was put to the answer
            log.warning("cors: the app failed to answer a preflight", exc_info=True)
    return _allowed(found[-1]) if found else []


def _refuse_to_write(data: bytes) -> None:
    """Stand for the ``write`` of a server whose client has gone, so that an app that writes without end stops."""
    del data
    raise BrokenPipeError("the client has gone")


def _allowed(headers: Sequence[tuple[str, str]]) -> Headers:
    found = [(name, value) for name, value in headers if name.lower() in _ALLOWED]
    return found if any(name.lower() == _ALLOWED[0] for name, _ in found) else []

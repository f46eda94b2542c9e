"""CORS: response headers that let scripts of other origins read a refusal (the Fetch standard).

scopeguard has no CORS policy of its own. The app's CORS middleware decides which origins may read which response. If it
is inside the guard, it never sees a refusal, so scopeguard sends it a preflight for the origin.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from scopeguard.adapter.asgi_types import ASGIApp, Message, Scope, Send
from scopeguard.adapter.preflights import PREFLIGHT_KEY

Headers = list[tuple[str, str]]

log: Final = logging.getLogger("scopeguard")

# Scripts read these fields only if the response names them in Access-Control-Expose-Headers (the Fetch standard).
# RFC 9449 section 8.2 says the same of DPoP-Nonce.
_EXPOSED: Final = ("WWW-Authenticate", "DPoP-Nonce", "Retry-After")
TIME_LIMIT: Final = 2.0
"""The seconds within which an ASGI app must start its response to a preflight about a refused request."""
_LINES: Final = "cors"  # the kind of the lines about preflights
_ALLOWED: Final = ("access-control-allow-origin", "access-control-allow-credentials", "vary")


def expose_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return *headers* of a response and a field that lets scripts read the challenge, the nonce and the delay."""
    fields = list(headers)
    present = {name.lower() for name, _ in fields}
    already = ",".join(value for name, value in fields if name.lower() == "access-control-expose-headers").lower()
    names = [name for name in _EXPOSED if name.lower() in present and name.lower() not in already]
    return [*fields, ("Access-Control-Expose-Headers", ", ".join(names))] if names else fields


def expose_headers_in_send(send: Send) -> Send:
    """Return an ASGI send function that applies :func:`expose_headers` to the response."""

    async def send_exposed(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in expose_headers(given)]
            message = {**message, "headers": headers}
        await send(message)

    return send_exposed


async def ask_asgi_app(app: ASGIApp, scope: Scope, origin: bytes, may_log: Callable[[str], bool]) -> Headers:
    """Return the headers that let *origin* read the refusal of the request in *scope*.

    The app gets a preflight for the request, and is cancelled when it starts its response or after
    :data:`TIME_LIMIT`. The result is empty if the app fails, is late, or sends no CORS headers. *may_log* says whether
    another line about that may be logged, because any caller may cause it.
    """
    from scopeguard.adapter.asgi_messages import get_response_start  # noqa: PLC0415 - GuardMiddleware has imported it

    headers = [(name, value) for name, value in scope["headers"] if name.lower() == b"host"]
    headers += [
        (b"origin", origin),
        (b"access-control-request-method", scope["method"].encode("latin-1")),
        (b"access-control-request-headers", b"authorization"),
    ]
    preflight = {**scope, "method": "OPTIONS", "headers": headers, "query_string": b""}
    try:
        start = await get_response_start(app, preflight, TIME_LIMIT)
    except TimeoutError:
        if may_log(_LINES):
            log.warning("cors: the app did not answer a preflight within %s s", TIME_LIMIT)
        return []
    except Exception:
        if may_log(_LINES):
            log.warning("cors: the app failed to answer a preflight", exc_info=True)
        return []
    headers = [] if start is None else start.get("headers", ())
    return _select_cors([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])


def ask_wsgi_app(
    app: Callable[..., Iterable[bytes]],
    environ: dict[str, Any],
    origin: str,
    added: Mapping[str, Any],
    may_log: Callable[[str], bool],
) -> Headers:
    """Return the headers that let *origin* read the refusal of the request in *environ*.

    The app gets a preflight for the request, with the entries *added*. Its response is closed after ``start_response``,
    and the body is not read. There is no time limit, because a thread cannot be interrupted. The result is empty if the
    app fails or sends no CORS headers. *may_log* is that of :func:`ask_asgi_app`.
    """
    found: list[Headers] = []
    kept = {
        name: value
        for name, value in environ.items()
        # The entries of frameworks belong to the request that was refused.
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
        **added,
    }

    def start_response(status: str, headers: Headers, *rest: Any) -> Callable[[bytes], None]:
        del status, rest
        found.append(headers)
        return _refuse_to_write

    try:
        body = app(preflight, start_response)
        try:
            if not found:
                # A generator does not run before its first part is requested. PEP 3333: "the start_response() callable
                # must be invoked before the iterable yields its first body bytestring".
                next(iter(body), None)
        finally:
            getattr(body, "close", bool)()
    except Exception:
        # If the response has started, the exception is a consequence of closing it early.
        if not found and may_log(_LINES):
            log.warning("cors: the app failed to answer a preflight", exc_info=True)
    return _select_cors(found[-1]) if found else []


def _refuse_to_write(data: bytes) -> None:
    """Raise the exception of a broken connection, so that an app that writes forever stops."""
    del data
    raise BrokenPipeError("the client has disconnected")


def _select_cors(headers: Sequence[tuple[str, str]]) -> Headers:
    found = [(name, value) for name, value in headers if name.lower() in _ALLOWED]
    return found if any(name.lower() == _ALLOWED[0] for name, _ in found) else []

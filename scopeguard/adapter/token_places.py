"""For adapters: take tokens out of the places where apps and logs would see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from scopeguard.config.sources import TokenSources
from scopeguard.spec.subprotocol import parse_subprotocols

_FORWARDED: Final = b"x-forwarded-authorization"
_SUBPROTOCOLS: Final = b"sec-websocket-protocol"

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


def take_out_of_scope(scope: MutableMapping[str, Any], sources: TokenSources) -> str | None:
    """Take tokens out of the forwarded field and the subprotocols in an ASGI *scope*, where these are sources.

    Returns the subprotocol to select if the app selects none. The header list is replaced, not changed: what was read
    from it before stays as it was.
    """
    if sources.in_forwarded:
        # Underscores too: an app behind a WSGI bridge reads both spellings as one field.
        scope["headers"] = [pair for pair in scope["headers"] if pair[0].lower().replace(b"_", b"-") != _FORWARDED]
    if not sources.in_subprotocol or scope["type"] != "websocket":
        return None
    found = parse_subprotocols([value for name, value in scope["headers"] if name.lower() == _SUBPROTOCOLS])
    headers = [pair for pair in scope["headers"] if pair[0].lower() != _SUBPROTOCOLS]
    if found.others:
        headers.append((_SUBPROTOCOLS, ", ".join(found.others).encode("latin-1")))
    scope["headers"] = headers
    scope["subprotocols"] = list(found.others)
    return found.marker


def selecting(send: Send, subprotocol: str) -> Send:
    """Accept a websocket with *subprotocol* where the app selects none."""

    async def sending(message: Message) -> None:
        if message["type"] == "websocket.accept" and not message.get("subprotocol"):
            message = {**message, "subprotocol": subprotocol}
        await send(message)

    return sending


def take_out_of_environ(environ: dict[str, Any], sources: TokenSources) -> None:
    """Take a token out of the forwarded field in a WSGI *environ*, where that is a source."""
    if sources.in_forwarded:
        environ.pop("HTTP_X_FORWARDED_AUTHORIZATION", None)

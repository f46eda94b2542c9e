"""Removal of tokens from the parts of a request that apps and logs read."""

from __future__ import annotations

from typing import Any, Final

from scopeguard.adapter.asgi_types import Message, Scope, Send
from scopeguard.config.token_sources import TokenSources
from scopeguard.spec.subprotocol import parse_subprotocols

_FORWARDED: Final = b"x-forwarded-authorization"
_SUBPROTOCOLS: Final = b"sec-websocket-protocol"


def remove_from_scope(scope: Scope, sources: TokenSources) -> str | None:
    """Remove tokens from the forwarded field and the subprotocols in an ASGI *scope*, if these are token sources.

    Returns the subprotocol to select if the app selects none. The list of headers is replaced and not changed, so that
    a view of the request that was made before still has the token.
    """
    if sources.in_forwarded:
        # Remove the spelling with underscores, too, because an app behind a WSGI bridge reads both as one field.
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


def select_subprotocol(send: Send, subprotocol: str) -> Send:
    """Return a send function that accepts a websocket with *subprotocol* if the app selects none."""

    async def send_with_subprotocol(message: Message) -> None:
        if message["type"] == "websocket.accept" and not message.get("subprotocol"):
            message = {**message, "subprotocol": subprotocol}
        await send(message)

    return send_with_subprotocol


def remove_from_environ(environ: dict[str, Any], sources: TokenSources) -> None:
    """Remove a token from the forwarded field in a WSGI *environ*, if that is a token source."""
    if sources.in_forwarded:
        environ.pop("HTTP_X_FORWARDED_AUTHORIZATION", None)

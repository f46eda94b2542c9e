"""Removal of tokens and API keys from the parts of a request that apps and logs read."""

from __future__ import annotations

from typing import Any, Final

from scopeguard.adapter.asgi_types import Message, Scope, Send
from scopeguard.config.token_sources import TokenSources
from scopeguard.spec.subprotocol import parse_subprotocols

_FORWARDED: Final = b"x-forwarded-authorization"
_SUBPROTOCOLS: Final = b"sec-websocket-protocol"


def remove_from_scope(scope: Scope, sources: TokenSources) -> str | None:
    """Remove tokens from the forwarded field and the subprotocols in an ASGI *scope*, if these are token sources.

    API keys are removed on every route of a guard that accepts them anywhere. Returns the subprotocol to select if the
    app selects none. The list of headers is replaced and not changed, so that a view of the request that was made
    before still has the credentials.
    """
    if sources.in_forwarded:
        remove_field(scope, _FORWARDED)
    if sources.api_keys is not None:
        remove_field(scope, sources.api_keys.header_field.encode("ascii"))
    if not sources.in_subprotocol or scope["type"] != "websocket":
        return None
    found = parse_subprotocols([value for name, value in scope["headers"] if name.lower() == _SUBPROTOCOLS])
    headers = [pair for pair in scope["headers"] if pair[0].lower() != _SUBPROTOCOLS]
    if found.others:
        headers.append((_SUBPROTOCOLS, ", ".join(found.others).encode("latin-1")))
    scope["headers"] = headers
    scope["subprotocols"] = list(found.others)
    return found.marker


def remove_field(scope: Scope, name: bytes) -> None:
    """Remove the field *name* (lower case) from an ASGI *scope*. The list of headers is replaced, not changed."""
    # Remove the spelling with underscores, too, because an app behind a WSGI bridge reads both as one field.
    scope["headers"] = [pair for pair in scope["headers"] if pair[0].lower().replace(b"_", b"-") != name]


def select_subprotocol(send: Send, subprotocol: str) -> Send:
    """Return a send function that accepts a websocket with *subprotocol* if the app selects none."""

    async def send_with_subprotocol(message: Message) -> None:
        if message["type"] == "websocket.accept" and not message.get("subprotocol"):
            message = {**message, "subprotocol": subprotocol}
        await send(message)

    return send_with_subprotocol


def remove_from_environ(environ: dict[str, Any], sources: TokenSources) -> None:
    """Remove API keys from a WSGI *environ*, and the forwarded field if it is a token source."""
    if sources.in_forwarded:
        environ.pop("HTTP_X_FORWARDED_AUTHORIZATION", None)
    if sources.api_keys is not None:
        remove_key(environ, sources.api_keys.header_field.encode("ascii"))


def remove_key(environ: dict[str, Any], field: bytes | None) -> None:
    """Remove *field*, the one for API keys, from a WSGI *environ*. It is ``None`` if the guard accepts no keys."""
    if field is not None:
        environ.pop(_environ_name(field), None)


def environ_has(environ: dict[str, Any], field: bytes | None) -> bool:
    """Return whether a WSGI *environ* has *field*, the one for API keys. It is ``None`` for a guard without keys."""
    return field is not None and _environ_name(field) in environ


def _environ_name(field: bytes) -> str:
    return f"HTTP_{field.decode('ascii').upper().replace('-', '_')}"

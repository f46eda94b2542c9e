"""Middleware that reads the caller's address and scheme from the headers of trusted proxies.

It reads ``X-Forwarded-For`` and ``X-Forwarded-Proto``. No header sets ``root_path`` or ``SCRIPT_NAME``, because these
determine which rule applies to a request. If the peer is not a trusted proxy, forwarded headers are removed: an app may
trust them without checking the sender.

uvicorn's ProxyHeadersMiddleware and werkzeug's ProxyFix were considered. Neither removes the fields of other senders,
ProxyFix counts hops instead of comparing addresses, and each is for one interface only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from scopeguard.asgi import ASGIApp, Receive, Scope, Send
from scopeguard.config import trusted_proxies
from scopeguard.request import HeaderList
from scopeguard.wsgi import Environ, StartResponse, WSGIApp

_OTHER_FIELDS: Final = frozenset({"forwarded", "x-real-ip", "x-script-name"})
_WEBSOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}


class Proxies(trusted_proxies.Proxies):
    """The proxies of ``--trusted-proxy``; see :class:`scopeguard.config.trusted_proxies.Proxies`."""

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        super().__init__(tuple(addresses), "--trusted-proxy")

    def client(self, sender: str | None, forwarded_for: str) -> str | None:
        """Return the caller's address from the ``X-Forwarded-For`` of *sender*, a trusted proxy.

        The list is read from the right, up to the first address that is not a trusted proxy, because the caller may
        have sent the beginning of the list. An entry that is not an address ends the search.
        """
        found = sender
        for entry in reversed(forwarded_for.split(",")):
            address = trusted_proxies.address_of(entry.strip())
            if address is None:
                return found
            found = str(address)
            if not self.trusts(found):
                return found
        return found


def _scheme(forwarded_proto: str) -> str | None:
    """Return the scheme in the last entry, which the nearest proxy wrote."""
    scheme = forwarded_proto.rpartition(",")[2].strip().lower()
    return scheme if scheme in _WEBSOCKET_SCHEMES else None


def _is_forwarded_field(name: str) -> bool:
    # In CGI and WSGI, dashes and underscores become the same character.
    plain = name.lower().replace("_", "-")
    return plain.startswith("x-forwarded-") or plain in _OTHER_FIELDS


class ASGIForwarded:
    """ASGI middleware that sets the caller's address and scheme from the headers of trusted *proxies*."""

    def __init__(self, app: ASGIApp, proxies: Proxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            sender = scope["client"][0] if scope.get("client") else None
            if self._proxies.trusts(sender):
                self._apply(scope, sender)
            else:
                scope["headers"] = [
                    (name, value) for name, value in scope["headers"] if not _is_forwarded_field(name.decode("latin-1"))
                ]
        await self._app(scope, receive, send)

    def _apply(self, scope: Scope, sender: str | None) -> None:
        headers = HeaderList(scope["headers"])
        forwarded_for, proto = (
            b",".join(headers.get_all(name)).decode("latin-1") for name in ("x-forwarded-for", "x-forwarded-proto")
        )
        client, scheme = self._proxies.client(sender, forwarded_for), _scheme(proto)
        if client != sender and client is not None:
            scope["client"] = (client, 0)
        if scheme is not None:
            scope["scheme"] = _WEBSOCKET_SCHEMES[scheme] if scope["type"] == "websocket" else scheme


class WSGIForwarded:
    """WSGI middleware that sets the caller's address and scheme from the headers of trusted *proxies*.

    *unix* is true when the server listens on a Unix socket, where the peer has no address.
    """

    def __init__(self, app: WSGIApp, proxies: Proxies, *, unix: bool) -> None:
        self._app = app
        self._proxies = proxies
        self._unix = unix

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        sender = None if self._unix else environ.get("REMOTE_ADDR")
        if self._proxies.trusts(sender):
            client = self._proxies.client(sender, environ.get("HTTP_X_FORWARDED_FOR", ""))
            scheme = _scheme(environ.get("HTTP_X_FORWARDED_PROTO", ""))
            if client != sender and client is not None:
                environ["REMOTE_ADDR"] = environ["REMOTE_HOST"] = client
                environ.pop("REMOTE_PORT", None)
            if scheme is not None:
                environ["wsgi.url_scheme"] = scheme
        else:
            for name in [name for name in environ if name.startswith("HTTP_") and _is_forwarded_field(name[5:])]:
                del environ[name]
        return self._app(environ, start_response)

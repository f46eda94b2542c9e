"""Who sent a request and how, where a proxy stands in between: told by headers, believed of known proxies only.

Two fields are read: ``X-Forwarded-For`` and ``X-Forwarded-Proto``. No header moves the app below a prefix: by
``root_path`` and ``SCRIPT_NAME`` it is decided which rule a request meets (H-06). From anybody who is not a known
proxy, fields of this kind do not reach the app either, which may believe them without asking who sent them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from scopeguard.asgi import ASGIApp, Receive, Scope, Send
from scopeguard.config import proxies
from scopeguard.request import HeaderList
from scopeguard.wsgi import Environ, StartResponse, WSGIApp

_ALSO: Final = frozenset({"forwarded", "x-real-ip", "x-script-name"})
_SECURE_TWINS: Final = {"http": "ws", "https": "wss"}


class Proxies(proxies.Proxies):
    """The proxies to believe; see :class:`scopeguard.config.proxies.Proxies`."""

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        super().__init__(tuple(addresses), "--trusted-proxy")

    def client(self, sender: str | None, forwarded_for: str) -> str | None:
        """The caller as *sender*, a known proxy, tells it: read from the right, because whoever called first may have
        begun the list; up to the first that is no known proxy, or cannot be read."""
        found = sender
        for entry in reversed(forwarded_for.split(",")):
            address = proxies.address_of(entry.strip())
            if address is None:
                return found
            found = str(address)
            if not self.trusts(found):
                return found
        return found


def _scheme(forwarded_proto: str) -> str | None:
    """What the nearest proxy, which stands last, says of the connection to it."""
    said = forwarded_proto.rpartition(",")[2].strip().lower()
    return said if said in _SECURE_TWINS else None


def _tells(name: str) -> bool:
    # Apps below a gateway read dashes and underscores alike (H-12).
    plain = name.lower().replace("_", "-")
    return plain.startswith("x-forwarded-") or plain in _ALSO


class ASGIForwarded:
    """*app*, told what known *proxies* tell."""

    def __init__(self, app: ASGIApp, proxies: Proxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            sender = scope["client"][0] if scope.get("client") else None
            if self._proxies.trusts(sender):
                self._believe(scope, sender)
            else:
                scope["headers"] = [pair for pair in scope["headers"] if not _tells(pair[0].decode("latin-1"))]
        await self._app(scope, receive, send)

    def _believe(self, scope: Scope, sender: str | None) -> None:
        headers = HeaderList(scope["headers"])
        told, proto = (
            b",".join(headers.get_all(name)).decode("latin-1") for name in ("x-forwarded-for", "x-forwarded-proto")
        )
        client, scheme = self._proxies.client(sender, told), _scheme(proto)
        if client != sender and client is not None:
            scope["client"] = (client, 0)
        if scheme is not None:
            scope["scheme"] = _SECURE_TWINS[scheme] if scope["type"] == "websocket" else scheme


class WSGIForwarded:
    """*app*, told what known *proxies* tell. *unix*: we listen on a Unix socket, whose other end has no address."""

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
            for name in [name for name in environ if name.startswith("HTTP_") and _tells(name[5:])]:
                del environ[name]
        return self._app(environ, start_response)

"""``scopeguard authorize``: answers a proxy that has to know whether a request may reach the API behind it.

The proxy describes the original request in header fields, or for Envoy in the method and path of its own request.
:class:`ProxyRequests` turns the description into the scope of the original request, and
:class:`~scopeguard.asgi.GuardMiddleware` decides about it as it does in front of an app. :func:`answer` is that app: it
allows the request and sends the claims of the token. The body of the original request is not needed.

Only trusted proxies get an answer other than 403. A description that is incomplete, repeated or malformed is refused.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from enum import Enum
from string import ascii_letters, digits
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from scopeguard.asgi import ASGIApp, Message, Receive, Scope, Send
from scopeguard.config.trusted_proxies import Proxies
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard
from scopeguard.request import HeaderList
from scopeguard.spec.resource_metadata_url import WELL_KNOWN

log: Final = logging.getLogger("scopeguard.serve")

ENVOY_PREFIX: Final = "/authorize"
"""The ``path_prefix`` of Envoy, which comes before the path of the original request."""

CLAIM_HEADERS: Final = {
    "subject": "X-Auth-Subject",
    "client": "X-Auth-Client",
    "scopes": "X-Auth-Scopes",
    "issuer": "X-Auth-Issuer",
}
"""The names of the fields with claims, unless ``--claim-header`` changes them."""

_METHOD: Final = frozenset(ascii_letters + digits + "!#$%&'*+-.^_`|~")  # RFC 9110 section 5.6.2
_FIELD_NAME: Final = frozenset(ascii_letters + digits + "-")
_HOST: Final = frozenset(ascii_letters + digits + "-._:[]")
_TARGET: Final = frozenset(map(chr, range(0x21, 0x7F))) - {"#"}
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_OWN_FIELDS: Final = frozenset(("cache-control", "connection", "content-length", "date", "dpop-nonce", "retry-after"))
_SERVER_FIELDS: Final = frozenset(("server", "transfer-encoding", "www-authenticate"))
_BODY_FIELDS: Final = frozenset((b"content-length", b"content-type", b"transfer-encoding", b"expect"))


class Proxy(Enum):
    """How a proxy describes the original request: the fields with its method, host and target."""

    NGINX = ("nginx", "x-original-method", "x-original-host", "x-original-uri")
    HAPROXY = ("haproxy", "x-original-method", "x-original-host", "x-original-uri")
    TRAEFIK = ("traefik", "x-forwarded-method", "x-forwarded-host", "x-forwarded-uri")
    CADDY = ("caddy", "x-forwarded-method", "x-forwarded-host", "x-forwarded-uri")
    ENVOY = ("envoy", None, "host", None)

    def __init__(self, label: str, method: str | None, host: str, target: str | None) -> None:
        self.label: str = label
        self.method: str | None = method
        self.host: str = host
        self.target: str | None = target


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of ``scopeguard authorize`` about the proxy.

    * ``proxy``: its kind.
    * ``trusted``: the addresses of proxies, as for :class:`~scopeguard.config.trusted_proxies.Proxies`; at least one.
    * ``claim_headers``: names of fields that replace those of :data:`CLAIM_HEADERS`, as in ``subject=Remote-User``.
    * ``names``: the resulting names, in the order of :data:`CLAIM_HEADERS`.

    Raises :class:`ConfigurationError` for a wrong or contradictory setting.
    """

    proxy: Proxy
    trusted: tuple[str, ...]
    claim_headers: tuple[str, ...] = ()
    names: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not self.trusted:
            raise ConfigurationError("--trusted-proxy: must name at least one address, as in 127.0.0.1")
        Proxies(self.trusted, "--trusted-proxy")
        names = dict(CLAIM_HEADERS)
        for claim, _, name in (text.partition("=") for text in self.claim_headers):
            if claim not in names:
                raise ConfigurationError(f"--claim-header: must begin with one of {', '.join(f'{n}=' for n in names)}")
            # No underscores: some servers read X_Auth as X-Auth, and proxies therefore drop it.
            is_taken = name.lower() in _OWN_FIELDS | _SERVER_FIELDS
            if is_taken or not name[:1].isalpha() or not set(name) <= _FIELD_NAME:
                raise ConfigurationError(
                    f"--claim-header: {claim}= must name a field of its own, in letters, digits and dashes"
                )
            names[claim] = name
        lower = tuple(name.lower().encode("ascii") for name in names.values())
        if len(set(lower)) < len(lower):
            raise ConfigurationError("--claim-header: must give each claim a field of its own")
        object.__setattr__(self, "names", lower)


def check_guard(guard: Guard) -> None:
    """Raise :class:`ConfigurationError` if *guard* needs what a proxy does not send: a body."""
    if guard.mcp is not None:
        raise ConfigurationError("[mcp]: scopeguard authorize sees no bodies; use scopeguard serve for MCP servers")
    rules = () if guard.rules is None else guard.rules.all
    if guard.sources.in_form or any("form" in (rule.sources or ()) for rule in rules):
        raise ConfigurationError('token_sources: scopeguard authorize sees no bodies; leave out "form"')


class ProxyRequests:
    """ASGI app that passes to *app* the requests that a proxy describes, and returns the responses to the proxy."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._proxy = settings.proxy
        self._proxies = Proxies(settings.trusted, "--trusted-proxy")
        self._names = settings.names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError("scopeguard authorize answers HTTP requests only")
        if not self._proxies.trusts(scope["client"][0] if scope.get("client") else None):
            await _refuse(send, "the sender is not a trusted proxy")
        elif self._proxy is not Proxy.ENVOY and scope["path"].startswith(WELL_KNOWN):
            await self._app(scope, receive, send)  # resource metadata, which a proxy passes on as a page
        elif (original := self._original(scope)) is None:
            await _refuse(send, "the proxy did not describe the request as configured")
        else:
            await self._app(original, receive, _Verdict(original, send, self._names).send)

    def _original(self, scope: Scope) -> Scope | None:
        """Return the scope of the original request, or ``None`` if its description is not valid."""
        proxy, headers = self._proxy, HeaderList(scope["headers"])
        scheme = _SCHEMES.get(_single_value(headers, "x-forwarded-proto") or "")
        host = _single_value(headers, proxy.host)
        method = scope["method"] if proxy.method is None else _single_value(headers, proxy.method)
        target = _envoy_target(scope) if proxy.target is None else _single_value(headers, proxy.target)
        if not scheme or not host or not method or not target:
            return None
        if not set(method) <= _METHOD or not set(host) <= _HOST or not set(target) <= _TARGET or target[0] != "/":
            return None
        raw_path, _, query = target.partition("?")
        # Some servers (Tomcat, for one) remove ";…" from segments before they route, and others do not.
        if ";" in raw_path or "%3b" in raw_path.lower():
            return None
        described = {name.encode("ascii") for name in (proxy.method, proxy.host, proxy.target) if name is not None}
        left_out = described | _BODY_FIELDS | {b"host"}
        kept = [(name, value) for name, value in scope["headers"] if name.lower() not in left_out]
        return {
            **scope,
            "method": method,
            "scheme": scheme,
            "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
            "raw_path": raw_path.encode("ascii"),
            "query_string": query.encode("ascii"),
            "root_path": "",
            "headers": [(b"host", host.encode("ascii")), *kept],
        }


def _single_value(headers: HeaderList, name: str) -> str | None:
    """Return the value of the field *name*, if it occurs once."""
    values = headers.get_all(name)
    return values[0].decode("latin-1") if len(values) == 1 else None


def _envoy_target(scope: Scope) -> str | None:
    """Return the target of the original request, which Envoy sends after the prefix."""
    raw_path: bytes = scope.get("raw_path") or b""
    path = raw_path.partition(b"?")[0].decode("latin-1")
    query: bytes = scope["query_string"]
    if not path.startswith(f"{ENVOY_PREFIX}/"):
        return None
    return path.removeprefix(ENVOY_PREFIX) + (f"?{query.decode('latin-1')}" if query else "")


class _Verdict:
    """The response to the proxy. Only a response of :func:`answer` allows the request."""

    def __init__(self, scope: Scope, send: Send, names: tuple[bytes, ...]) -> None:
        self._send = send
        self._names = names
        self._is_allowed = False
        self._is_head: bool = scope["method"] == "HEAD"
        scope[_ALLOW] = self._allow

    def _allow(self) -> tuple[bytes, ...]:
        self._is_allowed = True
        return self._names

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
            challenges = [value for name, value in headers if name.lower() == b"www-authenticate"]
            if len(challenges) > 1:  # nginx before 1.23 passes the first field only; a list is the same (RFC 9110 5.3)
                headers = [(name, value) for name, value in headers if name.lower() != b"www-authenticate"]
                headers.append((b"www-authenticate", b", ".join(challenges)))
            if self._is_head:  # the length of a body that is not sent; the proxy may have asked with GET
                headers = [(name, value) for name, value in headers if name.lower() != b"content-length"]
            status = message["status"]
            if status < 400 and not self._is_allowed:  # resource metadata, which is not a permission
                status = 403
            message = {**message, "status": status, "headers": headers}
        await self._send(message)


_ALLOW: Final = "scopeguard.allow"


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Allow the request: ASGI app that sends 200 and the claims of the token.

    All fields are sent, so that they replace those that the client may have sent. A field is empty if the token lacks
    the claim, or if there is no token. Spaces separate scopes. ``%`` and all characters but visible ASCII are
    percent-encoded.
    """
    if scope["type"] == "lifespan":
        await _run_lifespan(receive, send)
        return
    allow = scope.get(_ALLOW)
    if allow is None:  # a path below /.well-known/ that has no metadata
        await _refuse(send, "there is no such metadata")
        return
    names: tuple[bytes, ...] = allow()
    token = scope["state"]["access_token"]
    texts: tuple[str, ...] = ("", "", "", "")
    if token is not None:
        scopes = " ".join(quote(one, safe=_VISIBLE) for one in sorted(token.scopes))
        subject, client, issuer = (
            quote(value or "", safe=_VISIBLE) for value in (token.subject, token.client_id, token.issuer)
        )
        texts = (subject, client, scopes, issuer)
    headers = [(name, text.encode("ascii")) for name, text in zip(names, texts, strict=True)]
    headers += [(b"content-length", b"0"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _run_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _refuse(send: Send, reason: str) -> None:
    log.debug("403: %s", reason)
    body = f"{reason}\n".encode("ascii")
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode("ascii"))]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})

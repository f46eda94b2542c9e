"""The development authorization server as an ASGI app."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from scopeguard.config.checks import flag, instance
from scopeguard.config.hosts import is_loopback
from scopeguard.config.trusted_proxies import SIGNS_OF_A_PROXY
from scopeguard.devserver.authority import Authority
from scopeguard.devserver.authorization_endpoint import COOKIE, BrowserRequest
from scopeguard.devserver.faults import Switch, Unreachable
from scopeguard.devserver.registry import Form
from scopeguard.devserver.start_page import WARNING, start_page
from scopeguard.errors import ConfigurationError
from scopeguard.spec.strict_json import MalformedJSON, parse_object

log: Final = logging.getLogger("scopeguard.devserver")

MAX_BODY: Final = 64 * 1024  # bytes
_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_FORM: Final = "application/x-www-form-urlencoded"
_PAGE_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}


def create_app(authority: Authority, *, control: bool = True) -> Starlette:
    """Return an ASGI app with the endpoints of *authority*, a start page at ``/``, and the control endpoint.

    The endpoints are below the path of the issuer. ``POST /control/{rotate,revoke,outage,slow,mode,reset}`` takes a
    JSON object and is for this machine only. Checked: the peer and the ``Host`` header are loopback, the media type is
    JSON, and ``Origin``, if present, is the server's own. No web page can send such a request, not even one whose host
    name resolves to 127.0.0.1. ``control=False`` leaves the endpoint out.

    For development only: see :class:`~scopeguard.devserver.authority.Authority`. Raises :class:`ConfigurationError` if
    the issuer is not a complete URL.
    """
    instance(authority, Authority, "authority", "an Authority")
    flag(control, "control")
    cors = Middleware(
        _cors_of(authority),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        max_age=60,
    )
    if not authority.is_settled:
        raise ConfigurationError("issuer: it is only a path; use serve() or DevServer, or set the complete URL")
    endpoints = _Endpoints(authority, control=control)
    routes = [
        Route("/", endpoints.page, methods=["GET"]),
        *(Route(path, endpoints.respond, methods=_METHODS, middleware=[cors]) for path in authority.browser_paths),
        *([Route("/control/{action}", endpoints.control, methods=["POST"])] if control else []),
        Route("/{path:path}", endpoints.respond, methods=_METHODS),
    ]
    return Starlette(routes=routes)


def _cors_of(authority: Authority) -> type[CORSMiddleware]:
    """Return middleware that lets web pages on loopback, such as Swagger UI, and registered pages request tokens.

    Registered pages are those of the origins of registered redirect URIs. Other pages may not read the responses.
    """

    class PagesOfDevelopers(CORSMiddleware):
        def is_allowed_origin(self, origin: str) -> bool:
            return _is_loopback_origin(origin) or origin in authority.registry.origins

    return PagesOfDevelopers


def _is_loopback_origin(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    is_origin = origin == f"{parts.scheme}://{parts.netloc}" and "@" not in origin
    return is_origin and parts.scheme in ("http", "https") and is_loopback(host)


class _Endpoints:
    """Translates requests for the authority, and its answers into responses."""

    def __init__(self, authority: Authority, *, control: bool) -> None:
        self._authority = authority
        self._has_control = control
        faults = authority.faults
        self._actions: Mapping[str, Callable[[dict[str, Any]], None]] = {
            "rotate": lambda body: authority.rotate(overlap=_seconds(body, "overlap")),
            "revoke": lambda body: authority.tokens.revoke(_text(body, "token")),
            "outage": lambda body: _ignore(faults.outage(_text(body, "kind") if body["kind"] else None)),
            "slow": lambda body: _ignore(faults.slow(body["seconds"])),
            "mode": lambda body: _ignore(faults.mode(_text(body, "endpoint"), _text(body, "mode"))),
            "reset": lambda body: authority.reset(),
        }

    async def page(self, request: Request) -> Response:
        page = start_page(self._authority, show_secrets=_is_local(request), control=self._has_control)
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    async def respond(self, request: Request) -> Response:
        form = await _read_form(request)
        path = request.scope["path"]
        await anyio.sleep(self._authority.faults.delay)
        try:
            answer = self._authority.respond(
                request.method,
                path,
                form=form,
                authorization=", ".join(request.headers.getlist("authorization")) or None,
                proofs=request.headers.getlist("dpop"),
                browser=BrowserRequest(
                    query=tuple(request.query_params.multi_items()),
                    cookie=request.cookies.get(COOKIE),
                    same_origin=_is_same_origin(request),
                ),
            )
        except Unreachable:
            log.info("%s %r: no response, because an outage is switched on", request.method, path)
            return _Dropped()
        log.info("%s %r: %s", request.method, path, answer.status)
        return Response(answer.body, answer.status, dict(answer.headers))

    async def control(self, request: Request) -> Response:
        """Perform one action. A request that is refused for its header fields is refused before its body is read."""
        if not _is_local(request) or not _is_same_origin(request):
            return JSONResponse({"error": "the control endpoint is for requests from this machine only"}, 403)
        if _media_type(request) != "application/json":
            return JSONResponse({"error": "send application/json"}, 415)
        action = self._actions.get(request.path_params["action"])
        if action is None:
            return JSONResponse({"error": f"the actions are {', '.join(self._actions)}"}, 404)
        try:
            action(parse_object(await _read_body(request) or b"{}"))
        except KeyError as missing:
            return JSONResponse({"error": f"the member {missing} is missing"}, 400)
        except (ConfigurationError, MalformedJSON) as problem:
            return JSONResponse({"error": str(problem)}, 400)
        log.warning("%s: control: %s", WARNING, request.path_params["action"])
        return JSONResponse({"done": request.path_params["action"]}, headers={"cache-control": "no-store"})


class _Dropped(Response):
    """A response without its body: the server closes the connection, and the client sees a failed exchange."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"1")]})


def _is_local(request: Request) -> bool:
    """Return whether the peer's address and the ``Host`` header are loopback, and no proxy has added a field.

    The ``Host`` header is checked because of DNS rebinding: a web page can make its own host name resolve to
    127.0.0.1, and its requests are then same-origin.
    """
    if any(name in request.headers for name in SIGNS_OF_A_PROXY):
        return False
    try:
        host = urlsplit("//" + request.headers.get("host", "")).hostname or ""
    except ValueError:
        return False
    return request.client is not None and is_loopback(request.client.host) and is_loopback(host)


def _is_same_origin(request: Request) -> bool:
    scheme, host = request.url.scheme, request.headers.get("host")
    return request.headers.get("origin") in (None, f"{scheme}://{host}")


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip(" \t").lower()


async def _read_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"At most {MAX_BODY} bytes")
    return body


async def _read_form(request: Request) -> Form | None:
    """Return the parameters of an urlencoded body, ``None`` for any other body or one that cannot be decoded."""
    if _media_type(request) != _FORM:
        return None
    body = await _read_body(request)
    try:
        return tuple(parse_qsl(body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=100))
    except ValueError:
        return None


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body[name]
    if not isinstance(value, str):
        raise ConfigurationError(f"{name}: must be a string")
    return value


def _seconds(body: Mapping[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise ConfigurationError(f"{name}: must be a number of seconds")


def _ignore(switch: Switch) -> None:
    """Leave *switch* on. The control endpoint turns it off by ``reset`` only."""
    del switch

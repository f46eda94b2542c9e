"""Starlette: ``@requires`` on endpoints, behind the ASGI middleware.

    app = Starlette(routes=[...], middleware=[Middleware(GuardMiddleware, guard=guard)])

    @requires("bigquery.insertdata")
    async def insert(request):
        return JSONResponse({"client": request.state.access_token.client_id})

:class:`~scopeguard.asgi.GuardMiddleware` judges the token, once; what is here compares its scopes with what an
endpoint needs. Starlette's own habits work as well: ``request.user``, ``request.auth.scopes``, and
``starlette.authentication.requires``, which answers without a challenge.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketState

from scopeguard.access_token import AccessToken
from scopeguard.access_token import current_access_token as access_token
from scopeguard.access_token import current_access_token_or_none as access_token_or_none
from scopeguard.adapter.declared import REQUIREMENT, mark
from scopeguard.asgi import GUARD_KEY, GuardMiddleware, Receive, Scope, Send, request_view, send_response
from scopeguard.core.decision import Granted
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard, engine_of
from scopeguard.scopes import Requirement, all_of, require
from scopeguard.spec import challenge

__all__ = ["REQUIREMENT", "GuardMiddleware", "Refusal", "access_token", "access_token_or_none", "requires"]

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Refusal(Response):
    """What a refused caller is sent: status, challenge and body as the guard wrote them.

    On a websocket that is not accepted yet it is an HTTP response where the server can send one, else a close that
    servers answer with 403.
    """

    def __init__(self, refused: challenge.Response) -> None:
        self.refused = refused
        super().__init__(refused.body, refused.status)
        self.raw_headers: list[tuple[bytes, bytes]] = [
            (name.encode("ascii"), value.encode("ascii")) for name, value in refused.headers
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive  # a refusal does not wait for the body
        await send_response(self.refused, self.raw_headers, scope, send)


def requires(*items: Requirement | str) -> Callable[[Endpoint], Endpoint]:
    """The endpoint needs an access token that satisfies all of *items*: scopes, or ``any_of(...)`` and its like.

    For functions and methods, sync or async, with a parameter called ``request`` or ``websocket``, and for whole
    ``HTTPEndpoint`` and ``WebSocketEndpoint`` classes. A sync endpoint stays one: it runs in the thread pool. Several
    of these decorators on one endpoint add up.

    A caller without a token gets 401, one whose token does not suffice 403 with all the scopes of the operation. Where
    :class:`GuardMiddleware` was told that a path is public, no token was looked for, and such a caller is anonymous.

    Raises :class:`ConfigurationError` for a function without such a parameter, and, at each call, in an app without
    :class:`GuardMiddleware`.
    """
    requirement = require(*items)

    def decorate(endpoint: Endpoint) -> Endpoint:
        inner = getattr(endpoint, REQUIREMENT, None)
        # Of several decorators the outermost answers first; it names the scopes of all.
        whole = requirement if inner is None else all_of(requirement, inner)
        guard: Callable[[Any, Requirement], Endpoint] = _guarded_class if isinstance(endpoint, type) else _guarded
        guarded = guard(endpoint, whole)
        mark(guarded, endpoint, whole)
        return guarded

    return decorate


def _guarded(endpoint: Any, requirement: Requirement) -> Any:
    position, name = _connection_parameter(endpoint)

    def connection(args: tuple[Any, ...], kwargs: dict[str, Any]) -> HTTPConnection[Any]:
        given = args[position] if position < len(args) and name not in kwargs else kwargs.get(name)
        # It is an abstract base class, and to ask for an instance of one takes as long as all the rest here.
        if type(given) is not Request and not isinstance(given, HTTPConnection):
            raise ConfigurationError(f"requires: the argument {name!r} is a Starlette Request or WebSocket")
        return given

    if _is_async(endpoint):

        @functools.wraps(endpoint)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            # Starlette itself calls functions with the request and nothing else.
            called_by = args[0] if len(args) == 1 and type(args[0]) is Request else connection(args, kwargs)
            refusal = _refusal(called_by.scope, requirement)
            if refusal is None:
                return await endpoint(*args, **kwargs)
            return await _refuse_websocket(refusal, called_by) if isinstance(called_by, WebSocket) else refusal

        return guarded

    if name == "websocket":
        raise ConfigurationError(f"requires: {endpoint!r} takes a websocket, so it has to be async")

    @functools.wraps(endpoint)
    def guarded_in_thread(*args: Any, **kwargs: Any) -> Any:
        refusal = _refusal(connection(args, kwargs).scope, requirement)
        return endpoint(*args, **kwargs) if refusal is None else refusal

    return guarded_in_thread


def _guarded_class(endpoint: type, requirement: Requirement) -> Any:
    if not issubclass(endpoint, HTTPEndpoint | WebSocketEndpoint):
        raise ConfigurationError(f"requires: {endpoint!r} is neither an HTTPEndpoint nor a WebSocketEndpoint")
    kind: Any = endpoint
    run = kind.__await__

    @functools.wraps(run)
    def guarded(self: HTTPEndpoint | WebSocketEndpoint) -> Any:
        refusal = _refusal(self.scope, requirement)
        return run(self) if refusal is None else refusal(self.scope, self.receive, self.send).__await__()

    # In place, so that super() and subclasses go on to work. Not dispatch(), which subclasses may override.
    kind.__await__ = guarded
    return endpoint


def _connection_parameter(endpoint: Any) -> tuple[int, str]:
    for position, name in enumerate(inspect.signature(endpoint).parameters):
        if name in ("request", "websocket"):
            return position, name
    raise ConfigurationError(f"requires: {endpoint!r} has no parameter called request or websocket")


def _is_async(endpoint: Any) -> bool:
    while isinstance(endpoint, functools.partial):
        endpoint = endpoint.func
    return inspect.iscoroutinefunction(endpoint) or inspect.iscoroutinefunction(getattr(endpoint, "__call__", None))  # noqa: B004


def _refusal(scope: Scope, requirement: Requirement) -> Refusal | None:
    state = scope.get("state") or {}
    guard, token = state.get(GUARD_KEY), state.get("access_token")
    if type(token) is AccessToken and type(guard) is Guard and engine_of(guard).permits(token, requirement):
        return None
    if not isinstance(guard, Guard):
        raise ConfigurationError(
            "requires: no GuardMiddleware judged this request; the app needs Middleware(GuardMiddleware, guard=guard)"
        )
    if token is not None and not isinstance(token, AccessToken):
        raise ConfigurationError(
            f"request.state.access_token is ours, and something put a {type(token).__name__} there"
        )
    engine = engine_of(guard)
    if engine.permits(token, requirement):
        return None
    decision = engine.authorize(token, requirement, request=request_view(scope, scope.get("method", "GET")))
    return None if isinstance(decision, Granted) else Refusal(decision.response)


async def _refuse_websocket(refusal: Refusal, websocket: WebSocket) -> None:
    if websocket.application_state is WebSocketState.CONNECTING:
        await refusal(websocket.scope, websocket.receive, websocket.send)
    else:  # a method that is called later, on_receive for one
        await websocket.close(1008, refusal.refused.reason_phrase)

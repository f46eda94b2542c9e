"""Decorators for views, and the renewal of the token of a websocket."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from quart import Blueprint, Response, current_app, websocket
from quart.views import View
from werkzeug.datastructures import Headers

from scopeguard.adapter.route_access import RouteAccess
from scopeguard.adapter.view_decorators import check_sources_hold, view_decorator
from scopeguard.asgi import check_in_app, require_of_renewals
from scopeguard.asgi import renew as renew_by_scope
from scopeguard.conditions import Condition
from scopeguard.config.token_sources import TokenSource, check_sources
from scopeguard.core.decision import Adapter, Denied, Granted, Unavailable
from scopeguard.quart.routes import NOT_ROUTED, ROUTE_KEY, current_connection, is_automatic
from scopeguard.scopes import Requirement, require

T = TypeVar("T")

_NEEDS: Final = "the app needs ScopeGuard(app, guard), or scopeguard.asgi's GuardMiddleware around it"


async def renew(token: str) -> Granted | Denied | Unavailable:
    """Replace the access token of the current websocket with *token*. See :func:`scopeguard.asgi.renew`."""
    scope: Any = websocket.scope
    return await renew_by_scope(scope, token)


def requires(
    *items: Requirement | Condition | str,
    acr: Requirement | Iterable[str] | None = None,
    max_age: int | None = None,
    token_sources: Iterable[str] | None = None,
) -> Callable[[T], T]:
    """Require an access token that satisfies all of *items* for a view or a websocket.

    Each item is a scope, a condition, or a requirement such as ``any_of("read", "admin")``::

        @app.get("/tables")
        @requires("tables.read", any_of("projects.read", "admin"))
        async def tables(): ...

    Decorate a view function, async or sync, a method of a ``MethodView``, a whole view class (or list the decorator in
    its ``decorators``), or a function for ``Blueprint.before_request`` or ``before_websocket``. Put the decorator below
    the line ``@app.route``. Several decorators add up, including those of base classes.

    *acr* and *max_age* (seconds) require that the user signed in strongly and recently enough, as in
    :func:`~scopeguard.all_of`.

    *token_sources*: where this view takes tokens, as in ``("header", "form")``. Default: the setting of the guard. It
    needs :class:`ScopeGuard`.

    A request without a token gets 401. One whose token lacks a scope gets 403, with all scopes of the view in the
    challenge (RFC 6750 section 3.1). A websocket is refused before it is accepted.

    Raises :class:`ConfigurationError` for an object that cannot be decorated, and, at each call, in an app without a
    guard.
    """
    requirement = require(*items, acr=acr, max_age=max_age)
    sources = None if token_sources is None else check_sources(token_sources, "requires: token_sources")

    def guard_view(view: Any, whole: Requirement) -> Any:
        @functools.wraps(view)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            refusal = _check(whole, sources)
            return await current_app.ensure_async(view)(*args, **kwargs) if refusal is None else refusal

        return guarded

    return view_decorator(requirement, sources, guard_view, view_class=View, blueprint=Blueprint)


def _check(requirement: Requirement, sources: frozenset[TokenSource] | None) -> Response | None:
    """Return the refusal of the current request or websocket, or ``None`` if its token satisfies *requirement*."""
    current = current_connection()
    scope: Any = current.scope
    route: RouteAccess | None = scope.get(ROUTE_KEY, NOT_ROUTED)[1]
    check_sources_hold(sources, route)
    # Called from a function for before_request. Quart itself answers a preflight that needs no token, without a view.
    if route is not None and current.method == "OPTIONS" and is_automatic(current):
        return None
    refused = check_in_app(scope, requirement, Adapter.QUART, _NEEDS)
    if refused is None:
        if scope["type"] == "websocket":
            require_of_renewals(scope, requirement)
        return None
    response = Response(refused.body, refused.status)
    # The constructor would set the Content-Length of a response to HEAD, which has no body, to 0.
    response.headers = Headers(list(refused.headers))
    return response

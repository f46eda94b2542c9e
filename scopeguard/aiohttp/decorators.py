"""Decorators of aiohttp handlers: what a handler requires of a token, and which handlers are open."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from aiohttp import web

from scopeguard.adapter.declarations import REQUIREMENT, add_inner, declare_access, mark
from scopeguard.adapter.inner_check import refuse_inside
from scopeguard.aiohttp.requests import STATE_KEY, RequestState, request_view, to_response
from scopeguard.conditions import Condition
from scopeguard.core.decision import Adapter
from scopeguard.errors import ConfigurationError
from scopeguard.rules import OPTIONAL, PUBLIC
from scopeguard.scopes import Requirement, require

T = TypeVar("T")

_DECORABLE: Final = "an async handler, a method of a View, or a View class"


def requires(
    *items: Requirement | Condition | str,
    acr: Requirement | Iterable[str] | None = None,
    max_age: int | None = None,
) -> Callable[[T], T]:
    """Require an access token that satisfies all of *items* for a handler.

    Each item is a scope, a condition, or a requirement such as ``any_of("read", "admin")``::

        @routes.get("/tables")
        @requires("tables.read", any_of("projects.read", "admin"))
        async def tables(request): ...

    Decorate an async handler, a method that takes the request, a method of a ``web.View``, or a whole ``View`` class.
    The subclasses of a view class are included. Put the decorator below the line ``@routes.get``. Several decorators
    add up.

    *acr* and *max_age* (seconds) require that the user signed in strongly and recently enough, as in
    :func:`~scopeguard.all_of`.

    A request without a token gets 401. One whose token lacks a scope gets 403, with all scopes of the handler in the
    challenge (RFC 6750 section 3.1).

    Raises :class:`ConfigurationError` for an object that cannot be decorated, and, at each call, in an app without
    :func:`setup`.
    """
    requirement = require(*items, acr=acr, max_age=max_age)

    def decorate(handler: Any) -> Any:
        is_view = isinstance(handler, type) and issubclass(handler, web.View)
        if not is_view and not inspect.iscoroutinefunction(handler):
            raise ConfigurationError(f"requires: {handler!r} cannot be decorated; decorate {_DECORABLE}")
        inner = vars(handler).get(REQUIREMENT) if is_view else getattr(handler, REQUIREMENT, None)
        whole = add_inner(requirement, inner)
        if is_view:
            return _guard_view(handler, whole)

        @functools.wraps(handler)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            refusal = _check(_request_in(args), whole)
            return await handler(*args, **kwargs) if refusal is None else refusal

        mark(guarded, handler, whole)
        return guarded

    return decorate


def _guard_view(view: Any, requirement: Requirement) -> Any:
    """Guard the method by which aiohttp calls a view class, so that its subclasses are guarded, too."""
    run = view._iter

    @functools.wraps(run)
    async def guarded(self: web.View) -> Any:
        refusal = _check(self.request, requirement)
        return await run(self) if refusal is None else refusal

    view._iter = guarded
    setattr(view, REQUIREMENT, requirement)
    return view


def _request_in(args: tuple[Any, ...]) -> web.BaseRequest:
    """Return the request of a call with *args*: the first or second argument, or the request of a ``web.View``."""
    for given in args[:2]:
        if isinstance(given, web.BaseRequest):
            return given
        if isinstance(given, web.View):
            return given.request
    raise ConfigurationError(f"requires: found no request in the arguments; decorate {_DECORABLE}")


def _check(request: web.BaseRequest, requirement: Requirement) -> web.Response | None:
    """Return the refusal of *request*, or ``None`` if its token satisfies *requirement*."""
    state: RequestState | None = request.get(STATE_KEY)
    if state is None:
        raise ConfigurationError(
            "requires: no guard has checked this request; call scopeguard.aiohttp.setup(app, guard)"
        )
    if state.is_checked and any(known is requirement for known in state.route.requirements):
        return None
    refused = refuse_inside(state.guard, state.token, requirement, Adapter.AIOHTTP, lambda: request_view(request))
    return None if refused is None else to_response(refused)


def public(handler: T) -> T:
    """Serve a handler, view class or method without a token. A requirement for the same handler takes precedence.

    The guard does not look for a token. A public view class does not include its subclasses; decorate each.

    Raises :class:`ConfigurationError` for an object that cannot be decorated.
    """
    declare_access(handler, PUBLIC, "public", _DECORABLE)
    return handler


def optional(handler: T) -> T:
    """Serve a handler, view class or method with or without a token, and refuse an invalid token.

    ``request["access_token"]`` is ``None`` without a token. Subclasses are not included, as with :func:`public`.

    Raises :class:`ConfigurationError` for an object that cannot be decorated.
    """
    declare_access(handler, OPTIONAL, "optional", _DECORABLE)
    return handler

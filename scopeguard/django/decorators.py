"""Decorators for Django views: ``requires``, ``public`` and ``optional``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from asgiref.sync import iscoroutinefunction
from django.views import View

from scopeguard.adapter.declarations import REQUIREMENT, add_inner, declare_access, mark
from scopeguard.adapter.inner_check import refuse_inside
from scopeguard.conditions import Condition
from scopeguard.core.decision import Adapter, Granted
from scopeguard.django.request_state import state_of
from scopeguard.django.requests import outer_guard, request_view
from scopeguard.django.responses import to_response
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard, engine_of
from scopeguard.rules import OPTIONAL, PUBLIC
from scopeguard.scopes import Requirement, require
from scopeguard.tokens import AccessToken

T = TypeVar("T")

_DECORABLE: Final = "a view, a view class or a method"


def requires(
    *items: Requirement | Condition | str,
    acr: Requirement | Iterable[str] | None = None,
    max_age: int | None = None,
) -> Callable[[T], T]:
    """Require an access token that satisfies all of *items* for a view.

    Each item is a scope, a condition, or a requirement such as ``any_of("read", "admin")``::

        @requires("tables.read", any_of("projects.read", "admin"))
        def tables(request): ...

    Decorate a view function, sync or async, a view class, or a method of one, directly or with ``method_decorator``.
    Several decorators add up, including those of base classes.

    *acr* and *max_age* (seconds) require that the user signed in strongly and recently enough, as in
    :func:`~scopeguard.all_of`.

    A request without a token gets 401. One whose token lacks a scope gets 403, with all scopes of the view in the
    challenge (RFC 6750 section 3.1).

    Raises :class:`ConfigurationError` for an object that cannot be decorated, and, at each call, in a project without
    a guard.
    """
    requirement = require(*items, acr=acr, max_age=max_age)

    def decorate(view: Any) -> Any:
        if isinstance(view, type) and issubclass(view, View):
            return _decorate_class(view, requirement)
        if isinstance(view, type) or not callable(view):
            raise ConfigurationError(f"requires: {view!r} is not a view; decorate {_DECORABLE}")
        whole = add_inner(requirement, getattr(view, REQUIREMENT, None))
        guarded = _guard(view, whole)
        mark(guarded, view, whole)
        return guarded

    return decorate


def _guard(view: Any, requirement: Requirement) -> Any:
    """Return a version of *view* that refuses a request whose token does not satisfy *requirement*."""
    if iscoroutinefunction(view):

        @functools.wraps(view)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            refusal = _check(args, requirement)
            return await view(*args, **kwargs) if refusal is None else refusal

        return guarded_async

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        refusal = _check(args, requirement)
        if refusal is None:
            return view(*args, **kwargs)
        return _awaitable(refusal) if _is_async_method(view, args) else refusal

    return guarded


def _decorate_class(view_class: Any, requirement: Requirement) -> Any:
    """Decorate ``dispatch``, and mark the class, because a subclass may override ``dispatch``."""
    whole = add_inner(requirement, vars(view_class).get(REQUIREMENT))
    view_class.dispatch = _guard(view_class.dispatch, whole)
    setattr(view_class, REQUIREMENT, whole)
    return view_class


def _is_async_method(view: Any, args: tuple[Any, ...]) -> bool:
    """Return whether *view* is ``dispatch`` of a view class with async methods. ``method_decorator`` has bound it."""
    bound = getattr(view, "func", view)
    owner = getattr(bound, "__self__", args[0] if args else None)
    return isinstance(owner, View) and bool(getattr(type(owner), "view_is_async", False))


async def _awaitable(refusal: Any) -> Any:
    return refusal


def _check(args: tuple[Any, ...], requirement: Requirement) -> Any:
    """Return the refusal of the request in *args*, or ``None`` if its token satisfies *requirement*."""
    request = next((item for item in args[:2] if hasattr(item, "META")), None)
    if request is None:
        raise ConfigurationError(f"requires: the first argument of a view must be the request; {_DECORABLE} has it")
    return refuse(request, requirement)


def refuse(request: Any, requirement: Requirement) -> Any:
    """Return the refusal of *request*, or ``None`` if its token satisfies *requirement*."""
    state = state_of(request)
    if state is not None and state.is_checked and any(known is requirement for known in state.route.requirements):
        return None
    guard, token = _guard_and_token(request)
    refused = refuse_inside(guard, token, requirement, Adapter.DJANGO, lambda: request_view(request))
    return None if refused is None else to_response(refused)


def would_admit(request: Any, requirement: Requirement) -> bool:
    """Return whether the token of *request* satisfies *requirement*. The answer is neither logged nor reported."""
    guard, token = _guard_and_token(request)
    return isinstance(engine_of(guard).without_effects().authorize(token, requirement), Granted)


def _guard_and_token(request: Any) -> tuple[Guard, AccessToken | None]:
    state = state_of(request)
    guard, token = outer_guard(request) if state is None else (state.layer.guard, state.token)
    if not isinstance(guard, Guard):
        raise ConfigurationError(
            "requires: no guard has checked this request; add scopeguard.django.GuardMiddleware to MIDDLEWARE"
        )
    return guard, token


def public(view: T) -> T:
    """Serve a view, view class or method without a token. A requirement for the same view takes precedence.

    The guard does not look for a token. A public view class does not include its subclasses; decorate each. A method
    that a subclass inherits stays public.

    Raises :class:`ConfigurationError` for an object that cannot be decorated.
    """
    declare_access(view, PUBLIC, "public", _DECORABLE)
    return view


def optional(view: T) -> T:
    """Serve a view, view class or method with or without a token, and refuse an invalid token.

    ``request.access_token`` is ``None`` without a token. Subclasses are not included, as with :func:`public`.

    Raises :class:`ConfigurationError` for an object that cannot be decorated.
    """
    declare_access(view, OPTIONAL, "optional", _DECORABLE)
    return view

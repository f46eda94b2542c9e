"""Decorators of Flask views: what a view requires of a token, and which views are open."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from flask import Blueprint, current_app
from flask.views import View
from flask.wrappers import Response

from scopeguard.adapter.inner_check import refuse_inside
from scopeguard.adapter.preflights import PREFLIGHT_KEY
from scopeguard.adapter.view_decorators import check_sources_hold, view_decorator
from scopeguard.conditions import Condition
from scopeguard.config.token_sources import TokenSource, check_sources
from scopeguard.core.decision import Adapter
from scopeguard.errors import ConfigurationError
from scopeguard.flask.request_state import (
    STATE_KEY,
    RequestState,
    get_request,
    is_answered_by_flask,
    to_flask_response,
)
from scopeguard.guard import Guard
from scopeguard.scopes import Requirement, require
from scopeguard.wsgi import ENVIRON_KEY, GUARD_KEY, request_view

T = TypeVar("T")


def requires(
    *items: Requirement | Condition | str,
    acr: Requirement | Iterable[str] | None = None,
    max_age: int | None = None,
    token_sources: Iterable[str] | None = None,
) -> Callable[[T], T]:
    """Require an access token that satisfies all of *items* for a view.

    Each item is a scope, a condition, or a requirement such as ``any_of("read", "admin")``::

        @app.get("/tables")
        @requires("tables.read", any_of("projects.read", "admin"))
        def tables(): ...

    Decorate a view function, sync or async, a method of a ``MethodView``, a whole view class (or list the decorator in
    its ``decorators``), or a function for ``Blueprint.before_request``. Put it below the line ``@app.route``. Several
    decorators add up, including those of base classes.

    *acr* and *max_age* (seconds) require that the user signed in strongly and recently enough, as in
    :func:`~scopeguard.all_of`.

    *token_sources*: where this view takes tokens, as in ``("header", "form")``. Default: the setting of the guard. It
    needs :class:`ScopeGuard`.

    A request without a token gets 401. One whose token lacks a scope gets 403, with all scopes of the view in the
    challenge (RFC 6750 section 3.1).

    Raises :class:`ConfigurationError` for an object that cannot be decorated, and, at each call, in an app without a
    guard.
    """
    requirement = require(*items, acr=acr, max_age=max_age)
    sources = None if token_sources is None else check_sources(token_sources, "requires: token_sources")

    def guard_view(view: Any, whole: Requirement) -> Any:
        is_async = inspect.iscoroutinefunction(view)

        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            refusal = _check(whole, sources)
            if refusal is not None:
                return refusal
            # ensure_sync() returns any other function unchanged.
            return (current_app.ensure_sync(view) if is_async else view)(*args, **kwargs)

        return guarded

    return view_decorator(requirement, sources, guard_view, view_class=View, blueprint=Blueprint)


def _check(requirement: Requirement, sources: frozenset[TokenSource] | None) -> Response | None:
    """Return the refusal of the current request, or ``None`` if its token satisfies *requirement*."""
    flask_request = get_request()
    environ = flask_request.environ
    guard = environ.get(GUARD_KEY)
    state: RequestState | None = environ.get(STATE_KEY)
    if not isinstance(guard, Guard):
        raise ConfigurationError(
            "requires: no guard has checked this request; the app needs ScopeGuard(app, guard), or scopeguard.wsgi's "
            "GuardMiddleware around it"
        )
    check_sources_hold(sources, None if state is None else state.route)
    if state is not None and state.is_checked:
        for known in state.route.requirements:
            if known is requirement:
                return None
    # A function given to before_request. No view runs, because Flask answers such a request itself.
    if environ.get(PREFLIGHT_KEY) and is_answered_by_flask(flask_request):
        return None
    token = environ.get(ENVIRON_KEY)
    refused = refuse_inside(guard, token, requirement, Adapter.FLASK, lambda: request_view(environ))
    return None if refused is None else to_flask_response(refused)

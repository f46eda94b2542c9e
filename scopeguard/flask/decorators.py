"""Decorators of Flask views: what a view requires of a token, and which views are open."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from flask import Blueprint, current_app
from flask.views import View
from flask.wrappers import Response

from scopeguard.adapter.declarations import REQUIREMENT, SOURCES, mark
from scopeguard.adapter.preflights import PREFLIGHT_KEY
from scopeguard.adapter.view_classes import decorate_class
from scopeguard.conditions import Condition
from scopeguard.config.token_sources import TokenSource, check_sources
from scopeguard.core.decision import Adapter, Granted
from scopeguard.errors import ConfigurationError
from scopeguard.flask.request_state import (
    STATE_KEY,
    RequestState,
    get_request,
    is_answered_by_flask,
    to_flask_response,
)
from scopeguard.guard import Guard, engine_of
from scopeguard.scopes import Requirement, all_of, require
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

    def decorate(view: Any) -> Any:
        if isinstance(view, type) and issubclass(view, View):
            decorate_class(view, decorate)
            return view
        if isinstance(view, type | Blueprint) or not callable(view):
            raise ConfigurationError(
                f"requires: {view!r} is not a view; for a blueprint, decorate a function given to its before_request"
            )
        inner = getattr(view, REQUIREMENT, None)
        # The outermost decorator refuses first, so its challenge names the scopes of the inner ones, too.
        whole = requirement if inner is None else all_of(requirement, inner)

        is_async = inspect.iscoroutinefunction(view)

        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            refusal = _check(whole, sources)
            if refusal is not None:
                return refusal
            # ensure_sync() returns any other function unchanged.
            return (current_app.ensure_sync(view) if is_async else view)(*args, **kwargs)

        mark(guarded, view, whole)
        if sources is not None:
            setattr(guarded, SOURCES, sources)
        return guarded

    return decorate


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
    if sources is not None and (state is None or state.route.token_sources.methods != sources):
        raise ConfigurationError(
            "requires: token_sources had no effect; they need ScopeGuard(app, guard), and the decorator on the view "
            "itself, below no other that hides it"
        )
    if state is not None and state.is_checked:
        for known in state.route.requirements:
            if known is requirement:
                return None
    # A function given to before_request. No view runs, because Flask answers such a request itself.
    if environ.get(PREFLIGHT_KEY) and is_answered_by_flask(flask_request):
        return None
    token = environ.get(ENVIRON_KEY)
    engine = engine_of(guard)
    if engine.listens:
        engine.note_adapter(Adapter.FLASK)
    if engine.permits(token, requirement):
        return None
    decision = engine.authorize(token, requirement, request=request_view(environ))
    return None if isinstance(decision, Granted) else to_flask_response(decision.response)

"""Quart: an extension that requires a token for every route, decorators for views, and an accessor of the token.

    app = Quart(__name__)
    ScopeGuard(app, guard, public=["/static/{name:path}"])

    @app.post("/insert")
    @requires(any_of("bigquery.insertdata", "bigquery"))
    async def insert():
        return {"subject": access_token().subject}

    @app.get("/healthz")
    @public
    async def health():
        return "ok"

The extension is the ASGI middleware, around ``app.asgi_app``. It looks up the view of a request in Quart, and checks
the token before Quart runs anything else. A refusal is a finished response, so that no error handler of the app changes
it. ``requires`` also works without the extension, in an app behind :class:`scopeguard.asgi.GuardMiddleware`. Without
either it raises, and the view does not run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, ClassVar, Final, TypeVar, Unpack, cast

from scopeguard.extras import explain_missing

try:
    from quart import Blueprint, Quart, Response, current_app, has_request_context, request, websocket
except ModuleNotFoundError as _missing:
    raise explain_missing(_missing, "quart") from None

from quart.views import View
from quart.wrappers import Request, Websocket
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.local import LocalProxy

from scopeguard.adapter.declarations import REQUIREMENT, SOURCES, declare_access, mark
from scopeguard.adapter.route_access import RouteAccess, ViewRules
from scopeguard.adapter.view_classes import decorate_class
from scopeguard.asgi import CloseStreams, GuardMiddleware, Scope, Settings, check_in_app, require_of_renewals
from scopeguard.asgi import renew as renew_by_scope
from scopeguard.audit.flask_routes import hooks_before, marked_objects
from scopeguard.audit.route_requirements import RouteRequirements
from scopeguard.audit.startup import StartCheck
from scopeguard.conditions import Condition
from scopeguard.config.checks import instance
from scopeguard.config.token_sources import TokenSource, check_sources
from scopeguard.core.decision import Adapter, Denied, Granted, Unavailable
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard
from scopeguard.rules import OPTIONAL, PUBLIC, Rule, Rules
from scopeguard.scopes import Requirement, all_of, require
from scopeguard.tokens import access_token, access_token_or_none

__all__ = [
    "REQUIREMENT", "CloseStreams", "ScopeGuard", "access_token", "access_token_or_none", "optional", "public", "renew",
    "requires",
]  # fmt: skip

T = TypeVar("T")

_ROUTE_KEY: Final = "scopeguard.quart"
"""The key in the scope of the template of Quart's route, the :class:`RouteAccess`, and :func:`_routed_by`."""
_NOT_ROUTED: Final = (None, None, None)
# The objects behind Quart's proxies. A proxy among the local variables breaks Quart's page for an exception.
_get_request: Final = cast("LocalProxy[Request]", request)._get_current_object
_get_websocket: Final = cast("LocalProxy[Websocket]", websocket)._get_current_object

_NEEDS: Final = "the app needs ScopeGuard(app, guard), or scopeguard.asgi's GuardMiddleware around it"
_DECORABLE: Final = "a view, a view class, a method or a blueprint"


class ScopeGuard:
    """Require a valid access token for every route and websocket of *app*, unless a rule or a decorator says otherwise.

    ::

        ScopeGuard(app, guard, public=["/healthz"])

    or, with an app factory, ``extension = ScopeGuard(guard=guard)`` and later ``extension.init_app(app)``.

    *settings* are those of :class:`scopeguard.asgi.GuardMiddleware`: *public*, *rules*, *cors_preflight*,
    *close_streams*, *recheck_streams* and *debug*. If there are rules, a route that matches none of them is denied,
    unless its view has a decorator of scopeguard. An empty list denies every route without such a decorator.

    If both a rule and a view declare something, the stricter one holds: the token must satisfy both requirements, and
    a requirement takes precedence over public and optional. A route whose rule says ``DENIED`` is denied even if the
    view is public.

    Not checked: middleware that is put around ``app.asgi_app`` later, because it is outside.

    Raises :class:`ConfigurationError` for an argument of the wrong kind, for rules that the guard cannot apply, and,
    when the app starts, for errors of the audit if the guard was created with ``audit="error"``.
    """

    def __init__(self, app: Quart | None = None, guard: Guard | None = None, **settings: Unpack[Settings]) -> None:
        if guard is not None:
            instance(guard, Guard, "guard", "a scopeguard.Guard, as in ScopeGuard(app, guard)")
        self._guard = guard
        self._settings = settings
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Quart, guard: Guard | None = None) -> None:
        """Protect *app* with *guard* or the guard given to the constructor.

        Raises :class:`ConfigurationError` without a guard, and for an app that has a ScopeGuard already.
        """
        instance(app, Quart, "app", "a Quart app")
        guard = guard or self._guard
        if not isinstance(guard, Guard):
            raise ConfigurationError("ScopeGuard: guard must be a scopeguard.Guard, as in ScopeGuard(app, guard)")
        if "scopeguard" in app.extensions:
            raise ConfigurationError(
                "ScopeGuard: this app has a ScopeGuard already; for several issuers, give a list of them to one Guard"
            )
        layer = _Extension(app, guard, self._settings)
        app.extensions["scopeguard"] = self
        app.before_request_funcs[None].insert(0, layer.confirm)
        app.before_websocket_funcs[None].insert(0, layer.confirm)
        setattr(app, "asgi_app", layer)  # noqa: B010 - a method, which Quart's documentation says to replace


class _Extension(GuardMiddleware):
    """The middleware around ``app.asgi_app``, which knows the view of each request."""

    default: ClassVar[str] = "extension default"
    views_decide: ClassVar[bool] = True
    _adapter = Adapter.QUART

    def __init__(self, app: Any, guard: Guard, settings: Settings) -> None:
        super().__init__(app.asgi_app, guard=guard, **settings)
        self._quart = app
        self._view_rules: ViewRules[RouteAccess] = ViewRules(self.rules)
        if self._engine.sources.limit is not None:  # a profile also limits the token sources of views
            declared = RouteRequirements(self.app)
            check: Callable[[], object] = lambda: self._engine.check_rules(Rules(declared.declared_rules()))  # noqa: E731
            self._check = StartCheck(self, guard, check=check)

    # GuardMiddleware calls this for each request, because AppRules.is_plain is false until the app is inspected.
    def _rule(self, method: str, scope: Scope) -> Rule | None:
        is_websocket = scope["type"] == "websocket"
        made = _match(self._quart, scope, method, is_websocket=is_websocket)
        is_own = method == scope.get("method", "GET")  # false for the method that a preflight announces
        method = made.method  # a request class of the app may take it from elsewhere, and views get that one
        rule = self._view_rules.find(method, made.path, scope.get("raw_path"))
        endpoint = made.endpoint or ""
        view = self._quart.view_functions.get(endpoint)
        # Only the methods of a view class have declarations of their own, and clients may invent others.
        own = method if hasattr(view, "view_class") else ""

        def combine() -> RouteAccess:
            marked = marked_objects(self._quart, view, endpoint, method)
            route = RouteAccess(rule, view, marked, self._engine, self.rules)
            hooks = hooks_before(self._quart, endpoint, is_websocket=is_websocket)
            route.add_requirements(getattr(hook, REQUIREMENT) for hook in hooks if hasattr(hook, REQUIREMENT))
            return route

        route = self._view_rules.route(rule, view, (endpoint, own, is_websocket), combine)
        if is_own:
            scope[_ROUTE_KEY] = (None if made.url_rule is None else made.url_rule.rule, route, _routed_by(made))
        if method == "OPTIONS" and _is_automatic(made) and rule is not None and rule.access is PUBLIC and rule.methods:
            return rule  # Quart answers the request without calling the view
        return route.combined

    def _announces(self, method: bytes | None, scope: Scope) -> bool:
        if scope["method"] == "OPTIONS" and _match(self._quart, scope, "OPTIONS").method != "OPTIONS":
            return False  # to the request class of the app it is no preflight
        return super()._announces(method, scope)

    async def confirm(self) -> None:
        """Raise :class:`ConfigurationError` unless Quart routes the current request as the extension did.

        Middleware between the two may have changed the method, the path or the host. Quart calls this before the other
        functions given to ``before_request`` and ``before_websocket``.
        """
        current: Any = _get_request() if has_request_context() else _get_websocket()
        if self.passes_preflights and current.method == "OPTIONS":  # also one that the extension sends itself
            return
        if current.scope.get(_ROUTE_KEY, _NOT_ROUTED)[2] != _routed_by(current):
            raise ConfigurationError(
                "ScopeGuard: middleware inside it has changed the method, the path or the host of a request, so that "
                "Quart calls another view than the one that was checked; put that middleware around app.asgi_app after "
                "ScopeGuard(app, guard)"
            )

    def _framework_route(self, scope: Scope) -> str | None:
        return cast("str | None", scope.get(_ROUTE_KEY, _NOT_ROUTED)[0])


def _match(app: Any, scope: Scope, method: str, *, is_websocket: bool = False) -> Any:
    """Return the request or websocket that Quart makes of *scope*, after Quart has looked up its route.

    Only the same code as in Quart finds the same view for each spelling of a path.
    """

    async def send(message: object) -> None:
        raise RuntimeError(f"no response may be sent while a route is looked up: {message!r}")

    if is_websocket:
        made = app.asgi_websocket_class(app, scope)._create_websocket_from_scope(send)
    else:
        made = app.asgi_http_class(app, {**scope, "method": method})._create_request_from_scope(send)
    with suppress(HTTPException, UnicodeError):  # a bad host or query: no view runs, because Quart raises it too
        (app.websocket_context if is_websocket else app.request_context)(made).match_request()
    return made


def _routed_by(made: Any) -> tuple[str, str, str | None]:
    """Return what selects the rule and the view of a request or websocket."""
    return made.method, made.path, made.endpoint


def _is_automatic(made: Any) -> bool:
    return bool(getattr(made.url_rule, "provide_automatic_options", False))


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

        @functools.wraps(view)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            refusal = _check(whole, sources)
            return await current_app.ensure_async(view)(*args, **kwargs) if refusal is None else refusal

        mark(guarded, view, whole)
        if sources is not None:
            setattr(guarded, SOURCES, sources)
        return guarded

    return decorate


def _check(requirement: Requirement, sources: frozenset[TokenSource] | None) -> Response | None:
    """Return the refusal of the current request or websocket, or ``None`` if its token satisfies *requirement*."""
    current = _get_request() if has_request_context() else _get_websocket()
    scope: Any = current.scope
    route: RouteAccess | None = scope.get(_ROUTE_KEY, _NOT_ROUTED)[1]
    if sources is not None and (route is None or route.token_sources.methods != sources):
        raise ConfigurationError(
            "requires: token_sources had no effect; they need ScopeGuard(app, guard), and the decorator on the view "
            "itself, below no other that hides it"
        )
    # Called from a function for before_request. Quart itself answers a preflight that needs no token, without a view.
    if route is not None and current.method == "OPTIONS" and _is_automatic(current):
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


def public(view: T) -> T:
    """Serve a view, view class, method or blueprint without a token. A requirement for the same view takes precedence.

    The guard does not look for a token. A public blueprint includes the blueprints that are nested in it. A public view
    class does not include its subclasses; decorate each. A method that a subclass inherits stays public.

    Raises :class:`ConfigurationError` for an object that cannot be decorated.
    """
    declare_access(view, PUBLIC, "public", _DECORABLE)
    return view


def optional(view: T) -> T:
    """Serve a view, view class, method or blueprint also without a token, and refuse an invalid token.

    The view calls :func:`access_token_or_none`. Subclasses are not included, as with :func:`public`.

    Raises :class:`ConfigurationError` for an object that cannot be decorated.
    """
    declare_access(view, OPTIONAL, "optional", _DECORABLE)
    return view

"""The extension: middleware around ``app.asgi_app`` that knows the view of each request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Unpack, cast

from quart import Quart

from scopeguard.adapter.declarations import REQUIREMENT
from scopeguard.adapter.extension_checks import check_extension
from scopeguard.adapter.route_access import RouteAccess, ViewRules
from scopeguard.asgi import GuardMiddleware, Scope, Settings
from scopeguard.audit.flask_routes import hooks_before, marked_objects
from scopeguard.audit.route_requirements import RouteRequirements
from scopeguard.audit.startup import StartCheck
from scopeguard.config.checks import instance
from scopeguard.core.decision import Adapter
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard
from scopeguard.quart.routes import NOT_ROUTED, ROUTE_KEY, current_connection, is_automatic, look_up_route, route_key
from scopeguard.rules import PUBLIC, Rule, Rules


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
        guard = check_extension(guard or self._guard, has_another="scopeguard" in app.extensions)
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
        made = look_up_route(self._quart, scope, method, is_websocket=is_websocket)
        is_own = method == scope.get("method", "GET")  # false for the method that a preflight announces
        method = made.method  # a request class of the app may take it from elsewhere, and views get that one
        rule = self._view_rules.find(method, made.path, scope.get("raw_path"))
        endpoint = made.endpoint or ""
        view = self._quart.view_functions.get(endpoint)
        # Only the methods of a view class have declarations of their own, and clients may make up others.
        own = method if hasattr(view, "view_class") else ""

        def combine() -> RouteAccess:
            marked = marked_objects(self._quart, view, endpoint, method)
            route = RouteAccess(rule, view, marked, self._engine, self.rules)
            hooks = hooks_before(self._quart, endpoint, is_websocket=is_websocket)
            route.add_requirements(getattr(hook, REQUIREMENT) for hook in hooks if hasattr(hook, REQUIREMENT))
            return route

        route = self._view_rules.route(rule, view, (endpoint, own, is_websocket), combine)
        if is_own:
            scope[ROUTE_KEY] = (None if made.url_rule is None else made.url_rule.rule, route, route_key(made))
        if method == "OPTIONS" and is_automatic(made) and rule is not None and rule.access is PUBLIC and rule.methods:
            return rule  # Quart answers the request without calling the view
        return route.combined

    def _announces(self, method: bytes | None, scope: Scope) -> bool:
        if scope["method"] == "OPTIONS" and look_up_route(self._quart, scope, "OPTIONS").method != "OPTIONS":
            return False  # for the request class of the app it is not a preflight
        return super()._announces(method, scope)

    async def confirm(self) -> None:
        """Raise :class:`ConfigurationError` unless Quart routes the current request as the extension did.

        Middleware between the two may have changed the method, the path or the host. Quart calls this before the other
        functions given to ``before_request`` and ``before_websocket``.
        """
        current: Any = current_connection()
        if self.passes_preflights and current.method == "OPTIONS":  # including one that the extension itself sends
            return
        if current.scope.get(ROUTE_KEY, NOT_ROUTED)[2] != route_key(current):
            raise ConfigurationError(
                "ScopeGuard: middleware inside it has changed the method, the path or the host of a request, so that "
                "Quart calls a view other than the one that was checked; put that middleware around app.asgi_app "
                "after ScopeGuard(app, guard)"
            )

    def _framework_route(self, scope: Scope) -> str | None:
        return cast("str | None", scope.get(ROUTE_KEY, NOT_ROUTED)[0])

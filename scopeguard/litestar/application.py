"""The extension around an app, guards for its routes, and the dependency that gives handlers the token."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, Unpack, cast

from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.exceptions import HTTPException, WebSocketException
from litestar.handlers import BaseRouteHandler
from litestar.response import Response
from litestar.utils import normalize_path

from scopeguard.adapter.declarations import REQUIREMENT
from scopeguard.adapter.extension_checks import check_extension
from scopeguard.adapter.route_access import RouteAccess, ViewRules
from scopeguard.asgi import GuardMiddleware, Scope, Settings, check_in_app, require_of_renewals
from scopeguard.asgi import renew as renew_by_scope
from scopeguard.audit.litestar_routes import handlers_of, marked_objects
from scopeguard.audit.startup import StartCheck
from scopeguard.conditions import Condition
from scopeguard.config.checks import instance
from scopeguard.core.decision import Adapter, Denied, Granted, Unavailable
from scopeguard.core.starting import aprepare
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard
from scopeguard.rules import DENIED, Rule
from scopeguard.scopes import Requirement, require
from scopeguard.spec import challenge
from scopeguard.spec.websocket_close import POLICY_VIOLATION
from scopeguard.tokens import access_token, access_token_or_none

_TEMPLATE_KEY: Final = "scopeguard.litestar"
"""The key in the scope of the template of the route."""
_BROKEN_OFF: Final = Rule("/{rest:path}", DENIED)
_NEEDS: Final = "the app needs ScopeGuard(app, guard), or scopeguard.asgi's GuardMiddleware around it"


class ScopeGuard:
    """Require a valid access token for every route and websocket of *app*, unless a rule or a handler says otherwise.

    ::

        app = Litestar([...])
        ScopeGuard(app, guard, public=["/schema/{rest:path}"])

    *settings* are those of :class:`scopeguard.asgi.GuardMiddleware`: *public*, *rules*, *cors_preflight*,
    *close_streams*, *recheck_streams* and *debug*.

    A handler declares what it requires with :func:`requires` in ``guards``, and ``scopeguard="public"`` or
    ``"optional"`` as an argument or in ``opt``. The app, routers and controllers declare the same for all their
    handlers: guards add up, and the ``opt`` of the closest layer counts. If there are rules, a route that matches none
    of them is denied, unless its handler declares something.

    If several of them declare something, the strictest holds: the token must satisfy all requirements, and a
    requirement takes precedence over public and optional. A route whose rule says ``DENIED`` is denied even if the
    handler is public.

    Raises :class:`ConfigurationError` for an argument of the wrong kind, for rules that the guard cannot apply, and,
    when the app starts, for an unknown value in ``opt`` and for errors of the audit if the guard was created with
    ``audit="error"``.
    """

    def __init__(self, app: Litestar, guard: Guard, **settings: Unpack[Settings]) -> None:
        instance(app, Litestar, "app", "a Litestar app")
        check_extension(guard, has_another=isinstance(app.asgi_handler, _Extension))
        if not type(app.asgi_handler).__module__.startswith("litestar."):
            raise ConfigurationError(
                "ScopeGuard: app.asgi_handler is wrapped in middleware that could change the path or the method after "
                "the check; put it around app.asgi_handler after ScopeGuard(app, guard)"
            )
        layer: Any = _Extension(app, guard, settings)
        app.asgi_handler = layer
        app.on_startup.insert(0, layer.start)
        app.exception_handlers.setdefault(AccessRefused, _respond)


class _Extension(GuardMiddleware):
    """The middleware around ``app.asgi_handler``, which knows the handler of each request."""

    default: ClassVar[str] = "extension default"
    views_decide: ClassVar[bool] = True
    _adapter = Adapter.LITESTAR

    def __init__(self, app: Any, guard: Guard, settings: Settings) -> None:
        super().__init__(app.asgi_handler, guard=guard, **settings)
        self._litestar = app
        self._view_rules: ViewRules[RouteAccess] = ViewRules(self.rules)
        self._check = StartCheck(self, guard, check=self._check_declarations)

    async def start(self) -> None:
        """Prepare the guard and audit the app. Litestar serves ``lifespan`` without the middleware."""
        await aprepare(self._engine)
        if not self._is_checked_outside.get():
            self._check.run()

    def _check_declarations(self) -> None:
        for route in self._litestar.routes:
            for handler in handlers_of(route):
                marked_objects(handler)

    # GuardMiddleware calls this for each request, because AppRules.is_plain is false until the app is inspected.
    def _rule(self, method: str, scope: Scope) -> Rule | None:
        path, template, handler, inner = _match(self._litestar, scope, method if scope["type"] == "http" else None)
        rule = self._view_rules.find(method, path, scope.get("raw_path"))
        # Litestar routes "/filesx" to an app that is mounted at "/files", which may serve "x". No rule means that.
        if getattr(handler, "is_mount", False) and not inner.startswith("/") and path != f"/{inner.rstrip('/')}":
            rule = _BROKEN_OFF
        if method == scope.get("method", "GET"):  # false for the method that a preflight announces
            scope[_TEMPLATE_KEY] = template

        def combine() -> RouteAccess:
            marked = [] if handler is None else marked_objects(handler)
            return RouteAccess(rule, handler, marked, self._engine, self.rules)

        return self._view_rules.route(rule, handler, id(handler), combine).combined

    def _framework_route(self, scope: Scope) -> str | None:
        return cast("str | None", scope.get(_TEMPLATE_KEY))


def _match(app: Any, scope: Scope, method: str | None) -> tuple[str, str | None, Any, str]:
    """Return the path by which Litestar routes a request, the route's template, the handler, and the handler's path.

    The template and the handler are ``None`` if there is no route. A mounted app gets the rest of the path.
    Litestar's own router looks up the route, because only it finds the same handler for each spelling of a path.
    """
    path, root_path = scope["path"], scope.get("root_path") or ""
    routed = normalize_path(path.split(root_path, maxsplit=1)[-1] if root_path else path)
    try:
        _, handler, inner, _, template = app.asgi_router.handle_routing(path=routed, method=method)
    except Exception:  # noqa: BLE001 - no route has this path or method; Litestar fails alike, and no handler runs
        return routed, None, None, routed
    return routed, template or None, handler, inner


class AccessRefused(HTTPException):
    """Ends a request whose token does not satisfy a guard, with the response of scopeguard.

    :class:`ScopeGuard` checks what guards require before the app, so this is for guards that the app calls
    itself. A handler that the app registers for this class, or for its status, replaces the response::

        Litestar([...], exception_handlers={AccessRefused: refuse})
    """

    def __init__(self, refused: challenge.Response) -> None:
        headers: dict[str, str] = {}
        for name, value in refused.headers:  # RFC 9110 section 5.3: repeated fields may be joined
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        super().__init__(detail=refused.reason_phrase, status_code=refused.status, headers=headers)
        self.refused = refused


def _respond(request: object, error: AccessRefused) -> Response[bytes]:
    """Return the response of the guard, with its challenge and its body."""
    del request
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() != "content-length"}
    return Response(error.refused.body, status_code=error.refused.status, headers=headers, media_type="")


def requires(
    *items: Requirement | Condition | str,
    acr: Requirement | Iterable[str] | None = None,
    max_age: int | None = None,
) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Any]:
    """Return a guard for the ``guards`` of a handler, controller, router or app.

    Each item is a scope, a condition, or a requirement such as ``any_of("read", "admin")``. The token must satisfy all
    of them, and the guards of the outer layers::

        @get("/tables", guards=[requires("tables.read", any_of("projects.read", "admin"))])
        async def tables() -> list[str]: ...

    *acr* and *max_age* (seconds) require that the user signed in strongly and recently enough, as in
    :func:`~scopeguard.all_of`.

    A request without a token gets 401. One whose token lacks a scope gets 403, with all scopes of the route in the
    challenge (RFC 6750 section 3.1). A websocket is refused before it is accepted.

    Raises :class:`ConfigurationError` for an item that is neither a scope, a condition nor a requirement. The guard
    raises it, too, in an app without :class:`ScopeGuard`.
    """
    requirement = require(*items, acr=acr, max_age=max_age)

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        del handler
        scope: Any = connection.scope
        refused = check_in_app(scope, requirement, Adapter.LITESTAR, _NEEDS)
        if refused is not None:
            if scope["type"] == "websocket":
                raise WebSocketException(detail=refused.reason_phrase, code=POLICY_VIOLATION)
            raise AccessRefused(refused)
        if scope["type"] == "websocket":
            require_of_renewals(scope, requirement)

    setattr(guard, REQUIREMENT, requirement)
    return guard


def provide_token(*, optional: bool = False) -> Provide:
    """Return a dependency with the access token of the request.

    ::

        Litestar([...], dependencies={"token": provide_token()})

        @get("/me")
        async def me(token: NamedDependency[AccessToken]) -> str | None:
            return token.subject

    *optional*: the dependency is ``None`` for an anonymous caller. Otherwise a handler that an anonymous caller may
    reach raises :class:`ConfigurationError`.
    """
    return Provide(access_token_or_none if optional else access_token, sync_to_thread=False)


async def renew(socket: ASGIConnection[Any, Any, Any, Any], token: str) -> Granted | Denied | Unavailable:
    """Replace the access token of *socket*, a websocket, with *token*. See :func:`scopeguard.asgi.renew`."""
    scope: Any = socket.scope
    return await renew_by_scope(scope, token)

"""What a dependency cannot know: the app whose routes name it, and when that app starts.

FastAPI tells a dependency about requests and about nothing else. Its OpenAPI document lacks what the operations of all
routes need together, and no check finds a forgotten route. So the first ``Protected`` wraps two methods of the
class ``FastAPI``, as instrumentation does: ``openapi()`` completes the document of apps that use a ``Protected``, and
``build_middleware_stack()`` runs the audit when such an app starts. Apps that use none are left alone.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from fastapi import FastAPI, params

from scopeguard.adapter.declarations import DeclaringDependency, Layer
from scopeguard.asgi import GUARD_KEY, ASGIApp, Receive, Scope, Send, check_at_startup
from scopeguard.audit.fastapi_routes import dependencies, expand_routes
from scopeguard.audit.startup import StartCheck, is_checked_outside
from scopeguard.config.audit import AuditMode
from scopeguard.config.checks import items
from scopeguard.guard import Guard, engine_of
from scopeguard.scopes import check_scope


class Documented(Protocol):
    """What is asked of a ``Protected``."""

    @property
    def guard(self) -> Guard:
        """What judges."""
        ...

    @property
    def scheme_names(self) -> tuple[str, ...]:
        """Its security schemes in the document."""
        ...

    @property
    def responses(self) -> Mapping[int | str, dict[str, Any]]:
        """The refusals, by status."""
        ...


_STRICTEST: Final = (AuditMode.ERROR, AuditMode.WARN)
_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_completed: Final[WeakKeyDictionary[FastAPI, dict[str, Any]]] = WeakKeyDictionary()
_is_wrapped: Final = "__scopeguard__"


def wrap_fastapi(kind: type[DeclaringDependency]) -> None:
    """Let apps whose routes name dependencies of *kind* be documented and checked. Once; further calls do nothing."""
    if hasattr(FastAPI.openapi, _is_wrapped):
        return
    document, build = FastAPI.openapi, FastAPI.build_middleware_stack

    @functools.wraps(document)
    def openapi(self: FastAPI) -> dict[str, Any]:
        return _documented(self, document(self), kind)

    @functools.wraps(build)
    def build_middleware_stack(self: FastAPI) -> ASGIApp:
        own = vars(self).get("openapi")
        if own is not None:  # FastAPI's way of changing the document is to set this attribute of an app
            setattr(self, "openapi", lambda: _documented(self, own(), kind))  # noqa: B010
        return _Checked(build(self), self, kind)

    _refuse_strings_of_scopes(kind)
    setattr(openapi, _is_wrapped, True)
    setattr(FastAPI, "openapi", openapi)  # noqa: B010 - to type checkers, methods are not to be assigned
    setattr(FastAPI, "build_middleware_stack", build_middleware_stack)  # noqa: B010


def _refuse_strings_of_scopes(kind: type[DeclaringDependency]) -> None:
    """Let ``Security(protected, scopes="a.b")`` raise: FastAPI takes the string for a list of letters, and the route
    would need the scopes ``a``, ``.`` and ``b``. When a request comes, such a list looks like any other."""
    init = params.Security.__init__

    @functools.wraps(init)
    def checked_init(self: params.Security, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        dependency: object = self.dependency
        if isinstance(dependency, kind) and self.scopes is not None:
            for scope in items(self.scopes, "Security: scopes", 'a list, as in scopes=["tables.read"]'):
                check_scope(scope, "Security: scopes")

    setattr(params.Security, "__init__", checked_init)  # noqa: B010


def _of(app: FastAPI, kind: type[DeclaringDependency]) -> list[Any]:
    """The guarding dependencies of the routes of *app*, without those of apps that are mounted."""
    found: dict[int, Any] = {}
    for route in expand_routes(app.router):
        dependant = getattr(route, "dependant", None)
        if dependant is not None:
            found |= {id(dependency): dependency for dependency in dependencies(dependant)}
    return [dependency for dependency in found.values() if isinstance(dependency, kind)]


def _documented(app: FastAPI, schema: dict[str, Any], kind: type[DeclaringDependency]) -> dict[str, Any]:
    if _completed.get(app) is not schema:
        _complete(schema, _of(app, kind))
        _completed[app] = schema
    return schema


def _complete(schema: dict[str, Any], guarding: list[Documented]) -> None:
    """Add the refusals to each guarded operation of *schema*, and what operations need to the scopes of their scheme:
    Swagger UI offers those to be granted, and no others."""
    by_scheme = {name: dependency for dependency in guarding for name in dependency.scheme_names}
    schemes = schema.get("components", {}).get("securitySchemes", {})
    for item in schema.get("paths", {}).values():
        for operation in (item[method] for method in _METHODS if method in item):
            needed = [(name, scopes) for group in operation.get("security", ()) for name, scopes in group.items()]
            ours = [(name, scopes) for name, scopes in needed if name in by_scheme]
            for name, scopes in ours:
                for flow in schemes.get(name, {}).get("flows", {}).values():
                    for scope in scopes:
                        flow["scopes"].setdefault(scope, "")
                for status, response in by_scheme[name].responses.items():
                    if status != 403 or any(scopes for _, scopes in ours):
                        operation["responses"].setdefault(str(status), response)


class _Checked:
    """*stack*, the middleware stack of *app*: audit_app once it has started, where a dependency's guard wants that."""

    def __init__(self, stack: ASGIApp, app: FastAPI, kind: type[DeclaringDependency]) -> None:
        self.app: ASGIApp = stack
        self._owner = app
        self._kind = kind
        self._check: StartCheck | None = None
        self._pending = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._pending:
            if scope["type"] == "lifespan":
                send = send if is_checked_outside.get() else check_at_startup(self, send)
            elif GUARD_KEY in (scope.get("state") or ()):
                self._end()  # middleware around the app has a check of its own, which sees the whole
            else:
                self.run()
        await self.app(scope, receive, send)

    def run(self) -> None:
        """Check, unless that was done or nothing is to be checked. Raises as :meth:`StartCheck.run`."""
        if self._check is None:
            guards = [found.guard for found in _of(self._owner, self._kind)]
            by_mode = {engine_of(guard).settings.audit: guard for guard in reversed(guards)}
            guard: Guard | None = next((by_mode[mode] for mode in _STRICTEST if mode in by_mode), None)
            if guard is None or _has_middleware(self._owner):
                self._end()
                return
            self._check = StartCheck(self._owner, guard, public=_documentation(self._owner))
        self._check.run()
        self._end()

    def _end(self) -> None:
        """Get out of the way of further requests."""
        self._pending = False
        if self._owner.middleware_stack is self:
            self._owner.middleware_stack = self.app


def _has_middleware(app: FastAPI) -> bool:
    return any(isinstance(item.cls, type) and issubclass(item.cls, Layer) for item in app.user_middleware)


def _documentation(app: FastAPI) -> list[str]:
    """FastAPI's own pages. That they stay open without middleware is documented; they describe and do nothing."""
    pages = (app.openapi_url, app.docs_url, app.swagger_ui_oauth2_redirect_url, app.redoc_url)
    return [page for page in pages if page and page.startswith("/")]

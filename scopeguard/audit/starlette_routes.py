"""The routes of Starlette and FastAPI."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from scopeguard.adapter.declarations import Declaration, Layer, refuse_instance
from scopeguard.audit.route import (
    ANYTHING,
    WEBSOCKET,
    AppRoute,
    Surroundings,
    access_declarations,
    name_of,
    opaque_route,
    requirement_declarations,
    without_head,
)

_METHODS: Final = ("get", "head", "post", "put", "patch", "delete", "options")
Walk = Callable[[Any, Surroundings], list[AppRoute]]


def find_routes(app: Any, around: Surroundings, walk: Walk) -> list[AppRoute]:
    """Return the routes of a ``Starlette``, ``Stack``, ``Router`` or ``StaticFiles``. *walk* is for mounted apps."""
    if isinstance(app, StaticFiles):
        return [
            AppRoute(path=around.prefix + ANYTHING, around=around, methods=frozenset({"GET"}), endpoint="static files")
        ]
    router = app
    if isinstance(app, Starlette | Stack):
        for number, item in enumerate(app.user_middleware):
            around = around.enter_layers(_layer(number, item, app)).enter(item.cls)
        router = app.router
    found = [item for route in expand_routes(router) for item in _route(route, around, walk)]
    default = getattr(router, "default", None)
    if default is not None and getattr(default, "__func__", None) is not Router.not_found:
        found.append(opaque_route(default, around))
    return found


class Stack:
    """The part of a ``Starlette`` app inside one of its middleware, for reading its routes.

    Starlette itself builds this part when the app starts, which the audit does not do. It has the form of an ASGI app,
    because the constructor of middleware refuses anything else.
    """

    def __init__(self, middleware: list[Any], router: Router) -> None:
        self.user_middleware = middleware
        self.router = router

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Raise :class:`RuntimeError`: the audit sends no request."""
        del scope, receive, send
        raise RuntimeError("this app was built to read its routes and cannot serve requests")


def _layer(number: int, item: Any, app: Starlette | Stack) -> list[Layer]:
    """Return the layer that *item*, middleware *number* of *app*, would make. Its constructor has no side effect."""
    middleware: Any = item.cls
    refuse_instance(middleware)
    if isinstance(middleware, type) and issubclass(middleware, Layer):
        layer: Any = middleware
        return [layer(Stack(app.user_middleware[number + 1 :], app.router), *item.args, **item.kwargs)]
    return []


def expand_routes(router: Router) -> list[Any]:
    """Return the routes of *router*, including those of routers that FastAPI has included in it."""
    plain = list(router.routes)
    if not any(type(route).__module__.startswith("fastapi.") for route in plain) and not hasattr(
        router, "_low_priority_routes"
    ):
        return plain
    from scopeguard.audit import fastapi_routes  # noqa: PLC0415 - imports its framework

    return fastapi_routes.expand_routes(router)


def _route(route: Any, around: Surroundings, walk: Walk) -> list[AppRoute]:
    kind = getattr(route, "original_route", route)
    if isinstance(kind, Mount):
        return walk(route.app, around.enter_mount(_template(route.path)))
    if isinstance(kind, Host):
        return walk(route.app, around)
    if isinstance(kind, Route | WebSocketRoute):
        around = around.enter_layers(_layers_around(route.app))
        return _endpoint(route, around, websocket=isinstance(kind, WebSocketRoute))
    path = getattr(route, "path", None)  # a route class of the app or of FastAPI
    at = around.enter_mount(_template(path)) if isinstance(path, str) else around
    declared = _dependencies(route)
    methods = getattr(route, "methods", None)
    return [
        AppRoute(
            path=at.prefix.rstrip("/") + ANYTHING,
            around=around,
            methods=without_head(methods) if methods else None,
            endpoint=name_of(kind),
            declared=declared,
            opaque=True,
        )
    ]


def _template(path: str) -> str:
    """Return *path* in the syntax of rules, in which ``path`` is the only converter."""
    parts = []
    for part in path.split("{"):
        name, brace, rest = part.partition("}")
        parts.append(f"{name if name.endswith(':path') else name.partition(':')[0]}}}{rest}" if brace else part)
    return "{".join(parts)


def _layers_around(app: Any) -> list[Layer]:
    found = []
    while app is not None and not inspect.isroutine(app) and not isinstance(app, type):
        if isinstance(app, Layer):
            found.append(app)
        app = getattr(app, "app", None)
    return found


def _dependencies(route: Any) -> tuple[Declaration, ...]:
    dependant = getattr(route, "dependant", None)
    if dependant is None:
        return ()
    from scopeguard.audit import fastapi_routes  # noqa: PLC0415 - imports its framework

    return fastapi_routes.declarations_of(dependant)


def _endpoint(route: Any, around: Surroundings, *, websocket: bool) -> list[AppRoute]:
    endpoint = route.endpoint
    dependencies = _dependencies(route)
    methods = frozenset({WEBSOCKET}) if websocket else getattr(route, "methods", None)

    def make_route(methods: frozenset[str] | None, *marked: Any) -> AppRoute:
        return AppRoute(
            path=around.prefix + _template(route.path),
            around=around,
            methods=methods,
            endpoint=name_of(endpoint),
            declared=(*access_declarations(endpoint), *dependencies, *requirement_declarations(*marked)),
            called=marked,
        )

    if isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint):
        offered = without_head(name.upper() for name in _METHODS if hasattr(endpoint, name))
        allowed = [name for name in _METHODS if name.upper() in (offered & methods if methods else offered)]
        return [make_route(frozenset({name.upper()}), endpoint, getattr(endpoint, name)) for name in allowed]
    if not websocket and methods is not None:
        methods = without_head(methods)
    return [make_route(methods, endpoint)]

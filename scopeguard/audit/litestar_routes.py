"""The routes of Litestar, with the declarations of guards and of ``opt`` at every layer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from litestar import Litestar
from litestar.routes import ASGIRoute, HTTPRoute, WebSocketRoute

from scopeguard.adapter.declarations import ACCESS, REQUIREMENT, Declaration
from scopeguard.audit.route import (
    ANYTHING,
    WEBSOCKET,
    AppRoute,
    Surroundings,
    name_of,
    requirement_declarations,
    without_head,
)
from scopeguard.errors import ConfigurationError
from scopeguard.rules import OPTIONAL, PUBLIC, Access

OPT: Final = "scopeguard"
"""The key of ``opt`` that opens a handler."""

_VALUES: Final = {PUBLIC.value: PUBLIC, OPTIONAL.value: OPTIONAL}


def find_routes(app: Litestar, around: Surroundings) -> list[AppRoute]:
    """Return the routes of *app*, one for each handler."""
    if app.cors_config is not None:
        around = around.enter(_CorsMiddleware)
    found: list[AppRoute] = []
    for route in app.routes:
        is_mount = isinstance(route, ASGIRoute) and getattr(route.route_handler, "is_mount", False)
        path = around.prefix + _template(route)
        for handler in handlers_of(route):
            guards = marked_objects(handler)
            access = access_of(handler)
            opened = () if access is None else (Declaration(by=f"opt {OPT}={access.value!r}", access=access),)
            found.append(
                AppRoute(
                    path=path.rstrip("/") + ANYTHING if is_mount else path,
                    around=around,
                    methods=_methods(route, handler),
                    endpoint=name_of(handler.fn),
                    declared=(*opened, *requirement_declarations(*guards)),
                    opaque=is_mount,
                )
            )
    return found


class _CorsMiddleware:
    """Stands for the middleware that ``cors_config`` makes."""


def handlers_of(route: Any) -> list[Any]:
    """Return the handlers of *route*, without the one that Litestar adds for ``OPTIONS``."""
    if not isinstance(route, HTTPRoute):
        return [route.route_handler]
    return [handler for handler in route.route_handlers if not _is_automatic(handler)]


def _is_automatic(handler: Any) -> bool:
    function = handler.fn
    return getattr(function, "__module__", None) == HTTPRoute.__module__ and set(handler.http_methods) == {"OPTIONS"}


def marked_objects(handler: Any) -> list[Any]:
    """Return the objects that declare something for *handler*: its guards of all layers, and its ``opt``.

    Raises :class:`ConfigurationError` for an unknown value in ``opt``.
    """
    found = [guard for guard in handler.resolve_guards() if hasattr(guard, REQUIREMENT)]
    access = access_of(handler)
    return found if access is None else [*found, SimpleNamespace(**{ACCESS: access})]


def access_of(handler: Any) -> Access | None:
    """Return the access that ``opt`` declares for *handler*; that of the closest layer counts."""
    value = handler.opt.get(OPT)
    if value is None:
        return None
    access = _VALUES.get(value.value if isinstance(value, Access) else value)
    if access is None:
        raise ConfigurationError(
            f"opt: {OPT} of {name_of(handler.fn)} must be 'public' or 'optional', not {value!r}; a guard with "
            "requires() needs a token"
        )
    return access


def _methods(route: Any, handler: Any) -> frozenset[str] | None:
    if isinstance(route, WebSocketRoute):
        return frozenset({WEBSOCKET})
    if not isinstance(route, HTTPRoute):
        return None
    return without_head(getattr(method, "value", method) for method in handler.http_methods)  # HttpMethod or str


def _template(route: Any) -> str:
    parts = [
        component if isinstance(component, str) else f"{{{component.name}{':path' if component.type is Path else ''}}}"
        for component in route.path_components
    ]
    return "/" + "/".join(parts)

"""A route of an app, and what the modules for the frameworks need to describe one."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from scopeguard.adapter.declarations import REQUIREMENT, SOURCES, Declaration, Layer, access_of, decorated_versions_of
from scopeguard.scopes import Requirement

ANYTHING: Final = "/{path:path}"
WEBSOCKET: Final = "WEBSOCKET"
"""Stands for the method of a websocket in reports. Rules see a websocket as GET."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The mount path of an app and the layers around it, each with the path at which it is.

    *cors*: the name of CORS middleware inside a layer that refuses preflights, ``""`` if there is none.
    """

    prefix: str = ""
    layers: tuple[tuple[Layer, str], ...] = ()
    cors: str = ""

    def enter_mount(self, path: str) -> Surroundings:
        """Return the surroundings of an app that is mounted at *path* in this one."""
        return replace(self, prefix=self.prefix + path)

    def enter(self, middleware: Any) -> Surroundings:
        """Return the surroundings inside *middleware* that is not a layer: a class, an instance, or a function."""
        kind = middleware if isinstance(middleware, type) or hasattr(middleware, "__qualname__") else type(middleware)
        hidden = any(not layer.passes_preflights for layer, _ in self.layers)
        # CORS middleware has no common base, but its name says what it is: CORSMiddleware, cors_after_request.
        return replace(self, cors=name_of(kind)) if hidden and "cors" in kind.__qualname__.lower() else self

    def enter_layers(self, layers: Iterable[Layer]) -> Surroundings:
        """Return the surroundings inside *layers*."""
        return replace(self, layers=(*self.layers, *((layer, self.prefix) for layer in layers)))


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRoute:
    """One route of an app, for the methods of it that require the same.

    *path*: a template in the syntax of rules. *methods*: ``None`` for all. *called*: the functions that the route
    calls. *opaque*: the route stands for an app that cannot be inspected.
    """

    path: str
    around: Surroundings
    methods: frozenset[str] | None = None
    endpoint: str = ""
    declared: tuple[Declaration, ...] = ()
    called: tuple[Any, ...] = ()
    opaque: bool = False


def opaque_route(app: Any, around: Surroundings) -> AppRoute:
    """Return one route for all paths of *app*, which cannot be inspected."""
    return AppRoute(path=around.prefix + ANYTHING, around=around, endpoint=name_of(app), opaque=True)


def name_of(endpoint: Any) -> str:
    """Return the module and qualified name of *endpoint* or its type. Its ``repr`` may contain secrets."""
    while isinstance(endpoint, functools.partial):
        endpoint = endpoint.func
    name = getattr(endpoint, "__qualname__", None)
    if not isinstance(name, str):
        endpoint = type(endpoint)
        name = endpoint.__qualname__
    return f"{getattr(endpoint, '__module__', None) or ''}.{name}".lstrip(".")


def requirement_declarations(*marked: Any) -> tuple[Declaration, ...]:
    """Return the declarations of ``@requires`` on *marked*."""
    return tuple(
        Declaration(by="@requires", access=getattr(item, REQUIREMENT), sources=getattr(item, SOURCES, None))
        for item in marked
        if isinstance(getattr(item, REQUIREMENT, None), Requirement)
    )


def find_bypassing_routes(routes: Iterable[AppRoute]) -> list[AppRoute]:
    """Return the *routes* that call a plain function whose decorated version no route calls.

    It is not a mistake if one function has a route with and a route without its decorator, or if the decorated version
    no longer exists.
    """
    given = list(routes)
    reached: set[int] = set()
    for item in (item for route in given for item in route.called):
        while item is not None and id(item) not in reached:
            reached.add(id(item))
            item = getattr(item, "__wrapped__", None)  # noqa: PLW2901 - from the outermost decorator to the function

    def is_bypassed(function: Any) -> bool:
        versions = [version for reference in decorated_versions_of(function) if (version := reference()) is not None]
        return bool(versions) and not any(id(version) in reached for version in versions)

    return [route for route in given if any(map(is_bypassed, route.called))]


def without_head(methods: Iterable[str]) -> frozenset[str]:
    """Return *methods* without the HEAD that frameworks add to GET."""
    given = frozenset(methods)
    return given - {"HEAD"} if "GET" in given else given


def access_declarations(*marked: Any) -> tuple[Declaration, ...]:
    """Return the declarations of ``@public`` and ``@optional`` on *marked*."""
    found = map(access_of, marked)
    return tuple(Declaration(by=f"@{access.value}", access=access) for access in found if access is not None)

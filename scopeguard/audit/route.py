"""A route that was found, and what walkers of several frameworks need to describe one."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from scopeguard.adapter.declared import REQUIREMENT, SOURCES, Declared, Layer, access_of, decorators_of
from scopeguard.scopes import Requirement

ANYTHING: Final = "/{path:path}"
WEBSOCKET: Final = "WEBSOCKET"
"""What stands for a method where a websocket is opened. Rules are asked about GET then, as for requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """Where an app was found: below which path, and inside of which layers, each with the path that it stands at.

    *cors*: what answers preflights of browsers inside of a layer that refuses them.
    """

    prefix: str = ""
    layers: tuple[tuple[Layer, str], ...] = ()
    cors: str = ""

    def at(self, path: str) -> Around:
        """The same, mounted at *path*."""
        return replace(self, prefix=self.prefix + path)

    def past(self, middleware: Any) -> Around:
        """The same, inside of *middleware* as well, which is no layer: a class, or an object or function of it."""
        kind = middleware if isinstance(middleware, type) or hasattr(middleware, "__qualname__") else type(middleware)
        hidden = any(not layer.passes_preflights for layer, _ in self.layers)
        # There are many, and all are called by what they do: CORSMiddleware, CorsMiddleware, cors_after_request.
        return replace(self, cors=name_of(kind)) if hidden and "cors" in kind.__qualname__.lower() else self

    def within(self, layers: Iterable[Layer]) -> Around:
        """The same, inside of *layers* as well."""
        return replace(self, layers=(*self.layers, *((layer, self.prefix) for layer in layers)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One route of an app, or several methods of it that say the same. *methods*: ``None`` for all.

    *path* is a template as rules have it. *called*: the functions that it calls itself.
    """

    path: str
    around: Around
    methods: frozenset[str] | None = None
    endpoint: str = ""
    declared: tuple[Declared, ...] = ()
    called: tuple[Any, ...] = ()
    opaque: bool = False


def opaque(app: Any, around: Around) -> Found:
    """*app* as one route: nothing is known of what it answers."""
    return Found(path=around.prefix + ANYTHING, around=around, endpoint=name_of(app), opaque=True)


def name_of(endpoint: Any) -> str:
    """Where *endpoint* was defined. Never its repr, which may hold anything."""
    while isinstance(endpoint, functools.partial):
        endpoint = endpoint.func
    name = getattr(endpoint, "__qualname__", None)
    if not isinstance(name, str):
        endpoint = type(endpoint)
        name = endpoint.__qualname__
    return f"{getattr(endpoint, '__module__', None) or ''}.{name}".lstrip(".")


def by_decorator(*marked: Any) -> tuple[Declared, ...]:
    """What ``@requires`` left on each of *marked*."""
    return tuple(
        Declared(by="@requires", access=getattr(item, REQUIREMENT), sources=getattr(item, SOURCES, None))
        for item in marked
        if isinstance(getattr(item, REQUIREMENT, None), Requirement)
    )


def passed_by(routes: Iterable[Found]) -> list[Found]:
    """Those of *routes* that call a function which was decorated, while nobody calls what the decorator made of it.

    That a function has routes with and without a decorator is no mistake. A decorated one that nobody holds any more
    is none either.
    """
    given = list(routes)
    reached: set[int] = set()
    for item in (item for route in given for item in route.called):
        while item is not None and id(item) not in reached:
            reached.add(id(item))
            item = getattr(item, "__wrapped__", None)  # noqa: PLW2901 - from the outermost inwards

    def is_passed_by(function: Any) -> bool:
        made = [decorated for reference in decorators_of(function) if (decorated := reference()) is not None]
        return bool(made) and not any(id(decorated) in reached for decorated in made)

    return [route for route in given if any(map(is_passed_by, route.called))]


def without_head(methods: Iterable[str]) -> frozenset[str]:
    """*methods* without the HEAD that comes with every GET."""
    given = frozenset(methods)
    return given - {"HEAD"} if "GET" in given else given


def by_access(*marked: Any) -> tuple[Declared, ...]:
    """What ``@public`` and ``@optional`` left on each of *marked*."""
    found = map(access_of, marked)
    return tuple(Declared(by=f"@{access.value}", access=access) for access in found if access is not None)

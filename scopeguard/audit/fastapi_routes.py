"""What FastAPI adds to routes: routers that were included, and dependencies, in all the places they can be named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fastapi import routing

from scopeguard.adapter.declarations import Declaration, DeclaringDependency


def expand_routes(router: Any) -> list[Any]:
    """The routes of *router*, and those of routers it includes as they are there: with prefix and dependencies."""
    found: list[Any] = []
    # Older versions of FastAPI copy the routes of a router when it is included.
    contexts = getattr(routing, "iter_route_contexts", None)
    found += router.routes if contexts is None else contexts(router.routes)
    for group in getattr(router, "_low_priority_routes", ()):
        found += _frontends(group, "")
    for route in router.routes:
        low = getattr(route, "effective_low_priority_routes", None)
        for context in low() if callable(low) else ():
            group = context.starlette_route or context.original_route
            found += _frontends(group, context.frontend_prefix, getattr(context, "dependant", None))
    return found


def _frontends(group: Any, prefix: str, dependant: Any = None) -> list[Any]:
    """The files that ``frontend()`` serves where no other route answers."""
    return [
        SimpleNamespace(path=prefix + inner.path, methods=inner.methods, dependant=dependant or group.dependant)
        for inner in getattr(group, "routes", ())
    ]


def declared(dependant: Any) -> tuple[Declaration, ...]:
    """What the dependencies of a route say, the outermost first."""
    found: list[Declaration] = []
    for inner, dependency in _guarding(dependant):
        scopes = [*(inner.parent_oauth_scopes or ()), *(inner.own_oauth_scopes or ())]
        found.append(dependency.declare(list(dict.fromkeys(scopes))))
    return tuple(found)


def dependencies(dependant: Any) -> list[DeclaringDependency]:
    """The dependencies of a route that guard it."""
    return [dependency for _, dependency in _guarding(dependant)]


def _guarding(dependant: Any) -> list[tuple[Any, DeclaringDependency]]:
    found: list[tuple[Any, DeclaringDependency]] = []
    for inner in dependant.dependencies:
        found += [(inner, inner.call)] if isinstance(inner.call, DeclaringDependency) else _guarding(inner)
    return found

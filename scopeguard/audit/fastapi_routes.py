"""The parts of routes that only FastAPI has: included routers and dependencies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fastapi import routing

from scopeguard.adapter.declarations import Declaration, DeclaringDependency


def expand_routes(router: Any) -> list[Any]:
    """Return the routes of *router* and of the routers that it includes, with their prefixes and dependencies."""
    found: list[Any] = []
    # Older versions of FastAPI copy the routes of a router when it is included.
    contexts = getattr(routing, "iter_route_contexts", None)
    found += router.routes if contexts is None else contexts(router.routes)
    for group in getattr(router, "_low_priority_routes", ()):
        found += _frontend_routes(group, "")
    for route in router.routes:
        low = getattr(route, "effective_low_priority_routes", None)
        for context in low() if callable(low) else ():
            group = context.starlette_route or context.original_route
            found += _frontend_routes(group, context.frontend_prefix, getattr(context, "dependant", None))
    return found


def _frontend_routes(group: Any, prefix: str, dependant: Any = None) -> list[Any]:
    """Return the routes for the files that ``frontend()`` serves if no other route matches."""
    return [
        SimpleNamespace(path=prefix + inner.path, methods=inner.methods, dependant=dependant or group.dependant)
        for inner in getattr(group, "routes", ())
    ]


def declarations_of(dependant: Any) -> tuple[Declaration, ...]:
    """Return the declarations of the dependencies of a route, the outermost first."""
    found: list[Declaration] = []
    for inner, dependency in _pairs(dependant):
        scopes = [*(inner.parent_oauth_scopes or ()), *(inner.own_oauth_scopes or ())]
        found.append(dependency.declare(list(dict.fromkeys(scopes))))
    return tuple(found)


def guarding_dependencies(dependant: Any) -> list[DeclaringDependency]:
    """Return the dependencies of a route that guard it."""
    return [dependency for _, dependency in _pairs(dependant)]


def _pairs(dependant: Any) -> list[tuple[Any, DeclaringDependency]]:
    found: list[tuple[Any, DeclaringDependency]] = []
    for inner in dependant.dependencies:
        found += [(inner, inner.call)] if isinstance(inner.call, DeclaringDependency) else _pairs(inner)
    return found

"""The routes of Falcon, with the hooks and decorators of their responders."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from falcon.routing import CompiledRouter

from scopeguard.adapter.declarations import REQUIREMENT, Declaration
from scopeguard.audit.route import ANYTHING, AppRoute, Surroundings, name_of, opaque_route
from scopeguard.scopes import Requirement

_FIELD: Final = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")


def find_routes(app: Any, around: Surroundings) -> list[AppRoute]:
    """Return the routes of *app*, a Falcon app for WSGI or ASGI: those of its router, then sinks and static files."""
    for component in app._unprepared_middleware:
        around = around.enter(component)
    router = app._router
    if not isinstance(router, CompiledRouter):
        return [opaque_route(router, around)]
    found = [route for node, path in _nodes(router._roots, "") for route in _responders(node, path, around)]
    for prefix, sink, _ in app._sinks:
        literal = prefix.pattern == re.escape(prefix.pattern)
        path = prefix.pattern.rstrip("/") if literal else ""
        found.append(_route(path + ANYTHING, around, None, sink))
    for static, _, _ in app._static_routes:
        path = around.prefix + static._prefix.rstrip("/") + ANYTHING
        found.append(AppRoute(path=path, around=around, methods=frozenset({"GET"}), endpoint="static files"))
    return found


def _nodes(nodes: list[Any], parent: str) -> Iterator[tuple[Any, str]]:
    found: list[tuple[Any, str]] = []
    for node in nodes:
        path = f"{parent}/{node.raw_segment}"
        if node.resource is not None:
            found.append((node, path))
        found += _nodes(node.children, path)
    return iter(found)


def _responders(node: Any, path: str, around: Surroundings) -> list[AppRoute]:
    template = _FIELD.sub(lambda field: f"{{{field[1]}{':path' if field[2] == 'path' else ''}}}", path)
    return [
        _route(template, around, method, responder)
        for method, responder in sorted((node.method_map or {}).items())
        if not _function_of(responder).__module__.startswith("falcon.")  # without those of Falcon, for OPTIONS and 405
    ]


def _route(path: str, around: Surroundings, method: str | None, responder: Any) -> AppRoute:
    function = _function_of(responder)
    return AppRoute(
        path=around.prefix + path,
        around=around,
        methods=None if method is None else frozenset({method}),
        endpoint=name_of(function),
        declared=tuple(Declaration(by="requires", access=access) for access in _requirements_of(function)),
        called=(function,),
    )


def _function_of(responder: Any) -> Any:
    while isinstance(responder, functools.partial):
        responder = responder.func
    return getattr(responder, "__func__", responder)


def _requirements_of(function: Any) -> list[Requirement]:
    """Return the requirement of the decorators of *function*, and those of the hooks that Falcon calls before it."""
    marked = [function]
    inner: Callable[..., Any] | None = function
    while inner is not None:
        marked += [cell.cell_contents for cell in getattr(inner, "__closure__", None) or ()]
        inner = getattr(inner, "__wrapped__", None)
    # functools.wraps copies the attributes of a function to its wrappers, so only objects that are not functions count.
    hooks = [item for item in marked[1:] if not callable(getattr(item, "__get__", None))]
    found = [getattr(item, REQUIREMENT, None) for item in (function, *hooks)]
    return [requirement for requirement in found if isinstance(requirement, Requirement)]

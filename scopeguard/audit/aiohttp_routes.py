"""The routes of aiohttp, with the declarations of handlers and view classes, and those of sub-apps."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import hdrs, web

from scopeguard.adapter.declarations import Layer
from scopeguard.audit.route import (
    ANYTHING,
    AppRoute,
    Surroundings,
    access_declarations,
    name_of,
    opaque_route,
    requirement_declarations,
    without_head,
)


def find_routes(app: web.Application, around: Surroundings) -> list[AppRoute]:
    """Return the routes of *app* and of its sub-apps, one for each method."""
    layers = [value for value in (app[key] for key in app) if isinstance(value, Layer)]
    around = around.enter_layers(layers)
    for middleware in app.middlewares:
        around = around.enter(middleware)
    found: list[AppRoute] = []
    for resource in app.router.resources():
        inner = getattr(resource, "_app", None)
        if isinstance(inner, web.Application):  # the paths of its routes have the prefix already
            found += find_routes(inner, around)
        elif isinstance(resource, web.StaticResource):
            path = around.prefix + resource.canonical.rstrip("/") + ANYTHING
            found.append(AppRoute(path=path, around=around, methods=frozenset({"GET"}), endpoint="static files"))
        else:
            found += _routes(resource, around)
    return found


def _routes(resource: Any, around: Surroundings) -> list[AppRoute]:
    template = _template(resource)
    if template is None:
        return [opaque_route(resource, around)]
    by_method = {route.method: route.handler for route in resource}
    found: list[AppRoute] = []
    for method in by_method if hdrs.METH_ANY in by_method else without_head(by_method):
        handler = by_method[method]
        is_view = isinstance(handler, type)
        offered = [name for name in hdrs.METH_ALL if hasattr(handler, name.lower())] if is_view else []
        names = sorted(without_head(offered)) if is_view and method == hdrs.METH_ANY else [method]
        for name in names:
            function = getattr(handler, name.lower(), None) if is_view else getattr(handler, "__func__", handler)
            marked = [function, handler] if is_view else [function]
            found.append(
                AppRoute(
                    path=around.prefix + template,
                    around=around,
                    methods=None if name == hdrs.METH_ANY else frozenset({name}),
                    endpoint=name_of(handler),
                    declared=(*access_declarations(*marked), *requirement_declarations(*marked)),
                    called=(function,),
                )
            )
    return found


def _template(resource: Any) -> str | None:
    """Return the template of *resource* in the syntax of rules. ``None`` if a part of it may match a slash."""
    info = resource.get_info()
    template: str | None = info.get("path") or info.get("formatter")
    if template is None:
        return None
    pattern = info["pattern"].pattern if "pattern" in info else ""
    for name, form in re.findall(r"\(\?P<(\w+)>((?:\[[^\]]*\]|[^()])*)\)", pattern):
        if re.fullmatch(form, "a/b"):
            if not template.endswith(f"/{{{name}}}"):
                return None
            template = template.replace(f"{{{name}}}", f"{{{name}:path}}")
    return template

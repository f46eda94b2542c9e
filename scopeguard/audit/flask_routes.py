"""The routes of Flask and of Quart, with the declarations of views, view classes and blueprints."""

from __future__ import annotations

import re
from typing import Any, Final

from scopeguard.adapter.declarations import EXTENSION, Layer
from scopeguard.audit.route import (
    WEBSOCKET,
    AppRoute,
    Surroundings,
    access_declarations,
    name_of,
    requirement_declarations,
    without_head,
)

_VARIABLE: Final = re.compile(r"<(?:([A-Za-z_]\w*)(?:\([^<>]*\))?:)?([A-Za-z_]\w*)>")


def find_routes(app: Any, around: Surroundings) -> list[AppRoute]:
    """Return the routes of *app*, one for each method."""
    layer = app.extensions.get(EXTENSION)
    if isinstance(layer, Layer):
        around = around.enter_layers([layer])
    for after in app.after_request_funcs.get(None, ()):
        around = around.enter(after)
    found: list[AppRoute] = []
    for rule in app.url_map.iter_rules():
        if rule.build_only:
            continue
        is_websocket = getattr(rule, "websocket", False)
        methods = frozenset({WEBSOCKET}) if is_websocket else without_head(rule.methods or ())
        if getattr(rule, "provide_automatic_options", False):
            methods -= {"OPTIONS"}
        view = app.view_functions.get(rule.endpoint)
        view_class = getattr(view, "view_class", None)
        blueprints = [app.blueprints[name] for name in blueprint_names(rule.endpoint) if name in app.blueprints]
        hooks = hooks_before(app, rule.endpoint, is_websocket=is_websocket)
        for method in sorted(methods):
            function = getattr(view_class, method.lower(), None)
            marked = [function, view_class, view]
            found.append(
                AppRoute(
                    path=around.prefix + template(rule.rule),
                    around=around,
                    methods=frozenset({method}),
                    endpoint="static files" if rule.endpoint.endswith("static") else name_of(view_class or view),
                    declared=(*access_declarations(*marked, *blueprints), *requirement_declarations(*hooks, *marked)),
                    called=tuple(item for item in (function, view) if item is not None),
                )
            )
    return found


def template(rule: str) -> str:
    """Return the template of a Flask *rule* in the syntax of scopeguard's rules."""
    return _VARIABLE.sub(lambda found: f"{{{found[2]}{':path' if found[1] == 'path' else ''}}}", rule)


def blueprint_names(endpoint: str) -> list[str]:
    """Return the names of the blueprints around *endpoint*, the innermost first."""
    parts = endpoint.split(".")[:-1]
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def marked_objects(app: Any, view: Any, endpoint: str, method: str) -> list[Any]:
    """Return the objects that decorators may have marked for *view*, the most specific first."""
    found: list[Any] = [app.blueprints[name] for name in blueprint_names(endpoint) if name in app.blueprints]
    if view is None:
        return found
    view_class = getattr(view, "view_class", None)
    function = getattr(view_class, method.lower(), None)
    if function is None and method == "HEAD":
        function = getattr(view_class, "get", None)
    return [function, view_class, view, *found]


def hooks_before(app: Any, endpoint: str, *, is_websocket: bool = False) -> list[Any]:
    """Return the functions given to ``before_request`` that the app calls before the view of *endpoint*."""
    functions = app.before_websocket_funcs if is_websocket else app.before_request_funcs
    return [hook for name in (None, *blueprint_names(endpoint)) for hook in functions.get(name, ())]

"""The routes of an app, whatever it was made with and wrapped in.

Frameworks are known by the types of what is given, so none is imported that the app did not import before. What cannot
be looked into is one route, marked as opaque, which stands for all that it may answer.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

from scopeguard.adapter.declared import Layer
from scopeguard.audit.route import Around, Found, opaque

_INNER: Final = ("app", "wsgi_app", "_app", "application", "__wrapped__")
_DEEPEST: Final = 100


def walk(app: Any, around: Around) -> list[Found]:
    """The routes of *app*, in the order in which it tries them."""
    flask: Any = None
    given = app
    for _ in range(_DEEPEST):
        if isinstance(app, Layer):
            around = around.within([app])
            app = app.app
            continue
        around = around.past(app)
        owner = app.__self__ if inspect.ismethod(app) else None
        framework = _framework(app if owner is None else owner)
        if framework == "flask":
            if owner is not None:
                flask = owner
                break
            # Its own middleware is put around wsgi_app, and the innermost of that is a method of the app.
            flask = app
            app = app.wsgi_app
            continue
        if framework == "starlette":
            from scopeguard.audit import starlette_routes  # noqa: PLC0415 - imports its framework

            return starlette_routes.routes(app, around, walk)
        if framework == "django":
            from scopeguard.audit import django_routes  # noqa: PLC0415 - imports its framework

            return django_routes.routes(around)
        mounts = getattr(app, "mounts", None)
        if isinstance(mounts, dict):  # werkzeug's DispatcherMiddleware, and its like
            below = [found for path, inner in mounts.items() for found in walk(inner, around.at(path))]
            return [*below, *walk(app.app, around)]
        inner = next((getattr(app, name) for name in _INNER if callable(getattr(app, name, None))), None)
        if inner is None:
            break
        app = inner
    if flask is not None:
        from scopeguard.audit import flask_routes  # noqa: PLC0415 - imports its framework

        return flask_routes.routes(flask, around)
    return [opaque(given, around)]


_FRAMEWORKS: Final = {
    ("starlette.applications", "Starlette"): "starlette",
    ("starlette.routing", "Router"): "starlette",
    ("starlette.staticfiles", "StaticFiles"): "starlette",
    ("flask.app", "Flask"): "flask",
    ("django.core.handlers.wsgi", "WSGIHandler"): "django",
    ("django.core.handlers.asgi", "ASGIHandler"): "django",
}


def _framework(app: Any) -> str | None:
    for kind in type(app).__mro__:
        found = _FRAMEWORKS.get((kind.__module__, kind.__qualname__))
        if found is not None:
            return found
    return None

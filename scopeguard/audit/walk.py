"""The routes of an app of any supported framework, through the middleware around it.

A framework is recognised by the type of an app, so that the audit imports only frameworks that the app has imported. An
app that cannot be inspected becomes one opaque route, which stands for all its paths.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

from scopeguard.adapter.declarations import Layer
from scopeguard.audit.route import AppRoute, Surroundings, opaque_route

_INNER: Final = ("app", "wsgi_app", "_app", "application", "__wrapped__")
_DEEPEST: Final = 100


def find_routes(app: Any, around: Surroundings) -> list[AppRoute]:
    """Return the routes of *app*, in the order in which it matches them."""
    flask: Any = None  # or a Quart app, which has the same attributes
    outermost = app
    for _ in range(_DEEPEST):
        if isinstance(app, Layer):
            around = around.enter_layers([app])
            app = app.app
            continue
        around = around.enter(app)
        owner = app.__self__ if inspect.ismethod(app) else None
        framework = _framework(app if owner is None else owner)
        if framework in _WRAPPED:
            if owner is not None:
                flask = owner
                break
            # Users wrap middleware around this attribute. The innermost one is a method of the app.
            flask = app
            app = getattr(app, _WRAPPED[framework])
            continue
        if framework == "litestar":
            app = app.asgi_handler  # Litestar calls it for requests, and users wrap middleware around it
            continue
        if framework == "litestar router":
            from scopeguard.audit import litestar_routes  # noqa: PLC0415 - imports its framework

            return litestar_routes.find_routes(app.app, around)
        if framework == "starlette":
            from scopeguard.audit import starlette_routes  # noqa: PLC0415 - imports its framework

            return starlette_routes.find_routes(app, around, find_routes)
        if framework == "django":
            from scopeguard.audit import django_routes  # noqa: PLC0415 - imports its framework

            return django_routes.find_routes(around)
        if framework == "aiohttp":
            from scopeguard.audit import aiohttp_routes  # noqa: PLC0415 - imports its framework

            return aiohttp_routes.find_routes(app, around)
        if framework == "falcon":
            from scopeguard.audit import falcon_routes  # noqa: PLC0415 - imports its framework

            return falcon_routes.find_routes(app, around)
        mounts = getattr(app, "mounts", None)
        if isinstance(mounts, dict):  # werkzeug's DispatcherMiddleware, for example
            mounted = [
                found for path, inner in mounts.items() for found in find_routes(inner, around.enter_mount(path))
            ]
            return [*mounted, *find_routes(app.app, around)]
        inner = next((getattr(app, name) for name in _INNER if callable(getattr(app, name, None))), None)
        if inner is None:
            break
        app = inner
    if flask is not None:
        from scopeguard.audit import flask_routes  # noqa: PLC0415 - imports its framework

        return flask_routes.find_routes(flask, around)
    return [opaque_route(outermost, around)]


_WRAPPED: Final = {"flask": "wsgi_app", "quart": "asgi_app"}
_FRAMEWORKS: Final = {
    ("starlette.applications", "Starlette"): "starlette",
    ("scopeguard.audit.starlette_routes", "Stack"): "starlette",
    ("starlette.routing", "Router"): "starlette",
    ("starlette.staticfiles", "StaticFiles"): "starlette",
    ("flask.app", "Flask"): "flask",
    ("aiohttp.web_app", "Application"): "aiohttp",
    ("falcon.app", "App"): "falcon",
    ("quart.app", "Quart"): "quart",
    ("litestar.app", "Litestar"): "litestar",
    ("litestar._asgi.asgi_router", "ASGIRouter"): "litestar router",
    ("django.core.handlers.wsgi", "WSGIHandler"): "django",
    ("django.core.handlers.asgi", "ASGIHandler"): "django",
    ("django.urls.resolvers", "URLResolver"): "django",
}


def _framework(app: Any) -> str | None:
    for kind in type(app).__mro__:
        found = _FRAMEWORKS.get((kind.__module__, kind.__qualname__))
        if found is not None:
            return found
    return None

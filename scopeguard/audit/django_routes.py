"""The routes of Django, from the URL configuration. It has no methods, so each route stands for all methods."""

from __future__ import annotations

import re
from typing import Any, Final

from django.conf import settings
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RoutePattern
from django.utils.module_loading import import_string

from scopeguard.adapter.declarations import Declaration
from scopeguard.audit.route import ANYTHING, AppRoute, Surroundings, name_of, requirement_declarations

_VARIABLE: Final = re.compile(r"<(?:([A-Za-z_]\w*):)?([A-Za-z_]\w*)>")


def find_routes(around: Surroundings) -> list[AppRoute]:
    """Return the routes of the project. A regular expression and the paths below it become one opaque route."""
    for middleware in settings.MIDDLEWARE:
        around = around.inside(import_string(middleware))
    return [found for item in get_resolver().url_patterns for found in _routes_of(item, "/", around)]


def _routes_of(item: Any, path: str, around: Surroundings) -> list[AppRoute]:
    known = isinstance(item.pattern, RoutePattern)
    if known:
        path += _VARIABLE.sub(lambda found: f"{{{found[2]}{':path' if found[1] == 'path' else ''}}}", str(item.pattern))
    if isinstance(item, URLResolver) and known:
        return [found for inner in item.url_patterns for found in _routes_of(inner, path, around)]
    declared: tuple[Declaration, ...] = ()
    endpoint = "URL configuration"
    if isinstance(item, URLPattern):
        view_class = getattr(item.callback, "view_class", None)
        declared = requirement_declarations(item.callback)
        endpoint = name_of(view_class or item.callback)
    return [
        AppRoute(
            path=around.prefix + (path if known else path.rstrip("/") + ANYTHING),
            around=around,
            endpoint=endpoint,
            declared=declared,
            opaque=not known,
        )
    ]

"""The routes of Django, from the URL configuration. It has no methods, so each route stands for all methods."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from django.conf import settings
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RoutePattern
from django.utils.module_loading import import_string

from scopeguard.adapter.declarations import FIND_LAYER, REQUIREMENT, Declaration
from scopeguard.audit.route import (
    ANYTHING,
    AppRoute,
    Surroundings,
    access_declarations,
    name_of,
    requirement_declarations,
)

_VARIABLE: Final = re.compile(r"<(?:([A-Za-z_]\w*):)?([A-Za-z_]\w*)>")


def find_routes(around: Surroundings) -> list[AppRoute]:
    """Return the routes of the project. A regular expression and the paths below it become one opaque route."""
    for path in settings.MIDDLEWARE:
        middleware = import_string(path)
        find_layer = getattr(middleware, FIND_LAYER, None)
        around = around.enter(middleware) if find_layer is None else around.enter_layers([find_layer()])
    found = [found for item in get_resolver().url_patterns for found in _routes_of(item, "/", around)]
    # Django Ninja has a pattern for each operation, and every one of them leads to all operations of the path.
    return list({(one.path, one.methods, one.endpoint, one.declared, one.called): one for one in found}.values())


def _routes_of(item: Any, path: str, around: Surroundings) -> list[AppRoute]:
    known = isinstance(item.pattern, RoutePattern)
    if known:
        path += _VARIABLE.sub(lambda found: f"{{{found[2]}{':path' if found[1] == 'path' else ''}}}", str(item.pattern))
    if isinstance(item, URLResolver) and known:
        return [found for inner in item.url_patterns for found in _routes_of(inner, path, around)]
    view = item.callback if isinstance(item, URLPattern) else None
    view_class = view_class_of(view)
    route = AppRoute(
        path=around.prefix + (path if known else path.rstrip("/") + ANYTHING),
        around=around,
        endpoint="URL configuration" if view is None else name_of(view_class or view),
        declared=_declarations(view, ""),
        called=() if view is None or view_class is not None else (view,),
        opaque=not known,
    )
    operations = operations_of(view)
    if operations:
        return [_operation_route(route, view, one) for one in operations]
    # A method of a view class with a declaration of its own has a route of its own, before that of all methods.
    own = {name.upper(): _declarations(view, name.upper()) for name in _methods_of(view)}
    return [
        *(
            replace(route, methods=frozenset({method}), declared=declared)
            for method, declared in own.items()
            if declared != route.declared
        ),
        route,
    ]


def _operation_route(route: AppRoute, view: Any, operation: Any) -> AppRoute:
    return replace(
        route,
        methods=frozenset(operation.methods),
        endpoint=name_of(operation.view_func),
        declared=_declarations(view, operation.methods[0]),
        called=(operation.view_func,),
    )


def _declarations(view: Any, method: str) -> tuple[Declaration, ...]:
    marked = marked_objects(view, method)
    return (*access_declarations(*marked), *requirement_declarations(*marked))


def _methods_of(view: Any) -> list[str]:
    view_class = view_class_of(view)
    actions = getattr(view, "actions", None) or {}
    return [
        name
        for name in getattr(view_class, "http_method_names", ())
        if name not in ("head", "options") and hasattr(view_class, actions.get(name, name))
    ]


def view_class_of(view: Any) -> Any:
    """Return the class that *view* calls, of Django or of Django REST framework; ``None`` for a function."""
    return getattr(view, "view_class", None) or getattr(view, "cls", None)


def operations_of(view: Any) -> list[Any]:
    """Return the operations of Django Ninja among which *view* chooses by the method; none for any other view.

    The view is a closure over the object that has them. If another version of Django Ninja has other names, the
    operations check their requirements themselves.
    """
    code = getattr(view, "__code__", None)
    if code is None or "self" not in code.co_freevars:
        return []
    owner = view.__closure__[code.co_freevars.index("self")].cell_contents
    if not any(base.__module__ == "ninja.operation" for base in type(owner).__mro__):
        return []
    return list(getattr(owner, "operations", ()))


def distinguishes_methods(view: Any) -> bool:
    """Return whether *view* calls another function for each method. A view that is a function need not do so."""
    return view_class_of(view) is not None or bool(operations_of(view))


def methods_with_declarations(view: Any) -> frozenset[str]:
    """Return the methods for which *view* may have declarations of their own."""
    named = {name.upper() for name in getattr(view_class_of(view), "http_method_names", ())}
    return frozenset(named.union(*(operation.methods for operation in operations_of(view))))


def marked_objects(view: Any, method: str) -> list[Any]:
    """Return the objects that decorators may have marked for *view*, the most specific first."""
    operation = next((one for one in operations_of(view) if method in one.methods), None)
    if operation is not None:
        # One successful callback for authentication suffices, so with several none of them is required.
        required = operation.auth_callbacks if len(operation.auth_callbacks) == 1 else ()
        return [operation.view_func, *(one for one in required if hasattr(one, REQUIREMENT)), view]
    view_class = view_class_of(view)
    if view_class is None:
        return [view]
    actions: dict[str, str] = getattr(view, "actions", None) or {}
    name = method.lower()
    if name == "head" and not hasattr(view_class, "head"):
        name = "get"
    function = getattr(view_class, actions.get(name, name), None) if name else None
    # A permission class of Django REST framework, for the whole view.
    permissions = [kind for kind in _permissions_of(view, view_class) if hasattr(kind, REQUIREMENT)]
    bases = [base for base in view_class.__mro__[1:] if REQUIREMENT in vars(base)]
    return [function, view_class, *bases, *permissions, view]


def _permissions_of(view: Any, view_class: Any) -> Iterable[Any]:
    given = getattr(view, "initkwargs", None) or getattr(view, "view_initkwargs", None) or {}
    found = given.get("permission_classes", getattr(view_class, "permission_classes", ()))
    return found if isinstance(found, list | tuple) else ()

"""What stands between a guard and the routes of its app, and changes what they see: prefixes that are taken off the
path, and methods that are overridden.

Frameworks are known by the types of what is given, so none is imported. Of other objects and functions the attributes,
closures and globals are searched for apps, and the code for the keys of a request that it may rewrite. What cannot be
looked into is unknown, and so is code that mentions those keys: it need not rewrite them.
"""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, Final

from scopeguard.adapter.declarations import Layer
from scopeguard.audit.reach import (
    codes_of,
    is_function,
    is_plain,
    is_stripper,
    is_worth_a_look,
    mentions_path,
    texts_of,
    values_of,
)
from scopeguard.audit.route import name_of
from scopeguard.rules.routed import Place, Prefixes

_MOST_OBJECTS: Final = 5_000
_OVERRIDE: Final = re.compile(r"method[-_]?(?:override|rewrite)|\A_method\Z", re.IGNORECASE)

# The methods and attributes by which each kind of app routes. A subclass that defines one of them, or an object with a
# function of its own in its place, may route by another path.
_ROUTING: Final[dict[str, tuple[str, ...]]] = {
    "layer": ("__call__", "app"),
    "starlette": ("__call__", "build_middleware_stack", "middleware_stack", "router"),
    "router": ("__call__", "app", "middleware_stack", "default", "not_found", "routes"),
    "mount": ("__call__", "matches", "handle", "app"),
    "host": ("__call__", "matches", "handle", "app"),
    "route": ("__call__", "matches", "handle", "app"),
    "leaf": ("__call__", "get_path", "lookup_path"),
    "flask": (
        *("__call__", "wsgi_app", "request_context", "request_class", "create_url_adapter", "url_map", "url_map_class"),
        *("url_rule_class", "full_dispatch_request", "preprocess_request", "dispatch_request", "view_functions"),
    ),
    "flask request": ("__new__", "__init__", "environ", "path", "root_path", "script_root"),
    "flask map": ("bind", "bind_to_environ"),
    "django": ("__call__", "request_class", "load_middleware", "get_response", "get_response_async"),
}
_ALWAYS_ROUTING: Final = ("__getattribute__", "__getattr__")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What was found. *prefixes*: for decisions. *hidden*: apps that take off a prefix of their own where a reader does
    not see it, each as where it stands, its name and the prefix. *unknown*: names of what cannot be looked into.
    *overrides*: names of what changes the method of requests. *watched*: objects, the names of their attributes that
    decided what was found, and the values of these."""

    prefixes: Prefixes = field(default_factory=Prefixes)
    hidden: tuple[tuple[str, str, str], ...] = ()
    unknown: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    watched: tuple[tuple[Any, str, Any], ...] = ()


def inside(app: Any, declared: str | None = None) -> Inside:
    """What stands inside a guard around *app*. *declared*: what the operator says that the app takes off paths."""
    search = _Search()
    try:
        search.look(app, Place(), outermost=True, plain=True)
    except Exception:  # noqa: BLE001 - an app may be made of anything, and one that fails here is unknown
        search.unknown.append((name_of(app), Place()))
    mounted = dict.fromkeys(search.mounted)
    if declared and search.root_path not in ("", declared):
        mounted[Place(), search.root_path] = None
    return Inside(
        prefixes=Prefixes(
            root_path=declared or search.root_path,
            mounted=tuple(mounted),
            unknown=tuple(dict.fromkeys(place for _, place in search.unknown)) if declared is None else (),
        ),
        hidden=tuple(dict.fromkeys(search.hidden)),
        unknown=tuple(dict.fromkeys(name for name, _ in search.unknown)) if declared is None else (),
        overrides=tuple(search.overrides),
        watched=tuple(search.watched),
    )


class _Search:
    def __init__(self) -> None:
        self.root_path = ""
        self.mounted: list[tuple[Place, str]] = []
        self.hidden: list[tuple[str, str, str]] = []
        self.unknown: list[tuple[str, Place]] = []
        self.overrides: dict[str, None] = {}
        self.watched: list[tuple[Any, str, Any]] = []
        self._seen: list[Any] = []  # keeps what was made on the way alive, so that no id comes twice
        self._ids: set[tuple[int, Place]] = set()
        self._looked: set[int] = set()

    def look(self, app: Any, place: Place, *, outermost: bool, plain: bool) -> None:
        """Look into *app* at *place*. *outermost*: nothing routes before it. *plain*: a reader sees it there."""
        if (id(app), place) in self._ids:
            return
        if len(self._ids) > _MOST_OBJECTS:
            self.unknown.append((name_of(app), place))
            return
        self._seen.append(app)
        self._ids.add((id(app), place))
        self._looked.add(id(app))
        kind = "layer" if isinstance(app, Layer) else _kind(app)
        if _routes_its_own_way(app, kind):
            self.unknown.append((name_of(app), place))
        if kind == "layer":
            self.look(app.app, place, outermost=outermost, plain=plain)
        elif kind == "starlette":
            self._application(app, place, outermost=outermost, plain=plain)
        elif kind == "router":
            self._router(app, place)
        elif kind == "flask":
            self._flask(app, place, outermost=outermost, plain=plain)
        elif kind == "django":
            self._django(app, place, outermost=outermost, plain=plain)
        elif kind == "middleware":
            mounts = getattr(app, "mounts", None)  # werkzeug's DispatcherMiddleware
            if isinstance(mounts, dict):
                self._watch(app, "mounts")
            for path, inner in mounts.items() if isinstance(mounts, dict) else ():
                self.look(inner, _below(place, str(path)), outermost=False, plain=plain)
            self.look(app.app, place, outermost=outermost and not mounts, plain=plain)
            for part in vars(app).values():  # the function of a BaseHTTPMiddleware
                if isinstance(part, FunctionType):
                    self._helper(part, place)
        elif kind not in ("leaf", "django wsgi"):
            self._other(app, place, outermost=outermost)

    def _application(self, app: Any, place: Place, *, outermost: bool, plain: bool) -> None:
        self._watch(app, "user_middleware")
        self._watch(app, "router")
        if _is_of(app, "fastapi"):  # only FastAPI puts its own in the place of the server's
            own = app.root_path
            self._watch(app, "root_path")
            if own and isinstance(own, str):
                self._own(app, own, place, outermost=outermost, plain=plain)
        for item in app.user_middleware:
            self._middleware(item, place)
        self._router(app.router, place)

    def _own(self, app: Any, own: str, place: Place, *, outermost: bool, plain: bool) -> None:
        if outermost and self.root_path in ("", own):
            self.root_path = own
        else:
            self.mounted.append((place, own))
        if not (outermost and plain):
            self.hidden.append((place.beginning, name_of(app), own))

    def _middleware(self, item: Any, place: Place) -> None:
        """Middleware that is yet to be constructed, as Starlette lists it."""
        made = item.cls
        self._names(made)
        if isinstance(made, type) and issubclass(made, Layer):
            if _defines(made, Layer, _ROUTING["layer"]):
                self.unknown.append((name_of(made), place))
        elif not (isinstance(made, type) and is_plain(made.__module__)):
            self._helper(made, place)
            if not codes_of(made):
                self.unknown.append((name_of(made), place))
        for value in (*item.args, *item.kwargs.values()):
            if is_worth_a_look(value):
                self._helper(value, place)

    def _router(self, router: Any, place: Place) -> None:
        from scopeguard.audit.starlette_routes import expand_routes  # noqa: PLC0415 - imports its framework

        self._watch_routes(router)
        stack = getattr(router, "middleware_stack", None)
        if stack is not None and getattr(stack, "__self__", None) is not router:
            self.look(stack, place, outermost=False, plain=True)
        for route in expand_routes(router):
            self._route(getattr(route, "original_route", route), place)
        default = getattr(router, "default", None)
        if default is not None and getattr(default, "__self__", None) is not router:
            self.look(default, place, outermost=False, plain=True)

    def _route(self, route: Any, place: Place) -> None:
        kind = _kind(route)
        if _routes_its_own_way(route, kind):
            self.unknown.append((name_of(route), place))
        if kind == "mount":
            self.look(route.app, _below(place, route.path), outermost=False, plain=True)
        elif kind == "host":
            self.look(route.app, place, outermost=False, plain=True)
        elif kind == "route":
            endpoint = getattr(route, "endpoint", None)
            # Starlette takes an endpoint that is neither a function nor a class for an app.
            if callable(endpoint) and not isinstance(endpoint, type) and not is_function(endpoint):
                self.look(endpoint, place, outermost=False, plain=True)
        elif not (_is_of(route, "fastapi") and is_plain(type(route).__module__)):
            self.unknown.append((name_of(route), place))

    def _flask(self, app: Any, place: Place, *, outermost: bool, plain: bool) -> None:
        for name, kind in (("request_class", "flask request"), ("url_map", "flask map")):
            self._watch(app, name)
            part = getattr(app, name)
            made = part if isinstance(part, type) else type(part)
            if _defines(made, None, _ROUTING[kind]) or any(map(mentions_path, codes_of(made))):
                self.unknown.append((name_of(made), place))
        self._helper(type(app.session_interface), place)  # it opens the session of a request before routing
        self._watch(app, "wsgi_app")
        inner = app.wsgi_app
        if not (inspect.ismethod(inner) and inner.__self__ is app):
            self.look(inner, place, outermost=outermost, plain=plain)

    def _django(self, app: Any, place: Place, *, outermost: bool, plain: bool) -> None:
        """Django's ASGI handler takes FORCE_SCRIPT_NAME off the path; that for WSGI takes nothing off."""
        settings = getattr(sys.modules.get("django.conf"), "settings", None)
        own = getattr(settings, "FORCE_SCRIPT_NAME", None)
        if own and isinstance(own, str):
            self._own(app, own, place, outermost=outermost, plain=plain)

    def _other(self, app: Any, place: Place, *, outermost: bool) -> None:
        """An object or a function of which nothing is known but what can be seen of it."""
        apps, rewrites = self._reach(app)
        if rewrites or not apps:
            self.unknown.append((name_of(app), place))
        for inner in apps:
            self.look(inner, place, outermost=outermost and len(apps) == 1 and not rewrites, plain=False)

    def _helper(self, helper: Any, place: Place) -> None:
        """What stands beside an app: a function that middleware calls, or middleware that is yet to be made."""
        apps, rewrites = self._reach(helper)
        if rewrites:
            self.unknown.append((name_of(helper), place))
        for app in apps:
            if id(app) not in self._looked:  # it may name the app that it belongs to
                self.look(app, place, outermost=False, plain=False)

    def _watch_routes(self, router: Any) -> None:
        self._watch(router, "routes")
        for route in router.routes:
            included = getattr(route, "original_router", None)  # FastAPI's, which sees what is added to it later
            if included is not None:
                self._watch_routes(included)

    def _watch(self, owner: Any, name: str) -> None:
        value = getattr(owner, name)
        self.watched.append((owner, name, value.copy() if isinstance(value, list | dict) else value))

    def _reach(self, start: Any) -> tuple[list[Any], bool]:
        """The apps that *start* may call, as far as they can be seen, and whether its code may rewrite requests."""
        apps: list[Any] = []
        rewrites, todo, seen = False, [start], {id(start)}
        while todo:
            item = todo.pop()
            self._seen.append(item)
            self._names(item)
            rewrites = rewrites or any(map(mentions_path, codes_of(item)))
            for value in values_of(item):
                rewrites = rewrites or is_stripper(value) or _makes_apps(value)
                if id(value) in seen or len(seen) > _MOST_OBJECTS:
                    continue
                seen.add(id(value))
                if _kind(value) is not None or isinstance(value, Layer):
                    apps.append(value)
                elif is_worth_a_look(value):
                    todo.append(value)
        return apps, rewrites

    def _names(self, item: Any) -> None:
        """Remember *item* if it changes methods."""
        found = [text for code in codes_of(item) for text in texts_of(code)]
        if _OVERRIDE.search(name_of(item)) or any(map(_OVERRIDE.search, found)):
            self.overrides[name_of(item)] = None


def _below(place: Place, path: str) -> Place:
    """The place of an app that is mounted at *path*, a template, in an app at *place*."""
    if "path}" in path:  # it may take any number of segments
        return place
    beginning = place.beginning
    if beginning.count("/") == place.depth:  # else a parameter comes before; a short beginning holds more paths
        plain, mark, _ = path.partition("{")
        beginning += plain.rpartition("/")[0] if mark else plain.rstrip("/")
    return Place(beginning=beginning, depth=place.depth + path.rstrip("/").count("/"))


_KINDS: Final = {
    ("starlette.applications", "Starlette"): "starlette",
    ("scopeguard.audit.starlette_routes", "Stack"): "starlette",
    ("starlette.routing", "Router"): "router",
    ("starlette.routing", "Mount"): "mount",
    ("starlette.routing", "Host"): "host",
    ("starlette.routing", "Route"): "route",
    ("starlette.routing", "WebSocketRoute"): "route",
    ("starlette.staticfiles", "StaticFiles"): "leaf",
    ("starlette.responses", "Response"): "leaf",
    ("django.core.handlers.wsgi", "WSGIHandler"): "django wsgi",
    ("django.core.handlers.asgi", "ASGIHandler"): "django",
    ("flask.app", "Flask"): "flask",
}


def _kind(app: Any) -> str | None:
    if isinstance(app, type):
        return None
    found = _kind_of(type(app))
    if found is not None:
        return found
    module = type(app).__module__
    if module.startswith(("starlette.middleware", "fastapi.middleware", "werkzeug.middleware")):
        return "middleware" if callable(getattr(app, "app", None)) else None
    return None


def _kind_of(made: type) -> str | None:
    return next((_KINDS[_key(base)] for base in made.__mro__ if _key(base) in _KINDS), None)


def _key(made: type) -> tuple[str, str]:
    return made.__module__, made.__qualname__


def _makes_apps(value: Any) -> bool:
    """Whether *value* is a class of apps or routes: what is made of it when a request comes cannot be seen before."""
    kind = _kind_of(value) if isinstance(value, type) else None
    return kind not in (None, "leaf") and not issubclass(value, Layer)


def _routes_its_own_way(app: Any, kind: str | None) -> bool:
    """Whether *app* routes otherwise than its *kind* does: its class defines how, or it has functions of its own."""
    if kind not in _ROUTING:
        return False
    names = _ROUTING[kind]
    known = next((base for base in type(app).__mro__ if _key(base) in _KINDS), Layer if kind == "layer" else None)
    own = getattr(app, "__dict__", {})
    replaced = [name for name in names if name in own and isinstance(getattr(type(app), name, None), FunctionType)]
    return _defines(type(app), known, names) or bool(set(replaced) - {"wsgi_app"})


def _defines(made: type, known: type | None, names: tuple[str, ...]) -> bool:
    """Whether *made*, or a base that comes before *known*, defines one of *names* in code that is not of a library that
    is known."""
    for base in made.__mro__:
        if base is known:
            return False
        if not is_plain(base.__module__) and not vars(base).keys().isdisjoint((*names, *_ALWAYS_ROUTING)):
            return True
    return False


def _is_of(app: Any, package: str) -> bool:
    return any(base.__module__.partition(".")[0] == package for base in type(app).__mro__)

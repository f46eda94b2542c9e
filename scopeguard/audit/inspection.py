"""Find the code between a guard and the routes of its app that changes requests.

It may remove a prefix from the path or override the method. A framework is recognised by the type of an object, so that
none is imported. In other objects and functions, this module searches attributes, closures and globals for apps, and
the code for the keys of a request that contain the path. Code that mentions such a key counts as unknown, even if it
does not rewrite the path. So does an object that cannot be inspected.
"""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, Final

from scopeguard.adapter.declarations import Layer
from scopeguard.audit.call_graph import (
    assigns,
    codes_of,
    is_function,
    is_known_library,
    may_call_apps,
    mentions_path,
    removes_prefix,
    texts_of,
    values_of,
)
from scopeguard.audit.loose_mounts import Gets, falcon_sinks, litestar_mounts
from scopeguard.audit.route import name_of
from scopeguard.rules.prefix_removal import MountPoint, Prefixes

_MOST_OBJECTS: Final = 5_000
_OVERRIDE: Final = re.compile(r"method[-_]?(?:override|rewrite)|\A_method\Z", re.IGNORECASE)

# The methods and attributes by which each kind of app routes. A subclass that defines one of them may route by another
# path, and so may an instance that has a function in its place.
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
    "falcon": ("__call__", "_get_responder"),
    "falcon request": ("__init__", "path"),
    "django": ("__call__", "request_class", "load_middleware", "get_response", "get_response_async"),
}
_ALWAYS_ROUTING: Final = ("__getattribute__", "__getattr__")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The result of an inspection.

    *prefixes*: the prefixes that apps remove from the path, for decisions. *hidden*: the place, the name and the prefix
    of each app that removes a prefix unnoticed. *unknown*: the names of objects that cannot be inspected. *overrides*:
    the names of code that may change the method of requests. *watched*: the objects, attribute names and values on
    which the result depends.
    """

    prefixes: Prefixes = field(default_factory=Prefixes)
    hidden: tuple[tuple[str, str, str], ...] = ()
    unknown: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    watched: tuple[tuple[Any, str, Any], ...] = ()


def inspect_app(app: Any, declared: str | None = None) -> Inspection:
    """Inspect *app*, which is inside a guard. *declared*: the configured prefix that the app removes from paths."""
    search = _Search()
    try:
        search.inspect(app, MountPoint(), outermost=True, is_visible=True)
    except Exception:  # noqa: BLE001 - any object may be an app, and an app that fails here is unknown
        search.unknown.append((name_of(app), MountPoint()))
    mounted = dict.fromkeys(search.mounted)
    if declared and search.root_path not in ("", declared):
        mounted[MountPoint(), search.root_path] = None
    return Inspection(
        prefixes=Prefixes(
            root_path=declared or search.root_path,
            mounted=tuple(mounted),
            unknown=tuple(dict.fromkeys(mount for _, mount in search.unknown)) if declared is None else (),
            loose=tuple(search.loose),
        ),
        hidden=tuple(dict.fromkeys(search.hidden)),
        unknown=tuple(dict.fromkeys(name for name, _ in search.unknown)) if declared is None else (),
        overrides=tuple(search.overrides),
        watched=tuple(search.watched),
    )


class _Search:
    def __init__(self) -> None:
        self.root_path = ""
        self.mounted: list[tuple[MountPoint, str]] = []
        self.hidden: list[tuple[str, str, str]] = []
        self.unknown: list[tuple[str, MountPoint]] = []
        self.loose: list[Gets] = []
        self.overrides: dict[str, None] = {}
        self.watched: list[tuple[Any, str, Any]] = []
        self._seen: list[Any] = []  # keeps temporary objects alive, so that no id occurs twice
        self._ids: set[tuple[int, MountPoint]] = set()
        self._inspected: set[int] = set()

    def inspect(self, app: Any, mount: MountPoint, *, outermost: bool, is_visible: bool) -> None:
        """Inspect *app* at *mount*.

        *outermost*: no other app routes before it. *is_visible*: it was found without a search of
        attributes, closures and globals.
        """
        if (id(app), mount) in self._ids:
            return
        if len(self._ids) > _MOST_OBJECTS:
            self.unknown.append((name_of(app), mount))
            return
        self._seen.append(app)
        self._ids.add((id(app), mount))
        self._inspected.add(id(app))
        kind = "layer" if isinstance(app, Layer) else _kind(app)
        if _overrides_routing(app, kind):
            self.unknown.append((name_of(app), mount))
        if kind == "layer":
            self.inspect(app.app, mount, outermost=outermost, is_visible=is_visible)
        elif kind == "starlette":
            self._inspect_starlette(app, mount, outermost=outermost, is_visible=is_visible)
        elif kind == "router":
            self._inspect_router(app, mount)
        elif kind == "flask":
            self._inspect_flask(app, mount, outermost=outermost, is_visible=is_visible)
        elif kind == "django":
            self._inspect_django(app, mount, outermost=outermost, is_visible=is_visible)
        elif kind == "falcon":
            self._inspect_falcon(app, mount)
        elif kind == "middleware":
            mounts = getattr(app, "mounts", None)  # werkzeug's DispatcherMiddleware
            if isinstance(mounts, dict):
                self._watch(app, "mounts")
            for path, inner in mounts.items() if isinstance(mounts, dict) else ():
                self.inspect(inner, _inner_mount(mount, str(path)), outermost=False, is_visible=is_visible)
            self.inspect(app.app, mount, outermost=outermost and not mounts, is_visible=is_visible)
            for part in vars(app).values():  # the function of a BaseHTTPMiddleware
                if isinstance(part, FunctionType):
                    self._inspect_helper(part, mount)
        elif kind not in ("leaf", "django wsgi"):
            if kind == "litestar":
                self._watch(app, "routes")
                self.loose += litestar_mounts(app, mount.beginning)
            self._inspect_other(app, mount, outermost=outermost)

    def _inspect_starlette(self, app: Any, mount: MountPoint, *, outermost: bool, is_visible: bool) -> None:
        self._watch(app, "user_middleware")
        self._watch(app, "router")
        if _is_of(app, "fastapi"):  # only FastAPI replaces the root_path of the server with its own
            own = app.root_path
            self._watch(app, "root_path")
            if own and isinstance(own, str):
                self._add_root_path(app, own, mount, outermost=outermost, is_visible=is_visible)
        for item in app.user_middleware:
            self._inspect_middleware(item, mount)
        self._inspect_router(app.router, mount)

    def _add_root_path(self, app: Any, own: str, mount: MountPoint, *, outermost: bool, is_visible: bool) -> None:
        if outermost and self.root_path in ("", own):
            self.root_path = own
        else:
            self.mounted.append((mount, own))
        if not (outermost and is_visible):
            self.hidden.append((mount.beginning, name_of(app), own))

    def _inspect_middleware(self, item: Any, mount: MountPoint) -> None:
        """Inspect middleware in Starlette's list, which is not constructed yet."""
        made = item.cls
        self._note_override(made)
        if isinstance(made, type) and issubclass(made, Layer):
            if _defines(made, Layer, _ROUTING["layer"]):
                self.unknown.append((name_of(made), mount))
        elif not (isinstance(made, type) and is_known_library(made.__module__)):
            self._inspect_helper(made, mount)
            if not codes_of(made):
                self.unknown.append((name_of(made), mount))
        for value in (*item.args, *item.kwargs.values()):
            if may_call_apps(value):
                self._inspect_helper(value, mount)

    def _inspect_router(self, router: Any, mount: MountPoint) -> None:
        from scopeguard.audit.starlette_routes import expand_routes  # noqa: PLC0415 - imports its framework

        self._watch_routes(router)
        stack = getattr(router, "middleware_stack", None)
        if stack is not None and getattr(stack, "__self__", None) is not router:
            self.inspect(stack, mount, outermost=False, is_visible=True)
        for route in expand_routes(router):
            self._inspect_route(getattr(route, "original_route", route), mount)
        default = getattr(router, "default", None)
        if default is not None and getattr(default, "__self__", None) is not router:
            self.inspect(default, mount, outermost=False, is_visible=True)

    def _inspect_route(self, route: Any, mount: MountPoint) -> None:
        kind = _kind(route)
        if _overrides_routing(route, kind):
            self.unknown.append((name_of(route), mount))
        if kind == "mount":
            self.inspect(route.app, _inner_mount(mount, route.path), outermost=False, is_visible=True)
        elif kind == "host":
            self.inspect(route.app, mount, outermost=False, is_visible=True)
        elif kind == "route":
            endpoint = getattr(route, "endpoint", None)
            # Starlette treats an endpoint as an app if it is neither a function nor a class.
            if callable(endpoint) and not isinstance(endpoint, type) and not is_function(endpoint):
                self.inspect(endpoint, mount, outermost=False, is_visible=True)
        elif not (_is_of(route, "fastapi") and is_known_library(type(route).__module__)):
            self.unknown.append((name_of(route), mount))

    def _inspect_flask(self, app: Any, mount: MountPoint, *, outermost: bool, is_visible: bool) -> None:
        self._note_override(app.request_class, is_request=True)
        for name, kind in (("request_class", "flask request"), ("url_map", "flask map")):
            self._watch(app, name)
            part = getattr(app, name)
            made = part if isinstance(part, type) else type(part)
            if _defines(made, None, _ROUTING[kind]) or any(map(mentions_path, codes_of(made))):
                self.unknown.append((name_of(made), mount))
        self._inspect_helper(type(app.session_interface), mount)  # Flask opens the session of a request before routing
        self._watch(app, "wsgi_app")
        inner = app.wsgi_app
        if not (inspect.ismethod(inner) and inner.__self__ is app):
            self.inspect(inner, mount, outermost=outermost, is_visible=is_visible)

    def _inspect_django(self, app: Any, mount: MountPoint, *, outermost: bool, is_visible: bool) -> None:
        """Inspect Django's ASGI handler, which removes FORCE_SCRIPT_NAME from the path. The WSGI handler does not."""
        settings = getattr(sys.modules.get("django.conf"), "settings", None)
        own = getattr(settings, "FORCE_SCRIPT_NAME", None)
        if own and isinstance(own, str):
            self._add_root_path(app, own, mount, outermost=outermost, is_visible=is_visible)

    def _inspect_falcon(self, app: Any, mount: MountPoint) -> None:
        """Inspect a Falcon app. Components may change the path before routing, and the router may be a custom one."""
        self._watch(app, "_middleware")
        self._watch(app, "_router")
        self._watch(app, "_sink_and_static_routes")
        self.loose += falcon_sinks(app)
        for component in app._unprepared_middleware:
            made = type(component)
            if not is_known_library(made.__module__):
                self._inspect_helper(made, mount)
                if any(assigns(code, "path") for code in codes_of(made)):
                    self.unknown.append((name_of(made), mount))
        request = app._request_type
        self._note_override(request, is_request=True)
        if _defines(request, None, _ROUTING["falcon request"]) or any(map(mentions_path, codes_of(request))):
            self.unknown.append((name_of(request), mount))
        if not is_known_library(type(app._router).__module__):
            self.unknown.append((name_of(app._router), mount))

    def _inspect_other(self, app: Any, mount: MountPoint, *, outermost: bool) -> None:
        """Inspect an object or a function of an unknown type."""
        apps, rewrites = self._search(app)
        if rewrites or not apps:
            self.unknown.append((name_of(app), mount))
        for inner in apps:
            self.inspect(inner, mount, outermost=outermost and len(apps) == 1 and not rewrites, is_visible=False)

    def _inspect_helper(self, helper: Any, mount: MountPoint) -> None:
        """Inspect *helper*, which is not an app: a function that middleware calls, or a class of middleware."""
        apps, rewrites = self._search(helper)
        if rewrites:
            self.unknown.append((name_of(helper), mount))
        for app in apps:
            if id(app) not in self._inspected:  # the helper may refer to the app that it belongs to
                self.inspect(app, mount, outermost=False, is_visible=False)

    def _watch_routes(self, router: Any) -> None:
        self._watch(router, "routes")
        for route in router.routes:
            included = getattr(route, "original_router", None)  # in FastAPI, an included router may get routes later
            if included is not None:
                self._watch_routes(included)

    def _watch(self, owner: Any, name: str) -> None:
        value = getattr(owner, name)
        self.watched.append((owner, name, value.copy() if isinstance(value, list | dict) else value))

    def _search(self, start: Any) -> tuple[list[Any], bool]:
        """Return the apps that *start* may call, as far as can be seen, and whether its code may rewrite the path."""
        apps: list[Any] = []
        rewrites, todo, seen = False, [start], {id(start)}
        while todo:
            item = todo.pop()
            self._seen.append(item)
            self._note_override(item)
            rewrites = rewrites or any(map(mentions_path, codes_of(item)))
            for value in values_of(item):
                rewrites = rewrites or removes_prefix(value) or _is_app_class(value)
                if id(value) in seen or len(seen) > _MOST_OBJECTS:
                    continue
                seen.add(id(value))
                if _kind(value) is not None or isinstance(value, Layer):
                    apps.append(value)
                elif may_call_apps(value):
                    todo.append(value)
        return apps, rewrites

    def _note_override(self, item: Any, *, is_request: bool = False) -> None:
        """Record *item* if it may override the method of requests. *is_request*: it is the class of requests."""
        found = [text for code in codes_of(item) for text in texts_of(code)]
        is_named = _OVERRIDE.search(name_of(item)) or any(map(_OVERRIDE.search, found))
        if is_named or (is_request and _defines(item, None, ("method",))):
            self.overrides[name_of(item)] = None


def _inner_mount(mount: MountPoint, path: str) -> MountPoint:
    """Return the mount of an app at *path*, a template, in an app at *mount*."""
    if "path}" in path:  # the parameter matches any number of segments
        return mount
    beginning = mount.beginning
    if beginning.count("/") == mount.depth:  # A parameter precedes the rest. A shorter beginning includes more paths.
        plain, mark, _ = path.partition("{")
        beginning += plain.rpartition("/")[0] if mark else plain.rstrip("/")
    return MountPoint(beginning=beginning, depth=mount.depth + path.rstrip("/").count("/"))


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
    ("falcon.app", "App"): "falcon",
    ("litestar.app", "Litestar"): "litestar",
    ("aiohttp.web_app", "Application"): "leaf",  # it routes by the whole path, even in sub-apps
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


def _is_app_class(value: Any) -> bool:
    """Return whether *value* is a class of apps or routes. Code may make instances of it during a request."""
    kind = _kind_of(value) if isinstance(value, type) else None
    return kind not in (None, "leaf") and not issubclass(value, Layer)


def _overrides_routing(app: Any, kind: str | None) -> bool:
    """Return whether *app* may route differently from its *kind*, because it or its class replaces a function."""
    if kind not in _ROUTING:
        return False
    names = _ROUTING[kind]
    known = next((base for base in type(app).__mro__ if _key(base) in _KINDS), Layer if kind == "layer" else None)
    own = getattr(app, "__dict__", {})
    replaced = [name for name in names if name in own and isinstance(getattr(type(app), name, None), FunctionType)]
    return _defines(type(app), known, names) or bool(set(replaced) - {"wsgi_app"})


def _defines(made: type, known: type | None, names: tuple[str, ...]) -> bool:
    """Return whether *made*, or a base before *known*, defines one of *names* outside the known libraries."""
    for base in made.__mro__:
        if base is known:
            return False
        if not is_known_library(base.__module__) and not vars(base).keys().isdisjoint((*names, *_ALWAYS_ROUTING)):
            return True
    return False


def _is_of(app: Any, package: str) -> bool:
    return any(base.__module__.partition(".")[0] == package for base in type(app).__mro__)

"""What stands between a guard and the routes of its app, and changes what they see: prefixes that are taken off the
path, and methods that are overridden.

Frameworks are known by the types of what is given, so none is imported. Of other objects and functions the attributes,
closures and globals are searched for apps, and the code for the keys of a request that it may rewrite. What cannot be
looked into is unknown, and so is code that mentions those keys: it need not rewrite them.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any, Final

from scopeguard.adapter.declared import Layer
from scopeguard.audit.route import name_of
from scopeguard.rules.routed import Place, Prefixes

_MOST_OBJECTS: Final = 5_000
_KEYS: Final = frozenset({"path", "root_path", "raw_path", "PATH_INFO", "SCRIPT_NAME", "path_info"})
_OVERRIDE: Final = re.compile(r"method[-_]?(?:override|rewrite)|\A_method\Z", re.IGNORECASE)
_PLAIN_PACKAGES: Final = ("starlette", "fastapi", "werkzeug", "flask", "scopeguard", *sys.stdlib_module_names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What was found. *prefixes*: for decisions. *hidden*: apps that take off a prefix of their own where a reader does
    not see it, each as where it stands, its name and the prefix. *unknown*: names of what cannot be looked into.
    *overrides*: names of what changes the method of requests."""

    prefixes: Prefixes = field(default_factory=Prefixes)
    hidden: tuple[tuple[str, str, str], ...] = ()
    unknown: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


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
    )


class _Search:
    def __init__(self) -> None:
        self.root_path = ""
        self.mounted: list[tuple[Place, str]] = []
        self.hidden: list[tuple[str, str, str]] = []
        self.unknown: list[tuple[str, Place]] = []
        self.overrides: dict[str, None] = {}
        self._seen: list[Any] = []  # keeps what was made on the way alive, so that no id comes twice
        self._ids: set[tuple[int, Place]] = set()

    def look(self, app: Any, place: Place, *, outermost: bool, plain: bool) -> None:
        """Look into *app* at *place*. *outermost*: nothing routes before it. *plain*: a reader sees it there."""
        if (id(app), place) in self._ids:
            return
        if len(self._ids) > _MOST_OBJECTS:
            self.unknown.append((name_of(app), place))
            return
        self._seen.append(app)
        self._ids.add((id(app), place))
        kind = _kind(app)
        if isinstance(app, Layer):
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
            for path, inner in mounts.items() if isinstance(mounts, dict) else ():
                self.look(inner, _below(place, str(path)), outermost=False, plain=plain)
            self.look(app.app, place, outermost=outermost and not mounts, plain=plain)
            for part in vars(app).values():  # the function of a BaseHTTPMiddleware
                if isinstance(part, FunctionType):
                    self._helper(part, place)
        elif kind != "leaf":
            self._other(app, place, outermost=outermost)

    def _application(self, app: Any, place: Place, *, outermost: bool, plain: bool) -> None:
        own = getattr(app, "root_path", None)  # only FastAPI puts it in the place of the server's
        if own and isinstance(own, str) and _is_of(app, "fastapi"):
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
        made, given = item.cls, (*item.args, *item.kwargs.values())
        self._names(made)
        is_known = isinstance(made, type) and (issubclass(made, Layer) or _is_plain(made.__module__))
        codes = _codes(made)
        if not is_known and (not codes or any(map(_mentions, codes))):
            self.unknown.append((name_of(made), place))
        for value in given:
            if isinstance(value, FunctionType):
                self._helper(value, place)

    def _router(self, router: Any, place: Place) -> None:
        from scopeguard.audit.starlette_routes import expanded  # noqa: PLC0415 - imports its framework

        for route in expanded(router):
            self._route(getattr(route, "original_route", route), place)
        default = getattr(router, "default", None)
        if default is not None and getattr(default, "__self__", None) is not router:
            self.look(default, place, outermost=False, plain=True)

    def _route(self, route: Any, place: Place) -> None:
        kind = _kind(route)
        if kind == "mount":
            self.look(route.app, _below(place, route.path), outermost=False, plain=True)
        elif kind == "host":
            self.look(route.app, place, outermost=False, plain=True)
        elif kind == "route":
            endpoint = getattr(route, "endpoint", None)
            # Starlette takes an endpoint that is neither a function nor a class for an app.
            if callable(endpoint) and not isinstance(endpoint, type) and not _is_function(endpoint):
                self.look(endpoint, place, outermost=False, plain=True)
        elif not _is_of(route, "fastapi"):
            self.unknown.append((name_of(route), place))

    def _flask(self, app: Any, place: Place, *, outermost: bool, plain: bool) -> None:
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

    def _helper(self, function: Any, place: Place) -> None:
        _, rewrites = self._reach(function)
        if rewrites:
            self.unknown.append((name_of(function), place))

    def _reach(self, start: Any) -> tuple[list[Any], bool]:
        """The apps that *start* may call, as far as they can be seen, and whether its code may rewrite requests."""
        apps: list[Any] = []
        rewrites, todo, seen = False, [start], {id(start)}
        while todo:
            item = todo.pop()
            self._seen.append(item)
            self._names(item)
            rewrites = rewrites or any(map(_mentions, _codes(item)))
            for value in _values(item):
                if id(value) in seen or len(seen) > _MOST_OBJECTS:
                    continue
                seen.add(id(value))
                if _kind(value) is not None or isinstance(value, Layer):
                    apps.append(value)
                elif _is_worth_a_look(value):
                    todo.append(value)
        return apps, rewrites

    def _names(self, item: Any) -> None:
        """Remember *item* if it changes methods."""
        texts = [text for code in _codes(item) for text in _texts(code)]
        if _OVERRIDE.search(name_of(item)) or any(map(_OVERRIDE.search, texts)):
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
    ("django.core.handlers.wsgi", "WSGIHandler"): "leaf",
    ("django.core.handlers.asgi", "ASGIHandler"): "django",
    ("flask.app", "Flask"): "flask",
}


def _kind(app: Any) -> str | None:
    if isinstance(app, type):
        return None
    for base in type(app).__mro__:
        found = _KINDS.get((base.__module__, base.__qualname__))
        if found is not None:
            return found
    module = type(app).__module__
    if module.startswith(("starlette.middleware", "fastapi.middleware", "werkzeug.middleware")):
        return "middleware" if callable(getattr(app, "app", None)) else None
    return None


def _is_of(app: Any, package: str) -> bool:
    return any(base.__module__.partition(".")[0] == package for base in type(app).__mro__)


def _is_plain(module: Any) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in _PLAIN_PACKAGES


def _is_function(value: Any) -> bool:
    return isinstance(value, FunctionType) or inspect.ismethod(value)


def _is_worth_a_look(value: Any) -> bool:
    """Whether *value* is something to call that was written for the app, or in a library that is not known."""
    if inspect.ismethod(value) or isinstance(value, functools.partial):
        return True
    if isinstance(value, FunctionType):
        return not _is_plain(value.__module__)
    return callable(value) and not isinstance(value, type) and not _is_plain(type(value).__module__)


def _codes(item: Any) -> list[CodeType]:
    """The code of *item*: a function, or what the class of an object, or a class, defines in Python."""
    while isinstance(item, functools.partial):
        item = item.func
    if inspect.ismethod(item):
        item = item.__self__
    if isinstance(item, FunctionType):
        return [item.__code__]
    return [function.__code__ for function in _functions(item if isinstance(item, type) else type(item))]


def _functions(made: type) -> list[FunctionType]:
    """The functions that *made* and its bases define, as far as these are not of a known library."""
    members = (member for base in made.__mro__ if not _is_plain(base.__module__) for member in vars(base).values())
    return [member for member in map(_plain_member, members) if isinstance(member, FunctionType)]


def _plain_member(member: Any) -> Any:
    if isinstance(member, property):
        return member.fget
    return member.__func__ if isinstance(member, staticmethod | classmethod) else member


def _texts(code: CodeType) -> list[str]:
    """The strings in *code*, those of functions inside it and of keyword arguments among them."""
    found: list[str] = []
    for constant in code.co_consts:
        if isinstance(constant, str):
            found.append(constant)
        elif isinstance(constant, tuple | frozenset):
            found += [item for item in constant if isinstance(item, str)]
        elif isinstance(constant, CodeType):
            found += _texts(constant)
    return found


def _mentions(code: CodeType) -> bool:
    return not _KEYS.isdisjoint(_texts(code))


def _names_in(code: CodeType) -> list[str]:
    inner = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names_in(constant)]
    return [*code.co_names, *inner]


def _values(item: Any) -> list[Any]:
    """What *item* may call: attributes, what its functions close over, their defaults and the globals they name."""
    if isinstance(item, functools.partial):
        return [item.func, *item.args, *item.keywords.values()]
    if inspect.ismethod(item):
        return [item.__self__]
    found: list[Any] = []
    if not isinstance(item, FunctionType):
        for slot in [slot for base in type(item).__mro__ for slot in getattr(base, "__slots__", ())]:
            with suppress(AttributeError):
                found.append(getattr(item, slot))
        found += list(getattr(item, "__dict__", {}).values())
    for function in [item] if isinstance(item, FunctionType) else _functions(type(item)):
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # it is empty
                found.append(cell.cell_contents)
        found += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        found += [function.__globals__[name] for name in _names_in(function.__code__) if name in function.__globals__]
    return [item for value in found for item in _flattened(value)]


def _flattened(value: Any) -> list[Any]:
    """What is in *value* if that is a collection, else *value* itself."""
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    return list(value.values()) if isinstance(value, dict) else [value]

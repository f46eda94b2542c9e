"""Findings about apps that may read a request differently than the guard: prefixes, unknown apps, methods."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import falcon
import flask
import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import BaseRoute, Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from scopeguard import Guard, Rule, Rules, all_of, wsgi
from scopeguard.asgi import GuardMiddleware
from scopeguard.audit.findings import audit_app
from scopeguard.audit.inspection import inspect_app
from scopeguard.flask import ScopeGuard
from scopeguard.rules.prefix_removal import MountPoint

RULES = Rules([Rule("/admin", all_of("admin")), Rule("/{rest:path}")])
DOUBTS = ("root-path", "unknown-path", "method-override")


def api(root_path: str = "/api") -> FastAPI:
    app = FastAPI()
    app.root_path = root_path
    return app


def find_doubts(app: Any) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for finding in audit_app(app).findings:
        if finding.code.value in DOUBTS:
            told.setdefault(finding.code.value, []).append(finding.where)
    return told


@pytest.fixture
def guard_app(guard: Guard) -> Callable[..., Any]:
    return lambda app, **settings: GuardMiddleware(app, guard=guard, **{"rules": RULES, **settings})


def function_around(app: Any) -> Any:
    async def around(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return around


async def opaque_app(scope: Any, receive: Any, send: Any) -> None:
    """An app that cannot be inspected."""


class Rewrites:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(dict(scope, path="/"), receive, send)


class Counts:
    def __init__(self, app: Any) -> None:
        self.app = app
        self.requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += 1
        await self.app(scope, receive, send)


class MethodOverrideMiddleware(Counts):
    """Of a name that says it."""


class Disguised(Counts):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        told = dict(scope["headers"]).get(b"x-method", None) or "X-HTTP-Method-Override"
        await self.app({**scope, "method": told}, receive, send)


@pytest.mark.parametrize(
    ("app", "where"),
    [
        (function_around(api()), "* /"),
        (Counts(api()), "* /"),
        (Starlette(routes=[Mount("/", api())]), "* /"),
        (Starlette(routes=[Mount("/v1", api("/v1/x"))]), "* /v1"),
        (Starlette(routes=[Host("api.test", api())]), "* /"),
        (Router(routes=[Mount("/a", Starlette(routes=[Mount("/b", api("/c"))]))]), "* /a/b"),
        (Router(default=api()), "* /"),
    ],
    ids=["function", "object", "mount", "mount with a prefix", "host", "mounts", "default"],
)
def test_hidden_prefix_is_reported(app: Any, where: str, guard_app: Callable[..., Any]):
    assert find_doubts(guard_app(app)) == {"root-path": [where]}


@pytest.mark.parametrize("app", [api(), api(""), Starlette(routes=[Mount("/", api(""))]), Counts(api(""))])
def test_visible_prefix_is_not_reported(app: Any, guard_app: Callable[..., Any]):
    assert find_doubts(guard_app(app)) == {}


def plain(request: Request) -> Any:
    """An endpoint."""


ROUTES = [Route("/admin", plain)]


def with_middleware(*made: Any) -> Starlette:
    return Starlette(routes=ROUTES, middleware=[Middleware(one) for one in made])


class SetsPathInfo:
    """Strip a prefix as middleware of Django does."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        request.path_info = request.path_info[4:]
        return self.get_response(request)


async def dispatch(request: Request, call_next: Any) -> Any:
    request.scope["path"] = "/"
    return await call_next(request)


async def time_request(request: Request, call_next: Any) -> Any:
    return await call_next(request)


class OddRoute(BaseRoute):
    """A route of an unknown kind."""


@pytest.mark.parametrize(
    "app",
    [
        opaque_app,
        Rewrites(api("")),
        with_middleware(Rewrites),
        Starlette(routes=ROUTES, middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch)]),
        BaseHTTPMiddleware(api(""), dispatch=dispatch),
        Starlette(routes=[OddRoute()]),
        partial(opaque_app),
        SetsPathInfo(api("")),
    ],
    ids=["function", "object", "middleware", "dispatch", "dispatch around", "route", "partial", "attribute"],
)
def test_app_that_cannot_be_inspected_is_reported(app: Any, guard_app: Callable[..., Any]):
    assert find_doubts(guard_app(app)) == {"unknown-path": ["* /"]}
    # The operator may configure it, and it does not matter if no rule could be bypassed.
    assert find_doubts(guard_app(app, root_path="")) == {}
    assert find_doubts(guard_app(app, rules=[Rule("/{rest:path}")])) == {}
    assert find_doubts(guard_app(app, rules=None)) == {}


@pytest.mark.parametrize(
    "app",
    [
        with_middleware(Counts),
        Counts(Counts(api(""))),
        Starlette(routes=ROUTES, middleware=[Middleware(BaseHTTPMiddleware, dispatch=time_request)]),
        Starlette(routes=[Mount("/static", StaticFiles(directory=".", check_dir=False))]),
    ],
    ids=["middleware", "objects", "dispatch", "files"],
)
def test_middleware_unrelated_to_paths_is_not_reported(app: Any, guard_app: Callable[..., Any]):
    assert find_doubts(guard_app(app)) == {}


@pytest.mark.parametrize("made", [MethodOverrideMiddleware, Disguised])
def test_middleware_that_overrides_methods_inside_the_guard_is_reported(
    made: Any, guard_app: Callable[..., Any], guard: Guard
):
    app = api("")
    for inside_of_it in (guard_app(made(app)), guard_app(Counts(made(app))), guard_app(with_middleware(made))):
        assert find_doubts(inside_of_it) == {"method-override": ["* /"]}
    assert find_doubts(made(guard_app(app))) == {}
    layer: Any = Middleware(GuardMiddleware, guard=guard, rules=RULES)
    assert find_doubts(Starlette(routes=ROUTES, middleware=[layer, Middleware(made)])) == {"method-override": ["* /"]}
    assert find_doubts(Starlette(routes=ROUTES, middleware=[Middleware(made), layer])) == {}


def test_request_class_that_overrides_methods_inside_the_guard_is_reported(guard: Guard):
    class FlaskRequest(flask.Request):
        @property
        def method(self) -> str:
            return str(self.headers.get("X-Verb", self.environ["REQUEST_METHOD"]))

        @method.setter
        def method(self, sent: str) -> None: ...

    class FalconRequest(falcon.Request):
        def __init__(self, env: Any, options: Any = None) -> None:
            super().__init__(env, options)
            self.method = self.get_header("X-HTTP-Method-Override") or self.method

    class Rows:
        def on_get(self, req: Any, resp: Any) -> None: ...

    app, api = flask.Flask("test"), falcon.App(request_type=FalconRequest)
    app.request_class = FlaskRequest
    api.add_route("/rows", Rows())
    for made in (app, api):
        assert find_doubts(wsgi.GuardMiddleware(made, guard=guard, rules=RULES))["method-override"] == ["* /"]
    ScopeGuard(app, guard, rules=RULES)  # looks at both methods
    assert find_doubts(app) == {}


def test_wsgi_apps_are_inspected_too(guard: Guard):
    class HTTPMethodOverride:
        def __init__(self, app: Any) -> None:
            self.app = app

        def __call__(self, environ: Any, start_response: Any) -> Any:
            environ["REQUEST_METHOD"] = environ.get("HTTP_X_HTTP_METHOD_OVERRIDE", environ["REQUEST_METHOD"])
            return self.app(environ, start_response)

    def call_with_prefix(environ: Any, start_response: Any) -> Any:
        environ["PATH_INFO"] = environ["PATH_INFO"][4:]
        return app(environ, start_response)

    app: Any = flask.Flask("test")
    both = DispatcherMiddleware(app.wsgi_app, {"/v1": call_with_prefix})
    assert find_doubts(wsgi.GuardMiddleware(HTTPMethodOverride(app), guard=guard, rules=RULES)) == {
        "method-override": ["* /"]
    }
    assert find_doubts(wsgi.GuardMiddleware(call_with_prefix, guard=guard, rules=RULES)) == {"unknown-path": ["* /"]}
    assert find_doubts(wsgi.GuardMiddleware(app, guard=guard, rules=RULES)) == {}
    assert inspect_app(both).prefixes.unknown == (MountPoint(beginning="/v1", depth=1),)
    app.wsgi_app = HTTPMethodOverride(app.wsgi_app)
    assert find_doubts(wsgi.GuardMiddleware(app, guard=guard, rules=RULES)) == {"method-override": ["* /"]}
    # The extension checks the path that Flask routes on, behind all middleware.
    ScopeGuard(app, guard, rules=RULES)
    assert find_doubts(app) == {}


def test_findings_name_the_paths_of_mounts():
    def place(*paths: str) -> MountPoint:
        app: Any = opaque_app
        for path in reversed(paths):
            app = Router(routes=[Mount(path, app)])
        (found,) = inspect_app(app).prefixes.unknown
        return found

    assert place("/v1") == place("/v1/") == MountPoint(beginning="/v1", depth=1)
    assert place("/a/b", "/c") == MountPoint(beginning="/a/b/c", depth=3)
    assert place("/t/{x}") == MountPoint(beginning="/t", depth=2)
    assert place("/t{x}", "/c") == MountPoint(beginning="", depth=2)
    assert place("/t/{x}", "/c") == MountPoint(beginning="/t", depth=3)
    assert place("/f/{rest:path}") == MountPoint()


def test_configured_prefix_precedes_a_detected_one_without_hiding_it():
    told = inspect_app(function_around(api()), "/other").prefixes
    assert (told.root_path, told.mounted) == ("/other", ((MountPoint(), "/api"),))
    assert inspect_app(function_around(api()), "/api").prefixes.mounted == ()
    assert inspect_app(function_around(api()), "").prefixes.root_path == "/api"


def test_app_that_raises_during_inspection_is_unknown():
    class Odd:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

    odd: Any = Odd()
    assert inspect_app(Starlette(routes=[Mount("/", odd)])).prefixes.unknown
    deep: Any = opaque_app
    for _ in range(3000):
        deep = Counts(deep)
    assert inspect_app(deep).prefixes.unknown


def test_differences_are_warnings_in_the_log_when_an_app_starts(guard_app: Callable[..., Any], caplog: Any):
    app = guard_app(Starlette(routes=[Mount("/", api())]))
    with caplog.at_level(logging.WARNING, "scopeguard"):
        app._check.run()
    assert any("removes /api from the path" in record.getMessage() for record in caplog.records)

"""Apps that take a prefix off the path by themselves, in every form in which one can hide behind the middleware.

The kind of fault: the guard judges ``/api/admin`` by a general rule, and the router inside answers ``/admin``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import fastapi
import flask
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount, Route
from starlette.testclient import TestClient, WebSocketDenialResponse
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client

from doors import guard_for
from scopeguard import ConfigurationError, Guard, Rule, all_of, wsgi
from scopeguard.asgi import GuardMiddleware
from scopeguard.testing import FakeAuthority

ADMIN = all_of("admin")
RULES = [Rule("/admin", ADMIN), Rule("/v1/admin", ADMIN), Rule("/{rest:path}")]
Make = Callable[[Guard], Any]


@pytest.fixture
def guard(authority: FakeAuthority) -> Guard:
    return guard_for(authority, audit="off")


def api(root_path: str = "/api") -> FastAPI:
    app = FastAPI()
    app.root_path = root_path  # as its deprecated argument does
    for path in ("/admin", "/items"):
        app.add_api_route(path, lambda: "inside")
    app.add_api_websocket_route("/admin", _accept)
    return app


async def _accept(websocket: fastapi.WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


GLOBAL = api()
REGISTRY = {"the": [GLOBAL]}


async def by_global(scope: Any, receive: Any, send: Any) -> None:
    await GLOBAL(scope, receive, send)


async def by_helper(scope: Any, receive: Any, send: Any) -> None:
    await chosen()(scope, receive, send)


def chosen() -> Any:
    return REGISTRY["the"][0]


async def by_construction(scope: Any, receive: Any, send: Any) -> None:
    await api()(scope, receive, send)


async def by_import(scope: Any, receive: Any, send: Any) -> None:
    await getattr(sys.modules[__name__], "GLO" + "BAL")(scope, receive, send)


class Other:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.inner(scope, receive, send)


class Slotted:
    __slots__ = ("_secret",)

    def __init__(self, inner: Any) -> None:
        self._secret = [inner]

    async def __call__(self, *given: Any) -> None:
        await self._secret[0](*given)

    async def method(self, scope: Any, receive: Any, send: Any) -> None:
        await self(scope, receive, send)


class Rewrites:
    """As many take a prefix off, around any app."""

    def __init__(self, app: Any, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            scope = {**scope, "path": scope["path"].removeprefix(self.prefix)}
        await self.app(scope, receive, send)


def closure() -> Any:
    inner = api()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    return app


def outer_fastapi(root_path: str = "") -> FastAPI:
    app = FastAPI()
    app.root_path = root_path
    app.mount("/v1", api(f"{root_path}/v1/x"))
    return app


def rewriting() -> FastAPI:
    app = api("")
    app.add_middleware(Rewrites, prefix="/api")
    return app


async def _pass_on(kept: Any, scope: Any, receive: Any, send: Any) -> None:
    await kept(scope, receive, send)


def late(guard: Guard) -> Any:
    """Mounted after the middleware was put around it."""
    outer = FastAPI()
    guarded = GuardMiddleware(outer, guard=guard, rules=RULES)
    outer.mount("/", api())
    return guarded


def _around(make: Callable[[], Any]) -> Make:
    return lambda guard: GuardMiddleware(make(), guard=guard, rules=RULES)


def _stacked(guard: Guard) -> Any:
    return Starlette(routes=[Mount("/", api())], middleware=[Middleware(GuardMiddleware, guard=guard, rules=RULES)])


SHAPES: dict[str, tuple[Make, str]] = {
    "itself": (_around(api), "/api/admin"),
    "behind Starlette's middleware": (_around(lambda: CORSMiddleware(api())), "/api/admin"),
    "behind a function": (_around(lambda: by_global), "/api/admin"),
    "behind a helper and a registry": (_around(lambda: by_helper), "/api/admin"),
    "made by a function": (_around(lambda: by_construction), "/api/admin"),
    "imported by a function": (_around(lambda: by_import), "/api/admin"),
    "in a closure": (_around(closure), "/api/admin"),
    "behind another attribute": (_around(lambda: Other(api())), "/api/admin"),
    "behind two of them": (_around(lambda: Other(Other(api()))), "/api/admin"),
    "in a list in a slot": (_around(lambda: Slotted(api())), "/api/admin"),
    "behind a method": (_around(lambda: Slotted(api()).method), "/api/admin"),
    "in a partial": (_around(lambda: functools.partial(_pass_on, api())), "/api/admin"),
    "its own method": (_around(lambda: api().__call__), "/api/admin"),
    "mounted": (_around(lambda: Starlette(routes=[Mount("/", api())])), "/api/admin"),
    "mounted below the middleware": (_stacked, "/api/admin"),
    "mounted late": (late, "/api/admin"),
    "mounted, as a function": (_around(lambda: Starlette(routes=[Mount("/", closure())])), "/api/admin"),
    "mounted, its prefix repeated": (_around(outer_fastapi), "/v1/x/admin"),
    "mounted in an app with a prefix": (_around(lambda: outer_fastapi("/s")), "/s/v1/x/admin"),
    "mounted behind a function": (_around(lambda: Other(outer_fastapi())), "/v1/x/admin"),
    "mounted below a parameter": (
        _around(lambda: Starlette(routes=[Mount("/{version}", api("/v1/x"))])),
        "/v1/x/admin",
    ),
    "a rewritten path": (_around(lambda: Rewrites(api(""), "/api")), "/api/admin"),
    "a rewritten path, deeper": (_around(lambda: Rewrites(api(""), "/a/b/c")), "/a/b/c/admin"),
    "middleware of the app that rewrites": (
        _around(rewriting),
        "/api/admin",
    ),
}


@pytest.mark.rule("H-06", "X-74")
@pytest.mark.parametrize("shape", SHAPES)
def test_no_prefix_that_an_app_takes_off_leads_around_a_rule(shape: str, guard: Guard, authority: FakeAuthority):
    make, path = SHAPES[shape]
    client = TestClient(make(guard))
    assert client.get(path).status_code == 401
    refused = client.get(path, headers=authority.bearer("other"))
    assert refused.status_code == 403
    assert client.get(path, headers=authority.bearer("admin")).json() == "inside"


@pytest.mark.rule("H-02", "H-06")
@pytest.mark.parametrize("shape", ["itself", "behind a function", "mounted", "mounted, its prefix repeated"])
def test_nor_does_a_websocket(shape: str, guard: Guard, authority: FakeAuthority):
    make, path = SHAPES[shape]
    client = TestClient(make(guard))
    with pytest.raises(WebSocketDenialResponse), client.websocket_connect(path, headers=authority.bearer("other")):
        pass
    with client.websocket_connect(path, headers=authority.bearer("admin")):
        pass


def test_apps_that_take_nothing_off_are_served_as_before(guard: Guard, authority: FakeAuthority):
    rules = [Rule("/users/{id}/admin", all_of("read")), Rule("/admin", ADMIN), Rule("/{rest:path}")]
    app = FastAPI()
    app.add_api_route("/users/{user}/admin", lambda user: "inside")
    app.add_api_route("/files/{rest:path}", lambda rest: "inside")
    headers = authority.bearer("read")
    for given in (app, Other(app), closure_of(app)):
        client = TestClient(GuardMiddleware(given, guard=guard, rules=rules))
        assert client.get("/users/7/admin", headers=headers).json() == "inside"
        # Nothing takes a prefix off here, and that can be seen.
        assert client.get("/files/admin", headers=headers).json() == "inside"


def closure_of(inner: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    return app


def test_an_operator_may_say_what_an_app_takes_off(guard: Guard, authority: FakeAuthority):
    rules = [Rule("/admin", ADMIN), Rule("/items", all_of("read")), Rule("/{rest:path}")]

    def status(path: str, root_path: str | None) -> int:
        app = GuardMiddleware(Rewrites(api(""), "/api"), guard=guard, rules=rules, root_path=root_path)
        return TestClient(app).get(path, headers=authority.bearer("other")).status_code

    assert [status("/files/admin", root_path) for root_path in (None, "/api", "")] == [403, 404, 404]
    assert [status("/api/admin", root_path) for root_path in (None, "/api")] == [403, 403]
    # What can be seen holds all the same.
    for declared in ("", "/other"):
        app = GuardMiddleware(Other(api()), guard=guard, rules=rules, root_path=declared)
        assert TestClient(app).get("/api/admin", headers=authority.bearer("other")).status_code == 403


@pytest.mark.parametrize("middleware", [GuardMiddleware, wsgi.GuardMiddleware])
def test_what_an_operator_says_is_checked(middleware: Any, guard: Guard):
    with pytest.raises(ConfigurationError, match="root_path: must be the prefix"):
        middleware(lambda *_: [], guard=guard, root_path="api")


# -- WSGI


class Prefixed:
    """As many take a prefix off, around any WSGI app."""

    def __init__(self, app: Any, prefix: str) -> None:
        self.wrapped = app
        self.prefix = prefix

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"].startswith(self.prefix):
            environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(self.prefix)
            environ["SCRIPT_NAME"] = self.prefix
        return self.wrapped(environ, start_response)


def view() -> flask.Flask:
    app = flask.Flask("test")
    app.add_url_rule("/admin", view_func=lambda: "inside", endpoint="admin")
    app.add_url_rule("/files/<path:rest>", view_func=lambda rest: "inside", endpoint="files")
    return app


def test_a_wsgi_app_that_takes_a_prefix_off_is_judged_on_both_readings(guard: Guard, authority: FakeAuthority):
    headers = authority.bearer("other")
    for app in (Prefixed(view(), "/api"), functools.partial(Prefixed(view(), "/api"))):
        client = Client(wsgi.GuardMiddleware(app, guard=guard, rules=RULES))
        assert client.get("/api/admin", headers=headers).status_code == 403
        assert client.get("/api/admin", headers=authority.bearer("admin")).text == "inside"
    declared = Client(wsgi.GuardMiddleware(Prefixed(view(), "/api"), guard=guard, rules=RULES, root_path="/api"))
    assert declared.get("/api/admin", headers=headers).status_code == 403
    assert declared.get("/files/admin", headers=headers).text == "inside"


def test_flask_apps_are_served_as_before(guard: Guard, authority: FakeAuthority):
    app: Any = view()
    app.wsgi_app = wsgi.GuardMiddleware(ProxyFix(app.wsgi_app), guard=guard, rules=RULES)
    for served in (app, wsgi.GuardMiddleware(view(), guard=guard, rules=RULES)):
        client = Client(served)
        assert client.get("/files/admin", headers=authority.bearer("other")).text == "inside"
        assert client.get("/admin", headers=authority.bearer("other")).status_code == 403
        prefixed = {"SCRIPT_NAME": "/api"}
        assert client.get("/admin", headers=authority.bearer("other"), environ_overrides=prefixed).status_code == 403


def test_a_route_may_be_an_app_of_its_own(guard: Guard, authority: FakeAuthority):
    app = Starlette(routes=[Route("/api/{rest:path}", endpoint=Other(api()))])
    client = TestClient(GuardMiddleware(app, guard=guard, rules=RULES))
    assert client.get("/api/admin", headers=authority.bearer("other")).status_code == 403
    assert client.get("/api/items", headers=authority.bearer("other")).json() == "inside"

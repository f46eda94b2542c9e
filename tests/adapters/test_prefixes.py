"""Apps that strip a prefix from the path themselves, in each form that can hide behind the middleware.

Fault: the guard checks ``/api/admin`` by a general rule, and the inner router serves ``/admin``.
"""

from __future__ import annotations

import functools
import sys
import wsgiref.util
from collections.abc import Callable
from typing import Any
from wsgiref.util import shift_path_info

import fastapi
import flask
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, Router
from starlette.testclient import TestClient, WebSocketDenialResponse
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import Map
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
    app.root_path = root_path  # As its deprecated argument does.
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
    await look_up_app()(scope, receive, send)


def look_up_app() -> Any:
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
    """A common way to strip a prefix, around any app."""

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


def rewriting_app() -> FastAPI:
    app = api("")
    app.add_middleware(Rewrites, prefix="/api")
    return app


async def _pass_on(kept: Any, scope: Any, receive: Any, send: Any) -> None:
    await kept(scope, receive, send)


class FastAPIThatStrips(FastAPI):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await super().__call__(strip(scope), receive, send)


class StarletteThatStrips(Starlette):
    def build_middleware_stack(self) -> Any:
        inner = super().build_middleware_stack()

        async def stack(scope: Any, receive: Any, send: Any) -> None:
            await inner(strip(scope), receive, send)

        return stack


class RouterThatStrips(Router):
    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await super().app(strip(scope), receive, send)


class RouteThatStrips(Route):
    def matches(self, scope: Any) -> Any:
        return super().matches(strip(scope))


class MountThatStrips(Mount):
    def matches(self, scope: Any) -> Any:
        match, below = super().matches(scope)
        if "root_path" in below:
            below["root_path"] += "/strip"
        return match, below


class LayerThatStrips(GuardMiddleware):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await super().__call__(strip(scope), receive, send)


def strip(scope: Any) -> Any:
    return {**scope, "path": scope["path"].removeprefix("/strip")} if "path" in scope else scope


def fastapi_that_strips() -> FastAPI:
    app = FastAPIThatStrips()
    app.add_api_route("/admin", lambda: "inside")
    return app


def one_route(made: Any = Route) -> Any:
    return made("/admin", lambda request: JSONResponse("inside"))


def router_of_its_own() -> Router:
    route = one_route()
    matches = route.matches
    route.matches = lambda scope: matches(strip(scope))
    return Router(routes=[route])


def make_strip(app: Any) -> Any:
    """A factory that Starlette calls like a middleware class."""

    async def strip_and_call(scope: Any, receive: Any, send: Any) -> None:
        await Rewrites(app, "/strip")(scope, receive, send)

    return strip_and_call


@functools.lru_cache
def wrap_in_rewrites(app: Any) -> Any:
    return Rewrites(app, "/strip")


def make_strip_by_helper(app: Any) -> Any:
    async def strip_and_call(scope: Any, receive: Any, send: Any) -> None:
        await wrap_in_rewrites(app)(scope, receive, send)

    return strip_and_call


KEY = "pa" + "th"


def make_strip_by_key(app: Any) -> Any:
    async def strip_and_call(scope: Any, receive: Any, send: Any) -> None:
        if KEY in scope:
            scope[KEY] = scope[KEY].removeprefix("/strip")
        await app(scope, receive, send)

    return strip_and_call


def make_app_by_request(app: Any) -> Any:
    async def call_inner(scope: Any, receive: Any, send: Any) -> None:
        inner = FastAPI(routes=app.routes if hasattr(app, "routes") else [one_route()])
        inner.root_path = "/strip"
        await inner(scope, receive, send)

    return call_inner


def starlette_with(factory: Any) -> Starlette:
    app = Starlette(routes=[one_route()])
    app.add_middleware(factory)
    return app


def late(guard: Guard) -> Any:
    """Mount after the middleware was added."""
    outer = FastAPI()
    guarded = GuardMiddleware(outer, guard=guard, rules=RULES)
    outer.mount("/", api())
    return guarded


def _wrap(make: Callable[[], Any]) -> Make:
    return lambda guard: GuardMiddleware(make(), guard=guard, rules=RULES)


def _stack(guard: Guard) -> Any:
    return Starlette(routes=[Mount("/", api())], middleware=[Middleware(GuardMiddleware, guard=guard, rules=RULES)])


SHAPES: dict[str, tuple[Make, str]] = {
    "itself": (_wrap(api), "/api/admin"),
    "behind Starlette's middleware": (_wrap(lambda: CORSMiddleware(api())), "/api/admin"),
    "behind a function": (_wrap(lambda: by_global), "/api/admin"),
    "behind a helper and a registry": (_wrap(lambda: by_helper), "/api/admin"),
    "made by a function": (_wrap(lambda: by_construction), "/api/admin"),
    "imported by a function": (_wrap(lambda: by_import), "/api/admin"),
    "in a closure": (_wrap(closure), "/api/admin"),
    "behind another attribute": (_wrap(lambda: Other(api())), "/api/admin"),
    "behind two of them": (_wrap(lambda: Other(Other(api()))), "/api/admin"),
    "in a list in a slot": (_wrap(lambda: Slotted(api())), "/api/admin"),
    "behind a method": (_wrap(lambda: Slotted(api()).method), "/api/admin"),
    "in a partial": (_wrap(lambda: functools.partial(_pass_on, api())), "/api/admin"),
    "its own method": (_wrap(lambda: api().__call__), "/api/admin"),
    "mounted": (_wrap(lambda: Starlette(routes=[Mount("/", api())])), "/api/admin"),
    "mounted below the middleware": (_stack, "/api/admin"),
    "mounted late": (late, "/api/admin"),
    "mounted, as a function": (_wrap(lambda: Starlette(routes=[Mount("/", closure())])), "/api/admin"),
    "mounted, its prefix repeated": (_wrap(outer_fastapi), "/v1/x/admin"),
    "mounted in an app with a prefix": (_wrap(lambda: outer_fastapi("/s")), "/s/v1/x/admin"),
    "mounted behind a function": (_wrap(lambda: Other(outer_fastapi())), "/v1/x/admin"),
    "mounted below a parameter": (
        _wrap(lambda: Starlette(routes=[Mount("/{version}", api("/v1/x"))])),
        "/v1/x/admin",
    ),
    "a rewritten path": (_wrap(lambda: Rewrites(api(""), "/api")), "/api/admin"),
    "a rewritten path, deeper": (_wrap(lambda: Rewrites(api(""), "/a/b/c")), "/a/b/c/admin"),
    "middleware of the app that rewrites": (
        _wrap(rewriting_app),
        "/api/admin",
    ),
    "a subclass of FastAPI": (_wrap(fastapi_that_strips), "/strip/admin"),
    "a subclass of Starlette": (_wrap(lambda: StarletteThatStrips(routes=[one_route()])), "/strip/admin"),
    "a subclass of a router": (_wrap(lambda: RouterThatStrips(routes=[one_route()])), "/strip/admin"),
    "a subclass of a route": (_wrap(lambda: Starlette(routes=[one_route(RouteThatStrips)])), "/strip/admin"),
    "a subclass of a mount": (
        _wrap(lambda: Starlette(routes=[MountThatStrips("/x", routes=[one_route()])])),
        "/x/strip/admin",
    ),
    "a subclass of the middleware": (
        lambda guard: GuardMiddleware(
            LayerThatStrips(Starlette(routes=[one_route()]), guard=guard, rules=[Rule("/{rest:path}")]),
            guard=guard,
            rules=RULES,
        ),
        "/strip/admin",
    ),
    "a method of a route replaced": (_wrap(router_of_its_own), "/strip/admin"),
    "a router with middleware": (
        _wrap(lambda: Router(routes=[one_route()], middleware=[Middleware(Rewrites, prefix="/strip")])),
        "/strip/admin",
    ),
    "a factory of middleware": (_wrap(lambda: starlette_with(make_strip)), "/strip/admin"),
    "a factory with a cached helper": (_wrap(lambda: starlette_with(make_strip_by_helper)), "/strip/admin"),
    "a factory with the key in a global": (_wrap(lambda: starlette_with(make_strip_by_key)), "/strip/admin"),
    "a factory of apps": (_wrap(lambda: starlette_with(make_app_by_request)), "/strip/admin"),
}


@pytest.mark.rule("H-06", "X-74")
@pytest.mark.parametrize("shape", SHAPES)
def test_stripped_prefix_does_not_bypass_a_rule(shape: str, guard: Guard, authority: FakeAuthority):
    make, path = SHAPES[shape]
    client = TestClient(make(guard))
    assert client.get(path).status_code == 401
    refused = client.get(path, headers=authority.bearer("other"))
    assert refused.status_code == 403
    assert client.get(path, headers=authority.bearer("admin")).json() == "inside"


@pytest.mark.rule("H-02", "H-06")
@pytest.mark.parametrize("shape", ["itself", "behind a function", "mounted", "mounted, its prefix repeated"])
def test_stripped_prefix_does_not_bypass_a_rule_for_websockets(shape: str, guard: Guard, authority: FakeAuthority):
    make, path = SHAPES[shape]
    client = TestClient(make(guard))
    with pytest.raises(WebSocketDenialResponse), client.websocket_connect(path, headers=authority.bearer("other")):
        pass
    with client.websocket_connect(path, headers=authority.bearer("admin")):
        pass


def test_apps_that_strip_nothing_are_not_affected(guard: Guard, authority: FakeAuthority):
    rules = [Rule("/users/{id}/admin", all_of("read")), Rule("/admin", ADMIN), Rule("/{rest:path}")]
    app = FastAPI()
    app.add_api_route("/users/{user}/admin", lambda user: "inside")
    app.add_api_route("/files/{rest:path}", lambda rest: "inside")
    headers = authority.bearer("read")
    for given in (app, Other(app), closure_of(app)):
        client = TestClient(GuardMiddleware(given, guard=guard, rules=rules))
        assert client.get("/users/7/admin", headers=headers).json() == "inside"
        # Nothing strips a prefix here, which is visible to the guard.
        assert client.get("/files/admin", headers=headers).json() == "inside"


class Described(FastAPI):
    """A subclass that does not change routing."""

    def openapi(self) -> Any:
        return {**super().openapi(), "x-owner": "tables"}


class Timed(APIRoute):
    def get_route_handler(self) -> Any:
        return super().get_route_handler()


def test_subclasses_that_do_not_change_routing_are_not_affected(guard: Guard, authority: FakeAuthority):
    app = Described()
    app.router.route_class = Timed
    app.add_api_route("/files/{rest:path}", lambda rest: "inside")
    client = TestClient(GuardMiddleware(app, guard=guard, rules=RULES))
    assert client.get("/files/admin", headers=authority.bearer("other")).json() == "inside"


def closure_of(inner: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    return app


def _set_root_path(app: FastAPI) -> None:
    app.root_path = "/api"


def _append_a_mount(app: FastAPI) -> None:
    app.router.routes.insert(0, Mount("/", api()))


def _mount_below_a_mount(app: FastAPI) -> None:
    mounted: Any = next(route for route in app.routes if isinstance(route, Mount))
    mounted.app.mount("/", api("/v1/x"))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (_set_root_path, "/api/admin"),
        (lambda app: app.mount("/", api()), "/api/admin"),
        (lambda app: app.mount("/v1", api("/v1/x")), "/v1/x/admin"),
        (_append_a_mount, "/api/admin"),
        (_mount_below_a_mount, "/v1/x/admin"),
    ],
)
def test_changes_after_the_first_request_take_effect(change: Any, path: str, guard: Guard, authority: FakeAuthority):
    app = FastAPI()
    app.add_api_route("/admin", lambda: "inside")
    if change is _mount_below_a_mount:
        app.mount("/v1", FastAPI())
    client = TestClient(GuardMiddleware(app, guard=guard, rules=RULES))
    assert client.get("/first", headers=authority.bearer("other")).status_code == 404
    change(app)
    assert client.get(path, headers=authority.bearer("other")).status_code == 403
    assert client.get(path, headers=authority.bearer("admin")).json() == "inside"


def test_stripped_prefixes_can_be_configured(guard: Guard, authority: FakeAuthority):
    rules = [Rule("/admin", ADMIN), Rule("/items", all_of("read")), Rule("/{rest:path}")]

    def status(path: str, root_path: str | None) -> int:
        app = GuardMiddleware(Rewrites(api(""), "/api"), guard=guard, rules=rules, root_path=root_path)
        return TestClient(app).get(path, headers=authority.bearer("other")).status_code

    assert [status("/files/admin", root_path) for root_path in (None, "/api", "")] == [403, 404, 404]
    assert [status("/api/admin", root_path) for root_path in (None, "/api")] == [403, 403]
    # Prefixes that the guard can see count all the same.
    for declared in ("", "/other"):
        app = GuardMiddleware(Other(api()), guard=guard, rules=rules, root_path=declared)
        assert TestClient(app).get("/api/admin", headers=authority.bearer("other")).status_code == 403


@pytest.mark.parametrize("middleware", [GuardMiddleware, wsgi.GuardMiddleware])
def test_configured_prefixes_are_validated(middleware: Any, guard: Guard):
    with pytest.raises(ConfigurationError, match="root_path: must be the prefix"):
        middleware(lambda *_: [], guard=guard, root_path="api")


# -- WSGI


class Prefixed:
    """A common way to strip a prefix, around any WSGI app."""

    def __init__(self, app: Any, prefix: str) -> None:
        self.wrapped = app
        self.prefix = prefix

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"].startswith(self.prefix):
            environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(self.prefix)
            environ["SCRIPT_NAME"] = self.prefix
        return self.wrapped(environ, start_response)


def view(made: type[flask.Flask] = flask.Flask) -> flask.Flask:
    app = made("test")
    app.add_url_rule("/admin", view_func=lambda: "inside", endpoint="admin")
    app.add_url_rule("/files/<path:rest>", view_func=lambda rest: "inside", endpoint="files")
    return app


def test_wsgi_app_that_strips_a_prefix_is_checked_on_both_readings(guard: Guard, authority: FakeAuthority):
    headers = authority.bearer("other")
    for app in (Prefixed(view(), "/api"), functools.partial(Prefixed(view(), "/api"))):
        client = Client(wsgi.GuardMiddleware(app, guard=guard, rules=RULES))
        assert client.get("/api/admin", headers=headers).status_code == 403
        assert client.get("/api/admin", headers=authority.bearer("admin")).text == "inside"
    declared = Client(wsgi.GuardMiddleware(Prefixed(view(), "/api"), guard=guard, rules=RULES, root_path="/api"))
    assert declared.get("/api/admin", headers=headers).status_code == 403
    assert declared.get("/files/admin", headers=headers).text == "inside"


def strip_prefix(environ: Any) -> Any:
    environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/api")
    return environ


class FlaskWithWsgiApp(flask.Flask):
    def wsgi_app(self, environ: Any, start_response: Any) -> Any:
        return super().wsgi_app(strip_prefix(environ), start_response)


class FlaskWithCall(flask.Flask):
    def __call__(self, environ: Any, start_response: Any) -> Any:
        return super().__call__(strip_prefix(environ), start_response)


class FlaskWithAdapter(flask.Flask):
    def create_url_adapter(self, request: Any) -> Any:
        if request is not None:
            strip_prefix(request.environ)
        return super().create_url_adapter(request)


class FlaskWithDispatch(flask.Flask):
    def dispatch_request(self) -> Any:
        return self.view_functions["admin"]()


class RequestThatStrips(flask.Request):
    def __init__(self, environ: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(strip_prefix(environ), *args, **kwargs)


class FlaskWithRequest(flask.Flask):
    request_class = RequestThatStrips


class MapThatStrips(Map):
    def bind_to_environ(self, environ: Any, *args: Any, **kwargs: Any) -> Any:
        return super().bind_to_environ(strip_prefix(getattr(environ, "environ", environ)), *args, **kwargs)


class FlaskWithMap(flask.Flask):
    url_map_class = MapThatStrips


def shift_path(app: Any) -> Any:
    def shift(environ: Any, start_response: Any) -> Any:
        shift_path_info(environ)
        return app(environ, start_response)

    return shift


def shift_path_by_module(app: Any) -> Any:
    def shift(environ: Any, start_response: Any) -> Any:
        wsgiref.util.shift_path_info(environ)
        return app(environ, start_response)

    return shift


def add_dispatcher(app: Any) -> Any:
    def dispatch(environ: Any, start_response: Any) -> Any:
        return DispatcherMiddleware(app, {"/api": app})(environ, start_response)

    return dispatch


WSGI_SHAPES: dict[str, Any] = {
    "wsgi_app": lambda: view(FlaskWithWsgiApp),
    "__call__": lambda: view(FlaskWithCall),
    "create_url_adapter": lambda: view(FlaskWithAdapter),
    "dispatch_request": lambda: view(FlaskWithDispatch),
    "request_class": lambda: view(FlaskWithRequest),
    "url_map_class": lambda: view(FlaskWithMap),
    "shift_path_info": lambda: shift_path(view()),
    "wsgiref.util.shift_path_info": lambda: shift_path_by_module(view()),
    "DispatcherMiddleware": lambda: add_dispatcher(view()),
}


@pytest.mark.rule("H-06", "X-74")
@pytest.mark.parametrize("shape", WSGI_SHAPES)
def test_wsgi_app_that_strips_a_prefix_does_not_bypass_a_rule(shape: str, guard: Guard, authority: FakeAuthority):
    client = Client(wsgi.GuardMiddleware(WSGI_SHAPES[shape](), guard=guard, rules=RULES))
    assert client.get("/api/admin", headers=authority.bearer("other")).status_code == 403
    if shape != "dispatch_request":
        assert client.get("/api/admin", headers=authority.bearer("admin")).text == "inside"


def test_changes_of_a_flask_app_after_the_first_request_take_effect(guard: Guard, authority: FakeAuthority):
    def wrap(app: Any) -> None:
        app.wsgi_app = Prefixed(app.wsgi_app, "/api")

    def replace(app: Any) -> None:
        app.request_class = RequestThatStrips

    for change in (wrap, replace):
        app = view()
        client = Client(wsgi.GuardMiddleware(app, guard=guard, rules=RULES))
        assert client.get("/api/admin", headers=authority.bearer("other")).status_code == 404
        change(app)
        assert client.get("/api/admin", headers=authority.bearer("other")).status_code == 403
        assert client.get("/api/admin", headers=authority.bearer("admin")).text == "inside"


def test_ordinary_flask_apps_are_not_affected(guard: Guard, authority: FakeAuthority):
    app: Any = view()
    app.wsgi_app = wsgi.GuardMiddleware(ProxyFix(app.wsgi_app), guard=guard, rules=RULES)
    for served in (app, wsgi.GuardMiddleware(view(), guard=guard, rules=RULES)):
        client = Client(served)
        assert client.get("/files/admin", headers=authority.bearer("other")).text == "inside"
        assert client.get("/admin", headers=authority.bearer("other")).status_code == 403
        prefixed = {"SCRIPT_NAME": "/api"}
        assert client.get("/admin", headers=authority.bearer("other"), environ_overrides=prefixed).status_code == 403


def test_route_may_be_a_separate_app(guard: Guard, authority: FakeAuthority):
    app = Starlette(routes=[Route("/api/{rest:path}", endpoint=Other(api()))])
    client = TestClient(GuardMiddleware(app, guard=guard, rules=RULES))
    assert client.get("/api/admin", headers=authority.bearer("other")).status_code == 403
    assert client.get("/api/items", headers=authority.bearer("other")).json() == "inside"

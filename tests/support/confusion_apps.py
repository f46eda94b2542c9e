"""One small API in each framework, behind one policy: ``confusion_apps:asgi`` and ``confusion_apps:wsgi``.

A header ``X-App`` chooses the app, so that one server process suffices for all of them. Each handler sends its name in
the response header ``X-Handler``; :data:`LEVELS` has the requirement of the policy for it. The last rule opens
everything else, so that a path which the policy and the router read differently is answered without a token, which is
the worst case.

Annotations are evaluated here: FastAPI and Litestar look at those of functions inside of functions.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, Final

from scopeguard import PUBLIC, Guard, Issuer, Rule, Rules, all_of
from scopeguard.asgi import GuardMiddleware as GuardASGI
from scopeguard.wsgi import GuardMiddleware as GuardWSGI

AUDIENCE: Final = "https://api.test"
AUTHORITY: Final = "https://as.test"
MOUNT: Final = "/mount"

LEVELS: Final = {
    "public": 0,
    "area-public": 0,
    "catch-all": 0,
    "item": 1,
    "dual-get": 1,
    "secret": 2,
    "deep": 2,
    "area-secret": 2,
    "item-admin": 2,
    "dual-post": 2,
    "live": 2,
}
"""The requirement of each handler: nothing (0), the scope ``read`` (1), the scope ``secret`` (2)."""

ANY_METHOD: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
READ, SECRET = all_of("read"), all_of("secret")
RULES: Final = Rules(
    [
        Rule("/public", PUBLIC),
        Rule("/secret", SECRET),
        Rule("/secret/deep", SECRET),
        Rule("/area/secret", SECRET),
        Rule("/items/admin", SECRET),
        Rule("/items/{name}", READ),
        Rule("/dual", READ, methods=["GET"]),
        Rule("/dual", SECRET),
        Rule("/live", SECRET),
        Rule("/{rest:path}", PUBLIC),
    ]
)
_NEEDED: Final = ("", "read", "secret")
PATHS: Final = {
    "/public": "public",
    "/secret": "secret",
    "/secret/deep": "deep",
    "/items/admin": "item-admin",
}
AREA: Final = {"/secret": "area-secret", "/public": "area-public"}
"""The paths of what is mounted, or included, under ``/area``."""

_Headers = dict[str, str]


def _handler_header(name: str) -> _Headers:
    return {"X-Handler": name}


def _dual(method: str) -> str:
    return "dual-get" if method in ("GET", "HEAD") else "dual-post"


def _starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Mount, Route, WebSocketRoute

    def says(name: str) -> Any:
        async def endpoint(request: Any) -> Response:
            return Response(name, headers=_handler_header(name))

        return endpoint

    async def dual(request: Any) -> Response:
        return Response(headers=_handler_header(_dual(request.method)))

    async def live(websocket: Any) -> None:
        await websocket.accept(headers=[(b"x-handler", b"live")])
        await websocket.close()

    def routes(paths: dict[str, str]) -> list[Route]:
        return [Route(path, says(name), methods=ANY_METHOD) for path, name in paths.items()]

    return Starlette(
        routes=[
            *routes(PATHS),
            Mount("/area", routes=routes(AREA)),
            Route("/items/{name}", says("item"), methods=ANY_METHOD),
            Route("/dual", dual, methods=["GET", "POST"]),
            WebSocketRoute("/live", live),
            Route("/{rest:path}", says("catch-all"), methods=ANY_METHOD),
        ]
    )


def _fastapi() -> Any:
    from fastapi import FastAPI, Request, Response, WebSocket

    def says(name: str) -> Callable[[], Response]:
        def endpoint() -> Response:
            return Response(name, headers=_handler_header(name))

        return endpoint

    async def dual(request: Request) -> Response:
        return Response(headers=_handler_header(_dual(request.method)))

    async def live(websocket: WebSocket) -> None:
        await websocket.accept(headers=[(b"x-handler", b"live")])
        await websocket.close()

    def add(app: FastAPI, paths: dict[str, str]) -> FastAPI:
        for path, name in paths.items():
            app.add_api_route(path, says(name), methods=list(ANY_METHOD))
        return app

    app = add(FastAPI(openapi_url=None), PATHS)
    app.mount("/area", add(FastAPI(openapi_url=None), AREA))
    add(app, {"/items/{name}": "item"})
    app.add_api_route("/dual", dual, methods=["GET", "HEAD", "POST"])
    app.add_api_websocket_route("/live", live)
    return add(app, {"/{rest:path}": "catch-all"})


def _quart(*, declares: bool = False) -> Any:
    """Return the app. *declares*: its views declare their requirements, and there are no rules."""
    from quart import Blueprint, Quart, Response, request, websocket
    from quart.views import MethodView

    from scopeguard.quart import ScopeGuard, public, requires

    def declare(view: Any, name: str) -> Any:
        if not declares:
            return view
        return requires(_NEEDED[LEVELS[name]])(view) if LEVELS[name] else public(view)

    def says(name: str) -> Any:
        async def view(**_: str) -> Response:
            return Response(name, headers=_handler_header(name))

        return declare(view, name)

    class Dual(MethodView):
        async def get(self) -> Response:
            return Response("", headers=_handler_header(_dual(request.method)))

        async def post(self) -> Response:
            return Response("", headers=_handler_header("dual-post"))

    for name in ("get", "post"):
        setattr(Dual, name, declare(getattr(Dual, name), f"dual-{name}"))

    async def live() -> None:
        await websocket.accept(headers=_handler_header("live"))

    app, area = Quart(__name__), Blueprint("area", __name__, url_prefix="/area")
    for owner, paths in ((app, PATHS), (area, AREA)):
        for path, name in paths.items():
            owner.add_url_rule(path, name, says(name), methods=ANY_METHOD)
    app.register_blueprint(area)
    app.add_url_rule("/items/<name>", "item", says("item"), methods=ANY_METHOD)
    app.add_url_rule("/dual", "dual", Dual.as_view("dual"))
    app.add_websocket("/live", "live", declare(live, "live"))
    app.add_url_rule("/<path:rest>", "catch-all", says("catch-all"), methods=ANY_METHOD)
    if declares:
        ScopeGuard(app, _guard())
    return app


def _litestar(*, declares: bool = False) -> Any:
    """Return the app. *declares*: its handlers declare their requirements, and there are no rules."""
    from litestar import HttpMethod, Litestar, Request, Response, Router, WebSocket, route, websocket

    from scopeguard.litestar import ScopeGuard, requires

    methods = [HttpMethod.GET, HttpMethod.POST, HttpMethod.PUT, HttpMethod.DELETE, HttpMethod.PATCH]

    def declare(name: str) -> Any:
        if not declares:
            return {}
        return {"guards": [requires(_NEEDED[LEVELS[name]])]} if LEVELS[name] else {"scopeguard": "public"}

    def says(path: str, name: str) -> Any:
        async def handler() -> Response[str]:
            return Response(name, headers=_handler_header(name), status_code=200)

        return route(path, http_method=methods, **declare(name))(handler)

    def dual(method: HttpMethod, name: str) -> Any:
        async def handler(request: Request[Any, Any, Any]) -> Response[str]:
            return Response("", headers=_handler_header(_dual(request.method)), status_code=200)

        return route("/dual", http_method=[method], **declare(name))(handler)

    async def live(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept(headers=_handler_header("live"))
        await socket.close()

    app = Litestar(
        [
            *(says(path, name) for path, name in PATHS.items()),
            Router("/area", route_handlers=[says(path, name) for path, name in AREA.items()]),
            says("/items/{name:str}", "item"),
            dual(HttpMethod.GET, "dual-get"),
            dual(HttpMethod.POST, "dual-post"),
            websocket("/live", **declare("live"))(live),
            says("/{rest:path}", "catch-all"),
        ],
        openapi_config=None,
    )
    if declares:
        ScopeGuard(app, _guard())
    return app


class _Resource:
    """A resource of Falcon, for WSGI and ASGI."""

    def __init__(self, name: str) -> None:
        self._name = name

    def on_get(self, request: Any, response: Any, **_: str) -> None:
        name = _dual(request.method) if self._name == "dual" else self._name
        response.set_header("X-Handler", name)

    on_head = on_post = on_put = on_get


class _AsyncResource:
    def __init__(self, name: str) -> None:
        self._name, self._blocking = name, _Resource(name)

    async def on_get(self, request: Any, response: Any, **rest: str) -> None:
        self._blocking.on_get(request, response, **rest)

    on_head = on_post = on_put = on_get

    async def on_websocket(self, request: Any, socket: Any, **_: str) -> None:
        if self._name == "live":
            await socket.accept(headers=_handler_header("live"))
        await socket.close()


def _falcon(app: Any, resource: type[_Resource] | type[_AsyncResource]) -> Any:
    for path, name in {**PATHS, **{f"/area{path}": name for path, name in AREA.items()}}.items():
        app.add_route(path, resource(name))
    app.add_route("/items/{name}", resource("item"))
    app.add_route("/dual", resource("dual"))
    app.add_route("/live", resource("live" if resource is _AsyncResource else "catch-all"))
    app.add_route("/{rest:path}", resource("catch-all"))
    return app


def _falcon_asgi() -> Any:
    import falcon.asgi

    return _falcon(falcon.asgi.App(), _AsyncResource)


def _falcon_wsgi() -> Any:
    import falcon

    return _falcon(falcon.App(), _Resource)


urlpatterns: list[Any] = []
"""Django's: this module is its ``ROOT_URLCONF``."""


def _django_set_up() -> None:
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import include, path

    if settings.configured:
        return
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="made-up", MIDDLEWARE=[])
    django.setup()

    def says(name: str) -> Any:
        return lambda request, **_: HttpResponse(name, headers=_handler_header(name))

    def dual(request: Any) -> Any:
        known = request.method in ("GET", "HEAD", "POST")
        return HttpResponse(headers=_handler_header(_dual(request.method))) if known else HttpResponse(status=405)

    def patterns(paths: dict[str, str]) -> list[Any]:
        return [path(at[1:], says(name)) for at, name in paths.items()]

    urlpatterns.extend(
        [
            *patterns(PATHS),
            path("area/", include(patterns(AREA))),
            path("items/<name>", says("item")),
            path("dual", dual),
            path("<path:rest>", says("catch-all")),
            path("", says("catch-all")),
        ]
    )


def _django_asgi(*, extension: bool = False) -> Any:
    from django.core.handlers.asgi import ASGIHandler

    return _django_handler(ASGIHandler, extension=extension)


def _django_wsgi(*, extension: bool = False) -> Any:
    from django.core.handlers.wsgi import WSGIHandler

    return _django_handler(WSGIHandler, extension=extension)


def _django_handler(kind: Callable[[], Any], *, extension: bool) -> Any:
    """Return a handler, with the middleware of scopeguard in it or without. It reads ``MIDDLEWARE`` only here."""
    from django.conf import settings

    _django_set_up()
    settings.MIDDLEWARE = ["scopeguard.django.GuardMiddleware"] if extension else []
    settings.SCOPEGUARD = {"GUARD": _guard(), "RULES": RULES}
    return kind()


def _flask(*, extension: bool = False) -> Any:
    from flask import Blueprint, Flask, Response, request

    from scopeguard.flask import ScopeGuard

    def says(name: str) -> Any:
        return lambda **_: Response(name, headers=_handler_header(name))

    app, area = Flask(__name__), Blueprint("area", __name__, url_prefix="/area")
    for owner, paths in ((app, PATHS), (area, AREA)):
        for path, name in paths.items():
            owner.add_url_rule(path, name, says(name), methods=ANY_METHOD)
    app.register_blueprint(area)
    app.add_url_rule("/items/<name>", "item", says("item"), methods=ANY_METHOD)
    app.add_url_rule(
        "/dual", "dual", lambda: Response(headers=_handler_header(_dual(request.method))), methods=["GET", "POST"]
    )
    app.add_url_rule("/<path:rest>", "catch-all", says("catch-all"), methods=ANY_METHOD)
    if extension:
        ScopeGuard(app, _guard(), rules=RULES)
    return app


def _guard() -> Guard:
    return Guard(Issuer(AUTHORITY, audience=AUDIENCE, jwks_file=os.environ["SERVED_JWKS"]))


def starlette_app() -> Any:
    """The app of Starlette without a guard, for one that is elsewhere."""
    return _starlette()


def _mount(app: Any) -> Any:
    """An ASGI *app* mounted by Starlette, the guard inside the mount."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    return Starlette(routes=[Mount(MOUNT, app)])


def _mount_wsgi(app: Any) -> Any:
    """A WSGI *app* mounted by Werkzeug, the guard inside the mount."""
    from werkzeug.exceptions import NotFound
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    return DispatcherMiddleware(NotFound(), {MOUNT: app})


def _add_root_path(app: Any) -> Any:
    """An ASGI *app* on a server with a ``root_path`` that a proxy has removed from the path, as on Hypercorn."""

    async def call_app(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": MOUNT}, receive, send)

    return call_app


_ASGI: Final[dict[str, Callable[[], Any]]] = {
    "starlette": _starlette,
    "fastapi": _fastapi,
    "quart": _quart,
    "litestar": _litestar,
    "falcon": _falcon_asgi,
    "django": _django_asgi,
}
_DECLARING: Final[dict[str, Callable[..., Any]]] = {"quart": _quart, "litestar": _litestar}
_WSGI: Final[dict[str, Callable[[], Any]]] = {"flask": _flask, "falcon": _falcon_wsgi, "django": _django_wsgi}
_AROUND: Final[dict[str, Callable[[Any], Any]]] = {"mounted": _mount, "rooted": _add_root_path}


@functools.cache
def _asgi_app(named: str) -> Any:
    name, _, around = named.partition("-")
    if around == "extension":
        return _django_asgi(extension=True)
    if around.startswith("declared"):
        app = _DECLARING[name](declares=True)
        around = around.removeprefix("declared").removeprefix("-")
        return _AROUND[around](app) if around else app
    app = GuardASGI(_ASGI[name](), guard=_guard(), rules=RULES)
    return _AROUND[around](app) if around else app


@functools.cache
def _wsgi_app(named: str) -> Any:
    name, _, around = named.partition("-")
    if around == "extension":
        return _django_wsgi(extension=True) if name == "django" else _flask(extension=True)
    app = GuardWSGI(_WSGI[name](), guard=_guard(), rules=RULES)
    return _mount_wsgi(app) if around else app


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """The app that the request names."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    named = [value.decode() for name, value in scope["headers"] if name == b"x-app"]
    await _asgi_app(named[0] if named else "starlette")(scope, receive, send)


def wsgi(environ: Any, start_response: Any) -> Any:
    """The app that the request names."""
    return _wsgi_app(environ.get("HTTP_X_APP", "flask"))(environ, start_response)

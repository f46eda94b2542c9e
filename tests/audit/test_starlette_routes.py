"""Each kind of route in Starlette is found with its requirement."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from scopeguard import OPTIONAL, ConfigurationError, Guard, Rule, all_of, any_of
from scopeguard.audit.findings import audit_app
from scopeguard.starlette import GuardMiddleware, requires


async def plain(request: Request) -> PlainTextResponse:
    del request
    return PlainTextResponse("ok")


@requires("read")
async def reading(request: Request) -> PlainTextResponse:
    del request
    return PlainTextResponse("ok")


@requires("listen")
async def listening(websocket: WebSocket) -> None: ...


def test_instance_in_the_place_of_the_class_is_an_error_with_the_fix(guard: Guard):
    app = Starlette(routes=[Route("/", plain)])
    middleware: Any = GuardMiddleware(app, guard=guard)
    app.add_middleware(middleware)
    with pytest.raises(ConfigurationError, match=r"not an instance, as in app\.add_middleware\(GuardMiddleware"):
        audit_app(app)
    # The guide quotes this message of Python.
    with pytest.raises(TypeError, match="missing 2 required positional arguments: 'receive' and 'send'"):
        app.build_middleware_stack()


class Rows(HTTPEndpoint):
    @requires(any_of("read", "admin"))
    async def get(self, request: Request) -> Any: ...

    @requires("write")
    async def post(self, request: Request) -> Any: ...

    async def delete(self, request: Request) -> Any: ...


@requires("whole")
class Whole(HTTPEndpoint):
    async def get(self, request: Request) -> Any: ...


class Talk(WebSocketEndpoint): ...


async def opaque_app(scope: Any, receive: Any, send: Any) -> None: ...


def test_each_kind_of_route_has_a_line(guard: Guard, lines: Any):
    inner = Starlette(routes=[Route("/deep/{id:int}", reading)])
    app = Starlette(
        routes=[
            Route("/plain", plain, methods=["GET", "POST"]),
            Route("/read/{name}", reading),
            Route("/partial", functools.partial(plain)),
            Route("/rows", Rows),
            Route("/some", Rows, methods=["GET"]),
            Route("/whole", Whole),
            WebSocketRoute("/listen", listening),
            WebSocketRoute("/talk", Talk),
            Mount("/v1/{tenant}", routes=[Route("/files/{rest:path}", plain)]),
            Mount("/app", inner),
            Mount("/router", Router([Route("/", plain)])),
            Host("api.example.com", Router([Route("/hosted", reading)])),
            Mount("/static", StaticFiles(directory=".", check_dir=False)),
            Mount("/old", opaque_app),
        ],
        middleware=[Middleware(GZipMiddleware), Middleware(GuardMiddleware, guard=guard)],
    )
    assert lines(app) == {
        "GET /plain": "any valid token",
        "POST /plain": "any valid token",
        "GET /read/{name}": "read",
        "GET /partial": "any valid token",
        "GET /rows": "read or admin",
        "POST /rows": "write",
        "DELETE /rows": "any valid token",
        "GET /some": "read or admin",
        "GET /whole": "whole",
        "WEBSOCKET /listen": "listen",
        "WEBSOCKET /talk": "any valid token",
        "GET /v1/{tenant}/files/{rest:path}": "any valid token",
        "GET /app/deep/{id}": "read",
        "GET /router/": "any valid token",
        "GET /hosted": "read",
        "GET /static/{path:path}": "any valid token",
        "* /old/{path:path}": "any valid token",
    }


def test_without_a_guard_all_routes_are_unguarded_and_decorated_ones_are_errors(codes: Any):
    app = Starlette(routes=[Route("/a", plain), Route("/b", reading), Mount("/c", opaque_app)])
    assert codes(app) == {
        "unguarded": ["GET /a", "* /c/{path:path}"],
        "decorator-without-guard": ["GET /b"],
    }


def test_path_may_be_declared_public_in_the_middleware(lines: Any, codes: Any):
    app = Starlette(routes=[Route("/a", plain), Route("/docs/{page}", plain)])
    assert lines(app, public=["/docs/{rest:path}"]) == {"GET /a": "unguarded", "GET /docs/{page}": "public"}
    assert codes(app, public=["/docs/{rest:path}"]) == {"unguarded": ["GET /a"]}


def test_rules_inside_a_mount_use_the_path_below_it(guard: Guard, lines: Any):
    inner = Starlette(
        routes=[Route("/rows", plain)],
        middleware=[Middleware(GuardMiddleware, guard=guard, rules=[Rule("/rows", all_of("inner"))])],
    )
    app = Starlette(routes=[Mount("/api", inner), Route("/rows", plain)])
    assert lines(app) == {"GET /api/rows": "inner", "GET /rows": "unguarded"}
    outer = GuardMiddleware(app, guard=guard, rules=[Rule("/api/rows", all_of("outer")), Rule("/rows", OPTIONAL)])
    assert lines(outer) == {"GET /api/rows": "inner + outer", "GET /rows": "a valid token or none"}


def test_middleware_of_one_route_is_found(guard: Guard, lines: Any):
    around = [Middleware(GuardMiddleware, guard=guard)]
    app = Starlette(routes=[Route("/in", plain, middleware=around), Route("/out", plain)])
    assert lines(app) == {"GET /in": "any valid token", "GET /out": "unguarded"}


def test_wrapped_apps_are_inspected(guard: Guard, lines: Any):
    class Wrapper:
        def __init__(self, inner: Any) -> None:
            self.app = inner

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    app = Wrapper(GuardMiddleware(Wrapper(Starlette(routes=[Route("/a", reading)])), guard=guard))
    assert lines(app) == {"GET /a": "read"}
    circle = Wrapper(None)
    circle.app = circle
    assert lines(circle) == {"* /{path:path}": "unguarded"}


def test_app_that_cannot_be_inspected_is_described_by_its_rules(guard: Guard, codes: Any):
    rules = [Rule("/rows/{id}", all_of("read"), ["GET"]), Rule("/rows/{id}", all_of("write"), ["POST", "PUT"])]
    report = audit_app(GuardMiddleware(opaque_app, guard=guard, rules=rules, public=["/healthz"]))
    assert [(entry.where, entry.access, entry.opaque) for entry in report.entries] == [
        ("* /healthz", "public", True),
        ("GET /rows/{id}", "read", True),
        ("POST /rows/{id}", "write", True),
        ("PUT /rows/{id}", "write", True),
        ("* /{path:path}", "denied to all", True),
    ]
    assert codes(report) == {}


def test_default_app_is_a_route(guard: Guard, lines: Any):
    router = Router([Route("/a", plain)], default=opaque_app)
    assert lines(GuardMiddleware(router, guard=guard)) == {
        "GET /a": "any valid token",
        "* /{path:path}": "any valid token",
    }


def test_function_decorated_apart_from_its_route_is_found(guard: Guard, codes: Any):
    async def late(request: Request) -> Any: ...

    async def shared(request: Request) -> Any: ...

    app = Starlette(
        routes=[Route("/late", late), Route("/shared", shared), Route("/read", requires("read")(shared))],
        middleware=[Middleware(GuardMiddleware, guard=guard)],
    )
    assert codes(app) == {}
    decorated = requires("write")(late)
    assert codes(app) == {"decorator-passed-by": ["GET /late"]}
    del decorated

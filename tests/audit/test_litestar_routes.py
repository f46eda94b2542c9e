"""Handlers, controllers, routers and mounts of Litestar, behind the extension and behind the middleware."""

# No ``from __future__ import annotations``: Litestar could not look up what is local to a function.

from typing import Any

import pytest
from litestar import Controller, Litestar, Router, WebSocket, asgi, get, route, websocket
from litestar.config.cors import CORSConfig
from litestar.handlers import HTTPRouteHandler

from scopeguard import PUBLIC, ConfigurationError, Guard, Rule
from scopeguard.asgi import GuardMiddleware
from scopeguard.audit.findings import audit_app
from scopeguard.litestar import ScopeGuard, requires


def handler(path: str = "/", **declared: Any) -> HTTPRouteHandler:
    async def answer() -> str:
        return "answer"

    return get(path, **declared)(answer)


def an_app(*more: Any, **settings: Any) -> Any:
    class Rows(Controller):
        path = "/rows"
        guards = [requires("controller")]  # noqa: RUF012 - as Litestar has it

        @get("/{number:int}")
        async def row(self) -> str:
            return "row"

        @route("/", http_method=["GET", "POST"], guards=[requires("handler")])
        async def rows(self) -> str:
            return "rows"

    @websocket("/live", guards=[requires("live")])
    async def live(socket: WebSocket[Any, Any, Any]) -> None: ...

    @asgi("/mounted", is_mount=True, copy_scope=True, guards=[requires("mounted")])
    async def mounted(scope: Any, receive: Any, send: Any) -> None: ...

    handlers = [
        Router("/v1", route_handlers=[Rows], guards=[requires("router")]),
        live,
        mounted,
        handler("/files/{rest:path}", scopeguard="public"),
        handler("/maybe", opt={"scopeguard": "optional"}),
        handler("/plain"),
        *more,
    ]
    return Litestar(handlers, openapi_config=None, logging_config=None, **settings)


LINES = {
    "GET /v1/rows/{number}": "controller + router",
    "GET /v1/rows": "controller + handler + router",
    "POST /v1/rows": "controller + handler + router",
    "WEBSOCKET /live": "live",
    "* /mounted/{path:path}": "mounted",
    "GET /plain": "any valid token",
}


def test_each_handler_has_a_line(guard: Guard, lines: Any, codes: Any):
    app = an_app()
    ScopeGuard(app, guard)
    assert lines(app) == {**LINES, "GET /files/{rest:path}": "public", "GET /maybe": "a valid token or none"}
    assert codes(app) == {"optional-token": ["GET /maybe"]}


def test_middleware_around_an_app_decides_before_its_handlers(guard: Guard, lines: Any):
    app = GuardMiddleware(an_app(), guard=guard)
    assert lines(app) == {**LINES, "GET /files/{rest:path}": "any valid token", "GET /maybe": "any valid token"}


def test_app_without_a_guard_is_open(lines: Any):
    assert lines(Litestar([handler("/a")], openapi_config=None, logging_config=None)) == {"GET /a": "unguarded"}


def test_rule_that_no_handler_matches_and_cors_inside_are_found(guard: Guard, codes: Any):
    app = an_app(cors_config=CORSConfig(allow_origins=["https://spa.test"]))
    ScopeGuard(app, guard, rules=[Rule("/plain"), Rule("/gone", PUBLIC)])
    found = codes(app)
    assert found["rule-without-route"] == ["* /gone"]
    assert "cors-inside-guard" in found


def test_unknown_value_of_opt_is_an_error(guard: Guard):
    app = an_app(handler("/wrong", scopeguard=True))
    ScopeGuard(app, guard)
    with pytest.raises(ConfigurationError, match="must be 'public' or 'optional', not True"):
        audit_app(app)

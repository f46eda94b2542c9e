"""Views, view classes, blueprints and websockets of Quart, behind the extension and behind the middleware."""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Quart
from quart.views import MethodView

from scopeguard import Guard, Rule
from scopeguard.asgi import GuardMiddleware
from scopeguard.quart import ScopeGuard, optional, public, requires


def an_app() -> Any:
    app = Quart("an_app", static_folder=None)

    @app.route("/rows/<int:number>", methods=["GET", "POST"])
    @requires("rows")
    async def rows(number: int) -> Any: ...

    @app.get("/files/<path:rest>")
    @public
    async def files(rest: str) -> Any: ...

    @app.get("/maybe")
    @optional
    async def maybe() -> Any: ...

    @app.websocket("/live")
    @requires("live")
    async def live() -> Any: ...

    class Class(MethodView):
        @requires("read")
        async def get(self) -> Any: ...

        async def post(self) -> Any: ...

    app.add_url_rule("/class", view_func=Class.as_view("class"))
    outer, inner = Blueprint("outer", "an_app"), Blueprint("inner", "an_app")

    @outer.before_request
    @requires("hook")
    async def check() -> Any: ...

    @outer.before_websocket
    @requires("socket")
    async def check_socket() -> None: ...

    inner.add_url_rule("/deep", "deep", requires("deep")(check))
    inner.add_websocket("/deep-live", "deep-live", check)
    outer.register_blueprint(inner, url_prefix="/inner")
    app.register_blueprint(outer, url_prefix="/outer")
    return app


LINES = {
    "GET /rows/{number}": "rows",
    "POST /rows/{number}": "rows",
    "WEBSOCKET /live": "live",
    "GET /class": "read",
    "POST /class": "any valid token",
    "GET /outer/inner/deep": "deep + hook",
    "WEBSOCKET /outer/inner/deep-live": "hook + socket",
}


def test_each_view_has_a_line(guard: Guard, lines: Any, codes: Any):
    app = an_app()
    ScopeGuard(app, guard)
    assert lines(app) == {**LINES, "GET /files/{rest:path}": "public", "GET /maybe": "a valid token or none"}
    assert codes(app) == {"optional-token": ["GET /maybe"]}


def test_middleware_around_an_app_decides_before_its_views(guard: Guard, lines: Any):
    for app in (GuardMiddleware(an_app(), guard=guard), wrap(an_app(), guard)):
        assert lines(app) == {**LINES, "GET /files/{rest:path}": "any valid token", "GET /maybe": "any valid token"}


def wrap(app: Any, guard: Guard) -> Any:
    app.asgi_app = GuardMiddleware(app.asgi_app, guard=guard)
    return app


def test_rule_that_no_view_matches_is_found(guard: Guard, codes: Any):
    app = an_app()
    ScopeGuard(app, guard, rules=[Rule("/gone"), Rule("/live")])
    assert codes(app)["rule-without-route"] == ["* /gone"]

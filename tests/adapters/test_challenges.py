"""The challenge to a caller without a token names the scopes of the route, in each adapter (RFC 6750 section 3)."""

# No ``from __future__ import annotations``: FastAPI could not look up what is local to a function.

import re
from collections.abc import Callable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Security
from flask import Blueprint, Flask
from flask.views import MethodView
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from scopeguard import Guard, Rule, all_of, any_of, asgi, wsgi
from scopeguard import flask as in_flask
from scopeguard import starlette as in_starlette
from scopeguard.fastapi import Protected
from scopeguard.testing import FakeAuthority

Ask = Callable[..., Any]


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


def starlette_app(*middleware: Any) -> Starlette:
    @in_starlette.requires("write")
    async def insert(request: Request) -> PlainTextResponse:
        return PlainTextResponse("in")

    @in_starlette.requires("write")
    class Whole(HTTPEndpoint):
        def get(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse("in")

    class ByMethod(HTTPEndpoint):
        @in_starlette.requires("read")
        def get(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse("in")

        @in_starlette.requires("write")
        def post(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse("in")

    async def plain(request: Request) -> PlainTextResponse:
        return PlainTextResponse("in")

    routes = [
        Route("/insert", insert, methods=["POST"]),
        Route("/whole", Whole),
        Route("/methods", ByMethod),
        Route("/plain", plain),
        Mount("/v1", routes=[Route("/tables/{table}", insert, methods=["POST"])]),
    ]
    return Starlette(routes=routes, middleware=middleware)


def guard_inside(guard: Guard, **settings: Any) -> Ask:
    guarding: Any = Middleware(asgi.GuardMiddleware, guard=guard, **settings)
    return TestClient(starlette_app(guarding)).request


def guard_outside(guard: Guard, **settings: Any) -> Ask:
    return TestClient(asgi.GuardMiddleware(starlette_app(), guard=guard, **settings)).request


def fastapi_app(guard: Guard) -> FastAPI:
    protected = Protected(guard)
    app, router = FastAPI(), APIRouter(prefix="/v1", dependencies=[Depends(protected.requires("write"))])

    @app.post("/insert")
    def insert(token: Annotated[Any, Security(protected, scopes=["write"])]) -> None: ...

    @app.get("/whole", dependencies=[Depends(protected.requires("write"))])
    def whole() -> None: ...

    @app.get("/methods")
    def read(token: Annotated[Any, Security(protected, scopes=["read"])]) -> None: ...

    @app.post("/methods")
    def write(token: Annotated[Any, Security(protected, scopes=["write"])]) -> None: ...

    @app.get("/plain")
    def plain(token: Annotated[Any, Depends(protected)]) -> None: ...

    @router.post("/tables/{table}")
    def insert_into(table: str) -> None: ...

    app.include_router(router)
    return app


def fastapi_alone(guard: Guard) -> Ask:
    return TestClient(fastapi_app(guard)).request


def fastapi_in_app(guard: Guard, **settings: Any) -> Ask:
    app = fastapi_app(guard)
    app.add_middleware(asgi.GuardMiddleware, guard=guard, **settings)
    return TestClient(app).request


def fastapi_around_app(guard: Guard, **settings: Any) -> Ask:
    return TestClient(asgi.GuardMiddleware(fastapi_app(guard), guard=guard, **settings)).request


def flask_app() -> Flask:
    app, api = Flask("app"), Blueprint("api", "api", url_prefix="/v1")

    @in_flask.requires("write")
    class Whole(MethodView):
        def get(self) -> str:
            return "in"

    class ByMethod(MethodView):
        @in_flask.requires("read")
        def get(self) -> str:
            return "in"

        @in_flask.requires("write")
        def post(self) -> str:
            return "in"

    app.add_url_rule("/insert", "insert", in_flask.requires("write")(lambda: "in"), methods=["POST"])
    app.add_url_rule("/whole", view_func=Whole.as_view("whole"))
    app.add_url_rule("/methods", view_func=ByMethod.as_view("methods"))
    app.add_url_rule("/plain", "plain", lambda: "in")
    api.add_url_rule("/tables/<table>", "insert", lambda table: "in", methods=["POST"])
    api.before_request(in_flask.requires("write")(lambda: None))
    app.register_blueprint(api)
    return app


def wsgi_client(app: Any) -> Ask:
    return httpx.Client(transport=httpx.WSGITransport(app=app), base_url="http://api.test").request


def flask_extension(guard: Guard, **settings: Any) -> Ask:
    app = flask_app()
    in_flask.ScopeGuard(app, guard, **settings)
    return wsgi_client(app)


def flask_behind_middleware(guard: Guard, **settings: Any) -> Ask:
    return wsgi_client(wsgi.GuardMiddleware(flask_app(), guard=guard, **settings))


WITH_RULES = [guard_inside, guard_outside, fastapi_in_app, fastapi_around_app, flask_extension, flask_behind_middleware]


def scopes_of(answer: Any) -> set[str] | None:
    found = re.search(r'scope="([^"]*)"', answer.headers["www-authenticate"])
    return set(found[1].split()) if found else None


@pytest.mark.rule("G-13")
@pytest.mark.parametrize("audit", ["off", "warn"])
@pytest.mark.parametrize("door", [fastapi_alone, *WITH_RULES])
def test_challenge_lists_the_scopes_of_the_route(authority: FakeAuthority, door: Any, audit: str):
    ask = door(Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit=audit))
    expired = authority.bearer("write read", expires_in=-3600)
    wanted = {
        ("POST", "/insert"): {"write"},
        ("GET", "/whole"): {"write"},
        ("GET", "/methods"): {"read"},
        ("POST", "/methods"): {"write"},
        ("POST", "/v1/tables/rows"): {"write"},
        ("GET", "/plain"): None,
    }
    for headers in ({}, expired):
        answers = {route: ask(*route, headers=headers) for route in wanted}
        assert {answer.status_code for answer in answers.values()} == {401}
        assert {route: scopes_of(answer) for route, answer in answers.items()} == wanted
    assert scopes_of(ask("POST", "/insert", headers=authority.bearer("other"))) == {"write"}
    assert ask("POST", "/v1/tables/rows", headers=authority.bearer("write")).status_code == 200


@pytest.mark.rule("G-13")
@pytest.mark.parametrize("door", WITH_RULES)
def test_challenge_lists_the_scopes_of_rule_and_route(authority: FakeAuthority, door: Any):
    rules = [Rule("/insert", all_of("api")), Rule("/{path:path}")]
    ask = door(Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off"), rules=rules)
    assert scopes_of(ask("POST", "/insert")) == {"api", "write"}
    assert scopes_of(ask("POST", "/insert", headers=authority.bearer("other"))) == {"api", "write"}
    assert scopes_of(ask("POST", "/methods")) == {"write"}
    assert ask("POST", "/insert", headers=authority.bearer("api")).status_code == 403
    assert ask("POST", "/insert", headers=authority.bearer("api write")).status_code == 200


@pytest.mark.rule("G-13", "H-02")
def test_challenge_of_a_websocket_lists_the_scopes(authority: FakeAuthority):
    @in_starlette.requires("chat")
    async def chat(websocket: WebSocket) -> None: ...

    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    guarding: Any = Middleware(asgi.GuardMiddleware, guard=guard)
    client = TestClient(Starlette(routes=[WebSocketRoute("/chat", chat)], middleware=[guarding]))
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/chat"):
        pass
    denial: Any = refused.value  # TestClient has the extension for denial responses, and answers like HTTP
    assert scopes_of(denial) == {"chat"}


def test_challenge_for_an_unknown_kind_of_app_has_no_scope(authority: FakeAuthority):
    class App:
        @property
        def app(self) -> Any:
            raise LookupError("of its own making")

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    answer = TestClient(asgi.GuardMiddleware(App(), guard=guard, root_path="")).get("/")
    assert (answer.status_code, scopes_of(answer)) == (401, None)


def test_challenge_for_a_path_that_rules_cannot_express_has_no_scope(authority: FakeAuthority):
    @in_starlette.requires("write")
    async def insert(request: Request) -> PlainTextResponse:
        return PlainTextResponse("in")

    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    routes = [Route("/a/{x}{y}", insert), Route("/b", insert)]
    client = TestClient(asgi.GuardMiddleware(Starlette(routes=routes), guard=guard))
    assert scopes_of(client.get("/b")) == {"write"}
    assert client.get("/a/z").status_code == 401


def test_before_request_functions_open_no_route(authority: FakeAuthority):
    """The requirement of a blueprint's function is in the challenge; a route without a rule stays closed."""
    app = flask_app()
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off")
    in_flask.ScopeGuard(app, guard, rules=[Rule("/insert")])
    ask = wsgi_client(app)
    assert ask("POST", "/v1/tables/rows", headers=authority.bearer("write")).status_code == 403


def test_requirement_too_large_for_the_challenge_does_not_change_the_refusal(authority: FakeAuthority):
    ours, theirs = (any_of(*(f"{letter}{number}" for number in range(40))) for letter in "ab")

    @in_starlette.requires(theirs)
    async def rows(request: Request) -> PlainTextResponse:
        return PlainTextResponse("in")

    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    app = asgi.GuardMiddleware(Starlette(routes=[Route("/rows", rows)]), guard=guard, rules=[Rule("/rows", ours)])
    ask = TestClient(app)
    assert ask.get("/rows", headers=authority.bearer("a1 b1")).status_code == 200
    assert ask.get("/rows", headers=authority.bearer("a1")).status_code == 403
    refused = ask.get("/rows")
    assert (refused.status_code, 'scope="a0"' in refused.headers["www-authenticate"]) == (401, True)

"""Listeners (``on_decision``) get one decision for each request, in each adapter and with several layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from fastapi import Depends, FastAPI, Security
from flask import Flask, copy_current_request_context
from flask.views import MethodView
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from doors import DOORS, Door, guard_for
from framework_doors import FRAMEWORK_DOORS
from scenarios import SCENARIOS, tokens
from scopeguard import Decision, Denied, Granted, Guard, HeaderList, RequestView, Rule, all_of
from scopeguard.access_token import Anonymous
from scopeguard.asgi import GuardMiddleware
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard
from scopeguard.flask import requires as flask_requires
from scopeguard.starlette import requires
from scopeguard.testing import FakeAuthority
from scopeguard.wsgi import GuardMiddleware as WSGIGuard


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def decisions() -> list[Decision]:
    return []


@pytest.fixture
def guard(authority: FakeAuthority, decisions: list[Decision]) -> Guard:
    return guard_for(authority, on_decision=decisions.append)


@pytest.mark.parametrize("door", [door for door in (*DOORS, *FRAMEWORK_DOORS) if door.saw], ids=lambda door: door.name)
def test_listener_gets_one_decision_for_each_scenario(door: Door):
    authority, decisions = FakeAuthority(), list[Decision]()
    way, known = door.opened(guard_for(authority, on_decision=decisions.append)), tokens(authority)
    for scenario in SCENARIOS:
        if scenario.name in door.without:
            continue
        decisions.clear()
        exchange = scenario.send.filled(known)
        status = way(exchange).status
        told = [type(decision) for decision in decisions]
        if status >= 400:
            assert told == [Denied], scenario.name
        elif exchange.target.startswith("/public"):
            assert told == [], scenario.name
        else:
            assert told in ([Granted], [Anonymous]), scenario.name
        for decision in decisions:
            assert decision.method == exchange.method, scenario.name
            assert decision.path == exchange.target.partition("?")[0], scenario.name


def outcomes(client: Any, authority: FakeAuthority, decisions: list[Decision], path: str = "/x") -> list[list[str]]:
    """Return the decisions for a request with a sufficient token, with too few scopes, and without a token."""
    found = []
    for headers in (authority.bearer("x"), authority.bearer("y"), {}):
        decisions.clear()
        client.get(path, headers=headers)
        found.append([f"{type(decision).__name__} {decision.method} {decision.path}" for decision in decisions])
        found[-1] += [str(decision.route) for decision in decisions]
    return found


def each(path: str, route: str | None) -> list[list[str]]:
    return [[f"{kind} GET {path}", str(route)] for kind in ("Granted", "Denied", "Denied")]


def tells_route() -> bool:
    """Return whether this Starlette puts the route that it has matched in the scope. Older ones do not."""

    async def report(request: Request) -> JSONResponse:
        return JSONResponse("route" in request.scope)

    told = TestClient(Starlette(routes=[Route("/", report)])).get("/").json()
    assert isinstance(told, bool)
    return told


@requires("x")
async def endpoint(request: Request) -> JSONResponse:
    return JSONResponse({})


@requires("x")
def endpoint_in_thread(request: Request) -> JSONResponse:
    return JSONResponse({})


@requires("x")
@requires("x")
async def endpoint_twice(request: Request) -> StreamingResponse:
    async def parts() -> Any:
        yield b"a"
        yield b"b"

    return StreamingResponse(parts())


@pytest.mark.parametrize("function", [endpoint, endpoint_in_thread, endpoint_twice])
def test_starlette_behind_middleware(authority: FakeAuthority, guard: Guard, decisions: list[Decision], function: Any):
    async def pass_on(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    app = Starlette(
        routes=[Route("/x", function), Mount("/in", routes=[Route("/x", function)])],
        middleware=[
            Middleware(GuardMiddleware, guard=guard, rules=[Rule("/{rest:path}")]),
            Middleware(BaseHTTPMiddleware, dispatch=pass_on),
            Middleware(GuardMiddleware, guard=guard),  # The same twice.
        ],
    )
    client = TestClient(app)
    for path in ("/x", "/in/x"):
        found = outcomes(client, authority, decisions, path)
        # Middleware refuses a request without a token before there is a route; its rule has a template as well.
        template = path if tells_route() else "/{rest:path}"
        assert found == [*each(path, template)[:2], [f"Denied GET {path}", "/{rest:path}"]]


def fastapi_app(guard: Guard) -> FastAPI:
    protected = Protected(guard)
    app = FastAPI()

    @app.get("/x/{name}", dependencies=[Security(protected, scopes=["x"])])
    async def one(name: str) -> dict[str, str]:
        return {}

    @app.get("/two/{name}", dependencies=[Depends(protected), Security(protected, scopes=["x"])])
    def two(name: str) -> dict[str, str]:
        return {}

    return app


@pytest.mark.parametrize("behind", [False, True], ids=["dependency", "middleware and dependency"])
@pytest.mark.parametrize("path", ["/x", "/two"])
def test_fastapi(authority: FakeAuthority, guard: Guard, decisions: list[Decision], behind: bool, path: str):
    app: Any = fastapi_app(guard)
    client = TestClient(GuardMiddleware(app, guard=guard) if behind else app)
    found = outcomes(client, authority, decisions, f"{path}/7")
    # Middleware refuses a request without a token before there is a route.
    last = [[f"Denied GET {path}/7", "None" if behind else f"{path}/{{name}}"]]
    assert found == [*each(f"{path}/7", f"{path}/{{name}}")[:2], *last]


@pytest.mark.parametrize("behind", [False, True], ids=["extension", "middleware and extension"])
def test_flask(authority: FakeAuthority, guard: Guard, decisions: list[Decision], behind: bool):
    app = Flask("x")
    ScopeGuard(app, guard)

    @app.get("/x/<name>")
    @flask_requires("x")
    def view(name: str) -> str:
        return ""

    class ByMethod(MethodView):
        decorators: ClassVar[list[Any]] = [flask_requires("x")]

        @flask_requires("x")
        def get(self, name: str) -> str:
            return ""

    @app.get("/job/<name>")
    @flask_requires("x")
    def job(name: str) -> str:
        copy_current_request_context(lambda: None)()
        assert decisions == []  # The end of the copy is not the end of the request.
        return ""

    app.add_url_rule("/methods/<name>", view_func=ByMethod.as_view("methods"))
    if behind:
        setattr(app, "wsgi_app", WSGIGuard(app.wsgi_app, guard=guard))  # noqa: B010 - to type checkers, a method
    for path in ("/x", "/methods", "/job"):
        found = outcomes(app.test_client(), authority, decisions, f"{path}/7")
        last = [[f"Denied GET {path}/7", "None" if behind else f"{path}/<name>"]]
        assert found == [*each(f"{path}/7", f"{path}/<name>")[:2], *last], path


def test_failing_app_is_reported_as_one_grant(authority: FakeAuthority, guard: Guard, decisions: list[Decision]):
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("of the app")

    def failing_view() -> str:
        raise KeyError("of the app")

    flask = Flask("x")
    ScopeGuard(flask, guard)
    flask.add_url_rule("/", view_func=failing_view)
    clients: list[Callable[[], Any]] = [
        lambda: TestClient(GuardMiddleware(failing, guard=guard)).get("/", headers=authority.bearer("x")),
        lambda: flask.test_client().get("/", headers=authority.bearer("x")),
    ]
    flask.testing = True
    for ask in clients:
        decisions.clear()
        with pytest.raises(KeyError):
            ask()
        assert [type(decision) for decision in decisions] == [Granted]


def test_websocket_is_reported_at_its_handshake(authority: FakeAuthority, guard: Guard, decisions: list[Decision]):
    @requires("x")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(len(decisions)))
        await websocket.close()

    client = TestClient(GuardMiddleware(Starlette(routes=[WebSocketRoute("/ws", chat)]), guard=guard))
    with client.websocket_connect("/ws", headers=authority.bearer("x")) as connection:
        assert connection.receive_text() == "1"
    assert [type(decision) for decision in decisions] == [Granted]


def test_nested_guards_each_report_a_decision(authority: FakeAuthority, guard: Guard, decisions: list[Decision]):
    inside = list[Decision]()
    other = guard_for(authority, on_decision=inside.append)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse({})(scope, receive, send)

    client = TestClient(
        GuardMiddleware(GuardMiddleware(app, guard=other, rules=[Rule("/x", all_of("x"))]), guard=guard)
    )
    for scope, kind in (("x", Granted), ("y", Denied)):
        client.get("/x", headers=authority.bearer(scope))
        assert [type(decision) for decision in decisions] == [Granted]
        assert [type(decision) for decision in inside] == [kind]
        decisions.clear()
        inside.clear()


def test_background_task_is_reported_separately(authority: FakeAuthority, guard: Guard, decisions: list[Decision]):
    """A background task has the context of its request, which has ended."""

    def later() -> None:
        guard.check(RequestView(method="POST", path="/queue", headers=HeaderList([])))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse({})(scope, receive, send)
        later()

    TestClient(GuardMiddleware(app, guard=guard)).get("/x", headers=authority.bearer("x"))
    assert [(type(d), d.method, d.path) for d in decisions] == [(Granted, "GET", "/x"), (Denied, "POST", "/queue")]

"""Listeners (``on_decision``) get one event for each request, in each adapter and with several layers."""

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

from doors import DOORS, Door, call_asgi, call_wsgi, guard_for
from framework_doors import FRAMEWORK_DOORS
from scenarios import SCENARIOS, bearer, tokens
from scopeguard import (
    Adapter,
    DecisionEvent,
    Denied,
    Granted,
    Guard,
    HeaderList,
    Reason,
    RequestView,
    Rule,
    TokenCheck,
    all_of,
)
from scopeguard.asgi import GuardMiddleware
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard
from scopeguard.flask import requires as flask_requires
from scopeguard.starlette import requires
from scopeguard.testing import FakeAuthority
from scopeguard.tokens import Anonymous
from scopeguard.wsgi import GuardMiddleware as WSGIGuard


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def events() -> list[DecisionEvent]:
    return []


@pytest.fixture
def guard(authority: FakeAuthority, events: list[DecisionEvent]) -> Guard:
    return guard_for(authority, on_decision=events.append)


@pytest.mark.anyio
async def test_middleware_finds_the_rule_once_for_a_listener(
    authority: FakeAuthority, events: list[DecisionEvent], monkeypatch: pytest.MonkeyPatch
):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse({})(scope, receive, send)

    guard = guard_for(authority, on_decision=events.append)
    inner = GuardMiddleware(app, guard=guard, rules=[Rule("/{rest:path}", all_of("read"))])
    guarded = GuardMiddleware(inner, guard=guard, rules=[Rule("/rows/{row}", all_of("read"))])
    found = list[tuple[object, Rule | None]]()
    find = GuardMiddleware._rule

    def count(self: GuardMiddleware, method: str, scope: Any) -> Rule | None:
        found.append((self, find(self, method, scope)))
        return found[-1][1]

    monkeypatch.setattr(GuardMiddleware, "_rule", count)
    for number in range(2):
        await call_asgi(guarded, bearer(authority.mint("read"), f"/rows/{number}"))
    layers = [layer for layer, _ in found]
    assert layers == [guarded, inner] * 2
    assert [event.route for event in events] == ["/rows/{row}"] * 2


def test_wsgi_middleware_finds_the_rule_once_for_a_listener(
    authority: FakeAuthority, events: list[DecisionEvent], monkeypatch: pytest.MonkeyPatch
):
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    guard = guard_for(authority, on_decision=events.append)
    inner = WSGIGuard(app, guard=guard, rules=[Rule("/{rest:path}", all_of("read"))])
    guarded = WSGIGuard(inner, guard=guard, rules=[Rule("/rows/{row}", all_of("read"))])
    found: list[WSGIGuard] = []

    def count_calls(layer: WSGIGuard, find: Any) -> Any:
        def count(*asked: Any) -> Rule | None:
            found.append(layer)
            rule: Rule | None = find(*asked)
            return rule

        return count

    for layer in (inner, guarded):
        monkeypatch.setattr(layer, "_find", count_calls(layer, layer._find))
    for number in range(2):
        assert call_wsgi(guarded, bearer(authority.mint("read"), f"/rows/{number}")).status == 200
    assert found == [guarded, inner] * 2
    assert [event.route for event in events] == ["/rows/{row}"] * 2


@pytest.mark.parametrize("door", [door for door in (*DOORS, *FRAMEWORK_DOORS) if door.saw], ids=lambda door: door.name)
def test_listener_gets_one_decision_for_each_scenario(door: Door):
    authority, events = FakeAuthority(), list[DecisionEvent]()
    way, known = door.opened(guard_for(authority, on_decision=events.append)), tokens(authority)
    adapters = set[Adapter]()
    for scenario in SCENARIOS:
        if scenario.name in door.without:
            continue
        events.clear()
        exchange = scenario.send.fill(known)
        status = way(exchange).status
        told = [type(event.decision) for event in events]
        if status >= 400:
            assert told == [Denied], scenario.name
        elif exchange.target.startswith("/public"):
            assert told == [], scenario.name
        else:
            assert told in ([Granted], [Anonymous]), scenario.name
        for event in events:
            assert event.method == exchange.method, scenario.name
            assert event.path == exchange.target.partition("?")[0], scenario.name
            adapters.add(event.adapter)
    # On Lambda, the middleware for WSGI decides.
    own = Adapter.WSGI if door.name.startswith("lambda") else Adapter(door.name.partition("-")[0])
    # Middleware refuses a request without a token before the endpoint sees it.
    assert own in adapters
    around = {
        Adapter.STARLETTE: {Adapter.ASGI},
        Adapter.FASTAPI: {Adapter.ASGI},
        Adapter.FALCON: {Adapter.ASGI, Adapter.WSGI},
    }
    assert adapters <= {own, *around[own]} if own in around else adapters == {own}


def outcomes(client: Any, authority: FakeAuthority, events: list[DecisionEvent], path: str = "/x") -> list[list[str]]:
    """Return the events for a request with a sufficient token, with too few scopes, and without a token."""
    found = []
    for headers in (authority.bearer("x"), authority.bearer("y"), {}):
        events.clear()
        client.get(path, headers=headers)
        found.append([f"{type(event.decision).__name__} {event.method} {event.path}" for event in events])
        found[-1] += [str(event.route) for event in events]
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
def test_starlette_behind_middleware(
    authority: FakeAuthority, guard: Guard, events: list[DecisionEvent], function: Any
):
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
        found = outcomes(client, authority, events, path)
        # Middleware refuses a request without a token before there is a route; its rule has a template as well.
        template = path if tells_route() else "/{rest:path}"
        assert found == [*each(path, template)[:2], [f"Denied GET {path}", "/{rest:path}"]]


def test_refusal_by_middleware_in_a_mount_has_no_route_of_the_mount(
    authority: FakeAuthority, guard: Guard, events: list[DecisionEvent]
):
    mount = Mount("/in", routes=[Route("/x", endpoint)], middleware=[Middleware(GuardMiddleware, guard=guard)])
    found = outcomes(TestClient(Starlette(routes=[mount])), authority, events, "/in/x")
    template = "/in/x" if tells_route() else "None"
    assert [route for _, route in found] == [template, template, "None"]


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
def test_fastapi(authority: FakeAuthority, guard: Guard, events: list[DecisionEvent], behind: bool, path: str):
    app: Any = fastapi_app(guard)
    client = TestClient(GuardMiddleware(app, guard=guard) if behind else app)
    found = outcomes(client, authority, events, f"{path}/7")
    # Middleware refuses a request without a token before there is a route.
    last = [[f"Denied GET {path}/7", "None" if behind else f"{path}/{{name}}"]]
    assert found == [*each(f"{path}/7", f"{path}/{{name}}")[:2], *last]


@pytest.mark.parametrize("behind", [False, True], ids=["extension", "middleware and extension"])
def test_flask(authority: FakeAuthority, guard: Guard, events: list[DecisionEvent], behind: bool):
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
        assert events == []  # The end of the copy is not the end of the request.
        return ""

    app.add_url_rule("/methods/<name>", view_func=ByMethod.as_view("methods"))
    if behind:
        setattr(app, "wsgi_app", WSGIGuard(app.wsgi_app, guard=guard))  # noqa: B010 - to type checkers, a method
    for path in ("/x", "/methods", "/job"):
        found = outcomes(app.test_client(), authority, events, f"{path}/7")
        last = [[f"Denied GET {path}/7", "None" if behind else f"{path}/<name>"]]
        assert found == [*each(f"{path}/7", f"{path}/<name>")[:2], *last], path


def test_failing_app_is_reported_as_one_grant(authority: FakeAuthority, guard: Guard, events: list[DecisionEvent]):
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("of the app")

    def fail_in_view() -> str:
        raise KeyError("of the app")

    flask = Flask("x")
    ScopeGuard(flask, guard)
    flask.add_url_rule("/", view_func=fail_in_view)
    clients: list[Callable[[], Any]] = [
        lambda: TestClient(GuardMiddleware(fail, guard=guard)).get("/", headers=authority.bearer("x")),
        lambda: flask.test_client().get("/", headers=authority.bearer("x")),
    ]
    flask.testing = True
    for ask in clients:
        events.clear()
        with pytest.raises(KeyError):
            ask()
        assert [type(event.decision) for event in events] == [Granted]


def test_websocket_is_reported_at_its_handshake(authority: FakeAuthority, guard: Guard, events: list[DecisionEvent]):
    @requires("x")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(len(events)))
        await websocket.close()

    client = TestClient(GuardMiddleware(Starlette(routes=[WebSocketRoute("/ws", chat)]), guard=guard))
    with client.websocket_connect("/ws", headers=authority.bearer("x")) as connection:
        assert connection.receive_text() == "1"
    assert [type(event.decision) for event in events] == [Granted]


def test_nested_guards_each_report_a_decision(authority: FakeAuthority, guard: Guard, events: list[DecisionEvent]):
    inside = list[DecisionEvent]()
    other = guard_for(authority, on_decision=inside.append)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse({})(scope, receive, send)

    client = TestClient(
        GuardMiddleware(GuardMiddleware(app, guard=other, rules=[Rule("/x", all_of("x"))]), guard=guard)
    )
    for scope, kind in (("x", Granted), ("y", Denied)):
        client.get("/x", headers=authority.bearer(scope))
        assert [type(event.decision) for event in events] == [Granted]
        assert [type(event.decision) for event in inside] == [kind]
        events.clear()
        inside.clear()


def test_background_task_is_reported_separately(authority: FakeAuthority, guard: Guard, events: list[DecisionEvent]):
    """A background task has the context of its request, which has ended."""

    def later() -> None:
        guard.check(RequestView(method="POST", path="/queue", headers=HeaderList([])))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse({})(scope, receive, send)
        later()

    TestClient(GuardMiddleware(app, guard=guard)).get("/x", headers=authority.bearer("x"))
    assert [(type(event.decision), event.method, event.path) for event in events] == [
        (Granted, "GET", "/x"),
        (Denied, "POST", "/queue"),
    ]


# -- what an event says


def test_event_describes_the_request_and_its_token(authority: FakeAuthority, guard: Guard, events: list[DecisionEvent]):
    app = Starlette(
        routes=[Route("/x/{name}", requires("x")(_respond))], middleware=[Middleware(GuardMiddleware, guard=guard)]
    )
    client = TestClient(app)
    token = authority.mint("x", client_id="billing")
    for _ in range(2):
        assert client.get("/x/7?secret=1", headers={"authorization": f"Bearer {token}"}).status_code == 200
    first, second = events
    assert isinstance(first.decision, Granted)
    assert (first.reason, first.status) == (None, None)
    assert (first.method, first.path, first.adapter) == ("GET", "/x/7", Adapter.STARLETTE)
    assert first.route == ("/x/{name}" if tells_route() else None)
    assert (first.issuer, first.client_id) == (authority.issuer.url, "billing")
    assert (first.token_check, second.token_check) == (TokenCheck.FETCHED, TokenCheck.CACHED)
    client.get("/x/7", headers=authority.bearer("x"))
    assert events[-1].token_check is TokenCheck.VERIFIED
    assert "secret" not in repr(events)
    assert token not in repr(events)


def test_event_of_a_refusal_names_the_reason_and_only_a_verified_client(
    authority: FakeAuthority, guard: Guard, events: list[DecisionEvent]
):
    app = Starlette(
        routes=[Route("/x", requires("x")(_respond))], middleware=[Middleware(GuardMiddleware, guard=guard)]
    )
    client = TestClient(app)
    client.get("/x")
    client.get("/x", headers=authority.bearer("y", client_id="billing"))
    client.get("/x", headers=authority.bearer("x", client_id="billing", expires_in=-3600))
    told = [(event.reason, event.status, event.issuer, event.client_id, event.token_check) for event in events]
    url = authority.issuer.url
    assert told == [
        (Reason.NO_CREDENTIALS, 401, None, None, None),
        (Reason.INSUFFICIENT_SCOPE, 403, url, "billing", TokenCheck.FETCHED),
        (Reason.TOKEN_EXPIRED, 401, url, None, TokenCheck.VERIFIED),
    ]


async def _respond(request: Request) -> JSONResponse:
    return JSONResponse({})


def test_duration_is_the_time_of_the_guard_without_that_of_the_app(authority: FakeAuthority):
    """The authorization server takes two seconds, and the app takes a hundred."""
    events = list[DecisionEvent]()
    network = authority.transport

    class Slow:
        def send(self, request: Any) -> Any:
            authority.clock.advance(2)
            return network.send(request)

        def close(self) -> None:
            pass

    guard = Guard(authority.issuer, transport=Slow(), clock=authority.clock, on_decision=events.append)

    @requires("x")
    @requires("x")
    async def slow(request: Request) -> JSONResponse:
        authority.clock.advance(100)
        return JSONResponse({})

    client = TestClient(Starlette(routes=[Route("/", slow)], middleware=[Middleware(GuardMiddleware, guard=guard)]))
    token = authority.bearer("x", expires_in=7200)
    for _ in range(2):
        assert client.get("/", headers=token).status_code == 200
    discovery_and_keys = 4.0
    assert [event.duration for event in events] == [discovery_and_keys, 0.0]
    guard.close()

"""The Starlette adapter: what ``@requires`` decorates, its responses, and its behaviour after mistakes."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.authentication import requires as starlettes_requires
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from doors import call_asgi
from scenarios import Exchange
from scopeguard import (
    AUTHENTICATED,
    OPTIONAL,
    ChallengeStyle,
    ConfigurationError,
    DecisionEvent,
    Guard,
    Rule,
    all_of,
    any_of,
)
from scopeguard.starlette import REQUIREMENT, GuardMiddleware, access_token, access_token_or_none, requires
from scopeguard.testing import FakeAuthority

READ_WRITE = 'Bearer realm="api", scope="read write"'


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def guard(authority: FakeAuthority) -> Guard:
    return Guard(authority.issuer, transport=authority.transport, clock=authority.clock)


def make_client(guard: Guard, *routes: Any, **settings: Any) -> TestClient:
    app = Starlette(routes=list(routes), middleware=[Middleware(GuardMiddleware, guard=guard, **settings)])
    return TestClient(app, base_url="https://api.test")


@requires("read", "write")
async def insert(request: Request) -> Response:
    return JSONResponse({"client": request.state.access_token.client_id})


@requires("read", "write")
def insert_in_thread(request: Request) -> Response:
    on_this_thread = threading.current_thread() is threading.main_thread()
    return JSONResponse({"client": access_token().client_id, "main": on_this_thread})


class Service:
    @requires("read", "write")
    async def insert(self, request: Request) -> Response:
        return JSONResponse({"client": request.state.access_token.client_id})

    @requires("read", "write")
    def insert_in_thread(self, request: Request) -> Response:
        return JSONResponse({"client": request.state.access_token.client_id})


class Tables(HTTPEndpoint):
    @requires("read", "write")
    async def get(self, request: Request) -> Response:
        return JSONResponse({"client": request.state.access_token.client_id})

    def post(self, request: Request) -> Response:
        return JSONResponse({"client": request.state.access_token.client_id})


@requires("read", "write")
class WholeTables(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return JSONResponse({"client": request.state.access_token.client_id})


async def insert_with(settings: str, request: Request) -> Response:
    return JSONResponse({"client": request.state.access_token.client_id, "settings": settings})


ENDPOINTS: dict[str, Any] = {
    "an async function": insert,
    "a function": insert_in_thread,
    "an async method": Service().insert,
    "a method": Service().insert_in_thread,
    "a method of an HTTPEndpoint": Tables,
    "an HTTPEndpoint": WholeTables,
    "a partial": functools.partial(requires("read", "write")(insert_with), "some"),
    "a decorated partial": requires("read", "write")(functools.partial(insert_with, "some")),
}


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=ENDPOINTS)
@pytest.mark.rule("G-11", "B-42", "B-43", "B-44", "G-13")
def test_each_kind_of_endpoint_is_guarded(authority: FakeAuthority, guard: Guard, endpoint: Any):
    client = make_client(guard, Route("/", endpoint))
    granted = client.get("/", headers=authority.bearer("write read more", client_id="robot"))
    assert (granted.status_code, granted.json()["client"]) == (200, "robot")
    lacking = client.get("/", headers=authority.bearer("read"))
    assert lacking.status_code == 403
    assert lacking.headers["www-authenticate"] == (
        'Bearer realm="api", error="insufficient_scope", '
        'error_description="The access token lacks a scope that this operation needs", scope="read write"'
    )
    assert lacking.headers["content-type"] == "application/problem+json"
    assert lacking.headers["cache-control"] == "no-store"
    assert lacking.json()["error"] == "insufficient_scope"


async def takes_keyword_only(*, request: Request) -> Response:
    return PlainTextResponse(request.state.access_token.client_id)


async def takes_any_arguments(*request: Request) -> Response:
    return PlainTextResponse(request[0].state.access_token.client_id)


async def takes_position_only(request: Request, /) -> Response:
    return PlainTextResponse(request.state.access_token.client_id)


async def takes_connection(websocket: Request) -> Response:
    return PlainTextResponse(websocket.state.access_token.client_id)


async def takes_request(request: Request) -> Response:
    return PlainTextResponse(request.state.access_token.client_id)


class OwnRequest(Request):
    pass


CALLS: dict[str, Callable[[Request], Any]] = {
    "request": requires("read", "write")(takes_request),
    "request=": lambda request: requires("read", "write")(takes_request)(request=request),
    "a subclass of Request": lambda request: requires("read", "write")(takes_request)(OwnRequest(request.scope)),
    "*, request": lambda request: requires("read", "write")(takes_keyword_only)(request=request),
    "*request": requires("read", "write")(takes_any_arguments),
    "request, /": requires("read", "write")(takes_position_only),
    "websocket=": lambda request: requires("read", "write")(takes_connection)(websocket=request),
}


# The kind: a shorter way for the commonest signature must not change what other signatures do.
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_decorated_function_may_be_called_like_the_original(authority: FakeAuthority, guard: Guard, call: Any):
    async def endpoint(request: Request) -> Response:
        response: Response = await call(request)
        return response

    client = make_client(guard, Route("/", endpoint))
    granted = client.get("/", headers=authority.bearer("read write", client_id="robot"))
    assert (granted.status_code, granted.text) == (200, "robot")
    assert client.get("/", headers=authority.bearer("read")).status_code == 403


def test_method_without_the_decorator_needs_only_a_token(authority: FakeAuthority, guard: Guard):
    client = make_client(guard, Route("/", Tables))
    assert client.post("/").status_code == 401
    assert client.post("/", headers=authority.bearer()).status_code == 200


def test_sync_endpoints_run_in_the_thread_pool_and_see_the_token(authority: FakeAuthority, guard: Guard):
    answer = make_client(guard, Route("/", insert_in_thread)).get("/", headers=authority.bearer("read write"))
    assert answer.json() == {"client": "client", "main": False}


@pytest.mark.rule("G-11")
@pytest.mark.parametrize(
    ("scopes", "status"), [("a b", 200), ("c", 200), ("a", 403), ("b d", 403), (None, 403), ("a b c d", 200)]
)
def test_requirements_may_be_expressions(authority: FakeAuthority, guard: Guard, scopes: str | None, status: int):
    @requires(all_of("a", "b") | "c")
    async def endpoint(request: Request) -> Response:
        return Response()

    answer = make_client(guard, Route("/", endpoint)).get("/", headers=authority.bearer(scopes))
    assert answer.status_code == status
    if status == 403:
        assert 'scope="a b"' in answer.headers["www-authenticate"]


@pytest.mark.rule("G-13")
def test_stacked_decorators_add_up_and_the_challenge_lists_all_scopes(authority: FakeAuthority, guard: Guard):
    @requires("a")
    @requires(any_of("b", "c"))
    async def endpoint(request: Request) -> Response:
        return Response()

    client = make_client(guard, Route("/", endpoint))
    assert client.get("/", headers=authority.bearer("a c")).status_code == 200
    for scopes in ("a", "b", "c", None):
        answer = client.get("/", headers=authority.bearer(scopes))
        assert answer.status_code == 403
        assert 'scope="a b"' in answer.headers["www-authenticate"]


def test_requirements_of_a_class_and_its_method_both_apply(authority: FakeAuthority, guard: Guard):
    @requires("a")
    class Endpoint(HTTPEndpoint):
        @requires("b")
        async def get(self, request: Request) -> Response:
            return Response()

    client = make_client(guard, Route("/", Endpoint))
    assert [client.get("/", headers=authority.bearer(s)).status_code for s in ("a", "b", "a b")] == [403, 403, 200]


@pytest.mark.rule("G-13")
def test_subclass_that_overrides_dispatch_is_guarded(authority: FakeAuthority, guard: Guard):
    class Own(WholeTables):
        async def dispatch(self) -> None:
            await PlainTextResponse("dispatched")(self.scope, self.receive, self.send)

    client = make_client(guard, Route("/", Own))
    assert client.get("/", headers=authority.bearer("read")).status_code == 403
    assert client.get("/", headers=authority.bearer("read write")).text == "dispatched"


def test_a_subclass_of_a_guarded_endpoint_is_guarded(authority: FakeAuthority, guard: Guard):
    class More(WholeTables):
        async def post(self, request: Request) -> Response:
            return Response()

    client = make_client(guard, Route("/", More))
    assert client.post("/", headers=authority.bearer("read")).status_code == 403
    assert client.post("/", headers=authority.bearer("read write")).status_code == 200


def test_requirement_without_scopes_needs_only_a_token(authority: FakeAuthority, guard: Guard):
    @requires(AUTHENTICATED)
    async def endpoint(request: Request) -> Response:
        return Response()

    client = make_client(guard, Route("/", endpoint), public=["/"])
    assert client.get("/").status_code == 401


@pytest.mark.rule("B-11", "B-33", "B-43")
@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=ENDPOINTS)
def test_decorated_endpoint_on_a_public_path_challenges_anonymous_callers(guard: Guard, endpoint: Any):
    answer = make_client(guard, Route("/", endpoint), public=["/"]).get("/")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == READ_WRITE
    assert "error" not in answer.json()


@pytest.mark.rule("B-55")
def test_optional_authentication_accepts_only_an_absent_token(authority: FakeAuthority, guard: Guard):
    async def endpoint(request: Request) -> Response:
        token = access_token_or_none()
        assert token is request.state.access_token
        return JSONResponse(token and token.client_id)

    client = make_client(guard, Route("/", endpoint), Route("/more", insert), rules=[Rule("/", OPTIONAL)])
    assert client.get("/").json() is None
    assert client.get("/", headers=authority.bearer()).json() == "client"
    assert client.get("/", headers=authority.bearer(expires_in=-60)).status_code == 401
    assert client.get("/", headers={"Authorization": "Basic dTpw"}).status_code == 401
    assert client.get("/", headers={"Authorization": "Bearer"}).status_code == 400


@pytest.mark.rule("B-52")
@pytest.mark.anyio
async def test_head_is_refused_like_get_without_a_body(authority: FakeAuthority, guard: Guard):
    app = make_client(guard, Route("/", insert)).app
    headers = ((b"authorization", authority.bearer("read")["Authorization"].encode()),)
    get, head = [await call_asgi(app, Exchange(method=m, target="/", headers=headers)) for m in ("GET", "HEAD")]
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")
    assert head.all("content-length") == [str(len(get.body))]


@pytest.mark.rule("B-62")
def test_hidden_operation_is_404(authority: FakeAuthority):
    hiding = ChallengeStyle(realm="api", hide_forbidden=True)
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, challenge=hiding)
    answer = make_client(guard, Route("/", insert)).get("/", headers=authority.bearer("read"))
    assert answer.status_code == 404
    assert "www-authenticate" not in answer.headers


def test_refusal_is_a_response_for_other_decorators_and_middleware(authority: FakeAuthority, guard: Guard):
    def trace(endpoint: Any) -> Any:
        @functools.wraps(endpoint)
        async def wrapper(request: Request) -> Response:
            response: Response = await endpoint(request)
            response.headers["x-trace"] = "1"
            return response

        return wrapper

    answer = make_client(guard, Route("/", trace(insert))).get("/", headers=authority.bearer("read"))
    assert (answer.status_code, answer.headers["x-trace"]) == (403, "1")


def test_decorators_of_starlette_work_beside_those_of_scopeguard(authority: FakeAuthority, guard: Guard):
    @starlettes_requires(["authenticated", "read"])
    async def both(request: Request) -> Response:
        raise AssertionError("no scope is called authenticated")

    @starlettes_requires("read")
    async def endpoint(request: Request) -> Response:
        return JSONResponse([request.user.display_name, request.user.is_authenticated, sorted(request.auth.scopes)])

    client = make_client(
        guard, Route("/", endpoint), Route("/both", both), Route("/public", endpoint), public=["/public"]
    )
    assert client.get("/", headers=authority.bearer("read", subject="alice")).json() == ["alice", True, ["read"]]
    assert client.get("/", headers=authority.bearer("write")).status_code == 403
    assert client.get("/both", headers=authority.bearer("read")).status_code == 403
    assert client.get("/public").status_code == 403


# mistakes


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=ENDPOINTS)
def test_decorated_endpoint_without_middleware_is_refused(authority: FakeAuthority, endpoint: Any):
    client = TestClient(Starlette(routes=[Route("/", endpoint)]), base_url="https://api.test")
    for headers in ({}, authority.bearer("read write")):
        with pytest.raises(ConfigurationError, match="GuardMiddleware"):
            client.get("/", headers=headers)


@pytest.mark.rule("H-18")
def test_scope_keys_cannot_be_set_by_a_client(guard: Guard):
    client = TestClient(Starlette(routes=[Route("/", insert)]), base_url="https://api.test")
    with pytest.raises(ConfigurationError):
        client.get("/?scopeguard.guard=1", headers={"scopeguard.guard": "1", "state": "access_token"})


def test_foreign_object_in_the_place_of_the_token_is_an_error(authority: FakeAuthority, guard: Guard):
    class Meddling:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            scope["state"]["access_token"] = "sg-opaque-of-somebody-else"
            await self.app(scope, receive, send)

    middleware = [Middleware(GuardMiddleware, guard=guard), Middleware(Meddling)]
    client = TestClient(Starlette(routes=[Route("/", insert)], middleware=middleware), base_url="https://api.test")
    with pytest.raises(ConfigurationError, match="replaced it with a str"):
        client.get("/", headers=authority.bearer("read write"))


def test_object_that_cannot_be_decorated_is_refused_at_once():
    with pytest.raises(ConfigurationError, match="request or websocket"):
        requires("a")(lambda: None)
    with pytest.raises(ConfigurationError, match="neither an HTTPEndpoint"):
        requires("a")(Service)
    with pytest.raises(ConfigurationError, match="async"):
        requires("a")(lambda websocket: None)
    with pytest.raises(ConfigurationError, match="at least one scope"):
        requires()
    with pytest.raises(ConfigurationError, match="several scopes"):
        requires("a b")


def test_argument_of_the_accessor_must_be_a_request():
    nothing: Any = None
    with pytest.raises(ConfigurationError, match="'request'"):
        insert_in_thread(nothing)
    with pytest.raises(ConfigurationError, match="'request'"):
        insert_in_thread(*list[Any]())


def test_requirement_can_be_read_from_the_endpoint():
    assert getattr(insert, REQUIREMENT) == all_of("read", "write")
    assert getattr(Tables.get, REQUIREMENT) == all_of("read", "write")
    assert getattr(WholeTables, REQUIREMENT) == all_of("read", "write")
    assert getattr(requires("a")(insert), REQUIREMENT) == all_of("a", "read", "write")
    assert not hasattr(Tables.post, REQUIREMENT)
    assert insert.__name__ == "insert"


# isolation of requests


@pytest.mark.rule("H-14")
@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_hundred_concurrent_requests_do_not_mix(authority: FakeAuthority, guard: Guard, kind: str):
    everybody_is_here = anyio.Event()
    waiting = 0

    @requires("read")
    async def meeting(request: Request) -> Response:
        nonlocal waiting
        before = access_token()
        waiting += 1
        if waiting == 100:
            everybody_is_here.set()
        await everybody_is_here.wait()
        assert before is access_token() is request.state.access_token
        return JSONResponse(before.client_id)

    @requires("read")
    def in_thread(request: Request) -> Response:
        before = access_token()
        anyio.from_thread.run(anyio.lowlevel.checkpoint)
        assert before is access_token() is request.state.access_token
        return JSONResponse(before.client_id)

    app = Starlette(
        routes=[Route("/", meeting if kind == "async" else in_thread)],
        middleware=[Middleware(GuardMiddleware, guard=guard)],
    )
    answers: dict[str, bytes] = {}

    async def call(name: str) -> None:
        bearer = authority.bearer("read", client_id=name)["Authorization"].encode()
        answers[name] = (await call_asgi(app, Exchange(target="/", headers=((b"authorization", bearer),)))).body

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(call, f"client-{number}")
    assert answers == {f"client-{n}": f'"client-{n}"'.encode() for n in range(100)}
    assert access_token_or_none() is None


def test_a_streamed_response_sees_its_token(authority: FakeAuthority, guard: Guard):
    @requires("read")
    async def endpoint(request: Request) -> Response:
        def lines() -> Iterator[str]:
            yield access_token().client_id or ""

        return StreamingResponse(lines())

    assert make_client(guard, Route("/", endpoint)).get("/", headers=authority.bearer("read")).text == "client"


def test_mounted_app_may_have_a_separate_guard(authority: FakeAuthority, guard: Guard):
    other = FakeAuthority("https://other.test")
    others_guard = Guard(other.issuer, transport=other.transport, clock=other.clock, realm="other")
    inner = GuardMiddleware(Router([Route("/x", insert)]), guard=others_guard)
    client = make_client(guard, Mount("/other", inner), Route("/", insert), public=["/other/{path:path}"])
    assert client.get("/other/x", headers=other.bearer("read write")).status_code == 200
    assert client.get("/other/x", headers=authority.bearer("read write")).status_code == 401
    assert 'realm="other"' in client.get("/other/x", headers=other.bearer("read")).headers["www-authenticate"]
    assert client.get("/", headers=authority.bearer("read write")).status_code == 200


def test_one_decision_is_reported_for_the_token_and_the_endpoint(authority: FakeAuthority):
    events: list[DecisionEvent] = []
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, on_decision=events.append)
    make_client(guard, Route("/", insert)).get("/", headers=authority.bearer("read"))
    assert [type(event.decision).__name__ for event in events] == ["Denied"]


# websockets


@requires("read", "write")
async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(access_token().client_id or "")
    await websocket.close()


@requires("read", "write")
class Chat(WebSocketEndpoint):
    encoding = "text"

    async def on_receive(self, websocket: WebSocket, data: str) -> None:
        await websocket.send_text(f"{access_token().client_id} {data}")


class ChatByMethods(WebSocketEndpoint):
    encoding = "text"

    @requires("read")
    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept()

    @requires("read", "write")
    async def on_receive(self, websocket: WebSocket, data: str) -> None:
        await websocket.send_text(f"{access_token().client_id} {data}")


@pytest.mark.rule("H-02")
def test_websocket_opens_with_sufficient_scopes(authority: FakeAuthority, guard: Guard):
    client = make_client(guard, WebSocketRoute("/", chat), WebSocketRoute("/class", Chat))
    headers = authority.bearer("read write")
    with client.websocket_connect("/", headers=headers) as websocket:
        assert websocket.receive_text() == "client"
    with client.websocket_connect("/class", headers=headers) as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "client hello"


@pytest.mark.rule("H-02", "H-03")
@pytest.mark.parametrize("endpoint", [chat, Chat], ids=["function", "class"])
@pytest.mark.parametrize("public", [False, True])
def test_handshake_without_the_scopes_is_refused_before_acceptance(
    authority: FakeAuthority, guard: Guard, endpoint: Any, public: bool
):
    client = make_client(guard, WebSocketRoute("/", endpoint), public=["/"] if public else [])
    headers = {} if public else authority.bearer("read")
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/", headers=headers):
        raise AssertionError("it was accepted")
    denial: Any = refused.value  # TestClient has the extension for denial responses
    assert denial.status_code == (401 if public else 403)
    assert 'scope="read write"' in denial.headers["www-authenticate"]


@pytest.mark.rule("H-03")
@pytest.mark.anyio
@pytest.mark.parametrize("endpoint", [chat, Chat], ids=["function", "class"])
async def test_server_without_denial_responses_closes_the_websocket(guard: Guard, endpoint: Any):
    app = GuardMiddleware(Router([WebSocketRoute("/", endpoint)]), guard=guard, public=["/"])
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "scheme": "wss", "extensions": {}}
    await app(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "Unauthorized"}]


def test_decorated_method_called_later_closes_the_websocket(authority: FakeAuthority, guard: Guard):
    client = make_client(guard, WebSocketRoute("/", ChatByMethods))
    with client.websocket_connect("/", headers=authority.bearer("read write")) as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "client hello"
    with client.websocket_connect("/", headers=authority.bearer("read")) as websocket:
        websocket.send_text("hello")
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_text()
    assert (closed.value.code, closed.value.reason) == (1008, "Forbidden")


@pytest.mark.rule("H-02")
def test_decorated_method_called_at_the_handshake_refuses_the_websocket(authority: FakeAuthority, guard: Guard):
    client = make_client(guard, WebSocketRoute("/", ChatByMethods))
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        client.websocket_connect("/", headers=authority.bearer("write")),
    ):
        raise AssertionError("it was accepted")
    denial: Any = refused.value
    assert denial.status_code == 403


def test_token_in_background_tasks_is_that_of_their_request(authority: FakeAuthority):
    """Documented at access_token(): the context of a request goes with the tasks that it has started."""
    seen: list[tuple[str, str | None]] = []
    tasks: list[asyncio.Task[None]] = []

    def note(name: str) -> None:
        token = access_token_or_none()
        seen.append((name, None if token is None else token.subject))

    async def later(name: str, go: asyncio.Event) -> None:
        await go.wait()
        note(name)

    async def main() -> None:
        go = asyncio.Event()

        async def endpoint(request: Request) -> Response:
            tasks.append(asyncio.create_task(later("a task", go)))
            tasks.append(asyncio.create_task(later("a task of its own", go), context=contextvars.Context()))
            return PlainTextResponse("done", background=BackgroundTask(note, "background"))

        guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off")
        app = GuardMiddleware(Starlette(routes=[Route("/", endpoint)]), guard=guard)
        for subject in ("ann", "bob"):
            token = authority.mint(subject=subject)
            answered = await call_asgi(
                app, Exchange(target="/", headers=((b"authorization", f"Bearer {token}".encode()),))
            )
            assert answered.status == 200
            assert access_token_or_none() is None
        go.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert seen == [
        ("background", "ann"),
        ("background", "bob"),
        ("a task", "ann"),
        ("a task of its own", None),
        ("a task", "bob"),
        ("a task of its own", None),
    ]

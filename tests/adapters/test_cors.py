"""Browsers on other origins, with each adapter: preflights pass if configured, and scripts can read refusals."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import httpx
import pytest
from flask import Blueprint, Flask, Response
from flask import request as flask_request
from flask.views import MethodView
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from scopeguard import DENIED, PUBLIC, ConfigurationError, Guard, RefusalLog, Rule, all_of, asgi, wsgi
from scopeguard.adapter import cors
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard, requires
from scopeguard.starlette import requires as starlette_requires
from scopeguard.testing import FakeAuthority

SPA, OTHER = "https://spa.test", "https://other.test"
Ask = Callable[..., Any]


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


def guard_of(authority: FakeAuthority, **settings: Any) -> Guard:
    return Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off", **settings)


CORS: Any = Middleware(CORSMiddleware, allow_origins=[SPA], allow_methods=["*"], allow_headers=["authorization"])


def starlette_app(*middleware: Any) -> Starlette:
    @starlette_requires("write")
    async def insert(request: Any) -> PlainTextResponse:
        return PlainTextResponse("in")

    return Starlette(routes=[Route("/insert", insert, methods=["POST"])], middleware=middleware)


def asgi_outside(guard: Guard, **settings: Any) -> Ask:
    guarding: Any = Middleware(asgi.GuardMiddleware, guard=guard, **settings)
    return TestClient(starlette_app(CORS, guarding)).request


def asgi_inside(guard: Guard, **settings: Any) -> Ask:
    guarding: Any = Middleware(asgi.GuardMiddleware, guard=guard, **settings)
    return TestClient(starlette_app(guarding, CORS)).request


def asgi_around(guard: Guard, **settings: Any) -> Ask:
    return TestClient(asgi.GuardMiddleware(starlette_app(CORS), guard=guard, **settings)).request


def with_cors(response: Response) -> Response:
    """Add the CORS headers that flask_cors adds to a whole app."""
    if flask_request.headers.get("Origin") == SPA:
        response.headers.add("Access-Control-Allow-Origin", SPA)
        response.vary.add("Origin")
        if flask_request.method == "OPTIONS":
            response.headers.add("Access-Control-Allow-Headers", "authorization")
    return response


def flask_app() -> Flask:
    app = Flask("app")
    app.after_request(with_cors)
    app.add_url_rule("/insert", "insert", requires("write")(lambda: "in"), methods=["POST"])
    return app


def wsgi_client(app: Any) -> Ask:
    return httpx.Client(transport=httpx.WSGITransport(app=app), base_url="http://api.test").request


def wsgi_around(guard: Guard, **settings: Any) -> Ask:
    return wsgi_client(wsgi.GuardMiddleware(flask_app(), guard=guard, **settings))


def flask_extension(guard: Guard, **settings: Any) -> Ask:
    app = flask_app()
    ScopeGuard(app, guard, **settings)
    return wsgi_client(app)


def flask_extension_inside(guard: Guard, **settings: Any) -> Ask:
    app = flask_app()
    ScopeGuard(app, guard, **settings)
    return wsgi_client(wsgi.GuardMiddleware(app, guard=guard, **settings))


DOORS = [asgi_outside, asgi_inside, asgi_around, wsgi_around, flask_extension, flask_extension_inside]


def preflight(method: str = "POST", origin: str = SPA) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization",
    }


@pytest.mark.rule("B-57", "B-58")
@pytest.mark.parametrize("set_on", ["guard", "adapter"])
@pytest.mark.parametrize("door", DOORS)
def test_page_of_an_allowed_origin_can_use_the_api(authority: FakeAuthority, door: Any, set_on: str):
    setting = {"cors_preflight": "pass"}
    ask = door(guard_of(authority, **setting)) if set_on == "guard" else door(guard_of(authority), **setting)
    allowed = ask("OPTIONS", "/insert", headers=preflight())
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == SPA
    assert allowed.headers["access-control-allow-headers"].lower().endswith("authorization")
    bad = {"Authorization": "Bearer not.a.token"}
    for sent, status in (({}, 401), (bad, 401), (authority.bearer("read"), 403)):
        refused = ask("POST", "/insert", headers={"Origin": SPA, **sent})
        assert refused.status_code == status
        assert refused.headers.get_list("access-control-allow-origin") == [SPA]
        assert refused.headers.get_list("access-control-expose-headers") == ["WWW-Authenticate"]
        assert "origin" in refused.headers["vary"].lower()
    granted = ask("POST", "/insert", headers={"Origin": SPA, **authority.bearer("write")})
    assert (granted.status_code, granted.text) == (200, "in")
    assert granted.headers.get_list("access-control-allow-origin") == [SPA]
    assert "access-control-expose-headers" not in granted.headers


@pytest.mark.rule("B-58")
@pytest.mark.parametrize("door", DOORS)
def test_page_can_read_retry_after(authority: FakeAuthority, door: Any):
    ask = door(guard_of(authority, cors_preflight="pass"))
    with authority.outage():
        answer = ask("POST", "/insert", headers={"Origin": SPA, **authority.bearer("write")})
    assert answer.status_code == 503
    assert answer.headers.get_list("access-control-allow-origin") == [SPA]
    assert answer.headers["access-control-expose-headers"] == "Retry-After"


@pytest.mark.rule("B-58")
@pytest.mark.parametrize("door", DOORS)
def test_page_of_another_origin_cannot_read_responses(authority: FakeAuthority, door: Any):
    ask = door(guard_of(authority, cors_preflight="pass"))
    refused = ask("POST", "/insert", headers={"Origin": OTHER})
    assert refused.status_code == 401
    assert "access-control-allow-origin" not in refused.headers
    same_origin = ask("POST", "/insert")
    assert not [name for name in same_origin.headers if name.lower().startswith("access-control-")]


@pytest.mark.rule("B-57")
@pytest.mark.parametrize("door", DOORS[1:])
def test_only_a_preflight_passes_without_a_token(authority: FakeAuthority, door: Any):
    complete = preflight()
    without = [{name: value for name, value in complete.items() if name != left_out} for left_out in list(complete)[:2]]
    ask = door(guard_of(authority, cors_preflight="pass"))
    for headers in without:
        assert ask("OPTIONS", "/insert", headers=headers).status_code == 401
    assert ask("POST", "/insert", headers=complete).status_code == 401
    closed = door(guard_of(authority))
    assert closed("OPTIONS", "/insert", headers=complete).status_code == 401


@pytest.mark.rule("B-57", "H-07")
@pytest.mark.parametrize("door", DOORS[1:])
def test_preflight_for_a_denied_route_does_not_pass(authority: FakeAuthority, door: Any):
    def status(rules: Iterable[Rule], method: str = "POST", path: str = "/insert") -> int:
        ask = door(guard_of(authority, cors_preflight="pass"), rules=rules)
        answer = ask("OPTIONS", path, headers=preflight(method))
        # Headers that the app adds to each response are on refusals of the extension too.
        assert answer.status_code == 200 or "flask" in door.__name__ or "vary" not in answer.headers
        return int(answer.status_code)

    insert = Rule("/insert", all_of("write"), methods=["POST"])
    assert status([insert]) == 200
    assert status([insert, Rule("/insert", DENIED)], "DELETE") == 401
    assert status([Rule("/insert", DENIED, methods=["POST"]), Rule("/insert")]) == 401
    assert status([Rule("/insert", DENIED, methods=["OPTIONS"]), insert]) == 401
    assert status([Rule("/insert", DENIED)]) == 401
    assert status([Rule("/other")], path="/nowhere") == 401
    assert status([Rule("/other", PUBLIC)], path="/nowhere") == 401


def test_preflight_for_a_route_described_only_by_its_view_passes(authority: FakeAuthority):
    app = flask_app()
    app.add_url_rule("/silent", "silent", lambda: "", methods=["GET"])
    app.add_url_rule("/silent", "said", requires("write")(lambda: ""), methods=["PUT"])
    api = Blueprint("api", "api", url_prefix="/api")

    class Items(MethodView):
        @requires("write")
        def patch(self) -> str:
            return "in"

        def get(self) -> str:
            return "in"

    api.add_url_rule("/items", view_func=Items.as_view("items"))
    api.before_request(requires("api")(lambda: None))
    app.register_blueprint(api)
    ScopeGuard(app, guard_of(authority, cors_preflight="pass"), rules=[Rule("/api/items", methods=["OPTIONS"])])
    ask = wsgi_client(app)
    wanted = {
        ("/insert", "POST"): 200,
        ("/insert", "DELETE"): 401,
        ("/silent", "GET"): 401,
        ("/silent", "PUT"): 200,
        ("/api/items", "PATCH"): 200,
        ("/api/items", "GET"): 401,
        ("/nowhere", "GET"): 401,
    }
    assert {key: ask("OPTIONS", key[0], headers=preflight(key[1])).status_code for key in wanted} == wanted
    assert ask("PATCH", "/api/items", headers=authority.bearer("write")).status_code == 403
    assert ask("PATCH", "/api/items", headers=authority.bearer("write api")).status_code == 200


@pytest.mark.rule("G-13")
def test_view_that_handles_options_keeps_its_requirement(authority: FakeAuthority):
    app = Flask("app")
    app.add_url_rule("/own", "own", requires("write")(lambda: "in"), methods=["OPTIONS", "POST"])
    ScopeGuard(app, guard_of(authority, cors_preflight="pass"))
    ask = wsgi_client(app)
    assert ask("OPTIONS", "/own", headers=preflight()).status_code == 401
    assert ask("OPTIONS", "/own", headers=authority.bearer("write")).text == "in"


def test_rule_for_options_opens_only_the_automatic_answer_of_flask(authority: FakeAuthority):
    app = flask_app()
    app.add_url_rule("/own", "own", requires("write")(lambda: "in"), methods=["OPTIONS"])
    rules = [Rule("/{path:path}", PUBLIC, methods=["OPTIONS"]), Rule("/{path:path}")]
    ScopeGuard(app, guard_of(authority), rules=rules)
    ask = wsgi_client(app)
    assert ask("OPTIONS", "/insert").status_code == 200
    assert ask("OPTIONS", "/own").status_code == 401
    assert ask("POST", "/insert").status_code == 401


@pytest.mark.rule("B-58")
def test_dependency_without_middleware_exposes_its_headers(authority: FakeAuthority):
    from fastapi import Depends, FastAPI

    app = FastAPI(dependencies=[Depends(Protected(guard_of(authority, cors_preflight="pass")))])
    app.add_middleware(CORSMiddleware, allow_origins=[SPA])
    app.add_api_route("/rows", lambda: "in")
    refused = TestClient(app).get("/rows", headers={"Origin": SPA})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == SPA
    assert refused.headers["access-control-expose-headers"] == "WWW-Authenticate"
    assert "access-control-expose-headers" not in TestClient(app).get("/rows").headers


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_app_that_fails_at_the_preflight_of_the_guard_does_not_change_the_refusal(
    authority: FakeAuthority, kind: str, caplog: pytest.LogCaptureFixture
):
    guard = guard_of(authority, cors_preflight="pass")

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["method"] == "OPTIONS"
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        raise RuntimeError("a bug")

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        assert "HTTP_AUTHORIZATION" not in environ
        raise RuntimeError("a bug")

    app: Any = asgi.GuardMiddleware(asgi_app, guard=guard) if kind == "asgi" else None
    ask = TestClient(app).request if app else wsgi_client(wsgi.GuardMiddleware(wsgi_app, guard=guard))
    with caplog.at_level(logging.WARNING):
        refused = ask("POST", "/", headers={"Origin": SPA, "Authorization": "Bearer not.a.token"})
    assert refused.status_code == 401
    assert "access-control-allow-origin" not in refused.headers
    assert "the app failed to answer a preflight" in caplog.text
    with caplog.at_level(logging.WARNING):
        for _ in range(50):  # any caller may cause the line
            ask("POST", "/", headers={"Origin": SPA})
    assert caplog.text.count("the app failed to answer a preflight") <= RefusalLog().burst


def test_decorators_know_the_guard_at_the_preflight_of_the_guard(
    authority: FakeAuthority, caplog: pytest.LogCaptureFixture
):
    app, api = flask_app(), Blueprint("api", "api")
    app.testing = True  # the app raises its exceptions
    api.before_request(requires("write")(lambda: None))
    api.add_url_rule("/rows", "rows", lambda: "in")
    api.add_url_rule("/own", "own", requires("write")(lambda: "in"), methods=["GET", "OPTIONS"])
    app.register_blueprint(api)
    events: list[Any] = []
    guard = guard_of(authority, cors_preflight="pass", on_decision=events.append)
    ask = wsgi_client(wsgi.GuardMiddleware(app, guard=guard))
    with caplog.at_level(logging.WARNING):
        for path in ("/rows", "/own"):
            refused = ask("GET", path, headers={"Origin": SPA})
            assert refused.status_code == 401
            assert refused.headers["access-control-allow-origin"] == SPA
    assert [(event.method, event.status) for event in events] == [("GET", 401)] * 2
    assert "preflight" not in caplog.text
    assert "Exception" not in caplog.text


# Fault: a refused request waits, perhaps for ever, for the app's answer to a preflight that the guard
# makes itself.


async def _stream_until_the_client_leaves(scope: Any, receive: Any, send: Any) -> None:
    """Work as Starlette's StreamingResponse: read messages beside the stream until one reports a disconnect."""

    async def stream() -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"access-control-allow-origin", b"*")]})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async with anyio.create_task_group() as group:
        group.start_soon(stream)
        while (await receive())["type"] != "http.disconnect":
            pass


async def _start_late(scope: Any, receive: Any, send: Any) -> None:
    """Work as Starlette's BaseHTTPMiddleware: read the body before the response starts."""
    assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
    await _stream_until_the_client_leaves(scope, receive, send)


async def _fail_when_cancelled(scope: Any, receive: Any, send: Any) -> None:
    try:
        await _start_late(scope, receive, send)
    finally:
        raise RuntimeError("the database connection is lost")


async def _stream_with_starlette(scope: Any, receive: Any, send: Any) -> None:
    async def endless() -> Any:
        while True:
            yield b"x"

    response = StreamingResponse(endless(), headers={"Access-Control-Allow-Origin": "*"})
    await response(scope, receive, send)


async def refuse_over_asgi(app: Any, guard: Guard, method: str = "GET") -> tuple[int, dict[str, str]]:
    """Return the status and the headers of the refusal by *guard* of a browser without a token."""
    sent: list[Any] = []

    async def receive() -> Any:
        return await anyio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"api.test"), (b"origin", SPA.encode())]
    scope = {"type": "http", "method": method, "path": "/x", "headers": headers, "query_string": b"", "scheme": "https"}
    await asgi.GuardMiddleware(app, guard=guard)({**scope, "asgi": {"spec_version": "2.3"}}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "app", [_stream_until_the_client_leaves, _start_late, _fail_when_cancelled, _stream_with_starlette]
)
def test_endless_answer_to_the_preflight_of_the_guard_does_not_delay_the_refusal(
    authority: FakeAuthority, app: Any, backend: str, caplog: pytest.LogCaptureFixture
):
    status, headers = anyio.run(refuse_over_asgi, app, guard_of(authority, cors_preflight="pass"), backend=backend)
    assert (status, headers["access-control-allow-origin"]) == (401, "*")
    assert "preflight" not in caplog.text


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("talks", [True, False])
def test_app_has_little_time_to_answer_the_preflight_of_the_guard(
    authority: FakeAuthority,
    backend: str,
    talks: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(cors, "TIME_LIMIT", 0.0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while talks:
            await send({"type": "http.response.debug", "info": {}})
        while True:
            await receive()

    status, headers = anyio.run(refuse_over_asgi, app, guard_of(authority, cors_preflight="pass"), backend=backend)
    assert (status, "access-control-allow-origin" in headers) == (401, False)
    assert "the app did not answer a preflight within 0.0 s" in caplog.text


def test_app_that_does_not_answer_the_preflight_of_the_guard_allows_no_origin(authority: FakeAuthority):
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    status, headers = anyio.run(refuse_over_asgi, app, guard_of(authority, cors_preflight="pass"))
    assert (status, "access-control-allow-origin" in headers) == (401, False)


def test_background_task_of_the_app_sees_a_disconnect_after_the_preflight_of_the_guard(authority: FakeAuthority):
    async def main() -> tuple[str, bool]:
        left: list[Any] = []

        async def listen(receive: Any) -> str:
            await receive()
            return str((await receive())["type"])

        async def answer(send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def app(scope: Any, receive: Any, send: Any) -> None:
            left.extend(map(asyncio.ensure_future, (listen(receive), answer(send))))
            await asyncio.Event().wait()

        await refuse_over_asgi(app, guard_of(authority, cors_preflight="pass"))
        heard, answered = await asyncio.gather(*left, return_exceptions=True)
        return str(heard), isinstance(answered, OSError)

    assert asyncio.run(main()) == ("http.disconnect", True)


class Endless:
    """The endless response of a WSGI app. *start* is called before the first part."""

    def __init__(self, start: Callable[[], Any] = lambda: None) -> None:
        self.start = start
        self.asked = 0
        self.is_closed = False
        self.fails = False

    def __iter__(self) -> Any:
        self.start()
        while True:
            self.asked += 1
            assert self.asked < 2, "the body is read"
            yield b"x"

    def close(self) -> None:
        self.is_closed = True
        if self.fails:
            raise RuntimeError("the database connection is lost")


@pytest.mark.parametrize("starts", ["when called", "when iterated", "and fails to close", "and writes"])
def test_endless_answer_of_a_wsgi_app_to_the_preflight_of_the_guard_is_closed(
    authority: FakeAuthority, starts: str, caplog: pytest.LogCaptureFixture
):
    answers: list[Endless] = []
    written: list[bytes] = []

    def app(environ: Any, start_response: Any) -> Any:
        def start() -> Any:
            return start_response("200 OK", [("Access-Control-Allow-Origin", "*")])

        if starts == "when iterated":
            answers.append(Endless(start))
            return answers[0]
        write = start()
        while starts == "and writes":
            written.append(b"x")
            assert len(written) < 2, "the body is taken"
            write(b"x")
        answers.append(Endless())
        if starts == "and fails to close":
            answers[0].fails = True
        return answers[0]

    ask = wsgi_client(wsgi.GuardMiddleware(app, guard=guard_of(authority, cors_preflight="pass")))
    refused = ask("GET", "/", headers={"Origin": SPA})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")
    assert "preflight" not in caplog.text
    assert [answer.is_closed for answer in answers] == ([] if starts == "and writes" else [True])


def test_wsgi_app_that_does_not_answer_the_preflight_of_the_guard_allows_no_origin(authority: FakeAuthority):
    ask = wsgi_client(wsgi.GuardMiddleware(lambda *_: [], guard=guard_of(authority, cors_preflight="pass")))
    refused = ask("GET", "/", headers={"Origin": SPA})
    assert (refused.status_code, "access-control-allow-origin" in refused.headers) == (401, False)


def test_answer_of_the_app_to_the_preflight_of_the_guard_is_closed(authority: FakeAuthority):
    closed: list[str] = []

    class Answer:
        def __iter__(self) -> Any:
            yield b"ignored"

        def close(self) -> None:
            closed.append("closed")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("204 No Content", [("Access-Control-Allow-Origin", "*")])
        return Answer()

    ask = wsgi_client(wsgi.GuardMiddleware(app, guard=guard_of(authority, cors_preflight="pass")))
    refused = ask("POST", "/", headers={"Origin": SPA})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")
    assert closed == ["closed"]


@pytest.mark.parametrize(
    "adapter, app",
    [(asgi.GuardMiddleware, Starlette()), (wsgi.GuardMiddleware, Flask("app")), (ScopeGuard, Flask("app"))],
    ids=["asgi", "wsgi", "flask"],
)
def test_an_unknown_setting_is_refused(authority: FakeAuthority, adapter: Any, app: Any):
    guard = guard_of(authority)
    with pytest.raises(ConfigurationError, match="cors_preflight: 'yes' is not one of 'guard', 'pass'"):
        adapter(app, guard=guard, cors_preflight="yes")
    with pytest.raises(ConfigurationError, match="cors_preflight: 'yes' is not one of 'guard', 'pass'"):
        guard_of(authority, cors_preflight="yes")

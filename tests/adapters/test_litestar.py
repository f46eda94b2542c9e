"""The Litestar adapter: the extension, guards, ``opt``, the dependency, the OpenAPI document."""

# No ``from __future__ import annotations``: Litestar could not look up what is local to a function.

from collections.abc import AsyncIterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from litestar import Controller, Litestar, Request, Response, Router, WebSocket, asgi, get, post, websocket
from litestar.config.cors import CORSConfig
from litestar.di import NamedDependency
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import FromPath
from litestar.response import Stream
from litestar.testing import TestClient

from doors import call_asgi
from scenarios import Exchange
from scopeguard import DENIED, PUBLIC, AccessToken, ConfigurationError, DecisionEvent, DPoP, Guard, Rule, any_of
from scopeguard.asgi import GuardMiddleware
from scopeguard.litestar import (
    AccessRefused,
    OpenAPISecurity,
    ScopeGuard,
    access_token,
    access_token_or_none,
    provide_token,
    renew,
    requires,
)
from scopeguard.testing import FakeAuthority

BASE = "https://testserver.local"


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def guard(authority: FakeAuthority) -> Guard:
    return Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off")


def an_app(*handlers: Any, **settings: Any) -> Any:
    return Litestar(handlers, logging_config=None, **{"openapi_config": None, **settings})


def client_of(app: Any) -> TestClient[Any]:
    return TestClient(app, base_url=BASE, raise_server_exceptions=False)


def handler(path: str = "/", **declared: Any) -> Any:
    async def answer() -> str:
        token = access_token_or_none()
        return "anonymous" if token is None else str(token.subject)

    return get(path, **declared)(answer)


def method(path: str, **declared: Any) -> Any:
    """Return the same for a controller."""

    async def answer(self: Any) -> str:
        token = access_token_or_none()
        return "anonymous" if token is None else str(token.subject)

    return get(path, **declared)(answer)


def start(app: Any) -> str:
    """Start *app* as a server does, and return the message of its failure."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises((ConfigurationError, ExceptionGroup)):
        anyio.run(app, {"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    return str(sent[0]["message"])


def test_guards_of_all_layers_add_up_in_one_challenge(authority: FakeAuthority, guard: Guard):
    class Rows(Controller):
        path = "/rows"
        guards = [requires("controller")]  # noqa: RUF012 - as Litestar has it

        @get("/", guards=[requires("handler"), requires(any_of("handler", "other"))])
        async def rows(self) -> str:
            return "rows"

    app = an_app(Router("/v1", route_handlers=[Rows], guards=[requires("router")]), guards=[requires("app")])
    ScopeGuard(app, guard)
    client = client_of(app)
    every = "app router controller handler"
    for headers, status in (({}, 401), (authority.bearer("app handler"), 403)):
        refused = client.get("/v1/rows", headers=headers)
        assert refused.status_code == status
        assert f'scope="{every}"' in refused.headers["www-authenticate"]
        assert refused.headers["content-type"] == "application/problem+json"
    assert client.get("/v1/rows", headers=authority.bearer(every)).text == "rows"


@pytest.mark.parametrize("value", ["public", "optional"])
def test_opt_of_the_closest_layer_counts_and_a_requirement_takes_precedence(
    authority: FakeAuthority, guard: Guard, value: str
):
    class Open(Controller):
        path = "/controller"
        opt = {"scopeguard": value}  # noqa: RUF012 - as Litestar has it
        inside = method("/inside")
        required = method("/required", guards=[requires("read")])
        other = method("/other", scopeguard={"public": "optional", "optional": "public"}[value])

    app = an_app(
        Open,
        Router("/router", route_handlers=[handler()], opt={"scopeguard": value}),
        handler("/argument", scopeguard=value),
        handler("/plain"),
    )
    ScopeGuard(app, guard)
    client = client_of(app)
    bad = {"authorization": "Bearer bad"}
    for path in ("/controller/inside", "/router", "/argument"):
        assert client.get(path).text == "anonymous"
        assert client.get(path, headers=bad).status_code == (200 if value == "public" else 401)
        known = client.get(path, headers=authority.bearer()).text
        assert known == ("anonymous" if value == "public" else "client")
    assert client.get("/controller/other", headers=bad).status_code == (401 if value == "public" else 200)
    assert client.get("/controller/required").status_code == 401
    assert client.get("/controller/required", headers=authority.bearer("read")).text == "client"
    assert client.get("/plain").status_code == 401


def test_unknown_value_in_opt_prevents_the_start_and_each_request(guard: Guard):
    app = an_app(handler(scopeguard="pubic"))
    ScopeGuard(app, guard)
    assert "must be 'public' or 'optional', not 'pubic'" in start(app)
    with pytest.raises(ConfigurationError, match="pubic"):
        anyio.run(call_asgi, app, Exchange(target="/"))


def test_dependency_user_and_auth_are_the_token(authority: FakeAuthority, guard: Guard):
    @get("/token")
    async def whole(token: NamedDependency[AccessToken], request: Request[Any, Any, Any]) -> str:
        assert token is request.user is request.auth is access_token()
        return str(token.subject)

    @get("/maybe", scopeguard="optional", dependencies={"token": provide_token(optional=True)})
    async def maybe(token: NamedDependency[AccessToken | None], request: Request[Any, Any, Any]) -> bool:
        assert request.user.is_authenticated is (token is not None)
        return token is not None

    @get("/in-thread", sync_to_thread=True)
    def in_thread(token: NamedDependency[AccessToken]) -> str:
        assert token is access_token()
        return str(token.subject)

    app = an_app(whole, maybe, in_thread, dependencies={"token": provide_token()})
    ScopeGuard(app, guard)
    client = client_of(app)
    assert client.get("/token", headers=authority.bearer(subject="ann")).text == "ann"
    assert client.get("/in-thread", headers=authority.bearer(subject="bob")).text == "bob"
    assert (client.get("/maybe").json(), client.get("/maybe", headers=authority.bearer()).json()) == (False, True)


def test_no_handler_or_middleware_of_the_app_changes_a_refusal(authority: FakeAuthority, guard: Guard):
    ran: list[Any] = []

    def replace(request: Any, error: Exception) -> Response[str]:
        ran.append(error)
        return Response("replaced", status_code=200)

    def note(request: Request[Any, Any, Any]) -> None:
        ran.append(request)

    replaced: dict[Any, Any] = dict.fromkeys((401, 403, 404, 500, Exception, AccessRefused), replace)
    app = an_app(handler(guards=[requires("read")]), exception_handlers=replaced, before_request=note)
    ScopeGuard(app, guard)
    client = client_of(app)
    for path in ("/", "/nowhere"):
        refused = client.get(path)
        assert (refused.status_code, refused.json()["title"]) == (401, "Unauthorized")
        assert refused.headers["www-authenticate"].startswith("Bearer ")
    assert client.get("/", headers=authority.bearer()).json()["error"] == "insufficient_scope"
    assert ran == []
    assert client.get("/nowhere", headers=authority.bearer()).text == "replaced"


async def guard_in_guard(connection: Any, route_handler: Any) -> None:
    """Check what no one can see from outside."""
    await requires("hidden")(connection, route_handler)


@pytest.mark.parametrize("has_dpop", [False, True])
def test_refusal_in_the_app_keeps_challenge_and_body(authority: FakeAuthority, *, has_dpop: bool):
    dpop = DPoP(base_url=BASE) if has_dpop else None
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, dpop=dpop)
    app = an_app(handler(guards=[guard_in_guard]), handler("/open", scopeguard="public", guards=[guard_in_guard]))
    ScopeGuard(app, guard)
    client = client_of(app)
    denied = client.get("/", headers=authority.bearer("read"))
    assert denied.status_code == 403
    assert 'error="insufficient_scope"' in denied.headers["www-authenticate"]
    assert 'scope="hidden"' in denied.headers["www-authenticate"]
    assert denied.headers["content-type"] == "application/problem+json"
    assert (denied.json()["error"], denied.headers["cache-control"]) == ("insufficient_scope", "no-store")
    assert len(denied.content) == int(denied.headers["content-length"])
    missing = client.get("/open")
    assert missing.status_code == 401
    assert ("DPoP " in missing.headers["www-authenticate"]) is has_dpop
    assert client.get("/", headers=authority.bearer("hidden")).text == "client"


def test_app_may_answer_a_refusal_inside_itself(authority: FakeAuthority, guard: Guard):
    def refuse(request: Any, error: AccessRefused) -> Response[dict[str, Any]]:
        return Response({"own": error.refused.status}, status_code=error.status_code, headers=error.headers)

    app = an_app(handler(guards=[guard_in_guard]), exception_handlers={AccessRefused: refuse})
    ScopeGuard(app, guard)
    denied = client_of(app).get("/", headers=authority.bearer())
    assert "insufficient_scope" in denied.headers["www-authenticate"]
    assert (denied.status_code, denied.json()) == (403, {"own": 403})


def test_guards_work_behind_the_middleware_and_without_any_they_raise(authority: FakeAuthority, guard: Guard):
    app = an_app(handler(guards=[requires("read")]), debug=True)
    bare = client_of(app).get("/", headers=authority.bearer("read"))
    assert bare.status_code == 500
    assert "needs ScopeGuard(app, guard)" in bare.text
    client = client_of(GuardMiddleware(app, guard=guard))
    denied = client.get("/", headers=authority.bearer())
    assert (denied.status_code, denied.json()["detail"]) == (403, "Forbidden")
    assert 'scope="read"' in denied.headers["www-authenticate"]
    assert client.get("/", headers=authority.bearer("read")).text == "client"
    assert 'scope="read"' in client.get("/").headers["www-authenticate"]


def test_websocket_is_refused_before_it_is_accepted_and_its_token_can_be_renewed(
    authority: FakeAuthority, guard: Guard
):
    @websocket("/", guards=[requires("read")])
    async def live(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        while True:
            decision = await renew(socket, await socket.receive_text())
            await socket.send_text(f"{type(decision).__name__} {sorted(access_token().scopes)}")

    app = an_app(live)
    ScopeGuard(app, guard, close_streams="expiry")
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "websocket", "scheme": "wss", "path": "/", "query_string": b"", "headers": []}
    anyio.run(app, {**scope, "extensions": {"websocket.http.response": {}}}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert dict(sent[0]["headers"])[b"www-authenticate"] == b'Bearer realm="api", scope="read"'
    with client_of(app).websocket_connect("/", headers=authority.bearer("read")) as socket:
        for scopes, answer in (("read more", "Granted ['more', 'read']"), ("more", "Denied ['more', 'read']")):
            socket.send_text(authority.mint(scopes))
            assert socket.receive_text() == answer


def test_websocket_whose_guard_refuses_in_the_app_is_closed_with_1008(authority: FakeAuthority, guard: Guard):
    @websocket("/", guards=[guard_in_guard])
    async def live(socket: WebSocket[Any, Any, Any]) -> None:
        raise AssertionError

    app = an_app(live)
    ScopeGuard(app, guard)
    with pytest.raises(Exception, match="Forbidden") as error, client_of(app) as client:
        client.websocket_connect("/", headers=authority.bearer("read")).__enter__()
    assert getattr(error.value, "code", None) == 1008


def test_stream_ends_with_its_token(authority: FakeAuthority, guard: Guard):
    @get("/")
    async def events() -> Stream:
        async def endless() -> AsyncIterator[str]:
            yield "data: first\n\n"
            guard.revoke(subject="client")
            await anyio.sleep_forever()
            yield "never"

        return Stream(endless(), media_type="text/event-stream")

    app = an_app(events)
    ScopeGuard(app, guard, close_streams="revocation")
    answer = TestClient(app, base_url=BASE).get("/", headers=authority.bearer())
    assert (answer.status_code, answer.text) == (200, "data: first\n\n")


def test_rules_see_the_path_on_which_the_router_decides_also_below_a_mount(authority: FakeAuthority, guard: Guard):
    seen: list[str] = []

    @asgi("/mounted", is_mount=True, copy_scope=True)
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await Response("in").to_asgi_response(app=None, request=Request(scope))(scope, receive, send)

    app = an_app(
        mounted, handler("/a"), handler("/closed", scopeguard="public"), handler("/declared", scopeguard="public")
    )
    rules = [Rule("/mounted/secret", "secret"), Rule("/mounted/{rest:path}", "read"), Rule("/closed", DENIED)]
    ScopeGuard(app, guard, rules=rules)
    client = client_of(app)

    def statuses(path: str) -> list[int]:
        given = [{}, authority.bearer("read"), authority.bearer("secret")]
        return [client.get(path, headers=headers).status_code for headers in given]

    assert statuses("/mounted/open") == [401, 200, 403]
    assert statuses("/mounted/secret") == [401, 403, 200]
    assert seen == ["/open/", "/secret/"]
    assert statuses("/a") == [401, 403, 403]  # no rule, and the handler declares nothing
    assert statuses("/closed") == [401, 403, 403]
    assert statuses("/declared") == [200, 200, 200]
    assert statuses("//declared") == [401, 403, 403]  # the rules may read the path differently from the router


@pytest.mark.parametrize("around", ["extension", "middleware"])
def test_mount_does_not_serve_a_path_whose_segments_are_others(authority: FakeAuthority, guard: Guard, around: str):
    """Litestar compares the paths of mounts as text: it routes ``/filesx`` to the app at ``/files``, which serves x."""
    seen: list[str] = []

    @asgi("/files", is_mount=True, copy_scope=True)
    async def files(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await Response("in").to_asgi_response(app=None, request=Request(scope))(scope, receive, send)

    app = an_app(files, handler("/filesystem"))
    rules = [Rule("/files/{rest:path}", "files"), Rule("/{rest:path}", PUBLIC)]
    if around == "extension":
        ScopeGuard(app, guard, rules=rules)
        client = client_of(app)
    else:
        client = client_of(GuardMiddleware(app, guard=guard, rules=rules))
    for path in ("/filesx", "/filesx/", "/filesx/y", "/files.txt", "/files;/x"):
        statuses = [client.get(path, headers=headers).status_code for headers in ({}, authority.bearer("files"))]
        assert statuses == [401, 403], path
    assert client.get("/filesystem").text == "anonymous"
    assert client.get("/files/x", headers=authority.bearer("files")).text == "in"
    assert seen == ["/x/"]


def test_mount_at_the_root_serves_every_path(guard: Guard):
    @asgi("/", is_mount=True, copy_scope=True)
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await Response(scope["path"]).to_asgi_response(app=None, request=Request(scope))(scope, receive, send)

    app = an_app(mounted)
    ScopeGuard(app, guard, rules=[Rule("/a/{rest:path}", PUBLIC), Rule("/admin")])
    assert [client_of(app).get(path).status_code for path in ("/a/b", "/admin")] == [200, 401]


def test_root_path_is_removed_as_the_router_removes_it(guard: Guard):
    app = an_app(handler("/open", scopeguard="public"), handler("/closed"))
    ScopeGuard(app, guard)
    client = TestClient(app, base_url=BASE, root_path="/api", raise_server_exceptions=False)
    assert (client.get("/api/open").status_code, client.get("/api/closed").status_code) == (200, 401)


def test_route_that_is_added_later_is_guarded(authority: FakeAuthority, guard: Guard):
    app = an_app(handler("/a"))
    ScopeGuard(app, guard)
    app.register(handler("/late", guards=[requires("read")]))
    client = client_of(app)
    statuses = [client.get("/late", headers=given).status_code for given in ({}, authority.bearer("read"))]
    assert statuses == [401, 200]


def test_path_that_the_router_cannot_read_needs_a_token(authority: FakeAuthority, guard: Guard):
    @get("/{amount:decimal}", scopeguard="public")
    async def amounts(amount: FromPath[Decimal]) -> str:
        return str(amount)

    app = an_app(amounts)
    ScopeGuard(app, guard)
    client = client_of(app)
    assert [client.get(path).status_code for path in ("/1.5", "/many")] == [200, 401]
    assert client.get("/many", headers=authority.bearer()).status_code in (404, 500)  # Litestar's own


@pytest.mark.parametrize(
    "routing",
    [
        {},
        {"handle_routing": lambda **_: ("app", None)},
        {"handle_routing": lambda **_: (None, "handler", "/", {}, "/")},
    ],
    ids=["another name", "a shorter result", "a result in another order"],
)
def test_changed_router_of_litestar_lets_nothing_pass(authority: FakeAuthority, guard: Guard, routing: dict[str, Any]):
    # Fault: names that Litestar does not document may go. A request without a known handler is then not open.
    app = an_app(handler("/open", scopeguard="public"), handler("/rows", guards=[requires("read")]))
    ScopeGuard(app, guard)
    assert client_of(app).get("/open").status_code == 200
    app.asgi_router = SimpleNamespace(**routing)  # app.asgi_handler keeps the router that serves
    client = client_of(app)
    assert {client.get(path).status_code for path in ("/open", "/rows")} <= {401, 500}
    assert client.get("/rows", headers=authority.bearer("write")).status_code in (403, 500)


def test_middleware_that_is_already_around_the_router_is_refused(guard: Guard):
    # Fault: the handler is looked up at the outside, and something in between decides anew.
    app = an_app(handler("/open", scopeguard="public"), handler("/rows"))
    inner = app.asgi_handler

    async def to_rows(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "path": "/rows"}, receive, send)

    app.asgi_handler = to_rows
    with pytest.raises(ConfigurationError, match=r"around app\.asgi_handler after ScopeGuard"):
        ScopeGuard(app, guard)


def test_preflight_reaches_the_cors_middleware_and_scripts_may_read_a_refusal(authority: FakeAuthority, guard: Guard):
    cors = CORSConfig(allow_origins=["https://spa.test"], allow_headers=["authorization"])
    app = an_app(post("/", guards=[requires("read")])(handler().fn), cors_config=cors)
    ScopeGuard(app, guard, cors_preflight="pass")
    client = client_of(app)
    asked = {"origin": "https://spa.test", "access-control-request-method": "POST"}
    preflight = client.options("/", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://spa.test"
    refused = client.post("/", headers={"origin": "https://spa.test"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://spa.test"
    assert "WWW-Authenticate" in refused.headers["access-control-expose-headers"]


def test_event_has_the_template_of_the_route_for_refusals_too(authority: FakeAuthority):
    events: list[DecisionEvent] = []
    guard = Guard(
        authority.issuer, transport=authority.transport, clock=authority.clock, on_decision=events.append, audit="off"
    )

    async def rows(number: FromPath[int]) -> str:
        return str(number)

    app = an_app(get("/rows/{number:int}", guards=[requires("read")])(rows))
    ScopeGuard(app, guard)
    client = client_of(app)
    for headers in ({}, authority.bearer("read")):
        client.get("/rows/7", headers=headers)
    client.get("/nowhere")
    assert [(event.route, str(event.adapter)) for event in events] == [
        ("/rows/{number}", "litestar"),
        ("/rows/{number}", "litestar"),
        (None, "litestar"),
    ]


def test_document_has_the_schemes_and_the_scopes_of_guards(authority: FakeAuthority):
    def describe(guard: Guard, **settings: Any) -> dict[str, Any]:
        class Rows(Controller):
            path = "/rows"
            guards = [requires("read")]  # noqa: RUF012 - as Litestar has it
            rows = method("/", guards=[requires(any_of("one", "two"))])
            opened = method("/open", scopeguard="public")

        handlers = [
            Rows,
            handler("/public", scopeguard="public"),
            handler("/maybe", scopeguard="optional"),
            handler("/plain"),
            handler("/own", security=[{"own": []}]),
        ]
        own = Components(security_schemes={"own": SecurityScheme(type="mutualTLS")})
        config = OpenAPIConfig("API", "1", components=own)
        app = an_app(*handlers, openapi_config=config, plugins=[OpenAPISecurity(guard)], **settings)
        assert config.components is own
        document: dict[str, Any] = app.openapi_schema.to_schema()
        return document

    def operations(document: dict[str, Any]) -> dict[str, Any]:
        return {path: item["get"].get("security") for path, item in document["paths"].items()}

    document = describe(Guard(authority.issuer))
    assert document["components"]["securitySchemes"] == {
        "Bearer": {"type": "http", "scheme": "Bearer", "bearerFormat": "JWT"},
        "own": {"type": "mutualTLS"},
    }
    assert operations(document) == {
        "/rows": [{"Bearer": ["one", "read"]}, {"Bearer": ["read", "two"]}],
        "/rows/open": [{"Bearer": ["read"]}],
        "/public": None,
        "/maybe": [{"Bearer": []}, {}],
        "/plain": [{"Bearer": []}],
        "/own": [{"own": []}],
    }
    required = describe(Guard(authority.issuer, dpop=DPoP(base_url=BASE, mode="required")))
    assert operations(required)["/plain"] == [{"DPoP": []}]
    accepted = describe(Guard(authority.issuer, dpop=DPoP(base_url=BASE)))
    assert operations(accepted)["/plain"] == [{"Bearer": []}, {"DPoP": []}]
    by_app = operations(describe(Guard(authority.issuer), security=[{"own": []}]))
    assert by_app["/plain"] == by_app["/rows"] == [{"own": []}]


def test_app_without_a_document_takes_the_plugin(guard: Guard):
    an_app(handler(), plugins=[OpenAPISecurity(guard)])


def test_audit_error_prevents_the_start(authority: FakeAuthority):
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="error")
    app = an_app(handler("/a"))
    ScopeGuard(app, guard, rules=[Rule("/a", "read"), Rule("/{rest:path}", "public-in-vain"), Rule("/a/b")])
    assert "ConfigurationError: audit: " in start(app)


def test_wrong_arguments_are_refused(guard: Guard):
    app, wrong = an_app(handler()), cast("Any", 7)
    with pytest.raises(ConfigurationError, match="app: must be a Litestar app"):
        ScopeGuard(wrong, guard)
    with pytest.raises(ConfigurationError, match=r"as in ScopeGuard\(app, guard\)"):
        ScopeGuard(app, wrong)
    ScopeGuard(app, guard)
    with pytest.raises(ConfigurationError, match="has a ScopeGuard already"):
        ScopeGuard(app, guard)
    with pytest.raises(ConfigurationError, match="scope"):
        requires(wrong)

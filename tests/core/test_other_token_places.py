"""Tokens in ``X-Forwarded-Authorization`` and among the subprotocols of a websocket: off unless asked for, believed
only of known senders, and not seen by the app."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request
from flask import Flask
from flask import request as flask_request
from starlette.responses import JSONResponse
from starlette.testclient import TestClient, WebSocketDenialResponse
from werkzeug.test import Client

from doors import guard_for
from scopeguard import ConfigurationError, Guard, Rule, TokenSources
from scopeguard.adapter.token_places import remove_from_scope
from scopeguard.asgi import GuardMiddleware
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard
from scopeguard.testing import FakeAuthority
from scopeguard.wsgi import GuardMiddleware as WSGIGuard

FIELD = "X-Forwarded-Authorization"
PROXY, STRANGER = "10.0.0.7", "192.0.2.9"


def forwarded(*methods: str, proxies: Any = ("10.0.0.0/8",)) -> TokenSources:
    return TokenSources(methods=methods or ("forwarded",), trusted_proxies=proxies)


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    seen = [name.decode() for name, _ in scope["headers"]]
    await JSONResponse(seen)(scope, receive, send)


def wsgi_app(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return [" ".join(sorted(environ)).encode()]


def through_asgi(guard: Guard, headers: dict[str, str], sender: str) -> tuple[int, str]:
    answer = TestClient(GuardMiddleware(asgi_app, guard=guard), client=(sender, 5)).get("/", headers=headers)
    return answer.status_code, answer.text.lower()


def through_wsgi(guard: Guard, headers: dict[str, str], sender: str) -> tuple[int, str]:
    client = Client(WSGIGuard(wsgi_app, guard=guard))
    answer = client.get("/", headers=list(headers.items()), environ_overrides={"REMOTE_ADDR": sender})
    return answer.status_code, answer.text.lower().replace("_", "-")


def through_flask(guard: Guard, headers: dict[str, str], sender: str) -> tuple[int, str]:
    app = Flask("x")
    ScopeGuard(app, guard)
    app.add_url_rule("/", view_func=lambda: " ".join(flask_request.headers.keys()))
    answer = app.test_client().get("/", headers=list(headers.items()), environ_overrides={"REMOTE_ADDR": sender})
    return answer.status_code, answer.text.lower()


def through_fastapi(guard: Guard, headers: dict[str, str], sender: str) -> tuple[int, str]:
    app = FastAPI(dependencies=[Depends(Protected(guard))])

    def view(request: Request) -> list[str]:
        return list(request.headers)

    view.__annotations__ = {"request": Request}
    app.get("/")(view)
    answer = TestClient(app, client=(sender, 5)).get("/", headers=headers)
    return answer.status_code, answer.text.lower()


WAYS = pytest.mark.parametrize("way", [through_asgi, through_wsgi, through_flask, through_fastapi])


@WAYS
def test_the_token_that_a_known_proxy_forwards_is_used_and_the_app_does_not_see_it(authority: FakeAuthority, way: Any):
    guard = guard_for(authority, token_sources=forwarded())
    # The gateway authenticates itself in Authorization, which is no source here.
    headers = {FIELD: f"Bearer {authority.mint()}", "Authorization": "Bearer of-the-gateway"}
    for _ in range(2):
        status, seen = way(guard, headers, PROXY)
        assert status == 200
        assert "x-forwarded-authorization" not in seen


@WAYS
@pytest.mark.parametrize(
    ("sources", "sender", "status"),
    [
        (("header",), PROXY, 401),  # off by default
        (forwarded(), STRANGER, 401),
        (forwarded(proxies=["192.0.2.8/31"]), STRANGER, 200),
        (forwarded(proxies="*"), STRANGER, 200),
        (forwarded("header", "forwarded"), PROXY, 200),
    ],
    ids=["off", "stranger", "network", "everybody", "beside the header"],
)
def test_the_field_counts_of_known_senders_only(
    authority: FakeAuthority, way: Any, sources: Any, sender: str, status: int
):
    guard = guard_for(authority, token_sources=sources)
    assert way(guard, {FIELD: f"Bearer {authority.mint()}"}, sender)[0] == status


@WAYS
def test_a_stranger_who_sends_the_field_beside_a_token_is_judged_by_that(authority: FakeAuthority, way: Any):
    guard = guard_for(authority, token_sources=forwarded("header", "forwarded"))
    both = {FIELD: f"Bearer {authority.mint()}", "Authorization": f"Bearer {authority.mint()}"}
    status, seen = way(guard, both, STRANGER)
    assert status == 200
    assert "x-forwarded-authorization" not in seen
    assert way(guard, both, PROXY)[0] == 400  # two tokens


@WAYS
@pytest.mark.parametrize("value", ["{}", "Bearer", "Basic {}", "Bearer {} x", "Bearer {}, Bearer {}"])
def test_the_field_has_a_scheme_as_authorization_has(authority: FakeAuthority, way: Any, value: str):
    guard = guard_for(authority, token_sources=forwarded())
    assert way(guard, {FIELD: value.format(authority.mint(), authority.mint())}, PROXY)[0] in (400, 401)


@pytest.mark.parametrize(
    "wrong",
    [
        {"methods": ["forwarded"], "trusted_proxies": ["proxy.internal"]},
        {"methods": ["forwarded"], "trusted_proxies": ["*", "10.0.0.0/8"]},
        {"trusted_proxies": ["10.0.0.1/8"]},
        {"trusted_proxies": [7]},
        {"trusted_proxies": 7},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        TokenSources(**wrong)


def test_the_field_needs_a_sender_that_is_believed(authority: FakeAuthority):
    nobody = TokenSources(methods=["header", "forwarded"])
    guard = guard_for(authority)
    rules = [Rule("/x", token_sources=["forwarded"])]
    attempts: list[Any] = [
        lambda: guard_for(authority, token_sources=nobody),
        lambda: guard_for(authority, token_sources=["forwarded"]),
        lambda: GuardMiddleware(asgi_app, guard=guard, rules=rules),
        lambda: WSGIGuard(wsgi_app, guard=guard, rules=rules),
        lambda: ScopeGuard(Flask("x"), guard, rules=rules),
        lambda: Protected(guard, token_sources=["forwarded"]),
    ]
    for attempt in attempts:
        with pytest.raises(ConfigurationError, match='token_sources: "forwarded" needs trusted_proxies'):
            attempt()


def test_who_opens_our_unix_socket_is_believed_if_we_say_so():
    assert forwarded(proxies=["unix"]).believes(None)
    assert not forwarded().believes(None)
    assert forwarded(proxies=["*"]).believes(None)


# -- subprotocols of websockets


async def chat(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await JSONResponse({})(scope, receive, send)
        return
    await receive()
    offered = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": offered[0] if offered else None})
    fields = [value.decode() for name, value in scope["headers"] if name == b"sec-websocket-protocol"]
    await send({"type": "websocket.send", "text": f"{offered} {fields}"})
    await send({"type": "websocket.close"})


def kubernetes(token: str) -> str:
    return "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("offer", "selected", "seen"),
    [
        (lambda token: ["bearer", token], "bearer", "[] []"),
        (lambda token: ["Bearer", token], "Bearer", "[] []"),
        (lambda token: ["chat", "bearer", token, "v2"], "chat", "['chat', 'v2'] ['chat, v2']"),
        (
            lambda token: ["channel.k8s.io", kubernetes(token)],
            "channel.k8s.io",
            "['channel.k8s.io'] ['channel.k8s.io']",
        ),
        (lambda token: [kubernetes(token)], None, "[] []"),
    ],
    ids=["bearer", "Bearer", "among others", "kubernetes", "kubernetes alone"],
)
@pytest.mark.parametrize("by_rule", [False, True], ids=["guard", "rule"])
def test_a_token_among_the_subprotocols(
    authority: FakeAuthority, offer: Any, selected: str | None, seen: str, by_rule: bool
):
    sources = ("header", "subprotocol")
    rules = [Rule("/ws", token_sources=sources)] if by_rule else [Rule("/ws")]
    guard = guard_for(authority, token_sources=("header",) if by_rule else sources)
    client = TestClient(GuardMiddleware(chat, guard=guard, rules=rules))
    with client.websocket_connect("/ws", subprotocols=offer(authority.mint())) as connection:
        assert connection.accepted_subprotocol == selected
        assert connection.receive_text() == seen


@pytest.mark.parametrize(
    ("sources", "offer", "status"),
    [
        (("header",), lambda token: ["bearer", token], 401),  # off by default
        (("header", "subprotocol"), lambda token: ["chat"], 401),
        (("header", "subprotocol"), lambda token: ["bearer"], 400),
        (("header", "subprotocol"), lambda token: ["bearer", token + "x"], 401),
        (("header", "subprotocol"), lambda token: ["bearer", token, kubernetes(token)], 400),
    ],
    ids=["off", "none", "empty", "forged", "two"],
)
def test_other_handshakes_are_refused(authority: FakeAuthority, sources: Any, offer: Any, status: int):
    client = TestClient(GuardMiddleware(chat, guard=guard_for(authority, token_sources=sources)))
    with pytest.raises(WebSocketDenialResponse) as refused:
        client.websocket_connect("/ws", subprotocols=offer(authority.mint())).__enter__()
    assert refused.value.status_code == status


def test_a_token_in_two_places_is_refused(authority: FakeAuthority):
    guard = guard_for(authority, token_sources=("header", "subprotocol"))
    with pytest.raises(WebSocketDenialResponse) as refused:
        TestClient(GuardMiddleware(chat, guard=guard)).websocket_connect(
            "/ws", subprotocols=["bearer", authority.mint()], headers=authority.bearer()
        ).__enter__()
    assert refused.value.status_code == 400


def test_only_a_websocket_has_subprotocols(authority: FakeAuthority):
    guard = guard_for(authority, token_sources=("subprotocol",))
    client = TestClient(GuardMiddleware(chat, guard=guard))
    headers = {"Sec-WebSocket-Protocol": f"bearer, {authority.mint()}"}
    assert client.get("/ws", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "name", [b"X-Forwarded-Authorization", b"x_forwarded_authorization", b"X-Forwarded_Authorization"]
)
def test_no_spelling_of_the_forwarded_field_reaches_the_app(name: bytes):
    """A WSGI app behind a bridge reads dashes and underscores alike: a twin would be a token that no check has seen."""
    scope: dict[str, Any] = {"type": "http", "headers": [(name, b"Bearer made-up"), (b"host", b"api.test")]}
    remove_from_scope(scope, TokenSources(methods=["header", "forwarded"], trusted_proxies=["127.0.0.1"]))
    assert scope["headers"] == [(b"host", b"api.test")]

"""Tokens in ``X-Forwarded-Authorization`` and among the subprotocols of a websocket: off by default, accepted
only from configured senders, and hidden from the app."""

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
from scopeguard.adapter.token_removal import remove_from_scope
from scopeguard.asgi import GuardMiddleware
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard
from scopeguard.testing import FakeAuthority
from scopeguard.wsgi import GuardMiddleware as WSGIGuard

FIELD = "X-Forwarded-Authorization"
PROXY, STRANGER = "10.0.0.7", "192.0.2.9"


def forwarded_header(*methods: str, proxies: Any = ("10.0.0.0/8",)) -> TokenSources:
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


def send_through_asgi(guard: Guard, headers: dict[str, str], sender: str) -> tuple[int, str]:
    answer = TestClient(GuardMiddleware(asgi_app, guard=guard), client=(sender, 5)).get("/", headers=headers)
    return answer.status_code, answer.text.lower()


def send_through_wsgi(guard: Guard, headers: dict[str, str], sender: str) -> tuple[int, str]:
    client = Client(WSGIGuard(wsgi_app, guard=guard))
    answer = client.get("/", headers=list(headers.items()), environ_overrides={"REMOTE_ADDR": sender})
    return answer.status_code, answer.text.lower().replace("_", "-")


def send_through_flask(guard: Guard, headers: dict[str, str], sender: str) -> tuple[int, str]:
    app = Flask("x")
    ScopeGuard(app, guard)
    app.add_url_rule("/", view_func=lambda: " ".join(flask_request.headers.keys()))
    answer = app.test_client().get("/", headers=list(headers.items()), environ_overrides={"REMOTE_ADDR": sender})
    return answer.status_code, answer.text.lower()


def send_through_fastapi(guard: Guard, headers: dict[str, str], sender: str) -> tuple[int, str]:
    app = FastAPI(dependencies=[Depends(Protected(guard))])

    def view(request: Request) -> list[str]:
        return list(request.headers)

    view.__annotations__ = {"request": Request}
    app.get("/")(view)
    answer = TestClient(app, client=(sender, 5)).get("/", headers=headers)
    return answer.status_code, answer.text.lower()


WAYS = pytest.mark.parametrize("way", [send_through_asgi, send_through_wsgi, send_through_flask, send_through_fastapi])


@WAYS
def test_token_forwarded_by_a_trusted_proxy_is_used_and_hidden_from_the_app(authority: FakeAuthority, way: Any):
    guard = guard_for(authority, token_sources=forwarded_header())
    # The gateway authenticates itself in Authorization, which is not a source here.
    headers = {FIELD: f"Bearer {authority.mint()}", "Authorization": "Bearer of-the-gateway"}
    for _ in range(2):
        status, seen = way(guard, headers, PROXY)
        assert status == 200
        assert "x-forwarded-authorization" not in seen


@WAYS
@pytest.mark.parametrize(
    ("sources", "sender", "status"),
    [
        (("header",), PROXY, 401),  # Off by default.
        (forwarded_header(), STRANGER, 401),
        (forwarded_header(proxies=["192.0.2.8/31"]), STRANGER, 200),
        (forwarded_header(proxies="*"), STRANGER, 200),
        (forwarded_header("header", "forwarded"), PROXY, 200),
    ],
    ids=["off", "stranger", "network", "any sender", "beside the header"],
)
def test_forwarded_field_counts_only_from_trusted_senders(
    authority: FakeAuthority, way: Any, sources: Any, sender: str, status: int
):
    guard = guard_for(authority, token_sources=sources)
    assert way(guard, {FIELD: f"Bearer {authority.mint()}"}, sender)[0] == status


@WAYS
def test_untrusted_forwarded_field_beside_a_token_is_ignored(authority: FakeAuthority, way: Any):
    guard = guard_for(authority, token_sources=forwarded_header("header", "forwarded"))
    both = {FIELD: f"Bearer {authority.mint()}", "Authorization": f"Bearer {authority.mint()}"}
    status, seen = way(guard, both, STRANGER)
    assert status == 200
    assert "x-forwarded-authorization" not in seen
    assert way(guard, both, PROXY)[0] == 400  # Two tokens.


@WAYS
@pytest.mark.parametrize("value", ["{}", "Bearer", "Basic {}", "Bearer {} x", "Bearer {}, Bearer {}"])
def test_forwarded_field_needs_a_scheme_like_authorization(authority: FakeAuthority, way: Any, value: str):
    guard = guard_for(authority, token_sources=forwarded_header())
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
def test_invalid_settings_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        TokenSources(**wrong)


def test_forwarded_source_needs_a_trusted_sender(authority: FakeAuthority):
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


def test_unix_socket_peer_is_trusted_if_configured():
    assert forwarded_header(proxies=["unix"]).trusts(None)
    assert not forwarded_header().trusts(None)
    assert forwarded_header(proxies=["*"]).trusts(None)


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
def test_token_among_the_subprotocols_is_accepted(
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
        (("header",), lambda token: ["bearer", token], 401),  # Off by default.
        (("header", "subprotocol"), lambda token: ["chat"], 401),
        (("header", "subprotocol"), lambda token: ["bearer"], 400),
        (("header", "subprotocol"), lambda token: ["bearer", token + "x"], 401),
        (("header", "subprotocol"), lambda token: ["bearer", token, kubernetes(token)], 400),
    ],
    ids=["off", "none", "empty", "forged", "two"],
)
def test_handshakes_without_one_valid_token_are_refused(
    authority: FakeAuthority, sources: Any, offer: Any, status: int
):
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


def test_subprotocol_source_applies_only_to_websockets(authority: FakeAuthority):
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

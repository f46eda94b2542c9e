"""New tokens for the websockets of Starlette and FastAPI: what endpoints require is required of them, too."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Security, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.routing import Mount, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

from scopeguard import (
    AccessToken,
    Denied,
    Granted,
    Guard,
    PolicyRequest,
    Rule,
    Unavailable,
    access_token,
    any_of,
)
from scopeguard.fastapi import Protected
from scopeguard.fastapi import renew as renew_in_fastapi
from scopeguard.starlette import GuardMiddleware, renew, requires
from scopeguard.testing import FakeAuthority


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def guard(authority: FakeAuthority) -> Guard:
    return Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off")


def describe(decision: Granted | Denied | Unavailable, websocket: Any) -> str:
    token = websocket.user
    assert token is websocket.state.access_token
    assert token.fingerprint == access_token().fingerprint
    return "granted" if isinstance(decision, Granted) else str(decision.error.reason)


async def answer(websocket: Any, renewal: Any = renew) -> None:
    await websocket.accept()
    async for token in websocket.iter_text():
        await websocket.send_text(describe(await renewal(websocket, token), websocket))


@requires("read")
async def function(websocket: Any) -> None:
    await answer(websocket)


@requires("read")
class Endpoint(WebSocketEndpoint):
    encoding = "text"

    async def on_receive(self, websocket: Any, data: Any) -> None:
        await websocket.send_text(describe(await renew(websocket, data), websocket))


class Method(WebSocketEndpoint):
    encoding = "text"

    @requires("read")
    async def on_receive(self, websocket: Any, data: Any) -> None:
        await websocket.send_text(describe(await renew(websocket, data), websocket))


def starlette_app(guard: Guard) -> Any:
    return Starlette(
        routes=[
            WebSocketRoute("/function", function),
            WebSocketRoute("/class", Endpoint),
            WebSocketRoute("/method", Method),
            Mount("/mounted", routes=[WebSocketRoute("/function", function)]),
        ],
        middleware=[Middleware(GuardMiddleware, guard=guard, close_streams="revocation")],
    )


def fastapi_app(guard: Guard) -> Any:
    app = FastAPI()
    protected = Protected(guard)

    @app.websocket("/security")
    async def security(
        websocket: WebSocket, token: Annotated[AccessToken, Security(protected, scopes=["read"])]
    ) -> None:
        await answer(websocket, renew_in_fastapi)

    @app.websocket("/depends")
    async def depends(
        websocket: WebSocket, token: Annotated[AccessToken, Depends(protected.requires(any_of("read", "admin")))]
    ) -> None:
        await answer(websocket, renew_in_fastapi)

    return GuardMiddleware(app, guard=guard, close_streams="revocation")


PATHS = {
    "/function": starlette_app,
    "/class": starlette_app,
    "/method": starlette_app,
    "/mounted/function": starlette_app,
    "/security": fastapi_app,
    "/depends": fastapi_app,
}


@pytest.mark.parametrize("path", PATHS)
def test_what_the_endpoint_requires_is_required_of_a_new_token(authority: FakeAuthority, guard: Guard, path: str):
    client = TestClient(PATHS[path](guard))
    with client.websocket_connect(path, headers=authority.bearer("read", subject="ann")) as socket:
        for token, expected in (
            (authority.mint("read more", subject="ann"), "granted"),
            (authority.mint("more", subject="ann"), "insufficient_scope"),
            (authority.mint("read", subject="bob"), "renewal_mismatch"),
            (authority.mint("read", subject="ann"), "granted"),
        ):
            socket.send_text(token)
            assert socket.receive_text() == expected


def test_requirement_of_another_guard_is_not_required(authority: FakeAuthority, guard: Guard):
    """The dependency has a guard of its own, whose scopes say nothing about the token of the middleware."""
    other = FakeAuthority("https://other.test")
    inner = Guard(other.issuer, transport=other.transport, clock=other.clock, token_sources=["query"], audit="off")
    app = FastAPI()
    protected = Protected(inner)

    @app.websocket("/both")
    async def both(websocket: WebSocket, token: Annotated[AccessToken, Security(protected, scopes=["inner"])]) -> None:
        await websocket.accept()
        decision = await renew(websocket, await websocket.receive_text())
        await websocket.send_text(type(decision).__name__)

    client = TestClient(GuardMiddleware(app, guard=guard, close_streams="expiry"))
    url = f"/both?access_token={other.mint('inner')}"
    with client.websocket_connect(url, headers=authority.bearer(subject="ann")) as socket:
        socket.send_text(authority.mint(subject="ann"))
        assert socket.receive_text() == "Granted"


def test_requirement_of_each_message_is_added_once(authority: FakeAuthority, guard: Guard):
    """The kind of fault: something that grows with each message of a client."""
    sizes: list[int] = []

    class Messages(WebSocketEndpoint):
        encoding = "text"

        @requires("read")
        async def on_receive(self, websocket: Any, data: Any) -> None:
            connection = websocket.scope["state"]["scopeguard.connection"]
            sizes.append(len(connection.requirement.alternatives[0]))
            await websocket.send_text(str(len(connection._requirements)))

    app = Starlette(
        routes=[WebSocketRoute("/ws", Messages)],
        middleware=[Middleware(GuardMiddleware, guard=guard, close_streams="expiry")],
    )
    with TestClient(app).websocket_connect("/ws", headers=authority.bearer("read")) as socket:
        for _ in range(5):
            socket.send_text("x")
            assert socket.receive_text() == "1"
    assert sizes == [1] * 5


def test_the_decision_of_a_rule_is_made_about_the_handshake_and_about_a_new_token(authority: FakeAuthority):
    verdicts = {"first": True, "second": False, "third": True, "fourth": False}

    def decide(token: AccessToken, request: PolicyRequest) -> bool:
        assert request.is_websocket
        return verdicts[str(token.claims["jti"])]

    def bearer(jti: str) -> dict[str, str]:
        return authority.bearer("read", subject="ann", claims={"jti": jti})

    rules = [Rule("/function", decide=decide)]
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off", rules=rules)
    client = TestClient(starlette_app(guard))
    with client.websocket_connect("/function", headers=bearer("first")) as socket:
        for jti, answered in (("second", "policy_denied"), ("third", "granted"), ("fourth", "policy_denied")):
            socket.send_text(bearer(jti)["Authorization"].removeprefix("Bearer "))
            assert socket.receive_text() == answered
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client.websocket_connect("/function", headers=bearer("fourth")),
    ):
        pass
    assert refused.value.status_code == 403

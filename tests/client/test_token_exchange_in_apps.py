"""TokenExchange in the handlers of guarded apps, sync and async, against the development authorization server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import flask
import httpx
import jwt
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from doors import call_asgi, call_wsgi
from scenarios import Answered, Exchange
from scopeguard import Guard, asgi, wsgi
from scopeguard.client import TokenEndpointUnavailable, TokenExchange, TokenExchangeRefused
from scopeguard.devserver import Client
from scopeguard.devserver.token_requests import Grant
from scopeguard.flask import ScopeGuard
from scopeguard.testing import FakeAuthority

API, NEXT = "https://api.example.com", "https://next.example.com"
Send = Callable[[str], Answered]


class World:
    """An API that calls the next one, which answers with the user and the actor that it sees."""

    def __init__(self) -> None:
        self.fake = FakeAuthority(audience=API, scopes=["read"])
        registry = self.fake.authority.registry
        registry.add_client(
            Client(
                client_id="orders", secret="sg-secret-o", scopes=["read"], introspects=[API], exchanges_for=[NEXT]
            )
        )  # fmt: skip
        self.guard = Guard(
            self.fake.issuer, transport=self.fake.transport, clock=self.fake.clock, audit="off",
            keep_token_for_exchange=True,
        )  # fmt: skip
        self.exchange = TokenExchange(
            f"{self.fake.url}/token", "orders", "sg-secret-o",
            audience=NEXT, transport=self.fake.transport, clock=self.fake.clock, retries=0,
        )  # fmt: skip
        self.next = httpx.MockTransport(self._answer)
        self.calls = 0

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        token = request.headers["authorization"].removeprefix("Bearer ")
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims["aud"] == NEXT
        return httpx.Response(200, text=f"{claims['sub']} by {claims['act']['sub']}")

    def sign_in(self, user: str) -> str:
        grant = Grant(
            client_id="web", subject=user, scopes=("read",), audiences=(API,), token_format="jwt", lifetime=600
        )
        return self.fake.authority.issue(grant).token

    def call(self) -> tuple[str, int]:
        """Call the next API. Return the text and the status of the response to the user."""
        try:
            with httpx.Client(transport=self.next, auth=self.exchange) as client:
                return client.get(NEXT).text, 200
        except TokenExchangeRefused as error:
            return str(error.error), 403
        except TokenEndpointUnavailable:
            return "unavailable", 503

    async def acall(self) -> tuple[str, int]:
        """:meth:`call` in an event loop."""
        try:
            async with httpx.AsyncClient(transport=self.next, auth=self.exchange) as client:
                return (await client.get(NEXT)).text, 200
        except TokenExchangeRefused as error:
            return str(error.error), 403
        except TokenEndpointUnavailable:
            return "unavailable", 503


def _call_in_loop(app: Any, backend: str) -> Send:
    def send(token: str) -> Answered:
        exchange = Exchange(headers=((b"authorization", f"Bearer {token}".encode()),), target="/")
        return anyio.run(call_asgi, app, exchange, backend=backend)

    return send


def _asgi(world: World, backend: str) -> Send:
    async def answer(_: Request) -> PlainTextResponse:
        return PlainTextResponse(*await world.acall())

    return _call_in_loop(asgi.GuardMiddleware(Starlette(routes=[Route("/", answer)]), guard=world.guard), backend)


def _thread(world: World, backend: str) -> Send:
    def answer(_: Request) -> PlainTextResponse:
        return PlainTextResponse(*world.call())

    return _call_in_loop(asgi.GuardMiddleware(Starlette(routes=[Route("/", answer)]), guard=world.guard), backend)


def _call_blocking(app: Any) -> Send:
    return lambda token: call_wsgi(app, Exchange(headers=((b"authorization", f"Bearer {token}".encode()),), target="/"))


def _wsgi(world: World, _: str) -> Send:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        text, status = world.call()
        start_response(f"{status} x", [("content-type", "text/plain")])
        return [text.encode()]

    return _call_blocking(wsgi.GuardMiddleware(app, guard=world.guard))


def _flask(world: World, _: str) -> Send:
    app = flask.Flask("api")
    ScopeGuard(app, guard=world.guard)
    app.add_url_rule("/", "call", world.call)
    app.add_url_rule("/async", "acall", world.acall)
    return _call_blocking(app)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(
    params=[(_asgi, "asyncio"), (_asgi, "trio"), (_thread, "asyncio"), (_thread, "trio"), (_wsgi, ""), (_flask, "")],
    ids=lambda param: f"{param[0].__name__.strip('_')} {param[1]}".strip(),
)
def send(request: pytest.FixtureRequest, world: World) -> Send:
    make, backend = request.param
    made: Send = make(world, backend)
    return made


def test_each_user_is_seen_by_the_next_api(world, send):
    ann, bob = world.sign_in("ann"), world.sign_in("bob")
    for token, name in ((ann, "ann"), (bob, "bob")) * 3:
        response = send(token)
        assert (response.status, response.body.decode()) == (200, f"{name} by orders")
    assert world.fake.requests.count(f"{world.fake.url}/token") == 2


def test_a_token_that_is_revoked_in_between_is_neither_exchanged_nor_used(world, send):
    """By this API, where a cached token for the next API exists; and by the authorization server, where none exists."""
    ann, bob = world.sign_in("ann"), world.sign_in("bob")
    assert send(ann).status == 200
    world.guard.revoke(token=ann)
    assert send(ann).status == 401
    world.fake.authority.tokens.revoke(bob)  # the guard verifies JWTs itself, so it does not know
    response = send(bob)
    assert (response.status, response.body.decode()) == (403, "invalid_request")
    assert world.calls == 1


def test_an_expired_token_is_refused_before_any_exchange(world, send):
    ann = world.sign_in("ann")
    assert send(ann).status == 200
    world.fake.clock.advance(700)
    assert send(ann).status == 401
    assert world.calls == 1


def test_an_outage_is_unavailable_for_users_without_a_cached_token_only(world, send):
    ann, bob = world.sign_in("ann"), world.sign_in("bob")
    assert send(ann).status == 200
    with world.fake.outage():
        assert send(ann).body.decode() == "ann by orders"
        assert send(bob).status == 503
    world.fake.clock.advance(60)
    assert send(bob).body.decode() == "bob by orders"

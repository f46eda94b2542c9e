"""The text of the inbound token: held for the request only, for an exchange only, and never for another request."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from typing import Any

import anyio
import fastapi
import flask
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from scopeguard import (
    AccessToken,
    ConfigurationError,
    Guard,
    InboundToken,
    Introspection,
    Issuer,
    Rule,
    access_token,
    asgi,
    inbound_token,
    wsgi,
)
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard
from scopeguard.guard import engine_of
from scopeguard.inbound_tokens import (
    hand_over,
    inbound_token_or_none,
    text_for_exchange,
    to_serve,
)
from scopeguard.testing import FakeAuthority
from scopeguard.tokens import begin_serving, end_serving

API = "https://api.example.com"
KEEPS: dict[str, Any] = {"keep_token_for_exchange": True}
Sender = Callable[..., httpx.Response]


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority(audience=API, scopes=["read", "write"])


def guard_of(authority: FakeAuthority, **settings: Any) -> Guard:
    return Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off", **settings)


def read_text() -> str:
    """Return the text that the app reads, or the kind of error."""
    try:
        return text_for_exchange(inbound_token())
    except ConfigurationError as error:
        return "dropped" if "keep_token_for_exchange" in str(error) else "no token"


def _send_async(app: Any) -> Sender:
    def send(path: str = "/", **options: Any) -> httpx.Response:
        async def main() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=API) as client:
                return await client.get(path, **options)

        return anyio.run(main)

    return send


def _send_blocking(app: Any) -> Sender:
    def send(path: str = "/", **options: Any) -> httpx.Response:
        with httpx.Client(transport=httpx.WSGITransport(app=app), base_url=API) as client:
            return client.get(path, **options)

    return send


def _asgi(guard: Guard) -> Sender:
    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(read_text())

    routes = [Route("/{path:path}", answer)]
    return _send_async(asgi.GuardMiddleware(Starlette(routes=routes), guard=guard, public=["/public"]))


def _asgi_thread(guard: Guard) -> Sender:
    def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(read_text())

    routes = [Route("/{path:path}", answer)]
    return _send_async(asgi.GuardMiddleware(Starlette(routes=routes), guard=guard, public=["/public"]))


def _wsgi(guard: Guard) -> Sender:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("content-type", "text/plain")])
        return [read_text().encode()]

    return _send_blocking(wsgi.GuardMiddleware(app, guard=guard, public=["/public"]))


def _fastapi_app(guard: Guard) -> fastapi.FastAPI:
    protected, app = Protected(guard), fastapi.FastAPI()

    @app.get("/", dependencies=[fastapi.Depends(protected)])
    async def own() -> PlainTextResponse:
        return PlainTextResponse(read_text())

    @app.get("/public")
    async def public() -> PlainTextResponse:
        return PlainTextResponse(read_text())

    return app


def _fastapi(guard: Guard) -> Sender:
    return _send_async(_fastapi_app(guard))


def _fastapi_behind(guard: Guard) -> Sender:
    return _send_async(asgi.GuardMiddleware(_fastapi_app(guard), guard=guard, public=["/public"]))


def _flask_app(guard: Guard) -> flask.Flask:
    app = flask.Flask("api")
    ScopeGuard(app, guard=guard, public=["/public"])
    app.add_url_rule("/", "own", read_text)
    app.add_url_rule("/public", "public", read_text)
    return app


def _flask(guard: Guard) -> Sender:
    return _send_blocking(_flask_app(guard))


def _flask_behind(guard: Guard) -> Sender:
    return _send_blocking(wsgi.GuardMiddleware(_flask_app(guard), guard=guard, public=["/public"]))


DOORS = [_asgi, _asgi_thread, _wsgi, _fastapi, _fastapi_behind, _flask, _flask_behind]


@pytest.fixture(params=DOORS, ids=lambda door: door.__name__.strip("_"))
def door(request: pytest.FixtureRequest) -> Callable[[Guard], Sender]:
    made: Callable[[Guard], Sender] = request.param
    return made


def test_the_app_of_a_request_finds_the_text_of_this_request(door, authority):
    """Cold and cached, in turns with another user, in the same thread: each request has its own text."""
    send = door(guard_of(authority, **KEEPS))
    tokens = [authority.mint("read", subject=name) for name in ("ann", "bob")]
    for _ in range(3):
        for token in tokens:
            assert send(headers={"authorization": f"Bearer {token}"}).text == token
            assert send("/public").text == "no token"


def test_an_opaque_token_is_held_too(door, authority):
    asks = Introspection(client_id=authority.api.client_id, client_secret=authority.api.secret)
    issuer = Issuer(authority.url, audience=API, validate="introspection", introspection=asks)
    send = door(Guard(issuer, transport=authority.transport, clock=authority.clock, audit="off", **KEEPS))
    token = authority.mint("read", token_format="opaque")
    assert [send(headers={"authorization": f"Bearer {token}"}).text for _ in range(2)] == [token, token]


def test_guard_drops_the_text_unless_a_setting_keeps_it(door, authority):
    send = door(guard_of(authority))
    assert [send(headers=authority.bearer("read")).text for _ in range(3)] == ["dropped"] * 3


def test_nothing_is_left_after_a_request(authority):
    """In the thread of the request, where the next request may be public or fail."""
    send = _wsgi(guard_of(authority, rules=[Rule("/", "write")], **KEEPS))
    assert send(headers=authority.bearer("write")).status_code == 200
    assert to_serve(None) is None
    assert inbound_token_or_none() is None
    assert send(headers=authority.bearer("read")).status_code == 403
    token = AccessToken(
        issuer="https://as.example", subject=None, client_id=None, audience=(), scopes=frozenset(),
        granted_scopes=None, expires_at=None, claims={},
    )  # fmt: skip
    assert to_serve(token) is token


def _inbound(**settings: Any) -> InboundToken:
    authority = FakeAuthority(audience=API)
    found: list[InboundToken] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        found.append(inbound_token())
        start_response("200 OK", [])
        return []

    guarded = wsgi.GuardMiddleware(app, guard=guard_of(authority, **settings))
    with httpx.Client(transport=httpx.WSGITransport(app=guarded), base_url=API) as client:
        client.get("/", headers={"authorization": f"Bearer {authority.mint()}"})
    return found[0]


@pytest.mark.rule("N-05", "G-27", "MC-12")
def test_the_text_is_not_revealed_to_the_app():
    inbound = _inbound(**KEEPS)
    with pytest.raises(ConfigurationError, match="forward_token_dangerously"):
        _ = inbound.text
    text = text_for_exchange(inbound)
    shown = [repr(inbound), str(inbound), f"{inbound}", repr(vars(type(inbound))), repr([inbound])]
    assert not any(text in each for each in shown)
    assert repr(inbound) == f"InboundToken({inbound.access_token.fingerprint})"


@pytest.mark.rule("N-05")
def test_only_the_dangerous_setting_reveals_the_token_and_warns(caplog):
    caplog.set_level(logging.WARNING)
    inbound = _inbound(forward_token_dangerously=True)
    assert inbound.text == text_for_exchange(inbound)
    (line,) = [record.getMessage() for record in caplog.records if "forward_token" in record.getMessage()]
    assert line.startswith("forward_token_dangerously: ")
    assert inbound.text not in caplog.text


@pytest.mark.parametrize("spread", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_inbound_token_cannot_be_pickled_or_copied(spread):
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        spread(_inbound(**KEEPS))


def test_the_text_of_another_token_never_replaces_the_current_one():
    """The two are bound by identity: a text that was left behind is dropped."""
    mine, other = _inbound(**KEEPS), _inbound(**KEEPS)
    hand_over(other)
    assert to_serve(mine.access_token) is mine.access_token
    assert to_serve(other.access_token) is other.access_token, "it was dropped"
    before = begin_serving(mine)
    try:
        assert inbound_token() is mine
        hand_over(other)
        assert to_serve(mine.access_token) is mine, "an outer layer serves the same token"
        assert access_token() is mine.access_token
    finally:
        end_serving(before)


def test_outside_a_request_and_for_anonymous_callers_there_is_none():
    with pytest.raises(ConfigurationError, match="no access token here"):
        inbound_token()


def test_decisions_and_the_state_of_a_request_have_no_text(authority):
    decisions: list[Any] = []
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append({name: value for name, value in scope.items() if name != "headers"})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guard = guard_of(authority, on_decision=decisions.append, **KEEPS)
    send = _send_async(asgi.GuardMiddleware(app, guard=guard))
    token = authority.mint("read")
    for _ in range(3):
        send(headers={"authorization": f"Bearer {token}"})
    assert token not in repr(decisions) + repr(scopes)
    assert not [item for scope in scopes for item in scope["state"].values() if isinstance(item, InboundToken)]


@pytest.mark.parametrize("name", ["keep_token_for_exchange", "forward_token_dangerously"])
def test_both_settings_can_be_in_the_file(tmp_path, name):
    file = tmp_path / "scopeguard.toml"
    issuer = f'[[issuers]]\nurl = "https://as.example"\naudience = "{API}"\n'
    for value in ("true", "false"):
        file.write_text(f"{name} = {value}\n{issuer}", "utf-8")
        assert engine_of(Guard.from_file(str(file))).keeps_inbound is (value == "true")
    file.write_text(issuer, "utf-8")
    assert engine_of(Guard.from_file(str(file))).keeps_inbound is False
